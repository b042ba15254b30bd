//! What `cluster` finds out before it touches anything: all that stands in the way, together.

use ipnet::Ipv4Net;

use crate::app::App;
use crate::cli;
use crate::cluster::existing::{self, Existing};
use crate::cluster::guest::{self, Files};
use crate::cluster::mirrors;
use crate::cluster::place::{Asked, Place, Record, here};
use crate::cluster::preflight::{self, Machine};
use crate::cluster::talos::Talos;
use crate::config::Mirror;
use crate::error::{Error, Finding, Result};
use crate::mirror_format::Endpoint;
use crate::talosctl::create::{self, Create, MirrorsAs};
use crate::talosctl::{self, Dialect, Provisioner, Version, extra, flags, network};
use crate::tool::Tool;
use crate::{engine, observe};

/// All that was found out before anything is touched.
pub struct Prepared {
    /// Where its files are.
    pub place: Place,
    /// The talosctl that is installed.
    pub talos: Talos,
    /// What talosctl is asked for.
    pub wish: Create,
    /// What the user asked for, for the record.
    pub asked: Asked,
    /// What there is of a cluster of that name.
    pub existing: Existing,
    /// The mirrors that nodes are told of.
    pub mirrors: Vec<Mirror>,
}

/// Looks at everything, and says all that stands in the way together.
///
/// # Errors
/// Something stands in the way.
pub fn prepare(app: &App, args: &cli::Cluster, place: Place) -> Result<Prepared> {
    let provisioner = if args.qemu { Provisioner::Qemu } else { Provisioner::Docker };
    let cidr = network::read(&args.cidr)?;
    let here = here()?;
    let mut looked = Looked { app, findings: Vec::new() };
    let engine = looked.engine(provisioner, args);
    // What talosctl has to know of the engine is of no use where there is none.
    let talos = looked.talos(if engine { provisioner } else { Provisioner::Qemu });
    // Without a talosctl, what all that are not old need.
    let version = talos.as_ref().map(|talos| talos.version.clone()).or_else(|| Version::parse("v1.12.0"));
    let extra = version.as_ref().map_or_else(Vec::new, |version| extra::absolute(&args.extra, version, &here));
    if let Some(version) = version.filter(|_| provisioner == Provisioner::Qemu) {
        looked.machine(&version, &extra, &place, args.controlplanes)?;
    }
    let mirrors = if args.no_cache { Vec::new() } else { app.config.mirrors.clone() };
    let mut wish = Create::new(provisioner, place.name(), place.state(), cidr);
    if engine && !mirrors.is_empty() {
        let address = mirrors::address(&app.processes, &app.config, provisioner, cidr);
        wish.mirrors = looked.kept("mirrors", address).map_or_else(Vec::new, |at| mirrors::told(&mirrors, &at));
    }
    let Some(talos) = talos else { return Err(Error::Blocked(looked.findings)) };
    wish.extra = extra;
    wishes(&mut wish, args, &talos, &place);
    looked.findings.extend(wish.command(&talos.version).err().unwrap_or_default());
    if provisioner == Provisioner::Qemu {
        looked.kept("boot files", Files::new(app, &place, &talos, &wish).map(|_| ()));
    }
    let asked = asked(args, &wish);
    let existing = if engine { looked.existing(&place, &asked, args, cidr)? } else { Existing::Nothing };
    if looked.findings.is_empty() {
        return Ok(Prepared { place, talos, wish, asked, existing, mirrors });
    }
    Err(Error::Blocked(looked.findings))
}

/// What was found so far.
struct Looked<'a> {
    app: &'a App,
    findings: Vec<Finding>,
}

impl Looked<'_> {
    /// What a look gave; an error of it is a finding.
    fn kept<T>(&mut self, subject: &str, looked: Result<T>) -> Option<T> {
        match looked {
            Ok(value) => return Some(value),
            Err(Error::Blocked(findings)) => self.findings.extend(findings),
            Err(other) => {
                self.findings.push(Finding::new(subject, other.to_string(), other.fix().unwrap_or_default()));
            }
        }
        None
    }

    /// Whether there is an engine, or none is needed: virtual machines without caches of this host need none.
    fn engine(&mut self, provisioner: Provisioner, args: &cli::Cluster) -> bool {
        let own_caches = !args.no_cache && self.app.config.cluster_address.is_none();
        if provisioner == Provisioner::Qemu && !own_caches {
            return true;
        }
        let client = Tool::Docker.require().and_then(|_| observe::check_version(&self.app.processes));
        self.kept("docker", client).is_some()
    }

    fn talos(&mut self, provisioner: Provisioner) -> Option<Talos> {
        let found = Talos::find(&self.app.processes, provisioner);
        self.kept("talosctl", found)
    }

    /// What virtual machines need.
    fn machine(&mut self, version: &Version, extra: &[String], place: &Place, controlplanes: u32) -> Result<()> {
        // One that is none is told with the boot files.
        let arch = guest::arch(extra, version).unwrap_or("amd64");
        let root = engine::is_root(&self.app.processes)?;
        let found = preflight::qemu(version, &Machine::this(version, arch, extra, root));
        found.warnings.iter().for_each(|warning| self.app.term.warn(warning));
        self.findings.extend(found.findings);
        self.findings.extend(place.too_long(controlplanes).map(|path| {
            let problem = format!("QEMU takes no socket with a path as long as {path}");
            Finding::new("--name", problem, "use a shorter --name, or a HOME with a shorter path")
        }));
        Ok(())
    }

    /// What there is of a cluster of that name, and of other networks where its own is to be.
    fn existing(&mut self, place: &Place, asked: &Asked, args: &cli::Cluster, cidr: Ipv4Net) -> Result<Existing> {
        let runner = &self.app.processes;
        let provisioner = if args.qemu { Provisioner::Qemu } else { Provisioner::Docker };
        let record = place.read()?;
        // On record, the cluster is what it was made of.
        let made_of = record.as_ref().map_or(provisioner, Record::provisioner);
        let objects = existing::observe(runner, place, record.as_ref(), made_of)?;
        if record.is_none() && provisioner == Provisioner::Qemu && existing::is_on_the_engine(runner, place.name()) {
            let (subject, problem) = (format!("cluster {}", place.name()), "it is there, made of docker");
            self.findings.push(Finding::new(subject, problem, "use another --name"));
        }
        let existing = existing::classify(record, &objects);
        let in_the_way = existing::in_the_way(&existing, &objects, place, args.recreate, args.name.is_some());
        self.findings.extend(in_the_way);
        let overlap = preflight::overlap(&preflight::networks(runner, place), cidr);
        self.findings.extend(overlap.or_else(|| preflight::taken(&preflight::addresses(runner, place), cidr)));
        self.findings.extend(differs(&existing, asked, place, args.recreate));
        Ok(existing)
    }
}

/// What the command line says, as talosctl's own release has it.
fn wishes(wish: &mut Create, args: &cli::Cluster, talos: &Talos, place: &Place) {
    wish.controlplanes = args.controlplanes;
    wish.workers = args.workers;
    wish.kubernetes_version.clone_from(&args.kubernetes_version);
    if args.mirrors_as == cli::MirrorsAs::Patch && !wish.mirrors.is_empty() {
        wish.mirrors_as = MirrorsAs::Patch(place.work().join("mirrors.yaml"));
    }
    wish.install_image = installer(wish, args, talos);
    let Some(tag) = &args.talos_version else { return };
    let version = Version::parse(tag);
    if let (Provisioner::Docker, Some(version)) = (wish.provisioner, &version) {
        // Containers run the Talos of their image, whatever else is said.
        wish.image = Some(talosctl::image("talos", version));
    }
    let flag = flags::flag(flags::Opt::TalosVersion, &talos.version, wish.provisioner);
    if wish.provisioner == Provisioner::Qemu || version.is_none() || flag.is_ok() {
        wish.talos_version = Some(tag.clone());
    }
}

/// What virtual machines install up to 1.11: the Talos that they boot, where that is not talosctl's own.
fn installer(wish: &Create, args: &cli::Cluster, talos: &Talos) -> Option<String> {
    // Beside boot files of the user's own, what is said behind `--` is about the configuration alone.
    let own_files = create::boots_from_elsewhere(&wish.extra);
    let behind = extra::value(&wish.extra, "talos-version").filter(|_| !own_files);
    let version = Version::parse(behind.or(args.talos_version.as_deref())?)?;
    let installs = wish.provisioner == Provisioner::Qemu && Dialect::of(&talos.version) == Dialect::Classic;
    installs.then(|| talosctl::image("installer", &version))
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
        extra: extra::without_secrets(&wish.extra),
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
