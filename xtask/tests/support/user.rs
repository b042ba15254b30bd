//! A user with caches and a talosctl: a home of their own, and the stand-in of some release on `PATH`.
#![allow(dead_code, missing_docs, clippy::unwrap_used)]

use camino::Utf8PathBuf;
use serde_json::Value;
use xshell::{Shell, cmd};

use crate::support::{HOSTS, Run, World, XTASK, digest, write_program};

/// Removes its clusters from the engine when it is dropped, whatever became of the test.
pub struct User {
    pub world: World,
    pub home: Utf8PathBuf,
    pub env: Vec<(String, String)>,
    number: u8,
}

impl User {
    /// A user whose caches are up, with a talosctl of a release.
    pub fn new(name: &str, tag: &str) -> Self {
        let user = Self::without_caches(name, tag);
        let up = user.world.xtask(&["cache-up"]);
        assert_eq!(up.code, Some(0), "{up:?}");
        user
    }

    pub fn without_caches(name: &str, tag: &str) -> Self {
        static NUMBER: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let world = World::new(name);
        // Short, as homes are: QEMU's sockets are in it.
        let home = std::env::temp_dir().join(format!("u{}-{number}", std::process::id()));
        let home = Utf8PathBuf::from_path_buf(home).unwrap();
        std::fs::create_dir_all(home.join("bin")).unwrap();
        std::os::unix::fs::symlink(standin(), home.join("bin/talosctl")).unwrap();
        let path = format!("{}:{}", home.join("bin"), std::env::var("PATH").unwrap());
        let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut env = vec![
            set("HOME", home.as_str()),
            set("PATH", &path),
            // What a user has set must not reach talosctl.
            set("TAG", "v9.9.9"),
            set("STANDIN_RECORD", home.join("record").as_str()),
            set("STANDIN_ROOT", "1"),
            set("STANDIN_DOCKER", "1"),
            set("STANDIN_IMAGE", "registry:2"),
            set("NO_PROXY", "127.0.0.1"),
        ];
        env.push(set("STANDIN_TALOSCTL_VERSION", tag));
        let user = Self { world, home, env, number };
        for plugin in ["bridge", "firewall", "static", "tc-redirect-tap"] {
            let folder = user.home.join(".talos/cni/bin");
            std::fs::create_dir_all(&folder).unwrap();
            write_program(folder.as_std_path(), plugin, "#!/bin/sh\n");
        }
        user
    }

    pub fn set(&mut self, name: &str, value: &str) {
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.to_owned(), value.to_owned()));
    }

    pub fn unset(&mut self, name: &str) {
        self.env.retain(|(known, _)| known != name);
    }

    /// A name and a network that no other test has.
    pub fn cluster(&self) -> (String, String) {
        let name = self.world.prefix.trim_start_matches("e2e-").trim_end_matches('-').to_owned();
        // Two tests of one process differ in the number, two processes as a rule in the rest.
        let net = (std::process::id() % 31) * 8 + u32::from(self.number % 8);
        (name, format!("10.79.{net}.0/24"))
    }

    pub fn shell(&self) -> Shell {
        let sh = Shell::new().unwrap();
        for name in
            ["TALOSCONFIG", "KUBECONFIG", "DOCKER_API_VERSION", "XDG_STATE_HOME", "XDG_CACHE_HOME", "TALOS_HOME"]
        {
            sh.set_var(name, "");
        }
        self.env.iter().for_each(|(name, value)| sh.set_var(name, value));
        sh
    }

    pub fn xtask(&self, args: &[&str]) -> Run {
        crate::support::xtask(&self.shell(), &[&["--config", self.world.config().to_str().unwrap()], args].concat())
    }

    /// `cluster` of a provisioner, in this user's own name and network.
    pub fn make(&self, provisioner: &str, more: &[&str]) -> Run {
        let (name, cidr) = self.cluster();
        self.xtask(&[&["cluster", provisioner, "--name", &name, "--cidr", &cidr], more].concat())
    }

    pub fn down(&self) -> Run {
        self.xtask(&["cluster-down", "--name", &self.cluster().0])
    }

    /// All calls of talosctl that begin with these words, as the stand-in recorded them.
    pub fn calls(&self, words: &[&str]) -> Vec<Value> {
        let record = std::fs::read_to_string(self.home.join("record")).unwrap_or_default();
        let calls = record.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let begins = |call: &Value| words.iter().enumerate().all(|(n, word)| call["argv"][n] == *word);
        calls.filter(begins).collect()
    }

    /// The containers and networks of this user's cluster.
    pub fn objects(&self) -> String {
        let label = format!("label=talos.cluster.name={}", self.cluster().0);
        let format = "{{.Names}}";
        let containers =
            cmd!(self.world.sh, "docker container ls --all --filter {label} --format {format}").quiet().read().unwrap();
        let networks = cmd!(self.world.sh, "docker network ls --quiet --filter {label}").quiet().read().unwrap();
        format!("{containers}{networks}")
    }

    /// The mirrors as a command line has them.
    pub fn mirrors(&self, address: &str) -> Vec<String> {
        let one = |(host, port): (&&str, &u16)| format!("{host}=http://{address}:{port}");
        HOSTS.iter().zip(&self.world.ports).map(one).collect()
    }

    pub fn state(&self) -> Utf8PathBuf {
        let digest = digest(self.cluster().0.as_bytes());
        self.home.join(".talos-cache").join(&digest["sha256:".len()..][..8])
    }

    /// Starts the program in the background, as a shell would that nobody has a terminal for.
    #[allow(clippy::disallowed_methods)]
    pub fn spawn(&self, args: &[&str]) -> std::process::Child {
        std::process::Command::new(XTASK)
            .args(["--config", self.world.config().to_str().unwrap()])
            .args(args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap()
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let label = format!("label=talos.cluster.name={}", self.cluster().0);
        let script = "docker container ls --all --quiet --filter \"$1\" | xargs -r docker rm --force --volumes
            docker network ls --quiet --filter \"$1\" | xargs -r docker network rm";
        let sh = &self.world.sh;
        let _ = cmd!(sh, "sh -c {script} sh {label}").quiet().ignore_stdout().ignore_stderr().run();
        let _ = std::fs::remove_dir_all(&self.home);
    }
}

/// Cargo builds the examples with the tests and puts them beside them.
fn standin() -> std::path::PathBuf {
    let path = std::path::Path::new(XTASK).parent().unwrap().join("examples/talosctl");
    assert!(path.exists(), "{} is missing: cargo build --examples", path.display());
    path
}

/// The values of a flag in a recorded call, in their order.
pub fn values(call: &Value, flag: &str) -> Vec<String> {
    let argv: Vec<&str> = call["argv"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    argv.windows(2).filter(|pair| pair[0] == flag).map(|pair| pair[1].to_owned()).collect()
}
