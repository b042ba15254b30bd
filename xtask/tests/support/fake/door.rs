//! A published port: a real one, behind which a registry answers `/v2/` or nobody does.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_millis(500);

/// Closed when it is dropped.
pub struct Door {
    pub address: SocketAddr,
    serves: Arc<AtomicBool>,
    closed: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Door {
    /// Opens a port, any one for 0.
    pub fn open(ip: IpAddr, port: u16) -> std::io::Result<Self> {
        let listener = TcpListener::bind((ip, port))?;
        let address = listener.local_addr()?;
        let (serves, closed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let flags = (Arc::clone(&serves), Arc::clone(&closed));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if flags.1.load(Ordering::SeqCst) {
                    return;
                }
                // The engine's own proxy takes every connection, and drops it where nobody listens behind it.
                if let Ok(stream) = stream
                    && flags.0.load(Ordering::SeqCst)
                {
                    let _ = answer(stream);
                }
            }
        });
        Ok(Self { address, serves, closed, thread: Some(thread) })
    }

    pub fn serve(&self, serves: bool) {
        self.serves.store(serves, Ordering::SeqCst);
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::SeqCst);
        let ip = if self.address.ip().is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { self.address.ip() };
        // Wakes the thread, which waits for somebody to come.
        let _ = TcpStream::connect_timeout(&(ip, self.address.port()).into(), PATIENCE);
        let _ = self.thread.take().map(JoinHandle::join);
        // A process that another test has just forked holds a copy until it becomes what it is to be.
        let until = Instant::now() + PATIENCE;
        while TcpListener::bind(self.address).is_err() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            count => request.extend(&buffer[..count]),
        }
    }
    let status = if request.starts_with(b"GET /v2/ ") { "200 OK" } else { "404 Not Found" };
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}")
}
