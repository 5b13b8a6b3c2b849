//! `<disk>`.

use std::path::PathBuf;

use reeve_ipc::model::{BlockSize, Disk, DiskTarget, KeptElement, Layer};
use reeve_ipc::spec::{Burst, CacheMode, Discard, DiskFormat, DiskThrottle, IoEngine, Rate, Rates};

use super::super::XmlError;
use super::super::element::Element;
use super::super::kept::{self, Keeper};
use super::super::write::Writer;
use super::address;

pub(super) fn parse(element: Element<'_>, keeper: &mut Keeper) -> Result<Disk, XmlError> {
    element.known(&["type", "device", "model", "snapshot"])?;
    element.only("device", &["disk", "cdrom"])?;
    element.only("model", &["virtio", "virtio-non-transitional"])?;
    element.only("snapshot", &["no"])?;
    let target = target(element)?;
    let mut disk = Disk::new(target, None);
    for child in element.children() {
        match child.name() {
            "boot" => keeper.offer_of(child, Some(disk.target.as_str()))?,
            "driver" | "source" | "target" | "readonly" | "serial" | "iotune" | "blockio"
            | "backingStore" | "alias" | "address" => {}
            _ => return Err(child.not_provided()),
        }
    }
    let format = match element.child("driver") {
        Some(driver) => self::driver(driver, &mut disk)?,
        None => DiskFormat::Raw,
    };
    disk.image = source(element, format)?;
    (disk.backing, disk.from_image) = backing(element, disk.image.as_ref())?;
    disk.removable = element.attribute("device") == Some("cdrom");
    disk.read_only = disk.removable || element.child("readonly").is_some();
    if let Some(serial) = element.child("serial") {
        serial.known(&[])?;
        disk.serial = Some(serial.text()).filter(|serial| !serial.is_empty());
    }
    if let Some(blocks) = element.child("blockio") {
        disk.block_size = block_size(blocks)?;
    }
    if let Some(tuning) = element.child("iotune") {
        disk.throttle = throttle(tuning)?;
    }
    disk.address = address::place(element)?;
    Ok(disk)
}

fn target(element: Element<'_>) -> Result<DiskTarget, XmlError> {
    let missing = || element.invalid("there is no <target> that names it");
    let target = element.child("target").ok_or_else(missing)?;
    target.known(&["dev", "bus", "tray"])?;
    target.no_children()?;
    target.only("tray", &["closed", "open"])?;
    match target.attribute("bus") {
        None | Some("virtio") => {}
        Some(bus) => {
            let message = "every disk is a virtio disk, as <target dev='vda' bus='virtio'/>";
            return Err(target.unsupported_value("bus", bus, message));
        }
    }
    let dev = target.required("dev")?;
    dev.parse().map_err(|error| target.unsupported(error))
}

/// What is said of the driver; gives the format of the image.
fn driver(element: Element<'_>, disk: &mut Disk) -> Result<DiskFormat, XmlError> {
    element.known(&[
        "name",
        "type",
        "cache",
        "io",
        "discard",
        "queues",
        "detect_zeroes",
        "copy_on_read",
        "event_idx",
        "ioeventfd",
    ])?;
    element.no_children()?;
    element.only("name", &["qemu"])?;
    element.only("detect_zeroes", &["off"])?;
    element.only("copy_on_read", &["off"])?;
    element.only("event_idx", &["on"])?;
    element.only("ioeventfd", &["on"])?;
    if element.attribute("cache") != Some("default") {
        disk.cache = element.word("cache")?.unwrap_or(disk.cache);
    }
    disk.io = element.word("io")?.unwrap_or(disk.io);
    disk.discard = element.word("discard")?.unwrap_or(disk.discard);
    disk.queues = element.parsed("queues")?.unwrap_or(disk.queues);
    Ok(element.word("type")?.unwrap_or(DiskFormat::Raw))
}

/// The file or block device of a disk or of a layer beneath one.
fn source(element: Element<'_>, format: DiskFormat) -> Result<Option<Layer>, XmlError> {
    let kind = element.attribute("type").unwrap_or("file");
    let name = match kind {
        "file" => "file",
        "block" => "dev",
        _ => {
            let message = "an image is a file or a block device of this host";
            return Err(element.unsupported_value("type", kind, message));
        }
    };
    let Some(source) = element.child("source") else {
        return Ok(None);
    };
    source.known(&[name, "index", "startupPolicy"])?;
    source.only("startupPolicy", &["mandatory"])?;
    source.no_children()?;
    let path = source.attribute(name).filter(|path| !path.is_empty());
    Ok(path.map(|path| Layer {
        path: PathBuf::from(path),
        format,
    }))
}

/// What an image builds upon: said, or read from the image where it is not.
fn backing(element: Element<'_>, image: Option<&Layer>) -> Result<(Vec<Layer>, bool), XmlError> {
    let is_qcow2 = |layer: &Layer| layer.format == DiskFormat::Qcow2;
    let Some(mut store) = element.child("backingStore") else {
        return Ok((Vec::new(), image.is_some_and(is_qcow2)));
    };
    let mut layers = Vec::new();
    // As deep as a document is at most.
    loop {
        store.known(&["type", "index"])?;
        for child in store.children() {
            if !matches!(child.name(), "format" | "source" | "backingStore") {
                return Err(child.not_provided());
            }
        }
        let Some(format) = store.child("format") else {
            store.no_children()?;
            return Ok((layers, false));
        };
        format.known(&["type"])?;
        format.no_children()?;
        format.required("type")?;
        let format: DiskFormat = format.word("type")?.unwrap_or(DiskFormat::Raw);
        let layer = source(store, format)?;
        let layer = layer.ok_or_else(|| store.invalid("there is no <source> in it"))?;
        let ends = !is_qcow2(&layer);
        layers.push(layer);
        match store.child("backingStore") {
            Some(below) => store = below,
            None if ends => return Ok((layers, false)),
            None => {
                let message = "say what it builds upon, or that it does not: <backingStore/>";
                return Err(store.unsupported(message));
            }
        }
    }
}

fn block_size(element: Element<'_>) -> Result<BlockSize, XmlError> {
    element.known(&["logical_block_size", "physical_block_size"])?;
    element.no_children()?;
    let logical: u32 = element.parsed("logical_block_size")?.unwrap_or(512);
    let physical: u32 = element.parsed("physical_block_size")?.unwrap_or(logical);
    if physical != logical {
        return Err(element.unsupported("a physical block is as large as a logical one"));
    }
    Ok(BlockSize::try_from(logical)?)
}

/// `what_unit_sec`, `what_unit_sec_max`, `what_unit_sec_max_length`.
const PARTS: [&str; 3] = ["total", "read", "write"];

fn throttle(element: Element<'_>) -> Result<DiskThrottle, XmlError> {
    element.known(&[])?;
    let mut known = Vec::new();
    for part in PARTS {
        for unit in ["bytes", "iops"] {
            for end in ["", "_max", "_max_length"] {
                known.push(format!("{part}_{unit}_sec{end}"));
            }
        }
    }
    for child in element.children() {
        if !known.iter().any(|known| known == child.name()) {
            return Err(child.not_provided());
        }
    }
    let value = |name: String| -> Result<Option<u64>, XmlError> {
        let value = element
            .child(&name)
            .map(|child| child.value())
            .transpose()?;
        Ok(value.filter(|value| *value > 0))
    };
    let rate = |part: &str, unit: &str| -> Result<Option<Rate>, XmlError> {
        let name = format!("{part}_{unit}_sec");
        let per_second = value(name.clone())?;
        let burst = value(format!("{name}_max"))?;
        let length = value(format!("{name}_max_length"))?;
        let Some(per_second) = per_second else {
            return match burst.or(length) {
                Some(_) => Err(element.invalid(format!("{name} is missing"))),
                None => Ok(None),
            };
        };
        let seconds = u32::try_from(length.unwrap_or(1));
        let seconds =
            seconds.map_err(|_| element.invalid(format!("{name}_max_length is too large")))?;
        Ok(Some(Rate {
            per_second,
            burst: burst.map(|per_second| Burst {
                per_second,
                seconds,
            }),
        }))
    };
    let rates = |unit: &str| -> Result<Rates, XmlError> {
        Ok(Rates {
            total: rate("total", unit)?,
            read: rate("read", unit)?,
            write: rate("write", unit)?,
        })
    };
    Ok(DiskThrottle {
        bytes: rates("bytes")?,
        requests: rates("iops")?,
    })
}

/// The type of a path, and the attribute that has it.
fn kind(layer: &Layer) -> (&'static str, &'static str) {
    if layer.path.starts_with("/dev") {
        ("block", "dev")
    } else {
        ("file", "file")
    }
}

pub(super) fn format(writer: &mut Writer, disk: &Disk, alias: Option<&str>, kept: &[KeptElement]) {
    let file = ("file", "file");
    let (of, name) = disk.image.as_ref().map_or(file, kind);
    let device = if disk.removable { "cdrom" } else { "disk" };
    writer
        .tag("disk")
        .attribute("type", of)
        .attribute("device", device)
        .open();
    let format = disk
        .image
        .as_ref()
        .map_or(DiskFormat::Raw, |image| image.format);
    writer
        .tag("driver")
        .attribute("name", "qemu")
        .attribute("type", format)
        .optional(
            "cache",
            Some(disk.cache).filter(|it| *it != CacheMode::WriteBack),
        )
        .optional("io", Some(disk.io).filter(|it| *it != IoEngine::IoUring))
        .optional(
            "discard",
            Some(disk.discard).filter(|it| *it != Discard::Ignore),
        )
        .optional("queues", Some(disk.queues).filter(|it| *it != 1))
        .empty();
    if let Some(image) = &disk.image {
        let tag = writer.tag("source").attribute(name, image.path.display());
        // libvirt numbers the images of a running domain.
        tag.optional("index", alias.map(|_| 1)).empty();
        if image.format == DiskFormat::Qcow2 && !disk.from_image {
            format_backing(writer, &disk.backing);
        }
    }
    writer
        .tag("target")
        .attribute("dev", &disk.target)
        .attribute("bus", "virtio")
        .empty();
    if disk.throttle.any() {
        writer.tag("iotune").open();
        format_throttle(writer, disk.throttle);
        writer.close("iotune");
    }
    if disk.block_size != BlockSize::default() {
        let bytes = u32::from(disk.block_size);
        let tag = writer.tag("blockio").attribute("logical_block_size", bytes);
        tag.attribute("physical_block_size", bytes).empty();
    }
    if disk.read_only {
        writer.tag("readonly").empty();
    }
    if let Some(serial) = &disk.serial {
        writer.text("serial", serial);
    }
    kept::write(writer, kept, &format!("devices/disk[{}]", disk.target));
    address::format(writer, alias, disk.address);
    writer.close("disk");
}

/// In libvirt's order: its schema, as it is checked, takes no other.
fn format_throttle(writer: &mut Writer, throttle: DiskThrottle) {
    let rates = [(throttle.bytes, "bytes"), (throttle.requests, "iops")];
    let rates = rates.into_iter().flat_map(|(rates, unit)| {
        let parts = PARTS
            .into_iter()
            .zip([rates.total, rates.read, rates.write]);
        parts.filter_map(move |(part, rate)| Some((format!("{part}_{unit}_sec"), rate?)))
    });
    let rates: Vec<(String, Rate)> = rates.collect();
    for (name, rate) in &rates {
        writer.text(name, rate.per_second);
    }
    let bursts = || {
        rates
            .iter()
            .filter_map(|(name, rate)| Some((name, rate.burst?)))
    };
    for (name, burst) in bursts() {
        writer.text(&format!("{name}_max"), burst.per_second);
    }
    // One second is what is meant where nothing is said.
    for (name, burst) in bursts().filter(|(_, burst)| burst.seconds != 1) {
        writer.text(&format!("{name}_max_length"), burst.seconds);
    }
}

fn format_backing(writer: &mut Writer, layers: &[Layer]) {
    let Some((layer, below)) = layers.split_first() else {
        return writer.tag("backingStore").empty();
    };
    let (of, name) = kind(layer);
    writer.tag("backingStore").attribute("type", of).open();
    writer.tag("format").attribute("type", layer.format).empty();
    writer
        .tag("source")
        .attribute(name, layer.path.display())
        .empty();
    if layer.format == DiskFormat::Qcow2 || !below.is_empty() {
        format_backing(writer, below);
    }
    writer.close("backingStore");
}
