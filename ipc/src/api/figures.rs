//! The figures of many domains at once, for clients that look every few seconds.

use serde::{Deserialize, Serialize};

use super::call::DomainRef;
use super::view::{DeviceStats, DomainSummary, VcpuStats};
use crate::model::DomainName;

/// Of which domains figures are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FiguresOf {
    /// All, in the order of their names.
    All {
        /// Only those after this name.
        after: Option<DomainName>,
        /// Only those with a worker.
        active_only: bool,
    },
    /// These, at most [`MAX_PAGE`](super::MAX_PAGE), in this order. One that does not exist is left out.
    Named(Vec<DomainRef>),
}

/// Which figures are wanted beside a summary. Only those of devices are a worker's to tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FigureGroups {
    /// CPU time and memory of the host.
    pub usage: bool,
    /// vCPUs.
    pub vcpus: bool,
    /// Devices.
    pub devices: bool,
}

/// One page of figures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FiguresPage {
    /// As many as fit a message.
    pub domains: Vec<DomainFigures>,
    /// How many of the domains that were named this page is of, those that do not exist with them: where it is
    /// not of all, the others are to be asked for again. 0 where none was named.
    pub of: u32,
    /// Whether there are more.
    pub more: bool,
}

/// The figures of one domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainFigures {
    /// As in a list.
    pub summary: DomainSummary,
    /// What its worker uses; `None` where there is none, or it was not asked for.
    pub usage: Option<DomainUsage>,
    /// Its vCPUs that are there, by rising number. None of a domain without a worker.
    pub vcpus: Vec<VcpuFigures>,
    /// Its devices, by rising place on the bus: those it runs with, else those it will start with. Without
    /// figures where `answered` is not set.
    pub devices: Vec<DeviceStats>,
    /// Whether its worker told the figures of its devices.
    pub answered: bool,
}

/// What a worker uses of the host, of the kernel's own books.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainUsage {
    /// CPU time, in nanoseconds.
    pub cpu_time_ns: u64,
    /// Of that in the worker and the guest.
    pub user_ns: u64,
    /// And in the kernel for them.
    pub system_ns: u64,
    /// Memory that the worker holds, guest memory included, in bytes.
    pub resident_bytes: u64,
}

/// How a vCPU stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VcpuFigures {
    /// What it has done.
    pub stats: VcpuStats,
    /// What it does.
    pub state: VcpuState,
    /// The CPU of the host that it runs on, or ran on last.
    pub cpu: Option<u32>,
}

/// What a vCPU does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VcpuState {
    /// It runs, or would.
    Running,
    /// It sleeps: its guest has nothing to do on it, or it stands still.
    Blocked,
}
