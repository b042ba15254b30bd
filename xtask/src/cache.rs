//! The cache tasks: up, down, clean, logs.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::Mutex;
use std::time::Duration;

use camino::Utf8PathBuf;
use serde_json::json;

use crate::app::App;
use crate::cli::Up;
use crate::config::{Config, Mirror, Offline};
use crate::container::Container;
use crate::docker::{self, LABEL_PREFIX, Mode};
use crate::error::{Error, Finding, Result};
use crate::exec::{Cmd, ReadOnly, Runner};
use crate::observe::{self, each, together};
use crate::plan::{Observed, Plan};
use crate::reconcile::{Done, Ground, Reconcile};
use crate::{disk, image, report, status};

/// `cache-up`.
///
/// # Errors
/// Something stands in the way, or a proxy does not come up.
pub fn up(app: &App, hosts: &[String], up: &Up) -> Result<()> {
    let mirrors = app.config.select(hosts)?;
    if app.dry_run {
        let plan = plan(app, &mirrors, up)?;
        return app.print(|| report::plan(&plan), || json!({ "steps": plan.steps }));
    }
    let done = bring_up(app, &mirrors, up)?;
    let mode = |mirror: &Mirror| done.observed.containers.get(&mirror.name).map(Container::mode);
    app.print(
        || report::addresses(&app.config, &mirrors, |mirror| mode(mirror) == Some(Mode::Offline)),
        || json!({ "steps": done.steps, "proxies": status::rows(app, &mirrors, &done.observed) }),
    )
}

fn asked(app: &App, up: &Up) -> Config {
    let offline = if up.offline { Offline::Always } else { app.config.offline };
    Config { offline, ..app.config.clone() }
}

/// What [`bring_up`] would do.
///
/// # Errors
/// The engine does not answer, or something stands in the way.
pub fn plan(app: &App, mirrors: &[Mirror], up: &Up) -> Result<Plan> {
    let reconcile = Reconcile {
        runner: &ReadOnly(&app.processes),
        term: app.term,
        config: &asked(app, up),
        mirrors,
        adopt: up.adopt,
        timeout: Duration::from_secs(up.timeout),
    };
    let (plan, _) = reconcile.plan(&BTreeSet::new())?;
    if plan.blockers.is_empty() { Ok(plan) } else { Err(Error::Blocked(plan.blockers)) }
}

/// Brings mirrors up, their images included.
///
/// # Errors
/// Something stands in the way, or a proxy does not come up.
pub fn bring_up(app: &App, mirrors: &[Mirror], up: &Up) -> Result<Done> {
    crate::tool::Tool::Docker.require()?;
    let reconcile = Reconcile {
        runner: &app.processes,
        term: app.term,
        config: &asked(app, up),
        mirrors,
        adopt: up.adopt,
        timeout: Duration::from_secs(up.timeout),
    };
    reconcile.up(|plan, observed| ground(app, mirrors, up, plan, observed))
}

/// What has to be so before the first container is created: an engine that is new enough, and the images.
fn ground(app: &App, mirrors: &[Mirror], up: &Up, plan: &Plan, observed: &Observed) -> Result<Ground> {
    let made: Vec<&Mirror> = mirrors.iter().filter(|mirror| plan.makes(&mirror.host)).collect();
    if made.is_empty() {
        return Ok(Ground::default());
    }
    let images: BTreeSet<&str> = made.iter().map(|mirror| mirror.image.as_str()).collect();
    let (absent, (version, volumes)) = together(
        || image::absent(&app.processes, &images),
        || together(|| observe::check_version(&app.processes), || observe::volumes(&app.processes, None)),
    );
    version?;
    let volumes = volumes?;
    for mirror in &made {
        let first = !observed.containers.contains_key(&mirror.name);
        if first && volumes.get(&mirror.name).is_some_and(|volume| !volume.ours) {
            let word = format!(
                "a volume {} is there that this did not make: it is used as it is, and cache-clean will leave it",
                mirror.name
            );
            app.term.warn(&word);
        }
    }
    // How an image came is known for good by the containers that were made from it at the time.
    let mut origins: BTreeMap<String, String> = observed
        .containers
        .values()
        .filter_map(|container| Some((container.image().to_owned(), container.label(docker::LABEL_IMAGE)?.to_owned())))
        .collect();
    origins.extend(image::provide(&app.processes, app.term, &absent?, up.image_archive.as_deref())?);
    let fresh = made
        .iter()
        .filter(|mirror| !observed.containers.contains_key(&mirror.name) && !volumes.contains_key(&mirror.name))
        .map(|mirror| mirror.name.clone())
        .collect();
    Ok(Ground { origins, fresh })
}

/// The mirrors' containers that are ours to stop or remove.
fn ours<'a>(app: &App, mirrors: &'a [Mirror], observed: &Observed) -> Vec<&'a Mirror> {
    let mine = |mirror: &&Mirror| {
        let container = observed.containers.get(&mirror.name);
        container.is_some_and(|container| observe::is_ours(&app.config, mirror, container, &observed.listen))
    };
    mirrors.iter().filter(mine).collect()
}

/// Runs commands that change something one after the other, or prints them where this is a dry run.
fn change(app: &App, commands: &[Cmd], result: impl FnOnce() -> (String, serde_json::Value)) -> Result<()> {
    if app.dry_run {
        let lines: Vec<String> = commands.iter().map(Cmd::shell).collect();
        let text = || lines.iter().map(|line| format!("would run {line}\n")).collect();
        return app.print(text, || json!({ "would_run": lines }));
    }
    for cmd in commands {
        app.processes.run(cmd)?.checked(cmd, "see what the engine says of it, then run this again")?;
    }
    let (text, json) = result();
    if app.json {
        return app.print(String::new, || json);
    }
    app.term.step(&text);
    Ok(())
}

/// `cache-down`.
///
/// # Errors
/// The engine does not answer, or refuses.
pub fn down(app: &App, hosts: &[String]) -> Result<()> {
    let mirrors = app.config.select(hosts)?;
    let observed = observe::look(&app.processes, &app.config, &mirrors)?;
    let at_rest = |status: &str| matches!(status, "exited" | "created" | "dead");
    let names: Vec<String> = ours(app, &mirrors, &observed)
        .into_iter()
        .filter(|mirror| !at_rest(&observed.containers[&mirror.name].state.status))
        .map(|mirror| mirror.name.clone())
        .collect();
    let commands: Vec<Cmd> = Some(docker::stop(&names)).filter(|_| !names.is_empty()).into_iter().collect();
    change(app, &commands, || {
        let text = match &names[..] {
            [] => "nothing to stop".to_owned(),
            names => format!("stopped {}; what they cached is kept", names.join(", ")),
        };
        (text, json!({ "stopped": names }))
    })
}

/// `cache-clean`.
///
/// # Errors
/// The engine does not answer or refuses, or `--keep-cache` would lose the cache of a container made by hand.
pub fn clean(app: &App, hosts: &[String], keep_cache: bool) -> Result<()> {
    let mirrors = app.config.select(hosts)?;
    crate::tool::Tool::Docker.require()?;
    let (listing, volumes) =
        together(|| observe::listing(&app.processes), || observe::volumes(&app.processes, Some(&app.config.prefix)));
    let listing = listing?;
    let named = |name: &str| hosts.is_empty() || mirrors.iter().any(|mirror| mirror.name == name);
    let labelled = |entry: &&docker::Listed| entry.prefix == app.config.prefix && named(&entry.name);
    let mut containers: BTreeSet<String> = listing.iter().filter(labelled).map(|entry| entry.name.clone()).collect();
    let by_hand = by_hand(app, &mirrors, &listing)?;
    if keep_cache {
        keeps_nothing_in_itself(&by_hand)?;
    }
    containers.extend(by_hand.into_iter().map(|mirror| mirror.name.clone()));
    let volumes: BTreeMap<String, Utf8PathBuf> = volumes?
        .into_iter()
        .filter(|(name, _)| !keep_cache && named(name))
        .map(|(n, volume)| (n, volume.path))
        .collect();
    let image = mirrors.first().map_or("", |mirror| mirror.image.as_str());
    let freed: Option<u64> = match app.dry_run {
        true => None,
        false => disk::volumes(&app.processes, &volumes, image)?.into_values().sum(),
    };
    let containers: Vec<String> = containers.into_iter().collect();
    let names: Vec<String> = volumes.into_keys().collect();
    let mut commands = Vec::new();
    if !containers.is_empty() {
        commands.push(docker::remove(&containers));
    }
    if !names.is_empty() {
        commands.push(docker::remove_volumes(&names));
    }
    change(app, &commands, || {
        let json = json!({ "removed": { "containers": containers, "volumes": names }, "freed_bytes": freed });
        (cleaned(containers.len(), names.len(), freed, keep_cache), json)
    })
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

/// The mirrors whose container carries no label and is what the guide would have made.
fn by_hand<'a>(app: &App, mirrors: &'a [Mirror], listing: &[docker::Listed]) -> Result<Vec<&'a Mirror>> {
    let unlabelled = |mirror: &&Mirror| listing.iter().any(|e| e.name == mirror.name && e.prefix.is_empty());
    let candidates: Vec<Mirror> = mirrors.iter().filter(unlabelled).cloned().collect();
    if candidates.is_empty() {
        return Ok(Vec::new());
    }
    let observed = observe::look(&app.processes, &app.config, &candidates)?;
    let without = |mirror: &&Mirror| observed.containers[&mirror.name].label(LABEL_PREFIX).is_none();
    let hosts: BTreeSet<&str> =
        ours(app, &candidates, &observed).into_iter().filter(without).map(|mirror| mirror.host.as_str()).collect();
    Ok(mirrors.iter().filter(|mirror| hosts.contains(mirror.host.as_str())).collect())
}

/// A container made by hand has its cache in an anonymous volume, which would be an orphan without it.
fn keeps_nothing_in_itself(by_hand: &[&Mirror]) -> Result<()> {
    let finding = |mirror: &&Mirror| {
        let problem = format!("{} was made by hand, and its cache would be lost with it", mirror.name);
        Finding::new(&mirror.host, problem, format!("`cargo xtask cache-down {}` stops it and keeps all", mirror.host))
    };
    let findings: Vec<Finding> = by_hand.iter().map(finding).collect();
    if findings.is_empty() { Ok(()) } else { Err(Error::Blocked(findings)) }
}

/// `cache-logs`.
///
/// # Errors
/// The engine does not answer, a proxy is absent, or a signal ended it.
pub fn logs(app: &App, hosts: &[String], follow: bool, tail: u32) -> Result<()> {
    let mirrors = app.config.select(hosts)?;
    let observed = observe::look(&app.processes, &app.config, &mirrors)?;
    let there: Vec<&Mirror> = mirrors.iter().filter(|m| observed.containers.contains_key(&m.name)).collect();
    if there.is_empty() {
        let problem = "no proxy is there to show the log of".to_owned();
        return Err(Error::Blocked(vec![Finding::new("cache-logs", problem, "cargo xtask cache-up")]));
    }
    let width = there.iter().map(|mirror| mirror.host.len()).max().unwrap_or(0);
    let out = Mutex::new(std::io::stdout());
    let results = each(&there, |mirror| {
        app.processes.lines(&docker::follow(&mirror.name, &tail.to_string(), follow), &mut |line| {
            let mut out = out.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            writeln!(out, "{:width$} | {line}", mirror.host).is_ok()
        })
    });
    results.into_iter().try_for_each(|(_, result)| result)
}
