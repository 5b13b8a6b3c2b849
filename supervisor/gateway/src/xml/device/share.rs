//! `<filesystem>` with the driver virtiofs.

use reeve_ipc::model::Share;

use super::super::XmlError;
use super::super::element::Element;
use super::super::kept::Keeper;
use super::super::write::Writer;
use super::address::{self, COMMON};

pub(super) fn parse(element: Element<'_>, keeper: &mut Keeper) -> Result<Share, XmlError> {
    element.known(&["type", "accessmode", "model"])?;
    element.only("type", &["mount"])?;
    element.only("accessmode", &["passthrough"])?;
    element.only("model", &["virtio", "virtio-non-transitional"])?;
    let [address, alias] = COMMON;
    let parts = ["driver", "source", "target", "readonly", address, alias];
    keeper.contents(element, &parts, &[])?;
    let driver = element.child("driver");
    let kind = driver
        .and_then(|driver| driver.attribute("type"))
        .unwrap_or("path");
    if kind != "virtiofs" {
        let message = "there is <driver type='virtiofs'/>";
        let driver = driver.unwrap_or(element);
        return Err(driver.unsupported_value("type", kind, message));
    }
    if let Some(driver) = driver {
        driver.known(&["type"])?;
        driver.no_children()?;
    }
    let part = |name: &str, attribute: &str| {
        let part = element.child(name);
        let part = part.ok_or_else(|| element.invalid(format!("there is no <{name}> in it")))?;
        part.known(&[attribute])?;
        part.required(attribute)
    };
    Ok(Share {
        tag: part("target", "dir")?.to_owned(),
        source: part("source", "dir")?.into(),
        read_only: element.child("readonly").is_some(),
        address: address::place(element)?,
    })
}

pub(super) fn format(writer: &mut Writer, share: &Share, alias: Option<&str>) {
    let tag = writer.tag("filesystem").attribute("type", "mount");
    tag.attribute("accessmode", "passthrough").open();
    writer.tag("driver").attribute("type", "virtiofs").empty();
    let tag = writer.tag("source");
    tag.attribute("dir", share.source.display()).empty();
    writer.tag("target").attribute("dir", &share.tag).empty();
    if share.read_only {
        writer.tag("readonly").empty();
    }
    address::format(writer, alias, share.address);
    writer.close("filesystem");
}
