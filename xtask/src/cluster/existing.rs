//! What is there of a cluster: its objects on the engine, its files, its processes, and what that makes of it.

use std::collections::BTreeMap;

use camino::Utf8Path;

use crate::cluster::place::{Place, Progress, Record};
use crate::cluster::processes;
use crate::error::{Error, Finding, Result};
use crate::exec::{Cmd, Runner};
use crate::observe::rows;
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
    /// The engine's identities of both, by name (`network NAME`).
    pub identities: BTreeMap<String, String>,
    /// Whether talosctl made a state directory.
    pub state: bool,
    /// Whether it holds a `state.yaml`, which talosctl writes at the end.
    pub state_file: bool,
    /// What carries the labels of the cluster and is not on its record: somebody else's.
    pub strangers: Vec<String>,
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
    let list = Cmd::read("docker").args(kind.iter().copied()).args(["--no-trunc", "--filter", OWNED]);
    list.args(["--filter", &cluster, "--format", format])
}

/// Looks for everything of a cluster. One of virtual machines has nothing on the engine, which is not asked then.
///
/// # Errors
/// The engine does not answer, and the cluster is on it.
pub fn observe(
    runner: &dyn Runner,
    place: &Place,
    record: Option<&Record>,
    provisioner: Provisioner,
) -> Result<Objects> {
    let state = place.talosctl_state();
    let mut objects = Objects {
        state: is_there(&state)?,
        state_file: is_there(&state.join("state.yaml"))?,
        processes: processes::recorded(&state).map_err(shut(&state))?,
        elsewhere: place.elsewhere(),
        ..Objects::default()
    };
    if provisioner == Provisioner::Docker {
        crate::tool::Tool::Docker.require()?;
        for object in labelled(runner, place.name())? {
            objects.add(object, record);
        }
    }
    Ok(objects)
}

/// Whether a path is there: that it may not be looked at is no answer.
fn is_there(path: &Utf8Path) -> Result<bool> {
    path.try_exists().map_err(shut(path))
}

/// talosctl makes the state of virtual machines as root, and a umask may have kept everybody else out of it.
fn shut(path: &Utf8Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |error| Error::Tool {
        problem: format!("cannot look at {path}: {error}"),
        fix: format!("let everybody look into it: sudo chmod -R a+rX {}", path.parent().unwrap_or(&path)),
    }
}

/// What the engine has with the labels of a cluster.
struct Labelled {
    /// Its name; that of a network has the word in front.
    name: String,
    id: String,
    /// Whether it runs; `None` for a network.
    up: Option<bool>,
}

fn labelled(runner: &dyn Runner, cluster: &str) -> Result<Vec<Labelled>> {
    let mut found = Vec::new();
    // `Status` is a phrase: `Up 3 minutes`, `Up 3 minutes (Paused)`, `Created`, `Exited (0) ...`.
    let containers = by_label(&["container", "ls", "--all"], cluster, "{{.Names}}\t{{.ID}}\t{{.Status}}");
    for [name, id, status] in rows(runner, &containers)? {
        found.push(Labelled { name, id, up: Some(status.starts_with("Up") && !status.contains("Paused")) });
    }
    for [name, id] in rows(runner, &by_label(&["network", "ls"], cluster, "{{.Name}}\t{{.ID}}"))? {
        found.push(Labelled { name: format!("network {name}"), id, up: None });
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Whether the engine has a cluster of that name; no where it cannot say.
pub fn is_on_the_engine(runner: &dyn Runner, cluster: &str) -> bool {
    crate::tool::Tool::Docker.path().is_some() && labelled(runner, cluster).is_ok_and(|found| !found.is_empty())
}

/// What made the machines of a cluster: what the record says, else what is there.
pub fn provisioner(record: Option<&Record>, place: &Place) -> Provisioner {
    if let Some(record) = record {
        return record.provisioner();
    }
    let state = place.talosctl_state();
    let text = std::fs::read_to_string(state.join("state.yaml")).unwrap_or_default();
    let written = text.lines().any(|line| line.trim() == "provisionername: qemu");
    // Only virtual machines are made as root, and so may be shut.
    let none = processes::recorded(&state).is_ok_and(|processes| processes.is_empty());
    if written || !none { Provisioner::Qemu } else { Provisioner::Docker }
}

impl Objects {
    /// Takes an object in. One whose identity is not on record is somebody else's, where identities are on record.
    fn add(&mut self, object: Labelled, record: Option<&Record>) {
        let Labelled { name, id, up } = object;
        if record
            .is_some_and(|record| !record.identities.is_empty() && !record.identities.values().any(|own| *own == id))
        {
            self.strangers.push(name);
            return;
        }
        match up {
            Some(up) => self.containers.push(Node { name: name.clone(), up }),
            None => self.networks.push(name.trim_start_matches("network ").to_owned()),
        }
        self.identities.insert(name, id);
    }

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
        let gone: Vec<&str> =
            record.identities.keys().filter(|name| !self.identities.contains_key(*name)).map(String::as_str).collect();
        if !gone.is_empty() {
            lacks.push(format!("gone: {}", gone.join(", ")));
        }
        if record.provisioner() == Provisioner::Qemu && !self.state_file {
            lacks.push("its state.yaml is gone".to_owned());
        }
        let down = self.containers.iter().chain(&self.processes).filter(|node| !node.up);
        let down: Vec<&str> = down.map(|node| node.name.as_str()).collect();
        if !down.is_empty() {
            lacks.push(format!("not running: {}", down.join(", ")));
        }
        lacks
    }

    /// The machines, without talosctl's helpers beside them.
    pub fn nodes(&self, cluster: &str) -> Vec<&Node> {
        let is_machine = |node: &&Node| {
            let rest = node.name.strip_prefix(cluster).and_then(|rest| rest.strip_prefix('-'));
            let role = rest.and_then(|rest| rest.rsplit_once('-')).map(|(role, _)| role);
            role.is_some_and(|role| ["controlplane", "master", "worker"].contains(&role))
        };
        self.containers.iter().chain(&self.processes).filter(is_machine).collect()
    }
}

/// Says what the cluster is, from the record and from what is there; pure.
pub fn classify(record: Option<Record>, objects: &Objects) -> Existing {
    // A create that was killed has left no identities: what is there may be anybody's.
    let record = record.filter(|record| {
        record.provisioner() == Provisioner::Qemu || !record.identities.is_empty() || objects.identities.is_empty()
    });
    let Some(record) = record else { return without_record(objects) };
    let mut there = match record.progress {
        Progress::Created => objects.lacks(&record),
        Progress::Creating if objects.nothing() => return Existing::Nothing,
        Progress::Creating => vec!["its creation was not finished".to_owned()],
    };
    if there.is_empty() {
        return Existing::Whole(record);
    }
    there.extend(objects.phrases());
    Existing::Half(Some(record), there)
}

fn without_record(objects: &Objects) -> Existing {
    // Where talosctl has one of that name in its own folder, what carries its labels is of that one.
    if objects.elsewhere {
        let mut there = vec!["a state directory of talosctl's own".to_owned()];
        there.extend(objects.phrases());
        return Existing::Foreign(there);
    }
    if objects.nothing() { Existing::Nothing } else { Existing::Half(None, objects.phrases()) }
}

/// Why what is there may not be removed; `None` where it may. Without a record of ours it may only be removed by a user
/// who names it: the default name is talosctl's own, too.
pub fn not_ours(existing: &Existing, place: &Place, named: bool) -> Option<Finding> {
    let subject = format!("cluster {}", place.name());
    match existing {
        Existing::Half(None, there) if !named => Some(Finding::new(
            subject,
            format!("this tool has no record of it: {}", there.join("; ")),
            format!("if it is to go all the same, name it: --name {}", place.name()),
        )),
        Existing::Foreign(there) => Some(Finding::new(
            subject,
            format!("it was made without this tool: {}", there.join("; ")),
            "use another --name, or remove it as it was made (talosctl 1.9 and later removes every cluster in \
             ~/.talos/clusters along with one of docker)",
        )),
        _ => None,
    }
}

/// Why a new cluster cannot be made where there is one, unless it is to be recreated; `None` where it can.
pub fn in_the_way(
    existing: &Existing,
    objects: &Objects,
    place: &Place,
    recreate: bool,
    named: bool,
) -> Option<Finding> {
    let whole_and_wanted = matches!(existing, Existing::Whole(_)) && !recreate;
    if !objects.strangers.is_empty() && !whole_and_wanted {
        let problem = format!("one of that name was made without this tool: {}", objects.strangers.join(", "));
        return Some(Finding::new(format!("cluster {}", place.name()), problem, "use another --name"));
    }
    match existing {
        Existing::Half(_, there) if !recreate => Some(Finding::new(
            format!("cluster {}", place.name()),
            format!("it is there and not whole: {}", there.join("; ")),
            format!("--recreate removes that and starts over; `{}` only removes it", place.cleanup()),
        )),
        _ => not_ours(existing, place, named),
    }
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
            workers: 1,
            talos_version: None,
            kubernetes_version: None,
            mirrors: Vec::new(),
            extra: Vec::new(),
        };
        let identities = if provisioner == "docker" { identities() } else { BTreeMap::new() };
        Record {
            progress,
            talosctl: "v1.9.6".into(),
            asked,
            contexts: Vec::new(),
            contexts_before: Vec::new(),
            previous_context: None,
            identities,
            left_out: Vec::new(),
            bridge: None,
        }
    }

    fn identities() -> BTreeMap<String, String> {
        [("x-controlplane-1", "abc"), ("network x", "def")].map(|(a, b)| (a.to_owned(), b.to_owned())).into()
    }

    fn docker(up: bool) -> Objects {
        let containers = vec![Node { name: "x-controlplane-1".into(), up }];
        Objects { containers, networks: vec!["x".into()], identities: identities(), ..Objects::default() }
    }

    #[test]
    fn a_cluster_is_whole_when_it_was_finished_and_all_of_it_runs() {
        let created = record("docker", Progress::Created);
        assert_eq!(classify(Some(created.clone()), &docker(true)), Existing::Whole(created.clone()));
        let Existing::Half(_, there) = classify(Some(created.clone()), &docker(false)) else { panic!() };
        assert_eq!(there[0], "not running: x-controlplane-1");
        let Existing::Half(_, gone) = classify(Some(created), &Objects::default()) else { panic!() };
        assert_eq!(gone[0], "gone: network x, x-controlplane-1");
    }

    #[test]
    fn what_is_not_on_record_is_somebody_elses() {
        let created = record("docker", Progress::Created);
        let mut objects = Objects::default();
        let object = |name: &str, id: &str, up| Labelled { name: name.into(), id: id.into(), up };
        objects.add(object("x-controlplane-1", "xyz", Some(true)), Some(&created));
        objects.add(object("network x", "def", None), Some(&created));
        assert_eq!(
            (&objects.strangers[..], &objects.networks[..]),
            (&["x-controlplane-1".to_owned()][..], &["x".to_owned()][..])
        );
        let Existing::Half(_, there) = classify(Some(created), &objects) else { panic!() };
        assert_eq!(there, ["gone: x-controlplane-1", "network x"]);
        let place = Place::new("x").unwrap();
        assert!(
            in_the_way(&Existing::Nothing, &objects, &place, true, true).unwrap().problem.contains("without this tool")
        );
        // Of a create that was killed nothing is on record, so that all of it may be anybody's.
        let mut killed = record("docker", Progress::Creating);
        killed.identities.clear();
        assert!(matches!(classify(Some(killed), &docker(true)), Existing::Half(None, _)));
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
        let place = Place::new("x").unwrap();
        let half = classify(None, &docker(true));
        assert!(not_ours(&half, &place, false).is_some() && not_ours(&half, &place, true).is_none());
        assert!(not_ours(&classify(None, &elsewhere), &place, true).is_some());
    }

    #[test]
    fn virtual_machines_that_ended_are_noticed() {
        let processes = vec![Node { name: "x-controlplane-1".into(), up: false }];
        let objects = Objects { state: true, state_file: true, processes, ..Objects::default() };
        let Existing::Half(_, there) = classify(Some(record("qemu", Progress::Created)), &objects) else { panic!() };
        assert_eq!(there[0], "not running: x-controlplane-1");
    }
}
