//! The cache tasks: up, logs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use camino::Utf8Path;
use serde_json::json;

use crate::app::App;
use crate::cli::Up;
use crate::config::{Config, Mirror, Offline};
use crate::container::Container;
use crate::docker::{self, Mode};
use crate::error::{Error, Finding, Result, of_signal};
use crate::exec::{Cmd, ReadOnly, Runner};
use crate::observe::{self, each, together};
use crate::plan::{self, Observed, Plan, Tried};
use crate::reconcile::{Done, Ground, Reconcile};
use crate::{image, report, small_file, status};

/// `cache-up`.
///
/// # Errors
/// Something stands in the way, or a proxy does not come up.
pub fn up(app: &App, hosts: &[String], up: &Up) -> Result<()> {
    let mirrors = app.config.select(hosts)?;
    if let Some(archive) = &up.image_archive
        && let Some(problem) = small_file::not_regular(archive)
    {
        let fix = "name a file as `docker save` writes it".to_owned();
        return Err(Error::Usage { problem: format!("cannot read --image-archive {archive}: {problem}"), fix });
    }
    if app.dry_run {
        let plan = plan(app, &mirrors, up)?;
        return app.print(|| report::plan(&plan), || json!({ "steps": plan.steps }));
    }
    let done = bring_up(app, &mirrors, up)?;
    let mode = |mirror: &Mirror| done.observed.containers.get(&mirror.name).map(Container::mode);
    app.print(
        || report::addresses(&app.config, &mirrors, |mirror| mode(mirror) == Some(Mode::Offline)),
        || json!({ "steps": done.steps, "proxies": status::rows(app, &mirrors, &done.observed) }),
    )
}

fn asked(app: &App, up: &Up) -> Config {
    let offline = if up.offline { Offline::Always } else { app.config.offline };
    Config { offline, ..app.config.clone() }
}

/// What [`bring_up`] would do.
///
/// # Errors
/// The engine does not answer, or something stands in the way.
pub fn plan(app: &App, mirrors: &[Mirror], up: &Up) -> Result<Plan> {
    crate::tool::Tool::Docker.require()?;
    let reconcile = Reconcile {
        runner: &ReadOnly(&app.processes),
        term: app.term,
        config: &asked(app, up),
        mirrors,
        adopt: up.adopt,
        timeout: Duration::from_secs(up.timeout),
    };
    let (mut plan, observed) = reconcile.plan(&Tried::default())?;
    warn(app, mirrors, &observed);
    let wrong = if plan.blockers.is_empty() && plan.steps.is_empty() { &mut plan.flaws } else { &mut plan.blockers };
    let wrong = std::mem::take(wrong);
    if wrong.is_empty() { Ok(plan) } else { Err(Error::Blocked(wrong)) }
}

/// Says what a user should know of proxies that work.
pub fn warn(app: &App, mirrors: &[Mirror], observed: &Observed) {
    for warning in plan::warnings(mirrors, observed) {
        app.term.warn(&warning);
    }
}

/// Brings mirrors up, their images included.
///
/// # Errors
/// Something stands in the way, or a proxy does not come up.
pub fn bring_up(app: &App, mirrors: &[Mirror], up: &Up) -> Result<Done> {
    crate::tool::Tool::Docker.require()?;
    let reconcile = Reconcile {
        runner: &app.processes,
        term: app.term,
        config: &asked(app, up),
        mirrors,
        adopt: up.adopt,
        timeout: Duration::from_secs(up.timeout),
    };
    let done = reconcile.up(|plan, observed| ground(&reconcile, up.image_archive.as_deref(), plan, observed))?;
    warn(app, mirrors, &done.observed);
    Ok(done)
}

/// What has to be so before the first container is created: an engine that is new enough, and the images.
///
/// # Errors
/// The engine does not answer or is too old, or an image cannot be had.
pub fn ground(run: &Reconcile, archive: Option<&Utf8Path>, plan: &Plan, observed: &Observed) -> Result<Ground> {
    let (runner, mirrors) = (run.runner, run.mirrors);
    let made: Vec<&Mirror> = mirrors.iter().filter(|mirror| plan.makes(&mirror.host)).collect();
    let images: BTreeSet<&str> = made.iter().map(|mirror| mirror.image.as_str()).collect();
    let (absent, (version, volumes)) = together(
        || image::absent(runner, &images),
        || together(|| observe::check_version(runner), || observe::volumes(runner, None)),
    );
    version?;
    let volumes = volumes?;
    for mirror in &made {
        let uses = |container: &Container| container.store() == Some(&mirror.name);
        let first = !observed.containers.get(&mirror.name).is_some_and(uses);
        if first && volumes.get(&mirror.name).is_some_and(|volume| volume.prefix.is_empty()) {
            run.term.warn(&format!(
                "Using existing volume {}, which this tool did not create; cache-clean will not remove it",
                mirror.name
            ));
        }
    }
    // How an image came is known for good by the containers that were made from it at the time.
    let mut origins: BTreeMap<String, String> = observed
        .containers
        .values()
        .filter_map(|container| Some((container.image().to_owned(), container.label(docker::LABEL_IMAGE)?.to_owned())))
        .collect();
    origins.extend(image::provide(runner, run.term, &absent?, archive)?);
    let fresh = made
        .iter()
        .filter(|mirror| !observed.containers.contains_key(&mirror.name) && !volumes.contains_key(&mirror.name))
        .map(|mirror| mirror.name.clone())
        .collect();
    Ok(Ground::new(origins, fresh))
}

/// The mirrors' containers that are ours to stop or remove.
pub(crate) fn ours<'a>(config: &Config, mirrors: &'a [Mirror], observed: &Observed) -> Vec<&'a Mirror> {
    let mine = |mirror: &&Mirror| {
        let container = observed.containers.get(&mirror.name);
        container.is_some_and(|container| observe::is_ours(config, mirror, container, &observed.listen))
    };
    mirrors.iter().filter(mine).collect()
}

/// Prints what would be run where this is a dry run; whether it is one.
pub(crate) fn only_printed(app: &App, commands: &[Cmd]) -> Result<bool> {
    if !app.dry_run {
        return Ok(false);
    }
    let lines: Vec<String> = commands.iter().map(Cmd::shell).collect();
    let text = || match &lines[..] {
        [] => "nothing to do\n".to_owned(),
        lines => lines.iter().map(|line| format!("would run {line}\n")).collect(),
    };
    app.print(text, || json!({ "would_run": lines }))?;
    Ok(true)
}

/// Says the result of a task: as JSON, or as a line of progress.
pub(crate) fn say(app: &App, text: &str, json: impl FnOnce() -> serde_json::Value) -> Result<()> {
    if app.json {
        return app.print(String::new, json);
    }
    app.term.step(text);
    Ok(())
}

/// `cache-logs`.
///
/// # Errors
/// The engine does not answer, a proxy is absent, or a signal ended it.
pub fn logs(app: &App, hosts: &[String], follow: bool, tail: u32) -> Result<()> {
    let mirrors = app.config.select(hosts)?;
    let observed = observe::look(&app.processes, &app.config, &mirrors)?;
    let there: Vec<&Mirror> = mirrors.iter().filter(|m| observed.containers.contains_key(&m.name)).collect();
    if there.is_empty() {
        let problem = "no proxy is there to show the log of".to_owned();
        return Err(Error::Blocked(vec![Finding::new("cache-logs", problem, "cargo xtask cache-up")]));
    }
    let width = there.iter().map(|mirror| mirror.host.len()).max().unwrap_or(0);
    let refused = Mutex::new(None);
    let results = each(&there, |mirror| {
        app.processes.lines(&docker::follow(&mirror.name, &tail.to_string(), follow), &mut |line| {
            let text = if app.json {
                format!("{}\n", json!({ "host": mirror.host, "line": line }))
            } else {
                format!("{:width$} | {line}\n", mirror.host)
            };
            crate::app::offer(&text).unwrap_or_else(|error| {
                *refused.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(error);
                false
            })
        })
    });
    if let Some(error) = refused.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        return Err(error);
    }
    let mut failed = Vec::new();
    for (host, result) in results {
        match result {
            // Whoever follows ends it with Ctrl-C.
            Err(Error::Interrupted { signal, .. }) if follow => return Err(Error::Ended { code: of_signal(signal) }),
            Ok(true) => {}
            Ok(false) => {
                let problem = "its log cannot be read; the engine's word for it is above";
                failed.push(Finding::new(
                    host,
                    problem,
                    "see which log driver the engine has, and whether the proxy is there",
                ));
            }
            Err(other) => return Err(other),
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(Error::Blocked(failed)) }
}
