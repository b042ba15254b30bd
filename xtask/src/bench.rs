//! `bench`: this tool against the guide's own commands, on this machine, in names and ports of its own.

use std::time::Instant;

use serde_json::json;

use crate::app::App;
use crate::config::Mirror;
use crate::docker::{self, Mode};
use crate::error::{Error, Finding, Result};
use crate::exec::{Cmd, Runner};
use crate::stage::{Stage, gone};
use crate::{config, container, observe, report, settings};

/// One thing that was measured: its name, and how long it took, round by round.
#[derive(serde::Serialize)]
struct Measure {
    what: &'static str,
    guide: Vec<f64>,
    this: Vec<f64>,
}

impl Measure {
    fn median(times: &[f64]) -> f64 {
        let mut times = times.to_vec();
        times.sort_by(f64::total_cmp);
        times.get(times.len() / 2).copied().unwrap_or_default()
    }
}

/// Times the guide's five `docker run`, one `docker container inspect` and five `docker rm -f` against this program's
/// `cache-up`, a second `cache-up` and `cache-clean`, in turn, and shows the medians.
///
/// # Errors
/// There is no engine or no image, or a command fails.
pub fn bench(app: &App, rounds: usize) -> Result<()> {
    if app.dry_run {
        let text = "would start a registry and, in turn, five proxies by the guide's commands and by this program";
        return app.print(|| format!("{text}, and remove it all\n"), || json!({ "rounds": rounds }));
    }
    let measures = measure(app, rounds).map_err(gone)?;
    app.print(|| table(&measures), || json!({ "seconds": measures }))
}

fn measure(app: &App, rounds: usize) -> Result<[Measure; 3]> {
    let stage = Stage::new(app, "bench", &settings::hosts().take(settings::GUIDE).collect::<Vec<_>>(), "all")?;
    let program = std::env::current_exe().map_err(Error::io("find this program"))?;
    let this = |task: &[&str]| {
        let file = stage.folder.join(config::FILE);
        let cmd = Cmd::write(program.to_string_lossy()).args(["-q", "--config", file.as_str()]);
        vec![cmd.args(task.iter().copied())]
    };
    let mirrors = &stage.app.config.mirrors;
    let names: Vec<String> = mirrors.iter().map(|mirror| mirror.name.clone()).collect();
    let mut measures =
        ["cold start", "nothing to do", "removal"].map(|what| Measure { what, guide: Vec::new(), this: Vec::new() });
    let bar = app.term.waiting("measuring");
    for round in 1..=rounds {
        bar.set_message(format!("round {round} of {rounds}"));
        let guide = [
            mirrors.iter().map(guide_run).collect(),
            vec![docker::inspect(&names)],
            names.iter().map(|name| Cmd::write("docker").args(["rm", "-f", name])).collect(),
        ];
        let mut orphans = Vec::new();
        for (measure, commands) in measures.iter_mut().zip(&guide) {
            if measure.what == "removal" {
                orphans = stores(app, &names)?;
            }
            measure.guide.push(time(app, commands)?);
        }
        time(app, &[docker::remove_volumes(&orphans)])?;
        for (measure, task) in measures.iter_mut().zip([&["cache-up"][..], &["cache-up"], &["cache-clean"]]) {
            measure.this.push(time(app, &this(task))?);
            if task == ["cache-up"] {
                all_are_proxies(&stage)?;
            }
        }
    }
    drop(bar);
    Ok(measures)
}

/// A time is worth something only where the work was done: a proxy whose upstream is gone starts another way.
fn all_are_proxies(stage: &Stage) -> Result<()> {
    let observed = observe::look(&stage.app.processes, &stage.app.config, &stage.app.config.mirrors)?;
    let proxies = observed.containers.values().filter(|container| container.mode() == Mode::Proxy).count();
    if proxies == stage.app.config.mirrors.len() && observed.answering.len() == proxies {
        return Ok(());
    }
    let problem = "Some proxies did not answer; nothing was timed";
    Err(Error::Blocked(vec![Finding::new("bench", problem, "run it again")]))
}

/// The volumes that the guide's clean-up leaves behind.
fn stores(app: &App, names: &[String]) -> Result<Vec<String>> {
    let output = app.processes.run(&docker::inspect(names))?;
    let containers = container::containers(&output.stdout)?;
    Ok(containers.iter().filter_map(|container| container.store().map(str::to_owned)).collect())
}

fn guide_run(mirror: &Mirror) -> Cmd {
    Cmd::write("docker")
        .args(["run", "-d", "-p", &format!("{}:5000", mirror.port), "-e"])
        .arg(format!("{}={}", docker::REMOTE, mirror.upstream))
        .args(["--restart", "always", "--name", &mirror.name, &mirror.image])
}

/// Seconds that commands take one after the other.
fn time(app: &App, commands: &[Cmd]) -> Result<f64> {
    let started = Instant::now();
    for cmd in commands {
        app.processes.go_on()?;
        app.processes.run(cmd)?.checked(cmd, "see what it says; the times so far are lost")?;
    }
    Ok(started.elapsed().as_secs_f64())
}

fn table(measures: &[Measure]) -> String {
    let row = |Measure { what, guide, this }: &Measure| {
        let (guide, this) = (Measure::median(guide), Measure::median(this));
        [(*what).to_owned(), format!("{guide:.3} s"), format!("{this:.3} s"), format!("{:.2}", this / guide)]
    };
    report::table(["WHAT", "GUIDE", "THIS", "RATIO"], measures.iter().map(row))
}
