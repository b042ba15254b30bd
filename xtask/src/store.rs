//! The folder of what was fetched: one run at a time, and each file checked against the list that its release brings.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};

use crate::error::{Error, Finding, Result};
use crate::exec::Runner;
use crate::fetch::{Answer, Wanted, fetch, refused};
use crate::term::Term;
use crate::tool::Tool;

/// A file that is fetched.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Item {
    /// Where it comes from.
    pub address: String,
    /// Where it is kept.
    pub path: Utf8PathBuf,
    /// What was asked for, `Talos v1.9.6` for instance.
    pub of: String,
    /// The address of the list that has its digest, where there is one.
    pub sums: Option<String>,
}

impl Item {
    fn name(&self) -> &str {
        self.path.file_name().unwrap_or(self.path.as_str())
    }

    /// How many silent seconds are too many: a release is a file, but a factory may have to make the image first.
    fn patience(&self) -> u32 {
        if self.sums.is_some() { 60 } else { 300 }
    }
}

/// Those that would be fetched. What has its name is whole, so that nothing but `there` has to be asked.
pub fn absent(items: &[Item], there: impl Fn(&Utf8Path) -> bool) -> Vec<&Item> {
    items.iter().filter(|item| !there(&item.path)).collect()
}

/// Fetches what is not there; asks nobody anything when all is.
///
/// # Errors
/// As for [`fetch`]; there is no such file; the folder cannot be written to.
pub fn provide(runner: &dyn Runner, term: Term, folder: &Utf8Path, items: &[Item]) -> Result<()> {
    if absent(items, Utf8Path::exists).is_empty() {
        return Ok(());
    }
    Tool::Curl.require()?;
    let _lock = lock(runner, term, folder)?;
    let items = absent(items, Utf8Path::exists);
    let fix = by_hand(&items);
    let mut lists = BTreeMap::new();
    for item in items {
        if let Some(parent) = item.path.parent() {
            std::fs::create_dir_all(parent).map_err(|error| refused(parent, folder, error))?;
        }
        if let Some(sums) = item.sums.as_deref().filter(|&sums| !lists.contains_key(sums)) {
            lists.insert(sums, list(runner, sums, item, &fix)?);
        }
        let list = item.sums.as_deref().and_then(|sums| lists.get(sums)).map_or("", String::as_str);
        let digest = listed(list, item.name());
        let wanted = Wanted { address: &item.address, path: &item.path, digest, patience: item.patience(), fix: &fix };
        if fetch(runner, term, &wanted)? == Answer::Absent {
            let problem = format!("there is no such file; {} was asked for", item.of);
            let fix = "name a version that has been released, or another address in [boot] of cache.toml";
            return Err(Error::Blocked(vec![Finding::new(&item.address, problem, fix)]));
        }
        if let (Some(sums), None) = (&item.sums, digest) {
            term.warn(&format!("{} could not be checked: {sums} is not there or does not name it", item.name()));
        }
    }
    Ok(())
}

/// How a person gets the files where this machine cannot.
fn by_hand(items: &[&Item]) -> String {
    let pairs: Vec<_> = items.iter().map(|item| format!("{} as {}", item.address, item.path)).collect();
    format!("fetch elsewhere and put here: {}; or name another address in [boot] of cache.toml", pairs.join(", "))
}

/// The list of digests, empty where there is none. Never kept: one that was wrong must not outlive its cause.
fn list(runner: &dyn Runner, sums: &str, item: &Item, fix: &str) -> Result<String> {
    Tool::Sha256sum.require()?;
    let path = Utf8PathBuf::from(format!("{}.sha256sum", item.path));
    let wanted = Wanted { address: sums, path: &path, digest: None, patience: item.patience(), fix };
    if fetch(runner, Term::silent(), &wanted)? == Answer::Absent {
        return Ok(String::new());
    }
    let text = std::fs::read_to_string(&path).map_err(Error::io(format!("read {path}")))?;
    std::fs::remove_file(&path).map_err(Error::io(format!("remove {path}")))?;
    Ok(text)
}

/// The digest that a list (`HEX  NAME` a line, as sha256sum(1) writes it, perhaps with a folder in the name) has.
fn listed<'a>(list: &'a str, name: &str) -> Option<&'a str> {
    list.lines().find_map(|line| {
        let (hex, path) = line.split_once(char::is_whitespace)?;
        let base = path.trim().trim_start_matches('*').rsplit('/').next();
        let is_digest = hex.len() == 64 && hex.chars().all(|c| c.is_ascii_hexdigit());
        (is_digest && base == Some(name)).then_some(hex)
    })
}

/// Two runs that resume one file would spoil it for each other, so the second waits until the first is done.
fn lock(runner: &dyn Runner, term: Term, folder: &Utf8Path) -> Result<File> {
    let path = folder.join(".lock");
    let file = std::fs::create_dir_all(folder)
        .and_then(|()| OpenOptions::new().create(true).truncate(false).write(true).open(&path))
        .map_err(|error| refused(&path, folder, error))?;
    let mut said = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(Error::io(format!("lock {path}"))(error)),
        }
        if let Some(signal) = runner.interrupted() {
            return Err(Error::Interrupted { signal, left: String::new() });
        }
        if !said {
            term.step(&format!("another run is fetching into {folder}; waiting for it"));
            said = true;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_digests_is_read_by_base_name() {
        let (a, b) = ("a".repeat(64), "B".repeat(64));
        let list = format!("{a}  _out/vmlinuz-amd64\n{b} *initramfs-amd64.xz\n\nnonsense\nabc  vmlinuz-arm64\n");
        assert_eq!(listed(&list, "vmlinuz-amd64"), Some(a.as_str()));
        assert_eq!(listed(&list, "initramfs-amd64.xz"), Some(b.as_str()));
        assert_eq!(listed(&list, "vmlinuz-arm64"), None);
        assert_eq!(listed(&list, "amd64"), None);
        assert_eq!(listed("<html>not found</html>", "vmlinuz-amd64"), None);
    }

    #[test]
    fn what_has_its_name_is_not_fetched() {
        let item = |path: &str| Item { address: String::new(), path: path.into(), of: String::new(), sums: None };
        let items = [item("/a"), item("/b")];
        assert_eq!(absent(&items, |path| path == "/a"), [&items[1]]);
        assert!(absent(&items, |_| true).is_empty());
    }
}
