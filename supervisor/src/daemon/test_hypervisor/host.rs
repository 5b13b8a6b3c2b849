//! A host of fixed numbers: those of libvirt's test driver (`testConnectOpen`, `defaultNodeInfo`), where they are
//! consistent. Its name is that of the host it is on.

use std::net::IpAddr;
use std::sync::Arc;

use reeve_ipc::api::MAX_PAGE;
use reeve_ipc::api::host::{
    CpuTimes, HostCpu, HostCpuModel, HostCpuPage, HostCpuStats, HostCpuTimes, HostCpuid,
    HostDriver, HostFreePages, HostInfo, HostMemoryStats, HostNode, HostNodeMemory, HostPages,
    HostTopology,
};
use reeve_ipc::api::interface::{
    HostInterface, HostInterfaceKind, HostInterfacePage, LinkState, NicNeighbour,
};
use reeve_ipc::model::{CpuSet, MemorySize};
use reeve_ipc::spec::{CpuidEntry, MAX_VCPUS, MachineType};
use rustix::io::Errno;
use uuid::Uuid;

use crate::host::interfaces::{Beside, paged};
use crate::host::node::{HostBooks, host_name};

const UUID: Uuid = Uuid::from_u128(0x7e57_0000_0000_4000_8000_0000_0000_0001);
/// CPUs: two sockets with two cores of two threads each in each of two nodes.
const CPUS: u32 = 16;
const CPUS_PER_NODE: u32 = 8;
const CPUS_PER_SOCKET: u32 = 4;
const CPUS_PER_CORE: u32 = 2;
const PAGE: u64 = 4096;
/// The memory of each node, and what of it is free.
const NODES: [(u64, u64); 2] = [(1 << 30, 2 << 20), (2 << 30, 4 << 20)];
/// What a CPU has done.
const TIMES: CpuTimes = CpuTimes {
    kernel_ns: 34_678_723_400_000,
    user_ns: 9_797_400_000,
    idle_ns: 87_264_900_000,
    io_wait_ns: 763_600_000,
    interrupt_ns: 0,
    stolen_ns: 0,
};

/// The host of the test hypervisor.
#[derive(Debug, Clone, Copy)]
pub(super) struct TestHost;

/// CPUs of these numbers.
fn cpus(first: u32, last: u32) -> CpuSet {
    CpuSet::try_from(vec![(first, last)]).expect("a range of few CPUs is a set")
}

/// Sum over the nodes.
fn all(of: impl Fn(&(u64, u64)) -> u64) -> u64 {
    NODES.iter().map(of).sum()
}

/// The nodes with their numbers.
fn numbered() -> impl Iterator<Item = (u32, (u64, u64))> {
    (0..).zip(NODES)
}

fn pages(bytes: u64) -> Vec<HostPages> {
    let of = |size_bytes, count| HostPages { size_bytes, count };
    vec![of(PAGE, bytes / PAGE), of(2 << 20, 0), of(1 << 30, 0)]
}

impl HostBooks for TestHost {
    fn known(&self) -> Option<Arc<HostInfo>> {
        Some(self.fresh())
    }

    fn fresh(&self) -> Arc<HostInfo> {
        let every = cpus(0, CPUS - 1);
        let nodes = numbered().map(|(node, (memory, _))| HostNode {
            node,
            cpus: Some(cpus(
                node * CPUS_PER_NODE,
                node * CPUS_PER_NODE + CPUS_PER_NODE - 1,
            )),
            memory: MemorySize(memory),
            distances: if node == 0 {
                vec![10, 20]
            } else {
                vec![20, 10]
            },
            pages: pages(memory),
        });
        Arc::new(HostInfo {
            hostname: host_name(),
            uuid: UUID,
            architecture: "x86_64".to_owned(),
            cpu: HostCpuModel {
                name: "Reeve test CPU".to_owned(),
                mhz: Some(1400),
                ..HostCpuModel::default()
            },
            topology: HostTopology {
                nodes: 2,
                sockets: CPUS_PER_NODE / CPUS_PER_SOCKET,
                cores: CPUS_PER_SOCKET / CPUS_PER_CORE,
                threads: CPUS_PER_CORE,
            },
            online: every.clone(),
            present: every.clone(),
            possible: every,
            nodes: nodes.collect(),
            memory: MemorySize(all(|(memory, _)| *memory)),
            driver: HostDriver::Test,
            kvm_lacks: Some("the test hypervisor uses none".to_owned()),
            machines: MachineType::ALL.to_vec(),
            max_vcpus: MAX_VCPUS,
        })
    }

    fn cpus(&self, after: Option<u32>) -> HostCpuPage {
        let first = after.map_or(0, |after| after.saturating_add(1));
        let cpus = (first..CPUS).map(|cpu| HostCpu {
            cpu,
            node: cpu / CPUS_PER_NODE,
            socket: cpu / CPUS_PER_SOCKET,
            die: 0,
            core: cpu % CPUS_PER_SOCKET / CPUS_PER_CORE,
        });
        HostCpuPage {
            cpus: cpus.collect(),
            more: false,
        }
    }

    fn cpu_stats(&self, first: u32, count: u32) -> HostCpuStats {
        let last = first.saturating_add(count).min(CPUS);
        let cpus = (first..last).map(|cpu| HostCpuTimes { cpu, times: TIMES });
        let of = |time: u64| time.saturating_mul(CPUS.into());
        HostCpuStats {
            total: CpuTimes {
                kernel_ns: of(TIMES.kernel_ns),
                user_ns: of(TIMES.user_ns),
                idle_ns: of(TIMES.idle_ns),
                io_wait_ns: of(TIMES.io_wait_ns),
                interrupt_ns: 0,
                stolen_ns: 0,
            },
            cpus: cpus.take(MAX_PAGE).collect(),
            more: false,
        }
    }

    fn memory_stats(&self) -> HostMemoryStats {
        let free = all(|(_, free)| *free);
        let nodes = numbered().map(|(node, (total, free))| HostNodeMemory { node, total, free });
        HostMemoryStats {
            total: all(|(memory, _)| *memory),
            free,
            available: free,
            buffers: 0,
            cached: 0,
            nodes: nodes.collect(),
        }
    }

    fn free_pages(&self) -> Vec<HostFreePages> {
        let nodes = numbered().map(|(node, (_, free))| HostFreePages {
            node,
            pages: pages(free),
        });
        nodes.collect()
    }

    /// Of no maker, with what every 64-bit processor has (libvirt's `kvm64`) and the flag of a hypervisor.
    fn cpuid(&self) -> HostCpuid {
        let leaf = |function, registers| CpuidEntry {
            function,
            index: 0,
            flags: 0,
            registers,
        };
        let leaves = vec![
            leaf(1, [0, 0, 1 << 31 | 1 << 13 | 1, 0x078B_FBFD]),
            leaf(0x8000_0001, [0, 0, 0, 1 << 29 | 1 << 20 | 1 << 11]),
        ];
        HostCpuid {
            host: leaves.clone(),
            guest: leaves,
        }
    }

    /// The one interface that libvirt's test driver has from the start.
    fn interfaces(&self, after: Option<&str>) -> Result<HostInterfacePage, Errno> {
        let interface = HostInterface {
            name: "eth1".to_owned(),
            address: vec![0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff],
            mtu: 1492,
            state: LinkState::Up,
            speed: None,
            kind: HostInterfaceKind::Ethernet,
            tap: false,
            part_of: None,
            addresses: vec![(IpAddr::from([192, 168, 0, 5]), 24)],
            routers: vec![IpAddr::from([192, 168, 0, 1])],
            on_boot: Some(true),
        };
        Ok(paged(vec![interface], after))
    }

    /// Nobody talks to what only looks like a guest.
    fn neighbours(&self, _: Vec<Beside>) -> Result<Vec<NicNeighbour>, Errno> {
        Ok(Vec::new())
    }
}
