//! The one place that decides: from what is wished and what was observed to steps and blockers, pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::config::{Config, Mirror, Offline};
use crate::container::Container;
use crate::crash::{Crash, crash};
use crate::credentials::Found;
use crate::docker::{LABEL_PREFIX, Mode};
use crate::error::Finding;
use crate::listen::Listen;
use crate::login::Login;

/// What was observed, all of it in one round.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The containers that have the name of a mirror.
    pub containers: BTreeMap<String, Container>,
    /// Hosts whose registry answered `/v2/`.
    pub answering: BTreeSet<String>,
    /// Hosts that were waited for and did not answer.
    pub waited: BTreeSet<String>,
    /// The last log lines of containers that end again and again, by host.
    pub crashes: BTreeMap<String, Vec<String>>,
    /// Hosts that serve offline and whose upstream answers now.
    pub reachable: BTreeSet<String>,
    /// Who holds a port, container or process, by port.
    pub holders: BTreeMap<u16, String>,
    /// An address to publish on that this host has not.
    pub nowhere: Option<IpAddr>,
    /// The addresses to publish on.
    pub listen: Listen,
    /// Of the proxies that were made by hand: where one keeps its store in its container's own layer, by host.
    pub own_layers: BTreeMap<String, String>,
    /// Of the proxies that have an account: whether it is the one that is configured, by host.
    pub accounts: BTreeMap<String, Found>,
    /// Of the proxies that have an account: whether they use it, by host.
    pub logins: BTreeMap<String, Login>,
}

/// What is asked for.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// The settings in force.
    pub config: &'a Config,
    /// The mirrors to bring up.
    pub mirrors: &'a [Mirror],
    /// Whether a proxy that was made by hand and differs may be replaced.
    pub adopt: bool,
}

/// What to do to one mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase", tag = "action", content = "mode")]
pub enum Action {
    /// Create and start it.
    Create(Mode),
    /// Remove the container, keep the volume, create it anew.
    Replace(Mode),
    /// The same for one that was made by hand: what it has cached goes to the volume first.
    Adopt(Mode),
    /// Start it again.
    Restart,
    /// Start what is there.
    Start,
    /// Let it go on.
    Unpause,
    /// Move its damaged record of expiry dates aside, and start it again.
    Mend,
    /// It runs; wait for its answer.
    Wait,
}

/// One step, and why.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Step {
    /// The mirror's host.
    pub host: String,
    /// What to do.
    #[serde(flatten)]
    pub action: Action,
    /// Why, as phrases.
    pub why: Vec<String>,
}

/// What is to be done, or what stands in the way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order of the configuration; they do not depend on each other.
    pub steps: Vec<Step>,
    /// All that stands in the way; while there is one, nothing is touched.
    pub blockers: Vec<Finding>,
}

impl Plan {
    /// Whether a container is created for a host.
    pub fn makes(&self, host: &str) -> bool {
        let makes = |action| matches!(action, Action::Create(_) | Action::Replace(_) | Action::Adopt(_));
        self.steps.iter().any(|step| step.host == host && makes(step.action))
    }
}

/// Decides what brings the mirrors up.
pub fn up(wanted: Wanted, observed: &Observed) -> Plan {
    let mut plan = Plan::default();
    for mirror in wanted.mirrors {
        match decide(wanted, mirror, observed) {
            Ok(None) => {}
            Ok(Some((action, why))) => match obstacle(mirror, action, observed) {
                Some(blocker) => plan.blockers.push(blocker),
                None => plan.steps.push(Step { host: mirror.host.clone(), action, why }),
            },
            Err(blocker) => plan.blockers.push(blocker),
        }
    }
    plan
}

/// What would let a step fail half-way, so that it is not begun.
fn obstacle(mirror: &Mirror, action: Action, observed: &Observed) -> Option<Finding> {
    let makes = match action {
        Action::Create(mode) | Action::Replace(mode) | Action::Adopt(mode) => Some(mode),
        Action::Start => None,
        Action::Restart | Action::Unpause | Action::Mend | Action::Wait => return None,
    };
    if let Some(holder) = observed.holders.get(&mirror.port) {
        return Some(Finding::new(
            &mirror.host,
            format!("port {} is held by {holder}", mirror.port),
            format!("stop it, or give the mirror another `port` in [mirrors.\"{}\"]", mirror.host),
        ));
    }
    if let Some(address) = observed.nowhere.filter(|_| makes.is_some()) {
        let problem = format!("{address} is no address of this host");
        return Some(Finding::new(
            &mirror.host,
            problem,
            "let `bind` be \"all\", \"local\", or an address that it has",
        ));
    }
    let credentials = mirror.credentials.as_ref().filter(|_| makes == Some(Mode::Proxy))?;
    let problem = credentials.password.read().err()?;
    Some(Finding::new(&mirror.host, problem, "put it there, or take `username` out of the mirror's table"))
}

type Decision = Result<Option<(Action, Vec<String>)>, Finding>;

fn decide(wanted: Wanted, mirror: &Mirror, observed: &Observed) -> Decision {
    let config = wanted.config;
    let Some(container) = observed.containers.get(&mirror.name) else {
        return Ok(Some((Action::Create(wanted_mode(config, Mode::Proxy)), vec!["absent".to_owned()])));
    };
    let mode = wanted_mode(config, container.mode());
    if container.label(LABEL_PREFIX).is_none() {
        let drift = by_hand(wanted, mirror, container, observed)?;
        if !drift.is_empty() {
            return Ok(Some((Action::Adopt(mode), drift)));
        }
    } else {
        let drift = differs(mirror, container, observed);
        if !drift.is_empty() {
            return Ok(Some((Action::Replace(mode), drift)));
        }
        if mode != container.mode() {
            return Ok(Some((Action::Replace(mode), vec![format!("{} is asked for", mode.word())])));
        }
    }
    let status = container.state.status.as_str();
    match status {
        "running" => running(config, mirror, container, observed),
        "restarting" => crashed(wanted, mirror, container, observed),
        "paused" => Ok(Some((Action::Unpause, vec!["paused".to_owned()]))),
        "exited" => Ok(Some((Action::Start, vec!["stopped".to_owned()]))),
        "created" if container.state.error.is_empty() => Ok(Some((Action::Start, vec!["never started".to_owned()]))),
        _ => {
            let error = Some(&container.state.error).filter(|error| !error.is_empty());
            let why = format!("{status}{}", error.map(|error| format!(": {error}")).unwrap_or_default());
            Ok(Some((Action::Replace(mode), vec![why])))
        }
    }
}

/// What differs from the settings in force, each as one phrase. Of what was made by hand no more is asked than that it
/// is what the guide makes.
pub fn differs(mirror: &Mirror, container: &Container, observed: &Observed) -> Vec<String> {
    if container.label(LABEL_PREFIX).is_none() {
        return container.guide_drift(mirror, &observed.listen);
    }
    let mut drift = container.drift(mirror, &observed.listen);
    if observed.accounts.get(&mirror.host) == Some(&Found::Differs) {
        drift.push("its account is not the one that is configured".to_owned());
    }
    drift
}

/// The mode to be in: the one asked for, or the one that it is in where the upstream decides.
fn wanted_mode(config: &Config, now: Mode) -> Mode {
    match config.offline {
        Offline::Auto => now,
        Offline::Always => Mode::Offline,
        Offline::Never => Mode::Proxy,
    }
}

/// What carries no label of ours is left as it is when it is what the guide makes; where it differs it is replaced when
/// that was asked for, and is otherwise never touched.
fn by_hand(
    wanted: Wanted,
    mirror: &Mirror,
    container: &Container,
    observed: &Observed,
) -> Result<Vec<String>, Finding> {
    let rename = format!("remove or rename it (`docker rename {} OTHER`)", mirror.name);
    if container.upstream().is_none() {
        let problem = format!("a container named {} is there and is no proxy: {}", mirror.name, container.image());
        return Err(Finding::new(&mirror.host, problem, format!("{rename}, or set another `prefix`")));
    }
    let mut drift = differs(mirror, container, observed);
    if wanted.config.offline == Offline::Always {
        drift.push("offline is asked for".to_owned());
    }
    if !drift.is_empty() && wanted.adopt {
        if let Some(place) = kept_elsewhere(mirror, container, observed) {
            let problem = format!("{} may keep its cache in {place}, where --adopt does not look", mirror.name);
            return Err(Finding::new(&mirror.host, problem, rename));
        }
        drift.push("its cache is moved to the volume".to_owned());
        return Ok(drift);
    }
    if drift.is_empty() {
        return Ok(drift);
    }
    let problem = format!("{} was made by hand and differs: {}", mirror.name, drift.join("; "));
    let fix = format!(
        "`cargo xtask cache-up --adopt {}` replaces it and keeps what it has cached; or say the same in cache.toml",
        mirror.host
    );
    Err(Finding::new(&mirror.host, problem, fix))
}

/// Where a proxy that was made by hand may keep what it has cached, if not in its store.
fn kept_elsewhere<'a>(mirror: &Mirror, container: &'a Container, observed: &'a Observed) -> Option<&'a str> {
    let own_layer = observed.own_layers.get(&mirror.host).map(String::as_str);
    container.other_root().or(container.other_mount()).or(own_layer)
}

fn running(config: &Config, mirror: &Mirror, container: &Container, observed: &Observed) -> Decision {
    let answers = observed.answering.contains(&mirror.host);
    let offline = container.mode() == Mode::Offline;
    if answers && offline && observed.reachable.contains(&mirror.host) {
        return Ok(Some((Action::Replace(Mode::Proxy), vec!["the upstream answers again".to_owned()])));
    }
    if answers {
        return match observed.logins.get(&mirror.host) {
            None | Some(Login::Used) => Ok(None),
            Some(Login::Missed) => {
                let why = "it started without its account, since the upstream was busy then".to_owned();
                Ok(Some((Action::Restart, vec![why])))
            }
            Some(Login::Impossible) => {
                let problem = format!(
                    "{} runs without its account: {} asks for none, or is too busy to",
                    mirror.name, mirror.upstream
                );
                let fix = "run this again when the upstream is well, or take `username` out of the mirror's table";
                Err(Finding::new(&mirror.host, problem, fix))
            }
        };
    }
    if !observed.waited.contains(&mirror.host) {
        return Ok(Some((Action::Wait, vec!["no answer yet".to_owned()])));
    }
    if offline || container.label(LABEL_PREFIX).is_none() {
        let problem = format!("{} runs and does not answer on port {}", mirror.name, mirror.port);
        return Err(Finding::new(&mirror.host, problem, format!("read `docker logs {}`", mirror.name)));
    }
    without_upstream(config, mirror, format!("{} is silent", mirror.upstream))
}

/// What to do where the upstream is out of reach: serve what is cached, unless that is not wanted.
fn without_upstream(config: &Config, mirror: &Mirror, why: String) -> Decision {
    if config.offline == Offline::Never {
        let fix = "reach the upstream from here, or let `offline` be \"auto\" to serve what is cached";
        return Err(Finding::new(&mirror.host, why, fix));
    }
    Ok(Some((Action::Replace(Mode::Offline), vec![why])))
}

fn crashed(wanted: Wanted, mirror: &Mirror, container: &Container, observed: &Observed) -> Decision {
    let lines = observed.crashes.get(&mirror.host).cloned().unwrap_or_default();
    let ours = container.label(LABEL_PREFIX).is_some();
    let (problem, fix) = match crash(&lines, &mirror.upstream) {
        Crash::Upstream if ours => {
            let word = lines.iter().find_map(|line| line.split_once("/v2/"));
            let word = word.map(|(_, word)| word.trim_start_matches(['"', ':', ' ']).to_owned());
            let why = format!("{} is out of reach: {}", mirror.upstream, word.unwrap_or_default());
            return without_upstream(wanted.config, mirror, why);
        }
        Crash::Upstream if wanted.adopt && wanted.config.offline != Offline::Never => {
            let why = format!("{} is out of reach", mirror.upstream);
            return match kept_elsewhere(mirror, container, observed) {
                Some(place) => {
                    let problem = format!("{} may keep its cache in {place}, where --adopt does not look", mirror.name);
                    Err(Finding::new(&mirror.host, problem, "bring its upstream back, or mend it by hand"))
                }
                None => Ok(Some((Action::Adopt(Mode::Offline), vec![why]))),
            };
        }
        Crash::State if ours => {
            let why = format!("its scheduler-state.json is damaged: {}", lines.join(" "));
            return Ok(Some((Action::Mend, vec![why])));
        }
        Crash::Upstream => {
            ("since its upstream is out of reach", "`cargo xtask cache-up --adopt` lets it serve what it has cached")
        }
        Crash::State => ("since its scheduler-state.json is damaged", "remove that file from its store"),
        Crash::Configuration if ours => (
            "since its configuration makes no sense to it",
            "see whether the image is a registry; `cargo xtask cache-clean --keep-cache` and `cache-up` make it anew",
        ),
        Crash::Configuration => ("since its configuration makes no sense to it", "mend the command that made it"),
        Crash::Other if lines.is_empty() => (
            "without a word",
            "see how in `docker container inspect` (ExitCode, OOMKilled); the image may be no registry",
        ),
        Crash::Other => ("", "mend what its last lines name, then run this again"),
    };
    let problem = format!("{} ends as soon as it starts {problem}", mirror.name);
    Err(Finding::new(&mirror.host, problem.trim_end(), fix).seen(lines))
}

#[cfg(test)]
mod tests;
