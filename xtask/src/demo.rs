//! `demo`: the whole of it without a network, in names and ports of its own, gone at the end.

use std::time::Duration;

use camino::Utf8PathBuf;
use serde_json::json;

use crate::app::App;
use crate::cli::Up;
use crate::config::Mirror;
use crate::docker;
use crate::error::{Error, Result};
use crate::exec::Runner;
use crate::node::Node;
use crate::sample::{Image, Kind};
use crate::stage::{Stage, gone};
use crate::tool::Tool;
use crate::traffic::Traffic;
use crate::{cache, engine, observe, registry, report, sample, status};

const MIB: usize = 1024 * 1024;
/// What is pulled: host, repository and media types; the layers are the same sizes for all.
const IMAGES: [(&str, &str, Kind); 3] = [
    ("docker.io", "library/demo", Kind::Oci),
    ("registry.k8s.io", "demo/controller", Kind::Docker),
    ("ghcr.io", "siderolabs/demo", Kind::Oci),
];
const LAYERS: [usize; 3] = [8 * MIB, 4 * MIB, MIB];

/// One round of pulls.
#[derive(serde::Serialize)]
struct Round {
    name: &'static str,
    seconds: Vec<f64>,
    figures: Traffic,
}

/// Shows the caches at work: an upstream, the proxies in front of it, a cold and a warm pull by a real containerd, and
/// a pull with the upstream gone.
///
/// # Errors
/// There is no engine, no image or no containerd, or a pull fails.
pub fn demo(app: &App) -> Result<()> {
    if app.dry_run {
        return app.print(
            || {
                "would start a registry, three proxies and a containerd, pull three images, and remove it all\n"
                    .to_owned()
            },
            || json!({ "images": IMAGES.map(|(host, repository, _)| format!("{host}/{repository}:v1")) }),
        );
    }
    let rounds = play(app).map_err(gone)?;
    app.print(|| table(&rounds), || json!({ "rounds": rounds }))
}

fn play(app: &App) -> Result<[Round; 3]> {
    // A node unpacks as root; whoever is to be asked for a password is asked before anything is made.
    Tool::Containerd.require()?;
    engine::authorize(&app.processes)?;
    let stage = Stage::new(app, "demo", &IMAGES.map(|(host, ..)| host), "local")?;
    push(&stage)?;
    let say = |text: &str| app.term.step(text);
    say("an upstream with three images is up; now a proxy for each host");
    let mirrors = stage.app.config.mirrors.clone();
    cache::bring_up(&stage.app, &mirrors, &Up::default())?;
    let node = Node::start(&app.processes, &stage.folder.join("node"))?;
    let hosts = hosts(&stage)?;
    let pull = |name, before: Traffic| -> Result<Round> {
        let seconds = IMAGES.iter().map(|(host, repository, _)| {
            let image = format!("{host}/{repository}:v1");
            stage.app.processes.go_on()?;
            let took = node.pull(&hosts, &image)?;
            node.forget(&image)?;
            Ok(took.as_secs_f64())
        });
        let seconds = seconds.collect::<Result<_>>()?;
        Ok(Round { name, seconds, figures: settled(&stage, &mirrors)?.since(before) })
    };
    say("containerd pulls all three for the first time");
    let cold = pull("cold", Traffic::default())?;
    say("it forgets them, and pulls them again");
    let warm = pull("warm", cold.figures)?;
    let stop = docker::stop(std::slice::from_ref(&stage.upstream));
    app.processes.run(&stop)?.checked(&stop, "")?;
    say("the upstream is stopped, and it pulls them once more");
    let without = pull("without upstream", cold.figures.plus(warm.figures))?;
    drop(node);
    app.processes.go_on()?;
    Ok([cold, warm, without])
}

/// Puts the images in the upstream.
fn push(stage: &Stage) -> Result<()> {
    for (host, repository, kind) in IMAGES {
        // A node takes its own platform out of the index.
        let images = ["amd64", "arm64"].map(|architecture| Image::new(kind, architecture, host, &LAYERS));
        let images: Vec<Image> = images.into_iter().collect::<Result<_>>()?;
        stage.app.processes.go_on()?;
        sample::push_index(&images, kind, &stage.address, repository, "v1")?;
    }
    Ok(())
}

/// A folder of `hosts.toml` files, as a node's containerd is given.
fn hosts(stage: &Stage) -> Result<Utf8PathBuf> {
    let folder = stage.folder.join("hosts");
    for mirror in &stage.app.config.mirrors {
        let of = folder.join(&mirror.host);
        let at = registry::address(mirror, stage.app.config.bind);
        // The mirror alone: a demonstration that could fall back to the real registry would prove nothing.
        let text =
            format!("server = \"http://{at}\"\n[host.\"http://{at}\"]\ncapabilities = [\"pull\", \"resolve\"]\n");
        std::fs::create_dir_all(&of)
            .and_then(|()| std::fs::write(of.join("hosts.toml"), text))
            .map_err(Error::io(format!("write {of}/hosts.toml")))?;
    }
    Ok(folder)
}

/// The figures of all proxies together, once they stand still: registry 2 stores a blob after the client has it.
fn settled(stage: &Stage, mirrors: &[Mirror]) -> Result<Traffic> {
    let look = || -> Result<Traffic> {
        let observed = observe::look(&stage.app.processes, &stage.app.config, mirrors)?;
        let figures = status::figures(&stage.app.processes, mirrors, &observed)?;
        Ok(figures.into_values().filter_map(|figures| figures.traffic).fold(Traffic::default(), Traffic::plus))
    };
    let mut last = look()?;
    for _ in 0..40 {
        stage.app.processes.go_on()?;
        std::thread::sleep(Duration::from_millis(150));
        let now = look()?;
        if now == last {
            break;
        }
        last = now;
    }
    Ok(last)
}

fn table(rounds: &[Round]) -> String {
    let row = |Round { name, seconds, figures }: &Round| {
        let count = |count: u64| count.to_string();
        let seconds: f64 = seconds.iter().sum();
        [
            (*name).to_owned(),
            format!("{seconds:.2} s"),
            count(figures.requests),
            count(figures.hits),
            count(figures.misses),
            report::bytes(figures.bytes_to_clients),
            report::bytes(figures.bytes_from_upstream),
        ]
    };
    let head = ["PULLS", "TIME", "REQUESTS", "HITS", "MISSES", "TO NODE", "FROM UPSTREAM"];
    report::table(head, rounds.iter().map(row))
}
