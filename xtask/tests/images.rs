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

#[test]
fn an_image_that_is_nowhere_is_assembled_or_refused_with_the_way_out() {
    let world = World::new("assembled");
    let image = format!("{}assembled:2", world.prefix);
    let tag = Tag(&world, image.clone());
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
}

#[test]
fn a_registry_3_is_not_assembled_from_a_registry_2() {
    let world = World::new("refused");
    let image = format!("{}refused:3", world.prefix);
    world.settings(&format!("image = \"{image}\""));
    let up = world.xtask(&["cache-up", "docker.io"]);
    assert!(up.code == Some(1) && up.stderr.contains("package is a registry 2"), "{up:?}");
    assert_eq!(world.left(), Vec::<String>::new());
}
