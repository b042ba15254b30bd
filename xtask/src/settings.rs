//! `cache.toml` and the flags, resolved: every check of the settings that needs no engine happens here.

use std::collections::BTreeMap;
use std::net::IpAddr;

use camino::Utf8PathBuf;
use serde::Deserialize;
use toml::Spanned;

use crate::boot::Sources;
use crate::config::{Bind, Config, Credentials, FILE, Mirror, Offline, Password, Preset};
use crate::error::{Error, Result};

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    preset: Option<Spanned<Preset>>,
    prefix: Option<Spanned<String>>,
    image: Option<Spanned<String>>,
    bind: Option<Spanned<String>>,
    offline: Option<Spanned<Switch>>,
    #[serde(default)]
    mirrors: BTreeMap<Spanned<String>, Table>,
    #[serde(default)]
    cluster: ClusterTable,
    #[serde(default)]
    boot: BootTable,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClusterTable {
    address: Option<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct BootTable {
    release: Option<Spanned<String>>,
    factory: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Switch {
    Flag(bool),
    Word(String),
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    upstream: Option<Spanned<String>>,
    port: Option<Spanned<i64>>,
    image: Option<Spanned<String>>,
    enabled: Option<bool>,
    username: Option<Spanned<String>>,
    password_env: Option<Spanned<String>>,
    password_file: Option<Spanned<String>>,
}

/// The built-in mirrors: host, port, upstream. Hosts and ports of the first five are the guide's.
const BUILT_IN: [(&str, u16, &str); 7] = [
    ("docker.io", 5000, "https://registry-1.docker.io"),
    ("k8s.gcr.io", 5001, "https://k8s.gcr.io"),
    ("quay.io", 5002, "https://quay.io"),
    ("gcr.io", 5003, "https://gcr.io"),
    ("ghcr.io", 5004, "https://ghcr.io"),
    ("registry.k8s.io", 5005, "https://registry.k8s.io"),
    ("factory.talos.dev", 5006, "https://factory.talos.dev"),
];
/// How many of them the guide has.
pub const GUIDE: usize = 5;
const IMAGE: &str = "registry:2";
/// What the guide runs quay.io on.
const OLD_IMAGE: &str = "registry:2.5";
const PREFIX: &str = "registry-";

/// The hosts that are built in, in their order; the first five are the guide's.
pub fn hosts() -> impl Iterator<Item = &'static str> {
    BUILT_IN.into_iter().map(|(host, ..)| host)
}

/// Resolves the text of a file of settings.
///
/// # Errors
/// It says something that makes no sense; the error names the file, the line and the fix.
pub fn parse(file: Option<Utf8PathBuf>, text: &str, preset: Option<Preset>) -> Result<Config> {
    let source = Source { file: file.clone().unwrap_or_else(|| FILE.into()), text };
    let parsed: File = toml::from_str(text).map_err(|error| source.syntax(&error))?;
    let mut origins = source.origins(&parsed);
    if preset.is_some() {
        origins.insert("preset".to_owned(), "--preset".to_owned());
    }
    let preset = preset.or(parsed.preset.as_ref().map(|preset| *preset.get_ref())).unwrap_or_default();
    let prefix = source.prefix(parsed.prefix.as_ref())?;
    let bind = source.bind(parsed.bind.as_ref())?;
    let offline = source.offline(parsed.offline.as_ref())?;
    let image = parsed.image.as_ref().map(|image| source.image(image)).transpose()?;
    let mut merge = Merge { source: &source, prefix: &prefix, image, slots: Vec::new(), origins };
    merge.start_from(preset);
    let mut tables: Vec<_> = parsed.mirrors.iter().collect();
    tables.sort_by_key(|(host, _)| host.span().start);
    for (host, table) in tables {
        merge.table(host, table)?;
    }
    let Merge { mut slots, mut origins, .. } = merge;
    slots.retain(|slot| slot.enabled);
    origins.retain(|key, _| {
        let Some(rest) = key.strip_prefix("mirrors.") else { return true };
        slots.iter().any(|slot| rest.strip_prefix(&slot.mirror.host).is_some_and(|rest| rest.starts_with('.')))
    });
    source.distinct(&slots)?;
    source.not_for_everyone(&slots, bind)?;
    let mirrors = slots.into_iter().map(|slot| slot.mirror).collect();
    let cluster_address = parsed.cluster.address.as_ref().map(|address| source.address(address)).transpose()?;
    let boot = source.boot(&parsed.boot)?;
    Ok(Config { file, preset, prefix, bind, offline, mirrors, cluster_address, boot, origins })
}

struct Slot {
    mirror: Mirror,
    enabled: bool,
    at: usize,
}

/// The mirrors while they come together: those of the preset, then the tables of the file.
struct Merge<'a> {
    source: &'a Source<'a>,
    prefix: &'a str,
    image: Option<String>,
    slots: Vec<Slot>,
    origins: BTreeMap<String, String>,
}

impl Merge<'_> {
    fn start_from(&mut self, preset: Preset) {
        let count = if preset == Preset::Guide { GUIDE } else { BUILT_IN.len() };
        for (host, port, upstream) in BUILT_IN.into_iter().take(count) {
            self.add(host, port, upstream.to_owned(), 0);
            if preset == Preset::Guide && host == "quay.io" && self.image.is_none() {
                self.origins.insert("mirrors.quay.io.image".to_owned(), "preset guide".to_owned());
                self.slots.iter_mut().for_each(|slot| {
                    if slot.mirror.host == host {
                        OLD_IMAGE.clone_into(&mut slot.mirror.image);
                    }
                });
            }
        }
    }

    fn add(&mut self, host: &str, port: u16, upstream: String, at: usize) -> usize {
        let image = self.image.clone().unwrap_or_else(|| IMAGE.to_owned());
        if let Some(origin) = self.origins.get("image").cloned() {
            self.origins.insert(format!("mirrors.{host}.image"), origin);
        }
        let name = format!("{}{}", self.prefix, host.replace(':', "-"));
        let mirror = Mirror { host: host.to_owned(), name, image, upstream, port, credentials: None };
        self.slots.push(Slot { mirror, enabled: true, at });
        self.slots.len() - 1
    }

    fn table(&mut self, key: &Spanned<String>, table: &Table) -> Result<()> {
        let (host, at) = (key.get_ref(), key.span().start);
        if !is_host(host) {
            let problem = format!("{host:?} is not the host of a registry");
            let fix = "write the host as an image reference has it: [mirrors.\"ghcr.io\"]";
            return Err(self.source.error(at, problem, fix));
        }
        let position = match self.slots.iter().position(|slot| slot.mirror.host == *host) {
            Some(position) => position,
            None => {
                let Some(port) = &table.port else {
                    let problem = format!("the new mirror {host:?} has no port");
                    return Err(self.source.error(
                        at,
                        problem,
                        "add `port = ` with one that is free, 5007 for instance",
                    ));
                };
                self.origins.insert(format!("mirrors.{host}.upstream"), self.source.line(at));
                self.add(host, self.source.port(port)?, format!("https://{host}"), at)
            }
        };
        let mut note = |name: &str, at: usize| {
            self.origins.insert(format!("mirrors.{host}.{name}"), self.source.line(at));
        };
        let slot = &mut self.slots[position];
        slot.at = at;
        slot.enabled = table.enabled.unwrap_or(true);
        if let Some(port) = &table.port {
            slot.mirror.port = self.source.port(port)?;
            slot.at = port.span().start;
            note("port", slot.at);
        }
        if let Some(upstream) = &table.upstream {
            slot.mirror.upstream = self.source.upstream(upstream)?;
            note("upstream", upstream.span().start);
        }
        if let Some(image) = &table.image {
            slot.mirror.image = self.source.image(image)?;
            note("image", image.span().start);
        }
        let account = [("username", &table.username), ("password_env", &table.password_env)];
        for (name, value) in account.into_iter().chain([("password_file", &table.password_file)]) {
            if let Some(value) = value {
                note(name, value.span().start);
            }
        }
        slot.mirror.credentials = self.source.credentials(host, at, table)?;
        Ok(())
    }
}

/// The text of the file, for errors that name a line of it.
struct Source<'a> {
    file: Utf8PathBuf,
    text: &'a str,
}

impl Source<'_> {
    fn error(&self, at: usize, problem: impl Into<String>, fix: impl Into<String>) -> Error {
        Error::Config { file: self.file.clone(), line: self.number(at), problem: problem.into(), fix: fix.into() }
    }

    fn number(&self, at: usize) -> Option<usize> {
        self.text.get(..at).map(|before| before.matches('\n').count() + 1)
    }

    /// Where a value comes from, as in `cache.toml:3`.
    fn line(&self, at: usize) -> String {
        let name = self.file.file_name().unwrap_or(FILE);
        self.number(at).map_or_else(|| name.to_owned(), |line| format!("{name}:{line}"))
    }

    fn origins(&self, file: &File) -> BTreeMap<String, String> {
        let at = [
            ("preset", file.preset.as_ref().map(Spanned::span)),
            ("prefix", file.prefix.as_ref().map(Spanned::span)),
            ("image", file.image.as_ref().map(Spanned::span)),
            ("bind", file.bind.as_ref().map(Spanned::span)),
            ("offline", file.offline.as_ref().map(Spanned::span)),
            ("cluster.address", file.cluster.address.as_ref().map(Spanned::span)),
            ("boot.release", file.boot.release.as_ref().map(Spanned::span)),
            ("boot.factory", file.boot.factory.as_ref().map(Spanned::span)),
        ];
        at.into_iter().filter_map(|(key, span)| Some((key.to_owned(), self.line(span?.start)))).collect()
    }

    fn syntax(&self, error: &toml::de::Error) -> Error {
        let at = error.span().map_or(0, |span| span.start);
        self.error(at, error.message().trim(), "docs/cache.md lists every key with an example")
    }

    fn prefix(&self, prefix: Option<&Spanned<String>>) -> Result<String> {
        let Some(prefix) = prefix else {
            return Ok(PREFIX.to_owned());
        };
        let text = prefix.get_ref();
        let fits = text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        if fits {
            return Ok(text.clone());
        }
        Err(self.error(
            prefix.span().start,
            format!("{text:?} cannot begin the name of a container"),
            "use letters, digits, `-`, `_` and `.`, a letter or digit first",
        ))
    }

    fn bind(&self, bind: Option<&Spanned<String>>) -> Result<Bind> {
        let Some(bind) = bind else {
            return Ok(Bind::All);
        };
        match bind.get_ref().as_str() {
            "all" => Ok(Bind::All),
            "local" => Ok(Bind::Local),
            text => match text.parse::<IpAddr>() {
                Ok(address) if address.is_unspecified() => Ok(Bind::All),
                Ok(address) => Ok(Bind::Address(address)),
                Err(_) => {
                    let problem = format!("bind: {text:?} is neither \"all\" nor \"local\" nor an address");
                    let fix = "write \"all\", \"local\", or one IP address of this host";
                    Err(self.error(bind.span().start, problem, fix))
                }
            },
        }
    }

    fn offline(&self, offline: Option<&Spanned<Switch>>) -> Result<Offline> {
        let Some(offline) = offline else { return Ok(Offline::Auto) };
        match offline.get_ref() {
            Switch::Flag(true) => Ok(Offline::Always),
            Switch::Flag(false) => Ok(Offline::Never),
            Switch::Word(word) if word == "auto" => Ok(Offline::Auto),
            Switch::Word(word) => {
                let problem = format!("offline: {word:?} is neither \"auto\" nor true or false");
                Err(self.error(offline.span().start, problem, "write \"auto\", true or false"))
            }
        }
    }

    fn image(&self, image: &Spanned<String>) -> Result<String> {
        let text = image.get_ref();
        if text.is_empty() || text.starts_with('-') || text.contains(char::is_whitespace) {
            let problem = format!("{text:?} is no image reference");
            return Err(self.error(image.span().start, problem, "write a reference such as \"registry:2\""));
        }
        Ok(text.clone())
    }

    fn port(&self, port: &Spanned<i64>) -> Result<u16> {
        u16::try_from(*port.get_ref()).ok().filter(|&port| port != 0).ok_or_else(|| {
            self.error(port.span().start, format!("{} is no port", port.get_ref()), "write a number from 1 to 65535")
        })
    }

    fn upstream(&self, upstream: &Spanned<String>) -> Result<String> {
        let text = upstream.get_ref();
        let at = upstream.span().start;
        let Some((scheme, rest)) = text.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https"))
        else {
            let problem = format!("upstream {text:?} has no scheme");
            return Err(self.error(at, problem, format!("write \"https://{text}\", or http:// for one without TLS")));
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains('@') {
            // The address itself would show the password, so it is not repeated here.
            return Err(self.error(at, "an upstream must not hold a user or a password", "write the address alone"));
        }
        if let Some((authority, _)) = rest.split_once(['/', '?', '#']) {
            let problem = format!("upstream {text:?} has a path, which the registry drops in silence");
            return Err(self.error(at, problem, format!("write \"{scheme}://{authority}\"")));
        }
        if !is_host(rest) {
            return Err(self.error(at, format!("upstream {text:?} names no host"), "write \"https://HOST\""));
        }
        Ok(format!("{scheme}://{rest}"))
    }

    fn credentials(&self, host: &str, at: usize, table: &Table) -> Result<Option<Credentials>> {
        let example = "add `username` with one of `password_env` and `password_file`";
        let password = match (&table.password_env, &table.password_file) {
            (Some(_), Some(file)) => {
                let problem = format!("{host} has both password_env and password_file");
                return Err(self.error(file.span().start, problem, "leave one of them out"));
            }
            (Some(name), None) => {
                let fits = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
                if !fits(name.get_ref()) {
                    // What stands there may be the password itself, so it is not repeated.
                    let problem = format!("{host}: password_env is not the name of a variable");
                    return Err(self.error(name.span().start, problem, "name the variable that holds the password"));
                }
                Some(Password::Env(name.get_ref().clone()))
            }
            (None, Some(file)) => {
                let folder = self.file.parent().unwrap_or(camino::Utf8Path::new(""));
                Some(Password::File(folder.join(file.get_ref())))
            }
            (None, None) => None,
        };
        match (&table.username, password) {
            (Some(username), Some(password)) if !username.get_ref().is_empty() => {
                Ok(Some(Credentials { username: username.get_ref().clone(), password }))
            }
            (None, None) => Ok(None),
            (Some(username), Some(_)) => {
                Err(self.error(username.span().start, format!("{host} has an empty username"), example))
            }
            (Some(username), None) => {
                Err(self.error(username.span().start, format!("{host} has a username and no password"), example))
            }
            (None, Some(_)) => Err(self.error(at, format!("{host} has a password and no username"), example)),
        }
    }

    /// Whoever reaches a proxy may read through it what its account may.
    fn not_for_everyone(&self, slots: &[Slot], bind: Bind) -> Result<()> {
        let Some(slot) = slots.iter().find(|slot| bind == Bind::All && slot.mirror.credentials.is_some()) else {
            return Ok(());
        };
        let problem = format!(
            "{} has credentials, and bind is \"all\": everyone on the network could read what that account may",
            slot.mirror.host
        );
        Err(self.error(slot.at, problem, "add `bind = \"local\"`, or one address, at the top of the file"))
    }

    fn address(&self, address: &Spanned<String>) -> Result<String> {
        let text = address.get_ref();
        if text.parse::<IpAddr>().is_ok() || (is_host(text) && !text.contains(':')) {
            return Ok(text.clone());
        }
        let problem = format!("{text:?} is neither a host name nor an address");
        Err(self.error(
            address.span().start,
            problem,
            "write it without scheme and port: the mirrors' own ports are used",
        ))
    }

    fn boot(&self, table: &BootTable) -> Result<Sources> {
        let mut sources = Sources::default();
        let places = [(&table.release, &mut sources.release), (&table.factory, &mut sources.factory)];
        for (given, place) in places {
            let Some(given) = given else { continue };
            let text = given.get_ref().trim_end_matches('/');
            let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
            // A password in an address would end in a command line.
            if rest.is_none_or(|rest| rest.is_empty() || rest.contains(['@', '?', '#', ' '])) {
                let problem = "that is no plain http or https address".to_owned();
                return Err(self.error(given.span().start, problem, "write \"https://HOST/PATH\", without a user"));
            }
            text.clone_into(place);
        }
        Ok(sources)
    }

    fn distinct(&self, slots: &[Slot]) -> Result<()> {
        for (index, slot) in slots.iter().enumerate() {
            for earlier in &slots[..index] {
                let (one, other) = (&earlier.mirror, &slot.mirror);
                let at = slot.at.max(earlier.at);
                if one.port == other.port {
                    let problem = format!("{} and {} are both on port {}", one.host, other.host, one.port);
                    return Err(self.error(at, problem, "give one of them another port"));
                }
                if one.name == other.name {
                    let problem = format!("{} and {} would both be named {}", one.host, other.host, one.name);
                    return Err(self.error(at, problem, "leave one of them out"));
                }
            }
        }
        Ok(())
    }
}

/// Whether a text is a host with an optional port, as it stands at the head of an image reference.
fn is_host(text: &str) -> bool {
    let (name, port) = text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port)));
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    name.split('.').all(label) && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config> {
        super::parse(Some("cache.toml".into()), text, None)
    }

    fn error(text: &str) -> String {
        let error = parse(text).unwrap_err();
        assert_eq!(error.code(), 2);
        assert!(error.fix().is_some());
        error.to_string()
    }

    #[test]
    fn without_a_file_there_are_seven() {
        let config = parse("").unwrap();
        let ports: Vec<u16> = config.mirrors.iter().map(|mirror| mirror.port).collect();
        assert_eq!(ports, [5000, 5001, 5002, 5003, 5004, 5005, 5006]);
        assert_eq!(config.mirrors[0].name, "registry-docker.io");
        assert!(config.mirrors.iter().all(|mirror| mirror.image == "registry:2"));
    }

    #[test]
    fn the_guide_has_its_five_and_its_old_image() {
        let config = parse("preset = \"guide\"").unwrap();
        let images: Vec<&str> = config.mirrors.iter().map(|mirror| mirror.image.as_str()).collect();
        assert_eq!(images, ["registry:2", "registry:2", "registry:2.5", "registry:2", "registry:2"]);
    }

    #[test]
    fn a_table_changes_or_adds_a_mirror() {
        let text = "[mirrors.\"z.example:8443\"]\nport = 6000\n[mirrors.\"docker.io\"]\nport = 6001\n\
                    upstream = \"http://10.0.0.1:5000/\"\n[mirrors.\"quay.io\"]\nenabled = false\n";
        let config = parse(text).unwrap();
        let docker = &config.mirrors[0];
        assert_eq!((docker.port, docker.upstream.as_str()), (6001, "http://10.0.0.1:5000"));
        assert!(!config.mirrors.iter().any(|mirror| mirror.host == "quay.io"));
        let new = config.mirrors.last().unwrap();
        assert_eq!((new.name.as_str(), new.upstream.as_str()), ("registry-z.example-8443", "https://z.example:8443"));
    }

    #[test]
    fn a_mistake_names_file_line_and_what_is_wrong() {
        for (text, line, part) in [
            ("preset = \"x\"", 1, "unknown variant"),
            ("\nport = 1", 2, "unknown field `port`"),
            ("\n[mirrors.\"docker.io\"]\nprot = 1", 3, "unknown field `prot`"),
            ("[mirrors.\"docker.io\"]\nport = 5001", 2, "both on port 5001"),
            ("[mirrors.\"docker.io\"]\nport = 0", 2, "0 is no port"),
            ("[mirrors.\"docker.io\"]\nport = 70000", 2, "70000 is no port"),
            ("[mirrors.\"docker.io\"]\nupstream = \"quay.io\"", 2, "no scheme"),
            ("[mirrors.\"docker.io\"]\nupstream = \"https://a/v2/\"", 2, "has a path"),
            ("[mirrors.\"docker.io\"]\nupstream = \"https://\"", 2, "names no host"),
            ("[mirrors.\"Docker_IO\"]\nport = 1", 1, "not the host of a registry"),
            ("[mirrors.\"new.example\"]", 1, "has no port"),
            ("image = \"-x\"", 1, "no image reference"),
            ("bind = \"everywhere\"", 1, "neither"),
            ("prefix = \"-\"", 1, "cannot begin"),
            ("\noffline = \"maybe\"", 2, "neither"),
            ("image = ", 1, ""),
        ] {
            let error = error(text);
            assert!(error.starts_with(&format!("cache.toml:{line}: ")) && error.contains(part), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_password_in_an_upstream_is_refused_and_not_repeated() {
        let error = error("[mirrors.\"docker.io\"]\nupstream = \"https://me:hunter2@a\"");
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn an_account_needs_both_halves_and_a_proxy_that_not_everyone_reaches() {
        let table = |more: &str| format!("bind = \"local\"\n[mirrors.\"docker.io\"]\n{more}");
        let both = "username = \"me\"\npassword_env = \"TOKEN\"\n";
        let config = parse(&table(both)).unwrap();
        let expected = Credentials { username: "me".into(), password: Password::Env("TOKEN".into()) };
        assert_eq!(config.mirrors[0].credentials, Some(expected));
        for (more, part) in [
            ("username = \"me\"", "no password"),
            ("password_env = \"TOKEN\"", "no username"),
            ("username = \"\"\npassword_env = \"TOKEN\"", "empty username"),
            ("username = \"me\"\npassword_env = \"A\"\npassword_file = \"b\"", "both password_env and"),
        ] {
            assert!(error(&table(more)).contains(part), "{more}");
        }
        let secret = error(&table("username = \"me\"\npassword_env = \"hunter 2\""));
        assert!(secret.contains("not the name of a variable") && !secret.contains("hunter"), "{secret}");
        for bind in ["", "bind = \"0.0.0.0\"\n", "bind = \"::\"\n"] {
            let all = error(&format!("{bind}[mirrors.\"docker.io\"]\n{both}"));
            assert!(all.contains("everyone on the network"), "{all}");
        }
    }

    #[test]
    fn a_password_file_is_looked_for_beside_the_settings() {
        let text = "bind = \"local\"\n[mirrors.\"docker.io\"]\nusername = \"me\"\npassword_file = \"token\"\n";
        let config = super::parse(Some("/etc/x/cache.toml".into()), text, None).unwrap();
        let password = config.mirrors[0].credentials.clone().map(|credentials| credentials.password);
        assert_eq!(password, Some(Password::File("/etc/x/token".into())));
    }

    #[test]
    fn clusters_find_their_mirrors_and_boot_files_where_the_file_says() {
        let text = "[cluster]\naddress = \"cache.example\"\n[boot]\nrelease = \"http://10.0.0.1/talos/\"\n";
        let config = parse(text).unwrap();
        assert_eq!(config.cluster_address.as_deref(), Some("cache.example"));
        assert_eq!(
            (config.boot.release.as_str(), config.boot.factory.as_str()),
            ("http://10.0.0.1/talos", crate::boot::FACTORY)
        );
        for (text, part) in [
            ("[cluster]\naddress = \"http://a\"", "neither a host name nor an address"),
            ("[cluster]\naddress = \"a:5000\"", "neither a host name nor an address"),
            ("[boot]\nrelease = \"ftp://a\"", "no plain http"),
            ("[boot]\nfactory = \"https://me:pw@a\"", "no plain http"),
        ] {
            assert!(error(text).contains(part), "{text}");
        }
    }

    #[test]
    fn each_value_knows_where_it_comes_from() {
        let text = "preset = \"guide\"\n[mirrors.\"gcr.io\"]\nport = 6000\n";
        let config = super::parse(Some("/a/cache.toml".into()), text, None).unwrap();
        let of = |config: &Config, key: &str| config.values().into_iter().find(|value| value[0] == key).unwrap();
        assert_eq!(of(&config, "preset"), ["preset", "guide", "cache.toml:1"]);
        assert_eq!(of(&config, "mirrors.gcr.io.port"), ["mirrors.gcr.io.port", "6000", "cache.toml:3"]);
        assert_eq!(of(&config, "mirrors.quay.io.image")[2], "preset guide");
        assert_eq!(of(&config, "bind"), ["bind", "all", "built in"]);
        let flag = super::parse(None, "image = \"registry:3\"", Some(Preset::Guide)).unwrap();
        assert_eq!(of(&flag, "preset")[2], "--preset");
        assert_eq!(of(&flag, "mirrors.quay.io.image")[1..], ["registry:3", "cache.toml:1"]);
    }
}
