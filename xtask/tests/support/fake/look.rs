//! What the engine says of what is there.

use super::container::Container;
use super::engine::{Release, State};
use super::volume::Volume;
use super::words;
use xtask::docker::{self, LABEL_PREFIX};
use xtask::exec::{Cmd, Output};

impl State {
    pub fn list(&self) -> Output {
        let line = |container: &Container| {
            let label = container.ask.labels.get(LABEL_PREFIX).map_or("", String::as_str);
            format!("{}\t{label}\t{}\n", container.ask.name, container.ports())
        };
        words::said(self.containers.values().map(line).collect::<String>())
    }

    /// The containers that use a volume.
    pub fn users(&self, volume: &str) -> Output {
        let uses = |container: &&Container| container.ask.mounts.iter().any(|mount| mount.volume == volume);
        let users = self.containers.values().filter(uses).map(|container| format!("{}\n", container.ask.name));
        words::said(users.collect::<String>())
    }

    pub fn list_volumes(&self, cmd: &Cmd) -> Output {
        let filter = cmd.argv().last().unwrap().strip_prefix("label=").and_then(|label| label.split_once('='));
        assert_eq!(*cmd, docker::list_volumes(filter.map(|(_, prefix)| prefix)), "{}", cmd.shell());
        let label = |volume: &Volume| volume.labels.get(LABEL_PREFIX).cloned().unwrap_or_default();
        let wanted = |volume: &&(&String, &Volume)| filter.is_none_or(|(_, prefix)| label(volume.1) == prefix);
        let all: Vec<_> = self.volumes.iter().collect();
        let line =
            |(name, volume): &(&String, &Volume)| format!("{name}\t{}\t{}\n", label(volume), volume.folder.display());
        words::said(all.iter().filter(wanted).map(line).collect::<String>())
    }

    pub fn inspect(&self, names: &[&str]) -> Output {
        let there = names.iter().filter_map(|name| self.containers.get(*name));
        let folder = |volume: &str| self.folder(volume).display().to_string();
        let all: Vec<_> = there.map(|container| container.describe(self.release, folder)).collect();
        let absent = names.iter().filter(|name| !self.containers.contains_key(**name));
        let missed: String =
            absent.map(|name| format!("Error response from daemon: {}\n", words::no_container(name))).collect();
        let code = Some(i32::from(!missed.is_empty()));
        let stdout = format!("{:#}\n", serde_json::json!(all)).into_bytes();
        Output { code, stdout, stderr: missed.into_bytes() }
    }

    pub fn inspect_image(&self, image: &str) -> Output {
        match (!self.is_absent(image), self.release) {
            (true, _) => words::said(format!("sha256:{:064x}\n", image.len())),
            (false, Release::Docker20) => words::daemon(&format!("no such image: {image}: No such image: {image}")),
            (false, Release::Docker29) => words::daemon(&format!("No such image: {image}")),
        }
    }
}
