//! What is there already and was not made by this tool: used, adopted, or left alone.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::net::TcpListener;

use support::{Image, World};
use xshell::cmd;

/// Runs the guide's own command for docker.io, with more arguments before the image.
fn guide(world: &World, image: &str, more: &[&str]) {
    let (name, port) = (world.name("docker.io"), format!("{}:5000", world.ports[0]));
    let env = format!("REGISTRY_PROXY_REMOTEURL={}", world.upstream_url());
    cmd!(world.sh, "docker run -d -p {port} -e {env} --restart always --name {name} {more...} {image}")
        .quiet()
        .ignore_stdout()
        .run()
        .unwrap();
    support::wait_for(world.ports[0]);
}

#[test]
fn what_is_foreign_blocks_everything_and_is_never_touched() {
    let world = World::new("foreign");
    let (name, held) = (world.name("docker.io"), TcpListener::bind(("0.0.0.0", world.ports[1])).unwrap());
    cmd!(world.sh, "docker create --name {name} --entrypoint sleep registry:2 60")
        .quiet()
        .ignore_stdout()
        .run()
        .unwrap();
    let up = world.xtask(&["cache-up"]);
    assert_eq!(up.code, Some(1), "{up:?}");
    assert!(up.stderr.contains(&format!("container {name} exists but is not a registry proxy")), "{up:?}");
    let holder = format!("port {} is held by process hand", world.ports[1]);
    assert!(up.stderr.contains(&holder), "{up:?}");
    drop(held);
    assert_eq!(world.left(), [name.as_str()]);
    assert_eq!(world.xtask(&["cache-clean"]).code, Some(0));
    assert_eq!(world.left(), [name.as_str()]);
    cmd!(world.sh, "docker rm --volumes {name}").quiet().ignore_stdout().run().unwrap();
}

#[test]
fn what_the_guide_made_is_adopted_as_it_is() {
    let world = World::new("guide");
    let name = world.name("docker.io");
    guide(&world, "registry:2", &[]);
    let format = "{{.Id}}";
    let id = || cmd!(world.sh, "docker inspect --format {format} {name}").quiet().read().unwrap();
    let before = id();
    assert_eq!(world.xtask(&["cache-up"]).code, Some(0));
    assert_eq!(id(), before);
    let keep = world.xtask(&["cache-clean", "--keep-cache"]);
    assert!(keep.code == Some(1) && keep.stderr.contains("would be lost"), "{keep:?}");
    // What goes with it is counted and named.
    Image::push(world.upstream_port, "library/one").pull(world.ports[0]).unwrap();
    support::settled(&world, "docker.io");
    let clean = world.xtask(&["--json", "cache-clean"]);
    let json: serde_json::Value = serde_json::from_str(&clean.stdout).unwrap();
    assert!(json["freed_bytes"].as_u64() > Some(400_000), "{clean:?}");
    assert_eq!(json["removed"]["volumes"].as_array().unwrap().len(), 7);
    assert_eq!(world.left(), Vec::<String>::new());
}

#[test]
fn a_cache_that_may_be_elsewhere_is_not_adopted() {
    let world = World::new("elsewhere");
    let volume = format!("{}data:/data", world.prefix);
    guide(&world, "registry:2", &["-v", &volume, "-e", "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY=/data"]);
    world.settings("bind = \"local\"");
    let refused = world.xtask(&["cache-up", "--adopt", "docker.io"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("may keep its cache in /data"), "{refused:?}");
    let (name, volume) = (world.name("docker.io"), format!("{}data", world.prefix));
    assert_eq!(world.left(), [name.clone(), volume.clone()]);
    cmd!(world.sh, "docker rm --force --volumes {name}").quiet().ignore_stdout().run().unwrap();
    cmd!(world.sh, "docker volume rm {volume}").quiet().ignore_stdout().run().unwrap();
}

#[test]
fn a_cache_in_the_containers_own_layer_is_not_adopted() {
    let world = World::new("layer");
    let image = Image::push(world.upstream_port, "library/one");
    guide(&world, "registry:2", &["-e", "REGISTRY_STORAGE_FILESYSTEM={rootdirectory: /data}"]);
    image.pull(world.ports[0]).unwrap();
    world.settings("bind = \"local\"");
    let refused = world.xtask(&["cache-up", "--adopt", "docker.io"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("may keep its cache in /data"), "{refused:?}");
    image.pull(world.ports[0]).unwrap();
    let name = world.name("docker.io");
    cmd!(world.sh, "docker rm --force --volumes {name}").quiet().ignore_stdout().run().unwrap();
}

#[test]
fn a_cache_that_would_go_with_its_container_is_not_lost_to_keep_cache() {
    let world = World::new("keep");
    let image = Image::push(world.upstream_port, "library/one");
    let (name, volume) = (world.name("docker.io"), format!("{}data", world.prefix));
    let elsewhere = "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY=/data";
    // In the container itself, and in a volume without a name.
    let store = format!("{volume}:/var/lib/registry");
    for more in [&["-e", elsewhere, "-v", &store][..], &["-e", elsewhere, "-v", &store, "-v", "/data"]] {
        guide(&world, "registry:2", more);
        image.pull(world.ports[0]).unwrap();
        let keep = world.xtask(&["cache-clean", "--keep-cache", "docker.io"]);
        assert!(keep.code == Some(1) && keep.stderr.contains("it would be lost"), "{keep:?}");
        assert!(keep.stderr.contains("/data"), "{keep:?}");
        image.pull(world.ports[0]).unwrap();
        cmd!(world.sh, "docker rm --force --volumes {name}").quiet().ignore_stdout().run().unwrap();
    }
    // A volume with a name outlives its container.
    let data = format!("{volume}:/data");
    let nothing_else = ["-v", &store, "-e", elsewhere, "-v", &data];
    guide(&world, "registry:2", &nothing_else);
    let keep = world.xtask(&["cache-clean", "--keep-cache", "docker.io"]);
    assert_eq!((keep.code, world.left()), (Some(0), vec![volume.clone()]), "{keep:?}");
    cmd!(world.sh, "docker volume rm {volume}").quiet().ignore_stdout().run().unwrap();
}

#[test]
fn an_adoption_onto_a_volume_of_somebody_else_is_told_and_so_is_what_a_clean_up_leaves() {
    let world = World::new("mixed");
    let name = world.name("docker.io");
    cmd!(world.sh, "docker volume create {name}").quiet().ignore_stdout().run().unwrap();
    guide(&world, "registry:2", &["-e", "REGISTRY_STORAGE_DELETE_ENABLED=true"]);
    let adopted = world.xtask(&["cache-up", "--adopt", "docker.io"]);
    let word = format!(
        "warning: Using existing volume {name}, which this tool did not create; cache-clean will not remove it"
    );
    assert!(adopted.code == Some(0) && adopted.stderr.contains(&word), "{adopted:?}");
    let clean = world.xtask(&["cache-clean", "docker.io"]);
    let word = format!("warning: Left volume {name}, which this tool did not create");
    assert!(clean.code == Some(0) && clean.stderr.contains(&word), "{clean:?}");
    assert_eq!(world.left(), [name.as_str()]);
    cmd!(world.sh, "docker volume rm {name}").quiet().ignore_stdout().run().unwrap();
}

#[test]
fn a_volume_that_another_container_uses_is_named_with_it() {
    let world = World::new("used");
    assert_eq!(world.xtask(&["cache-up", "docker.io"]).code, Some(0));
    let (name, user) = (world.name("docker.io"), format!("{}user", world.prefix));
    let mount = format!("{name}:/data");
    cmd!(world.sh, "docker create --name {user} -v {mount} registry:2").quiet().ignore_stdout().run().unwrap();
    // Once with the proxy, and once when nothing but the volume is left.
    for _ in 0..2 {
        let clean = world.xtask(&["cache-clean", "docker.io"]);
        let problem = format!("{name}: the volume is in use by container {user}");
        assert!(clean.code == Some(1) && clean.stderr.contains(&problem), "{clean:?}");
    }
    cmd!(world.sh, "docker rm --volumes {user}").quiet().ignore_stdout().run().unwrap();
    assert_eq!(world.xtask(&["cache-clean", "docker.io"]).code, Some(0));
    assert_eq!(world.left(), Vec::<String>::new());
}

#[test]
fn a_password_in_the_address_of_an_upstream_made_by_hand_is_never_shown() {
    let world = World::new("shown");
    let (name, port) = (world.name("docker.io"), format!("{}:5000", world.ports[0]));
    let upstream = world.upstream_url().replace("http://", "http://me:hunter2@");
    let env = format!("REGISTRY_PROXY_REMOTEURL={upstream}");
    cmd!(world.sh, "docker run -d -p {port} -e {env} --restart always --name {name} registry:2")
        .quiet()
        .ignore_stdout()
        .run()
        .unwrap();
    support::wait_for(world.ports[0]);
    for task in [&["cache-up"][..], &["--json", "cache-up"], &["cache-status"], &["--json", "cache-status"]] {
        let run = world.xtask(&[task, &["docker.io"]].concat());
        assert!(run.code != Some(0) && !format!("{run:?}").contains("hunter2"), "{run:?}");
    }
    cmd!(world.sh, "docker rm --force --volumes {name}").quiet().ignore_stdout().run().unwrap();
}

#[test]
fn what_deletes_its_cache_is_reported_although_the_guides_words_match() {
    let world = World::new("deletes");
    guide(&world, "registry:2", &["-e", "REGISTRY_STORAGE_DELETE_ENABLED=true"]);
    let reported = world.xtask(&["cache-up", "docker.io"]);
    assert!(reported.code == Some(1) && reported.stderr.contains("it deletes what it has cached"), "{reported:?}");
    let adopted = world.xtask(&["cache-up", "--adopt", "docker.io"]);
    assert_eq!(adopted.code, Some(0), "{adopted:?}");
}

#[test]
fn a_volume_with_a_name_outlives_the_clean_up_of_what_was_made_by_hand() {
    let world = World::new("named");
    let volume = format!("{}mine", world.prefix);
    let mount = format!("{volume}:/var/lib/registry");
    guide(&world, "registry:2", &["-v", &mount]);
    let name = world.name("docker.io");
    let keep = world.xtask(&["cache-clean", "--keep-cache", "docker.io"]);
    assert_eq!((keep.code, world.left()), (Some(0), vec![volume.clone()]), "{keep:?}");
    guide(&world, "registry:2", &["-v", &mount]);
    let clean = world.xtask(&["--json", "cache-clean", "docker.io"]);
    let json: serde_json::Value = serde_json::from_str(&clean.stdout).unwrap();
    assert_eq!(
        (&json["removed"]["containers"][0], &json["removed"]["volumes"]),
        (&name.into(), &serde_json::json!([]))
    );
    assert_eq!(world.left(), [volume.as_str()]);
    cmd!(world.sh, "docker volume rm {volume}").quiet().ignore_stdout().run().unwrap();
}

#[test]
fn what_was_made_by_hand_and_differs_is_adopted_with_its_cache_when_asked() {
    let world = World::new("adopt");
    let image = Image::push(world.upstream_port, "library/one");
    cmd!(world.sh, "docker tag registry:2 registry:2-hand").quiet().run().unwrap();
    guide(&world, "registry:2-hand", &[]);
    image.pull(world.ports[0]).unwrap();
    support::settled(&world, "docker.io");
    let reported = world.xtask(&["cache-up"]);
    assert!(reported.code == Some(1) && reported.stderr.contains("cache-up --adopt docker.io"), "{reported:?}");
    let name = world.name("docker.io");
    assert_eq!(world.left(), [name.as_str()]);
    let adopted = world.xtask(&["cache-up", "--adopt", "docker.io"]);
    assert!(adopted.code == Some(0) && adopted.stderr.contains("adopted"), "{adopted:?}");
    world.upstream("stop");
    image.pull(world.ports[0]).unwrap();
    assert_eq!(world.xtask(&["cache-clean"]).code, Some(0));
    assert_eq!(world.left(), Vec::<String>::new());
    cmd!(world.sh, "docker rmi registry:2-hand").quiet().ignore_stdout().run().unwrap();
}

#[test]
fn the_guides_proxy_that_ends_without_its_upstream_serves_what_it_cached_once_adopted() {
    let world = World::new("rescue");
    let image = Image::push(world.upstream_port, "library/one");
    guide(&world, "registry:2", &[]);
    image.pull(world.ports[0]).unwrap();
    support::settled(&world, "docker.io");
    world.upstream("stop");
    let name = world.name("docker.io");
    cmd!(world.sh, "docker restart --time 0 {name}").quiet().ignore_stdout().run().unwrap();
    support::until(&world, "docker.io", "restarting");
    let reported = world.xtask(&["cache-up", "docker.io"]);
    assert!(reported.code == Some(1) && reported.stderr.contains("since its upstream is out of reach"), "{reported:?}");
    assert_eq!(world.xtask(&["cache-up", "--adopt", "docker.io"]).code, Some(0));
    image.pull(world.ports[0]).unwrap();
}

#[test]
fn a_volume_of_somebody_else_is_used_with_a_word_and_outlives_a_clean_up() {
    let world = World::new("volume");
    let name = world.name("docker.io");
    cmd!(world.sh, "docker volume create {name}").quiet().ignore_stdout().run().unwrap();
    let up = world.xtask(&["cache-up", "docker.io"]);
    assert!(
        up.code == Some(0) && up.stderr.contains("which this tool did not create; cache-clean will not remove it"),
        "{up:?}"
    );
    assert_eq!(world.xtask(&["cache-clean"]).code, Some(0));
    assert_eq!(world.left(), [name.as_str()]);
    cmd!(world.sh, "docker volume rm {name}").quiet().ignore_stdout().run().unwrap();
}
