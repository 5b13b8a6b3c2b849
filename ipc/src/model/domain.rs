//! A domain as its definition says it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{
    DeviceError, Devices, DomainName, DomainUuid, KeptElement, Labels, MemorySize, Platform,
    Tuning, VcpuPin, kept,
};
use crate::MAX_MESSAGE_BYTES;
use crate::spec::{
    CpuSwitches, MAX_COMMAND_LINE_BYTES, MAX_MEMORY_BYTES, MAX_VCPUS, MIN_MEMORY_BYTES,
    MachineType, PluggableSpec,
};

/// The most bytes of a definition, as a decoder counts them: what is taken in one message can be given
/// back in another.
pub const MAX_DEFINITION_BYTES: usize = MAX_MESSAGE_BYTES - 4096;
/// What a decoder counts for all of a definition but texts, paths, pinning and devices, at most.
const FIXED_BYTES: usize = 512;
/// What it counts for a length.
const LENGTH_BYTES: usize = 8;

/// Why a definition is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// No vCPU, or more than any host has.
    #[error("{0} vCPUs: a domain has 1 to {MAX_VCPUS}")]
    Vcpus(u32),
    /// More vCPUs than it can have.
    #[error("{0} vCPUs are more than the {1} that the domain can have")]
    MoreVcpus(u32, u32),
    /// Too little memory, too much, or half a page.
    #[error("{0} of memory: a domain has 2M to 32T, in whole pages of 4096 bytes")]
    Memory(MemorySize),
    /// No more memory at most than at the start, or too much.
    #[error(
        "a maximum of {max} of memory: it is more than the {memory} a domain starts with, and 32T at most"
    )]
    MaxMemory {
        /// The maximum.
        max: MemorySize,
        /// What the domain starts with.
        memory: MemorySize,
    },
    /// What lies between the two is in no whole blocks.
    #[error(
        "{extra} of memory beyond what a domain starts with comes in blocks of {block}, and must be whole ones"
    )]
    MemoryBlocks {
        /// What lies between the two.
        extra: MemorySize,
        /// The size of a block.
        block: MemorySize,
    },
    /// The limit of its memory has no room for all that it can be given.
    #[error(
        "a limit of {limit} of memory: the domain can be given {max} while it runs (max-memory), and would be \
         killed before it has it; raise the limit, or lower its max-memory"
    )]
    MemoryLimit {
        /// The limit.
        limit: MemorySize,
        /// The most memory of the domain.
        max: MemorySize,
    },
    /// Less memory than a guest needs, more than the domain can have, or no whole pages or blocks.
    #[error(
        "a current memory of {current}: it is 2M to the {max} that the domain can have, in whole pages up to what \
         it starts with, and in whole blocks beyond"
    )]
    CurrentMemory {
        /// The current memory.
        current: MemorySize,
        /// The most memory of the domain.
        max: MemorySize,
    },
    /// The command line does not fit the boot protocol.
    #[error("the kernel command line has {0} bytes: it may have {MAX_COMMAND_LINE_BYTES}")]
    CommandLine(usize),
    /// The command line has a byte that ends it.
    #[error("the kernel command line contains a NUL")]
    CommandLineNul,
    /// Title, description or metadata.
    #[error("{0}")]
    Label(&'static str),
    /// A set of host CPUs.
    #[error("not a set of host CPUs: write numbers below 4096 and ranges, as in 0-3,8")]
    CpuSet,
    /// A pin of a vCPU that the domain does not have, or a second one.
    #[error("vCPU {0} is pinned twice, or the domain does not have it")]
    Pin(u32),
    /// A limit that no kernel takes.
    #[error("{0}")]
    Limit(&'static str),
    /// A device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Each part within its bounds, and no message to say them all in.
    #[error(
        "its paths, labels, pinning and devices take {0} bytes: a definition has at most \
         {MAX_DEFINITION_BYTES}"
    )]
    Size(usize),
}

/// How many vCPUs a domain has: 1 to [`MAX_VCPUS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Vcpus(u32);

impl Vcpus {
    /// The number.
    #[must_use]
    pub const fn count(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for Vcpus {
    type Error = ModelError;
    fn try_from(count: u32) -> Result<Self, ModelError> {
        if (1..=MAX_VCPUS).contains(&count) {
            Ok(Self(count))
        } else {
            Err(ModelError::Vcpus(count))
        }
    }
}

impl From<Vcpus> for u32 {
    fn from(vcpus: Vcpus) -> Self {
        vcpus.0
    }
}

/// What a domain boots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum BootSource {
    /// Reeve's own small guest, with a command line.
    BuiltIn {
        /// Its command line; empty for the report.
        command_line: String,
    },
    /// A kernel from a file.
    Kernel(KernelBoot),
    /// What firmware finds on a disk. There is no firmware yet: such a definition is kept, and no domain starts
    /// from it.
    Firmware,
}

/// Direct kernel boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelBoot {
    /// The kernel image: ELF with a PVH note, or bzImage.
    pub kernel: PathBuf,
    /// The initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// The kernel command line.
    pub command_line: String,
}

/// What happens when a guest powers off, asks for a reset or crashes (libvirt `on_poweroff`,
/// `on_reboot`, `on_crash`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LifecycleAction {
    /// On power-off.
    pub on_power_off: OnPowerOff,
    /// On reset.
    pub on_reboot: OnReboot,
    /// On a crash.
    pub on_crash: OnCrash,
}

/// On power-off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnPowerOff {
    /// The domain ends.
    #[default]
    Destroy,
    /// The domain starts again, in a new worker.
    Restart,
    /// The machine is kept for inspection.
    Preserve,
}

/// On reset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnReboot {
    /// The machine is reset and boots again.
    #[default]
    Restart,
    /// The domain ends.
    Destroy,
    /// The machine is kept for inspection.
    Preserve,
}

/// On a crash.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnCrash {
    /// The domain ends.
    #[default]
    Destroy,
    /// The domain starts again, in a new worker.
    Restart,
    /// The machine is kept for inspection.
    Preserve,
}

/// Limits on the host's resources (cgroup v2). None set: none enforced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceLimits {
    /// The most host memory, guest memory and overhead together, in bytes (`memory.max`).
    pub memory: Option<MemorySize>,
    /// How much of it there may be before the kernel slows the domain down and takes back what it can
    /// (`memory.high`); not 0.
    pub memory_soft: Option<MemorySize>,
    /// The most of it together with what of it is swapped out (`memory.swap.max` is what this is more than
    /// [`Self::memory`]); no less than that, which is to be set too.
    pub memory_and_swap: Option<MemorySize>,
    /// The most CPU time of the whole domain, in hundredths of one CPU (`cpu.max`): 150 is one CPU
    /// and a half. It bounds the I/O threads too.
    pub cpu_percent: Option<u32>,
    /// The most CPU time of all vCPUs together, in hundredths of one CPU: I/O threads are not
    /// counted and do not starve.
    pub vcpu_percent: Option<u32>,
    /// The share of contended CPU time, 1 to 10000 (`cpu.weight`); 100 where none is set.
    pub cpu_weight: Option<u16>,
    /// The most threads and processes (`pids.max`).
    pub pids: Option<u32>,
}

impl ResourceLimits {
    /// Whether any limit is set: cgroup v2 is then needed to start the domain.
    #[must_use]
    pub const fn any(&self) -> bool {
        self.memory.is_some()
            || self.memory_soft.is_some()
            || self.memory_and_swap.is_some()
            || self.cpu_percent.is_some()
            || self.vcpu_percent.is_some()
            || self.cpu_weight.is_some()
            || self.pids.is_some()
    }

    /// The most that may be swapped out, in bytes, where that is limited.
    #[must_use]
    pub fn swap(&self) -> Option<u64> {
        let (both, memory) = self.memory_and_swap.zip(self.memory)?;
        Some(both.bytes().saturating_sub(memory.bytes()))
    }

    /// Checks ranges.
    ///
    /// # Errors
    /// [`ModelError::Limit`] says which is wrong.
    pub fn validate(&self) -> Result<(), ModelError> {
        if self.memory_soft == Some(MemorySize(0)) {
            return Err(ModelError::Limit("a soft limit of memory is not 0"));
        }
        if let Some(both) = self.memory_and_swap {
            if self.memory.is_none_or(|memory| memory > both) {
                return Err(ModelError::Limit(
                    "a limit of memory and swap together needs one of memory that is no more than it",
                ));
            }
        }
        let percents = [self.cpu_percent, self.vcpu_percent];
        if percents
            .iter()
            .flatten()
            .any(|percent| !(1..=1_000_000).contains(percent))
        {
            return Err(ModelError::Limit(
                "a CPU limit is 1 to 1000000 percent of one CPU",
            ));
        }
        if self
            .cpu_weight
            .is_some_and(|weight| !(1..=10_000).contains(&weight))
        {
            return Err(ModelError::Limit("a CPU weight is 1 to 10000"));
        }
        if self.pids == Some(0) {
            return Err(ModelError::Limit(
                "a domain needs threads: its limit is at least 1",
            ));
        }
        Ok(())
    }
}

/// A domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Domain {
    /// Its name.
    pub name: DomainName,
    /// Its UUID.
    pub uuid: DomainUuid,
    /// Its machine type.
    pub machine: MachineType,
    /// The vCPUs it starts with.
    pub vcpus: Vcpus,
    /// Switches of its vCPU model.
    pub cpu: CpuSwitches,
    /// Its memory.
    pub memory: MemorySize,
    /// What it boots.
    pub boot: BootSource,
    /// Its devices.
    pub devices: Devices,
    /// What its guest's ends mean.
    pub lifecycle: LifecycleAction,
    /// Its limits.
    pub limits: ResourceLimits,
    /// vCPUs bound to host CPUs; one that is not named runs anywhere.
    pub pinning: Vec<VcpuPin>,
    /// What people and programs noted about it.
    pub labels: Labels,
    /// The most vCPUs it can have while it runs, no fewer than `vcpus` (libvirt `<vcpu current='2'>8</vcpu>`).
    pub max_vcpus: Vcpus,
    /// What of the platform itself it finds.
    pub platform: Platform,
    /// What was written of it that is nothing to this host.
    pub kept: Vec<KeptElement>,
    /// What it is held to beside its limits.
    pub tuning: Tuning,
}

impl Domain {
    /// Fills in what a definition may leave out ([`Devices::complete`]): whoever takes one does, before it
    /// is kept.
    ///
    /// # Errors
    /// [`ModelError::Device`].
    pub fn complete(&mut self) -> Result<(), ModelError> {
        Ok(self.devices.complete(self.uuid)?)
    }

    /// Checks what the types alone do not hold.
    ///
    /// # Errors
    /// [`ModelError`] names the first thing that is out of range.
    pub fn validate(&self) -> Result<(), ModelError> {
        if self.vcpus > self.max_vcpus {
            return Err(ModelError::MoreVcpus(self.vcpus.0, self.max_vcpus.0));
        }
        let bytes = self.memory.bytes();
        if !(MIN_MEMORY_BYTES..=MAX_MEMORY_BYTES).contains(&bytes) || bytes % 4096 != 0 {
            return Err(ModelError::Memory(self.memory));
        }
        self.validate_max_memory()?;
        self.validate_current_memory()?;
        let command_line = match &self.boot {
            BootSource::BuiltIn { command_line } => command_line.as_str(),
            BootSource::Kernel(kernel) => &kernel.command_line,
            BootSource::Firmware => "",
        };
        if command_line.len() > MAX_COMMAND_LINE_BYTES {
            return Err(ModelError::CommandLine(command_line.len()));
        }
        if command_line.contains('\0') {
            return Err(ModelError::CommandLineNul);
        }
        for (index, pin) in self.pinning.iter().enumerate() {
            let mut before = self.pinning.iter().take(index);
            if pin.vcpu >= self.max_vcpus.count() || before.any(|other| other.vcpu == pin.vcpu) {
                return Err(ModelError::Pin(pin.vcpu));
            }
        }
        self.devices.validate()?;
        self.limits.validate()?;
        self.tuning.validate()?;
        self.labels.validate()?;
        kept::validate(&self.kept)?;
        match self.bytes() {
            bytes if bytes > MAX_DEFINITION_BYTES => Err(ModelError::Size(bytes)),
            _ => Ok(()),
        }
    }

    /// Checks a definition that is new, or of which a domain is to be started: as [`validate`](Self::validate), and
    /// [`Devices::accept`].
    ///
    /// # Errors
    /// [`ModelError`] names the first thing that is wrong.
    pub fn accept(&self) -> Result<(), ModelError> {
        self.validate()?;
        Ok(self.devices.accept()?)
    }

    fn validate_max_memory(&self) -> Result<(), ModelError> {
        let Some(pluggable) = self.devices.memory else {
            return Ok(());
        };
        let (max, memory) = (pluggable.max, self.memory);
        let extra = max.bytes().saturating_sub(memory.bytes());
        if extra == 0 || max.bytes() > MAX_MEMORY_BYTES {
            return Err(ModelError::MaxMemory { max, memory });
        }
        if self.pluggable().is_none() {
            return Err(ModelError::MemoryBlocks {
                extra: MemorySize(extra),
                block: MemorySize(PluggableSpec::block_bytes(extra)),
            });
        }
        // By how much more there has to be for who runs it is for the host to say, at a start.
        match self.limits.memory.filter(|limit| *limit < max) {
            Some(limit) => Err(ModelError::MemoryLimit { limit, max }),
            None => Ok(()),
        }
    }

    fn validate_current_memory(&self) -> Result<(), ModelError> {
        let Some(current) = self.tuning.current_memory else {
            return Ok(());
        };
        let (bytes, max) = (current.bytes(), self.max_memory());
        let unit = match bytes.checked_sub(self.memory.bytes()) {
            None | Some(0) => bytes % 4096,
            Some(plugged) => match self.pluggable() {
                Some(pluggable) => plugged % pluggable.block_bytes,
                None => plugged,
            },
        };
        if (MIN_MEMORY_BYTES..=max.bytes()).contains(&bytes) && unit == 0 {
            return Ok(());
        }
        Err(ModelError::CurrentMemory { current, max })
    }

    /// The most memory it can have while it runs.
    #[must_use]
    pub fn max_memory(&self) -> MemorySize {
        self.devices.memory.map_or(self.memory, |memory| memory.max)
    }

    /// The memory that it can be given beyond what it starts with.
    #[must_use]
    pub fn pluggable(&self) -> Option<PluggableSpec> {
        PluggableSpec::new(self.max_memory().bytes().checked_sub(self.memory.bytes())?)
    }

    /// At least what a decoder counts for it: a number at its full width.
    fn bytes(&self) -> usize {
        let boot = match &self.boot {
            BootSource::BuiltIn { command_line } => command_line.len(),
            BootSource::Kernel(boot) => {
                let initrd = boot.initrd.as_ref();
                let initrd = initrd.map_or(0, |path| path.as_os_str().len());
                boot.kernel.as_os_str().len() + initrd + boot.command_line.len()
            }
            BootSource::Firmware => 0,
        };
        let labels = &self.labels;
        let texts = [&labels.title, &labels.description];
        let texts = texts.into_iter().flatten().map(String::len);
        let metadata = labels.metadata.iter();
        let metadata =
            metadata.map(|element| element.uri.len() + element.content.len() + 2 * LENGTH_BYTES);
        let pinning = self.pinning.iter().map(VcpuPin::bytes);
        let kept = self.kept.iter();
        let kept = kept.map(|element| element.path.len() + element.xml.len() + 2 * LENGTH_BYTES);
        let parts = texts.chain(metadata).chain(pinning).chain(kept);
        let name = self.name.as_str().len();
        FIXED_BYTES
            + name
            + boot
            + self.devices.bytes()
            + self.tuning.bytes()
            + parts.sum::<usize>()
    }
}
