//! What a run-time status looks like in the run directory.
//!
//! It outlives the supervisor that wrote it, so an upgraded one must read its predecessor's: it has
//! a schema of its own. Where a start has come to is told by what is there: no resources is none
//! recorded, no process is none made, not launched is one that ends by itself.

use std::path::PathBuf;

use reeve_ipc::api::view::{AgentTimeout, ShutOffReason};
use reeve_ipc::model::DevicePlace;
use reeve_ipc::spec::{MacAddress, PciSlot};
use serde::{Deserialize, Serialize};

use super::schema::{self, SchemaError, v2, v3};
use crate::domain::actor::{Intents, LiveRecord};
use crate::domain::driver::{DeviceResources, ProcessIdentity, Resources};
use crate::domain::world::Status;
use crate::host::tap::{LentAddress, MacvtapRecord, TapId};

const SCHEMA: u32 = 2;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StatusV2 {
    schema: u32,
    started_unix_ms: u64,
    intents: IntentsV1,
    resources: ResourcesV1,
    definition: v3::Domain,
    /// Absent where no client has said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    agent_timeout: Option<AgentTimeoutV1>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum AgentTimeoutV1 {
    Block,
    Default,
    Seconds(u32),
}

/// Of a supervisor before there were devices.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StatusV1 {
    #[serde(rename = "schema")]
    _schema: u32,
    started_unix_ms: u64,
    intents: IntentsV1,
    resources: ResourcesV1,
    definition: v2::Domain,
}

impl StatusV1 {
    const SCHEMA: u32 = 1;
}

impl From<StatusV1> for StatusV2 {
    fn from(status: StatusV1) -> Self {
        Self {
            schema: SCHEMA,
            started_unix_ms: status.started_unix_ms,
            intents: status.intents,
            resources: status.resources,
            definition: status.definition.into(),
            agent_timeout: None,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IntentsV1 {
    stopping: Option<StoppingV1>,
    restart_after_resets: Option<u64>,
    shutting_down: bool,
    /// Absent in those that were written before there was one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    for_host: bool,
    destroy_at_boot_ms: Option<u64>,
    auto_destroy: bool,
    /// As for `for_host`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    tuning: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tuned_before: Option<Box<v3::Domain>>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    asks_memory: bool,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoppingV1 {
    Unknown,
    Shutdown,
    Destroyed,
    Crashed,
    Failed,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ResourcesV1 {
    uid: u32,
    own_uid: bool,
    cgroup: Option<PathBuf>,
    socket: PathBuf,
    /// 32 hexadecimal digits.
    digest: String,
    process: Option<ProcessV1>,
    /// Absent but while a machine is handed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    successor: Option<ProcessV1>,
    launched: bool,
    /// Absent in those that were written before there were any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    devices: Vec<DeviceV2>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeviceV2 {
    address: u8,
    /// Of a port of the controller there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    port: Option<u8>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    taps: Vec<String>,
    /// The taps' numbers; absent in those that were written before they were.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tap_numbers: Vec<Option<i32>>,
    /// Absent in those that were written before there were any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    macvtaps: Vec<MacvtapV2>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    sockets: Vec<PathBuf>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MacvtapV2 {
    name: String,
    number: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lent: Option<LentAddressV2>,
}

/// The address of a device that its guest has for itself.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LentAddressV2 {
    device_number: i32,
    was: String,
    given: String,
}

impl TryFrom<MacvtapV2> for MacvtapRecord {
    type Error = SchemaError;

    fn try_from(macvtap: MacvtapV2) -> Result<Self, SchemaError> {
        let mac = |text: String| {
            let mac = text.parse::<MacAddress>();
            mac.map_err(|error| SchemaError::Form(format!("macvtaps: {error}")))
        };
        let lent = macvtap.lent.map(|lent| {
            Ok::<_, SchemaError>(LentAddress {
                index: lent.device_number,
                was: mac(lent.was)?,
                given: mac(lent.given)?,
            })
        });
        Ok(Self {
            name: macvtap.name,
            index: macvtap.number,
            lent: lent.transpose()?,
        })
    }
}

impl From<&MacvtapRecord> for MacvtapV2 {
    fn from(macvtap: &MacvtapRecord) -> Self {
        let MacvtapRecord { name, index, lent } = macvtap;
        Self {
            name: name.clone(),
            number: *index,
            lent: lent.as_ref().map(|lent| LentAddressV2 {
                device_number: lent.index,
                was: lent.was.to_string(),
                given: lent.given.to_string(),
            }),
        }
    }
}

impl TryFrom<DeviceV2> for DeviceResources {
    type Error = SchemaError;

    fn try_from(device: DeviceV2) -> Result<Self, SchemaError> {
        let slot = PciSlot::try_from(device.address);
        Ok(Self {
            place: DevicePlace {
                slot: slot.map_err(|error| SchemaError::Form(format!("devices: {error}")))?,
                port: device.port,
            },
            taps: device
                .taps
                .into_iter()
                .zip(
                    device
                        .tap_numbers
                        .into_iter()
                        .chain(std::iter::repeat(None)),
                )
                .map(|(name, index)| TapId { name, index })
                .collect(),
            macvtaps: device
                .macvtaps
                .into_iter()
                .map(TryInto::try_into)
                .collect::<Result<_, SchemaError>>()?,
            sockets: device.sockets,
        })
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProcessV1 {
    pid: u32,
    start_time_ticks: u64,
    boot_id: String,
}

impl From<&ProcessIdentity> for ProcessV1 {
    fn from(process: &ProcessIdentity) -> Self {
        Self {
            pid: process.pid,
            start_time_ticks: process.start_ticks,
            boot_id: process.boot_id.clone(),
        }
    }
}

impl From<ProcessV1> for ProcessIdentity {
    fn from(process: ProcessV1) -> Self {
        Self {
            pid: process.pid,
            start_ticks: process.start_time_ticks,
            boot_id: process.boot_id,
        }
    }
}

/// Reads a status of any known version.
///
/// # Errors
/// [`SchemaError`].
pub fn decode(text: &[u8]) -> Result<Status, SchemaError> {
    let status: StatusV2 = match schema::schema_of(text)? {
        SCHEMA => schema::read(text)?,
        StatusV1::SCHEMA => schema::read::<StatusV1>(text)?.into(),
        found if found > SCHEMA => return Err(SchemaError::Newer { found }),
        found => return Err(SchemaError::Unknown { found }),
    };
    let resources = status.resources;
    let digest = u128::from_str_radix(&resources.digest, 16)
        .ok()
        .filter(|_| resources.digest.len() == 32)
        .ok_or_else(|| SchemaError::Form("digest: not 32 hexadecimal digits".to_owned()))?;
    let intents = status.intents;
    Ok(Status {
        record: LiveRecord {
            definition: status.definition.try_into()?,
            intents: Intents {
                stopping: intents.stopping.map(Into::into),
                restart_after_resets: intents.restart_after_resets,
                shutting_down: intents.shutting_down,
                for_host: intents.for_host,
                destroy_at_boot_ms: intents.destroy_at_boot_ms,
                auto_destroy: intents.auto_destroy,
                tuning: intents.tuning,
                tuned_before: intents
                    .tuned_before
                    .map(|before| (*before).try_into().map(Box::new))
                    .transpose()?,
                asks_memory: intents.asks_memory,
            },
            started_ms: status.started_unix_ms,
            agent_timeout: status.agent_timeout.map(Into::into),
        },
        resources: Resources {
            uid: resources.uid,
            own_uid: resources.own_uid,
            cgroup: resources.cgroup,
            socket: resources.socket,
            digest: digest.to_be_bytes(),
            process: resources.process.map(Into::into),
            successor: resources.successor.map(Into::into),
            launched: resources.launched,
            devices: resources
                .devices
                .into_iter()
                .map(TryInto::try_into)
                .collect::<Result<_, SchemaError>>()?,
        },
    })
}

/// Writes a status, for people to read too.
///
/// # Errors
/// What cannot be said in JSON: a path that is not UTF-8.
pub fn encode(status: &Status) -> Result<Vec<u8>, SchemaError> {
    // Taken apart field by field, so that a field that is not kept does not compile.
    let Status { record, resources } = status;
    let LiveRecord {
        definition,
        intents,
        started_ms,
        agent_timeout,
    } = record;
    let Intents {
        stopping,
        restart_after_resets,
        shutting_down,
        for_host,
        destroy_at_boot_ms,
        auto_destroy,
        tuning,
        tuned_before,
        asks_memory,
    } = intents;
    let Resources {
        uid,
        own_uid,
        cgroup,
        socket,
        digest,
        process,
        successor,
        launched,
        devices,
    } = resources;
    schema::pretty(&StatusV2 {
        schema: SCHEMA,
        started_unix_ms: *started_ms,
        intents: IntentsV1 {
            stopping: stopping.map(Into::into),
            restart_after_resets: *restart_after_resets,
            shutting_down: *shutting_down,
            for_host: *for_host,
            destroy_at_boot_ms: *destroy_at_boot_ms,
            auto_destroy: *auto_destroy,
            tuning: *tuning,
            tuned_before: tuned_before
                .as_deref()
                .map(|before| Box::new(before.into())),
            asks_memory: *asks_memory,
        },
        resources: ResourcesV1 {
            uid: *uid,
            own_uid: *own_uid,
            cgroup: cgroup.clone(),
            socket: socket.clone(),
            digest: format!("{:032x}", u128::from_be_bytes(*digest)),
            process: process.as_ref().map(Into::into),
            successor: successor.as_ref().map(Into::into),
            launched: *launched,
            devices: devices
                .iter()
                .map(|device| DeviceV2 {
                    address: device.place.slot.number(),
                    port: device.place.port,
                    taps: device.taps.iter().map(|tap| tap.name.clone()).collect(),
                    tap_numbers: device.taps.iter().map(|tap| tap.index).collect(),
                    macvtaps: device.macvtaps.iter().map(Into::into).collect(),
                    sockets: device.sockets.clone(),
                })
                .collect(),
        },
        definition: definition.into(),
        agent_timeout: agent_timeout.map(Into::into),
    })
}

impl From<AgentTimeout> for AgentTimeoutV1 {
    fn from(timeout: AgentTimeout) -> Self {
        match timeout {
            AgentTimeout::Block => Self::Block,
            AgentTimeout::Default => Self::Default,
            AgentTimeout::Seconds(seconds) => Self::Seconds(seconds),
        }
    }
}

impl From<AgentTimeoutV1> for AgentTimeout {
    fn from(timeout: AgentTimeoutV1) -> Self {
        match timeout {
            AgentTimeoutV1::Block => Self::Block,
            AgentTimeoutV1::Default => Self::Default,
            AgentTimeoutV1::Seconds(seconds) => Self::Seconds(seconds),
        }
    }
}

impl From<ShutOffReason> for StoppingV1 {
    fn from(reason: ShutOffReason) -> Self {
        match reason {
            ShutOffReason::Unknown => Self::Unknown,
            ShutOffReason::Shutdown => Self::Shutdown,
            ShutOffReason::Destroyed => Self::Destroyed,
            ShutOffReason::Crashed => Self::Crashed,
            ShutOffReason::Failed => Self::Failed,
        }
    }
}

impl From<StoppingV1> for ShutOffReason {
    fn from(reason: StoppingV1) -> Self {
        match reason {
            StoppingV1::Unknown => Self::Unknown,
            StoppingV1::Shutdown => Self::Shutdown,
            StoppingV1::Destroyed => Self::Destroyed,
            StoppingV1::Crashed => Self::Crashed,
            StoppingV1::Failed => Self::Failed,
        }
    }
}
