//! What the tests tell the stand-in, through its environment, and what it tells them.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use xtask::talosctl::Version;

/// How a create is to stop before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fail {
    /// The network and a container that was never started are there, and no `state.yaml`.
    Half,
    /// Everything is there, `state.yaml` and the context too, but it was never bootstrapped.
    Late,
}

/// The variables that steer the stand-in.
pub struct StandIn {
    /// `STANDIN_TALOSCTL_VERSION`, needed: the release that it plays, `v1.9.6`.
    pub version: Version,
    /// `STANDIN_RECORD`: the file to which each call adds a line of JSON.
    record: Option<PathBuf>,
    /// `STANDIN_STORE`: where it keeps what the real one keeps in the engine; `$HOME/.standin-talosctl` otherwise.
    pub store: PathBuf,
    /// `STANDIN_FAIL=half|late`: create ends with 1 at that point.
    pub fail: Option<Fail>,
    /// `STANDIN_SLEEP=SECONDS`: create waits that long before it bootstraps.
    pub sleep: Duration,
    /// `STANDIN_ENGINE_API`: the newest API of the engine, `1.41`; 1.44 otherwise.
    pub engine_api: (u64, u64),
    /// `DOCKER_API_VERSION`, as the real one reads it.
    pub api_version: Option<String>,
    /// `STANDIN_DOCKER=1`: make a network and containers in the engine that `docker` talks to.
    pub docker: bool,
    /// `STANDIN_IMAGE`: their image, whatever `--image` says; it needs `sleep`.
    pub image: Option<String>,
    /// `STANDIN_ROOT=0|1`: whether it is root; without it, what is true.
    pub root: bool,
}

fn var(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl StandIn {
    /// Reads the variables.
    pub fn from_env() -> Result<Self, String> {
        let tag =
            var("STANDIN_TALOSCTL_VERSION").ok_or("stand-in: set STANDIN_TALOSCTL_VERSION, to v1.9.6 for instance")?;
        let home = || var("HOME").map(|home| PathBuf::from(home).join(".standin-talosctl"));
        let api = var("STANDIN_ENGINE_API").unwrap_or_else(|| "1.44".to_owned());
        Ok(Self {
            version: Version::parse(&tag).ok_or(format!("stand-in: {tag:?} is no version"))?,
            record: var("STANDIN_RECORD").map(PathBuf::from),
            store: var("STANDIN_STORE")
                .map(PathBuf::from)
                .or_else(home)
                .ok_or("stand-in: set STANDIN_STORE or HOME")?,
            fail: match var("STANDIN_FAIL").as_deref() {
                None => None,
                Some("half") => Some(Fail::Half),
                Some("late") => Some(Fail::Late),
                Some(other) => return Err(format!("stand-in: STANDIN_FAIL={other:?} is neither half nor late")),
            },
            sleep: match var("STANDIN_SLEEP") {
                Some(seconds) => seconds.parse().map(Duration::from_secs_f64).map_err(|_| "stand-in: STANDIN_SLEEP")?,
                None => Duration::ZERO,
            },
            engine_api: xtask::tool::api_version(&api).ok_or(format!("stand-in: {api:?} is no API version"))?,
            api_version: var("DOCKER_API_VERSION"),
            docker: var("STANDIN_DOCKER").is_some_and(|value| value == "1"),
            image: var("STANDIN_IMAGE"),
            root: match var("STANDIN_ROOT") {
                Some(value) => value == "1",
                None => is_root(),
            },
        })
    }

    /// Adds this call to the record.
    pub fn record(&self, argv: &[String]) -> Result<(), String> {
        let Some(file) = &self.record else {
            return Ok(());
        };
        let names = ["TAG", "HOME", "DOCKER_API_VERSION", "TALOSCONFIG", "KUBECONFIG"];
        let env: serde_json::Map<String, serde_json::Value> =
            names.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?.into()))).collect();
        let cwd = std::env::current_dir().map_err(|error| format!("stand-in: {error}"))?;
        let line = serde_json::json!({"argv": argv, "env": env, "cwd": cwd});
        let file = std::fs::OpenOptions::new().create(true).append(true).open(file);
        // One write a line, so that calls at the same time do not mix theirs.
        file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()))
            .map_err(|error| format!("stand-in: {error}"))
    }

    /// The refusal of talosctl 1.12 on an engine older than Docker 25, with the words of the real one.
    pub fn engine_answers(&self) -> Result<(), String> {
        let (major, minor) = self.engine_api;
        let too_old = self.version.minor() == (1, 12) && self.engine_api < (1, 44) && self.api_version.is_none();
        if too_old {
            let problem =
                "Error response from daemon: client version 1.52 is too new. Maximum supported API version is";
            return Err(format!("{problem} {major}.{minor}"));
        }
        Ok(())
    }
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}
