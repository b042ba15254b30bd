//! `cluster-down`: removes a cluster by talosctl, and by its labels and processes what talosctl leaves; nothing else.

use std::time::{Duration, Instant};

use camino::Utf8Path;
use ipnet::Ipv4Net;
use serde_json::json;

use crate::app::App;
use crate::cluster::contexts;
use crate::cluster::existing::{self, Existing, Objects, container_names};
use crate::cluster::place::{Place, Record, done};
use crate::cluster::talos::Talos;
use crate::error::{Error, Finding, Result};
use crate::exec::{Cmd, Runner};
use crate::talosctl::{self, Dialect, Provisioner};
use crate::tool::Tool;
use crate::{container, docker, engine, sample};

/// How long a virtual machine's processes may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// `cluster-down`.
///
/// # Errors
/// The cluster was made without this tool, or something of it cannot be removed.
pub fn down(app: &App, name: &str) -> Result<()> {
    let place = Place::new(name)?;
    let record = place.read()?;
    let objects = existing::observe(&app.processes, &place)?;
    match existing::classify(record, &objects) {
        Existing::Nothing => {
            if !app.dry_run {
                place.remove(&app.processes)?;
            }
            app.term.step(&format!("there is no cluster {name}"));
            return app.print(String::new, || json!({ "removed": [] }));
        }
        Existing::Foreign(there) => {
            let problem = format!("it was made without this tool: {}", there.join("; "));
            let fix = format!("remove it as it was made: talosctl cluster destroy --name {name}");
            return Err(Error::Blocked(vec![Finding::new(format!("cluster {name}"), problem, fix)]));
        }
        Existing::Whole(_) | Existing::Half(..) => {}
    }
    if app.dry_run {
        let there = objects.phrases();
        let text = || there.iter().map(|phrase| format!("would remove {phrase}\n")).collect();
        return app.print(text, || json!({ "would_remove": there }));
    }
    let provisioner = provisioner(place.read()?.as_ref(), &objects);
    let talos = if Tool::Talosctl.path().is_some() { Some(Talos::find(&app.processes, provisioner)?) } else { None };
    remove(app, &place, talos.as_ref())?;
    app.term.step(&format!("cluster {name} is removed; the caches are as they were"));
    app.print(String::new, || json!({ "removed": objects.phrases() }))
}

/// What made the machines of a cluster.
fn provisioner(record: Option<&Record>, objects: &Objects) -> Provisioner {
    match record {
        Some(record) => record.provisioner(),
        None if objects.processes.is_empty() => Provisioner::Docker,
        None => Provisioner::Qemu,
    }
}

/// Removes all that there is of a cluster.
///
/// # Errors
/// Something of it is still there afterwards.
pub fn remove(app: &App, place: &Place, talos: Option<&Talos>) -> Result<()> {
    let runner = &app.processes;
    let record = place.read()?;
    let objects = existing::observe(runner, place)?;
    let provisioner = provisioner(record.as_ref(), &objects);
    if provisioner == Provisioner::Qemu {
        engine::authorize(runner)?;
    }
    let names = match talos {
        Some(talos) => leads_to(runner, talos, provisioner, record.as_ref(), &objects, place)?,
        None => record.iter().flat_map(|record| record.contexts.iter().map(|(name, _)| name.clone())).collect(),
    };
    if let Some(talos) = talos.filter(|talos| destroys(talos, provisioner, &objects)) {
        let cmd = talosctl::destroy(&talos.version, provisioner, place.name(), &place.state());
        talos.api_note().iter().for_each(|note| app.term.step(note));
        if !app.processes.attached(&talos.ready(cmd, provisioner))?.ok() {
            app.term.warn("talosctl did not remove all of it; what is left goes by its labels and processes");
        }
    }
    let left = existing::observe(runner, place)?;
    by_label(runner, &left)?;
    if provisioner == Provisioner::Qemu {
        machines(runner, place)?;
    }
    let left = existing::observe(runner, place)?;
    if !left.containers.is_empty() || !left.networks.is_empty() || left.processes.iter().any(|process| process.up) {
        let problem = format!("this is still there: {}", left.phrases().join("; "));
        let finding =
            Finding::new(format!("cluster {}", place.name()), problem, "remove it by hand, then run this again");
        return Err(Error::Blocked(vec![finding]));
    }
    let stay = match talos {
        Some(talos) if !names.is_empty() => contexts::remove(runner, talos, provisioner, &names, place)?,
        _ => names,
    };
    if !stay.is_empty() {
        app.term.warn(&format!("left in the talosconfig, since talosctl cannot take it out: {}", stay.join(", ")));
    }
    place.remove(runner)
}

/// Whether talosctl can destroy what is there: from 1.12 on, and for virtual machines always, it needs its state file.
fn destroys(talos: &Talos, provisioner: Provisioner, objects: &Objects) -> bool {
    let by_state = provisioner == Provisioner::Qemu || Dialect::of(&talos.version) == Dialect::Split;
    if by_state { objects.state_file } else { !objects.containers.is_empty() || !objects.networks.is_empty() }
}

/// Removes containers with their volumes, and networks, that carry the cluster's labels.
fn by_label(runner: &dyn Runner, left: &Objects) -> Result<()> {
    let containers = container_names(left);
    if !containers.is_empty() {
        done(runner, &docker::remove(&containers), "see what the engine says of it")?;
    }
    if !left.networks.is_empty() {
        let cmd = Cmd::write("docker").args(["network", "rm"]).args(left.networks.clone());
        done(runner, &cmd, "see what the engine says of it; a container of your own may be on that network")?;
    }
    Ok(())
}

/// Ends the processes of virtual machines, and removes their bridge.
fn machines(runner: &dyn Runner, place: &Place) -> Result<()> {
    let state = place.talosctl_state();
    let bridge = bridge(place);
    for signal in ["-TERM", "-KILL"] {
        let pids = processes(&state);
        if pids.is_empty() {
            break;
        }
        let kill = engine::as_root(runner, &["kill", signal])?.args(pids);
        let _ = runner.run(&kill)?;
        let started = Instant::now();
        while !processes(&state).is_empty() && started.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    if Utf8Path::new("/sys/class/net").join(&bridge).join("bridge").exists() {
        done(runner, &engine::as_root(runner, &["ip", "link", "delete", &bridge])?, "remove it by hand")?;
    }
    Ok(())
}

/// The processes of a cluster: those whose command line names its state directory, and those that talosctl recorded,
/// as long as they are talosctl's or QEMU's still.
fn processes(state: &Utf8Path) -> Vec<String> {
    let recorded: Vec<String> = state.read_dir_utf8().map_or_else(
        |_| Vec::new(),
        |entries| {
            let pid_files = entries.flatten().filter(|entry| entry.file_name().ends_with(".pid"));
            pid_files.filter_map(|entry| Some(std::fs::read_to_string(entry.path()).ok()?.trim().to_owned())).collect()
        },
    );
    let own = std::process::id().to_string();
    let entries = Utf8Path::new("/proc").read_dir_utf8();
    let pids = entries.into_iter().flatten().flatten().map(|entry| entry.file_name().to_owned());
    let is = |pid: &String| {
        let Ok(line) = std::fs::read(format!("/proc/{pid}/cmdline")) else { return false };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let program = line.split(' ').next().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
        let theirs = program.starts_with("talosctl") || program.starts_with("qemu");
        theirs && (line.contains(&format!("{state}/")) || (recorded.contains(pid) && line.contains("-launch")))
    };
    pids.filter(|pid| pid.parse::<u32>().is_ok() && *pid != own).filter(is).collect()
}

/// The name of a cluster's bridge: as its state has it, else as talosctl makes it from the cluster's name.
fn bridge(place: &Place) -> String {
    let text = std::fs::read_to_string(place.talosctl_state().join("state.yaml")).unwrap_or_default();
    let written = text.lines().find_map(|line| line.trim().strip_prefix("bridgename:")).map(str::trim);
    let made = sample::digest(place.name().as_bytes()).replace("sha256:", "talos")[..13].to_owned();
    written.filter(|name| name.starts_with("talos") && !name.contains('/')).map_or(made, str::to_owned)
}

/// The contexts that lead to this cluster.
fn leads_to(
    runner: &dyn Runner,
    talos: &Talos,
    provisioner: Provisioner,
    record: Option<&Record>,
    objects: &Objects,
    place: &Place,
) -> Result<Vec<String>> {
    let names = container_names(objects);
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
    let contexts = contexts::list(runner, talos, provisioner)?;
    Ok(contexts::of(&contexts, place.name(), record, &leads))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bridge_has_the_name_that_talosctl_makes() {
        // Seen with the default name (facts of talosctl 1.12).
        assert_eq!(bridge(&Place::new("talos-default").unwrap()), "talos3d3a9d82");
    }
}
