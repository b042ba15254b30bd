//! How many bytes a cache takes: the sizes of its files, read from the host's own disk where that is allowed, else by a
//! look from inside, which gives the same number.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;

use camino::{Utf8Path, Utf8PathBuf};

use crate::container::{self, Container, Root};
use crate::error::Result;
use crate::exec::{Output, Runner};
use crate::{docker, endpoint, image};

/// The bytes of all files in a folder of the engine's host; `None` where it may not be read, or is on another host: a
/// folder of that name on this one is somebody else's.
pub fn folder(runner: &dyn Runner, folder: &Utf8Path) -> Option<u64> {
    if is_here(runner) { files(folder).ok() } else { None }
}

/// Whether a registry's store, in a folder of the engine's host, has links to anything cached; `None` where it may not be
/// read, or is on another host.
pub fn has_links(runner: &dyn Runner, store: &Utf8Path) -> Option<bool> {
    fn any(folder: &Utf8Path) -> std::io::Result<bool> {
        for entry in folder.read_dir_utf8()? {
            let entry = entry?;
            let found = entry.file_name() == "link" || (entry.file_type()?.is_dir() && any(entry.path())?);
            if found {
                return Ok(true);
            }
        }
        Ok(false)
    }
    if !is_here(runner) || store.read_dir_utf8().is_err() {
        return None;
    }
    match any(&store.join("docker/registry/v2/repositories")) {
        Err(error) if error.kind() == ErrorKind::NotFound => Some(false),
        found => found.ok(),
    }
}

/// Whether the engine's folders are this host's. Where that cannot be told they are not.
fn is_here(runner: &dyn Runner) -> bool {
    endpoint::is_local(runner).unwrap_or(false)
}

fn files(folder: &Utf8Path) -> std::io::Result<u64> {
    let mut total = 0;
    for entry in folder.read_dir_utf8()? {
        let entry = entry?;
        let size = entry.metadata().and_then(|metadata| match metadata {
            metadata if metadata.is_dir() => files(entry.path()),
            metadata => Ok(if metadata.is_file() { metadata.len() } else { 0 }),
        });
        total += match size {
            // A registry at work renames and removes what is found here.
            Err(error) if error.kind() == ErrorKind::NotFound => 0,
            size => size?,
        };
    }
    Ok(total)
}

/// Of these volumes, given with their folders on the engine's host, those that nothing is on, as far as can be told: by a
/// look at the folder, or else by one container of the image for all that may not be looked at.
pub fn empty(runner: &dyn Runner, volumes: &BTreeMap<String, Utf8PathBuf>, image: &str) -> BTreeSet<String> {
    let (open, shut): (Vec<_>, Vec<_>) =
        volumes.iter().map(|(name, path)| (name.clone(), folder(runner, path))).partition(|(_, bytes)| bytes.is_some());
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

/// The folder of its container in which a registry keeps its store; `None` where that is not known.
///
/// # Errors
/// The command cannot be started.
pub fn place(runner: &dyn Runner, container: &Container) -> Result<Option<String>> {
    match container.root() {
        Root::At(place) => Ok(Some(place)),
        Root::In(file) if container.state.status == "running" => {
            let output = runner.run(&docker::configured_roots(container.name(), &file))?;
            Ok(if output.ok() { container::root_of(&output.text()) } else { None })
        }
        Root::In(_) | Root::Unknown => Ok(None),
    }
}

/// The bytes in a registry's store; `None` where it cannot be asked, or its place is not known.
///
/// # Errors
/// The command cannot be started.
pub fn store(runner: &dyn Runner, container: &Container) -> Result<Option<u64>> {
    let Some(place) = place(runner, container)? else { return Ok(None) };
    let on_host = container.on_host(&place).filter(|_| is_here(runner)).and_then(|(source, rest)| {
        // Where the mount may be read, what is not in it is not anywhere.
        source.read_dir_utf8().ok()?;
        let at = source.join(rest);
        match files(&at) {
            Err(error) if error.kind() == ErrorKind::NotFound => Some(0),
            bytes => bytes.ok(),
        }
    });
    if on_host.is_some() || container.state.status != "running" {
        return Ok(on_host);
    }
    let output = runner.run(&docker::bytes_inside(container.name(), &place))?;
    Ok(output.ok().then(|| numbers(&output.text()).into_iter().next()).flatten())
}

/// The sizes of what a running registry has stored under these digests, as far as it is there.
///
/// # Errors
/// The command cannot be started.
pub fn sizes(
    runner: &dyn Runner,
    container: &Container,
    place: &str,
    digests: &BTreeSet<String>,
) -> Result<BTreeMap<String, u64>> {
    let path = |digest: &String| {
        let (algorithm, hex) = digest.split_once(':')?;
        Some((format!("{place}/docker/registry/v2/blobs/{algorithm}/{}/{hex}/data", hex.get(..2)?), digest.clone()))
    };
    let paths: BTreeMap<String, String> = digests.iter().filter_map(path).collect();
    if paths.is_empty() {
        return Ok(BTreeMap::new());
    }
    let output = runner.run(&docker::blob_sizes(container.name(), &paths.keys().cloned().collect::<Vec<_>>()))?;
    let text = output.text();
    let sized = text.lines().filter_map(|line| {
        let (size, path) = line.split_once(' ')?;
        Some((paths.get(path)?.clone(), size.parse().ok()?))
    });
    Ok(sized.collect())
}

/// The bytes that are free where a running registry keeps its store.
///
/// # Errors
/// The command cannot be started.
pub fn room(runner: &dyn Runner, container: &Container, place: &str) -> Result<Option<u64>> {
    let output = runner.run(&docker::room_inside(container.name(), place))?;
    Ok(if output.ok() { available(&output.text()) } else { None })
}

/// What `df -P -k` calls available, in bytes.
fn available(text: &str) -> Option<u64> {
    text.lines().nth(1)?.split_whitespace().nth(3)?.parse::<u64>().ok()?.checked_mul(1024)
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
        volumes.iter().map(|(name, path)| (name.clone(), folder(runner, path))).collect();
    let closed: Vec<String> = bytes.iter().filter(|(_, bytes)| bytes.is_none()).map(|(name, _)| name.clone()).collect();
    if closed.is_empty() {
        return Ok(bytes);
    }
    // Asked first: `run` would pull it, and the flag against that is newer than the oldest client.
    if image::is_absent(runner, image)? {
        return Ok(bytes);
    }
    let output = runner.run(&docker::bytes_on_volumes(&closed, image))?;
    if output.ok() {
        bytes.extend(closed.into_iter().zip(numbers(&output.text()).into_iter().map(Some)));
    }
    Ok(bytes)
}

/// A number on each line.
fn numbers(text: &str) -> Vec<u64> {
    text.lines().filter_map(|line| line.trim().parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_df_says_is_available_is_read() {
        let text = "Filesystem           1024-blocks    Used Available Capacity Mounted on\n\
                    tmpfs                    20480     18560      1920  91% /var/lib/registry\n";
        assert_eq!(available(text), Some(1920 * 1024));
        assert_eq!(available("df: /data: can't find mount point\n"), None);
    }

    #[test]
    fn a_folder_is_summed_up_and_a_missing_one_is_not_empty() {
        let root =
            Utf8PathBuf::from_path_buf(std::env::temp_dir()).unwrap().join(format!("disk-{}", std::process::id()));
        std::fs::create_dir_all(root.join("a")).unwrap();
        std::fs::write(root.join("a/b"), [0; 10]).unwrap();
        std::fs::write(root.join("c"), [0; 5]).unwrap();
        assert_eq!(files(&root).ok(), Some(15));
        std::fs::remove_dir_all(&root).unwrap();
        assert!(files(&root).is_err());
    }
}
