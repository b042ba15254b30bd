//! A host that other machines are told of: a name or an IP address, and how it stands in a URL; pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

/// A host by its name (RFC 1123) or its IP address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A name that those machines resolve.
    Name(String),
    /// An address.
    Address(IpAddr),
}

/// Why a text is not a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What is wrong with it.
    pub problem: String,
    /// What to write instead.
    pub fix: String,
}

impl Host {
    /// The host that a text names; an IPv6 address may stand in brackets.
    ///
    /// # Errors
    /// It names none, names more than a host, or is an address that belongs to no single host.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        // What stands before an @ may be a password.
        let shown = if text.contains('@') { "that".to_owned() } else { format!("{text:?}") };
        let refuse =
            |problem: &str, fix: &str| Err(Refusal { problem: problem.replace("{}", &shown), fix: fix.to_owned() });
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        match bare.parse::<IpAddr>() {
            Ok(ip) if belongs_to_none(ip).is_some() => {
                return refuse(
                    "no machine reaches this host at {}",
                    "name an address that they reach, 10.5.0.1 for instance",
                );
            }
            Ok(ip) if ip.is_ipv6() || bare == text => return Ok(Self::Address(ip)),
            _ => {}
        }
        if text.contains("://") || text.contains('/') {
            return refuse("{} is more than a host", "write the host alone, without scheme and path");
        }
        if let Some((host, _)) =
            text.rsplit_once(':').filter(|(host, port)| is_number(port) && Self::parse(host).is_ok())
        {
            let fix = format!("write {host} alone; the port of each mirror is added to it");
            return refuse("{} has a port", &fix);
        }
        if is_name(text) {
            return Ok(Self::Name(text.to_owned()));
        }
        refuse("{} is neither a host name nor an IP address", "write one of them, without a port")
    }

    /// The host as it stands in a URL: an IPv6 address in brackets.
    pub fn authority(&self) -> String {
        match self {
            Self::Address(IpAddr::V6(ip)) => format!("[{ip}]"),
            other => other.to_string(),
        }
    }

    /// The host and a port, as in a URL.
    pub fn with_port(&self, port: u16) -> String {
        format!("{}:{port}", self.authority())
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(ip) => ip.fmt(f),
        }
    }
}

impl serde::Serialize for Host {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What kind of address it is, where it belongs to no single host.
pub fn belongs_to_none(ip: IpAddr) -> Option<&'static str> {
    match ip.to_canonical() {
        ip if ip.is_unspecified() => Some("the unspecified address"),
        ip if ip.is_multicast() => Some("a multicast address"),
        IpAddr::V4(Ipv4Addr::BROADCAST) => Some("the broadcast address"),
        _ => None,
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_digit())
}

/// Whether a text is a host name; one that ends in a number is an address with a mistake in it.
fn is_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    text.len() <= 253 && text.split('.').all(label) && !text.rsplit('.').next().is_some_and(is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_written_as_a_url_has_it() {
        for (text, authority) in [
            ("10.5.0.1", "10.5.0.1"),
            ("cache", "cache"),
            ("Cache-1.example", "Cache-1.example"),
            ("fd00::1", "[fd00::1]"),
            ("[fd00::1]", "[fd00::1]"),
        ] {
            assert_eq!(Host::parse(text).unwrap().authority(), authority);
        }
        assert_eq!(Host::parse("fd00::1").unwrap().with_port(5000), "[fd00::1]:5000");
    }

    #[test]
    fn what_is_more_or_less_than_a_host_is_refused() {
        for (text, problem) in [
            ("http://cache", "more than a host"),
            ("cache/v2", "more than a host"),
            ("cache:5000", "has a port"),
            ("10.5.0.1:5000", "has a port"),
            ("[fd00::1]:5000", "has a port"),
            ("0.0.0.0", "no machine reaches"),
            ("::", "no machine reaches"),
            ("::ffff:0.0.0.0", "no machine reaches"),
            ("224.0.0.1", "no machine reaches"),
            ("ff02::1", "no machine reaches"),
            ("255.255.255.255", "no machine reaches"),
            ("", "neither"),
            ("10.5.0", "neither"),
            ("10.5.0.256", "neither"),
            ("[10.5.0.1]", "neither"),
            ("fe80::1%eth0", "neither"),
            ("-cache", "neither"),
            ("my cache", "neither"),
            ("cache\"\n", "neither"),
            ("me:hunter2@cache", "that is neither"),
        ] {
            let refusal = Host::parse(text).unwrap_err();
            assert!(refusal.problem.contains(problem) && !refusal.fix.is_empty(), "{text:?}: {refusal:?}");
        }
        assert!(Host::parse("[fd00::1]:5000").unwrap_err().fix.starts_with("write [fd00::1] alone;"));
    }

    /// `[cluster] address` and `mirror-config --address` take the same hosts.
    #[test]
    fn the_settings_take_what_the_command_line_takes() {
        let texts =
            ["Cache.example", "cache.example.", "a_b", "10.5.0.1", "10.5.0.256", "fd00::1", "[fd00::1]", "[::]"];
        for text in texts.into_iter().chain(["224.0.0.1", "cache:5000", "http://a", "", "cache.1", "127.0.0.1", "-a"]) {
            let settings = crate::settings::parse(None, &format!("[cluster]\naddress = {text:?}\n"), None);
            let settings = settings.map(|config| config.cluster_address).map_err(|error| match error {
                crate::error::Error::Config { problem, fix, .. } => Refusal { problem, fix },
                other => panic!("{other}"),
            });
            assert_eq!(settings, Host::parse(text).map(Some), "{text}");
        }
    }
}
