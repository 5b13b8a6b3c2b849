//! What a domain is held to beside its limits: the memory that its guest makes do with, and where its worker runs.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{CpuSet, MemorySize, ModelError};

/// The most of the host's block devices of which a domain's use is bounded.
pub const MAX_BLOCK_DEVICES: usize = 64;
/// The longest path of one, in bytes.
const MAX_BLOCK_PATH_BYTES: usize = 255;
/// What a decoder counts for one beside its path.
const BLOCK_DEVICE_BYTES: usize = 64;

/// Nothing of it set: its guest has all memory that it starts with, and its worker runs anywhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tuning {
    /// What its guest is asked to make do with from its start on (libvirt `<currentMemory>`): its balloon is to
    /// take the rest, or its memory device to bring more. A domain without the device has what it starts with.
    pub current_memory: Option<MemorySize>,
    /// Where all threads of its worker but the vCPUs may run (libvirt `<emulatorpin>`).
    pub emulator_cpus: Option<CpuSet>,
    /// The most CPU time of each of its vCPUs (libvirt `<quota>`). Beside that, [`super::ResourceLimits`] has one
    /// of all together.
    pub vcpu_quota: Option<CpuQuota>,
    /// Its use of the host's block devices (libvirt `<blkiotune>`).
    pub block: BlockTuning,
    /// The host's NUMA nodes that its memory is on (libvirt `<numatune>`); anywhere where it is not said.
    pub memory_nodes: Option<MemoryNodes>,
}

/// NUMA nodes of the host, and what they are to a domain's memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct MemoryNodes {
    /// What they are.
    pub mode: NodeMode,
    /// Their numbers, below [`MAX_NODES`].
    pub nodes: CpuSet,
}

/// Numbers of NUMA nodes are below this.
pub const MAX_NODES: u32 = 1024;

/// What nodes are to the memory of a domain (libvirt `virDomainNumatuneMemMode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeMode {
    /// It is there and nowhere else, by the memory policy that its worker starts with.
    Strict,
    /// It is there while there is room: one node.
    Preferred,
    /// It is spread over them, page by page.
    Interleave,
    /// It is there and nowhere else, by a cgroup: other nodes can be said while it runs.
    Restrictive,
}

impl MemoryNodes {
    fn validate(&self) -> Result<(), ModelError> {
        if self.nodes.iter().any(|node| node >= MAX_NODES) {
            return Err(ModelError::Limit("the number of a NUMA node is below 1024"));
        }
        if self.mode == NodeMode::Preferred && self.nodes.iter().nth(1).is_some() {
            return Err(ModelError::Limit(
                "NUMA memory tuning in 'preferred' mode only supports single node",
            ));
        }
        Ok(())
    }
}

/// CPU time in each period of wall time (cgroup v2, `cpu.max`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct CpuQuota {
    /// Microseconds of CPU time, 1000 to 2^44 - 1.
    pub quota_us: u64,
    /// Microseconds of wall time, 1000 to 1000000.
    pub period_us: u32,
}

impl CpuQuota {
    /// What a quota may be, in microseconds: what the kernel takes.
    pub const QUOTAS: std::ops::RangeInclusive<u64> = 1_000..=((1 << 44) - 1);
    /// What a period may be, in microseconds.
    pub const PERIODS: std::ops::RangeInclusive<u32> = 1_000..=1_000_000;
}

/// Shares and limits of the host's block devices (cgroup v2, `io.weight` and `io.max`). Nothing set: nothing bounded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct BlockTuning {
    /// The share of contended devices, 1 to 10000; 100 where none is set.
    pub weight: Option<u16>,
    /// Bounds of single devices, each at most once; at most [`MAX_BLOCK_DEVICES`].
    #[serde(default)]
    pub devices: Vec<BlockDeviceTuning>,
}

/// Bounds of one of the host's block devices.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct BlockDeviceTuning {
    /// Its node, somewhere beneath `/dev`; at most 255 bytes.
    pub path: PathBuf,
    /// The share of this one, 1 to 10000.
    pub weight: Option<u16>,
    /// Bytes read in a second, at most; not 0.
    pub read_bytes: Option<u64>,
    /// Bytes written in a second, at most; not 0.
    pub write_bytes: Option<u64>,
    /// Reads in a second, at most; not 0.
    pub read_operations: Option<u32>,
    /// Writes in a second, at most; not 0.
    pub write_operations: Option<u32>,
}

impl BlockTuning {
    /// Whether anything is set: cgroup v2 is then needed to start the domain.
    #[must_use]
    pub fn any(&self) -> bool {
        self.weight.is_some() || !self.devices.is_empty()
    }

    /// What a decoder counts for its devices.
    pub(crate) fn bytes(&self) -> usize {
        let devices = self.devices.iter();
        let devices = devices.map(|device| device.path.as_os_str().len() + BLOCK_DEVICE_BYTES);
        devices.sum()
    }

    fn validate(&self) -> Result<(), ModelError> {
        let weights = self.devices.iter().map(|device| device.weight);
        let mut weights = weights.chain([self.weight]).flatten();
        if weights.any(|weight| !(1..=10_000).contains(&weight)) {
            return Err(ModelError::Limit("a weight of block devices is 1 to 10000"));
        }
        if self.devices.len() > MAX_BLOCK_DEVICES {
            return Err(ModelError::Limit(
                "at most 64 of the host's block devices have bounds of their own",
            ));
        }
        for (index, device) in self.devices.iter().enumerate() {
            if !is_node(&device.path) {
                return Err(ModelError::Limit(
                    "a block device is named by its path beneath /dev, of at most 255 bytes",
                ));
            }
            let mut before = self.devices.iter().take(index);
            if before.any(|other| other.path == device.path) {
                return Err(ModelError::Limit("a block device has bounds twice"));
            }
            let bytes = [device.read_bytes, device.write_bytes];
            let operations = [device.read_operations, device.write_operations];
            if bytes.contains(&Some(0)) || operations.contains(&Some(0)) {
                return Err(ModelError::Limit(
                    "a bound of a block device is at least 1 a second",
                ));
            }
        }
        Ok(())
    }
}

/// Whether a path is one beneath `/dev` that says so itself.
fn is_node(path: &Path) -> bool {
    let bytes = path.as_os_str().as_bytes();
    let mut beneath = path
        .strip_prefix("/dev")
        .into_iter()
        .flat_map(Path::components);
    let first = beneath.next();
    let named = |component: Component<'_>| matches!(component, Component::Normal(_));
    bytes.len() <= MAX_BLOCK_PATH_BYTES
        && !bytes.iter().any(u8::is_ascii_control)
        && path.to_str().is_some_and(|path| !path.contains(','))
        && first.is_some_and(named)
        && beneath.all(named)
}

impl Tuning {
    /// What a decoder counts for it beside what is of fixed size.
    pub(super) fn bytes(&self) -> usize {
        let nodes = self.memory_nodes.as_ref().map(|nodes| &nodes.nodes);
        let sets = nodes.into_iter().chain(&self.emulator_cpus);
        sets.map(CpuSet::bytes).sum::<usize>() + self.block.bytes()
    }

    /// Checks ranges.
    ///
    /// # Errors
    /// [`ModelError::Limit`] says which is wrong.
    pub(super) fn validate(&self) -> Result<(), ModelError> {
        if let Some(CpuQuota {
            quota_us,
            period_us,
        }) = self.vcpu_quota
        {
            if !CpuQuota::PERIODS.contains(&period_us) || !CpuQuota::QUOTAS.contains(&quota_us) {
                return Err(ModelError::Limit(
                    "a CPU quota is 1000 to 2^44 - 1 microseconds, in a period of 1000 to 1000000",
                ));
            }
        }
        if let Some(nodes) = &self.memory_nodes {
            nodes.validate()?;
        }
        self.block.validate()
    }

    /// Whether anything is set that only a cgroup enforces.
    #[must_use]
    pub fn needs_cgroup(&self) -> bool {
        let restrictive = matches!(
            self.memory_nodes,
            Some(MemoryNodes {
                mode: NodeMode::Restrictive,
                ..
            })
        );
        self.vcpu_quota.is_some() || self.block.any() || restrictive
    }
}
