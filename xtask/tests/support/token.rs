//! An upstream that asks for a token, or for an account plainly, as Docker Hub and others do; it can be busy.
#![allow(dead_code, missing_docs, clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use xtask::sample::{Image, Kind, digest};

/// How it asks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    Token,
    Plainly,
}

/// A registry with one image, `library/private:v1`, for those who have the account.
pub struct Upstream {
    pub port: u16,
    state: Arc<State>,
}

struct State {
    asks: Asks,
    port: u16,
    busy: AtomicBool,
    /// The `Authorization` headers that asked for a token or came plainly.
    accounts: Mutex<Vec<String>>,
    /// The only ones that it takes, where not all will do.
    only: Mutex<Option<String>>,
    image: Image,
}

impl Upstream {
    pub fn start(asks: Asks) -> Self {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let image = Image::new(Kind::Oci, "amd64", "private", &[50_000]).unwrap();
        let (busy, accounts, only) = (AtomicBool::new(false), Mutex::default(), Mutex::default());
        let state = Arc::new(State { asks, port, busy, accounts, only, image });
        let served = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&served);
                std::thread::spawn(move || while state.answer(&stream).is_some() {});
            }
        });
        Self { port, state }
    }

    /// Takes no credentials but these from now on, as an `Authorization` header.
    pub fn takes_only(&self, account: &str) {
        *self.state.only.lock().unwrap() = Some(account.to_owned());
    }

    pub fn busy(&self, busy: bool) {
        self.state.busy.store(busy, Ordering::SeqCst);
    }

    /// The accounts that were used so far, as `Authorization` headers.
    pub fn accounts(&self) -> Vec<String> {
        self.state.accounts.lock().unwrap().clone()
    }

    pub fn layer(&self) -> (String, Vec<u8>) {
        let layer = &self.state.image.blobs[1];
        (digest(layer), layer.clone())
    }
}

impl State {
    /// Answers one request of a connection; `None` once it is at its end.
    fn answer(&self, stream: &TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        let mut headers = Vec::new();
        while reader.read_line(&mut line).ok()? > 0 && !line.trim().is_empty() {
            headers.push(std::mem::take(&mut line));
        }
        let mut request = headers.first()?.split(' ');
        let (method, path) = (request.next()?.to_owned(), request.next()?.to_owned());
        let header = |name: &str| {
            headers.iter().find_map(|header| {
                let (found, value) = header.split_once(':')?;
                found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
            })
        };
        let host = header("host")?;
        let account = header("authorization").unwrap_or_default();
        let (status, more, body) = self.respond(&path, &host, &account);
        let length = body.len();
        let mut out = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{more}\r\n").into_bytes();
        if method != "HEAD" {
            out.extend(body);
        }
        (&mut &*stream).write_all(&out).ok()
    }

    fn takes(&self, account: &str) -> bool {
        self.only.lock().unwrap().as_ref().is_none_or(|only| only == account)
    }

    fn respond(&self, path: &str, host: &str, account: &str) -> (&'static str, String, Vec<u8>) {
        if self.busy.load(Ordering::SeqCst) {
            return ("503 Service Unavailable", String::new(), Vec::new());
        }
        if path.starts_with("/token") {
            self.accounts.lock().unwrap().push(account.to_owned());
            if !self.takes(account) {
                let body = br#"{"details":"incorrect username or password"}"#.to_vec();
                return ("401 Unauthorized", "Content-Type: application/json\r\n".to_owned(), body);
            }
            return ("200 OK", "Content-Type: application/json\r\n".to_owned(), br#"{"token":"good"}"#.to_vec());
        }
        if self.asks == Asks::Plainly && !account.is_empty() {
            self.accounts.lock().unwrap().push(account.to_owned());
        }
        let (challenge, allowed) = match self.asks {
            Asks::Token => (format!("Bearer realm=\"http://{host}/token\",service=\"test\""), account == "Bearer good"),
            Asks::Plainly => ("Basic realm=\"test\"".to_owned(), account.starts_with("Basic ") && self.takes(account)),
        };
        if !allowed {
            return ("401 Unauthorized", format!("WWW-Authenticate: {challenge}\r\n"), Vec::new());
        }
        let path = path.split('?').next().unwrap_or(path);
        let content = match path.strip_prefix("/v2/library/private/") {
            None => Some((Vec::new(), "application/json")).filter(|_| path == "/v2/"),
            Some(path) if path.starts_with("manifests/") => {
                Some((self.image.manifest.clone(), self.image.kind.manifest()))
            }
            Some(path) => {
                let blob = self.image.blobs.iter().find(|blob| path == format!("blobs/{}", digest(blob)));
                blob.map(|blob| (blob.clone(), "application/octet-stream"))
            }
        };
        match content {
            Some((bytes, media)) => {
                let digest = digest(&bytes);
                ("200 OK", format!("Content-Type: {media}\r\nDocker-Content-Digest: {digest}\r\n"), bytes)
            }
            None => ("404 Not Found", String::new(), Vec::new()),
        }
    }
}
