//! A container as the engine describes it, and what differs from the wish; pure.

use std::collections::BTreeMap;

use camino::Utf8Path;
use serde::Deserialize;

use crate::command::without_userinfo;
use crate::config::Mirror;
use crate::credentials;
use crate::docker::{self, DEBUG_PORT, LABEL_MODE, Mode, PORT, REMOTE, STORE};
use crate::error::{Error, Result};
use crate::listen::Listen;

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
    #[serde(default)]
    networks: Option<BTreeMap<String, Network>>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
struct Network {
    #[serde(rename = "IPAddress", default)]
    ip_address: String,
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
    /// How it ended the last time.
    #[serde(default)]
    pub exit_code: i64,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
struct Settings {
    image: String,
    #[serde(default)]
    cmd: Option<Vec<String>>,
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
    #[serde(default)]
    restart_policy: RestartPolicy,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
struct RestartPolicy {
    #[serde(rename = "Name", default)]
    name: String,
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
    #[serde(default)]
    source: String,
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

    /// The same as it may be shown: one that was made by hand may hold a password.
    pub fn shown_upstream(&self) -> Option<String> {
        self.upstream().map(without_userinfo)
    }

    /// Whether it is a registry of ours, or a proxy at all.
    pub fn is_registry(&self) -> bool {
        self.label(LABEL_MODE).is_some() || self.upstream().is_some()
    }

    /// Where its counters are, as `ADDRESS:PORT` of this host; `None` where they are not published.
    pub fn counters(&self) -> Option<String> {
        let bindings = self.network_settings.ports.as_ref()?.get(DEBUG_PORT)?.as_ref()?;
        bindings.first().map(|binding| format!("{}:{}", binding.ip, binding.port))
    }

    /// Every address that it can be reached on: those of its networks, and those that are published, with their port.
    pub fn addresses(&self) -> Vec<String> {
        let settings = &self.network_settings;
        let networks = settings.networks.iter().flat_map(|networks| networks.values());
        let own = networks.map(|network| network.ip_address.clone()).filter(|address| !address.is_empty());
        let published = settings.ports.iter().flat_map(|ports| ports.values()).flatten().flatten();
        own.chain(published.map(|binding| format!("{}:{}", binding.ip, binding.port))).collect()
    }

    /// How it serves, by its label; what carries none is a proxy.
    pub fn mode(&self) -> Mode {
        if self.label(LABEL_MODE) == Some(Mode::Offline.word()) { Mode::Offline } else { Mode::Proxy }
    }

    /// Whether it was told of a file with an account in it.
    pub fn has_credentials(&self) -> bool {
        self.config.cmd.iter().flatten().any(|argument| argument == credentials::PATH)
    }

    /// Where the registry keeps what it caches, when that is not where every image keeps it.
    pub fn other_root(&self) -> Option<&str> {
        let variables = self.config.env.as_ref()?;
        let root = variables
            .iter()
            .find_map(|variable| variable.strip_prefix("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY=")?.into())?;
        Some(root).filter(|root| root.trim_end_matches('/') != STORE)
    }

    /// Where its store is, as its environment and its command say.
    pub fn root(&self) -> Root {
        let variables = self.config.env.as_deref().unwrap_or_default();
        let value = |name: &str| variables.iter().find_map(|variable| variable.strip_prefix(name)?.strip_prefix('='));
        let default = || Root::At(STORE.to_owned());
        if let Some(root) = value("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY") {
            return Root::At(unquoted(root));
        }
        let nested = ["REGISTRY_STORAGE_FILESYSTEM", "REGISTRY_STORAGE"].iter().find_map(|name| value(name));
        match nested {
            Some("filesystem") => return default(),
            Some(settings) => return root_of(settings).map_or(Root::Unknown, Root::At),
            None => {}
        }
        let file = self.config.cmd.iter().flatten().rfind(|argument| argument.starts_with('/'));
        match file.map(String::as_str) {
            Some(credentials::PATH) => default(),
            Some(file) if self.mounted_configuration().is_some() || !IMAGE_CONFIGURATIONS.contains(&file) => {
                Root::In(file.to_owned())
            }
            None if self.mounted_configuration().is_some() => Root::Unknown,
            _ => default(),
        }
    }

    /// Where a folder of it is on the engine's host: the source of the mount that it is in, and the path below that.
    pub fn on_host<'a>(&self, folder: &'a str) -> Option<(&Utf8Path, &'a str)> {
        let (mount, rest) = self.mount_of(folder)?;
        Some((Utf8Path::new(&mount.source), rest)).filter(|(source, _)| !source.as_str().is_empty())
    }

    /// Whether a folder of it is gone when it is removed: in its own layer, or on a volume that nobody has named.
    pub fn takes_along(&self, folder: &str) -> bool {
        self.mount_of(folder).is_none_or(|(mount, _)| is_anonymous(&mount.name))
    }

    fn mount_of<'a>(&self, folder: &'a str) -> Option<(&Mount, &'a str)> {
        let below = |mount: &'_ Mount| {
            let rest = folder.strip_prefix(mount.destination.trim_end_matches('/'))?;
            (rest.is_empty() || rest.starts_with('/')).then(|| rest.trim_start_matches('/'))
        };
        let mounts = self.mounts.iter().filter_map(|mount| Some((mount, below(mount)?)));
        mounts.max_by_key(|(mount, _)| mount.destination.len())
    }

    /// A mount other than its store: its cache, or the configuration that says where that is, may be there.
    pub fn other_mount(&self) -> Option<&str> {
        self.mounts.iter().map(|mount| mount.destination.as_str()).find(|at| *at != STORE)
    }

    /// Where a configuration of its own is mounted, if one is: its upstream is in there.
    pub fn mounted_configuration(&self) -> Option<&str> {
        let told: Vec<&str> = self.config.cmd.iter().flatten().map(String::as_str).collect();
        let holds = |at: &&str| {
            let images = ["/etc/docker", "/etc/distribution"].iter().any(|folder| at.starts_with(folder));
            images
                || told
                    .iter()
                    .any(|path| path.strip_prefix(*at).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
        };
        self.mounts.iter().map(|mount| mount.destination.as_str()).find(holds)
    }

    /// Where it may keep what it has cached, if not in its store, as far as its description tells.
    pub fn kept_elsewhere(&self) -> Option<&str> {
        self.other_root().or(self.other_mount())
    }

    /// The volume that its store is on, where that has no name that anybody gave it, and so goes with the container.
    pub fn anonymous_store(&self) -> Option<&str> {
        self.store().filter(|name| is_anonymous(name))
    }

    /// Where a volume is mounted that has no name which anybody gave it.
    pub fn anonymous_mount(&self) -> Option<&str> {
        let mount = self.mounts.iter().find(|mount| is_anonymous(&mount.name))?;
        Some(&mount.destination)
    }

    /// What makes it lose what it has cached, as phrases: its own settings, or those that its image brings.
    fn unsafe_as_a_cache(&self) -> Vec<String> {
        let variables = self.config.env.as_deref().unwrap_or_default();
        let value = |name: &str| variables.iter().find_map(|variable| variable.strip_prefix(name)?.strip_prefix('='));
        let told = value("REGISTRY_STORAGE_DELETE_ENABLED");
        // The image of registry 3 has it on, and with its other defaults serves blobs of no bytes (distribution#2367).
        let deletes =
            told.map_or(!docker::is_registry_2(self.image()), |told| told.trim_matches(['"', '\'']) != "false");
        let phrase = "it deletes what it has cached: REGISTRY_STORAGE_DELETE_ENABLED is not false";
        if deletes { vec![phrase.to_owned()] } else { Vec::new() }
    }

    /// The name of the volume that its store is on; `None` where it is a folder of the host, or in the container.
    pub fn store(&self) -> Option<&str> {
        let mount = self.mounts.iter().find(|mount| mount.destination == STORE)?;
        Some(mount.name.as_str()).filter(|name| !name.is_empty())
    }

    /// Where its store is on the engine's host.
    pub fn store_path(&self) -> Option<&Utf8Path> {
        let mount = self.mounts.iter().find(|mount| mount.destination == STORE)?;
        Some(Utf8Path::new(&mount.source)).filter(|path| !path.as_str().is_empty())
    }

    /// What differs from the wish, each as one phrase; empty when it is as wished.
    ///
    /// Only what a proxy needs is compared, never the whole inspect output: image defaults are not drift.
    pub fn drift(&self, mirror: &Mirror, listen: &Listen) -> Vec<String> {
        let mut drift = self.guide_drift(mirror, listen);
        let variables = self.config.env.as_deref().unwrap_or_default();
        let missing = docker::safe(mirror).filter(|&wanted| !variables.iter().any(|variable| variable == wanted));
        drift.extend(missing.map(|variable| format!("{variable} is not set")));
        if self.store() != Some(mirror.name.as_str()) {
            drift.push(format!("its store is not the volume {}", mirror.name));
        }
        drift
    }

    /// What differs from what the guide's own command would have made: image, upstream and port.
    pub fn guide_drift(&self, mirror: &Mirror, listen: &Listen) -> Vec<String> {
        let mut drift = Vec::new();
        let mut compare = |what: &str, found: &str, wanted: &str| {
            if found != wanted {
                drift.push(format!("{what} is {found}, wanted {wanted}"));
            }
        };
        compare("image", self.image(), &mirror.image);
        if self.mode() == Mode::Proxy {
            compare("upstream", &self.shown_upstream().unwrap_or_else(|| "none".to_owned()), &mirror.upstream);
        }
        compare("published port", &self.published(), &listen.ports(mirror.port));
        compare("restart policy", &self.host_config.restart_policy.name, "always");
        if self.lost_its_network() {
            drift.push("its engine left it without a network".to_owned());
        }
        if self.label(docker::LABEL_PREFIX).is_none() {
            drift.extend(self.unsafe_as_a_cache());
        }
        if self.mode() == Mode::Proxy && self.has_credentials() != mirror.credentials.is_some() {
            drift.push(if self.has_credentials() {
                "it has an account, and none is configured".to_owned()
            } else {
                "it has no account, and one is configured".to_owned()
            });
        }
        drift
    }

    /// Whether its engine took its network away: newer ones do where they cannot publish a port, and start it without
    /// one the next time (seen at API 1.56).
    pub fn lost_its_network(&self) -> bool {
        self.network_settings.networks.as_ref().is_some_and(BTreeMap::is_empty)
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

/// Where a registry's store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Root {
    /// In this folder of its container.
    At(String),
    /// Where this file in its container says.
    In(String),
    /// Not in its file system, as far as can be told.
    Unknown,
}

/// The configurations that images bring; all keep the store in the same place.
const IMAGE_CONFIGURATIONS: [&str; 2] = ["/etc/docker/registry/config.yml", "/etc/distribution/config.yml"];

/// The folder of the store in settings of a registry, which are YAML; `None` where they name none, or several.
pub fn root_of(settings: &str) -> Option<String> {
    let lines = settings.lines().filter(|line| !line.trim_start().starts_with('#'));
    let mut values = lines.filter_map(|line| line.split_once("rootdirectory:")).map(|(_, value)| value);
    let value = values.next()?;
    let end = value.find([',', '}', '#']).unwrap_or(value.len());
    Some(unquoted(&value[..end])).filter(|root| root.starts_with('/') && values.next().is_none())
}

fn unquoted(text: &str) -> String {
    let text = text.trim();
    let inner = ['"', '\''].iter().find_map(|quote| text.strip_prefix(*quote)?.strip_suffix(*quote));
    inner.unwrap_or(text).to_owned()
}

/// Whether the engine gave a volume its name.
fn is_anonymous(name: &str) -> bool {
    name.len() == 64 && name.chars().all(|c| c.is_ascii_hexdigit())
}

fn address(ip: &str, port: &str) -> String {
    if ip.is_empty() || ip == "0.0.0.0" { port.to_owned() } else { format!("{ip} {port}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::LABEL_PREFIX;
    use serde_json::json;

    fn container(change: impl Fn(&mut serde_json::Value)) -> Container {
        let mut env: Vec<String> = vec!["PATH=/bin".into()];
        env.extend(docker::environment(&Mirror::docker_io(), Mode::Proxy));
        let mut value = json!([{
            "Id": "abc", "Name": "/registry-docker.io",
            "State": {"Status": "running", "Running": true, "Error": ""},
            "Config": {"Image": "registry:2", "Env": env, "Labels": {LABEL_PREFIX: "registry-"}},
            "HostConfig": {
                "PortBindings": {"5000/tcp": [{"HostIp": "", "HostPort": "5000"}]},
                "RestartPolicy": {"Name": "always"},
            },
            "Mounts": [{"Type": "volume", "Name": "registry-docker.io", "Destination": "/var/lib/registry"}]
        }]);
        change(&mut value[0]);
        containers(value.to_string().as_bytes()).unwrap().remove(0)
    }

    #[test]
    fn what_was_created_as_wished_has_no_drift() {
        assert_eq!(container(|_| ()).drift(&Mirror::docker_io(), &Listen::default()), Vec::<String>::new());
    }

    #[test]
    fn drift_says_what_differs() {
        let cases: [(&str, serde_json::Value, &str); 5] = [
            ("/HostConfig/RestartPolicy/Name", json!("no"), "restart policy is no, wanted always"),
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
            assert_eq!(found.drift(&Mirror::docker_io(), &Listen::default()), [expected]);
        }
    }

    #[test]
    fn what_lost_its_network_is_not_as_wished() {
        let found = container(|json| json["NetworkSettings"] = json!({"Networks": {}, "Ports": {}}));
        assert_eq!(found.drift(&Mirror::docker_io(), &Listen::default()), ["its engine left it without a network"]);
        let found = container(|json| json["NetworkSettings"] = json!({"Networks": {"bridge": {}}, "Ports": {}}));
        assert!(found.drift(&Mirror::docker_io(), &Listen::default()).is_empty());
    }

    #[test]
    fn what_deletes_its_cache_is_not_what_was_wished_for() {
        let by_hand = |image: &str, more: &str| {
            let made = container(|json| {
                json["Config"]["Labels"] = json!({});
                json["Config"]["Image"] = json!(image);
                json["Config"]["Env"] = json!(["REGISTRY_PROXY_REMOTEURL=https://registry-1.docker.io", more]);
            });
            let mirror = Mirror { image: image.to_owned(), ..Mirror::docker_io() };
            made.guide_drift(&mirror, &Listen::default()).len()
        };
        assert_eq!(by_hand("registry:2", "A=b"), 0);
        assert_eq!(by_hand("registry:2", "REGISTRY_STORAGE_DELETE_ENABLED=true"), 1);
        assert_eq!(by_hand("registry:3", "A=b"), 1);
        assert_eq!(by_hand("registry:3", "REGISTRY_STORAGE_DELETE_ENABLED=false"), 0);
    }

    #[test]
    fn what_the_guide_made_matches_the_guide_and_not_the_whole_wish() {
        let made = container(|json| {
            json["Config"]["Env"] = json!(["REGISTRY_PROXY_REMOTEURL=https://registry-1.docker.io"]);
            json["Mounts"][0]["Name"] = json!("0123abcd");
        });
        assert!(made.guide_drift(&Mirror::docker_io(), &Listen::default()).is_empty());
        assert!(!made.drift(&Mirror::docker_io(), &Listen::default()).is_empty());
    }

    #[test]
    fn a_store_is_where_the_settings_say() {
        let root = |variable: &str, cmd: &[&str], mount: &str| {
            container(|json| {
                json["Config"]["Env"] = json!([variable]);
                json["Config"]["Cmd"] = json!(cmd);
                json["Mounts"][0]["Destination"] = json!(mount);
            })
            .root()
        };
        let at = |folder: &str| Root::At(folder.to_owned());
        let image = ["/etc/docker/registry/config.yml"];
        assert_eq!(root("A=b", &image, STORE), at(STORE));
        assert_eq!(root("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY=/data", &image, STORE), at("/data"));
        assert_eq!(root("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY=\"/da ta\"", &image, STORE), at("/da ta"));
        assert_eq!(
            root("REGISTRY_STORAGE_FILESYSTEM={rootdirectory: /data, maxthreads: 9}", &image, STORE),
            at("/data")
        );
        assert_eq!(root("REGISTRY_STORAGE={filesystem: {rootdirectory: '/data'}}", &image, STORE), at("/data"));
        assert_eq!(root("REGISTRY_STORAGE=s3", &image, STORE), Root::Unknown);
        assert_eq!(root("A=b", &image, "/etc/docker/registry"), Root::In(image[0].to_owned()));
        assert_eq!(root("A=b", &["serve", "/my.yml"], STORE), Root::In("/my.yml".to_owned()));
        assert_eq!(root("A=b", &[credentials::PATH], STORE), at(STORE));
        assert_eq!(root_of("#    rootdirectory: /a\n    rootdirectory: /b # here\n"), Some("/b".to_owned()));
        assert_eq!((root_of("rootdirectory: /a\nrootdirectory: /b"), root_of("s3:")), (None, None));
    }

    #[test]
    fn a_folder_is_found_in_the_innermost_mount() {
        let made = container(|json| {
            let (a, b) = ("0123456789abcdef".repeat(4), "named");
            json["Mounts"] = json!([
                {"Name": a, "Source": "/v/a", "Destination": "/data"},
                {"Name": b, "Source": "/v/b", "Destination": "/data/deep/"},
            ]);
        });
        assert_eq!(made.on_host("/data"), Some((Utf8Path::new("/v/a"), "")));
        assert_eq!(made.on_host("/data/deep/x"), Some((Utf8Path::new("/v/b"), "x")));
        assert_eq!(made.on_host("/database"), None);
        let gone = ["/data", "/data/deep", "/database"].map(|folder| made.takes_along(folder));
        assert_eq!(gone, [true, false, true]);
    }

    #[test]
    fn garbage_is_an_error_and_not_an_absent_container() {
        assert!(containers(b"[]").unwrap().is_empty());
        assert!(containers(b"oops").is_err());
    }
}
