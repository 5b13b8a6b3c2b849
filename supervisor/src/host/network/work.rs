//! One call for one network, step by step: each makes what is not there, and leaves what is.

use std::net::IpAddr;

use reeve_ipc::model::{Forward, InterfaceName, Network, networks_overlap};
use rustix::io::Errno;

use super::bandwidth::{self, Limit};
use super::failure::{host, refused, taken, unsupported};
use super::links::{Bridge, Links, Reached};
use super::rules::Chains;
use super::server::{self, Unread};
use super::{Host, forwarding, settings};
use crate::network::host::{NetworkHostError, NetworkResources, Note, ServerProcess};

/// One network's call: what it is about, and what is noted of it.
pub(super) struct Work<'a, 'n> {
    host: &'a Host,
    network: &'a Network,
    pub(super) bridge: Bridge,
    pub(super) links: Links,
    pub(super) resources: NetworkResources,
    pub(super) note: Note<'n>,
}

impl<'a, 'n> Work<'a, 'n> {
    pub(super) fn new(
        host: &'a Host,
        network: &'a Network,
        bridge: Bridge,
        resources: NetworkResources,
        note: Note<'n>,
    ) -> Result<Self, NetworkHostError> {
        let links =
            Links::open().map_err(|errno| refused("see the links", name(network), errno))?;
        Ok(Self {
            host,
            network,
            bridge,
            links,
            resources,
            note,
        })
    }

    pub(super) fn refused<'b>(
        &'b self,
        what: &'b str,
    ) -> impl Fn(Errno) -> NetworkHostError + use<'b, 'a, 'n> {
        move |errno| refused(what, name(self.network), errno)
    }

    pub(super) fn bridge(&self) -> &'a str {
        let name = self.network.bridge.name.as_ref();
        name.map_or("", InterfaceName::as_str)
    }

    /// The index of its bridge, which is made where it is not there.
    pub(super) fn make_bridge(&mut self) -> Result<u32, NetworkHostError> {
        let name = self.bridge();
        self.resources.bridge = Some(self.bridge.name.clone());
        (self.note)(&self.resources)?;
        let made = self.links.make(&self.bridge);
        made.map_err(|errno| match errno {
            Errno::EXIST => bridge_taken(name),
            errno => refused("make the bridge", self::name(self.network), errno),
        })
    }

    /// Refuses addresses that the host reaches elsewhere, and forwarding that would cost it its own routes.
    pub(super) fn check(&mut self) -> Result<(), NetworkHostError> {
        self.host.tftp_roots(self.network)?;
        let reached = self.links.reached();
        let reached = reached.map_err(self.refused("compare the addresses"))?;
        let own = self.links.find(self.bridge());
        let own = own.map_err(self.refused("see the bridge"))?;
        let own = own.map(|link| link.index);
        if let Some(((first, prefix), other)) = collision(self.network, &reached, own) {
            let link = self.link_name(other.index);
            return Err(taken(format!(
                "network {first}/{prefix} is already in use by interface {link}"
            )));
        }
        for route in &self.network.routes {
            let ours = (route.destination, route.prefix);
            let mut others = reached.iter();
            let other = others.find(|other| Some(other.index) != own && collides(ours, other));
            if let Some(other) = other {
                let link = self.link_name(other.index);
                let (first, prefix) = ours;
                return Err(taken(format!(
                    "the route to {first}/{prefix} is already in use by interface {link}"
                )));
            }
        }
        if forwarding::forwards_ipv6(self.network) {
            self.check_routers()?;
        }
        Ok(())
    }

    /// A host that forwards is a router, and takes no other's word for its own default route.
    fn check_routers(&mut self) -> Result<(), NetworkHostError> {
        let routes = self
            .links
            .routes()
            .map_err(self.refused("see the routes"))?;
        for route in routes.iter().filter(|route| route.advertised) {
            let link = self.link_name(route.index);
            if !settings::listens_to_routers(&link) {
                return Err(host(format!(
                    "the host has a route of IPv6 by {link} from a router, and would lose it if it forwarded IPv6 for \
                     network '{}': 'sudo sysctl -w net.ipv6.conf.{link}.accept_ra=2' keeps it",
                    self.network.name
                )));
            }
        }
        Ok(())
    }

    fn link_name(&mut self, index: u32) -> String {
        let name = self.links.name(index).ok().flatten();
        name.unwrap_or_else(|| index.to_string())
    }

    /// What its bridge is, has and reaches; what is so already stays.
    pub(super) fn set_up(&mut self, index: u32) -> Result<(), NetworkHostError> {
        settings::of_bridge(self.bridge(), self.network)?;
        self.links
            .up(index)
            .map_err(self.refused("set the bridge up"))?;
        for address in &self.network.addresses {
            self.links.add_address(index, address).map_err(|errno| {
                refused(
                    &format!("add address {}", address.address),
                    name(self.network),
                    errno,
                )
            })?;
        }
        for route in &self.network.routes {
            let what = format!("add the route to {}/{}", route.destination, route.prefix);
            self.links
                .add_route(index, route)
                .map_err(|errno| match errno {
                    Errno::EXIST => taken(format!(
                        "the host has a route to {}/{} already, of the metric that network '{}' gives its own",
                        route.destination, route.prefix, self.network.name
                    )),
                    errno => refused(&what, name(self.network), errno),
                })?;
        }
        let (forwarding, network, links) = (&self.host.forwarding, self.network, &mut self.links);
        let plan = forwarding.plan(network, &self.resources, || {
            let newest = links.newest();
            newest.map_err(|errno| refused("see the links", name(network), errno))
        })?;
        if plan != self.resources {
            self.resources = plan;
            (self.note)(&self.resources)?;
        }
        forwarding.apply(self.network, &self.resources)?;
        self.rules()?;
        self.limits(index)
    }

    fn limits(&mut self, index: u32) -> Result<(), NetworkHostError> {
        let limited = |what: &str, needs: &str, errno: Errno| {
            let error = refused(what, name(self.network), errno);
            let needs = match errno {
                Errno::NOENT | Errno::OPNOTSUPP | Errno::PROTONOSUPPORT | Errno::INVAL => {
                    format!("; the host's kernel needs {needs}")
                }
                _ => String::new(),
            };
            host(error.message + &needs)
        };
        let inbound = Limit::inbound(self.network);
        bandwidth::shape(index, inbound)
            .map_err(|errno| limited("limit the inbound bandwidth", "sch_htb", errno))?;
        let outbound = self
            .host
            .rules
            .limit(self.bridge(), Limit::outbound(self.network));
        outbound.map_err(|errno| limited("limit the outbound bandwidth", "nft_limit", errno))
    }

    fn rules(&mut self) -> Result<(), NetworkHostError> {
        let uuid = self.network.uuid;
        match Chains::of(self.network) {
            Some(chains) => self.host.rules.put(uuid, chains),
            None => self.host.rules.remove(uuid, self.bridge()),
        }
        .map_err(|errno| {
            let mend = match errno {
                Errno::PROTONOSUPPORT | Errno::OPNOTSUPP | Errno::NOENT | Errno::INVAL => {
                    "; the host's kernel needs nf_tables with nat: 'sudo modprobe -a nf_tables nft_chain_nat nft_masq nft_ct nft_reject_inet'"
                }
                _ => "",
            };
            let error = refused("make the rules", name(self.network), errno);
            host(error.message + mend)
        })
    }

    /// Its server, as it is to be: started where there is none, or it is to read anew what it reads at its start.
    pub(super) fn serve(&mut self) -> Result<(), NetworkHostError> {
        let places = self.host.places(self.network.uuid);
        let running = self.resources.server.clone();
        if !self.network.needs_server() {
            self.end_server()?;
            return places.remove();
        }
        let unread = places.write(self.network, self.bridge())?;
        if let Some(server) = running.filter(|server| server::watch(server).is_some()) {
            let serves = match unread {
                Unread::Nothing => true,
                Unread::Hosts => server::reload(&server, &places)?,
                Unread::Configuration => false,
            };
            if serves {
                return Ok(());
            }
            self.end_server()?;
        }
        let launcher = self.host.launcher()?;
        let roots = self.host.tftp_roots(self.network)?;
        let bridge = self.links.find(self.bridge());
        let bridge = bridge.map_err(self.refused("see the bridge"))?;
        let uid = server::uid_of(bridge.map_or(0, |link| link.index));
        let (resources, note) = (&mut self.resources, &mut self.note);
        let noted = |server: &ServerProcess| {
            resources.server = Some(server.clone());
            note(resources)
        };
        let started = server::start(
            &launcher,
            &self.host.dnsmasq,
            self.network,
            &places,
            (uid, &roots),
            noted,
        );
        if started.is_err() {
            self.resources.server = None;
        }
        started.map(drop)
    }

    fn end_server(&mut self) -> Result<(), NetworkHostError> {
        match self.resources.server.take() {
            Some(server) => server::end(&server),
            None => Ok(()),
        }
    }
}

/// The first of a network's addresses that the host reaches by another link than its `own`.
pub(super) fn collision<'a>(
    network: &Network,
    reached: &'a [Reached],
    own: Option<u32>,
) -> Option<((IpAddr, u8), &'a Reached)> {
    network.addresses.iter().find_map(|address| {
        let ours = (address.first(), address.prefix);
        let mut others = reached.iter();
        let other = others.find(|other| Some(other.index) != own && collides(ours, other));
        other.map(|other| (ours, other))
    })
}

/// Whether the host reaches by `other` what is on a network.
fn collides(ours: (IpAddr, u8), other: &Reached) -> bool {
    let within = other.prefix >= ours.1;
    networks_overlap(ours, (other.address, other.prefix)) && (within || !other.behind)
}

pub(super) fn name(network: &Network) -> &str {
    network.name.as_str()
}

pub(super) fn bridge_taken(name: &str) -> NetworkHostError {
    taken(format!(
        "there is an interface '{name}' on the host already: give the network's bridge another name"
    ))
}

/// Its bridge; `None` of a network that makes none, of which there is nothing to make.
pub(super) fn bridge_of(network: &Network) -> Result<Option<Bridge>, NetworkHostError> {
    let shaped = network.inbound.is_some() || network.outbound.is_some();
    if shaped && !network.forward.makes_bridge() {
        return Err(unsupported(format!(
            "bandwidth of network '{}' as a whole is not supported, which has no bridge of its own: give it to its port \
             groups or interfaces",
            network.name
        )));
    }
    if let Forward::HostDevices { .. } = network.forward {
        return Err(unsupported(format!(
            "network '{}' hands out devices of the host, which is not supported",
            network.name
        )));
    }
    if !network.forward.makes_bridge() {
        return Ok(None);
    }
    let bridge = Bridge::of(network);
    let unnamed = || {
        host(format!(
            "the bridge of network '{}' has no name",
            network.name
        ))
    };
    bridge.ok_or_else(unnamed).map(Some)
}

impl Work<'_, '_> {
    /// Has it be what its definition says, of which `before` is what it was.
    pub(super) fn change(&mut self, before: &Network) -> Result<(), NetworkHostError> {
        let found = self.links.find(self.bridge());
        let found = found.map_err(self.refused("see the bridge"))?;
        let index = found.filter(|link| link.is_bridge).map(|link| link.index);
        let gone = || {
            host(format!(
                "the bridge of network '{}' is gone",
                self.network.name
            ))
        };
        let index = index.ok_or_else(gone)?;
        if Bridge::of(before).as_ref() != Some(&self.bridge) {
            let set = self.links.set(index, &self.bridge);
            set.map_err(self.refused("set the bridge"))?;
        }
        for route in before
            .routes
            .iter()
            .filter(|route| !self.network.routes.contains(route))
        {
            let deleted = self.links.delete_route(index, route);
            deleted.map_err(self.refused("remove a route"))?;
        }
        let places = |network: &Network| -> Vec<_> {
            let addresses = network.addresses.iter();
            addresses.map(|on| (on.address, on.prefix)).collect()
        };
        let kept = places(self.network);
        for address in &before.addresses {
            if !kept.contains(&(address.address, address.prefix)) {
                let deleted = self.links.delete_address(index, address);
                deleted.map_err(self.refused("remove an address"))?;
            }
        }
        let noted = self.resources.settings.clone();
        self.set_up(index)?;
        let (kept, freed): (Vec<_>, Vec<_>) = noted
            .into_iter()
            .partition(|(name, _)| forwarding::keeps(self.network, name));
        if !freed.is_empty() {
            let (uuid, links) = (self.network.uuid, self.resources.links);
            self.host.forwarding.release(uuid, &freed, links)?;
            self.resources.settings = kept;
            (self.note)(&self.resources)?;
        }
        self.serve()
    }
}

/// Deletes the bridge that was made for a network; one of its name with another address is somebody else's.
pub(super) fn delete_bridge(bridge: &InterfaceName, network: &Network) -> Result<(), Errno> {
    let mut links = Links::open()?;
    match links.find(bridge.as_str())? {
        Some(link) if link.is_bridge && network.mac.is_none_or(|mac| link.has(mac)) => {
            links.taps_down(link.index)?;
            links.delete(link.index)
        }
        _ => Ok(()),
    }
}
