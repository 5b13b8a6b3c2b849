//! Settings of the host that networks need (sysctl(8)): forwarding, and what a bridge of ours is to do by itself.
//!
//! Forwarding is the host's as a whole: it is switched on only for a network that needs it and where it is off, what it
//! was is noted with every network that needs it, and the last of them puts it back. One that somebody else changed
//! meanwhile is left. Settings of a bridge go with it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use reeve_ipc::model::{Forward, Network, NetworkUuid};

use super::NetworkHostError;
use super::failure::{host, host_io};

/// Where they are.
const SETTINGS: &str = "/proc/sys";
const IPV4: &str = "net/ipv4/ip_forward";
const IPV6: &str = "net/ipv6/conf/all/forwarding";
/// What the kernel sets to the opposite whenever forwarding of IPv4 is switched: a host that accepted no redirects would
/// do so after a network that it had for a while.
const REDIRECTS: &str = "net/ipv4/conf/all/accept_redirects";
/// What both are where packets are forwarded.
const ON: &str = "1";

/// The settings that a network needs to be on.
pub(super) fn needed(network: &Network) -> Vec<&'static str> {
    let forwards = network.forward.makes_bridge() && network.forward != Forward::Isolated;
    let has = |v4: bool| {
        network
            .addresses
            .iter()
            .any(|on| on.address.is_ipv4() == v4)
    };
    let both = [(IPV4, true), (IPV6, false)];
    let needed = both.into_iter().filter(|(_, v4)| forwards && has(*v4));
    needed.map(|(name, _)| name).collect()
}

/// Whether what a setting was stays noted with a network.
pub(super) fn keeps(network: &Network, name: &str) -> bool {
    let name = if name == REDIRECTS { IPV4 } else { name };
    needed(network).contains(&name)
}

/// Whether a network has packets of IPv6 forwarded.
pub(super) fn forwards_ipv6(network: &Network) -> bool {
    needed(network).contains(&IPV6)
}

fn path(name: &str) -> PathBuf {
    Path::new(SETTINGS).join(name)
}

fn read(name: &str) -> Result<String, NetworkHostError> {
    let path = path(name);
    let value = fs::read_to_string(&path);
    value
        .map(|value| value.trim().to_owned())
        .map_err(|error| host_io("cannot read", &path, &error))
}

fn write(name: &str, value: &str) -> Result<(), NetworkHostError> {
    let path = path(name);
    fs::write(&path, value).map_err(|error| {
        if error.kind() == std::io::ErrorKind::ReadOnlyFilesystem {
            return host(format!(
                "cannot set {}: it is read-only where reeved runs; its unit needs ReadWritePaths=/proc/sys/net, or \
                 set it yourself with 'sudo sysctl -w {}={value}'",
                path.display(),
                name.replace('/', ".")
            ));
        }
        host_io("cannot set", &path, &error)
    })
}

/// A setting that is other than it was.
#[derive(Debug, Default)]
struct Changed {
    before: String,
    by: Vec<NetworkUuid>,
}

/// The settings that are other for networks of this supervisor.
#[derive(Debug, Default)]
pub(super) struct Settings(Mutex<BTreeMap<String, Changed>>);

impl Settings {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Changed>> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to be noted with a network before [`apply`](Self::apply), with what was noted before.
    pub(super) fn plan(
        &self,
        network: &Network,
        noted: &[(String, String)],
    ) -> Result<Vec<(String, String)>, NetworkHostError> {
        let changed = self.lock();
        let mut plan = noted.to_vec();
        for name in needed(network) {
            if plan.iter().any(|(noted, _)| noted == name) {
                continue;
            }
            let before = match changed.get(name) {
                Some(changed) => changed.before.clone(),
                None => read(name)?,
            };
            if before != ON {
                plan.push((name.to_owned(), before));
                if name == IPV4 {
                    let before = match changed.get(REDIRECTS) {
                        Some(changed) => changed.before.clone(),
                        None => read(REDIRECTS)?,
                    };
                    plan.push((REDIRECTS.to_owned(), before));
                }
            }
        }
        Ok(plan)
    }

    /// Switches on what a network needs, of which what it was has been noted.
    pub(super) fn apply(
        &self,
        uuid: NetworkUuid,
        plan: &[(String, String)],
    ) -> Result<(), NetworkHostError> {
        let mut changed = self.lock();
        for (name, before) in plan {
            if name != REDIRECTS && read(name)? != ON {
                write(name, ON)?;
            }
            let entry = match changed.entry(name.clone()) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => entry.insert(Changed {
                    before: before.clone(),
                    by: Vec::new(),
                }),
            };
            if !entry.by.contains(&uuid) {
                entry.by.push(uuid);
            }
        }
        Ok(())
    }

    /// A network needs them no more: puts back what no other does.
    pub(super) fn release(
        &self,
        uuid: NetworkUuid,
        noted: &[(String, String)],
    ) -> Result<(), NetworkHostError> {
        let mut changed = self.lock();
        for (name, before) in noted {
            if let Some(entry) = changed.get_mut(name) {
                entry.by.retain(|other| *other != uuid);
                if !entry.by.is_empty() {
                    continue;
                }
            }
            if ![IPV4, IPV6, REDIRECTS].contains(&name.as_str()) {
                continue;
            }
            // Noted behind what the kernel changes it with, and so put back behind it.
            if name == REDIRECTS || read(name)? == ON {
                write(name, before)?;
            }
            changed.remove(name);
        }
        Ok(())
    }
}

/// What a bridge does by itself: it is no host that asks routers for addresses, and speaks IPv6 only where the network
/// has an address of it.
pub(super) fn of_bridge(bridge: &str, network: &Network) -> Result<(), NetworkHostError> {
    let directory = format!("net/ipv6/conf/{bridge}");
    if !path(&directory).is_dir() {
        // A kernel without IPv6.
        return Ok(());
    }
    let ipv6 = network
        .addresses
        .iter()
        .any(|address| address.address.is_ipv6());
    let disabled = if ipv6 { "0" } else { "1" };
    for (name, value) in [
        ("accept_ra", "0"),
        ("autoconf", "0"),
        ("disable_ipv6", disabled),
    ] {
        let name = format!("{directory}/{name}");
        if read(&name)? != value {
            write(&name, value)?;
        }
    }
    Ok(())
}

/// Whether an interface goes on listening to routers where the host is one itself.
pub(super) fn listens_to_routers(interface: &str) -> bool {
    read(&format!("net/ipv6/conf/{interface}/accept_ra")).is_ok_and(|value| value == "2")
}
