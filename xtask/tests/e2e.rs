//! The built program on a real engine, against an upstream and images of the tests' own.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::net::TcpListener;
use std::time::{Duration, Instant};

use support::{HOSTS, Image, World};
use xshell::cmd;

fn pull_everywhere(world: &World, image: &Image) {
    for (host, port) in HOSTS.iter().zip(&world.ports) {
        image.pull(*port).unwrap_or_else(|error| panic!("through {host}: {error}"));
    }
}

/// Requests, hits, misses, bytes to clients and from upstream of each proxy.
fn figures(world: &World) -> Vec<[u64; 5]> {
    let status = world.xtask(&["--json", "cache-status"]);
    let json: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
    let names = ["requests", "hits", "misses", "bytes_to_clients", "bytes_from_upstream"];
    let row = |row: &serde_json::Value| names.map(|name| row["figures"][name].as_u64().unwrap());
    json["proxies"].as_array().unwrap().iter().map(row).collect()
}

fn modes(world: &World) -> Vec<String> {
    let status = world.xtask(&["--json", "cache-status"]);
    assert_eq!(status.code, Some(0), "{status:?}");
    let json: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
    json["proxies"].as_array().unwrap().iter().map(|row| row["mode"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn seven_caches_live_through_it_all() {
    let world = World::new("life");
    let image = Image::push(world.upstream_port, "library/one");

    let first = world.xtask(&["cache-up"]);
    assert_eq!(first.code, Some(0), "{first:?}");
    assert_eq!(modes(&world), ["proxy"; 7]);
    pull_everywhere(&world, &image);

    // The second run writes nothing.
    let ages = world.ages();
    let since = cmd!(world.sh, "date +%s.%N").quiet().read().unwrap();
    let second = world.xtask(&["cache-up"]);
    assert_eq!((second.code, second.stderr.as_str()), (Some(0), ""), "{second:?}");
    let until = cmd!(world.sh, "date +%s.%N").quiet().read().unwrap();
    let label = format!("label=talos-cache.prefix={}", world.prefix);
    let events =
        cmd!(world.sh, "docker events --since {since} --until {until} --filter {label}").quiet().read().unwrap();
    assert_eq!(events, "");
    assert_eq!(world.ages(), ages);

    // The upstream gone and every proxy started again, as after a restart of the machine: what is cached is served.
    world.upstream("stop");
    let names = HOSTS.map(|host| world.name(host));
    cmd!(world.sh, "docker restart --time 0 {names...}").quiet().ignore_stdout().run().unwrap();
    let offline = world.xtask(&["cache-up"]);
    assert_eq!(offline.code, Some(0), "{offline:?}");
    assert!(offline.stderr.contains("out of reach"), "{offline:?}");
    assert_eq!(modes(&world), ["offline"; 7]);
    pull_everywhere(&world, &image);

    // Nothing changes while the upstream stays away, and all are proxies again once it is back.
    let ages = world.ages();
    assert_eq!(world.xtask(&["cache-up"]).code, Some(0));
    assert_eq!(world.ages(), ages);
    world.upstream("start");
    assert_eq!(world.xtask(&["cache-up"]).code, Some(0));
    assert_eq!(modes(&world), ["proxy"; 7]);

    // Stopped and started, paused, and removed by --keep-cache: the cache is still there without the upstream.
    assert_eq!(world.xtask(&["cache-down"]).code, Some(0));
    assert_eq!(world.xtask(&["cache-status"]).code, Some(3));
    assert_eq!(world.xtask(&["cache-up"]).code, Some(0));
    let paused = world.name("quay.io");
    cmd!(world.sh, "docker pause {paused}").quiet().ignore_stdout().run().unwrap();
    assert_eq!(world.xtask(&["cache-up", "quay.io"]).code, Some(0));
    assert_eq!(world.xtask(&["cache-clean", "--keep-cache"]).code, Some(0));
    world.upstream("stop");
    assert_eq!(world.xtask(&["cache-up"]).code, Some(0));
    pull_everywhere(&world, &image);

    let logs = world.xtask(&["cache-logs", "docker.io"]);
    assert!(logs.stdout.lines().any(|line| line.starts_with("docker.io | ")), "{logs:?}");

    let dry = world.xtask(&["cache-clean", "--dry-run"]);
    assert!(dry.code == Some(0) && dry.stdout.contains("would run docker"), "{dry:?}");
    assert!(!world.left().is_empty());
    let clean = world.xtask(&["cache-clean"]);
    assert!(clean.code == Some(0) && clean.stderr.contains("freed"), "{clean:?}");
    assert_eq!(world.left(), Vec::<String>::new());
    assert_eq!(world.xtask(&["cache-clean"]).code, Some(0));
}

#[test]
fn the_figures_of_known_pulls_are_true() {
    let world = World::new("figures");
    let image = Image::push(world.upstream_port, "library/one");
    assert_eq!(world.xtask(&["cache-up"]).code, Some(0));
    // Registry 2 fetches a missing blob twice: for the client, and for its store.
    known_pulls(&world, &image, 2);
}

#[test]
#[ignore = "needs the image registry:3, which `cargo xtask ci --full` makes"]
fn registry_3_serves_as_well_and_counts_by_itself() {
    let world = World::new("three");
    let image = Image::push(world.upstream_port, "library/one");
    world.settings("image = \"registry:3\"");
    assert_eq!(world.xtask(&["cache-up"]).code, Some(0));
    known_pulls(&world, &image, 1);
    let name = world.name("docker.io");
    let counters = cmd!(world.sh, "docker port {name} 5001").quiet().read().unwrap();
    assert!(counters.lines().all(|line| line.starts_with("127.0.0.1:")), "{counters}");
    world.upstream("stop");
    let names = HOSTS.map(|host| world.name(host));
    cmd!(world.sh, "docker restart --time 0 {names...}").quiet().ignore_stdout().run().unwrap();
    assert_eq!(world.xtask(&["cache-up"]).code, Some(0));
    assert_eq!(modes(&world), ["offline"; 7]);
    pull_everywhere(&world, &image);
    world.upstream("start");
    assert_eq!(world.xtask(&["cache-up"]).code, Some(0));
    assert_eq!(modes(&world), ["proxy"; 7]);
}

fn known_pulls(world: &World, image: &Image, fetches: u64) {
    assert_eq!(figures(world), [[0; 5]; 7]);
    pull_everywhere(world, image);
    let cold = image.figures(1, fetches);
    let until = Instant::now() + Duration::from_secs(20);
    while figures(world) != [cold; 7] {
        // A blob is stored, and the store logged, after the client has it.
        assert!(Instant::now() < until, "{:?}, expected {cold:?}", figures(world));
    }
    pull_everywhere(world, image);
    assert_eq!(figures(world), [image.figures(2, fetches); 7]);
}

#[test]
fn a_damaged_scheduler_state_is_moved_aside_and_the_cache_kept() {
    let world = World::new("state");
    let image = Image::push(world.upstream_port, "library/one");
    assert_eq!(world.xtask(&["cache-up", "docker.io"]).code, Some(0));
    image.pull(world.ports[0]).unwrap();
    assert_eq!(world.xtask(&["cache-down"]).code, Some(0));
    let volume = format!("{}:/store", world.name("docker.io"));
    let in_store = |script: &str| {
        cmd!(world.sh, "docker run --rm --volume {volume} --entrypoint sh registry:2 -c {script}")
            .quiet()
            .read()
            .unwrap()
    };
    in_store(": >/store/scheduler-state.json");
    let up = world.xtask(&["cache-up", "docker.io"]);
    assert!(up.code == Some(0) && up.stderr.contains("mended"), "{up:?}");
    assert!(in_store("ls /store").contains("scheduler-state.json.damaged-"));
    world.upstream("stop");
    image.pull(world.ports[0]).unwrap();
}

/// Settings whose one proxy waits for an upstream that takes connections and never says a word.
fn silent(world: &World) -> TcpListener {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let upstream = format!("http://{}:{}", world.gateway, listener.local_addr().unwrap().port());
    let (prefix, port) = (&world.prefix, world.ports[0]);
    let text = format!("prefix = \"{prefix}\"\n[mirrors.\"docker.io\"]\nport = {port}\nupstream = \"{upstream}\"\n");
    std::fs::write(world.config(), text).unwrap();
    listener
}

#[test]
fn an_interrupted_run_takes_back_what_it_could_not_bring_up() {
    let world = World::new("signal");
    let (name, _held) = (world.name("docker.io"), silent(&world));
    let (code, said) = support::signalled(&world, &["cache-up", "docker.io"], "INT", &name);
    assert_eq!(code, Some(130), "{said}");
    assert!(said.contains(&format!("Removed {name}, which this run created")), "{said}");
    let containers = cmd!(world.sh, "docker container ls --all --quiet --filter name={name}").quiet().read().unwrap();
    assert_eq!(containers, "");
}

#[test]
fn a_killed_run_converges_on_the_next_and_a_silent_upstream_means_offline() {
    let world = World::new("kill");
    let (name, _held) = (world.name("docker.io"), silent(&world));
    let (code, _) = support::signalled(&world, &["cache-up", "docker.io"], "KILL", &name);
    assert_eq!(code, None);
    let up = world.xtask(&["cache-up", "docker.io"]);
    assert!(up.code == Some(0) && up.stderr.contains("is silent"), "{up:?}");
    assert_eq!(world.xtask(&["cache-status", "docker.io"]).code, Some(0));
}

#[test]
fn what_answered_once_is_not_taken_back_when_another_proxy_fails() {
    let world = World::new("keep");
    let held = TcpListener::bind("0.0.0.0:0").unwrap();
    let silent = format!("http://{}:{}", world.gateway, held.local_addr().unwrap().port());
    let image = Image::push(world.upstream_port, "library/one");
    let text = format!(
        "prefix = \"{}\"\noffline = false\n[mirrors.\"docker.io\"]\nport = {}\nupstream = \"{}\"\n\
         [mirrors.\"quay.io\"]\nport = {}\nupstream = \"{silent}\"\n",
        world.prefix,
        world.ports[0],
        world.upstream_url(),
        world.ports[2]
    );
    std::fs::write(world.config(), text).unwrap();
    let config = world.config().into_os_string().into_string().unwrap();
    let run = std::thread::scope(|scope| {
        let run = scope.spawn(|| {
            support::xtask(&xshell::Shell::new().unwrap(), &["--config", &config, "cache-up", "docker.io", "quay.io"])
        });
        support::wait_for(world.ports[0]);
        image.pull(world.ports[0]).unwrap();
        support::settled(&world, "docker.io");
        // Another terminal stops it while the first run still waits for the other one.
        let down = world.xtask(&["cache-down", "docker.io"]);
        assert_eq!(down.code, Some(0), "{down:?}");
        run.join().unwrap()
    });
    assert_eq!(run.code, Some(1), "{run:?}");
    let (kept, taken) = (world.name("docker.io"), world.name("quay.io"));
    assert!(run.stderr.contains(&format!("Removed {taken}")), "{run:?}");
    assert_eq!(world.left(), [kept.clone(), kept]);
    world.upstream("stop");
    world.settings("");
    assert_eq!(world.xtask(&["cache-up", "docker.io"]).code, Some(0));
    image.pull(world.ports[0]).unwrap();
}

#[test]
fn what_cannot_be_made_is_found_before_what_works_is_removed() {
    let world = World::new("before");
    assert_eq!(world.xtask(&["cache-up", "docker.io"]).code, Some(0));
    let before = world.age("docker.io");
    world.settings("bind = \"192.0.2.77\"");
    let nowhere = world.xtask(&["cache-up", "docker.io"]);
    assert!(nowhere.code == Some(1) && nowhere.stderr.contains("192.0.2.77 is no address of this host"), "{nowhere:?}");
    // Another tag of the same repository is another image.
    let image = format!("{}none", world.prefix);
    cmd!(world.sh, "docker tag registry:2 {image}:2").quiet().run().unwrap();
    world.settings(&format!("image = \"{image}:2.9\""));
    let dry = world.xtask(&["cache-up", "--dry-run", "docker.io"]);
    assert_eq!(dry.code, Some(0), "{dry:?}");
    world.settings(&format!("image = \"{image}\""));
    let absent = world.xtask(&["cache-up", "docker.io"]);
    assert!(absent.code == Some(1) && absent.stderr.contains("cannot be pulled"), "{absent:?}");
    assert_eq!(world.age("docker.io"), before);

    // An image that is gone when the upstream is: it is there again before the container goes.
    world.settings(&format!("image = \"{image}:2\""));
    assert_eq!(world.xtask(&["cache-up", "docker.io"]).code, Some(0));
    let name = world.name("docker.io");
    cmd!(world.sh, "docker update --restart no {name}").quiet().ignore_stdout().run().unwrap();
    let policy = world.xtask(&["cache-up", "--dry-run", "docker.io"]);
    assert!(policy.stdout.contains("restart policy is no, wanted always"), "{policy:?}");
    cmd!(world.sh, "docker rmi --force {image}:2").quiet().ignore_stdout().run().unwrap();
    let archive = world.folder.join("image.tar");
    cmd!(world.sh, "docker tag registry:2 {image}:2").quiet().run().unwrap();
    cmd!(world.sh, "docker save --output {archive} {image}:2").quiet().run().unwrap();
    cmd!(world.sh, "docker rmi {image}:2").quiet().ignore_stdout().run().unwrap();
    let again = world.xtask(&["cache-up", "docker.io", "--image-archive", archive.to_str().unwrap()]);
    assert!(again.code == Some(0) && again.stderr.contains("loaded from"), "{again:?}");
    assert_eq!(world.xtask(&["cache-clean"]).code, Some(0));
    cmd!(world.sh, "docker rmi {image}:2").quiet().ignore_stdout().run().unwrap();
}

#[test]
fn two_clean_ups_at_once_both_end_well() {
    let world = World::new("cleans");
    assert_eq!(world.xtask(&["cache-up"]).code, Some(0));
    let config = world.config().into_os_string().into_string().unwrap();
    let clean = || support::xtask(&xshell::Shell::new().unwrap(), &["--config", &config, "cache-clean"]);
    std::thread::scope(|scope| {
        let other = scope.spawn(clean);
        for run in [clean(), other.join().unwrap()] {
            assert_eq!(run.code, Some(0), "{run:?}");
        }
    });
    assert_eq!(world.left(), Vec::<String>::new());
}

#[test]
fn drift_replaces_the_container_and_keeps_the_cache() {
    let world = World::new("drift");
    let image = Image::push(world.upstream_port, "library/one");
    assert_eq!(world.xtask(&["cache-up", "docker.io"]).code, Some(0));
    image.pull(world.ports[0]).unwrap();
    // A port that is busy is found before the container that works is touched.
    let held = TcpListener::bind("0.0.0.0:0").unwrap();
    let busy = held.local_addr().unwrap().port();
    let ours = format!("port = {}\n", world.ports[0]);
    let moved = std::fs::read_to_string(world.config()).unwrap().replace(&ours, &format!("port = {busy}\n"));
    std::fs::write(world.config(), moved).unwrap();
    let blocked = world.xtask(&["cache-up", "docker.io"]);
    assert!(blocked.code == Some(1) && blocked.stderr.contains(&format!("port {busy} is held by")), "{blocked:?}");
    image.pull(world.ports[0]).unwrap();

    world.upstream("stop");
    world.settings("image = \"registry:2-other\"");
    let status = world.xtask(&["cache-status", "docker.io"]);
    let differs = "docker.io is not what the settings ask for: image is registry:2, wanted registry:2-other\n";
    assert!(status.code == Some(3) && status.stdout.contains(differs), "{status:?}");
    cmd!(world.sh, "docker tag registry:2 registry:2-other").quiet().run().unwrap();
    let dry = world.xtask(&["cache-up", "--dry-run", "docker.io"]);
    assert_eq!(dry.stdout, "would replace docker.io (image is registry:2, wanted registry:2-other)\n");
    let up = world.xtask(&["cache-up", "docker.io"]);
    assert_eq!(up.code, Some(0), "{up:?}");
    image.pull(world.ports[0]).unwrap();
    cmd!(world.sh, "docker rmi --force registry:2-other").quiet().ignore_stdout().run().unwrap();
}

#[test]
fn eight_at_once_make_each_proxy_once() {
    let world = World::new("race");
    let config = world.config().into_os_string().into_string().unwrap();
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    support::xtask(&xshell::Shell::new().unwrap(), &["--config", config.as_str(), "cache-up"])
                })
            })
            .collect();
        for run in runs {
            let run = run.join().unwrap();
            assert_eq!(run.code, Some(0), "{run:?}");
        }
    });
    let containers: Vec<String> = world.left().into_iter().collect();
    // Seven containers and their seven volumes, under the same names.
    assert_eq!(containers.len(), 14, "{containers:?}");
    assert_eq!(modes(&world), ["proxy"; 7]);
}
