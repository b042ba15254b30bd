//! A user who is not root, at a terminal, with a real sudo that gives each command a terminal of its own.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/origin.rs"]
mod origin;
mod support;
#[path = "support/user.rs"]
mod user;

use std::os::unix::fs::PermissionsExt;

use camino::Utf8Path;
use origin::Origin;
use support::{Run, write_program};
use user::User;
use xshell::cmd;

const UID: &str = "12345";
/// The passwords and sudo's rules are this test's own, in a mount namespace of its own, where the user is added.
const SESSION: &str = "mount --bind \"$1/passwd\" /etc/passwd
    mount --bind \"$1/sudoers\" /etc/sudoers
    umask \"$2\"
    (until [ -e \"$1/press\" ] || [ -e \"$1/over\" ]; do sleep 0.1; done
        printf '\\003'; until [ -e \"$1/over\" ]; do sleep 0.1; done) | {
        code=0
        timeout 120 setpriv --reuid 12345 --regid 12345 --clear-groups \
            script --quiet --flush --return --command \"$3\" \"$4/log\" >/dev/null || code=$?
        touch \"$1/over\"
        exit $code
    }";

/// A user of the name of sudo's rules, and the folder of what only this test's namespace sees.
struct Person {
    user: User,
    rules: std::path::PathBuf,
    _kept: xshell::TempDir,
}

impl Person {
    fn new(name: &str, origin: &Origin) -> Self {
        let tag = "v1.11.6";
        let mut user = User::without_caches(name, tag);
        let address = origin.address();
        user.world.settings(&format!("[boot]\nrelease = \"{address}\"\n"));
        origin.put(&format!("/{tag}/vmlinuz-amd64"), b"kernel");
        origin.put(&format!("/{tag}/initramfs-amd64.xz"), b"initramfs");
        let kept = user.world.sh.create_temp_dir().unwrap();
        let rules = kept.path().to_owned();
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
        let line = format!("talosuser:*:{UID}:{UID}::{}:/bin/sh\n", user.home);
        std::fs::write(rules.join("passwd"), passwd + &line).unwrap();
        let sudoers = rules.join("sudoers");
        std::fs::write(&sudoers, "Defaults use_pty\nroot ALL=(ALL) ALL\ntalosuser ALL=(ALL) NOPASSWD: ALL\n").unwrap();
        std::fs::set_permissions(&sudoers, std::fs::Permissions::from_mode(0o440)).unwrap();
        user.set("STANDIN_ROOT", "1");
        Self { user, rules, _kept: kept }
    }

    /// sudo drops what the stand-in is told by its environment, so that its program tells it.
    fn talosctl(&self, more: &str) {
        let bin = self.user.home.join("bin");
        let standin = std::fs::canonicalize(bin.join("talosctl")).unwrap();
        let standin = if standin.ends_with("examples/talosctl") {
            std::fs::rename(bin.join("talosctl"), bin.join("standin")).unwrap();
            standin
        } else {
            std::fs::canonicalize(bin.join("standin")).unwrap()
        };
        let told: String = self
            .user
            .env
            .iter()
            .filter(|(name, _)| name.starts_with("STANDIN_"))
            .fold(String::new(), |told, (name, value)| told + &format!("export {name}='{value}'\n"));
        let script = format!("#!/bin/sh\n{told}{more}\nexec {} \"$@\"\n", standin.display());
        write_program(bin.as_std_path(), "talosctl", &script);
        let (sh, home) = (&self.user.world.sh, &self.user.home);
        cmd!(sh, "chown --recursive --no-dereference {UID}:{UID} {home}").quiet().run().unwrap();
    }

    fn start(&self, umask: &str, args: &str) -> std::thread::JoinHandle<Run> {
        let (name, cidr) = self.user.cluster();
        let config = self.user.world.config();
        let args = args.replace("NAME", &format!("--name {name}")).replace("CIDR", &format!("--cidr {cidr}"));
        let task = format!("{} --config {} {args}", support::XTASK, config.display());
        let (rules, home, umask) = (self.rules.clone(), self.user.home.clone(), umask.to_owned());
        let sh = self.user.shell();
        ["over", "press"].iter().for_each(|flag| drop(std::fs::remove_file(rules.join(flag))));
        std::thread::spawn(move || {
            let run = cmd!(sh, "unshare --mount sh -e -c {SESSION} sh {rules} {umask} {task} {home}");
            let output = run.quiet().ignore_status().output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            let stdout = std::fs::read_to_string(home.join("log")).unwrap_or_default() + &stderr;
            Run { code: output.status.code(), stdout, stderr }
        })
    }

    fn run(&self, umask: &str, args: &str) -> Run {
        self.start(umask, args).join().unwrap()
    }
}

fn owner(path: &Utf8Path) -> u32 {
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(path).unwrap())
}

#[test]
fn ctrl_c_at_a_terminal_reaches_talosctl_and_this_program() {
    let origin = Origin::start();
    let person = Person::new("sudoint", &origin);
    person.talosctl("export STANDIN_SLEEP=60");
    let run = person.start("022", "cluster --qemu --no-cache NAME CIDR");
    let (name, _) = person.user.cluster();
    let state = person.user.state().join("s").join(name).join("state.yaml");
    let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !state.exists() {
        assert!(std::time::Instant::now() < until && !run.is_finished(), "{:?}", run.join());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    std::fs::write(person.rules.join("press"), "").unwrap();
    let run = run.join().unwrap();
    assert!(run.code == Some(130) && run.stdout.contains("interrupted: left is"), "{run:?}");
    let down = person.run("022", "cluster-down NAME");
    assert_eq!(down.code, Some(0), "{down:?}");
}

#[test]
fn a_umask_that_shuts_others_out_does_not_shut_the_user_out() {
    let origin = Origin::start();
    let person = Person::new("sudomask", &origin);
    person.talosctl("");
    let made = person.run("077", "cluster --qemu --no-cache NAME CIDR");
    assert_eq!(made.code, Some(0), "{made:?}");
    let (name, _) = person.user.cluster();
    assert_eq!(owner(&person.user.state().join("s").join(name)), 0);
    let status = person.run("077", "cluster-status NAME");
    assert_eq!(status.code, Some(0), "{status:?}");
    let again = person.run("077", "cluster --qemu --no-cache NAME CIDR");
    assert!(again.code == Some(0) && again.stdout.contains("is there already"), "{again:?}");
    let down = person.run("077", "cluster-down NAME");
    assert_eq!((down.code, person.user.state().exists()), (Some(0), false), "{down:?}");
}
