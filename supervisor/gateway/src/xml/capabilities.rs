//! `<capabilities>`: what the host is, and what domains it takes.
//!
//! Clients decide by it what they write: a domain's type must be one they know, and without the features
//! `acpi` and `apic` they leave both out of what they write.

use reeve_ipc::spec::{MAX_VCPUS, MachineType};
use uuid::Uuid;

use super::domain::Hypervisor;
use super::write::Writer;

/// What is known of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    /// Its UUID.
    pub uuid: Uuid,
    /// The program that runs a domain, an absolute path: what a client writes into `<emulator>`.
    pub emulator: String,
    /// Its processor, where a model of libvirt's says it; every feature is one that it has.
    pub processor: Option<Processor>,
    /// How that names itself.
    pub signature: Signature,
    /// The processor of a guest that says nothing of it.
    pub guest_processor: Option<Processor>,
    /// Packages of one cell, cores of one package, threads of one core.
    pub sockets: u32,
    /// Cores of a package.
    pub cores: u32,
    /// Threads of a core.
    pub threads: u32,
    /// Its NUMA nodes, one at least.
    pub cells: Vec<Cell>,
}

/// A processor as a model of libvirt's, with what it has and lacks beyond.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Processor {
    /// The name of its model.
    pub model: String,
    /// Whose it is, as `Intel`.
    pub vendor: Option<String>,
    /// Features by name, with whether it has them.
    pub features: Vec<(String, bool)>,
}

/// How a processor names itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Signature {
    /// Its family.
    pub family: u32,
    /// Its model number.
    pub model: u32,
    /// Its stepping.
    pub stepping: u32,
    /// Its microcode, where that is known.
    pub microcode: Option<u32>,
    /// Bits of a physical address, where that is known.
    pub physical_bits: Option<u32>,
}

/// A NUMA node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// Its number.
    pub id: u32,
    /// Its memory, in KiB.
    pub memory_kib: u64,
    /// Its CPUs.
    pub cpus: Vec<HostCpu>,
}

/// A CPU of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostCpu {
    /// Its number.
    pub id: u32,
    /// Its package.
    pub socket: u32,
    /// Its core within that.
    pub core: u32,
    /// The CPUs of its core, as `0,4`.
    pub siblings: String,
}

/// The name of the newest machine type, whichever that is.
const NEWEST: &str = super::domain::NEWEST_MACHINE;

/// Prints the capabilities of a host.
#[must_use]
pub fn format(host: &Host, hypervisor: Hypervisor) -> String {
    let mut writer = Writer::new();
    writer.tag("capabilities").open();
    writer.tag("host").open();
    writer.text("uuid", host.uuid);
    cpu(&mut writer, host);
    topology(&mut writer, host);
    writer.close("host");
    writer.tag("guest").open();
    writer.text("os_type", "hvm");
    writer.tag("arch").attribute("name", "x86_64").open();
    writer.text("wordsize", 64);
    writer.text("emulator", &host.emulator);
    let tag = writer
        .tag("machine")
        .attribute("canonical", MachineType::Reeve1_0.name());
    tag.attribute("maxCpus", MAX_VCPUS).text(NEWEST);
    for machine in MachineType::ALL {
        let tag = writer.tag("machine").attribute("maxCpus", MAX_VCPUS);
        tag.text(machine.name());
    }
    writer
        .tag("domain")
        .attribute("type", hypervisor.word())
        .empty();
    writer.close("arch");
    writer.tag("features").open();
    for (name, toggle) in [("acpi", "no"), ("apic", "no")] {
        let tag = writer.tag(name).attribute("default", "on");
        tag.attribute("toggle", toggle).empty();
    }
    writer.tag("cpuselection").empty();
    writer.tag("deviceboot").empty();
    writer.close("features");
    writer.close("guest");
    writer.close("capabilities");
    writer.finish()
}

fn cpu(writer: &mut Writer, host: &Host) {
    writer.tag("cpu").open();
    writer.text("arch", "x86_64");
    // One without a model has none: a client writes no model then.
    if let Some(processor) = &host.processor {
        writer.text("model", &processor.model);
        if let Some(vendor) = &processor.vendor {
            writer.text("vendor", vendor);
        }
        let signature = host.signature;
        if let Some(version) = signature.microcode.filter(|version| *version > 0) {
            let tag = writer.tag("microcode").attribute("version", version);
            tag.empty();
        }
        if signature.family > 0 {
            let tag = writer
                .tag("signature")
                .attribute("family", signature.family);
            let tag = tag.attribute("model", signature.model);
            tag.attribute("stepping", signature.stepping).empty();
        }
        let tag = writer
            .tag("topology")
            .attribute("sockets", host.sockets.max(1));
        let tag = tag
            .attribute("dies", 1)
            .attribute("cores", host.cores.max(1));
        tag.attribute("threads", host.threads.max(1)).empty();
        if let Some(bits) = signature.physical_bits {
            let tag = writer.tag("maxphysaddr").attribute("mode", "emulate");
            tag.attribute("bits", bits).empty();
        }
        // libvirt's schema has no dot in the name of a host's feature, though two features have one (`sse4.1`,
        // `sse4.2`). Every model of a processor of this age has both.
        let features = processor.features.iter();
        for (name, _) in features.filter(|(name, is)| *is && !name.contains('.')) {
            writer.tag("feature").attribute("name", name).empty();
        }
    }
    writer.close("cpu");
}

fn topology(writer: &mut Writer, host: &Host) {
    if host.cells.is_empty() {
        return;
    }
    writer.tag("topology").open();
    writer
        .tag("cells")
        .attribute("num", host.cells.len())
        .open();
    for cell in &host.cells {
        writer.tag("cell").attribute("id", cell.id).open();
        writer
            .tag("memory")
            .attribute("unit", "KiB")
            .text(cell.memory_kib);
        let tag = writer
            .tag("pages")
            .attribute("unit", "KiB")
            .attribute("size", 4);
        tag.text(cell.memory_kib / 4);
        writer.tag("cpus").attribute("num", cell.cpus.len()).open();
        for cpu in &cell.cpus {
            let tag = writer.tag("cpu").attribute("id", cpu.id);
            let tag = tag
                .attribute("socket_id", cpu.socket)
                .attribute("die_id", 0);
            let tag = tag.attribute("core_id", cpu.core);
            tag.attribute("siblings", &cpu.siblings).empty();
        }
        writer.close("cpus");
        writer.close("cell");
    }
    writer.close("cells");
    writer.close("topology");
}
