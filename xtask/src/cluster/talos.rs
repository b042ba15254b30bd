//! The talosctl that is installed: which one, and how its commands are started here.

use crate::error::Result;
use crate::exec::{Cmd, Runner};
use crate::observe::engine_answer;
use crate::talosctl::{self, Provisioner, Version};
use crate::tool::{self, Tool};
use crate::{docker, engine};

/// The talosctl of this machine.
pub struct Talos {
    /// Its version.
    pub version: Version,
    path: String,
    /// Whether this process is root's.
    pub root: bool,
    /// The engine's API version, where talosctl has to be told of it.
    api: Option<String>,
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
        let mut talos = Self { version, path, root: engine::is_root(runner)?, api: None };
        if provisioner == Provisioner::Docker {
            talos.api = talos.api_to_name(runner)?;
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

    /// A command of talosctl that is told of the engine's API where it has to be.
    pub fn told_of_the_engine(&self, cmd: Cmd) -> Cmd {
        match &self.api {
            Some(api) => cmd.env(talosctl::API_VARIABLE, api),
            None => cmd,
        }
    }

    /// A command of talosctl as it is started here: told of the engine's API, and as root for virtual machines.
    pub fn ready(&self, cmd: Cmd, provisioner: Provisioner) -> Cmd {
        let cmd = self.told_of_the_engine(cmd);
        if provisioner == Provisioner::Docker || self.root {
            return cmd;
        }
        let kept: Vec<&str> = KEPT.into_iter().filter(|name| std::env::var_os(name).is_some()).collect();
        talosctl::as_root(cmd, &self.path, &kept)
    }
}
