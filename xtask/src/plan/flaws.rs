//! What is wrong with proxies that are up, and cannot be put right by this tool.

use super::{Observed, crashed};
use crate::config::Mirror;
use crate::credentials::Found;
use crate::error::Finding;
use crate::login::Login;

/// What is wrong with a proxy for which there is nothing left to do.
pub fn flaw(mirror: &Mirror, observed: &Observed) -> Option<Finding> {
    if let Some(reason) = observed.unusable.get(&mirror.host) {
        let finding = crashed::unusable(mirror, reason);
        let serves = if observed.answering.contains(&mirror.host) { "; only cached images are served" } else { "" };
        return Some(Finding { problem: format!("{}{serves}", finding.problem), ..finding });
    }
    let credentials = mirror.credentials.as_ref()?;
    let (upstream, name) = (&mirror.upstream, &mirror.name);
    match observed.logins.get(&mirror.host)? {
        Login::Used => None,
        Login::Unauthenticated | Login::Unsupported => {
            let problem = format!(
                "{name} runs without credentials: {upstream} offered no supported authentication, or is overloaded"
            );
            let fix = "run this again when the upstream is well, or take `username` out of the mirror's table";
            Some(Finding::new(&mirror.host, problem, fix))
        }
        Login::Refused(word) => {
            let problem = format!("{upstream} refuses the credentials of {:?}: {word}", credentials.username);
            let fix = format!(
                "correct `username`, or the password in {}, and run `cargo xtask cache-up`",
                credentials.password
            );
            Some(Finding::new(&mirror.host, problem, fix))
        }
    }
}

/// What a user should know of proxies that work.
pub fn warnings(mirrors: &[Mirror], observed: &Observed) -> Vec<String> {
    let warning = |mirror: &Mirror| match observed.accounts.get(&mirror.host)? {
        Found::Unknown(problem) => {
            Some(format!("{}: the running proxy keeps the password that it has: {problem}", mirror.host))
        }
        Found::Same | Found::Differs => None,
    };
    mirrors.iter().filter_map(warning).collect()
}
