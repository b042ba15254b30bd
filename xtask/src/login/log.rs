//! What the log of a registry says of its credentials; pure.

use crate::traffic::log::field;

/// What a registry logs once it knows where to take its credentials to (2.6 to 3.1, `registry/proxy/proxyauth.go`).
const DISCOVERED: &str = "Discovered token authentication URL";
/// The name under which this tool asks a proxy to use its credentials, so that its log shows that it was asked.
pub(super) const CHECK: &str = "talos-cache-credentials-check";

/// Whether an upstream takes credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Taken,
    /// It refuses them, with these words.
    Refused(String),
}

/// What the lines of one start say. The log may begin with those of the process before it, which are of no account: each
/// process has an `instance.id` of its own.
#[derive(Debug, Default)]
pub(super) struct Start {
    instance: Option<String>,
    pub(super) discovered: bool,
    pub(super) listens: bool,
    pub(super) verdict: Option<Verdict>,
}

impl Start {
    pub(super) fn read(&mut self, line: &str) {
        if let Some(instance) = field(line, "instance.id")
            && self.instance.as_deref() != Some(instance)
        {
            *self = Self { instance: Some(instance.to_owned()), ..Self::default() };
        }
        // What a client says of itself (its user agent) is in the lines of requests alone.
        let says = field(line, "msg").unwrap_or_default();
        self.discovered |= says.starts_with(DISCOVERED);
        self.listens |= says.starts_with("listening on ");
        // An answer that tells nothing (an upstream that was overloaded) is none: the next run asks again.
        self.verdict = verdict(line, self.discovered).or(self.verdict.take());
    }
}

/// What the answer to a check says, if that is what a line is.
///
/// Where a token service refuses them, the request itself fails: `Head "URL": unauthorized: WORDS`. Where it gives a
/// token, what the registry answers is all there is, and says nothing against the credentials. An upstream without such a
/// service is asked plainly, and then `unauthorized: ` alone is a refusal (3.1.1).
fn verdict(line: &str, has_tokens: bool) -> Option<Verdict> {
    let completed = field(line, "msg").is_some_and(|says| says.starts_with("response completed"));
    if !completed || field(line, "http.request.useragent") != Some(CHECK) {
        return None;
    }
    let detail = unescaped(field(line, "err.detail").unwrap_or_default());
    let failed = ["Head \"", "Get \"", "Post \""].iter().any(|verb| detail.starts_with(verb));
    let code = |code: &&str| if failed { detail.contains(&format!("\": {code}")) } else { detail.starts_with(code) };
    let refused = ["unauthorized: ", "denied: "].into_iter().find(|one| code(one) && (failed || !has_tokens));
    // Said of a repository, by token services that know these credentials as well as by those that do not.
    if failed && detail.contains(": denied: requested access to the resource is denied") {
        return None;
    }
    match refused.and_then(|code| Some((code, detail.split_once(code)?.1))) {
        Some((code, words)) => {
            let words = format!("{code}{}", words.lines().next().unwrap_or_default());
            Some(Verdict::Refused(words.trim_end_matches([' ', ':']).to_owned()))
        }
        // Out of reach, or overloaded.
        None if failed => None,
        None => {
            let status = field(line, "http.response.status");
            (status == Some("404") || detail.contains("denied: ")).then_some(Verdict::Taken)
        }
    }
}

/// A text in quotes without its escapes.
fn unescaped(text: &str) -> String {
    let (mut plain, mut escaped) = (String::new(), false);
    for c in text.chars() {
        match (escaped, c) {
            (false, '\\') => escaped = true,
            (true, 'n') => (plain, escaped) = (plain + "\n", false),
            (_, c) => {
                plain.push(c);
                escaped = false;
            }
        }
    }
    plain
}

/// Whether the answer to a plain request is a refusal. It names no token service, or that had been found, so it asks for
/// plain credentials; busybox shows no header of a refusal that would say so.
pub(super) fn refuses(said: &str) -> bool {
    said.lines().any(|line| line.trim().starts_with("HTTP/1.") && line.split_whitespace().nth(1) == Some("401"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(lines: &[String]) -> Start {
        let mut start = Start::default();
        lines.iter().for_each(|line| start.read(line));
        start
    }

    fn said(message: &str, instance: &str) -> String {
        format!(
            "time=\"2026-11-24T17:10:55.2Z\" level=info msg=\"{message}\" go.version=go1.19.8 instance.id={instance}"
        )
    }

    fn discovers(instance: &str) -> String {
        said("Discovered token authentication URL: http://172.17.0.1:7101/token", instance)
    }

    /// As 2.8.2 and 3.1.1 log it, in the middle shortened.
    fn answer(status: u16, detail: &str) -> String {
        format!(
            "time=\"2026-11-24T17:10:56.2Z\" level=error msg=\"response completed with error\" err.code=unknown \
             err.detail={detail} err.message=\"unknown error\" http.request.uri=\"/v2/library/x/blobs/sha256:00\" \
             http.request.useragent={CHECK} http.response.status={status} http.response.written=276"
        )
    }

    #[test]
    fn the_lines_of_the_process_before_are_of_no_account() {
        let (a, b) = ("875ad80a-4a27", "0bb1d2c3-11aa");
        let listens = |instance| said("listening on [::]:5000", instance);
        let now = start(&[discovers(a), listens(a), said("x", b), listens(b)]);
        assert_eq!((now.discovered, now.listens), (false, true));
        let now = start(&[said("x", a), discovers(b), listens(b)]);
        assert_eq!((now.discovered, now.listens), (true, true));
    }

    #[test]
    fn refused_credentials_are_told_from_all_other_answers() {
        let head = r#"Head \"http://172.17.0.1:7101/v2/library/x/blobs/sha256:00\": "#;
        let of = |status, detail: &str| start(&[discovers("a"), answer(status, detail)]).verdict;
        for words in ["unauthorized: incorrect username or password", "denied: denied"] {
            assert_eq!(of(500, &format!("\"{head}{words}\"")), Some(Verdict::Refused(words.to_owned())));
        }
        assert_eq!(of(404, "sha256:00"), Some(Verdict::Taken));
        // A token was given, and is of no use for this repository.
        let denied = r#""errors:\ndenied: requested access to the resource is denied\nunauthorized: \n""#;
        assert_eq!(of(500, denied), Some(Verdict::Taken));
        for away in ["dial tcp 172.17.0.1:7101: connect: connection refused", "unexpected status code 503", "EOF"] {
            assert_eq!(of(500, &format!("\"{head}{away}\"")), None);
        }
        let plainly = |status, detail| start(&[answer(status, detail)]).verdict;
        assert_eq!(plainly(500, "\"unauthorized: \""), Some(Verdict::Refused("unauthorized".to_owned())));
        assert_eq!(plainly(404, "sha256:00"), Some(Verdict::Taken));
        // A repository that does not exist, or that these credentials may not read.
        let repository = format!("\"{head}denied: requested access to the resource is denied\"");
        assert_eq!(of(500, &repository), None);
        // What somebody else is answered says nothing, whatever that client says of itself.
        let forged = format!("http.request.useragent=\"x {CHECK} instance.id=z\"");
        let forged = answer(404, "sha256:00").replace(&format!("http.request.useragent={CHECK}"), &forged);
        let after = start(&[discovers("a"), forged]);
        assert_eq!((after.discovered, after.verdict), (true, None));
        assert_eq!(start(&[answer(404, "sha256:00").replace(CHECK, "containerd/1.6")]).verdict, None);
    }

    #[test]
    fn an_answer_that_tells_nothing_does_not_replace_one_that_does() {
        let away = r#""Get \"http://172.17.0.1/v2/\": EOF""#;
        let lines = [discovers("a"), answer(404, "sha256:00"), answer(500, away)];
        assert_eq!(start(&lines).verdict, Some(Verdict::Taken));
    }

    #[test]
    fn a_refusal_is_told_from_being_busy() {
        assert!(refuses("  HTTP/1.1 401 Unauthorized\nwget: server returned error: HTTP/1.1 401 Unauthorized\n"));
        assert!(!refuses("  HTTP/1.1 503 Service Unavailable\n"));
        assert!(!refuses("  HTTP/1.1 200 OK\n"));
    }
}
