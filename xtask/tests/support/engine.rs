//! An engine of a test's own, in a network namespace of its own: one that can be stopped without harm to others.
#![allow(missing_docs, clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::support::{Run, XTASK};
use xshell::{Shell, cmd};

/// An engine; stopped, and its folder removed, when it is dropped.
pub struct Engine {
    sh: Shell,
    folder: PathBuf,
    net: String,
    /// Arguments for it besides.
    pub more: Vec<String>,
}

impl Engine {
    /// Starts one in a namespace, and gives it the registry image of this machine's engine.
    pub fn new(folder: &Path, net: String) -> Self {
        Self::with(folder, net, &[])
    }

    /// The same with more arguments.
    pub fn with(folder: &Path, net: String, more: &[String]) -> Self {
        let engine = Self { sh: Shell::new().unwrap(), folder: folder.join("engine"), net, more: more.to_vec() };
        std::fs::create_dir_all(&engine.folder).unwrap();
        engine.start();
        let (image, host) = (engine.folder.join("image.tar"), engine.host());
        cmd!(engine.sh, "docker save --output {image} registry:2").quiet().run().unwrap();
        cmd!(engine.sh, "docker --host {host} load --quiet --input {image}").quiet().ignore_stdout().run().unwrap();
        engine
    }

    fn host(&self) -> String {
        format!("unix://{}/socket", self.folder.display())
    }

    fn answers(&self) -> bool {
        let host = self.host();
        cmd!(self.sh, "docker --host {host} version").quiet().ignore_stdout().ignore_stderr().run().is_ok()
    }

    fn wait(&self, answers: bool) {
        let until = Instant::now() + Duration::from_secs(60);
        while self.answers() != answers {
            let log = || std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            assert!(
                Instant::now() < until,
                "the engine does not {}:\n{}",
                if answers { "start" } else { "end" },
                log()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    pub fn start(&self) {
        let (folder, net, host, more) = (&self.folder, &self.net, self.host(), &self.more);
        let script = "folder=$1 net=$2 host=$3; shift 3; setsid nsenter --net=\"$net\" dockerd \
                      --data-root \"$folder/data\" --exec-root \"$folder/exec\" --pidfile \"$folder/pid\" \
                      --host \"$host\" \"$@\" >>\"$folder/log\" 2>&1 </dev/null &";
        cmd!(self.sh, "sh -c {script} sh {folder} {net} {host} {more...}").quiet().run().unwrap();
        self.wait(true);
    }

    pub fn stop(&self) {
        if let Ok(pid) = std::fs::read_to_string(self.folder.join("pid")) {
            let pid = pid.trim();
            let _ = cmd!(self.sh, "kill {pid}").quiet().run();
            self.wait(false);
            // It answers no more before it has ended all of its containers, and its pid file goes last.
            let until = Instant::now() + Duration::from_secs(60);
            while self.folder.join("pid").exists() {
                assert!(Instant::now() < until, "the engine does not end");
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }

    /// Runs the program against it, on its network.
    pub fn xtask(&self, config: &Path, args: &[&str]) -> Run {
        let (net, host) = (format!("--net={}", self.net), format!("DOCKER_HOST={}", self.host()));
        let output = cmd!(self.sh, "nsenter {net} env {host} {XTASK} --config {config} {args...}")
            .quiet()
            .ignore_status()
            .output()
            .unwrap();
        Run {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
