//! Upstreams that are wrong, away, or come and go.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use support::{Image, World};
use xshell::cmd;

/// Settings for docker.io alone, with this upstream.
fn settings(world: &World, upstream: &str) {
    let (prefix, port) = (&world.prefix, world.ports[0]);
    let text = format!("prefix = \"{prefix}\"\n[mirrors.\"docker.io\"]\nport = {port}\nupstream = \"{upstream}\"\n");
    std::fs::write(world.config(), text).unwrap();
}

/// A proxy that has cached an image, and that image.
fn cached(name: &str) -> (World, Image) {
    let world = World::new(name);
    let image = Image::push(world.upstream_port, "library/one");
    settings(&world, &world.upstream_url());
    assert_eq!(world.xtask(&["cache-up", "docker.io"]).code, Some(0));
    image.pull(world.ports[0]).unwrap();
    support::settled(&world, "docker.io");
    (world, image)
}

/// Answers every request with one status and header.
fn serve(answer: &'static str) -> u16 {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || listener.incoming().flatten().for_each(|stream| reply(stream, answer)));
    port
}

fn reply(mut stream: TcpStream, answer: &str) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
    let _ = stream.read(&mut [0; 1024]);
    let _ = write!(stream, "HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
}

/// A server of TLS whose certificate it has signed itself; it ends with its owner.
struct Tls<'a> {
    world: &'a World,
    port: u16,
}

impl<'a> Tls<'a> {
    fn start(world: &'a World) -> Self {
        let port = TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
        let (sh, folder) = (&world.sh, &world.folder);
        let subject = format!("subjectAltName=IP:{}", world.gateway);
        cmd!(sh, "openssl req -x509 -newkey rsa:2048 -nodes -keyout {folder}/key -out {folder}/cert -subj /CN=x -addext {subject}")
            .quiet()
            .ignore_stderr()
            .run()
            .unwrap();
        let script = "openssl s_server -accept \"$2\" -key \"$1/key\" -cert \"$1/cert\" -www >/dev/null 2>&1 </dev/null & echo $! >\"$1/pid\"";
        let text = port.to_string();
        cmd!(sh, "sh -c {script} sh {folder} {text}").quiet().run().unwrap();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { world, port }
    }
}

impl Drop for Tls<'_> {
    fn drop(&mut self) {
        let pid = std::fs::read_to_string(self.world.folder.join("pid")).unwrap();
        let pid = pid.trim();
        let _ = cmd!(self.world.sh, "kill {pid}").quiet().run();
    }
}

#[test]
fn an_upstream_that_is_wrong_is_an_error_with_its_cause_and_leaves_nothing() {
    let world = World::new("wrong");
    let tls = Tls::start(&world);
    let (gateway, plain) = (&world.gateway, world.upstream_port);
    for (upstream, cause, fix) in [
        (format!("https://{gateway}:{}", tls.port), "x509: ", "check `upstream`"),
        (format!("https://{gateway}:{plain}"), "HTTP response to HTTPS client", "write `upstream = \"http://"),
        (format!("http://{gateway}:{}", tls.port), "it speaks TLS", "write `upstream = \"https://"),
    ] {
        settings(&world, &upstream);
        let up = world.xtask(&["cache-up", "docker.io"]);
        let problem = format!("{upstream} cannot be used: ");
        assert!(up.code == Some(1) && up.stderr.contains(&problem), "{up:?}");
        assert!(up.stderr.contains(cause) && up.stderr.contains(fix), "{up:?}");
        assert_eq!(world.left(), Vec::<String>::new());
    }
}

#[test]
fn what_is_cached_is_served_although_the_upstream_is_wrong_and_is_not_called_healthy() {
    let (world, image) = cached("cached");
    let wrong = world.upstream_url().replace("http://", "https://");
    settings(&world, &wrong);
    for _ in 0..2 {
        let up = world.xtask(&["cache-up", "docker.io"]);
        let problem = format!("{wrong} cannot be used: ");
        assert!(up.code == Some(1) && up.stderr.contains(&problem), "{up:?}");
        assert!(up.stderr.contains("only cached images are served"), "{up:?}");
        image.pull(world.ports[0]).unwrap();
    }
    let status = world.xtask(&["--json", "cache-status", "docker.io"]);
    let json: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
    assert_eq!((status.code, &json["proxies"][0]["healthy"]), (Some(3), &false.into()), "{status:?}");
    settings(&world, &world.upstream_url());
    let right = world.xtask(&["cache-up", "docker.io"]);
    assert!(right.code == Some(0) && !right.stdout.contains("offline"), "{right:?}");
    assert_eq!(world.xtask(&["cache-status", "docker.io"]).code, Some(0));
}

#[test]
fn an_upstream_that_redirects_to_a_host_out_of_reach_is_out_of_reach() {
    let (world, image) = cached("portal");
    settings(
        &world,
        &format!("http://{}:{}", world.gateway, serve("302 Found\r\nLocation: http://127.0.0.1:9/portal")),
    );
    let up = world.xtask(&["cache-up", "docker.io"]);
    assert!(up.code == Some(0) && up.stderr.contains("is out of reach: dial tcp 127.0.0.1:9"), "{up:?}");
    image.pull(world.ports[0]).unwrap();
}

/// An upstream that listens for 0.8 seconds, and for as long does not.
struct Flapping {
    port: u16,
    over: Arc<AtomicBool>,
}

impl Flapping {
    fn start() -> Self {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let (port, over) = (listener.local_addr().unwrap().port(), Arc::new(AtomicBool::new(false)));
        let end = Arc::clone(&over);
        std::thread::spawn(move || {
            let mut listener = Some(listener);
            while !end.load(Ordering::SeqCst) {
                let Some(open) = listener.take().or_else(|| TcpListener::bind(("0.0.0.0", port)).ok()) else {
                    continue;
                };
                open.set_nonblocking(true).unwrap();
                let until = std::time::Instant::now() + Duration::from_millis(800);
                while std::time::Instant::now() < until {
                    match open.accept() {
                        Ok((stream, _)) => {
                            stream.set_nonblocking(false).unwrap();
                            reply(stream, "200 OK");
                        }
                        Err(_) => std::thread::sleep(Duration::from_millis(2)),
                    }
                }
                drop(open);
                std::thread::sleep(Duration::from_millis(800));
            }
        });
        Self { port, over }
    }
}

impl Drop for Flapping {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_proxy_that_answers_is_up_whatever_its_upstream_does() {
    let world = World::new("flapping");
    let flapping = Flapping::start();
    settings(&world, &format!("http://{}:{}", world.gateway, flapping.port));
    let name = world.name("docker.io");
    for round in 0..6 {
        let up = world.xtask(&["cache-up", "docker.io"]);
        assert_eq!(up.code, Some(0), "round {round}: {up:?}");
        support::wait_for(world.ports[0]);
        if round % 2 == 0 {
            assert_eq!(world.xtask(&["cache-clean", "docker.io"]).code, Some(0));
        } else {
            cmd!(world.sh, "docker restart --time 0 {name}").quiet().ignore_stdout().run().unwrap();
        }
    }
}

#[test]
fn a_wrong_upstream_is_in_the_way_of_no_other_proxy() {
    let world = World::new("others");
    let held = TcpListener::bind("0.0.0.0:0").unwrap();
    let away = format!("http://{}:{}", world.gateway, held.local_addr().unwrap().port());
    drop(held);
    let wrong = world.upstream_url().replace("http://", "https://");
    let upstreams = [("docker.io", wrong), ("quay.io", world.upstream_url()), ("ghcr.io", away)];
    let mut text = format!("prefix = \"{}\"\n", world.prefix);
    for ((host, upstream), port) in upstreams.iter().zip(&world.ports) {
        text += &format!("[mirrors.\"{host}\"]\nport = {port}\nupstream = \"{upstream}\"\n");
    }
    std::fs::write(world.config(), text).unwrap();
    let up = world.xtask(&["cache-up", "docker.io", "quay.io", "ghcr.io"]);
    assert!(up.code == Some(1) && up.stderr.contains("error: docker.io: https://"), "{up:?}");
    let status = world.xtask(&["--json", "cache-status", "docker.io", "quay.io", "ghcr.io"]);
    let json: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
    let modes = [0, 1, 2].map(|row| json["proxies"][row]["mode"].as_str());
    assert_eq!(modes, [None, Some("proxy"), Some("offline")], "{status:?}");
}
