//! What to do with a registry that ends as soon as it starts.

use super::{Action, Decision, Observed, Wanted, by_hand, without_upstream};
use crate::config::{Mirror, Offline};
use crate::container::Container;
use crate::crash::{Crash, crash};
use crate::docker::{LABEL_PREFIX, Mode};
use crate::error::Finding;

pub(super) fn decide(wanted: Wanted, mirror: &Mirror, container: &Container, observed: &Observed) -> Decision {
    let lines = observed.crashes.get(&mirror.host).cloned().unwrap_or_default();
    let cause = match observed.unusable.get(&mirror.host) {
        Some(reason) => Crash::Unusable(reason.clone()),
        None => crash(&lines),
    };
    if container.label(LABEL_PREFIX).is_some() {
        ours(wanted, mirror, observed, cause, lines)
    } else {
        made_by_hand(wanted, mirror, container, observed, cause, lines)
    }
}

fn ours(wanted: Wanted, mirror: &Mirror, observed: &Observed, cause: Crash, lines: Vec<String>) -> Decision {
    let (problem, fix) = match cause {
        Crash::Unreachable(reason) => {
            let why = format!("{} is out of reach: {reason}", mirror.upstream);
            return without_upstream(wanted.config, mirror, why);
        }
        Crash::Unusable(reason)
            if wanted.config.offline != Offline::Never && observed.cached.contains(&mirror.host) =>
        {
            let why = format!("{} cannot be used: {reason}", mirror.upstream);
            return Ok(Some((Action::Replace(Mode::Offline), vec![why])));
        }
        // It is a flaw of this proxy, and in the way of no other.
        Crash::Unusable(_) => return Ok(None),
        Crash::State => {
            let why = format!("its scheduler-state.json is damaged: {}", lines.join(" "));
            return Ok(Some((Action::Mend, vec![why])));
        }
        Crash::Configuration => (
            "since its configuration makes no sense to it",
            "see whether the image is a registry; `cargo xtask cache-clean --keep-cache` and `cache-up` make it anew",
        ),
        Crash::Other => other(&lines),
    };
    Err(finding(mirror, problem, fix, lines))
}

fn made_by_hand(
    wanted: Wanted,
    mirror: &Mirror,
    container: &Container,
    observed: &Observed,
    cause: Crash,
    lines: Vec<String>,
) -> Decision {
    let never = wanted.config.offline == Offline::Never;
    let adopt = if never {
        "reach the upstream from here, or let `offline` be \"auto\" and adopt it, to serve what is cached"
    } else {
        "`cargo xtask cache-up --adopt` lets it serve what it has cached"
    };
    let cached = observed.cached.contains(&mirror.host);
    let (problem, fix) = match cause {
        Crash::Unusable(reason) if !cached => return Err(unusable(mirror, &reason)),
        Crash::Unreachable(_) | Crash::Unusable(_) if wanted.adopt && !never => {
            let problem = if matches!(cause, Crash::Unreachable(_)) { "is out of reach" } else { "cannot be used" };
            return match by_hand::elsewhere(mirror, container, observed) {
                Some(finding) => Err(finding),
                None => Ok(Some((Action::Adopt(Mode::Offline), vec![format!("{} {problem}", mirror.upstream)]))),
            };
        }
        Crash::Unreachable(_) => ("since its upstream is out of reach", adopt),
        Crash::Unusable(_) => ("since its upstream cannot be used", adopt),
        Crash::State => ("since its scheduler-state.json is damaged", "remove that file from its store"),
        Crash::Configuration => {
            ("since its configuration makes no sense to it", "correct the `docker run` that made it")
        }
        Crash::Other => other(&lines),
    };
    Err(finding(mirror, problem, fix, lines))
}

fn other(lines: &[String]) -> (&'static str, &'static str) {
    if lines.is_empty() {
        let fix = "see how in `docker container inspect` (ExitCode, OOMKilled); the image may be no registry";
        return ("without a word", fix);
    }
    ("", "remove the cause that its last lines name, then run this again")
}

fn finding(mirror: &Mirror, problem: &str, fix: &str, lines: Vec<String>) -> Finding {
    let problem = format!("{} ends as soon as it starts {problem}", mirror.name);
    Finding::new(&mirror.host, problem.trim_end(), fix).seen(lines)
}

/// That an upstream was reached and cannot be used, with what to do about it.
pub(super) fn unusable(mirror: &Mirror, reason: &str) -> Finding {
    let problem = format!("{} cannot be used: {reason}", mirror.upstream);
    let other = |scheme: &str| {
        let host = mirror.upstream.split_once("://").map_or(mirror.upstream.as_str(), |(_, host)| host);
        format!("write `upstream = \"{scheme}://{host}\"` in [mirrors.\"{}\"]", mirror.host)
    };
    let no_tls = ["first record does not look like a TLS handshake", "server gave HTTP response to HTTPS client"];
    let fix = if no_tls.iter().any(|sign| reason.contains(sign)) {
        other("http")
    } else if mirror.upstream.starts_with("http://") {
        other("https")
    } else {
        format!(
            "check `upstream` in [mirrors.\"{}\"]; a proxy trusts the certificate authorities of its image alone",
            mirror.host
        )
    };
    Finding::new(&mirror.host, problem, fix)
}
