//! `<pool type='dir'>` and `<volume>`: directories of images.
//!
//! What a host says of a pool or a volume (sizes, paths, times) is passed over where a document is read: clients
//! hand in what they were given. What would have to be done and is not is refused by its path.

mod capabilities;
mod disks;
mod pool;
mod volume;

use std::path::PathBuf;

use reeve_ipc::model::{MODE_BITS, Permissions};

pub use self::capabilities::format as format_capabilities;
pub use self::disks::{DiskVolume, disk_volumes, with_disk_paths};
pub use self::pool::{format_pool, parse_pool};
pub use self::volume::{BackingStore, VolumeDocument, format_volume, parse_volume};
use super::XmlError;
use super::element::Element;
use super::write::Writer;

/// That there is nothing in an element but these, each once.
fn contents(element: Element<'_>, known: &[&str]) -> Result<(), XmlError> {
    let mut seen: Vec<&str> = Vec::new();
    for child in element.children() {
        if !known.contains(&child.name()) {
            return Err(child.not_provided());
        }
        if seen.contains(&child.name()) {
            return Err(child.invalid("there is a second one"));
        }
        seen.push(child.name());
    }
    Ok(())
}

fn part<'a>(element: Element<'a>, name: &str) -> Result<Element<'a>, XmlError> {
    let missing = || element.invalid(format!("there is no <{name}> in it"));
    element.child(name).ok_or_else(missing)
}

fn absolute(element: Element<'_>) -> Result<PathBuf, XmlError> {
    element.known(&[])?;
    let path = PathBuf::from(element.text());
    match path.is_absolute() {
        true => Ok(path),
        false => Err(element.invalid("it must be an absolute path")),
    }
}

/// Reads `<permissions>` of a `<target>`. A label is what libvirt found on a file, and there are none here.
fn permissions(target: Element<'_>) -> Result<Permissions, XmlError> {
    let Some(element) = target.child("permissions") else {
        return Ok(Permissions::default());
    };
    element.known(&[])?;
    contents(element, &["mode", "owner", "group", "label"])?;
    let mode = match element.child("mode") {
        Some(mode) => {
            let bits = u32::from_str_radix(mode.text().trim(), 8).ok();
            let bits = bits.filter(|bits| *bits <= MODE_BITS);
            Some(bits.ok_or_else(|| mode.invalid("it is an octal number, as 0644"))?)
        }
        None => None,
    };
    // -1 is whoever it is.
    let id = |name: &str| -> Result<Option<u32>, XmlError> {
        let Some(element) = element.child(name) else {
            return Ok(None);
        };
        match element.value::<i64>()? {
            -1 => Ok(None),
            id => u32::try_from(id)
                .map(Some)
                .map_err(|error| element.invalid(error)),
        }
    };
    Ok(Permissions {
        mode,
        owner: id("owner")?,
        group: id("group")?,
    })
}

fn format_permissions(writer: &mut Writer, permissions: Permissions) {
    let Permissions { mode, owner, group } = permissions;
    if permissions == Permissions::default() {
        return;
    }
    writer.tag("permissions").open();
    if let Some(mode) = mode {
        writer.text("mode", format_args!("0{mode:o}"));
    }
    if let Some(owner) = owner {
        writer.text("owner", owner);
    }
    if let Some(group) = group {
        writer.text("group", group);
    }
    writer.close("permissions");
}

/// Writes sizes as the host knows them.
fn format_sizes(writer: &mut Writer, sizes: &[(&str, u64)]) {
    for (name, bytes) in sizes {
        writer.tag(name).attribute("unit", "bytes").text(bytes);
    }
}
