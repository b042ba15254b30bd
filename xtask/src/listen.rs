//! Where proxies are published: every interface, or loopback and the docker bridge; pure.

use std::net::IpAddr;

use crate::error::{Error, Result};
use crate::exec::Cmd;

/// The addresses that proxies are published on; none means every interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listen(pub Vec<IpAddr>);

impl Listen {
    /// The values of `--publish` for a port.
    pub fn publish(&self, port: u16) -> Vec<String> {
        if self.0.is_empty() {
            return vec![format!("{port}:5000")];
        }
        let one = |address: &IpAddr| match address {
            IpAddr::V6(address) => format!("[{address}]:{port}:5000"),
            IpAddr::V4(address) => format!("{address}:{port}:5000"),
        };
        self.0.iter().map(one).collect()
    }

    /// The bindings of a port as drift shows them, in the order of their text.
    pub fn ports(&self, port: u16) -> String {
        let mut all: Vec<String> = self.0.iter().map(|address| format!("{address} {port}")).collect();
        all.sort();
        if all.is_empty() { port.to_string() } else { all.join(", ") }
    }
}

/// What the default bridge's network says of its addresses.
pub fn bridge() -> Cmd {
    Cmd::read("docker").args(["network", "inspect", "--format", "{{json .IPAM.Config}}", "bridge"])
}

/// The default bridge's own address on this host, from what [`bridge`] printed.
///
/// Docker 20.10 names no gateway before its second start; it is the first address of the subnet then.
///
/// # Errors
/// There is no IPv4 address in it.
pub fn bridge_address(json: &str) -> Result<IpAddr> {
    let unreadable = || Error::Answer { command: bridge().shell(), problem: format!("no address in {json:?}") };
    let ranges: Vec<serde_json::Value> = serde_json::from_str(json).map_err(|_| unreadable())?;
    let gateway = |range: &serde_json::Value| range["Gateway"].as_str()?.parse::<IpAddr>().ok();
    let first = |range: &serde_json::Value| {
        let subnet = range["Subnet"].as_str()?.parse::<ipnet::Ipv4Net>().ok()?;
        subnet.hosts().next().map(IpAddr::V4)
    };
    let all = ranges.iter().filter_map(|range| gateway(range).or_else(|| first(range)));
    all.into_iter().find(IpAddr::is_ipv4).ok_or_else(unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bridge_has_the_address_that_the_engine_says_or_the_first_of_its_subnet() {
        let of = |json: &str| bridge_address(json).map(|address| address.to_string()).ok();
        assert_eq!(of(r#"[{"Subnet":"172.17.0.0/16","Gateway":"172.17.0.254"}]"#).unwrap(), "172.17.0.254");
        assert_eq!(of(r#"[{"Subnet":"fd00::/64"},{"Subnet":"10.9.0.0/24"}]"#).unwrap(), "10.9.0.1");
        assert_eq!(of("[]"), None);
        assert_eq!(of("null"), None);
    }
}
