//! The checks of single values of `cache.toml`, each with the line and what to write instead.

use std::net::IpAddr;

use toml::Spanned;

use crate::boot::Sources;
use crate::cache_toml::{BootTable, Source, Switch, Table};
use crate::config::{Bind, Credentials, Offline, Password};
use crate::error::Result;
use crate::settings::PREFIX;

impl Source<'_> {
    pub(crate) fn prefix(&self, prefix: Option<&Spanned<String>>) -> Result<String> {
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

    pub(crate) fn bind(&self, bind: Option<&Spanned<String>>) -> Result<Bind> {
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

    pub(crate) fn offline(&self, offline: Option<&Spanned<Switch>>) -> Result<Offline> {
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

    pub(crate) fn image(&self, image: &Spanned<String>) -> Result<String> {
        let text = image.get_ref();
        if text.is_empty() || text.starts_with('-') || text.contains(char::is_whitespace) {
            let problem = format!("{text:?} is no image reference");
            return Err(self.error(image.span().start, problem, "write a reference such as \"registry:2\""));
        }
        Ok(text.clone())
    }

    pub(crate) fn port(&self, port: &Spanned<i64>) -> Result<u16> {
        u16::try_from(*port.get_ref()).ok().filter(|&port| port != 0).ok_or_else(|| {
            self.error(port.span().start, format!("{} is no port", port.get_ref()), "write a number from 1 to 65535")
        })
    }

    pub(crate) fn upstream(&self, upstream: &Spanned<String>) -> Result<String> {
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

    pub(crate) fn credentials(&self, host: &str, at: usize, table: &Table) -> Result<Option<Credentials>> {
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

    pub(crate) fn address(&self, address: &Spanned<String>) -> Result<String> {
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

    pub(crate) fn boot(&self, table: &BootTable) -> Result<Sources> {
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
}

/// Whether a text is a host with an optional port, as it stands at the head of an image reference.
pub fn is_host(text: &str) -> bool {
    let (name, port) = text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port)));
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    name.split('.').all(label) && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0))
}
