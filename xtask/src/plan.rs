//! The one place that decides: from what is wished and what was observed to steps and blockers, pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::{Config, Mirror, Offline};
use crate::container::Container;
use crate::credentials::Found;
use crate::docker::{LABEL_PREFIX, Mode};
use crate::error::Finding;
use crate::listen::Listen;
use crate::login::Login;

mod by_hand;
mod crashed;
mod flaws;

pub use flaws::{flaw, warnings};

/// What this run has tried so far, which a look at the engine does not show.
#[derive(Clone, Debug, Default)]
pub struct Tried {
    /// Hosts that were waited for and did not answer.
    pub waited: BTreeSet<String>,
    /// Hosts that this run turned offline: they are up, whatever their upstreams do meanwhile.
    pub offline: BTreeSet<String>,
    /// Hosts whose proxy this run started again.
    pub restarted: BTreeSet<String>,
    /// How often the engine refused to start a container, and its last word for that, by host.
    pub refusals: BTreeMap<String, (usize, String)>,
}

impl Tried {
    /// The engine's word for a container that it refused to start again and again: it never will.
    fn unstartable(&self, host: &str) -> Option<&str> {
        self.refusals.get(host).filter(|(count, _)| *count >= REFUSALS).map(|(_, word)| word.as_str())
    }
}

/// After how many refusals a container is made anew: once may be the engine's bad moment.
const REFUSALS: usize = 2;

/// What was observed, all of it in one round.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The containers that have the name of a mirror.
    pub containers: BTreeMap<String, Container>,
    /// Hosts whose registry answered `/v2/`.
    pub answering: BTreeSet<String>,
    /// What this run has tried so far.
    pub tried: Tried,
    /// The last log lines of containers that end again and again, by host.
    pub crashes: BTreeMap<String, Vec<String>>,
    /// Hosts that serve offline and whose upstream answers now.
    pub reachable: BTreeSet<String>,
    /// Why the upstream of a host cannot be used although it was reached.
    pub unusable: BTreeMap<String, String>,
    /// Of the hosts whose registry ends since its upstream cannot be used: those that have something cached.
    pub cached: BTreeSet<String>,
    /// Hosts of which an adoption was begun and never finished.
    pub unfinished: BTreeSet<String>,
    /// Who holds a port, container or process, by port.
    pub holders: BTreeMap<u16, String>,
    /// Why an address to publish on cannot be used, where one cannot.
    pub unbindable: Option<String>,
    /// Upstreams that lead back to a proxy: what is wrong with each, by host.
    pub cycles: BTreeMap<String, String>,
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

impl Action {
    /// The mode that a container is made for, where one is made.
    pub fn makes(self) -> Option<Mode> {
        match self {
            Self::Create(mode) | Self::Replace(mode) | Self::Adopt(mode) => Some(mode),
            Self::Restart | Self::Start | Self::Unpause | Self::Mend | Self::Wait => None,
        }
    }
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
    /// What is wrong with proxies for which there is nothing left to do; an error, once all steps are taken.
    pub flaws: Vec<Finding>,
}

impl Plan {
    /// Whether a container is created for a host.
    pub fn makes(&self, host: &str) -> bool {
        self.steps.iter().any(|step| step.host == host && step.action.makes().is_some())
    }
}

/// Decides what brings the mirrors up.
pub fn up(wanted: Wanted, observed: &Observed) -> Plan {
    let mut plan = Plan::default();
    for mirror in wanted.mirrors {
        match decide(wanted, mirror, observed) {
            Ok(None) => plan.flaws.extend(flaw(mirror, observed)),
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
    let makes = action.makes();
    if makes.is_none() && action != Action::Start {
        return None;
    }
    if let Some(holder) = observed.holders.get(&mirror.port) {
        return Some(Finding::new(
            &mirror.host,
            format!("port {} is held by {holder}", mirror.port),
            format!("stop it, or give the mirror another `port` in [mirrors.\"{}\"]", mirror.host),
        ));
    }
    if let Some(problem) = observed.unbindable.as_ref().filter(|_| makes.is_some()) {
        let fix = "let `bind` be \"all\", \"local\", or an address of this host";
        return Some(Finding::new(&mirror.host, problem, fix));
    }
    let credentials = mirror.credentials.as_ref().filter(|_| makes == Some(Mode::Proxy))?;
    let problem = credentials.password.read().err()?;
    Some(Finding::new(
        &mirror.host,
        problem,
        "provide the password there, or take `username` out of the mirror's table",
    ))
}

type Decision = Result<Option<(Action, Vec<String>)>, Finding>;

fn decide(wanted: Wanted, mirror: &Mirror, observed: &Observed) -> Decision {
    let config = wanted.config;
    if let Some(problem) = observed.cycles.get(&mirror.host).filter(|_| config.offline != Offline::Always) {
        let fix = format!("set `upstream` in [mirrors.\"{}\"] to the registry to cache", mirror.host);
        return Err(Finding::new(&mirror.host, problem, fix));
    }
    let Some(container) = observed.containers.get(&mirror.name) else {
        let unfinished = observed.unfinished.contains(&mirror.host);
        let discards = unfinished.then(|| "discards the unfinished copy of an interrupted --adopt".to_owned());
        let why = std::iter::once("absent".to_owned()).chain(discards).collect();
        return Ok(Some((Action::Create(wanted_mode(config, Mode::Proxy)), why)));
    };
    let mode = wanted_mode(config, container.mode());
    if container.label(LABEL_PREFIX).is_none() {
        let drift = by_hand::drift(wanted, mirror, container, observed)?;
        if !drift.is_empty() {
            return Ok(Some((Action::Adopt(mode), drift)));
        }
    } else {
        let mut drift = differs(mirror, container, observed);
        drift.extend(unstartable(mirror, observed));
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
        "restarting" => crashed::decide(wanted, mirror, container, observed),
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

/// That the engine cannot start a container any more, as a phrase: one whose runtime it does not know any more, for
/// instance.
fn unstartable(mirror: &Mirror, observed: &Observed) -> Option<String> {
    observed.tried.unstartable(&mirror.host).map(|word| format!("its engine cannot start it: {word}"))
}

/// The mode to be in: the one asked for, or the one that it is in where the upstream decides.
fn wanted_mode(config: &Config, now: Mode) -> Mode {
    match config.offline {
        Offline::Auto => now,
        Offline::Always => Mode::Offline,
        Offline::Never => Mode::Proxy,
    }
}

fn running(config: &Config, mirror: &Mirror, container: &Container, observed: &Observed) -> Decision {
    let answers = observed.answering.contains(&mirror.host);
    let offline = container.mode() == Mode::Offline;
    if answers {
        return Ok(better(offline, mirror, observed));
    }
    if !observed.tried.waited.contains(&mirror.host) {
        return Ok(Some((Action::Wait, vec!["no answer yet".to_owned()])));
    }
    if offline || container.label(LABEL_PREFIX).is_none() {
        let problem = format!("{} runs and does not answer on port {}", mirror.name, mirror.port);
        return Err(Finding::new(&mirror.host, problem, format!("read `docker logs {}`", mirror.name)));
    }
    without_upstream(config, mirror, format!("{} is silent", mirror.upstream))
}

/// What makes a proxy that answers a better one, once a run: an upstream that comes and goes is no reason to go on.
fn better(offline: bool, mirror: &Mirror, observed: &Observed) -> Option<(Action, Vec<String>)> {
    let tried = &observed.tried;
    if offline && observed.reachable.contains(&mirror.host) && !tried.offline.contains(&mirror.host) {
        return Some((Action::Replace(Mode::Proxy), vec!["the upstream answers again".to_owned()]));
    }
    let why = "it started without its credentials, since the upstream was overloaded then".to_owned();
    let restarts = observed.logins.get(&mirror.host) == Some(&Login::Unauthenticated);
    (restarts && !tried.restarted.contains(&mirror.host)).then(|| (Action::Restart, vec![why]))
}

/// What to do where the upstream is out of reach: serve what is cached, unless that is not wanted.
fn without_upstream(config: &Config, mirror: &Mirror, why: String) -> Decision {
    if config.offline == Offline::Never {
        let fix = "reach the upstream from here, or let `offline` be \"auto\" to serve what is cached";
        return Err(Finding::new(&mirror.host, why, fix));
    }
    Ok(Some((Action::Replace(Mode::Offline), vec![why])))
}

#[cfg(test)]
mod tests;
