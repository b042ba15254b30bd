//! The caches of a test, on whatever engine: settings, a run of `cache-up`, a clean-up, and what is seen afterwards.
#![allow(dead_code, missing_docs, clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::Duration;

use xtask::cache;
use xtask::clean::Clean;
use xtask::config::Config;
use xtask::docker::LABEL_PREFIX;
use xtask::error::{Error, Result};
use xtask::exec::Runner;
use xtask::observe::{self, Look};
use xtask::plan::{Action, Tried};
use xtask::reconcile::{Done, Reconcile};
use xtask::settings;
use xtask::term::Term;

pub const HOSTS: [&str; 2] = ["docker.io", "quay.io"];
const OTHERS: [&str; 5] = ["k8s.gcr.io", "gcr.io", "ghcr.io", "registry.k8s.io", "factory.talos.dev"];

/// Two mirrors of one upstream.
#[derive(Clone)]
pub struct Caches {
    pub config: Config,
    pub ports: Vec<u16>,
    pub upstream: String,
    pub adopt: bool,
    pub timeout: Duration,
}

impl Caches {
    pub fn new(prefix: &str, ports: &[u16], upstream: &str) -> Self {
        let config = settings::parse(None, &text(prefix, ports, upstream, "", ""), None).unwrap();
        let (ports, upstream) = (ports.to_vec(), upstream.to_owned());
        Self { config, ports, upstream, adopt: false, timeout: Duration::from_secs(30) }
    }

    /// The same with other settings: `top` in front of the tables, `docker_io` in that mirror's table.
    pub fn with(&self, top: &str, docker_io: &str) -> Self {
        let text = text(&self.config.prefix, &self.ports, &self.upstream, top, docker_io);
        Self { config: settings::parse(None, &text, None).unwrap(), ..self.clone() }
    }

    pub fn adopting(&self) -> Self {
        Self { adopt: true, ..self.clone() }
    }

    pub fn name(&self, host: &str) -> String {
        format!("{}{host}", self.config.prefix)
    }

    fn reconcile<'a>(&'a self, runner: &'a dyn Runner) -> Reconcile<'a> {
        Reconcile {
            runner,
            term: Term::silent(),
            config: &self.config,
            mirrors: &self.config.mirrors,
            adopt: self.adopt,
            timeout: self.timeout,
        }
    }

    /// `cache-up`, without what it prints.
    pub fn up(&self, runner: &dyn Runner) -> Result<Done> {
        self.up_after(runner, Duration::ZERO)
    }

    /// The same where the images take their time to come.
    pub fn up_after(&self, runner: &dyn Runner, images: Duration) -> Result<Done> {
        let reconcile = self.reconcile(runner);
        reconcile.up(|plan, observed| {
            std::thread::sleep(images);
            cache::ground(&reconcile, None, plan, observed)
        })
    }

    /// The same mirrors on other ports.
    pub fn on(&self, ports: &[u16]) -> Self {
        Self { config: Self::new(&self.config.prefix, ports, &self.upstream).config, ..self.clone() }
    }

    /// `cache-clean`, without what it prints.
    pub fn clean(&self, runner: &dyn Runner, keep_cache: bool) -> Result<()> {
        let clean = Clean { runner, config: &self.config, mirrors: &self.config.mirrors, all: false, keep_cache };
        clean.remove(&clean.doomed()?)
    }

    /// What is planned: nothing where all is as it should be.
    pub fn plan(&self, runner: &dyn Runner) -> xtask::plan::Plan {
        self.reconcile(runner).plan(&Tried::default()).unwrap().0
    }

    /// What a run did, or what stood in its way, a line each. That it waited is left out: how often it has to
    /// depends on the moment at which it looks.
    pub fn told(&self, result: &Result<Done>) -> Vec<String> {
        let lines: Vec<String> = match result {
            Ok(done) => done
                .steps
                .iter()
                .filter(|step| step.action != Action::Wait)
                .map(|step| format!("{:?} {} ({})", step.action, step.host, step.why.join("; ")))
                .collect(),
            Err(Error::Blocked(findings)) => {
                findings.iter().map(|finding| format!("{}: {}", finding.subject, finding.problem)).collect()
            }
            Err(other) => vec![other.to_string()],
        };
        let mut lines: Vec<String> = lines.iter().map(|line| self.plain(line)).collect();
        // What is done at once is done in no order.
        lines.sort();
        lines
    }

    /// What is there of each mirror, and the volumes.
    pub fn seen(&self, runner: &dyn Runner) -> Vec<String> {
        let look = Look {
            config: &self.config,
            mirrors: &self.config.mirrors,
            tried: &Tried::default(),
            returns: true,
            logins: true,
            adopt: false,
        };
        let observed = observe::observe(runner, &look).unwrap();
        let mut seen = Vec::new();
        for mirror in &self.config.mirrors {
            let Some(container) = observed.containers.get(&mirror.name) else {
                seen.push(format!("{}: absent", mirror.host));
                continue;
            };
            let has = |all: &BTreeSet<String>| all.contains(&mirror.host);
            seen.push(format!(
                "{}: {} {:?} {} of {}, labelled {:?}, answers {}, upstream back {}, crash {:?}, login {:?}, account {:?}, error {:?}, \
                 differs {:?}, of the guide's {:?}, own volume {}, addresses {}, publishes {}",
                mirror.host,
                container.state.status,
                container.mode(),
                container.image(),
                container.upstream().unwrap_or("nothing"),
                container.label(LABEL_PREFIX),
                has(&observed.answering),
                has(&observed.reachable),
                observed.crashes.get(&mirror.host),
                observed.logins.get(&mirror.host),
                observed.accounts.get(&mirror.host),
                container.state.error,
                container.drift(mirror, &observed.listen),
                container.guide_drift(mirror, &observed.listen),
                container.store() == Some(&mirror.name),
                container.addresses().len(),
                container.publishes(mirror.port),
            ));
        }
        seen.push(format!("holders {:?}", observed.holders));
        let volumes = observe::volumes(runner, None).unwrap();
        let mine = volumes.into_iter().filter(|(name, _)| name.starts_with(&self.config.prefix));
        seen.extend(mine.map(|(name, volume)| format!("volume {name}, labelled {:?}", volume.prefix)));
        seen.iter().map(|line| self.plain(line)).collect()
    }

    /// A line without what differs from one engine and one run to the next.
    pub fn plain(&self, line: &str) -> String {
        let place = self.upstream.trim_start_matches("http://");
        let mut line = line.replace(&self.upstream, "UPSTREAM").replace(place, "UPSTREAM");
        line = line.replace(&self.config.prefix, "PREFIX-");
        // Docker 28 and later says this in front of it, and names whichever of two addresses it tried first.
        line = line.replace("failed to set up container networking: ", "").replace("Bind for :::", "Bind for 0.0.0.0:");
        line = line.replace("daemon: container ", "daemon: Container ");
        for (index, port) in self.ports.iter().enumerate() {
            line = line.replace(&port.to_string(), &format!("PORT{index}"));
        }
        let hex = |text: &str| text.len() >= 64 && text.bytes().take(64).all(|byte| byte.is_ascii_hexdigit());
        while let Some(at) = (0..line.len()).find(|at| line.get(*at..).is_some_and(hex)) {
            line.replace_range(at..at + 64, "ID");
        }
        line
    }
}

fn text(prefix: &str, ports: &[u16], upstream: &str, top: &str, docker_io: &str) -> String {
    let mut text = format!("prefix = \"{prefix}\"\n{top}\n");
    for (host, port) in HOSTS.iter().zip(ports) {
        let more = if *host == "docker.io" { docker_io } else { "" };
        let port = if more.contains("port = ") { String::new() } else { format!("port = {port}\n") };
        text += &format!("[mirrors.\"{host}\"]\nupstream = \"{upstream}\"\n{port}{more}\n");
    }
    for host in OTHERS {
        text += &format!("[mirrors.\"{host}\"]\nenabled = false\n");
    }
    text
}
