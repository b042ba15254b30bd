//! `cluster`: checks everything, brings the caches up, and lets talosctl make a cluster that pulls through them.

use std::collections::BTreeMap;

use serde_json::json;

use crate::app::App;
use crate::cli::{self, Up};
use crate::cluster::existing::{self, Existing};
use crate::cluster::guest::{self, Files};
use crate::cluster::place::{Place, Progress, Record};
use crate::cluster::prepare::{Prepared, prepare};
use crate::cluster::talos::Talos;
use crate::cluster::{contexts, down, served};
use crate::config::Mirror;
use crate::error::{Error, Finding, Result};
use crate::exec::{Cmd, Runner};
use crate::mirror_format;
use crate::talosctl::Provisioner;
use crate::talosctl::create::{Create, MirrorsAs};
use crate::{cache, engine, observe, registry, report, status};

/// `cluster`.
///
/// # Errors
/// Something stands in the way, all of it said together; the caches do not come up; talosctl fails or is interrupted.
pub fn create(app: &App, args: &cli::Cluster) -> Result<()> {
    let place = Place::new(args.name.as_deref().unwrap_or(cli::DEFAULT_CLUSTER))?;
    // Held from the first look to the last word: what was seen is what is acted on.
    let lock = if app.dry_run { None } else { Some(place.lock()?) };
    let mut prepared = prepare(app, args, place)?;
    if let (Existing::Whole(record), false) = (&prepared.existing, args.recreate) {
        let name = prepared.place.name();
        if !record.left_out.is_empty() {
            let hosts = record.left_out.join(", ");
            app.term.warn(&format!("it was made without {hosts}, not healthy then; --recreate makes it with all"));
        }
        app.term.step(&format!("cluster {name} is there already, as asked for"));
        return app.print(String::new, || json!({ "name": name, "outcome": "there" }));
    }
    if app.dry_run {
        return dry_run(app, args, &prepared);
    }
    let provisioner = prepared.wish.provisioner;
    if provisioner == Provisioner::Qemu {
        engine::authorize(&app.processes)?;
    }
    if prepared.existing != Existing::Nothing {
        down::remove(app, &prepared.place, Some(&prepared.talos))?;
    }
    app.processes.go_on()?;
    let left_out = caches(app, args, &mut prepared)?;
    app.processes.go_on()?;
    let before = served::figures(app, &prepared.mirrors)?;
    match provisioner {
        Provisioner::Qemu => {
            let files = Files::new(app, &prepared.place, &prepared.talos, &prepared.wish);
            let boot = files?.provide()?;
            prepared.wish.boot = boot;
        }
        Provisioner::Docker => {
            let image = guest::node_image(&prepared.wish, &prepared.talos.version);
            if app.config.cluster_address.is_none() {
                guest::pull_through(app, &prepared.mirrors, &image)?;
            }
        }
    }
    run(app, &prepared, left_out)?;
    drop(lock);
    let after = served::figures(app, &prepared.mirrors)?;
    let name = prepared.place.name();
    app.term.step(&format!("cluster {name} is made; `cargo xtask cluster-status --name {name}` shows it"));
    let traffic = served::traffic(&prepared.mirrors, &before, &after);
    app.print(|| served::told(&traffic), || json!({ "name": name, "outcome": "created", "traffic": traffic }))
}

/// Brings the caches up; where one stays unhealthy, it is an error, or that mirror is left out if that was asked for.
/// Gives the hosts back that were left out.
fn caches(app: &App, args: &cli::Cluster, prepared: &mut Prepared) -> Result<Vec<String>> {
    if prepared.mirrors.is_empty() {
        return Ok(Vec::new());
    }
    let failed = match &app.config.cluster_address {
        Some(address) => {
            let silent = |mirror: &&Mirror| !registry::answers(&address.with_port(mirror.port));
            let silent: Vec<&Mirror> = prepared.mirrors.iter().filter(silent).collect();
            let finding = |mirror: &&Mirror| {
                let problem = format!("no registry answers on http://{}", address.with_port(mirror.port));
                Finding::new(&mirror.host, problem, "start it there, or mend `address` in [cluster]")
            };
            Some(Error::Blocked(silent.iter().map(finding).collect())).filter(|_| !silent.is_empty())
        }
        None => cache::bring_up(app, &prepared.mirrors, &Up::default()).err(),
    };
    let findings = match failed {
        None => return Ok(Vec::new()),
        Some(Error::Blocked(findings)) => findings,
        // An interruption above all is no sign of a cache's health.
        Some(other) => return Err(other),
    };
    if !args.allow_unhealthy {
        let fix = "mend it, or leave it out with --allow-unhealthy, or all of them with --no-cache";
        let word = Finding::new("cluster", "it was not made, since a cache is not healthy", fix);
        return Err(Error::Blocked(findings.into_iter().chain([word]).collect()));
    }
    app.term.warn(&Error::Blocked(findings).to_string());
    let healthy = healthy(app, &prepared.mirrors)?;
    let left_out = prepared.mirrors.iter().map(|mirror| mirror.host.clone()).filter(|host| !healthy.contains(host));
    let left_out = left_out.collect();
    prepared.mirrors.retain(|mirror| healthy.contains(&mirror.host));
    prepared.wish.mirrors.retain(|mirror| healthy.contains(&mirror.host));
    Ok(left_out)
}

fn healthy(app: &App, mirrors: &[Mirror]) -> Result<Vec<String>> {
    if let Some(address) = &app.config.cluster_address {
        let answers = |mirror: &&Mirror| registry::answers(&address.with_port(mirror.port));
        return Ok(mirrors.iter().filter(answers).map(|mirror| mirror.host.clone()).collect());
    }
    let observed = observe::look_at_health(&app.processes, &app.config, mirrors)?;
    let healthy = |mirror: &&Mirror| status::healthy(&app.config, mirror, &observed);
    Ok(mirrors.iter().filter(healthy).map(|mirror| mirror.host.clone()).collect())
}

/// The command that makes the cluster.
fn command(wish: &Create, talos: &Talos, place: &Place) -> Result<Cmd> {
    let cmd = wish.command(&talos.version).map_err(Error::Blocked)?;
    Ok(talos.ready(cmd.dir(place.work()), wish.provisioner))
}

fn dry_run(app: &App, args: &cli::Cluster, prepared: &Prepared) -> Result<()> {
    let own_caches = !prepared.mirrors.is_empty() && app.config.cluster_address.is_none();
    let plan = if own_caches { Some(cache::plan(app, &prepared.mirrors, &Up::default())) } else { None };
    let plan = match plan.transpose() {
        Err(Error::Blocked(findings)) if args.allow_unhealthy => {
            app.term.warn(&Error::Blocked(findings).to_string());
            None
        }
        other => other?,
    };
    let mut lines = plan.as_ref().map(report::plan).unwrap_or_default();
    let there = !matches!(prepared.existing, Existing::Nothing);
    if there && args.recreate {
        lines += &format!("would remove what is there of cluster {}\n", prepared.place.name());
    }
    let mut wish = prepared.wish.clone();
    let mut fetched = Vec::new();
    if wish.provisioner == Provisioner::Qemu {
        let files = Files::new(app, &prepared.place, &prepared.talos, &prepared.wish);
        let files = files?;
        fetched = files.absent()?;
        wish.boot = files.boot()?;
        files.left_to_talosctl().into_iter().for_each(|note| app.term.step(note));
        lines.extend(fetched.iter().map(|item| format!("would fetch {} to {}\n", item.address, item.path)));
    }
    if own_caches && wish.provisioner == Provisioner::Docker {
        let image = guest::node_image(&prepared.wish, &prepared.talos.version);
        if let Some(through) = guest::through(app, &prepared.mirrors, &image)? {
            lines += &format!("would pull {through}, and tag it {image}\n");
        }
    }
    let command = command(&wish, &prepared.talos, &prepared.place)?.shell();
    lines += &format!("would run {command}\n");
    let json = || json!({ "steps": plan.map(|plan| plan.steps), "fetch": fetched, "command": command });
    app.print(|| lines, json)
}

/// Runs talosctl, and keeps the record of how far it came.
fn run(app: &App, prepared: &Prepared, left_out: Vec<String>) -> Result<()> {
    let Prepared { place, talos, wish, asked, .. } = prepared;
    let provisioner = wish.provisioner;
    let before = contexts::list(&app.processes)?;
    let mut record = Record {
        progress: Progress::Creating,
        talosctl: talos.version.to_string(),
        asked: asked.clone(),
        contexts: Vec::new(),
        contexts_before: before.iter().flatten().map(|context| context.name.clone()).collect(),
        previous_context: before.iter().flatten().find(|context| context.current).map(|context| context.name.clone()),
        identities: BTreeMap::new(),
        left_out,
        bridge: Some(place.bridge()).filter(|bridge| provisioner == Provisioner::Qemu && !down::is_bridge(bridge)),
    };
    let cmd = command(wish, talos, place)?;
    place.write(&record)?;
    if let MirrorsAs::Patch(file) = &wish.mirrors_as {
        // Both have to understand it: talosctl merges it, the nodes read it.
        let nodes = guest::talos_of_nodes(wish, &talos.version);
        std::fs::write(file, mirror_format::patch(talos.version.older(&nodes), &wish.mirrors))
            .map_err(Error::io(format!("write {file}")))?;
    }
    talos.api_note().iter().for_each(|note| app.term.step(note));
    let unowned = guest::not_there_yet(place.home(), &talos.version);
    let ended = app.processes.attached(&cmd);
    // The engine is asked although an interrupted run is over: what is left is what the user needs to know.
    let objects = existing::observe(&app.processes, place, None, provisioner);
    // Where either list is missing there is nothing to tell what was added.
    if let (Some(before), Ok(Some(after))) = (&before, contexts::list(&app.processes)) {
        record.contexts = contexts::added(before, &after, place.name());
    }
    if let Ok(objects) = &objects {
        record.identities.clone_from(&objects.identities);
    }
    let ended = match ended {
        Err(Error::Interrupted { signal, .. }) => {
            let there = objects.map(|objects| objects.phrases()).unwrap_or_default();
            let there = if there.is_empty() { "nothing".to_owned() } else { there.join("; ") };
            Err(Error::Interrupted { signal, left: format!("left is {there}; `{}` removes it", place.cleanup()) })
        }
        Err(other) => Err(other),
        Ok(output) if output.ok() => Ok(()),
        Ok(output) => Err(Error::Tool {
            problem: output.code.map_or_else(
                || "talosctl was ended by a signal".to_owned(),
                |code| format!("talosctl ended with exit code {code}"),
            ),
            fix: format!("mend what it says; `{}` removes what is there, --recreate starts over", place.cleanup()),
        }),
    };
    if ended.is_ok() {
        record.progress = Progress::Created;
    }
    place.write(&record)?;
    if provisioner == Provisioner::Qemu && !talos.root && app.processes.interrupted().is_none() {
        guest::give_back(&app.processes, place.home(), &unowned)?;
    }
    ended
}
