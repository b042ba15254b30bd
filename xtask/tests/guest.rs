//! Nodes reach the caches on the addresses that a cluster of either provisioner would use.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/guest.rs"]
mod guest;
#[path = "support/network.rs"]
mod network;
mod support;

use guest::Kernel;
use network::{Bridge, Network, REPOSITORY, check, require, require_root, script};
use support::{Image, World};

const IPROUTE: (&str, &str) = ("ip", "iproute2");
const BUSYBOX: (&str, &str) = ("busybox", "busybox-static");
const QEMU: (&str, &str) = ("qemu-system-x86_64", "qemu-system-x86");

/// Seven caches, bound as the settings say, in front of an upstream with one image.
fn caches(name: &str, settings: &str) -> (World, Image) {
    let world = World::new(name);
    let image = Image::push(world.upstream_port, REPOSITORY);
    bind(&world, settings);
    (world, image)
}

fn bind(world: &World, settings: &str) {
    world.settings(settings);
    let up = world.xtask(&["cache-up"]);
    assert_eq!(up.code, Some(0), "{up:?}");
}

/// What comes of it when a node reads through every proxy on an address.
fn reads(world: &World, image: &Image, node: &dyn Fn(&str) -> String, address: &str, word: &str) {
    check(world, &node(&script(world, image, address)), word);
}

#[test]
fn a_node_behind_a_bridge_reads_through_every_proxy_on_its_gateway() {
    require_root();
    require(&[IPROUTE, BUSYBOX]);
    let (world, image) = caches("netns", "");
    let bridge = Bridge::new();
    let namespace = bridge.namespace();
    let node = |script: &str| namespace.run(script);
    reads(&world, &image, &node, &bridge.gateway(), "ok");

    // Bound to this host and the docker bridge, the proxies are there, and nowhere else.
    bind(&world, "bind = \"local\"");
    reads(&world, &image, &node, &world.gateway, "ok");
    reads(&world, &image, &node, &bridge.gateway(), "failed");
}

#[test]
fn a_node_on_a_docker_network_reads_through_every_proxy_on_the_docker_bridge() {
    require(&[BUSYBOX]);
    let (world, image) = caches("docker", "");
    let network = Network::new(&format!("{}cluster", world.prefix));
    let node = |script: &str| network.run(script);
    reads(&world, &image, &node, &world.gateway, "ok");

    bind(&world, "bind = \"local\"");
    reads(&world, &image, &node, &world.gateway, "ok");
    bind(&world, "bind = \"127.0.0.1\"");
    reads(&world, &image, &node, &world.gateway, "failed");
}

#[test]
fn a_virtual_machine_reads_through_every_proxy_on_its_gateway() {
    require_root();
    require(&[IPROUTE, BUSYBOX, QEMU]);
    let kernel = Kernel::get();
    let (world, image) = caches("guest", "");
    let bridge = Bridge::new();
    let tap = bridge.tap();
    let node = |script: &str| kernel.run(&world.folder, &tap, script);
    reads(&world, &image, &node, &bridge.gateway(), "ok");
}
