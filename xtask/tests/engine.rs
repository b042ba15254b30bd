//! The engine itself goes away and comes back, as with a restart of the machine.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/engine.rs"]
mod engine;
#[path = "support/network.rs"]
mod network;
mod support;

use engine::Engine;
use network::{Bridge, require, require_root};
use support::{Image, World};

#[test]
fn what_was_pulled_is_served_after_a_restart_of_the_engine_without_the_upstream() {
    require_root();
    require(&[("ip", "iproute2"), ("nsenter", "util-linux"), ("dockerd", "docker.io")]);
    let mut world = World::new("engine");
    let image = Image::push(world.upstream_port, "library/one");
    let bridge = Bridge::new();
    let namespace = bridge.namespace();
    world.gateway = bridge.gateway();
    world.settings("");
    let engine = Engine::new(&world.folder, namespace.path());
    let pull_everywhere = || {
        for port in &world.ports {
            image.pull_from(&format!("{}:{port}", bridge.node())).unwrap();
        }
    };
    let up = || {
        let up = engine.xtask(&world.config(), &["cache-up"]);
        assert_eq!(up.code, Some(0), "{up:?}");
        up
    };
    up();
    pull_everywhere();
    world.upstream("stop");
    engine.stop();
    engine.start();
    let offline = up();
    assert!(offline.stdout.matches("offline").count() == world.ports.len(), "{offline:?}");
    pull_everywhere();
    world.upstream("start");
    let back = up();
    assert!(!back.stdout.contains("offline"), "{back:?}");
    pull_everywhere();
    let clean = engine.xtask(&world.config(), &["cache-clean"]);
    assert_eq!(clean.code, Some(0), "{clean:?}");
}

#[test]
fn what_its_engine_cannot_start_any_more_is_made_anew_on_its_volume() {
    require_root();
    require(&[("ip", "iproute2"), ("nsenter", "util-linux"), ("dockerd", "docker.io"), ("runc", "runc")]);
    let mut world = World::new("runtime");
    let image = Image::push(world.upstream_port, "library/one");
    let bridge = Bridge::new();
    let namespace = bridge.namespace();
    world.gateway = bridge.gateway();
    world.settings("");
    let runc = which::which("runc").unwrap();
    let runtime =
        ["--add-runtime", &format!("gone={}", runc.display()), "--default-runtime", "gone"].map(str::to_owned);
    let mut engine = Engine::with(&world.folder, namespace.path(), &runtime);
    let pull = || image.pull_from(&format!("{}:{}", bridge.node(), world.ports[0])).unwrap();
    let run = |engine: &Engine, task: &str| {
        let run = engine.xtask(&world.config(), &[task, "docker.io"]);
        assert_eq!(run.code, Some(0), "{run:?}");
        run
    };
    run(&engine, "cache-up");
    pull();
    run(&engine, "cache-down");
    engine.stop();
    engine.more.clear();
    engine.start();
    let up = run(&engine, "cache-up");
    assert!(up.stderr.contains("its engine cannot start it: ") && up.stderr.contains("gone"), "{up:?}");
    world.upstream("stop");
    pull();
    run(&engine, "cache-clean");
}
