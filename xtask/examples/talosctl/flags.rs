//! The commands and flags of a release, as recorded from each release's own.

use std::collections::BTreeMap;

use serde::Deserialize;
use xtask::talosctl::Version;

const FLAGS: &str = include_str!("../../tests/data/talosctl-flags.json");
const IMAGES: &str = include_str!("../../tests/data/talosctl-images.json");

/// A command's flags.
#[derive(Default, Deserialize)]
pub struct Command {
    /// Their types by name.
    pub flags: BTreeMap<String, String>,
    /// Their one-letter forms.
    pub shorthand: BTreeMap<String, String>,
    /// Those that draw a warning.
    pub deprecated: Vec<String>,
    /// Those that 1.11 refuses for QEMU.
    #[serde(default)]
    pub docker_only: Vec<String>,
    /// Those that 1.11 refuses for docker.
    #[serde(default)]
    pub qemu_only: Vec<String>,
}

#[derive(Deserialize)]
struct Recorded {
    commands: BTreeMap<String, Command>,
}

/// One release.
pub struct Release {
    commands: BTreeMap<String, Command>,
    key: String,
}

impl Release {
    /// Finds the series of a version; one that is newer than all of them is the development branch.
    pub fn of(version: &Version) -> Result<Self, String> {
        let (major, minor) = version.minor();
        let key = if version.at_least((1, 15)) { "HEAD".to_owned() } else { format!("v{major}.{minor}") };
        let mut all: BTreeMap<String, Recorded> =
            serde_json::from_str(FLAGS).map_err(|error| format!("stand-in: talosctl-flags.json: {error}"))?;
        let recorded = all.remove(&key).ok_or(format!("stand-in: no flags are recorded for {key}"))?;
        let mut commands = recorded.commands;
        // The record has what concerns clusters; these are the commands for contexts.
        for (name, flags) in [
            ("config", &["talosconfig"][..]),
            ("config contexts", &["talosconfig"]),
            ("config context", &["talosconfig"]),
            ("config merge", &["talosconfig"]),
            ("config remove", &["talosconfig", "noconfirm", "dry-run"]),
        ] {
            if name != "config remove" || version.at_least((1, 4)) {
                commands.insert(name.to_owned(), context_command(flags));
            }
        }
        if version.at_least((1, 6)) {
            commands.insert("images".to_owned(), Command::default());
        }
        if version.at_least((1, 12)) {
            // Still there under its old name.
            commands.insert("image default".to_owned(), Command::default());
        }
        Ok(Self { commands, key })
    }

    /// The longest command that the first words are, and the words behind it.
    pub fn command<'a>(&self, argv: &'a [String]) -> (String, &'a [String]) {
        let count = argv.iter().take_while(|word| !word.starts_with('-')).count();
        let path = |count: usize| argv[..count].join(" ");
        let found = (1..=count).rev().find(|count| self.commands.contains_key(&path(*count))).unwrap_or(0);
        (path(found), &argv[found..])
    }

    /// The flags of a command.
    pub fn flags(&self, path: &str) -> &Command {
        &self.commands[path]
    }

    /// Whether there is a command of that name.
    pub fn has(&self, path: &str) -> bool {
        self.commands.contains_key(path)
    }

    /// The images that the release lists.
    pub fn images(&self) -> Result<Vec<String>, String> {
        let mut all: BTreeMap<String, Vec<String>> =
            serde_json::from_str(IMAGES).map_err(|error| format!("stand-in: talosctl-images.json: {error}"))?;
        all.remove(&self.key).ok_or(format!("stand-in: no images are recorded for {}", self.key))
    }
}

fn context_command(flags: &[&str]) -> Command {
    let kind = |flag: &&str| ((*flag).to_owned(), if *flag == "talosconfig" { "string" } else { "bool" }.to_owned());
    let shorthand = flags.contains(&"noconfirm").then(|| ("noconfirm".to_owned(), "y".to_owned()));
    Command {
        flags: flags.iter().map(kind).collect(),
        shorthand: shorthand.into_iter().collect(),
        ..Command::default()
    }
}
