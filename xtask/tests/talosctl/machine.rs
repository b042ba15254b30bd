//! A machine on which the stand-in is talosctl.

use camino::Utf8PathBuf;
use xshell::{Shell, TempDir};
use xtask::exec::{Cmd, Interrupt, Output, Processes, Runner};
use xtask::term::Term;

/// Cargo builds the examples with the tests and puts them beside them.
pub fn standin() -> String {
    let tests = std::env::current_exe().unwrap();
    let path = tests.parent().unwrap().parent().unwrap().join("examples/talosctl");
    assert!(path.exists(), "{} is missing: cargo build --examples", path.display());
    path.into_os_string().into_string().unwrap()
}

pub fn run(cmd: &Cmd) -> Output {
    Processes::new(Interrupt::default(), Term::silent()).run(cmd).unwrap()
}

/// A release on a machine of its own: a home, a scratch directory and a record of all calls.
pub struct Machine {
    dir: TempDir,
    tag: String,
    env: Vec<(&'static str, String)>,
}

impl Machine {
    pub fn new(tag: impl ToString) -> Self {
        let dir = Shell::new().unwrap().create_temp_dir().unwrap();
        for name in ["home", "scratch"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        Self { dir, tag: tag.to_string(), env: vec![("STANDIN_ROOT", "1".to_owned())] }
    }

    pub fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.env.retain(|(known, _)| *known != name);
        self.env.push((name, value.to_string()));
        self
    }

    pub fn path(&self, name: &str) -> Utf8PathBuf {
        Utf8PathBuf::from_path_buf(self.dir.path().join(name)).unwrap()
    }

    pub fn prepared(&self, cmd: Cmd) -> Cmd {
        let cmd = cmd
            .program(standin())
            .dir(self.path("scratch"))
            .env("STANDIN_TALOSCTL_VERSION", &self.tag)
            .env("STANDIN_RECORD", self.path("record"))
            .env("HOME", self.path("home"))
            .env_remove("TALOSCONFIG")
            .env_remove("DOCKER_API_VERSION");
        self.env.iter().fold(cmd, |cmd, (name, value)| cmd.env(*name, value))
    }

    pub fn run(&self, cmd: Cmd) -> Output {
        run(&self.prepared(cmd))
    }

    /// Runs words of a command line; what it ends with and what it says.
    pub fn words(&self, line: &str) -> (i32, String) {
        let line = line.replace("STATE", self.path("state").as_str());
        let output = self.run(Cmd::write("talosctl").args(line.split_whitespace()));
        (output.code.unwrap(), String::from_utf8(output.stderr).unwrap())
    }

    pub fn last_call(&self) -> serde_json::Value {
        let record = std::fs::read_to_string(self.path("record")).unwrap();
        serde_json::from_str(record.lines().last().unwrap()).unwrap()
    }
}
