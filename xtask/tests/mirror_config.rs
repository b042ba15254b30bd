//! `mirror-config` is read by what it is for: a real containerd pulls an image of each host through its proxy.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use camino::Utf8PathBuf;
use support::{HOSTS, Image, World};
use xtask::exec::{Interrupt, Processes};
use xtask::node::Node;
use xtask::term::Term;

#[test]
fn a_real_containerd_pulls_from_all_seven_hosts_through_their_proxies() {
    let world = World::new("containerd");
    Image::push(world.upstream_port, "library/one");
    assert_eq!(world.xtask(&["cache-up"]).code, Some(0));
    let folder = Utf8PathBuf::from_path_buf(world.folder.clone()).unwrap();
    let output = folder.join("out");
    let args = ["mirror-config", "--format", "containerd", "--address", "127.0.0.1", "--output", output.as_str()];
    // With the fallback: that a registry cannot be reached must not matter.
    let run = world.xtask(&args);
    assert_eq!(run.code, Some(0), "{run:?}");
    let again = world.xtask(&args);
    assert_eq!(again.code, Some(0), "{again:?}");

    let processes = Processes::new(Interrupt::default(), Term::silent());
    let node = Node::start(&processes, &folder.join("node")).unwrap();
    for host in HOSTS {
        for tag in ["v1", "docker"] {
            let image = format!("{host}/library/one:{tag}");
            node.pull(&output.join("certs.d"), &image).unwrap_or_else(|error| panic!("{image}: {error}"));
            node.forget(&image).unwrap();
        }
    }
    drop(node);
    let status = world.xtask(&["--json", "cache-status"]);
    let json: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
    for proxy in json["proxies"].as_array().unwrap() {
        assert!(proxy["figures"]["requests"].as_u64() > Some(5), "{proxy}");
    }
}
