//! The cache tasks: up, down, clean, status, logs.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::json;

use crate::app::App;
use crate::cli::Up;
use crate::config::{Config, Mirror, Offline};
use crate::docker::{self, LABEL_PREFIX, Mode};
use crate::error::{Error, Finding, Result};
use crate::exec::{Cmd, ReadOnly, Runner};
use crate::observe::{self, Look, each};
use crate::plan::{Action, Observed};
use crate::reconcile::Reconcile;
use crate::tool::Tool;
use crate::traffic::{self, Traffic};
use crate::{image, registry, report};

/// `cache-up`.
///
/// # Errors
/// Something stands in the way, or a proxy does not come up.
pub fn up(app: &App, hosts: &[String], up: &Up) -> Result<()> {
    Tool::Docker.require()?;
    let mirrors = app.config.select(hosts)?;
    let offline = if up.offline { Offline::Always } else { app.config.offline };
    let config = Config { offline, ..app.config.clone() };
    let reconcile = Reconcile {
        runner: &app.processes,
        term: app.term,
        config: &config,
        mirrors: &mirrors,
        timeout: Duration::from_secs(up.timeout),
    };
    if app.dry_run {
        let dry = Reconcile { runner: &ReadOnly(&app.processes), ..reconcile };
        let (plan, _) = dry.plan(&BTreeSet::new())?;
        if !plan.blockers.is_empty() {
            return Err(Error::Blocked(plan.blockers));
        }
        return app.print(|| report::plan(&plan), || json!({ "steps": plan.steps }));
    }
    let done = reconcile.up(|plan| {
        observe::check_version(&app.processes)?;
        let creates = |host: &str| {
            plan.steps.iter().any(|s| s.host == host && matches!(s.action, Action::Create(_) | Action::Replace(_)))
        };
        let images = mirrors.iter().filter(|m| creates(&m.host)).map(|m| m.image.as_str()).collect();
        image::ensure(&app.processes, app.term, &images, up.image_archive.as_deref())
    })?;
    let offline = |mirror: &Mirror| mode(&done.observed, mirror) == Some(Mode::Offline);
    app.print(
        || report::addresses(&app.config, &mirrors, offline),
        || json!({ "steps": done.steps, "proxies": rows(app, &mirrors, &done.observed) }),
    )
}

fn mode(observed: &Observed, mirror: &Mirror) -> Option<Mode> {
    observed.containers.get(&mirror.name).map(docker::Container::mode)
}

fn look(app: &App, mirrors: &[Mirror]) -> Result<Observed> {
    Tool::Docker.require()?;
    observe::observe(&app.processes, &Look { config: &app.config, mirrors, waited: &BTreeSet::new() })
}

/// The mirrors' containers that are ours to stop or remove.
fn ours<'a>(app: &App, mirrors: &'a [Mirror], observed: &Observed) -> Vec<&'a Mirror> {
    let mine = |mirror: &&Mirror| {
        let container = observed.containers.get(&mirror.name);
        container.is_some_and(|container| observe::is_ours(&app.config, mirror, container))
    };
    mirrors.iter().filter(mine).collect()
}

/// Runs one command that changes something, or prints it where this is a dry run.
fn change(app: &App, cmd: &Cmd) -> Result<()> {
    if app.dry_run {
        return app.print(|| format!("would run {}\n", cmd.shell()), || json!({ "would_run": cmd.shell() }));
    }
    app.processes.run(cmd)?.checked(cmd, "see what the engine says of it, then run this again").map(|_| ())
}

/// `cache-down`.
///
/// # Errors
/// The engine does not answer, or refuses.
pub fn down(app: &App, hosts: &[String]) -> Result<()> {
    let mirrors = app.config.select(hosts)?;
    let observed = look(app, &mirrors)?;
    let at_rest = |status: &str| matches!(status, "exited" | "created" | "dead");
    let names: Vec<String> = ours(app, &mirrors, &observed)
        .into_iter()
        .filter(|mirror| !at_rest(&observed.containers[&mirror.name].state.status))
        .map(|mirror| mirror.name.clone())
        .collect();
    if names.is_empty() {
        app.term.step("nothing to stop");
        return Ok(());
    }
    change(app, &docker::stop(&names))?;
    if !app.dry_run {
        app.term.step(&format!("stopped {}; what they cached is kept", names.join(", ")));
    }
    Ok(())
}

/// `cache-clean`.
///
/// # Errors
/// The engine does not answer or refuses, or `--keep-cache` would lose the cache of a container made by hand.
pub fn clean(app: &App, hosts: &[String], keep_cache: bool) -> Result<()> {
    let mirrors = app.config.select(hosts)?;
    let observed = look(app, &mirrors)?;
    let mut containers: BTreeSet<String> =
        ours(app, &mirrors, &observed).into_iter().map(|mirror| mirror.name.clone()).collect();
    let (labelled, mut volumes) = observe::ours(&app.processes, &app.config.prefix)?;
    if hosts.is_empty() {
        containers.extend(labelled);
    } else {
        volumes.retain(|volume| mirrors.iter().any(|mirror| mirror.name == *volume));
    }
    if keep_cache {
        volumes.clear();
        keeps_nothing_in_itself(&mirrors, &observed, &containers)?;
    }
    if containers.is_empty() && volumes.is_empty() {
        app.term.step("nothing to remove");
        return Ok(());
    }
    let freed: Option<u64> = disk(&app.processes, &volumes)?.into_values().sum();
    let containers: Vec<String> = containers.into_iter().collect();
    if !containers.is_empty() {
        change(app, &docker::remove(&containers))?;
    }
    if !volumes.is_empty() {
        change(app, &docker::remove_volumes(&volumes))?;
    }
    if app.dry_run {
        return Ok(());
    }
    let freed = freed.map_or_else(|| "not measured: that needs root".to_owned(), report::bytes);
    let kept = if keep_cache { "what they cached is kept".to_owned() } else { format!("freed {freed}") };
    app.term.step(&format!("removed {} containers and {} volumes; {kept}", containers.len(), volumes.len()));
    Ok(())
}

/// A container made by hand has its cache in an anonymous volume, which would be an orphan without it.
fn keeps_nothing_in_itself(mirrors: &[Mirror], observed: &Observed, removed: &BTreeSet<String>) -> Result<()> {
    let by_hand = mirrors.iter().filter(|mirror| {
        let container = observed.containers.get(&mirror.name);
        removed.contains(&mirror.name) && container.is_some_and(|container| container.label(LABEL_PREFIX).is_none())
    });
    let findings: Vec<Finding> = by_hand
        .map(|mirror| {
            let problem = format!("{} was made by hand, and its cache would be lost with it", mirror.name);
            Finding::new(
                &mirror.host,
                problem,
                format!("`cargo xtask cache-down {}` stops it and keeps all", mirror.host),
            )
        })
        .collect();
    if findings.is_empty() { Ok(()) } else { Err(Error::Blocked(findings)) }
}

/// The bytes that each volume holds, by its name; `None` where its folder may not be read. A volume that is absent
/// (a proxy made by hand has none of that name) is left out.
fn disk(runner: &dyn Runner, volumes: &[String]) -> Result<BTreeMap<String, Option<u64>>> {
    if volumes.is_empty() {
        return Ok(BTreeMap::new());
    }
    let cmd = Cmd::read("docker").args(["volume", "inspect", "--format", "{{.Name}}\t{{.Mountpoint}}"]).args(volumes);
    let text = runner.run(&cmd)?.text();
    let bytes = |line: &str| line.split_once('\t').map(|(name, path)| (name.to_owned(), folder_bytes(path.as_ref())));
    Ok(text.lines().filter_map(bytes).collect())
}

fn folder_bytes(folder: &std::path::Path) -> Option<u64> {
    let mut total = 0;
    for entry in std::fs::read_dir(folder).ok()? {
        let entry = entry.ok()?;
        let metadata = entry.metadata().ok()?;
        total += if metadata.is_dir() { folder_bytes(&entry.path())? } else { metadata.len() };
    }
    Some(total)
}

fn rows(app: &App, mirrors: &[Mirror], observed: &Observed) -> Vec<serde_json::Value> {
    let row = |mirror: &Mirror| {
        let container = observed.containers.get(&mirror.name);
        json!({
            "host": mirror.host,
            "container": mirror.name,
            "state": container.map_or("absent", |container| container.state.status.as_str()),
            "healthy": healthy(app, mirror, observed),
            "mode": container.map(docker::Container::mode),
            "image": container.map(docker::Container::image),
            "image_made_from": container.and_then(|container| container.label("talos-cache.image")),
            "upstream": mirror.upstream,
            "address": registry::address(mirror, &app.config.bind),
        })
    };
    mirrors.iter().map(row).collect()
}

fn healthy(app: &App, mirror: &Mirror, observed: &Observed) -> bool {
    let container = observed.containers.get(&mirror.name);
    observed.answering.contains(&mirror.host)
        && container.is_some_and(|container| observe::is_ours(&app.config, mirror, container))
}

/// What each running proxy did since it was started, and the bytes on its volume, by host.
fn figures(app: &App, mirrors: &[Mirror], observed: &Observed) -> Result<BTreeMap<String, Figures>> {
    let there: Vec<&Mirror> = mirrors.iter().filter(|m| observed.containers.contains_key(&m.name)).collect();
    let volumes: Vec<String> = there.iter().map(|mirror| mirror.name.clone()).collect();
    let disks = disk(&app.processes, &volumes)?;
    let figures = each(&there, |mirror| -> Result<Figures> {
        let container = &observed.containers[&mirror.name];
        let disk = disks.get(&mirror.name).copied().flatten();
        if container.state.status != "running" {
            return Ok(Figures { since: None, traffic: None, disk });
        }
        let since = container.state.started_at.clone();
        let cmd = docker::logs_since(&mirror.name, &since);
        let output = app.processes.run(&cmd)?;
        // Where the log driver keeps nothing that could be read, there is nothing true to say.
        let traffic = output.ok().then(|| {
            let log = String::from_utf8_lossy(&output.stderr);
            let vars = container.counters().and_then(|address| registry::debug_vars(&address));
            traffic::sum(log.lines(), vars.as_ref().and_then(traffic::counters))
        });
        Ok(Figures { since: Some(since), traffic, disk })
    });
    figures.into_iter().map(|(host, figures)| Ok((host, figures?))).collect()
}

#[derive(serde::Serialize)]
struct Figures {
    /// When the proxy was last started: what the figures count from.
    since: Option<String>,
    #[serde(flatten)]
    traffic: Option<Traffic>,
    /// Bytes on its volume; null where they cannot be read.
    #[serde(rename = "disk_bytes")]
    disk: Option<u64>,
}

/// `cache-status`.
///
/// # Errors
/// The engine does not answer; or, with exit code 3, a proxy is not healthy.
pub fn status(app: &App, hosts: &[String]) -> Result<()> {
    let mirrors = app.config.select(hosts)?;
    let observed = look(app, &mirrors)?;
    let figures = figures(app, &mirrors, &observed)?;
    let mut rows = rows(app, &mirrors, &observed);
    for (row, mirror) in rows.iter_mut().zip(&mirrors) {
        row["figures"] = json!(figures.get(&mirror.host));
    }
    app.print(|| table(&rows), || json!({ "proxies": rows }))?;
    let ill: Vec<&str> =
        mirrors.iter().filter(|m| !healthy(app, m, &observed)).map(|mirror| mirror.host.as_str()).collect();
    if ill.is_empty() {
        return Ok(());
    }
    Err(Error::Negative(format!("not healthy: {} (`cargo xtask cache-up` brings them up)", ill.join(", "))))
}

fn table(rows: &[serde_json::Value]) -> String {
    let text = |value: &serde_json::Value| value.as_str().unwrap_or("-").to_owned();
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header([
        "HOST",
        "STATE",
        "HEALTH",
        "MODE",
        "ADDRESS",
        "IMAGE",
        "REQUESTS",
        "HITS",
        "MISSES",
        "TO CLIENTS",
        "FROM UPSTREAM",
        "DISK",
    ]);
    for row in rows {
        let health = if row["healthy"] == true { "healthy" } else { "unhealthy" };
        let figures = &row["figures"];
        let count = |name: &str| figures[name].as_u64().map_or("-".to_owned(), |count| count.to_string());
        let bytes = |name: &str| figures[name].as_u64().map_or("-".to_owned(), report::bytes);
        table.add_row([
            text(&row["host"]),
            text(&row["state"]),
            health.to_owned(),
            text(&row["mode"]),
            text(&row["address"]),
            text(&row["image"]) + row["image_made_from"].as_str().map_or("", |_| " *"),
            count("requests"),
            count("hits"),
            count("misses"),
            bytes("bytes_to_clients"),
            bytes("bytes_from_upstream"),
            bytes("disk_bytes"),
        ]);
    }
    let made: BTreeSet<String> = rows
        .iter()
        .filter_map(|row| Some(format!("\n* {}: {}", row["image"].as_str()?, row["image_made_from"].as_str()?)))
        .collect();
    table.trim_fmt() + &made.into_iter().collect::<String>() + "\n"
}

/// `cache-logs`.
///
/// # Errors
/// The engine does not answer, a proxy is absent, or a signal ended it.
pub fn logs(app: &App, hosts: &[String], follow: bool, tail: u32) -> Result<()> {
    let mirrors = app.config.select(hosts)?;
    let observed = look(app, &mirrors)?;
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
