//! Which flag carries an option of ours, by release and provisioner, and since or until when it exists.

use crate::talosctl::{Provisioner, Version};

/// An option of ours that becomes a flag of `cluster create`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opt {
    /// The network.
    Cidr,
    /// How many control planes.
    Controlplanes,
    /// How many workers.
    Workers,
    /// Which Talos the machine configuration is for.
    TalosVersion,
    /// Which Kubernetes.
    KubernetesVersion,
    /// A registry mirror.
    Mirror,
    /// A patch of the machine configuration, by strategic merge, from a file.
    Patch,
    /// The image of docker nodes.
    Image,
    /// The image that QEMU nodes install.
    InstallImage,
    /// The kernel that QEMU nodes boot.
    Kernel,
    /// The initramfs that QEMU nodes boot.
    Initrd,
}

/// One flag: for which provisioner (`None` for both), and the first and the last series that has it.
struct Row {
    opt: Opt,
    flag: &'static str,
    provisioner: Option<Provisioner>,
    from: (u64, u64),
    to: Option<(u64, u64)>,
}

const fn row(
    opt: Opt,
    flag: &'static str,
    provisioner: Option<Provisioner>,
    from: (u64, u64),
    to: Option<(u64, u64)>,
) -> Row {
    Row { opt, flag, provisioner, from, to }
}

const BOTH: Option<Provisioner> = None;
const DOCKER: Option<Provisioner> = Some(Provisioner::Docker);
const QEMU: Option<Provisioner> = Some(Provisioner::Qemu);
const FIRST: (u64, u64) = (0, 7);
const LAST_CLASSIC: Option<(u64, u64)> = Some((1, 11));
const SPLIT: (u64, u64) = (1, 12);

/// Source: the flags of each release as its own binary lists them, hidden ones included; a test holds this against
/// them. What a release takes and ignores for a provisioner (`--image` for QEMU) is not there for that provisioner.
const ROWS: &[Row] = &[
    row(Opt::Cidr, "cidr", BOTH, FIRST, LAST_CLASSIC),
    row(Opt::Cidr, "subnet", DOCKER, SPLIT, None),
    row(Opt::Cidr, "cidr", QEMU, SPLIT, None),
    row(Opt::Controlplanes, "masters", BOTH, FIRST, Some((1, 1))),
    row(Opt::Controlplanes, "controlplanes", BOTH, (1, 2), LAST_CLASSIC),
    row(Opt::Controlplanes, "controlplanes", QEMU, SPLIT, None),
    row(Opt::Workers, "workers", BOTH, FIRST, None),
    row(Opt::TalosVersion, "talos-version", BOTH, (0, 9), LAST_CLASSIC),
    row(Opt::TalosVersion, "talos-version", QEMU, SPLIT, None),
    row(Opt::KubernetesVersion, "kubernetes-version", BOTH, FIRST, None),
    row(Opt::Mirror, "registry-mirror", BOTH, FIRST, None),
    // The flag is there from 0.9 on, and takes a file from 1.0 on, but a strategic merge from 1.2 on.
    row(Opt::Patch, "config-patch", BOTH, (1, 2), None),
    row(Opt::Image, "image", DOCKER, FIRST, None),
    row(Opt::InstallImage, "install-image", QEMU, FIRST, LAST_CLASSIC),
    row(Opt::Kernel, "vmlinuz-path", QEMU, FIRST, LAST_CLASSIC),
    row(Opt::Initrd, "initrd-path", QEMU, FIRST, LAST_CLASSIC),
];

impl Row {
    fn serves(&self, provisioner: Provisioner) -> bool {
        self.provisioner.is_none_or(|only| only == provisioner)
    }
}

/// The flag that carries an option, without its dashes.
///
/// # Errors
/// The release has none for this provisioner; the text says since or until when there is one, in a form that goes
/// behind "talosctl v1.12.0 ".
pub fn flag(opt: Opt, version: &Version, provisioner: Provisioner) -> Result<&'static str, String> {
    let rows = || ROWS.iter().filter(|row| row.opt == opt && row.serves(provisioner));
    let current = |row: &&Row| version.at_least(row.from) && row.to.is_none_or(|to| version.minor() <= to);
    if let Some(row) = rows().find(current) {
        return Ok(row.flag);
    }
    let kind = provisioner.name();
    let series = |(major, minor): (u64, u64)| format!("{major}.{minor}");
    if let Some(later) = rows().find(|row| !version.at_least(row.from)) {
        return Err(format!("has no such option for {kind} clusters; it exists from {} on", series(later.from)));
    }
    match rows().filter_map(|row| row.to).max() {
        Some(last) => Err(format!("has no such option for {kind} clusters; it exists up to {}", series(last))),
        None => Err(format!("has no such option for {kind} clusters, in any version")),
    }
}

/// All flags that carry an option in one release or another: the user may have given any of them.
pub fn names(opt: Opt) -> impl Iterator<Item = &'static str> {
    ROWS.iter().filter(move |row| row.opt == opt).map(|row| row.flag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Provisioner::{Docker, Qemu};

    const OPTS: [Opt; 11] = [
        Opt::Cidr,
        Opt::Controlplanes,
        Opt::Workers,
        Opt::TalosVersion,
        Opt::KubernetesVersion,
        Opt::Mirror,
        Opt::Patch,
        Opt::Image,
        Opt::InstallImage,
        Opt::Kernel,
        Opt::Initrd,
    ];

    fn v(tag: &str) -> Version {
        Version::parse(tag).unwrap()
    }

    #[test]
    fn an_option_that_is_not_there_says_since_or_until_when_it_is() {
        for (opt, tag, provisioner, expected) in [
            (Opt::Controlplanes, "v1.1.2", Docker, Ok("masters")),
            (Opt::Controlplanes, "v1.2.0", Docker, Ok("controlplanes")),
            (Opt::Controlplanes, "v1.12.0", Docker, Err("it exists up to 1.11")),
            (Opt::TalosVersion, "v0.8.5", Qemu, Err("it exists from 0.9 on")),
            (Opt::TalosVersion, "v1.12.0", Docker, Err("it exists up to 1.11")),
            (Opt::TalosVersion, "v1.12.0-alpha.0", Qemu, Ok("talos-version")),
            (Opt::Patch, "v1.1.2", Docker, Err("it exists from 1.2 on")),
            (Opt::Image, "v1.9.6", Qemu, Err("in any version")),
            (Opt::Kernel, "v1.12.0", Qemu, Err("it exists up to 1.11")),
            (Opt::Kernel, "v1.9.6", Docker, Err("in any version")),
            (Opt::Cidr, "v1.12.0", Docker, Ok("subnet")),
            (Opt::Cidr, "v1.12.0", Qemu, Ok("cidr")),
        ] {
            let found = flag(opt, &v(tag), provisioner);
            match (&found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(*found, expected),
                (Err(found), Err(expected)) => assert!(found.ends_with(expected), "{found}"),
                _ => panic!("{opt:?} {tag} {provisioner:?}: {found:?}"),
            }
        }
    }

    /// Every release and both provisioners: what the table has, talosctl has, and with the effect that 1.11 checks;
    /// what it lacks, talosctl lacks, or has without that effect.
    #[test]
    fn the_table_agrees_with_the_flags_of_every_release() {
        let all: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/data/talosctl-flags.json")).unwrap();
        let mut releases = 0;
        for (name, release) in all.as_object().unwrap().iter().filter(|(name, _)| *name != "HEAD") {
            releases += 1;
            let version = v(release["tag"].as_str().unwrap());
            for (opt, provisioner) in OPTS.into_iter().flat_map(|opt| [(opt, Docker), (opt, Qemu)]) {
                let split = version.at_least(SPLIT);
                let command =
                    if split { format!("cluster create {}", provisioner.name()) } else { "cluster create".into() };
                let command = &release["commands"][command];
                let other = if provisioner == Docker { "qemu_only" } else { "docker_only" };
                let has = |flag: &str| {
                    command["flags"].get(flag).is_some()
                        && !command[other].as_array().is_some_and(|only| only.iter().any(|name| name == flag))
                };
                match flag(opt, &version, provisioner) {
                    Ok(flag) => assert!(has(flag), "{name} {provisioner:?} has no --{flag}"),
                    Err(_) if split || version.at_least((1, 11)) => {
                        assert!(!names(opt).any(has), "{name} {provisioner:?} has a flag for {opt:?}");
                    }
                    Err(_) => {}
                }
            }
        }
        assert_eq!(releases, 23);
    }
}
