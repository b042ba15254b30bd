//! One file from an address to a path: resumed, retried, checked, and whole from the moment it has its name.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};

use crate::curl::{self, Head, Outcome};
use crate::error::{Error, Finding, Result};
use crate::exec::{Cmd, Output, Runner};
use crate::report::bytes;
use crate::term::Term;

/// A file that is to be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// Where it comes from.
    pub address: &'a str,
    /// Where it is put; `PATH.part` is what has come so far.
    pub path: &'a Utf8Path,
    /// Its sha256 in hexadecimal, where one is published.
    pub digest: Option<&'a str>,
    /// After how many seconds without a byte a transfer is given up.
    pub patience: u32,
    /// What to do where the address is out of reach.
    pub fix: &'a str,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is at its path, whole.
    Whole,
    /// The server answers, and has no such file.
    Absent,
}

/// How many transfers in a row may bring nothing new before the address is called out of reach.
const TRIES: u32 = 3;
const TICK: Duration = Duration::from_millis(100);

/// Fetches a file. Only one process at a time may do so for one path.
///
/// # Errors
/// The server is out of reach or refuses, what it sends has another digest than published, the disk is full, or a
/// signal asked this process to end. What has come is kept whenever the next run can go on from it.
pub fn fetch(runner: &dyn Runner, term: Term, wanted: &Wanted<'_>) -> Result<Answer> {
    let mut download = Download::new(runner, term, wanted);
    download.claim();
    loop {
        if download.transfer()? == Answer::Absent {
            download.remove()?;
            return Ok(Answer::Absent);
        }
        let Some(mismatch) = download.mismatch()? else {
            return download.finish();
        };
        download.remove()?;
        if !download.resumed {
            return Err(mismatch);
        }
        download.resumed = false;
        term.step(&format!(
            "{}: put together from pieces, it has not the published sha256; once more",
            download.name()
        ));
    }
}

/// A file on its way.
struct Download<'a> {
    runner: &'a dyn Runner,
    term: Term,
    wanted: &'a Wanted<'a>,
    /// What has come so far.
    part: Utf8PathBuf,
    /// The header of the answer that it came with.
    head: Utf8PathBuf,
    /// Whether it came in more than one transfer.
    resumed: bool,
}

impl<'a> Download<'a> {
    fn new(runner: &'a dyn Runner, term: Term, wanted: &'a Wanted<'a>) -> Self {
        let part = Utf8PathBuf::from(format!("{}.part", wanted.path));
        let head = Utf8PathBuf::from(format!("{part}.head"));
        Self { runner, term, wanted, part, head, resumed: false }
    }

    fn name(&self) -> &str {
        self.wanted.path.file_name().unwrap_or(self.wanted.path.as_str())
    }

    fn size(&self) -> u64 {
        self.part.metadata().map_or(0, |part| part.len())
    }

    fn head(&self) -> Head {
        Head::parse(&std::fs::read_to_string(&self.head).unwrap_or_default())
    }

    /// A curl that a killed run left behind may still be writing to the part: what this run goes on with is a copy.
    fn claim(&self) {
        let copy = format!("{}.copy", self.part);
        if std::fs::copy(&self.part, &copy).and_then(|_| std::fs::rename(&copy, &self.part)).is_err() {
            // There is no part, or no room for two: then the part itself has to do, and the checks see to the rest.
            let _ = std::fs::remove_file(&copy);
        }
    }

    /// Transfers until the whole is there, as long as each attempt brings something new.
    fn transfer(&mut self) -> Result<Answer> {
        self.go_on()?;
        // Without a digest or a validator, nothing would tell the rest of another file from the rest of this one.
        if self.wanted.digest.is_none() && self.head().validator.is_none() {
            self.remove()?;
        }
        let (mut most, mut idle) = (self.size(), 0);
        match most {
            0 => self.term.step(&format!("fetching {}", self.wanted.address)),
            size => self.term.step(&format!("fetching {}, from {} on", self.wanted.address, bytes(size))),
        }
        loop {
            self.resumed |= self.size() > 0;
            let (outcome, words) = self.attempt()?;
            match outcome {
                Outcome::Whole => return Ok(Answer::Whole),
                Outcome::Absent => return Ok(Answer::Absent),
                Outcome::StartOver => self.remove()?,
                Outcome::Again => {}
                Outcome::Unwritable => return Err(self.unwritable(words)),
                Outcome::Refused => return Err(self.unreachable(words)),
            }
            idle = if self.size() > most { 0 } else { idle + 1 };
            most = most.max(self.size());
            if idle >= TRIES {
                return Err(self.unreachable(words));
            }
            if outcome == Outcome::Again {
                self.pause(idle)?;
            }
        }
    }

    fn attempt(&self) -> Result<(Outcome, Vec<String>)> {
        let before = std::fs::read(&self.head).unwrap_or_default();
        let resume = self.size() > 0;
        let validator = self.head().validator.filter(|_| resume);
        let Wanted { address, patience, .. } = *self.wanted;
        let output = self.watched(&curl::transfer(address, &self.part, &self.head, validator.as_deref(), patience))?;
        let head = self.head();
        if resume && head.validator.is_none() {
            // This answer never came, or says nothing of the file: what was known of the part still holds.
            let _ = std::fs::write(&self.head, before);
        }
        let outcome = Outcome::of(output.code, &head, self.size());
        Ok((outcome, output.tail(3)))
    }

    /// Runs curl and shows how far it is.
    fn watched(&self, cmd: &Cmd) -> Result<Output> {
        let bar = self.term.waiting(self.name());
        let done = AtomicBool::new(false);
        let output = std::thread::scope(|scope| {
            if !bar.is_hidden() {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        bar.set_message(self.progress());
                        std::thread::sleep(TICK);
                    }
                });
            }
            let output = self.runner.run(cmd);
            done.store(true, Ordering::Relaxed);
            output
        });
        output.map_err(|error| self.interrupted(error))
    }

    fn progress(&self) -> String {
        let name = self.name();
        if self.runner.interrupted().is_some() {
            return format!("{name}: stopping");
        }
        match self.head().total {
            Some(total) => format!("{name}: {} of {}", bytes(self.size()), bytes(total)),
            None => format!("{name}: {}", bytes(self.size())),
        }
    }

    /// Waits half a second before the first further attempt, and twice as long before each that follows.
    fn pause(&self, idle: u32) -> Result<()> {
        for _ in 0..5u32 << idle {
            self.go_on()?;
            std::thread::sleep(TICK);
        }
        Ok(())
    }

    fn go_on(&self) -> Result<()> {
        match self.runner.interrupted() {
            Some(signal) => Err(self.interrupted(Error::Interrupted { signal, left: String::new() })),
            None => Ok(()),
        }
    }

    /// An error about the digest, where one is published and what has come has another.
    fn mismatch(&self) -> Result<Option<Error>> {
        let Some(expected) = self.wanted.digest else {
            return Ok(None);
        };
        // The program rather than a crate: a task runner is built without optimisation, which hashes 100 MB in seconds.
        let cmd = Cmd::read("sha256sum").arg(self.part.as_str());
        let output = self.runner.run(&cmd).map_err(|error| self.interrupted(error))?;
        let text = output.checked(&cmd, "see that the file can be read")?.text();
        let found = text.split_whitespace().next().unwrap_or_default().trim_start_matches('\\');
        if found.eq_ignore_ascii_case(expected) {
            return Ok(None);
        }
        let problem = format!("what comes from there is not what was published: sha256 {found}, not {expected}");
        let fix = "see what stands between here and there (a proxy, a mirror), or name another address in [boot] of cache.toml";
        Ok(Some(Error::Blocked(vec![Finding::new(self.wanted.address, problem, fix)])))
    }

    fn finish(&self) -> Result<Answer> {
        let path = self.wanted.path;
        // The name says that the file is whole, so the bytes have to be on the disk before the name is.
        std::fs::File::open(&self.part)
            .and_then(|part| part.sync_all())
            .and_then(|()| std::fs::rename(&self.part, path))
            .map_err(|error| self.refused(path, error))?;
        self.remove()?;
        let size = bytes(path.metadata().map_or(0, |file| file.len()));
        let checked = if self.wanted.digest.is_some() { ", sha256 as published" } else { "" };
        self.term.step(&format!("{}: {size}{checked}, kept as {path}", self.name()));
        Ok(Answer::Whole)
    }

    fn remove(&self) -> Result<()> {
        for path in [&self.part, &self.head] {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(self.refused(path, error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether the next run can go on from what has come, in words.
    fn kept(&self) -> Option<String> {
        let usable = self.wanted.digest.is_some() || self.head().validator.is_some();
        let size = self.size();
        (usable && size > 0).then(|| format!("the next run goes on from the {} in {}", bytes(size), self.part))
    }

    fn interrupted(&self, error: Error) -> Error {
        match error {
            Error::Interrupted { signal, left } => Error::Interrupted { signal, left: self.kept().unwrap_or(left) },
            other => other,
        }
    }

    fn unreachable(&self, words: Vec<String>) -> Error {
        let kept = self.kept().map(|kept| format!("; {kept}")).unwrap_or_default();
        let problem = format!("cannot be fetched{kept}");
        Error::Blocked(vec![Finding::new(self.wanted.address, problem, self.wanted.fix).seen(words)])
    }

    /// curl ends with 23 whatever keeps it from writing; the system says which it is.
    fn unwritable(&self, words: Vec<String>) -> Error {
        let probe = format!("{}.probe", self.part);
        let probed = std::fs::write(&probe, [0; 4096]);
        let _ = std::fs::remove_file(&probe);
        let kept = self.kept().map(|kept| format!("; {kept}")).unwrap_or_default();
        if let Err(error) = probed
            && !matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
        {
            return self.refused(&self.part, error);
        }
        let problem = format!("its disk is full{kept}");
        Error::Blocked(vec![
            Finding::new(self.part.as_str(), problem, "make room there, and run this again").seen(words),
        ])
    }

    fn refused(&self, path: &Utf8Path, error: std::io::Error) -> Error {
        refused(path, path.parent().unwrap_or(path), error)
    }
}

/// An error about a path that could not be written; `owned` is the folder above it that is this user's to have.
pub fn refused(path: &Utf8Path, owned: &Utf8Path, error: std::io::Error) -> Error {
    let (problem, fix) = match error.kind() {
        ErrorKind::PermissionDenied => (
            "this user may not write there; an earlier run as root made it, perhaps",
            format!("sudo chown -R \"$(id -u)\" {owned}"),
        ),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => ("its disk is full", "make room there".to_owned()),
        _ => return Error::io(format!("write {path}"))(error),
    };
    Error::Blocked(vec![Finding::new(path.as_str(), problem, fix)])
}
