//! Schema 1: a definition without autostart, labels, pinning and CPU weight. Frozen; read only.

use std::path::PathBuf;

use serde::Deserialize;
use uuid::Uuid;

use super::v2;

pub(in crate::store) const SCHEMA: u32 = 1;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    #[serde(rename = "schema")]
    _schema: u32,
    domain: Domain,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Domain {
    name: String,
    uuid: Uuid,
    machine: Machine,
    vcpus: u32,
    cpu: Cpu,
    memory_bytes: u64,
    boot: Boot,
    on_power_off: OnEnd,
    on_reboot: OnReboot,
    on_crash: OnEnd,
    #[serde(default)]
    limits: Limits,
}

#[derive(Debug, Deserialize)]
enum Machine {
    #[serde(rename = "reeve-1.0")]
    Reeve1_0,
    #[serde(rename = "reeve-legacy-1.0")]
    ReeveLegacy1_0,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cpu {
    tsc_deadline: bool,
    kvmclock: bool,
    invariant_tsc: bool,
    transactional_memory: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum Boot {
    BuiltIn {
        command_line: String,
    },
    Kernel {
        kernel: PathBuf,
        #[serde(default)]
        initrd: Option<PathBuf>,
        command_line: String,
    },
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OnEnd {
    Destroy,
    Preserve,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OnReboot {
    Restart,
    Destroy,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Limits {
    memory_bytes: Option<u64>,
    cpu_percent: Option<u32>,
    pids: Option<u32>,
}

impl From<Record> for v2::Record {
    fn from(record: Record) -> Self {
        let domain = record.domain;
        Self {
            _schema: v2::SCHEMA,
            autostart: None,
            domain: v2::Domain {
                name: domain.name,
                uuid: domain.uuid,
                title: None,
                description: None,
                machine: match domain.machine {
                    Machine::Reeve1_0 => v2::Machine::Reeve1_0,
                    Machine::ReeveLegacy1_0 => v2::Machine::ReeveLegacy1_0,
                },
                vcpus: domain.vcpus,
                cpu: v2::Cpu {
                    tsc_deadline: domain.cpu.tsc_deadline,
                    kvmclock: domain.cpu.kvmclock,
                    invariant_tsc: domain.cpu.invariant_tsc,
                    transactional_memory: domain.cpu.transactional_memory,
                },
                memory_bytes: domain.memory_bytes,
                boot: match domain.boot {
                    Boot::BuiltIn { command_line } => v2::Boot::BuiltIn { command_line },
                    Boot::Kernel {
                        kernel,
                        initrd,
                        command_line,
                    } => v2::Boot::Kernel {
                        kernel,
                        initrd,
                        command_line,
                    },
                },
                on_power_off: domain.on_power_off.into(),
                on_reboot: match domain.on_reboot {
                    OnReboot::Restart => v2::OnEnd::Restart,
                    OnReboot::Destroy => v2::OnEnd::Destroy,
                },
                on_crash: domain.on_crash.into(),
                limits: v2::Limits {
                    memory_bytes: domain.limits.memory_bytes,
                    memory_soft_bytes: None,
                    memory_and_swap_bytes: None,
                    cpu_percent: domain.limits.cpu_percent,
                    vcpu_percent: None,
                    cpu_weight: None,
                    pids: domain.limits.pids,
                },
                pinning: Vec::new(),
                metadata: Vec::new(),
            },
        }
    }
}

impl From<OnEnd> for v2::OnEnd {
    fn from(action: OnEnd) -> Self {
        match action {
            OnEnd::Destroy => Self::Destroy,
            OnEnd::Preserve => Self::Preserve,
        }
    }
}
