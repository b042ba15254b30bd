//! What an upstream with `http://` in its address really speaks, seen from this host.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::host::Host;
use crate::registry;

/// Upstreams that matter here are on the local network, or away.
const PATIENCE: Duration = Duration::from_millis(500);
/// The beginning of a TLS handshake that is cut short, and the end of a request: a server of TLS answers the first with an
/// alert (RFC 8446, 5.1 and 6), one of HTTP the second with a refusal, so that neither keeps anybody waiting.
const CUT_HELLO: &[u8] = b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00\r\n\r\n";
/// The types of a TLS record that may come back: an alert, a handshake.
const RECORDS: [u8; 2] = [0x15, 0x16];

/// Why such an upstream cannot be used.
pub const SPEAKS_TLS: &str = "it speaks TLS, and its address begins with http://";

/// The host and the port of an upstream, as the settings have it: a scheme, a host and perhaps a port.
pub fn place(upstream: &str) -> Option<(Host, u16)> {
    let (scheme, authority) = upstream.split_once("://")?;
    let usual = if scheme == "https" { 443 } else { 80 };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        _ => (authority, usual),
    };
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    let host = bare.parse().map_or_else(|_| Host::Name(host.to_owned()), Host::Address);
    Some((host, port))
}

/// Whether an upstream with `http://` in its address is a server of TLS, as far as this host can tell: one that is out of
/// reach from here is not called that.
///
/// A server of TLS that answers plain HTTP does so with status 400 (Go, nginx), for which a registry starts all the same;
/// one that serves both on one port does not.
pub fn refuses_plain_http(upstream: &str) -> bool {
    let Some(authority) = upstream.strip_prefix("http://").filter(|_| speaks_tls(upstream)) else { return false };
    let status = registry::agent(PATIENCE, false)
        .get(format!("http://{authority}/v2/"))
        .call()
        .map(|response| response.status().as_u16());
    matches!(status, Ok(400))
}

/// Whether whoever listens at an `http://` address speaks TLS.
pub fn speaks_tls(upstream: &str) -> bool {
    let Some((host, port)) = place(upstream).filter(|_| upstream.starts_with("http://")) else { return false };
    let ask = || -> std::io::Result<[u8; 2]> {
        let address = match host {
            Host::Address(address) => (address, port).into(),
            Host::Name(name) => (name, port).to_socket_addrs()?.next().ok_or(std::io::ErrorKind::NotFound)?,
        };
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(CUT_HELLO)?;
        let mut answer = [0; 2];
        stream.read_exact(&mut answer).map(|()| answer)
    };
    ask().is_ok_and(|[record, major]| RECORDS.contains(&record) && major == 3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// A server that gives every connection this answer, once it has been asked something.
    fn serve(answer: &'static [u8]) -> String {
        serve_by(move |_| answer)
    }

    /// The same with an answer that depends on what it is asked.
    fn serve_by(answer: impl Fn(&[u8]) -> &'static [u8] + Send + 'static) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut asked = [0; 512];
                let count = stream.read(&mut asked).unwrap_or_default();
                let _ = stream.write_all(answer(&asked[..count]));
            }
        });
        address
    }

    #[test]
    fn an_upstream_is_a_host_and_a_port() {
        for (upstream, host, port) in [
            ("https://ghcr.io", "ghcr.io", 443),
            ("http://a:5000", "a", 5000),
            ("http://[fd00::1]", "fd00::1", 80),
            ("https://[fd00::1]:8443", "fd00::1", 8443),
            ("http://10.0.0.1:80", "10.0.0.1", 80),
        ] {
            assert_eq!(place(upstream).map(|(host, port)| (host.to_string(), port)), Some((host.to_owned(), port)));
        }
    }

    #[test]
    fn an_alert_is_the_word_of_a_server_of_tls() {
        assert!(speaks_tls(&serve(&[0x15, 3, 1, 0, 2, 2, 50])));
        assert!(!speaks_tls(&serve(b"HTTP/1.1 400 Bad Request\r\n\r\n")));
        assert!(!speaks_tls("http://127.0.0.1:1"));
        assert!(!speaks_tls("https://127.0.0.1:1"));
    }

    #[test]
    fn a_bad_request_alone_is_no_sign_of_tls() {
        assert!(!refuses_plain_http(&serve(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")));
        let both = |http: &'static [u8]| {
            serve_by(move |asked| if asked.starts_with(b"GET ") { http } else { &[0x15, 3, 1, 0, 2, 2, 50] })
        };
        assert!(refuses_plain_http(&both(
            b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
        )));
        assert!(!refuses_plain_http(&both(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")));
        assert!(!refuses_plain_http("http://127.0.0.1:1"));
    }
}
