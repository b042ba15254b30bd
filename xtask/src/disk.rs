//! How many bytes a cache takes: read from the host's own disk where that is allowed, else by a look from inside.

use std::collections::{BTreeMap, BTreeSet};

use camino::{Utf8Path, Utf8PathBuf};

use crate::error::Result;
use crate::exec::{Output, Runner};
use crate::{docker, image};

/// The bytes of all files in a folder of this host; `None` where it may not be read.
pub fn folder(folder: &Utf8Path) -> Option<u64> {
    let mut total = 0;
    for entry in folder.read_dir_utf8().ok()? {
        let entry = entry.ok()?;
        let metadata = entry.metadata().ok()?;
        total += if metadata.is_dir() { self::folder(entry.path())? } else { metadata.len() };
    }
    Some(total)
}

/// Of these volumes, given with their folders on the engine's host, those that nothing is on, as far as can be told: by a
/// look at the folder, or else by one container of the image for all that may not be looked at.
pub fn empty(runner: &dyn Runner, volumes: &BTreeMap<String, Utf8PathBuf>, image: &str) -> BTreeSet<String> {
    let (open, shut): (Vec<_>, Vec<_>) =
        volumes.iter().map(|(name, path)| (name.clone(), folder(path))).partition(|(_, bytes)| bytes.is_some());
    let mut empty: BTreeSet<String> =
        open.into_iter().filter(|(_, bytes)| *bytes == Some(0)).map(|(name, _)| name).collect();
    let shut: Vec<String> = shut.into_iter().map(|(name, _)| name).collect();
    if shut.is_empty() {
        return empty;
    }
    let Some(files) = runner.run(&docker::files(&shut, image)).ok().filter(Output::ok) else { return empty };
    let files = files.text();
    let holds = |n: usize| files.lines().any(|file| file.starts_with(&format!("/{n}/")));
    empty.extend(shut.into_iter().enumerate().filter(|(n, _)| !holds(*n)).map(|(_, name)| name));
    empty
}

/// What a running registry's own `du` says of its store, in steps of 1024 bytes.
///
/// # Errors
/// The command cannot be started.
pub fn from_inside(runner: &dyn Runner, container: &str) -> Result<Option<u64>> {
    let output = runner.run(&docker::du(container))?;
    Ok(output.ok().then(|| kibibytes(&output.text()).into_iter().next()).flatten())
}

/// The bytes on each volume, given with its folder on the engine's host, by name; `None` where neither the folder nor
/// a container of the image, which is not pulled for it, can be asked.
///
/// # Errors
/// The command cannot be started.
pub fn volumes(
    runner: &dyn Runner,
    volumes: &BTreeMap<String, Utf8PathBuf>,
    image: &str,
) -> Result<BTreeMap<String, Option<u64>>> {
    let mut bytes: BTreeMap<String, Option<u64>> =
        volumes.iter().map(|(name, path)| (name.clone(), folder(path))).collect();
    let closed: Vec<String> = bytes.iter().filter(|(_, bytes)| bytes.is_none()).map(|(name, _)| name.clone()).collect();
    if closed.is_empty() {
        return Ok(bytes);
    }
    // Asked first: `run` would pull it, and the flag against that is newer than the oldest client.
    if image::is_absent(runner, image)? {
        return Ok(bytes);
    }
    let output = runner.run(&docker::du_volumes(&closed, image))?;
    if output.ok() {
        bytes.extend(closed.into_iter().zip(kibibytes(&output.text()).into_iter().map(Some)));
    }
    Ok(bytes)
}

/// The sizes at the head of each line of `du -sk`, in bytes.
fn kibibytes(text: &str) -> Vec<u64> {
    text.lines().filter_map(|line| line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn du_counts_in_kibibytes() {
        assert_eq!(kibibytes("12\t/a\n0\t/b\n"), [12 * 1024, 0]);
        assert_eq!(kibibytes("du: /a: Permission denied\n"), Vec::<u64>::new());
    }

    #[test]
    fn a_folder_is_summed_up_and_a_missing_one_is_not_empty() {
        let root =
            Utf8PathBuf::from_path_buf(std::env::temp_dir()).unwrap().join(format!("disk-{}", std::process::id()));
        std::fs::create_dir_all(root.join("a")).unwrap();
        std::fs::write(root.join("a/b"), [0; 10]).unwrap();
        std::fs::write(root.join("c"), [0; 5]).unwrap();
        assert_eq!(folder(&root), Some(15));
        std::fs::remove_dir_all(&root).unwrap();
        assert_eq!(folder(&root), None);
    }
}
