//! `cluster create`: from what is wished for to the command line of one release, or to why there is none.

use camino::Utf8PathBuf;
use ipnet::Ipv4Net;

use crate::error::Finding;
use crate::exec::Cmd;
use crate::mirror_format::Endpoint;
use crate::talosctl::extra::{given, secrets};
use crate::talosctl::flags::{self, Opt};
use crate::talosctl::{Dialect, Provisioner, Version, write};

/// A cluster as it is wished for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Create {
    /// What makes its machines.
    pub provisioner: Provisioner,
    /// Its name.
    pub name: String,
    /// The directory for the state of this cluster and of no other.
    pub state: Utf8PathBuf,
    /// Its network, as [`crate::talosctl::network::read`] reads it.
    pub cidr: Ipv4Net,
    /// How many control planes.
    pub controlplanes: u32,
    /// How many workers; talosctl's own default, one, where nothing is said.
    pub workers: Option<u32>,
    /// The Talos that the machine configuration is for: `v1.9.6`.
    pub talos_version: Option<String>,
    /// The Kubernetes that nodes run.
    pub kubernetes_version: Option<String>,
    /// The registry mirrors, in order.
    pub mirrors: Vec<Endpoint>,
    /// How nodes learn of the mirrors.
    pub mirrors_as: MirrorsAs,
    /// The image of docker nodes.
    pub image: Option<String>,
    /// What QEMU nodes boot from, up to 1.11.
    pub boot: Option<Boot>,
    /// The image that QEMU nodes install, up to 1.11.
    pub install_image: Option<String>,
    /// The user's own flags, which win over all of the above.
    pub extra: Vec<String>,
}

/// How nodes learn of the mirrors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MirrorsAs {
    /// One `--registry-mirror` each; works in every release.
    Flag,
    /// A `--config-patch` from this file, which holds [`crate::mirror_format::patch`].
    Patch(Utf8PathBuf),
}

/// What QEMU nodes boot from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    /// The kernel: a path, or from 1.7 on an address.
    pub vmlinuz: String,
    /// The initramfs, likewise.
    pub initrd: String,
}

/// Flags that this tool cannot do without knowing: where the state is, what the gateway is, which command it is.
const OURS: [(&str, &str); 4] =
    [("name", "--name"), ("provisioner", "--docker or --qemu"), ("cidr", "--cidr"), ("subnet", "--cidr")];

/// Flags that make QEMU nodes boot from something other than a kernel and an initramfs.
const OTHER_BOOT: [&str; 5] = ["iso-path", "disk-image-path", "ipxe-boot-script", "usb-path", "uki-path"];

/// Whether the user's flags say what QEMU nodes boot from, so that ours need not be fetched.
pub fn boots_from_elsewhere(extra: &[String]) -> bool {
    OTHER_BOOT.iter().any(|flag| given(extra, flag))
        || ["vmlinuz-path", "initrd-path"].iter().all(|flag| given(extra, flag))
}

impl Create {
    /// One control plane, and talosctl's defaults for the rest.
    pub fn new(
        provisioner: Provisioner,
        name: impl Into<String>,
        state: impl Into<Utf8PathBuf>,
        cidr: Ipv4Net,
    ) -> Self {
        Self {
            provisioner,
            name: name.into(),
            state: state.into(),
            cidr,
            controlplanes: 1,
            workers: None,
            talos_version: None,
            kubernetes_version: None,
            mirrors: Vec::new(),
            mirrors_as: MirrorsAs::Flag,
            image: None,
            boot: None,
            install_image: None,
            extra: Vec::new(),
        }
    }

    /// The command line. The user's flags come last, and one of ours that they repeat is left out; mirrors add up.
    ///
    /// # Errors
    /// What this release cannot do for this provisioner, all of it: nothing that was wished for is dropped.
    pub fn command(&self, version: &Version) -> Result<Cmd, Vec<Finding>> {
        let mut line =
            Line { version, wish: self, args: vec!["cluster".into(), "create".into()], findings: Vec::new() };
        match Dialect::of(version) {
            Dialect::Classic => line.args.extend(["--provisioner".into(), self.provisioner.name().into()]),
            Dialect::Split => line.args.push(self.provisioner.name().into()),
        }
        line.args.extend(["--state".into(), self.state.to_string(), "--name".into(), self.name.clone()]);
        line.reserved();
        line.room();
        line.machines();
        line.versions();
        line.boot();
        line.mirrors();
        if !line.findings.is_empty() {
            return Err(line.findings);
        }
        Ok(write().args(line.args).args(self.extra.clone()).hiding(secrets(&self.extra)))
    }
}

/// The command line in the making.
struct Line<'a> {
    version: &'a Version,
    wish: &'a Create,
    args: Vec<String>,
    findings: Vec<Finding>,
}

impl Line<'_> {
    fn refuse(&mut self, subject: &str, problem: String, fix: &str) {
        self.findings.push(Finding::new(subject, problem, fix));
    }

    /// Adds a flag with its value, unless the user has given it; `subject` and `fix` are for a release without it.
    fn option(&mut self, opt: Opt, value: impl Into<String>, subject: &str, fix: &str) {
        let additive = matches!(opt, Opt::Mirror | Opt::Patch);
        if !additive && flags::names(opt).any(|name| given(&self.wish.extra, name)) {
            return;
        }
        match flags::flag(opt, self.version, self.wish.provisioner) {
            Ok(flag) => self.args.extend([format!("--{flag}"), value.into()]),
            Err(why) => self.refuse(subject, format!("talosctl {} {why}", self.version), fix),
        }
    }

    fn reserved(&mut self) {
        for (flag, instead) in OURS.iter().filter(|(flag, _)| given(&self.wish.extra, flag)) {
            let problem = format!("--{flag} behind `--` would go past what this tool has to know");
            self.refuse(&format!("-- --{flag}"), problem, &format!("use {instead}"));
        }
        if given(&self.wish.extra, "state") {
            let problem = "each cluster has a state directory of its own, which is removed with it".to_owned();
            self.refuse("-- --state", problem, "leave it out");
        }
        if given(&self.wish.extra, "help") || self.wish.extra.iter().any(|word| word == "-h") {
            let problem = "talosctl would print its help, and end as if the cluster were made".to_owned();
            self.refuse("-- --help", problem, "run `talosctl cluster create --help` by itself");
        }
    }

    /// Addresses for the network, the gateway, the nodes and broadcast: talosctl would count on into the next network.
    fn room(&mut self) {
        let wish = self.wish;
        let counted = [Opt::Controlplanes, Opt::Workers];
        if counted.into_iter().flat_map(flags::names).any(|name| given(&wish.extra, name)) {
            return;
        }
        let nodes = u64::from(wish.controlplanes) + u64::from(wish.workers.unwrap_or(1));
        let room = (1_u64 << (32 - wish.cidr.prefix_len())).saturating_sub(3);
        if nodes > room {
            let problem = format!("{} has room for {room} of the {nodes} nodes asked for", wish.cidr);
            self.refuse("--cidr", problem, "choose a wider network, or fewer --controlplanes and --workers");
        }
    }

    fn machines(&mut self) {
        self.option(Opt::Cidr, self.wish.cidr.to_string(), "--cidr", "");
        let one = self.wish.controlplanes == 1;
        if self.wish.controlplanes == 0 {
            self.refuse("--controlplanes", "a cluster needs one at least".into(), "use --controlplanes 1");
        } else if !(one && flags::flag(Opt::Controlplanes, self.version, self.wish.provisioner).is_err()) {
            let fix = "use --qemu, one control plane, or a talosctl up to 1.11";
            self.option(Opt::Controlplanes, self.wish.controlplanes.to_string(), "--controlplanes", fix);
        }
        if let Some(workers) = self.wish.workers {
            self.option(Opt::Workers, workers.to_string(), "--workers", "");
        }
    }

    fn versions(&mut self) {
        if let Some(talos) = &self.wish.talos_version {
            if Version::parse(talos).is_none() {
                self.refuse("--talos-version", format!("{talos:?} is no version"), "write it as v1.9.6");
            }
            let fix = match self.wish.provisioner {
                Provisioner::Docker => {
                    "name the image of the nodes instead: -- --image ghcr.io/siderolabs/talos:VERSION"
                }
                Provisioner::Qemu => "leave it out, or use a newer talosctl",
            };
            self.option(Opt::TalosVersion, talos, "--talos-version", fix);
        }
        if let Some(kubernetes) = &self.wish.kubernetes_version {
            self.option(Opt::KubernetesVersion, kubernetes, "--kubernetes-version", "");
        }
    }

    fn boot(&mut self) {
        let wish = self.wish;
        if let Some(image) = &wish.image {
            self.option(Opt::Image, image, "--image", "leave it out: QEMU nodes boot from files");
        }
        if let Some(boot) = wish.boot.as_ref().filter(|_| !boots_from_elsewhere(&wish.extra)) {
            let fix =
                "leave it out: docker nodes boot from their image, and from 1.12 on QEMU nodes from a factory's ISO";
            self.option(Opt::Kernel, &boot.vmlinuz, "--vmlinuz-path", fix);
            self.option(Opt::Initrd, &boot.initrd, "--initrd-path", fix);
        }
        // Files of the user's own say what is installed, and talosctl takes no second word on it.
        if let Some(image) = wish.install_image.as_ref().filter(|_| !given(&wish.extra, "input-dir")) {
            let fix = "leave it out: docker nodes install nothing, and from 1.12 on QEMU nodes install the factory's";
            self.option(Opt::InstallImage, image, "--install-image", fix);
        }
    }

    fn mirrors(&mut self) {
        let wish = self.wish;
        if wish.mirrors.is_empty() {
            return;
        }
        if given(&wish.extra, "input-dir") && wish.mirrors_as == MirrorsAs::Flag {
            let does =
                if self.version.at_least((1, 1)) { "refuses mirrors beside it" } else { "drops mirrors beside it" };
            let fix = "leave it out, or use --no-cache and write the mirrors into the files";
            self.refuse("-- --input-dir", format!("talosctl {} {does}", self.version), fix);
            return;
        }
        match &wish.mirrors_as {
            MirrorsAs::Flag => {
                for Endpoint { host, url } in &wish.mirrors {
                    self.option(Opt::Mirror, format!("{host}={url}"), "--registry-mirror", "");
                }
            }
            MirrorsAs::Patch(file) => {
                let fix = "use --mirrors-as flag, which every release takes";
                self.option(Opt::Patch, format!("@{file}"), "--mirrors-as patch", fix);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Provisioner::{Docker, Qemu};

    fn wish(provisioner: Provisioner) -> Create {
        let cidr = "10.5.0.0/24".parse().unwrap();
        let mirrors = [("docker.io", "http://10.5.0.1:5000"), ("ghcr.io", "http://10.5.0.1:5004")];
        let mirrors = mirrors.map(|(host, url)| Endpoint { host: host.to_owned(), url: url.to_owned() }).to_vec();
        Create { mirrors, ..Create::new(provisioner, "x", "/s", cidr) }
    }

    fn line(tag: &str, wish: &Create) -> String {
        wish.command(&Version::parse(tag).unwrap()).unwrap().argv().collect::<Vec<_>>().join(" ")
    }

    fn findings(tag: &str, wish: &Create) -> Vec<String> {
        let findings = wish.command(&Version::parse(tag).unwrap()).unwrap_err();
        assert!(findings.iter().all(|finding| !finding.fix.is_empty()), "{findings:?}");
        findings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_dialect_is_spelt_its_own_way() {
        let mirrors = "--registry-mirror docker.io=http://10.5.0.1:5000 --registry-mirror ghcr.io=http://10.5.0.1:5004";
        for (tag, provisioner, head, network) in [
            ("v1.1.2", Docker, "create --provisioner docker", "--cidr 10.5.0.0/24 --masters 1"),
            ("v1.11.6", Qemu, "create --provisioner qemu", "--cidr 10.5.0.0/24 --controlplanes 1"),
            ("v1.12.0-alpha.0", Docker, "create docker", "--subnet 10.5.0.0/24"),
            ("v1.14.0", Qemu, "create qemu", "--cidr 10.5.0.0/24 --controlplanes 1"),
        ] {
            let expected = format!("talosctl cluster {head} --state /s --name x {network} {mirrors}");
            assert_eq!(line(tag, &wish(provisioner)), expected);
        }
    }

    #[test]
    fn what_a_release_cannot_do_is_said_all_at_once() {
        let mut docker = wish(Docker);
        docker.controlplanes = 3;
        docker.talos_version = Some("v1.10.0".into());
        docker.boot = Some(Boot { vmlinuz: "k".into(), initrd: "i".into() });
        docker.install_image = Some("x".into());
        let found = findings("v1.12.0", &docker);
        let subjects: Vec<&str> = found.iter().filter_map(|text| text.split(':').next()).collect();
        let expected = ["--controlplanes", "--talos-version", "--vmlinuz-path", "--initrd-path", "--install-image"];
        assert_eq!(subjects, expected);
        assert!(found[0].contains("talosctl v1.12.0 has no such option for docker clusters; it exists up to 1.11"));

        let mut qemu = wish(Qemu);
        qemu.image = Some("x".into());
        qemu.talos_version = Some("1.10".into());
        qemu.mirrors_as = MirrorsAs::Patch("/p".into());
        let found = findings("v0.8.5", &qemu);
        assert!(found[0].contains("\"1.10\" is no version") && found[1].contains("from 0.9 on"), "{found:?}");
        assert!(found[2].starts_with("--image: ") && found[3].contains("from 1.2 on"), "{found:?}");
    }

    #[test]
    fn what_the_user_gives_wins_and_mirrors_add_up() {
        let mut qemu = wish(Qemu);
        qemu.workers = Some(2);
        qemu.boot = Some(Boot { vmlinuz: "/k".into(), initrd: "/i".into() });
        qemu.extra = ["--vmlinuz-path=/mine", "--workers", "0", "--masters", "3", "--registry-mirror", "a=http://b"]
            .map(str::to_owned)
            .to_vec();
        let line_of = line("v1.9.6", &qemu);
        assert!(line_of.contains(" --initrd-path /i ") && !line_of.contains("/k"), "{line_of}");
        assert!(!line_of.contains("--workers 2") && !line_of.contains("--controlplanes"), "{line_of}");
        assert!(line_of.ends_with(":5004 --vmlinuz-path=/mine --workers 0 --masters 3 --registry-mirror a=http://b"));
        qemu.extra = vec!["--iso-path=/x.iso".into()];
        assert!(!line("v1.9.6", &qemu).contains("--initrd-path"));
    }

    #[test]
    fn flags_that_would_go_past_this_tool_are_refused() {
        let mut docker = wish(Docker);
        docker.extra = ["--name=y", "--state", "/t", "--subnet", "10.9.0.0/24"].map(str::to_owned).to_vec();
        assert_eq!(findings("v1.12.0", &docker).len(), 3);
    }

    #[test]
    fn mirrors_beside_files_are_refused_before_talosctl_does_or_drops_them() {
        let mut docker = wish(Docker);
        for (tag, word) in [("v1.0.6", "drops"), ("v1.1.2", "refuses"), ("v1.11.6", "refuses")] {
            for spelt in [&["-i", "dir"][..], &["-idir"], &["--input-dir=dir"]] {
                docker.extra = spelt.iter().map(|&word| word.to_owned()).collect();
                let found = findings(tag, &docker);
                assert!(found.len() == 1 && found[0].contains(word) && found[0].contains("--no-cache"), "{found:?}");
            }
        }
        // A patch is applied to the files, and without mirrors there is nothing to refuse.
        docker.mirrors_as = MirrorsAs::Patch("/p".into());
        assert!(line("v1.2.9", &docker).ends_with("--config-patch @/p --input-dir=dir"));
        docker.mirrors.clear();
        assert!(line("v1.1.2", &docker).ends_with(" --input-dir=dir"));
    }

    #[test]
    fn a_network_has_room_for_its_nodes_or_is_refused() {
        let mut docker = wish(Docker);
        docker.cidr = "10.5.0.0/30".parse().unwrap();
        assert!(findings("v1.12.0", &docker)[0].contains("10.5.0.0/30 has room for 1 of the 2 nodes asked for"));
        docker.workers = Some(0);
        assert!(line("v1.12.0", &docker).contains("--subnet 10.5.0.0/30 --workers 0"));
        docker.controlplanes = 0;
        assert!(findings("v1.9.6", &docker)[0].contains("a cluster needs one at least"));
    }

    #[test]
    fn a_patch_stands_for_all_mirrors() {
        let mut docker = wish(Docker);
        docker.mirrors_as = MirrorsAs::Patch("/p/mirrors.yaml".into());
        let line_of = line("v1.2.0", &docker);
        assert!(line_of.ends_with("--config-patch @/p/mirrors.yaml"), "{line_of}");
        docker.mirrors.clear();
        assert!(!line("v1.2.0", &docker).contains("--config-patch"));
    }
}
