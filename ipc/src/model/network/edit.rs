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
    /// A known host of DHCP; matched by its address on the link, its id, or else by its name or address.
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
    /// A port group; matched by its name.
    PortGroup(PortGroup),
    /// A host of DNS; matched by its address, or a name of it.
    DnsHost(DnsHost),
    /// A text of DNS; matched by its name, and never modified.
    DnsText(DnsText),
    /// A service of DNS; matched by service, protocol, domain and target, and never modified.
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
                change(hosts, command, host, &what, |other| other.is_same(host))
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
                change(&mut self.port_groups, command, group, &what, |other| {
                    other.name == group.name
                })
            }
            NetworkPart::DnsHost(host) => {
                never_modified(command, "a host of DNS")?;
                let what = format!("host {} of DNS", host.address);
                change(&mut self.dns.hosts, command, host, &what, |other| {
                    other.address == host.address
                        || host.names.iter().any(|name| other.names.contains(name))
                })
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
                let key = |service: &DnsService| {
                    let DnsService {
                        service,
                        protocol,
                        domain,
                        target,
                        ..
                    } = service.clone();
                    (service, protocol, domain, target)
                };
                change(&mut self.dns.services, command, service, &what, |other| {
                    key(other) == key(service)
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

    /// Whether both are the same guest: by what each is known by first.
    fn is_same(&self, other: &Self) -> bool {
        fn both<T: PartialEq>(a: Option<&T>, b: Option<&T>) -> Option<bool> {
            Some(a? == b?)
        }
        both(self.mac.as_ref(), other.mac.as_ref())
            .or_else(|| both(self.id.as_ref(), other.id.as_ref()))
            .or_else(|| both(self.name.as_ref(), other.name.as_ref()))
            .or_else(|| both(self.address.as_ref(), other.address.as_ref()))
            .unwrap_or(false)
    }
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
    let found = list.iter().position(same);
    // It is said before it is judged.
    let what = || what.chars().filter(|c| !c.is_control()).take(128).collect();
    match (command, found) {
        (EditCommand::Modify, Some(place)) => {
            if let Some(there) = list.get_mut(place) {
                *there = item.clone();
            }
        }
        (EditCommand::Delete, Some(place)) => {
            list.remove(place);
        }
        (EditCommand::Modify | EditCommand::Delete, None) => {
            return Err(NetworkError::NotThere(what()));
        }
        (EditCommand::AddFirst | EditCommand::AddLast, Some(_)) => {
            return Err(NetworkError::There(what()));
        }
        (EditCommand::AddFirst, None) => list.insert(0, item.clone()),
        (EditCommand::AddLast, None) => list.push(item.clone()),
    }
    Ok(())
}
