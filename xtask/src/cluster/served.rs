//! What the caches did for the boot of a cluster.

use std::collections::BTreeMap;

use crate::app::App;
use crate::config::Mirror;
use crate::error::Result;
use crate::status::Figures;
use crate::traffic::Traffic;
use crate::{observe, report, status};

/// What each mirror's proxy has done so far; nothing where the proxies are on another machine.
///
/// # Errors
/// The engine does not answer.
pub fn figures(app: &App, mirrors: &[Mirror]) -> Result<BTreeMap<String, Figures>> {
    if mirrors.is_empty() || app.config.cluster_address.is_some() {
        return Ok(BTreeMap::new());
    }
    let observed = observe::look(&app.processes, &app.config, mirrors)?;
    status::figures(&app.processes, mirrors, &observed)
}

/// What each mirror did in between, in the order of the configuration.
pub fn traffic(
    mirrors: &[Mirror],
    before: &BTreeMap<String, Figures>,
    after: &BTreeMap<String, Figures>,
) -> Vec<(String, Traffic)> {
    let of = |mirror: &Mirror| {
        let then = before.get(&mirror.host).and_then(|figures| figures.traffic).unwrap_or_default();
        Some((mirror.host.clone(), after.get(&mirror.host)?.traffic?.since(then)))
    };
    mirrors.iter().filter_map(of).collect()
}

/// What the caches did for this boot.
pub fn told(traffic: &[(String, Traffic)]) -> String {
    if traffic.is_empty() {
        return String::new();
    }
    let (idle, busy): (Vec<_>, Vec<_>) = traffic.iter().partition(|(_, traffic)| traffic.requests == 0);
    let row = |(host, traffic): &(String, Traffic)| {
        [
            host.clone(),
            traffic.requests.to_string(),
            traffic.hits.to_string(),
            report::bytes(traffic.bytes_from_cache),
            report::bytes(traffic.bytes_from_upstream),
        ]
    };
    let head = ["MIRROR", "REQUESTS", "HITS", "FROM CACHE", "FROM UPSTREAM"];
    let table = if busy.is_empty() { String::new() } else { report::table(head, busy.into_iter().map(row)) };
    let idle: Vec<&str> = idle.iter().map(|(host, _)| host.as_str()).collect();
    if idle.is_empty() { table } else { format!("{table}no request: {}\n", idle.join(", ")) }
}
