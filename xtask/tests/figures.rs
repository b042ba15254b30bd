//! The figures of `cache-status`, held against an upstream that counts what it sends and can go wrong.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{World, digest, settled, wait_for};
use xshell::cmd;

/// How an upstream sends a blob.
#[derive(Clone, Copy, PartialEq)]
enum Sends {
    Well,
    /// A piece at a time, so that a client can hang up in the middle.
    Slowly,
    WrongBytes,
    Half,
}

type Blobs = BTreeMap<String, (Vec<u8>, Sends)>;

/// An upstream that knows blobs alone, and how many bytes of them it has sent.
#[derive(Clone)]
struct Upstream {
    port: u16,
    shared: Arc<Mutex<(Blobs, u64)>>,
}

impl Upstream {
    fn start() -> Self {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let upstream = Self { port: listener.local_addr().unwrap().port(), shared: Arc::default() };
        let server = upstream.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = server.clone();
                // A client that hangs up in the middle is part of the game.
                std::thread::spawn(move || server.answer(stream).ok());
            }
        });
        upstream
    }

    /// Adds a blob, and gives its digest.
    fn add(&self, seed: u8, size: usize, sends: Sends) -> String {
        let blob: Vec<u8> = (0..size).map(|n| seed.wrapping_add((n / 7 % 251) as u8)).collect();
        let name = digest(&blob);
        self.shared.lock().unwrap().0.insert(name.clone(), (blob, sends));
        name
    }

    fn sent(&self) -> u64 {
        self.shared.lock().unwrap().1
    }

    fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let first = lines.next().transpose()?.unwrap_or_default();
        while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
        let name = first.split(' ').nth(1).unwrap_or_default().rsplit('/').next().unwrap_or_default().to_owned();
        let found = self.shared.lock().unwrap().0.get(&name).cloned();
        let Some((mut body, sends)) = found else {
            return stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}");
        };
        let (length, head) =
            (body.len(), "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/octet-stream");
        write!(stream, "{head}\r\nDocker-Content-Digest: {name}\r\nContent-Length: {length}\r\n\r\n")?;
        if first.starts_with("HEAD ") {
            return Ok(());
        }
        match sends {
            Sends::WrongBytes => body.fill(7),
            Sends::Half => body.truncate(length / 2),
            Sends::Well | Sends::Slowly => {}
        }
        for piece in body.chunks(65536) {
            stream.write_all(piece)?;
            self.shared.lock().unwrap().1 += piece.len() as u64;
            if sends == Sends::Slowly {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        Ok(())
    }
}

/// A world with one proxy of such an upstream.
fn world(name: &str, image: &str) -> (World, Upstream) {
    let (world, upstream) = (World::new(name), Upstream::start());
    let text = format!(
        "prefix = \"{}\"\nimage = \"{image}\"\npreset = \"guide\"\n[mirrors.\"docker.io\"]\nport = {}\nupstream = \"http://{}:{}\"\n",
        world.prefix, world.ports[0], world.gateway, upstream.port
    );
    std::fs::write(world.config(), text).unwrap();
    (world, upstream)
}

fn up(world: &World) {
    let up = world.xtask(&["cache-up", "docker.io"]);
    assert_eq!(up.code, Some(0), "{up:?}");
}

/// What status says of the proxy, and its exit code.
fn row(world: &World) -> (Option<i32>, Value) {
    let status = world.xtask(&["--json", "cache-status", "docker.io"]);
    let json: Value = serde_json::from_str(&status.stdout).unwrap();
    (status.code, json["proxies"][0].clone())
}

/// Requests, hits, misses, bytes from upstream and on disk.
fn figures(world: &World) -> [u64; 5] {
    let (_, row) = row(world);
    ["requests", "hits", "misses", "bytes_from_upstream", "disk_bytes"]
        .map(|name| row["figures"][name].as_u64().unwrap_or_else(|| panic!("{name} of {row}")))
}

/// Gets a blob, as much of it as comes.
fn get(port: u16, blob: &str) -> usize {
    let response = ureq::get(&format!("http://127.0.0.1:{port}/v2/some/thing/blobs/{blob}")).call();
    let mut body = Vec::new();
    let _ = response.unwrap().into_body().into_reader().read_to_end(&mut body);
    body.len()
}

/// Begins to get a blob, and hangs up after a part.
fn hang_up(port: u16, blob: &str, after: usize) {
    let response = ureq::get(&format!("http://127.0.0.1:{port}/v2/some/thing/blobs/{blob}")).call().unwrap();
    response.into_body().into_reader().read_exact(&mut vec![0; after]).unwrap();
}

fn wait_until(what: &str, so: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !so() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Waits until so many fills have ended, well or not: one that fails leaves its upload behind.
fn filled(world: &World, fills: usize) {
    let name = world.name("docker.io");
    wait_until("a fill never ends", || {
        let log = cmd!(world.sh, "docker logs {name}").quiet().ignore_stdout().read_stderr().unwrap();
        log.matches("Adding new scheduler entry").count() == fills
    });
}

#[test]
fn a_client_that_hangs_up_is_a_request_and_a_miss() {
    let (world, upstream) = world("hangs", "registry:2");
    let (small, large) = (upstream.add(1, 100_000, Sends::Well), upstream.add(2, 40 << 20, Sends::Slowly));
    up(&world);
    for _ in 0..3 {
        get(world.ports[0], &small);
        settled(&world, "docker.io");
    }
    assert_eq!(figures(&world)[..4], [3, 2, 1, 200_000]);
    hang_up(world.ports[0], &large, 1 << 20);
    wait_until("the rest is never stored", || figures(&world)[4] > 40 << 20);
    settled(&world, "docker.io");
    let [requests, hits, misses, fetched, disk] = figures(&world);
    assert_eq!((requests, hits, misses), (4, 2, 2));
    // The whole fill, and what the client had; what was on its way in the network then is not known.
    assert!(fetched > 200_000 + (41 << 20) && fetched <= upstream.sent(), "{fetched} of {}", upstream.sent());
    assert!(disk > 40 << 20);
}

#[test]
fn what_the_upstream_sends_wrong_is_a_miss_and_counts() {
    let (world, upstream) = world("wrong", "registry:2");
    let wrong = upstream.add(3, 300_000, Sends::WrongBytes);
    let half = upstream.add(4, 600_000, Sends::Half);
    up(&world);
    get(world.ports[0], &wrong);
    filled(&world, 1);
    get(world.ports[0], &wrong);
    filled(&world, 2);
    get(world.ports[0], &half);
    filled(&world, 3);
    let [requests, hits, misses, fetched, _] = figures(&world);
    assert_eq!((requests, hits, misses), (3, 0, 3));
    // What a registry says of the error is written, and counted, too.
    let sent = upstream.sent();
    assert!((sent..sent + 2000).contains(&fetched), "{fetched} of {sent}");
}

#[test]
fn requests_that_overlap_a_fill_are_what_they_were() {
    let (world, upstream) = world("overlap", "registry:2");
    up(&world);
    let mut asked = 0;
    for round in 10..22 {
        let blob = upstream.add(round, 2 << 20, Sends::Well);
        std::thread::scope(|scope| {
            for n in 0..8 {
                let (port, blob) = (world.ports[0], &blob);
                scope.spawn(move || {
                    std::thread::sleep(Duration::from_millis(n * 6));
                    get(port, blob);
                });
            }
        });
        asked += 8;
        settled(&world, "docker.io");
        let [requests, hits, misses, fetched, _] = figures(&world);
        assert_eq!((requests, hits + misses), (asked, asked));
        // This upstream asks for no account, so that the log tells all.
        assert_eq!(fetched, upstream.sent(), "round {round}");
    }
}

fn full(name: &str, image: &str) {
    let (world, upstream) = world(name, image);
    let volume = world.name("docker.io");
    let label = format!("talos-cache.prefix={}", world.prefix);
    let options = ["type=tmpfs", "device=tmpfs", "o=size=20m"].map(|option| ["--opt", option]).concat();
    cmd!(world.sh, "docker volume create --driver local {options...} --label {label} {volume}").quiet().read().unwrap();
    up(&world);
    let blobs = [5, 6, 7].map(|seed| upstream.add(seed, 9 << 20, Sends::Well));
    for (n, blob) in blobs.iter().enumerate() {
        get(world.ports[0], blob);
        if image == "registry:2" {
            filled(&world, n + 1);
        }
    }
    let [requests, hits, misses, fetched, _] = figures(&world);
    assert_eq!((requests, hits, misses), (3, 0, 3));
    if image == "registry:2" {
        // The fill that failed may count with more than came of it.
        assert!((5 * (9 << 20)..=6 * (9 << 20)).contains(&fetched), "{fetched}");
    }
    let (code, row) = row(&world);
    assert_eq!((code, &row["healthy"], &row["figures"]["volume_full"]), (Some(3), &false.into(), &true.into()));
    let status = world.xtask(&["cache-status", "docker.io"]);
    assert!(status.stdout.contains("docker.io: volume full") && status.stderr.contains("volume full"), "{status:?}");

    // One that has room again is not full, although the log still says that it was.
    let make_room = "cd /var/lib/registry/docker/registry/v2 && rm -rf repositories/*/*/_uploads blobs/*/*";
    cmd!(world.sh, "docker exec {volume} sh -c {make_room}").quiet().run().unwrap();
    let (code, row) = self::row(&world);
    assert_eq!((code, &row["figures"]["volume_full"]), (Some(0), &false.into()));
}

#[test]
fn a_full_volume_is_said_and_what_found_no_room_is_a_miss() {
    full("full", "registry:2");
}

#[test]
#[ignore = "needs the image registry:3, which `cargo xtask ci --full` makes"]
fn a_full_volume_of_registry_3_is_said_as_well() {
    full("full3", "registry:3");
}

/// What a member of the group docker would read: the same command, asked of the container.
fn from_inside(world: &World, folder: &str) -> u64 {
    use xtask::exec::{Interrupt, Processes, Runner};
    let processes = Processes::new(Interrupt::default(), xtask::term::Term::silent());
    let output = processes.run(&xtask::docker::bytes_inside(&world.name("docker.io"), folder)).unwrap();
    output.text().trim().parse().unwrap()
}

/// Makes docker.io's proxy by hand, with more flags than the guide's.
fn by_hand(world: &World, upstream: &Upstream, more: &[&str]) {
    let (name, port) = (world.name("docker.io"), world.ports[0]);
    let publish = format!("{port}:5000");
    let remote = format!("REGISTRY_PROXY_REMOTEURL=http://{}:{}", world.gateway, upstream.port);
    cmd!(
        world.sh,
        "docker run --detach --restart always --publish {publish} --name {name} --env {remote} {more...} registry:2"
    )
    .quiet()
    .ignore_stdout()
    .run()
    .unwrap();
    wait_for(port);
}

#[test]
fn disk_use_is_the_same_number_however_it_is_read() {
    let (world, upstream) = world("disk", "registry:2");
    up(&world);
    let empty = figures(&world)[4];
    assert_eq!((empty, from_inside(&world, "/var/lib/registry")), (0, 0));
    get(world.ports[0], &upstream.add(8, 1_234_567, Sends::Well));
    settled(&world, "docker.io");
    // The record of expiry dates is written some seconds later.
    wait_until("the two ways never agree", || {
        let disk = figures(&world)[4];
        disk > 1_234_567 && disk == from_inside(&world, "/var/lib/registry")
    });
}

#[test]
fn a_store_elsewhere_is_measured_where_it_is() {
    let (world, upstream) = world("else", "registry:2");
    let blob = upstream.add(9, 3_000_000, Sends::Well);
    by_hand(&world, &upstream, &["--env", "REGISTRY_STORAGE_FILESYSTEM={rootdirectory: /data}"]);
    get(world.ports[0], &blob);
    settled(&world, "docker.io");
    wait_until("it is never stored", || figures(&world)[4] > 3_000_000);
    assert_eq!(figures(&world)[4], from_inside(&world, "/data"));
    let clean = world.xtask(&["--json", "cache-clean", "docker.io"]);
    let json: Value = serde_json::from_str(&clean.stdout).unwrap();
    assert!(json["freed_bytes"].as_u64().unwrap() > 3_000_000, "{clean:?}");

    // Stopped, its layer cannot be asked: then nothing is said, and not that it is nothing.
    by_hand(&world, &upstream, &["--env", "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY=/data"]);
    get(world.ports[0], &blob);
    settled(&world, "docker.io");
    let name = world.name("docker.io");
    cmd!(world.sh, "docker stop --time 0 {name}").quiet().ignore_stdout().run().unwrap();
    assert_eq!(row(&world).1["figures"]["disk_bytes"], Value::Null);
    let clean = world.xtask(&["cache-clean", "docker.io"]);
    assert!(clean.stderr.contains("could not be measured"), "{clean:?}");
}

#[test]
fn a_log_that_was_rotated_says_since_when_the_figures_count() {
    let (world, upstream) = world("rotated", "registry:2");
    by_hand(&world, &upstream, &["--log-opt", "max-size=8k", "--log-opt", "max-file=1"]);
    let blob = upstream.add(30, 1000, Sends::Well);
    for _ in 0..60 {
        get(world.ports[0], &blob);
    }
    let (_, row) = row(&world);
    let since = row["figures"]["since"].as_str().unwrap();
    assert_eq!(row["figures"]["log_rotated"], true, "{row}");
    let status = world.xtask(&["cache-status", "docker.io"]);
    let note = format!("docker.io: figures count since {since}; older log lines were rotated away\n");
    assert!(status.stdout.contains(&note), "{status:?}");
}
