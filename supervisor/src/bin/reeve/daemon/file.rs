//! A definition as people write it: TOML, or JSON with the same keys.

use std::path::PathBuf;

use reeve_ipc::api::view::DomainDefinition;
use reeve_ipc::model::{
    BlockTuning, BootSource, CpuQuota, CpuSet, Devices, Domain, DomainName, DomainUuid,
    GenerationId, KeptElement, KernelBoot, Labels, LifecycleAction, MemoryNodes, MemorySize,
    MetadataElement, NodeMode, OnCrash, OnPowerOff, OnReboot, Platform, PluggableMemory,
    ResourceLimits, Tuning, VcpuPin, Vcpus,
};
use reeve_ipc::spec::{CpuSwitches, MachineType, PciSlot};
use serde::{Deserialize, Serialize};

use self::devices::{
    BalloonKeys, ChannelKeys, ConsoleKeys, DiskEntry, NicEntry, RngKeys, ShareEntry, VsockKeys,
    WatchdogKeys,
};
pub(super) use self::generation_id::text as generation_id_text;
use crate::args::GuestArgs;

/// A definition, with the keys that people write.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DefinitionFile {
    pub name: DomainName,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uuid: Option<DomainUuid>,
    #[serde(default = "default_machine", with = "machine")]
    machine: MachineType,
    #[serde(default = "default_cpus")]
    cpus: Vcpus,
    /// As many as it starts with, where it is not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_cpus: Option<Vcpus>,
    #[serde(default = "default_memory", with = "text")]
    memory: MemorySize,
    /// As much as it starts with, where it is not said.
    #[serde(
        default,
        with = "optional_text",
        skip_serializing_if = "Option::is_none"
    )]
    max_memory: Option<MemorySize>,
    /// All that it starts with, where it is not said.
    #[serde(
        default,
        with = "optional_text",
        skip_serializing_if = "Option::is_none"
    )]
    current_memory: Option<MemorySize>,
    /// Where the threads of its worker but the vCPUs may run; anywhere where it is not said.
    #[serde(
        default,
        with = "optional_text",
        skip_serializing_if = "Option::is_none"
    )]
    emulator_cpus: Option<CpuSet>,
    /// The most CPU time of each vCPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vcpu_quota: Option<CpuQuota>,
    /// Its use of the host's block devices.
    #[serde(default, skip_serializing_if = "is_unbound")]
    block: BlockTuning,
    /// The NUMA nodes that its memory is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    memory_nodes: Option<NodesKeys>,
    /// Without it the built-in guest boots.
    #[serde(skip_serializing_if = "Option::is_none")]
    kernel: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    initrd: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    cmdline: String,
    /// Instead of a kernel and what goes with it: what firmware finds on a disk. There is none yet that would.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    firmware: bool,
    #[serde(default)]
    on_poweroff: PowerOff,
    #[serde(default)]
    on_reboot: Reboot,
    #[serde(default)]
    on_crash: Crash,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autostart: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    /// Said for a definition that says nothing of it; one that is kept and has none says so.
    #[serde(default = "generation_id::default", with = "generation_id")]
    generation_id: GenerationId,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    panic_port: bool,
    /// Where the controller of channels and consoles is on the bus.
    #[serde(skip_serializing_if = "Option::is_none")]
    ports_address: Option<PciSlot>,
    /// Where the device is by which it is given memory beyond what it starts with.
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_address: Option<PciSlot>,
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    limits: Limits,
    #[serde(default)]
    cpu: Switches,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pin: Vec<Pin>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    disk: Vec<DiskEntry>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    nic: Vec<NicEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rng: Option<RngKeys>,
    #[serde(skip_serializing_if = "Option::is_none")]
    balloon: Option<BalloonKeys>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vsock: Option<VsockKeys>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    channel: Vec<ChannelKeys>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    console: Vec<ConsoleKeys>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    share: Vec<ShareEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    watchdog: Option<WatchdogKeys>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    metadata: Vec<Element>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    kept: Vec<Kept>,
}

macro_rules! actions {
    ($($name:ident = $model:ident { $($variant:ident),* } default $default:ident;)*) => { $(
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        enum $name { $($variant),* }

        impl Default for $name {
            fn default() -> Self { Self::$default }
        }

        impl From<$name> for $model {
            fn from(action: $name) -> Self {
                match action { $($name::$variant => Self::$variant),* }
            }
        }

        impl From<$model> for $name {
            fn from(action: $model) -> Self {
                match action { $($model::$variant => Self::$variant),* }
            }
        }
    )* };
}

actions! {
    PowerOff = OnPowerOff { Destroy, Restart, Preserve } default Destroy;
    Reboot = OnReboot { Restart, Destroy, Preserve } default Restart;
    Crash = OnCrash { Destroy, Restart, Preserve } default Destroy;
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Limits {
    #[serde(
        default,
        with = "optional_text",
        skip_serializing_if = "Option::is_none"
    )]
    memory: Option<MemorySize>,
    #[serde(
        default,
        with = "optional_text",
        skip_serializing_if = "Option::is_none"
    )]
    memory_soft: Option<MemorySize>,
    #[serde(
        default,
        with = "optional_text",
        skip_serializing_if = "Option::is_none"
    )]
    memory_and_swap: Option<MemorySize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_percent: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vcpu_percent: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_weight: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pids: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct NodesKeys {
    mode: NodeMode,
    #[serde(with = "text")]
    nodes: CpuSet,
}

impl From<NodesKeys> for MemoryNodes {
    fn from(NodesKeys { mode, nodes }: NodesKeys) -> Self {
        Self { mode, nodes }
    }
}

impl From<MemoryNodes> for NodesKeys {
    fn from(MemoryNodes { mode, nodes }: MemoryNodes) -> Self {
        Self { mode, nodes }
    }
}

fn is_unbound(block: &BlockTuning) -> bool {
    !block.any()
}

impl Limits {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Switches {
    tsc_deadline: bool,
    kvmclock: bool,
    invariant_tsc: bool,
    transactional_memory: bool,
}

impl Default for Switches {
    fn default() -> Self {
        CpuSwitches::default().into()
    }
}

impl From<CpuSwitches> for Switches {
    fn from(cpu: CpuSwitches) -> Self {
        Self {
            tsc_deadline: cpu.tsc_deadline,
            kvmclock: cpu.kvmclock,
            invariant_tsc: cpu.invariant_tsc,
            transactional_memory: cpu.transactional_memory,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pin {
    vcpu: u32,
    #[serde(with = "text")]
    cpus: CpuSet,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Element {
    uri: String,
    content: String,
}

/// An element of a libvirt document that says nothing to this host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    path: String,
    xml: String,
}

const fn default_machine() -> MachineType {
    MachineType::Reeve1_0
}

const fn default_memory() -> MemorySize {
    MemorySize::mebibytes(256)
}

fn default_cpus() -> Vcpus {
    // One is in range.
    Vcpus::try_from(1).unwrap_or_else(|_| unreachable!("one vCPU is a number of vCPUs"))
}

impl DefinitionFile {
    /// What the options of `reeve define` say.
    pub(super) fn from_options(name: DomainName, guest: &GuestArgs) -> Self {
        let domain = guest.domain(name, DomainUuid(uuid::Uuid::nil()));
        let mut file = Self::from(&DomainDefinition {
            domain,
            autostart: None,
        });
        file.uuid = None;
        file
    }

    /// The definition, for the domain with this UUID.
    pub(super) fn domain(self, uuid: DomainUuid) -> Domain {
        let boot = match self.kernel {
            Some(kernel) => BootSource::Kernel(KernelBoot {
                kernel,
                initrd: self.initrd,
                command_line: self.cmdline,
            }),
            None if self.firmware => BootSource::Firmware,
            None => BootSource::BuiltIn {
                command_line: self.cmdline,
            },
        };
        let devices = Devices {
            disks: from_entries(self.disk),
            nics: from_entries(self.nic),
            rng: self.rng.map(Into::into),
            balloon: self.balloon.map(Into::into),
            vsock: self.vsock.map(Into::into),
            channels: from_entries(self.channel),
            consoles: from_entries(self.console),
            ports_address: self.ports_address,
            shares: from_entries(self.share),
            watchdog: self.watchdog.map(Into::into),
            memory: PluggableMemory::up_to(self.max_memory, self.memory, self.memory_address),
        };
        Domain {
            name: self.name,
            uuid,
            machine: self.machine,
            vcpus: self.cpus,
            max_vcpus: self.max_cpus.unwrap_or(self.cpus),
            cpu: CpuSwitches {
                tsc_deadline: self.cpu.tsc_deadline,
                kvmclock: self.cpu.kvmclock,
                invariant_tsc: self.cpu.invariant_tsc,
                transactional_memory: self.cpu.transactional_memory,
            },
            memory: self.memory,
            boot,
            devices,
            lifecycle: LifecycleAction {
                on_power_off: self.on_poweroff.into(),
                on_reboot: self.on_reboot.into(),
                on_crash: self.on_crash.into(),
            },
            limits: ResourceLimits {
                memory: self.limits.memory,
                memory_soft: self.limits.memory_soft,
                memory_and_swap: self.limits.memory_and_swap,
                cpu_percent: self.limits.cpu_percent,
                vcpu_percent: self.limits.vcpu_percent,
                cpu_weight: self.limits.cpu_weight,
                pids: self.limits.pids,
            },
            pinning: self
                .pin
                .into_iter()
                .map(|pin| VcpuPin {
                    vcpu: pin.vcpu,
                    cpus: pin.cpus,
                })
                .collect(),
            labels: Labels {
                title: self.title,
                description: self.description,
                metadata: self
                    .metadata
                    .into_iter()
                    .map(|element| MetadataElement {
                        uri: element.uri,
                        content: element.content,
                    })
                    .collect(),
            },
            platform: Platform {
                generation_id: self.generation_id,
                panic_port: self.panic_port,
            },
            kept: self
                .kept
                .into_iter()
                .map(|Kept { path, xml }| KeptElement { path, xml })
                .collect(),
            tuning: Tuning {
                current_memory: self.current_memory,
                emulator_cpus: self.emulator_cpus,
                vcpu_quota: self.vcpu_quota,
                block: self.block,
                memory_nodes: self.memory_nodes.map(Into::into),
            },
        }
    }
}

impl From<&DomainDefinition> for DefinitionFile {
    fn from(definition: &DomainDefinition) -> Self {
        let domain = definition.domain.clone();
        let devices = domain.devices;
        let firmware = domain.boot == BootSource::Firmware;
        let (kernel, initrd, cmdline) = match domain.boot {
            BootSource::BuiltIn { command_line } => (None, None, command_line),
            BootSource::Kernel(boot) => (Some(boot.kernel), boot.initrd, boot.command_line),
            BootSource::Firmware => (None, None, String::new()),
        };
        Self {
            name: domain.name,
            uuid: Some(domain.uuid),
            machine: domain.machine,
            cpus: domain.vcpus,
            max_cpus: Some(domain.max_vcpus).filter(|most| *most != domain.vcpus),
            memory: domain.memory,
            max_memory: devices.memory.map(|memory| memory.max),
            current_memory: domain.tuning.current_memory,
            emulator_cpus: domain.tuning.emulator_cpus,
            vcpu_quota: domain.tuning.vcpu_quota,
            block: domain.tuning.block,
            memory_nodes: domain.tuning.memory_nodes.map(Into::into),
            memory_address: devices.memory.and_then(|memory| memory.address),
            kernel,
            initrd,
            cmdline,
            firmware,
            on_poweroff: domain.lifecycle.on_power_off.into(),
            on_reboot: domain.lifecycle.on_reboot.into(),
            on_crash: domain.lifecycle.on_crash.into(),
            autostart: definition.autostart,
            title: domain.labels.title,
            description: domain.labels.description,
            limits: Limits {
                memory: domain.limits.memory,
                memory_soft: domain.limits.memory_soft,
                memory_and_swap: domain.limits.memory_and_swap,
                cpu_percent: domain.limits.cpu_percent,
                vcpu_percent: domain.limits.vcpu_percent,
                cpu_weight: domain.limits.cpu_weight,
                pids: domain.limits.pids,
            },
            cpu: domain.cpu.into(),
            ports_address: devices.ports_address,
            disk: from_entries(devices.disks),
            nic: from_entries(devices.nics),
            rng: devices.rng.map(Into::into),
            balloon: devices.balloon.map(Into::into),
            vsock: devices.vsock.map(Into::into),
            channel: from_entries(devices.channels),
            console: from_entries(devices.consoles),
            share: from_entries(devices.shares),
            watchdog: devices.watchdog.map(Into::into),
            generation_id: domain.platform.generation_id,
            panic_port: domain.platform.panic_port,
            pin: domain
                .pinning
                .into_iter()
                .map(|pin| Pin {
                    vcpu: pin.vcpu,
                    cpus: pin.cpus,
                })
                .collect(),
            metadata: domain
                .labels
                .metadata
                .into_iter()
                .map(|element| Element {
                    uri: element.uri,
                    content: element.content,
                })
                .collect(),
            kept: domain
                .kept
                .into_iter()
                .map(|KeptElement { path, xml }| Kept { path, xml })
                .collect(),
        }
    }
}

fn from_entries<A: Into<B>, B>(entries: Vec<A>) -> Vec<B> {
    entries.into_iter().map(Into::into).collect()
}

mod devices;
mod generation_id;
mod machine;
mod optional_text;
mod paths;
mod reading;
pub(super) use self::paths::resolved;
pub use self::reading::{FileError, create_private, parse, read, read_network, replace, write};
#[cfg(test)]
mod tests;
mod text;
