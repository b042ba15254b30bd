//! `cache-down`: stops proxies. Success is that none of them runs afterwards, whoever stopped or removed it.

use std::time::Duration;

use serde_json::json;

use crate::app::App;
use crate::cache::{only_printed, ours, say};
use crate::config::{Config, Mirror};
use crate::docker;
use crate::error::{Error, Finding, Result};
use crate::exec::{Cmd, Output, Runner};
use crate::observe;

/// How often to stop what still runs.
const TRIES: usize = 5;
/// How long another terminal is given between two tries.
const PAUSE: Duration = Duration::from_millis(400);

/// `cache-down`.
///
/// # Errors
/// The engine does not answer, or a proxy still runs after several tries.
pub fn down(app: &App, hosts: &[String]) -> Result<()> {
    let mirrors = app.config.select(hosts)?;
    let down = Down { runner: &app.processes, config: &app.config, mirrors: &mirrors };
    let running = down.running()?;
    let commands: Vec<Cmd> = Some(docker::stop(&running)).filter(|_| !running.is_empty()).into_iter().collect();
    if only_printed(app, &commands)? {
        return Ok(());
    }
    let stopped = down.stop(running)?;
    let Stopped { stopped, removed } = &stopped;
    let mut words = Vec::new();
    if !stopped.is_empty() {
        words.push(format!("stopped {}; what they cached is kept", stopped.join(", ")));
    }
    if !removed.is_empty() {
        words.push(format!("removed meanwhile by another command: {}", removed.join(", ")));
    }
    let text = if words.is_empty() { "nothing to stop".to_owned() } else { words.join("; ") };
    say(app, &text, || json!({ "stopped": stopped, "removed_meanwhile": removed }))
}

/// What became of proxies that ran.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Stopped {
    /// Those that are there and do not run.
    pub stopped: Vec<String>,
    /// Those that another command has removed meanwhile.
    pub removed: Vec<String>,
}

/// What is to be stopped.
pub struct Down<'a> {
    /// Starts the commands.
    pub runner: &'a dyn Runner,
    /// The settings in force.
    pub config: &'a Config,
    /// The mirrors to stop.
    pub mirrors: &'a [Mirror],
}

impl Down<'_> {
    /// The names of our containers that run.
    ///
    /// # Errors
    /// The engine does not answer.
    pub fn running(&self) -> Result<Vec<String>> {
        self.look().map(|(running, _)| running)
    }

    /// The names of our containers that run, and of those that do not.
    fn look(&self) -> Result<(Vec<String>, Vec<String>)> {
        let observed = observe::look(self.runner, self.config, self.mirrors)?;
        // One that is being removed has ended already.
        let at_rest = |name: &String| {
            matches!(observed.containers[name].state.status.as_str(), "exited" | "created" | "dead" | "removing")
        };
        let ours = ours(self.config, self.mirrors, &observed).into_iter().map(|mirror| mirror.name.clone());
        let (at_rest, running) = ours.partition(at_rest);
        Ok((running, at_rest))
    }

    /// Stops containers, and looks again: another command may have stopped or removed one of them, which is as good.
    ///
    /// # Errors
    /// The engine does not answer, or one still runs after several tries.
    pub fn stop(&self, names: Vec<String>) -> Result<Stopped> {
        if names.is_empty() {
            return Ok(Stopped::default());
        }
        // Looking takes its time, in which a user may have thought better of it.
        self.runner.go_on()?;
        let mut running = names.clone();
        let mut said = Output::default();
        for attempt in 0..TRIES {
            if attempt > 0 {
                std::thread::sleep(PAUSE);
            }
            said = self.runner.run(&docker::stop(&running))?;
            let (left, at_rest) = self.look()?;
            running = left.into_iter().filter(|name| names.contains(name)).collect();
            if let Some(signal) = self.runner.interrupted() {
                return Err(Error::Interrupted { signal, left: left_after_signal(&running) });
            }
            if running.is_empty() {
                let (stopped, removed) = names.into_iter().partition(|name| at_rest.contains(name));
                return Ok(Stopped { stopped, removed });
            }
        }
        Err(Error::Blocked(running.iter().map(|name| self.still_runs(name, &said)).collect()))
    }

    fn still_runs(&self, name: &str, said: &Output) -> Finding {
        let host = self.mirrors.iter().find(|mirror| mirror.name == name).map_or(name, |mirror| &mirror.host);
        let (problem, fix) = if said.ok() {
            ("something starts it again", "end the other command that starts it, then run this again")
        } else {
            ("the engine did not stop it", "restart the engine, then run this again")
        };
        let problem = format!("container {name} still runs after {TRIES} attempts to stop it: {problem}");
        let seen = if said.ok() { Vec::new() } else { said.tail(6) };
        Finding::new(host, problem, fix).seen(seen)
    }
}

fn left_after_signal(running: &[String]) -> String {
    if running.is_empty() {
        return "all of them are stopped; what they cached is kept".to_owned();
    }
    format!("still running: {}; run this again to stop them", running.join(", "))
}
