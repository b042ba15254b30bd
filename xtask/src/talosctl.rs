//! talosctl from outside: its version, the dialect that comes with it, and every command but `cluster create`.

use std::cmp::Ordering;
use std::fmt;

use camino::Utf8Path;

use crate::error::{Error, Result};
use crate::exec::Cmd;

pub mod context;
pub mod create;
pub mod extra;
pub mod flags;
pub mod network;
pub mod show;

/// Its name on `PATH`.
pub const PROGRAM: &str = "talosctl";

/// The variable that makes talosctl speak an older API to the engine than its own.
pub const API_VARIABLE: &str = "DOCKER_API_VERSION";

/// The oldest release whose flags are known.
const OLDEST: (u64, u64) = (0, 7);
/// From here on `cluster create` has a subcommand a provisioner.
const SPLIT: (u64, u64) = (1, 12);
/// The engine API (Docker 25) below which talosctl 1.12 gives up instead of agreeing on an older one.
const NEGOTIATED: (u64, u64) = (1, 44);

/// The version of talosctl, or of the Talos that nodes are to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version(semver::Version);

impl Version {
    /// Reads a tag, `v1.9.6` for instance; `None` where it is none.
    pub fn parse(tag: &str) -> Option<Self> {
        semver::Version::parse(tag.trim().strip_prefix('v')?).ok().map(Self)
    }

    /// Reads what [`version`] printed: the line `Tag:`, which every release has. The short form does not do, since up
    /// to 0.14 it carries a commit that looks like a pre-release.
    ///
    /// # Errors
    /// There is no such line, it holds no version, or the version is older than 0.7.
    pub fn read(printed: &str) -> Result<Self> {
        let unreadable = |problem: String| Error::Answer { command: version().shell(), problem };
        let tag = printed.lines().find_map(|line| line.trim().strip_prefix("Tag:")).map(str::trim);
        let tag = tag.ok_or_else(|| unreadable("there is no line `Tag:`".to_owned()))?;
        let found = Self::parse(tag).ok_or_else(|| unreadable(format!("the tag {tag:?} is no version")))?;
        if found.at_least(OLDEST) {
            return Ok(found);
        }
        Err(Error::Tool {
            problem: format!("talosctl {found} is too old; 0.7 is the oldest that will do"),
            fix: "install a newer talosctl: https://github.com/siderolabs/talos/releases".to_owned(),
        })
    }

    /// All parts of it.
    pub fn semver(&self) -> &semver::Version {
        &self.0
    }

    /// The release series, `(1, 9)` for v1.9.6.
    pub fn minor(&self) -> (u64, u64) {
        (self.0.major, self.0.minor)
    }

    /// Whether it is of that series or a later one. A pre-release counts as its series, since it has its flags.
    pub fn at_least(&self, minor: (u64, u64)) -> bool {
        self.minor() >= minor
    }

    /// The release that a development build comes after, which talosctl itself puts into addresses (Talos,
    /// `version.Trim`): nothing is published under the tag of the build.
    pub fn release(&self) -> Self {
        Self::parse(without_commits(&self.to_string())).unwrap_or_else(|| self.clone())
    }

    /// The older of two by series: what a file that both have to understand may hold.
    pub fn older<'a>(&'a self, other: &'a Self) -> &'a Self {
        match self.minor().cmp(&other.minor()) {
            Ordering::Greater => other,
            _ => self,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

/// A tag without the commits since that `git describe --dirty` puts behind it: `-12-gabcdef0-dirty`. A pre-release has a
/// dot in front of its number, and a tag that is only dirty stays, as it does for talosctl.
fn without_commits(tag: &str) -> &str {
    let is_number = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    let is_hex = |text: &str| !text.is_empty() && text.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'));
    let clean = tag.strip_suffix("-dirty").unwrap_or(tag);
    let counted = match clean.rsplit_once('-') {
        Some((rest, last)) if last.strip_prefix('g').is_some_and(is_hex) => rest,
        _ => clean,
    };
    match counted.rsplit_once('-') {
        Some((release, commits)) if is_number(commits) => release,
        _ => tag,
    }
}

/// What makes the machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provisioner {
    /// Containers.
    Docker,
    /// Virtual machines.
    Qemu,
}

impl Provisioner {
    /// The word that talosctl has for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Qemu => "qemu",
        }
    }
}

/// How `cluster create` is spelt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Up to 1.11: one command for all, `--provisioner` says which.
    Classic,
    /// From 1.12 on: `create docker` and `create qemu`, each with flags of its own. What is left of the bare command
    /// makes virtual machines whatever its `--provisioner` says.
    Split,
}

impl Dialect {
    /// That of a release.
    pub fn of(version: &Version) -> Self {
        if version.at_least(SPLIT) { Self::Split } else { Self::Classic }
    }
}

/// A talosctl that looks. `TAG` is taken out of its environment, where it would change the versions of all images.
fn read() -> Cmd {
    Cmd::read(PROGRAM).env_remove("TAG")
}

/// A talosctl that changes something.
fn write() -> Cmd {
    Cmd::write(PROGRAM).env_remove("TAG")
}

/// Asks for the version of the program itself; no cluster is needed.
pub fn version() -> Cmd {
    read().args(["version", "--client"])
}

/// Lists the images that a cluster of this release pulls, one reference a line; neither a cluster nor a network is
/// needed. `images` was renamed in 1.5, and from 1.6 on prints help and ends with 0.
pub fn images(version: &Version) -> Cmd {
    if version.at_least((1, 5)) { read().args(["image", "default"]) } else { read().arg("images") }
}

/// Talos's own image of that name (`talos` for docker nodes, `installer`) for a version, where talosctl has it from.
pub fn image(name: &str, talos: &Version) -> String {
    let organisation = if talos.at_least((1, 0)) { "siderolabs" } else { "talos-systems" };
    format!("ghcr.io/{organisation}/{name}:{talos}")
}

/// Shows a cluster. Every release takes `--provisioner` here, and from 1.12 on assumes docker without it.
pub fn show(provisioner: Provisioner, name: &str, state: &Utf8Path) -> Cmd {
    read().args(["cluster", "show", "--provisioner", provisioner.name()]).args([
        "--state",
        state.as_str(),
        "--name",
        name,
    ])
}

/// Destroys a cluster. `state` has to be this cluster's alone: for docker, talosctl removes all of it from 1.9 on.
/// From 1.12 on the provisioner is read from the state, and naming it draws a warning.
pub fn destroy(version: &Version, provisioner: Provisioner, name: &str, state: &Utf8Path) -> Cmd {
    let cmd = write().args(["cluster", "destroy"]);
    let cmd = match Dialect::of(version) {
        Dialect::Classic => cmd.args(["--provisioner", provisioner.name()]),
        Dialect::Split => cmd,
    };
    cmd.args(["--state", state.as_str(), "--name", name])
}

/// Whether create, show and destroy of a docker cluster need [`API_VARIABLE`] set to the engine's API version.
///
/// talosctl 1.12 does not go below API 1.44 by itself: its commands end with `client version 1.52 is too new`. Later
/// ones agree on an older API, and the variable does them no harm.
pub fn needs_api_version(version: &Version, engine: (u64, u64)) -> bool {
    version.at_least(SPLIT) && engine < NEGOTIATED
}

/// The same command as root through sudo, with `HOME` kept, where talosctl has its files, and what the command sets.
///
/// `program` is where talosctl is, since sudo searches a `PATH` of its own; its bare name will do where that has it.
/// `keep` names more variables that the user has set and talosctl reads (`TALOSCONFIG`, `KUBECONFIG`, `TALOS_HOME`).
/// It reads nothing: where sudo gives a command a terminal of its own (`use_pty`), it takes Ctrl-C for that one alone as
/// long as it reads this one, and this process would never hear of it.
pub fn as_root(cmd: Cmd, program: &str, keep: &[&str]) -> Cmd {
    let names: Vec<&str> = ["HOME"].into_iter().chain(cmd.env_names()).chain(keep.iter().copied()).collect();
    let preserve = format!("--preserve-env={}", names.join(","));
    cmd.program(program).under("sudo", [preserve]).no_input()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v(tag: &str) -> Version {
        Version::parse(tag).unwrap()
    }

    #[test]
    fn the_version_is_read_from_its_tag() {
        for (printed, tag, dialect) in [
            ("Client:\n\tTag:         v0.7.1\n\tSHA:         5d1f9a2\n", "v0.7.1", Dialect::Classic),
            ("Client:\n\tTag:         v1.11.6\n\tSHA:         5d1f9a2\n", "v1.11.6", Dialect::Classic),
            ("Client:\n\tTag:         v1.12.0-alpha.0\n", "v1.12.0-alpha.0", Dialect::Split),
            ("Client:\n\tTag:         v1.14.0-rc.1\n", "v1.14.0-rc.1", Dialect::Split),
            ("Client:\n\tTag:         v2.0.0\n", "v2.0.0", Dialect::Split),
            ("WARNING: x\nClient:\r\n\tTag:         v1.9.6-dirty\r\n", "v1.9.6-dirty", Dialect::Classic),
        ] {
            let version = Version::read(printed).unwrap();
            assert_eq!((version.to_string().as_str(), Dialect::of(&version)), (tag, dialect));
        }
    }

    #[test]
    fn a_development_build_comes_after_a_release() {
        for (tag, release) in [
            ("v1.9.6", "v1.9.6"),
            ("v1.13.0-alpha.1", "v1.13.0-alpha.1"),
            ("v1.13.0-alpha.1-12-gabcdef0-dirty", "v1.13.0-alpha.1"),
            ("v1.13.0-alpha.1-12-gabcdef0", "v1.13.0-alpha.1"),
            ("v1.13.0-12-gabc", "v1.13.0"),
            ("v1.13.0-12-dirty", "v1.13.0"),
            ("v1.13.0-12", "v1.13.0"),
            ("v1.13.0-12-gxyz", "v1.13.0-12-gxyz"),
            ("v1.13.0-gabc", "v1.13.0-gabc"),
            ("v1.13.0-dirty", "v1.13.0-dirty"),
        ] {
            assert_eq!(v(tag).release().to_string(), release);
            assert_eq!(v(tag).to_string(), tag, "what is echoed stays");
        }
    }

    #[test]
    fn an_answer_without_a_version_says_so() {
        for (printed, part) in [
            ("", "there is no line `Tag:`"),
            ("Client:\nTalos v1.9.6\n", "there is no line `Tag:`"),
            ("Client:\n\tTag:         \n", "the tag \"\" is no version"),
            ("Client:\n\tTag:         none\n", "the tag \"none\" is no version"),
            ("Client:\n\tTag:         v1.9\n", "the tag \"v1.9\" is no version"),
            ("Client:\n\tTag:         v0.6.4\n", "talosctl v0.6.4 is too old"),
        ] {
            let error = Version::read(printed).unwrap_err();
            assert!(error.to_string().contains(part) && error.fix().is_some(), "{error}");
        }
    }

    #[test]
    fn commands_follow_the_release() {
        let state = Utf8Path::new("/s/x");
        for (tag, list, destroy_words) in [
            ("v0.7.1", "images", "--provisioner qemu "),
            ("v1.4.8", "images", "--provisioner qemu "),
            ("v1.5.6", "image default", "--provisioner qemu "),
            ("v1.11.6", "image default", "--provisioner qemu "),
            ("v1.12.0-alpha.0", "image default", ""),
            ("v1.14.0-rc.1", "image default", ""),
        ] {
            assert_eq!(images(&v(tag)).shell(), format!("env -u TAG talosctl {list}"));
            assert_eq!(
                destroy(&v(tag), Provisioner::Qemu, "x", state).shell(),
                format!("env -u TAG talosctl cluster destroy {destroy_words}--state /s/x --name x")
            );
        }
        assert_eq!(image("talos", &v("v0.14.3")), "ghcr.io/talos-systems/talos:v0.14.3");
        assert_eq!(image("installer", &v("v1.0.0-beta.1")), "ghcr.io/siderolabs/installer:v1.0.0-beta.1");
        assert_eq!(
            show(Provisioner::Docker, "x", state).shell(),
            "env -u TAG talosctl cluster show --provisioner docker --state /s/x --name x"
        );
    }

    #[test]
    fn only_an_old_engine_and_a_new_talosctl_need_the_variable() {
        for (tag, engine, needed) in [
            ("v1.11.6", (1, 41), false),
            ("v1.12.0-alpha.0", (1, 41), true),
            ("v1.12.4", (1, 43), true),
            ("v1.12.4", (1, 44), false),
            ("v1.14.0-rc.1", (1, 41), true),
        ] {
            assert_eq!(needs_api_version(&v(tag), engine), needed, "{tag} {engine:?}");
        }
    }

    #[test]
    fn sudo_keeps_home_and_what_the_command_sets() {
        let cmd = write().arg("x").env(API_VARIABLE, "1.41").dir("/scratch");
        assert_eq!(
            as_root(cmd, "/opt/bin/talosctl", &["TALOSCONFIG"]).shell(),
            "(cd /scratch && env -u TAG DOCKER_API_VERSION=1.41 sudo \
             --preserve-env=HOME,DOCKER_API_VERSION,TALOSCONFIG /opt/bin/talosctl x </dev/null)"
        );
        let plain = as_root(version(), PROGRAM, &[]).shell();
        assert_eq!(plain, "env -u TAG sudo --preserve-env=HOME talosctl version --client </dev/null");
    }

    #[test]
    fn the_older_of_two_is_found_by_series() {
        assert_eq!(v("v1.14.0").older(&v("v1.9.6")), &v("v1.9.6"));
        assert_eq!(v("v1.9.6").older(&v("v1.14.0")), &v("v1.9.6"));
        assert_eq!(v("v1.12.0-alpha.0").older(&v("v1.12.1")), &v("v1.12.0-alpha.0"));
    }
}
