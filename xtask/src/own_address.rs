//! The addresses of this host: which it has, where a proxy can be published, and upstreams that lead back to a proxy.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, TcpListener, ToSocketAddrs, UdpSocket};

use crate::config::Mirror;
use crate::host::Host;
use crate::listen::Listen;
use crate::upstream;

/// Why an address and port cannot be taken, where they cannot.
pub fn refused(address: IpAddr, port: u16) -> Option<ErrorKind> {
    TcpListener::bind((address, port)).err().map(|error| error.kind())
}

/// Whether an address is the broadcast address of a network of this host. Linux lets a server bind to one; the sign is
/// that a datagram to it needs a permission (ip(7), `SO_BROADCAST`). Connecting a datagram socket sends nothing.
fn is_broadcast(address: IpAddr) -> bool {
    let connect = || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?.connect((address, 9));
    address.is_ipv4() && connect().is_err_and(|error: std::io::Error| error.kind() == ErrorKind::PermissionDenied)
}

/// Why proxies cannot be published on an address, where they cannot.
pub fn unbindable(listen: &Listen) -> Option<String> {
    listen.0.iter().find_map(|address| match refused(*address, 0) {
        Some(ErrorKind::AddrNotAvailable) => Some(format!("{address} is no address of this host")),
        None if is_broadcast(*address) => {
            Some(format!("{address} is the broadcast address of a network of this host; no client can connect to it"))
        }
        _ => None,
    })
}

/// The upstreams that lead back to a proxy, each with what is wrong with it, by the mirror's host. A chain of mirrors
/// that ends elsewhere is not among them.
///
/// Names are looked up only where the port of an upstream is one that a mirror is published on.
pub fn cycles(mirrors: &[Mirror], listen: &Listen) -> BTreeMap<String, String> {
    let next = |mirror: &Mirror| leads_to(mirror, mirrors, listen).map(|other| other.host.as_str());
    let edges = mirrors.iter().filter_map(|mirror| Some((mirror.host.as_str(), next(mirror)?))).collect();
    let problem = |mirror: &Mirror| {
        let through = endless(&edges, &mirror.host)?;
        let problem = match &through[..] {
            [] => format!("its upstream {} is this proxy itself", mirror.upstream),
            through => format!("its upstream {} leads back to a proxy, by {}", mirror.upstream, through.join(", ")),
        };
        Some((mirror.host.clone(), problem))
    };
    mirrors.iter().filter_map(problem).collect()
}

/// Whether any upstream may be a proxy of this host, by its port alone.
pub fn may_lead_back(mirrors: &[Mirror]) -> bool {
    let port = |mirror: &Mirror| upstream::place(&mirror.upstream).map(|(_, port)| port);
    mirrors.iter().filter_map(port).any(|port| mirrors.iter().any(|mirror| mirror.port == port))
}

/// The mirror whose proxy is the upstream of another, where one is.
fn leads_to<'a>(mirror: &Mirror, mirrors: &'a [Mirror], listen: &Listen) -> Option<&'a Mirror> {
    let (host, port) = upstream::place(&mirror.upstream)?;
    let other = mirrors.iter().find(|other| other.port == port)?;
    let addresses: Vec<IpAddr> = match host {
        Host::Address(address) => vec![address],
        // Containers have no names of this host's own file: one that leads to loopback says nothing of them.
        Host::Name(name) => {
            let found = (name.as_str(), port).to_socket_addrs().ok()?.map(|found| found.ip());
            found.filter(|ip| !ip.to_canonical().is_loopback()).collect()
        }
    };
    let published = |address: &IpAddr| {
        let address = address.to_canonical();
        if listen.0.is_empty() { refused(address, 0).is_none() } else { listen.0.contains(&address) }
    };
    addresses.iter().any(published).then_some(other)
}

/// The hosts that follow one whose chain of upstreams never ends, each once; none where it ends.
fn endless<'a>(edges: &BTreeMap<&'a str, &'a str>, host: &'a str) -> Option<Vec<&'a str>> {
    let (mut seen, mut through, mut at) = (BTreeSet::from([host]), Vec::new(), host);
    loop {
        at = edges.get(at)?;
        if !seen.insert(at) {
            return Some(through);
        }
        through.push(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirror(host: &str, port: u16, upstream: &str) -> Mirror {
        Mirror { host: host.into(), port, upstream: upstream.into(), ..Mirror::docker_io() }
    }

    fn found(mirrors: &[Mirror], listen: &[&str]) -> Vec<String> {
        let listen = Listen(listen.iter().map(|address| address.parse().unwrap()).collect());
        cycles(mirrors, &listen).into_keys().collect()
    }

    #[test]
    fn an_upstream_that_is_the_proxy_itself_is_found_where_it_is_published() {
        // Any address of this host will do; a proxy on this one is nobody's own loopback.
        let own = |upstream: &str| [mirror("docker.io", 5000, upstream)];
        assert_eq!(found(&own("http://127.0.0.9:5000"), &[]), ["docker.io"]);
        assert_eq!(found(&own("http://[::ffff:127.0.0.9]:5000"), &[]), ["docker.io"]);
        assert_eq!(found(&own("http://127.0.0.9:5000"), &["127.0.0.1", "127.0.0.9"]), ["docker.io"]);
        // Another program of this host, another address of it, another host.
        assert!(found(&own("http://127.0.0.9:5000"), &["127.0.0.1"]).is_empty());
        assert!(found(&own("http://127.0.0.9:5001"), &[]).is_empty());
        assert!(found(&own("http://192.0.2.77:5000"), &[]).is_empty());
        assert!(found(&own("http://nowhere.invalid:5000"), &[]).is_empty());
        let on_80 = [mirror("docker.io", 80, "http://127.0.0.9"), mirror("b", 443, "https://127.0.0.9")];
        assert_eq!(found(&on_80, &[]), ["b", "docker.io"]);
    }

    #[test]
    fn a_circle_of_mirrors_is_found_and_a_chain_that_ends_is_not() {
        let to = |port: u16| format!("http://127.0.0.9:{port}");
        let chain = [mirror("a", 5000, &to(5001)), mirror("b", 5001, &to(5002)), mirror("c", 5002, "https://c")];
        assert!(may_lead_back(&chain));
        assert!(found(&chain, &[]).is_empty());
        let circle = [mirror("a", 5000, &to(5001)), mirror("b", 5001, &to(5000)), mirror("c", 5002, &to(5000))];
        assert_eq!(found(&circle, &[]), ["a", "b", "c"]);
        let problems = cycles(&circle, &Listen::default());
        assert_eq!(problems["a"], "its upstream http://127.0.0.9:5001 leads back to a proxy, by b");
        assert_eq!(problems["c"], "its upstream http://127.0.0.9:5000 leads back to a proxy, by a, b");
        assert!(!may_lead_back(&[mirror("a", 5000, "https://a"), mirror("b", 5001, "http://b:80")]));
    }

    #[test]
    fn an_address_to_publish_on_is_of_this_host_and_of_it_alone() {
        let of = |address: &str| unbindable(&Listen(vec![address.parse().unwrap()]));
        assert_eq!(of("127.0.0.1"), None);
        assert_eq!(of("::1"), None);
        assert_eq!(of("192.0.2.77").unwrap(), "192.0.2.77 is no address of this host");
        assert!(of("127.255.255.255").unwrap().contains("is the broadcast address of a network of this host"));
    }
}
