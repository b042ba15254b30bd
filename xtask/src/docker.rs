//! The engine's client, both ways and pure: a wish becomes arguments, JSON becomes a model.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::config::{Bind, Mirror};
use crate::error::{Error, Result};
use crate::exec::Cmd;

/// The label that says a container or a volume is ours; its value is the prefix of the names.
pub const LABEL_PREFIX: &str = "talos-cache.prefix";
/// The label that holds the host of a mirror.
pub const LABEL_HOST: &str = "talos-cache.host";
/// The label that holds which run created a container, so that a run can take back what it made.
pub const LABEL_RUN: &str = "talos-cache.run";

/// The label that holds how it serves: `proxy` or `offline`.
pub const LABEL_MODE: &str = "talos-cache.mode";

const STORE: &str = "/var/lib/registry";
const STATE: &str = "scheduler-state.json";
const REMOTE: &str = "REGISTRY_PROXY_REMOTEURL";
/// The registry's own port, inside of the container.
const PORT: &str = "5000/tcp";
const DEBUG_PORT: &str = "5001/tcp";

/// Settings that make any registry from 2.5 to 3.x a safe cache, whatever its image defaults are.
///
/// Nothing expires and nothing is deleted (registry 3 deletes after seven days, and then serves blobs of no bytes:
/// distribution#2367), the descriptor cache cannot go stale, and no trace exporter fills the log.
const SAFE: [&str; 6] = [
    "REGISTRY_HTTP_DEBUG_ADDR=:5001",
    "REGISTRY_LOG_LEVEL=info",
    "REGISTRY_PROXY_TTL=0",
    "REGISTRY_STORAGE_DELETE_ENABLED=false",
    "REGISTRY_STORAGE_CACHE_BLOBDESCRIPTOR=",
    "OTEL_TRACES_EXPORTER=none",
];

fn docker(cmd: Cmd, args: &[&str]) -> Cmd {
    cmd.args(args.iter().copied())
}

/// All containers, a name a line; its success is what tells an engine that is down from one that has none.
pub fn list() -> Cmd {
    docker(Cmd::read("docker"), &["container", "ls", "--all", "--format", "{{.Names}}\t{{.Ports}}"])
}

/// One inspect of all the names; it ends with 1 when one is absent, and still prints the others.
pub fn inspect(names: &[String]) -> Cmd {
    docker(Cmd::read("docker"), &["container", "inspect"]).args(names)
}

/// The engine's API version and release, separated by a blank.
pub fn version() -> Cmd {
    docker(Cmd::read("docker"), &["version", "--format", "{{.Server.APIVersion}} {{.Server.Version}}"])
}

/// The volumes that carry our label for this prefix, a name a line.
pub fn our_volumes(prefix: &str) -> Cmd {
    docker(Cmd::read("docker"), &["volume", "ls", "--quiet", "--filter"]).arg(format!("label={LABEL_PREFIX}={prefix}"))
}

/// The containers that carry our label for this prefix, a name a line.
pub fn our_containers(prefix: &str) -> Cmd {
    docker(Cmd::read("docker"), &["container", "ls", "--all", "--format", "{{.Names}}", "--filter"])
        .arg(format!("label={LABEL_PREFIX}={prefix}"))
}

/// The last lines a container wrote.
pub fn logs(name: &str, lines: usize) -> Cmd {
    docker(Cmd::read("docker"), &["logs", "--tail"]).arg(lines.to_string()).arg(name)
}

/// All that a container wrote since a time, as the engine prints times.
pub fn logs_since(name: &str, since: &str) -> Cmd {
    docker(Cmd::read("docker"), &["logs", "--since", since, name])
}

/// A container's lines as they come.
pub fn follow(name: &str, lines: &str, follow: bool) -> Cmd {
    let cmd = docker(Cmd::read("docker"), &["logs", "--tail", lines]);
    let cmd = if follow { cmd.arg("--follow") } else { cmd };
    cmd.arg(name)
}

/// Starts containers that exist.
pub fn start(name: &str) -> Cmd {
    docker(Cmd::write("docker"), &["container", "start", name])
}

/// Lets a paused container go on.
pub fn unpause(name: &str) -> Cmd {
    docker(Cmd::write("docker"), &["container", "unpause", name])
}

/// Moves a registry's record of expiry dates aside, in its store, by a container of the same image.
///
/// The record has no use here, since nothing expires, and a damaged one makes every registry panic when it starts.
pub fn move_state_aside(mirror: &Mirror) -> Cmd {
    let script = format!("cd {STORE} && mv {STATE} {STATE}.damaged-$(date +%s)");
    docker(Cmd::write("docker"), &["run", "--rm", "--volumes-from", &mirror.name, "--entrypoint", "sh", &mirror.image])
        .args(["-c", &script])
}

/// Starts a container again, whatever it is doing.
pub fn restart(name: &str) -> Cmd {
    docker(Cmd::write("docker"), &["container", "restart", "-t", "0", name])
}

/// Stops containers and keeps them.
pub fn stop(names: &[String]) -> Cmd {
    docker(Cmd::write("docker"), &["container", "stop", "-t", "5"]).args(names)
}

/// Removes containers with their anonymous volumes; named volumes stay.
pub fn remove(names: &[String]) -> Cmd {
    docker(Cmd::write("docker"), &["container", "rm", "--force", "--volumes"]).args(names)
}

/// Removes volumes.
pub fn remove_volumes(names: &[String]) -> Cmd {
    docker(Cmd::write("docker"), &["volume", "rm"]).args(names)
}

/// How a registry serves its volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// As a pull-through cache of its upstream.
    Proxy,
    /// As a plain read-only registry: what is cached, without asking anyone.
    Offline,
}

impl Mode {
    /// The word for it, as the label has it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::Offline => "offline",
        }
    }
}

/// Starts the registry a second time inside of a running container, as a proxy on a port that nobody asks.
///
/// It is the very check that a proxy makes of its upstream when it starts, from the same network and with the same
/// trust: it listens when the upstream answered, and panics when it did not. It ends by itself after five seconds.
pub fn probe_upstream(mirror: &Mirror) -> Cmd {
    let serve = "for c in /etc/distribution/config.yml /etc/docker/registry/config.yml; do \
                 [ ! -f $c ] || exec timeout 5 registry serve $c; done";
    docker(Cmd::read("docker"), &["exec", "--env", &format!("{REMOTE}={}", mirror.upstream)])
        .args(["--env", "REGISTRY_HTTP_ADDR=127.0.0.1:5999", "--env", "REGISTRY_HTTP_DEBUG_ADDR=127.0.0.1:5998"])
        .args(["--env", "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY=/tmp/upstream-probe", &mirror.name])
        .args(["sh", "-c", serve])
}

/// Whether a line of [`probe_upstream`] says that the upstream answered.
pub fn upstream_answered(line: &str) -> bool {
    line.contains("msg=\"listening on ")
}

/// Creates and starts a proxy: the guide's command, with a named volume, a bound on its log and safe settings.
pub fn run(mirror: &Mirror, mode: Mode, prefix: &str, bind: &Bind, run: &str) -> Cmd {
    let host_port = match bind {
        Bind::All => format!("{}:5000", mirror.port),
        Bind::Address(address) if address.is_ipv6() => format!("[{address}]:{}:5000", mirror.port),
        Bind::Address(address) => format!("{address}:{}:5000", mirror.port),
    };
    let mount = format!("type=volume,src={},dst={STORE},volume-label={LABEL_PREFIX}={prefix}", mirror.name);
    docker(Cmd::write("docker"), &["run", "--detach", "--restart", "always", "--name", &mirror.name])
        // The counters are for this host alone: the same port has a profiler.
        .args(["--publish", &host_port, "--publish", "127.0.0.1::5001", "--mount", &mount])
        .args(["--label", &format!("{LABEL_PREFIX}={prefix}"), "--label", &format!("{LABEL_HOST}={}", mirror.host)])
        .args(["--label", &format!("{LABEL_RUN}={run}"), "--label", &format!("{LABEL_MODE}={}", mode.word())])
        .args(["--log-driver", "json-file", "--log-opt", "max-size=16m", "--log-opt", "max-file=4"])
        .args(environment(mirror, mode).into_iter().flat_map(|variable| ["--env".to_owned(), variable]))
        .arg(&mirror.image)
}

fn environment(mirror: &Mirror, mode: Mode) -> Vec<String> {
    // A read-only registry is told so by this one form: the other spellings make every version panic.
    let mode = match mode {
        Mode::Proxy => format!("{REMOTE}={}", mirror.upstream),
        Mode::Offline => "REGISTRY_STORAGE_MAINTENANCE_READONLY={\"enabled\":true}".to_owned(),
    };
    std::iter::once(mode).chain(SAFE.iter().map(|&variable| variable.to_owned())).collect()
}

/// A container as the engine describes it, as far as it matters here.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
pub struct Container {
    /// Its identity.
    pub id: String,
    name: String,
    /// What it is doing.
    pub state: State,
    config: Settings,
    host_config: HostConfig,
    #[serde(default)]
    mounts: Vec<Mount>,
    #[serde(default)]
    network_settings: NetworkSettings,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
struct NetworkSettings {
    #[serde(default)]
    ports: Option<BTreeMap<String, Option<Vec<Binding>>>>,
}

/// What a container is doing.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
pub struct State {
    /// `created`, `running`, `paused`, `restarting`, `removing`, `exited` or `dead`.
    pub status: String,
    /// Why it could not be started, a port clash for instance.
    #[serde(default)]
    pub error: String,
    /// When it was last started (RFC 3339).
    #[serde(default)]
    pub started_at: String,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
struct Settings {
    image: String,
    #[serde(default)]
    env: Option<Vec<String>>,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
struct HostConfig {
    #[serde(default)]
    port_bindings: Option<BTreeMap<String, Option<Vec<Binding>>>>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
struct Binding {
    #[serde(rename = "HostIp", default)]
    ip: String,
    #[serde(rename = "HostPort", default)]
    port: String,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
struct Mount {
    #[serde(default)]
    name: String,
    destination: String,
}

/// Reads what `docker container inspect` printed.
///
/// # Errors
/// It is not the JSON that an engine prints.
pub fn containers(json: &[u8]) -> Result<Vec<Container>> {
    serde_json::from_slice(json)
        .map_err(|error| Error::Answer { command: "docker container inspect".to_owned(), problem: error.to_string() })
}

impl Container {
    /// Its name, without the engine's leading slash.
    pub fn name(&self) -> &str {
        self.name.trim_start_matches('/')
    }

    /// A label's value.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.config.labels.as_ref()?.get(name).map(String::as_str)
    }

    /// The image it was created from, as it was written then.
    pub fn image(&self) -> &str {
        &self.config.image
    }

    /// The upstream it was created for; `None` where it is no proxy.
    pub fn upstream(&self) -> Option<&str> {
        let variables = self.config.env.as_ref()?;
        variables.iter().find_map(|variable| variable.strip_prefix(REMOTE)?.strip_prefix('='))
    }

    /// Where its counters are, as `ADDRESS:PORT` of this host; `None` where they are not published.
    pub fn counters(&self) -> Option<String> {
        let bindings = self.network_settings.ports.as_ref()?.get(DEBUG_PORT)?.as_ref()?;
        bindings.first().map(|binding| format!("{}:{}", binding.ip, binding.port))
    }

    /// How it serves, by its label; what carries none is a proxy.
    pub fn mode(&self) -> Mode {
        if self.label(LABEL_MODE) == Some(Mode::Offline.word()) { Mode::Offline } else { Mode::Proxy }
    }

    /// What differs from the wish, each as one phrase; empty when it is as wished.
    ///
    /// Only what a proxy needs is compared, never the whole inspect output: image defaults are not drift.
    pub fn drift(&self, mirror: &Mirror, bind: &Bind) -> Vec<String> {
        let mut drift = self.guide_drift(mirror, bind);
        let variables = self.config.env.as_deref().unwrap_or_default();
        let missing = SAFE.iter().filter(|&&wanted| !variables.iter().any(|variable| variable == wanted));
        drift.extend(missing.map(|variable| format!("{variable} is not set")));
        if !self.mounts.iter().any(|mount| mount.destination == STORE && mount.name == mirror.name) {
            drift.push(format!("its store is not the volume {}", mirror.name));
        }
        drift
    }

    /// What differs from what the guide's own command would have made: image, upstream and port.
    pub fn guide_drift(&self, mirror: &Mirror, bind: &Bind) -> Vec<String> {
        let mut drift = Vec::new();
        let mut compare = |what: &str, found: &str, wanted: &str| {
            if found != wanted {
                drift.push(format!("{what} is {found}, wanted {wanted}"));
            }
        };
        compare("image", self.image(), &mirror.image);
        if self.mode() == Mode::Proxy {
            compare("upstream", self.upstream().unwrap_or("none"), &mirror.upstream);
        }
        compare("published port", &self.published(), &wanted_binding(mirror, bind));
        drift
    }

    /// Whether a port of this host is published for it, running or not.
    pub fn publishes(&self, port: u16) -> bool {
        let bindings = self.host_config.port_bindings.as_ref().and_then(|all| all.get(PORT)?.as_ref());
        bindings.into_iter().flatten().any(|binding| binding.port == port.to_string())
    }

    fn published(&self) -> String {
        let bindings = self.host_config.port_bindings.as_ref().and_then(|all| all.get(PORT)?.as_ref());
        let mut all: Vec<String> =
            bindings.into_iter().flatten().map(|binding| address(&binding.ip, &binding.port)).collect();
        all.sort();
        if all.is_empty() { "none".to_owned() } else { all.join(", ") }
    }
}

fn address(ip: &str, port: &str) -> String {
    if ip.is_empty() || ip == "0.0.0.0" { port.to_owned() } else { format!("{ip} {port}") }
}

fn wanted_binding(mirror: &Mirror, bind: &Bind) -> String {
    match bind {
        Bind::All => mirror.port.to_string(),
        Bind::Address(ip) => address(&ip.to_string(), &mirror.port.to_string()),
    }
}

/// The host ports in a line of `docker container ls`, as in `0.0.0.0:5000->5000/tcp, :::5000->5000/tcp`.
pub fn host_ports(ports: &str) -> Vec<u16> {
    let published = ports.split(", ").filter_map(|one| one.split_once("->"));
    let mut all: Vec<u16> = published.filter_map(|(host, _)| host.rsplit(':').next()?.parse().ok()).collect();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn mirror() -> Mirror {
        Mirror {
            host: "docker.io".into(),
            name: "registry-docker.io".into(),
            image: "registry:2".into(),
            upstream: "https://registry-1.docker.io".into(),
            port: 5000,
        }
    }

    fn container(change: impl Fn(&mut serde_json::Value)) -> Container {
        let mut env: Vec<String> = vec!["PATH=/bin".into()];
        env.extend(environment(&mirror(), Mode::Proxy));
        let mut value = json!([{
            "Id": "abc", "Name": "/registry-docker.io",
            "State": {"Status": "running", "Running": true, "Error": ""},
            "Config": {"Image": "registry:2", "Env": env, "Labels": {LABEL_PREFIX: "registry-"}},
            "HostConfig": {"PortBindings": {"5000/tcp": [{"HostIp": "", "HostPort": "5000"}]}},
            "Mounts": [{"Type": "volume", "Name": "registry-docker.io", "Destination": "/var/lib/registry"}]
        }]);
        change(&mut value[0]);
        containers(value.to_string().as_bytes()).unwrap().remove(0)
    }

    #[test]
    fn what_was_created_as_wished_has_no_drift() {
        assert_eq!(container(|_| ()).drift(&mirror(), &Bind::All), Vec::<String>::new());
    }

    #[test]
    fn drift_says_what_differs() {
        let cases: [(&str, serde_json::Value, &str); 4] = [
            ("/Config/Image", json!("registry:3"), "image is registry:3, wanted registry:2"),
            ("/HostConfig/PortBindings/5000~1tcp/0/HostPort", json!("6000"), "published port is 6000, wanted 5000"),
            (
                "/HostConfig/PortBindings/5000~1tcp/0/HostIp",
                json!("127.0.0.1"),
                "published port is 127.0.0.1 5000, wanted 5000",
            ),
            ("/Mounts/0/Name", json!("other"), "its store is not the volume registry-docker.io"),
        ];
        for (pointer, value, expected) in cases {
            let found = container(|json| *json.pointer_mut(pointer).unwrap() = value.clone());
            assert_eq!(found.drift(&mirror(), &Bind::All), [expected]);
        }
    }

    #[test]
    fn what_the_guide_made_matches_the_guide_and_not_the_whole_wish() {
        let made = container(|json| {
            json["Config"]["Env"] = json!(["REGISTRY_PROXY_REMOTEURL=https://registry-1.docker.io"]);
            json["Mounts"][0]["Name"] = json!("0123abcd");
        });
        assert!(made.guide_drift(&mirror(), &Bind::All).is_empty());
        assert!(!made.drift(&mirror(), &Bind::All).is_empty());
    }

    #[test]
    fn the_command_is_the_guides_with_a_named_volume() {
        let shell = run(&mirror(), Mode::Proxy, "registry-", &Bind::All, "r1").shell();
        for part in [
            "docker run --detach --restart always --name registry-docker.io --publish 5000:5000 ",
            "src=registry-docker.io,dst=/var/lib/registry",
            "--env REGISTRY_PROXY_REMOTEURL=https://registry-1.docker.io ",
        ] {
            assert!(shell.contains(part), "{part} in {shell}");
        }
        assert!(shell.ends_with(" registry:2"), "{shell}");
    }

    #[test]
    fn ports_of_a_listing_are_read() {
        assert_eq!(host_ports("0.0.0.0:5000->5000/tcp, :::5000->5000/tcp"), [5000]);
        assert_eq!(host_ports("5000/tcp"), Vec::<u16>::new());
    }

    #[test]
    fn garbage_is_an_error_and_not_an_absent_container() {
        assert!(containers(b"[]").unwrap().is_empty());
        assert!(containers(b"oops").is_err());
    }
}
