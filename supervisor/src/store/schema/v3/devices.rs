//! Devices as schema 3 has them.

mod disks;
mod nics;
mod open_vswitch;

use std::path::PathBuf;

use reeve_ipc::model;
use reeve_ipc::spec;
use serde::{Deserialize, Serialize};

use self::disks::Disk;
use self::nics::Nic;
use super::SchemaError;
use crate::store::rate::Rate;

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::store::schema) struct Devices {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    disks: Vec<Disk>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    nics: Vec<Nic>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rng: Option<Rng>,
    #[serde(skip_serializing_if = "Option::is_none")]
    balloon: Option<Balloon>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vsock: Option<Vsock>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    channels: Vec<Channel>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    consoles: Vec<Console>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ports_address: Option<u8>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    shares: Vec<Share>,
    #[serde(skip_serializing_if = "Option::is_none")]
    watchdog: Option<Watchdog>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<Memory>,
}

impl Devices {
    pub(super) fn is_empty(&self) -> bool {
        self.disks.is_empty()
            && self.nics.is_empty()
            && self.rng.is_none()
            && self.balloon.is_none()
            && self.vsock.is_none()
            && self.channels.is_empty()
            && self.consoles.is_empty()
            && self.ports_address.is_none()
            && self.shares.is_empty()
            && self.watchdog.is_none()
            && self.memory.is_none()
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rng {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rate: Option<Rate>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<u8>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Balloon {
    free_page_reporting: bool,
    deflate_on_oom: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<u8>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Vsock {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cid: Option<u32>,
    path: PathBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<u8>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Channel {
    name: String,
    path: PathBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    port: Option<u8>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Console {
    path: PathBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    port: Option<u8>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Share {
    tag: String,
    source: PathBuf,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    read_only: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<u8>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Watchdog {
    action: WatchdogAction,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<u8>,
}

/// Memory that can be plugged in.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Memory {
    max_bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<u8>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum WatchdogAction {
    Reset,
    Shutdown,
    Poweroff,
    Pause,
    None,
    InjectNmi,
}

impl From<spec::WatchdogAction> for WatchdogAction {
    fn from(action: spec::WatchdogAction) -> Self {
        match action {
            spec::WatchdogAction::Reset => Self::Reset,
            spec::WatchdogAction::Shutdown => Self::Shutdown,
            spec::WatchdogAction::PowerOff => Self::Poweroff,
            spec::WatchdogAction::Pause => Self::Pause,
            spec::WatchdogAction::Nothing => Self::None,
            spec::WatchdogAction::InjectNmi => Self::InjectNmi,
        }
    }
}

impl From<WatchdogAction> for spec::WatchdogAction {
    fn from(action: WatchdogAction) -> Self {
        match action {
            WatchdogAction::Reset => Self::Reset,
            WatchdogAction::Shutdown => Self::Shutdown,
            WatchdogAction::Poweroff => Self::PowerOff,
            WatchdogAction::Pause => Self::Pause,
            WatchdogAction::None => Self::Nothing,
            WatchdogAction::InjectNmi => Self::InjectNmi,
        }
    }
}

fn from_slot(address: Option<spec::PciSlot>) -> Option<u8> {
    address.map(spec::PciSlot::number)
}

fn to_slot(address: Option<u8>) -> Result<Option<spec::PciSlot>, SchemaError> {
    let slot = address.map(spec::PciSlot::try_from).transpose();
    slot.map_err(|error| SchemaError::Address(error.to_string()))
}

impl From<&model::Devices> for Devices {
    fn from(devices: &model::Devices) -> Self {
        // Taken apart field by field, so that a field that is not kept does not compile.
        let model::Devices {
            disks,
            nics,
            rng,
            balloon,
            vsock,
            channels,
            consoles,
            ports_address,
            shares,
            watchdog,
            memory,
        } = devices;
        Self {
            disks: disks.iter().map(Into::into).collect(),
            nics: nics.iter().map(Into::into).collect(),
            rng: rng.map(|model::Rng { rate, address }| Rng {
                rate: rate.map(Into::into),
                address: from_slot(address),
            }),
            balloon: balloon.map(
                |model::Balloon {
                     free_page_reporting,
                     deflate_on_oom,
                     address,
                 }| Balloon {
                    free_page_reporting,
                    deflate_on_oom,
                    address: from_slot(address),
                },
            ),
            vsock: vsock
                .as_ref()
                .map(|model::Vsock { cid, path, address }| Vsock {
                    cid: *cid,
                    path: path.clone(),
                    address: from_slot(*address),
                }),
            channels: channels
                .iter()
                .map(|model::Channel { name, path, port }| Channel {
                    name: name.clone(),
                    path: path.clone(),
                    port: *port,
                })
                .collect(),
            consoles: consoles
                .iter()
                .map(|model::PortConsole { path, port }| Console {
                    path: path.clone(),
                    port: *port,
                })
                .collect(),
            ports_address: from_slot(*ports_address),
            shares: shares
                .iter()
                .map(
                    |model::Share {
                         tag,
                         source,
                         read_only,
                         address,
                     }| Share {
                        tag: tag.clone(),
                        source: source.clone(),
                        read_only: *read_only,
                        address: from_slot(*address),
                    },
                )
                .collect(),
            watchdog: watchdog.map(|model::Watchdog { action, address }| Watchdog {
                action: action.into(),
                address: from_slot(address),
            }),
            memory: memory.map(|model::PluggableMemory { max, address }| Memory {
                max_bytes: max.bytes(),
                address: from_slot(address),
            }),
        }
    }
}

impl TryFrom<Devices> for model::Devices {
    type Error = SchemaError;

    fn try_from(devices: Devices) -> Result<Self, SchemaError> {
        let disks: Result<_, _> = devices.disks.into_iter().map(TryInto::try_into).collect();
        let nics: Result<_, _> = devices.nics.into_iter().map(TryInto::try_into).collect();
        let rng = devices.rng.map(|rng| {
            Ok::<_, SchemaError>(model::Rng {
                rate: rng.rate.map(Into::into),
                address: to_slot(rng.address)?,
            })
        });
        let balloon = devices.balloon.map(|balloon| {
            Ok::<_, SchemaError>(model::Balloon {
                free_page_reporting: balloon.free_page_reporting,
                deflate_on_oom: balloon.deflate_on_oom,
                address: to_slot(balloon.address)?,
            })
        });
        let vsock = devices.vsock.map(|vsock| {
            Ok::<_, SchemaError>(model::Vsock {
                cid: vsock.cid,
                path: vsock.path,
                address: to_slot(vsock.address)?,
            })
        });
        let channels = devices.channels.into_iter();
        let channels =
            channels.map(|Channel { name, path, port }| model::Channel { name, path, port });
        let consoles = devices.consoles.into_iter();
        let consoles = consoles.map(|Console { path, port }| model::PortConsole { path, port });
        let shares = devices.shares.into_iter().map(|share| {
            Ok::<_, SchemaError>(model::Share {
                tag: share.tag,
                source: share.source,
                read_only: share.read_only,
                address: to_slot(share.address)?,
            })
        });
        let watchdog = devices.watchdog.map(|watchdog| {
            Ok::<_, SchemaError>(model::Watchdog {
                action: watchdog.action.into(),
                address: to_slot(watchdog.address)?,
            })
        });
        let memory = devices.memory.map(|memory| {
            Ok::<_, SchemaError>(model::PluggableMemory {
                max: model::MemorySize(memory.max_bytes),
                address: to_slot(memory.address)?,
            })
        });
        Ok(Self {
            memory: memory.transpose()?,
            watchdog: watchdog.transpose()?,
            shares: shares.collect::<Result<_, _>>()?,
            disks: disks?,
            nics: nics?,
            rng: rng.transpose()?,
            balloon: balloon.transpose()?,
            vsock: vsock.transpose()?,
            channels: channels.collect(),
            consoles: consoles.collect(),
            ports_address: to_slot(devices.ports_address)?,
        })
    }
}
