//! Proxies that have an account at their upstream: it is used, and never seen.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;
#[path = "support/token.rs"]
mod token;

use std::io::Read;

use support::{Run, World};
use token::{Asks, Upstream};
use xshell::cmd;

/// Begins with what YAML takes for a comment, and has a quote, a colon and what is not ASCII in it.
const PASSWORD: &str = "#p: 'w\"\\ %é😀";
/// `me:` and that password, as HTTP's plain authentication writes them.
const HEADER: &str = "Basic bWU6I3A6ICd3IlwgJcOp8J+YgA==";

fn settings(world: &World, upstream: &Upstream, image: &str) {
    let (gateway, port) = (&world.gateway, upstream.port);
    let text = format!(
        "prefix = \"{}\"\nbind = \"local\"\nimage = \"{image}\"\n[mirrors.\"docker.io\"]\nport = {}\n\
         upstream = \"http://{gateway}:{port}\"\nusername = \"me\"\npassword_file = \"password\"\n",
        world.prefix, world.ports[0]
    );
    std::fs::write(world.config(), text).unwrap();
    std::fs::write(world.folder.join("password"), format!("{PASSWORD}\n")).unwrap();
}

fn pull(world: &World, upstream: &Upstream) {
    let (digest, layer) = upstream.layer();
    let base = format!("http://127.0.0.1:{}/v2/library/private", world.ports[0]);
    let manifest = ureq::get(format!("{base}/manifests/v1"))
        .header("Accept", "application/vnd.oci.image.manifest.v1+json")
        .call()
        .unwrap();
    assert_eq!(manifest.status(), 200);
    let mut body = Vec::new();
    ureq::get(format!("{base}/blobs/{digest}"))
        .call()
        .unwrap()
        .into_body()
        .into_reader()
        .read_to_end(&mut body)
        .unwrap();
    assert_eq!(body, layer);
}

fn up(world: &World) -> Run {
    world.xtask(&["-v", "cache-up", "docker.io"])
}

fn restart(world: &World) {
    let name = world.name("docker.io");
    cmd!(world.sh, "docker restart --time 0 {name}").quiet().ignore_stdout().run().unwrap();
    support::wait_for(world.ports[0]);
}

#[test]
fn an_account_is_used_and_never_seen() {
    let (world, upstream) = (World::new("account"), Upstream::start(Asks::Token));
    settings(&world, &upstream, "registry:2");
    let dry = world.xtask(&["-v", "cache-up", "docker.io", "--dry-run"]);
    let first = up(&world);
    assert_eq!(first.code, Some(0), "{first:?}");
    pull(&world, &upstream);
    assert!(upstream.accounts().iter().any(|account| account == HEADER), "{:?}", upstream.accounts());

    let name = world.name("docker.io");
    let inspect = cmd!(world.sh, "docker inspect {name}").quiet().read().unwrap();
    let logs = cmd!(world.sh, "docker logs {name}").quiet().ignore_stdout().read_stderr().unwrap();
    let settings = world.xtask(&["config"]);
    // Parts of it as well: no escape of it is to be found either.
    for (place, text) in [
        ("inspect", &inspect),
        ("logs", &logs),
        ("dry run", &format!("{dry:?}")),
        ("output", &format!("{first:?}")),
        ("config", &format!("{settings:?}")),
    ] {
        assert!(!text.contains("#p:") && !text.contains("bWU6"), "{place}: {text}");
    }
    let ls = cmd!(world.sh, "docker exec {name} ls -ln /etc/talos-cache").quiet().read().unwrap();
    assert!(ls.lines().any(|line| line.starts_with("-rw------- ") && line.contains(" 0 ")), "{ls}");

    let format = "{{.Id}} {{.State.StartedAt}}";
    let ages = || cmd!(world.sh, "docker inspect --format {format} {name}").quiet().read();
    let before = ages().unwrap();
    assert_eq!(up(&world).code, Some(0));
    assert_eq!(ages().unwrap(), before, "a second run touches nothing");

    // A password that cannot be read now is no reason to touch what works; another one is.
    let file = world.folder.join("password");
    std::fs::remove_file(&file).unwrap();
    let word = format!(
        "warning: docker.io: the running proxy keeps the password that it has: its password is not in the file {}",
        file.display()
    );
    for task in ["cache-up", "cache-status"] {
        let unreadable = world.xtask(&[task, "docker.io"]);
        assert!(unreadable.code == Some(0) && unreadable.stderr.contains(&word), "{unreadable:?}");
    }
    assert_eq!(ages().unwrap(), before);
    std::fs::write(&file, "other").unwrap();
    let changed = up(&world);
    assert!(changed.code == Some(0) && changed.stderr.contains("its account is not the one"), "{changed:?}");
    assert_ne!(ages().unwrap(), before);
    assert_eq!(world.xtask(&["cache-clean"]).code, Some(0));
    std::fs::remove_file(&file).unwrap();
    let absent = up(&world);
    assert!(absent.code == Some(1) && absent.stderr.contains("its password is not in the file"), "{absent:?}");
    assert_eq!(world.left(), Vec::<String>::new());
}

#[test]
fn a_proxy_that_started_without_its_account_is_unhealthy_until_it_is_started_again() {
    let (world, upstream) = (World::new("anonymous"), Upstream::start(Asks::Token));
    settings(&world, &upstream, "registry:2");
    assert_eq!(up(&world).code, Some(0));
    upstream.busy(true);
    restart(&world);
    let busy = up(&world);
    assert!(busy.code == Some(1) && busy.stderr.contains("runs without credentials"), "{busy:?}");
    upstream.busy(false);
    let status = world.xtask(&["cache-status", "docker.io"]);
    assert_eq!(status.code, Some(3), "{status:?}");
    let again = up(&world);
    assert!(again.code == Some(0) && again.stderr.contains("restarted"), "{again:?}");
    assert_eq!(world.xtask(&["cache-status", "docker.io"]).code, Some(0));
    pull(&world, &upstream);
    assert_eq!(upstream.accounts().last().map(String::as_str), Some(HEADER));
}

/// What a wrong password leads to, with the right one afterwards.
fn refused(world: &World, upstream: &Upstream) {
    upstream.takes_only(HEADER);
    std::fs::write(world.folder.join("password"), "hunter2").unwrap();
    let wrong = up(world);
    let problem = format!("http://{}:{} refuses the credentials of \"me\": unauthorized", world.gateway, upstream.port);
    assert!(wrong.code == Some(1) && wrong.stderr.contains(&problem), "{wrong:?}");
    assert!(!format!("{wrong:?}").contains("hunter2"), "{wrong:?}");
    // It was asked once, and is not asked again before the next start.
    let asked = upstream.accounts().len();
    let status = world.xtask(&["cache-status", "docker.io"]);
    assert!(status.code == Some(3) && status.stdout.contains(&problem), "{status:?}");
    assert_eq!(upstream.accounts().len(), asked);
    // But by whoever asks for it: it may have been corrected at the upstream.
    let before = world.age("docker.io");
    assert_eq!(up(world).code, Some(1));
    assert!(upstream.accounts().len() > asked);
    upstream.takes_only("Basic bWU6aHVudGVyMg==");
    let corrected = up(world);
    assert_eq!((corrected.code, world.age("docker.io")), (Some(0), before), "{corrected:?}");
    upstream.takes_only(HEADER);
    std::fs::write(world.folder.join("password"), PASSWORD).unwrap();
    let right = up(world);
    assert_eq!(right.code, Some(0), "{right:?}");
    let asked = upstream.accounts().len();
    assert_eq!(world.xtask(&["cache-status", "docker.io"]).code, Some(0));
    assert_eq!(upstream.accounts().len(), asked);
    pull(world, upstream);
}

#[test]
fn credentials_that_the_upstream_refuses_are_no_health() {
    let (world, upstream) = (World::new("refused"), Upstream::start(Asks::Token));
    settings(&world, &upstream, "registry:2");
    refused(&world, &upstream);
}

#[test]
#[ignore = "needs the image registry:3, which `cargo xtask ci --full` makes"]
fn credentials_that_the_upstream_of_a_registry_3_refuses_are_no_health() {
    for asks in [Asks::Token, Asks::Plainly] {
        let (world, upstream) = (World::new("refused3"), Upstream::start(asks));
        settings(&world, &upstream, "registry:3");
        refused(&world, &upstream);
    }
}

#[test]
#[ignore = "needs the image registry:3, which `cargo xtask ci --full` makes"]
fn registry_3_gives_its_account_to_an_upstream_that_asks_plainly() {
    let (world, upstream) = (World::new("plain"), Upstream::start(Asks::Plainly));
    settings(&world, &upstream, "registry:3");
    let first = up(&world);
    assert_eq!(first.code, Some(0), "{first:?}");
    pull(&world, &upstream);
    assert_eq!(upstream.accounts().last().map(String::as_str), Some(HEADER));
    assert_eq!(world.xtask(&["cache-status", "docker.io"]).code, Some(0));
}
