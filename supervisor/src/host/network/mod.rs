//! Virtual networks on the host: what of it each has, made, kept, changed and taken away.
//!
//! ```text
//!   network actor ── NetworkHost ──► Host ─┬─ links.rs     bridge, addresses, routes     rtnetlink
//!                                          ├─ settings.rs  forwarding, IPv6 of the bridge   /proc/sys/net
//!                                          ├─ rules.rs     what passes and is translated   nf_tables
//!                                          │    tables.rs, keeper.rs
//!                                          ├─ bandwidth.rs  of a network as a whole        tc, nf_tables
//!                                          └─ server.rs    dnsmasq in its jail             a process
//!                                               configuration.rs
//! ```
//!
//! What lives here: how each is made, and made again; all that another supervisor must know of it is noted before. What
//! may not: who is connected to a network, and what a definition means (`crate::network`).
//!
//! Calls are made on threads that may wait. All of it is in the network namespace of the calling thread.
//!
//! ## Decisions
//!
//! 1. 2026-11: the host's other rules are not touched, and nothing in another table lets pass what they drop: a host
//!    whose policy drops what is forwarded, or comes in, has to name the bridge itself (`rules.rs` says which ports).
//! 2. 2026-11: a network is refused where the host reaches its addresses already: one of the host's own or a route of
//!    its main table within it, or a link that has them all. A route to more than it by way of a router is none: the
//!    network is nearer.
//! 3. 2026-11: bandwidth of a network whose bridge is the host's, or none, is refused as not supported rather than left
//!    out: it would be shared with others.

mod bandwidth;
mod configuration;
mod failure;
mod keeper;
mod links;
mod rules;
mod server;
mod settings;
mod tables;

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use reeve_ipc::model::{Forward, InterfaceName, Network, NetworkUuid, PortLink, networks_overlap};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use self::bandwidth::Limit;
use self::failure::{host, host_io, refused, taken, unsupported};
use self::keeper::Rules;
use self::links::{Bridge, Links, Reached};
use self::rules::Chains;
use self::server::{Changed, Places};
use self::settings::Settings;
use super::reason;
use super::worker_binary::WorkerBinary;
use crate::network::host::{
    Connection, NetworkHost, NetworkHostError, NetworkResources, Note, ServerProcess,
};

/// Where what is written of networks is.
#[derive(Debug, Clone)]
pub struct Directories {
    /// What a later supervisor of the same boot needs, in memory; passed through by the servers.
    pub run: PathBuf,
    /// What survives: the books of servers. Passed through by them, too.
    pub state: PathBuf,
}

/// The host's networks, of one supervisor.
#[derive(Debug)]
pub struct Host {
    directories: Directories,
    rules: Rules,
    settings: Settings,
    /// Our own program that jails servers; looked for when one is started where there is none.
    launcher: Option<OwnedFd>,
    dnsmasq: PathBuf,
}

impl Host {
    /// With the programs at their usual places. Nothing is looked for or made before the first network.
    #[must_use]
    pub fn new(directories: Directories) -> Self {
        Self {
            directories,
            rules: Rules::default(),
            settings: Settings::default(),
            launcher: None,
            dnsmasq: PathBuf::from(server::PROGRAM),
        }
    }

    /// The same with the program that jails servers, which calls [`reeve_sandbox::service::run_if_launcher`] first
    /// thing: for embedders and tests.
    #[must_use]
    pub fn with_launcher(self, launcher: OwnedFd) -> Self {
        let launcher = Some(launcher);
        Self { launcher, ..self }
    }

    /// The same with dnsmasq elsewhere.
    #[must_use]
    pub fn with_dnsmasq(self, dnsmasq: PathBuf) -> Self {
        Self { dnsmasq, ..self }
    }

    fn launcher(&self) -> Result<OwnedFd, NetworkHostError> {
        let copied = match &self.launcher {
            Some(launcher) => rustix::io::fcntl_dupfd_cloexec(launcher, 0),
            None => {
                let binary = WorkerBinary::find().map_err(|error| host(error.to_string()))?;
                rustix::io::fcntl_dupfd_cloexec(binary.as_fd(), 0)
            }
        };
        copied.map_err(|errno| host(format!("cannot open the launcher: {}", reason(errno))))
    }

    fn places(&self, uuid: NetworkUuid) -> Places {
        Places::of(&self.directories, uuid)
    }
}

/// One network's call: what it is about, and what is noted of it.
struct Work<'a, 'n> {
    host: &'a Host,
    network: &'a Network,
    bridge: Bridge,
    links: Links,
    resources: NetworkResources,
    note: Note<'n>,
}

impl<'a, 'n> Work<'a, 'n> {
    fn new(
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

    fn refused<'b>(
        &'b self,
        what: &'b str,
    ) -> impl Fn(Errno) -> NetworkHostError + use<'b, 'a, 'n> {
        move |errno| refused(what, name(self.network), errno)
    }

    fn bridge(&self) -> &'a str {
        let name = self.network.bridge.name.as_ref();
        name.map_or("", InterfaceName::as_str)
    }

    /// The index of its bridge, which is made where it is not there.
    fn make_bridge(&mut self) -> Result<u32, NetworkHostError> {
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
    fn check(&mut self) -> Result<(), NetworkHostError> {
        let reached = self.links.reached();
        let reached = reached.map_err(self.refused("compare the addresses"))?;
        let own = self.links.find(self.bridge());
        let own = own.map_err(self.refused("see the bridge"))?;
        let own = own.map(|link| link.index);
        for address in &self.network.addresses {
            let ours = (address.first(), address.prefix);
            let other = reached
                .iter()
                .find(|other| Some(other.index) != own && collides(ours, other));
            if let Some(other) = other {
                let link = self.link_name(other.index);
                let (first, prefix) = ours;
                return Err(taken(format!(
                    "network {first}/{prefix} is already in use by interface {link}"
                )));
            }
        }
        if settings::forwards_ipv6(self.network) {
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
    fn set_up(&mut self, index: u32) -> Result<(), NetworkHostError> {
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
        let plan = self
            .host
            .settings
            .plan(self.network, &self.resources.settings)?;
        if plan != self.resources.settings {
            self.resources.settings.clone_from(&plan);
            (self.note)(&self.resources)?;
        }
        self.host.settings.apply(self.network.uuid, &plan)?;
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
    fn serve(&mut self) -> Result<(), NetworkHostError> {
        let places = self.host.places(self.network.uuid);
        let running = self.resources.server.clone();
        if !self.network.needs_server() {
            self.end_server()?;
            return places.remove();
        }
        let changed = places.write(self.network, self.bridge())?;
        if let Some(server) = running.filter(|server| server::watch(server).is_some()) {
            match changed {
                Changed::Nothing => return Ok(()),
                Changed::Hosts => return server::reload(&server),
                Changed::Configuration => self.end_server()?,
            }
        }
        let launcher = self.host.launcher()?;
        let (resources, note) = (&mut self.resources, &mut self.note);
        let noted = |server: &ServerProcess| {
            resources.server = Some(server.clone());
            note(resources)
        };
        let started = server::start(&launcher, &self.host.dnsmasq, self.network, &places, noted);
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

/// Whether the host reaches by `other` what is on a network.
fn collides(ours: (std::net::IpAddr, u8), other: &Reached) -> bool {
    let within = other.prefix >= ours.1;
    networks_overlap(ours, (other.address, other.prefix)) && (within || !other.behind)
}

fn name(network: &Network) -> &str {
    network.name.as_str()
}

fn bridge_taken(name: &str) -> NetworkHostError {
    taken(format!(
        "there is an interface '{name}' on the host already: give the network's bridge another name"
    ))
}

/// Its bridge; `None` of a network that makes none, of which there is nothing to make.
fn bridge_of(network: &Network) -> Result<Option<Bridge>, NetworkHostError> {
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

impl NetworkHost for Host {
    fn start(
        &self,
        network: &Network,
        note: Note<'_>,
    ) -> Result<NetworkResources, NetworkHostError> {
        let Some(bridge) = bridge_of(network)? else {
            return Ok(NetworkResources::default());
        };
        let mut work = Work::new(self, network, bridge, NetworkResources::default(), note)?;
        let found = work.links.find(work.bridge());
        if found.map_err(work.refused("see the bridge"))?.is_some() {
            return Err(bridge_taken(work.bridge()));
        }
        work.check()?;
        let index = work.make_bridge()?;
        let done = work.set_up(index).and_then(|()| work.serve());
        let resources = work.resources;
        match done {
            Ok(()) => Ok(resources),
            Err(error) => {
                if let Err(left) = self.stop(network, &resources) {
                    tracing::warn!(network = %network.name, "what was made of it is left: {left}");
                }
                Err(error)
            }
        }
    }

    fn adopt(
        &self,
        network: &Network,
        resources: &NetworkResources,
        note: Note<'_>,
    ) -> Result<NetworkResources, NetworkHostError> {
        let Some(bridge) = bridge_of(network)? else {
            return Ok(resources.clone());
        };
        let mut work = Work::new(self, network, bridge, resources.clone(), note)?;
        let found = work.links.find(work.bridge());
        let index = match found.map_err(work.refused("see the bridge"))? {
            Some(link) if link.is_bridge => {
                work.links
                    .set(link.index, &work.bridge)
                    .map_err(|errno| refused("set the bridge", name(network), errno))?;
                link.index
            }
            Some(_) => return Err(bridge_taken(work.bridge())),
            None => work.make_bridge()?,
        };
        work.set_up(index)?;
        work.serve()?;
        Ok(work.resources)
    }

    fn update(
        &self,
        before: &Network,
        after: &Network,
        resources: &NetworkResources,
        note: Note<'_>,
    ) -> Result<NetworkResources, NetworkHostError> {
        let Some(bridge) = bridge_of(after)? else {
            return Ok(resources.clone());
        };
        if before.bridge.name != after.bridge.name || !before.forward.makes_bridge() {
            return Err(unsupported(format!(
                "another bridge of network '{}' takes a new start of it",
                after.name
            )));
        }
        let mut work = Work::new(self, after, bridge, resources.clone(), note)?;
        work.check()?;
        let done = work.change(before);
        let resources = work.resources;
        let Err(error) = done else {
            return Ok(resources);
        };
        let back = bridge_of(before)?.ok_or_else(|| error.clone())?;
        let mut work = Work::new(self, before, back, resources, work.note)?;
        if let Err(left) = work.change(after) {
            tracing::error!(network = %before.name, "it cannot be made again as it was: {left}");
        }
        Err(error)
    }

    fn stop(
        &self,
        network: &Network,
        resources: &NetworkResources,
    ) -> Result<(), NetworkHostError> {
        let mut left = None;
        let mut note = |done: Result<(), NetworkHostError>| {
            if let Err(error) = done {
                left.get_or_insert(error);
            }
        };
        if let Some(server) = &resources.server {
            note(server::end(server));
        }
        note(self.places(network.uuid).remove());
        if let Some(bridge) = &resources.bridge {
            let removed = self.rules.remove(network.uuid, bridge.as_str());
            note(removed.map_err(|errno| refused("remove the rules", name(network), errno)));
            let removed = self.rules.limit(bridge.as_str(), None);
            note(removed.map_err(|errno| refused("remove the limit", name(network), errno)));
            let deleted = delete_bridge(bridge, network);
            note(deleted.map_err(|errno| refused("remove the bridge", name(network), errno)));
        }
        note(self.settings.release(network.uuid, &resources.settings));
        left.map_or(Ok(()), Err)
    }

    fn connect(&self, connection: &Connection<'_>) -> Result<(), NetworkHostError> {
        let (tap, port) = (connection.interface, connection.port);
        match &port.link {
            PortLink::Bridge(bridge) => super::tap::rejoin(tap, bridge, port.mtu, port.isolated)
                .map_err(|error| host(error.to_string())),
            // A macvtap is where it was made for as long as it is there.
            PortLink::Direct { .. } => Ok(()),
        }
    }

    fn leases(&self, network: &Network) -> Result<Option<OwnedFd>, NetworkHostError> {
        if !network
            .addresses
            .iter()
            .any(|address| address.dhcp.is_some())
        {
            return Ok(None);
        }
        let places = self.places(network.uuid);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        match rustix::fs::open(places.leases(), flags, Mode::empty()) {
            Ok(book) => Ok(Some(book)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(host_io("cannot open", places.leases(), &errno.into())),
        }
    }

    fn watch(&self, _: NetworkUuid, resources: &NetworkResources) -> Option<OwnedFd> {
        resources.server.as_ref().and_then(server::watch)
    }
}

impl Work<'_, '_> {
    /// Has it be what its definition says, of which `before` is what it was.
    fn change(&mut self, before: &Network) -> Result<(), NetworkHostError> {
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
        let needed = settings::needed(self.network);
        let (kept, freed): (Vec<_>, Vec<_>) = noted
            .into_iter()
            .partition(|(name, _)| needed.contains(&name.as_str()));
        if !freed.is_empty() {
            self.host.settings.release(self.network.uuid, &freed)?;
            self.resources.settings = kept;
            (self.note)(&self.resources)?;
        }
        self.serve()
    }
}

/// Deletes the bridge that was made for a network; one of its name with another address is somebody else's.
fn delete_bridge(bridge: &InterfaceName, network: &Network) -> Result<(), Errno> {
    let mut links = Links::open()?;
    match links.find(bridge.as_str())? {
        Some(link) if link.is_bridge && network.mac.is_none_or(|mac| link.has(mac)) => {
            links.delete(link.index)
        }
        _ => Ok(()),
    }
}
