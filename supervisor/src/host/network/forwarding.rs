//! Forwarding, which is the host's as a whole: switched on for networks that need it where it is off, and put back after
//! the last of them, unless somebody else may rely on it by then.
//!
//! The kernel's one switch of a family sets it for every interface there is, and for those to come (`default`). What each
//! was is noted with every network that needs it; put back is what has the value that the switch gave it. What somebody
//! has set otherwise meanwhile stays as he set it.
//!
//! ## Decisions
//!
//! 1. 2026-11: the switch and not the settings of single interfaces. IPv4 asks that of the interface by which a packet
//!    came, so that the host's own ways out, by which answers come, would have to be found out and followed as routes
//!    change; IPv6 has needed the switch besides until lately.
//! 2. 2026-11: whoever wants forwarding and finds it on changes nothing, and nothing tells of him. What is seen is a link
//!    that has come since and has an address of its own: a bridge of containers or of libvirt's, a tunnel. With one of
//!    these forwarding stays on, and the log says so: too much left on costs less than others cut off.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use reeve_ipc::model::{Forward, InterfaceName, Network, NetworkUuid};
use rustix::io::Errno;

use super::NetworkHostError;
use super::failure::host;
use super::links::{Links, is_dealt_out};
use super::settings::{path, read, write};
use crate::host::reason;
use crate::network::host::NetworkResources;

/// What the switch and what it sets are where packets are forwarded.
const ON: &str = "1";
/// What the kernel sets to the opposite whenever forwarding of IPv4 is switched: a host that accepted no redirects would
/// do so after a network that it had for a while.
const REDIRECTS: &str = "net/ipv4/conf/all/accept_redirects";
/// What it is where packets are forwarded, unless somebody has set it since.
const REFUSED: &str = "0";

/// Which packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    const ALL: [Self; 2] = [Self::Ipv4, Self::Ipv6];

    fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::Ipv4,
            IpAddr::V6(_) => Self::Ipv6,
        }
    }

    /// The directory of its settings of interfaces.
    const fn interfaces(self) -> &'static str {
        match self {
            Self::Ipv4 => "net/ipv4/conf",
            Self::Ipv6 => "net/ipv6/conf",
        }
    }

    const fn switch(self) -> &'static str {
        match self {
            Self::Ipv4 => "net/ipv4/ip_forward",
            Self::Ipv6 => "net/ipv6/conf/all/forwarding",
        }
    }

    /// Whether a setting is noted for it.
    fn has(self, name: &str) -> bool {
        name == self.switch() || name.starts_with(self.interfaces())
    }

    /// What is to be seen of single interfaces, and of those to come.
    fn single(self) -> Vec<(String, String)> {
        let directory = self.interfaces();
        let entries = fs::read_dir(path(directory)).into_iter().flatten();
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let names = names.filter(|name| name != "all");
        let settings = names.map(|name| format!("{directory}/{name}/forwarding"));
        let mut seen: Vec<_> = settings
            // One may go meanwhile.
            .filter_map(|setting| Some((setting.clone(), read(&setting).ok()?)))
            .collect();
        seen.sort();
        seen
    }

    /// All that the switch changes, as it is; of single interfaces those that are other than the switch.
    fn now(self) -> Result<Vec<(String, String)>, NetworkHostError> {
        let switch = read(self.switch())?;
        let mut now = vec![(self.switch().to_owned(), switch.clone())];
        if self == Self::Ipv4 {
            now.push((REDIRECTS.to_owned(), read(REDIRECTS)?));
        }
        let single = self.single().into_iter();
        now.extend(single.filter(|(_, value)| *value != switch));
        Ok(now)
    }

    /// Puts back what was noted, where it is what the switch made it.
    fn put_back(self, noted: &[(String, String)]) -> Result<(), NetworkHostError> {
        let noted_of = |name: &str| noted.iter().find(|(noted, _)| noted == name);
        let Some((_, before)) = noted_of(self.switch()) else {
            return Ok(());
        };
        let is_on = read(self.switch())? == ON;
        if !is_on {
            return Ok(());
        }
        let single = self.single();
        let redirects = match noted_of(REDIRECTS).filter(|_| self == Self::Ipv4) {
            Some((_, before)) => {
                let now = read(REDIRECTS)?;
                Some(if now == REFUSED { before.clone() } else { now })
            }
            None => None,
        };
        write(self.switch(), before)?;
        if let Some(wanted) = redirects {
            write(REDIRECTS, &wanted)?;
        }
        for (name, value) in single {
            let was = noted_of(&name).map_or(before, |(_, value)| value);
            let wanted = if value == ON { was } else { &value };
            // An interface that is gone has none.
            if read(&name).is_ok_and(|now| now != *wanted) {
                write(&name, wanted)?;
            }
        }
        Ok(())
    }
}

/// What a network needs to be on.
fn needed(network: &Network) -> impl Iterator<Item = Family> {
    let forwards = network.forward.makes_bridge() && network.forward != Forward::Isolated;
    let has = move |family| {
        let mut addresses = network.addresses.iter();
        forwards && addresses.any(|on| Family::of(on.address) == family)
    };
    Family::ALL.into_iter().filter(move |family| has(*family))
}

/// Whether what a setting was stays noted with a network.
pub(super) fn keeps(network: &Network, name: &str) -> bool {
    needed(network).any(|family| family.has(name))
}

/// Whether a network has packets of IPv6 forwarded.
pub(super) fn forwards_ipv6(network: &Network) -> bool {
    needed(network).any(|family| family == Family::Ipv6)
}

/// What a family's settings were.
#[derive(Debug, Default)]
struct Changed {
    noted: Vec<(String, String)>,
    links: Option<u32>,
    by: Vec<NetworkUuid>,
}

#[derive(Debug, Default)]
struct State {
    changed: BTreeMap<Family, Changed>,
    /// Bridges of ours, which are no one else's links.
    bridges: BTreeMap<NetworkUuid, InterfaceName>,
}

impl State {
    /// A link that has come after that one and has an address of the family by somebody else.
    fn other(&self, family: Family, newest: u32) -> Result<Option<String>, Errno> {
        let mut links = Links::open()?;
        let addresses = links.addresses()?.into_iter();
        let later = addresses.filter(|own| {
            own.index > newest
                && is_dealt_out(own.index)
                && Family::of(own.address) == family
                && !is_of_link(own.address)
        });
        for own in later {
            let name = links.name(own.index)?;
            let name = name.filter(|name| self.bridges.values().all(|own| own.as_str() != name));
            if name.is_some() {
                return Ok(name);
            }
        }
        Ok(None)
    }
}

/// Whether an address is of one link alone, and nobody forwards from or to it.
fn is_of_link(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_loopback(),
        IpAddr::V6(address) => address.is_unicast_link_local() || address.is_loopback(),
    }
}

/// Forwarding for the networks of this supervisor.
#[derive(Debug, Default)]
pub(super) struct Forwarding(Mutex<State>);

impl Forwarding {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to be noted with a network before [`apply`](Self::apply), with what was noted before; `newest` gives
    /// the highest number of a link.
    pub(super) fn plan(
        &self,
        network: &Network,
        resources: &NetworkResources,
        mut newest: impl FnMut() -> Result<u32, NetworkHostError>,
    ) -> Result<NetworkResources, NetworkHostError> {
        let state = self.lock();
        let mut plan = resources.clone();
        for family in needed(network) {
            let mut noted = plan.settings.iter();
            if noted.any(|(name, _)| name == family.switch()) {
                continue;
            }
            let (noted, links) = match state.changed.get(&family) {
                Some(changed) => (changed.noted.clone(), changed.links),
                None if read(family.switch())? == ON => continue,
                None => (family.now()?, Some(newest()?)),
            };
            plan.settings.extend(noted);
            plan.links = [plan.links, links].into_iter().flatten().min();
        }
        Ok(plan)
    }

    /// Switches on what a network needs, of which what it was has been noted.
    pub(super) fn apply(
        &self,
        network: &Network,
        noted: &NetworkResources,
    ) -> Result<(), NetworkHostError> {
        let mut state = self.lock();
        if let Some(bridge) = &noted.bridge {
            state.bridges.insert(network.uuid, bridge.clone());
        }
        for family in Family::ALL {
            let own = of(family, &noted.settings);
            if own.is_empty() {
                continue;
            }
            if read(family.switch())? != ON {
                write(family.switch(), ON)?;
            }
            let changed = state.changed.entry(family).or_insert_with(|| Changed {
                noted: own,
                links: noted.links,
                by: Vec::new(),
            });
            if !changed.by.contains(&network.uuid) {
                changed.by.push(network.uuid);
            }
        }
        Ok(())
    }

    /// A network needs these no more: puts back what no other does.
    pub(super) fn release(
        &self,
        uuid: NetworkUuid,
        noted: &[(String, String)],
        links: Option<u32>,
    ) -> Result<(), NetworkHostError> {
        let mut state = self.lock();
        for family in Family::ALL {
            let own = of(family, noted);
            if own.is_empty() {
                continue;
            }
            if let Some(changed) = state.changed.get_mut(&family) {
                changed.by.retain(|other| *other != uuid);
                if !changed.by.is_empty() {
                    continue;
                }
                state.changed.remove(&family);
            }
            let other = links.map_or(Ok(None), |newest| state.other(family, newest));
            let other = other.map_err(|errno| {
                let reason = reason(errno);
                host(format!("cannot see who else needs forwarding: {reason}"))
            })?;
            match other {
                Some(link) => {
                    let setting = family.switch().replace('/', ".");
                    tracing::warn!(
                        "forwarding stays on for {link}, which has come since networks had it switched on: if it needs \
                         none, 'sudo sysctl -w {setting}=0' switches it off"
                    );
                }
                None => family.put_back(&own)?,
            }
        }
        Ok(())
    }

    /// Its bridge is none of ours any more.
    pub(super) fn forget(&self, uuid: NetworkUuid) {
        self.lock().bridges.remove(&uuid);
    }
}

fn of(family: Family, noted: &[(String, String)]) -> Vec<(String, String)> {
    let own = noted.iter().filter(|(name, _)| family.has(name));
    own.cloned().collect()
}
