//! What one worker must build: the whole machine, with a slot wherever a host object is meant.
//!
//! Plain data. The supervisor makes it from the model (`domain/plan.rs`), the worker turns it into
//! device parameters (`build/`), and nobody else reads it.

pub mod cpuid;
mod device;
mod disk;
mod nic;
mod watchdog;
pub(crate) mod words;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use self::device::{
    BalloonSpec, Burst, DeviceSpec, LEAST_PORTS_ROOM, MAX_BURST_SECONDS, MAX_CHANNEL_NAME_BYTES,
    MAX_DEVICES, MAX_GUEST_CID, MAX_PORTS, MAX_TAG_BYTES, MIN_GUEST_CID, MemoryDeviceSpec, NoSlot,
    PciSlot, PortKind, PortSpec, PortsSpec, Rate, RngSpec, ShareSpec, VsockSpec,
};
pub use self::disk::{
    CacheMode, Discard, DiskFormat, DiskSpec, DiskThrottle, IoEngine, LayerSpec, MAX_DISK_QUEUES,
    MAX_LAYERS, MAX_SERIAL_BYTES, Rates,
};
pub use self::nic::{
    InvalidMac, MAX_NIC_QUEUES, MIN_MTU, MacAddress, MacText, NicDriver, NicSpec, SwitchedNicSpec,
    UserNicSpec,
};
pub use self::watchdog::{WatchdogAction, WatchdogSpec};
pub use self::words::UnknownWord;
use crate::fd::FdSlot;

/// The most vCPUs a specification may name; the host's KVM may allow fewer.
pub const MAX_VCPUS: u32 = 1024;
/// The most leaves of CPUID: `KVM_MAX_CPUID_ENTRIES`.
pub const MAX_CPUID_ENTRIES: usize = 256;
/// The least guest memory, in bytes.
pub const MIN_MEMORY_BYTES: u64 = 2 << 20;
/// The most guest memory, in bytes (the 46 bits of address space every 64-bit host has).
pub const MAX_MEMORY_BYTES: u64 = 1 << 45;
/// The least size in which memory comes and goes while a machine runs, in bytes.
pub const MIN_MEMORY_BLOCK_BYTES: u64 = 2 << 20;
/// The most pieces in which it does: each costs the host a memory slot while it is there.
pub const MAX_MEMORY_BLOCKS: u64 = 1024;
/// The most bytes of a kernel command line, without its terminator.
pub const MAX_COMMAND_LINE_BYTES: usize = 2047;

/// A machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineSpec {
    /// The domain's name, for logs.
    pub name: String,
    /// The domain's UUID.
    pub uuid: Uuid,
    /// The machine type: what the guest sees.
    pub machine: MachineType,
    /// How many vCPUs it starts with, 1 to `max_vcpus`: those from 0 on.
    pub vcpus: u32,
    /// Switches of the vCPU model.
    pub cpu: CpuSwitches,
    /// What this host's KVM can show a guest (KVM API `KVM_GET_SUPPORTED_CPUID`): the supervisor
    /// asks once for all domains, since the host traps on every leaf of the answer. At most
    /// [`MAX_CPUID_ENTRIES`].
    pub supported_cpuid: Vec<CpuidEntry>,
    /// The guest's memory.
    pub memory: MemorySpec,
    /// `/dev/kvm`, open for reading and writing.
    pub kvm: FdSlot,
    /// What to boot.
    pub boot: BootSpec,
    /// Its devices, at most [`MAX_DEVICES`], by rising slot.
    pub devices: Vec<DeviceSpec>,
    /// A client of the console from the first byte on.
    pub console: Option<FdSlot>,
    /// Whether to run at once, or to stand paused.
    pub hold: bool,
    /// What the end of the guest means.
    pub policy: EndPolicy,
    /// What the loss of the control socket means.
    pub on_control_loss: ControlLoss,
    /// Where the worker waits for a supervisor that comes back: a listening `SOCK_SEQPACKET` socket.
    /// Without it a lost supervisor is lost for good.
    pub adoption: Option<FdSlot>,
    /// What binds the worker to the record of it, told again at an adoption.
    pub digest: SpecDigest,
    /// How many vCPUs it can ever have, at most [`MAX_VCPUS`]: what its tables and CPUID leave room for.
    pub max_vcpus: u32,
    /// The generation id that the guest finds, if it finds one: a GUID as it lies in memory, its first three
    /// fields with the lowest byte first.
    pub generation_id: Option<[u8; 16]>,
    /// There is a port by which the guest says that its kernel has panicked.
    pub panic_port: bool,
    /// Its watchdog.
    pub watchdog: Option<WatchdogSpec>,
}

impl MachineSpec {
    /// Every slot of the machine but those of its devices, in a fixed order: memory, kernel, RAM disk,
    /// adoption socket, `/dev/kvm`, console.
    pub fn slots_mut(&mut self) -> Vec<&mut FdSlot> {
        let memory = match &mut self.memory.backing {
            MemoryBacking::Shared { fd }
            | MemoryBacking::HugePages { fd, .. }
            | MemoryBacking::PrivateCopy { fd } => fd,
        };
        let mut slots = vec![memory, &mut self.boot.kernel];
        slots.extend(&mut self.boot.initrd);
        slots.extend(&mut self.adoption);
        slots.push(&mut self.kvm);
        slots.extend(&mut self.console);
        slots
    }
}

/// Names one launch: drawn at random by the supervisor, recorded before the launch is sent, and told
/// by the worker to whoever adopts it. Another one than recorded is a protocol violation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SpecDigest(pub [u8; 16]);

/// A machine type: what a guest sees under a name never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MachineType {
    /// `reeve-1.0`: I/O APIC in the worker, local APICs in the kernel, no PIC, no PIT.
    Reeve1_0,
    /// `reeve-legacy-1.0`: as `reeve-1.0`, with KVM's own PIC, I/O APIC and PIT.
    ReeveLegacy1_0,
}

impl MachineType {
    /// Every machine type.
    pub const ALL: [Self; 2] = [Self::Reeve1_0, Self::ReeveLegacy1_0];

    /// The name users write.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reeve1_0 => "reeve-1.0",
            Self::ReeveLegacy1_0 => "reeve-legacy-1.0",
        }
    }
}

/// What of the host's CPU a guest may see beyond the filtered default; switches of the definition,
/// never a guess at the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuSwitches {
    /// Offer the TSC deadline timer where KVM has it.
    pub tsc_deadline: bool,
    /// Offer kvmclock.
    pub kvmclock: bool,
    /// Show the TSC as invariant where it is.
    pub invariant_tsc: bool,
    /// Show transactional memory where the host has it.
    pub transactional_memory: bool,
}

impl Default for CpuSwitches {
    fn default() -> Self {
        Self {
            tsc_deadline: true,
            kvmclock: true,
            invariant_tsc: true,
            transactional_memory: false,
        }
    }
}

/// One leaf of CPUID (KVM API, `struct kvm_cpuid_entry2`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuidEntry {
    /// EAX on entry.
    pub function: u32,
    /// ECX on entry.
    pub index: u32,
    /// `KVM_CPUID_FLAG_*`.
    pub flags: u32,
    /// EAX, EBX, ECX and EDX of the answer.
    pub registers: [u32; 4],
}

/// Guest memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemorySpec {
    /// Size in bytes: a multiple of 4096, from [`MIN_MEMORY_BYTES`] to [`MAX_MEMORY_BYTES`].
    pub size_bytes: u64,
    /// What holds it.
    pub backing: MemoryBacking,
    /// What the machine can be given beyond that while it runs, by its [`DeviceSpec::Memory`].
    pub pluggable: Option<PluggableSpec>,
}

impl MemorySpec {
    /// Bytes that the descriptor of the backing has to bear; `None` if no number says it.
    #[must_use]
    pub fn file_bytes(&self) -> Option<u64> {
        match &self.pluggable {
            None => Some(self.size_bytes),
            Some(pluggable) => self.pluggable_offset()?.checked_add(pluggable.bytes),
        }
    }

    /// Where in that descriptor memory begins that can be plugged in: behind the rest of it, at a whole
    /// block. `None` if there is none.
    #[must_use]
    pub fn pluggable_offset(&self) -> Option<u64> {
        let block = self.pluggable.as_ref()?.block_bytes;
        self.size_bytes.checked_next_multiple_of(block.max(1))
    }
}

/// Memory that a machine can be given while it runs (virtio 1.3 §5.15).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluggableSpec {
    /// Bytes in all: 1 to [`MAX_MEMORY_BLOCKS`] blocks.
    pub bytes: u64,
    /// Bytes of a block: a power of two of at least [`MIN_MEMORY_BLOCK_BYTES`].
    pub block_bytes: u64,
}

impl PluggableSpec {
    /// For `bytes` bytes, in the smallest blocks of which there are not too many; `None` unless those are
    /// whole blocks, one at least.
    #[must_use]
    pub fn new(bytes: u64) -> Option<Self> {
        let block_bytes = Self::block_bytes(bytes);
        let whole = bytes > 0 && bytes % block_bytes == 0;
        whole.then_some(Self { bytes, block_bytes })
    }

    /// The size of the blocks in which `bytes` bytes come.
    #[must_use]
    pub fn block_bytes(bytes: u64) -> u64 {
        let least = bytes.div_ceil(MAX_MEMORY_BLOCKS);
        // A 1024th of any number has a power of two that follows it.
        least.max(MIN_MEMORY_BLOCK_BYTES).next_power_of_two()
    }
}

/// What holds guest memory, and what that allows.
///
/// | backing | vhost-user, hand-over | copy-on-write of a base |
/// |---|---|---|
/// | `Shared` | yes | no |
/// | `HugePages` | yes | no |
/// | `PrivateCopy` | no | yes |
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemoryBacking {
    /// A sealed memfd, mapped shared.
    Shared {
        /// The memfd, sealed against shrinking and growing.
        fd: FdSlot,
    },
    /// A memfd of huge pages, mapped shared.
    HugePages {
        /// The memfd.
        fd: FdSlot,
        /// Bytes of a page: 2 MiB or 1 GiB.
        page_bytes: u64,
    },
    /// A saved base, mapped privately.
    PrivateCopy {
        /// The base, open for reading.
        fd: FdSlot,
    },
}

/// What to boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootSpec {
    /// The kernel image, open for reading: ELF with a PVH note, or bzImage.
    pub kernel: FdSlot,
    /// The initial RAM disk, open for reading.
    pub initrd: Option<FdSlot>,
    /// The command line, at most [`MAX_COMMAND_LINE_BYTES`] bytes, without a NUL.
    pub command_line: String,
}

/// What a worker does when its guest ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndPolicy {
    /// The guest powered off.
    pub on_power_off: EndAction,
    /// The guest asked for a reset.
    pub on_reset: ResetAction,
    /// The guest cannot go on.
    pub on_crash: EndAction,
}

/// Ends, or is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndAction {
    /// The worker says so in an event and exits.
    Exit,
    /// The machine is kept as it is, for inspection or a reset.
    Preserve,
}

/// What a reset by the guest does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResetAction {
    /// The machine is reset in place and boots again.
    Reset,
    /// As a power-off that exits.
    Exit,
    /// The machine stands as after a power-off that preserves, until it is reset or ended.
    Preserve,
}

/// What a worker does when nobody holds the other end of its control socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlLoss {
    /// Goes on: a supervisor will come back for it.
    KeepRunning,
    /// Exits.
    Stop,
}
