//! The settings in force, as types: what is wished for, and where each value comes from.

use std::collections::BTreeMap;
use std::net::IpAddr;

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use crate::boot::Sources;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::{settings, small_file};

/// The name under which a file of settings is looked for at the workspace root.
pub const FILE: &str = "cache.toml";

/// Which set of mirrors to start from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// What every Talos since 0.7 pulls from: the guide's five, registry.k8s.io and factory.talos.dev.
    #[default]
    Default,
    /// The guide to the letter: its five, quay.io on `registry:2.5`.
    Guide,
}

impl Preset {
    /// The word for it, as `cache.toml` has it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Guide => "guide",
        }
    }
}

/// The addresses a proxy is published on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bind {
    /// Every interface, as in the guide.
    #[default]
    All,
    /// Loopback and the docker bridge: nodes of both provisioners reach it, nothing else on the network does.
    Local,
    /// One address.
    Address(IpAddr),
}

impl std::fmt::Display for Bind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Local => f.write_str("local"),
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl Serialize for Bind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What to do about an upstream that is out of reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum Offline {
    /// Serve what is cached until it answers again.
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// Serve what is cached, whatever is within reach.
    #[serde(rename = "true")]
    Always,
    /// Call it an error.
    #[serde(rename = "false")]
    Never,
}

impl Offline {
    /// The word for it, as `cache.toml` has it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Always => "true",
            Self::Never => "false",
        }
    }
}

/// An account at an upstream. The password itself is read when it is used, and held no longer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Credentials {
    /// The account's name.
    pub username: String,
    /// Where its password is.
    #[serde(flatten)]
    pub password: Password,
}

/// Where a password is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Password {
    /// In a variable of the environment.
    #[serde(rename = "password_env")]
    Env(String),
    /// In a file; a byte order mark at its beginning and one line break at its end are no part of it.
    #[serde(rename = "password_file")]
    File(Utf8PathBuf),
}

impl std::fmt::Display for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Env(name) => write!(f, "the variable {name}"),
            Self::File(path) => write!(f, "the file {path}"),
        }
    }
}

impl Password {
    /// The password.
    ///
    /// # Errors
    /// It is not there, or is empty; the text says which place is to blame, and nothing of what was found.
    pub fn read(&self) -> std::result::Result<String, String> {
        let text = match self {
            // `std::env::var` shows the value of a variable that is not UTF-8.
            Self::Env(name) => match std::env::var_os(name).map(std::ffi::OsString::into_string) {
                None => Err("it is not set".to_owned()),
                Some(value) => value.map_err(|_| "it is not UTF-8 text".to_owned()),
            },
            Self::File(path) => small_file::text(path).map_err(|error| error.to_string()),
        };
        let text = text.map_err(|problem| format!("its password is not in {self}: {problem}"))?;
        let text = text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
        if text.is_empty() { Err(format!("its password is not in {self}: it is empty")) } else { Ok(text.to_owned()) }
    }
}

/// A pull-through proxy as it is wished for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
    /// The account to use at the upstream, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
}

#[cfg(test)]
impl Mirror {
    /// The guide's first one.
    pub fn docker_io() -> Self {
        Self {
            host: "docker.io".into(),
            name: "registry-docker.io".into(),
            image: "registry:2".into(),
            upstream: "https://registry-1.docker.io".into(),
            port: 5000,
            credentials: None,
        }
    }
}

/// The settings in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
    /// Where nodes find the mirrors, when that is another machine: a name or an address.
    pub cluster_address: Option<Host>,
    /// Where the boot files of QEMU nodes come from.
    pub boot: Sources,
    /// Where a value comes from that is not built in, by its key (`mirrors.docker.io.port`): a flag, a preset, a line.
    pub origins: BTreeMap<String, String>,
    /// The mirrors that the file disables, each with the line of its table.
    #[serde(skip)]
    pub disabled: BTreeMap<String, String>,
    /// The variables of the environment that hold passwords, those of disabled mirrors included.
    #[serde(skip)]
    pub password_variables: Vec<String>,
}

/// What the command line says of the settings.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--config FILE`.
    pub file: Option<Utf8PathBuf>,
    /// `--preset NAME`.
    pub preset: Option<Preset>,
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
            Some(file) => small_file::text(file).map_err(|source| {
                let fix = match source.kind() {
                    std::io::ErrorKind::InvalidData => "write it as UTF-8 text",
                    std::io::ErrorKind::InvalidInput => "name a regular file with --config",
                    std::io::ErrorKind::FileTooLarge => "name a file of settings, which is smaller",
                    _ => "name a file that is there with --config, or leave the flag out",
                };
                let problem = format!("cannot read it: {source}");
                Error::Config { file: file.clone(), line: None, problem, fix: fix.to_owned() }
            })?,
            None => String::new(),
        };
        settings::parse(file, &text, overrides.preset)
    }

    /// The mirrors of the hosts named, or all of them where none is named.
    ///
    /// # Errors
    /// A host that is not configured.
    pub fn select(&self, hosts: &[String]) -> Result<Vec<Mirror>> {
        let known = || self.mirrors.iter().map(|mirror| mirror.host.as_str()).collect::<Vec<_>>().join(", ");
        if let Some(unknown) = hosts.iter().find(|host| !self.mirrors.iter().any(|mirror| mirror.host == **host)) {
            let (problem, fix) = if let Some(line) = self.disabled.get(unknown) {
                let fix = format!("remove `enabled = false` from [mirrors.{unknown:?}], or name one of {}", known());
                (format!("the mirror {unknown:?} is disabled by {line}"), fix)
            } else if settings::hosts().any(|host| host == unknown) {
                let problem = format!("the preset {} has no mirror {unknown:?}", self.preset.word());
                (problem, format!("use the preset {}, or name one of {}", Preset::Default.word(), known()))
            } else {
                // What stands before an @ may be a password.
                let shown = if unknown.contains('@') { "that".to_owned() } else { format!("{unknown:?}") };
                let fix = format!("name one of {}, or add a table [mirrors.\"HOST\"] to {FILE}", known());
                (format!("no mirror is configured for {shown}"), fix)
            };
            return Err(Error::Usage { problem, fix });
        }
        let wanted = |mirror: &&Mirror| hosts.is_empty() || hosts.contains(&mirror.host);
        Ok(self.mirrors.iter().filter(wanted).cloned().collect())
    }

    /// Each value with its key and where it comes from, in a stable order.
    pub fn values(&self) -> Vec<[String; 3]> {
        let mut values = vec![
            ("preset".to_owned(), self.preset.word().to_owned()),
            ("prefix".to_owned(), self.prefix.clone()),
            ("bind".to_owned(), self.bind.to_string()),
            ("offline".to_owned(), self.offline.word().to_owned()),
        ];
        if let Some(address) = &self.cluster_address {
            values.push(("cluster.address".to_owned(), address.to_string()));
        }
        values.push(("boot.release".to_owned(), self.boot.release.clone()));
        values.push(("boot.factory".to_owned(), self.boot.factory.clone()));
        for mirror in &self.mirrors {
            let mut add = |key: &str, value: String| values.push((format!("mirrors.{}.{key}", mirror.host), value));
            add("port", mirror.port.to_string());
            add("upstream", mirror.upstream.clone());
            add("image", mirror.image.clone());
            if let Some(Credentials { username, password }) = &mirror.credentials {
                add("username", username.clone());
                match password {
                    Password::Env(name) => add("password_env", name.clone()),
                    Password::File(path) => add("password_file", path.to_string()),
                }
            }
        }
        let origin = |key: &String| self.origins.get(key).cloned().unwrap_or_else(|| "built in".to_owned());
        values.into_iter().map(|(key, value)| [key.clone(), value, origin(&key)]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_is_not_configured_is_a_usage_error() {
        let config = Config::load(Utf8Path::new("/nonexistent"), &Overrides::default()).unwrap();
        assert_eq!(config.select(&["quay.io".into()]).unwrap().len(), 1);
        assert_eq!(config.select(&["x.example".into()]).unwrap_err().code(), 2);
    }

    #[test]
    fn a_host_that_is_disabled_or_of_another_preset_is_not_called_absent() {
        let text = "\n[mirrors.\"gcr.io\"]\nenabled = false\n";
        let config = settings::parse(Some("cache.toml".into()), text, Some(Preset::Guide)).unwrap();
        let told = |host: &str| {
            let error = config.select(&[host.to_owned()]).unwrap_err();
            (error.to_string(), error.fix().unwrap().to_owned())
        };
        let (problem, fix) = told("gcr.io");
        assert_eq!(problem, "the mirror \"gcr.io\" is disabled by cache.toml:2");
        assert!(
            fix.starts_with("remove `enabled = false` from [mirrors.\"gcr.io\"], or name one of docker.io, "),
            "{fix}"
        );
        let (problem, fix) = told("registry.k8s.io");
        assert_eq!(problem, "the preset guide has no mirror \"registry.k8s.io\"");
        assert!(fix.starts_with("use the preset default, or name one of docker.io, "), "{fix}");
        assert!(!told("me:hunter2@x").0.contains("hunter2"));
    }

    #[test]
    fn a_password_is_read_where_it_is_and_its_line_break_is_no_part_of_it() {
        let file = std::env::temp_dir().join(format!("password-{}", std::process::id()));
        std::fs::write(&file, " a\nb \r\n").unwrap();
        let password = Password::File(Utf8PathBuf::from_path_buf(file.clone()).unwrap());
        assert_eq!(password.read().unwrap(), " a\nb ");
        std::fs::write(&file, "\u{feff}a\n").unwrap();
        assert_eq!(password.read().unwrap(), "a");
        std::fs::write(&file, "\n").unwrap();
        assert!(password.read().unwrap_err().ends_with("it is empty"));
        std::fs::write(&file, b"hunter2\xfc").unwrap();
        assert_eq!(
            password.read().unwrap_err(),
            format!("its password is not in the file {}: it is not UTF-8 text", file.display())
        );
        std::fs::remove_file(file).unwrap();
        assert!(password.read().unwrap_err().starts_with("its password is not in the file"));
        let absent = Password::Env("TALOS_CACHE_TEST_ABSENT".into());
        assert!(absent.read().unwrap_err().contains("the variable TALOS_CACHE_TEST_ABSENT"));
    }
}
