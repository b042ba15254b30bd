//! curl: its arguments, what its exit codes mean, and what a server's header says of a file. Nothing here acts.

use camino::Utf8Path;

use crate::exec::Cmd;

/// A transfer to a file; what is in the file already is not asked for again.
///
/// `validator` is sent as `If-Range`, so that a server whose file has changed since sends all of the new one; curl
/// then ends with 33 rather than append it. `patience` is in seconds without a byte.
pub fn transfer(address: &str, part: &Utf8Path, head: &Utf8Path, validator: Option<&str>, patience: u32) -> Cmd {
    let cmd = Cmd::write("curl")
        .args(["--fail", "--location", "--silent", "--show-error", "--globoff", "--connect-timeout", "20"])
        .args(["--speed-limit", "1", "--speed-time", &patience.to_string()])
        .args(["--dump-header", head.as_str(), "--continue-at", "-", "--output", part.as_str()]);
    let cmd = match validator {
        Some(validator) => cmd.arg("--header").arg(format!("If-Range: {validator}")),
        None => cmd,
    };
    cmd.arg(address)
}

/// What a transfer came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All has come.
    Whole,
    /// The server answers, and has no such file.
    Absent,
    /// The server cannot go on from what is there.
    StartOver,
    /// It was cut, or the server cannot be reached or is busy: worth another attempt.
    Again,
    /// The file cannot be written.
    Unwritable,
    /// No further attempt would change it.
    Refused,
}

impl Outcome {
    /// From curl's exit code ("EXIT CODES" in curl(1)), the last answer of the server, and the bytes there are now.
    pub fn of(code: Option<i32>, head: &Head, size: u64) -> Self {
        let other_size = head.total.is_some_and(|total| total != size);
        match (code, head.status) {
            // Nothing comes after what is there: that is the whole, or more than that. Versions of curl differ in
            // whether they call it a failure.
            (Some(0 | 22), Some(416)) if head.total == Some(size) => Self::Whole,
            (Some(0 | 22), Some(416)) => Self::StartOver,
            (Some(0), _) if other_size => Self::StartOver,
            (Some(0), _) => Self::Whole,
            (Some(22), Some(404 | 410)) => Self::Absent,
            (Some(22), Some(408 | 429 | 500..)) => Self::Again,
            (Some(23), _) => Self::Unwritable,
            (Some(33 | 36), _) => Self::StartOver,
            // Proxy, name, connection, HTTP/2, short, timeout, TLS, empty, sending, receiving, HTTP/2 stream, HTTP/3.
            (Some(5 | 6 | 7 | 16 | 18 | 28 | 35 | 52 | 55 | 56 | 92 | 95), _) => Self::Again,
            _ => Self::Refused,
        }
    }
}

/// What a server's header says of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The status of the answer.
    pub status: Option<u16>,
    /// What tells this file from a later one at the same address: a strong entity tag, else the time of its change.
    pub validator: Option<String>,
    /// The size of the whole file in bytes.
    pub total: Option<u64>,
}

impl Head {
    /// Reads what `--dump-header` wrote: one header for each answer, of which the last counts.
    pub fn parse(text: &str) -> Self {
        let (mut head, mut changed, mut length) = (Self::default(), None, None);
        for line in text.lines() {
            if line.starts_with("HTTP/") {
                let status = line.split_whitespace().nth(1).and_then(|status| status.parse().ok());
                (head, changed, length) = (Self { status, ..Self::default() }, None, None);
            }
            let Some((name, value)) = line.split_once(':').map(|(name, value)| (name, value.trim())) else {
                continue;
            };
            match name.to_ascii_lowercase().as_str() {
                "etag" if value.starts_with('"') => head.validator = Some(value.to_owned()),
                "last-modified" => changed = Some(value.to_owned()),
                "content-length" => length = value.parse().ok(),
                "content-range" => head.total = value.rsplit_once('/').and_then(|(_, total)| total.parse().ok()),
                _ => {}
            }
        }
        if head.status == Some(200) {
            head.total = length;
        }
        head.validator = head.validator.or(changed);
        head
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_answer_counts() {
        let text = "HTTP/1.1 200 Connection established\r\n\r\n\
                    HTTP/2 302\r\nlocation: https://elsewhere/\r\netag: \"other\"\r\ncontent-length: 0\r\n\r\n\
                    HTTP/1.1 206 Partial Content\r\nETag: \"0x8D\"\r\nContent-Length: 5\r\n\
                    Content-Range: bytes 5-9/10\r\n\r\n";
        let head = Head { status: Some(206), validator: Some("\"0x8D\"".into()), total: Some(10) };
        assert_eq!(Head::parse(text), head);
    }

    #[test]
    fn the_length_of_a_whole_answer_is_the_size() {
        let head = Head::parse("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n");
        assert_eq!(head, Head { status: Some(200), validator: None, total: Some(7) });
    }

    #[test]
    fn a_range_that_cannot_be_served_still_tells_the_size() {
        let head =
            Head::parse("HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */7\r\nContent-Length: 99\r\n");
        assert_eq!((head.status, head.total), (Some(416), Some(7)));
    }

    #[test]
    fn a_weak_tag_says_nothing_of_bytes() {
        let text = "HTTP/1.1 200 OK\nETag: W/\"1\"\nLast-Modified: Tue, 24 Nov 2026 07:00:00 GMT\n";
        assert_eq!(Head::parse(text).validator.as_deref(), Some("Tue, 24 Nov 2026 07:00:00 GMT"));
        assert_eq!(Head::parse("HTTP/1.1 200 OK\nETag: W/\"1\"\n").validator, None);
        assert_eq!(Head::parse(""), Head::default());
    }

    #[test]
    fn an_exit_code_and_an_answer_decide_what_is_next() {
        for (code, status, total, outcome) in [
            (Some(0), Some(206), Some(9), Outcome::Whole),
            (Some(0), Some(200), None, Outcome::Whole),
            (Some(0), Some(206), Some(8), Outcome::StartOver),
            (Some(0), Some(416), Some(9), Outcome::Whole),
            (Some(22), Some(416), Some(9), Outcome::Whole),
            (Some(22), Some(416), Some(8), Outcome::StartOver),
            (Some(0), Some(416), None, Outcome::StartOver),
            (Some(22), Some(404), None, Outcome::Absent),
            (Some(22), Some(403), None, Outcome::Refused),
            (Some(22), Some(503), None, Outcome::Again),
            (Some(18), Some(200), Some(10), Outcome::Again),
            (Some(33), Some(200), Some(10), Outcome::StartOver),
            (Some(23), Some(200), Some(10), Outcome::Unwritable),
            (Some(60), None, None, Outcome::Refused),
            (None, None, None, Outcome::Refused),
        ] {
            let head = Head { status, validator: None, total };
            assert_eq!(Outcome::of(code, &head, 9), outcome, "{code:?} {status:?} {total:?}");
        }
    }

    #[test]
    fn a_transfer_goes_on_only_from_the_same_file() {
        let cmd = |validator| transfer("http://a/b", "b.part".into(), "b.part.head".into(), validator, 60).shell();
        assert!(
            cmd(Some("\"1\"")).ends_with(r#"--output b.part --header 'If-Range: "1"' http://a/b"#),
            "{}",
            cmd(Some("\"1\""))
        );
        assert!(!cmd(None).contains("If-Range"));
    }
}
