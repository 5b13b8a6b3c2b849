//! What a network's definition looks like in words: in the files of the state directory, and in those that people
//! write for `reeve network define`. Frozen with the schema of the files, and apart from the model, as those of
//! domains are: a change of the model changes no file's meaning.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use reeve_ipc::model::{
    self, DirectMode, InterfaceName, InvalidName, MetadataElement, Network, NetworkError,
    NetworkPart, NetworkUuid,
};
use reeve_ipc::spec::{self, InvalidMac, MacAddress};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Why a definition in words is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// Its name.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// The name of an interface.
    #[error(transparent)]
    Interface(#[from] model::DeviceError),
    /// An Ethernet address.
    #[error(transparent)]
    Mac(#[from] InvalidMac),
    /// A rule of networks.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The address of a device of the host.
    #[error("'{0}' is no address of a PCI device, as 0000:01:00.0")]
    Function(String),
    /// No part, or several.
    #[error(
        "it says one of dhcp_host, dhcp_range, forward_interface, port_group, dns_host, dns_text and \
         dns_service"
    )]
    Parts,
    /// Both kinds of host devices, or none.
    #[error("host_devices has either a physical_function or functions")]
    HostDevices,
}

const fn is_false(value: &bool) -> bool {
    !*value
}

/// A definition in words.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkFile {
    name: String,
    /// Drawn where people leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uuid: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mac: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mtu: Option<u16>,
    #[serde(default, skip_serializing_if = "is_false")]
    ipv6: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    open_vswitch: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    trust_guest: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    isolated: bool,
    #[serde(default)]
    forward: Forward,
    #[serde(default)]
    bridge: Bridge,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    domain: Option<Domain>,
    #[serde(default)]
    dns: Dns,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    inbound: Option<Rate>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    outbound: Option<Rate>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vlan: Option<Vlan>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<Address>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    routes: Vec<Route>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    port_groups: Vec<PortGroup>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    metadata: Vec<Metadata>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    uri: String,
    content: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum Forward {
    #[default]
    Isolated,
    Nat(Nat),
    Route(Device),
    Open,
    Bridge(String),
    Direct {
        mode: DirectMode,
        devices: Vec<String>,
    },
    HostDevices {
        #[serde(default, skip_serializing_if = "is_false")]
        managed: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        physical_function: Option<String>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        functions: Vec<String>,
    },
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nat {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    #[serde(default, skip_serializing_if = "is_false")]
    ipv6: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    addresses: Option<Span<Ipv4Addr>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ports: Option<Span<u16>>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Device {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    device: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Span<T> {
    first: T,
    last: T,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bridge {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default = "yes")]
    stp: bool,
    #[serde(default)]
    delay: u32,
}

const fn yes() -> bool {
    true
}

impl Default for Bridge {
    fn default() -> Self {
        let model::BridgeSettings {
            name: _,
            stp,
            delay,
        } = model::BridgeSettings::default();
        Self {
            name: None,
            stp,
            delay,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Domain {
    name: String,
    #[serde(default, skip_serializing_if = "is_false")]
    local_only: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Dns {
    #[serde(default = "yes")]
    enabled: bool,
    #[serde(default = "yes")]
    forward_plain_names: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    forwarders: Vec<Forwarder>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    hosts: Vec<DnsHost>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    texts: Vec<Text>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    services: Vec<Service>,
}

impl Default for Dns {
    fn default() -> Self {
        Self::from(&model::Dns::default())
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Forwarder {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    domain: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DnsHost {
    address: IpAddr,
    names: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    name: String,
    value: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Service {
    service: String,
    protocol: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    domain: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    priority: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weight: Option<u16>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Address {
    address: IpAddr,
    prefix: u8,
    #[serde(default, skip_serializing_if = "is_false")]
    local_ptr: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tftp_root: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dhcp: Option<Dhcp>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Dhcp {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bootp: Option<Bootp>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ranges: Vec<Range>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    hosts: Vec<DhcpHost>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bootp {
    file: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    server: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Range {
    first: IpAddr,
    last: IpAddr,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lease: Option<Lease>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DhcpHost {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mac: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lease: Option<Lease>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Lease {
    Infinite,
    Seconds(u32),
    Minutes(u32),
    Hours(u32),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Route {
    destination: IpAddr,
    prefix: u8,
    gateway: IpAddr,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metric: Option<u32>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rate {
    per_second: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    burst: Option<Burst>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Burst {
    per_second: u64,
    seconds: u32,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PortGroup {
    name: String,
    #[serde(default, skip_serializing_if = "is_false")]
    default: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trust_guest: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    isolated: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    inbound: Option<Rate>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    outbound: Option<Rate>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vlan: Option<Vlan>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Vlan {
    #[serde(default, skip_serializing_if = "is_false")]
    trunk: bool,
    tags: Vec<Tag>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tag {
    id: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    native: Option<Native>,
}

/// One part of a definition in words, as `reeve network update` reads it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartFile {
    /// Of DHCP: which address of the network, by its place.
    #[serde(default)]
    address: Option<u32>,
    #[serde(default)]
    dhcp_host: Option<DhcpHost>,
    #[serde(default)]
    dhcp_range: Option<Range>,
    #[serde(default)]
    forward_interface: Option<String>,
    #[serde(default)]
    port_group: Option<PortGroup>,
    #[serde(default)]
    dns_host: Option<DnsHostPart>,
    #[serde(default)]
    dns_text: Option<Text>,
    #[serde(default)]
    dns_service: Option<Service>,
}

/// A host of DNS; what is deleted needs no address, or no names.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DnsHostPart {
    #[serde(default)]
    address: Option<IpAddr>,
    #[serde(default)]
    names: Vec<String>,
}

impl PartFile {
    /// The part that it says.
    ///
    /// # Errors
    /// [`ShapeError`]: it says none, or several.
    pub fn into_part(self) -> Result<NetworkPart, ShapeError> {
        let address = self.address;
        let host = self.dhcp_host.map(model::DhcpHost::try_from).transpose()?;
        let parts = [
            host.map(|host| NetworkPart::DhcpHost { address, host }),
            self.dhcp_range.map(|range| NetworkPart::DhcpRange {
                address,
                range: range.into(),
            }),
            interfaces(self.forward_interface)?.map(NetworkPart::ForwardInterface),
            self.port_group
                .map(|group| NetworkPart::PortGroup(group.into())),
            self.dns_host
                .map(|DnsHostPart { address, names }| NetworkPart::DnsHost { address, names }),
            self.dns_text.map(|text| NetworkPart::DnsText(text.into())),
            self.dns_service
                .map(|service| NetworkPart::DnsService(service.into())),
        ];
        let mut parts = parts.into_iter().flatten();
        match (parts.next(), parts.next()) {
            (Some(part), None) => Ok(part),
            _ => Err(ShapeError::Parts),
        }
    }
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Native {
    Tagged,
    Untagged,
}

fn text(name: &InterfaceName) -> String {
    name.as_str().to_owned()
}

fn interface(name: String) -> Result<InterfaceName, ShapeError> {
    Ok(name.parse::<InterfaceName>()?)
}

fn interfaces(names: Option<String>) -> Result<Option<InterfaceName>, ShapeError> {
    names.map(interface).transpose()
}

fn mac(mac: Option<String>) -> Result<Option<MacAddress>, ShapeError> {
    Ok(mac.map(|mac| mac.parse()).transpose()?)
}

fn function((domain, bus, device, function): (u32, u8, u8, u8)) -> String {
    format!("{domain:04x}:{bus:02x}:{device:02x}.{function}")
}

fn parse_function(address: &str) -> Result<(u32, u8, u8, u8), ShapeError> {
    let parsed = || {
        let (rest, function) = address.rsplit_once('.')?;
        let mut parts = rest.split(':');
        let domain = u32::from_str_radix(parts.next()?, 16).ok()?;
        let bus = u8::from_str_radix(parts.next()?, 16).ok()?;
        let device = u8::from_str_radix(parts.next()?, 16).ok()?;
        let function = function.parse().ok()?;
        parts
            .next()
            .is_none()
            .then_some((domain, bus, device, function))
    };
    parsed().ok_or_else(|| ShapeError::Function(address.chars().take(64).collect()))
}

impl From<&Network> for NetworkFile {
    fn from(network: &Network) -> Self {
        let Network {
            name,
            uuid,
            labels:
                model::Labels {
                    title,
                    description,
                    metadata,
                },
            forward,
            bridge:
                model::BridgeSettings {
                    name: bridge,
                    stp,
                    delay,
                },
            mac,
            mtu,
            domain,
            dns,
            addresses,
            routes,
            ipv6,
            inbound,
            outbound,
            vlan,
            open_vswitch,
            port_groups,
            trust_guest,
            isolated,
        } = network;
        let metadata = metadata.iter().map(|element| Metadata {
            uri: element.uri.clone(),
            content: element.content.clone(),
        });
        Self {
            name: name.as_str().to_owned(),
            uuid: Some(uuid.0),
            title: title.clone(),
            description: description.clone(),
            mac: mac.map(|mac| mac.to_string()),
            mtu: *mtu,
            ipv6: *ipv6,
            open_vswitch: *open_vswitch,
            trust_guest: *trust_guest,
            isolated: *isolated,
            forward: forward.into(),
            bridge: Bridge {
                name: bridge.as_ref().map(text),
                stp: *stp,
                delay: *delay,
            },
            domain: domain.as_ref().map(|domain| Domain {
                name: domain.name.clone(),
                local_only: domain.local_only,
            }),
            dns: dns.into(),
            inbound: inbound.map(Into::into),
            outbound: outbound.map(Into::into),
            vlan: vlan.as_ref().map(Into::into),
            addresses: addresses.iter().map(Into::into).collect(),
            routes: routes.iter().map(Into::into).collect(),
            port_groups: port_groups.iter().map(Into::into).collect(),
            metadata: metadata.collect(),
        }
    }
}

impl NetworkFile {
    /// Whether it says its UUID.
    #[must_use]
    pub const fn has_uuid(&self) -> bool {
        self.uuid.is_some()
    }

    /// The network that it says, valid; of the UUID that was drawn where it says none.
    ///
    /// # Errors
    /// [`ShapeError`] names the first thing that is wrong.
    pub fn into_network(self, drawn: Uuid) -> Result<Network, ShapeError> {
        let metadata = self.metadata.into_iter();
        let domain = self
            .domain
            .map(|Domain { name, local_only }| model::NetworkDomain { name, local_only });
        let addresses: Result<_, _> = self.addresses.into_iter().map(TryInto::try_into).collect();
        let network = Network {
            name: self.name.try_into()?,
            uuid: NetworkUuid(self.uuid.unwrap_or(drawn)),
            labels: model::Labels {
                title: self.title,
                description: self.description,
                metadata: metadata
                    .map(|Metadata { uri, content }| MetadataElement { uri, content })
                    .collect(),
            },
            forward: self.forward.try_into()?,
            bridge: model::BridgeSettings {
                name: interfaces(self.bridge.name)?,
                stp: self.bridge.stp,
                delay: self.bridge.delay,
            },
            mac: mac(self.mac)?,
            mtu: self.mtu,
            domain,
            dns: self.dns.into(),
            addresses: addresses?,
            routes: self.routes.into_iter().map(Into::into).collect(),
            ipv6: self.ipv6,
            inbound: self.inbound.map(Into::into),
            outbound: self.outbound.map(Into::into),
            vlan: self.vlan.map(Into::into),
            open_vswitch: self.open_vswitch,
            port_groups: self.port_groups.into_iter().map(Into::into).collect(),
            trust_guest: self.trust_guest,
            isolated: self.isolated,
        };
        network.validate()?;
        Ok(network)
    }
}

impl From<&model::Forward> for Forward {
    fn from(forward: &model::Forward) -> Self {
        match forward {
            model::Forward::Isolated => Self::Isolated,
            model::Forward::Nat(model::Nat {
                device,
                ipv6,
                addresses,
                ports,
            }) => Self::Nat(Nat {
                device: device.as_ref().map(text),
                ipv6: *ipv6,
                addresses: addresses.map(|(first, last)| Span { first, last }),
                ports: ports.map(|model::PortRange { first, last }| Span { first, last }),
            }),
            model::Forward::Route { device } => Self::Route(Device {
                device: device.as_ref().map(text),
            }),
            model::Forward::Open => Self::Open,
            model::Forward::Bridge(name) => Self::Bridge(text(name)),
            model::Forward::Direct { mode, devices } => Self::Direct {
                mode: *mode,
                devices: devices.iter().map(text).collect(),
            },
            model::Forward::HostDevices { managed, source } => {
                let (physical_function, functions) = match source {
                    model::HostDeviceSource::PhysicalFunction(name) => {
                        (Some(text(name)), Vec::new())
                    }
                    model::HostDeviceSource::Functions(functions) => {
                        (None, functions.iter().copied().map(function).collect())
                    }
                };
                Self::HostDevices {
                    managed: *managed,
                    physical_function,
                    functions,
                }
            }
        }
    }
}

impl TryFrom<Forward> for model::Forward {
    type Error = ShapeError;

    fn try_from(forward: Forward) -> Result<Self, ShapeError> {
        Ok(match forward {
            Forward::Isolated => Self::Isolated,
            Forward::Nat(nat) => Self::Nat(model::Nat {
                device: interfaces(nat.device)?,
                ipv6: nat.ipv6,
                addresses: nat.addresses.map(|Span { first, last }| (first, last)),
                ports: nat
                    .ports
                    .map(|Span { first, last }| model::PortRange { first, last }),
            }),
            Forward::Route(Device { device }) => Self::Route {
                device: interfaces(device)?,
            },
            Forward::Open => Self::Open,
            Forward::Bridge(name) => Self::Bridge(interface(name)?),
            Forward::Direct { mode, devices } => Self::Direct {
                mode,
                devices: devices
                    .into_iter()
                    .map(interface)
                    .collect::<Result<_, _>>()?,
            },
            Forward::HostDevices {
                managed,
                physical_function,
                functions,
            } => Self::HostDevices {
                managed,
                source: match (physical_function, functions.is_empty()) {
                    (Some(name), true) => {
                        model::HostDeviceSource::PhysicalFunction(interface(name)?)
                    }
                    (None, false) => model::HostDeviceSource::Functions(
                        functions
                            .iter()
                            .map(|address| parse_function(address))
                            .collect::<Result<_, _>>()?,
                    ),
                    _ => return Err(ShapeError::HostDevices),
                },
            },
        })
    }
}

impl From<&model::Dns> for Dns {
    fn from(dns: &model::Dns) -> Self {
        let model::Dns {
            enabled,
            forward_plain_names,
            forwarders,
            hosts,
            texts,
            services,
        } = dns;
        let forwarders = forwarders
            .iter()
            .map(|model::DnsForwarder { address, domain }| Forwarder {
                address: *address,
                domain: domain.clone(),
            });
        let hosts = hosts
            .iter()
            .map(|model::DnsHost { address, names }| DnsHost {
                address: *address,
                names: names.clone(),
            });
        let texts = texts.iter().map(|model::DnsText { name, value }| Text {
            name: name.clone(),
            value: value.clone(),
        });
        let services = services.iter().cloned().map(
            |model::DnsService {
                 service,
                 protocol,
                 domain,
                 target,
                 port,
                 priority,
                 weight,
             }| Service {
                service,
                protocol,
                domain,
                target,
                port,
                priority,
                weight,
            },
        );
        Self {
            enabled: *enabled,
            forward_plain_names: *forward_plain_names,
            forwarders: forwarders.collect(),
            hosts: hosts.collect(),
            texts: texts.collect(),
            services: services.collect(),
        }
    }
}

impl From<Dns> for model::Dns {
    fn from(dns: Dns) -> Self {
        let forwarders = dns.forwarders.into_iter();
        let services = dns.services.into_iter();
        Self {
            enabled: dns.enabled,
            forward_plain_names: dns.forward_plain_names,
            forwarders: forwarders
                .map(|Forwarder { address, domain }| model::DnsForwarder { address, domain })
                .collect(),
            hosts: dns.hosts.into_iter().map(Into::into).collect(),
            texts: dns.texts.into_iter().map(Into::into).collect(),
            services: services.map(Into::into).collect(),
        }
    }
}

impl From<DnsHost> for model::DnsHost {
    fn from(DnsHost { address, names }: DnsHost) -> Self {
        Self { address, names }
    }
}

impl From<Text> for model::DnsText {
    fn from(Text { name, value }: Text) -> Self {
        Self { name, value }
    }
}

impl From<Service> for model::DnsService {
    fn from(service: Service) -> Self {
        Self {
            service: service.service,
            protocol: service.protocol,
            domain: service.domain,
            target: service.target,
            port: service.port,
            priority: service.priority,
            weight: service.weight,
        }
    }
}

impl From<Range> for model::DhcpRange {
    fn from(range: Range) -> Self {
        Self {
            first: range.first,
            last: range.last,
            lease: range.lease.map(Into::into),
        }
    }
}

impl TryFrom<DhcpHost> for model::DhcpHost {
    type Error = ShapeError;

    fn try_from(host: DhcpHost) -> Result<Self, ShapeError> {
        Ok(Self {
            mac: mac(host.mac)?,
            id: host.id,
            name: host.name,
            address: host.address,
            lease: host.lease.map(Into::into),
        })
    }
}

impl From<model::LeaseTime> for Lease {
    fn from(lease: model::LeaseTime) -> Self {
        match lease {
            model::LeaseTime::Infinite => Self::Infinite,
            model::LeaseTime::Seconds(count) => Self::Seconds(count),
            model::LeaseTime::Minutes(count) => Self::Minutes(count),
            model::LeaseTime::Hours(count) => Self::Hours(count),
        }
    }
}

impl From<Lease> for model::LeaseTime {
    fn from(lease: Lease) -> Self {
        match lease {
            Lease::Infinite => Self::Infinite,
            Lease::Seconds(count) => Self::Seconds(count),
            Lease::Minutes(count) => Self::Minutes(count),
            Lease::Hours(count) => Self::Hours(count),
        }
    }
}

impl From<&model::NetworkAddress> for Address {
    fn from(address: &model::NetworkAddress) -> Self {
        let model::NetworkAddress {
            address,
            prefix,
            local_ptr,
            dhcp,
            tftp_root,
        } = address;
        Self {
            address: *address,
            prefix: *prefix,
            local_ptr: *local_ptr,
            tftp_root: tftp_root.clone(),
            dhcp: dhcp.as_ref().map(Into::into),
        }
    }
}

impl From<&model::Dhcp> for Dhcp {
    fn from(dhcp: &model::Dhcp) -> Self {
        let model::Dhcp {
            ranges,
            hosts,
            bootp,
        } = dhcp;
        let ranges = ranges.iter().map(|range| Range {
            first: range.first,
            last: range.last,
            lease: range.lease.map(Into::into),
        });
        let hosts = hosts.iter().map(|host| DhcpHost {
            mac: host.mac.map(|mac| mac.to_string()),
            id: host.id.clone(),
            name: host.name.clone(),
            address: host.address,
            lease: host.lease.map(Into::into),
        });
        Self {
            bootp: bootp.as_ref().map(|model::Bootp { file, server }| Bootp {
                file: file.clone(),
                server: server.clone(),
            }),
            ranges: ranges.collect(),
            hosts: hosts.collect(),
        }
    }
}

impl TryFrom<Address> for model::NetworkAddress {
    type Error = ShapeError;

    fn try_from(address: Address) -> Result<Self, ShapeError> {
        Ok(Self {
            address: address.address,
            prefix: address.prefix,
            local_ptr: address.local_ptr,
            dhcp: address.dhcp.map(TryInto::try_into).transpose()?,
            tftp_root: address.tftp_root,
        })
    }
}

impl TryFrom<Dhcp> for model::Dhcp {
    type Error = ShapeError;

    fn try_from(dhcp: Dhcp) -> Result<Self, ShapeError> {
        let hosts = dhcp.hosts.into_iter().map(TryInto::try_into);
        Ok(Self {
            ranges: dhcp.ranges.into_iter().map(Into::into).collect(),
            hosts: hosts.collect::<Result<_, _>>()?,
            bootp: dhcp
                .bootp
                .map(|Bootp { file, server }| model::Bootp { file, server }),
        })
    }
}

impl From<&model::NetworkRoute> for Route {
    fn from(route: &model::NetworkRoute) -> Self {
        let model::NetworkRoute {
            destination,
            prefix,
            gateway,
            metric,
        } = *route;
        Self {
            destination,
            prefix,
            gateway,
            metric,
        }
    }
}

impl From<Route> for model::NetworkRoute {
    fn from(route: Route) -> Self {
        let Route {
            destination,
            prefix,
            gateway,
            metric,
        } = route;
        Self {
            destination,
            prefix,
            gateway,
            metric,
        }
    }
}

impl From<spec::Rate> for Rate {
    fn from(rate: spec::Rate) -> Self {
        Self {
            per_second: rate.per_second,
            burst: rate.burst.map(|burst| Burst {
                per_second: burst.per_second,
                seconds: burst.seconds,
            }),
        }
    }
}

impl From<Rate> for spec::Rate {
    fn from(rate: Rate) -> Self {
        Self {
            per_second: rate.per_second,
            burst: rate.burst.map(|burst| spec::Burst {
                per_second: burst.per_second,
                seconds: burst.seconds,
            }),
        }
    }
}

impl From<&model::PortGroup> for PortGroup {
    fn from(group: &model::PortGroup) -> Self {
        let model::PortGroup {
            name,
            default,
            inbound,
            outbound,
            vlan,
            trust_guest,
            isolated,
        } = group;
        Self {
            name: name.clone(),
            default: *default,
            trust_guest: *trust_guest,
            isolated: *isolated,
            inbound: inbound.map(Into::into),
            outbound: outbound.map(Into::into),
            vlan: vlan.as_ref().map(Into::into),
        }
    }
}

impl From<PortGroup> for model::PortGroup {
    fn from(group: PortGroup) -> Self {
        Self {
            name: group.name,
            default: group.default,
            inbound: group.inbound.map(Into::into),
            outbound: group.outbound.map(Into::into),
            vlan: group.vlan.map(Into::into),
            trust_guest: group.trust_guest,
            isolated: group.isolated,
        }
    }
}

impl From<&model::Vlan> for Vlan {
    fn from(vlan: &model::Vlan) -> Self {
        let tags = vlan.tags.iter().map(|tag| Tag {
            id: tag.id,
            native: tag.native.map(|tagged| match tagged {
                true => Native::Tagged,
                false => Native::Untagged,
            }),
        });
        Self {
            trunk: vlan.trunk,
            tags: tags.collect(),
        }
    }
}

impl From<Vlan> for model::Vlan {
    fn from(vlan: Vlan) -> Self {
        let tags = vlan.tags.into_iter().map(|tag| model::VlanTag {
            id: tag.id,
            native: tag.native.map(|native| matches!(native, Native::Tagged)),
        });
        Self {
            trunk: vlan.trunk,
            tags: tags.collect(),
        }
    }
}
