//! Limits on memory, CPU, block devices and processes of a domain, by cgroup v2.
//!
//! Runs in the supervisor. A [`Hierarchy`] is a directory the supervisor may make cgroups in: its own
//! (delegated by systemd with `Delegate=yes`, or the root of the hierarchy). A domain whose
//! definition sets limits needs the controllers for them; one that sets none needs no cgroup.
//!
//! ```text
//! <own cgroup>/             the supervisor moves itself out when controllers must be enabled here,
//!   supervisor/             because a cgroup holds either processes or controlled children
//!   gateways-<instance>-<pid>/  one of the supervisor's own, for all that serve clients of libvirt's protocol
//!   domains/<name>/         one per domain; spawn() clones straight into it
//!     vcpus/                threaded: the vCPU threads, where they have a limit of their own
//!       <number>/           threaded: one of them, where each has
//! ```
//!
//! A later supervisor finds the same place: started in `<own cgroup>` again, or in its `supervisor`.
//! systemd cannot do the first while domains have limits: it would put the process into a cgroup that
//! has controlled children, and the kernel refuses. As a service the supervisor is therefore told of
//! another unit's delegated cgroup ([`Hierarchy::at`]), in which no process is but the domains';
//! systemd 254 and newer could do with `DelegateSubgroup=supervisor` instead.

mod domain;
mod hierarchy;

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

pub use self::domain::{DomainCgroup, LAST_THREADS};
pub use self::hierarchy::Hierarchy;

/// The file of the limit of what is swapped out: there where the kernel counts it alone.
const SWAP: &str = "memory.swap.max";

/// What a domain may use. `None`: as much as there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory, the guest's included (`memory.max`).
    pub memory_max: Option<u64>,
    /// Bytes of memory beyond which the kernel slows it down and takes back what it can (`memory.high`).
    pub memory_high: Option<u64>,
    /// Bytes of it that are swapped out, beside those in memory (`memory.swap.max`).
    pub swap_max: Option<u64>,
    /// CPU time per period (`cpu.max`).
    pub cpu_max: Option<CpuMax>,
    /// Share of contended CPU time, 1 to 10000, 100 by default (`cpu.weight`).
    pub cpu_weight: Option<u16>,
    /// Processes and threads (`pids.max`).
    pub pids_max: Option<u32>,
    /// CPU time per period of the threads in `vcpus` alone (its `cpu.max`).
    pub vcpu_max: Option<CpuMax>,
    /// CPU time per period of each thread in `vcpus` (the `cpu.max` of its own cgroup in there).
    pub each_vcpu_max: Option<CpuMax>,
    /// Share of contended block devices, 1 to 10000, 100 by default (`io.bfq.weight`, where more than 1000 is 1000, and
    /// `io.weight`).
    pub block_weight: Option<u16>,
    /// Bounds of single block devices; of others there are none.
    pub block_devices: Vec<BlockLimits>,
    /// The NUMA nodes of the host that memory is taken from, as `0-1,3` (`cpuset.mems`).
    pub memory_nodes: Option<String>,
}

/// What a domain may use of a block device. `None`: as much as there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockLimits {
    /// Its major and minor number.
    pub device: (u32, u32),
    /// The share of it alone.
    pub weight: Option<u16>,
    /// Bytes read a second (`io.max`).
    pub read_bytes: Option<u64>,
    /// Bytes written a second.
    pub write_bytes: Option<u64>,
    /// Reads a second.
    pub read_operations: Option<u32>,
    /// Writes a second.
    pub write_operations: Option<u32>,
}

impl BlockLimits {
    /// No bound of a device.
    const fn none(device: (u32, u32)) -> Self {
        Self {
            device,
            weight: None,
            read_bytes: None,
            write_bytes: None,
            read_operations: None,
            write_operations: None,
        }
    }

    /// As `io.max` has it.
    fn setting(&self) -> String {
        fn bound(bound: Option<impl ToString>) -> String {
            bound.map_or_else(|| "max".to_owned(), |bound| bound.to_string())
        }
        let (major, minor) = self.device;
        format!(
            "{major}:{minor} rbps={} wbps={} riops={} wiops={}",
            bound(self.read_bytes),
            bound(self.write_bytes),
            bound(self.read_operations),
            bound(self.write_operations)
        )
    }

    /// As `io.weight` has it.
    fn share(&self) -> String {
        let (major, minor) = self.device;
        match self.weight {
            Some(weight) => format!("{major}:{minor} {weight}"),
            None => format!("{major}:{minor} default"),
        }
    }
}

/// CPU bandwidth: this much time in each period, over all CPUs together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuMax {
    /// Microseconds of CPU time.
    pub quota_us: u64,
    /// Microseconds of wall time.
    pub period_us: u64,
}

impl CpuMax {
    fn setting(self) -> String {
        format!("{} {}", self.quota_us, self.period_us)
    }
}

impl Limits {
    /// Whether anything is limited at all.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether there is a limit of memory or of what is swapped out of it.
    pub fn limits_memory(&self) -> bool {
        self.memory_max.is_some() || self.memory_high.is_some() || self.swap_max.is_some()
    }

    /// The controllers that these limits need.
    pub fn controllers(&self) -> Vec<&'static str> {
        let needs = [
            (
                "cpu",
                self.cpu_max.is_some()
                    || self.cpu_weight.is_some()
                    || self.vcpu_max.is_some()
                    || self.each_vcpu_max.is_some(),
            ),
            (
                "io",
                self.block_weight.is_some() || !self.block_devices.is_empty(),
            ),
            ("memory", self.limits_memory()),
            ("cpuset", self.memory_nodes.is_some()),
            ("pids", self.pids_max.is_some()),
        ];
        needs
            .into_iter()
            .filter_map(|(name, needed)| needed.then_some(name))
            .collect()
    }

    /// File and content for each limit.
    fn settings(&self) -> Vec<(&'static str, String)> {
        let settings = [
            ("memory.max", self.memory_max.map(|bytes| bytes.to_string())),
            (
                "memory.high",
                self.memory_high.map(|bytes| bytes.to_string()),
            ),
            (SWAP, self.swap_max.map(|bytes| bytes.to_string())),
            ("cpu.max", self.cpu_max.map(CpuMax::setting)),
            (
                "cpu.weight",
                self.cpu_weight.map(|weight| weight.to_string()),
            ),
            ("pids.max", self.pids_max.map(|count| count.to_string())),
            ("cpuset.mems", self.memory_nodes.clone()),
        ];
        settings
            .into_iter()
            .filter_map(|(file, value)| Some((file, value?)))
            .collect()
    }
}

/// How much of something a domain uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// So much.
    pub used: u64,
    /// What it is limited to, if it is.
    pub limit: Option<u64>,
}

impl Use {
    /// Whether that is too much for a new limit, which is lower than the one there is.
    pub fn exceeds(&self, limit: u64) -> bool {
        self.limit.is_none_or(|before| limit < before) && self.used > limit
    }
}

/// Why a domain gets no cgroup.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// No cgroup v2 hierarchy is mounted.
    #[error("no cgroup v2 hierarchy is mounted")]
    NoHierarchy,
    /// Limits are set that nothing here can enforce.
    #[error("cgroup v2 controllers missing at {}: {}", at.display(), controllers.join(", "))]
    MissingControllers {
        /// Where they were looked for.
        at: PathBuf,
        /// Which.
        controllers: Vec<String>,
    },
    /// The controller of CPU sets is not on for domains that run, and to put it on would have the kernel forget where
    /// their threads may run.
    #[error(
        "the controller cpuset is not on at {}, where domains run: a kernel before 6.2 that puts it on now forgets \
         which CPUs their threads are bound to",
        .0.display()
    )]
    Unbinds(PathBuf),
    /// A name that is not one path component.
    #[error("not a name for a cgroup: {0:?}")]
    Name(String),
    /// A file or directory of the hierarchy.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl CgroupError {
    /// What an administrator can do, where that is known.
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Unbinds(_) => Some("end the domains that run here first"),
            Self::NoHierarchy => Some("mount -t cgroup2 none /sys/fs/cgroup"),
            Self::MissingControllers { .. } => Some(
                "delegate the controllers (systemd: Delegate=yes), or boot with \
                 systemd.unified_cgroup_hierarchy=1 where version 1 holds them",
            ),
            Self::Io { path, source }
                if matches!(source.kind(), ErrorKind::NotFound | ErrorKind::Unsupported)
                    && (path.ends_with("io.weight") || path.ends_with("io.bfq.weight")) =>
            {
                Some("shares of block devices need the scheduler bfq on them, or blk-iocost")
            }
            Self::Io { path, source }
                if source.kind() == ErrorKind::NotFound && path.ends_with(SWAP) =>
            {
                Some(
                    "the kernel does not count what is swapped out: boot it without swapaccount=0 and with swap \
                     built in, or set no limit of memory and swap together",
                )
            }
            Self::Io { source, .. } if source.kind() == ErrorKind::PermissionDenied => {
                Some("delegate a cgroup to this user (systemd: Delegate=yes)")
            }
            _ => None,
        }
    }
}

fn make_dir(path: &Path) -> Result<(), CgroupError> {
    match fs::create_dir(path) {
        Err(source) if source.kind() != ErrorKind::AlreadyExists => Err(CgroupError::Io {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

fn read(path: &Path) -> Result<String, CgroupError> {
    fs::read_to_string(path).map_err(|source| CgroupError::Io {
        path: path.to_owned(),
        source,
    })
}

fn write(path: &Path, text: &str) -> Result<(), CgroupError> {
    // Never created: a missing file is a missing controller, not a new file.
    fs::File::options()
        .write(true)
        .open(path)
        .and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes()))
        .map_err(|source| CgroupError::Io {
            path: path.to_owned(),
            source,
        })
}

#[cfg(test)]
mod tests;
