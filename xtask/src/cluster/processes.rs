//! The processes of a cluster of virtual machines: which are alive, and which of them are really its own.

use std::time::{Duration, SystemTime};

use camino::{Utf8Path, Utf8PathBuf};

use crate::cluster::existing::Node;

/// A process that talosctl recorded in a cluster's state.
struct Recorded {
    name: String,
    pid: String,
    written: SystemTime,
}

/// How much later than its file's time a process may have begun: clocks are read in coarse steps.
const SLACK: Duration = Duration::from_secs(5);
/// `sysconf(_SC_CLK_TCK)`, which is 100 on every Linux that Talos runs on.
const TICKS: f64 = 100.0;

/// What talosctl recorded, a file `NAME.pid` each, and whether it runs.
///
/// # Errors
/// The folder or a file may not be looked into.
pub fn recorded(state: &Utf8Path) -> std::io::Result<Vec<Node>> {
    let mut nodes: Vec<Node> =
        files(state)?.into_iter().map(|file| Node { up: is_its_own(&file), name: file.name }).collect();
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(nodes)
}

/// The process ids of everything that runs for a cluster: what talosctl recorded, and what its state directory is on
/// the command line of (QEMU itself).
pub fn running(state: &Utf8Path) -> Vec<String> {
    let mut pids: Vec<String> =
        files(state).unwrap_or_default().into_iter().filter(is_its_own).map(|file| file.pid).collect();
    let entries = Utf8Path::new("/proc").read_dir_utf8().into_iter().flatten().flatten();
    let all = entries.map(|entry| entry.file_name().to_owned()).filter(|name| name.parse::<u32>().is_ok());
    let inside = format!("{state}/");
    let names_it = |pid: &String| words(pid).is_some_and(|words| of_talos(&words) && words.contains(&inside));
    pids.extend(all.filter(names_it));
    pids.sort();
    pids.dedup();
    pids
}

fn files(state: &Utf8Path) -> std::io::Result<Vec<Recorded>> {
    let entries = match state.read_dir_utf8() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let file = |path: &Utf8Path, name: &str| -> std::io::Result<Option<Recorded>> {
        let pid = std::fs::read_to_string(path)?.trim().to_owned();
        let written = path.metadata()?.modified()?;
        Ok(pid.parse::<u32>().is_ok().then(|| Recorded { name: name.to_owned(), pid, written }))
    };
    let mut files = Vec::new();
    for entry in entries.flatten() {
        let Some(name) = entry.file_name().strip_suffix(".pid") else { continue };
        match file(entry.path(), name) {
            // One that went since it was listed.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            found => files.extend(found?),
        }
    }
    Ok(files)
}

/// Whether a recorded process runs and is the one that was recorded: a number is given out again, to a process that
/// began later than the file was written.
fn is_its_own(file: &Recorded) -> bool {
    words(&file.pid).is_some_and(|words| of_talos(&words))
        && began(&file.pid).is_some_and(|began| began <= file.written + SLACK)
}

/// The command line of a process, its words divided by blanks.
fn words(pid: &str) -> Option<String> {
    let line = std::fs::read(Utf8PathBuf::from("/proc").join(pid).join("cmdline")).ok()?;
    Some(String::from_utf8_lossy(&line).replace('\0', " ")).filter(|line| !line.is_empty())
}

/// Whether a command line is one that talosctl leaves running: itself under another task, QEMU, or QEMU's helpers.
fn of_talos(words: &str) -> bool {
    let program = words.split(' ').next().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    let helper = ["qemu", "swtpm", "virtiofsd"].iter().any(|name| program.starts_with(name));
    helper || (program.starts_with("talosctl") && words.contains("-launch"))
}

/// When a process began (`proc(5)`: field 22 of `stat`, in ticks since the boot).
fn began(pid: &str) -> Option<SystemTime> {
    let stat = std::fs::read_to_string(Utf8PathBuf::from("/proc").join(pid).join("stat")).ok()?;
    // The name in the second field may hold anything, blanks and brackets included.
    let ticks: f64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    let boot = std::fs::read_to_string("/proc/stat").ok()?;
    let boot: u64 = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(boot) + Duration::from_secs_f64(ticks / TICKS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_what_it_is_and_when_it_began() {
        assert!(of_talos("/usr/bin/talosctl qemu-launch "));
        assert!(of_talos("/usr/bin/qemu-system-x86_64 -m 1024 "));
        assert!(!of_talos("/usr/bin/talosctl config contexts "));
        assert!(!of_talos("sleep 60 "));
        let own = std::process::id().to_string();
        let began = began(&own).unwrap();
        assert!(began <= SystemTime::now() + SLACK && began > SystemTime::now() - Duration::from_secs(3600));
        assert!(super::began("0").is_none());
    }
}
