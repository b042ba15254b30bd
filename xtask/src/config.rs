//! `cache.toml` and the flags, resolved to the settings in force: every check that needs no engine happens here.

use std::collections::BTreeMap;
use std::net::IpAddr;

use camino::{Utf8Path, Utf8PathBuf};
use serde::Deserialize;
use toml::Spanned;

use crate::error::{Error, Result};

/// The name under which a file of settings is looked for at the workspace root.
pub const FILE: &str = "cache.toml";

/// Which set of mirrors to start from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, serde::Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// What every Talos since 0.7 pulls from: the guide's five, registry.k8s.io and factory.talos.dev.
    #[default]
    Default,
    /// The guide to the letter: its five, quay.io on `registry:2.5`.
    Guide,
}

/// The addresses a proxy is published on.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Bind {
    /// Every interface, as in the guide.
    #[default]
    All,
    /// One address.
    Address(IpAddr),
}

/// What to do about an upstream that is out of reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Offline {
    /// Serve what is cached until it answers again.
    #[default]
    Auto,
    /// Serve what is cached, whatever is within reach.
    Always,
    /// Call it an error.
    Never,
}

/// A pull-through proxy as it is wished for.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Mirror {
    /// The registry host that nodes ask for, `docker.io` for instance.
    pub host: String,
    /// The name of the container and of the volume.
    pub name: String,
    /// The registry image.
    pub image: String,
    /// The address of the registry behind it, without a path.
    pub upstream: String,
    /// The port on this host.
    pub port: u16,
}

/// The settings in force.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Config {
    /// The file they come from, where there is one.
    pub file: Option<Utf8PathBuf>,
    /// The set that they start from.
    pub preset: Preset,
    /// What the names of containers and volumes begin with.
    pub prefix: String,
    /// Where the proxies are published.
    pub bind: Bind,
    /// What to do about an upstream that is out of reach.
    pub offline: Offline,
    /// The proxies, in the order of the preset and then of the file.
    pub mirrors: Vec<Mirror>,
}

/// What the command line says of the settings.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--config FILE`.
    pub file: Option<Utf8PathBuf>,
    /// `--preset NAME`.
    pub preset: Option<Preset>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    preset: Option<Preset>,
    prefix: Option<Spanned<String>>,
    image: Option<Spanned<String>>,
    bind: Option<Spanned<String>>,
    offline: Option<Spanned<Switch>>,
    #[serde(default)]
    mirrors: BTreeMap<Spanned<String>, Table>,
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
const IMAGE: &str = "registry:2";
const PREFIX: &str = "registry-";

impl Preset {
    fn mirrors(self) -> impl Iterator<Item = (&'static str, u16, &'static str, &'static str)> {
        let count = if self == Self::Guide { 5 } else { BUILT_IN.len() };
        BUILT_IN.into_iter().take(count).map(move |(host, port, upstream)| {
            let old = self == Self::Guide && host == "quay.io";
            (host, port, upstream, if old { "registry:2.5" } else { IMAGE })
        })
    }
}

impl Config {
    /// Reads the settings: the file named on the command line, else `cache.toml` at the root if it is there.
    ///
    /// # Errors
    /// The file cannot be read, or says something that makes no sense; the error names the file, the line and the fix.
    pub fn load(root: &Utf8Path, overrides: &Overrides) -> Result<Self> {
        let named = overrides.file.clone();
        let file = named.or_else(|| Some(root.join(FILE)).filter(|file| file.exists()));
        let text = match &file {
            Some(file) => std::fs::read_to_string(file).map_err(|source| Error::Config {
                file: file.clone(),
                line: None,
                problem: format!("cannot read it: {source}"),
                fix: "name a file that is there with --config, or leave the flag out".to_owned(),
            })?,
            None => String::new(),
        };
        Self::parse(file, &text, overrides.preset)
    }

    fn parse(file: Option<Utf8PathBuf>, text: &str, preset: Option<Preset>) -> Result<Self> {
        let source = Source { file: file.clone().unwrap_or_else(|| FILE.into()), text };
        let parsed: File = toml::from_str(text).map_err(|error| source.syntax(&error))?;
        let preset = preset.or(parsed.preset).unwrap_or_default();
        let prefix = source.prefix(parsed.prefix.as_ref())?;
        let bind = source.bind(parsed.bind.as_ref())?;
        let offline = source.offline(parsed.offline.as_ref())?;
        let image = parsed.image.as_ref().map(|image| source.image(image)).transpose()?;
        let mut slots: Vec<Slot> = preset
            .mirrors()
            .map(|(host, port, upstream, default)| Slot {
                mirror: Mirror {
                    host: host.to_owned(),
                    name: format!("{prefix}{host}"),
                    image: image.clone().unwrap_or_else(|| default.to_owned()),
                    upstream: upstream.to_owned(),
                    port,
                },
                enabled: true,
                at: 0,
            })
            .collect();
        let mut tables: Vec<_> = parsed.mirrors.iter().collect();
        tables.sort_by_key(|(host, _)| host.span().start);
        for (host, table) in tables {
            source.merge(&mut slots, &prefix, image.as_deref(), host, table)?;
        }
        let slots: Vec<Slot> = slots.into_iter().filter(|slot| slot.enabled).collect();
        source.distinct(&slots)?;
        let mirrors = slots.into_iter().map(|slot| slot.mirror).collect();
        Ok(Self { file, preset, prefix, bind, offline, mirrors })
    }

    /// The mirrors of the hosts named, or all of them where none is named.
    ///
    /// # Errors
    /// A host that is not configured.
    pub fn select(&self, hosts: &[String]) -> Result<Vec<Mirror>> {
        let known = || self.mirrors.iter().map(|mirror| mirror.host.as_str()).collect::<Vec<_>>().join(", ");
        if let Some(unknown) = hosts.iter().find(|host| !self.mirrors.iter().any(|mirror| mirror.host == **host)) {
            return Err(Error::Usage {
                problem: format!("no mirror is configured for {unknown:?}"),
                fix: format!("name one of {}, or add a table [mirrors.{unknown:?}] to {FILE}", known()),
            });
        }
        let wanted = |mirror: &&Mirror| hosts.is_empty() || hosts.contains(&mirror.host);
        Ok(self.mirrors.iter().filter(wanted).cloned().collect())
    }
}

struct Slot {
    mirror: Mirror,
    enabled: bool,
    at: usize,
}

/// The text of the file, for errors that name a line of it.
struct Source<'a> {
    file: Utf8PathBuf,
    text: &'a str,
}

impl Source<'_> {
    fn error(&self, at: usize, problem: impl Into<String>, fix: impl Into<String>) -> Error {
        let line = self.text.get(..at).map(|before| before.matches('\n').count() + 1);
        Error::Config { file: self.file.clone(), line, problem: problem.into(), fix: fix.into() }
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
            text => text.parse().map(Bind::Address).map_err(|_| {
                let problem = format!("bind: {text:?} is neither \"all\" nor an address");
                self.error(bind.span().start, problem, "write \"all\", or one IP address of this host")
            }),
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

    fn merge(
        &self,
        slots: &mut Vec<Slot>,
        prefix: &str,
        image: Option<&str>,
        key: &Spanned<String>,
        table: &Table,
    ) -> Result<()> {
        let host = key.get_ref();
        let at = key.span().start;
        if !is_host(host) {
            let problem = format!("{host:?} is not the host of a registry");
            return Err(self.error(at, problem, "write the host as an image reference has it: [mirrors.\"ghcr.io\"]"));
        }
        let position = slots.iter().position(|slot| slot.mirror.host == *host);
        let slot = if let Some(position) = position {
            &mut slots[position]
        } else {
            let Some(port) = &table.port else {
                let problem = format!("the new mirror {host:?} has no port");
                return Err(self.error(at, problem, "add `port = ` with one that is free, 5007 for instance"));
            };
            slots.push(Slot {
                mirror: Mirror {
                    host: host.clone(),
                    name: format!("{prefix}{}", host.replace(':', "-")),
                    image: image.unwrap_or(IMAGE).to_owned(),
                    upstream: format!("https://{host}"),
                    port: self.port(port)?,
                },
                enabled: true,
                at,
            });
            let last = slots.len() - 1;
            &mut slots[last]
        };
        slot.at = at;
        slot.enabled = table.enabled.unwrap_or(true);
        if let Some(port) = &table.port {
            slot.mirror.port = self.port(port)?;
            slot.at = port.span().start;
        }
        if let Some(upstream) = &table.upstream {
            slot.mirror.upstream = self.upstream(upstream)?;
        }
        if let Some(image) = &table.image {
            slot.mirror.image = self.image(image)?;
        }
        Ok(())
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
        Config::parse(Some("cache.toml".into()), text, None)
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
    fn a_host_that_is_not_configured_is_a_usage_error() {
        let config = parse("").unwrap();
        assert_eq!(config.select(&["quay.io".into()]).unwrap().len(), 1);
        assert_eq!(config.select(&["x.example".into()]).unwrap_err().code(), 2);
    }
}
