//! `cluster-down`: removes a cluster by talosctl, and by its labels and processes what talosctl leaves; nothing else.

use std::time::{Duration, Instant};

use camino::Utf8Path;
use ipnet::Ipv4Net;
use serde_json::json;

use crate::app::App;
use crate::cli::DEFAULT_CLUSTER;
use crate::cluster::contexts;
use crate::cluster::existing::{self, Existing, Objects};
use crate::cluster::place::{Place, Record, done};
use crate::cluster::processes;
use crate::cluster::talos::Talos;
use crate::error::{Error, Finding, Result};
use crate::exec::{Cmd, Runner};
use crate::talosctl::{self, Dialect, Provisioner};
use crate::tool::Tool;
use crate::{container, docker, engine};

/// How long a virtual machine's processes may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// `cluster-down`.
///
/// # Errors
/// The cluster was made without this tool, or something of it cannot be removed.
pub fn down(app: &App, name: Option<&str>) -> Result<()> {
    let place = Place::new(name.unwrap_or(DEFAULT_CLUSTER))?;
    let lock = if app.dry_run { None } else { Some(place.lock()?) };
    let record = place.read()?;
    let provisioner = existing::provisioner(record.as_ref(), &place);
    let objects = existing::observe(&app.processes, &place, record.as_ref(), provisioner)?;
    let existing = existing::classify(record.clone(), &objects);
    if let Some(finding) = existing::not_ours(&existing, &place, name.is_some()) {
        return Err(Error::Blocked(vec![finding]));
    }
    let mut there = objects.phrases();
    there.extend(bridge(&place, record.as_ref()).map(|bridge| format!("bridge {bridge}")));
    if app.dry_run {
        let lines = there.iter().map(|phrase| format!("would remove {phrase}\n"));
        let contexts = leads_to(&app.processes, record.as_ref(), &objects, &place)?;
        let taken = contexts.iter().map(|name| format!("would take context {name} out of the talosconfig\n"));
        let text = lines.chain(taken).collect::<String>();
        let text = if text.is_empty() { "nothing to do\n".to_owned() } else { text };
        return app.print(|| text, || json!({ "would_remove": there, "contexts": contexts }));
    }
    if existing == Existing::Nothing {
        place.remove(&app.processes)?;
        app.term.step(&format!("there is no cluster {}", place.name()));
    } else {
        if !objects.strangers.is_empty() {
            let strangers = objects.strangers.join(", ");
            app.term.warn(&format!("this stays, since it is of a cluster made without this tool: {strangers}"));
        }
        let found = talos(app, provisioner)?;
        remove(app, &place, found.as_ref())?;
        app.term.step(&format!("cluster {} is removed; the caches are as they were", place.name()));
    }
    drop(lock);
    app.print(String::new, || json!({ "removed": there }))
}

/// The talosctl of this machine, where there is one that can be asked: what is there goes without one as well.
fn talos(app: &App, provisioner: Provisioner) -> Result<Option<Talos>> {
    if Tool::Talosctl.path().is_none() {
        return Ok(None);
    }
    match Talos::find(&app.processes, provisioner) {
        Ok(talos) => Ok(Some(talos)),
        Err(interrupted @ Error::Interrupted { .. }) => Err(interrupted),
        Err(other) => {
            app.term.warn(&format!("the cluster goes without talosctl, which cannot be asked: {other}"));
            Ok(None)
        }
    }
}

/// Removes all that there is of a cluster.
///
/// # Errors
/// Something of it is still there afterwards.
pub fn remove(app: &App, place: &Place, talos: Option<&Talos>) -> Result<()> {
    let runner = &app.processes;
    let record = place.read()?;
    let provisioner = existing::provisioner(record.as_ref(), place);
    let look = || existing::observe(runner, place, record.as_ref(), provisioner);
    let objects = look()?;
    if provisioner == Provisioner::Qemu {
        engine::authorize(runner)?;
    }
    let bridge = bridge(place, record.as_ref());
    let names = leads_to(runner, record.as_ref(), &objects, place)?;
    if let Some(talos) = talos.filter(|talos| destroys(talos, provisioner, &objects)) {
        let cmd = talosctl::destroy(&talos.version, provisioner, place.name(), &place.state());
        talos.api_note().iter().for_each(|note| app.term.step(note));
        if !app.processes.attached(&talos.ready(cmd, provisioner))?.ok() {
            app.term.warn("talosctl did not remove all of it; what is left goes by its labels and processes");
        }
    }
    // What the engine refused may be what somebody else has removed meanwhile: what is left afterwards tells.
    let refused = match by_label(runner, &look()?) {
        Err(error @ Error::Command { .. }) => Some(error),
        other => other.map(|()| None)?,
    };
    if provisioner == Provisioner::Qemu {
        machines(runner, place, bridge.as_deref())?;
    }
    let left = look()?;
    if !left.containers.is_empty() || !left.networks.is_empty() || left.processes.iter().any(|process| process.up) {
        let problem = format!("this is still there: {}", left.phrases().join("; "));
        let finding =
            Finding::new(format!("cluster {}", place.name()), problem, "remove it by hand, then run this again");
        return Err(refused.unwrap_or(Error::Blocked(vec![finding])));
    }
    let previous = record.as_ref().and_then(|record| record.previous_context.as_deref());
    let stay = match talos {
        Some(talos) if !names.is_empty() => contexts::remove(runner, talos, &names, previous, place)?,
        _ => names,
    };
    if !stay.is_empty() {
        app.term.warn(&format!("left in the talosconfig, since talosctl cannot take it out: {}", stay.join(", ")));
    }
    place.remove(runner)
}

/// Whether talosctl can destroy what is there, and nothing else: from 1.12 on, and for virtual machines always, it needs
/// its state file, and of docker's it removes whatever carries the labels.
fn destroys(talos: &Talos, provisioner: Provisioner, objects: &Objects) -> bool {
    if !objects.strangers.is_empty() {
        return false;
    }
    let by_state = provisioner == Provisioner::Qemu || Dialect::of(&talos.version) == Dialect::Split;
    if by_state { objects.state_file } else { !objects.containers.is_empty() || !objects.networks.is_empty() }
}

/// Removes containers with their volumes, and networks, that carry the cluster's labels.
fn by_label(runner: &dyn Runner, left: &Objects) -> Result<()> {
    let (networks, containers): (Vec<_>, Vec<_>) =
        left.identities.iter().partition(|(name, _)| name.starts_with("network "));
    let ids = |of: Vec<(&String, &String)>| of.into_iter().map(|(_, id)| id.clone()).collect::<Vec<_>>();
    let (networks, containers) = (ids(networks), ids(containers));
    if !containers.is_empty() {
        done(runner, &docker::remove(&containers), "see what the engine says of it")?;
    }
    if !networks.is_empty() {
        let cmd = Cmd::write("docker").args(["network", "rm"]).args(networks);
        done(runner, &cmd, "see what the engine says of it; a container of your own may be on that network")?;
    }
    Ok(())
}

/// Ends the processes of virtual machines, and removes their bridge.
fn machines(runner: &dyn Runner, place: &Place, bridge: Option<&str>) -> Result<()> {
    let state = place.talosctl_state();
    for signal in ["-TERM", "-KILL"] {
        let pids = processes::running(&state);
        if pids.is_empty() {
            break;
        }
        let kill = engine::as_root_unasked(runner, &["kill", signal])?.args(pids);
        let _ = runner.run(&kill)?;
        let started = Instant::now();
        while !processes::running(&state).is_empty() && started.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    if let Some(bridge) = bridge.filter(|bridge| is_bridge(bridge)) {
        done(runner, &engine::as_root_unasked(runner, &["ip", "link", "delete", bridge])?, "remove it by hand")?;
    }
    Ok(())
}

/// Whether there is a bridge of that name.
pub fn is_bridge(name: &str) -> bool {
    Utf8Path::new("/sys/class/net").join(name).join("bridge").exists()
}

/// The bridge that is this cluster's for sure: named in its state, or not there before it was begun. Every user's
/// cluster of the same name has a bridge of the same name, so that the name alone says nothing.
fn bridge(place: &Place, record: Option<&Record>) -> Option<String> {
    let text = std::fs::read_to_string(place.talosctl_state().join("state.yaml")).unwrap_or_default();
    let written = text.lines().find_map(|line| line.trim().strip_prefix("bridgename:")).map(str::trim);
    let written = written.filter(|name| name.starts_with("talos") && !name.contains('/')).map(str::to_owned);
    let bridge = written.or_else(|| record?.bridge.clone());
    bridge.filter(|name| is_bridge(name))
}

/// The contexts that lead to this cluster; where there is no talosctl to list them, those on record.
fn leads_to(runner: &dyn Runner, record: Option<&Record>, objects: &Objects, place: &Place) -> Result<Vec<String>> {
    let listed = if Tool::Talosctl.path().is_some() { contexts::list(runner)? } else { None };
    let Some(listed) = listed else {
        return Ok(record.iter().flat_map(|record| &record.contexts).map(|(name, _)| name.clone()).collect());
    };
    let names: Vec<String> = objects.containers.iter().map(|node| node.name.clone()).collect();
    let published: Vec<String> = if names.is_empty() {
        Vec::new()
    } else {
        let inspected = runner.run(&docker::inspect(&names))?;
        container::containers(&inspected.stdout)?.iter().flat_map(container::Container::addresses).collect()
    };
    let network: Option<Ipv4Net> = record.and_then(|record| record.asked.cidr.parse().ok());
    let leads = |endpoint: &str| {
        let inside = |address: std::net::Ipv4Addr| network.is_some_and(|network| network.contains(&address));
        published.iter().any(|address| address == endpoint) || endpoint.parse().is_ok_and(inside)
    };
    Ok(contexts::of(&listed, place.name(), record, &leads))
}
