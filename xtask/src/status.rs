//! `cache-status`: what each proxy is, and what it did.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::app::App;
use crate::config::{Config, Mirror};
use crate::container::Container;
use crate::docker::{self, LABEL_IMAGE, LABEL_PREFIX, Mode};
use crate::error::{Error, Finding, Result};
use crate::exec::Runner;
use crate::observe::{self, each};
use crate::plan::{self, Observed, differs};
use crate::traffic::log::{self, Log};
use crate::traffic::{self, Traffic};
use crate::{cache, disk, login, registry, report};

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
            "upstream": proxy.and_then(Container::shown_upstream).unwrap_or_else(|| mirror.upstream.clone()),
            "differs": container.map(|container| differs(mirror, container, observed)),
            "address": registry::address(mirror, app.config.bind),
            "flaw": plan::flaw(mirror, observed).map(|flaw| json!({ "problem": flaw.problem, "fix": flaw.fix })),
        })
    };
    mirrors.iter().map(row).collect()
}

/// Whether a mirror's proxy is ours, is what the settings in force ask for, answers, and uses its account where it has
/// one.
pub fn healthy(config: &Config, mirror: &Mirror, observed: &Observed) -> bool {
    let container = observed.containers.get(&mirror.name);
    observed.answering.contains(&mirror.host)
        && plan::flaw(mirror, observed).is_none()
        && container.is_some_and(|container| {
            observe::is_ours(config, mirror, container, &observed.listen)
                && differs(mirror, container, observed).is_empty()
        })
}

/// What a proxy did since it was last started.
#[derive(Default, serde::Serialize)]
pub struct Figures {
    /// What the figures count from: when it was last started, or the oldest line of its log.
    pub since: Option<String>,
    /// Whether older lines of its log were rotated away, so that the figures do not count from its start.
    pub log_rotated: bool,
    /// Whether something that was asked for found no room on its volume since it was started, and finds none now.
    pub volume_full: bool,
    /// The figures; absent where it does not run, or keeps no log that could be read.
    #[serde(flatten)]
    pub traffic: Option<Traffic>,
    /// Bytes of the files in its store; null where they cannot be read, or nothing says where it is.
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
        let disk = disk::store(runner, container)?;
        if container.state.status != "running" {
            return Ok(Figures { disk, ..Figures::default() });
        }
        Ok(Figures { disk, ..traffic(runner, container)? })
    });
    figures.into_iter().map(|(host, figures)| Ok((host, figures?))).collect()
}

/// What a proxy that runs did, and since when its log tells.
fn traffic(runner: &dyn Runner, container: &Container) -> Result<Figures> {
    let started = container.state.started_at.clone();
    let output = runner.run(&docker::logs_since(container.name(), &login::since(&started)))?;
    // Where the log driver keeps nothing that could be read, there is nothing true to say.
    if !output.ok() {
        return Ok(Figures { since: Some(started), ..Figures::default() });
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let text = log::of_this_start(&text, &started);
    let begins = traffic::begins(text, &started);
    let log = Log::read(text.lines(), begins.as_deref());
    let (sizes, volume_full) = in_store(runner, container, &log)?;
    let vars = container.counters().and_then(|address| registry::debug_vars(&address));
    let counters = vars.as_ref().and_then(traffic::counters);
    // Where the beginning of the log was rotated away, true counters still go back to the start.
    let counted = begins.is_some().then(|| counters.and_then(|counters| traffic::counted(counters, &log))).flatten();
    let (since, traffic) = match (begins, counted) {
        (Some(_), Some(traffic)) => (None, traffic),
        (Some(since), None) => (Some(since), traffic::sum(&log, None, &sizes)),
        (None, _) => (None, traffic::sum(&log, counters, &sizes)),
    };
    // A registry 3 that logs no fills, and whose counters cannot be asked, does not say what it passed on.
    let silent = log.of_registry_3 && log.fills.is_empty() && counters.is_none() && container.mode() == Mode::Proxy;
    let traffic = Some(traffic).filter(|_| !silent);
    let log_rotated = since.is_some();
    Ok(Figures { since: Some(since.unwrap_or(started)), log_rotated, volume_full, traffic, disk: None })
}

/// What a look into the store has to add to a log: the sizes that it does not tell, and whether there is still no room.
fn in_store(runner: &dyn Runner, container: &Container, log: &Log) -> Result<(BTreeMap<String, u64>, bool)> {
    let (unknown, size) = (traffic::unknown_sizes(log), log.did_not_fit());
    if unknown.is_empty() && size.is_none() {
        return Ok((BTreeMap::new(), false));
    }
    let Some(place) = disk::place(runner, container)? else { return Ok((BTreeMap::new(), false)) };
    let room = if size.is_some() { disk::room(runner, container, &place)? } else { None };
    let full = size.zip(room).is_some_and(|(size, room)| room < size);
    Ok((disk::sizes(runner, container, &place, &unknown)?, full))
}

/// `cache-status`.
///
/// # Errors
/// The engine does not answer; or, with exit code 3, a proxy is not healthy.
pub fn status(app: &App, hosts: &[String]) -> Result<()> {
    let mirrors = app.config.select(hosts)?;
    let observed = observe::look_at_health(&app.processes, &app.config, &mirrors)?;
    let figures = figures(&app.processes, &mirrors, &observed)?;
    let mut rows = rows(app, &mirrors, &observed);
    let full = |mirror: &Mirror| figures.get(&mirror.host).is_some_and(|figures| figures.volume_full);
    for (row, mirror) in rows.iter_mut().zip(&mirrors) {
        row["figures"] = json!(figures.get(&mirror.host));
        row["healthy"] = json!(row["healthy"] == true && !full(mirror));
    }
    let flaws: Vec<Finding> = mirrors.iter().filter_map(|mirror| plan::flaw(mirror, &observed)).collect();
    let notes: String = flaws.iter().map(|flaw| format!("{}: {}\n", flaw.subject, flaw.problem)).collect();
    app.print(|| table(&rows) + &notes, || json!({ "proxies": rows }))?;
    cache::warn(app, &mirrors, &observed);
    let mut problems = unhealthy(&app.config, &mirrors, &observed, &flaws);
    let full: Vec<&str> = mirrors.iter().filter(|mirror| full(mirror)).map(|mirror| mirror.host.as_str()).collect();
    if !full.is_empty() {
        problems.push(format!("volume full: {} (make room where the engine keeps its volumes)", full.join(", ")));
    }
    if problems.is_empty() { Ok(()) } else { Err(Error::Negative(problems.join("; "))) }
}

/// What is not healthy, with what makes it so: each kind in one phrase.
fn unhealthy(config: &Config, mirrors: &[Mirror], observed: &Observed, flaws: &[Finding]) -> Vec<String> {
    let of = |wanted: &dyn Fn(&Mirror) -> bool| -> Vec<&str> {
        let ill = mirrors.iter().filter(|mirror| !healthy(config, mirror, observed) && wanted(mirror));
        ill.map(|mirror| mirror.host.as_str()).collect()
    };
    let flawed = |mirror: &Mirror| flaws.iter().any(|flaw| flaw.subject == mirror.host);
    let by_hand = |mirror: &Mirror| {
        let container = observed.containers.get(&mirror.name);
        container.is_some_and(|container| {
            let adoptable = container.upstream().is_some() && container.kept_elsewhere().is_none();
            container.label(LABEL_PREFIX).is_none() && adoptable && !differs(mirror, container, observed).is_empty()
        })
    };
    let flaws = of(&|mirror| flawed(mirror));
    let made_by_hand = of(&|mirror| !flawed(mirror) && by_hand(mirror));
    let others = of(&|mirror| !flawed(mirror) && !by_hand(mirror));
    let adopt =
        format!("`cargo xtask cache-up --adopt {}` replaces them and keeps their caches", made_by_hand.join(" "));
    [
        (others, "not healthy", "`cargo xtask cache-up` starts or repairs them"),
        (made_by_hand, "made by hand and different", adopt.as_str()),
        (flaws, "not healthy", "`cargo xtask cache-up` says what to do"),
    ]
    .into_iter()
    .filter(|(hosts, ..)| !hosts.is_empty())
    .map(|(hosts, what, fix)| format!("{what}: {} ({fix})", hosts.join(", ")))
    .collect()
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
    let of_figures = rows.iter().flat_map(|row| {
        let (host, figures) = (row["host"].as_str().unwrap_or_default(), &row["figures"]);
        let full = format!("{host}: volume full; what is not cached yet passes through or fails, and is not stored\n");
        let since = text(&figures["since"]);
        let rotated = format!("{host}: figures count since {since}; older log lines were rotated away\n");
        let notes = [(full, &figures["volume_full"]), (rotated, &figures["log_rotated"])];
        notes.into_iter().filter(|(_, so)| **so == true).map(|(note, _)| note)
    });
    let notes = note.to_owned()
        + &differs.collect::<String>()
        + &of_figures.collect::<String>()
        + &origins.into_iter().collect::<String>();
    if notes.is_empty() { tables } else { format!("{tables}\n{notes}") }
}
