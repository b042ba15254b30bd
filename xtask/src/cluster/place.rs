//! Where a cluster's files are, and the record of what was asked for.

use std::collections::BTreeMap;
use std::fs::File;

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Finding, Result};
use crate::exec::{Cmd, Runner};
use crate::sample;
use crate::talosctl::{Provisioner, Version};

/// The first release that reads `TALOS_HOME`.
const READS_TALOS_HOME: (u64, u64) = (1, 12);

/// A cluster's folder, which nothing else has: talosctl removes all of its state directory with a docker cluster.
#[derive(Clone, Debug)]
pub struct Place {
    folder: Utf8PathBuf,
    name: String,
    home: Utf8PathBuf,
}

/// How far a create came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Progress {
    /// It was begun.
    Creating,
    /// talosctl said that it is done.
    Created,
}

/// What was asked for: the same again is the same cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// What makes its machines: `docker` or `qemu`.
    pub provisioner: String,
    /// Its network.
    pub cidr: String,
    /// How many control planes.
    pub controlplanes: u32,
    /// How many workers.
    pub workers: u32,
    /// The Talos of its nodes, where that was said.
    pub talos_version: Option<String>,
    /// The Kubernetes of its nodes, where that was said.
    pub kubernetes_version: Option<String>,
    /// Each mirror as `HOST=URL`.
    pub mirrors: Vec<String>,
    /// The user's own flags.
    pub extra: Vec<String>,
}

impl Asked {
    /// What another wish has different, each as one phrase.
    pub fn differs(&self, wanted: &Self) -> Vec<String> {
        let values = |asked: &Self| {
            let or_default = |value: Option<String>| value.unwrap_or_else(|| "the default".to_owned());
            [
                ("provisioner", asked.provisioner.clone()),
                ("--cidr", asked.cidr.clone()),
                ("--controlplanes", asked.controlplanes.to_string()),
                ("--workers", asked.workers.to_string()),
                ("--talos-version", or_default(asked.talos_version.clone())),
                ("--kubernetes-version", or_default(asked.kubernetes_version.clone())),
                ("mirrors", if asked.mirrors.is_empty() { "none".to_owned() } else { asked.mirrors.join(" ") }),
                ("flags", if asked.extra.is_empty() { "none".to_owned() } else { asked.extra.join(" ") }),
            ]
        };
        let pairs = values(self).into_iter().zip(values(wanted));
        pairs
            .filter(|(a, b)| a.1 != b.1)
            .map(|((what, is), (_, want))| format!("{what} is {is}, wanted {want}"))
            .collect()
    }
}

/// A cluster that was begun here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// How far it came.
    pub progress: Progress,
    /// The talosctl that made it.
    pub talosctl: String,
    /// What was asked for.
    #[serde(flatten)]
    pub asked: Asked,
    /// The contexts that it added to the talosconfig, with their endpoints.
    #[serde(default)]
    pub contexts: Vec<(String, Vec<String>)>,
    /// The names of the contexts that were there before.
    #[serde(default)]
    pub contexts_before: Vec<String>,
    /// The context that was in use before.
    #[serde(default)]
    pub previous_context: Option<String>,
    /// The engine's identities of its containers and networks, by name, as they were when talosctl had ended.
    #[serde(default)]
    pub identities: BTreeMap<String, String>,
    /// The mirrors that were not healthy when it was made, and so were left out.
    #[serde(default)]
    pub left_out: Vec<String>,
    /// The bridge that was not there before, and so is its own.
    #[serde(default)]
    pub bridge: Option<String>,
}

impl Record {
    /// What makes its machines.
    pub fn provisioner(&self) -> Provisioner {
        if self.asked.provisioner == Provisioner::Qemu.name() { Provisioner::Qemu } else { Provisioner::Docker }
    }
}

impl Place {
    /// The place of a cluster: `~/.talos-cache/ID`, ID from its name as talosctl makes it for a bridge. Short, since QEMU
    /// takes no socket whose path is longer than 107 bytes, and the cluster's name comes twice more in it.
    ///
    /// # Errors
    /// The name is none that talosctl and the engine both take, or there is no home directory.
    pub fn new(name: &str) -> Result<Self> {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > 40 || name.starts_with('-') || name.ends_with('-') || !name.chars().all(fits)
        {
            return Err(Error::Usage {
                problem: format!("{name:?} is no name for a cluster"),
                fix: "use up to 40 lower-case letters, digits and `-`, a letter or digit at both ends".to_owned(),
            });
        }
        let home = home()?;
        Ok(Self { folder: home.join(".talos-cache").join(id(name)), name: name.to_owned(), home })
    }

    /// The longest path of a socket that QEMU would make for a cluster of so many machines, where it is too long
    /// (Talos, `pkg/provision/providers/qemu/node.go`).
    pub fn too_long(&self, controlplanes: u32) -> Option<Utf8PathBuf> {
        let socket = format!("{}-controlplane-{controlplanes}.monitor", self.name);
        Some(self.talosctl_state().join(socket)).filter(|path| path.as_str().len() > 107)
    }

    /// The bridge of a QEMU cluster of this name (Talos, `pkg/provision/providers/qemu/network.go`).
    pub fn bridge(&self) -> String {
        format!("talos{}", id(&self.name))
    }

    /// Keeps other runs from the same cluster until what it gives back is dropped.
    ///
    /// # Errors
    /// Another run has it, or the folder cannot be written to.
    pub fn lock(&self) -> Result<File> {
        let path = self.home.join(".talos-cache").join(format!("{}.lock", id(&self.name)));
        let parent = path.parent().unwrap_or(&path);
        let file = std::fs::create_dir_all(parent).and_then(|()| File::create(&path));
        let file = file.map_err(Error::io(format!("write {path}")))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(std::fs::TryLockError::WouldBlock) => Err(Error::Blocked(vec![Finding::new(
                format!("cluster {}", self.name),
                "another run is making or removing it",
                "wait until that has ended, and look with `cargo xtask cluster-status`",
            )])),
            Err(std::fs::TryLockError::Error(error)) => Err(Error::io(format!("lock {path}"))(error)),
        }
    }

    /// The cluster's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The user's home directory.
    pub fn home(&self) -> &Utf8Path {
        &self.home
    }

    /// What talosctl is given as `--state`.
    pub fn state(&self) -> Utf8PathBuf {
        self.folder.join("s")
    }

    /// Where talosctl keeps this cluster's state, in the state directory that it is given.
    pub fn talosctl_state(&self) -> Utf8PathBuf {
        self.state().join(&self.name)
    }

    /// Whether talosctl keeps a cluster of that name that was made without this tool. Which release made it is not
    /// known, so that both folders are looked into: the one that every release has and, from 1.12 on, `TALOS_HOME`.
    pub fn elsewhere(&self) -> bool {
        let folders = [Some(self.home.join(".talos")), variable("TALOS_HOME")];
        folders.into_iter().flatten().any(|folder| folder.join("clusters").join(&self.name).exists())
    }

    /// The folder that talosctl is started in: from 1.12 on it writes machine configurations there.
    pub fn work(&self) -> Utf8PathBuf {
        self.folder.join("work")
    }

    fn record(&self) -> Utf8PathBuf {
        self.folder.join("cluster.json")
    }

    /// The record of this cluster, where there is one.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(&self) -> Result<Option<Record>> {
        let file = self.record();
        let text = match std::fs::read(&file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(Error::io(format!("read {file}")))?,
        };
        serde_json::from_slice(&text).map(Some).map_err(|error| Error::Tool {
            problem: format!("the record of the cluster, {file}, is damaged: {error}"),
            fix: format!("remove that file; `{}` removes the rest", self.cleanup()),
        })
    }

    /// Writes the record, whole or not at all.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn write(&self, record: &Record) -> Result<()> {
        let (file, beside) = (self.record(), self.folder.join(format!("cluster.json.{}", std::process::id())));
        let text =
            serde_json::to_vec_pretty(record).map_err(|error| Error::io(format!("write {file}"))(error.into()))?;
        std::fs::create_dir_all(self.work())
            .and_then(|()| std::fs::write(&beside, text))
            .and_then(|()| std::fs::rename(&beside, &file))
            .map_err(Error::io(format!("write {file}")))
    }

    /// Removes everything of it, as root where a virtual machine's files are root's.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn remove(&self, runner: &dyn Runner) -> Result<()> {
        match std::fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                let cmd = crate::engine::as_root_unasked(runner, &["rm", "-rf", "--", self.folder.as_str()])?;
                runner.run(&cmd)?.checked(&cmd, "remove it by hand").map(|_| ())
            }
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io(format!("remove {}", self.folder))(error))
            }
            _ => Ok(()),
        }
    }

    /// The command that removes what is left of the cluster.
    pub fn cleanup(&self) -> String {
        format!("cargo xtask cluster-down --name {}", self.name)
    }
}

/// The first eight digits of the digest of a name.
fn id(name: &str) -> String {
    sample::digest(name.as_bytes()).trim_start_matches("sha256:")[..8].to_owned()
}

fn variable(name: &str) -> Option<Utf8PathBuf> {
    std::env::var(name).ok().map(Utf8PathBuf::from).filter(|path| path.is_absolute())
}

fn home() -> Result<Utf8PathBuf> {
    variable("HOME").ok_or_else(|| Error::Tool {
        problem: "HOME is not set to a directory".to_owned(),
        fix: "set it: talosctl keeps its files there".to_owned(),
    })
}

/// The folder of talosctl's files: `TALOS_HOME` where that release reads it (from 1.12 on), else `~/.talos`.
pub fn talos_home(home: &Utf8Path, version: &Version) -> Utf8PathBuf {
    let named = if version.at_least(READS_TALOS_HOME) { variable("TALOS_HOME") } else { None };
    named.unwrap_or_else(|| home.join(".talos"))
}

/// The folder that the user is in, from which relative paths are meant.
///
/// # Errors
/// It is gone.
pub fn here() -> Result<Utf8PathBuf> {
    let here = std::env::current_dir().and_then(|here| {
        Utf8PathBuf::from_path_buf(here)
            .map_err(|here| std::io::Error::other(format!("{} is no UTF-8", here.display())))
    });
    here.map_err(Error::io("find out the working directory"))
}

/// Where boot files are kept: below `XDG_CACHE_HOME` or `~/.cache`.
pub fn boot_folder(home: &Utf8Path) -> Utf8PathBuf {
    variable("XDG_CACHE_HOME").unwrap_or_else(|| home.join(".cache")).join("talos-cache/boot")
}

/// Runs a command that changes something and has to succeed.
pub(super) fn done(runner: &dyn Runner, cmd: &Cmd, fix: &str) -> Result<()> {
    runner.run(cmd)?.checked(cmd, fix).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_named() {
        let asked = Asked {
            provisioner: "docker".into(),
            cidr: "10.5.0.0/24".into(),
            controlplanes: 1,
            workers: 1,
            talos_version: None,
            kubernetes_version: None,
            mirrors: vec!["docker.io=http://172.17.0.1:5000".into()],
            extra: Vec::new(),
        };
        assert_eq!(asked.differs(&asked), Vec::<String>::new());
        let wanted = Asked { workers: 2, mirrors: Vec::new(), ..asked.clone() };
        assert_eq!(
            asked.differs(&wanted),
            ["--workers is 1, wanted 2", "mirrors is docker.io=http://172.17.0.1:5000, wanted none"]
        );
    }

    #[test]
    fn the_bridge_has_the_name_that_talosctl_makes_and_its_sockets_fit() {
        let place = Place::new("talos-default").unwrap();
        assert_eq!(place.bridge(), "talos3d3a9d82");
        let long = Place { home: "/home/somebody".into(), folder: format!("/home/{}", "x".repeat(60)).into(), ..place };
        assert!(long.too_long(1).is_some());
        let short = Place { folder: "/home/somebody/.talos-cache/3d3a9d82".into(), ..long };
        assert_eq!(short.too_long(3), None);
    }

    #[test]
    fn a_name_stays_a_name() {
        for name in ["", "-a", "a-", "A", "a/b", "..", "a b", &"a".repeat(41)] {
            assert_eq!(Place::new(name).unwrap_err().code(), 2, "{name}");
        }
    }
}
