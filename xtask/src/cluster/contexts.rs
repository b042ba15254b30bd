//! The contexts that a cluster adds to the talosconfig: found when it is made, taken out when it goes.

use std::collections::BTreeSet;

use crate::cluster::place::{Place, Progress, Record};
use crate::cluster::talos::Talos;
use crate::error::{Error, Result};
use crate::exec::Runner;
use crate::talosctl::context::{self, Context};

/// All contexts; `None` where talosctl cannot say.
///
/// # Errors
/// talosctl cannot be started.
pub fn list(runner: &dyn Runner) -> Result<Option<Vec<Context>>> {
    // As the user, never through sudo: whoever reads the talosconfig first, creates it.
    let output = runner.run(&context::list())?;
    Ok(output.ok().then(|| context::read_list(&output.text())))
}

/// Those of a cluster's name that were not there before.
pub fn added(before: &[Context], after: &[Context], cluster: &str) -> Vec<(String, Vec<String>)> {
    let known: BTreeSet<&str> = before.iter().map(|context| context.name.as_str()).collect();
    let new = context::of_cluster(after, cluster).filter(|context| !known.contains(context.name.as_str()));
    new.map(|context| (context.name.clone(), context.endpoints.clone())).collect()
}

/// The contexts to take out. Those that were recorded and still lead to where they led; where a create was cut short
/// before it recorded any, those of the cluster's name that were not there before and lead to its addresses alone.
pub fn of(contexts: &[Context], cluster: &str, record: Option<&Record>, leads: &dyn Fn(&str) -> bool) -> Vec<String> {
    let recorded = |context: &Context| {
        record.is_some_and(|r| r.contexts.iter().any(|(n, at)| *n == context.name && *at == context.endpoints))
    };
    let finished = record.is_some_and(|record| record.progress == Progress::Created || !record.contexts.is_empty());
    let new = |context: &Context| !record.is_some_and(|record| record.contexts_before.contains(&context.name));
    let led = |context: &Context| !context.endpoints.is_empty() && context.endpoints.iter().all(|at| leads(at));
    let own = |context: &&Context| recorded(context) || (!finished && new(context) && led(context));
    context::of_cluster(contexts, cluster).filter(own).map(|context| context.name.clone()).collect()
}

/// Takes contexts out of the talosconfig; gives back those that talosctl cannot take out. Where the one in use is among
/// them, the one that was in use before the cluster is again.
///
/// # Errors
/// talosctl cannot be started.
pub fn remove(
    runner: &dyn Runner,
    talos: &Talos,
    names: &[String],
    previous: Option<&str>,
    place: &Place,
) -> Result<Vec<String>> {
    let contexts = list(runner)?.unwrap_or_default();
    let in_use = contexts.iter().any(|context| context.current && names.contains(&context.name));
    let removes = |name: &String| context::remove(&talos.version, name);
    if in_use && names.iter().any(|name| removes(name).is_some()) {
        // talosctl passes over the current context in silence.
        let stays = |context: &&Context| !names.contains(&context.name);
        let before = contexts.iter().filter(stays).find(|context| Some(context.name.as_str()) == previous);
        let cmd = match before.filter(|_| previous.is_some()) {
            Some(before) => context::switch(&before.name),
            None => {
                let file = place.work().join("no-context.yaml");
                std::fs::create_dir_all(place.work())
                    .and_then(|()| std::fs::write(&file, context::NONE_CURRENT))
                    .map_err(Error::io(format!("write {file}")))?;
                context::merge(&file)
            }
        };
        let _ = runner.run(&cmd)?;
    }
    for cmd in names.iter().filter_map(removes) {
        let _ = runner.run(&cmd)?;
    }
    let left: BTreeSet<String> = list(runner)?.unwrap_or_default().into_iter().map(|context| context.name).collect();
    Ok(names.iter().filter(|name| left.contains(*name)).cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(name: &str, endpoints: &[&str]) -> Context {
        let endpoints = endpoints.iter().map(|&at| at.to_owned()).collect();
        Context { current: false, name: name.to_owned(), endpoints }
    }

    #[test]
    fn only_contexts_that_lead_to_the_cluster_are_its_own() {
        let contexts = [
            context("demo", &["10.5.0.2"]),
            context("demo-1", &["192.0.2.1"]),
            context("demo-2", &[]),
            context("demo-x", &["10.5.0.2"]),
            context("other", &["10.5.0.2"]),
        ];
        assert_eq!(of(&contexts, "demo", None, &|endpoint| endpoint == "10.5.0.2"), ["demo"]);
        let before = [context("demo", &["10.5.0.2"])];
        let added = added(&before, &contexts, "demo");
        let names: Vec<&str> = added.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["demo-1", "demo-2"]);
    }
}
