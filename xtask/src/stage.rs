//! A stage for the demonstration and the benchmarks: an upstream and settings of their own, removed at the end.

use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};

use crate::app::App;
use crate::config::{self, Bind, Config};
use crate::docker::LABEL_PREFIX;
use crate::error::{Error, Result};
use crate::exec::{Cmd, Processes, Runner};
use crate::{clean, docker, image, node, observe, registry, sample, settings};

/// The image of everything on it.
pub const IMAGE: &str = "registry:2";
/// What the names of all that is on a stage begin with; the process's id stands at their end.
const NAMES: &str = "talos-cache-";
const PATIENCE: Duration = Duration::from_secs(30);

/// An upstream, and settings whose mirrors all lead to it.
pub struct Stage {
    /// What the tasks are given: the stage's own settings, and a quiet terminal.
    pub app: App,
    /// A folder of its own; the settings are in it.
    pub folder: Utf8PathBuf,
    /// The upstream's container.
    pub upstream: String,
    /// Where the upstream answers on this host.
    pub address: String,
}

impl Drop for Stage {
    fn drop(&mut self) {
        let app = App { json: false, dry_run: false, ..self.app.clone_quietly() };
        let app = App { processes: app.processes.to_the_end(), ..app };
        let _ = app.processes.run(&docker::remove(std::slice::from_ref(&self.upstream)));
        let _ = clean::clean(&app, &[], false, true);
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// What an interruption of anything on a stage leaves: the stage is gone by the time that this is read.
pub fn gone(error: Error) -> Error {
    match error {
        Error::Interrupted { signal, .. } => {
            Error::Interrupted { signal, left: "all that was made for this is removed".to_owned() }
        }
        other => other,
    }
}

impl Stage {
    /// Starts an upstream, and prepares settings for these hosts.
    ///
    /// # Errors
    /// There is no engine, no image, or the upstream does not answer.
    pub fn new(app: &App, name: &str, hosts: &[&str], bind: &str) -> Result<Self> {
        crate::tool::Tool::Docker.require()?;
        let absent = image::absent(&app.processes, &[IMAGE].into())?;
        image::provide(&app.processes, app.term, &absent, None)?;
        sweep(&app.processes)?;
        let name = format!("{NAMES}{name}-{}-{}", std::process::id(), system());
        let folder = Utf8PathBuf::from_path_buf(std::env::temp_dir()).unwrap_or_default().join(&name);
        // Anybody may write beside it, and what is in it is run as root: it is new, and nobody else's.
        let made = std::fs::DirBuilder::new().mode(0o700).create(&folder);
        made.map_err(Error::io(format!("create {folder}")))?;
        let mut ports = free_ports(hosts.len() + 1)?;
        let port = ports.pop().unwrap_or_default();
        let config = settings_of(app, &folder, &name, bind, hosts.iter().copied().zip(ports), port)?;
        let app = App { config, ..app.clone_quietly() };
        let stage = Self { app, folder, upstream: format!("{name}-upstream"), address: format!("127.0.0.1:{port}") };
        stage.start(port)?;
        Ok(stage)
    }

    fn start(&self, port: u16) -> Result<()> {
        let cmd = Cmd::write("docker")
            .args(["run", "--detach", "--name", &self.upstream, "--publish", &format!("{port}:5000")])
            // A label of its own: the clean-up of the stage's proxies leaves their upstream.
            .args(["--label", &format!("{LABEL_PREFIX}={}", self.upstream), IMAGE]);
        self.app.processes.run(&cmd)?.checked(&cmd, "see what the engine says of it")?;
        let started = Instant::now();
        while !registry::answers(&self.address) {
            if let Some(signal) = self.app.processes.interrupted() {
                return Err(Error::Interrupted { signal, left: String::new() });
            }
            if started.elapsed() > PATIENCE {
                let problem = format!("the upstream does not answer on {}", self.address);
                return Err(Error::Tool { problem, fix: format!("read `docker logs {}`", self.upstream) });
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

/// What tells the processes of this system from those of others that use the same engine or the same folder: another
/// host, an earlier boot, another container.
fn system() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let processes = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    let digest = sample::digest(format!("{boot}{}", processes.display()).as_bytes());
    digest.trim_start_matches("sha256:")[..8].to_owned()
}

/// Removes what a stage of this system left behind whose process was killed.
fn sweep(processes: &Processes) -> Result<()> {
    let here = system();
    let dead = |label: &str| is_dead(label, &here);
    let listing = observe::listing(processes)?;
    let containers: Vec<String> =
        listing.into_iter().filter(|entry| dead(&entry.prefix)).map(|entry| entry.name).collect();
    if !containers.is_empty() {
        processes.run(&docker::remove(&containers))?;
    }
    let volumes: Vec<String> = observe::volumes(processes, None)?
        .into_iter()
        .filter(|(_, volume)| dead(&volume.prefix))
        .map(|(name, _)| name)
        .collect();
    if !volumes.is_empty() {
        processes.run(&docker::remove_volumes(&volumes))?;
    }
    let temporary = Utf8PathBuf::from_path_buf(std::env::temp_dir()).unwrap_or_default();
    let entries = temporary.read_dir_utf8().into_iter().flatten().flatten();
    for entry in entries.filter(|entry| dead(entry.file_name()) && is_own_folder(entry.path())) {
        node::remove(processes, &entry.path().join("node"))?;
        let _ = std::fs::remove_dir_all(entry.path());
    }
    Ok(())
}

/// Whether a name is of a stage of this system whose process has ended.
fn is_dead(name: &str, here: &str) -> bool {
    let mut parts = name.strip_prefix(NAMES).unwrap_or_default().split('-');
    let (task, pid, system) = (parts.next(), parts.next().unwrap_or_default(), parts.next());
    let is_stage = task.is_some_and(|task| ["demo", "bench"].contains(&task)) && system == Some(here);
    is_stage && pid.parse::<u32>().is_ok() && !Utf8Path::new("/proc").join(pid).exists()
}

/// Whether a path is a folder, no link to one, and this user's.
fn is_own_folder(path: &Utf8Path) -> bool {
    let own = std::fs::metadata("/proc/self").map(|process| process.uid());
    path.symlink_metadata().is_ok_and(|found| found.is_dir() && own.is_ok_and(|own| own == found.uid()))
}

/// Writes the settings, and reads them as a task would.
fn settings_of<'a>(
    app: &App,
    folder: &Utf8PathBuf,
    name: &str,
    bind: &str,
    mirrors: impl Iterator<Item = (&'a str, u16)>,
    upstream: u16,
) -> Result<Config> {
    // The last of the local addresses is the bridge's, by which containers reach this host.
    let bridge = observe::listen(&app.processes, Bind::Local)?.0.pop().map(|at| at.to_string()).unwrap_or_default();
    let mut text = format!("prefix = \"{name}-\"\nimage = \"{IMAGE}\"\nbind = \"{bind}\"\n");
    let mut used = Vec::new();
    for (host, port) in mirrors {
        text += &format!("[mirrors.\"{host}\"]\nport = {port}\nupstream = \"http://{bridge}:{upstream}\"\n");
        used.push(host);
    }
    for host in settings::hosts().filter(|host| !used.contains(host)) {
        text += &format!("[mirrors.\"{host}\"]\nenabled = false\n");
    }
    let file = folder.join(config::FILE);
    std::fs::write(&file, &text).map_err(Error::io(format!("write {file}")))?;
    settings::parse(Some(file), &text, None)
}

/// Ports of this host that are free now.
fn free_ports(count: usize) -> Result<Vec<u16>> {
    let held: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind("0.0.0.0:0"))
        .collect::<std::io::Result<_>>()
        .map_err(Error::io("find free ports"))?;
    let ports = held.iter().map(|held| held.local_addr().map(|at| at.port()));
    ports.collect::<std::io::Result<_>>().map_err(Error::io("find free ports"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_stage_of_this_system_whose_process_has_ended_is_dead() {
        let here = system();
        let name = |pid: &str, system: &str| format!("talos-cache-demo-{pid}-{system}-upstream");
        // The largest process id that Linux gives out is 4194304.
        assert!(is_dead(&name("4194305", &here), &here));
        assert!(!is_dead(&name("4194305", "0123abcd"), &here));
        assert!(!is_dead(&name(&std::process::id().to_string(), &here), &here));
        assert!(!is_dead("talos-cache-4194305", &here) && !is_dead("registry-", &here));
    }

    #[test]
    fn a_link_is_not_taken_for_a_folder() {
        let root = Utf8PathBuf::from_path_buf(std::env::temp_dir()).unwrap();
        let (folder, link) = (root.join(format!("own-{}", system())), root.join(format!("link-{}", system())));
        std::fs::create_dir_all(&folder).unwrap();
        std::os::unix::fs::symlink(&folder, &link).unwrap();
        assert!(is_own_folder(&folder) && !is_own_folder(&link));
        std::fs::remove_file(&link).unwrap();
        std::fs::remove_dir(&folder).unwrap();
    }
}
