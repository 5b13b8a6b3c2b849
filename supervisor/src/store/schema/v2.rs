//! Schema 2: a definition without devices. Frozen; read only. Its parts that schema 3 has unchanged are
//! used there.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::v3;

pub(in crate::store) const SCHEMA: u32 = 2;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    #[serde(rename = "schema")]
    pub(super) _schema: u32,
    /// Its place among those that start with the host, lowest first.
    #[serde(default)]
    pub(super) autostart: Option<u32>,
    pub(super) domain: Domain,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::store) struct Domain {
    pub(super) name: String,
    pub(super) uuid: Uuid,
    #[serde(default)]
    pub(super) title: Option<String>,
    #[serde(default)]
    pub(super) description: Option<String>,
    pub(super) machine: Machine,
    pub(super) vcpus: u32,
    pub(super) cpu: Cpu,
    pub(super) memory_bytes: u64,
    pub(super) boot: Boot,
    pub(super) on_power_off: OnEnd,
    pub(super) on_reboot: OnEnd,
    pub(super) on_crash: OnEnd,
    #[serde(default)]
    pub(super) limits: Limits,
    #[serde(default)]
    pub(super) pinning: Vec<Pin>,
    #[serde(default)]
    pub(super) metadata: Vec<Metadata>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Machine {
    #[serde(rename = "reeve-1.0")]
    Reeve1_0,
    #[serde(rename = "reeve-legacy-1.0")]
    ReeveLegacy1_0,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cpu {
    pub(super) tsc_deadline: bool,
    pub(super) kvmclock: bool,
    pub(super) invariant_tsc: bool,
    pub(super) transactional_memory: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub(super) enum Boot {
    BuiltIn {
        command_line: String,
    },
    Kernel {
        kernel: PathBuf,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        initrd: Option<PathBuf>,
        command_line: String,
    },
    /// Of schema 3 only.
    Firmware,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum OnEnd {
    Destroy,
    Restart,
    Preserve,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Limits {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) memory_bytes: Option<u64>,
    /// Absent in those that were written before there were any, as is the next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) memory_soft_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) memory_and_swap_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cpu_percent: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) vcpu_percent: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cpu_weight: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pids: Option<u32>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pin {
    pub(super) vcpu: u32,
    /// As in `0-3,8`.
    pub(super) host_cpus: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Metadata {
    pub(super) uri: String,
    pub(super) content: String,
}

impl From<Record> for v3::Record {
    fn from(record: Record) -> Self {
        Self {
            schema: v3::SCHEMA,
            autostart: record.autostart,
            domain: record.domain.into(),
        }
    }
}

impl From<Domain> for v3::Domain {
    fn from(domain: Domain) -> Self {
        Self {
            name: domain.name,
            uuid: domain.uuid,
            title: domain.title,
            description: domain.description,
            machine: domain.machine,
            vcpus: domain.vcpus,
            max_vcpus: None,
            cpu: domain.cpu,
            memory_bytes: domain.memory_bytes,
            boot: domain.boot,
            devices: v3::Devices::default(),
            on_power_off: domain.on_power_off,
            on_reboot: domain.on_reboot,
            on_crash: domain.on_crash,
            limits: domain.limits,
            pinning: domain.pinning,
            metadata: domain.metadata,
            generation_id: None,
            panic_port: false,
            kept: Vec::new(),
            current_memory_bytes: None,
            emulator_cpus: None,
            vcpu_quota: None,
            block_weight: None,
            block_devices: Vec::new(),
            memory_nodes: None,
        }
    }
}
