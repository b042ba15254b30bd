//! The only writer: applies a plan, waits for answers, looks again, until there is nothing left to do.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::config::{Config, Mirror};
use crate::docker::{self, LABEL_RUN};
use crate::error::{Error, Finding, Result};
use crate::exec::{Cmd, Runner};
use crate::observe::{Look, each, observe};
use crate::plan::{Action, Observed, Plan, Step, up};
use crate::registry;
use crate::term::Term;

/// How many times to look and act; each round is a step further (create, go offline, ...), or another terminal's doing.
const ROUNDS: usize = 5;
/// How long a proxy may keep its port closed before its upstream is called silent.
const UPSTREAM_PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(25);

/// What a run works with.
pub struct Reconcile<'a> {
    /// Starts the commands.
    pub runner: &'a dyn Runner,
    /// Where progress is said.
    pub term: Term,
    /// The settings in force.
    pub config: &'a Config,
    /// The mirrors to bring up.
    pub mirrors: &'a [Mirror],
    /// How long all of them together may take to answer.
    pub timeout: Duration,
}

/// What was done and what is there now.
pub struct Done {
    /// All steps, in the order they were taken.
    pub steps: Vec<Step>,
    /// The last look.
    pub observed: Observed,
}

impl Reconcile<'_> {
    /// Looks and decides, without touching anything.
    ///
    /// # Errors
    /// The engine does not answer.
    pub fn plan(&self, waited: &BTreeSet<String>) -> Result<(Plan, Observed)> {
        let observed = observe(self.runner, &Look { config: self.config, mirrors: self.mirrors, waited })?;
        Ok((up(self.config, self.mirrors, &observed), observed))
    }

    /// Brings the mirrors up. What this run created and could not bring up, it takes back.
    ///
    /// # Errors
    /// Something stands in the way, or a proxy does not answer in time.
    pub fn up(&self, before: impl FnOnce(&Plan) -> Result<()>) -> Result<Done> {
        let run = format!("{}-{}", std::process::id(), nanos());
        let result = self.rounds(&run, before);
        if let Err(error) = result {
            let taken = self.take_back(&run);
            return Err(match error {
                Error::Interrupted { signal, .. } => Error::Interrupted {
                    signal,
                    left: format!("{taken}what answers stays; `cargo xtask cache-up` goes on from here"),
                },
                other => other,
            });
        }
        result
    }

    fn rounds(&self, run: &str, before: impl FnOnce(&Plan) -> Result<()>) -> Result<Done> {
        let deadline = Instant::now() + self.timeout;
        let mut before = Some(before);
        let mut waited = BTreeSet::new();
        let mut steps: Vec<Step> = Vec::new();
        let mut failures: Vec<Finding> = Vec::new();
        for _ in 0..ROUNDS {
            let (mut plan, mut observed) = self.plan(&waited)?;
            if !plan.blockers.is_empty() {
                // Another terminal may be half-way through the same work; what is still so a moment later is real.
                std::thread::sleep(POLL * 20);
                (plan, observed) = self.plan(&waited)?;
            }
            if !plan.blockers.is_empty() {
                return Err(Error::Blocked(plan.blockers));
            }
            if plan.steps.is_empty() {
                return Ok(Done { steps, observed });
            }
            if let Some(before) = before.take() {
                before(&plan)?;
            }
            failures = self.apply(&plan.steps, run)?;
            waited.extend(self.wait(&plan.steps, deadline)?);
            steps.extend(plan.steps);
            if Instant::now() >= deadline {
                break;
            }
        }
        let (plan, observed) = self.plan(&waited)?;
        if plan.steps.is_empty() && plan.blockers.is_empty() {
            return Ok(Done { steps, observed });
        }
        failures.extend(plan.blockers);
        if failures.is_empty() {
            failures.extend(plan.steps.iter().map(|step| {
                let problem = format!("not up within {} s: {}", self.timeout.as_secs(), step.why.join("; "));
                Finding::new(
                    &step.host,
                    problem,
                    "run it again with a longer --timeout, or read `cargo xtask cache-logs`",
                )
            }));
        }
        Err(Error::Blocked(failures))
    }

    fn mirror(&self, host: &str) -> Option<&Mirror> {
        self.mirrors.iter().find(|mirror| mirror.host == host)
    }

    fn apply(&self, steps: &[Step], run: &str) -> Result<Vec<Finding>> {
        let mirrors: Vec<&Mirror> = steps.iter().filter_map(|step| self.mirror(&step.host)).collect();
        let results = each(&mirrors, |mirror| {
            let step = steps.iter().find(|step| step.host == mirror.host);
            step.map_or(Ok(()), |step| self.step(mirror, step, run))
        });
        let mut failures = Vec::new();
        for (host, result) in results {
            match result {
                Ok(()) => {}
                Err(Error::Command { command, status, seen, .. }) => failures.push(
                    Finding::new(
                        host,
                        format!("`{command}` ended with {status}"),
                        "mend what it names, then run this again",
                    )
                    .seen(seen),
                ),
                Err(other) => return Err(other),
            }
        }
        Ok(failures)
    }

    fn step(&self, mirror: &Mirror, step: &Step, run: &str) -> Result<()> {
        let go = |cmd: Cmd| self.runner.run(&cmd)?.checked(&cmd, "").map(|_| ());
        let create = |mode| go(docker::run(mirror, mode, &self.config.prefix, &self.config.bind, run));
        match step.action {
            Action::Create(mode) => create(mode)?,
            Action::Replace(mode) => {
                go(docker::remove(std::slice::from_ref(&mirror.name)))?;
                create(mode)?;
            }
            Action::Start => go(docker::start(&mirror.name))?,
            Action::Unpause => go(docker::unpause(&mirror.name))?,
            Action::Mend => {
                go(docker::move_state_aside(mirror))?;
                go(docker::restart(&mirror.name))?;
            }
            Action::Wait => return Ok(()),
        }
        self.term.step(&crate::report::done(mirror, step));
        Ok(())
    }

    /// Waits until each answers, ends, or has kept its port closed for too long; gives back those of the last kind.
    fn wait(&self, steps: &[Step], deadline: Instant) -> Result<BTreeSet<String>> {
        let mut pending: Vec<&Mirror> = steps.iter().filter_map(|step| self.mirror(&step.host)).collect();
        let patience = deadline.min(Instant::now() + UPSTREAM_PATIENCE);
        let names = |pending: &[&Mirror]| pending.iter().map(|m| m.host.as_str()).collect::<Vec<_>>().join(", ");
        let bar = self.term.waiting("");
        let mut looked = Instant::now();
        while !pending.is_empty() {
            bar.set_message(format!("waiting for {}", names(&pending)));
            let answers = each(&pending, |mirror| registry::answers(&registry::address(mirror, &self.config.bind)));
            pending.retain(|mirror| !answers.iter().any(|(host, answers)| *answers && *host == mirror.host));
            if let Some(signal) = self.runner.interrupted() {
                return Err(Error::Interrupted { signal, left: String::new() });
            }
            if Instant::now() >= patience {
                break;
            }
            if !pending.is_empty() && looked.elapsed() > POLL * 10 {
                looked = Instant::now();
                let names: Vec<String> = pending.iter().map(|mirror| mirror.name.clone()).collect();
                let output = self.runner.run(&docker::inspect(&names))?;
                let there = docker::containers(&output.stdout)?;
                pending.retain(|mirror| {
                    there.iter().any(|container| container.name() == mirror.name && container.state.status == "running")
                });
            }
            std::thread::sleep(POLL);
        }
        Ok(pending.into_iter().map(|mirror| mirror.host.clone()).collect())
    }

    /// Removes what this run created and what does not answer; says what it did.
    fn take_back(&self, run: &str) -> String {
        let waited = BTreeSet::new();
        let Ok((_, observed)) = self.plan(&waited) else {
            return String::new();
        };
        let broken: Vec<String> = self
            .mirrors
            .iter()
            .filter(|mirror| !observed.answering.contains(&mirror.host))
            .filter_map(|mirror| observed.containers.get(&mirror.name))
            .filter(|container| container.label(LABEL_RUN) == Some(run))
            .map(|container| container.name().to_owned())
            .collect();
        if broken.is_empty() || !self.runner.run(&docker::remove(&broken)).is_ok_and(|output| output.ok()) {
            return String::new();
        }
        format!("took back {}; ", broken.join(", "))
    }
}

fn nanos() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_nanos())
}
