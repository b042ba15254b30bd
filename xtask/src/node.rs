//! A containerd of our own that pulls as a node does: for the demonstration and the tests.

use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};

use crate::engine::as_root_unasked;
use crate::error::{Error, Result};
use crate::exec::{Output, Runner};
use crate::tool::Tool;

/// A containerd with everything of its own in one folder; it ends, and the folder goes, when this is dropped.
pub struct Node<'a> {
    runner: &'a dyn Runner,
    folder: Utf8PathBuf,
}

const PATIENCE: Duration = Duration::from_secs(20);

impl<'a> Node<'a> {
    /// Starts containerd, as root: unpacking a layer needs that.
    ///
    /// # Errors
    /// There is no containerd, no root, or it does not answer within 20 seconds; its log is shown.
    pub fn start(runner: &'a dyn Runner, folder: &Utf8Path) -> Result<Self> {
        Tool::Containerd.require()?;
        Tool::Ctr.require()?;
        let folder = folder.to_owned();
        let file = folder.join("containerd.toml");
        let text = format!(
            "version = 2\nroot = \"{folder}/root\"\nstate = \"{folder}/state\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = \"{folder}/socket\"\n"
        );
        std::fs::create_dir_all(&folder).map_err(Error::io(format!("create {folder}")))?;
        std::fs::write(&file, text).map_err(Error::io(format!("write {file}")))?;
        let script = "setsid containerd --config \"$1/containerd.toml\" >\"$1/log\" 2>&1 </dev/null &";
        let start = as_root_unasked(runner, &["sh", "-c", script, "sh", folder.as_str()])?;
        runner.run(&start)?.checked(&start, "read what it says")?;
        let node = Self { runner, folder };
        node.wait()?;
        Ok(node)
    }

    fn wait(&self) -> Result<()> {
        let started = Instant::now();
        while !self.ctr(&["version"])?.ok() {
            if let Some(signal) = self.runner.interrupted() {
                return Err(Error::Interrupted { signal, left: String::new() });
            }
            if started.elapsed() > PATIENCE {
                let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                return Err(Error::Command {
                    command: "containerd".to_owned(),
                    status: format!("no answer after {} s", PATIENCE.as_secs()),
                    seen: crate::exec::tail(&log, 8),
                    fix: "mend what its log names".to_owned(),
                });
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn ctr(&self, args: &[&str]) -> Result<Output> {
        let socket = self.folder.join("socket");
        self.runner.run(&as_root_unasked(self.runner, &[&["ctr", "--address", socket.as_str()], args].concat())?)
    }

    /// Pulls an image through the mirrors of a folder of `hosts.toml` files, and unpacks it; how long that took.
    ///
    /// # Errors
    /// The pull fails; containerd's last words are shown.
    pub fn pull(&self, hosts: &Utf8Path, image: &str) -> Result<Duration> {
        let started = Instant::now();
        let socket = self.folder.join("socket");
        // The plain snapshotter copies, and so works on every file system.
        let cmd = as_root_unasked(
            self.runner,
            &["ctr", "--address", socket.as_str(), "images", "pull", "--snapshotter", "native", "--hosts-dir"],
        )?
        .args([hosts.as_str(), image]);
        self.runner.run(&cmd)?.checked(&cmd, "see `cargo xtask cache-logs`")?;
        Ok(started.elapsed())
    }

    /// Forgets an image and all its content, so that the next pull transfers it again.
    ///
    /// # Errors
    /// containerd does not answer.
    pub fn forget(&self, image: &str) -> Result<()> {
        self.ctr(&["images", "rm", "--sync", image]).map(|_| ())
    }
}

impl Drop for Node<'_> {
    fn drop(&mut self) {
        let _ = remove(self.runner, &self.folder);
    }
}

/// Ends the containerd of a folder, whoever started it, and removes what it left there.
///
/// # Errors
/// Neither root nor sudo, or the command cannot be started.
pub fn remove(runner: &dyn Runner, folder: &Utf8Path) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    // It removes its own mounts when it is asked to end; its folder goes once it has.
    let script = "pid=$(for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline 2>/dev/null |
            grep -qF \"containerd --config $1/containerd.toml \" && echo ${p#/proc/}; done)
        [ -z \"$pid\" ] || kill $pid; n=0
        while [ -n \"$pid\" ] && kill -0 $pid 2>/dev/null && [ $n -lt 50 ]; do sleep 0.1; n=$((n + 1)); done
        rm -rf -- \"$1\"";
    let cmd = as_root_unasked(runner, &["sh", "-c", script, "sh", folder.as_str()])?;
    runner.run(&cmd).map(|_| ())
}
