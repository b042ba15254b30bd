//! What a log adds up to by itself, where there are no counters that are true; pure.
//!
//! Registry 2 sends a missing blob to the client while it fetches it once more for its store, and says when that has
//! ended. Whether a request that began before was passed on, its log tells for an upstream without authentication: it
//! then turns to the upstream twice, or once where the blob has come into the store in between. For other upstreams it
//! does not tell. There such a request is a miss, so that hits are a lower bound and bytes from upstream an upper bound.

use std::collections::{BTreeMap, BTreeSet};

use super::Traffic;
use super::log::{Ending, Fill, Log, Request, Stored};

/// A log, with what helps to add it up.
pub struct Tally<'a> {
    log: &'a Log,
    /// The sizes of what is in the store, by digest, as far as they were looked for.
    sizes: &'a BTreeMap<String, u64>,
    /// What was stored, or was to be, by what requests ask for.
    fills: BTreeMap<&'a str, Vec<&'a Fill>>,
    /// The most that was written of each blob, by digest.
    written: BTreeMap<&'a str, u64>,
}

impl<'a> Tally<'a> {
    pub fn new(log: &'a Log, sizes: &'a BTreeMap<String, u64>) -> Self {
        let mut fills: BTreeMap<&str, Vec<&Fill>> = BTreeMap::new();
        for fill in &log.fills {
            fills.entry(fill.key.as_str()).or_default().push(fill);
        }
        let mut written: BTreeMap<&str, u64> = BTreeMap::new();
        for request in log.requests.iter().filter(|request| request.blob) {
            let most = written.entry(request.reference.as_str()).or_default();
            *most = (*most).max(request.written);
        }
        Self { log, sizes, fills, written }
    }

    /// All of it, hits left out.
    pub fn traffic(&self) -> Traffic {
        let mut traffic = Traffic::default();
        let mut passed_on = 0;
        for request in &self.log.requests {
            let sent = if request.sent { request.written } else { 0 };
            traffic.requests += 1;
            traffic.bytes_to_clients += sent;
            if request.blob && self.missed(request) {
                traffic.misses += 1;
                traffic.bytes_from_upstream += request.written;
                passed_on += sent;
            }
        }
        let manifests = self.manifests();
        for (n, fill) in self.log.fills.iter().enumerate() {
            match manifests.get(&n) {
                Some(request) => {
                    traffic.misses += 1;
                    traffic.bytes_from_upstream += request.written;
                    passed_on += if request.sent { request.written } else { 0 };
                }
                // Registry 3 stores what it sends to the client.
                None if self.log.of_registry_3 || fill.end == Stored::NotBegun => {}
                None => traffic.bytes_from_upstream += self.size(fill),
            }
        }
        traffic.bytes_from_cache = traffic.bytes_to_clients.saturating_sub(passed_on);
        traffic
    }

    /// The digests of what was stored whose size no request tells, since none for it has ended well.
    pub fn unknown_sizes(&self) -> BTreeSet<String> {
        let manifests = self.manifests();
        let ended = self.log.requests.iter().filter(|request| request.end == Ending::Whole && request.blob);
        let told: BTreeSet<String> = ended.filter(|request| self.missed(request)).map(Request::key).collect();
        let unknown = |n: &usize, fill: &Fill| {
            fill.end == Stored::Whole && !manifests.contains_key(n) && !told.contains(&fill.key)
        };
        let unknown = self.log.fills.iter().enumerate().filter(|(n, fill)| unknown(n, fill));
        unknown.map(|(_, fill)| fill.digest().to_owned()).collect()
    }

    /// Whether a request for a blob was passed on to the upstream, or may have been.
    fn missed(&self, request: &Request) -> bool {
        if matches!(request.end, Ending::Broken | Ending::Refused) {
            // What is in the store is served to its end, as far as a log goes.
            return true;
        }
        if self.log.tells_all_asked {
            return self.log.asked.get(&request.id).is_some_and(|times| *times > 1);
        }
        let ends = self.fills.get(request.key().as_str());
        ends.is_some_and(|ends| ends.iter().all(|fill| fill.end != Stored::Whole || request.started < fill.time))
    }

    /// The size of a blob that was to be stored: as it is in the store, or the most that anybody got of it.
    fn size(&self, fill: &Fill) -> u64 {
        let written = self.written.get(fill.digest()).copied().unwrap_or_default();
        self.sizes.get(fill.digest()).copied().unwrap_or(written)
    }

    /// The requests during which a manifest was stored, by the number of that fill. A request stores one at most, the
    /// one that it asked for by its digest or by a tag.
    fn manifests(&self) -> BTreeMap<usize, &Request> {
        let mut taken = BTreeSet::new();
        let mut found = BTreeMap::new();
        for by_digest in [true, false] {
            for (n, fill) in self.log.fills.iter().enumerate() {
                if found.contains_key(&n) || self.log.blobs.contains(&fill.key) {
                    continue;
                }
                let during = |(at, request): &(usize, &Request)| {
                    !request.blob
                        && !taken.contains(at)
                        && (request.started..=request.ended).contains(&fill.time)
                        && request.repository == fill.repository()
                        && if by_digest { request.reference == fill.digest() } else { !request.reference.contains(':') }
                };
                let request = self.log.requests.iter().enumerate().find(during);
                if let Some((at, request)) = request {
                    taken.insert(at);
                    found.insert(n, request);
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABORTED: &str = include_str!("log/aborted-2.log");
    const WRONG: &str = include_str!("log/upstream-wrong-2.log");
    const FULL: &str = include_str!("log/full-2.log");

    fn sum(text: &str, sizes: &[(&str, u64)]) -> [u64; 4] {
        let log = Log::read(text.lines(), None);
        let sizes = sizes.iter().map(|(digest, size)| ((*digest).to_owned(), *size)).collect();
        let traffic = Tally::new(&log, &sizes).traffic();
        [traffic.requests, traffic.misses, traffic.bytes_to_clients, traffic.bytes_from_upstream]
    }

    /// A log of registry 2 as it is where the upstream gives out tokens, which are then asked for without a word.
    fn with_token(text: &str) -> String {
        let asked = |line: &&str| !line.contains("Challenge established");
        text.lines().filter(asked).map(|line| format!("{line}\n")).collect()
    }

    #[test]
    fn a_blob_whose_client_hung_up_is_a_request_and_a_miss_and_its_fill_counts() {
        let (mib, part) = (40 << 20, 9_502_720);
        for text in [ABORTED.to_owned(), with_token(ABORTED)] {
            assert_eq!(sum(&text, &[("sha256:19de16", mib)]), [2, 2, 416 + part, 416 + part + mib]);
            // Where the store cannot be asked, as much as the client got.
            assert_eq!(sum(&text, &[]), [2, 2, 416 + part, 416 + part + part]);
            let log = Log::read(text.lines(), None);
            let unknown = Tally::new(&log, &BTreeMap::new()).unknown_sizes();
            assert_eq!(unknown.into_iter().collect::<Vec<_>>(), ["sha256:19de16"]);
        }
    }

    #[test]
    fn a_fill_whose_request_goes_on_lowers_nothing() {
        let goes_on: String = with_token(ABORTED)
            .lines()
            .filter(|line| !line.contains("/blobs/"))
            .fold(String::new(), |all, line| all + line + "\n");
        assert_eq!(sum(&goes_on, &[]), [1, 1, 416, 416]);
        assert_eq!(sum(&goes_on, &[("sha256:19de16", 1000)]), [1, 1, 416, 1416]);
    }

    #[test]
    fn what_the_upstream_sent_wrong_or_cut_is_a_miss_and_was_fetched_twice() {
        let (wrong, cut) = (3_145_728, 1_048_646);
        for text in [WRONG.to_owned(), with_token(WRONG)] {
            assert_eq!(sum(&text, &[]), [2, 2, wrong + cut, 2 * (wrong + cut)]);
        }
    }

    #[test]
    fn what_found_no_room_is_a_miss_and_was_fetched_for_the_client() {
        let (large, small) = (9_437_184, 8_388_608);
        for text in [FULL.to_owned(), with_token(FULL)] {
            // The last fill did not begin.
            assert_eq!(sum(&text, &[]), [3, 3, 2 * large + small, 4 * large + small]);
        }
    }
}
