//! `onboard`, where there is an engine: what it asks, and what it leaves.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use support::{World, write_program, xtask};
use xshell::Shell;

#[test]
fn it_ends_with_seven_caches_that_answer_and_asks_before_it_makes_them() {
    let world = World::new("onboard");
    let asked = world.xtask(&["onboard"]);
    assert!(asked.code == Some(1) && asked.stderr.contains("create docker.io (absent)"), "{asked:?}");
    assert_eq!(world.left(), Vec::<String>::new());
    let dry = world.xtask(&["onboard", "--dry-run", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&dry.stdout).unwrap();
    assert_eq!(json["would"].as_array().unwrap().len(), 7, "{dry:?}");
    // Without an upstream, as on a machine without a network.
    world.upstream("stop");
    let made = world.xtask(&["onboard", "--yes"]);
    assert_eq!(made.code, Some(0), "{made:?}");
    assert_eq!(made.stdout.matches("offline: serves what is cached").count(), 7, "{made:?}");
    assert!(made.stderr.contains("next: "), "{made:?}");
    assert_eq!(world.xtask(&["cache-status"]).code, Some(0));
    // Nothing is left to ask about.
    world.upstream("start");
    assert_eq!(world.xtask(&["cache-up"]).code, Some(0));
    assert_eq!(world.xtask(&["onboard"]).code, Some(0));
}

#[test]
fn an_engine_that_this_user_may_not_use_is_told_from_one_that_is_not_there() {
    let sh = Shell::new().unwrap();
    let folder = sh.create_temp_dir().unwrap();
    let denied =
        "#!/bin/sh\necho 'permission denied while trying to connect to the Docker daemon socket' >&2\nexit 1\n";
    write_program(folder.path(), "docker", denied);
    sh.set_var("PATH", format!("{}:/usr/bin:/bin:/usr/sbin:/sbin", folder.path().display()));
    let dry = xtask(&sh, &["onboard", "--dry-run"]);
    assert!(dry.code == Some(0) && dry.stdout.contains("to the group docker"), "{dry:?}");
    let up = xtask(&sh, &["cache-up"]);
    assert!(up.code == Some(1) && up.stderr.contains("usermod -aG docker"), "{up:?}");
}
