//! `cache-clean`: removes proxies and what they cached, and says how much that was.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use camino::Utf8PathBuf;
use serde_json::json;

use crate::app::App;
use crate::cache::{only_printed, ours, say};
use crate::config::{Config, Mirror};
use crate::docker::{self, LABEL_PREFIX, Listed};
use crate::error::{Error, Finding, Result};
use crate::exec::{Cmd, Runner};
use crate::observe::{self, together};
use crate::{disk, report};

/// How often to try: another terminal may be removing the same.
const TRIES: usize = 5;

/// What is to be removed.
pub struct Doomed {
    containers: Vec<String>,
    /// Volumes with their folders on the engine's host.
    volumes: BTreeMap<String, Utf8PathBuf>,
    /// Volumes that go with containers which were made by hand.
    anonymous: BTreeMap<String, Utf8PathBuf>,
}

impl Doomed {
    fn commands(&self) -> Vec<Cmd> {
        let volumes: Vec<String> = self.volumes.keys().cloned().collect();
        let containers = Some(docker::remove(&self.containers)).filter(|_| !self.containers.is_empty());
        let volumes = Some(docker::remove_volumes(&volumes)).filter(|_| !volumes.is_empty());
        containers.into_iter().chain(volumes).collect()
    }

    fn volumes(&self) -> BTreeMap<String, Utf8PathBuf> {
        self.volumes.iter().chain(&self.anonymous).map(|(name, path)| (name.clone(), path.clone())).collect()
    }
}

/// `cache-clean`.
///
/// # Errors
/// The engine does not answer or refuses, or `--keep-cache` would lose the cache of a container made by hand.
pub fn clean(app: &App, hosts: &[String], keep_cache: bool) -> Result<()> {
    let mirrors = app.config.select(hosts)?;
    crate::tool::Tool::Docker.require()?;
    let clean = Clean { runner: &app.processes, config: &app.config, mirrors: &mirrors, hosts, keep_cache };
    let doomed = clean.doomed()?;
    if only_printed(app, &doomed.commands())? {
        return Ok(());
    }
    let image = mirrors.first().map_or("", |mirror| mirror.image.as_str());
    let volumes = doomed.volumes();
    let freed: Option<u64> = disk::volumes(&app.processes, &volumes, image)?.into_values().sum();
    clean.remove(&doomed)?;
    let names: Vec<String> = volumes.into_keys().collect();
    let text = cleaned(doomed.containers.len(), names.len(), freed, keep_cache);
    let removed = json!({ "containers": doomed.containers, "volumes": names });
    say(app, &text, || json!({ "removed": removed, "freed_bytes": freed }))
}

/// What a clean-up works with.
pub struct Clean<'a> {
    /// Starts the commands.
    pub runner: &'a dyn Runner,
    /// The settings in force.
    pub config: &'a Config,
    /// The mirrors to remove.
    pub mirrors: &'a [Mirror],
    /// The hosts that were named; where none was, what carries the prefix and is no mirror any more goes as well.
    pub hosts: &'a [String],
    /// Whether the volumes stay.
    pub keep_cache: bool,
}

impl Clean<'_> {
    /// Looks at everything that is to go.
    ///
    /// # Errors
    /// The engine does not answer, or the cache of a container made by hand would be lost.
    pub fn doomed(&self) -> Result<Doomed> {
        let (listing, volumes) =
            together(|| observe::listing(self.runner), || observe::volumes(self.runner, Some(&self.config.prefix)));
        let listing = listing?;
        let named = |name: &str| self.hosts.is_empty() || self.mirrors.iter().any(|mirror| mirror.name == name);
        let labelled = |entry: &&Listed| entry.prefix == self.config.prefix && named(&entry.name);
        let mut containers: BTreeSet<String> =
            listing.iter().filter(labelled).map(|entry| entry.name.clone()).collect();
        let by_hand = self.by_hand(&listing)?;
        if self.keep_cache {
            keeps_nothing_in_itself(&by_hand)?;
        }
        containers.extend(by_hand.iter().map(|(mirror, _)| mirror.name.clone()));
        let volumes = volumes?.into_iter().filter(|(name, _)| !self.keep_cache && named(name));
        Ok(Doomed {
            containers: containers.into_iter().collect(),
            volumes: volumes.map(|(name, volume)| (name, volume.path)).collect(),
            anonymous: by_hand.into_iter().filter_map(|(_, volume)| volume).collect(),
        })
    }

    /// Removes it; success is that nothing of it is there afterwards, whoever removed it.
    ///
    /// # Errors
    /// The engine does not answer or refuses.
    pub fn remove(&self, first: &Doomed) -> Result<()> {
        let mut commands = first.commands();
        for _ in 0..TRIES {
            let mut failed = None;
            for cmd in &commands {
                let output = self.runner.run(cmd)?;
                failed =
                    failed.or_else(|| output.checked(cmd, "see what the engine says of it, then run this again").err());
            }
            let Some(error) = failed else { return Ok(()) };
            commands = self.doomed()?.commands();
            if commands.is_empty() {
                return Ok(());
            }
            if let Some(signal) = self.runner.interrupted() {
                return Err(Error::Interrupted {
                    signal,
                    left: "some of it is still there; run this again".to_owned(),
                });
            }
            std::thread::sleep(Duration::from_millis(400));
            if commands.len() == 1 && first.commands().len() > 1 {
                // The containers are gone, and a volume is not: somebody else uses it.
                return Err(error);
            }
        }
        let cmd = commands.remove(0);
        self.runner.run(&cmd)?.checked(&cmd, "see what the engine says of it, then run this again").map(|_| ())
    }

    /// The mirrors whose container carries no label and is what the guide would have made, with the volume that goes with
    /// it.
    fn by_hand(&self, listing: &[Listed]) -> Result<Vec<(&Mirror, Volume)>> {
        let unlabelled = |mirror: &&Mirror| listing.iter().any(|e| e.name == mirror.name && e.prefix.is_empty());
        let candidates: Vec<Mirror> = self.mirrors.iter().filter(unlabelled).cloned().collect();
        if candidates.is_empty() {
            return Ok(Vec::new());
        }
        let observed = observe::look(self.runner, self.config, &candidates)?;
        let made = ours(self.config, &candidates, &observed).into_iter().filter_map(|mirror| {
            let container = observed.containers.get(&mirror.name)?;
            let volume = container.store().zip(container.store_path());
            let volume = volume.map(|(name, path)| (name.to_owned(), path.to_owned()));
            let mirror = self.mirrors.iter().find(|known| known.host == mirror.host)?;
            container.label(LABEL_PREFIX).is_none().then_some((mirror, volume))
        });
        Ok(made.collect())
    }
}

fn cleaned(containers: usize, volumes: usize, freed: Option<u64>, keep_cache: bool) -> String {
    if containers + volumes == 0 {
        return "nothing to remove".to_owned();
    }
    let count = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let kept = match freed {
        _ if keep_cache => "what they cached is kept".to_owned(),
        Some(bytes) => format!("freed {}", report::bytes(bytes)),
        None => "how much that freed could not be measured".to_owned(),
    };
    format!("removed {} and {}; {kept}", count(containers, "container"), count(volumes, "volume"))
}

type Volume = Option<(String, Utf8PathBuf)>;

/// A container made by hand has its cache in an anonymous volume, which would be an orphan without it.
fn keeps_nothing_in_itself(by_hand: &[(&Mirror, Volume)]) -> Result<()> {
    let finding = |(mirror, _): &(&Mirror, Volume)| {
        let problem = format!("{} was made by hand, and its cache would be lost with it", mirror.name);
        Finding::new(&mirror.host, problem, format!("`cargo xtask cache-down {}` stops it and keeps all", mirror.host))
    };
    let findings: Vec<Finding> = by_hand.iter().map(finding).collect();
    if findings.is_empty() { Ok(()) } else { Err(Error::Blocked(findings)) }
}
