//! The registry image: there already, pulled, loaded from an archive, or assembled from Debian's package.

use std::collections::{BTreeMap, BTreeSet};

use camino::{Utf8Path, Utf8PathBuf};

use crate::command::without_userinfo;
use crate::docker::LABEL_IMAGE;
use crate::error::{Error, Result};
use crate::exec::{Cmd, Runner};
use crate::term::Term;
use crate::tool::Tool;

const ENTRYPOINT: &str = r#"#!/bin/sh
set -e
case "$1" in
    *.yaml|*.yml) set -- registry serve "$@" ;;
    serve|garbage-collect|help|-*) set -- registry "$@" ;;
esac
exec "$@"
"#;

/// The configuration that an image of registry 2 brings: what a proxy needs comes by its environment.
const SETTINGS: &str = "version: 0.1
log:
  fields:
    service: registry
storage:
  cache:
    blobdescriptor: inmemory
  filesystem:
    rootdirectory: /var/lib/registry
http:
  addr: :5000
  headers:
    X-Content-Type-Options: [nosniff]
";

/// Of the images named, those that are not here.
///
/// # Errors
/// The engine does not answer.
pub fn absent(runner: &dyn Runner, images: &BTreeSet<&str>) -> Result<Vec<String>> {
    let mut absent = Vec::new();
    for &image in images {
        if is_absent(runner, image)? {
            absent.push(image.to_owned());
        }
    }
    Ok(absent)
}

/// Whether an image is not here.
///
/// # Errors
/// The engine does not answer.
pub fn is_absent(runner: &dyn Runner, image: &str) -> Result<bool> {
    let cmd = Cmd::read("docker").args(["image", "inspect", "--format", "{{.Id}}", image]);
    let output = runner.run(&cmd)?;
    // The engine's own word, on 20.10 and 29; whatever else it says is no answer to the question.
    if !output.ok() && String::from_utf8_lossy(&output.stderr).contains("No such image") {
        return Ok(true);
    }
    let text = crate::observe::engine_answer(&cmd, output)?.text();
    if text.starts_with("sha256:") {
        return Ok(false);
    }
    Err(Error::Answer { command: cmd.shell(), problem: format!("{:?} is no image", text.trim()) })
}

/// Gets images that are not here, says in one line how each came, and gives that back by image.
///
/// # Errors
/// One cannot be pulled, is in no archive, and cannot be assembled on this system.
pub fn provide(
    runner: &dyn Runner,
    term: Term,
    images: &[String],
    archive: Option<&Utf8Path>,
) -> Result<BTreeMap<String, String>> {
    let mut origins = BTreeMap::new();
    for image in images {
        let (origin, reason) = get(runner, term, image, archive)?;
        let reason = reason.map(|reason| format!(" (pull failed: {reason})")).unwrap_or_default();
        term.step(&format!("image {image}: {origin}{reason}"));
        origins.insert(image.clone(), origin);
    }
    Ok(origins)
}

/// How an image came, and why it was not pulled where it was not.
fn get(runner: &dyn Runner, term: Term, image: &str, archive: Option<&Utf8Path>) -> Result<(String, Option<String>)> {
    let bar = term.waiting(format!("pulling {image}"));
    let pulled = runner.run(&Cmd::write("docker").args(["pull", image]))?;
    drop(bar);
    if pulled.ok() {
        return Ok(("pulled".to_owned(), None));
    }
    let reason = without_userinfo(&pulled.tail(1).join(" "));
    let origin = match archive {
        Some(archive) => {
            load(runner, image, archive)?;
            format!("loaded from {archive}")
        }
        None => format!("assembled from {}", assemble(runner, image, &reason)?),
    };
    Ok((origin, Some(reason)))
}

fn load(runner: &dyn Runner, image: &str, archive: &Utf8Path) -> Result<()> {
    let load = Cmd::write("docker").args(["load", "--quiet", "--input", archive.as_str()]);
    runner.run(&load)?.checked(&load, "name an archive as `docker save` writes it")?;
    if !is_absent(runner, image)? {
        return Ok(());
    }
    Err(Error::Usage { problem: format!("{archive} holds no image tagged {image}"), fix: from_an_archive(image) })
}

/// How to get an image to a machine without a network.
fn from_an_archive(image: &str) -> String {
    match image.split_once('@') {
        None => format!(
            "on a machine with a network `docker pull {image} && docker save --output FILE {image}`, then pass \
             --image-archive FILE"
        ),
        // The engine learns a digest from a registry alone, and forgets it in an archive.
        Some((name, _)) => format!("let `image` name a tag, such as {name}:2, and pass --image-archive FILE"),
    }
}

/// Why no image of this name is assembled from the distribution's package, whatever its version: an image that is made
/// here never has a name that stands for something else.
fn not_assembled(image: &str) -> Option<&'static str> {
    if image.contains('@') {
        return Some("an image that is assembled has no digest of a registry");
    }
    let name = image.strip_prefix("docker.io/").unwrap_or(image);
    let name = name.strip_prefix("library/").unwrap_or(name);
    match name.split_once(':').unwrap_or((name, "latest")) {
        ("registry", tag) if tag.split('.').all(is_number) => {
            (!crate::docker::is_registry_2(image)).then_some("the package of distributions is a registry 2")
        }
        ("registry", _) => Some("only tags that are a version can be assembled, such as registry:2"),
        _ => Some("only the official image `registry` can be assembled"),
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_digit())
}

/// Whether a package's version (`2.8.2+ds1-1`) is one that a tag (`2`, `2.8`, `2.8.2`) stands for.
fn satisfies(version: &str, tag: &str) -> bool {
    let version = version.split_once(':').map_or(version, |(_, version)| version);
    let version = version.split(['+', '-', '~']).next().unwrap_or_default();
    version == tag || version.strip_prefix(tag).is_some_and(|rest| rest.starts_with('.'))
}

fn assemble(runner: &dyn Runner, image: &str, reason: &str) -> Result<String> {
    let refuse = |why: &str| Error::Tool {
        problem: format!("image {image} cannot be pulled ({reason}), and {why}"),
        fix: from_an_archive(image),
    };
    if let Some(why) = not_assembled(image) {
        return Err(refuse(why));
    }
    if [Tool::AptGet, Tool::Dpkg, Tool::Ldd].iter().any(|tool| tool.path().is_none()) {
        return Err(refuse("this system has no apt to assemble one from"));
    }
    let scratch = scratch(runner)?;
    let result = assemble_in(runner, image, &scratch, &refuse);
    let _ = std::fs::remove_dir_all(&scratch);
    result
}

fn scratch(runner: &dyn Runner) -> Result<Utf8PathBuf> {
    let cmd = Cmd::write("mktemp").args(["-d", "-t", "talos-cache-image.XXXXXX"]);
    Ok(runner.run(&cmd)?.checked(&cmd, "make room in the folder for temporary files")?.text().trim().into())
}

fn assemble_in(runner: &dyn Runner, image: &str, scratch: &Utf8Path, refuse: &dyn Fn(&str) -> Error) -> Result<String> {
    let fix = "mend what it names, or pass --image-archive FILE";
    let sh = |script: &str| -> Result<String> {
        let cmd = Cmd::write("sh").args(["-euc", script, "sh", scratch.as_str()]);
        Ok(runner.run(&cmd)?.checked(&cmd, fix)?.text())
    };
    // Fetched and unpacked, never installed: Debian's package would start a registry of its own on port 5000.
    let download = "cd \"$1\"; apt-get download --quiet docker-registry busybox-static ca-certificates >&2";
    if sh(download).is_err() {
        // A fresh machine has no lists of packages yet.
        let update = crate::engine::as_root_unasked(runner, &["apt-get", "-qq", "update"])?;
        runner.run(&update)?.checked(&update, "run `sudo apt-get update`, then this again")?;
        sh(download)?;
    }
    let version = sh("cd \"$1\"; dpkg-deb -f docker-registry_*.deb Version")?.trim().to_owned();
    let tag = image.rsplit_once(':').map_or("latest", |(_, tag)| tag);
    if !satisfies(&version, tag) {
        return Err(refuse(&format!("the package of this system is docker-registry {version}, not {tag}")));
    }
    sh("cd \"$1\"; mkdir -p root/bin root/etc/ssl/certs root/etc/docker/registry root/var/lib/registry root/tmp
        for deb in *.deb; do dpkg-deb -x \"$deb\" \"${deb%%_*}\"; done")?;
    sh("cd \"$1\"; install -m 755 docker-registry/usr/bin/docker-registry root/bin/registry
        install -m 755 busybox-static/bin/busybox root/bin/busybox 2>/dev/null ||
            install -m 755 busybox-static/usr/bin/busybox root/bin/busybox
        for applet in $(root/bin/busybox --list); do [ -e root/bin/$applet ] || ln -s busybox root/bin/$applet; done
        find ca-certificates -name '*.crt' -exec cat {} + >root/etc/ssl/certs/ca-certificates.crt
        for lib in $(ldd root/bin/registry | grep -o '/[^ ]*'); do
            mkdir -p \"root${lib%/*}\"; cp -L \"$lib\" \"root$lib\"; done")?;
    for (path, text) in [("entrypoint.sh", ENTRYPOINT), ("etc/docker/registry/config.yml", SETTINGS)] {
        let path = scratch.join("root").join(path);
        std::fs::write(&path, text).map_err(Error::io(format!("write {path}")))?;
    }
    sh("cd \"$1/root\"; chmod 755 entrypoint.sh; chmod 1777 tmp
        tar --owner=0 --group=0 --numeric-owner -cf ../image.tar .")?;
    let made_from = format!("docker-registry {version} of the distribution");
    let import = Cmd::write("docker")
        .args(["import", "--change", r#"ENTRYPOINT ["/entrypoint.sh"]"#])
        .args(["--change", r#"CMD ["/etc/docker/registry/config.yml"]"#, "--change", "EXPOSE 5000"])
        .args(["--change", "VOLUME /var/lib/registry", "--change", "ENV PATH=/bin"])
        .args(["--change", &format!("LABEL {LABEL_IMAGE}=\"assembled from {made_from}\"")])
        .args([scratch.join("image.tar").as_str(), image]);
    runner.run(&import)?.checked(&import, "see what the engine says of it")?;
    Ok(made_from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_official_image_is_assembled_and_only_by_a_version() {
        for image in
            ["registry:2", "library/registry:2.8", "docker.io/registry:2.8.2", "docker.io/library/registry:2.5"]
        {
            assert_eq!(not_assembled(image), None, "{image}");
        }
        let digest = format!("registry@sha256:{:064}", 0);
        let both = format!("registry:2@sha256:{:064}", 0);
        for (image, part) in [
            ("nginx:2", "only the official image"),
            ("my/registry:2", "only the official image"),
            ("ghcr.io/library/registry:2", "only the official image"),
            ("127.0.0.1:5000/registry:2", "only the official image"),
            ("registry", "only tags that are a version"),
            ("registry:3", "is a registry 2"),
            ("registry:28", "is a registry 2"),
            ("registry:2-alpine", "only tags that are a version"),
            ("registry:2.", "only tags that are a version"),
            (&digest, "digest"),
            (&both, "digest"),
        ] {
            assert!(not_assembled(image).is_some_and(|why| why.contains(part)), "{image}");
        }
    }

    #[test]
    fn a_tag_stands_for_the_versions_that_begin_with_it() {
        let package = "2.8.2+ds1-1";
        for tag in ["2", "2.8", "2.8.2"] {
            assert!(satisfies(package, tag), "{tag}");
        }
        for tag in ["2.5", "2.9", "2.8.3", "2.8.2.1", "3", "28", "2.8.20", "1"] {
            assert!(!satisfies(package, tag), "{tag}");
        }
        assert!(satisfies("1:2.8.3~rc1-2", "2.8.3") && !satisfies("3.0.0-1", "2"));
    }

    #[test]
    fn what_is_to_be_done_works_for_a_tag_and_for_a_digest() {
        assert!(from_an_archive("a:2").contains("`docker pull a:2 && docker save --output FILE a:2`"));
        assert!(from_an_archive("registry@sha256:12").starts_with("let `image` name a tag, such as registry:2,"));
    }
}
