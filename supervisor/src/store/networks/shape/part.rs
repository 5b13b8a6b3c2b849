//! One part of a definition in words.

use std::net::IpAddr;

use reeve_ipc::model::{self, NetworkPart};
use serde::Deserialize;

use super::addresses::{DhcpHost, Range};
use super::dns::{Service, Text};
use super::ports::PortGroup;
use super::{ShapeError, interfaces};

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
pub(super) struct DnsHostPart {
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
