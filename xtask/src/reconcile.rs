//! The only writer: applies a plan, waits for answers, looks again, until there is nothing left to do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::adopt;
use crate::config::{Config, Mirror};
use crate::container::{self, Container};
use crate::credentials;
use crate::disk;
use crate::docker::{self, LABEL_RUN, Mode, Wish};
use crate::error::{Error, Finding, Result};
use crate::exec::{Cmd, Runner};
use crate::observe::{self, Look, each, observe};
use crate::plan::{Action, Observed, Plan, Step, Tried, Wanted, up};
use crate::registry;
use crate::term::Term;

/// How many times to look and act; each round is a step further (create, go offline, ...), or another terminal's doing.
const ROUNDS: usize = 6;
/// How long a proxy may keep its port closed before its upstream is called silent.
const UPSTREAM_PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);
/// How often at most to look again before what stands in the way is believed.
const SETTLES: usize = 4;
/// How often to look at containers that do not answer yet.
const LOOK: Duration = Duration::from_millis(500);

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

/// What was there before containers were created.
#[derive(Default)]
pub struct Ground {
    /// How the images came to this engine, by image; for the labels of what is created.
    pub origins: BTreeMap<String, String>,
    /// The names for which there was neither a container nor a volume: only what this run makes of those is its own.
    pub fresh: BTreeSet<String>,
    /// The mirrors that this was looked up for.
    hosts: BTreeSet<String>,
}

impl Ground {
    /// What was there, as far as it is known outside.
    pub fn new(origins: BTreeMap<String, String>, fresh: BTreeSet<String>) -> Self {
        Self { origins, fresh, hosts: BTreeSet::new() }
    }

    fn add(&mut self, other: Self, hosts: BTreeSet<String>) {
        self.origins.extend(other.origins);
        self.fresh.extend(other.fresh);
        self.hosts.extend(hosts);
    }
}

/// What a run has done so far.
#[derive(Default)]
struct Run {
    id: String,
    ground: Ground,
    /// Hosts that have answered at one time: what they cached since is not this run's to remove.
    answered: BTreeSet<String>,
    tried: Tried,
}

impl Run {
    /// Remembers what was done, and which containers the engine refused to start.
    fn note(&mut self, steps: &[Step], failures: &[Finding]) {
        for step in steps {
            if step.action.makes() == Some(Mode::Offline) {
                self.tried.offline.insert(step.host.clone());
            } else if step.action == Action::Restart {
                self.tried.restarted.insert(step.host.clone());
            }
            if step.action.makes().is_some() {
                self.tried.refusals.remove(&step.host);
            }
        }
        let starts = |step: &&Step| matches!(step.action, Action::Start | Action::Restart);
        for step in steps.iter().filter(starts) {
            if let Some(failure) = failures.iter().find(|failure| failure.subject == step.host) {
                let refusal = self.tried.refusals.entry(step.host.clone()).or_default();
                *refusal = (refusal.0 + 1, failure.problem.clone());
            }
        }
    }
}

/// What a round's steps need to know.
struct Apply<'a> {
    run: &'a Run,
    observed: &'a Observed,
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
    pub fn plan(&self, tried: &Tried) -> Result<(Plan, Observed)> {
        let observed = observe(
            self.runner,
            &Look { config: self.config, mirrors: self.mirrors, tried, returns: true, logins: true, adopt: self.adopt },
        )?;
        let wanted = Wanted { config: self.config, mirrors: self.mirrors, adopt: self.adopt };
        Ok((up(wanted, &observed), observed))
    }

    /// Brings the mirrors up. What this run created and could not bring up, it takes back.
    ///
    /// `before` is asked ahead of each plan that creates something for a mirror that it was not asked about yet.
    ///
    /// # Errors
    /// Something stands in the way, or a proxy does not answer in time.
    pub fn up(&self, before: impl Fn(&Plan, &Observed) -> Result<Ground>) -> Result<Done> {
        let mut run = Run { id: format!("{}-{}", std::process::id(), nanos()), ..Run::default() };
        let result = self.rounds(&mut run, &before);
        if let Err(error) = result {
            let taken = self.take_back(&run);
            if !taken.is_empty() {
                self.term
                    .step(&format!("Removed {}, which this run created and which never answered", taken.join(", ")));
            }
            return Err(match error {
                Error::Interrupted { signal, .. } => Error::Interrupted {
                    signal,
                    left: "what answers stays; `cargo xtask cache-up` goes on from here".to_owned(),
                },
                other => other,
            });
        }
        result
    }

    fn rounds(&self, run: &mut Run, before: &dyn Fn(&Plan, &Observed) -> Result<Ground>) -> Result<Done> {
        let mut deadline = Instant::now() + self.timeout;
        let mut steps: Vec<Step> = Vec::new();
        let mut failures: Vec<Finding> = Vec::new();
        for _ in 0..ROUNDS {
            let (plan, observed) = self.settled_plan(&run.tried)?;
            run.answered.extend(observed.answering.iter().cloned());
            if !plan.blockers.is_empty() {
                return Err(Error::Blocked(plan.blockers));
            }
            if plan.steps.is_empty() {
                return done(plan, steps, observed);
            }
            let made = self.mirrors.iter().filter(|mirror| plan.makes(&mirror.host));
            let made: BTreeSet<String> = made.map(|mirror| mirror.host.clone()).collect();
            if !made.is_subset(&run.ground.hosts) {
                let begun = Instant::now();
                run.ground.add(before(&plan, &observed)?, made);
                // An image takes as long as the network needs for it, and no proxy can answer before.
                deadline += begun.elapsed();
            }
            let begun = Instant::now();
            let uncopied = self.save_stores(&plan.steps, &observed, &run.id)?;
            // A store takes as long as it is large.
            deadline += begun.elapsed();
            self.runner.go_on()?;
            failures = self.apply(&plan.steps, uncopied, &Apply { run, observed: &observed })?;
            run.note(&plan.steps, &failures);
            self.wait(&plan.steps, deadline, run)?;
            steps.extend(plan.steps);
            if Instant::now() >= deadline {
                break;
            }
        }
        let (plan, observed) = self.plan(&run.tried)?;
        run.answered.extend(observed.answering.iter().cloned());
        if plan.steps.is_empty() && plan.blockers.is_empty() {
            return done(plan, steps, observed);
        }
        failures.extend(plan.blockers);
        if failures.is_empty() {
            let late = Instant::now() >= deadline;
            failures.extend(plan.steps.iter().map(|step| self.not_up(step, late)));
        }
        Err(Error::Blocked(failures))
    }

    /// That a proxy is not up, whether the time or the attempts have run out.
    fn not_up(&self, step: &Step, late: bool) -> Finding {
        let (limit, fix) = if late {
            (format!("within {} s", self.timeout.as_secs()), "run it again with a longer --timeout")
        } else {
            ("yet".to_owned(), "run it again")
        };
        let problem = format!("not up {limit}: {}", step.why.join("; "));
        Finding::new(&step.host, problem, format!("{fix}, or read `cargo xtask cache-logs {}`", step.host))
    }

    /// A plan whose blockers are still there a moment later: another terminal may be half-way through the same work. A
    /// proxy that has only just ended runs for a moment between two ends, so that one which is still awaited is looked
    /// at again: what stands in the way is said together.
    fn settled_plan(&self, tried: &Tried) -> Result<(Plan, Observed)> {
        let (mut plan, mut observed) = self.plan(tried)?;
        for _ in 0..SETTLES {
            if plan.blockers.is_empty() {
                break;
            }
            std::thread::sleep(LOOK);
            (plan, observed) = self.plan(tried)?;
            if !plan.steps.iter().any(|step| step.action == Action::Wait) {
                break;
            }
        }
        Ok((plan, observed))
    }

    fn mirror(&self, host: &str) -> Option<&Mirror> {
        self.mirrors.iter().find(|mirror| mirror.host == host)
    }

    /// Copies what is to be adopted, before anything is removed: that can take long, and can fail. Gives back what failed.
    fn save_stores(&self, steps: &[Step], observed: &Observed, run: &str) -> Result<Vec<Finding>> {
        let adopted: Vec<&Step> = steps.iter().filter(|step| matches!(step.action, Action::Adopt(_))).collect();
        self.all(&adopted, |mirror, _| adopt::save_store(self, mirror, observed, run))
    }

    /// Takes the steps of the mirrors that did not fail yet, all of them at once; gives back all that failed.
    fn apply(&self, steps: &[Step], mut failures: Vec<Finding>, apply: &Apply) -> Result<Vec<Finding>> {
        let ok = |failures: &[Finding]| -> Vec<&Step> {
            steps.iter().filter(|step| !failures.iter().any(|failure| failure.subject == step.host)).collect()
        };
        // Two proxies may exchange their ports: what is replaced goes before anything comes.
        let mut going = ok(&failures);
        going.retain(|step| matches!(step.action, Action::Replace(_) | Action::Adopt(_)));
        // By identity: under that name may be another container by now, of another run.
        let remove = |mirror: &Mirror, _: &Step| {
            let found = apply.observed.containers.get(&mirror.name);
            found.map_or(Ok(()), |container| self.go(&docker::remove(std::slice::from_ref(&container.id))))
        };
        failures.extend(self.all(&going, remove)?);
        failures.extend(self.all(&ok(&failures), |mirror, step| self.step(mirror, step, apply))?);
        Ok(failures)
    }

    /// Does something for each step at once; gives back what failed.
    fn all(&self, steps: &[&Step], work: impl Fn(&Mirror, &Step) -> Result<()> + Sync) -> Result<Vec<Finding>> {
        let mirrors: Vec<&Mirror> = steps.iter().filter_map(|step| self.mirror(&step.host)).collect();
        let results = each(&mirrors, |mirror| {
            let step = steps.iter().find(|step| step.host == mirror.host);
            step.map_or(Ok(()), |step| work(mirror, step))
        });
        let mut failures = Vec::new();
        for (host, result) in results {
            match result {
                Ok(()) => {}
                Err(Error::Command { status, mut seen, .. }) => {
                    // The command itself is what -v echoes; the engine's own word is what matters.
                    let hints = ["See '", "Run '", "Error: failed to start containers"];
                    seen.retain(|line| !hints.iter().any(|hint| line.starts_with(hint)));
                    let word = seen.pop().unwrap_or_else(|| format!("the engine's client ended with {status}"));
                    let fix = "remove that cause, then run `cargo xtask cache-up` again (-v shows each command)";
                    failures.push(Finding::new(host, word, fix).seen(seen));
                }
                Err(other) => return Err(other),
            }
        }
        Ok(failures)
    }

    pub(crate) fn go(&self, cmd: &Cmd) -> Result<()> {
        self.runner.run(cmd)?.checked(cmd, "").map(|_| ())
    }

    fn step(&self, mirror: &Mirror, step: &Step, apply: &Apply) -> Result<()> {
        match step.action {
            Action::Create(mode) | Action::Replace(mode) | Action::Adopt(mode) => self.create(mirror, mode, apply)?,
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
        if apply.observed.unfinished.contains(&mirror.host) {
            adopt::discard(self, mirror)?;
        }
        let wish = Wish {
            mirror,
            mode,
            prefix: &self.config.prefix,
            listen: &apply.observed.listen,
            run: &apply.run.id,
            origin: apply.run.ground.origins.get(&mirror.image).map(String::as_str),
            unusable: apply.observed.unusable.get(&mirror.host).map(String::as_str),
        };
        let Some(account) = mirror.credentials.as_ref().filter(|_| wish.with_credentials()) else {
            return self.go(&wish.run());
        };
        let archive = credentials::archive(mirror, account).map_err(|problem| {
            Error::Blocked(vec![Finding::new(&mirror.host, problem, "provide the password there")])
        })?;
        self.go(&wish.create())?;
        self.go(&docker::put(&mirror.name, archive))?;
        self.go(&docker::start(&mirror.name))
    }

    /// Waits until each answers, ends, or has kept its port closed for too long; notes those of the first kind and those
    /// of the last.
    fn wait(&self, steps: &[Step], deadline: Instant, run: &mut Run) -> Result<()> {
        let mut pending: Vec<&Mirror> = steps.iter().filter_map(|step| self.mirror(&step.host)).collect();
        let patience = deadline.min(Instant::now() + UPSTREAM_PATIENCE);
        let names = |pending: &[&Mirror]| pending.iter().map(|m| m.host.as_str()).collect::<Vec<_>>().join(", ");
        let bar = self.term.waiting(format!("waiting for {}", names(&pending)));
        let (mut looked, mut looks) = (Instant::now(), 0);
        while !pending.is_empty() {
            bar.set_message(format!("waiting for {}", names(&pending)));
            let answers = each(&pending, |mirror| registry::answers(&registry::address(mirror, self.config.bind)));
            let up = answers.into_iter().filter_map(|(host, answers)| answers.then_some(host)).collect();
            leave(&mut pending, up, run);
            if let Some(signal) = self.runner.interrupted() {
                return Err(Error::Interrupted { signal, left: String::new() });
            }
            if Instant::now() >= patience {
                break;
            }
            if !pending.is_empty() && looked.elapsed() > LOOK {
                looked = Instant::now();
                looks += 1;
                self.drop_ended(&mut pending)?;
                // Loopback here need not be the engine's: a remote engine, or its socket in a container.
                if looks % 4 == 0 {
                    let inside = each(&pending, |mirror| observe::answers_inside(self.runner, mirror));
                    let up = inside.into_iter().filter_map(|(host, up)| up.ok()?.then_some(host)).collect();
                    leave(&mut pending, up, run);
                }
            }
            std::thread::sleep(POLL);
        }
        run.tried.waited.extend(pending.into_iter().map(|mirror| mirror.host.clone()));
        Ok(())
    }

    /// Leaves out those that do not run any more: there is nothing to wait for.
    fn drop_ended(&self, pending: &mut Vec<&Mirror>) -> Result<()> {
        let names: Vec<String> = pending.iter().map(|mirror| mirror.name.clone()).collect();
        let there = container::containers(&self.runner.run(&docker::inspect(&names))?.stdout)?;
        let runs = |mirror: &&Mirror| there.iter().any(|c| c.name() == mirror.name && c.state.status == "running");
        pending.retain(runs);
        Ok(())
    }

    /// Removes the containers that this run created and that have never answered; and their volumes, where there was
    /// nothing of that name before and nothing is on them. Gives back the names of those containers.
    fn take_back(&self, run: &Run) -> Vec<String> {
        // Looked at here and not by a plan, in which a signal stops the questions to upstreams.
        let names: Vec<String> = self.mirrors.iter().map(|mirror| mirror.name.clone()).collect();
        let there = self.runner.run(&docker::inspect(&names)).and_then(|found| container::containers(&found.stdout));
        let there = there.unwrap_or_default();
        let made = |mirror: &Mirror| {
            there.iter().find(|found| found.name() == mirror.name && found.label(LABEL_RUN) == Some(&run.id))
        };
        let never = |mirror: &&Mirror| !run.answered.contains(&mirror.host) && made(mirror).is_some();
        let never: Vec<&Mirror> = self.mirrors.iter().filter(never).collect();
        let answers = each(&never, |mirror| {
            registry::answers(&registry::address(mirror, self.config.bind))
                || observe::answers_inside(self.runner, mirror).unwrap_or(false)
        });
        let answers: BTreeMap<String, bool> = answers.into_iter().collect();
        let silent = never.into_iter().filter(|mirror| !answers[&mirror.host]);
        let broken: Vec<(&Mirror, &Container)> = silent.filter_map(|mirror| Some((mirror, made(mirror)?))).collect();
        let names: Vec<String> = broken.iter().map(|(mirror, _)| mirror.name.clone()).collect();
        // By identity: by now another run may have put a container of its own under that name.
        let ids: Vec<String> = broken.iter().map(|(_, container)| container.id.clone()).collect();
        if names.is_empty() || !self.are_gone_after(&docker::remove(&ids), &names) {
            return Vec::new();
        }
        let new = broken.iter().filter(|(mirror, container)| {
            run.ground.fresh.contains(&mirror.name) && container.store() == Some(&mirror.name)
        });
        let path = |container: &Container| container.store_path().map(ToOwned::to_owned).unwrap_or_default();
        let new = new.map(|(mirror, container)| (mirror.name.clone(), path(container))).collect();
        let image = broken.first().map_or("", |(mirror, _)| mirror.image.as_str());
        let new: Vec<String> = disk::empty(self.runner, &new, image).into_iter().collect();
        if !new.is_empty() {
            // A volume that another run uses by now is refused, and stays.
            let _ = self.runner.run(&docker::remove_volumes(&new));
        }
        names
    }
}

impl Reconcile<'_> {
    /// Runs a command that removes containers; whether they are gone afterwards, which a clean-up at the same time may
    /// have seen to.
    fn are_gone_after(&self, removal: &Cmd, names: &[String]) -> bool {
        let removed = self.runner.run(removal).is_ok_and(|output| output.ok());
        let none_of_them = |listing: Vec<docker::Listed>| !listing.iter().any(|entry| names.contains(&entry.name));
        removed || observe::listing(self.runner).is_ok_and(none_of_them)
    }
}

/// Waits no longer for those that answer now, and notes them; who has answered before may have been made anew since.
fn leave(pending: &mut Vec<&Mirror>, up: BTreeSet<String>, run: &mut Run) {
    pending.retain(|mirror| !up.contains(&mirror.host));
    run.answered.extend(up);
}

/// A run whose steps are all taken: well, unless something is wrong for which there is no step.
fn done(plan: Plan, steps: Vec<Step>, observed: Observed) -> Result<Done> {
    if plan.flaws.is_empty() { Ok(Done { steps, observed }) } else { Err(Error::Blocked(plan.flaws)) }
}

fn nanos() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_nanos())
}
