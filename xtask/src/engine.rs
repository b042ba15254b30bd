//! A working engine: the one that answers, or on Debian and Ubuntu one that is installed and started.

use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::exec::{Cmd, Processes, Runner};
use crate::term::Term;
use crate::tool::Tool;

/// Where a `dockerd` that this tool started writes its log.
pub const LOG: &str = "/var/log/talos-cache-dockerd.log";
const START_PATIENCE: Duration = Duration::from_secs(60);

/// What has to be done before an engine answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Install packages.
    Install(&'static [&'static str]),
    /// Start the engine.
    Start,
    /// Add the user to the group that may use the engine.
    Join,
}

impl Need {
    /// It, as a line of what would be done.
    pub fn line(self) -> String {
        match self {
            Self::Install(packages) => format!("install with apt: {}", packages.join(", ")),
            Self::Start if systemd() => "start the engine: systemctl start docker".to_owned(),
            Self::Start => format!("start the engine: dockerd, detached, its log in {LOG}"),
            Self::Join => format!("add {} to the group docker, which may use the engine", user()),
        }
    }
}

fn systemd() -> bool {
    std::path::Path::new("/run/systemd/system").exists() && Tool::Systemctl.path().is_some()
}

/// What the engine that the environment names does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Answers,
    /// It is there, and this user may not use it.
    Denied,
    Silent,
}

fn ask(runner: &dyn Runner) -> Result<Asked> {
    if Tool::Docker.path().is_none() {
        return Ok(Asked::Silent);
    }
    let output = runner.run(&crate::docker::version())?;
    let denied = String::from_utf8_lossy(&output.stderr).contains("permission denied");
    Ok(match (output.ok(), denied) {
        (true, _) => Asked::Answers,
        (false, true) => Asked::Denied,
        (false, false) => Asked::Silent,
    })
}

fn user() -> String {
    std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_else(|_| "this user".to_owned())
}

/// What is needed before an engine answers; empty when one does.
///
/// # Errors
/// There is none and this is neither Debian nor Ubuntu, or the engine that DOCKER_HOST or a context names is somebody else's to start.
pub fn needs(runner: &dyn Runner) -> Result<Vec<Need>> {
    match ask(runner)? {
        Asked::Answers => return Ok(Vec::new()),
        Asked::Denied => return Ok(vec![Need::Join]),
        Asked::Silent => {}
    }
    crate::endpoint::not_named()?;
    let mut needs = Vec::new();
    if Tool::Dockerd.path().is_none() || Tool::Docker.path().is_none() {
        if Tool::AptGet.path().is_none() {
            return Err(Error::Tool {
                problem: "no Docker engine is installed, and this system has no apt".to_owned(),
                fix: "install one: https://docs.docker.com/engine/install/".to_owned(),
            });
        }
        // Newer releases have the client in a package of its own.
        let client = Tool::Docker.path().is_none() && has_package(runner, "docker-cli")?;
        needs.push(Need::Install(if client {
            &["docker.io", "docker-cli", "iptables"]
        } else {
            &["docker.io", "iptables"]
        }));
    }
    needs.push(Need::Start);
    Ok(needs)
}

fn has_package(runner: &dyn Runner, name: &str) -> Result<bool> {
    Ok(runner.run(&Cmd::read("apt-cache").args(["show", name]))?.ok())
}

/// Whether this process is root's.
///
/// # Errors
/// `id` cannot be started.
pub fn is_root(runner: &dyn Runner) -> Result<bool> {
    Ok(runner.run(&Cmd::read("id").arg("-u"))?.text().trim() == "0")
}

/// A command as root, to be run on this terminal: as it is for root, with sudo, which may ask there, for others.
///
/// # Errors
/// Neither root nor sudo.
pub fn as_root(runner: &dyn Runner, args: &[&str]) -> Result<Cmd> {
    under_sudo(runner, args, &[])
}

/// The same for a command whose output is kept: sudo fails where it would have to ask, since nobody would see it ask.
/// [`authorize`] comes before it.
///
/// # Errors
/// Neither root nor sudo.
pub fn as_root_unasked(runner: &dyn Runner, args: &[&str]) -> Result<Cmd> {
    under_sudo(runner, args, &["-n"])
}

fn under_sudo(runner: &dyn Runner, args: &[&str], options: &[&str]) -> Result<Cmd> {
    if is_root(runner)? {
        return Ok(Cmd::write(args[0]).args(args[1..].iter().copied()));
    }
    Ok(Cmd::write(Tool::Sudo.require()?).args(options.iter().chain(args).copied()))
}

/// Installs packages with apt; those that are there already cost nothing.
///
/// # Errors
/// apt fails.
pub fn install(processes: &Processes, packages: &[&str]) -> Result<()> {
    let fix = "mend what apt names, then run this again";
    let update = as_root(processes, &["apt-get", "-qq", "update"])?;
    processes.attached(&update)?.checked(&update, fix)?;
    let mut args =
        vec!["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-y", "install", "--no-install-recommends"];
    args.extend(packages);
    let cmd = as_root(processes, &args)?;
    processes.attached(&cmd)?.checked(&cmd, fix).map(|_| ())
}

/// Makes sure that commands run as root need no password for a while, by asking for it on this terminal.
///
/// # Errors
/// Neither root nor sudo, or sudo says no.
pub fn authorize(processes: &Processes) -> Result<()> {
    if is_root(processes)? {
        return Ok(());
    }
    let cmd = Cmd::write(Tool::Sudo.require()?).arg("-v");
    processes.attached(&cmd)?.checked(&cmd, "this needs root: run it as a user who may use sudo").map(|_| ())
}

/// Does what is needed, and waits until the engine answers.
///
/// # Errors
/// A package cannot be installed, or the engine does not answer within a minute; its last log lines are shown.
pub fn provide(processes: &Processes, term: Term, needs: &[Need]) -> Result<()> {
    for need in needs {
        match need {
            Need::Install(packages) => install(processes, packages)?,
            Need::Start => start(processes, term)?,
            Need::Join => {
                let cmd = as_root(processes, &["usermod", "--append", "--groups", "docker", &user()])?;
                processes.attached(&cmd)?.checked(&cmd, "add yourself to the group docker by hand")?;
            }
        }
    }
    Ok(())
}

/// Whether this user may not use the engine in this session: the membership of a group begins with the next one.
///
/// # Errors
/// The client cannot be started.
pub fn is_denied(runner: &dyn Runner) -> Result<bool> {
    Ok(ask(runner)? == Asked::Denied)
}

fn start(processes: &Processes, term: Term) -> Result<()> {
    if ask(processes)? != Asked::Silent {
        return Ok(());
    }
    let cmd = if systemd() {
        as_root(processes, &["systemctl", "start", "docker"])?
    } else {
        // Detached with a log of its own: it outlives this task and holds none of its output open.
        let script = format!("setsid dockerd >>{LOG} 2>&1 </dev/null &");
        as_root(processes, &["sh", "-c", &script])?
    };
    processes.attached(&cmd)?.checked(&cmd, "start the engine by hand, and read what it says")?;
    let bar = term.waiting("waiting for the engine");
    let started = Instant::now();
    while ask(processes)? == Asked::Silent {
        if let Some(signal) = processes.interrupted() {
            return Err(Error::Interrupted { signal, left: "the engine is still starting".to_owned() });
        }
        if started.elapsed() > START_PATIENCE {
            let log = if systemd() { String::new() } else { std::fs::read_to_string(LOG).unwrap_or_default() };
            return Err(Error::Command {
                command: cmd.shell(),
                status: format!("no engine that answers after {} s", START_PATIENCE.as_secs()),
                seen: crate::exec::tail(&log, 8),
                fix: if systemd() { "read `journalctl -u docker`".to_owned() } else { format!("read {LOG}") },
            });
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    drop(bar);
    Ok(())
}
