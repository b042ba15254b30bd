//! What the nodes of a cluster start from: boot files for virtual machines, the image for containers.

use camino::{Utf8Path, Utf8PathBuf};

use crate::app::App;
use crate::boot::{self, Image, Wish};
use crate::cluster::place::{Place, boot_folder, talos_home};
use crate::cluster::talos::Talos;
use crate::command::without_userinfo;
use crate::config::{Bind, Mirror};
use crate::error::{Error, Finding, Result};
use crate::exec::{Cmd, Processes, Runner};
use crate::store::{self, Item};
use crate::talosctl::create::{self, Boot, Create};
use crate::talosctl::extra::{given, value, values};
use crate::talosctl::{self, Dialect, Provisioner, Version};
use crate::{engine, image, registry};

/// What a cluster of virtual machines boots from.
pub struct Files<'a> {
    app: &'a App,
    place: &'a Place,
    talos: &'a Talos,
    /// The Talos that boots.
    target: Version,
    /// The architecture of the machines.
    arch: &'static str,
    extra: &'a [String],
}

/// The Talos of virtual machines: what the user says behind `--`, else the one asked for, else talosctl's own.
///
/// # Errors
/// What is said behind `--` is no version that could be looked up: `v1.9`, which talosctl takes for up to 1.11.
fn target(wish: &Create, version: &Version) -> Result<Version, Finding> {
    if let Some(tag) = value(&wish.extra, "talos-version") {
        return Version::parse(tag).ok_or_else(|| {
            let problem = format!("{tag:?} names no release that could be fetched");
            Finding::new("-- --talos-version", problem, "write it as v1.9.6")
        });
    }
    Ok(wish.talos_version.as_deref().and_then(Version::parse).unwrap_or_else(|| version.release()))
}

/// The architecture of virtual machines: up to 1.11 the user's flag says which, otherwise it is this machine's.
///
/// # Errors
/// Talos is not released for it.
pub fn arch(extra: &[String], version: &Version) -> Result<&'static str> {
    match value(extra, "arch").filter(|_| Dialect::of(version) == Dialect::Classic) {
        None => boot::arch(std::env::consts::ARCH),
        Some("amd64") => Ok("amd64"),
        Some("arm64") => Ok("arm64"),
        Some(other) => {
            let problem = format!("Talos is not released for {other:?}");
            Err(Error::Blocked(vec![Finding::new("-- --arch", problem, "use amd64 or arm64")]))
        }
    }
}

impl<'a> Files<'a> {
    /// For a Talos, or for talosctl's own version.
    ///
    /// # Errors
    /// The Talos, the architecture or the factory asked for cannot be.
    pub fn new(app: &'a App, place: &'a Place, talos: &'a Talos, wish: &'a Create) -> Result<Self> {
        let blocked = |finding| Error::Blocked(vec![finding]);
        let extra = &wish.extra;
        let arch = arch(extra, &talos.version)?;
        let target = target(wish, &talos.version);
        let mut files = Self { app, place, talos, target: talos.version.release(), arch, extra };
        // Where nothing is fetched by that version, talosctl alone has to make sense of it.
        if files.fetches_kernel() || files.iso_image().is_some() {
            files.target = target.map_err(blocked)?;
        }
        let is_address = |told: &&str| told.starts_with("http://") || told.starts_with("https://");
        match value(extra, "image-factory-url").filter(|told| !is_address(told)) {
            Some(told) => {
                // What stands before an @ may be a password.
                let shown = if told.contains('@') { "that".to_owned() } else { format!("{told:?}") };
                let problem = format!("{shown} is no address of a factory");
                Err(blocked(Finding::new("-- --image-factory-url", problem, "write it as https://factory.example")))
            }
            None => Ok(files),
        }
    }

    fn with<T>(&self, version: &Version, arch: &str, work: impl FnOnce(&Wish<'_>) -> Result<T>) -> Result<T> {
        let home = talos_home(self.place.home(), &self.talos.version);
        let folder = boot_folder(self.place.home());
        let sources = &self.app.config.boot;
        work(&Wish { version: version.semver(), arch, home: &home, folder: &folder, sources })
    }

    /// With what boots.
    fn of_guest<T>(&self, work: impl FnOnce(&Wish<'_>) -> Result<T>) -> Result<T> {
        self.with(&self.target, self.arch, work)
    }

    /// With the plugins, which run on this machine and are talosctl's own release's.
    fn of_host<T>(&self, work: impl FnOnce(&Wish<'_>) -> Result<T>) -> Result<T> {
        self.with(&self.talos.version.release(), boot::arch(std::env::consts::ARCH)?, work)
    }

    fn fetches_kernel(&self) -> bool {
        Dialect::of(&self.talos.version) == Dialect::Classic && !create::boots_from_elsewhere(self.extra)
    }

    fn boots_iso(&self) -> bool {
        let mut presets = values(self.extra, "presets").flat_map(|presets| presets.split(',')).peekable();
        let iso = presets.peek().is_none() || presets.any(|preset| preset == "iso");
        iso && Dialect::of(&self.talos.version) == Dialect::Split
    }

    /// Whether the factory wants an account. curl would show it to every user of this machine, among its arguments.
    fn wants_account(&self) -> bool {
        let told = value(self.extra, "image-factory-url").unwrap_or_default();
        let authority = told.split_once("://").and_then(|(_, rest)| rest.split('/').next());
        given(self.extra, "image-factory-auth") || authority.is_some_and(|authority| authority.contains('@'))
    }

    fn iso_image(&self) -> Option<Image<'_>> {
        let schematic = value(self.extra, "schematic-id").unwrap_or(boot::SCHEMATIC);
        let told = value(self.extra, "image-factory-url");
        Some(Image { schematic, told }).filter(|_| self.boots_iso() && !self.wants_account())
    }

    /// What is not fetched here, where that is to be said.
    pub fn left_to_talosctl(&self) -> Option<&'static str> {
        (self.boots_iso() && self.wants_account())
            .then_some("the ISO is left to talosctl, since the factory wants an account")
    }

    fn brings_plugins(&self) -> bool {
        ["cni-bin-path", "cni-bundle-url"].iter().any(|flag| given(self.extra, flag))
    }

    /// What would be fetched.
    ///
    /// # Errors
    /// Talos is not released for this architecture.
    pub fn absent(&self) -> Result<Vec<Item>> {
        let mut items = self.of_guest(|wish| {
            let kernel = if self.fetches_kernel() { wish.kernel_items().to_vec() } else { Vec::new() };
            Ok(kernel.into_iter().chain(self.iso_image().map(|image| wish.iso_item(&image))).collect::<Vec<_>>())
        })?;
        if !self.brings_plugins() {
            items.extend(self.of_host(|wish| Ok(Some(wish.cni_item()).filter(|_| !wish.cni_missing().is_empty())))?);
        }
        Ok(store::absent(&items, Utf8Path::exists).into_iter().cloned().collect())
    }

    /// What talosctl up to 1.11 is to be told of it.
    ///
    /// # Errors
    /// Talos is not released for this architecture.
    pub fn boot(&self) -> Result<Option<Boot>> {
        if !self.fetches_kernel() {
            return Ok(None);
        }
        let [vmlinuz, initrd] = self.of_guest(|wish| Ok(wish.kernel_items().map(|item| item.path)))?;
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
            self.of_guest(|wish| boot::kernel(runner, term, wish).map(|_| ()))?;
        }
        if let Some(image) = self.iso_image() {
            self.of_guest(|wish| boot::iso(runner, term, wish, &image))?;
        }
        self.left_to_talosctl().into_iter().for_each(|note| term.step(note));
        if !self.brings_plugins() {
            self.of_host(|wish| boot::cni(runner, term, wish))?;
        }
        Ok(boot)
    }
}

/// The image that docker nodes will have: the user's, the one asked for, or talosctl's own.
pub fn node_image(wish: &Create, version: &Version) -> String {
    let named = value(&wish.extra, "image").map(str::to_owned).or_else(|| wish.image.clone());
    named.unwrap_or_else(|| talosctl::image("talos", version))
}

/// The Talos that nodes run, which decides what their configuration may hold: that of containers is the one in their
/// image, unless its tag says none.
pub fn talos_of_nodes(wish: &Create, version: &Version) -> Version {
    let tag = |image: &str| Version::parse(image.split('@').next()?.rsplit_once(':')?.1);
    let in_image = match wish.provisioner {
        Provisioner::Docker => tag(&node_image(wish, version)),
        Provisioner::Qemu => None,
    };
    let asked = || value(&wish.extra, "talos-version").or(wish.talos_version.as_deref()).and_then(Version::parse);
    in_image.or_else(asked).unwrap_or_else(|| version.clone())
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
        let reason = without_userinfo(&pulled.tail(1).join(" "));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn v(tag: &str) -> Version {
        Version::parse(tag).unwrap()
    }

    fn wish(provisioner: Provisioner, asked: Option<&str>, extra: &str) -> Create {
        let mut wish = Create::new(provisioner, "x", "/s", "10.5.0.0/24".parse().unwrap());
        wish.talos_version = asked.map(str::to_owned);
        wish.extra = extra.split_whitespace().map(str::to_owned).collect();
        wish
    }

    #[test]
    fn the_talos_of_containers_is_that_of_their_image() {
        for (extra, expected) in [
            ("", "v1.12.4"),
            ("--image localhost:5000/siderolabs/talos:v1.9.6", "v1.9.6"),
            ("--image=ghcr.io/siderolabs/talos:v1.9.6@sha256:abc", "v1.9.6"),
            ("--image localhost:5000/talos", "v1.12.4"),
            ("--image talos:dev --talos-version v1.10.0", "v1.10.0"),
            ("--image talos:dev", "v1.12.4"),
        ] {
            let found = talos_of_nodes(&wish(Provisioner::Docker, None, extra), &v("v1.12.4"));
            assert_eq!(found.to_string(), expected, "{extra}");
        }
        let found = talos_of_nodes(&wish(Provisioner::Qemu, Some("v1.11.0"), "--image x:v1.9.6"), &v("v1.12.4"));
        assert_eq!(found.to_string(), "v1.11.0");
    }

    #[test]
    fn what_is_said_behind_the_dashes_boots() {
        let found = |asked, extra| {
            target(&wish(Provisioner::Qemu, asked, extra), &v("v1.13.0-alpha.1-2-gabc")).map(|found| found.to_string())
        };
        assert_eq!(found(None, "").unwrap(), "v1.13.0-alpha.1");
        assert_eq!(found(Some("v1.9.6"), "").unwrap(), "v1.9.6");
        assert_eq!(found(Some("v1.9.6"), "--talos-version=v1.8.0").unwrap(), "v1.8.0");
        assert!(found(None, "--talos-version v1.9").unwrap_err().problem.contains("\"v1.9\" names no release"));
    }

    #[test]
    fn the_architecture_is_the_users_up_to_1_11() {
        let extra = |value: &str| ["--arch".to_owned(), value.to_owned()];
        assert_eq!(arch(&extra("arm64"), &v("v1.11.6")).unwrap(), "arm64");
        assert_eq!(arch(&extra("amd64"), &v("v0.7.1")).unwrap(), "amd64");
        assert!(arch(&extra("riscv64"), &v("v1.9.6")).unwrap_err().to_string().contains("-- --arch: "));
        assert_eq!(arch(&extra("riscv64"), &v("v1.12.0")).unwrap(), arch(&[], &v("v1.12.0")).unwrap());
    }
}
