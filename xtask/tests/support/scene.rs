//! A scene of the conformance suite: what is done to an engine and what is seen of it, and both engines to play it on.
#![allow(missing_docs, clippy::unwrap_used)]

use std::time::{Duration, Instant};

use crate::caches::Caches;
use crate::fake::{self, Fake, Release, Upstream};
use crate::support::World;
use xtask::docker;
use xtask::exec::{Cmd, Interrupt, Processes, Runner};
use xtask::term::Term;

/// One engine, seen from a scene.
pub struct Scene<'a> {
    pub caches: Caches,
    pub runner: &'a dyn Runner,
    pub turn_upstream: &'a dyn Fn(bool),
    /// All that was done and seen, to be compared.
    pub record: Vec<String>,
}

impl Scene<'_> {
    /// `cache-up`, and what is there afterwards.
    pub fn up(&mut self, caches: &Caches) -> Vec<String> {
        let told = caches.told(&caches.up(self.runner));
        self.record.extend(told.clone());
        self.record.extend(caches.seen(self.runner));
        told
    }

    /// `cache-up` with the settings as they were at first.
    pub fn again(&mut self) -> Vec<String> {
        self.up(&self.caches.clone())
    }

    pub fn clean(&mut self, keep_cache: bool) {
        self.caches.clean(self.runner, keep_cache).unwrap();
        self.record.extend(self.caches.seen(self.runner));
    }

    /// What somebody types at the engine.
    pub fn docker(&mut self, args: &[&str]) -> String {
        let cmd = Cmd::write("docker").args(args.iter().copied());
        let output = self.runner.run(&cmd).unwrap();
        let (text, seen) =
            (output.text(), [output.text(), String::from_utf8_lossy(&output.stderr).into_owned()].concat());
        assert_eq!(output.code, Some(0), "{}: {seen}", cmd.shell());
        text
    }

    /// The same that may fail, with the engine's word for it.
    pub fn tries(&mut self, args: &[&str]) {
        let output = self.runner.run(&Cmd::write("docker").args(args.iter().copied())).unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        let word = self.caches.plain(error.lines().next().unwrap_or_default());
        self.record.push(format!("{:?} {word}", output.code));
    }

    pub fn name(&self, host: &str) -> String {
        self.caches.name(host)
    }

    /// Puts a file into the store of docker.io's proxy.
    pub fn fill(&mut self) {
        let name = self.name("docker.io");
        self.docker(&["exec", &name, "sh", "-c", "echo cached >/var/lib/registry/kept"]);
    }

    pub fn is_filled(&mut self) {
        let name = self.name("docker.io");
        assert_eq!(self.docker(&["exec", &name, "cat", "/var/lib/registry/kept"]), "cached\n");
    }

    /// Starts the proxies again and waits until they have found that they cannot.
    pub fn crash(&mut self, hosts: &[&str]) {
        for host in hosts {
            let name = self.name(host);
            self.docker(&["container", "restart", "-t", "0", &name]);
            let until = Instant::now() + Duration::from_secs(30);
            while !self.docker(&["container", "inspect", &name]).contains("\"Status\": \"restarting\"") {
                assert!(Instant::now() < until, "{name} does not crash");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

fn release(real: &Processes) -> Release {
    let version = real.run(&docker::version()).unwrap().text();
    let major = version.split_once(' ').and_then(|(_, release)| release.split('.').next()?.parse::<u32>().ok());
    // One that was built from source has no number, and is new.
    if major.is_some_and(|major| major < 28) { Release::Docker20 } else { Release::Docker29 }
}

/// Plays a scene on both engines.
pub fn on_both(name: &str, scene: impl Fn(&mut Scene)) {
    let processes = Processes::new(Interrupt::default(), Term::silent());
    let on_fake = {
        let fake = Fake::new(release(&processes));
        let upstream = "http://192.0.2.7:5000";
        let turn = |on| fake.upstream(upstream, if on { Upstream::Answers } else { Upstream::Refuses });
        let client = fake.client();
        let caches = Caches::new("fake-", &fake::ports(4), upstream);
        let mut on_fake = Scene { caches, runner: &client, turn_upstream: &turn, record: Vec::new() };
        scene(&mut on_fake);
        on_fake.record
    };
    let world = World::new(&format!("conf-{name}"));
    let turn = |on| world.upstream(if on { "start" } else { "stop" });
    let caches = Caches::new(&world.prefix, &world.ports[..4], &world.upstream_url());
    let mut on_real = Scene { caches, runner: &processes, turn_upstream: &turn, record: Vec::new() };
    scene(&mut on_real);
    assert_eq!(on_fake, on_real.record);
}
