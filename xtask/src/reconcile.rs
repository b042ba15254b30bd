//! The only writer: applies a plan, waits for answers, looks again, until there is nothing left to do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::config::{Config, Mirror};
use crate::container;
use crate::credentials;
use crate::docker::{self, LABEL_RUN, Mode, Wish};
use crate::error::{Error, Finding, Result};
use crate::exec::{Cmd, Runner};
use crate::observe::{Look, each, observe};
use crate::plan::{Action, Observed, Plan, Step, Wanted, up};
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
    /// Whether a proxy that was made by hand and differs may be replaced.
    pub adopt: bool,
    /// How long all of them together may take to answer.
    pub timeout: Duration,
}

/// What was there before the first container was created.
#[derive(Default)]
pub struct Ground {
    /// How the images came to this engine, by image; for the labels of what is created.
    pub origins: BTreeMap<String, String>,
    /// The names for which there was neither a container nor a volume: only what this run makes of those is its own.
    pub fresh: BTreeSet<String>,
}

/// What a round's steps need to know.
struct Apply<'a> {
    run: &'a str,
    observed: &'a Observed,
    origins: &'a BTreeMap<String, String>,
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
        let wanted = Wanted { config: self.config, mirrors: self.mirrors, adopt: self.adopt };
        Ok((up(wanted, &observed), observed))
    }

    /// Brings the mirrors up. What this run created and could not bring up, it takes back.
    ///
    /// # Errors
    /// Something stands in the way, or a proxy does not answer in time.
    pub fn up(&self, before: impl FnOnce(&Plan, &Observed) -> Result<Ground>) -> Result<Done> {
        let run = format!("{}-{}", std::process::id(), nanos());
        let mut ground = None;
        let result = self.rounds(&run, before, &mut ground);
        if let Err(error) = result {
            let taken = ground.map_or_else(String::new, |ground| self.take_back(&run, &ground));
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

    fn rounds(
        &self,
        run: &str,
        before: impl FnOnce(&Plan, &Observed) -> Result<Ground>,
        ground: &mut Option<Ground>,
    ) -> Result<Done> {
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
            let origins = match before.take() {
                Some(before) => &ground.insert(before(&plan, &observed)?).origins,
                None => &ground.get_or_insert_default().origins,
            };
            failures = self.apply(&plan.steps, &Apply { run, observed: &observed, origins })?;
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

    fn apply(&self, steps: &[Step], apply: &Apply) -> Result<Vec<Finding>> {
        let mirrors: Vec<&Mirror> = steps.iter().filter_map(|step| self.mirror(&step.host)).collect();
        let results = each(&mirrors, |mirror| {
            let step = steps.iter().find(|step| step.host == mirror.host);
            step.map_or(Ok(()), |step| self.step(mirror, step, apply))
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

    fn go(&self, cmd: &Cmd) -> Result<()> {
        self.runner.run(cmd)?.checked(cmd, "").map(|_| ())
    }

    fn step(&self, mirror: &Mirror, step: &Step, apply: &Apply) -> Result<()> {
        let name = std::slice::from_ref(&mirror.name);
        match step.action {
            Action::Create(mode) => self.create(mirror, mode, apply)?,
            Action::Replace(mode) => {
                self.go(&docker::remove(name))?;
                self.create(mirror, mode, apply)?;
            }
            Action::Adopt(mode) => {
                self.save_store(mirror, apply.observed)?;
                self.go(&docker::remove(name))?;
                self.create(mirror, mode, apply)?;
            }
            Action::Start => self.go(&docker::start(&mirror.name))?,
            Action::Restart => self.go(&docker::restart(&mirror.name))?,
            Action::Unpause => self.go(&docker::unpause(&mirror.name))?,
            Action::Mend => {
                self.go(&docker::move_state_aside(mirror))?;
                self.go(&docker::restart(&mirror.name))?;
            }
            Action::Wait => return Ok(()),
        }
        self.term.step(&crate::report::done(mirror, step));
        Ok(())
    }

    fn create(&self, mirror: &Mirror, mode: Mode, apply: &Apply) -> Result<()> {
        let wish = Wish {
            mirror,
            mode,
            prefix: &self.config.prefix,
            listen: &apply.observed.listen,
            run: apply.run,
            origin: apply.origins.get(&mirror.image).map(String::as_str),
        };
        let Some(account) = mirror.credentials.as_ref().filter(|_| wish.with_credentials()) else {
            return self.go(&wish.run());
        };
        let archive = credentials::archive(mirror, account)
            .map_err(|problem| Error::Blocked(vec![Finding::new(&mirror.host, problem, "put it there")]))?;
        self.go(&wish.create())?;
        self.go(&docker::put(&mirror.name, archive))?;
        self.go(&docker::start(&mirror.name))
    }

    /// Copies what a container made by hand has cached to the mirror's volume. Where that fails it goes on as it was.
    fn save_store(&self, mirror: &Mirror, observed: &Observed) -> Result<()> {
        let container = observed.containers.get(&mirror.name);
        if container.is_some_and(|container| container.store() == Some(&mirror.name)) {
            return Ok(());
        }
        self.go(&docker::stop(std::slice::from_ref(&mirror.name)))?;
        let copied = self.go(&docker::copy_store(mirror, &self.config.prefix));
        if copied.is_err() {
            self.go(&docker::start(&mirror.name))?;
        }
        copied
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
            let answers = each(&pending, |mirror| registry::answers(&registry::address(mirror, self.config.bind)));
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
                let there = container::containers(&output.stdout)?;
                pending.retain(|mirror| {
                    there.iter().any(|container| container.name() == mirror.name && container.state.status == "running")
                });
            }
            std::thread::sleep(POLL);
        }
        Ok(pending.into_iter().map(|mirror| mirror.host.clone()).collect())
    }

    /// Removes what this run created and what does not answer, volumes that were not there before included; says what
    /// it removed.
    fn take_back(&self, run: &str, ground: &Ground) -> String {
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
        let new: Vec<String> = broken.iter().filter(|name| ground.fresh.contains(*name)).cloned().collect();
        if !new.is_empty() {
            // A volume that another run uses by now is refused, and stays.
            let _ = self.runner.run(&docker::remove_volumes(&new));
        }
        format!("took back {}; ", broken.join(", "))
    }
}

fn nanos() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_nanos())
}
