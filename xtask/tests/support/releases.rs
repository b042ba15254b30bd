//! The releases of talosctl that are known.
#![allow(missing_docs, clippy::unwrap_used)]

use xtask::talosctl::Version;

/// The newest tag of every series, oldest first.
pub fn releases() -> Vec<Version> {
    let all: serde_json::Value = serde_json::from_str(include_str!("../data/talosctl-flags.json")).unwrap();
    let tags = all.as_object().unwrap().iter().filter(|(name, _)| *name != "HEAD");
    let mut releases: Vec<Version> =
        tags.map(|(_, release)| Version::parse(release["tag"].as_str().unwrap()).unwrap()).collect();
    releases.sort_by_key(Version::minor);
    assert_eq!(releases.len(), 23);
    releases
}
