//! `<address>` and `<alias>`, which every device may have.

use reeve_ipc::spec::PciSlot;

use super::super::XmlError;
use super::super::element::Element;
use super::super::write::Writer;

/// What of a device's children is read here.
pub(super) const COMMON: [&str; 2] = ["address", "alias"];

/// The place on the bus that an element says.
pub(super) fn pci(address: Element<'_>) -> Result<PciSlot, XmlError> {
    address.known(&["type", "domain", "bus", "slot", "function", "multifunction"])?;
    address.no_children()?;
    if address.attribute("type") != Some("pci") {
        let kind = address.attribute("type").unwrap_or_default();
        return Err(address.unsupported_value("type", kind, "this device is on the PCI bus"));
    }
    for name in ["domain", "bus", "function"] {
        if number(address, name)?.is_some_and(|number| number != 0) {
            let value = address.attribute(name).unwrap_or_default();
            let message = "every device is on bus 0 of domain 0, with function 0";
            return Err(address.unsupported_value(name, value, message));
        }
    }
    address.only("multifunction", &["off"])?;
    let slot =
        number(address, "slot")?.ok_or_else(|| address.invalid("attribute 'slot' is missing"))?;
    let slot = u8::try_from(slot).unwrap_or(u8::MAX);
    PciSlot::try_from(slot).map_err(|error| address.unsupported(error))
}

/// A number in hexadecimal behind `0x`, or in decimal.
fn number(element: Element<'_>, name: &str) -> Result<Option<u32>, XmlError> {
    let Some(text) = element.attribute(name) else {
        return Ok(None);
    };
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed
        .map(Some)
        .map_err(|error| element.invalid(format!("attribute '{name}': {error}")))
}

/// The place of a device on the bus; its alias is looked at too.
pub(super) fn place(device: Element<'_>) -> Result<Option<PciSlot>, XmlError> {
    alias(device)?;
    device.child("address").map(pci).transpose()
}

/// That an alias is one that is assigned. A user's own (`ua-...`) is not kept.
pub(super) fn alias(device: Element<'_>) -> Result<(), XmlError> {
    match device
        .child("alias")
        .and_then(|alias| alias.attribute("name"))
    {
        Some(name) if name.starts_with("ua-") => {
            let message = "a name of one's own for a device is not provided";
            Err(device.unsupported(message))
        }
        _ => Ok(()),
    }
}

/// Writes both.
pub(super) fn format(writer: &mut Writer, alias: Option<&str>, slot: Option<PciSlot>) {
    format_alias(writer, alias);
    if let Some(slot) = slot {
        let tag = writer.tag("address");
        tag.attribute("type", "pci")
            .attribute("domain", "0x0000")
            .attribute("bus", "0x00")
            .attribute("slot", format_args!("0x{:02x}", slot.number()))
            .attribute("function", "0x0")
            .empty();
    }
}

pub(super) fn format_alias(writer: &mut Writer, alias: Option<&str>) {
    if let Some(alias) = alias {
        writer.tag("alias").attribute("name", alias).empty();
    }
}
