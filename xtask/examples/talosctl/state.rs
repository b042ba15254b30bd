//! A cluster, and the state directory in which talosctl keeps what it knows of it.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::pflag::Parsed;

/// A machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// `controlplane`, `worker` or `join`.
    pub kind: String,
    /// Its address.
    pub address: String,
}

/// A cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// `docker` or `qemu`.
    pub provisioner: String,
    /// Its network.
    pub cidr: String,
    /// This host's address in it.
    pub gateway: String,
    /// Its machines.
    pub nodes: Vec<Node>,
}

/// The name and the state directory that a command is about.
pub fn subject(parsed: &Parsed) -> Result<(String, PathBuf), String> {
    let name = parsed.get("name").unwrap_or("talos-default").to_owned();
    let home = || std::env::var("HOME").map(|home| PathBuf::from(home).join(".talos/clusters"));
    match parsed.get("state") {
        Some(state) => Ok((name, PathBuf::from(state))),
        None => Ok((name, home().map_err(|_| "stand-in: neither --state nor HOME")?)),
    }
}

/// An operating system's refusal, in Go's words.
pub fn os_error(verb: &str, path: &Path) -> impl FnOnce(std::io::Error) -> String {
    let path = path.display().to_string();
    let verb = verb.to_owned();
    move |error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("{verb} {path}: no such file or directory"),
        _ => format!("{verb} {path}: {error}"),
    }
}

/// Makes the directory of a cluster that must have none.
pub fn reserve(state: &Path, name: &str) -> Result<(), String> {
    let directory = state.join(name);
    if directory.exists() {
        let directory = directory.display();
        return Err(format!(
            "state directory \"{directory}\" already exists, is the cluster \"{name}\" already running?"
        ));
    }
    std::fs::create_dir_all(&directory).map_err(os_error("mkdir", &directory))
}

impl Cluster {
    /// Writes `state.yaml`, which says that the machines have been made.
    pub fn save(&self, state: &Path) -> Result<(), String> {
        let file = state.join(&self.name).join("state.yaml");
        let record = serde_json::to_string(self).map_err(|error| format!("stand-in: {error}"))?;
        std::fs::write(&file, format!("# {record}\n{}", self.yaml())).map_err(os_error("open", &file))
    }

    /// Reads `state.yaml` back, or says like the real one why it cannot.
    pub fn load(state: &Path, name: &str) -> Result<Self, String> {
        let directory = state.join(name);
        if !directory.exists() {
            return Err(format!("cluster \"{name}\" not found"));
        }
        let file = directory.join("state.yaml");
        let text = std::fs::read_to_string(&file)
            .map_err(|error| format!("failed to read cluster state: {}", os_error("open", &file)(error)))?;
        let record = text.lines().next().and_then(|line| line.strip_prefix("# ")).unwrap_or_default();
        serde_json::from_str(record).map_err(|error| format!("error unmarshalling state file: {error}"))
    }

    fn yaml(&self) -> String {
        let Self { name, provisioner, cidr, gateway, .. } = self;
        let mut text = format!("provisionername: {provisioner}\n");
        if provisioner == "qemu" {
            let digest = xtask::sample::digest(name.as_bytes());
            text += &format!("bridgename: talos{}\n", &digest["sha256:".len()..][..8]);
        }
        let _ = write!(
            text,
            "clusterinfo:\n  clustername: {name}\n  network:\n    name: {name}\n    cidrs:\n      - {cidr}\n    \
             gatewayaddrs:\n      - {gateway}\n    mtu: 1500\n  nodes:\n"
        );
        for node in &self.nodes {
            let Node { name, kind, address } = node;
            let _ = writeln!(text, "    - name: {name}\n      type: {kind}\n      ips:\n        - {address}");
        }
        text
    }
}
