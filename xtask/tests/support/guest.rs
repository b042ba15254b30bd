//! A virtual machine as a node: a kernel of Debian's, a file system of one program, QEMU without hardware's help.
#![allow(dead_code, missing_docs, clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use crate::network::{BUSYBOX, Tap, said};
use xshell::{Shell, cmd};

/// Depends on Debian's kernel for virtual machines of the day.
const META: &str = "linux-image-cloud-amd64";
/// What a network card of QEMU's needs; where they are built in, nothing of that name is found and nothing is needed.
const DRIVERS: [&str; 2] = ["virtio_pci", "virtio_net"];

/// A kernel, and the modules for its network in the order that they are to be loaded in.
pub struct Kernel {
    image: PathBuf,
    modules: Vec<PathBuf>,
}

impl Kernel {
    /// The kernel that an earlier run fetched, or the one that apt has now; never installed, only unpacked.
    pub fn get() -> Self {
        assert_eq!(std::env::consts::ARCH, "x86_64", "the guest is a q35 machine with this machine's own programs");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guest-kernel");
        if !folder.exists() {
            // Made beside and renamed: what is there is whole.
            let beside = folder.with_extension(std::process::id().to_string());
            unpack(&beside);
            if fs::rename(&beside, &folder).is_err() {
                assert!(folder.exists(), "cannot rename {} to {}", beside.display(), folder.display());
                fs::remove_dir_all(&beside).unwrap();
            }
        }
        let files = |part: &str| {
            let mut files: Vec<PathBuf> =
                fs::read_dir(folder.join(part)).unwrap().map(|entry| entry.unwrap().path()).collect();
            files.sort();
            files
        };
        Self { image: files("boot").remove(0), modules: files("modules") }
    }

    /// Boots a machine with that interface, lets it run the script, and gives back all that it wrote. It turns itself
    /// off, and is ended where it did not after two minutes.
    pub fn run(&self, folder: &Path, tap: &Tap, script: &str) -> String {
        let sh = Shell::new().unwrap();
        let initramfs = folder.join("initramfs");
        fs::write(&initramfs, self.initramfs(&init(tap, script))).unwrap();
        let (kernel, interface) = (&self.image, &tap.name);
        let network = format!("tap,id=net,ifname={interface},script=no,downscript=no");
        // panic=-1 with -no-reboot: a kernel that gives up ends the machine.
        let append = "console=ttyS0 quiet panic=-1";
        said(
            cmd!(sh, "timeout --foreground --kill-after=5 120 qemu-system-x86_64")
                .args(["-machine", "q35", "-accel", "tcg", "-cpu", "max", "-m", "256", "-no-reboot"])
                .args(["-display", "none", "-monitor", "none", "-serial", "stdio"])
                .args(["-netdev", &network, "-device", "virtio-net-pci,netdev=net"])
                .args(["-append", append, "-kernel"])
                .arg(kernel)
                .arg("-initrd")
                .arg(&initramfs),
        )
    }

    fn initramfs(&self, init: &str) -> Vec<u8> {
        let mut archive = Archive::default();
        for folder in ["bin", "proc", "modules"] {
            archive.add(folder, 0o040_755, &[]);
        }
        archive.add("bin/busybox", 0o100_755, &fs::read(BUSYBOX).unwrap());
        archive.add("init", 0o100_755, init.as_bytes());
        for module in &self.modules {
            let name = module.file_name().unwrap().to_str().unwrap();
            archive.add(&format!("modules/{name}"), 0o100_644, &fs::read(module).unwrap());
        }
        archive.finish()
    }
}

/// Fills a folder with `boot/`, the kernel, and `modules/`, what its network needs, from the package that apt has.
fn unpack(folder: &Path) {
    let sh = Shell::new().unwrap();
    let scratch = sh.create_temp_dir().unwrap();
    sh.change_dir(scratch.path());
    if download(&sh).is_err() {
        cmd!(sh, "apt-get -qq update").quiet().run().unwrap();
        download(&sh).expect("the guest needs Debian's kernel for virtual machines");
    }
    let (package, all) = (listed(scratch.path(), "linux-image-"), scratch.path().join("all"));
    cmd!(sh, "dpkg-deb --extract {package} {all}").quiet().run().unwrap();
    let (boot, modules) = (folder.join("boot"), folder.join("modules"));
    fs::create_dir_all(&boot).unwrap();
    fs::create_dir_all(&modules).unwrap();
    fs::copy(listed(&all.join("boot"), "vmlinuz-"), boot.join("vmlinuz")).unwrap();

    if !all.join("lib").exists() {
        // Debian 13 and later ship nothing outside of /usr, and depmod looks below /lib.
        std::os::unix::fs::symlink("usr/lib", all.join("lib")).unwrap();
    }
    let tree = listed(&all.join("lib/modules"), "");
    let version = tree.file_name().unwrap();
    cmd!(sh, "{BUSYBOX} depmod -b {all} {version}").quiet().run().unwrap();
    let table = fs::read_to_string(tree.join("modules.dep")).unwrap();
    for (place, module) in load_order(&table).iter().enumerate() {
        let name = Path::new(module).file_name().unwrap().to_str().unwrap();
        fs::copy(tree.join(module), modules.join(format!("{place:02}-{name}"))).unwrap();
    }
}

/// Downloads the kernel's package, which is the one that the meta package depends on.
fn download(sh: &Shell) -> xshell::Result<()> {
    let depends = cmd!(sh, "apt-cache depends {META}").quiet().read()?;
    let kernel = depends.split_whitespace().find(|word| word.starts_with("linux-image-") && *word != META);
    let package = kernel.unwrap_or(META);
    cmd!(sh, "apt-get -qq --option APT::Sandbox::User=root download {package}").quiet().run()
}

/// The modules that the drivers need, each behind those that it depends on. A line of `modules.dep` is
/// `MODULE: DEPENDENCY...`.
fn load_order(table: &str) -> Vec<&str> {
    fn add<'a>(table: &'a str, module: &'a str, order: &mut Vec<&'a str>) {
        if order.contains(&module) {
            return;
        }
        let line = table.lines().find_map(|line| line.strip_prefix(module)?.strip_prefix(':'));
        for dependency in line.unwrap_or_default().split_whitespace() {
            add(table, dependency, order);
        }
        order.push(module);
    }
    let mut order = Vec::new();
    for driver in DRIVERS {
        let path = format!("/{driver}.ko");
        let modules = table.lines().filter_map(|line| line.split(':').next());
        for module in modules.filter(|module| module.contains(&path)) {
            add(table, module, &mut order);
        }
    }
    order
}

fn listed(folder: &Path, prefix: &str) -> PathBuf {
    let mut files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let found = files.find(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix));
    found.unwrap_or_else(|| panic!("no {prefix}* in {}", folder.display()))
}

/// The first program of the machine: its network, the script, and off.
fn init(tap: &Tap, script: &str) -> String {
    let (node, gateway) = (tap.bridge.node(), tap.bridge.gateway());
    format!(
        "#!{BUSYBOX} sh
busybox mount -t proc proc /proc
for module in /modules/*; do busybox insmod $module; done
busybox ip address add {node}/24 dev eth0
busybox ip link set eth0 up
busybox ip route add default via {gateway}
{script}
busybox poweroff -f
"
    )
}

/// An initramfs: a cpio archive in the format that the kernel calls newc
/// (<https://docs.kernel.org/driver-api/early-userspace/buffer-format.html>).
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    inode: usize,
}

impl Archive {
    fn add(&mut self, name: &str, mode: usize, data: &[u8]) {
        self.inode += 1;
        // ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
        let fields = [self.inode, mode, 0, 0, 1, 0, data.len(), 0, 0, 0, 0, name.len() + 1, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes().chain([0]));
        self.pad();
        self.bytes.extend(data);
        self.pad();
    }

    /// Names and data begin at multiples of four.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, &[]);
        self.bytes
    }
}
