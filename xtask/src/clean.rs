//! `cache-clean`: removes proxies and what they cached, and says how much that was.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use camino::Utf8PathBuf;
use serde_json::json;

use crate::app::App;
use crate::cache::{only_printed, ours, say};
use crate::config::{Config, Mirror};
use crate::container::{Container, Root};
use crate::docker::{self, LABEL_PREFIX, Listed, STORE};
use crate::error::{Error, Finding, Result};
use crate::exec::{Cmd, Runner};
use crate::observe::{self, together};
use crate::{disk, report};

/// How often to try where the engine refuses.
const TRIES: usize = 5;
/// How long another terminal that is removing the same is given.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is to be removed.
pub struct Doomed {
    containers: Vec<String>,
    /// Containers of unfinished adoptions.
    copiers: Vec<String>,
    /// Volumes with their folders on the engine's host.
    volumes: BTreeMap<String, Utf8PathBuf>,
    /// Volumes that go with containers which were made by hand.
    anonymous: BTreeMap<String, Utf8PathBuf>,
    /// Containers that keep what they cached elsewhere than where every image keeps it.
    elsewhere: Vec<Container>,
    /// What carries the label and is of no mirror in force.
    left: Vec<String>,
    /// Volumes of a mirror's name that this tool did not create.
    foreign: Vec<String>,
}

impl Doomed {
    fn commands(&self) -> Vec<Cmd> {
        let volumes: Vec<String> = self.volumes.keys().cloned().collect();
        // A copier may be the last one to hold the volume of a container that somebody has removed since.
        let copiers = Some(docker::remove_copiers(&self.copiers)).filter(|_| !self.copiers.is_empty());
        let containers = Some(docker::remove(&self.containers)).filter(|_| !self.containers.is_empty());
        let volumes = Some(docker::remove_volumes(&volumes)).filter(|_| !volumes.is_empty());
        copiers.into_iter().chain(containers).chain(volumes).collect()
    }

    fn volumes(&self) -> BTreeMap<String, Utf8PathBuf> {
        self.volumes.iter().chain(&self.anonymous).map(|(name, path)| (name.clone(), path.clone())).collect()
    }
}

/// `cache-clean`.
///
/// # Errors
/// The engine does not answer or refuses, or `--keep-cache` would lose the cache of a container made by hand.
pub fn clean(app: &App, hosts: &[String], keep_cache: bool, all: bool) -> Result<()> {
    let mirrors = app.config.select(hosts)?;
    crate::tool::Tool::Docker.require()?;
    let clean = Clean { runner: &app.processes, config: &app.config, mirrors: &mirrors, all, keep_cache };
    let doomed = clean.doomed()?;
    if only_printed(app, &doomed.commands())? {
        return Ok(());
    }
    let image = mirrors.first().map_or("", |mirror| mirror.image.as_str());
    let volumes = doomed.volumes();
    let on_volumes: Option<u64> = disk::volumes(&app.processes, &volumes, image)?.into_values().sum();
    let elsewhere = doomed.elsewhere.iter().map(|container| freed_elsewhere(&app.processes, container));
    let elsewhere: Option<u64> = elsewhere.collect::<Result<Vec<_>>>()?.into_iter().sum();
    let freed = on_volumes.zip(elsewhere).map(|(on_volumes, elsewhere)| on_volumes + elsewhere);
    clean.remove(&doomed)?;
    let names: Vec<String> = volumes.into_keys().collect();
    let text = cleaned(doomed.containers.len(), names.len(), freed, keep_cache);
    let removed = json!({ "containers": doomed.containers, "volumes": names });
    if hosts.is_empty() && !doomed.left.is_empty() {
        let left = doomed.left.join(", ");
        app.term
            .warn(&format!("left, since the settings in force have no such mirror: {left} (--all removes them too)"));
    }
    for volume in &doomed.foreign {
        app.term.warn(&format!(
            "Left volume {volume}, which this tool did not create (`docker volume rm {volume}` removes it)"
        ));
    }
    let left: Vec<&String> = doomed.left.iter().chain(&doomed.foreign).collect();
    say(app, &text, || json!({ "removed": removed, "freed_bytes": freed, "left": left }))
}

/// What a clean-up works with.
pub struct Clean<'a> {
    /// Starts the commands.
    pub runner: &'a dyn Runner,
    /// The settings in force.
    pub config: &'a Config,
    /// The mirrors to remove.
    pub mirrors: &'a [Mirror],
    /// Whether what carries the prefix and is of no mirror in force goes as well.
    pub all: bool,
    /// Whether the volumes stay.
    pub keep_cache: bool,
}

impl Clean<'_> {
    /// Looks at everything that is to go.
    ///
    /// # Errors
    /// The engine does not answer, or the cache of a container made by hand would be lost.
    pub fn doomed(&self) -> Result<Doomed> {
        let (listing, volumes) = together(|| observe::listing(self.runner), || observe::volumes(self.runner, None));
        let listing = listing?;
        let (volumes, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
            volumes?.into_iter().partition(|(_, volume)| volume.prefix == self.config.prefix);
        let of_no_label = |mirror: &&Mirror| {
            !self.keep_cache && others.get(&mirror.name).is_some_and(|volume| volume.prefix.is_empty())
        };
        let foreign = self.mirrors.iter().filter(of_no_label).map(|mirror| mirror.name.clone()).collect();
        let of_a_mirror =
            |name: &str| self.mirrors.iter().any(|mirror| name == mirror.name || name == docker::copier(mirror));
        let wanted = |name: &str| self.all || of_a_mirror(name);
        let labelled = listing.iter().filter(|entry| entry.prefix == self.config.prefix).map(|entry| &entry.name);
        let (mut containers, others): (BTreeSet<String>, BTreeSet<String>) =
            labelled.cloned().partition(|name| wanted(name));
        let by_hand = self.by_hand(&listing)?;
        if self.keep_cache {
            keeps_nothing_in_itself(&by_hand)?;
        }
        containers.extend(by_hand.iter().map(|made| made.name.clone()));
        let (mut copiers, containers): (Vec<String>, Vec<String>) =
            containers.into_iter().partition(|name| docker::is_copier(name));
        // On a volume that stays, a copier is the sign of an unfinished copy, which the next `cache-up` discards.
        copiers.retain(|_| !self.keep_cache);
        let known = |name: &str| self.config.mirrors.iter().any(|mirror| mirror.name == name);
        let left = others.iter().chain(volumes.keys().filter(|name| !wanted(name)));
        let left: BTreeSet<String> = left.filter(|name| !known(name)).cloned().collect();
        let volumes = volumes.into_iter().filter(|(name, _)| !self.keep_cache && wanted(name));
        Ok(Doomed {
            containers,
            copiers,
            volumes: volumes.map(|(name, volume)| (name, volume.path)).collect(),
            elsewhere: by_hand.iter().filter_map(|made| made.elsewhere.clone()).collect(),
            anonymous: by_hand.into_iter().filter_map(|made| made.volume).collect(),
            left: left.into_iter().collect(),
            foreign,
        })
    }

    /// Removes it; success is that nothing of it is there afterwards, whoever removed it.
    ///
    /// # Errors
    /// The engine does not answer or refuses.
    pub fn remove(&self, first: &Doomed) -> Result<()> {
        // Looking and measuring takes its time, in which a user may have thought better of it.
        self.runner.go_on()?;
        let mut commands = first.commands();
        let (mut tries, started) = (0, Instant::now());
        while tries < TRIES && started.elapsed() < PATIENCE {
            let mut failed = None;
            for cmd in &commands {
                let output = self.runner.run(cmd)?;
                failed =
                    failed.or_else(|| output.checked(cmd, "see what the engine says of it, then run this again").err());
            }
            let Some(error) = failed else { return Ok(()) };
            // The engine's own word, on 20.10 and 29.
            tries += usize::from(!error.to_string().contains("is already in progress"));
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
                return Err(self.in_use(first)?.unwrap_or(error));
            }
        }
        if let Some(error) = self.in_use(first)? {
            return Err(error);
        }
        let cmd = commands.remove(0);
        self.runner.run(&cmd)?.checked(&cmd, "see what the engine says of it, then run this again").map(|_| ())
    }

    /// That volumes are used by other containers, where they are.
    fn in_use(&self, doomed: &Doomed) -> Result<Option<Error>> {
        let mut findings = Vec::new();
        for volume in doomed.volumes.keys() {
            let users: Vec<[String; 1]> = observe::rows(self.runner, &docker::users(volume))?;
            let users: Vec<String> = users.into_iter().flatten().collect();
            if !users.is_empty() {
                let problem = format!("the volume is in use by container {}", users.join(", "));
                let fix = format!("remove what uses it (`docker rm --force {}`), then run this again", users.join(" "));
                findings.push(Finding::new(volume, problem, fix));
            }
        }
        Ok(Some(Error::Blocked(findings.clone())).filter(|_| !findings.is_empty()))
    }

    /// The mirrors' containers that carry no label and are what the guide would have made.
    fn by_hand(&self, listing: &[Listed]) -> Result<Vec<ByHand>> {
        let unlabelled = |mirror: &&Mirror| listing.iter().any(|e| e.name == mirror.name && e.prefix.is_empty());
        let candidates: Vec<Mirror> = self.mirrors.iter().filter(unlabelled).cloned().collect();
        if candidates.is_empty() {
            return Ok(Vec::new());
        }
        let observed = observe::look(self.runner, self.config, &candidates)?;
        let mut made = Vec::new();
        for mirror in ours(self.config, &candidates, &observed) {
            let container = &observed.containers[&mirror.name];
            if container.label(LABEL_PREFIX).is_some() {
                continue;
            }
            let volume = container.anonymous_store().zip(container.store_path());
            let volume = volume.map(|(name, path)| (name.to_owned(), path.to_owned()));
            let loses = if self.keep_cache { self.loses(mirror, container)? } else { None };
            let elsewhere = Some(container).filter(|container| container.root() != Root::At(STORE.to_owned())).cloned();
            made.push(ByHand { host: mirror.host.clone(), name: mirror.name.clone(), volume, loses, elsewhere });
        }
        Ok(made)
    }

    /// Where a container may keep a cache that would go with it: in a volume that nobody has named, or in its own layer.
    fn loses(&self, mirror: &Mirror, container: &Container) -> Result<Option<String>> {
        if let Some(place) = container.anonymous_mount() {
            return Ok(Some(format!("the anonymous volume on {place}")));
        }
        let own_layer = observe::own_layer(self.runner, mirror)?;
        Ok(own_layer.map(|place| format!("{place}, in the container itself")))
    }
}

/// A container that was made by hand.
struct ByHand {
    host: String,
    name: String,
    /// The volume that goes with it, with its folder; one that somebody has named stays.
    volume: Option<(String, Utf8PathBuf)>,
    /// Where a cache may be that would go with it, as far as that was looked for.
    loses: Option<String>,
    /// The container, where it keeps its store elsewhere.
    elsewhere: Option<Container>,
}

/// What goes with a container that keeps its store elsewhere; `None` where that cannot be measured.
fn freed_elsewhere(runner: &dyn Runner, container: &Container) -> Result<Option<u64>> {
    match disk::place(runner, container)? {
        Some(place) if container.takes_along(&place) => disk::store(runner, container),
        Some(_) => Ok(Some(0)),
        None => Ok(None),
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

/// An anonymous volume would be an orphan without its container, and what is in the container itself is gone with it.
fn keeps_nothing_in_itself(by_hand: &[ByHand]) -> Result<()> {
    let finding = |made: &ByHand| {
        let place = made.loses.as_ref()?;
        let problem = format!("{} was made by hand, and its cache may be in {place}: it would be lost", made.name);
        Some(Finding::new(
            &made.host,
            problem,
            format!("`cargo xtask cache-down {}` stops it and keeps all", made.host),
        ))
    };
    let findings: Vec<Finding> = by_hand.iter().filter_map(finding).collect();
    if findings.is_empty() { Ok(()) } else { Err(Error::Blocked(findings)) }
}
