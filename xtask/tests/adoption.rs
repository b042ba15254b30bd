//! Adoptions that are killed, on the real engine: half a copy is never served, and the next run finishes it.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use support::{Image, World, XTASK};
use xshell::cmd;

/// A shell whose `cp -a FROM/. TO/` takes its time, and has half of a file in place while it does. A program of its own
/// would not do: busybox takes the `cp` that is built in.
const SLOW_SHELL: &str = r#"#!/bin/busybox sh
case "$2" in *.adopting*) ;; *) exec /bin/busybox sh "$@" ;; esac
cp() {
    from=${2%/.}; to=${3%/}; cd "$from"
    find . -type d | while read -r folder; do mkdir -p "$to/$folder"; done
    find . -type f | while read -r file; do
        head -c $(($(stat -c %s "$file") / 2)) "$file" >"$to/$file"; sleep 0.25; command cp -a "$file" "$to/$file"
    done
}
eval "$2"
"#;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kill {
    /// The task alone: the engine goes on with the copy.
    Task,
    /// The task, and the copy by its engine.
    TaskAndCopy,
    /// The task is asked to end, and the copy takes longer than it is given.
    Politely,
    /// As the second, and the volume is somebody else's, with a cache on it.
    OntoAnotherVolume,
}

const KINDS: [Kill; 4] = [Kill::Task, Kill::TaskAndCopy, Kill::Politely, Kill::OntoAnotherVolume];

struct Adoption {
    world: World,
    image: Image,
    other: Image,
}

impl Adoption {
    /// A registry image with that `cp`, and images to cache.
    fn new(kind: Kill) -> Self {
        static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let world = World::new(&format!("{kind:?}{count}").to_lowercase());
        let (slow, maker) = (format!("registry:2-{}slow", world.prefix), format!("{}maker", world.prefix));
        let script = format!("cat >/slow <<'END'\n{SLOW_SHELL}END\nchmod 755 /slow; mv /slow /bin/sh");
        let sh = &world.sh;
        cmd!(sh, "docker run --name {maker} --entrypoint sh registry:2 -c {script}").quiet().run().unwrap();
        let changes = ["ENTRYPOINT [\"/entrypoint.sh\"]", "CMD [\"/etc/docker/registry/config.yml\"]"];
        let [entrypoint, command] = changes;
        cmd!(sh, "docker commit --change {entrypoint} --change {command} {maker} {slow}")
            .quiet()
            .ignore_stdout()
            .run()
            .unwrap();
        cmd!(sh, "docker rm --volumes {maker}").quiet().ignore_stdout().run().unwrap();
        world.settings(&format!("image = \"{slow}\""));
        let image = Image::push(world.upstream_port, "library/one");
        let other = Image::push(world.upstream_port, "library/other");
        Self { world, image, other }
    }

    fn name(&self) -> String {
        self.world.name("docker.io")
    }

    /// A proxy as the guide makes it, with another image than the settings have, and a cache.
    fn by_hand(&self, image: &Image) {
        let (name, port) = (self.name(), format!("{}:5000", self.world.ports[0]));
        let env = format!("REGISTRY_PROXY_REMOTEURL={}", self.world.upstream_url());
        cmd!(self.world.sh, "docker run -d -p {port} -e {env} --restart always --name {name} registry:2")
            .quiet()
            .ignore_stdout()
            .run()
            .unwrap();
        support::wait_for(self.world.ports[0]);
        image.pull(self.world.ports[0]).unwrap();
        support::settled(&self.world, "docker.io");
    }

    /// A volume of the mirror's name that was made by somebody else, with a cache on it.
    fn volume_of_somebody_else(&self) {
        let (name, sh) = (self.name(), &self.world.sh);
        cmd!(sh, "docker volume create {name}").quiet().ignore_stdout().run().unwrap();
        let up = self.world.xtask(&["cache-up", "docker.io"]);
        assert_eq!(up.code, Some(0), "{up:?}");
        self.other.pull(self.world.ports[0]).unwrap();
        support::settled(&self.world, "docker.io");
        cmd!(sh, "docker rm --force {name}").quiet().ignore_stdout().run().unwrap();
    }

    /// Adopts, and kills that so long after the copy began.
    #[allow(clippy::disallowed_methods)]
    fn kill(&self, kind: Kill, after: Duration) {
        let (sh, copier) = (&self.world.sh, format!("{}-adopting", self.name()));
        let mut task = std::process::Command::new(XTASK)
            .args(["--config", self.world.config().to_str().unwrap(), "cache-up", "--adopt", "docker.io"])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let until = Instant::now() + Duration::from_secs(30);
        while cmd!(sh, "docker container inspect {copier}").quiet().ignore_stdout().ignore_stderr().run().is_err() {
            assert!(Instant::now() < until, "the copy never begins");
            std::thread::sleep(Duration::from_millis(10));
        }
        std::thread::sleep(after);
        let (pid, signal) = (task.id().to_string(), if kind == Kill::Politely { "-TERM" } else { "-KILL" });
        // It may have ended just before.
        let _ = cmd!(sh, "kill {signal} {pid}").quiet().ignore_stderr().run();
        if matches!(kind, Kill::TaskAndCopy | Kill::OntoAnotherVolume) {
            let _ = cmd!(sh, "docker kill {copier}").quiet().ignore_stdout().ignore_stderr().run();
        }
        if kind != Kill::Politely {
            task.wait().unwrap();
            return;
        }
        let output = task.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        // Or it has ended just before.
        assert!(matches!(output.status.code(), Some(143 | 0)), "{said}");
        if said.contains("is unfinished") {
            // What cannot be finished leaves the container as it was, and serving.
            support::wait_for(self.world.ports[0]);
            self.image.pull(self.world.ports[0]).unwrap();
        }
    }

    /// Another run finishes the adoption; the cache serves every image without the upstream.
    fn finish(&self, kind: Kill, when: &str) {
        let finished = self.world.xtask(&["cache-up", "--adopt", "docker.io"]);
        assert_eq!(finished.code, Some(0), "{when}: {finished:?}");
        self.is_sound(when);
        self.world.upstream("stop");
        self.image.pull(self.world.ports[0]).unwrap_or_else(|error| panic!("{when}: {error}"));
        if kind == Kill::OntoAnotherVolume {
            self.other.pull(self.world.ports[0]).unwrap_or_else(|error| panic!("{when}: {error}"));
        }
        self.world.upstream("start");
    }

    /// The container is renamed, as messages advise, and the mirror comes up without it: what is on its volume is right.
    fn rename(&self, when: &str) {
        let (name, aside) = (self.name(), format!("{}aside", self.world.prefix));
        let sh = &self.world.sh;
        if cmd!(sh, "docker rename {name} {aside}").quiet().ignore_stderr().run().is_ok() {
            let _ = cmd!(sh, "docker stop --time 0 {aside}").quiet().ignore_stdout().run();
        }
        let up = self.world.xtask(&["cache-up", "docker.io"]);
        assert_eq!(up.code, Some(0), "{when}: {up:?}");
        self.is_sound(when);
        self.image.pull(self.world.ports[0]).unwrap_or_else(|error| panic!("{when}: {error}"));
        let _ = cmd!(sh, "docker rm --force --volumes {aside}").quiet().ignore_stdout().ignore_stderr().run();
    }

    /// Every blob has the digest that it is stored under, and nothing of a copy is left.
    fn is_sound(&self, when: &str) {
        let name = self.name();
        let blobs = "cd /var/lib/registry; ls -A; find . -path '*/blobs/*' -name data -exec sha256sum {} +";
        let seen = cmd!(self.world.sh, "docker exec {name} sh -c {blobs}").quiet().ignore_stderr().read().unwrap();
        assert!(!seen.contains(".adopting"), "{when}: {seen}");
        for line in seen.lines().filter(|line| line.ends_with("/data")) {
            let (digest, path) = line.split_once("  ").unwrap();
            assert!(path.contains(digest), "{when}: {line}");
        }
        let containers = self.world.left();
        assert!(!containers.iter().any(|name| name.ends_with("-adopting")), "{when}: {containers:?}");
    }

    /// One adoption that is killed, and what comes after it by turns.
    fn goes_through(&self, kind: Kill, moment: u32, moments: u32) {
        // Over all of a copy that takes about nine seconds, and a little more.
        let after = Duration::from_millis(u64::from(10_000 * moment / moments + 300));
        let when = format!("{kind:?} after {after:?}");
        if kind == Kill::OntoAnotherVolume {
            self.volume_of_somebody_else();
        }
        self.by_hand(&self.image);
        self.kill(kind, after);
        if moment.is_multiple_of(2) {
            self.finish(kind, &when);
        } else {
            self.rename(&when);
        }
        self.clear();
    }

    fn clear(&self) {
        let name = self.name();
        let _ = cmd!(self.world.sh, "docker rm --force --volumes {name}").quiet().ignore_stdout().ignore_stderr().run();
        let clean = self.world.xtask(&["cache-clean"]);
        assert_eq!(clean.code, Some(0), "{clean:?}");
        let _ = cmd!(self.world.sh, "docker volume rm {name}").quiet().ignore_stdout().ignore_stderr().run();
        assert_eq!(self.world.left(), Vec::<String>::new());
    }
}

impl Drop for Adoption {
    fn drop(&mut self) {
        let (name, aside) = (self.name(), format!("{}aside", self.world.prefix));
        let (sh, image) = (&self.world.sh, format!("registry:2-{}slow", self.world.prefix));
        let both = [name.as_str(), &aside, &format!("{name}-adopting")];
        let _ = cmd!(sh, "docker rm --force --volumes {both...}").quiet().ignore_stdout().ignore_stderr().run();
        let _ = cmd!(sh, "docker volume rm {name}").quiet().ignore_stdout().ignore_stderr().run();
        let _ = cmd!(sh, "docker rmi --force {image}").quiet().ignore_stdout().ignore_stderr().run();
    }
}

/// Adopts with every kind of kill at so many moments, all kinds at once: most of the time is that of the copies.
fn killed_at(moments: u32) {
    std::thread::scope(|scope| {
        for kind in KINDS {
            scope.spawn(move || {
                let adoption = Adoption::new(kind);
                (0..moments).for_each(|moment| adoption.goes_through(kind, moment, moments));
            });
        }
    });
}

#[test]
fn two_adoptions_at_once_both_end_well_and_one_of_them_copies() {
    let adoption = Adoption::new(Kill::Task);
    adoption.by_hand(&adoption.image);
    let config = adoption.world.config().into_os_string().into_string().unwrap();
    let adopt = |delay: u64| {
        std::thread::sleep(Duration::from_millis(delay));
        support::xtask(&xshell::Shell::new().unwrap(), &["--config", &config, "cache-up", "--adopt", "docker.io"])
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| adopt(2_000));
        for run in [adopt(0), other.join().unwrap()] {
            assert_eq!(run.code, Some(0), "{run:?}");
        }
    });
    adoption.is_sound("two at once");
    adoption.world.upstream("stop");
    adoption.image.pull(adoption.world.ports[0]).unwrap();
}

#[test]
fn an_adoption_that_is_killed_never_serves_half_a_copy_and_is_finished_by_the_next() {
    killed_at(2);
}

#[test]
#[ignore = "takes half an hour, for `cargo xtask ci --full`"]
fn adoptions_killed_at_twenty_moments_each_are_all_finished() {
    killed_at(20);
}
