//! Where the nodes of a cluster find the mirrors.

use ipnet::Ipv4Net;

use crate::config::{Bind, Config, Mirror};
use crate::error::{Error, Finding, Result};
use crate::exec::Runner;
use crate::host::Host;
use crate::listen;
use crate::mirror_format::{Endpoint, endpoints};
use crate::observe::engine_answer;
use crate::talosctl::{Provisioner, network};

/// The address that nodes reach the mirrors on.
///
/// QEMU nodes reach this host on the first address of their network; docker nodes, and every node where the proxies are
/// bound to this host alone, on the docker bridge's address.
///
/// # Errors
/// The engine does not say where its bridge is, or the proxies are bound to an address that no node reaches.
pub fn address(runner: &dyn Runner, config: &Config, provisioner: Provisioner, cidr: Ipv4Net) -> Result<Host> {
    if let Some(address) = &config.cluster_address {
        return Ok(address.clone());
    }
    match (config.bind, provisioner) {
        (Bind::Address(address), _) if address.is_loopback() => Err(Error::Blocked(vec![Finding::new(
            "bind",
            format!("the proxies are bound to {address}, which no node reaches"),
            "bind = \"local\" adds the docker bridge, and nothing else",
        )])),
        (Bind::Address(address), _) => Ok(Host::Address(address)),
        (Bind::All, Provisioner::Qemu) => Ok(Host::Address(network::gateway(cidr).into())),
        (Bind::Local, _) | (Bind::All, Provisioner::Docker) => {
            let cmd = listen::bridge();
            Ok(Host::Address(listen::bridge_address(&engine_answer(&cmd, runner.run(&cmd)?)?.text())?))
        }
    }
}

/// The mirrors as talosctl is told of them, in the order of the configuration.
pub fn told(mirrors: &[Mirror], address: &Host) -> Vec<Endpoint> {
    endpoints(mirrors, address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_are_told_in_their_order_with_brackets_where_they_are_needed() {
        let config = Config::load("/nonexistent".into(), &crate::config::Overrides::default()).unwrap();
        let told = told(&config.mirrors, &Host::parse("fd00::1").unwrap());
        assert_eq!((told[0].host.as_str(), told[0].url.as_str()), ("docker.io", "http://[fd00::1]:5000"));
        assert_eq!(told.len(), 7);
    }
}
