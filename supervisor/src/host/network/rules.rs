//! What passes between a network and what is not on it: the rules of its chains, as libvirt has them.
//!
//! | forward  | from elsewhere to a guest        | from a guest to elsewhere | addresses                      |
//! |----------|----------------------------------|---------------------------|--------------------------------|
//! | nat      | of a connection that is known    | of the network's own      | the host's, or the given range |
//! | route    | to the network's own             | of the network's own      | as they are                    |
//! | isolated | refused                          | refused                   |                                |
//! | open     | as the host's other rules say    | as the host's rules say   | as they are                    |
//!
//! With a device, only by way of it. Between guests of one bridge everything passes; what source filters of their taps
//! refuse (`crate::host::filter`) they refuse before this. IPv6 of a network with nat is routed, unless it says that
//! its IPv6 is translated too. What is refused is counted.
//!
//! What guests ask the host itself (DHCP, names, routers of IPv6) is not decided on here: a table of nf_tables cannot
//! let pass what another one drops. Where the host's own rules drop what comes in, they must let pass from the bridge
//! UDP 67, 547 and 53, TCP 53, and ICMPv6.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use reeve_ipc::model::{Forward, InterfaceName, Nat, Network, NetworkAddress, PortRange};

use crate::host::filter::expression::{End, Rule, Way};

/// Ports that are given to a connection where none are said: none of those that only root binds.
const PORTS: (u16, u16) = (1024, 65535);
const TCP: u8 = 6;
const UDP: u8 = 17;

/// The chains of a network.
#[derive(Debug, Clone)]
pub(super) struct Chains {
    pub(super) bridge: InterfaceName,
    /// For what goes out by its bridge.
    pub(super) into: Vec<Rule>,
    /// For what came in by its bridge.
    pub(super) from: Vec<Rule>,
    /// For what came in by its bridge and leaves the host.
    pub(super) nat: Vec<Rule>,
}

impl Chains {
    /// Those of a network; `None` of one of which nothing is decided.
    pub(super) fn of(network: &Network) -> Option<Self> {
        let bridge = network.bridge.name.clone()?;
        if !network.forward.makes_bridge() || network.forward == Forward::Open {
            return None;
        }
        let mut chains = Self {
            into: vec![Rule::new().by(Way::In, bridge.as_str()).back()],
            from: vec![Rule::new().by(Way::Out, bridge.as_str()).back()],
            nat: Vec::new(),
            bridge,
        };
        let device = network.forward.device();
        for address in &network.addresses {
            match &network.forward {
                Forward::Nat(nat) if address.address.is_ipv4() || nat.ipv6 => {
                    let into = by(Way::In, device).address_of(End::Destination, address, true);
                    chains.into.push(into.known().back());
                    chains.from.push(outward(address, device));
                    chains.nat.extend(translations(address, nat));
                }
                Forward::Nat(_) | Forward::Route { .. } => {
                    let into = by(Way::In, device).address_of(End::Destination, address, true);
                    chains.into.push(into.back());
                    chains.from.push(outward(address, device));
                }
                _ => {}
            }
        }
        chains.into.push(Rule::new().counted().reject());
        chains.from.push(Rule::new().counted().reject());
        Some(chains)
    }
}

fn by(way: Way, device: Option<&InterfaceName>) -> Rule {
    match device {
        Some(device) => Rule::new().by(way, device.as_str()),
        None => Rule::new(),
    }
}

fn outward(address: &NetworkAddress, device: Option<&InterfaceName>) -> Rule {
    by(Way::Out, device)
        .address_of(End::Source, address, true)
        .back()
}

impl Rule {
    fn address_of(self, end: End, network: &NetworkAddress, is: bool) -> Self {
        self.address(end, network.first(), network.prefix, is)
    }
}

/// What becomes of the sources of what goes out.
fn translations(address: &NetworkAddress, nat: &Nat) -> Vec<Rule> {
    // Everybody on the link is on it, whatever link that is.
    let links: &[(IpAddr, u8)] = match address.address {
        IpAddr::V4(_) => &[
            (IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), 24),
            (IpAddr::V4(Ipv4Addr::BROADCAST), 32),
        ],
        IpAddr::V6(_) => &[(IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0)), 16)],
    };
    let links = links.iter();
    let mut rules: Vec<Rule> = links
        .map(|(group, prefix)| {
            Rule::new()
                .address(End::Destination, *group, *prefix, true)
                .back()
        })
        .collect();
    let out = || {
        by(Way::Out, nat.device.as_ref())
            .address_of(End::Source, address, true)
            .address_of(End::Destination, address, false)
    };
    let range = nat.addresses.filter(|_| address.address.is_ipv4());
    let to = |rule: Rule, ports| match range {
        Some(range) => rule.source(range, ports),
        None => rule.masquerade(ports),
    };
    let said = |ports: PortRange| (ports.first, ports.last);
    let ports = Some(nat.ports.map_or(PORTS, said));
    rules.push(to(out().of(TCP), ports));
    rules.push(to(out().of(UDP), ports));
    rules.push(to(out(), None));
    rules
}
