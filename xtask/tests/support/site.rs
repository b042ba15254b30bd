//! A release and a factory on loopback, the folders of a user who boots from them, and a disk that is soon full.

use camino::{Utf8Path, Utf8PathBuf};
use semver::Version;
use xshell::{Shell, TempDir, cmd};
use xtask::boot::{self, Boot, Image, SCHEMATIC, Sources, Wish};
use xtask::error::Result;
use xtask::exec::{Cmd, Interrupt, Output, Processes, Runner};
use xtask::term::Term;

use super::origin::Origin;
use super::support::{digest, write_program};

pub const BUNDLE: &str = "talosctl-cni-bundle-amd64.tar.gz";
pub const IMAGE: Image<'static> = Image { schematic: SCHEMATIC, told: None };

/// Real processes, which reach loopback directly whatever proxy this machine uses.
pub struct Direct(Processes);

impl Direct {
    pub fn new(interrupt: Interrupt) -> Self {
        Self(Processes::new(interrupt, Term::silent()))
    }
}

impl Runner for Direct {
    fn run(&self, cmd: &Cmd) -> Result<Output> {
        self.0.run(&cmd.clone().env("no_proxy", "127.0.0.1").env("NO_PROXY", "127.0.0.1"))
    }

    fn lines(&self, cmd: &Cmd, line: &mut dyn FnMut(&str) -> bool) -> Result<bool> {
        self.0.lines(cmd, line)
    }

    fn interrupted(&self) -> Option<usize> {
        self.0.interrupted()
    }
}

/// A release v1.9.6 and a factory, and the folders of a user.
pub struct Site {
    pub origin: Origin,
    pub sources: Sources,
    pub version: Version,
    pub home: Utf8PathBuf,
    pub folder: Utf8PathBuf,
    scratch: TempDir,
}

impl Site {
    pub fn new() -> Self {
        let origin = Origin::start();
        let sources = Sources { release: origin.address(), factory: origin.address() };
        let scratch = Shell::new().unwrap().create_temp_dir().unwrap();
        let root = Utf8Path::from_path(scratch.path()).unwrap();
        let (home, folder) = (root.join("home with space/.talos"), root.join("boot"));
        let site = Self { origin, sources, version: Version::new(1, 9, 6), home, folder, scratch };
        site.release("vmlinuz-amd64", &bytes(200_000));
        site.release("initramfs-amd64.xz", &bytes(300_000));
        site.sums(&[("vmlinuz-amd64", &bytes(200_000)), ("_out/initramfs-amd64.xz", &bytes(300_000))]);
        site.origin.put(&format!("/image/{SCHEMATIC}/v1.9.6/metal-amd64.iso"), &bytes(400_000));
        site
    }

    pub fn release(&self, name: &str, bytes: &[u8]) {
        self.origin.put(&format!("/v1.9.6/{name}"), bytes);
    }

    pub fn sums(&self, files: &[(&str, &[u8])]) {
        let line = |(name, bytes): &(&str, &[u8])| format!("{}  {name}\n", digest(bytes).trim_start_matches("sha256:"));
        self.release("sha256sum.txt", files.iter().map(line).collect::<String>().as_bytes());
    }

    /// Releases a bundle of these files.
    pub fn bundle(&self, names: &[&str]) {
        let sh = Shell::new().unwrap();
        let folder = sh.create_temp_dir().unwrap();
        for name in names {
            write_program(folder.path(), name, &format!("#!/bin/sh\necho {name}\n"));
        }
        let (folder, archive) = (folder.path(), self.scratch.path().join("bundle.tar.gz"));
        cmd!(sh, "tar -czf {archive} -C {folder} .").quiet().run().unwrap();
        let bytes = std::fs::read(archive).unwrap();
        self.release(BUNDLE, &bytes);
        self.sums(&[(BUNDLE, &bytes)]);
    }

    pub fn wish(&self) -> Wish<'_> {
        let Self { version, home, folder, sources, .. } = self;
        Wish { version, arch: "amd64", home, folder, sources }
    }

    pub fn kernel(&self) -> Result<Boot> {
        boot::kernel(&Direct::new(Interrupt::default()), Term::silent(), &self.wish())
    }

    pub fn iso(&self) -> Result<()> {
        boot::iso(&Direct::new(Interrupt::default()), Term::silent(), &self.wish(), &IMAGE)
    }

    pub fn cni(&self) -> Result<()> {
        boot::cni(&Direct::new(Interrupt::default()), Term::silent(), &self.wish())
    }

    pub fn kept(&self, name: &str) -> Utf8PathBuf {
        self.folder.join("v1.9.6").join(name)
    }

    pub fn place(&self) -> Vec<u8> {
        std::fs::read(self.wish().iso_place(&IMAGE)).unwrap()
    }

    /// The names below the folder of this release.
    pub fn names(&self) -> Vec<String> {
        let entries = self.folder.join("v1.9.6").read_dir_utf8().unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().to_owned()).collect();
        names.sort();
        names
    }

    pub fn whole(&self) {
        let boot = self.kernel().unwrap();
        assert!(std::fs::read(boot.vmlinuz).unwrap() == bytes(200_000));
        assert!(std::fs::read(boot.initrd).unwrap() == bytes(300_000));
        assert_eq!(self.names(), ["initramfs-amd64.xz", "vmlinuz-amd64"]);
    }
}

/// Bytes of which no piece looks like another.
pub fn bytes(count: u32) -> Vec<u8> {
    (0..count).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// A folder on a disk of its own, with 128 KiB of room; unmounted when dropped.
pub struct SmallDisk<'a>(pub &'a Utf8Path);

impl SmallDisk<'_> {
    pub fn mount(folder: &Utf8Path) -> Option<SmallDisk<'_>> {
        let sh = Shell::new().unwrap();
        std::fs::create_dir_all(folder).unwrap();
        let mount = cmd!(sh, "mount -t tmpfs -o size=128k tmpfs {folder}").quiet().ignore_stderr();
        mount.run().ok().map(|()| SmallDisk(folder))
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let (sh, folder) = (Shell::new().unwrap(), self.0);
        cmd!(sh, "umount {folder}").quiet().run().unwrap();
    }
}
