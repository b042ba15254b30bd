//! What has to be on a machine before talosctl is started, all of it looked at together.

use std::net::Ipv4Addr;

use camino::Utf8Path;
use ipnet::Ipv4Net;

use crate::boot;
use crate::cluster::firmware;
use crate::cluster::place::Place;
use crate::error::Finding;
use crate::exec::{Cmd, Runner};
use crate::talosctl::Version;
use crate::tool::Tool;

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// What stands in the way.
    pub findings: Vec<Finding>,
    /// What to know although nothing stands in the way.
    pub warnings: Vec<String>,
}

/// What a QEMU cluster needs of a machine (talosctl's own checks, `pkg/provision/providers/qemu/preflight*.go`).
pub struct Machine {
    /// The architecture of the virtual machines as QEMU names it: `x86_64` or `aarch64`.
    pub arch: &'static str,
    /// Whether this process is root's.
    pub root: bool,
    /// Whether a program is on `PATH`, or a file is there.
    pub has: fn(&str) -> bool,
    /// Whether `/dev/kvm` can be used.
    pub kvm: bool,
    /// What is missing of the UEFI firmware.
    pub firmware: Option<String>,
}

impl Machine {
    /// This one, for virtual machines of an architecture as Talos names it and with the user's flags.
    pub fn this(version: &Version, arch: &str, extra: &[String], root: bool) -> Self {
        let has =
            |name: &str| if name.starts_with('/') { Utf8Path::new(name).exists() } else { which::which(name).is_ok() };
        let kvm = std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm");
        // Through sudo it is root that opens it.
        let kvm = kvm.is_ok() || (!root && Utf8Path::new("/dev/kvm").exists());
        let firmware = firmware::missing(version, arch, extra, Utf8Path::exists);
        Self { arch: boot::machine(arch), root, has, kvm, firmware }
    }
}

/// Checks a machine for a QEMU cluster by this talosctl; pure.
pub fn qemu(version: &Version, machine: &Machine) -> Found {
    let mut found = Found::default();
    let mut missing =
        |subject: &str, problem: String, fix: &str| found.findings.push(Finding::new(subject, problem, fix));
    let emulator = format!("qemu-system-{}", machine.arch);
    // Red Hat's names, from 1.1.1 on.
    let others = ["qemu-kvm", "/usr/libexec/qemu-kvm"].into_iter().filter(|_| version.at_least((1, 1)));
    if !(machine.has)(&emulator) && !others.into_iter().any(machine.has) {
        let package = if machine.arch == "aarch64" { "qemu-system-arm" } else { "qemu-system-x86" };
        let fix = format!("install QEMU (Debian and Ubuntu: apt-get install {package})");
        missing("qemu", format!("{emulator} is not on PATH"), &fix);
    }
    if !(machine.has)("iptables") && !(machine.has)("/usr/sbin/iptables") {
        missing("iptables", "it is not on PATH".to_owned(), Tool::Iptables.fix());
    }
    if let Some(problem) = &machine.firmware {
        let package = if machine.arch == "aarch64" { "qemu-efi-aarch64" } else { "ovmf" };
        let fix = format!("install it (Debian and Ubuntu: apt-get install {package})");
        missing("firmware", problem.clone(), &fix);
    }
    if !machine.root && !(machine.has)("sudo") {
        missing("root", "talosctl makes virtual machines as root, and there is no sudo".to_owned(), Tool::Sudo.fix());
    }
    if !machine.kvm {
        let problem = "/dev/kvm cannot be used".to_owned();
        if version.at_least((1, 11)) {
            found.warnings.push(format!("{problem}: the machines are emulated, which is slow"));
        } else {
            let fix =
                "switch virtualization on in the firmware, load kvm_intel or kvm_amd, or use talosctl 1.11 or newer";
            missing("kvm", problem, fix);
        }
    }
    found
}

/// The networks of the engine, by name, without the cluster's own; none where it does not answer.
pub fn networks(runner: &dyn Runner, place: &Place) -> Vec<(String, Ipv4Net)> {
    let list = Cmd::read("docker").args(["network", "ls", "--quiet"]);
    let Ok(ids) = runner.run(&list).map(|output| output.text()) else { return Vec::new() };
    let format = "{{.Name}}{{range .IPAM.Config}} {{.Subnet}}{{end}}";
    let inspect = Cmd::read("docker").args(["network", "inspect", "--format", format]).args(ids.lines());
    let text = runner.run(&inspect).map(|output| output.text()).unwrap_or_default();
    let line = |line: &str| {
        let (name, subnets) = line.split_once(' ')?;
        let net = subnets.split(' ').find_map(|subnet| subnet.parse().ok())?;
        (name != place.name()).then(|| (name.to_owned(), net))
    };
    text.lines().filter_map(line).collect()
}

/// The addresses of this host's interfaces, by interface, without the engine's bridges, whose networks the engine tells,
/// and the cluster's own; none where there is no `ip`.
pub fn addresses(runner: &dyn Runner, place: &Place) -> Vec<(String, Ipv4Addr)> {
    if which::which("ip").is_err() {
        return Vec::new();
    }
    let show = Cmd::read("ip").args(["-o", "-4", "addr", "show"]);
    let text = runner.run(&show).map(|output| output.text()).unwrap_or_default();
    let others = read_addresses(&text).into_iter().filter(|(interface, _)| {
        !interface.starts_with("br-") && !interface.starts_with("docker") && *interface != place.bridge()
    });
    others.collect()
}

/// Reads what `ip -o -4 addr show` prints: `2: eth0    inet 192.0.2.7/24 brd ...`.
fn read_addresses(text: &str) -> Vec<(String, Ipv4Addr)> {
    let line = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let interface = words.next()?.to_owned();
        let address = words.skip_while(|word| *word != "inet").nth(1)?.split('/').next()?.parse().ok()?;
        Some((interface, address))
    };
    text.lines().filter_map(line).collect()
}

/// An interface of this host that is in the cluster's network already, as a finding; pure.
pub fn taken(addresses: &[(String, Ipv4Addr)], cidr: Ipv4Net) -> Option<Finding> {
    let (interface, address) = addresses.iter().find(|(_, address)| cidr.contains(address))?;
    let problem = format!("{cidr} is in use: {interface} of this host has the address {address}");
    Some(Finding::new("--cidr", problem, "choose another network, 10.6.0.0/24 for instance"))
}

/// Another network that a cluster's would overlap with, as a finding; pure.
pub fn overlap(networks: &[(String, Ipv4Net)], cidr: Ipv4Net) -> Option<Finding> {
    let meets = |net: &Ipv4Net| net.contains(&cidr.network()) || cidr.contains(&net.network());
    let (name, net) = networks.iter().find(|(_, net)| meets(net))?;
    let problem = format!("{cidr} overlaps with {net}, the network {name} of the engine");
    Some(Finding::new("--cidr", problem, "choose another network, 10.6.0.0/24 for instance"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subjects(tag: &str, machine: &Machine) -> (Vec<String>, usize) {
        let found = qemu(&Version::parse(tag).unwrap(), machine);
        (found.findings.into_iter().map(|finding| finding.subject).collect(), found.warnings.len())
    }

    #[test]
    fn everything_that_is_missing_is_found_together() {
        let firmware = Some("there is none".to_owned());
        let bare = Machine { arch: "x86_64", root: false, has: |_| false, kvm: false, firmware };
        assert_eq!(subjects("v1.10.9", &bare).0, ["qemu", "iptables", "firmware", "root", "kvm"]);
        assert_eq!(
            subjects("v1.11.0", &bare),
            (["qemu", "iptables", "firmware", "root"].map(str::to_owned).to_vec(), 1)
        );
        let all = Machine { has: |_| true, kvm: true, firmware: None, ..bare };
        assert_eq!(subjects("v1.9.6", &all), (Vec::new(), 0));
    }

    #[test]
    fn a_network_that_is_taken_is_found() {
        let networks = [("bridge".to_owned(), "172.17.0.0/16".parse().unwrap())];
        assert!(overlap(&networks, "172.17.5.0/24".parse().unwrap()).is_some());
        assert!(overlap(&networks, "172.0.0.0/8".parse().unwrap()).is_some());
        assert_eq!(overlap(&networks, "10.5.0.0/24".parse().unwrap()), None);
    }

    #[test]
    fn an_address_of_this_host_in_the_network_is_found() {
        let text = "1: lo    inet 127.0.0.1/8 scope host lo\\       valid_lft forever\n\
                    2: wlan0    inet 10.0.0.5/8 brd 10.255.255.255 scope global wlan0\n\
                    7: talos12ab34cd    inet 10.5.0.1/24 brd 10.5.0.255 scope global talos12ab34cd\n\
                    9: wg0    inet 10.6.0.1 peer 10.6.0.2/32 scope global wg0\n";
        let addresses = read_addresses(text);
        assert_eq!(addresses.len(), 4, "{addresses:?}");
        let finding = taken(&addresses, "10.5.0.0/24".parse().unwrap()).unwrap();
        assert_eq!(finding.problem, "10.5.0.0/24 is in use: talos12ab34cd of this host has the address 10.5.0.1");
        assert!(taken(&addresses, "10.6.0.0/24".parse().unwrap()).is_some());
        // Others route more than that to somewhere else, and a nearer network goes before it.
        assert_eq!(taken(&addresses, "10.7.0.0/24".parse().unwrap()), None);
    }

    #[test]
    fn the_emulator_is_that_of_the_machines_architecture() {
        let has = |name: &str| ["qemu-system-aarch64", "iptables"].contains(&name);
        let machine = |arch| Machine { arch, root: true, has, kvm: true, firmware: None };
        assert!(subjects("v1.9.6", &machine("aarch64")).0.is_empty());
        assert_eq!(subjects("v1.9.6", &machine("x86_64")).0, ["qemu"]);
    }

    #[test]
    fn red_hats_emulator_will_do_from_1_1_on() {
        let has = |name: &str| name == "/usr/libexec/qemu-kvm" || name == "iptables";
        let machine = Machine { arch: "x86_64", root: true, has, kvm: true, firmware: None };
        assert!(subjects("v1.1.2", &machine).0.is_empty());
        assert_eq!(subjects("v1.0.6", &machine).0, ["qemu"]);
    }
}
