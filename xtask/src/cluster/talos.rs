//! The talosctl that is installed: which one, and how its commands are started here.

use camino::Utf8Path;

use crate::cluster::place::here;
use crate::error::Result;
use crate::exec::{Cmd, Runner};
use crate::observe::engine_answer;
use crate::talosctl::extra::path;
use crate::talosctl::{self, Provisioner, Version};
use crate::tool::{self, Tool};
use crate::{docker, endpoint, engine};

/// Whether this process's umask keeps others from what it makes (`proc(5)`: `Umask` in `status`).
fn shuts_out_others() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:")).map(str::trim);
    umask.and_then(|umask| u32::from_str_radix(umask, 8).ok()).is_some_and(|umask| umask & 0o055 != 0)
}

/// The talosctl of this machine.
pub struct Talos {
    /// Its version.
    pub version: Version,
    path: String,
    /// Whether this process is root's.
    pub root: bool,
    /// The engine's API version, where talosctl has to be told of it.
    api: Option<String>,
    /// The engine's address, where a docker context names it: talosctl knows `DOCKER_HOST` alone.
    host: Option<String>,
    /// Variables with relative paths, as they have to be for a talosctl that is started in another folder.
    anchored: Vec<(&'static str, String)>,
}

/// Variables that talosctl reads, and that sudo would drop.
const KEPT: [&str; 3] = ["TALOSCONFIG", "KUBECONFIG", "TALOS_HOME"];

impl Talos {
    /// Asks talosctl for its version and, for docker clusters, the engine for its API.
    ///
    /// # Errors
    /// There is no talosctl, it fails, is older than 0.7, or the engine does not answer.
    pub fn find(runner: &dyn Runner, provisioner: Provisioner) -> Result<Self> {
        Tool::Talosctl.require()?;
        let path = Tool::Talosctl.path().unwrap_or_default();
        let cmd = talosctl::version();
        let output = runner.run(&cmd)?.checked(&cmd, "run it by hand; reinstall talosctl if it does not start")?;
        let version = Version::read(&output.text())?;
        let mut talos =
            Self { version, path, root: engine::is_root(runner)?, api: None, host: None, anchored: anchored()? };
        if provisioner == Provisioner::Docker {
            talos.api = talos.api_to_name(runner)?;
            talos.host = endpoint::of_the_context(runner)?;
        }
        Ok(talos)
    }

    fn api_to_name(&self, runner: &dyn Runner) -> Result<Option<String>> {
        if std::env::var_os(talosctl::API_VARIABLE).is_some_and(|value| !value.is_empty()) {
            return Ok(None);
        }
        let cmd = docker::version();
        let text = engine_answer(&cmd, runner.run(&cmd)?)?.text();
        let api = text.split_whitespace().next().unwrap_or_default();
        let needed = tool::api_version(api).is_some_and(|found| talosctl::needs_api_version(&self.version, found));
        Ok(needed.then(|| api.to_owned()))
    }

    /// Why [`talosctl::API_VARIABLE`] is set, where it is.
    pub fn api_note(&self) -> Option<String> {
        let api = self.api.as_ref()?;
        Some(format!(
            "{}={api} is set for talosctl {}, which would not talk to this engine otherwise",
            talosctl::API_VARIABLE,
            self.version
        ))
    }

    /// A command of talosctl in its environment: told of the engine's address and API where it has to be, and of the
    /// user's files wherever it is started.
    pub fn equipped(&self, cmd: Cmd) -> Cmd {
        let told = [("DOCKER_HOST", &self.host), (talosctl::API_VARIABLE, &self.api)];
        let told = told.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
        let anchored = self.anchored.iter().map(|(name, value)| (*name, value));
        told.chain(anchored).fold(cmd, |cmd, (name, value)| cmd.env(name, value))
    }

    /// A command of talosctl as it is started here: in its environment, and as root for virtual machines.
    pub fn ready(&self, cmd: Cmd, provisioner: Provisioner) -> Cmd {
        let cmd = self.equipped(cmd);
        if provisioner == Provisioner::Docker || self.root {
            return cmd;
        }
        let set =
            |name: &&str| self.anchored.iter().all(|(known, _)| known != name) && std::env::var_os(name).is_some();
        let kept: Vec<&str> = KEPT.into_iter().filter(set).collect();
        let cmd = talosctl::as_root(cmd, &self.path, &kept);
        // sudo adds the user's umask to its own, and the user has to look into what talosctl makes.
        if shuts_out_others() { cmd.umask("022") } else { cmd }
    }
}

/// `TALOSCONFIG`, which is one path, and `KUBECONFIG`, which may be several, where any of them is relative.
fn anchored() -> Result<Vec<(&'static str, String)>> {
    let mut anchored = Vec::new();
    for (name, several) in [("TALOSCONFIG", false), ("KUBECONFIG", true)] {
        let value = std::env::var(name).unwrap_or_default();
        let absolute = |path: &str| path.is_empty() || path.starts_with('/');
        if if several { value.split(':').all(absolute) } else { absolute(&value) } {
            continue;
        }
        anchored.push((name, from_here(&value, several, &here()?)));
    }
    Ok(anchored)
}

fn from_here(value: &str, several: bool, here: &Utf8Path) -> String {
    if several { value.split(':').map(|one| path(one, here)).collect::<Vec<_>>().join(":") } else { path(value, here) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_with_relative_paths_are_those_of_the_users_folder() {
        assert_eq!(from_here("a:/b::./c", true, "/w".into()), "/w/a:/b::/w/c");
        assert_eq!(from_here("a:b", false, "/w".into()), "/w/a:b");
    }
}
