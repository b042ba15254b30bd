//! `cache-status`: what each proxy is, and what it did.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::app::App;
use crate::config::{Config, Mirror};
use crate::container::Container;
use crate::docker::{self, LABEL_IMAGE, Mode};
use crate::error::{Error, Finding, Result};
use crate::exec::Runner;
use crate::login::Login;
use crate::observe::{self, each};
use crate::plan::{self, Observed, differs};
use crate::traffic::{self, Traffic};
use crate::{cache, disk, registry, report};

/// Each mirror as it was observed, as JSON: the stable form of it.
pub fn rows(app: &App, mirrors: &[Mirror], observed: &Observed) -> Vec<Value> {
    let row = |mirror: &Mirror| {
        let container = observed.containers.get(&mirror.name);
        let proxy = container.filter(|container| container.mode() == Mode::Proxy);
        json!({
            "host": mirror.host,
            "container": mirror.name,
            "state": container.map_or("absent", |container| container.state.status.as_str()),
            "healthy": healthy(&app.config, mirror, observed),
            "mode": container.filter(|container| container.is_registry()).map(Container::mode),
            "image": container.map(Container::image),
            "image_origin": container.and_then(|container| container.label(LABEL_IMAGE)),
            // What it asks, not what it is to ask.
            "upstream": proxy.and_then(Container::upstream).unwrap_or(&mirror.upstream),
            "differs": container.map(|container| differs(mirror, container, observed)),
            "address": registry::address(mirror, app.config.bind),
        })
    };
    mirrors.iter().map(row).collect()
}

/// Whether a mirror's proxy is ours, is what the settings in force ask for, answers, and uses its account where it has
/// one.
pub fn healthy(config: &Config, mirror: &Mirror, observed: &Observed) -> bool {
    let container = observed.containers.get(&mirror.name);
    observed.answering.contains(&mirror.host)
        && matches!(observed.logins.get(&mirror.host), None | Some(Login::Used))
        && !observed.unusable.contains_key(&mirror.host)
        && container.is_some_and(|container| {
            observe::is_ours(config, mirror, container, &observed.listen)
                && differs(mirror, container, observed).is_empty()
        })
}

/// What a proxy did since it was last started.
#[derive(serde::Serialize)]
pub struct Figures {
    /// What the figures count from: when it was last started, or the oldest line of its log.
    pub since: Option<String>,
    /// The figures; absent where it does not run, or keeps no log that could be read.
    #[serde(flatten)]
    pub traffic: Option<Traffic>,
    /// Bytes on its volume; null where they cannot be read.
    #[serde(rename = "disk_bytes")]
    pub disk: Option<u64>,
}

/// What each proxy that is there did, by host.
///
/// # Errors
/// The engine does not answer.
pub fn figures(runner: &dyn Runner, mirrors: &[Mirror], observed: &Observed) -> Result<BTreeMap<String, Figures>> {
    let there: Vec<&Mirror> = mirrors.iter().filter(|m| observed.containers.contains_key(&m.name)).collect();
    let figures = each(&there, |mirror| -> Result<Figures> {
        let container = &observed.containers[&mirror.name];
        let running = container.state.status == "running";
        let disk = match container.store_path().and_then(disk::folder) {
            None if running => disk::from_inside(runner, &mirror.name)?,
            known => known,
        };
        if !running {
            return Ok(Figures { since: None, traffic: None, disk });
        }
        let (since, traffic) = traffic(runner, mirror, container)?;
        Ok(Figures { since: Some(since), traffic, disk })
    });
    figures.into_iter().map(|(host, figures)| Ok((host, figures?))).collect()
}

/// What a proxy did, and since when its log tells.
fn traffic(runner: &dyn Runner, mirror: &Mirror, container: &Container) -> Result<(String, Option<Traffic>)> {
    let started = container.state.started_at.clone();
    let output = runner.run(&docker::logs_since(&mirror.name, &started))?;
    // Where the log driver keeps nothing that could be read, there is nothing true to say.
    if !output.ok() {
        return Ok((started, None));
    }
    let log = String::from_utf8_lossy(&output.stderr);
    let vars = container.counters().and_then(|address| registry::debug_vars(&address));
    let counters = vars.as_ref().and_then(traffic::counters);
    let Some(since) = traffic::begins(&log, &started) else {
        return Ok((started, Some(traffic::sum(log.lines(), counters))));
    };
    // Where the beginning of the log was rotated away, true counters still go back to the start.
    match counters.and_then(|counters| traffic::counted(counters, &log)) {
        Some(traffic) => Ok((started, Some(traffic))),
        None => Ok((since, Some(traffic::sum(log.lines(), None)))),
    }
}

/// `cache-status`.
///
/// # Errors
/// The engine does not answer; or, with exit code 3, a proxy is not healthy.
pub fn status(app: &App, hosts: &[String]) -> Result<()> {
    let mirrors = app.config.select(hosts)?;
    let observed = observe::look(&app.processes, &app.config, &mirrors)?;
    let figures = figures(&app.processes, &mirrors, &observed)?;
    let mut rows = rows(app, &mirrors, &observed);
    for (row, mirror) in rows.iter_mut().zip(&mirrors) {
        row["figures"] = json!(figures.get(&mirror.host));
    }
    let flaws: Vec<Finding> = mirrors.iter().filter_map(|mirror| plan::flaw(mirror, &observed)).collect();
    let notes: String = flaws.iter().map(|flaw| format!("{}: {}\n", flaw.subject, flaw.problem)).collect();
    app.print(|| table(&rows) + &notes, || json!({ "proxies": rows }))?;
    cache::warn(app, &mirrors, &observed);
    let ill: Vec<&str> =
        mirrors.iter().filter(|m| !healthy(&app.config, m, &observed)).map(|mirror| mirror.host.as_str()).collect();
    if ill.is_empty() {
        return Ok(());
    }
    Err(Error::Negative(format!("not healthy: {} (`cargo xtask cache-up` brings them up)", ill.join(", "))))
}

/// Two tables, so that each fits a terminal of 80 columns.
fn table(rows: &[Value]) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let state = |row: &Value| match (row["healthy"] == true, row["state"].as_str()) {
        (true, _) => "healthy".to_owned(),
        (false, Some("running") | None) => "unhealthy".to_owned(),
        (false, Some(state)) => state.to_owned(),
    };
    let what = |row: &Value| {
        [text(&row["host"]), state(row), text(&row["mode"]), text(&row["address"]), text(&row["upstream"])]
    };
    let did = |row: &Value| {
        let figures = &row["figures"];
        let count = |name: &str| figures[name].as_u64().map_or("-".to_owned(), |count| count.to_string());
        let bytes = |name: &str| figures[name].as_u64().map_or("-".to_owned(), report::bytes);
        [
            text(&row["host"]),
            text(&row["image"]),
            count("requests"),
            count("hits"),
            count("misses"),
            bytes("bytes_to_clients"),
            bytes("bytes_from_upstream"),
            bytes("disk_bytes"),
        ]
    };
    let head = ["HOST", "IMAGE", "REQUESTS", "HITS", "MISSES", "SENT", "FETCHED", "DISK"];
    let tables = report::table(["HOST", "STATE", "MODE", "ADDRESS", "UPSTREAM"], rows.iter().map(what))
        + "\n"
        + &report::table(head, rows.iter().map(did));
    let origins: BTreeSet<String> = rows
        .iter()
        .filter_map(|row| Some(format!("image {}: {}\n", row["image"].as_str()?, row["image_origin"].as_str()?)))
        .collect();
    let offline = rows.iter().any(|row| row["mode"] == "offline");
    let note = if offline { "offline: serves what is cached, without its upstream\n" } else { "" };
    let differs = rows.iter().filter_map(|row| {
        let phrases: Vec<&str> = row["differs"].as_array()?.iter().filter_map(Value::as_str).collect();
        let host = row["host"].as_str()?;
        (!phrases.is_empty()).then(|| format!("{host} is not what the settings ask for: {}\n", phrases.join("; ")))
    });
    let notes = note.to_owned() + &differs.collect::<String>() + &origins.into_iter().collect::<String>();
    if notes.is_empty() { tables } else { format!("{tables}\n{notes}") }
}
