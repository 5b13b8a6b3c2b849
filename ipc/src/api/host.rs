//! The host as clients see it: what it is, and what it does just now.
//!
//! Every number is the kernel's own, read by the supervisor from procfs and sysfs. Lists are bounded so that
//! the largest host of each kind fits a message: [`MAX_HOST_CPUS`](crate::model::MAX_HOST_CPUS) CPUs,
//! [`MAX_HOST_NODES`] nodes, [`MAX_PAGE_SIZES`] sizes of pages. What a larger host has beyond that is left out.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::model::{CpuSet, MemorySize};
use crate::spec::{CpuidEntry, MachineType};

/// The most NUMA nodes of a host that are told of.
pub const MAX_HOST_NODES: usize = 64;
/// The most sizes of pages.
pub const MAX_PAGE_SIZES: usize = 8;
/// The most features of a CPU that are told of.
pub const MAX_CPU_FLAGS: usize = 512;
/// The most bytes of each text of a host: its name, its CPU's, one of its features.
pub const MAX_HOST_TEXT_BYTES: usize = 255;

/// What a host is: what changes with its hardware, its kernel or its name only. It is read anew every few
/// seconds at most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostInfo {
    /// Its name (uname(2), `nodename`).
    pub hostname: String,
    /// What tells it from every other host: of its firmware, else of its system (machine-id(5)), else drawn
    /// once and kept in the state directory.
    pub uuid: Uuid,
    /// Its architecture, as uname(2) calls it: `x86_64`.
    pub architecture: String,
    /// Its CPUs, as the first of them says.
    pub cpu: HostCpuModel,
    /// How they are arranged.
    pub topology: HostTopology,
    /// CPUs that run.
    pub online: CpuSet,
    /// CPUs that are there, running or not.
    pub present: CpuSet,
    /// CPUs that there ever can be.
    pub possible: CpuSet,
    /// Its NUMA nodes by rising number; one where the kernel knows of none.
    pub nodes: Vec<HostNode>,
    /// All memory that its kernel manages.
    pub memory: MemorySize,
    /// What runs domains here.
    pub driver: HostDriver,
    /// Why its KVM cannot run any, in one line; `None` where it can.
    pub kvm_lacks: Option<String>,
    /// The machine types that a domain may have.
    pub machines: Vec<MachineType>,
    /// The most vCPUs of a domain.
    pub max_vcpus: u32,
}

/// What runs the domains of a supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostDriver {
    /// KVM, in sandboxed workers.
    Kvm,
    /// Nothing: machines that only look like some, for the tests of clients.
    Test,
}

/// A CPU as it names itself (`/proc/cpuinfo`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostCpuModel {
    /// Its vendor, as `GenuineIntel` or `AuthenticAMD`.
    pub vendor: String,
    /// Its name.
    pub name: String,
    /// Its family.
    pub family: u32,
    /// Its model number.
    pub model: u32,
    /// Its stepping.
    pub stepping: u32,
    /// Its microcode, where the kernel tells.
    pub microcode: Option<u32>,
    /// Its clock just now, in whole MHz, where the kernel tells.
    pub mhz: Option<u32>,
    /// Bits of a physical address, where the kernel tells.
    pub physical_bits: Option<u32>,
    /// Its features by the kernel's names, in the kernel's order.
    pub flags: Vec<String>,
}

/// How CPUs are arranged: the most of each that there are in one of those above it. The product is the number
/// of online CPUs where all are alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostTopology {
    /// NUMA nodes that have CPUs.
    pub nodes: u32,
    /// Sockets in a node.
    pub sockets: u32,
    /// Cores in a socket, of all its dies.
    pub cores: u32,
    /// Threads in a core.
    pub threads: u32,
}

/// A NUMA node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostNode {
    /// Its number.
    pub node: u32,
    /// Its CPUs that run; `None` where it has memory only.
    pub cpus: Option<CpuSet>,
    /// Its memory.
    pub memory: MemorySize,
    /// How far each node of the list is from it, in its order; 10 is here (ACPI 6.5, §5.2.17).
    pub distances: Vec<u8>,
    /// Its pages, by rising size: the common size first, with what is not of another.
    pub pages: Vec<HostPages>,
}

/// Pages of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPages {
    /// The size of one, in bytes.
    pub size_bytes: u64,
    /// How many.
    pub count: u64,
}

/// One page of the CPUs that run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostCpuPage {
    /// By rising number, at most [`MAX_PAGE`](super::MAX_PAGE).
    pub cpus: Vec<HostCpu>,
    /// Whether there are more, after the last of these.
    pub more: bool,
}

/// Where a CPU is. CPUs of the same socket, die and core are threads of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostCpu {
    /// Its number.
    pub cpu: u32,
    /// Its NUMA node.
    pub node: u32,
    /// Its socket, by the kernel's number.
    pub socket: u32,
    /// Its die in there.
    pub die: u32,
    /// Its core in there.
    pub core: u32,
}

/// What CPUs have done since the host booted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostCpuStats {
    /// All together, those that are off by now too.
    pub total: CpuTimes,
    /// Those asked for that run, by rising number, at most [`MAX_PAGE`](super::MAX_PAGE).
    pub cpus: Vec<HostCpuTimes>,
    /// Whether there are more of those asked for, after the last of these.
    pub more: bool,
}

/// What one CPU has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostCpuTimes {
    /// Its number.
    pub cpu: u32,
    /// Its times.
    pub times: CpuTimes,
}

/// Where time went, in nanoseconds (proc_stat(5)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuTimes {
    /// In the kernel, without interrupts.
    pub kernel_ns: u64,
    /// In programs and guests, niced ones too.
    pub user_ns: u64,
    /// Nothing to do.
    pub idle_ns: u64,
    /// Nothing to do but to wait for a disk.
    pub io_wait_ns: u64,
    /// Serving interrupts, hard and soft.
    pub interrupt_ns: u64,
    /// Taken by whatever this host is a guest of.
    pub stolen_ns: u64,
}

/// How the host's memory is used, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostMemoryStats {
    /// All that its kernel manages.
    pub total: u64,
    /// Unused.
    pub free: u64,
    /// To be had without swapping, as the kernel estimates.
    pub available: u64,
    /// Of block devices' own pages.
    pub buffers: u64,
    /// Of files.
    pub cached: u64,
    /// Each node's share, by rising number.
    pub nodes: Vec<HostNodeMemory>,
}

/// How a node's memory is used, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostNodeMemory {
    /// Its number.
    pub node: u32,
    /// All.
    pub total: u64,
    /// Unused.
    pub free: u64,
}

/// Pages of a node that are free.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFreePages {
    /// Its number.
    pub node: u32,
    /// How many of each size, by rising size.
    pub pages: Vec<HostPages>,
}

/// What CPUs say by CPUID, in the leaves that tell of features; at most
/// [`MAX_CPUID_ENTRIES`](crate::spec::MAX_CPUID_ENTRIES) each.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostCpuid {
    /// The host's own.
    pub host: Vec<CpuidEntry>,
    /// Those of a guest whose definition says nothing of them; none where no guest can run.
    pub guest: Vec<CpuidEntry>,
}
