//! What the host is, and how its memory is used.

use reeve_ipc::api::blocking::Connection;
use reeve_ipc::api::call::{HostCpuStatsGet, HostFreePagesGet, HostInfoGet, HostMemoryStatsGet};
use reeve_ipc::api::host::{
    CpuTimes, HostDriver, HostFreePages, HostInfo, HostMemoryStats, HostPages,
};
use reeve_ipc::model::MemorySize;
use serde_json::{Value, json};

use super::show::human;
use super::table::{Table, fields};
use super::{CommandError, Output};

pub(super) fn host(connection: &mut Connection, out: Output) -> Result<(), CommandError> {
    let info = connection.call(HostInfoGet {})?;
    let memory = connection.call(HostMemoryStatsGet {})?;
    let free = connection.call(HostFreePagesGet {})?;
    let (first, count) = (0, 0);
    let times = connection.call(HostCpuStatsGet { first, count })?.total;
    out.value(&value(&info, &memory, &free, times), || {
        text(&info, &memory, &free)
    })
}

/// With keys that stay.
fn value(
    info: &HostInfo,
    memory: &HostMemoryStats,
    free: &[HostFreePages],
    times: CpuTimes,
) -> Value {
    let nodes = info.nodes.iter().map(|node| {
        let free = free.iter().find(|free| free.node == node.node);
        json!({
            "node": node.node,
            "cpus": node.cpus.as_ref().map(ToString::to_string),
            "memory_bytes": node.memory.bytes(),
            "distances": node.distances,
            "pages": node.pages,
            "free_pages": free.map(|free| &free.pages),
        })
    });
    json!({
        "hostname": info.hostname,
        "uuid": info.uuid,
        "architecture": info.architecture,
        "cpu": info.cpu,
        "topology": info.topology,
        "cpus": {
            "online": info.online.to_string(),
            "present": info.present.to_string(),
            "possible": info.possible.to_string(),
        },
        "cpu_times": times,
        "memory": {
            "total_bytes": memory.total,
            "free_bytes": memory.free,
            "available_bytes": memory.available,
            "buffers_bytes": memory.buffers,
            "cached_bytes": memory.cached,
        },
        "nodes": nodes.collect::<Vec<_>>(),
        "driver": info.driver,
        "kvm_lacks": info.kvm_lacks,
        "machines": info.machines.iter().map(|machine| machine.name()).collect::<Vec<_>>(),
        "max_vcpus": info.max_vcpus,
    })
}

fn text(info: &HostInfo, memory: &HostMemoryStats, free: &[HostFreePages]) -> String {
    let cpu = &info.cpu;
    let topology = info.topology;
    let machines = info.machines.iter().map(|machine| machine.name());
    let mut lines = vec![
        ("Name", info.hostname.clone()),
        ("UUID", info.uuid.to_string()),
        ("Architecture", info.architecture.clone()),
        (
            "CPU",
            format!(
                "{} ({}, family {}, model {}, stepping {})",
                cpu.name, cpu.vendor, cpu.family, cpu.model, cpu.stepping
            ),
        ),
        ("CPUs", format!("{} of {} run", info.online, info.possible)),
        (
            "Arranged",
            format!(
                "{} nodes, {} sockets each, {} cores each, {} threads each",
                topology.nodes, topology.sockets, topology.cores, topology.threads
            ),
        ),
    ];
    lines.extend(cpu.mhz.map(|mhz| ("Clock", format!("{mhz} MHz"))));
    lines.extend([
        ("Memory", human(memory.total)),
        ("Available", human(memory.available)),
        (
            "Driver",
            match info.driver {
                HostDriver::Kvm => "kvm",
                HostDriver::Test => "test: no machine is real",
            }
            .to_owned(),
        ),
        (
            "KVM",
            info.kvm_lacks.clone().unwrap_or_else(|| "ready".to_owned()),
        ),
        ("Machines", machines.collect::<Vec<_>>().join(", ")),
        ("Most vCPUs", info.max_vcpus.to_string()),
    ]);
    let mut table = Table::new(&["NODE", "CPUS", "MEMORY", "DISTANCES", "FREE PAGES"]);
    for node in &info.nodes {
        let distances = node.distances.iter().map(ToString::to_string);
        let free = free.iter().find(|free| free.node == node.node);
        let free = free.map_or(&[][..], |free| &free.pages);
        table.row(vec![
            node.node.to_string(),
            node.cpus
                .as_ref()
                .map_or_else(|| "-".to_owned(), ToString::to_string),
            human(node.memory.bytes()),
            distances.collect::<Vec<_>>().join(" "),
            pages(free),
        ]);
    }
    format!("{}\n{}", fields(&lines), table.render())
}

/// How many of each size.
fn pages(pages: &[HostPages]) -> String {
    let pages = pages
        .iter()
        .map(|pages| format!("{} of {}", pages.count, MemorySize(pages.size_bytes)));
    pages.collect::<Vec<_>>().join(", ")
}
