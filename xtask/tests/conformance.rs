//! The fake engine is kept honest: each scene runs on it and on the real one, and must look the same on both.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/caches.rs"]
mod caches;
#[path = "support/fake.rs"]
mod fake;
#[path = "support/scene.rs"]
mod scene;
mod support;

use scene::{Scene, on_both};
use xtask::{disk, docker};

/// The words for what the mirrors of a cold run go through.
const CREATED: [&str; 2] = ["Create(Proxy) docker.io (absent)", "Create(Proxy) quay.io (absent)"];
const NOTHING: [&str; 0] = [];

#[test]
fn what_is_absent_is_created_once_and_cleaned_with_its_cache_or_without() {
    on_both("life", |scene| {
        assert_eq!(scene.again(), CREATED);
        assert_eq!(scene.again(), NOTHING);
        scene.fill();
        scene.clean(true);
        assert_eq!(scene.again(), CREATED);
        scene.is_filled();
        scene.clean(false);
        scene.clean(false);
        assert_eq!(scene.again(), CREATED);
        let name = scene.name("docker.io");
        scene.tries(&["exec", &name, "cat", "/var/lib/registry/kept"]);
    });
}

#[test]
fn what_is_stopped_paused_or_removed_by_hand_comes_back_with_its_cache() {
    on_both("hand", |scene| {
        scene.again();
        scene.fill();
        let name = scene.name("docker.io");
        scene.docker(&["container", "stop", "-t", "5", &name]);
        scene.tries(&["exec", &name, "cat", "/x"]);
        scene.tries(&["container", "unpause", &name]);
        assert_eq!(scene.again(), ["Start docker.io (stopped)"]);
        scene.docker(&["container", "pause", &name]);
        scene.tries(&["container", "start", &name]);
        scene.tries(&["exec", &name, "cat", "/x"]);
        assert_eq!(scene.again(), ["Unpause docker.io (paused)"]);
        scene.tries(&["volume", "rm", &name]);
        scene.docker(&["container", "rm", "--force", "--volumes", &name]);
        for verb in [&["container", "start"][..], &["container", "restart", "-t", "0"], &["logs", "--tail", "5"]] {
            scene.tries(&[verb, &[&name]].concat());
        }
        assert_eq!(scene.again(), ["Create(Proxy) docker.io (absent)"]);
        scene.tries(&["run", "--detach", "--name", &name, "registry:2"]);
        scene.is_filled();
    });
}

#[test]
fn what_differs_is_replaced_on_the_same_volume() {
    on_both("drift", |scene| {
        scene.again();
        scene.fill();
        let moved = scene.caches.with("", &format!("port = {}", scene.caches.ports[2]));
        let why = "Replace(Proxy) docker.io (published port is PORT0, wanted PORT2)";
        assert_eq!(scene.up(&moved), [why]);
        assert_eq!(scene.up(&moved), NOTHING);
        scene.is_filled();
        // The two exchange their ports.
        let [docker, quay] = [scene.caches.ports[0], scene.caches.ports[1]];
        scene.again();
        let why = [
            "Replace(Proxy) docker.io (published port is PORT0, wanted PORT1)",
            "Replace(Proxy) quay.io (published port is PORT1, wanted PORT0)",
        ];
        assert_eq!(scene.up(&scene.caches.on(&[quay, docker])), why);
        scene.is_filled();
        let local = scene.caches.with("bind = \"127.0.0.1\"", "");
        assert_eq!(scene.up(&local).len(), 2);
        let offline = scene.caches.with("offline = true", "");
        assert_eq!(scene.up(&offline).len(), 2);
        assert_eq!(scene.up(&offline), NOTHING);
        let why = ["docker.io", "quay.io"].map(|host| format!("Replace(Proxy) {host} (the upstream answers again)"));
        assert_eq!(scene.again(), why);
        scene.is_filled();
    });
}

#[test]
fn the_docker_bridge_is_where_the_engine_says() {
    on_both("bridge", |scene| {
        let local = scene.caches.with("bind = \"local\"", "");
        assert_eq!(scene.up(&local), CREATED);
        assert_eq!(scene.up(&local), NOTHING);
    });
}

#[test]
fn what_is_foreign_stands_in_the_way_of_everything() {
    on_both("foreign", |scene| {
        let name = scene.name("docker.io");
        scene.docker(&["container", "create", "--name", &name, "--entrypoint", "sleep", "registry:2", "60"]);
        let problem = "docker.io: container PREFIX-docker.io exists but is not a registry proxy: registry:2";
        assert_eq!(scene.again(), [problem]);
        scene.clean(false);
        scene.docker(&["container", "rm", "--force", "--volumes", &name]);
    });
}

#[test]
fn a_port_that_another_container_holds_is_found_before_and_mended_after() {
    on_both("port", |scene| {
        let (web, port) = (scene.name("web"), format!("{}:5000", scene.caches.ports[0]));
        let run = |name: &str| ["run", "--detach", "--name", name, "--publish", &port, "registry:2"].map(str::to_owned);
        scene.docker(&run(&web).each_ref().map(String::as_str));
        assert_eq!(scene.again(), ["docker.io: port PORT0 is held by container PREFIX-web"]);
        // Whoever was too late is there all the same, and was never started.
        let label = format!("talos-cache.prefix={}", scene.caches.config.prefix);
        let name = scene.name("docker.io");
        let late = ["run", "--detach", "--name", &name, "--label", &label, "--publish", &port, "registry:2"];
        scene.tries(&late);
        // A newer engine starts it all the same, without a network.
        scene.tries(&["container", "start", &name]);
        scene.tries(&["container", "restart", "-t", "0", &name]);
        assert_eq!(scene.again(), ["docker.io: port PORT0 is held by container PREFIX-web"]);
        scene.docker(&["container", "rm", "--force", "--volumes", &web]);
        let told = scene.again();
        let replaced = "Replace(Proxy) docker.io (upstream is none, wanted UPSTREAM; ";
        assert!(told.iter().any(|told| told.starts_with(replaced)), "{told:?}");
    });
}

#[test]
fn a_port_that_was_lost_to_another_is_taken_again_once_it_is_free() {
    on_both("late", |scene| {
        scene.again();
        let (web, port) = (scene.name("web"), format!("{}:5000", scene.caches.ports[0]));
        let name = scene.name("docker.io");
        scene.docker(&["container", "stop", "-t", "5", &name]);
        scene.docker(&["run", "--detach", "--name", &web, "--publish", &port, "registry:2"]);
        scene.tries(&["container", "start", &name]);
        assert_eq!(scene.again(), ["docker.io: port PORT0 is held by container PREFIX-web"]);
        scene.docker(&["container", "stop", "-t", "5", &web]);
        let told = scene.again();
        let newer = "Replace(Proxy) docker.io (its engine left it without a network)";
        assert!(told == ["Start docker.io (stopped)"] || told == [newer], "{told:?}");
        scene.docker(&["container", "rm", "--force", "--volumes", &web]);
    });
}

#[test]
fn without_its_upstream_a_proxy_serves_offline_until_that_is_back() {
    on_both("offline", |scene| {
        scene.again();
        scene.fill();
        (scene.turn_upstream)(false);
        scene.crash(&["docker.io"]);
        let why =
            "Replace(Offline) docker.io (UPSTREAM is out of reach: dial tcp UPSTREAM: connect: connection refused)";
        assert_eq!(scene.again(), [why]);
        assert_eq!(scene.again(), NOTHING);
        scene.is_filled();
        (scene.turn_upstream)(true);
        assert_eq!(scene.again(), ["Replace(Proxy) docker.io (the upstream answers again)"]);
        scene.is_filled();
    });
}

#[test]
fn what_was_made_in_vain_is_taken_back_with_its_volume() {
    on_both("back", |scene| {
        (scene.turn_upstream)(false);
        let never = scene.caches.with("offline = false", "");
        let told = scene.up(&never);
        let problem =
            |host| format!("{host}: UPSTREAM is out of reach: dial tcp UPSTREAM: connect: connection refused");
        assert_eq!(told, [problem("docker.io"), problem("quay.io")]);
        let gone = ["docker.io: absent", "quay.io: absent", "holders {}"].map(str::to_owned);
        assert!(scene.record.ends_with(&gone), "{:#?}", scene.record);
        // Offline from the start, where that is allowed.
        assert_eq!(scene.again().len(), 4);
        scene.clean(true);
        // Whoever may not look into the engine's folders is told by a container.
        let volumes = ["docker.io", "quay.io"].map(|host| (scene.name(host), "/nonexistent".into())).into();
        let empty = |scene: &Scene| disk::empty(scene.runner, &volumes, "registry:2").into_iter().collect::<Vec<_>>();
        assert_eq!(empty(scene), ["docker.io", "quay.io"].map(|host| scene.name(host)));
        scene.again();
        scene.fill();
        assert_eq!(empty(scene), [scene.name("quay.io")]);
        scene.clean(false);
    });
}

#[test]
fn a_damaged_record_of_expiry_dates_is_moved_aside() {
    on_both("mend", |scene| {
        scene.again();
        scene.fill();
        let name = scene.name("docker.io");
        scene.docker(&["exec", &name, "sh", "-c", ": >/var/lib/registry/scheduler-state.json"]);
        scene.crash(&["docker.io"]);
        let why = "Mend docker.io (its scheduler-state.json is damaged: panic: unexpected end of JSON input)";
        assert_eq!(scene.again(), [why]);
        // Once more, as after a run that was cut short.
        let again = docker::move_state_aside(&scene.caches.config.mirrors[0]);
        assert_eq!(scene.runner.run(&again).unwrap().code, Some(0));
        scene.is_filled();
    });
}

/// Makes docker.io's proxy as the guide does, with more flags.
fn by_hand(scene: &mut Scene, more: &[&str]) {
    let (name, port) = (scene.name("docker.io"), format!("{}:5000", scene.caches.ports[0]));
    let env = format!("REGISTRY_PROXY_REMOTEURL={}", scene.caches.upstream);
    let first = ["run", "--detach", "--publish", &port, "--env", &env, "--name", &name];
    scene.docker(&[&first, more, &["registry:2"]].concat());
}

#[test]
fn what_the_guide_made_is_used_as_it_is_and_goes_with_a_clean_up() {
    on_both("guide", |scene| {
        by_hand(scene, &["--restart", "always"]);
        scene.fill();
        assert_eq!(scene.again(), ["Create(Proxy) quay.io (absent)"]);
        assert_eq!(scene.again(), NOTHING);
        scene.is_filled();
        scene.clean(false);
    });
}

#[test]
fn what_was_made_by_hand_and_differs_is_adopted_with_its_cache() {
    on_both("adopt", |scene| {
        by_hand(scene, &[]);
        scene.fill();
        let differs = "docker.io: PREFIX-docker.io was made by hand and differs: restart policy is no, wanted always";
        assert_eq!(scene.again(), [differs]);
        let why = "restart policy is no, wanted always; its cache is moved to the volume";
        let told = scene.up(&scene.caches.adopting());
        assert_eq!(told, [format!("Adopt(Proxy) docker.io ({why})"), CREATED[1].to_owned()]);
        scene.is_filled();
    });
}

#[test]
fn an_account_goes_in_as_a_file_and_one_that_is_of_no_use_is_told() {
    on_both("account", |scene| {
        let file = std::env::temp_dir().join(format!("{}{}", scene.name("password"), std::process::id()));
        std::fs::write(&file, "one").unwrap();
        let account = format!("username = \"me\"\npassword_file = \"{}\"", file.display());
        let with = scene.caches.with("bind = \"127.0.0.1\"", &account);
        let useless = "docker.io: PREFIX-docker.io runs without credentials: UPSTREAM offered no supported authentication, or is overloaded";
        assert_eq!(scene.up(&with), [useless]);
        std::fs::write(&file, "two").unwrap();
        assert_eq!(scene.up(&with), [useless]);
        std::fs::remove_file(&file).unwrap();
        assert_eq!(scene.up(&with), [useless]);
        let without = scene.caches.with("bind = \"127.0.0.1\"", "");
        let why = "Replace(Proxy) docker.io (it has an account, and none is configured)";
        assert_eq!(scene.up(&without), [why]);
    });
}
