//! Programs that are needed: where each is, how to get it, and the oldest version that will do.

use crate::error::{Error, Result};

/// A program that a task runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// The engine's client.
    Docker,
    /// containerd's own client, the node of the demonstration and the tests.
    Ctr,
    /// containerd itself.
    Containerd,
    /// Debian's package tools, for assembling a registry image.
    AptGet,
    /// Unpacks a Debian package without installing it.
    Dpkg,
    /// Lists the libraries that a program is linked to.
    Ldd,
    /// Runs a command as root.
    Sudo,
    /// Starts services where systemd runs.
    Systemctl,
    /// The engine.
    Dockerd,
    /// Fetches what a QEMU guest boots from.
    Curl,
    /// Unpacks the CNI plugins.
    Tar,
    /// Checks what was fetched.
    Sha256sum,
    /// Makes and removes clusters.
    Talosctl,
    /// Lets the nodes of a QEMU cluster reach the network.
    Iptables,
    /// Bridges and namespaces.
    Ip,
    /// The shell of the tests' nodes.
    Busybox,
    /// The machine that the tests boot.
    Qemu,
    /// Builds a registry 3.
    Go,
    /// Makes a pseudo-terminal for the tests.
    Script,
    /// A shell whose completion is tested.
    Zsh,
    /// Another.
    Fish,
    /// Another.
    Elvish,
}

impl Tool {
    /// Its name on `PATH`, and how to get it.
    fn about(self) -> (&'static str, &'static str) {
        let containerd = "install containerd (Debian and Ubuntu: apt-get install containerd)";
        let debian = "this needs Debian or Ubuntu";
        match self {
            Self::Docker => ("docker", "cargo xtask onboard, or install it: https://docs.docker.com/engine/install/"),
            Self::Ctr => ("ctr", containerd),
            Self::Containerd => ("containerd", containerd),
            Self::AptGet => ("apt-get", debian),
            Self::Dpkg => ("dpkg-deb", debian),
            Self::Ldd => ("ldd", debian),
            Self::Sudo => ("sudo", "run this as root, or install sudo"),
            Self::Systemctl => ("systemctl", "start the engine as this system starts its services"),
            Self::Dockerd => ("dockerd", "install the engine: https://docs.docker.com/engine/install/"),
            Self::Curl => ("curl", "install curl (Debian and Ubuntu: apt-get install curl ca-certificates)"),
            Self::Tar => ("tar", "install tar (Debian and Ubuntu: apt-get install tar)"),
            Self::Sha256sum => ("sha256sum", "install GNU coreutils"),
            Self::Talosctl => ("talosctl", "install it: https://www.talos.dev/latest/talos-guides/install/talosctl/"),
            Self::Iptables => ("iptables", "install iptables (Debian and Ubuntu: apt-get install iptables)"),
            Self::Ip => ("ip", "install iproute2 (Debian and Ubuntu: apt-get install iproute2)"),
            Self::Busybox => ("busybox", "install busybox (Debian and Ubuntu: apt-get install busybox-static)"),
            Self::Go => ("go", "install Go: https://go.dev/doc/install"),
            Self::Script => ("script", "install util-linux (Debian and Ubuntu: apt-get install bsdutils)"),
            Self::Zsh => ("zsh", "install zsh (Debian and Ubuntu: apt-get install zsh)"),
            Self::Fish => ("fish", "install fish (Debian and Ubuntu: apt-get install fish)"),
            Self::Elvish => ("elvish", "install elvish (Debian and Ubuntu: apt-get install elvish)"),
            Self::Qemu => ("qemu-system-x86_64", "install QEMU (Debian and Ubuntu: apt-get install qemu-system-x86)"),
        }
    }

    /// Its name on `PATH`.
    pub fn name(self) -> &'static str {
        self.about().0
    }

    /// How to get it, as an imperative.
    pub fn fix(self) -> &'static str {
        self.about().1
    }

    /// Where it is on `PATH`, if it is.
    pub fn path(self) -> Option<String> {
        which::which(self.name()).ok().and_then(|path| path.into_os_string().into_string().ok())
    }

    /// Its name, once it is known to be on `PATH`.
    ///
    /// # Errors
    /// It is missing; the error says how to get it.
    pub fn require(self) -> Result<&'static str> {
        self.path().map(|_| self.name()).ok_or_else(|| Error::Tool {
            problem: format!("{} is not on PATH", self.name()),
            fix: self.fix().to_owned(),
        })
    }
}

/// The engine API of Docker 18.03, the oldest release the guide works with (its "Requirements").
pub const OLDEST_ENGINE_API: (u64, u64) = (1, 37);

/// Reads an engine API version, as `docker version` reports it (`1.41`).
///
/// The API decides rather than the release: an engine built from source calls its release whatever it likes.
pub fn api_version(text: &str) -> Option<(u64, u64)> {
    let version = semver::Version::parse(&format!("{}.0", text.trim())).ok()?;
    Some((version.major, version.minor))
}

/// Says no to an engine older than Docker 18.03.
///
/// # Errors
/// It is older, or its answer is no version.
pub fn check_engine(api: &str, release: &str) -> Result<()> {
    let found = api_version(api).ok_or_else(|| Error::Answer {
        command: "docker version".to_owned(),
        problem: format!("{api:?} is no API version"),
    })?;
    if found >= OLDEST_ENGINE_API {
        return Ok(());
    }
    Err(Error::Tool {
        problem: format!(
            "the Docker engine is too old: {release} (API {api}); Docker 18.03 (API 1.37) is the oldest that will do"
        ),
        fix: "install a newer engine: https://docs.docker.com/engine/install/".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_version_decides() {
        assert!(check_engine("1.37", "18.03.0-ce").is_ok());
        assert!(check_engine("1.56", "library-import").is_ok());
        let error = check_engine("1.35", "17.12.1-ce").unwrap_err();
        assert!(error.to_string().contains("17.12.1-ce"), "{error}");
        assert!(check_engine("", "").is_err());
    }

    #[test]
    fn a_missing_program_says_how_to_get_it() {
        assert_eq!(Tool::Docker.name(), "docker");
        assert!(Tool::Docker.fix().contains("https://"));
    }
}
