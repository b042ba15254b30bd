//! `cluster`: checks everything, brings the caches up, and lets talosctl make a cluster that pulls through them.

use std::collections::BTreeMap;

use serde_json::json;

use crate::app::App;
use crate::cli::{self, Up};
use crate::cluster::existing::{self, Existing};
use crate::cluster::guest::{self, Files};
use crate::cluster::place::{Asked, Place, Progress, Record};
use crate::cluster::preflight::{self, Machine};
use crate::cluster::talos::Talos;
use crate::cluster::{contexts, down, mirrors};
use crate::config::Mirror;
use crate::error::{Error, Finding, Result};
use crate::exec::Cmd;
use crate::mirror_format::{self, Endpoint};
use crate::status::Figures;
use crate::talosctl::create::{Create, MirrorsAs};
use crate::talosctl::{self, Provisioner, Version, flags, network};
use crate::traffic::Traffic;
use crate::{cache, engine, observe, registry, report, status};

/// All that was found out before anything is touched.
struct Prepared {
    place: Place,
    talos: Talos,
    wish: Create,
    asked: Asked,
    existing: Existing,
    mirrors: Vec<Mirror>,
}

/// `cluster`.
///
/// # Errors
/// Something stands in the way, all of it said together; the caches do not come up; talosctl fails or is interrupted.
pub fn create(app: &App, args: &cli::Cluster) -> Result<()> {
    let mut prepared = prepare(app, args)?;
    if let (Existing::Whole(_), false) = (&prepared.existing, args.recreate) {
        let name = prepared.place.name();
        app.term.step(&format!("cluster {name} is there already, as asked for"));
        return app.print(String::new, || json!({ "name": name, "outcome": "there" }));
    }
    if app.dry_run {
        return dry_run(app, args, &prepared);
    }
    let provisioner = prepared.wish.provisioner;
    let lock = prepared.place.lock()?;
    if provisioner == Provisioner::Qemu {
        engine::authorize(&app.processes)?;
    }
    if prepared.existing != Existing::Nothing {
        down::remove(app, &prepared.place, Some(&prepared.talos))?;
    }
    caches(app, args, &mut prepared)?;
    let before = figures(app, &prepared.mirrors)?;
    match provisioner {
        Provisioner::Qemu => {
            let files = Files::new(app, &prepared.place, &prepared.talos, &prepared.wish);
            let boot = files.map_err(|finding| Error::Blocked(vec![finding]))?.provide()?;
            prepared.wish.boot = boot;
        }
        Provisioner::Docker => {
            let image = guest::node_image(&prepared.wish, &prepared.talos.version);
            if app.config.cluster_address.is_none() {
                guest::pull_through(app, &prepared.mirrors, &image)?;
            }
        }
    }
    run(app, &prepared)?;
    drop(lock);
    let after = figures(app, &prepared.mirrors)?;
    let name = prepared.place.name();
    app.term.step(&format!("cluster {name} is made; `cargo xtask cluster-status --name {name}` shows it"));
    let traffic = traffic(&prepared.mirrors, &before, &after);
    app.print(|| told(&traffic), || json!({ "name": name, "outcome": "created", "traffic": traffic }))
}

fn finding(subject: &str, error: &Error) -> Vec<Finding> {
    match error {
        Error::Blocked(findings) => findings.clone(),
        other => vec![Finding::new(subject, other.to_string(), other.fix().unwrap_or_default())],
    }
}

/// Looks at everything, and says all that stands in the way together.
fn prepare(app: &App, args: &cli::Cluster) -> Result<Prepared> {
    let provisioner = if args.qemu { Provisioner::Qemu } else { Provisioner::Docker };
    let place = Place::new(args.name.as_deref().unwrap_or(cli::DEFAULT_CLUSTER))?;
    let cidr = network::read(&args.cidr)?;
    let mut findings = Vec::new();
    let own_caches = !args.no_cache && app.config.cluster_address.is_none();
    let needs_engine = provisioner == Provisioner::Docker || own_caches;
    let engine = if needs_engine { crate::tool::Tool::Docker.require().map(|_| ()) } else { Ok(()) };
    let engine = engine.and_then(|()| if needs_engine { observe::check_version(&app.processes) } else { Ok(()) });
    findings.extend(engine.as_ref().err().map(|error| finding("docker", error)).unwrap_or_default());
    let talos = Talos::find(&app.processes, if engine.is_ok() { provisioner } else { Provisioner::Qemu });
    findings.extend(talos.as_ref().err().map(|error| finding("talosctl", error)).unwrap_or_default());
    if provisioner == Provisioner::Qemu {
        // Without a talosctl the checks are those of any that is not old.
        let newest = Version::parse("v1.12.0").ok_or_else(|| Error::Negative(String::new()));
        let version = talos.as_ref().map(|talos| talos.version.clone()).or(newest)?;
        let found = preflight::qemu(&version, &Machine::this(engine::is_root(&app.processes)?));
        found.warnings.iter().for_each(|warning| app.term.warn(warning));
        findings.extend(found.findings);
        findings.extend(place.too_long(args.controlplanes).map(|path| {
            let problem = format!("QEMU takes no socket with a path as long as {path}");
            Finding::new("--name", problem, "use a shorter --name, or a HOME with a shorter path")
        }));
    }
    let mirrors = if args.no_cache { Vec::new() } else { app.config.mirrors.clone() };
    let mut wish = Create::new(provisioner, place.name(), place.state(), cidr);
    if engine.is_ok() && !mirrors.is_empty() {
        match mirrors::address(&app.processes, &app.config, provisioner, cidr) {
            Ok(address) => wish.mirrors = mirrors::told(&mirrors, &address),
            Err(error) => findings.extend(finding("mirrors", &error)),
        }
    }
    let Ok(talos) = talos else { return Err(Error::Blocked(findings)) };
    wishes(&mut wish, args, &talos, &place);
    findings.extend(wish.command(&talos.version).err().unwrap_or_default());
    let asked = asked(args, &wish);
    let mut existing = Existing::Nothing;
    if engine.is_ok() {
        let objects = existing::observe(&app.processes, &place, provisioner)?;
        existing = existing::classify(place.read()?, &objects);
        findings.extend(existing::in_the_way(&existing, &place, args.recreate, args.name.is_some()));
        findings.extend(preflight::overlap(&preflight::networks(&app.processes, &place), cidr));
        findings.extend(differs(&existing, &asked, &place, args.recreate));
    }
    if findings.is_empty() {
        return Ok(Prepared { place, talos, wish, asked, existing, mirrors });
    }
    Err(Error::Blocked(findings))
}

/// What the command line says, as talosctl's own release has it.
fn wishes(wish: &mut Create, args: &cli::Cluster, talos: &Talos, place: &Place) {
    wish.controlplanes = args.controlplanes;
    wish.workers = args.workers;
    wish.kubernetes_version.clone_from(&args.kubernetes_version);
    wish.extra.clone_from(&args.extra);
    if args.mirrors_as == cli::MirrorsAs::Patch && !wish.mirrors.is_empty() {
        wish.mirrors_as = MirrorsAs::Patch(place.work().join("mirrors.yaml"));
    }
    let Some(tag) = &args.talos_version else { return };
    let version = Version::parse(tag);
    match (wish.provisioner, &version) {
        // Containers run the Talos of their image, whatever else is said.
        (Provisioner::Docker, Some(version)) => wish.image = Some(talosctl::image("talos", version)),
        (Provisioner::Qemu, Some(version)) if !talos.version.at_least((1, 12)) => {
            wish.install_image = Some(talosctl::image("installer", version));
        }
        _ => {}
    }
    let flag = flags::flag(flags::Opt::TalosVersion, &talos.version, wish.provisioner);
    if wish.provisioner == Provisioner::Qemu || version.is_none() || flag.is_ok() {
        wish.talos_version = Some(tag.clone());
    }
}

fn asked(args: &cli::Cluster, wish: &Create) -> Asked {
    Asked {
        provisioner: wish.provisioner.name().to_owned(),
        cidr: wish.cidr.to_string(),
        controlplanes: args.controlplanes,
        // talosctl's own default, in every release.
        workers: args.workers.unwrap_or(1),
        talos_version: args.talos_version.clone(),
        kubernetes_version: args.kubernetes_version.clone(),
        mirrors: wish.mirrors.iter().map(|Endpoint { host, url }| format!("{host}={url}")).collect(),
        extra: args.extra.clone(),
    }
}

/// A cluster of that name that is another than the one asked for.
fn differs(existing: &Existing, asked: &Asked, place: &Place, recreate: bool) -> Option<Finding> {
    let (Existing::Whole(record) | Existing::Half(Some(record), _)) = existing else { return None };
    let subject = format!("cluster {}", place.name());
    if record.asked.provisioner != asked.provisioner {
        let problem = format!("it is there, made of {}", record.asked.provisioner);
        return Some(Finding::new(subject, problem, format!("use another --name, or `{}` first", place.cleanup())));
    }
    let differs = record.asked.differs(asked);
    if recreate || differs.is_empty() || !matches!(existing, Existing::Whole(_)) {
        return None;
    }
    let problem = format!("it is there and differs: {}", differs.join("; "));
    Some(Finding::new(subject, problem, "--recreate removes it and starts over; another --name leaves it"))
}

fn up() -> Up {
    Up { timeout: 60, offline: false, adopt: false, image_archive: None }
}

/// Brings the caches up; where one stays unhealthy, it is an error, or that mirror is left out if that was asked for.
fn caches(app: &App, args: &cli::Cluster, prepared: &mut Prepared) -> Result<()> {
    if prepared.mirrors.is_empty() {
        return Ok(());
    }
    let failed = match &app.config.cluster_address {
        Some(address) => {
            let silent = |mirror: &&Mirror| !registry::answers(&format!("{address}:{}", mirror.port));
            let silent: Vec<&Mirror> = prepared.mirrors.iter().filter(silent).collect();
            let finding = |mirror: &&Mirror| {
                let problem = format!("no registry answers on http://{address}:{}", mirror.port);
                Finding::new(&mirror.host, problem, "start it there, or mend `address` in [cluster]")
            };
            Some(Error::Blocked(silent.iter().map(finding).collect())).filter(|_| !silent.is_empty())
        }
        None => cache::bring_up(app, &prepared.mirrors, &up()).err(),
    };
    let Some(error) = failed else { return Ok(()) };
    if !args.allow_unhealthy {
        return Err(match error {
            Error::Blocked(mut findings) => {
                let fix = "mend it, or leave it out with --allow-unhealthy, or all of them with --no-cache";
                findings.push(Finding::new("cluster", "it was not made, since a cache is not healthy", fix));
                Error::Blocked(findings)
            }
            other => other,
        });
    }
    app.term.warn(&error.to_string());
    let healthy = healthy(app, &prepared.mirrors)?;
    prepared.mirrors.retain(|mirror| healthy.contains(&mirror.host));
    prepared.asked.mirrors.retain(|mirror| healthy.iter().any(|host| mirror.starts_with(&format!("{host}="))));
    prepared.wish.mirrors.retain(|mirror| healthy.contains(&mirror.host));
    Ok(())
}

fn healthy(app: &App, mirrors: &[Mirror]) -> Result<Vec<String>> {
    if let Some(address) = &app.config.cluster_address {
        let answers = |mirror: &&Mirror| registry::answers(&format!("{address}:{}", mirror.port));
        return Ok(mirrors.iter().filter(answers).map(|mirror| mirror.host.clone()).collect());
    }
    let observed = observe::look(&app.processes, &app.config, mirrors)?;
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
    let plan = if own_caches { Some(cache::plan(app, &prepared.mirrors, &up())?) } else { None };
    let mut lines = plan.as_ref().map(report::plan).unwrap_or_default();
    let there = !matches!(prepared.existing, Existing::Nothing);
    if there && args.recreate {
        lines += &format!("would remove what is there of cluster {}\n", prepared.place.name());
    }
    let mut wish = prepared.wish.clone();
    let mut fetched = Vec::new();
    if wish.provisioner == Provisioner::Qemu {
        let files = Files::new(app, &prepared.place, &prepared.talos, &prepared.wish);
        let files = files.map_err(|finding| Error::Blocked(vec![finding]))?;
        fetched = files.absent()?;
        wish.boot = files.boot()?;
        lines.extend(fetched.iter().map(|item| format!("would fetch {} to {}\n", item.address, item.path)));
    }
    let command = command(&wish, &prepared.talos, &prepared.place)?.shell();
    lines += &format!("would run {command}\n");
    let json = || json!({ "steps": plan.map(|plan| plan.steps), "fetch": fetched, "command": command });
    app.print(|| lines, json)
}

/// Runs talosctl, and keeps the record of how far it came.
fn run(app: &App, prepared: &Prepared) -> Result<()> {
    let Prepared { place, talos, wish, asked, .. } = prepared;
    let provisioner = wish.provisioner;
    let before = contexts::list(&app.processes)?;
    let mut record = Record {
        progress: Progress::Creating,
        talosctl: talos.version.to_string(),
        asked: asked.clone(),
        contexts: Vec::new(),
        previous_context: before.iter().find(|context| context.current).map(|context| context.name.clone()),
        identities: BTreeMap::new(),
        bridge: Some(place.bridge()).filter(|bridge| provisioner == Provisioner::Qemu && !down::is_bridge(bridge)),
    };
    let cmd = command(wish, talos, place)?;
    place.write(&record)?;
    if let MirrorsAs::Patch(file) = &wish.mirrors_as {
        let target = asked.talos_version.as_deref().and_then(Version::parse);
        let oldest = target.as_ref().map_or(&talos.version, |target| talos.version.older(target));
        std::fs::write(file, mirror_format::patch(oldest, &wish.mirrors))
            .map_err(Error::io(format!("write {file}")))?;
    }
    talos.api_note().iter().for_each(|note| app.term.step(note));
    let unowned = guest::not_there_yet(place.home());
    let ended = app.processes.attached(&cmd);
    if provisioner == Provisioner::Qemu && !talos.root {
        guest::give_back(&app.processes, place.home(), &unowned)?;
    }
    // The engine is asked although an interrupted run is over: what is left is what the user needs to know.
    let objects = existing::observe(&app.processes, place, provisioner);
    let after = contexts::list(&app.processes).unwrap_or_default();
    record.contexts = contexts::added(&before, &after, place.name());
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
            problem: format!("talosctl ended with exit code {}", output.code.unwrap_or_default()),
            fix: format!("mend what it says; `{}` removes what is there, --recreate starts over", place.cleanup()),
        }),
    };
    if ended.is_ok() {
        record.progress = Progress::Created;
    }
    place.write(&record)?;
    ended
}

fn figures(app: &App, mirrors: &[Mirror]) -> Result<BTreeMap<String, Figures>> {
    if mirrors.is_empty() || app.config.cluster_address.is_some() {
        return Ok(BTreeMap::new());
    }
    let observed = observe::look(&app.processes, &app.config, mirrors)?;
    status::figures(&app.processes, mirrors, &observed)
}

/// What each mirror did in between, in the order of the configuration.
fn traffic(
    mirrors: &[Mirror],
    before: &BTreeMap<String, Figures>,
    after: &BTreeMap<String, Figures>,
) -> Vec<(String, Traffic)> {
    let of = |mirror: &Mirror| {
        let then = before.get(&mirror.host).and_then(|figures| figures.traffic).unwrap_or_default();
        Some((mirror.host.clone(), after.get(&mirror.host)?.traffic?.since(then)))
    };
    mirrors.iter().filter_map(of).collect()
}

/// What the caches did for this boot.
fn told(traffic: &[(String, Traffic)]) -> String {
    if traffic.is_empty() {
        return String::new();
    }
    let (idle, busy): (Vec<_>, Vec<_>) = traffic.iter().partition(|(_, traffic)| traffic.requests == 0);
    let row = |(host, traffic): &(String, Traffic)| {
        [
            host.clone(),
            traffic.requests.to_string(),
            traffic.hits.to_string(),
            report::bytes(traffic.bytes_from_cache),
            report::bytes(traffic.bytes_from_upstream),
        ]
    };
    let head = ["MIRROR", "REQUESTS", "HITS", "FROM CACHE", "FROM UPSTREAM"];
    let table = if busy.is_empty() { String::new() } else { report::table(head, busy.into_iter().map(row)) };
    let idle: Vec<&str> = idle.iter().map(|(host, _)| host.as_str()).collect();
    if idle.is_empty() { table } else { format!("{table}no request: {}\n", idle.join(", ")) }
}
