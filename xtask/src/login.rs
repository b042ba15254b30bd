//! Whether a proxy that has credentials uses them, and whether its upstream takes them. Neither is anywhere but in its log.
//!
//! An upstream that is overloaded when a proxy starts is asked without credentials ever after. A wrong password is not
//! noticed at all: clients are told that an image does not exist.

use std::time::Duration;

use crate::config::{Bind, Mirror};
use crate::container::Container;
use crate::docker;
use crate::error::Result;
use crate::exec::Runner;
use crate::registry;

mod log;

use log::{Start, Verdict};

/// What a proxy does with its credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// It uses them, or there is no way to tell.
    Used,
    /// It does not, and would after a restart.
    Unauthenticated,
    /// It does not, and its upstream asks for none that this registry could use, now at least.
    Unsupported,
    /// It does, and the upstream refuses them with these words.
    Refused(String),
}

/// A registry's first lines may be older than the time at which its engine says that it started (seen: some
/// milliseconds, on a machine that is busy).
const BEFORE_START: Duration = Duration::from_secs(10);

/// Reads its log, asks the upstream for a token service where that shows no login, and lets it use its credentials once
/// a start.
///
/// Credentials that were refused are tried `again` where that is asked for: they may have been corrected at the upstream.
///
/// # Errors
/// The engine does not answer.
pub fn login(runner: &dyn Runner, mirror: &Mirror, container: &Container, bind: Bind, again: bool) -> Result<Login> {
    let start = read(runner, mirror, container)?;
    if start.listens && !start.discovered {
        let mut now = Start::default();
        runner.lines(&docker::probe_upstream(mirror), &mut |line| {
            now.read(line);
            !now.discovered && !now.listens
        })?;
        if now.discovered {
            return Ok(Login::Unauthenticated);
        }
        if !asks_plainly(runner, mirror)? {
            return Ok(Login::Unsupported);
        }
    }
    let verdict = match start.verdict {
        Some(verdict) if verdict == Verdict::Taken || !again => Some(verdict),
        _ => {
            check(runner, mirror, bind)?;
            read(runner, mirror, container)?.verdict
        }
    };
    Ok(match verdict {
        Some(Verdict::Refused(word)) => Login::Refused(word),
        Some(Verdict::Taken) | None => Login::Used,
    })
}

fn read(runner: &dyn Runner, mirror: &Mirror, container: &Container) -> Result<Start> {
    let mut start = Start::default();
    let since = since(&container.state.started_at);
    runner.lines(&docker::logs_since(&mirror.name, &since), &mut |line| {
        start.read(line);
        true
    })?;
    Ok(start)
}

/// From when on the log of a start is read.
pub fn since(started_at: &str) -> String {
    let before =
        |time: std::time::SystemTime| Some(humantime::format_rfc3339(time.checked_sub(BEFORE_START)?).to_string());
    humantime::parse_rfc3339(started_at).ok().and_then(before).unwrap_or_else(|| started_at.to_owned())
}

/// Registry 3 gives credentials to an upstream that asks for them plainly, too, and logs nothing of it.
fn asks_plainly(runner: &dyn Runner, mirror: &Mirror) -> Result<bool> {
    if docker::is_registry_2(&mirror.image) {
        return Ok(false);
    }
    let output = runner.run(&docker::ask_upstream(mirror))?;
    Ok(log::refuses(&String::from_utf8_lossy(&output.stderr)))
}

/// Lets a proxy ask its upstream for a blob that does not exist, with its credentials; its log has the answer.
fn check(runner: &dyn Runner, mirror: &Mirror, bind: Bind) -> Result<()> {
    let address = registry::address(mirror, bind);
    if !registry::answers(&address) {
        // Loopback here is not the engine's.
        let repository = public_repository(&mirror.host);
        return runner.run(&docker::ask_inside_for_no_blob(&mirror.name, repository, log::CHECK)).map(|_| ());
    }
    let cached = registry::repositories(&address, 1).into_iter().next();
    registry::ask_for_no_blob(
        &address,
        &cached.unwrap_or_else(|| public_repository(&mirror.host).to_owned()),
        log::CHECK,
    );
    Ok(())
}

/// A repository that everybody may read, by host: without access to it, refused credentials would look like any others.
fn public_repository(host: &str) -> &'static str {
    match host {
        "ghcr.io" => "siderolabs/talos",
        "quay.io" => "coreos/etcd",
        "gcr.io" => "google-containers/pause",
        "k8s.gcr.io" | "registry.k8s.io" => "pause",
        _ => "library/registry",
    }
}
