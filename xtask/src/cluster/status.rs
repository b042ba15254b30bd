//! `cluster-status`: what there is of a cluster.

use serde_json::json;

use crate::app::App;
use crate::cluster::existing::{self, Existing, Node};
use crate::cluster::place::Place;
use crate::cluster::talos::Talos;
use crate::error::{Error, Result};
use crate::exec::{Output, Runner};
use crate::report;
use crate::talosctl::show::Shown;
use crate::talosctl::{self, Provisioner};

/// `cluster-status`.
///
/// # Errors
/// The engine does not answer; with exit code 3, the cluster is not there or not whole.
pub fn status(app: &App, name: &str) -> Result<()> {
    let place = Place::new(name)?;
    let record = place.read()?;
    let provisioner = existing::provisioner(record.as_ref(), &place);
    let objects = existing::observe(&app.processes, &place, record.as_ref(), provisioner)?;
    let existing = existing::classify(record.clone(), &objects);
    let (word, lacks) = match &existing {
        Existing::Nothing => ("absent", Vec::new()),
        Existing::Whole(_) => ("whole", Vec::new()),
        Existing::Half(_, there) => ("not whole", there.clone()),
        Existing::Foreign(there) => ("made without this tool", there.clone()),
    };
    let shown = match &existing {
        Existing::Whole(record) => show(app, &place, record.provisioner()),
        _ => None,
    };
    let nodes: Vec<&Node> = objects.nodes(name);
    let address = |node: &Node| {
        let nodes = shown.iter().flat_map(|shown| &shown.nodes);
        nodes.filter(|shown| shown.name == node.name).flat_map(|shown| shown.addresses.clone()).collect::<Vec<_>>()
    };
    let json = || {
        let nodes: Vec<_> =
            nodes.iter().map(|n| json!({"name": n.name, "up": n.up, "addresses": address(n)})).collect();
        json!({
            "name": name, "state": word, "seen": lacks, "nodes": nodes, "made_as": record,
            "endpoint": shown.as_ref().and_then(|shown| shown.endpoint.clone()),
        })
    };
    let text = || {
        let mut text = format!("cluster {name}: {word}\n");
        if let Some(record) = &record {
            let asked = &record.asked;
            text += &format!("made of {} by talosctl {}, network {}\n", asked.provisioner, record.talosctl, asked.cidr);
            asked.mirrors.iter().for_each(|mirror| {
                let out = record.left_out.iter().any(|host| mirror.starts_with(&format!("{host}=")));
                let note = if out { " (left out: it was not healthy)" } else { "" };
                text += &format!("mirror {mirror}{note}\n");
            });
        }
        if !objects.strangers.is_empty() {
            text += &format!("made without this tool: {}\n", objects.strangers.join(", "));
        }
        lacks.iter().for_each(|phrase| text += &format!("{phrase}\n"));
        if nodes.is_empty() {
            return text;
        }
        let row = |node: &&Node| {
            [node.name.clone(), if node.up { "up" } else { "down" }.to_owned(), address(node).join(", ")]
        };
        text + &report::table(["NODE", "STATE", "ADDRESS"], nodes.iter().map(row))
    };
    app.print(text, json)?;
    if word == "whole" {
        return Ok(());
    }
    let fix = match existing {
        Existing::Nothing => "`cargo xtask cluster` makes one".to_owned(),
        Existing::Foreign(_) => "remove it as it was made".to_owned(),
        _ => format!("`{}` removes it", place.cleanup()),
    };
    Err(Error::Negative(format!("cluster {name} is {word} ({fix})")))
}

/// What talosctl itself shows, which it does without being root; nothing where there is no talosctl, or it shows nothing.
fn show(app: &App, place: &Place, provisioner: Provisioner) -> Option<Shown> {
    let talos = Talos::find(&app.processes, provisioner).ok()?;
    let cmd = talos.equipped(talosctl::show(provisioner, place.name(), &place.state()));
    let output = app.processes.run(&cmd).ok().filter(Output::ok)?;
    Shown::read(&cmd.shell(), &output.text()).ok()
}
