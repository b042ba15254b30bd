//! An engine in memory, and clients of it that can be made to fail, to die, or to be overtaken by another run.
#![allow(dead_code, missing_docs, clippy::unwrap_used)]

#[path = "fake/ask.rs"]
mod ask;
#[path = "fake/container.rs"]
mod container;
#[path = "fake/door.rs"]
mod door;
#[path = "fake/engine.rs"]
mod engine;
#[path = "fake/inside.rs"]
mod inside;
#[path = "fake/look.rs"]
mod look;
#[path = "fake/volume.rs"]
mod volume;
#[path = "fake/words.rs"]
mod words;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

pub use engine::Release;
use engine::State;
use xtask::error::{Error, Result};
use xtask::exec::{Cmd, Effect, Output, Runner};

/// What an upstream does when a registry that starts asks it for `/v2/`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Upstream {
    #[default]
    Answers,
    /// The same, and it names the service that gives out tokens.
    AsksForAToken,
    /// Nothing listens there: every registry panics.
    Refuses,
    /// It takes the connection and says nothing: a registry waits, its port closed.
    Silent,
}

/// The engine. Its containers' ports are real ones of this host, and its volumes real folders.
pub struct Fake {
    state: Mutex<State>,
    down: AtomicBool,
}

impl Fake {
    pub fn new(release: Release) -> Self {
        Self { state: Mutex::new(State::new(release)), down: AtomicBool::new(false) }
    }

    /// A client whose every command works.
    pub fn client(&self) -> Client<'_> {
        Client {
            fake: self,
            commands: AtomicUsize::new(0),
            writes: AtomicUsize::new(0),
            dead: AtomicBool::new(false),
            signal: AtomicUsize::new(0),
            fault: None,
            before: Mutex::new(None),
        }
    }

    /// A client that meets a fault at its nth command that writes, counted from 0.
    pub fn faulty(&self, write: usize, fault: Fault) -> Client<'_> {
        Client { fault: Some((write, fault)), ..self.client() }
    }

    /// A client ahead of whose nth command, counted from 0, something else happens.
    pub fn overtaken<'a>(&'a self, command: usize, by: impl FnOnce() + Send + 'a) -> Client<'a> {
        Client { before: Mutex::new(Some((command, Box::new(by)))), ..self.client() }
    }

    pub fn engine_is_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    pub fn upstream(&self, url: &str, does: Upstream) {
        self.state().set_upstream(url, does);
    }

    /// Lets an image be there, or be had by a pull.
    pub fn image(&self, image: &str, there: bool) {
        self.state().set_image(image, there);
    }

    /// What was in the volumes that were removed, and is in no other.
    pub fn lost(&self) -> Vec<String> {
        self.state().lost().to_vec()
    }

    pub fn volumes(&self) -> Vec<String> {
        self.state().volume_names()
    }

    pub fn containers(&self) -> Vec<String> {
        self.state().container_names()
    }

    /// A volume's folder on this host.
    pub fn folder(&self, volume: &str) -> std::path::PathBuf {
        self.state().folder(volume).to_owned()
    }

    /// Whether a file is in a volume.
    pub fn holds(&self, volume: &str, file: impl AsRef<Path>) -> bool {
        self.volumes().iter().any(|name| name == volume) && self.folder(volume).join(file).exists()
    }

    /// Whether a copy to a volume was left unfinished.
    pub fn has_unfinished_copy(&self, volume: &str) -> bool {
        self.state().volumes[volume].has_unfinished_copy()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A command that the fake does not know fails the test; the rest of it need not fail for that, too.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn ask(&self, cmd: &Cmd) -> Output {
        if self.down.load(Ordering::SeqCst) { words::down(cmd) } else { self.state().answer(cmd) }
    }
}

/// What goes wrong at a command that writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The engine says no, and does nothing.
    Refused,
    /// The engine does it, and the client says that it failed.
    Unheard,
    /// The run is killed before the engine hears of it.
    KilledBefore,
    /// The run is killed when the engine has done the first half of it: created and not started, one of two removed.
    KilledHalfway,
    /// The run is killed when all of it is done.
    KilledAfter,
}

type Hook<'a> = Box<dyn FnOnce() + Send + 'a>;

/// One run's client of the engine.
pub struct Client<'a> {
    fake: &'a Fake,
    commands: AtomicUsize,
    writes: AtomicUsize,
    dead: AtomicBool,
    signal: AtomicUsize,
    fault: Option<(usize, Fault)>,
    before: Mutex<Option<(usize, Hook<'a>)>>,
}

impl Client<'_> {
    /// How many commands it has been given.
    pub fn commands(&self) -> usize {
        self.commands.load(Ordering::SeqCst)
    }

    /// How many of them write.
    pub fn writes(&self) -> usize {
        self.writes.load(Ordering::SeqCst)
    }

    /// Whether its fault, if it has one, has been met.
    pub fn is_met(&self) -> bool {
        self.fault.is_none_or(|(write, _)| self.writes() > write)
    }

    /// Asks the run to end, as Ctrl-C does.
    pub fn interrupt(&self) {
        self.signal.store(2, Ordering::SeqCst);
    }

    fn killed(&self) -> Error {
        self.dead.store(true, Ordering::SeqCst);
        Error::Interrupted { signal: 9, left: String::new() }
    }

    fn overtake(&self) {
        let number = self.commands.fetch_add(1, Ordering::SeqCst);
        let hook = {
            let mut before = self.before.lock().unwrap();
            if before.as_ref().is_some_and(|(at, _)| number >= *at) { before.take() } else { None }
        };
        if let Some((_, hook)) = hook {
            hook();
        }
    }

    fn fault(&self, cmd: &Cmd) -> Option<Fault> {
        if cmd.effect() == Effect::Read {
            return None;
        }
        let number = self.writes.fetch_add(1, Ordering::SeqCst);
        self.fault.filter(|(at, _)| number == *at).map(|(_, fault)| fault)
    }
}

impl Runner for Client<'_> {
    fn run(&self, cmd: &Cmd) -> Result<Output> {
        self.overtake();
        if self.dead.load(Ordering::SeqCst) {
            return Err(self.killed());
        }
        match self.fault(cmd) {
            None => Ok(self.fake.ask(cmd)),
            Some(Fault::Refused) => Ok(words::refused()),
            Some(Fault::Unheard) => {
                self.fake.ask(cmd);
                Ok(words::refused())
            }
            Some(Fault::KilledBefore) => Err(self.killed()),
            Some(Fault::KilledHalfway) => {
                self.fake.state().answer_half(cmd);
                Err(self.killed())
            }
            Some(Fault::KilledAfter) => {
                self.fake.ask(cmd);
                Err(self.killed())
            }
        }
    }

    fn lines(&self, cmd: &Cmd, line: &mut dyn FnMut(&str) -> bool) -> Result<bool> {
        let output = self.run(cmd)?;
        let well = output.ok();
        let both = [output.stdout, output.stderr].concat();
        let all = String::from_utf8(both).unwrap().lines().all(line);
        Ok(well || !all)
    }

    fn interrupted(&self) -> Option<usize> {
        if self.dead.load(Ordering::SeqCst) {
            return Some(9);
        }
        Some(self.signal.load(Ordering::SeqCst)).filter(|signal| *signal != 0)
    }
}

/// Ports that are free now, below those that a system gives to whoever asks for any.
pub fn ports(count: usize) -> Vec<u16> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let start = std::process::id() as usize * 131;
    let next = || 11_000 + u16::try_from((start + NEXT.fetch_add(1, Ordering::SeqCst)) % 20_000).unwrap();
    let free = |port: &u16| std::net::TcpListener::bind(("0.0.0.0", *port)).is_ok();
    std::iter::repeat_with(next).filter(free).take(count).collect()
}
