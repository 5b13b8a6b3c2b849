//! Changes of a part of a definition (libvirt procedure 291, `virNetworkUpdate`).

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{
    Dhcp, DhcpHost, DhcpRange, DnsHost, DnsService, DnsText, Forward, Network, NetworkAddress,
    NetworkError, PortGroup,
};
use crate::model::InterfaceName;
use crate::spec::words::words;

words! {
    /// What is done with a part (libvirt `virNetworkUpdateCommand`).
    EditCommand, "command of a network's update" {
        /// What matches it is replaced.
        Modify = "modify",
        /// What matches it goes.
        Delete = "delete",
        /// It comes behind the others.
        AddLast = "add-last" or "add",
        /// It comes before the others.
        AddFirst = "add-first",
    }
}

/// A part of a definition (libvirt `virNetworkUpdateSection`: those that libvirt itself can change).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkPart {
    /// A known host of DHCP: added where none has its address on the link, its id, its name or its address;
    /// modified by one of the first three; deleted where all that is said is so.
    DhcpHost {
        /// Of which address, by its place; where it is not said, of the one that gives out the family already, or
        /// the first of it.
        address: Option<u32>,
        /// Which.
        host: DhcpHost,
    },
    /// A range of DHCP; matched by both its ends, and never modified.
    DhcpRange {
        /// As above.
        address: Option<u32>,
        /// Which.
        range: DhcpRange,
    },
    /// An interface of the host; never modified.
    ForwardInterface(InterfaceName),
    /// A port group; matched by its name. Where it is modified, the rates and the isolation that it does not say stay.
    PortGroup(PortGroup),
    /// A host of DNS: added where none has its address; deleted where one, and no other, has its address or one of
    /// its names; never modified.
    DnsHost {
        /// The address; what is deleted may be found by its names alone.
        address: Option<IpAddr>,
        /// Its names.
        names: Vec<String>,
    },
    /// A text of DNS; matched by its name, and never modified.
    DnsText(DnsText),
    /// A service of DNS; matched by service, protocol, domain and target, and never modified. Where it is deleted, a
    /// domain or target that is not said is any, and no more than one may match.
    DnsService(DnsService),
}

/// A change of a part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkEdit {
    /// What is done.
    pub command: EditCommand,
    /// With what.
    pub part: NetworkPart,
}

impl Network {
    /// The definition with that change, which is valid where this one is.
    ///
    /// # Errors
    /// [`NetworkError`]: what is to be changed is not there, what is to be added is, or what comes of it is not
    /// valid.
    pub fn edited(&self, edit: &NetworkEdit) -> Result<Self, NetworkError> {
        let mut network = self.clone();
        network.apply(edit)?;
        network.validate()?;
        Ok(network)
    }

    fn apply(&mut self, edit: &NetworkEdit) -> Result<(), NetworkError> {
        let command = edit.command;
        match &edit.part {
            NetworkPart::DhcpHost { address, host } => {
                let v4 = host.mac.is_some() || host.address.is_some_and(|a| a.is_ipv4());
                let known = host.mac.is_some() || host.address.is_some();
                let hosts = &mut self.dhcp(*address, known.then_some(v4))?.hosts;
                let what = format!("host {} of DHCP", host.called());
                change(hosts, command, host, &what, |other| match command {
                    EditCommand::Modify => other.is_same(host),
                    EditCommand::Delete => other.is_all_of(host),
                    EditCommand::AddFirst | EditCommand::AddLast => other.shares(host),
                })
            }
            NetworkPart::DhcpRange { address, range } => {
                let v4 = range.first.is_ipv4();
                let ranges = &mut self.dhcp(*address, Some(v4))?.ranges;
                let what = format!("range {} to {}", range.first, range.last);
                never_modified(command, "a range of DHCP")?;
                change(ranges, command, range, &what, |other| {
                    (other.first, other.last) == (range.first, range.last)
                })
            }
            NetworkPart::ForwardInterface(name) => {
                never_modified(command, "an interface")?;
                let word = self.forward.word().unwrap_or("none");
                let Forward::Direct { devices, .. } = &mut self.forward else {
                    return Err(NetworkError::NotOfForward(word));
                };
                let what = format!("interface '{name}'");
                change(devices, command, name, &what, |other| other == name)
            }
            NetworkPart::PortGroup(group) => {
                let what = format!("port group '{}'", group.name);
                let mut group = group.clone();
                let mut groups = self.port_groups.iter();
                // Not every client can say all of it: what one does not say is not taken away.
                if let (EditCommand::Modify, Some(there)) =
                    (command, groups.find(|there| there.name == group.name))
                {
                    group.inbound = group.inbound.or(there.inbound);
                    group.outbound = group.outbound.or(there.outbound);
                    group.isolated = group.isolated.or(there.isolated);
                }
                change(&mut self.port_groups, command, &group, &what, |other| {
                    other.name == group.name
                })
            }
            NetworkPart::DnsHost { address, names } => {
                never_modified(command, "a host of DNS")?;
                let same = |other: &DnsHost| {
                    // A name may have several addresses.
                    let named = || names.iter().any(|name| other.names.contains(name));
                    *address == Some(other.address) || (command == EditCommand::Delete && named())
                };
                let called = address.map_or_else(|| names.join(", "), |it| it.to_string());
                let what = format!("host {called} of DNS");
                let hosts = &mut self.dns.hosts;
                let host = match (command, *address) {
                    (EditCommand::Delete, _) => return delete(hosts, &what, same),
                    (_, None) => return Err(NetworkError::DnsHostAddress),
                    (_, Some(address)) => DnsHost {
                        address,
                        names: names.clone(),
                    },
                };
                change(hosts, command, &host, &what, same)
            }
            NetworkPart::DnsText(text) => {
                never_modified(command, "a text of DNS")?;
                let what = format!("text '{}' of DNS", text.name);
                change(&mut self.dns.texts, command, text, &what, |other| {
                    other.name == text.name
                })
            }
            NetworkPart::DnsService(service) => {
                never_modified(command, "a service of DNS")?;
                let what = format!("service '{}' of DNS", service.service);
                let any = command == EditCommand::Delete;
                let fits = |wanted: &Option<String>, there: &Option<String>| {
                    wanted == there || (any && wanted.is_none())
                };
                change(&mut self.dns.services, command, service, &what, |other| {
                    (&other.service, &other.protocol) == (&service.service, &service.protocol)
                        && fits(&service.domain, &other.domain)
                        && fits(&service.target, &other.target)
                })
            }
        }
    }

    /// What is given out of the address at that place, or else of the one that a change of that family means.
    fn dhcp(&mut self, place: Option<u32>, v4: Option<bool>) -> Result<&mut Dhcp, NetworkError> {
        let index = match place {
            Some(place) => usize::try_from(place).unwrap_or(usize::MAX),
            None => {
                let family =
                    |address: &NetworkAddress| v4.is_none_or(|v4| address.address.is_ipv4() == v4);
                let gives = |address: &NetworkAddress| family(address) && address.dhcp.is_some();
                let place = self.addresses.iter().position(gives);
                let place = place.or_else(|| self.addresses.iter().position(family));
                place.ok_or(NetworkError::NoAddress(0))?
            }
        };
        let address = self.addresses.get_mut(index);
        let address = address.ok_or(NetworkError::NoAddress(place.unwrap_or_default()))?;
        Ok(address.dhcp.get_or_insert_with(Dhcp::default))
    }
}

impl DhcpHost {
    fn called(&self) -> String {
        let mac = self.mac.map(|mac| mac.to_string());
        let address = self.address.as_ref().map(IpAddr::to_string);
        let name = mac
            .or_else(|| self.id.clone())
            .or_else(|| self.name.clone());
        name.or(address).unwrap_or_default()
    }

    /// Whether both are the same guest, which may be given another address.
    fn is_same(&self, other: &Self) -> bool {
        both(&self.mac, &other.mac) || both(&self.id, &other.id) || both(&self.name, &other.name)
    }

    /// Whether both have something that one host has only.
    fn shares(&self, other: &Self) -> bool {
        self.is_same(other) || both(&self.address, &other.address)
    }

    /// Whether it is all that `wanted` says, which says something.
    fn is_all_of(&self, wanted: &Self) -> bool {
        fn fits<T: PartialEq>(wanted: &Option<T>, there: &Option<T>) -> bool {
            wanted.is_none() || wanted == there
        }
        fits(&wanted.mac, &self.mac)
            && fits(&wanted.id, &self.id)
            && fits(&wanted.name, &self.name)
            && fits(&wanted.address, &self.address)
            && self.shares(wanted)
    }
}

/// Whether both say it, and the same.
fn both<T: PartialEq>(one: &Option<T>, other: &Option<T>) -> bool {
    one.is_some() && one == other
}

fn never_modified(command: EditCommand, what: &'static str) -> Result<(), NetworkError> {
    match command {
        EditCommand::Modify => Err(NetworkError::NeverModified(what)),
        _ => Ok(()),
    }
}

fn change<T: Clone>(
    list: &mut Vec<T>,
    command: EditCommand,
    item: &T,
    what: &str,
    same: impl Fn(&T) -> bool,
) -> Result<(), NetworkError> {
    if command == EditCommand::Delete {
        return delete(list, what, same);
    }
    match (command, list.iter().position(same)) {
        (EditCommand::Modify, Some(place)) => {
            if let Some(there) = list.get_mut(place) {
                *there = item.clone();
            }
        }
        (EditCommand::Modify, None) => return Err(NetworkError::NotThere(said(what))),
        (_, Some(_)) => return Err(NetworkError::There(said(what))),
        (EditCommand::AddFirst, None) => list.insert(0, item.clone()),
        (EditCommand::AddLast | EditCommand::Delete, None) => list.push(item.clone()),
    }
    Ok(())
}

/// Takes away the one that is the same.
fn delete<T>(list: &mut Vec<T>, what: &str, same: impl Fn(&T) -> bool) -> Result<(), NetworkError> {
    let found = list.iter().enumerate().filter(|(_, item)| same(item));
    let mut places = found.map(|(place, _)| place);
    match (places.next(), places.next()) {
        (None, _) => Err(NetworkError::NotThere(said(what))),
        (Some(place), None) => {
            list.remove(place);
            Ok(())
        }
        (Some(_), Some(_)) => Err(NetworkError::Several(said(what))),
    }
}

/// It is said before it is judged.
fn said(what: &str) -> String {
    what.chars().filter(|c| !c.is_control()).take(128).collect()
}
