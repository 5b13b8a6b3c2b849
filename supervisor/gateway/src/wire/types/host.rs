//! The host: its CPUs, memory and NUMA cells.

use super::params::Params;
use super::{CELLS_MAX, CPU_MAP_MAX};
use crate::wire::call::{calls, record};
use crate::wire::xdr::{CharList, Chars, List, Opaque};

/// The most parameters of memory tuning.
const MEMORY_MAX: usize = 64;

record! {
    /// A figure of the host with its name.
    NodeStat { field: String, value: u64 }
}

calls! { Remote;
    /// CPUs and memory (KiB).
    NodeGetInfo = 6 {} => NodeInfo {
        model: Chars<32>,
        memory: u64,
        cpus: i32,
        mhz: i32,
        nodes: i32,
        sockets: i32,
        cores: i32,
        threads: i32,
    };
    /// Free memory of cells, in bytes.
    NodeGetCellsFreeMemory = 101 { start_cell: i32, max_cells: i32 } -> List<u64, CELLS_MAX>;
    /// Free memory, in bytes.
    NodeGetFreeMemory = 102 {} -> u64;
    /// The security model; empty where there is none. Both end with a NUL.
    NodeGetSecurityModel = 122 {} => SecurityModel { model: CharList<257>, doi: CharList<257> };
    /// Times of a CPU, or of all (-1), in ns. With `nparams` 0, how many there are.
    NodeGetCpuStats = 227 { cpu: i32, nparams: i32, flags: u32 }
        => NodeCpuStats { params: List<NodeStat, 16>, nparams: i32 };
    /// Figures of memory of a cell, or of all (-1), in KiB. With `nparams` 0, how many there are.
    NodeGetMemoryStats = 228 { nparams: i32, cell: i32, flags: u32 }
        => NodeMemoryStats { params: List<NodeStat, 16>, nparams: i32 };
    /// Puts the host to sleep.
    NodeSuspendForDuration = 250 { target: u32, duration: u64, flags: u32 } -> ();
    /// Sets how the host shares equal pages.
    NodeSetMemoryParameters = 288 { params: Params<MEMORY_MAX>, flags: u32 } -> ();
    /// How the host shares equal pages.
    NodeGetMemoryParameters = 289 { nparams: i32, flags: u32 }
        => NodeMemoryParameters { params: Params<MEMORY_MAX>, nparams: i32 };
    /// Which CPUs there are, how many are online, and (`ret`) how many there are.
    NodeGetCpuMap = 293 { need_map: bool, need_online: bool, flags: u32 }
        => NodeCpuMap { cpumap: Opaque<CPU_MAP_MAX>, online: u32, ret: i32 };
    /// Free pages of the sizes (KiB) in each of the cells.
    NodeGetFreePages = 340 {
        pages: List<u32, CELLS_MAX>,
        start_cell: i32,
        cell_count: u32,
        flags: u32,
    } -> List<u64, CELLS_MAX>;
    /// Makes or frees huge pages.
    NodeAllocPages = 347 {
        page_sizes: List<u32, CELLS_MAX>,
        page_counts: List<u64, CELLS_MAX>,
        start_cell: i32,
        cell_count: u32,
        flags: u32,
    } -> i32;
}
