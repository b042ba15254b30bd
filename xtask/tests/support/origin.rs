//! A server of files on loopback that can fail as real ones do, and remembers what it was asked.
#![allow(dead_code, missing_docs, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

/// What goes wrong with one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection ends after so many bytes of the body.
    Cut(usize),
    /// So many bytes of the body, and then none until [`Origin::release`].
    Stall(usize),
    /// This status, and no file.
    Status(u16),
}

/// A request as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub path: String,
    /// The first byte asked for, where it was a request for a range.
    pub from: Option<usize>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    faults: Vec<(String, Fault)>,
    requests: Vec<Request>,
    no_ranges: bool,
    no_tags: bool,
    stalled: bool,
    released: bool,
}

/// The server; it ends with the test process.
#[derive(Clone)]
pub struct Origin {
    pub port: u16,
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl Origin {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let origin = Self { port: listener.local_addr().unwrap().port(), shared: Arc::default() };
        let server = origin.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = server.clone();
                // A client that hangs up in the middle is part of the game.
                std::thread::spawn(move || server.answer(stream).ok());
            }
        });
        origin
    }

    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap()
    }

    pub fn put(&self, path: &str, bytes: &[u8]) {
        self.state().files.insert(path.to_owned(), bytes.to_owned());
    }

    /// The next answers for paths with this end, one fault each.
    pub fn faults(&self, suffix: &str, faults: &[Fault]) {
        self.state().faults.extend(faults.iter().map(|&fault| (suffix.to_owned(), fault)));
    }

    pub fn without_ranges(&self) {
        self.state().no_ranges = true;
    }

    pub fn without_tags(&self) {
        self.state().no_tags = true;
    }

    /// What was asked since the last time, digest lists left out.
    pub fn requests(&self) -> Vec<Request> {
        let all = std::mem::take(&mut self.state().requests);
        all.into_iter().filter(|request| !request.path.ends_with("sha256sum.txt")).collect()
    }

    pub fn wait_until_stalled(&self) {
        let until = |state: &mut State| !state.stalled;
        drop(self.shared.1.wait_while(self.state(), until).unwrap());
    }

    pub fn release(&self) {
        self.state().released = true;
        self.shared.1.notify_all();
    }

    fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let first = lines.next().transpose()?.unwrap_or_default();
        let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut fields = BTreeMap::new();
        while let Some(line) = lines.next().transpose()?.filter(|line| !line.is_empty()) {
            if let Some((name, value)) = line.split_once(": ") {
                fields.insert(name.to_ascii_lowercase(), value.to_owned());
            }
        }
        let from = fields.get("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
        let (fault, body, no_ranges, no_tags) = {
            let mut state = self.state();
            state.requests.push(Request { path: path.clone(), from });
            let at = state.faults.iter().position(|(suffix, _)| path.ends_with(suffix.as_str()));
            let fault = at.map(|at| state.faults.remove(at).1);
            (fault, state.files.get(&path).cloned(), state.no_ranges, state.no_tags)
        };
        let status = match fault {
            Some(Fault::Status(status)) => Some(status),
            _ => body.is_none().then_some(404),
        };
        let (Some(body), None) = (body, status) else {
            let status = status.unwrap_or_default();
            return write!(stream, "HTTP/1.1 {status} No\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n");
        };
        let tag = format!("\"{}\"", super::support::digest(&body));
        let changed = fields.get("if-range").is_some_and(|wanted| *wanted != tag);
        let from = from.filter(|_| !no_ranges && !changed);
        let total = body.len();
        let rest = &body[from.unwrap_or(0).min(total)..];
        let (status, range) = match from {
            Some(from) if from >= total => ("416 Range Not Satisfiable", format!("Content-Range: bytes */{total}\r\n")),
            Some(from) => {
                ("206 Partial Content", format!("Content-Range: bytes {from}-{}/{total}\r\n", total.saturating_sub(1)))
            }
            None => ("200 OK", String::new()),
        };
        let tag = if no_tags { String::new() } else { format!("ETag: {tag}\r\n") };
        let length = rest.len();
        write!(stream, "HTTP/1.1 {status}\r\n{range}{tag}Content-Length: {length}\r\nConnection: close\r\n\r\n")?;
        match fault {
            Some(Fault::Cut(count)) => stream.write_all(&rest[..count.min(length)]),
            Some(Fault::Stall(count)) => {
                stream.write_all(&rest[..count.min(length)])?;
                let mut state = self.state();
                state.stalled = true;
                self.shared.1.notify_all();
                drop(self.shared.1.wait_while(state, |state| !state.released).unwrap());
                Ok(())
            }
            _ => stream.write_all(rest),
        }
    }
}
