//! HTTP to the registries on this host.

use std::net::IpAddr;
use std::time::Duration;

use crate::config::{Bind, Mirror};

const PATIENCE: Duration = Duration::from_secs(2);
/// How long a proxy may take to ask its upstream.
const UPSTREAM_PATIENCE: Duration = Duration::from_secs(5);

/// Where a mirror answers from this host, as `ADDRESS:PORT`.
pub fn address(mirror: &Mirror, bind: Bind) -> String {
    match bind {
        Bind::Address(IpAddr::V6(address)) if !address.is_unspecified() => {
            format!("[{address}]:{}", mirror.port)
        }
        Bind::Address(address) if !address.is_unspecified() => format!("{address}:{}", mirror.port),
        _ => format!("127.0.0.1:{}", mirror.port),
    }
}

/// What asks over plain HTTP, never through a proxy server, and takes a status of failure for an error where that is said.
pub(crate) fn agent(patience: Duration, failure_is_error: bool) -> ureq::Agent {
    let config = ureq::Agent::config_builder().timeout_global(Some(patience)).proxy(None);
    ureq::Agent::new_with_config(config.http_status_as_error(failure_is_error).build())
}

/// Whether a registry answers `/v2/` at an address, within two seconds.
pub fn answers(address: &str) -> bool {
    agent(PATIENCE, true).get(format!("http://{address}/v2/")).call().is_ok_and(|response| response.status() == 200)
}

/// The first repositories that a registry has anything of; none where it does not say so within two seconds. A proxy
/// lists what is cached, and asks nobody.
pub fn repositories(address: &str, count: usize) -> Vec<String> {
    let body = agent(PATIENCE, true).get(format!("http://{address}/v2/_catalog?n={count}")).call();
    let text = body.ok().and_then(|mut response| response.body_mut().read_to_string().ok()).unwrap_or_default();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    serde_json::from_value(json["repositories"].clone()).unwrap_or_default()
}

/// A blob that no registry has.
pub fn no_blob(repository: &str) -> String {
    format!("/v2/{repository}/blobs/sha256:{:064}", 0)
}

/// Asks a registry for a blob that does not exist, under a name that its log will show. Its log has the answer, too.
pub fn ask_for_no_blob(address: &str, repository: &str, user_agent: &str) {
    let url = format!("http://{address}{}", no_blob(repository));
    let _ = agent(UPSTREAM_PATIENCE, false).get(url).header("User-Agent", user_agent).call();
}

/// What `/debug/vars` of a registry says; `None` when it does not answer with JSON within two seconds.
pub fn debug_vars(address: &str) -> Option<serde_json::Value> {
    let text = agent(PATIENCE, true)
        .get(format!("http://{address}/debug/vars"))
        .call()
        .ok()?
        .body_mut()
        .read_to_string()
        .ok()?;
    serde_json::from_str(&text).ok()
}

/// What a registry said when it ended: its panic without the stack, or else its last lines.
pub fn last_words(log: &str) -> Vec<String> {
    let panic = log.lines().rfind(|line| line.starts_with("panic: "));
    panic.map_or_else(|| crate::exec::tail(log, 6), |panic| vec![panic.trim_end().to_owned()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_without_its_stack() {
        let log = "level=info msg=x\npanic: one\n\ngoroutine 1 [running]:\nmain.main()\npanic: two\n\ngoroutine 1:\n";
        assert_eq!(last_words(log), ["panic: two"]);
        assert_eq!(last_words("a\nconfiguration error: b\n"), ["a", "configuration error: b"]);
    }
    use std::io::{Read, Write};

    fn serve_once(reply: &'static str) -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request);
            stream.write_all(reply.as_bytes()).unwrap();
        });
        address
    }

    #[test]
    fn only_a_200_is_an_answer() {
        assert!(answers(&serve_once("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")));
        assert!(!answers(&serve_once("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")));
        assert!(!answers("127.0.0.1:1"));
    }
}
