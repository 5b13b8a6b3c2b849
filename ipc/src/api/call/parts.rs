//! What calls and their answers are made of.

use serde::{Deserialize, Serialize};

use crate::api::event::{Cursor, Label};
use crate::api::view::DomainSummary;
use crate::model::{
    BlockTuning, CpuQuota, CpuSet, DiskTarget, DomainName, DomainUuid, MemoryNodes, MemorySize,
    MetadataElement,
};
pub use crate::request::MAX_PEEK_BYTES;

/// Names a domain.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DomainRef {
    /// By its name.
    Name(DomainName),
    /// By its UUID.
    Uuid(DomainUuid),
    /// By its number while it runs.
    Id(u32),
}

impl std::fmt::Display for DomainRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => write!(f, "'{name}'"),
            Self::Uuid(uuid) => uuid.fmt(f),
            Self::Id(id) => write!(f, "number {id}"),
        }
    }
}

/// How a domain is started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartOptions {
    /// Let it stand with no vCPU running.
    pub paused: bool,
    /// Destroy it when this connection ends.
    pub auto_destroy: bool,
}

/// One page of domains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainPage {
    /// At most [`MAX_PAGE`](crate::api::MAX_PAGE), and as many as fit a message.
    pub domains: Vec<DomainSummary>,
    /// Whether there are more, after the last of these.
    pub more: bool,
}

/// A change of what is noted about a domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LabelChange {
    /// Another title, or none.
    Title(Option<String>),
    /// Another description, or none.
    Description(Option<String>),
    /// The element of its namespace, new or in place of the one before.
    Metadata(MetadataElement),
    /// No element of this namespace any more.
    MetadataRemove {
        /// The namespace's URI.
        uri: String,
    },
}

impl LabelChange {
    /// Which label it is of.
    #[must_use]
    pub fn label(&self) -> Label {
        match self {
            Self::Title(_) => Label::Title,
            Self::Description(_) => Label::Description,
            Self::Metadata(MetadataElement { uri, .. }) | Self::MetadataRemove { uri } => {
                Label::Metadata { uri: uri.clone() }
            }
        }
    }
}

/// The most changes of one [`DomainTune`](super::DomainTune).
pub const MAX_TUNING_CHANGES: usize = 64;

/// A change of where a domain runs or of what it may use. `None` stands for no bound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TuningChange {
    /// Where a vCPU may run.
    VcpuCpus {
        /// Which, from 0.
        vcpu: u32,
        /// There.
        cpus: Option<CpuSet>,
    },
    /// Where all threads of the worker but the vCPUs may run.
    EmulatorCpus(Option<CpuSet>),
    /// The most memory of the host, as [`ResourceLimits::memory`](crate::model::ResourceLimits::memory).
    MemoryLimit(Option<MemorySize>),
    /// The most CPU time of all, as [`ResourceLimits::cpu_percent`](crate::model::ResourceLimits::cpu_percent).
    CpuPercent(Option<u32>),
    /// The most CPU time of the vCPUs, as
    /// [`ResourceLimits::vcpu_percent`](crate::model::ResourceLimits::vcpu_percent).
    VcpuPercent(Option<u32>),
    /// The share of contended CPU time, as
    /// [`ResourceLimits::cpu_weight`](crate::model::ResourceLimits::cpu_weight).
    CpuWeight(Option<u16>),
    /// The most CPU time of each vCPU, as [`Tuning::vcpu_quota`](crate::model::Tuning::vcpu_quota).
    VcpuQuota(Option<CpuQuota>),
    /// Shares and limits of the host's block devices, all of them.
    Block(BlockTuning),
    /// The nodes that its memory is on, as [`Tuning::memory_nodes`](crate::model::Tuning::memory_nodes).
    MemoryNodes(Option<MemoryNodes>),
    /// The memory beyond which it is slowed down, as
    /// [`ResourceLimits::memory_soft`](crate::model::ResourceLimits::memory_soft).
    MemorySoftLimit(Option<MemorySize>),
    /// The most memory and swap together, as
    /// [`ResourceLimits::memory_and_swap`](crate::model::ResourceLimits::memory_and_swap).
    MemoryAndSwapLimit(Option<MemorySize>),
}

impl TuningChange {
    /// What a decoder counts for it, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let sets = match self {
            Self::VcpuCpus { cpus, .. } | Self::EmulatorCpus(cpus) => {
                cpus.as_ref().map_or(0, CpuSet::bytes)
            }
            Self::MemoryNodes(nodes) => nodes.as_ref().map_or(0, |nodes| nodes.nodes.bytes()),
            Self::Block(block) => block.bytes(),
            Self::MemoryLimit(_)
            | Self::MemorySoftLimit(_)
            | Self::MemoryAndSwapLimit(_)
            | Self::CpuPercent(_)
            | Self::VcpuPercent(_)
            | Self::CpuWeight(_)
            | Self::VcpuQuota(_) => 0,
        };
        FIXED_CHANGE_BYTES + sets
    }
}

/// What a decoder counts for a change beside its sets and devices, at most.
const FIXED_CHANGE_BYTES: usize = 24;

/// Where a console's stream begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleStream {
    /// How many bytes the guest had written before the first byte of the stream.
    pub position: u64,
}

/// A log of a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogKind {
    /// What the supervisor and the worker said about it.
    Domain,
    /// What its guest wrote to its console.
    Console,
}

/// A subscription has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscribed {
    /// The last event before the first that will come.
    pub cursor: Cursor,
    /// Events between what the client has seen and that are lost: it must look at everything again.
    pub lost: bool,
}

/// Where bytes are looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeekAt {
    /// In the guest's memory.
    Memory,
    /// On a disk, as its guest sees it.
    Disk(DiskTarget),
}

/// How large a disk is, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskSize {
    /// As its guest sees it.
    pub capacity: u64,
    /// What its file takes on the host.
    pub allocation: u64,
    /// Where its file ends.
    pub physical: u64,
}
