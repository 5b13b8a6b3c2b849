//! How a network's packets reach what is not on it, in words.

use std::net::Ipv4Addr;

use reeve_ipc::model::{self, DirectMode};
use serde::{Deserialize, Serialize};

use super::{ShapeError, interface, interfaces, is_false, text};

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub(super) enum Forward {
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
pub(super) struct Nat {
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
pub(super) struct Device {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    device: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Span<T> {
    first: T,
    last: T,
}

pub(super) fn function((domain, bus, device, function): (u32, u8, u8, u8)) -> String {
    format!("{domain:04x}:{bus:02x}:{device:02x}.{function}")
}

pub(super) fn parse_function(address: &str) -> Result<(u32, u8, u8, u8), ShapeError> {
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
