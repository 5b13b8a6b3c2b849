//! Schema 3: the one that is written. Adds devices.

mod devices;

use reeve_ipc::api::view::DomainDefinition;
use reeve_ipc::model;
use reeve_ipc::spec;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub(super) use self::devices::Devices;
use super::v2::{Boot, Cpu, Limits, Machine, Metadata, OnEnd, Pin};
use super::{CpuSet, DomainName, DomainUuid, SchemaError};

pub(in crate::store) const SCHEMA: u32 = 3;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    pub(super) schema: u32,
    /// Its place among those that start with the host, lowest first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) autostart: Option<u32>,
    pub(super) domain: Domain,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::store) struct Domain {
    pub(super) name: String,
    pub(super) uuid: Uuid,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) title: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) description: Option<String>,
    pub(super) machine: Machine,
    pub(super) vcpus: u32,
    /// Where it can have more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) max_vcpus: Option<u32>,
    pub(super) cpu: Cpu,
    pub(super) memory_bytes: u64,
    pub(super) boot: Boot,
    #[serde(default, skip_serializing_if = "Devices::is_empty")]
    pub(super) devices: Devices,
    pub(super) on_power_off: OnEnd,
    pub(super) on_reboot: OnEnd,
    pub(super) on_crash: OnEnd,
    #[serde(default)]
    pub(super) limits: Limits,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) pinning: Vec<Pin>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) metadata: Vec<Metadata>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) generation_id: Option<GenerationId>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) panic_port: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) kept: Vec<Kept>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) current_memory_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) emulator_cpus: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) vcpu_quota: Option<Quota>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) block_weight: Option<u16>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) block_devices: Vec<BlockDevice>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) memory_nodes: Option<MemoryNodes>,
}

/// NUMA nodes of the host.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MemoryNodes {
    mode: NodeMode,
    /// As in `0-3,8`.
    nodes: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum NodeMode {
    Strict,
    Preferred,
    Interleave,
    Restrictive,
}

impl From<&model::MemoryNodes> for MemoryNodes {
    fn from(nodes: &model::MemoryNodes) -> Self {
        Self {
            mode: match nodes.mode {
                model::NodeMode::Strict => NodeMode::Strict,
                model::NodeMode::Preferred => NodeMode::Preferred,
                model::NodeMode::Interleave => NodeMode::Interleave,
                model::NodeMode::Restrictive => NodeMode::Restrictive,
            },
            nodes: nodes.nodes.to_string(),
        }
    }
}

impl TryFrom<MemoryNodes> for model::MemoryNodes {
    type Error = SchemaError;

    fn try_from(nodes: MemoryNodes) -> Result<Self, SchemaError> {
        Ok(Self {
            mode: match nodes.mode {
                NodeMode::Strict => model::NodeMode::Strict,
                NodeMode::Preferred => model::NodeMode::Preferred,
                NodeMode::Interleave => model::NodeMode::Interleave,
                NodeMode::Restrictive => model::NodeMode::Restrictive,
            },
            nodes: nodes.nodes.parse()?,
        })
    }
}

/// CPU time of each vCPU.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Quota {
    quota_us: u64,
    period_us: u32,
}

/// Bounds of one of the host's block devices.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BlockDevice {
    path: std::path::PathBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weight: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    read_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    write_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    read_operations: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    write_operations: Option<u32>,
}

impl From<&model::BlockDeviceTuning> for BlockDevice {
    fn from(device: &model::BlockDeviceTuning) -> Self {
        let model::BlockDeviceTuning {
            path,
            weight,
            read_bytes,
            write_bytes,
            read_operations,
            write_operations,
        } = device.clone();
        Self {
            path,
            weight,
            read_bytes,
            write_bytes,
            read_operations,
            write_operations,
        }
    }
}

impl From<BlockDevice> for model::BlockDeviceTuning {
    fn from(device: BlockDevice) -> Self {
        Self {
            path: device.path,
            weight: device.weight,
            read_bytes: device.read_bytes,
            write_bytes: device.write_bytes,
            read_operations: device.read_operations,
            write_operations: device.write_operations,
        }
    }
}

/// An element of a libvirt document that says nothing to this host.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::store) struct Kept {
    path: String,
    xml: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum GenerationId {
    Random,
    Fixed(Uuid),
}

impl From<&DomainDefinition> for Record {
    fn from(record: &DomainDefinition) -> Self {
        let DomainDefinition { domain, autostart } = record;
        Self {
            schema: SCHEMA,
            autostart: *autostart,
            domain: domain.into(),
        }
    }
}

impl TryFrom<Record> for DomainDefinition {
    type Error = SchemaError;

    fn try_from(record: Record) -> Result<Self, SchemaError> {
        Ok(Self {
            domain: record.domain.try_into()?,
            autostart: record.autostart,
        })
    }
}

impl From<&model::Domain> for Domain {
    fn from(domain: &model::Domain) -> Self {
        // Taken apart field by field, so that a field that is not kept does not compile.
        let model::Domain {
            name,
            uuid,
            machine,
            vcpus,
            cpu,
            memory,
            boot,
            devices,
            lifecycle,
            limits,
            pinning,
            labels,
            max_vcpus,
            platform:
                model::Platform {
                    generation_id,
                    panic_port,
                },
            kept,
            tuning:
                model::Tuning {
                    current_memory,
                    emulator_cpus,
                    vcpu_quota,
                    block:
                        model::BlockTuning {
                            weight,
                            devices: bounded,
                        },
                    memory_nodes,
                },
        } = domain;
        let model::Labels {
            title,
            description,
            metadata,
        } = labels;
        Self {
            name: name.as_str().to_owned(),
            uuid: uuid.0,
            title: title.clone(),
            description: description.clone(),
            machine: match machine {
                spec::MachineType::Reeve1_0 => Machine::Reeve1_0,
                spec::MachineType::ReeveLegacy1_0 => Machine::ReeveLegacy1_0,
            },
            vcpus: vcpus.count(),
            max_vcpus: (max_vcpus != vcpus).then(|| max_vcpus.count()),
            cpu: (*cpu).into(),
            memory_bytes: memory.bytes(),
            boot: boot.into(),
            devices: devices.into(),
            on_power_off: match lifecycle.on_power_off {
                model::OnPowerOff::Destroy => OnEnd::Destroy,
                model::OnPowerOff::Restart => OnEnd::Restart,
                model::OnPowerOff::Preserve => OnEnd::Preserve,
            },
            on_reboot: match lifecycle.on_reboot {
                model::OnReboot::Destroy => OnEnd::Destroy,
                model::OnReboot::Restart => OnEnd::Restart,
                model::OnReboot::Preserve => OnEnd::Preserve,
            },
            on_crash: match lifecycle.on_crash {
                model::OnCrash::Destroy => OnEnd::Destroy,
                model::OnCrash::Restart => OnEnd::Restart,
                model::OnCrash::Preserve => OnEnd::Preserve,
            },
            limits: (*limits).into(),
            pinning: pinning
                .iter()
                .map(|model::VcpuPin { vcpu, cpus }| Pin {
                    vcpu: *vcpu,
                    host_cpus: cpus.to_string(),
                })
                .collect(),
            metadata: metadata
                .iter()
                .map(|model::MetadataElement { uri, content }| Metadata {
                    uri: uri.clone(),
                    content: content.clone(),
                })
                .collect(),
            generation_id: match generation_id {
                model::GenerationId::Absent => None,
                model::GenerationId::Random => Some(GenerationId::Random),
                model::GenerationId::Fixed(id) => Some(GenerationId::Fixed(*id)),
            },
            panic_port: *panic_port,
            kept: kept
                .iter()
                .map(|model::KeptElement { path, xml }| Kept {
                    path: path.clone(),
                    xml: xml.clone(),
                })
                .collect(),
            current_memory_bytes: current_memory.map(model::MemorySize::bytes),
            emulator_cpus: emulator_cpus.as_ref().map(ToString::to_string),
            vcpu_quota: vcpu_quota.map(
                |model::CpuQuota {
                     quota_us,
                     period_us,
                 }| Quota {
                    quota_us,
                    period_us,
                },
            ),
            block_weight: *weight,
            block_devices: bounded.iter().map(Into::into).collect(),
            memory_nodes: memory_nodes.as_ref().map(Into::into),
        }
    }
}

impl From<spec::CpuSwitches> for Cpu {
    fn from(cpu: spec::CpuSwitches) -> Self {
        let spec::CpuSwitches {
            tsc_deadline,
            kvmclock,
            invariant_tsc,
            transactional_memory,
        } = cpu;
        Self {
            tsc_deadline,
            kvmclock,
            invariant_tsc,
            transactional_memory,
        }
    }
}

impl From<&model::BootSource> for Boot {
    fn from(boot: &model::BootSource) -> Self {
        match boot {
            model::BootSource::BuiltIn { command_line } => Self::BuiltIn {
                command_line: command_line.clone(),
            },
            model::BootSource::Kernel(model::KernelBoot {
                kernel,
                initrd,
                command_line,
            }) => Self::Kernel {
                kernel: kernel.clone(),
                initrd: initrd.clone(),
                command_line: command_line.clone(),
            },
            model::BootSource::Firmware => Self::Firmware,
        }
    }
}

impl From<model::ResourceLimits> for Limits {
    fn from(limits: model::ResourceLimits) -> Self {
        let model::ResourceLimits {
            memory,
            memory_soft,
            memory_and_swap,
            cpu_percent,
            vcpu_percent,
            cpu_weight,
            pids,
        } = limits;
        Self {
            memory_bytes: memory.map(model::MemorySize::bytes),
            memory_soft_bytes: memory_soft.map(model::MemorySize::bytes),
            memory_and_swap_bytes: memory_and_swap.map(model::MemorySize::bytes),
            cpu_percent,
            vcpu_percent,
            cpu_weight,
            pids,
        }
    }
}

impl TryFrom<Domain> for model::Domain {
    type Error = SchemaError;

    fn try_from(domain: Domain) -> Result<Self, SchemaError> {
        let pinning: Result<Vec<model::VcpuPin>, SchemaError> = domain
            .pinning
            .into_iter()
            .map(|Pin { vcpu, host_cpus }| {
                let cpus: CpuSet = host_cpus.parse()?;
                Ok(model::VcpuPin { vcpu, cpus })
            })
            .collect();
        let emulator_cpus = domain.emulator_cpus.map(|cpus| cpus.parse::<CpuSet>());
        let loaded = Self {
            name: DomainName::try_from(domain.name)?,
            uuid: DomainUuid(domain.uuid),
            machine: match domain.machine {
                Machine::Reeve1_0 => spec::MachineType::Reeve1_0,
                Machine::ReeveLegacy1_0 => spec::MachineType::ReeveLegacy1_0,
            },
            vcpus: model::Vcpus::try_from(domain.vcpus)?,
            max_vcpus: model::Vcpus::try_from(domain.max_vcpus.unwrap_or(domain.vcpus))?,
            cpu: spec::CpuSwitches {
                tsc_deadline: domain.cpu.tsc_deadline,
                kvmclock: domain.cpu.kvmclock,
                invariant_tsc: domain.cpu.invariant_tsc,
                transactional_memory: domain.cpu.transactional_memory,
            },
            memory: model::MemorySize(domain.memory_bytes),
            boot: match domain.boot {
                Boot::BuiltIn { command_line } => model::BootSource::BuiltIn { command_line },
                Boot::Kernel {
                    kernel,
                    initrd,
                    command_line,
                } => model::BootSource::Kernel(model::KernelBoot {
                    kernel,
                    initrd,
                    command_line,
                }),
                Boot::Firmware => model::BootSource::Firmware,
            },
            devices: domain.devices.try_into()?,
            lifecycle: model::LifecycleAction {
                on_power_off: match domain.on_power_off {
                    OnEnd::Destroy => model::OnPowerOff::Destroy,
                    OnEnd::Restart => model::OnPowerOff::Restart,
                    OnEnd::Preserve => model::OnPowerOff::Preserve,
                },
                on_reboot: match domain.on_reboot {
                    OnEnd::Destroy => model::OnReboot::Destroy,
                    OnEnd::Restart => model::OnReboot::Restart,
                    OnEnd::Preserve => model::OnReboot::Preserve,
                },
                on_crash: match domain.on_crash {
                    OnEnd::Destroy => model::OnCrash::Destroy,
                    OnEnd::Restart => model::OnCrash::Restart,
                    OnEnd::Preserve => model::OnCrash::Preserve,
                },
            },
            limits: model::ResourceLimits {
                memory: domain.limits.memory_bytes.map(model::MemorySize),
                memory_soft: domain.limits.memory_soft_bytes.map(model::MemorySize),
                memory_and_swap: domain.limits.memory_and_swap_bytes.map(model::MemorySize),
                cpu_percent: domain.limits.cpu_percent,
                vcpu_percent: domain.limits.vcpu_percent,
                cpu_weight: domain.limits.cpu_weight,
                pids: domain.limits.pids,
            },
            pinning: pinning?,
            labels: model::Labels {
                title: domain.title,
                description: domain.description,
                metadata: domain
                    .metadata
                    .into_iter()
                    .map(|Metadata { uri, content }| model::MetadataElement { uri, content })
                    .collect(),
            },
            platform: model::Platform {
                generation_id: match domain.generation_id {
                    None => model::GenerationId::Absent,
                    Some(GenerationId::Random) => model::GenerationId::Random,
                    Some(GenerationId::Fixed(id)) => model::GenerationId::Fixed(id),
                },
                panic_port: domain.panic_port,
            },
            kept: domain
                .kept
                .into_iter()
                .map(|Kept { path, xml }| model::KeptElement { path, xml })
                .collect(),
            tuning: model::Tuning {
                current_memory: domain.current_memory_bytes.map(model::MemorySize),
                emulator_cpus: emulator_cpus.transpose()?,
                vcpu_quota: domain.vcpu_quota.map(|quota| model::CpuQuota {
                    quota_us: quota.quota_us,
                    period_us: quota.period_us,
                }),
                block: model::BlockTuning {
                    weight: domain.block_weight,
                    devices: domain.block_devices.into_iter().map(Into::into).collect(),
                },
                memory_nodes: domain.memory_nodes.map(TryInto::try_into).transpose()?,
            },
        };
        loaded.validate()?;
        Ok(loaded)
    }
}
