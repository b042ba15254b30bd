//! Whether a proxy that has an account uses it: an upstream that was busy when the proxy started is asked without one
//! ever after, and nothing but the log says so.

use crate::config::Mirror;
use crate::container::Container;
use crate::docker;
use crate::error::Result;
use crate::exec::Runner;

/// What a proxy does with its account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Login {
    /// It uses it, or there is no way to tell.
    Used,
    /// It does not, and would after a restart.
    Missed,
    /// It does not, and its upstream asks for no account that this registry could use, now at least.
    Impossible,
}

/// What a registry logs once it knows where to take its account to (2.6 to 3.1, `registry/proxy/proxyauth.go`).
const DISCOVERED: &str = "Discovered token authentication URL";
/// Its start has been logged long before so many lines; where they are gone, so is the answer.
const START_LINES: usize = 200;

/// Looks at the start in its log, and asks the upstream only where that shows no login.
///
/// # Errors
/// The engine does not answer.
pub fn login(runner: &dyn Runner, mirror: &Mirror, container: &Container) -> Result<Login> {
    let mut start = Start::default();
    runner.lines(&docker::logs_since(&mirror.name, &container.state.started_at), &mut |line| start.goes_on(line))?;
    if start.discovered || !start.listens {
        return Ok(Login::Used);
    }
    let mut now = Start::default();
    runner.lines(&docker::probe_upstream(mirror), &mut |line| now.goes_on(line))?;
    if now.discovered {
        return Ok(Login::Missed);
    }
    // Registry 3 gives an account to an upstream that asks for it plainly, too, and logs nothing of it.
    let plainly = !docker::is_registry_2(&mirror.image) && {
        let output = runner.run(&docker::ask_upstream(mirror))?;
        refuses(&String::from_utf8_lossy(&output.stderr))
    };
    Ok(if plainly { Login::Used } else { Login::Impossible })
}

/// A registry's first lines, read until they say enough.
#[derive(Default)]
struct Start {
    lines: usize,
    discovered: bool,
    listens: bool,
}

impl Start {
    fn goes_on(&mut self, line: &str) -> bool {
        self.lines += 1;
        self.discovered |= line.contains(DISCOVERED);
        self.listens |= docker::upstream_answered(line);
        !self.discovered && !self.listens && self.lines < START_LINES
    }
}

/// Whether the answer is a refusal. It names no token service, or that had been found, so it asks for a plain account;
/// busybox shows no header of a refusal that would say so.
fn refuses(said: &str) -> bool {
    said.lines().any(|line| line.trim().starts_with("HTTP/1.") && line.split_whitespace().nth(1) == Some("401"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(lines: &[&str]) -> (bool, bool) {
        let mut start = Start::default();
        let _ = lines.iter().all(|line| start.goes_on(line));
        (start.discovered, start.listens)
    }

    #[test]
    fn a_start_says_whether_a_token_service_was_found() {
        let found = r#"level=info msg="Discovered token authentication URL: https://a/token" go.version=go1"#;
        let listens = r#"level=info msg="listening on [::]:5000""#;
        assert_eq!(start(&["x", found, listens]), (true, false));
        assert_eq!(start(&["x", listens, found]), (false, true));
        assert_eq!(start(&["x"; START_LINES + 5]), (false, false));
    }

    #[test]
    fn a_refusal_is_told_from_being_busy() {
        assert!(refuses("  HTTP/1.1 401 Unauthorized\nwget: server returned error: HTTP/1.1 401 Unauthorized\n"));
        assert!(!refuses("  HTTP/1.1 503 Service Unavailable\n"));
        assert!(!refuses("  HTTP/1.1 200 OK\n"));
    }
}
