//! A network's addresses, what is lent of them, and its routes, in words.

use std::net::IpAddr;
use std::path::PathBuf;

use reeve_ipc::model;
use serde::{Deserialize, Serialize};

use super::{ShapeError, is_false, mac};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Address {
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
pub(super) struct Dhcp {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bootp: Option<Bootp>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ranges: Vec<Range>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    hosts: Vec<DhcpHost>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Bootp {
    file: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    server: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Range {
    first: IpAddr,
    last: IpAddr,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lease: Option<Lease>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DhcpHost {
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
pub(super) enum Lease {
    Infinite,
    Seconds(u32),
    Minutes(u32),
    Hours(u32),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Route {
    destination: IpAddr,
    prefix: u8,
    gateway: IpAddr,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metric: Option<u32>,
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
