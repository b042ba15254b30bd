//! Volumes: real folders, so that what looks at the engine's disk finds what it would find there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The record of expiry dates; not what anybody has cached.
pub const RECORD: &str = "scheduler-state.json";
/// The folder of a copy that is under way.
const UNFINISHED: &str = ".adopting";

pub struct Volume {
    pub labels: BTreeMap<String, String>,
    /// It was made for a container that named none, and goes with it.
    pub anonymous: bool,
    pub folder: PathBuf,
}

impl Volume {
    pub fn new(root: &Path, name: &str, labels: BTreeMap<String, String>, anonymous: bool) -> Self {
        let folder = root.join(name).join("_data");
        std::fs::create_dir_all(&folder).unwrap();
        Self { labels, anonymous, folder }
    }

    /// The files that a registry has cached, by their path.
    pub fn cached(&self) -> Vec<String> {
        let mut files = Vec::new();
        find(&self.folder, &self.folder, &mut files);
        files.retain(|file| !file.starts_with(RECORD) && !file.starts_with(UNFINISHED));
        files
    }

    /// Removes what an unfinished copy left.
    pub fn discard_copy(&self) {
        let _ = std::fs::remove_dir_all(self.folder.join(UNFINISHED));
    }

    /// Whether a copy was left unfinished.
    pub fn has_unfinished_copy(&self) -> bool {
        self.folder.join(UNFINISHED).exists()
    }

    pub fn bytes(&self) -> u64 {
        self.cached().iter().map(|file| std::fs::metadata(self.folder.join(file)).unwrap().len()).sum()
    }

    /// Whether a registry that starts on it would panic: its record is there and is no JSON.
    pub fn is_damaged(&self) -> bool {
        std::fs::read_to_string(self.folder.join(RECORD)).is_ok_and(|text| text.is_empty())
    }

    /// Copies what is cached to another, all of it; or all but the last file, to where no registry looks for it.
    pub fn copy_to(&self, other: &Self, all: bool) {
        let files = self.cached();
        let place = if all { other.folder.clone() } else { other.folder.join(UNFINISHED) };
        if all {
            other.discard_copy();
        }
        for file in &files[..files.len().saturating_sub(usize::from(!all))] {
            let to = place.join(file);
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::copy(self.folder.join(file), to).unwrap();
        }
    }
}

fn find(root: &Path, folder: &Path, files: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find(root, &path, files);
        } else {
            files.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
        }
    }
}
