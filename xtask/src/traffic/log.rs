//! A registry's log, as far as it tells what was asked, what was stored and what could not be; pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

/// Longer than what a registry writes when it answers with an error and no content.
const ERROR_BODY: u64 = 1024;
/// What the system says when a file system has no room left, in the registry's own words.
const NO_SPACE: &str = "no space left on device";
/// What any file takes at least.
const BLOCK: u64 = 4096;

/// What a log tells.
#[derive(Debug, Default)]
pub struct Log {
    /// The requests that were answered, or at least begun to be answered, with content.
    pub requests: Vec<Request>,
    /// What the registry stored, or tried to, in the order in which that ended.
    pub fills: Vec<Fill>,
    /// The blobs that any line names, as `REPOSITORY@DIGEST`: a fill of one of these is not of a manifest.
    pub blobs: BTreeSet<String>,
    /// How often each request, by its identity, turned to the upstream.
    pub asked: BTreeMap<String, u32>,
    /// Whether each request that turned to the upstream is in [`Log::asked`].
    pub tells_all_asked: bool,
    /// Whether a registry 3 wrote it.
    pub of_registry_3: bool,
    no_space: Vec<NoSpace>,
}

/// Something for which a file system had no room.
#[derive(Debug)]
struct NoSpace {
    key: String,
    time: SystemTime,
}

/// A request for a manifest or a blob.
#[derive(Debug)]
pub struct Request {
    pub id: String,
    pub repository: String,
    /// A digest, or a tag.
    pub reference: String,
    pub blob: bool,
    /// Whether what was written went to the client, which a `HEAD` gets nothing of.
    pub sent: bool,
    pub end: Ending,
    pub started: SystemTime,
    pub ended: SystemTime,
    pub written: u64,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With all of the content.
    Whole,
    /// With the part that was asked for; or with a status that says so little.
    Part,
    /// In the middle: the client, the upstream or the store gave up.
    Broken,
    /// With all of the content, which registry 3 then refused to store; its counters count that one.
    Refused,
}

impl Request {
    /// What it asked for, as a fill names it.
    pub fn key(&self) -> String {
        format!("{}@{}", self.repository, self.reference)
    }
}

/// An end of storing something.
#[derive(Debug)]
pub struct Fill {
    /// `REPOSITORY@DIGEST`.
    pub key: String,
    pub time: SystemTime,
    pub end: Stored,
}

impl Fill {
    pub fn repository(&self) -> &str {
        self.key.split('@').next().unwrap_or(&self.key)
    }

    pub fn digest(&self) -> &str {
        self.key.rsplit('@').next().unwrap_or(&self.key)
    }
}

/// How storing something ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// All of it is in the store.
    Whole,
    /// It failed after some of the content had come, as far as can be told.
    Failed,
    /// It failed before anything was asked of the upstream.
    NotBegun,
}

impl Log {
    /// Reads lines; of a log whose older lines are gone, only requests that began after `since` count.
    pub fn read<'a>(lines: impl Iterator<Item = &'a str>, since: Option<&str>) -> Self {
        let mut log = Self::default();
        let mut failures = Vec::new();
        let (mut anonymous, mut with_token, mut release) = (false, false, None);
        for line in lines {
            let msg = field(line, "msg").unwrap_or_default();
            let target = target(line);
            if let Some((true, name, digest)) = target {
                log.blobs.insert(format!("{name}@{digest}"));
            }
            let no_space =
                msg.contains(NO_SPACE) || field(line, "err.detail").is_some_and(|detail| detail.contains(NO_SPACE));
            if let (true, Some((_, name, reference)), Some(time)) = (no_space, target, time(line)) {
                log.no_space.push(NoSpace { key: format!("{name}@{reference}"), time });
            }
            if msg.starts_with("response completed") {
                log.requests.extend(request(line));
            } else if msg.starts_with("Challenge established with upstream") {
                *log.asked.entry(field(line, "http.request.id").unwrap_or_default().to_owned()).or_default() += 1;
                // Registry 2 ends the line with what it knows of the upstream's authentication: where that is nothing,
                // it asks, and logs, again whenever it turns to the upstream.
                let nothing = msg.ends_with(":[]]}");
                (anonymous, with_token) = (anonymous || nothing, with_token || !nothing);
            } else if msg.starts_with("Error committing to storage") {
                let begun = !msg.ends_with(&format!("/startedat: {NO_SPACE}"));
                let end = if begun { Stored::Failed } else { Stored::NotBegun };
                failures.extend(target.map(|(_, name, digest)| (format!("{name}@{digest}"), end)));
            } else if let Some((key, time)) = scheduled(line, msg) {
                // 2.x says that it added an entry although the fill failed; its error stands before.
                let failed = failures.iter().position(|(failed, _)| *failed == key);
                let end = failed.map_or(Stored::Whole, |at| failures.remove(at).1);
                log.fills.push(Fill { key, time, end });
            }
            release = release.or_else(|| field(line, "version"));
        }
        log.of_registry_3 = release.is_some_and(|release| release.trim_start_matches('v').starts_with("3."));
        log.tells_all_asked = anonymous && !with_token;
        let since = since.and_then(|since| humantime::parse_rfc3339(since).ok());
        log.requests.retain(|request| since.is_none_or(|since| request.started >= since));
        log
    }

    /// The size of the largest thing that found no room in the store and is not in it, at least.
    pub fn did_not_fit(&self) -> Option<u64> {
        if self.no_space.is_empty() {
            return None;
        }
        // When each was last stored, and how much of it came at most. Registry 2 answers with a blob that it could not
        // store, so there a request says nothing of the store.
        let mut stored: BTreeMap<&str, SystemTime> = BTreeMap::new();
        let mut sizes: BTreeMap<String, u64> = BTreeMap::new();
        let answers: Vec<(String, &Request)> = self.requests.iter().map(|request| (request.key(), request)).collect();
        let says_stored = |request: &Request| request.end == Ending::Whole && (!request.blob || self.of_registry_3);
        let by_fill = self.fills.iter().filter(|fill| fill.end == Stored::Whole).map(|fill| (&*fill.key, fill.time));
        let by_answer = answers.iter().filter(|(_, request)| says_stored(request)).map(|(key, r)| (&**key, r.started));
        for (key, time) in by_fill.chain(by_answer) {
            let last = stored.entry(key).or_insert(time);
            *last = time.max(*last);
        }
        for (key, request) in &answers {
            let most = sizes.entry(key.clone()).or_default();
            *most = (*most).max(request.written);
        }
        let missing = |failed: &&NoSpace| stored.get(&*failed.key).is_none_or(|time| *time <= failed.time);
        let size = |failed: &NoSpace| sizes.get(&failed.key).copied().unwrap_or_default().max(BLOCK);
        self.no_space.iter().filter(missing).map(size).max()
    }
}

/// Whether a line is about a blob, with the repository and the reference that were asked for.
fn target(line: &str) -> Option<(bool, &str, &str)> {
    let path = field(line, "http.request.uri")?.split('?').next()?.strip_prefix("/v2/")?;
    match path.rsplit_once("/blobs/") {
        Some((name, digest)) => Some((true, name, digest)),
        None => path.rsplit_once("/manifests/").map(|(name, reference)| (false, name, reference)),
    }
}

/// A request that got content, or began to.
fn request(line: &str) -> Option<Request> {
    let (blob, repository, reference) = target(line)?;
    let status: u16 = field(line, "http.response.status")?.parse().ok()?;
    let written: u64 = field(line, "http.response.written")?.parse().ok()?;
    let detail = field(line, "err.detail").unwrap_or_default();
    let end = match status {
        200 => Ending::Whole,
        201..300 => Ending::Part,
        // The status is that of an error that came too late for the client, which had its 200 and some content.
        500.. if blob && (detail.starts_with("write tcp ") || written > ERROR_BODY) => {
            if detail.ends_with("content does not match digest") { Ending::Refused } else { Ending::Broken }
        }
        _ => return None,
    };
    let ended = time(line)?;
    let took = duration(field(line, "http.response.duration")?)?;
    Some(Request {
        id: field(line, "http.request.id").unwrap_or_default().to_owned(),
        repository: repository.to_owned(),
        reference: reference.to_owned(),
        blob,
        sent: field(line, "http.request.method")? == "GET",
        end,
        started: ended.checked_sub(took)?,
        ended,
        written,
    })
}

fn scheduled(line: &str, msg: &str) -> Option<(String, SystemTime)> {
    let (key, _) = msg.strip_prefix("Adding new scheduler entry for ")?.split_once(" with ttl=")?;
    Some((key.to_owned(), time(line)?))
}

/// When a line was written; to the nanosecond, in every version.
pub fn time(line: &str) -> Option<SystemTime> {
    humantime::parse_rfc3339(field(line, "time")?).ok()
}

/// The part of a log that the process which runs now has written. Its first lines may be older than the time at which its
/// engine says that it started, and the lines of the process before it as young: each has an `instance.id` of its own.
pub fn of_this_start<'a>(text: &'a str, started: &str) -> &'a str {
    let instance = |line: &'a str| field(line, "instance.id");
    let current = text.lines().rev().find_map(instance);
    let started = humantime::parse_rfc3339(started).ok();
    let is_first = |line: &'a str| match current {
        Some(current) => instance(line) == Some(current),
        None => time(line).is_some_and(|time| started.is_none_or(|started| time >= started)),
    };
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if is_first(line.trim_end()) {
            return &text[at..];
        }
        at += line.len();
    }
    ""
}

/// A field of a log line. A client chooses some of the values (its user agent), so what is in quotes is passed over whole.
pub fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let mut rest = line;
    loop {
        let (key, value) = rest.split_once('=')?;
        let (value, after) = match value.strip_prefix('"') {
            Some(quoted) => quoted.split_at(end_of_quotes(quoted)?),
            None => value.split_at(value.find(' ').unwrap_or(value.len())),
        };
        if key == name {
            return Some(value);
        }
        rest = after.trim_start_matches('"').trim_start_matches(' ');
    }
}

/// Where the text in quotes ends; a quote in it stands behind a backslash.
fn end_of_quotes(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })
}

/// A duration as Go prints it: `18.779637ms`, `1m2.5s`, `640µs`.
fn duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(unit_at);
        let unit = &tail[..tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len())];
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total += Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
        rest = &tail[unit.len()..];
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines of a registry 2.8.2 whose client hung up in the middle of a blob.
    const ABORTED: &str = include_str!("log/aborted-2.log");
    const FULL_2: &str = include_str!("log/full-2.log");
    const FULL_3: &str = include_str!("log/full-3.log");

    fn read(text: &str) -> Log {
        Log::read(text.lines(), None)
    }

    #[test]
    fn a_field_is_never_read_out_of_another_one() {
        let line =
            r#"time="t" http.request.referer="x\" http.request.uri=/a \\\" http.request.uri=/b" http.request.uri=/c"#;
        assert_eq!(field(line, "http.request.uri"), Some("/c"));
        assert_eq!((field(line, "time"), field(line, "b\""), field("x=\"y", "x")), (Some("t"), None, None));
    }

    #[test]
    fn a_client_that_hangs_up_is_a_request_that_broke_off() {
        let log = read(ABORTED);
        let ends: Vec<_> = log.requests.iter().map(|request| (request.end, request.written)).collect();
        assert_eq!(ends, [(Ending::Whole, 416), (Ending::Broken, 9_502_720)]);
        assert!(log.tells_all_asked && log.blobs.contains(&log.requests[1].key()));
    }

    #[test]
    fn what_found_no_room_is_told_with_its_size() {
        // Registry 2 answers with all of what it cannot store, registry 3 breaks off.
        let (two, three) = (read(FULL_2), read(FULL_3));
        assert_eq!((two.did_not_fit(), three.did_not_fit()), (Some(9_437_184), Some(2_097_357)));
        let ends: Vec<_> = two.fills.iter().map(|fill| fill.end).collect();
        assert_eq!(ends, [Stored::Whole, Stored::Failed, Stored::NotBegun]);
        assert!(three.of_registry_3 && !two.of_registry_3);
        assert_eq!(read(ABORTED).did_not_fit(), None);
    }

    #[test]
    fn what_found_room_later_is_in_the_store() {
        let digest = "sha256:26ecb4";
        let later = format!(
            "{FULL_2}time=\"2026-11-24T18:20:00Z\" level=info msg=\"Adding new scheduler entry for a/b@{digest} with ttl=1h\"\n"
        );
        // What is left is the manifest and a smaller blob.
        assert_eq!(read(&later).did_not_fit(), Some(8_388_608));
    }

    #[test]
    fn a_refusal_with_no_content_is_no_request() {
        let whole = FULL_2.lines().filter(|line| line.contains("/manifests/")).count();
        assert!(whole > 0 && read(FULL_2).requests.iter().all(|request| request.blob));
    }

    #[test]
    fn durations_are_read_as_go_prints_them() {
        assert_eq!(duration("1m2.5s"), Some(Duration::from_millis(62_500)));
        assert_eq!(duration("640µs"), Some(Duration::from_micros(640)));
        assert_eq!(duration("soon"), None);
    }

    #[test]
    fn a_log_is_read_from_the_first_line_of_the_process_that_runs() {
        let line = |at: &str, message: &str, instance: &str| {
            format!(
                "time=\"2026-11-24T04:26:{at}Z\" level=info msg=\"{message}\" instance.id={instance} service=registry\n"
            )
        };
        let request = "time=\"2026-11-24T04:26:36Z\" level=info msg=\"response completed\" http.request.id=1\n";
        let of = |text: &str| of_this_start(text, "2026-11-24T04:26:35.5Z").lines().count();
        // The first line is older than the time of the start, as the engine has it.
        let both =
            [line("35.4", "x", "a"), line("35.45", "x", "b"), line("35.6", "y", "b"), request.to_owned()].concat();
        assert_eq!(of(&both), 3);
        // The beginning was rotated away.
        assert_eq!(of(request), 1);
        assert_eq!(of(&request.replace("26:36", "26:30")), 0);
        assert_eq!(of(""), 0);
    }
}
