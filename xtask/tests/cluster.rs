//! `cluster` and `cluster-down` with every release of talosctl, played by the stand-in, on the real engine.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/origin.rs"]
mod origin;
#[path = "support/releases.rs"]
mod releases;
mod support;
#[path = "support/user.rs"]
mod user;

use origin::Origin;
use releases::releases;
use user::{User, values};
use xtask::boot::SCHEMATIC;
use xtask::talosctl::Version;

/// What every create has to have: the mirrors in order, a state directory and a working directory of its own.
fn create_is_right(user: &User, version: &Version, address: &str, provisioner: &str) {
    let calls = user.calls(&["cluster", "create"]);
    let call = calls.last().unwrap();
    assert_eq!(values(call, "--registry-mirror"), user.mirrors(address), "{version}");
    assert_eq!(values(call, "--state"), [user.state().join("s")], "{version}");
    assert_eq!(call["cwd"], user.state().join("work").as_str(), "{version}");
    assert_eq!(call["env"]["TAG"], serde_json::Value::Null, "{version}");
    // Never the bare command from 1.12 on, which makes virtual machines whatever it is told.
    let split = version.at_least((1, 12));
    assert_eq!(call["argv"][2] == provisioner, split, "{version}");
    assert_eq!(values(call, "--provisioner"), if split { Vec::new() } else { vec![provisioner.to_owned()] });
}

fn all_is_gone(user: &User, version: &Version) {
    let down = user.down();
    assert_eq!(down.code, Some(0), "{version}: {down:?}");
    assert_eq!(user.objects(), "", "{version}");
    assert!(!user.state().exists(), "{version}");
    let file = user.home.join(".talos/config");
    let config = std::fs::read_to_string(&file).unwrap_or_default();
    // What came before `config remove` stays, and the next cluster is not the one that made it.
    assert_eq!(config.contains(&user.cluster().0), !version.at_least((1, 4)), "{version}: {config}");
    std::fs::remove_file(file).unwrap();
}

#[test]
fn docker_clusters_with_every_release() {
    let mut user = User::new("docker23", "v0.7.1");
    for version in releases() {
        user.set("STANDIN_TALOSCTL_VERSION", &version.to_string());
        let made = user.make("--docker", &["--workers", "0"]);
        assert_eq!(made.code, Some(0), "{version}: {made:?}");
        create_is_right(&user, &version, &user.world.gateway, "docker");
        assert!(!user.objects().is_empty());
        all_is_gone(&user, &version);
    }
}

#[test]
fn qemu_clusters_with_every_release() {
    let mut user = User::new("qemu23", "v0.7.1");
    let origin = Origin::start();
    let address = origin.address();
    user.world.settings(&format!("[boot]\nrelease = \"{address}\"\nfactory = \"{address}\"\n"));
    let (_, cidr) = user.cluster();
    let gateway = cidr.replace(".0/24", ".1");
    for version in releases() {
        user.set("STANDIN_TALOSCTL_VERSION", &version.to_string());
        origin.put(&format!("/{version}/vmlinuz-amd64"), b"kernel");
        origin.put(&format!("/{version}/initramfs-amd64.xz"), b"initramfs");
        origin.put(&format!("/image/{SCHEMATIC}/{version}/metal-amd64.iso"), b"iso");
        let made = user.make("--qemu", &[]);
        assert_eq!(made.code, Some(0), "{version}: {made:?}");
        create_is_right(&user, &version, &gateway, "qemu");
        let call = user.calls(&["cluster", "create"]).pop().unwrap();
        let kernel = values(&call, "--vmlinuz-path");
        if version.at_least((1, 12)) {
            assert_eq!(kernel, Vec::<String>::new());
            let there = format!("https---factory.talos.dev-image-{SCHEMATIC}-{version}-metal-amd64.iso");
            assert_eq!(std::fs::read(user.home.join(".talos/cache").join(there)).unwrap(), b"iso");
        } else {
            assert_eq!(std::fs::read(&kernel[0]).unwrap(), b"kernel");
        }
        // The second run fetches nothing.
        assert!(!origin.requests().is_empty());
        let again = user.make("--qemu", &["--recreate"]);
        assert_eq!(again.code, Some(0), "{version}: {again:?}");
        assert!(origin.requests().is_empty(), "{version}");
        all_is_gone(&user, &version);
    }
}

#[test]
fn the_iso_of_another_factory_is_put_under_its_own_name() {
    let user = User::without_caches("factory", "v1.12.4");
    let origin = Origin::start();
    origin.put(&format!("/image/{SCHEMATIC}/v1.12.4/metal-amd64.iso"), b"another iso");
    let made = user.make("--qemu", &["--no-cache", "--", "--image-factory-url", &origin.address()]);
    assert_eq!(made.code, Some(0), "{made:?}");
    let name = format!("http---127.0.0.1-{}-image-{SCHEMATIC}-v1.12.4-metal-amd64.iso", origin.port);
    assert_eq!(std::fs::read(user.home.join(".talos/cache").join(name)).unwrap(), b"another iso");
    assert_eq!(user.down().code, Some(0));
}

#[test]
fn mirrors_can_be_a_patch_where_talosctl_takes_one() {
    let mut user = User::new("patch", "v1.1.2");
    let refused = user.make("--docker", &["--mirrors-as", "patch"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("it exists from 1.2 on"), "{refused:?}");
    let (field, document) = ("machine:\n  registries:\n", "kind: RegistryMirrorConfig\n");
    for (tag, flags, part) in [
        ("v1.2.9", &[][..], field),
        ("v1.14.0-rc.1", &[], document),
        // An older Talos in the image of the nodes rejects the documents that talosctl would take.
        ("v1.14.0-rc.1", &["--", "--image", "ghcr.io/siderolabs/talos:v1.9.6"], field),
    ] {
        user.set("STANDIN_TALOSCTL_VERSION", tag);
        let made = user.make("--docker", &[&["--mirrors-as", "patch", "--workers", "0"], flags].concat());
        assert_eq!(made.code, Some(0), "{made:?}");
        let call = user.calls(&["cluster", "create"]).pop().unwrap();
        assert_eq!(values(&call, "--registry-mirror"), Vec::<String>::new());
        let file = values(&call, "--config-patch").pop().unwrap();
        let patch = std::fs::read_to_string(file.strip_prefix('@').unwrap()).unwrap();
        assert!(patch.contains(part) && patch.matches(&user.world.gateway).count() == 7, "{patch}");
        assert_eq!(user.down().code, Some(0));
    }
}

#[test]
fn an_engine_that_is_too_old_for_1_12_is_named_to_it() {
    let mut user = User::new("api", "v1.12.4");
    let format = "{{.Server.APIVersion}}";
    let api = xshell::cmd!(user.world.sh, "docker version --format {format}").quiet().read().unwrap();
    user.set("STANDIN_ENGINE_API", &api);
    let made = user.make("--docker", &["--workers", "0"]);
    assert_eq!(made.code, Some(0), "{made:?}");
    let old = api.split_once('.').unwrap().1.parse::<u32>().unwrap() < 44;
    let named = user.calls(&["cluster", "create"]).pop().unwrap()["env"]["DOCKER_API_VERSION"].clone();
    assert_eq!(named.as_str().filter(|named| !named.is_empty()), Some(api.as_str()).filter(|_| old));
    assert_eq!(made.stderr.contains("DOCKER_API_VERSION=1.41 is set"), old && api == "1.41", "{made:?}");
    assert_eq!(user.down().code, Some(0));
}
