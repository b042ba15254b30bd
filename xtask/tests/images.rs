//! How the registry image comes to the engine: pulled, loaded, assembled; and that status keeps saying which.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use support::World;
use xshell::cmd;

/// Removes an image of a test when it is dropped.
struct Tag<'a>(&'a World, String);

impl Drop for Tag<'_> {
    fn drop(&mut self) {
        let (world, image) = (self.0, &self.1);
        let name = world.name("docker.io");
        let _ = cmd!(world.sh, "docker rm --force --volumes {name}").quiet().ignore_stdout().ignore_stderr().run();
        let _ = cmd!(world.sh, "docker rmi {image}").quiet().ignore_stdout().ignore_stderr().run();
    }
}

fn origin(world: &World) -> String {
    let status = world.xtask(&["--json", "cache-status", "docker.io"]);
    let json: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
    json["proxies"][0]["image_origin"].as_str().unwrap_or("none").to_owned()
}

#[test]
fn an_image_that_a_registry_has_is_pulled() {
    let world = World::new("pulled");
    let image = format!("127.0.0.1:{}/registry:2", world.upstream_port);
    let tag = Tag(&world, image.clone());
    cmd!(world.sh, "docker tag registry:2 {image}").quiet().run().unwrap();
    cmd!(world.sh, "docker push --quiet {image}").quiet().ignore_stdout().run().unwrap();
    cmd!(world.sh, "docker rmi {image}").quiet().ignore_stdout().run().unwrap();
    world.settings(&format!("image = \"{image}\""));
    let up = world.xtask(&["cache-up", "docker.io"]);
    assert!(up.code == Some(0) && up.stderr.contains(&format!("image {image}: pulled\n")), "{up:?}");
    assert_eq!(origin(&world), "pulled");
    // A container that is made anew from it still knows.
    assert_eq!(world.xtask(&["cache-up", "--offline", "docker.io"]).code, Some(0));
    assert_eq!(origin(&world), "pulled");
    drop(tag);
}

#[test]
fn an_image_that_cannot_be_pulled_is_loaded_from_an_archive() {
    let world = World::new("archive");
    let image = format!("{}archive:2", world.prefix);
    let tag = Tag(&world, image.clone());
    let file = world.folder.join("image.tar");
    cmd!(world.sh, "docker tag registry:2 {image}").quiet().run().unwrap();
    cmd!(world.sh, "docker save --output {file} {image}").quiet().run().unwrap();
    cmd!(world.sh, "docker rmi {image}").quiet().ignore_stdout().run().unwrap();
    world.settings(&format!("image = \"{image}\""));
    let broken = world.folder.join("broken.tar");
    std::fs::write(&broken, "no archive").unwrap();
    let args = |file: &std::path::Path| file.to_str().unwrap().to_owned();
    let up = |file: &str| world.xtask(&["cache-up", "docker.io", "--image-archive", file]);
    let refused = up(&args(&broken));
    assert!(refused.code == Some(1) && refused.stderr.contains("fix: name an archive as"), "{refused:?}");
    assert_eq!(world.left(), Vec::<String>::new());
    let loaded = up(&args(&file));
    assert!(loaded.code == Some(0) && loaded.stderr.contains(": loaded from "), "{loaded:?}");
    assert!(origin(&world).starts_with("loaded from "), "{}", origin(&world));
    drop(tag);
}

/// A world whose client cannot pull: what comes is loaded or assembled.
fn without_a_network(name: &str) -> World {
    let world = World::new(name);
    let docker = cmd!(world.sh, "which docker").quiet().read().unwrap();
    let script = format!("#!/bin/sh\n[ \"$1\" != pull ] || {{ echo no network >&2; exit 1; }}\nexec {docker} \"$@\"\n");
    support::write_program(&world.folder, "docker", &script);
    world.sh.set_var("PATH", format!("{}:{}", world.folder.display(), std::env::var("PATH").unwrap()));
    world
}

/// An image of the engine's own under this name, and nothing while this is held.
struct SetAside<'a>(&'a World, &'static str, bool);

impl<'a> SetAside<'a> {
    fn new(world: &'a World, image: &'static str) -> Self {
        let aside = Self::kept(world);
        let there = cmd!(world.sh, "docker tag {image} {aside}").quiet().ignore_stderr().run().is_ok();
        if there {
            cmd!(world.sh, "docker rmi {image}").quiet().ignore_stdout().run().unwrap();
        }
        Self(world, image, there)
    }

    fn kept(world: &World) -> String {
        format!("{}set-aside:2", world.prefix)
    }
}

impl Drop for SetAside<'_> {
    fn drop(&mut self) {
        let (world, image, aside) = (self.0, self.1, Self::kept(self.0));
        if self.2 {
            let _ = cmd!(world.sh, "docker tag {aside} {image}").quiet().run();
            let _ = cmd!(world.sh, "docker rmi {aside}").quiet().ignore_stdout().run();
        }
    }
}

#[test]
fn an_image_that_is_nowhere_is_assembled_or_refused_with_the_way_out() {
    let world = without_a_network("assembled");
    let image = "registry:2.8";
    let aside = SetAside::new(&world, image);
    let tag = Tag(&world, image.to_owned());
    world.settings(&format!("image = \"{image}\""));
    let up = world.xtask(&["cache-up", "docker.io"]);
    if cmd!(world.sh, "which apt-get").quiet().ignore_stdout().run().is_err() {
        assert!(up.code == Some(1) && up.stderr.contains("--image-archive FILE"), "{up:?}");
        return;
    }
    assert!(up.code == Some(0) && up.stderr.contains("assembled from docker-registry"), "{up:?}");
    assert!(origin(&world).starts_with("assembled from docker-registry"), "{}", origin(&world));
    // As the official image: certificates and a shell, the same entry point, command, port, volume and configuration.
    let format =
        "{{json .Config.Entrypoint}} {{json .Config.Cmd}} {{json .Config.ExposedPorts}} {{json .Config.Volumes}}";
    assert_eq!(
        cmd!(world.sh, "docker image inspect --format {format} {image}").quiet().read().unwrap(),
        r#"["/entrypoint.sh"] ["/etc/docker/registry/config.yml"] {"5000/tcp":{}} {"/var/lib/registry":{}}"#
    );
    let look = "test -s /etc/ssl/certs/ca-certificates.crt && registry --version";
    cmd!(world.sh, "docker run --rm --entrypoint sh {image} -c {look}").quiet().ignore_stdout().run().unwrap();
    drop(tag);
    drop(aside);
}

#[test]
fn what_the_package_is_not_is_never_assembled_under_its_name() {
    let world = without_a_network("refused");
    let (foreign, digest) = (format!("{}nginx:2", world.prefix), format!("registry@sha256:{:064}", 7));
    for (image, reason, fix) in [
        (foreign.as_str(), "only the official image `registry` can be assembled", "docker save --output FILE "),
        ("registry:2-nothing", "only tags that are a version", "--image-archive FILE"),
        (&digest, "has no digest of a registry", "fix: let `image` name a tag, such as registry:2,"),
        ("registry:2.9.9", "package of this system is docker-registry ", "--image-archive FILE"),
        ("registry:3.99", "the package of distributions is a registry 2", "--image-archive FILE"),
    ] {
        world.settings(&format!("image = \"{image}\""));
        let up = world.xtask(&["cache-up", "docker.io"]);
        let reason = up.stderr.contains(reason) || (reason.contains("package") && up.stderr.contains("has no apt"));
        assert!(up.code == Some(1) && reason && up.stderr.contains(fix), "{up:?}");
        let inspect = cmd!(world.sh, "docker image inspect {image}").quiet().ignore_stdout().ignore_stderr();
        assert!(inspect.run().is_err(), "{image}");
    }
    assert_eq!(world.left(), Vec::<String>::new());
}
