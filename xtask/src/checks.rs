//! The checks of single values of `cache.toml`, each with the line and what to write instead.

use std::net::{IpAddr, Ipv6Addr, SocketAddrV6};

use toml::Spanned;

use crate::boot::Sources;
use crate::cache_toml::{BootTable, Source, Table};
use crate::config::{Bind, Credentials, Offline, Password};
use crate::error::Result;
use crate::host::{Host, Refusal, belongs_to_none};
use crate::settings::PREFIX;
use crate::upstream;

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
        let text = bind.get_ref();
        let refuse = |problem: String| {
            let fix = "write \"all\", \"local\", or one IP address of this host";
            Err(self.error(bind.span().start, problem, fix))
        };
        // An IPv4 address in IPv6's clothes is the IPv4 address, the unspecified one above all.
        let address = match text.as_str() {
            "all" => return Ok(Bind::All),
            "local" => return Ok(Bind::Local),
            text => text.parse::<IpAddr>().map(|address| address.to_canonical()),
        };
        let Ok(address) = address else {
            return refuse(format!("bind: {text:?} is neither \"all\" nor \"local\" nor an address"));
        };
        match belongs_to_none(address) {
            None => Ok(Bind::Address(address)),
            Some(_) if address.is_unspecified() => Ok(Bind::All),
            Some(kind) => refuse(format!("bind: {address} is {kind}; no client can connect to it")),
        }
    }

    pub(crate) fn offline(&self, offline: Option<&Spanned<toml::Value>>) -> Result<Offline> {
        let Some(offline) = offline else { return Ok(Offline::Auto) };
        match offline.get_ref() {
            toml::Value::Boolean(true) => Ok(Offline::Always),
            toml::Value::Boolean(false) => Ok(Offline::Never),
            toml::Value::String(word) if word == "auto" => Ok(Offline::Auto),
            _ => {
                let problem = "offline is neither \"auto\" nor true or false";
                Err(self.error(offline.span().start, problem, "write \"auto\", true or false"))
            }
        }
    }

    pub(crate) fn image(&self, image: &Spanned<String>) -> Result<String> {
        let text = image.get_ref();
        if !is_reference(text) {
            // What stands before an @ that is no digest's may be a password.
            let shown = if text.contains('@') { "that".to_owned() } else { format!("{text:?}") };
            let problem = format!("{shown} is no image reference");
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
        let (text, at) = (upstream.get_ref(), upstream.span().start);
        if text.contains('@') {
            // The address itself would show the password, so it is not repeated here.
            let fix = "write the address alone; `username` and `password_env` are keys of their own";
            return Err(self.error(at, "an upstream must not hold a user or a password", fix));
        }
        let lower = text.to_lowercase();
        let Some((scheme, rest)) = lower.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https"))
        else {
            // Only a host is repeated: anything else may hold a password in the wrong place.
            let rest = lower.split_once("://").map_or(lower.as_str(), |(_, rest)| rest);
            let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
            let host = Some(authority).filter(|host| is_authority(host)).unwrap_or("HOST");
            let problem = "the upstream has no scheme that a registry speaks";
            return Err(self.error(at, problem, format!("write \"https://{host}\", or http:// for one without TLS")));
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        self.own_loopback(&format!("{scheme}://{authority}"), at)?;
        if !is_authority(authority) {
            return Err(self.error(at, "the upstream names no host", "write \"https://HOST\""));
        }
        if rest.strip_suffix('/').unwrap_or(rest) != authority {
            let problem = format!("upstream {scheme}://{authority} has a path, which the registry drops in silence");
            return Err(self.error(at, problem, format!("write \"{scheme}://{authority}\"")));
        }
        Ok(format!("{scheme}://{authority}"))
    }

    /// Says no to an upstream that a container would look for in itself.
    pub(crate) fn own_loopback(&self, upstream: &str, at: usize) -> Result<()> {
        if !upstream::place(upstream).is_some_and(|(host, _)| is_loopback(&host)) {
            return Ok(());
        }
        let problem = format!("upstream {upstream:?} is the proxy's own loopback, inside of its container");
        let fix = "name this host in `upstream` by an address that containers reach, the docker bridge's for instance";
        Err(self.error(at, problem, fix))
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

    pub(crate) fn address(&self, address: &Spanned<String>) -> Result<Host> {
        Host::parse(address.get_ref())
            .map_err(|Refusal { problem, fix }| self.error(address.span().start, problem, fix))
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

/// Whether a host is whoever looks for it: loopback, the unspecified address, the names that stand for loopback (RFC 6761,
/// 6.3), or what resolvers take for such an address, `127.1` for instance.
fn is_loopback(host: &Host) -> bool {
    match host {
        Host::Address(ip) => ip.to_canonical().is_loopback() || ip.to_canonical().is_unspecified(),
        Host::Name(name) => {
            let name = name.strip_suffix('.').unwrap_or(name);
            let numeric = name.chars().all(|c| c.is_ascii_digit() || c == '.');
            let is_zero = !name.is_empty() && name.chars().all(|c| c == '0' || c == '.');
            name == "localhost" || name.ends_with(".localhost") || (numeric && name.starts_with("127.")) || is_zero
        }
    }
}

/// Whether a text is the host of an address with an optional port; an IPv6 address stands in brackets.
fn is_authority(text: &str) -> bool {
    let bracketed = || text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    text.parse::<SocketAddrV6>().is_ok_and(|address| address.port() != 0)
        || bracketed().is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok())
        || is_host(text)
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

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.chars().all(|c| c.is_ascii_digit() || matches!(c, 'a'..='f'))
}

/// Whether a text is an image reference: `[HOST/]PATH[:TAG][@DIGEST]` (the grammar of distribution/reference).
fn is_reference(text: &str) -> bool {
    let (name, digest) = text.split_once('@').map_or((text, None), |(name, digest)| (name, Some(digest)));
    let (path, tag) = match name.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (name, None),
    };
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.' || c == '-';
    let tag_fits =
        |tag: &str| !tag.is_empty() && tag.len() <= 128 && tag.chars().all(word) && !tag.starts_with(['.', '-']);
    let digest_fits = |digest: &str| digest.strip_prefix("sha256:").is_some_and(is_sha256);
    let is_alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let separates = |text: &str| matches!(text, "." | "_" | "__") || text.chars().all(|c| c == '-');
    let component = |part: &str| {
        part.starts_with(is_alphanumeric)
            && part.ends_with(is_alphanumeric)
            && part.split(is_alphanumeric).filter(|between| !between.is_empty()).all(separates)
    };
    let host = |part: &str| (part.contains(['.', ':']) || part == "localhost") && is_host(&part.to_lowercase());
    let mut parts = path.split('/');
    let first = parts.next().unwrap_or_default();
    let rest: Vec<&str> = parts.collect();
    let first_fits = component(first) || (!rest.is_empty() && host(first));
    // A name that is all digest is taken for the identity of an image.
    let name_fits = path.len() <= 255 && !is_sha256(path);
    first_fits
        && name_fits
        && rest.into_iter().all(component)
        && tag.is_none_or(tag_fits)
        && digest.is_none_or(digest_fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_told_from_what_only_looks_like_one() {
        let digest = format!("registry@sha256:{}", "0".repeat(64));
        for fits in [
            "registry",
            "registry:2",
            "docker.io/library/registry:2.8.3",
            "localhost:5000/a/b_c",
            &digest,
            "Host.example/a:X",
            "a__b/c-d/e--f.g:_",
            "a---b",
        ] {
            assert!(is_reference(fits), "{fits}");
        }
        let (long, hex) = ("a".repeat(256), "a".repeat(64));
        for no in ["a..b:1", "a._b", "a___b", "a-.b", "a_-b", "a/.b", "a.", "a:b..c/d..e", &long, &hex] {
            assert!(!is_reference(no), "{no}");
        }
        assert!(is_reference(&format!("{hex}/a")) && !is_reference(&format!("registry@sha256:{}", "A".repeat(64))));
        for no in ["", "-x", "Registry:2", "registry:2;rm", "a b", "registry:", "/a", "a//b", "registry@sha256:12"] {
            assert!(!is_reference(no), "{no}");
        }
    }
}
