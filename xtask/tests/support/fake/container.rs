//! A container: what it was made of, what it is doing, and how `docker container inspect` describes it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::ask::Ask;
use super::door::Door;
use super::engine::Release;
use super::words;
use xtask::docker::{REMOTE, STORE};
use xtask::{credentials, exec::Output};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Created,
    Running,
    Paused,
    /// It ends as soon as it starts, and the engine starts it again and again.
    Restarting,
    Exited,
}

impl Phase {
    pub fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
        }
    }
}

pub struct Container {
    pub id: String,
    pub ask: Ask,
    pub phase: Phase,
    /// Why the engine could not start it.
    pub error: String,
    pub exit_code: i64,
    /// When it was started for the last time, and what it wrote since.
    pub started: Option<u64>,
    pub log: Vec<String>,
    /// The files that were put into it, by their path.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Its published ports, while they are open, with the port that each leads to.
    pub doors: Vec<(u16, Door)>,
    pub serves: bool,
    /// Whether it has a network: an engine may take it away when a start fails.
    pub networked: bool,
}

impl Container {
    pub fn new(id: String, ask: Ask) -> Self {
        Self {
            id,
            ask,
            phase: Phase::Created,
            error: String::new(),
            exit_code: 0,
            started: None,
            log: Vec::new(),
            files: BTreeMap::new(),
            doors: Vec::new(),
            serves: false,
            networked: true,
        }
    }

    /// The volume that its store is on.
    pub fn store(&self) -> &str {
        &self.ask.mounts.iter().find(|mount| mount.at == STORE).unwrap().volume
    }

    pub fn upstream(&self) -> Option<&str> {
        self.ask.env.iter().find_map(|variable| variable.strip_prefix(REMOTE)?.strip_prefix('='))
    }

    /// Whether it is told to read an account from a file.
    pub fn with_account(&self) -> bool {
        self.ask.args.iter().any(|argument| argument == credentials::PATH)
    }

    pub fn enter(&mut self, phase: Phase, serves: bool) {
        self.phase = phase;
        self.serves = serves;
        if matches!(phase, Phase::Created | Phase::Restarting | Phase::Exited) {
            self.doors.clear();
        }
        let answers = serves && phase == Phase::Running;
        self.doors.iter().filter(|(inside, _)| *inside == 5000).for_each(|(_, door)| door.serve(answers));
    }

    /// Why nothing can be run in it, in the engine's words.
    pub fn cannot_exec(&self) -> Option<Output> {
        let id = &self.id;
        let word = match self.phase {
            Phase::Running => return None,
            Phase::Paused => format!("Container {} is paused, unpause the container before exec", self.ask.name),
            Phase::Restarting => format!("Container {id} is restarting, wait until the container is running"),
            Phase::Created | Phase::Exited => format!("Container {id} is not running"),
        };
        Some(words::daemon(&word))
    }

    /// The third column of `docker container ls`.
    pub fn ports(&self) -> String {
        let both = |(inside, door): &(u16, Door)| {
            let (ip, port) = (door.address.ip(), door.address.port());
            let every = ip.is_unspecified().then(|| format!("[::]:{port}->{inside}/tcp"));
            std::iter::once(format!("{ip}:{port}->{inside}/tcp")).chain(every).collect::<Vec<_>>()
        };
        self.doors.iter().flat_map(both).collect::<Vec<_>>().join(", ")
    }

    pub fn started_at(&self) -> String {
        let at = |second: u64| format!("2026-01-01T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60);
        self.started.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), at)
    }

    pub fn describe(&self, release: Release, folder: impl Fn(&str) -> String) -> Value {
        let ask = &self.ask;
        let mut asked: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for port in &ask.publish {
            let host = if port.host == 0 { String::new() } else { port.host.to_string() };
            let binding = json!({"HostIp": port.ip, "HostPort": host});
            asked.entry(format!("{}/tcp", port.inside)).or_default().push(binding);
        }
        let mounts = ask.mounts.iter().map(|mount| {
            json!({"Type": "volume", "Name": mount.volume, "Source": folder(&mount.volume), "Destination": mount.at,
                   "Driver": "local", "RW": true})
        });
        json!({
            "Id": self.id,
            "Name": format!("/{}", ask.name),
            "State": {
                "Status": self.phase.word(),
                // True of one that crashes as well, and of one that is paused.
                "Running": matches!(self.phase, Phase::Running | Phase::Paused | Phase::Restarting),
                "Paused": self.phase == Phase::Paused,
                "Restarting": self.phase == Phase::Restarting,
                "Error": self.error,
                "StartedAt": self.started_at(),
                "ExitCode": self.exit_code,
            },
            "HostConfig": {"PortBindings": asked, "RestartPolicy": {"Name": ask.restart, "MaximumRetryCount": 0}},
            "Mounts": mounts.collect::<Vec<_>>(),
            "Config": {
                "Image": ask.image,
                "Cmd": if ask.args.is_empty() { json!(["/etc/docker/registry/config.yml"]) } else { json!(ask.args) },
                "Env": ask.env.iter().map(String::as_str).chain(["PATH=/bin"]).collect::<Vec<_>>(),
                "Labels": ask.labels,
            },
            "NetworkSettings": self.network(release),
        })
    }

    fn network(&self, release: Release) -> Value {
        let mut open: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for (inside, door) in &self.doors {
            let (ip, port) = (door.address.ip(), door.address.port().to_string());
            let all = open.entry(format!("{inside}/tcp")).or_default();
            all.push(json!({"HostIp": ip.to_string(), "HostPort": port}));
            if ip.is_unspecified() {
                all.push(json!({"HostIp": "::", "HostPort": port}));
            }
        }
        let address = if matches!(self.phase, Phase::Running | Phase::Paused) { "172.17.0.2" } else { "" };
        let networks = if self.networked { json!({"bridge": {"IPAddress": address}}) } else { json!({}) };
        let mut settings = json!({"Ports": open, "Networks": networks});
        if release == Release::Docker20 {
            // Gone from API 1.52 on.
            settings["IPAddress"] = json!(address);
        }
        settings
    }
}
