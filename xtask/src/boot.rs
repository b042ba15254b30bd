//! What a QEMU guest boots from, and the CNI plugins of its network: which files, from where, and to where.

use camino::{Utf8Path, Utf8PathBuf};
use semver::Version;

use crate::error::{Error, Finding, Result};
use crate::exec::{Cmd, Runner};
use crate::fetch::refused;
use crate::report::bytes;
use crate::store::{Item, provide};
use crate::term::Term;
use crate::tool::Tool;

/// Where Talos is released (talosctl's own default for the CNI bundle, 1.0 on).
pub const RELEASE: &str = "https://github.com/siderolabs/talos/releases/download";
/// Where its images are made (talosctl's default of `--image-factory-url`).
pub const FACTORY: &str = "https://factory.talos.dev";
/// The schematic that adds nothing, which `create qemu` boots unless told otherwise.
pub const SCHEMATIC: &str = "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba";
/// The plugins that the QEMU provisioner looks for before it fetches its bundle (talosctl's preflight checks).
const PLUGINS: [&str; 4] = ["bridge", "firewall", "static", "tc-redirect-tap"];
/// The list of digests in a release, every version since 0.7.
const SUMS: &str = "sha256sum.txt";

/// The addresses that boot files come from, without a slash at the end.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Sources {
    /// Holds a folder for each release: `RELEASE/v1.9.6/vmlinuz-amd64`.
    pub release: String,
    /// Makes images: `FACTORY/image/SCHEMATIC/v1.12.0/metal-amd64.iso`.
    pub factory: String,
}

impl Default for Sources {
    fn default() -> Self {
        Self { release: RELEASE.to_owned(), factory: FACTORY.to_owned() }
    }
}

/// What is wished for. The paths are absolute, since talosctl runs in a folder of its own.
#[derive(Clone, Debug)]
pub struct Wish<'a> {
    /// The version of Talos that boots; for the CNI plugins, talosctl's own.
    pub version: &'a Version,
    /// `amd64` or `arm64`, see [`arch`].
    pub arch: &'a str,
    /// talosctl's folder: `$TALOS_HOME` (1.12 on), else `~/.talos`.
    pub home: &'a Utf8Path,
    /// Where this tool keeps what it fetched.
    pub folder: &'a Utf8Path,
    /// Where it comes from.
    pub sources: &'a Sources,
}

/// An image of the factory.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    /// What is in it, as the factory names it.
    pub schematic: &'a str,
    /// The factory that talosctl is told of (`--image-factory-url`), where it is: the image comes from there. The name in
    /// talosctl's cache has that address in it, and [`FACTORY`] where it is told of none, wherever the file came from.
    pub told: Option<&'a str>,
}

/// What a guest up to 1.11 boots from, for `--vmlinuz-path` and `--initrd-path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    /// The kernel.
    pub vmlinuz: Utf8PathBuf,
    /// The first root filesystem.
    pub initrd: Utf8PathBuf,
}

/// The name that QEMU has for an architecture of Talos.
pub fn machine(arch: &str) -> &'static str {
    if arch == "arm64" { "aarch64" } else { "x86_64" }
}

/// The name that Talos has for an architecture as Rust calls it (`std::env::consts::ARCH`).
///
/// # Errors
/// Talos is not released for it.
pub fn arch(rust: &str) -> Result<&'static str> {
    match rust {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => Err(Error::Tool {
            problem: format!("Talos is not released for {other}"),
            fix: "use a machine that is x86_64 or aarch64".to_owned(),
        }),
    }
}

impl Wish<'_> {
    /// The kernel and the initramfs of the release.
    pub fn kernel_items(&self) -> [Item; 2] {
        [self.released(&format!("vmlinuz-{}", self.arch)), self.released(&format!("initramfs-{}.xz", self.arch))]
    }

    /// The ISO of the factory.
    pub fn iso_item(&self, image: &Image<'_>) -> Item {
        let kept = self.kept().join(image.schematic);
        // Another factory may have made something else of the same schematic.
        let kept = image.told.map_or_else(|| kept.clone(), |told| kept.join(flat(told.trim_end_matches('/'))));
        let of = format!("Talos v{} of schematic {}", self.version, image.schematic);
        let address = self.iso_address(image.told.unwrap_or(&self.sources.factory), image);
        Item { address, path: kept.join(format!("metal-{}.iso", self.arch)), of, sums: None }
    }

    /// The bundle of CNI plugins, where one of them is missing.
    pub fn cni_item(&self) -> Item {
        self.released(&format!("talosctl-cni-bundle-{}.tar.gz", self.arch))
    }

    /// Where talosctl looks for the ISO before it fetches it: that a file is there is its only test.
    pub fn iso_place(&self, image: &Image<'_>) -> Utf8PathBuf {
        self.home.join("cache").join(flat(&self.iso_address(image.told.unwrap_or(FACTORY), image)))
    }

    /// Which CNI plugins are missing where talosctl looks for them.
    pub fn cni_missing(&self) -> Vec<&'static str> {
        missing(&self.cni_folder())
    }

    fn cni_folder(&self) -> Utf8PathBuf {
        self.home.join("cni/bin")
    }

    fn kept(&self) -> Utf8PathBuf {
        self.folder.join(format!("v{}", self.version))
    }

    fn released(&self, name: &str) -> Item {
        let release = self.sources.release.trim_end_matches('/');
        let release = format!("{release}/v{}", self.version);
        Item {
            address: format!("{release}/{name}"),
            path: self.kept().join(name),
            of: format!("Talos v{}", self.version),
            sums: Some(format!("{release}/{SUMS}")),
        }
    }

    fn iso_address(&self, factory: &str, image: &Image<'_>) -> String {
        let (factory, schematic) = (factory.trim_end_matches('/'), image.schematic);
        format!("{factory}/image/{schematic}/v{}/metal-{}.iso", self.version, self.arch)
    }
}

/// An address as a file name, the way talosctl makes one.
fn flat(address: &str) -> String {
    address.replace(['/', ':'], "-")
}

fn missing(folder: &Utf8Path) -> Vec<&'static str> {
    let there = |name: &&str| folder.join(name).metadata().is_ok_and(|file| file.is_file() && file.len() > 0);
    PLUGINS.into_iter().filter(|name| !there(name)).collect()
}

/// Makes sure of the kernel and the initramfs.
///
/// # Errors
/// As for [`provide`].
pub fn kernel(runner: &dyn Runner, term: Term, wish: &Wish<'_>) -> Result<Boot> {
    let items = wish.kernel_items();
    provide(runner, term, wish.folder, &items)?;
    let [vmlinuz, initrd] = items.map(|item| item.path);
    Ok(Boot { vmlinuz, initrd })
}

/// Makes sure that talosctl finds the factory's ISO, and finds it whole.
///
/// # Errors
/// As for [`provide`]; talosctl's cache cannot be written to.
pub fn iso(runner: &dyn Runner, term: Term, wish: &Wish<'_>, image: &Image<'_>) -> Result<()> {
    if image.schematic.is_empty() || !image.schematic.chars().all(|c| c.is_ascii_alphanumeric()) {
        return Err(Error::Usage {
            problem: format!("{:?} is no schematic", image.schematic),
            fix: format!("name one as the factory does, {SCHEMATIC} for instance"),
        });
    }
    let item = wish.iso_item(image);
    provide(runner, term, wish.folder, std::slice::from_ref(&item))?;
    let place = wish.iso_place(image);
    put(term, &item.path, &place).map_err(|error| refused(&place, wish.home, error))
}

/// Puts a file that is whole where talosctl looks, beside and then renamed. Another size is what talosctl itself
/// leaves when it is interrupted.
fn put(term: Term, whole: &Utf8Path, place: &Utf8Path) -> std::io::Result<()> {
    let size = whole.metadata()?.len();
    let found = place.metadata().map(|file| file.len()).ok();
    if found == Some(size) {
        return Ok(());
    }
    if let Some(folder) = place.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let beside = format!("{place}.part-{}", std::process::id());
    // A hard link costs no space, but does not reach across file systems.
    let put = std::fs::hard_link(whole, &beside)
        .or_else(|_| std::fs::copy(whole, &beside).map(drop))
        .and_then(|()| std::fs::rename(&beside, place));
    // Where another run was first, the rename is of a file to itself, and leaves both names.
    let _ = std::fs::remove_file(&beside);
    put?;
    match found {
        Some(found) => {
            let (found, size) = (bytes(found), bytes(size));
            term.step(&format!("{place}: replaced; what was there had {found}, and the whole has {size}"));
        }
        None => term.step(&format!("{place}: put where talosctl looks for it")),
    }
    Ok(())
}

/// Makes sure of the CNI plugins where talosctl looks for them.
///
/// # Errors
/// As for [`provide`]; the bundle cannot be unpacked or lacks one of them.
pub fn cni(runner: &dyn Runner, term: Term, wish: &Wish<'_>) -> Result<()> {
    let lacking = wish.cni_missing();
    if lacking.is_empty() {
        return Ok(());
    }
    let item = wish.cni_item();
    provide(runner, term, wish.folder, std::slice::from_ref(&item))?;
    let bin = wish.cni_folder();
    let scratch = Utf8PathBuf::from(format!("{bin}.part-{}", std::process::id()));
    let unpacked = unpack(runner, wish, &item.path, &scratch, &bin);
    let _ = std::fs::remove_dir_all(&scratch);
    unpacked?;
    term.step(&format!("CNI plugins: {} put into {bin}", lacking.join(", ")));
    Ok(())
}

fn unpack(runner: &dyn Runner, wish: &Wish<'_>, bundle: &Utf8Path, scratch: &Utf8Path, bin: &Utf8Path) -> Result<()> {
    for folder in [scratch, bin] {
        std::fs::create_dir_all(folder).map_err(|error| refused(folder, wish.home, error))?;
    }
    let fix = format!("rm {bundle}, and run this again");
    // `-o`: what root unpacks belongs to root, not to whoever built the archive.
    let tar = Cmd::write(Tool::Tar.require()?).args(["-xzof", bundle.as_str(), "-C", scratch.as_str()]);
    runner.run(&tar)?.checked(&tar, &fix)?;
    let lacking = missing(scratch);
    if !lacking.is_empty() {
        let problem = format!("there is no {} in it", lacking.join(", "));
        return Err(Error::Blocked(vec![Finding::new(bundle.as_str(), problem, fix)]));
    }
    let failed = || Error::io(format!("read {scratch}"));
    for entry in scratch.read_dir_utf8().map_err(failed())? {
        let entry = entry.map_err(failed())?;
        if entry.file_type().map_err(failed())?.is_file() {
            let to = bin.join(entry.file_name());
            std::fs::rename(entry.path(), &to).map_err(|error| refused(&to, wish.home, error))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish<'a>(version: &'a Version, sources: &'a Sources) -> Wish<'a> {
        let (home, folder) = (Utf8Path::new("/home/u/.talos"), Utf8Path::new("/cache/boot"));
        Wish { version, arch: "amd64", home, folder, sources }
    }

    #[test]
    fn an_architecture_has_the_name_that_talos_gives_it() {
        assert_eq!(arch("x86_64").unwrap(), "amd64");
        assert_eq!(arch("aarch64").unwrap(), "arm64");
        assert_eq!(arch("riscv64").unwrap_err().to_string(), "Talos is not released for riscv64");
    }

    #[test]
    fn a_release_has_the_kernel_the_initramfs_the_plugins_and_their_digests() {
        let (version, sources) = (Version::new(1, 9, 6), Sources::default());
        let wish = wish(&version, &sources);
        let base = "https://github.com/siderolabs/talos/releases/download/v1.9.6";
        let [vmlinuz, initrd] = wish.kernel_items();
        assert_eq!(vmlinuz.address, format!("{base}/vmlinuz-amd64"));
        assert_eq!(vmlinuz.path, "/cache/boot/v1.9.6/vmlinuz-amd64");
        assert_eq!(initrd.address, format!("{base}/initramfs-amd64.xz"));
        assert_eq!(wish.cni_item().address, format!("{base}/talosctl-cni-bundle-amd64.tar.gz"));
        assert_eq!(initrd.sums, Some(format!("{base}/sha256sum.txt")));
    }

    #[test]
    fn a_pre_release_keeps_its_name() {
        let (version, sources) = ("1.14.0-alpha.2".parse().unwrap(), Sources::default());
        assert!(wish(&version, &sources).cni_item().address.contains("/download/v1.14.0-alpha.2/talosctl-cni"));
    }

    #[test]
    fn the_iso_goes_where_talosctl_looks_wherever_it_comes_from() {
        let version = Version::new(1, 12, 0);
        let sources = Sources { factory: "http://10.0.0.1:8080/factory/".into(), ..Sources::default() };
        let wish = wish(&version, &sources);
        let image = Image { schematic: "abc", told: None };
        assert_eq!(wish.iso_item(&image).address, "http://10.0.0.1:8080/factory/image/abc/v1.12.0/metal-amd64.iso");
        assert_eq!(wish.iso_item(&image).path, "/cache/boot/v1.12.0/abc/metal-amd64.iso");
        assert_eq!(
            wish.iso_place(&image),
            "/home/u/.talos/cache/https---factory.talos.dev-image-abc-v1.12.0-metal-amd64.iso"
        );
    }

    #[test]
    fn a_factory_that_talosctl_is_told_of_is_where_the_iso_comes_from() {
        let version = Version::new(1, 12, 0);
        let sources = Sources { factory: "http://10.0.0.1:8080".into(), ..Sources::default() };
        let wish = wish(&version, &sources);
        let image = Image { schematic: "abc", told: Some("https://f.example:8443/") };
        assert_eq!(wish.iso_item(&image).address, "https://f.example:8443/image/abc/v1.12.0/metal-amd64.iso");
        assert_eq!(wish.iso_item(&image).path, "/cache/boot/v1.12.0/abc/https---f.example-8443/metal-amd64.iso");
        assert_eq!(
            wish.iso_place(&image),
            "/home/u/.talos/cache/https---f.example-8443-image-abc-v1.12.0-metal-amd64.iso"
        );
    }

    #[test]
    fn the_other_architecture_has_files_and_an_emulator_of_its_own() {
        let (version, sources) = (Version::new(1, 9, 6), Sources::default());
        let wish = Wish { arch: "arm64", ..wish(&version, &sources) };
        let names = wish.kernel_items().map(|item| item.path.file_name().unwrap().to_owned());
        assert_eq!(names, ["vmlinuz-arm64", "initramfs-arm64.xz"]);
        assert_eq!([machine("arm64"), machine("amd64")], ["aarch64", "x86_64"]);
    }
}
