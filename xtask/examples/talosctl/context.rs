//! The talosconfig: what create adds to it, and the commands for its contexts.

use std::path::{Path, PathBuf};

use crate::Outcome;
use crate::cluster::print_columns;
use crate::pflag::Parsed;
use crate::standin::StandIn;
use crate::state::{Cluster, os_error};

/// A talosconfig, each context with its lines as they are in the file.
#[derive(Default)]
struct Talosconfig {
    current: String,
    contexts: Vec<(String, Vec<String>)>,
}

fn default(standin: &StandIn) -> Result<PathBuf, String> {
    let var = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty()).map(PathBuf::from);
    let named = || var("TALOS_HOME").filter(|_| standin.version.at_least((1, 12)));
    let in_folder = || named().or_else(|| var("HOME").map(|home| home.join(".talos")));
    let file = var("TALOSCONFIG").or_else(|| in_folder().map(|folder| folder.join("config")));
    file.ok_or_else(|| "stand-in: neither TALOSCONFIG nor HOME".to_owned())
}

/// The file that a `config` command works on.
pub fn path(standin: &StandIn, parsed: &Parsed) -> Result<PathBuf, String> {
    parsed.get("talosconfig").map_or_else(|| default(standin), |file| Ok(PathBuf::from(file)))
}

/// The file that create merges its context into.
pub fn destination(standin: &StandIn, parsed: &Parsed) -> Result<PathBuf, String> {
    parsed.get("talosconfig-destination").map_or_else(|| path(standin, parsed), |file| Ok(PathBuf::from(file)))
}

impl Talosconfig {
    /// Reads the plain layout that talosctl writes: contexts indented by four spaces.
    fn load(file: &Path) -> Result<Self, String> {
        if !file.exists() {
            return Ok(Self::default());
        }
        let text = std::fs::read_to_string(file)
            .map_err(|error| format!("error reading config: {}", os_error("open", file)(error)))?;
        let mut config = Self::default();
        for line in text.lines() {
            let inner = line.strip_prefix("    ");
            if let Some(name) = line.strip_prefix("context:") {
                config.current = name.trim().trim_matches('"').to_owned();
            } else if let Some(name) = inner.filter(|inner| !inner.starts_with(' ')) {
                config.contexts.push((name.trim().trim_end_matches(':').to_owned(), Vec::new()));
            } else if let (Some(_), Some((_, lines))) = (inner, config.contexts.last_mut()) {
                lines.push(line.to_owned());
            }
        }
        Ok(config)
    }

    fn save(&self, file: &Path) -> Outcome {
        let current = if self.current.is_empty() { "\"\"" } else { &self.current };
        let mut text = format!("context: {current}\ncontexts:{}\n", if self.contexts.is_empty() { " {}" } else { "" });
        for (name, lines) in &self.contexts {
            text += &format!("    {name}:\n{}", lines.iter().map(|line| format!("{line}\n")).collect::<String>());
        }
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder).map_err(os_error("mkdir", folder))?;
        }
        std::fs::write(file, text).map_err(|error| format!("error writing config: {}", os_error("open", file)(error)))
    }

    fn has(&self, name: &str) -> bool {
        self.contexts.iter().any(|(known, _)| known == name)
    }

    /// Takes over another file's contexts, renamed where the name is taken, and its current one under its new name.
    fn merge(&mut self, other: Self) {
        let mut current = String::new();
        for (name, lines) in other.contexts {
            let numbered = (1..).map(|number| format!("{name}-{number}"));
            let free = std::iter::once(name.clone()).chain(numbered).find(|free| !self.has(free));
            let free = free.unwrap_or_default();
            if free != name {
                eprintln!("renamed talosconfig context {name:?} -> {free:?}");
            }
            if name == other.current {
                current.clone_from(&free);
            }
            self.contexts.push((free, lines));
        }
        if !other.current.is_empty() {
            self.current = current;
        }
    }

    fn endpoints(lines: &[String], key: &str) -> String {
        let listed = lines.iter().map(|line| line.trim()).skip_while(|line| *line != key).skip(1);
        listed.map_while(|line| line.strip_prefix("- ")).collect::<Vec<_>>().join(",")
    }
}

/// Merges the context of a new cluster.
pub fn add(file: &Path, cluster: &Cluster) -> Outcome {
    eprintln!("merging talosconfig into {:?}", file.display().to_string());
    let first = cluster.nodes.first().map_or("", |node| node.address.as_str());
    let lines =
        ["        endpoints:", &format!("            - {first}"), "        ca: c3RhbmQtaW4="].map(str::to_owned);
    let mut config = Talosconfig::load(file)?;
    config.merge(Talosconfig { current: cluster.name.clone(), contexts: vec![(cluster.name.clone(), lines.to_vec())] });
    config.save(file)
}

/// `config contexts`.
pub fn list(file: &Path) -> Outcome {
    let config = Talosconfig::load(file)?;
    let mut rows = vec![["CURRENT", "NAME", "ENDPOINTS", "NODES"].map(str::to_owned).to_vec()];
    let mut contexts: Vec<_> = config.contexts.iter().collect();
    contexts.sort();
    for (name, lines) in contexts {
        let current = if *name == config.current { "*" } else { "" };
        let cells = [Talosconfig::endpoints(lines, "endpoints:"), Talosconfig::endpoints(lines, "nodes:")];
        rows.push([current.to_owned(), name.clone()].into_iter().chain(cells).collect());
    }
    print_columns(&rows);
    Ok(())
}

/// `config context NAME`.
pub fn switch(file: &Path, name: &str) -> Outcome {
    let mut config = Talosconfig::load(file)?;
    if !config.has(name) {
        return Err(format!("context \"{name}\" is not defined"));
    }
    name.clone_into(&mut config.current);
    config.save(file)
}

/// `config merge FILE`.
pub fn merge(file: &Path, from: &str) -> Outcome {
    let mut config = Talosconfig::load(file)?;
    config.merge(Talosconfig::load(Path::new(from))?);
    config.save(file)
}

/// `config remove PATTERN`: passes over the current context, and ends with 0 all the same.
pub fn remove(file: &Path, pattern: &str, parsed: &Parsed) -> Outcome {
    let mut config = Talosconfig::load(file)?;
    if config.contexts.is_empty() {
        return Err("no contexts defined".to_owned());
    }
    let matches = |name: &str| match pattern.split_once('*') {
        Some((head, tail)) => name.starts_with(head) && name.ends_with(tail) && name.len() >= head.len() + tail.len(),
        None => name == pattern,
    };
    if !config.contexts.iter().any(|(name, _)| matches(name)) {
        return Err(format!("no contexts matched \"{pattern}\""));
    }
    let current = config.current.clone();
    config.contexts.retain(|(name, _)| {
        if !matches(name) {
            return true;
        }
        if *name == current {
            let advice = "please change it to another before removing";
            eprintln!("skipping removal of current context \"{name}\", {advice}");
            return true;
        }
        if !parsed.bool("noconfirm") {
            eprintln!("remove context \"{name}\"? (y/N): no answer");
            return true;
        }
        eprintln!("removing context \"{name}\"");
        false
    });
    if parsed.bool("dry-run") { Ok(()) } else { config.save(file) }
}
