//! What containers do when they are started, stopped or asked from inside, and the helpers that come and go.

use std::io::Read;

use super::Upstream;
use super::ask::{Ask, Mount};
use super::container::{Container, Phase};
use super::engine::{Release, State};
use super::volume::RECORD;
use super::words;
use xtask::config::Mirror;
use xtask::docker::{self, STORE};
use xtask::exec::{Cmd, Output};
use xtask::{credentials, docker::REMOTE, login};

/// What a registry does once its container is started, and the lines that it writes.
enum Boot {
    Serves(Vec<String>),
    Waits,
    Ends(Vec<String>),
}

fn line(message: &str) -> String {
    format!("time=\"2026-01-01T00:00:00Z\" level=info msg=\"{message}\" service=registry version=2.8.2")
}

fn listens() -> String {
    line("listening on [::]:5000")
}

fn panics(word: &str) -> Vec<String> {
    vec![line("redis not configured"), format!("panic: {word}"), String::new(), "goroutine 1 [running]:".to_owned()]
}

/// What a registry says of an upstream that it asks when it starts.
fn ask_upstream(url: &str, does: Upstream) -> Boot {
    let place = url.split_once("://").map_or(url, |(_, place)| place);
    match does {
        Upstream::Silent => Boot::Waits,
        Upstream::Refuses => {
            Boot::Ends(panics(&format!("Get \"{url}/v2/\": dial tcp {place}: connect: connection refused")))
        }
        Upstream::Answers => Boot::Serves(vec![line(&format!("Registry configured as a proxy cache to {url}"))]),
        Upstream::AsksForAToken => {
            let discovered = line(&format!("Discovered token authentication URL: {url}/token"));
            Boot::Serves(vec![discovered, line(&format!("Registry configured as a proxy cache to {url}"))])
        }
    }
}

impl State {
    fn container(&mut self, name: &str) -> Result<&mut Container, String> {
        self.containers.get_mut(name).ok_or_else(|| words::no_container(name))
    }

    fn boot(&self, name: &str) -> Boot {
        let container = &self.containers[name];
        if container.ask.entrypoint.is_some() {
            return Boot::Waits;
        }
        if container.with_account() && !container.files.contains_key(credentials::PATH) {
            let word = format!("configuration error: open {}: no such file or directory", credentials::PATH);
            return Boot::Ends(vec![word, "Usage:".to_owned(), "  registry serve <config> [flags]".to_owned()]);
        }
        let Some(url) = container.upstream() else { return Boot::Serves(vec![listens()]) };
        if !container.networked {
            return ask_upstream(url, Upstream::Refuses);
        }
        if self.volumes[container.store()].is_damaged() {
            return Boot::Ends(panics("unexpected end of JSON input"));
        }
        match ask_upstream(url, self.upstreams.get(url).copied().unwrap_or_default()) {
            Boot::Serves(mut lines) => {
                lines.push(listens());
                Boot::Serves(lines)
            }
            other => other,
        }
    }

    pub fn start(&mut self, name: &str) -> Result<(), String> {
        match self.container(name)?.phase {
            Phase::Running => return Ok(()),
            Phase::Paused => return Err("cannot start a paused container, try unpause instead".to_owned()),
            Phase::Created | Phase::Exited | Phase::Restarting => {}
        }
        let doors = if self.containers[name].networked { self.open(name) } else { Ok(Vec::new()) };
        let takes_network = self.release == Release::Docker29;
        let (time, boot) = (self.time(), self.boot(name));
        let container = self.container(name)?;
        match doors {
            Ok(doors) => container.doors = doors,
            Err(word) => {
                container.error.clone_from(&word);
                container.networked = !takes_network;
                return Err(word);
            }
        }
        container.error.clear();
        container.started = Some(time);
        container.log.clear();
        let (phase, serves, lines) = match boot {
            Boot::Serves(lines) => (Phase::Running, true, lines),
            Boot::Waits => (Phase::Running, false, Vec::new()),
            Boot::Ends(lines) if container.ask.restart == "always" => (Phase::Restarting, false, lines),
            Boot::Ends(lines) => (Phase::Exited, false, lines),
        };
        container.log = lines;
        container.enter(phase, serves);
        Ok(())
    }

    pub fn stop(&mut self, name: &str) -> Result<(), String> {
        let container = self.container(name)?;
        if container.phase != Phase::Created {
            container.enter(Phase::Exited, false);
        }
        Ok(())
    }

    pub fn start_command(&mut self, name: &str) -> Output {
        match self.start(name) {
            Ok(()) => words::said(format!("{name}\n")),
            Err(word) => {
                words::failed(&format!("Error response from daemon: {word}\nError: failed to start containers: {name}"))
            }
        }
    }

    pub fn restart(&mut self, name: &str) -> Output {
        if !self.containers.contains_key(name) {
            return words::daemon(&words::no_container(name));
        }
        match self.stop(name).and_then(|()| self.start(name)) {
            Ok(()) => words::said(format!("{name}\n")),
            Err(word) => words::daemon(&format!("Cannot restart container {name}: {word}")),
        }
    }

    pub fn pause(&mut self, name: &str) -> Output {
        match self.container(name) {
            Err(word) => words::daemon(&word),
            Ok(container) if container.phase != Phase::Running => {
                words::daemon(&format!("Container {} is not running", container.id))
            }
            Ok(container) => {
                container.enter(Phase::Paused, container.serves);
                words::said(format!("{name}\n"))
            }
        }
    }

    pub fn unpause(&mut self, name: &str) -> Output {
        match self.container(name) {
            Err(word) => words::daemon(&word),
            Ok(container) if container.phase != Phase::Paused => {
                words::daemon(&format!("Container {} is not paused", container.id))
            }
            Ok(container) => {
                container.enter(Phase::Running, container.serves);
                words::said(format!("{name}\n"))
            }
        }
    }

    /// `docker exec`, `logs` and `cp`.
    pub fn inside(&mut self, cmd: &Cmd) -> Output {
        let words: Vec<&str> = cmd.argv().collect();
        let (name, path) = match words[1..] {
            ["logs", "--tail" | "--since", _, name] => (name, ""),
            ["cp", "-", at] | ["cp", at, "-"] => at.split_once(':').unwrap(),
            ["exec", "--env", _, "--env", _, "--env", _, "--env", _, name, ..] | ["exec", name, ..] => (name, ""),
            _ => panic!("the fake engine does not know `{}`", cmd.shell()),
        };
        let Ok(container) = self.container(name) else {
            return words::daemon(&words::no_container(name));
        };
        match words[1..] {
            ["logs", "--since", since, _] => {
                let started = container.started_at();
                assert!([login::since(&started), started].iter().any(|from| from == since), "{}", cmd.shell());
            }
            ["cp", "-", _] => {
                put(container, path, cmd.input().unwrap());
                return words::said("");
            }
            ["cp", ..] => return get(container, path),
            ["exec", ..] => return container.cannot_exec().unwrap_or_else(|| self.exec(name, cmd, &words[2..])),
            _ => {}
        }
        let log: String = container.log.iter().map(|line| format!("{line}\n")).collect();
        Output { stderr: log.into_bytes(), ..words::said("") }
    }

    fn exec(&mut self, name: &str, cmd: &Cmd, words: &[&str]) -> Output {
        let (container, store) = (&self.containers[name], &self.volumes[self.containers[name].store()]);
        if words[1..].iter().any(|word| word.contains("wget -q -U ")) {
            // It has no upstream to ask that would take or refuse credentials.
            return words::failed("wget: server returned error: HTTP/1.1 500 Internal Server Error");
        }
        if *cmd == docker::ask_inside(name) {
            let refused = || words::failed("wget: can't connect to remote host (127.0.0.1): Connection refused");
            return if container.serves { words::said("") } else { refused() };
        }
        if *cmd == docker::bytes_inside(name, STORE) {
            return words::said(format!("{}\n", store.bytes()));
        }
        let file = |path: &str| store.folder.join(path.strip_prefix(STORE).unwrap().trim_start_matches('/'));
        match words {
            ["--env", remote, ..] => {
                let url = remote.strip_prefix(REMOTE).unwrap().trim_start_matches('=');
                assert_eq!(*cmd, docker::probe_upstream(&mirror(name, "", url)), "{}", cmd.shell());
                match ask_upstream(url, self.upstreams.get(url).copied().unwrap_or_default()) {
                    Boot::Serves(lines) => {
                        said_on_stderr(&[lines, vec![line("listening on 127.0.0.1:40467")]].concat())
                    }
                    Boot::Ends(lines) => Output { code: Some(2), ..said_on_stderr(&lines) },
                    Boot::Waits => Output { code: Some(143), ..words::said("") },
                }
            }
            // What somebody types to look at a store, or to put something there.
            [_, "cat", path] => match std::fs::read(file(path)) {
                Ok(text) => words::said(text),
                Err(_) => words::failed(&format!("cat: can't open '{path}': No such file or directory")),
            },
            [_, "sh", "-c", script] => {
                let (text, path) = script.split_once(" >").unwrap();
                let text = text.strip_prefix("echo ").map(|text| format!("{text}\n")).unwrap_or_default();
                std::fs::write(file(path), text).unwrap();
                words::said("")
            }
            _ => panic!("the fake engine does not know `{}`", cmd.shell()),
        }
    }

    /// A container that copies a store and stays: to the end, or until the engine ends it half-way.
    pub fn copier(&mut self, cmd: &Cmd, ask: Ask, all: bool) -> Output {
        let from = ask.volumes_from.clone().unwrap();
        let name = ask.name.trim_end_matches("-adopting").to_owned();
        let id = from;
        let from = self.by_id(&id);
        let Some(source) = self.containers.get(&from) else { return words::run("", &words::no_container(&from)) };
        let store = source.store().to_owned();
        let (prefix, run) = (ask.labels[docker::LABEL_PREFIX].clone(), ask.labels[docker::LABEL_RUN].clone());
        assert_eq!(*cmd, docker::copy_store(&mirror(&name, &ask.image, ""), &id, &prefix, &run), "{}", cmd.shell());
        let (volume, name, mut ask) = (name, ask.name.clone(), ask);
        ask.mounts.push(Mount { volume: store.clone(), at: STORE.to_owned(), label: None });
        if let Err(word) = self.create(ask) {
            return words::run("", &word);
        }
        self.volumes[&store].copy_to(&self.volumes[&volume], all);
        let time = self.time();
        let copier = self.containers.get_mut(&name).unwrap();
        copier.started = Some(time);
        copier.exit_code = if all { 0 } else { 137 };
        copier.enter(Phase::Exited, false);
        words::said("")
    }

    /// A container that comes and goes: all of what it does, or what it has done when the engine dies half-way.
    pub fn helper(&mut self, cmd: &Cmd, ask: &Ask, all: bool) -> Output {
        if ask.never_pull && self.is_absent(&ask.image) {
            return words::run("", &format!("No such image: {}", ask.image));
        }
        let from = ask.volumes_from.as_deref();
        if let Some(from) = from.filter(|from| !self.containers.contains_key(*from)) {
            return words::run("", &words::no_container(from));
        }
        self.provide_volumes(ask);
        if let Some(from) = from {
            let mirror = mirror(from, &ask.image, "");
            let store = self.containers[from].store().to_owned();
            if *cmd == docker::move_state_aside(&mirror) {
                let record = self.folder(&store).join(RECORD);
                if all && record.exists() {
                    std::fs::rename(&record, record.with_file_name(format!("{RECORD}.damaged-1"))).unwrap();
                }
                return words::said("");
            }
            panic!("the fake engine does not know `{}`", cmd.shell());
        }
        let names: Vec<String> = ask.mounts.iter().map(|mount| mount.volume.clone()).collect();
        if ask.entrypoint.as_deref() == Some("rm") {
            let prefix = &ask.mounts[0].label.as_ref().unwrap().1;
            assert_eq!(*cmd, docker::discard_copy(&mirror(&names[0], &ask.image, ""), prefix), "{}", cmd.shell());
            if all {
                self.volumes[&names[0]].discard_copy();
            }
            return words::said("");
        }
        if *cmd == docker::files(&names, &ask.image) {
            let files = |(n, name): (usize, &String)| {
                self.volumes[name].cached().iter().map(|file| format!("/{n}/{file}\n")).collect::<String>()
            };
            return words::said(names.iter().enumerate().map(files).collect::<String>());
        }
        assert_eq!(*cmd, docker::bytes_on_volumes(&names, &ask.image), "{}", cmd.shell());
        let size = |name: &String| format!("{}\n", self.volumes[name].bytes());
        words::said(names.iter().map(size).collect::<String>())
    }
}

/// A mirror of which only so much is known, for comparing a command with what makes it.
fn mirror(name: &str, image: &str, upstream: &str) -> Mirror {
    let (name, image, upstream) = (name.to_owned(), image.to_owned(), upstream.to_owned());
    Mirror { host: String::new(), name, image, upstream, port: 0, credentials: None }
}

fn said_on_stderr(lines: &[String]) -> Output {
    Output { stderr: lines.iter().map(|line| format!("{line}\n")).collect::<String>().into_bytes(), ..words::said("") }
}

fn put(container: &mut Container, folder: &str, archive: &[u8]) {
    for entry in tar::Archive::new(archive).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = format!("{folder}/{}", entry.path().unwrap().display());
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        container.files.insert(path, bytes);
    }
}

fn get(container: &Container, path: &str) -> Output {
    let Some(bytes) = container.files.get(path) else {
        let name = &container.ask.name;
        return words::daemon(&format!("Could not find the file {path} in container {name}"));
    };
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes.len() as u64);
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_data(&mut header, path.rsplit('/').next().unwrap(), &bytes[..]).unwrap();
    words::said(archive.into_inner().unwrap())
}
