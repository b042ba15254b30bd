//! Which engine the docker client talks to: the one of `DOCKER_HOST`, of a docker context, or of this host.

use camino::Utf8PathBuf;
use serde_json::Value;

use crate::command::without_userinfo;
use crate::error::{Error, Result};
use crate::exec::{Cmd, Runner};
use crate::small_file;

/// What to do where the docker context that is named is not there.
pub const NO_CONTEXT: &str = "choose a docker context that is there (`docker context ls`), or unset DOCKER_CONTEXT";

/// What names the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// Nothing does: it is this host's.
    Nowhere,
    /// `DOCKER_HOST`, which wins over contexts.
    Host(String),
    /// `DOCKER_CONTEXT`, or the context that `docker context use` chose.
    Context(String),
}

/// What names the engine, as the client looks it up (docker/cli `cli/command/cli.go`, `resolveContextName`).
pub fn named() -> Named {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if let Some(host) = variable("DOCKER_HOST") {
        return Named::Host(host);
    }
    match variable("DOCKER_CONTEXT").or_else(chosen) {
        Some(context) if context != "default" => Named::Context(context),
        _ => Named::Nowhere,
    }
}

/// The context that the client's own file names.
fn chosen() -> Option<String> {
    let folder = std::env::var("DOCKER_CONFIG").map(Utf8PathBuf::from);
    let folder = folder.or_else(|_| std::env::var("HOME").map(|home| Utf8PathBuf::from(home).join(".docker"))).ok()?;
    let file: Value = serde_json::from_slice(&small_file::read(&folder.join("config.json")).ok()?).ok()?;
    file["currentContext"].as_str().filter(|name| !name.is_empty()).map(str::to_owned)
}

fn is_remote(address: &str) -> bool {
    ["tcp://", "ssh://", "http://", "https://"].iter().any(|scheme| address.starts_with(scheme))
}

/// Whether the engine may be on this host: the ports of another one are not ours to try.
///
/// # Errors
/// The context is not there, or the client's answer cannot be read.
pub fn is_local(runner: &dyn Runner) -> Result<bool> {
    let address = match named() {
        Named::Nowhere => return Ok(true),
        Named::Host(host) => host,
        Named::Context(_) => address_of_the_context(runner)?,
    };
    Ok(!is_remote(&address))
}

/// The address of the engine that a docker context names; `None` where none does.
///
/// # Errors
/// The context is not there, or leads through ssh, which a program other than the docker client does not follow.
pub fn of_the_context(runner: &dyn Runner) -> Result<Option<String>> {
    let Named::Context(name) = named() else { return Ok(None) };
    let address = address_of_the_context(runner)?;
    if address.starts_with("ssh://") {
        return Err(Error::Tool {
            problem: format!(
                "talosctl does not reach the engine of the docker context {name}, {}",
                without_userinfo(&address)
            ),
            fix: "use an engine of this machine (`docker context use default`)".to_owned(),
        });
    }
    Ok(Some(address).filter(|address| !address.is_empty()))
}

fn address_of_the_context(runner: &dyn Runner) -> Result<String> {
    let cmd = Cmd::read("docker").args(["context", "inspect", "--format", "{{.Endpoints.docker.Host}}"]);
    let address = runner.run(&cmd)?.checked(&cmd, NO_CONTEXT)?.text().trim().to_owned();
    if address.is_empty() || address.contains("://") {
        return Ok(address);
    }
    Err(Error::Answer { command: cmd.shell(), problem: "it is no address of an engine".to_owned() })
}

/// An engine that was named and does not answer is somebody else's to start.
///
/// # Errors
/// One was named.
pub fn not_named() -> Result<()> {
    let (problem, fix) = match named() {
        Named::Nowhere => return Ok(()),
        Named::Host(host) => (
            format!("no engine answers at DOCKER_HOST={}", without_userinfo(&host)),
            "start that engine, or unset DOCKER_HOST to use one of this machine",
        ),
        Named::Context(name) => (
            format!("no engine answers in the docker context {name}"),
            "start that engine, or choose this machine's (`docker context use default`, DOCKER_CONTEXT unset)",
        ),
    };
    Err(Error::Tool { problem, fix: fix.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_behind_a_socket_is_on_this_host() {
        assert!(!is_remote("unix:///run/docker.sock") && !is_remote("fd://"));
        assert!(is_remote("tcp://192.0.2.7:2375") && is_remote("ssh://me@192.0.2.7"));
    }
}
