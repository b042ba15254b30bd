//! What the nodes of a cluster start from: boot files for virtual machines, the image for containers.

use camino::{Utf8Path, Utf8PathBuf};

use crate::app::App;
use crate::boot::{self, Image, Wish};
use crate::cluster::place::{Place, boot_folder, talos_home};
use crate::cluster::talos::Talos;
use crate::config::{Bind, Mirror};
use crate::error::{Finding, Result};
use crate::exec::{Cmd, Processes, Runner};
use crate::store::{self, Item};
use crate::talosctl::create::{self, Boot, Create};
use crate::talosctl::extra::{given, value};
use crate::talosctl::{self, Dialect, Version};
use crate::{engine, image, registry};

/// What a cluster of virtual machines boots from.
pub struct Files<'a> {
    app: &'a App,
    place: &'a Place,
    talos: &'a Talos,
    /// The Talos that boots.
    target: Version,
    extra: &'a [String],
}

impl<'a> Files<'a> {
    /// For a Talos, or for talosctl's own version.
    ///
    /// # Errors
    /// The Talos asked for is no version.
    pub fn new(app: &'a App, place: &'a Place, talos: &'a Talos, wish: &'a Create) -> Result<Self, Finding> {
        let target = match &wish.talos_version {
            Some(tag) => Version::parse(tag).ok_or_else(|| {
                Finding::new("--talos-version", format!("{tag:?} is no version"), "write it as v1.9.6")
            })?,
            None => talos.version.clone(),
        };
        Ok(Self { app, place, talos, target, extra: &wish.extra })
    }

    fn with<T>(&self, version: &Version, work: impl FnOnce(&Wish<'_>) -> Result<T>) -> Result<T> {
        let home = talos_home(self.place.home(), &self.talos.version);
        let folder = boot_folder(self.place.home());
        let arch = boot::arch(std::env::consts::ARCH)?;
        let sources = &self.app.config.boot;
        work(&Wish { version: version.semver(), arch, home: &home, folder: &folder, sources })
    }

    fn iso_image(&self) -> Option<Image<'_>> {
        let iso = value(self.extra, "presets").is_none_or(|presets| presets.split(',').any(|preset| preset == "iso"));
        let schematic = value(self.extra, "schematic-id").unwrap_or(boot::SCHEMATIC);
        let told = value(self.extra, "image-factory-url").unwrap_or(boot::FACTORY);
        iso.then_some(Image { schematic, told })
    }

    fn brings_plugins(&self) -> bool {
        ["cni-bin-path", "cni-bundle-url"].iter().any(|flag| given(self.extra, flag))
    }

    /// What would be fetched.
    ///
    /// # Errors
    /// Talos is not released for this architecture.
    pub fn absent(&self) -> Result<Vec<Item>> {
        let mut items = self.with(&self.target, |wish| {
            Ok(match Dialect::of(&self.talos.version) {
                Dialect::Classic if create::boots_from_elsewhere(self.extra) => Vec::new(),
                Dialect::Classic => wish.kernel_items().to_vec(),
                Dialect::Split => self.iso_image().map(|image| wish.iso_item(&image)).into_iter().collect(),
            })
        })?;
        if !self.brings_plugins() {
            items.extend(self.with(&self.talos.version, |wish| {
                Ok(Some(wish.cni_item()).filter(|_| !wish.cni_missing().is_empty()))
            })?);
        }
        Ok(store::absent(&items, Utf8Path::exists).into_iter().cloned().collect())
    }

    /// What talosctl up to 1.11 is to be told of it.
    ///
    /// # Errors
    /// Talos is not released for this architecture.
    pub fn boot(&self) -> Result<Option<Boot>> {
        if Dialect::of(&self.talos.version) == Dialect::Split || create::boots_from_elsewhere(self.extra) {
            return Ok(None);
        }
        let [vmlinuz, initrd] = self.with(&self.target, |wish| Ok(wish.kernel_items().map(|item| item.path)))?;
        Ok(Some(Boot { vmlinuz: vmlinuz.into(), initrd: initrd.into() }))
    }

    /// Makes sure of all of it; what talosctl up to 1.11 is to be told of it.
    ///
    /// # Errors
    /// Something cannot be fetched or put where talosctl looks for it.
    pub fn provide(&self) -> Result<Option<Boot>> {
        let (runner, term) = (&self.app.processes, self.app.term);
        let boot = self.boot()?;
        if boot.is_some() {
            self.with(&self.target, |wish| boot::kernel(runner, term, wish).map(|_| ()))?;
        }
        if let Some(image) = self.iso_image().filter(|_| Dialect::of(&self.talos.version) == Dialect::Split) {
            self.with(&self.target, |wish| boot::iso(runner, term, wish, &image))?;
        }
        if !self.brings_plugins() {
            self.with(&self.talos.version, |wish| boot::cni(runner, term, wish))?;
        }
        Ok(boot)
    }
}

/// The image that docker nodes will have: the user's, the one asked for, or talosctl's own.
pub fn node_image(wish: &Create, version: &Version) -> String {
    let named = value(&wish.extra, "image").map(str::to_owned).or_else(|| wish.image.clone());
    named.unwrap_or_else(|| talosctl::image("talos", version))
}

/// Where the engine would pull an image through the proxy of its registry; `None` where it has it, or no proxy has.
///
/// # Errors
/// The engine does not answer.
pub fn through(app: &App, mirrors: &[Mirror], reference: &str) -> Result<Option<String>> {
    // The engine talks plain HTTP with registries on loopback alone.
    let on_loopback = app.config.bind == Bind::All || app.config.bind == Bind::Local;
    if !on_loopback || reference.contains('@') || image::absent(&app.processes, &[reference].into())?.is_empty() {
        return Ok(None);
    }
    Ok(mirrors.iter().find_map(|mirror| {
        let rest = reference.strip_prefix(&mirror.host)?.strip_prefix('/')?;
        Some(format!("{}/{rest}", registry::address(mirror, app.config.bind)))
    }))
}

/// Pulls an image through the proxy of its registry, and gives it its own name: the engine itself knows no mirror for
/// it, so that talosctl would pull it past the caches.
///
/// # Errors
/// The engine does not answer.
pub fn pull_through(app: &App, mirrors: &[Mirror], reference: &str) -> Result<()> {
    let Some(through) = through(app, mirrors, reference)? else { return Ok(()) };
    let bar = app.term.waiting(format!("pulling {reference} through its proxy"));
    let docker = |args: &[&str]| app.processes.run(&Cmd::write("docker").args(args.iter().copied()));
    let pulled = docker(&["pull", "--quiet", &through])?;
    drop(bar);
    if !pulled.ok() {
        let reason = pulled.tail(1).join(" ");
        app.term
            .warn(&format!("{reference} cannot be pulled through its proxy ({reason}); talosctl will try by itself"));
        return Ok(());
    }
    if docker(&["tag", &through, reference])?.ok() {
        docker(&["rmi", &through])?;
        app.term.step(&format!("image {reference}: pulled through its proxy"));
    }
    Ok(())
}

/// The files of the user's that talosctl writes and that are not there yet: as root it would make them root's.
pub fn not_there_yet(home: &Utf8Path, version: &Version) -> Vec<Utf8PathBuf> {
    let talos = talos_home(home, version);
    let files = [talos.clone(), talos.join("config"), home.join(".kube"), home.join(".kube/config")];
    let named = ["TALOSCONFIG", "KUBECONFIG"].map(|name| std::env::var(name).unwrap_or_default());
    // The first of several is the one that is written to.
    let named = named.iter().filter_map(|paths| paths.split(':').next()).filter(|path| !path.is_empty());
    files.into_iter().chain(named.map(Utf8PathBuf::from)).filter(|file| !file.exists()).collect()
}

/// Gives files that talosctl has made as root to whom the home directory belongs.
///
/// # Errors
/// sudo cannot be started.
pub fn give_back(processes: &Processes, home: &Utf8Path, files: &[Utf8PathBuf]) -> Result<()> {
    let made: Vec<String> = files.iter().filter(|file| file.exists()).map(ToString::to_string).collect();
    if made.is_empty() {
        return Ok(());
    }
    // A boot can take longer than sudo remembers a password.
    engine::authorize(processes)?;
    let reference = format!("--reference={home}");
    let cmd = engine::as_root_unasked(processes, &["chown", &reference])?.args(made);
    processes.run(&cmd)?.checked(&cmd, "give them to yourself by hand").map(|_| ())
}
