//! `<watchdog>`.

use reeve_ipc::model::Watchdog;

use super::super::XmlError;
use super::super::element::Element;
use super::super::kept::Keeper;
use super::super::write::Writer;
use super::address::{self, COMMON};

pub(super) fn parse(element: Element<'_>, keeper: &mut Keeper) -> Result<Watchdog, XmlError> {
    element.known(&["model", "action"])?;
    element.required("model")?;
    element.only("model", &["i6300esb"])?;
    keeper.contents(element, &COMMON, &[])?;
    // As libvirt has it where nothing is said.
    let action = element.attribute("action").unwrap_or("reset");
    Ok(Watchdog {
        action: Watchdog::action(action).map_err(|error| element.unsupported(error))?,
        address: address::place(element)?,
    })
}

pub(super) fn format(writer: &mut Writer, watchdog: &Watchdog, alias: Option<&str>) {
    let tag = writer.tag("watchdog").attribute("model", "i6300esb");
    tag.attribute("action", watchdog.action).open();
    address::format(writer, alias, watchdog.address);
    writer.close("watchdog");
}
