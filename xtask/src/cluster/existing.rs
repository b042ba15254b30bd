//! What is there of a cluster: its objects on the engine, its files, its processes, and what that makes of it.

use std::collections::BTreeSet;

use camino::Utf8Path;

use crate::cluster::place::{Place, Progress, Record};
use crate::error::{Finding, Result};
use crate::exec::{Cmd, Runner};
use crate::observe::lines;
use crate::talosctl::Provisioner;

/// A node as the engine or the system knows it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Whether it runs.
    pub up: bool,
}

/// Everything that is there of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Objects {
    /// Containers with the labels of the cluster.
    pub containers: Vec<Node>,
    /// Networks with the labels of the cluster.
    pub networks: Vec<String>,
    /// Whether talosctl made a state directory.
    pub state: bool,
    /// Whether it holds a `state.yaml`, which talosctl writes at the end.
    pub state_file: bool,
    /// The virtual machines and helpers that talosctl recorded, by pid file.
    pub processes: Vec<Node>,
    /// Whether talosctl has a cluster of that name in its own state directory.
    pub elsewhere: bool,
}

/// What that makes of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Existing {
    /// There is nothing.
    Nothing,
    /// It was made here to its end, and all of it is there.
    Whole(Record),
    /// It was begun here, or has lost something: what there is, as phrases.
    Half(Option<Record>, Vec<String>),
    /// It was made without this tool.
    Foreign(Vec<String>),
}

const OWNED: &str = "label=talos.owned=true";

fn by_label(kind: &[&str], name: &str, format: &str) -> Cmd {
    let cluster = format!("label=talos.cluster.name={name}");
    Cmd::read("docker").args(kind.iter().copied()).args(["--filter", OWNED, "--filter", &cluster, "--format", format])
}

/// Looks for everything of a cluster. Without a client of the engine there are no containers to find.
///
/// # Errors
/// The engine does not answer.
pub fn observe(runner: &dyn Runner, place: &Place) -> Result<Objects> {
    let mut objects = Objects::default();
    if crate::tool::Tool::Docker.path().is_some() {
        // `Status` is a phrase: `Up 3 minutes`, `Up 3 minutes (Paused)`, `Created`, `Exited (0) ...`.
        let containers = by_label(&["container", "ls", "--all"], place.name(), "{{.Names}}\t{{.Status}}");
        let node = |line: String| {
            let (name, status) = line.split_once('\t')?;
            Some(Node { name: name.to_owned(), up: status.starts_with("Up") && !status.contains("Paused") })
        };
        objects.containers = lines(runner, &containers)?.into_iter().filter_map(node).collect();
        objects.containers.sort_by(|a, b| a.name.cmp(&b.name));
        objects.networks = lines(runner, &by_label(&["network", "ls"], place.name(), "{{.Name}}"))?;
    }
    let state = place.talosctl_state();
    objects.state = state.exists();
    objects.state_file = state.join("state.yaml").exists();
    objects.processes = processes(&state);
    objects.elsewhere = place.elsewhere().exists();
    Ok(objects)
}

/// The processes that talosctl recorded in a cluster's state: a file `NAME.pid` each.
fn processes(state: &Utf8Path) -> Vec<Node> {
    let Ok(entries) = state.read_dir_utf8() else { return Vec::new() };
    let node = |path: &Utf8Path| {
        let name = path.file_name()?.strip_suffix(".pid")?.to_owned();
        let pid: u32 = std::fs::read_to_string(path).ok()?.trim().parse().ok()?;
        Some(Node { name, up: Utf8Path::new("/proc").join(pid.to_string()).exists() })
    };
    let mut nodes: Vec<Node> = entries.flatten().filter_map(|entry| node(entry.path())).collect();
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    nodes
}

impl Objects {
    fn nothing(&self) -> bool {
        self.containers.is_empty() && self.networks.is_empty() && !self.state
    }

    /// What there is, as phrases.
    pub fn phrases(&self) -> Vec<String> {
        let mut phrases = Vec::new();
        let listed = |nodes: &[Node]| {
            let node = |node: &Node| if node.up { node.name.clone() } else { format!("{} (not running)", node.name) };
            nodes.iter().map(node).collect::<Vec<_>>().join(", ")
        };
        if !self.containers.is_empty() {
            phrases.push(format!("containers {}", listed(&self.containers)));
        }
        if !self.networks.is_empty() {
            phrases.push(format!("network {}", self.networks.join(", ")));
        }
        if !self.processes.is_empty() {
            phrases.push(format!("processes {}", listed(&self.processes)));
        }
        if self.state {
            phrases.push(
                if self.state_file { "a state directory" } else { "a state directory without state.yaml" }.into(),
            );
        }
        phrases
    }

    /// What a cluster that was made to its end lacks now, as phrases.
    fn lacks(&self, record: &Record) -> Vec<String> {
        let mut lacks = Vec::new();
        let down = |nodes: &[Node]| nodes.iter().filter(|n| !n.up).map(|n| n.name.clone()).collect::<Vec<_>>();
        match record.provisioner() {
            Provisioner::Docker => {
                if self.containers.is_empty() {
                    lacks.push("it has no containers any more".to_owned());
                }
                if self.networks.is_empty() {
                    lacks.push("it has no network any more".to_owned());
                }
                lacks.extend(Some(down(&self.containers)).filter(|d| !d.is_empty()).map(not_running));
            }
            Provisioner::Qemu => {
                if !self.state_file {
                    lacks.push("its state.yaml is gone".to_owned());
                }
                lacks.extend(Some(down(&self.processes)).filter(|d| !d.is_empty()).map(not_running));
            }
        }
        lacks
    }
}

#[allow(clippy::needless_pass_by_value)]
fn not_running(names: Vec<String>) -> String {
    format!("not running: {}", names.join(", "))
}

/// Says what the cluster is, from the record and from what is there; pure.
pub fn classify(record: Option<Record>, objects: &Objects) -> Existing {
    match record {
        None if objects.elsewhere => {
            let mut phrases = vec!["a state directory of talosctl's own".to_owned()];
            phrases.extend(objects.phrases());
            Existing::Foreign(phrases)
        }
        None if objects.nothing() => Existing::Nothing,
        None => Existing::Half(None, objects.phrases()),
        Some(record) if record.progress == Progress::Created => {
            let mut lacks = objects.lacks(&record);
            if lacks.is_empty() {
                return Existing::Whole(record);
            }
            lacks.extend(objects.phrases());
            Existing::Half(Some(record), lacks)
        }
        Some(_) if objects.nothing() => Existing::Nothing,
        Some(record) => {
            let mut phrases = vec!["its creation was not finished".to_owned()];
            phrases.extend(objects.phrases());
            Existing::Half(Some(record), phrases)
        }
    }
}

/// Why a new cluster cannot be made where there is one, unless it is to be recreated; `None` where it can.
pub fn in_the_way(existing: &Existing, place: &Place, recreate: bool) -> Option<Finding> {
    let name = place.name();
    match existing {
        Existing::Nothing | Existing::Whole(_) => None,
        Existing::Half(..) if recreate => None,
        Existing::Half(_, there) => Some(Finding::new(
            format!("cluster {name}"),
            format!("it is there and not whole: {}", there.join("; ")),
            format!("--recreate removes that and starts over; `{}` only removes it", place.cleanup()),
        )),
        Existing::Foreign(there) => Some(Finding::new(
            format!("cluster {name}"),
            format!("it was made without this tool: {}", there.join("; ")),
            format!("use another --name, or remove it as it was made: talosctl cluster destroy --name {name}"),
        )),
    }
}

/// The names of containers whose labels say that they are of a cluster, for removal by label alone.
pub fn container_names(objects: &Objects) -> Vec<String> {
    objects.containers.iter().map(|node| node.name.clone()).collect::<BTreeSet<_>>().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::place::Asked;

    fn record(provisioner: &str, progress: Progress) -> Record {
        let asked = Asked {
            provisioner: provisioner.into(),
            cidr: "10.5.0.0/24".into(),
            controlplanes: 1,
            workers: None,
            talos_version: None,
            kubernetes_version: None,
            mirrors: Vec::new(),
            extra: Vec::new(),
        };
        Record { progress, talosctl: "v1.9.6".into(), asked, contexts: Vec::new() }
    }

    fn docker(up: bool) -> Objects {
        let containers = vec![Node { name: "x-controlplane-1".into(), up }];
        Objects { containers, networks: vec!["x".into()], ..Objects::default() }
    }

    #[test]
    fn a_cluster_is_whole_when_it_was_finished_and_all_of_it_runs() {
        let created = record("docker", Progress::Created);
        assert_eq!(classify(Some(created.clone()), &docker(true)), Existing::Whole(created.clone()));
        let Existing::Half(_, there) = classify(Some(created.clone()), &docker(false)) else { panic!() };
        assert_eq!(there[0], "not running: x-controlplane-1");
        let Existing::Half(_, gone) = classify(Some(created), &Objects::default()) else { panic!() };
        assert_eq!(gone[0], "it has no containers any more");
    }

    #[test]
    fn running_nodes_and_a_state_file_are_not_a_cluster_that_was_finished() {
        let objects = Objects { state: true, state_file: true, ..docker(true) };
        let Existing::Half(_, there) = classify(Some(record("docker", Progress::Creating)), &objects) else { panic!() };
        assert_eq!(there[0], "its creation was not finished");
    }

    #[test]
    fn half_made_ones_are_told_from_nothing_and_from_foreign_ones() {
        assert_eq!(classify(None, &Objects::default()), Existing::Nothing);
        assert_eq!(classify(Some(record("qemu", Progress::Creating)), &Objects::default()), Existing::Nothing);
        let state = Objects { state: true, ..Objects::default() };
        assert_eq!(classify(None, &state), Existing::Half(None, vec!["a state directory without state.yaml".into()]));
        assert!(matches!(classify(None, &docker(true)), Existing::Half(None, _)));
        let elsewhere = Objects { elsewhere: true, ..docker(true) };
        assert!(matches!(classify(None, &elsewhere), Existing::Foreign(_)));
    }

    #[test]
    fn virtual_machines_that_ended_are_noticed() {
        let processes = vec![Node { name: "x-controlplane-1".into(), up: false }];
        let objects = Objects { state: true, state_file: true, processes, ..Objects::default() };
        let Existing::Half(_, there) = classify(Some(record("qemu", Progress::Created)), &objects) else { panic!() };
        assert_eq!(there[0], "not running: x-controlplane-1");
    }
}
