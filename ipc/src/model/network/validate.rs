//! The rules of a definition, and what is filled in when one is taken.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::Component;

use super::address::{first_of, last_of};
use super::text::{
    is_bridge_name, is_client_id, is_file, is_host_name, is_label, is_text, is_word_of_dhcp,
};
use super::{
    Dhcp, DhcpHost, DhcpRange, Dns, Forward, HostDeviceSource, LeaseTime, MAX_NETWORK_BYTES,
    Network, NetworkAddress, NetworkError, NetworkRoute, PortGroup, Vlan,
};
use crate::model::devices::check_rate;
use crate::spec::{MIN_MTU, MacAddress, Rate};

/// The most addresses of a range of DHCP, as libvirt has it.
const MAX_RANGE: u128 = 65_536;
/// The most seconds of `forward_delay` that the kernel takes.
const MAX_DELAY: u32 = 30;
/// What a decoder counts for all but texts and lists, at most.
const FIXED_BYTES: usize = 1024;
/// What it counts for an element of a list but its texts, at most.
const ELEMENT_BYTES: usize = 160;

impl Network {
    /// Fills in what a definition may leave out and does not need the host for: the bridge's Ethernet address,
    /// drawn from the UUID.
    pub fn complete(&mut self) {
        if self.forward.makes_bridge() && self.mac.is_none() {
            let [a, b, c, ..] = *self.uuid.0.as_bytes();
            // The octets that libvirt draws with; one of a single station.
            self.mac = MacAddress::try_from([0x52, 0x54, 0, a, b, c]).ok();
        }
    }

    /// Looks at all that can be judged without the host.
    ///
    /// # Errors
    /// [`NetworkError`] names the first thing that is wrong.
    pub fn validate(&self) -> Result<(), NetworkError> {
        self.labels.validate()?;
        self.validate_forward()?;
        if let Some(mtu) = self.mtu.filter(|mtu| *mtu < MIN_MTU) {
            return Err(NetworkError::Mtu(mtu));
        }
        if let Some(name) = &self.bridge.name {
            if !is_bridge_name(name.as_str()) {
                return Err(text(
                    "name of a bridge: letters, digits, '.', '_' and '-'",
                    name.as_str(),
                ));
            }
        }
        if self.bridge.delay > MAX_DELAY {
            return Err(NetworkError::Delay(self.bridge.delay));
        }
        if let Some(domain) = &self.domain {
            name("name of a domain", &domain.name)?;
        }
        self.dns.validate()?;
        self.validate_addresses()?;
        for route in &self.routes {
            self.validate_route(route)?;
        }
        rates([self.inbound, self.outbound])?;
        self.vlan.as_ref().map_or(Ok(()), Vlan::validate)?;
        self.validate_port_groups()?;
        match self.bytes() {
            bytes if bytes > MAX_NETWORK_BYTES => Err(NetworkError::Size(bytes)),
            _ => Ok(()),
        }
    }

    fn validate_forward(&self) -> Result<(), NetworkError> {
        let word = self.forward.word().unwrap_or("none");
        match &self.forward {
            Forward::Nat(nat) => {
                if let Some(ports) = nat.ports.filter(|p| p.first == 0 || p.first > p.last) {
                    return Err(NetworkError::Ports(ports.first, ports.last));
                }
                if let Some((first, last)) = nat.addresses {
                    if first > last {
                        return Err(NetworkError::Range(first.into(), last.into()));
                    }
                    station(first.into())?;
                    station(last.into())?;
                }
            }
            Forward::Direct { devices, .. } => {
                if devices.is_empty() {
                    return Err(NetworkError::NoDevice(word));
                }
                let mut seen = HashSet::new();
                if let Some(twice) = devices.iter().find(|device| !seen.insert(*device)) {
                    return Err(NetworkError::DeviceTwice(twice.clone()));
                }
            }
            Forward::HostDevices {
                source: HostDeviceSource::Functions(functions),
                ..
            } if functions.is_empty() => return Err(NetworkError::NoDevice(word)),
            _ => {}
        }
        if self.forward.makes_bridge() {
            let own = [
                (self.open_vswitch, "a port of Open vSwitch"),
                (self.vlan.is_some(), "a VLAN"),
            ];
            let said = own.into_iter().find(|(said, _)| *said);
            return said.map_or(Ok(()), |(_, what)| Err(NetworkError::OwnBridge(what)));
        }
        let own = [
            (
                self.bridge != super::BridgeSettings::default(),
                "a bridge's name, STP or delay",
            ),
            (self.mac.is_some(), "an Ethernet address"),
            (self.domain.is_some(), "a domain"),
            (self.dns != Dns::default(), "DNS"),
            (!self.addresses.is_empty(), "an address"),
            (!self.routes.is_empty(), "a route"),
            (self.ipv6, "IPv6 among guests"),
        ];
        match own.into_iter().find(|(said, _)| *said) {
            Some((_, what)) => Err(NetworkError::NoBridge {
                what,
                forward: word,
            }),
            None => Ok(()),
        }
    }

    fn validate_addresses(&self) -> Result<(), NetworkError> {
        for (index, address) in self.addresses.iter().enumerate() {
            address.validate()?;
            for other in self.addresses.iter().take(index) {
                if other.overlaps(address) {
                    let (a, b) = (other.address, address.address);
                    return Err(NetworkError::AddressesOverlap(a, b));
                }
                let family = other.address.is_ipv4() == address.address.is_ipv4();
                if family && other.dhcp.is_some() && address.dhcp.is_some() {
                    let name = if address.address.is_ipv4() {
                        "IPv4"
                    } else {
                        "IPv6"
                    };
                    return Err(NetworkError::DhcpTwice(name));
                }
            }
        }
        Ok(())
    }

    fn validate_route(&self, route: &NetworkRoute) -> Result<(), NetworkError> {
        let (destination, prefix) = (route.destination, route.prefix);
        if prefix > bits(destination) || first_of(destination, prefix) != destination {
            return Err(NetworkError::Destination(destination, prefix));
        }
        if prefix < least_prefix(destination) {
            return Err(NetworkError::TooWide(destination, prefix));
        }
        if destination.is_ipv4() != route.gateway.is_ipv4()
            || !self.addresses.iter().any(|on| on.contains(route.gateway))
        {
            return Err(NetworkError::Gateway(route.gateway));
        }
        if route.metric == Some(0) {
            return Err(NetworkError::Metric);
        }
        Ok(())
    }

    fn validate_port_groups(&self) -> Result<(), NetworkError> {
        for (index, group) in self.port_groups.iter().enumerate() {
            group.validate()?;
            if group.vlan.is_some() && self.forward.makes_bridge() {
                return Err(NetworkError::OwnBridge("a VLAN"));
            }
            let twice =
                |other: &PortGroup| other.name == group.name || (other.default && group.default);
            if self.port_groups.iter().take(index).any(twice) {
                return Err(NetworkError::PortGroupTwice(group.name.clone()));
            }
        }
        Ok(())
    }

    /// At least what a decoder counts for it.
    fn bytes(&self) -> usize {
        let labels = &self.labels;
        let texts = [&labels.title, &labels.description];
        let texts = texts.into_iter().flatten().map(String::len);
        let metadata = labels.metadata.iter();
        let metadata = metadata.map(|e| e.uri.len() + e.content.len() + 2 * size_of::<u64>());
        let devices = match &self.forward {
            Forward::Direct { devices, .. } => devices.len(),
            Forward::HostDevices {
                source: HostDeviceSource::Functions(functions),
                ..
            } => functions.len(),
            _ => 0,
        };
        let addresses = self.addresses.iter().map(NetworkAddress::bytes);
        let tags = |vlan: &Option<Vlan>| vlan.as_ref().map_or(0, |vlan| vlan.tags.len());
        let groups = self.port_groups.iter();
        let groups = groups
            .map(|group| ELEMENT_BYTES + group.name.len() + ELEMENT_BYTES * tags(&group.vlan));
        let domain = self.domain.as_ref().map_or(0, |domain| domain.name.len());
        let elements = devices + self.routes.len() + tags(&self.vlan);
        FIXED_BYTES
            + self.name.as_str().len()
            + domain
            + elements * ELEMENT_BYTES
            + self.dns.bytes()
            + texts
                .chain(metadata)
                .chain(addresses)
                .chain(groups)
                .sum::<usize>()
    }
}

impl NetworkAddress {
    fn validate(&self) -> Result<(), NetworkError> {
        let (address, prefix) = (self.address, self.prefix);
        if !(1..=bits(address)).contains(&prefix) {
            return Err(NetworkError::Prefix { address, prefix });
        }
        if prefix < least_prefix(address) {
            return Err(NetworkError::TooWide(self.first(), prefix));
        }
        self.guest(address)?;
        if let Some(root) = &self.tftp_root {
            if !address.is_ipv4() {
                return Err(NetworkError::Ipv4Only("TFTP"));
            }
            let plain =
                |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
            let text = root.to_str().is_some_and(is_file);
            if !root.is_absolute() || !root.components().all(plain) || !text {
                return Err(NetworkError::Directory(root.clone()));
            }
        }
        self.dhcp
            .as_ref()
            .map_or(Ok(()), |dhcp| self.validate_dhcp(dhcp))
    }

    fn validate_dhcp(&self, dhcp: &Dhcp) -> Result<(), NetworkError> {
        let v4 = self.address.is_ipv4();
        if !v4 && self.prefix < 64 {
            return Err(NetworkError::Dhcp6Prefix(self.prefix));
        }
        for (index, range) in dhcp.ranges.iter().enumerate() {
            self.guest(range.first)?;
            self.guest(range.last)?;
            range.validate()?;
            let overlaps =
                |other: &&DhcpRange| other.first <= range.last && range.first <= other.last;
            if let Some(other) = dhcp.ranges.iter().take(index).find(overlaps) {
                return Err(NetworkError::RangesOverlap(other.first, range.first));
            }
        }
        let mut seen = HashSet::new();
        for host in &dhcp.hosts {
            self.validate_host(host)?;
            for key in host.keys() {
                if !seen.insert(key.clone()) {
                    return Err(NetworkError::DhcpHostTwice(key));
                }
            }
        }
        if let Some(bootp) = &dhcp.bootp {
            if !v4 {
                return Err(NetworkError::Ipv4Only("<bootp>"));
            }
            if !is_file(&bootp.file) {
                return Err(text("name of a file to boot", &bootp.file));
            }
            let server = bootp.server.as_deref();
            let good = |server: &str| server.parse::<IpAddr>().is_ok() || is_host_name(server);
            if let Some(server) = server.filter(|server| !good(server)) {
                return Err(text("address or name of a server", server));
            }
        }
        Ok(())
    }

    fn validate_host(&self, host: &DhcpHost) -> Result<(), NetworkError> {
        if self.address.is_ipv4() {
            if host.id.is_some() || (host.mac.is_none() && host.name.is_none()) {
                let known = "its Ethernet address, its name or both, with IPv4";
                return Err(NetworkError::DhcpHost(known));
            }
        } else if host.mac.is_some() || (host.id.is_none() && host.name.is_none()) {
            return Err(NetworkError::DhcpHost(
                "its id, its name or both, with IPv6",
            ));
        }
        if host.address.is_none() && host.name.is_none() {
            return Err(NetworkError::DhcpHost(
                "more than that: it is given an address or a name",
            ));
        }
        if let Some(id) = host.id.as_deref().filter(|id| !is_client_id(id)) {
            return Err(text("id of a client", id));
        }
        if let Some(given) = &host.name {
            name("name of a host", given)?;
            if is_word_of_dhcp(given) {
                return Err(text("name of a host, but a word or a time of DHCP", given));
            }
        }
        host.lease.map_or(Ok(()), LeaseTime::validate)?;
        host.address.map_or(Ok(()), |address| self.guest(address))
    }

    /// That a station can have that address here.
    fn guest(&self, address: IpAddr) -> Result<(), NetworkError> {
        station(address)?;
        let (first, last) = (self.first(), self.last());
        let own = match address {
            // A network of two has neither its own address nor everybody's (RFC 3021).
            IpAddr::V4(_) => self.prefix < 31 && (address == first || address == last),
            IpAddr::V6(_) => false,
        };
        if !self.contains(address) || own {
            return Err(NetworkError::NotOnNetwork {
                address,
                network: first,
                prefix: self.prefix,
            });
        }
        Ok(())
    }

    /// Whether addresses of `other` are on this one's network.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.first()) || other.contains(self.first())
    }

    fn bytes(&self) -> usize {
        let root = self
            .tftp_root
            .as_ref()
            .map_or(0, |root| root.as_os_str().len());
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let dhcp = self.dhcp.as_ref().map_or(0, |dhcp| {
            let hosts = dhcp.hosts.iter();
            let hosts = hosts.map(|host| ELEMENT_BYTES + text(&host.id) + text(&host.name));
            let bootp = dhcp.bootp.as_ref();
            let bootp = bootp.map_or(0, |bootp| bootp.file.len() + text(&bootp.server));
            ELEMENT_BYTES * dhcp.ranges.len() + hosts.sum::<usize>() + bootp
        });
        2 * ELEMENT_BYTES + root + dhcp
    }
}

impl DhcpRange {
    fn validate(&self) -> Result<(), NetworkError> {
        let length = match (self.first, self.last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                u128::from(last.to_bits()).checked_sub(first.to_bits().into())
            }
            (IpAddr::V6(first), IpAddr::V6(last)) => last.to_bits().checked_sub(first.to_bits()),
            _ => None,
        };
        if length.is_none_or(|length| length >= MAX_RANGE) {
            return Err(NetworkError::Range(self.first, self.last));
        }
        self.lease.map_or(Ok(()), LeaseTime::validate)
    }
}

impl LeaseTime {
    fn validate(self) -> Result<(), NetworkError> {
        match self {
            Self::Infinite | Self::Seconds(120..) | Self::Minutes(2..) | Self::Hours(1..) => Ok(()),
            Self::Seconds(_) | Self::Minutes(_) | Self::Hours(_) => Err(NetworkError::Lease),
        }
    }
}

impl DhcpHost {
    /// What no other may have.
    fn keys(&self) -> impl Iterator<Item = String> {
        let mac = self.mac.map(|mac| mac.to_string());
        let address = self.address.map(|address| address.to_string());
        [mac, self.id.clone(), self.name.clone(), address]
            .into_iter()
            .flatten()
    }
}

impl Dns {
    fn validate(&self) -> Result<(), NetworkError> {
        for forwarder in &self.forwarders {
            if forwarder.address.is_none() && forwarder.domain.is_none() {
                return Err(NetworkError::Forwarder);
            }
            if let Some(domain) = &forwarder.domain {
                name("name of a domain", domain)?;
            }
        }
        let mut addresses = HashSet::new();
        for host in &self.hosts {
            if host.names.is_empty() {
                return Err(NetworkError::NoNames(host.address));
            }
            if !addresses.insert(host.address) {
                let (what, name) = ("a host of DNS with", host.address.to_string());
                return Err(NetworkError::DnsTwice { what, name });
            }
            host.names
                .iter()
                .try_for_each(|given| name("name of a host", given))?;
        }
        let mut names = HashSet::new();
        for txt in &self.texts {
            name("name of a text", &txt.name)?;
            if !is_text(&txt.value) {
                return Err(text("text of DNS", &txt.value));
            }
            if !names.insert(&txt.name) {
                let (what, name) = ("a text of", txt.name.clone());
                return Err(NetworkError::DnsTwice { what, name });
            }
        }
        for service in &self.services {
            for label in [&service.service, &service.protocol] {
                if !is_label(label) {
                    return Err(text("name of a service or protocol", label));
                }
            }
            for given in [&service.domain, &service.target].into_iter().flatten() {
                // A target of nothing but a dot says that there is no such service.
                if given != "." {
                    name("name of a domain or host", given)?;
                }
            }
            let more = [service.port, service.priority, service.weight];
            if service.target.is_none() && more.iter().any(Option::is_some) {
                return Err(NetworkError::NoTarget);
            }
        }
        Ok(())
    }

    fn bytes(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let forwarders = self
            .forwarders
            .iter()
            .map(|f| ELEMENT_BYTES + text(&f.domain));
        let names = |names: &[String]| {
            let names = names.iter().map(|name| name.len() + size_of::<String>());
            names.sum::<usize>()
        };
        let hosts = self
            .hosts
            .iter()
            .map(|host| ELEMENT_BYTES + names(&host.names));
        let texts = self.texts.iter();
        let texts = texts.map(|txt| ELEMENT_BYTES + txt.name.len() + txt.value.len());
        let services = self.services.iter().map(|service| {
            let fixed = service.service.len() + service.protocol.len();
            ELEMENT_BYTES + fixed + text(&service.domain) + text(&service.target)
        });
        forwarders.chain(hosts).chain(texts).chain(services).sum()
    }
}

impl PortGroup {
    fn validate(&self) -> Result<(), NetworkError> {
        if self.name.is_empty() || !is_text(&self.name) {
            return Err(text("name of a port group", &self.name));
        }
        rates([self.inbound, self.outbound])?;
        self.vlan.as_ref().map_or(Ok(()), Vlan::validate)
    }
}

impl Vlan {
    pub(in crate::model) fn validate(&self) -> Result<(), NetworkError> {
        let mut seen = HashSet::new();
        let good = self
            .tags
            .iter()
            .all(|tag| tag.id <= 4095 && seen.insert(tag.id));
        let native = self.tags.iter().filter(|tag| tag.native.is_some()).count();
        let several = self.tags.len() > 1 || native > 0;
        if self.tags.is_empty() || !good || native > 1 || (several && !self.trunk) {
            return Err(NetworkError::Vlan);
        }
        Ok(())
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The least bits of a network or a destination: what is wider would be the host's own way out.
fn least_prefix(address: IpAddr) -> u8 {
    if address.is_ipv4() { 8 } else { 16 }
}

fn station(address: IpAddr) -> Result<(), NetworkError> {
    let everybody = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    let link_local = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
    let none = address.is_unspecified() || address.is_multicast() || address.is_loopback();
    if none || everybody || link_local {
        return Err(NetworkError::Station(address));
    }
    Ok(())
}

fn name(what: &'static str, given: &str) -> Result<(), NetworkError> {
    if is_host_name(given) {
        return Ok(());
    }
    Err(text(what, given))
}

fn text(what: &'static str, text: &str) -> NetworkError {
    let text = text.chars().filter(|c| !c.is_control()).take(64).collect();
    NetworkError::Text { what, text }
}

fn rates(rates: [Option<Rate>; 2]) -> Result<(), NetworkError> {
    for rate in rates.into_iter().flatten() {
        let refused = |error: crate::model::DeviceError| NetworkError::Rate(error.to_string());
        check_rate(rate, "the network", "bytes").map_err(refused)?;
    }
    Ok(())
}

/// Whether two networks share addresses: `a` and `b` with their prefixes.
#[must_use]
pub fn networks_overlap(a: (IpAddr, u8), b: (IpAddr, u8)) -> bool {
    a.0.is_ipv4() == b.0.is_ipv4()
        && first_of(a.0, a.1) <= last_of(b.0, b.1)
        && first_of(b.0, b.1) <= last_of(a.0, a.1)
}
