//! What a proxy did, from what is true of each version: its log, and the counters of 3.x; pure.
//!
//! The counters of 2.x are wrong for blobs (hits equal requests, misses stay 0), but 2.x logs every fill of its cache;
//! 3.x logs no fill when nothing expires, but counts right. So of the two sources one is always zero.

pub(crate) mod log;
mod tally;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use log::{Ending, Log, field, time};
use tally::Tally;

/// What a proxy did since it was last started. Manifests and blobs that were answered with content count, also where
/// that broke off.
///
/// Where a log cannot tell whether a request was passed on (see [`tally`]), hits and bytes from the cache are a lower
/// bound, misses and bytes from upstream an upper bound.
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
    /// A fill that failed counts with all of the blob, since the log does not tell how much of it came.
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

/// When the first line of a log was written, where that is not the start: its older lines were rotated away.
pub fn begins(log: &str, started: &str) -> Option<String> {
    let (line, first) = log.lines().find_map(|line| Some((line, time(line)?)))?;
    let started = humantime::parse_rfc3339(started).ok()?;
    // The engine's time of the start is taken before the registry's first line, which is never about a request.
    let late = first.duration_since(started).is_ok_and(|late| late > Duration::from_secs(5));
    let rotated = late || field(line, "http.request.id").is_some();
    rotated.then(|| field(line, "time").map(str::to_owned)).flatten()
}

/// Reads `.registry.proxy.{blobs,manifests}` of `/debug/vars` (the same place from 2.5 to 3.x).
pub fn counters(vars: &serde_json::Value) -> Option<[Counter; 2]> {
    let at = |kind: &str| serde_json::from_value(vars.pointer(&format!("/registry/proxy/{kind}"))?.clone()).ok();
    Some([at("blobs")?, at("manifests")?])
}

/// What a log and counters add up to. `sizes` are those of what is in the store, by digest, as far as they were looked
/// for; [`unknown_sizes`] says which are of use.
pub(crate) fn sum(log: &Log, counters: Option<[Counter; 2]>, sizes: &BTreeMap<String, u64>) -> Traffic {
    let mut traffic = Tally::new(log, sizes).traffic();
    // What logs its fills is a registry 2, whatever its image is called, or a registry 3 that says so.
    if let Some([blobs, manifests]) = counters.filter(|_| log.fills.is_empty() || log.of_registry_3) {
        let broken = broken_off(log);
        traffic.misses = (blobs.misses + manifests.misses + broken.misses).min(traffic.requests);
        traffic.bytes_from_upstream = blobs.bytes_pulled + manifests.bytes_pulled + broken.bytes_from_upstream;
        traffic.bytes_from_cache = traffic.bytes_to_clients.saturating_sub(traffic.bytes_from_upstream);
    }
    traffic.hits = traffic.requests.saturating_sub(traffic.misses);
    traffic
}

/// The digests of what was stored whose size the log does not tell.
pub(crate) fn unknown_sizes(log: &Log) -> BTreeSet<String> {
    Tally::new(log, &BTreeMap::new()).unknown_sizes()
}

/// What was broken off while registry 3 passed it on, which its counters leave out. It serves what is cached to its end,
/// as far as its log goes.
fn broken_off(log: &Log) -> Traffic {
    let broken = log.requests.iter().filter(|request| request.end == Ending::Broken);
    broken.fold(Traffic::default(), |sum, request| {
        let sent = if request.sent { request.written } else { 0 };
        sum.plus(Traffic {
            requests: 1,
            misses: 1,
            bytes_to_clients: sent,
            bytes_from_upstream: request.written,
            ..Traffic::default()
        })
    })
}

/// What counters say that are true (registry 3), for a log whose beginning is gone; `None` where they may be those of a
/// registry 2, or of one that is no proxy. They count a manifest's bytes for `HEAD` as well.
pub(crate) fn counted(counters: [Counter; 2], log: &Log) -> Option<Traffic> {
    let [blobs, manifests] = counters;
    let both = |of: &dyn Fn(Counter) -> u64| of(blobs) + of(manifests);
    // Those of registry 2 never say that a blob was missing, and it logs what it fills; what is no proxy counts nothing.
    let true_ones = blobs.misses > 0 || (blobs.requests == 0 && manifests.requests > 0);
    (true_ones && (log.fills.is_empty() || log.of_registry_3)).then(|| {
        let (requests, misses) = (both(&|counter| counter.requests), both(&|counter| counter.misses));
        let (sent, fetched) = (both(&|counter| counter.bytes_pushed), both(&|counter| counter.bytes_pulled));
        let counted = Traffic {
            requests,
            hits: requests.saturating_sub(misses),
            misses,
            bytes_to_clients: sent,
            bytes_from_cache: sent.saturating_sub(fetched),
            bytes_from_upstream: fetched,
        };
        counted.plus(broken_off(log))
    })
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

    fn total<'a>(lines: impl Iterator<Item = &'a str>, counters: Option<[Counter; 2]>) -> Traffic {
        sum(&Log::read(lines, None), counters, &BTreeMap::new())
    }

    fn of(lines: &[String]) -> Traffic {
        total(lines.iter().map(String::as_str), None)
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
        let traffic = total(lines.iter().map(String::as_str), counters(&vars));
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
        let traffic = total(std::iter::once(line.as_str()), counters(&vars));
        assert_eq!((traffic.hits, traffic.misses, traffic.bytes_from_upstream), (0, 1, 415));
        let read = |line: &str| Log::read(std::iter::once(line), None);
        let counted = |line: &str| counted(counters(&vars).unwrap(), &read(line));
        assert_eq!(counted(&line).map(|traffic| traffic.misses), Some(1));
        let of = |blobs: u64, manifests: u64| {
            let counter = |requests| Counter { requests, ..Counter::default() };
            super::counted([counter(blobs), counter(manifests)], &read(&line))
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
    fn what_registry_3_broke_off_is_added_to_its_counters() {
        let vars = json!({"registry": {"proxy": {
            "blobs": {"Requests": 2, "Hits": 0, "Misses": 2, "BytesPulled": 3_245_728, "BytesPushed": 3_245_728},
            "manifests": {"Requests": 1, "Hits": 0, "Misses": 1, "BytesPulled": 416, "BytesPushed": 416}}}});
        // A manifest and a small blob, one whose client hung up, one of wrong bytes, and one that was cut.
        let (hung_up, cut) = (10_944_598, 1_048_660);
        let log = Log::read(include_str!("traffic/log/broken-3.log").lines(), None);
        let traffic = sum(&log, counters(&vars), &BTreeMap::new());
        assert_eq!((traffic.requests, traffic.hits, traffic.misses), (5, 0, 5));
        let bytes = 416 + 3_245_728 + hung_up + cut;
        assert_eq!((traffic.bytes_to_clients, traffic.bytes_from_upstream), (bytes, bytes));
        assert_eq!(counted(counters(&vars).unwrap(), &log), Some(traffic));
    }
}
