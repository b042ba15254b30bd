//! `onboard`: from a machine that has only Rust and git to caches that answer.

use std::collections::BTreeSet;
use std::io::{BufRead, IsTerminal};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use serde_json::json;

use crate::app::App;
use crate::cli::Up;
use crate::engine::Need;
use crate::error::{Error, FAILED, Result};
use crate::exec::{Cmd, Runner};
use crate::{cache, engine, image, report};

/// Makes sure of an engine, brings the caches up, and says what to run next.
///
/// # Errors
/// There is no engine and none can be had, the user says no, or the caches do not come up.
pub fn onboard(app: &App, yes: bool, up: &Up) -> Result<()> {
    let mut needs = engine::needs(&app.processes)?;
    let lines = would(app, &needs, up)?;
    if app.dry_run {
        let text = || match &lines[..] {
            [] => "nothing to do\n".to_owned(),
            lines => lines.iter().map(|line| format!("would {line}\n")).collect(),
        };
        return app.print(text, || json!({ "would": lines }));
    }
    if !lines.is_empty() && !yes && !agreed(app, &lines)? {
        return Err(Error::Tool {
            problem: "nothing was installed, started or created".to_owned(),
            fix: "run it with --yes, or bring up by hand what you want of it".to_owned(),
        });
    }
    engine::provide(&app.processes, app.term, &needs)?;
    if engine::is_denied(&app.processes)? {
        if !needs.contains(&Need::Join) {
            needs.push(Need::Join);
            engine::provide(&app.processes, app.term, &[Need::Join])?;
        }
        return in_the_group(app);
    }
    cache::up(app, &[], up)?;
    if !app.json {
        app.term.step("next: `cargo xtask cluster --docker` makes a cluster that uses them; `cache-status` shows them");
    }
    Ok(())
}

/// Everything that would be done, as lines that go behind "would".
fn would(app: &App, needs: &[Need], up: &Up) -> Result<Vec<String>> {
    let mut lines: Vec<String> = needs.iter().map(|need| need.line()).collect();
    if !needs.is_empty() {
        let hosts: Vec<&str> = app.config.mirrors.iter().map(|mirror| mirror.host.as_str()).collect();
        lines.push(format!("get the registry image, and create a proxy for {}", hosts.join(", ")));
        return Ok(lines);
    }
    let plan = cache::plan(app, &app.config.mirrors, up)?;
    let made = app.config.mirrors.iter().filter(|mirror| plan.makes(&mirror.host));
    let images: BTreeSet<&str> = made.map(|mirror| mirror.image.as_str()).collect();
    let absent = image::absent(&app.processes, &images)?;
    lines.extend(absent.into_iter().map(|image| format!("pull {image}, or load or assemble it where that fails")));
    lines.extend(plan.steps.iter().map(report::would));
    Ok(lines)
}

fn agreed(app: &App, lines: &[String]) -> Result<bool> {
    app.term.warn(&format!("this would\n{}", lines.iter().map(|line| format!("  {line}\n")).collect::<String>()));
    if !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    app.term.ask("go on? [y/N]");
    let (tell, told) = std::sync::mpsc::channel();
    // A read goes on after a signal, so that another thread does it, and ends with the process.
    std::thread::spawn(move || {
        let mut answer = String::new();
        let _ = tell.send(std::io::stdin().lock().read_line(&mut answer).map(|_| answer));
    });
    loop {
        match told.recv_timeout(Duration::from_millis(50)) {
            Ok(answer) => {
                let answer = answer.map_err(Error::io("read the answer"))?;
                return Ok(matches!(answer.trim(), "y" | "Y" | "yes"));
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(false),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if let Some(signal) = app.processes.interrupted() {
            let left = "nothing was installed, started or created".to_owned();
            return Err(Error::Interrupted { signal, left });
        }
    }
}

/// Goes on in a session that has the group which was joined just now; this one has not.
fn in_the_group(app: &App) -> Result<()> {
    let program = std::env::current_exe().map_err(Error::io("find this program"))?;
    let this = Cmd::write(program.to_string_lossy()).args(std::env::args().skip(1)).shell();
    let cmd = Cmd::write("sg").args(["docker", "-c", &this]).inheriting_secrets();
    let fix = "log in again, so that the group docker is yours, and run this again";
    if app.processes.run(&Cmd::read("sg").args(["docker", "-c", "docker version"]))?.ok() {
        match app.processes.answering(&cmd)?.code {
            Some(0) => {}
            // It has said what failed, on this terminal and in this task's words.
            code => return Err(Error::Ended { code: code.and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILED) }),
        }
        app.term.step("log in again before you use docker yourself: the group docker is yours from then on");
        return Ok(());
    }
    Err(Error::Tool { problem: "this user may not use the engine yet".to_owned(), fix: fix.to_owned() })
}
