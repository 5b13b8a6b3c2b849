//! Memory that a domain can be given while it runs: `<memory model='virtio-mem'>` among the devices, and
//! `<maxMemory>`.
//!
//! As libvirt counts, `<memory>` of the domain is all that it can have: what it starts with and the device's
//! size together. `<currentMemory>` is what its guest is asked to make do with: less than it starts with by its
//! balloon, more by the device, whose `<requested>` then says the same again.

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
    /// What of it the guest is asked to take.
    requested: u64,
    /// It is of a document of a domain that runs.
    live: bool,
}

/// The sizes of a domain.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Sizes {
    /// What it starts with.
    pub(in super::super) start: MemorySize,
    /// What more it can have.
    pub(in super::super) pluggable: Option<PluggableMemory>,
    /// What its guest is asked to make do with, where that is another.
    pub(in super::super) current: Option<MemorySize>,
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
    let requested = bytes("requested")?.unwrap_or(0);
    if requested > size {
        return Err(target.invalid("more is requested of it than it has"));
    }
    if let Some(node) = target.child("node") {
        if node.value::<u32>()? != 0 {
            return Err(node.unsupported("there is node 0"));
        }
    }
    Ok(Some(MemoryDevice {
        size,
        address: address::place(element)?,
        requested,
        live: target.child("current").is_some(),
    }))
}

/// What the three sizes of a domain and its device come to.
pub(in super::super) fn sizes(
    element: Element<'_>,
    device: Option<MemoryDevice>,
) -> Result<Sizes, XmlError> {
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
    Ok(Sizes {
        start: MemorySize(start),
        pluggable,
        current: current(element, device, start, total)?,
    })
}

/// What a guest is asked to make do with, where that is not what it starts with.
fn current(
    element: Element<'_>,
    device: Option<MemoryDevice>,
    start: u64,
    total: u64,
) -> Result<Option<MemorySize>, XmlError> {
    let said = match element.child("currentMemory") {
        Some(current) => {
            current.known(&["unit"])?;
            // As much as there is says nothing, and what is more is brought down, as libvirt does.
            Some((current, current.bytes()?)).filter(|(_, bytes)| *bytes < total)
        }
        None => None,
    };
    let device = device.filter(|device| device.requested != 0);
    let bytes = match (device, said) {
        (None, None) => return Ok(None),
        (None, Some((_, bytes))) => bytes,
        (Some(device), said) => {
            let asked = start.saturating_add(device.requested);
            // What a guest has while it runs need not be what it was asked for yet.
            if let Some((current, _)) = said.filter(|(_, bytes)| *bytes != asked && !device.live) {
                let message = "it is another than what the domain starts with and what is <requested> of its \
                               memory device together";
                return Err(current.invalid(message));
            }
            asked
        }
    };
    Ok(Some(MemorySize(bytes)).filter(|_| bytes != start))
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
        .or(domain.tuning.current_memory)
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
    let wanted = domain.tuning.current_memory.unwrap_or(domain.memory);
    let wanted = wanted.bytes().saturating_sub(domain.memory.bytes());
    let requested = plugged.map_or(wanted, |plugged| plugged.requested.bytes());
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
