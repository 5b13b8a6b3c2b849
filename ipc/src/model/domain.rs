//! A domain as its definition says it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{DomainName, DomainUuid};
use crate::spec::{
    CpuSwitches, MAX_COMMAND_LINE_BYTES, MAX_MEMORY_BYTES, MAX_VCPUS, MIN_MEMORY_BYTES, MachineType,
};

/// Why a definition is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// No vCPU, or more than any host has.
    #[error("{0} vCPUs: a domain has 1 to {MAX_VCPUS}")]
    Vcpus(u32),
    /// Too little memory, too much, or half a page.
    #[error("{0} of memory: a domain has 2M to 32T, in whole pages of 4096 bytes")]
    Memory(MemorySize),
    /// The command line does not fit the boot protocol.
    #[error("the kernel command line has {0} bytes: it may have {MAX_COMMAND_LINE_BYTES}")]
    CommandLine(usize),
    /// The command line has a byte that ends it.
    #[error("the kernel command line contains a NUL")]
    CommandLineNul,
}

/// How many vCPUs a domain has: 1 to [`MAX_VCPUS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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

/// An amount of memory in bytes, written as `256M`, `4G`, `1048576K` or plain bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MemorySize(pub u64);

impl MemorySize {
    /// An amount of MiB.
    #[must_use]
    pub const fn mebibytes(mebibytes: u32) -> Self {
        Self((mebibytes as u64) << 20)
    }

    /// The amount in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl fmt::Display for MemorySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0;
        match [(40, 'T'), (30, 'G'), (20, 'M'), (10, 'K')]
            .into_iter()
            .find(|(shift, _)| bytes >= 1 << shift && bytes % (1 << shift) == 0)
        {
            Some((shift, unit)) => write!(f, "{}{unit}", bytes >> shift),
            None => write!(f, "{bytes}"),
        }
    }
}

/// A size nobody can read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a size: write a number with K, M, G or T, as in 256M")]
pub struct ParseMemorySizeError(String);

impl FromStr for MemorySize {
    type Err = ParseMemorySizeError;

    fn from_str(text: &str) -> Result<Self, ParseMemorySizeError> {
        let refuse = || ParseMemorySizeError(text.to_owned());
        let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
        let digits = text.strip_suffix(unit).ok_or_else(refuse)?;
        let shift = match unit {
            "" | "B" => 0,
            "K" | "k" | "KiB" => 10,
            "M" | "m" | "MiB" => 20,
            "G" | "g" | "GiB" => 30,
            "T" | "t" | "TiB" => 40,
            _ => return Err(refuse()),
        };
        let number: u64 = digits.parse().map_err(|_| refuse())?;
        number.checked_mul(1 << shift).map(Self).ok_or_else(refuse)
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
}

/// On a crash.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnCrash {
    /// The domain ends.
    #[default]
    Destroy,
    /// The machine is kept for inspection.
    Preserve,
}

/// Limits on the host's resources (cgroup v2). None set: none enforced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceLimits {
    /// The most host memory, guest memory and overhead together, in bytes (`memory.max`).
    pub memory: Option<MemorySize>,
    /// The most CPU time, in hundredths of one CPU (`cpu.max`): 150 is one CPU and a half.
    pub cpu_percent: Option<u32>,
    /// The most threads and processes (`pids.max`).
    pub pids: Option<u32>,
}

impl ResourceLimits {
    /// Whether any limit is set: cgroup v2 is then needed to start the domain.
    #[must_use]
    pub const fn any(&self) -> bool {
        self.memory.is_some() || self.cpu_percent.is_some() || self.pids.is_some()
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
    /// Its vCPUs.
    pub vcpus: Vcpus,
    /// Switches of its vCPU model.
    pub cpu: CpuSwitches,
    /// Its memory.
    pub memory: MemorySize,
    /// What it boots.
    pub boot: BootSource,
    /// What its guest's ends mean.
    pub lifecycle: LifecycleAction,
    /// Its limits.
    pub limits: ResourceLimits,
}

impl Domain {
    /// Checks what the types alone do not hold.
    ///
    /// # Errors
    /// [`ModelError`] names the first thing that is out of range.
    pub fn validate(&self) -> Result<(), ModelError> {
        let bytes = self.memory.bytes();
        if !(MIN_MEMORY_BYTES..=MAX_MEMORY_BYTES).contains(&bytes) || bytes % 4096 != 0 {
            return Err(ModelError::Memory(self.memory));
        }
        let command_line = match &self.boot {
            BootSource::BuiltIn { command_line } => command_line,
            BootSource::Kernel(kernel) => &kernel.command_line,
        };
        if command_line.len() > MAX_COMMAND_LINE_BYTES {
            return Err(ModelError::CommandLine(command_line.len()));
        }
        if command_line.contains('\0') {
            return Err(ModelError::CommandLineNul);
        }
        Ok(())
    }
}
