//! The engine's state, and the commands that change or list it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::Upstream;
use super::ask::{Ask, Mount};
use super::container::{Container, Phase};
use super::door::Door;
use super::volume::Volume;
use super::words;
use xtask::docker::{self, STORE};
use xtask::exec::{Cmd, Output};
use xtask::listen;

/// Whose words and JSON it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    Docker20,
    Docker29,
}

/// Where the default bridge is: an address that every host has, since ports are published on it.
pub const BRIDGE: &str = "127.0.0.17";

pub struct State {
    pub release: Release,
    root: tempdir::Folder,
    pub containers: BTreeMap<String, Container>,
    pub volumes: BTreeMap<String, Volume>,
    images: BTreeSet<String>,
    pub upstreams: BTreeMap<String, Upstream>,
    count: u64,
    lost: Vec<String>,
}

/// A folder that goes with its owner.
mod tempdir {
    pub struct Folder(pub std::path::PathBuf);

    impl Folder {
        pub fn new() -> Self {
            static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
            let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            Self(std::env::temp_dir().join(format!("fake-engine-{}-{count}", std::process::id())))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

impl State {
    pub fn new(release: Release) -> Self {
        Self {
            release,
            root: tempdir::Folder::new(),
            containers: BTreeMap::new(),
            volumes: BTreeMap::new(),
            images: ["registry:2".to_owned()].into(),
            upstreams: BTreeMap::new(),
            count: 0,
            lost: Vec::new(),
        }
    }

    pub fn set_upstream(&mut self, url: &str, does: Upstream) {
        self.upstreams.insert(url.to_owned(), does);
        // What crashes is tried again before long.
        let again = |container: &&Container| container.phase == Phase::Restarting && container.upstream() == Some(url);
        let names: Vec<String> = self.containers.values().filter(again).map(|one| one.ask.name.clone()).collect();
        for name in names {
            let _ = self.start(&name);
        }
    }

    pub fn set_image(&mut self, image: &str, there: bool) {
        if there {
            self.images.insert(image.to_owned())
        } else {
            self.images.remove(image)
        };
    }

    pub fn lost(&self) -> &[String] {
        &self.lost
    }

    pub fn volume_names(&self) -> Vec<String> {
        self.volumes.keys().cloned().collect()
    }

    pub fn container_names(&self) -> Vec<String> {
        self.containers.keys().cloned().collect()
    }

    pub fn folder(&self, volume: &str) -> &Path {
        &self.volumes[volume].folder
    }

    /// Does what a command asks for, and says what the engine would.
    pub fn answer(&mut self, cmd: &Cmd) -> Output {
        let words: Vec<&str> = cmd.argv().collect();
        assert_eq!(words[0], "docker", "the fake engine knows nothing else: {}", cmd.shell());
        match words[1..] {
            ["container", "ls", ..] if *cmd == docker::list() => self.list(),
            ["container", "ls", "--all", "--filter", filter, ..] => self.users(filter.strip_prefix("volume=").unwrap()),
            ["container", "inspect", ref names @ ..] => self.inspect(names),
            ["container", "start", name] => self.start_command(&self.by_id(name)),
            ["container", "restart", "-t", "0", name] => self.restart(name),
            ["container", "unpause", name] => self.unpause(name),
            ["container", "stop", "-t", "5", ref names @ ..] => self.each(names, Self::stop),
            ["container", "rm", "--force", "--volumes", ref names @ ..] => self.remove(names, true),
            ["container", "rm", "--force", ref names @ ..] => self.remove(names, false),
            ["container", "kill", name] => self.each(&[name], Self::stop),
            ["container", "create", ref rest @ ..] => {
                self.create(Ask::read(rest)).unwrap_or_else(|word| words::daemon(&word))
            }
            ["container", "diff", name] if self.containers.contains_key(name) => words::said("C /tmp\n"),
            ["container", "pause", name] => self.pause(name),
            ["run", "--detach", ref rest @ ..] => self.run(Ask::read(rest)),
            ["run", "--rm", ref rest @ ..] => self.helper(cmd, &Ask::read(rest), true),
            ["run", "--name", ..] => self.copier(cmd, Ask::read(&words[2..]), true),
            ["container", "wait", _] => words::said("0\n"),
            ["volume", "ls", ..] => self.list_volumes(cmd),
            ["volume", "rm", ref names @ ..] => self.each(names, Self::remove_volume),
            ["image", "inspect", "--format", "{{.Id}}", image] => self.inspect_image(image),
            ["pull", image] => {
                self.images.insert(image.to_owned());
                words::said(format!("docker.io/library/{image}\n"))
            }
            ["network", ..] if *cmd == listen::bridge() => {
                words::said(format!("[{{\"Subnet\":\"127.0.0.16/28\",\"Gateway\":\"{BRIDGE}\"}}]\n"))
            }
            ["version", ..] if *cmd == docker::version() => words::said(match self.release {
                Release::Docker20 => "1.41 20.10.24\n",
                Release::Docker29 => "1.55 29.7.2\n",
            }),
            ["exec" | "logs" | "cp", ..] => self.inside(cmd),
            _ => panic!("the fake engine does not know `{}`", cmd.shell()),
        }
    }

    /// Does the first half of it, as far as it has one.
    pub fn answer_half(&mut self, cmd: &Cmd) {
        let words: Vec<&str> = cmd.argv().collect();
        match words[1..] {
            ["run", "--detach", ref rest @ ..] => {
                let _ = self.create(Ask::read(rest));
            }
            ["run", "--rm", ref rest @ ..] => {
                self.helper(cmd, &Ask::read(rest), false);
            }
            ["run", "--name", ..] => {
                self.copier(cmd, Ask::read(&words[2..]), false);
            }
            ["container", "rm", "--force", "--volumes", name] | ["container", "restart", "-t", "0", name] => {
                let _ = self.stop(&self.by_id(name));
            }
            ["container", "rm", "--force", "--volumes", name, ..] => {
                self.remove(&[name], true);
            }
            ["volume", "rm", name, _, ..] => {
                let _ = self.remove_volume(name);
            }
            _ => {}
        }
    }

    fn id(&mut self) -> String {
        self.count += 1;
        format!("{:064x}", u128::from(self.count) << 64 | 0xfa4e)
    }

    pub fn time(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    fn volume(&mut self, mount: &Mount, anonymous: bool) {
        let labels = mount.label.clone().into_iter().collect();
        let root: PathBuf = self.root.0.clone();
        self.volumes
            .entry(mount.volume.clone())
            .or_insert_with(|| Volume::new(&root, &mount.volume, labels, anonymous));
    }

    /// Makes volumes of mounts that are absent.
    pub fn provide_volumes(&mut self, ask: &Ask) {
        ask.mounts.iter().for_each(|mount| self.volume(mount, false));
    }

    pub fn is_absent(&self, image: &str) -> bool {
        !self.images.contains(image)
    }

    pub fn create(&mut self, mut ask: Ask) -> Result<Output, String> {
        if let Some(other) = self.containers.get(&ask.name) {
            return Err(format!(
                "Conflict. The container name \"/{}\" is already in use by container \"{}\". You have to remove (or \
                 rename) that container to be able to reuse that name.",
                ask.name, other.id
            ));
        }
        self.images.insert(ask.image.clone());
        self.provide_volumes(&ask);
        let id = self.id();
        if !ask.mounts.iter().any(|mount| mount.at == STORE) && ask.volumes_from.is_none() {
            let mount = Mount { volume: self.id(), at: STORE.to_owned(), label: None };
            self.volume(&mount, true);
            ask.mounts.push(mount);
        }
        self.containers.insert(ask.name.clone(), Container::new(id.clone(), ask));
        Ok(words::said(format!("{id}\n")))
    }

    fn run(&mut self, ask: Ask) -> Output {
        let name = ask.name.clone();
        match self.create(ask) {
            Err(word) => words::run("", &word),
            Ok(created) => match self.start(&name) {
                Err(word) => words::run(&created.text(), &word),
                Ok(()) => created,
            },
        }
    }

    /// Does something to each, and goes on where it fails.
    fn each(&mut self, names: &[&str], work: fn(&mut Self, &str) -> Result<(), String>) -> Output {
        let mut output = words::said("");
        for name in names {
            let own = self.by_id(name);
            match work(self, &own) {
                Ok(()) => output.stdout.extend(format!("{name}\n").bytes()),
                Err(word) => {
                    output.code = Some(1);
                    output.stderr.extend(words::daemon(&word).stderr);
                }
            }
        }
        output
    }

    /// The name of a container that is given by its name or by its identity.
    pub fn by_id(&self, name: &str) -> String {
        let found = self.containers.iter().find(|(_, container)| container.id == *name);
        found.map_or_else(|| name.to_owned(), |(own, _)| own.clone())
    }

    fn remove(&mut self, names: &[&str], volumes: bool) -> Output {
        // By force, what is absent is said and is no failure.
        let with: fn(&mut Self, &str) -> Result<(), String> = |state, name| state.remove_one(name, true);
        let without: fn(&mut Self, &str) -> Result<(), String> = |state, name| state.remove_one(name, false);
        let output = self.each(names, if volumes { with } else { without });
        Output { code: Some(0), ..output }
    }

    fn remove_one(&mut self, name: &str, volumes: bool) -> Result<(), String> {
        let container = self.containers.remove(name).ok_or_else(|| words::no_container(name))?;
        let is_used = |volume: &str| self.containers.values().any(|other| other.store() == volume);
        let gone = container.ask.mounts.iter().filter(|mount| volumes && self.volumes[&mount.volume].anonymous);
        let gone: Vec<String> = gone.map(|mount| mount.volume.clone()).filter(|name| !is_used(name)).collect();
        gone.iter().for_each(|volume| self.drop_volume(volume));
        Ok(())
    }

    fn remove_volume(&mut self, name: &str) -> Result<(), String> {
        if !self.volumes.contains_key(name) {
            return Err(format!("get {name}: no such volume"));
        }
        let uses = |container: &&Container| container.ask.mounts.iter().any(|mount| mount.volume == name);
        if let Some(user) = self.containers.values().find(uses) {
            return Err(format!("remove {name}: volume is in use - [{}]", user.id));
        }
        self.drop_volume(name);
        Ok(())
    }

    fn drop_volume(&mut self, name: &str) {
        let volume = self.volumes.remove(name).unwrap();
        let elsewhere = |file: &String| self.volumes.values().any(|other| other.cached().contains(file));
        let lost: Vec<String> = volume.cached().into_iter().filter(|file| !elsewhere(file)).collect();
        self.lost.extend(lost.into_iter().map(|file| format!("{name}/{file}")));
        std::fs::remove_dir_all(volume.folder.parent().unwrap()).unwrap();
    }

    /// Opens a container's ports, or says why the engine cannot.
    pub fn open(&self, name: &str) -> Result<Vec<(u16, Door)>, String> {
        let container = &self.containers[name];
        let others = || self.containers.values().filter(|other| other.ask.name != name).flat_map(|other| &other.doors);
        let prefix = if self.release == Release::Docker29 { "failed to set up container networking: " } else { "" };
        let refused = |why: String| {
            let endpoint = format!("{name} ({})", container.id);
            format!("{prefix}driver failed programming external connectivity on endpoint {endpoint}: {why}")
        };
        let open = |port: &super::ask::Publish| {
            let ip = port.address();
            if port.host != 0 && others().any(|(_, door)| door.address.port() == port.host) {
                return Err(refused(format!("Bind for {ip}:{} failed: port is already allocated", port.host)));
            }
            let bind = |error: std::io::Error| {
                let why = match error.kind() {
                    std::io::ErrorKind::AddrNotAvailable => "cannot assign requested address",
                    _ => "address already in use",
                };
                refused(format!("Error starting userland proxy: listen tcp4 {ip}:{}: bind: {why}", port.host))
            };
            Ok((port.inside, Door::open(ip, port.host).map_err(bind)?))
        };
        container.ask.publish.iter().map(open).collect()
    }
}
