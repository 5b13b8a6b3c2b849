//! Memory that a domain can be given while it runs: `<memory model='virtio-mem'>` among the devices, and
//! `<maxMemory>`.
//!
//! As libvirt counts, `<memory>` of the domain is all that it can have: what it starts with and the device's
//! size together.

use reeve_ipc::model::{Domain, MemorySize, PluggableMemory};
use reeve_ipc::spec::PciSlot;

use super::super::XmlError;
use super::super::domain::Live;
use super::super::element::Element;
use super::super::kept::Keeper;
use super::super::write::Writer;
use super::address::{self, COMMON};

/// The device of a document.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct MemoryDevice {
    pub(in super::super) size: u64,
    pub(in super::super) address: Option<PciSlot>,
}

/// Reads the device among the devices, if there is one.
pub(in super::super) fn parse(
    devices: Element<'_>,
    keeper: &mut Keeper,
) -> Result<Option<MemoryDevice>, XmlError> {
    let mut found = devices.children().filter(|child| child.name() == "memory");
    let Some(element) = found.next() else {
        return Ok(None);
    };
    if let Some(second) = found.next() {
        return Err(second.unsupported("there is one memory device at most"));
    }
    element.known(&["model"])?;
    element.only("model", &["virtio-mem"])?;
    element.required("model")?;
    let [address, alias] = COMMON;
    keeper.contents(element, &["target", address, alias], &[])?;
    let missing = || element.invalid("there is no <target> in it");
    let target = element.child("target").ok_or_else(missing)?;
    target.known(&[])?;
    keeper.contents(
        target,
        &["size", "node", "block", "requested", "current"],
        &[],
    )?;
    let bytes = |name: &str| target.child(name).map(Element::bytes).transpose();
    let size = bytes("size")?.ok_or_else(|| target.invalid("there is no <size> in it"))?;
    if bytes("requested")?.is_some_and(|requested| requested != 0) {
        let message =
            "a domain starts with none of it, and is given it while it runs (virsh setmem)";
        return Err(target.unsupported(message));
    }
    if let Some(node) = target.child("node") {
        if node.value::<u32>()? != 0 {
            return Err(node.unsupported("there is node 0"));
        }
    }
    Ok(Some(MemoryDevice {
        size,
        address: address::place(element)?,
    }))
}

/// What the three sizes of a domain and its device come to: what it starts with, and what more it can have.
pub(in super::super) fn sizes(
    element: Element<'_>,
    device: Option<MemoryDevice>,
) -> Result<(MemorySize, Option<PluggableMemory>), XmlError> {
    let missing = || element.invalid("there is no <memory> in it");
    let memory = element.child("memory").ok_or_else(missing)?;
    memory.known(&["unit", "dumpCore"])?;
    memory.only("dumpCore", &["on"])?;
    let total = memory.bytes()?;
    let max = match element.child("maxMemory") {
        Some(max) => {
            max.known(&["unit", "slots"])?;
            Some(max.bytes()?)
        }
        None => None,
    };
    let (start, pluggable) = match (device, max) {
        (None, None) => (total, None),
        (None, Some(max)) => {
            let pluggable = PluggableMemory::up_to(Some(MemorySize(max)), MemorySize(total), None);
            (total, pluggable)
        }
        (Some(device), max) => {
            let start = total.checked_sub(device.size);
            let start = start
                .ok_or_else(|| memory.invalid("it is less than the size of the memory device"))?;
            if max.is_some_and(|max| max != total) {
                let message =
                    "all memory beyond <memory> is that of the one memory device: write the same";
                return Err(memory.unsupported(message));
            }
            let address = device.address;
            let max = MemorySize(total);
            (start, Some(PluggableMemory { max, address }))
        }
    };
    if let Some(current) = element.child("currentMemory") {
        current.known(&["unit"])?;
        let bytes = current.bytes()?;
        // What is more is brought down, as libvirt does.
        if bytes < start {
            let message =
                "a domain starts with all of its memory; inflate its balloon while it runs";
            return Err(current.unsupported(message));
        }
    }
    Ok((MemorySize(start), pluggable))
}

/// Writes the three sizes.
pub(in super::super) fn format_sizes(
    writer: &mut Writer,
    domain: &Domain,
    live: Option<&Live<'_>>,
) {
    let kib = |bytes: u64| bytes / 1024;
    let max = domain.max_memory().bytes();
    if domain.devices.memory.is_some() {
        let tag = writer.tag("maxMemory").attribute("slots", 1);
        tag.attribute("unit", "KiB").text(kib(max));
    }
    writer.tag("memory").attribute("unit", "KiB").text(kib(max));
    let current = live
        .and_then(|live| live.current_memory)
        .unwrap_or(domain.memory);
    let tag = writer.tag("currentMemory").attribute("unit", "KiB");
    tag.text(kib(current.bytes()));
}

/// Writes the device.
pub(in super::super) fn format(
    writer: &mut Writer,
    domain: &Domain,
    live: Option<&Live<'_>>,
    alias: Option<&str>,
) {
    let Some(memory) = domain.devices.memory else {
        return;
    };
    let kib = |bytes: u64| bytes / 1024;
    let extra = memory.max.bytes().saturating_sub(domain.memory.bytes());
    let block = reeve_ipc::spec::PluggableSpec::block_bytes(extra);
    let plugged = live.and_then(|live| live.plugged);
    let requested = plugged.map_or(0, |plugged| plugged.requested.bytes());
    let size = |writer: &mut Writer, name: &str, bytes: u64| {
        writer.tag(name).attribute("unit", "KiB").text(kib(bytes));
    };
    writer.tag("memory").attribute("model", "virtio-mem").open();
    writer.tag("target").open();
    size(writer, "size", extra);
    writer.text("node", 0);
    size(writer, "block", block);
    size(writer, "requested", requested);
    if let Some(plugged) = plugged {
        size(writer, "current", plugged.current.bytes());
    }
    writer.close("target");
    address::format(writer, alias, memory.address);
    writer.close("memory");
}
