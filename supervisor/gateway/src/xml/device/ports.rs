//! `<serial>`, `<console>` and `<channel>`, and the controller of ports.
//!
//! Every domain has one serial console, whose host end is a terminal of the worker's. It is printed as libvirt
//! prints a serial port: as `<serial>`, and again as the first `<console>`.

use std::path::PathBuf;

use reeve_ipc::model::{Channel, Devices, KeptElement, PortConsole};

use super::super::XmlError;
use super::super::domain::Live;
use super::super::element::Element;
use super::super::kept::{self, Keeper};
use super::super::write::Writer;
use super::{Sockets, address};

/// The host's end of a UNIX socket, where it is said.
fn unix_source(element: Element<'_>) -> Result<Option<PathBuf>, XmlError> {
    let Some(source) = element.child("source") else {
        return Ok(None);
    };
    source.known(&["mode", "path"])?;
    source.no_children()?;
    source.only("mode", &["bind"])?;
    let path = source.attribute("path").filter(|path| !path.is_empty());
    Ok(path.map(PathBuf::from))
}

/// The number of a port in its `<address>`.
fn port_number(element: Element<'_>) -> Result<Option<u8>, XmlError> {
    address::alias(element)?;
    let Some(address) = element.child("address") else {
        return Ok(None);
    };
    address.known(&["type", "controller", "bus", "port"])?;
    address.only("type", &["virtio-serial"])?;
    address.only("controller", &["0"])?;
    address.only("bus", &["0"])?;
    address.parsed("port")
}

fn unix_only(element: Element<'_>) -> Result<(), XmlError> {
    match element.required("type")? {
        "unix" => Ok(()),
        kind => {
            let message = "its host end is a UNIX socket: type='unix'";
            Err(element.unsupported_value("type", kind, message))
        }
    }
}

pub(super) fn parse_channel(
    element: Element<'_>,
    keeper: &mut Keeper,
    sockets: Sockets<'_>,
) -> Result<Channel, XmlError> {
    element.known(&["type"])?;
    unix_only(element)?;
    keeper.contents(element, &["source", "target", "alias", "address"], &[])?;
    let missing = || element.invalid("there is no <target> that names it");
    let target = element.child("target").ok_or_else(missing)?;
    target.known(&["type", "name", "state"])?;
    target.only("type", &["virtio"])?;
    let name = target.required("name")?.to_owned();
    let path = match unix_source(element)? {
        Some(path) => path,
        // Such a name is refused where the model is checked, and is none of a file's until then.
        None => sockets.channel(&name.replace('/', "_")),
    };
    Ok(Channel {
        path,
        port: port_number(element)?,
        name,
    })
}

/// A console on a port; `None` of the serial one.
pub(super) fn parse_console(
    element: Element<'_>,
    keeper: &mut Keeper,
) -> Result<Option<PortConsole>, XmlError> {
    let target = element.child("target");
    let kind = target
        .and_then(|target| target.attribute("type"))
        .unwrap_or("serial");
    match kind {
        "serial" => {
            serial_terminal(element, keeper)?;
            if let Some(target) = target {
                target.known(&["type", "port"])?;
                target.only("port", &["0"])?;
                target.no_children()?;
            }
            Ok(None)
        }
        "virtio" => {
            element.known(&["type"])?;
            unix_only(element)?;
            if let Some(log) = element.child("log") {
                return Err(log.not_provided());
            }
            keeper.contents(element, &["source", "target", "alias", "address"], &[])?;
            if let Some(target) = target {
                // Its number among consoles is not that of its port.
                target.known(&["type", "port"])?;
            }
            let path = unix_source(element)?;
            let path = path.ok_or_else(|| element.invalid("its <source> has no path"))?;
            let port = port_number(element)?;
            Ok(Some(PortConsole { path, port }))
        }
        _ => {
            let target = target.unwrap_or(element);
            Err(target.unsupported_value("type", kind, "there is serial and virtio"))
        }
    }
}

pub(super) fn parse_serial(element: Element<'_>, keeper: &mut Keeper) -> Result<(), XmlError> {
    serial_terminal(element, keeper)?;
    let Some(target) = element.child("target") else {
        return Ok(());
    };
    target.known(&["type", "port"])?;
    target.only("type", &["isa-serial"])?;
    target.only("port", &["0"])?;
    for model in target.children() {
        if model.name() != "model" {
            return Err(model.not_provided());
        }
        model.known(&["name"])?;
        model.only("name", &["isa-serial"])?;
    }
    Ok(())
}

/// That it is the terminal that every domain has.
fn serial_terminal(element: Element<'_>, keeper: &mut Keeper) -> Result<(), XmlError> {
    element.known(&["type", "tty"])?;
    match element.required("type")? {
        "pty" => {}
        kind => {
            let message = "the host end of the serial console is a terminal: type='pty'";
            return Err(element.unsupported_value("type", kind, message));
        }
    }
    keeper.contents(
        element,
        &["source", "target", "alias", "address", "protocol"],
        &[],
    )?;
    if let Some(protocol) = element.child("protocol") {
        protocol.only("type", &["raw"])?;
    }
    if let Some(source) = element.child("source") {
        // The path is the host's to say; that of another start means nothing.
        source.known(&["path"])?;
        source.no_children()?;
    }
    address::alias(element)
}

/// The controller of ports, read when all of those are: it says where it is, or is kept where there are none.
pub(super) fn parse_controller(
    element: Element<'_>,
    keeper: &mut Keeper,
    devices: &mut Devices,
) -> Result<(), XmlError> {
    if devices.has_ports() {
        element.known(&["type", "index", "ports", "vectors", "model"])?;
        element.only("index", &["0"])?;
        element.only("model", &["virtio", "virtio-non-transitional"])?;
        devices.ports_address = address::place(element)?;
        return Ok(());
    }
    keeper.offer(element)
}

pub(super) fn format_controller(writer: &mut Writer, devices: &Devices, live: bool) {
    if devices.has_ports() {
        let tag = writer.tag("controller").attribute("type", "virtio-serial");
        tag.attribute("index", 0).open();
        let alias = live.then_some("virtio-serial0");
        address::format(writer, alias, devices.ports_address);
        writer.close("controller");
    }
}

pub(super) fn format_serial(writer: &mut Writer, live: Option<&Live<'_>>, kept: &[KeptElement]) {
    let pty = live.and_then(|live| live.pty);
    let alias = live.map(|_| "serial0");
    for name in ["serial", "console"] {
        let tag = writer.tag(name).attribute("type", "pty");
        // `virsh ttyconsole` reads it here.
        tag.optional("tty", pty.filter(|_| name == "console"))
            .open();
        if let Some(pty) = pty {
            writer.tag("source").attribute("path", pty).empty();
        }
        kept::write(writer, kept, &format!("devices/{name}"));
        if name == "serial" {
            let tag = writer.tag("target").attribute("type", "isa-serial");
            tag.attribute("port", 0).open();
            writer.tag("model").attribute("name", "isa-serial").empty();
            writer.close("target");
        } else {
            let tag = writer.tag("target").attribute("type", "serial");
            tag.attribute("port", 0).empty();
        }
        address::format_alias(writer, alias);
        writer.close(name);
    }
}

pub(super) fn format_channel(
    writer: &mut Writer,
    channel: &Channel,
    alias: Option<&str>,
    said: bool,
    open: Option<bool>,
) {
    writer.tag("channel").attribute("type", "unix").open();
    if said {
        let tag = writer.tag("source").attribute("mode", "bind");
        tag.attribute("path", channel.path.display()).empty();
    }
    let tag = writer.tag("target").attribute("type", "virtio");
    let state = open.map(|open| match open {
        true => "connected",
        false => "disconnected",
    });
    tag.attribute("name", &channel.name)
        .optional("state", state)
        .empty();
    format_port(writer, alias, channel.port);
    writer.close("channel");
}

pub(super) fn format_console(writer: &mut Writer, console: &PortConsole, alias: Option<&str>) {
    writer.tag("console").attribute("type", "unix").open();
    let tag = writer.tag("source").attribute("mode", "bind");
    tag.attribute("path", console.path.display()).empty();
    writer.tag("target").attribute("type", "virtio").empty();
    format_port(writer, alias, console.port);
    writer.close("console");
}

fn format_port(writer: &mut Writer, alias: Option<&str>, port: Option<u8>) {
    address::format_alias(writer, alias);
    if let Some(port) = port {
        let tag = writer.tag("address").attribute("type", "virtio-serial");
        tag.attribute("controller", 0)
            .attribute("bus", 0)
            .attribute("port", port)
            .empty();
    }
}
