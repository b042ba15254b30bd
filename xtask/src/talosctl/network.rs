//! A cluster's network, and this host's address in it.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::error::{Error, Result};

/// Reads a cluster's network. Bits behind the prefix are cleared: old releases clear them too, newer ones (since they
/// parse with `netip.ParsePrefix`, 1.9 for instance) count from the address as it was written, so that only the cleared
/// form has the same gateway in all of them.
///
/// # Errors
/// It is no IPv4 network, or too small for a gateway and a node.
pub fn read(cidr: &str) -> Result<Ipv4Net> {
    let refuse = |problem: String| Error::Usage {
        problem,
        fix: "write an IPv4 network and its size: --cidr 10.5.0.0/24".to_owned(),
    };
    if cidr.parse::<ipnet::Ipv6Net>().is_ok() || cidr.parse::<std::net::Ipv6Addr>().is_ok() {
        return Err(refuse(format!("{cidr:?} is an IPv6 network, which talosctl does not take here")));
    }
    if cidr.parse::<Ipv4Addr>().is_ok() {
        return Err(refuse(format!("{cidr:?} is an address without the size of its network")));
    }
    let network: Ipv4Net = cidr.parse().map_err(|_| refuse(format!("{cidr:?} is no network")))?;
    let first = network.network();
    if first.is_unspecified()
        || first.is_loopback()
        || first.is_multicast()
        || first.is_link_local()
        || first.is_broadcast()
    {
        return Err(refuse(format!("{cidr} is no network for machines")));
    }
    if network.prefix_len() > 30 {
        return Err(refuse(format!("{cidr} has no room for a gateway and a node; /30 is the smallest that has")));
    }
    Ok(network.trunc())
}

/// The address of this host in a cluster's network: the first one after the network's own, with both provisioners and
/// in every release.
pub fn gateway(network: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(network.network()) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateway_is_the_first_address_of_the_network() {
        for (cidr, expected) in [
            ("10.5.0.0/24", [10, 5, 0, 1]),
            ("10.5.0.7/24", [10, 5, 0, 1]),
            ("10.5.0.0/16", [10, 5, 0, 1]),
            ("10.5.77.3/16", [10, 5, 0, 1]),
            ("192.168.1.8/30", [192, 168, 1, 9]),
            ("192.168.1.11/30", [192, 168, 1, 9]),
        ] {
            assert_eq!(gateway(read(cidr).unwrap()), Ipv4Addr::from(expected), "{cidr}");
        }
    }

    #[test]
    fn what_is_no_usable_network_is_a_usage_error() {
        for (cidr, part) in [
            ("10.5.0.0/31", "no room"),
            ("10.5.0.1/32", "no room"),
            ("fd00::/64", "IPv6"),
            ("::1", "IPv6"),
            ("10.5.0.0", "without the size"),
            ("10.5.0.0/33", "is no network"),
            ("10.5.0/24", "is no network"),
            ("0.0.0.0/0", "no network for machines"),
            ("224.0.0.0/24", "no network for machines"),
            ("10.5.0.0/24,10.6.0.0/24", "is no network"),
            ("docker0", "is no network"),
            ("", "is no network"),
        ] {
            let error = read(cidr).unwrap_err();
            assert_eq!(error.code(), 2);
            assert!(error.to_string().contains(part) && error.fix().is_some(), "{cidr:?}: {error}");
        }
    }
}
