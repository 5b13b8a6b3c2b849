//! Devices of few words: `<rng>`, `<memballoon>`, `<vsock>` and `<panic>`.

use reeve_ipc::model::{Balloon, KeptElement, Rng, Vsock};

use super::super::XmlError;
use super::super::element::Element;
use super::super::kept::{self, Keeper};
use super::super::write::Writer;
use super::address::COMMON;
use super::{Sockets, address, rates};

/// The models of a virtio device that are the same to us.
const VIRTIO: [&str; 2] = ["virtio", "virtio-non-transitional"];

pub(super) fn parse_rng(element: Element<'_>, keeper: &mut Keeper) -> Result<Rng, XmlError> {
    element.known(&["model"])?;
    element.only("model", &VIRTIO)?;
    let [address, alias] = COMMON;
    keeper.contents(element, &["rate", "backend", address, alias], &[])?;
    if let Some(backend) = element.child("backend") {
        backend.known(&["model"])?;
        backend.only("model", &["random", "builtin"])?;
        backend.no_children()?;
        let text = backend.text();
        // All are the kernel's.
        if !matches!(text.trim(), "" | "/dev/urandom" | "/dev/random") {
            return Err(backend.unsupported("there is /dev/urandom"));
        }
    }
    Ok(Rng {
        rate: element.child("rate").map(rates::rng).transpose()?,
        address: address::place(element)?,
    })
}

pub(super) fn format_rng(writer: &mut Writer, rng: &Rng, alias: Option<&str>) {
    writer.tag("rng").attribute("model", "virtio").open();
    if let Some(rate) = rng.rate.filter(|rate| rates::is_rng(*rate)) {
        let tag = writer.tag("rate").attribute("bytes", rate.per_second);
        tag.attribute("period", 1000).empty();
    }
    let tag = writer.tag("backend").attribute("model", "random");
    tag.text("/dev/urandom");
    address::format(writer, alias, rng.address);
    writer.close("rng");
}

/// A balloon; `None` where it says that there is to be none.
pub(super) fn parse_balloon(
    element: Element<'_>,
    keeper: &mut Keeper,
) -> Result<Option<Balloon>, XmlError> {
    element.known(&["model", "autodeflate", "freePageReporting"])?;
    if element.attribute("model") == Some("none") {
        element.no_children()?;
        return Ok(None);
    }
    element.only("model", &VIRTIO)?;
    keeper.contents(element, &COMMON, &[])?;
    Ok(Some(Balloon {
        free_page_reporting: element.switch("freePageReporting")?.unwrap_or(false),
        deflate_on_oom: element.switch("autodeflate")?.unwrap_or(false),
        address: address::place(element)?,
    }))
}

pub(super) fn format_balloon(
    writer: &mut Writer,
    balloon: &Balloon,
    alias: Option<&str>,
    kept: &[KeptElement],
) {
    let on = |set: bool| set.then_some("on");
    let tag = writer.tag("memballoon").attribute("model", "virtio");
    let tag = tag.optional("autodeflate", on(balloon.deflate_on_oom));
    tag.optional("freePageReporting", on(balloon.free_page_reporting))
        .open();
    kept::write(writer, kept, "devices/memballoon");
    address::format(writer, alias, balloon.address);
    writer.close("memballoon");
}

/// A socket device. The path of its host end is none of libvirt's words.
pub(super) fn parse_vsock(
    element: Element<'_>,
    keeper: &mut Keeper,
    sockets: Sockets<'_>,
) -> Result<Vsock, XmlError> {
    element.known(&["model"])?;
    element.only("model", &VIRTIO)?;
    let [address, alias] = COMMON;
    keeper.contents(element, &["cid", address, alias], &[])?;
    let mut cid = None;
    if let Some(element) = element.child("cid") {
        element.known(&["auto", "address"])?;
        // One that is drawn is drawn again.
        if !element.switch("auto")?.unwrap_or(false) {
            cid = element.parsed("address")?;
        }
    }
    Ok(Vsock {
        cid,
        path: sockets.vsock(),
        address: address::place(element)?,
    })
}

pub(super) fn format_vsock(writer: &mut Writer, vsock: &Vsock, alias: Option<&str>) {
    writer.tag("vsock").attribute("model", "virtio").open();
    let auto = if vsock.cid.is_some() { "no" } else { "yes" };
    let drawn = alias.map(|_| reeve_ipc::spec::MIN_GUEST_CID);
    let tag = writer.tag("cid").attribute("auto", auto);
    tag.optional("address", vsock.cid.or(drawn)).empty();
    address::format(writer, alias, vsock.address);
    writer.close("vsock");
}

/// Whether the devices have a port by which a guest says that its kernel has panicked.
pub(in super::super) fn parse_panic(
    devices: Element<'_>,
    keeper: &mut Keeper,
) -> Result<bool, XmlError> {
    let mut panics = devices.children().filter(|child| child.name() == "panic");
    let Some(panic) = panics.next() else {
        return Ok(false);
    };
    panic.known(&["model"])?;
    panic.only("model", &["isa"])?;
    keeper.contents(panic, &COMMON, &[])?;
    if let Some(address) = panic.child("address") {
        address.known(&["type", "iobase"])?;
        address.only("type", &["isa"])?;
        address.only("iobase", &["0x505"])?;
    }
    match panics.next() {
        Some(second) => Err(second.invalid("there may be one only")),
        None => Ok(true),
    }
}

pub(in super::super) fn format_panic(writer: &mut Writer) {
    writer.tag("panic").attribute("model", "isa").empty();
}
