//! What a proxy did, from what is true of each version: its log, and the counters of 3.x; pure.
//!
//! The counters of 2.x are wrong for blobs (hits equal requests, misses stay 0), but 2.x logs every fill of its cache;
//! 3.x logs no fill when nothing expires, but counts right. So of the two sources one is always zero.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// What a proxy did since it was last started. Manifests and blobs that were answered with success count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// Requests for manifests and blobs.
    pub requests: u64,
    /// Those answered from the cache.
    pub hits: u64,
    /// Those for which the upstream was asked for content.
    pub misses: u64,
    /// Bytes sent to clients.
    pub bytes_to_clients: u64,
    /// Those of them that came out of the cache. Registry 3 does not tell which manifests did, so none of theirs count.
    pub bytes_from_cache: u64,
    /// Bytes of content fetched from the upstream. 2.x fetches a missing blob twice: for the client, and for its store.
    pub bytes_from_upstream: u64,
}

impl Traffic {
    /// Two of them together.
    pub fn plus(self, other: Self) -> Self {
        self.with(other, u64::saturating_add)
    }

    /// What came to it since an earlier look.
    pub fn since(self, earlier: Self) -> Self {
        self.with(earlier, u64::saturating_sub)
    }

    fn with(self, other: Self, of: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            requests: of(self.requests, other.requests),
            hits: of(self.hits, other.hits),
            misses: of(self.misses, other.misses),
            bytes_to_clients: of(self.bytes_to_clients, other.bytes_to_clients),
            bytes_from_cache: of(self.bytes_from_cache, other.bytes_from_cache),
            bytes_from_upstream: of(self.bytes_from_upstream, other.bytes_from_upstream),
        }
    }
}

/// The counters of `/debug/vars`, as far as they are of use here.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
pub struct Counter {
    requests: u64,
    misses: u64,
    bytes_pulled: u64,
    bytes_pushed: u64,
}

/// When the first line of a log was written, where that is later than the start: its older lines were rotated away.
pub fn begins(log: &str, started: &str) -> Option<String> {
    let first = log.lines().find_map(|line| Some((line, time(line)?)))?;
    let started = humantime::parse_rfc3339(started).ok()?;
    // The engine's time of the start is taken before the registry's first line.
    let late = first.1.duration_since(started).is_ok_and(|late| late > Duration::from_secs(5));
    late.then(|| field(first.0, "time").map(str::to_owned)).flatten()
}

/// Reads `.registry.proxy.{blobs,manifests}` of `/debug/vars` (the same place from 2.5 to 3.x).
pub fn counters(vars: &serde_json::Value) -> Option<[Counter; 2]> {
    let at = |kind: &str| serde_json::from_value(vars.pointer(&format!("/registry/proxy/{kind}"))?.clone()).ok();
    Some([at("blobs")?, at("manifests")?])
}

struct Request {
    key: String,
    blob: bool,
    sent: bool,
    start: SystemTime,
    end: SystemTime,
    written: u64,
}

/// Sums up a log, and the counters where there are some.
pub fn sum<'a>(log: impl Iterator<Item = &'a str>, counters: Option<[Counter; 2]>) -> Traffic {
    let mut requests = Vec::new();
    let mut fills: BTreeMap<String, Vec<SystemTime>> = BTreeMap::new();
    let mut failed = BTreeSet::new();
    for line in log {
        if line.contains("msg=\"response completed\"") {
            requests.extend(request(line));
        } else if let Some((key, time)) = fill(line) {
            // 2.x says that it added an entry although the fill failed; its error stands right before.
            if !failed.remove(&key) {
                fills.entry(key).or_default().push(time);
            }
        } else if line.contains("Error committing to storage") {
            let part = |name| field(line, name).map(str::to_owned);
            failed.extend(part("vars.name").zip(part("vars.digest")).map(|(name, digest)| format!("{name}@{digest}")));
        }
    }
    let mut traffic = logged(&requests, &fills);
    // What logs its fills is a registry 2, whatever its image is called.
    if let Some([blobs, manifests]) = counters.filter(|_| fills.is_empty()) {
        traffic.misses = blobs.misses + manifests.misses;
        traffic.bytes_from_upstream = blobs.bytes_pulled + manifests.bytes_pulled;
        traffic.bytes_from_cache = traffic.bytes_to_clients.saturating_sub(traffic.bytes_from_upstream);
    }
    traffic.hits = traffic.requests.saturating_sub(traffic.misses);
    traffic
}

/// What counters say that are true (registry 3), for a log whose beginning is gone; `None` where they may be those of a
/// registry 2, or of one that is no proxy. They count a manifest's bytes for `HEAD` as well.
pub fn counted(counters: [Counter; 2], log: &str) -> Option<Traffic> {
    let [blobs, manifests] = counters;
    let both = |of: &dyn Fn(Counter) -> u64| of(blobs) + of(manifests);
    // Those of registry 2 never say that a blob was missing, and it logs what it fills; what is no proxy counts nothing.
    let true_ones = blobs.misses > 0 || (blobs.requests == 0 && manifests.requests > 0);
    (true_ones && log.lines().all(|line| fill(line).is_none())).then(|| {
        let (requests, misses) = (both(&|counter| counter.requests), both(&|counter| counter.misses));
        let (sent, fetched) = (both(&|counter| counter.bytes_pushed), both(&|counter| counter.bytes_pulled));
        Traffic {
            requests,
            hits: requests.saturating_sub(misses),
            misses,
            bytes_to_clients: sent,
            bytes_from_cache: sent.saturating_sub(fetched),
            bytes_from_upstream: fetched,
        }
    })
}

fn logged(requests: &[Request], fills: &BTreeMap<String, Vec<SystemTime>>) -> Traffic {
    let mut traffic = Traffic::default();
    let mut passed_on = 0;
    let blobs: BTreeSet<&str> = requests.iter().filter(|r| r.blob).map(|r| r.key.as_str()).collect();
    for request in requests {
        traffic.requests += 1;
        traffic.bytes_to_clients += if request.sent { request.written } else { 0 };
        // A blob is fetched for every client that asks before its first fill is done.
        let missed = |filled: &Vec<SystemTime>| filled.iter().all(|fill| request.start < *fill);
        if request.blob && fills.get(&request.key).is_some_and(missed) {
            traffic.misses += 1;
            traffic.bytes_from_upstream += request.written;
            passed_on += if request.sent { request.written } else { 0 };
        }
    }
    for (key, times) in fills {
        let size = |wanted: &dyn Fn(&&Request) -> bool| requests.iter().filter(wanted).map(|r| r.written).max();
        if blobs.contains(key.as_str()) {
            let once = size(&|request| request.key == *key).unwrap_or(0);
            traffic.bytes_from_upstream += once * times.len() as u64;
            continue;
        }
        // A manifest is stored while its request is answered, by tag or by digest.
        let repository = key.split('@').next().unwrap_or(key);
        for time in times {
            let during = |r: &&Request| !r.blob && r.start <= *time && *time <= r.end && r.key.starts_with(repository);
            traffic.misses += 1;
            traffic.bytes_from_upstream += size(&during).unwrap_or(0);
            passed_on += size(&|request| during(request) && request.sent).unwrap_or(0);
        }
    }
    traffic.bytes_from_cache = traffic.bytes_to_clients.saturating_sub(passed_on);
    traffic
}

fn request(line: &str) -> Option<Request> {
    let uri = field(line, "http.request.uri")?;
    let path = uri.split('?').next()?.strip_prefix("/v2/")?;
    let (blob, (repository, reference)) = match path.rsplit_once("/blobs/") {
        Some(parts) => (true, parts),
        None => (false, path.rsplit_once("/manifests/")?),
    };
    let status: u16 = field(line, "http.response.status")?.parse().ok()?;
    if !(200..300).contains(&status) {
        return None;
    }
    let end = time(line)?;
    let took = duration(field(line, "http.response.duration")?)?;
    Some(Request {
        key: format!("{repository}@{reference}"),
        blob,
        sent: field(line, "http.request.method")? == "GET",
        start: end.checked_sub(took)?,
        end,
        written: field(line, "http.response.written")?.parse().ok()?,
    })
}

fn fill(line: &str) -> Option<(String, SystemTime)> {
    let (_, rest) = line.split_once("msg=\"Adding new scheduler entry for ")?;
    let (key, _) = rest.split_once(" with ttl=")?;
    Some((key.to_owned(), time(line)?))
}

fn time(line: &str) -> Option<SystemTime> {
    humantime::parse_rfc3339(field(line, "time")?).ok()
}

/// A field of a log line. The client chooses what stands in the middle (its user agent), so what comes before it is
/// looked for from the front and what comes after it from the back.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let wanted = format!("{name}=");
    let at = if name.starts_with("http.response.") { line.rfind(&wanted)? } else { line.find(&wanted)? };
    let rest = &line[at + wanted.len()..];
    match rest.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next(),
        None => rest.split(' ').next(),
    }
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
    use serde_json::json;

    fn done(at: &str, method: &str, uri: &str, took: &str, written: u64) -> String {
        format!(
            "time=\"2026-11-24T04:26:{at}Z\" level=info msg=\"response completed\" http.request.method={method} \
             http.request.uri=\"/v2/{uri}\" http.request.useragent=\"x http.response.written=9\" \
             http.response.duration={took} http.response.status=200 http.response.written={written}"
        )
    }

    fn filled(at: &str, key: &str) -> String {
        format!("time=\"2026-11-24T04:26:{at}Z\" level=info msg=\"Adding new scheduler entry for {key} with ttl=167h\"")
    }

    fn of(lines: &[String]) -> Traffic {
        sum(lines.iter().map(String::as_str), None)
    }

    fn cold() -> Vec<String> {
        vec![
            filled("35.880", "a@sha256:m"),
            done("35.883", "HEAD", "a/manifests/v1?ns=docker.io", "18.7ms", 415),
            done("35.900", "GET", "a/manifests/sha256:m", "1.7ms", 415),
            done("35.946", "GET", "a/blobs/sha256:b", "15.5ms", 1000),
            filled("35.955", "a@sha256:b"),
        ]
    }

    #[test]
    fn a_cold_pull_of_2_x_misses_the_manifest_and_the_blob_and_fetches_the_blob_twice() {
        let expected = Traffic {
            requests: 3,
            hits: 1,
            misses: 2,
            bytes_to_clients: 1415,
            bytes_from_cache: 415,
            bytes_from_upstream: 415 + 2000,
        };
        assert_eq!(of(&cold()), expected);
    }

    #[test]
    fn a_warm_pull_only_hits() {
        let mut lines = cold();
        lines.push(done("36.900", "GET", "a/manifests/v1", "15ms", 415));
        lines.push(done("36.990", "GET", "a/blobs/sha256:b", "5ms", 1000));
        let traffic = of(&lines);
        assert_eq!((traffic.requests, traffic.hits, traffic.misses), (5, 3, 2));
        assert_eq!(traffic.bytes_from_upstream, 2415);
    }

    #[test]
    fn clients_that_ask_before_the_fill_is_done_all_miss() {
        let lines = [
            done("35.940", "GET", "a/blobs/sha256:b", "15ms", 1000),
            done("35.941", "GET", "a/blobs/sha256:b", "15ms", 1000),
            filled("35.955", "a@sha256:b"),
        ];
        assert_eq!(
            of(&lines),
            Traffic {
                requests: 2,
                hits: 0,
                misses: 2,
                bytes_to_clients: 2000,
                bytes_from_cache: 0,
                bytes_from_upstream: 3000
            }
        );
    }

    #[test]
    fn the_counters_of_3_x_are_believed_where_they_count() {
        let vars = json!({"registry": {"proxy": {
            "blobs": {"Requests": 1, "Hits": 0, "Misses": 1, "BytesPulled": 1000, "BytesPushed": 1000},
            "manifests": {"Requests": 2, "Hits": 1, "Misses": 1, "BytesPulled": 415, "BytesPushed": 830}}}});
        let lines = [
            done("35.883", "HEAD", "a/manifests/v1", "18.7ms", 415),
            done("35.900", "GET", "a/manifests/sha256:m", "1.7ms", 415),
            done("35.946", "GET", "a/blobs/sha256:b", "15.5ms", 1000),
        ];
        let traffic = sum(lines.iter().map(String::as_str), counters(&vars));
        assert_eq!(
            traffic,
            Traffic {
                requests: 3,
                hits: 1,
                misses: 2,
                bytes_to_clients: 1415,
                bytes_from_cache: 0,
                bytes_from_upstream: 1415
            }
        );
    }

    #[test]
    fn manifests_alone_are_misses_of_3_x_too() {
        let vars = json!({"registry": {"proxy": {
            "blobs": {"Requests": 0, "Hits": 0, "Misses": 0, "BytesPulled": 0, "BytesPushed": 0},
            "manifests": {"Requests": 1, "Hits": 0, "Misses": 1, "BytesPulled": 415, "BytesPushed": 415}}}});
        let line = done("35.883", "GET", "a/manifests/v1", "18.7ms", 415);
        let traffic = sum(std::iter::once(line.as_str()), counters(&vars));
        assert_eq!((traffic.hits, traffic.misses, traffic.bytes_from_upstream), (0, 1, 415));
        let counted = |log: &str| counted(counters(&vars).unwrap(), log);
        assert_eq!(counted(&line).map(|traffic| traffic.misses), Some(1));
        let of = |blobs: u64, manifests: u64| {
            let counter = |requests| Counter { requests, ..Counter::default() };
            super::counted([counter(blobs), counter(manifests)], &line)
        };
        assert_eq!((of(6, 2), of(0, 0)), (None, None));
        // What logs its fills is a registry 2, whose counters are wrong.
        assert_eq!(counted(&filled("35.880", "a@sha256:m")), None);
    }

    #[test]
    fn a_log_that_was_rotated_says_since_when_it_counts() {
        let log = format!("{}\n", filled("35.880", "a@sha256:m"));
        assert_eq!(begins(&log, "2026-11-24T04:26:35.5Z"), None);
        assert_eq!(begins(&log, "2026-11-24T04:20:00Z").as_deref(), Some("2026-11-24T04:26:35.880Z"));
    }

    #[test]
    fn pings_and_failures_are_no_traffic() {
        let missing = done("35.9", "GET", "a/manifests/v9", "1ms", 100).replace("status=200", "status=404");
        assert_eq!(of(&[done("35.9", "GET", "", "1ms", 2), missing]), Traffic::default());
    }

    #[test]
    fn durations_are_read_as_go_prints_them() {
        assert_eq!(duration("1m2.5s"), Some(Duration::from_millis(62_500)));
        assert_eq!(duration("640µs"), Some(Duration::from_micros(640)));
        assert_eq!(duration("soon"), None);
    }
}
