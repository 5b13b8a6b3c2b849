//! The host: what it is, and what it does just now.

use std::collections::BTreeMap;
use std::sync::Arc;

use reeve_ipc::api::call::{HostCpuList, HostCpuStatsGet, HostFreePagesGet, HostMemoryStatsGet};
use reeve_ipc::api::host::{CpuTimes, HostCpu, HostInfo};

use super::cpus::known;
use super::define::hypervisor;
use super::failure::{Code, Failure, check_flags, invalid_argument};
use super::pinning::map_of;
use super::{Context, connect, kib};
use crate::wire::types::CELLS_MAX;
use crate::wire::types::connect::{ConnectGetCapabilities, ConnectGetDomainCapabilities};
use crate::wire::types::host as wire;
use crate::wire::xdr::{Chars, List};
use crate::xml::XmlErrorKind;
use crate::xml::capabilities::{self, Cell, Host, Signature};
use crate::xml::domain::EMULATOR;
use crate::xml::domain_capabilities::{self, Query};

fn signed(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

pub(super) async fn info(
    context: Arc<Context>,
    _: wire::NodeGetInfo,
) -> Result<wire::NodeInfo, Failure> {
    let host = connect::host(&context).await?;
    let cpus = u32::try_from(host.online.iter().count()).unwrap_or(u32::MAX);
    let mut topology = host.topology;
    let product = [topology.sockets, topology.cores, topology.threads]
        .iter()
        .try_fold(topology.nodes, |product, count| product.checked_mul(*count));
    if product != Some(cpus) {
        // As libvirt tells of hosts whose sockets are not alike: clients multiply these.
        (topology.nodes, topology.sockets, topology.threads) = (1, 1, 1);
        topology.cores = cpus;
    }
    Ok(wire::NodeInfo {
        model: Chars::of(&host.architecture),
        memory: kib(host.memory.bytes()),
        cpus: signed(cpus),
        mhz: signed(host.cpu.mhz.unwrap_or(0)),
        nodes: signed(topology.nodes),
        sockets: signed(topology.sockets),
        cores: signed(topology.cores),
        threads: signed(topology.threads),
    })
}

pub(super) async fn free_memory(
    context: Arc<Context>,
    _: wire::NodeGetFreeMemory,
) -> Result<u64, Failure> {
    Ok(context.call(HostMemoryStatsGet {}).await?.free)
}

/// Where a client's range of cells begins and how many there are at most.
fn cells(start: i32, count: u32) -> Result<(usize, usize), Failure> {
    let negative = |_| invalid_argument("a cell's number must not be negative");
    let start = usize::try_from(start).map_err(negative)?;
    Ok((start, usize::try_from(count).unwrap_or(usize::MAX)))
}

/// Refuses a range that begins behind the last of `count` cells.
fn within_cells(start: usize, count: usize) -> Result<(), Failure> {
    if start < count {
        return Ok(());
    }
    let last = count.saturating_sub(1);
    let why = format!("start cell {start} out of range (0-{last})");
    Err(Failure::new(Code::InternalError, why))
}

pub(super) async fn cells_free_memory(
    context: Arc<Context>,
    call: wire::NodeGetCellsFreeMemory,
) -> Result<List<u64, CELLS_MAX>, Failure> {
    let count = u32::try_from(call.max_cells).unwrap_or(0);
    let (start, count) = cells(call.start_cell, count)?;
    let nodes = context.call(HostMemoryStatsGet {}).await?.nodes;
    within_cells(start, nodes.len())?;
    let nodes = nodes.iter().skip(start).take(count);
    Ok(nodes.map(|node| node.free).collect())
}

fn stat(field: &str, value: u64) -> wire::NodeStat {
    wire::NodeStat {
        field: field.to_owned(),
        value,
    }
}

/// As many figures as a client has room for; asked with room for none, how many there are.
fn within(stats: Vec<wire::NodeStat>, room: i32) -> (Vec<wire::NodeStat>, i32) {
    let count = |stats: &[_]| i32::try_from(stats.len()).unwrap_or(i32::MAX);
    match usize::try_from(room) {
        Ok(room) if room > 0 => {
            let stats: Vec<_> = stats.into_iter().take(room).collect();
            let count = count(&stats);
            (stats, count)
        }
        _ => (Vec::new(), count(&stats)),
    }
}

/// Every CPU, or all nodes, together.
const ALL: i32 = -1;

pub(super) async fn cpu_stats(
    context: Arc<Context>,
    call: wire::NodeGetCpuStats,
) -> Result<wire::NodeCpuStats, Failure> {
    check_flags(call.flags, 0, "virNodeGetCPUStats")?;
    let unknown = || {
        invalid_argument(format!(
            "Invalid cpuNum in virNodeGetCPUStats: {}",
            call.cpu
        ))
    };
    let times = if call.cpu == ALL {
        let stats = context.call(HostCpuStatsGet { first: 0, count: 0 });
        stats.await?.total
    } else {
        let first = u32::try_from(call.cpu).map_err(|_| unknown())?;
        let stats = context.call(HostCpuStatsGet { first, count: 1 }).await?;
        let mut cpus = stats.cpus.iter();
        let found = cpus.find(|cpu| cpu.cpu == first);
        found.ok_or_else(unknown)?.times
    };
    let CpuTimes {
        kernel_ns,
        user_ns,
        idle_ns,
        io_wait_ns,
        interrupt_ns,
        ..
    } = times;
    let stats = vec![
        stat("kernel", kernel_ns),
        stat("user", user_ns),
        stat("idle", idle_ns),
        stat("iowait", io_wait_ns),
        stat("intr", interrupt_ns),
    ];
    let (params, nparams) = within(stats, call.nparams);
    Ok(wire::NodeCpuStats {
        params: params.into(),
        nparams,
    })
}

pub(super) async fn memory_stats(
    context: Arc<Context>,
    call: wire::NodeGetMemoryStats,
) -> Result<wire::NodeMemoryStats, Failure> {
    check_flags(call.flags, 0, "virNodeGetMemoryStats")?;
    let memory = context.call(HostMemoryStatsGet {}).await?;
    let stats = if call.cell == ALL {
        vec![
            stat("total", kib(memory.total)),
            stat("free", kib(memory.free)),
            stat("buffers", kib(memory.buffers)),
            stat("cached", kib(memory.cached)),
        ]
    } else {
        let unknown = || {
            invalid_argument(format!(
                "Invalid cellNum in virNodeGetMemoryStats: {}",
                call.cell
            ))
        };
        let wanted = u32::try_from(call.cell).map_err(|_| unknown())?;
        let mut nodes = memory.nodes.iter();
        let node = nodes.find(|node| node.node == wanted).ok_or_else(unknown)?;
        vec![stat("total", kib(node.total)), stat("free", kib(node.free))]
    };
    let (params, nparams) = within(stats, call.nparams);
    Ok(wire::NodeMemoryStats {
        params: params.into(),
        nparams,
    })
}

pub(super) async fn cpu_map(
    context: Arc<Context>,
    call: wire::NodeGetCpuMap,
) -> Result<wire::NodeCpuMap, Failure> {
    check_flags(call.flags, 0, "virNodeGetCPUMap")?;
    let host = connect::host(&context).await?;
    let last = host.present.iter().last().unwrap_or(0);
    let count = last.saturating_add(1);
    let length = usize::try_from(count.div_ceil(8)).unwrap_or(0);
    let cpumap = match call.need_map {
        true => map_of(host.online.iter(), length),
        false => Vec::new(),
    };
    let online = host.online.iter().count();
    Ok(wire::NodeCpuMap {
        cpumap: cpumap.into(),
        online: match call.need_online {
            true => u32::try_from(online).unwrap_or(u32::MAX),
            false => 0,
        },
        ret: signed(count),
    })
}

pub(super) async fn free_pages(
    context: Arc<Context>,
    call: wire::NodeGetFreePages,
) -> Result<List<u64, CELLS_MAX>, Failure> {
    check_flags(call.flags, 0, "virNodeGetFreePages")?;
    let (start, count) = cells(call.start_cell, call.cell_count)?;
    let nodes = context.call(HostFreePagesGet {}).await?;
    within_cells(start, nodes.len())?;
    let mut counts = Vec::new();
    for node in nodes.iter().skip(start).take(count) {
        for size in &call.pages.0 {
            let bytes = u64::from(*size) << 10;
            let mut pages = node.pages.iter();
            let pages = pages.find(|pages| pages.size_bytes == bytes);
            let none = || {
                let why = format!("page size {size} is not available on node {}", node.node);
                Failure::new(Code::OperationFailed, why)
            };
            counts.push(pages.ok_or_else(none)?.count);
        }
    }
    Ok(counts.into())
}

/// No host is put to sleep on a client's word: answered as by one that cannot sleep.
pub(super) async fn suspend(
    _: Arc<Context>,
    call: wire::NodeSuspendForDuration,
) -> Result<(), Failure> {
    check_flags(call.flags, 0, "virNodeSuspendForDuration")?;
    let what = match call.target {
        0 => "Suspend-to-RAM",
        1 => "Suspend-to-Disk",
        2 => "Hybrid-Suspend",
        _ => return Err(invalid_argument("unknown target of a host's suspension")),
    };
    Err(Failure::new(Code::ArgumentUnsupported, what))
}

/// The host's huge pages are its administrator's to make: what would change their number is refused.
pub(super) async fn alloc_pages(
    context: Arc<Context>,
    call: wire::NodeAllocPages,
) -> Result<i32, Failure> {
    /// The number is to be that, not so many more.
    const SET: u32 = 1;
    const SMALL: u64 = 4096;
    check_flags(call.flags, SET, "virNodeAllocPages")?;
    let nodes = context.call(HostFreePagesGet {}).await?;
    let mut sizes = nodes.iter().flat_map(|node| &node.pages);
    let Some(size) = call.page_sizes.0.first() else {
        return Err(invalid_argument("no sizes of pages"));
    };
    let bytes = u64::from(*size) << 10;
    let unsupported = |why: &str| Err(Failure::new(Code::OperationUnsupported, why));
    if bytes == SMALL {
        return unsupported("system pages pool can't be modified");
    }
    if !sizes.any(|pages| pages.size_bytes == bytes) {
        let why = format!("page size {size} is not available");
        return Err(Failure::new(Code::OperationFailed, why));
    }
    unsupported("the host's huge pages are its administrator's to make")
}

/// Every CPU that runs, with where it is.
async fn cpus(context: &Context) -> Result<Vec<HostCpu>, Failure> {
    let mut all: Vec<HostCpu> = Vec::new();
    loop {
        let after = all.last().map(|last| last.cpu);
        let page = context.call(HostCpuList { after }).await?;
        let more = page.more && !page.cpus.is_empty();
        all.extend(page.cpus);
        if !more {
            return Ok(all);
        }
    }
}

/// The host as documents tell of it.
fn described(host: &HostInfo, cpus: &[HostCpu]) -> Host {
    let mut siblings: BTreeMap<(u32, u32, u32), Vec<String>> = BTreeMap::new();
    for cpu in cpus {
        let core = siblings.entry((cpu.socket, cpu.die, cpu.core));
        core.or_default().push(cpu.cpu.to_string());
    }
    let of = |node: u32| {
        let cpus = cpus.iter().filter(move |cpu| cpu.node == node);
        cpus.map(|cpu| capabilities::HostCpu {
            id: cpu.cpu,
            socket: cpu.socket,
            core: cpu.core,
            siblings: siblings
                .get(&(cpu.socket, cpu.die, cpu.core))
                .map_or_else(String::new, |siblings| siblings.join(",")),
        })
        .collect()
    };
    let cells = host.nodes.iter().map(|node| Cell {
        id: node.node,
        memory_kib: kib(node.memory.bytes()),
        cpus: of(node.node),
    });
    Host {
        uuid: host.uuid,
        emulator: EMULATOR.to_owned(),
        processor: None,
        signature: Signature {
            family: host.cpu.family,
            model: host.cpu.model,
            stepping: host.cpu.stepping,
            microcode: host.cpu.microcode,
            physical_bits: host.cpu.physical_bits,
        },
        guest_processor: None,
        sockets: host.topology.sockets,
        cores: host.topology.cores,
        threads: host.topology.threads,
        cells: cells.collect(),
    }
}

async fn describe(context: &Context) -> Result<Host, Failure> {
    let (host, cpus, known) = tokio::join!(connect::host(context), cpus(context), known(context));
    let (host, (own, guest)) = (host?, known?);
    Ok(Host {
        processor: own.described(true),
        guest_processor: guest.described(false),
        ..described(&host, &cpus?)
    })
}

pub(super) async fn capabilities(
    context: Arc<Context>,
    _: ConnectGetCapabilities,
) -> Result<String, Failure> {
    let host = describe(&context).await?;
    Ok(capabilities::format(&host, hypervisor(&context)))
}

/// What a document of a domain's capabilities says of such domains.
///
/// # Errors
/// There are none.
pub(super) async fn capabilities_of(
    context: &Context,
    query: &Query<'_>,
) -> Result<String, Failure> {
    let host = describe(context).await?;
    let printed = domain_capabilities::format(query, &host, hypervisor(context));
    printed.map_err(|error| match error.kind {
        XmlErrorKind::Unsupported => Failure::new(Code::SystemError, error.message),
        _ => invalid_argument(error.message),
    })
}

pub(super) async fn domain_capabilities(
    context: Arc<Context>,
    call: ConnectGetDomainCapabilities,
) -> Result<String, Failure> {
    check_flags(call.flags, 0, "virConnectGetDomainCapabilities")?;
    let query = Query {
        emulator: call.emulator.as_deref(),
        arch: call.arch.as_deref(),
        machine: call.machine.as_deref(),
        kind: call.virt_type.as_deref(),
    };
    capabilities_of(&context, &query).await
}
