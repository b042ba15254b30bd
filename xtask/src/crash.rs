//! Why a registry ends as soon as it starts, from its own last words; pure.

/// Why a registry ends as soon as it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Crash {
    /// Its upstream is out of reach, for this reason: every registry from 2.6 on panics then.
    Unreachable(String),
    /// Its upstream was reached and cannot be used, for this reason.
    Unusable(String),
    /// Its record of expiry dates, `scheduler-state.json`, is damaged.
    State,
    /// Its configuration makes no sense to it.
    Configuration,
    /// Anything else.
    Other,
}

/// How a registry begins to say that its file or its environment makes no sense (`registry/root.go` and
/// `configuration/parser.go`: 2.5 to 3.1).
const BAD_CONFIGURATION: [&str; 4] =
    ["configuration error: ", "panic: multiple ", "panic: invalid type for environment", "panic: no storage "];

/// What Go says of a server that answers and is not what the address says, in every release from 1.6 to 1.27. A
/// time-out of the handshake reads `net/http: TLS handshake timeout`, and is not among them.
const UNUSABLE: [&str; 6] = [
    "x509: ",
    "tls: ",
    "server gave HTTP response to HTTPS client",
    "malformed HTTP",
    "stopped after ",
    "unsupported protocol scheme",
];

/// Tells the causes apart by the registry's own last words.
pub fn crash(lines: &[String]) -> Crash {
    // The only JSON that a registry reads when it starts is that record (2.8.2 and 3.1.1, an empty and a cut file).
    let json = ["unexpected end of JSON input", "invalid character ", "json: "].map(|word| format!("panic: {word}"));
    if let Some(word) = lines.iter().find_map(|line| refused_request(line)) {
        let unusable = UNUSABLE.iter().any(|sign| word.contains(sign));
        if unusable { Crash::Unusable(word) } else { Crash::Unreachable(word) }
    } else if lines.iter().any(|line| json.iter().any(|word| line.starts_with(word))) {
        Crash::State
    } else if lines.iter().any(|line| BAD_CONFIGURATION.iter().any(|word| line.contains(word))) {
        Crash::Configuration
    } else {
        Crash::Other
    }
}

/// Why the one request that a registry makes when it starts failed: `panic: Get "https://host/v2/": REASON`. The address
/// is another one where the upstream has redirected it. Go before 1.14, of which 2.6 and 2.7 were built, writes it without
/// quotes.
pub fn refused_request(line: &str) -> Option<String> {
    let (_, request) = line.split_once("panic: Get ")?;
    let (address, reason) = match request.strip_prefix('"') {
        Some(quoted) => quoted.split_once("\": ")?,
        None => request.split_once(": ")?,
    };
    address.contains("://").then(|| reason.trim_end().to_owned())
}

/// Whether a reason may mean that an address with `http://` is one of a server that speaks TLS: such servers end the
/// connection, or answer with bytes that are no HTTP.
pub fn may_be_tls(reason: &str) -> bool {
    ["connection reset by peer", "EOF", "malformed HTTP"].iter().any(|sign| reason.contains(sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Crash {
        crash(&[line.to_owned()])
    }

    #[test]
    fn an_upstream_out_of_reach_is_told_from_one_that_cannot_be_used() {
        for (reason, unusable) in [
            ("dial tcp 172.17.0.1:9: connect: connection refused", false),
            ("dial tcp: lookup no-such.invalid on 10.0.0.53:53: no such host", false),
            ("net/http: TLS handshake timeout", false),
            ("EOF", false),
            ("x509: certificate signed by unknown authority", true),
            ("tls: first record does not look like a TLS handshake", true),
            ("http: server gave HTTP response to HTTPS client", true),
            ("net/http: HTTP/1.x transport connection broken: malformed HTTP response \"\\x15\"", true),
        ] {
            let reason = reason.to_owned();
            let expected = if unusable { Crash::Unusable(reason.clone()) } else { Crash::Unreachable(reason.clone()) };
            assert_eq!(of(&format!("panic: Get \"https://a.example/v2/\": {reason}")), expected);
            assert_eq!(of(&format!("panic: Get https://a.example/v2/: {reason}")), expected);
        }
    }

    #[test]
    fn a_redirect_out_of_reach_is_an_upstream_out_of_reach() {
        let reason = "dial tcp 192.0.2.1:81: connect: connection refused";
        let expected = Crash::Unreachable(reason.to_owned());
        assert_eq!(of(&format!("panic: Get \"http://192.0.2.1:81/portal\": {reason}")), expected);
    }

    #[test]
    fn what_is_no_request_is_none() {
        assert_eq!(of("panic: Get lost: now"), Crash::Other);
        assert_eq!(of("panic: unexpected end of JSON input"), Crash::State);
        assert_eq!(of("configuration error: x"), Crash::Configuration);
    }
}
