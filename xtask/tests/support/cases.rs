//! What a run of `cache-up` may find: an engine in memory with everything that can be there already.
#![allow(missing_docs, clippy::unwrap_used)]

use crate::caches::{self, Caches};
use crate::fake::{self, Fake, Release, Upstream};
use xtask::docker;
use xtask::exec::{Cmd, Runner};

pub const UPSTREAM: &str = "http://192.0.2.7:5000";
pub const KEPT: &str = "kept";

/// An engine with what a run finds there, and the settings of that run.
pub struct Case {
    pub fake: Fake,
    pub caches: Caches,
    /// Volumes with something in them.
    pub filled: Vec<String>,
}

impl Case {
    pub fn new() -> Self {
        let (fake, caches) = (Fake::new(Release::Docker20), Caches::new("fake-", &fake::ports(3), UPSTREAM));
        Self { fake, caches, filled: Vec::new() }
    }

    /// Both proxies are up, and have cached something.
    pub fn up() -> Self {
        let mut case = Self::new();
        case.caches.up(&case.fake.client()).unwrap();
        for host in caches::HOSTS {
            case.fill(host);
        }
        case
    }

    pub fn fill(&mut self, host: &str) {
        self.docker(&[
            "exec",
            &self.caches.name(host),
            "sh",
            "-c",
            &format!("echo {host} >/var/lib/registry/{KEPT}-{host}"),
        ]);
        self.filled.push(host.to_owned());
    }

    pub fn docker(&self, args: &[&str]) {
        let output = self.fake.client().run(&Cmd::write("docker").args(args.iter().copied())).unwrap();
        assert!(output.ok(), "{args:?}: {output:?}");
    }

    pub fn restart(&self) {
        for host in caches::HOSTS {
            self.docker(&["container", "restart", "-t", "0", &self.caches.name(host)]);
        }
    }

    /// Whatever happened: nothing that was cached is gone.
    pub fn nothing_is_lost(&self, when: &str) {
        assert_eq!(self.fake.lost(), Vec::<String>::new(), "{when}");
    }

    /// A run that meets no fault brings all up, on the volumes that hold what was cached, and leaves nothing to do.
    pub fn converges(&self, when: &str) {
        let done = self.caches.up(&self.fake.client());
        assert!(done.is_ok(), "{when}: {:?}", self.caches.told(&done));
        let client = self.fake.client();
        assert_eq!(self.caches.told(&self.caches.up(&client)), Vec::<String>::new(), "{when}");
        assert_eq!(client.writes(), 0, "{when}");
        self.nothing_is_lost(when);
        for host in &self.filled {
            assert!(self.fake.holds(&self.caches.name(host), format!("{KEPT}-{host}")), "{when}: {host}");
        }
    }
}

/// Nothing is there, not even the image; registry 3 is not assembled where it cannot be pulled.
fn cold() -> Case {
    let case = Case::new();
    Case { caches: case.caches.with("image = \"registry:3\"", ""), ..case }
}

/// What works is to be published elsewhere.
fn drifted() -> Case {
    let case = Case::up();
    Case { caches: case.caches.with("bind = \"local\"", ""), ..case }
}

/// One is stopped, one paused.
fn at_rest() -> Case {
    let case = Case::up();
    case.docker(&["container", "stop", "-t", "5", &case.caches.name("docker.io")]);
    case.docker(&["container", "pause", &case.caches.name("quay.io")]);
    case
}

/// The upstream is gone, and both crash.
fn cut_off() -> Case {
    let case = Case::up();
    case.fake.upstream(UPSTREAM, Upstream::Refuses);
    case.restart();
    case
}

/// The same, after a while: both are offline, and the upstream is back.
fn back_again() -> Case {
    let case = cut_off();
    case.caches.up(&case.fake.client()).unwrap();
    case.fake.upstream(UPSTREAM, Upstream::Answers);
    case
}

/// A record of expiry dates is damaged.
fn damaged() -> Case {
    let case = Case::up();
    case.docker(&["exec", &case.caches.name("quay.io"), "sh", "-c", ": >/var/lib/registry/scheduler-state.json"]);
    case.restart();
    case
}

/// One was made by hand and differs, with its cache in a volume that has no name.
pub fn by_hand() -> Case {
    let mut case = Case::new();
    case.caches = case.caches.adopting();
    let (name, port) = (case.caches.name("docker.io"), format!("{}:5000", case.caches.ports[0]));
    let remote = format!("{}={UPSTREAM}", docker::REMOTE);
    case.docker(&["run", "--detach", "--name", &name, "--publish", &port, "--env", &remote, "registry:2"]);
    case.fill("docker.io");
    case
}

/// One has an account, which goes in before it is started.
fn with_account() -> Case {
    let case = Case::new();
    case.fake.upstream(UPSTREAM, Upstream::AsksForAToken);
    // Any variable that is there will do for a password.
    Case { caches: case.caches.with("bind = \"local\"", "username = \"me\"\npassword_env = \"PATH\""), ..case }
}

type Make = fn() -> Case;

pub const CASES: [(&str, Make); 8] = [
    ("cold", cold),
    ("drifted", drifted),
    ("at rest", at_rest),
    ("cut off", cut_off),
    ("back again", back_again),
    ("damaged", damaged),
    ("by hand", by_hand),
    ("with an account", with_account),
];
