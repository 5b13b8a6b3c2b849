//! `<pool type='dir'>` and `<volume>`: directories of images.

use std::path::{Path, PathBuf};

use reeve_ipc::model::{PoolName, VolumeName};
use reeve_ipc::spec::DiskFormat;
use uuid::Uuid;

use super::XmlError;
use super::element::{Element, document};
use super::write::Writer;

/// A pool as a document has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Its name.
    pub name: PoolName,
    /// Its UUID, where it is said.
    pub uuid: Option<Uuid>,
    /// The directory; absolute.
    pub directory: PathBuf,
    /// Who owns the directory, and who may enter, where that is said.
    pub permissions: Permissions,
}

/// Who owns a file or directory. What is not said is left as it is found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Permissions {
    /// The permission bits, at most `0o7777`.
    pub mode: Option<u32>,
    /// The owner.
    pub owner: Option<u32>,
    /// The group.
    pub group: Option<u32>,
}

/// Bytes of a pool's file system.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolSizes {
    /// In all.
    pub capacity: u64,
    /// That are used.
    pub allocation: u64,
    /// That are free.
    pub available: u64,
}

/// A volume as a document has it, to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its name, which is its file's.
    pub name: VolumeName,
    /// How large its guest sees it, in bytes. A clone may leave it out.
    pub capacity: Option<u64>,
    /// How many bytes of it are allocated at once; none where it is not said.
    pub allocation: u64,
    /// What is in it.
    pub format: DiskFormat,
    /// What it builds upon.
    pub backing: Option<(PathBuf, DiskFormat)>,
    /// Who owns the file.
    pub permissions: Permissions,
}

/// A volume as it is, for printing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeView {
    /// Its name.
    pub name: String,
    /// Its file.
    pub path: PathBuf,
    /// What is in it; none where nobody said and it is not read.
    pub format: Option<DiskFormat>,
    /// Bytes as a guest sees it.
    pub capacity: u64,
    /// Bytes that are allocated.
    pub allocation: u64,
    /// Bytes of its file.
    pub physical: u64,
    /// Who owns the file.
    pub permissions: Permissions,
    /// What it builds upon, as its header says it.
    pub backing: Option<(PathBuf, Option<DiskFormat>)>,
}

/// What of a document is refused in silence by nobody.
fn contents(element: Element<'_>, known: &[&str]) -> Result<(), XmlError> {
    for (index, child) in element.children().enumerate() {
        if !known.contains(&child.name()) {
            return Err(child.not_provided());
        }
        if element
            .children()
            .take(index)
            .any(|before| before.name() == child.name())
        {
            return Err(child.invalid("there is a second one"));
        }
    }
    Ok(())
}

fn part<'a>(element: Element<'a>, name: &str) -> Result<Element<'a>, XmlError> {
    let missing = || element.invalid(format!("there is no <{name}> in it"));
    element.child(name).ok_or_else(missing)
}

/// Reads a pool. Sizes are the host's to say, and are passed over.
///
/// # Errors
/// [`XmlError`].
pub fn parse_pool(text: &str) -> Result<Pool, XmlError> {
    let document = document(text)?;
    let root = Element::root(&document, "pool")?;
    root.known(&["type"])?;
    match root.required("type")? {
        "dir" => {}
        kind => return Err(root.unsupported_value("type", kind, "there is dir")),
    }
    contents(
        root,
        &[
            "name",
            "uuid",
            "capacity",
            "allocation",
            "available",
            "source",
            "target",
        ],
    )?;
    if let Some(source) = root.child("source") {
        // virsh writes an empty one.
        source.known(&[])?;
        source.no_children()?;
    }
    let target = part(root, "target")?;
    target.known(&[])?;
    contents(target, &["path", "permissions"])?;
    let directory = absolute(part(target, "path")?)?;
    Ok(Pool {
        name: PoolName::try_from(part(root, "name")?.text())?,
        uuid: root.child("uuid").map(|uuid| uuid.value()).transpose()?,
        directory,
        permissions: permissions(target)?,
    })
}

fn absolute(element: Element<'_>) -> Result<PathBuf, XmlError> {
    let path = PathBuf::from(element.text().trim());
    match path.is_absolute() {
        true => Ok(path),
        false => Err(element.invalid("it must be an absolute path")),
    }
}

fn permissions(target: Element<'_>) -> Result<Permissions, XmlError> {
    let Some(element) = target.child("permissions") else {
        return Ok(Permissions::default());
    };
    element.known(&[])?;
    contents(element, &["mode", "owner", "group", "label"])?;
    let mode = match element.child("mode") {
        Some(mode) => {
            let bits = u32::from_str_radix(mode.text().trim(), 8).ok();
            let bits = bits.filter(|bits| *bits <= 0o7777);
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

/// Prints a pool; its sizes while it is active.
#[must_use]
pub fn format_pool(pool: &Pool, sizes: Option<PoolSizes>) -> String {
    let mut writer = Writer::new();
    writer.tag("pool").attribute("type", "dir").open();
    writer.text("name", &pool.name);
    if let Some(uuid) = pool.uuid {
        writer.text("uuid", uuid);
    }
    let sizes = sizes.unwrap_or_default();
    for (name, bytes) in [
        ("capacity", sizes.capacity),
        ("allocation", sizes.allocation),
        ("available", sizes.available),
    ] {
        writer.tag(name).attribute("unit", "bytes").text(bytes);
    }
    writer.tag("source").empty();
    writer.tag("target").open();
    writer.text("path", pool.directory.display());
    format_permissions(&mut writer, pool.permissions);
    writer.close("target");
    writer.close("pool");
    writer.finish()
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

/// Reads a volume that is to be made.
///
/// # Errors
/// [`XmlError`].
pub fn parse_volume(text: &str) -> Result<Volume, XmlError> {
    let document = document(text)?;
    let root = Element::root(&document, "volume")?;
    root.known(&["type"])?;
    root.only("type", &["file"])?;
    contents(
        root,
        &[
            "name",
            "key",
            "source",
            "capacity",
            "allocation",
            "physical",
            "target",
            "backingStore",
        ],
    )?;
    let bytes = |name: &str| -> Result<Option<u64>, XmlError> {
        let Some(element) = root.child(name) else {
            return Ok(None);
        };
        element.known(&["unit"])?;
        // Unlike memory, in bytes where no unit is said.
        match element.attribute("unit") {
            Some(_) => element.bytes().map(Some),
            None => element.value().map(Some),
        }
    };
    let mut format = DiskFormat::Raw;
    let mut owned = Permissions::default();
    if let Some(target) = root.child("target") {
        target.known(&[])?;
        contents(
            target,
            &[
                "path",
                "format",
                "permissions",
                "compat",
                "features",
                "timestamps",
            ],
        )?;
        if let Some(features) = target.child("features") {
            for feature in features.children() {
                if feature.name() != "lazy_refcounts" {
                    return Err(feature.not_provided());
                }
            }
        }
        format = format_of(target)?;
        owned = permissions(target)?;
    }
    let backing = match root.child("backingStore") {
        Some(backing) => {
            backing.known(&[])?;
            contents(backing, &["path", "format", "permissions", "timestamps"])?;
            if backing.child("format").is_none() {
                return Err(
                    backing.invalid("there is no <format> in it: what is in a file is not guessed")
                );
            }
            Some((absolute(part(backing, "path")?)?, format_of(backing)?))
        }
        None => None,
    };
    if backing.is_some() && format == DiskFormat::Raw {
        return Err(root.unsupported("only qcow2 builds upon another"));
    }
    Ok(Volume {
        name: VolumeName::try_from(part(root, "name")?.text())?,
        capacity: bytes("capacity")?,
        allocation: bytes("allocation")?.unwrap_or(0),
        format,
        backing,
        permissions: owned,
    })
}

fn format_of(element: Element<'_>) -> Result<DiskFormat, XmlError> {
    let Some(format) = element.child("format") else {
        return Ok(DiskFormat::Raw);
    };
    format.known(&["type"])?;
    // An ISO image is bytes as they are.
    match format.required("type")? {
        "iso" => Ok(DiskFormat::Raw),
        _ => Ok(format.word("type")?.unwrap_or(DiskFormat::Raw)),
    }
}

/// Prints a volume.
#[must_use]
pub fn format_volume(volume: &VolumeView) -> String {
    let mut writer = Writer::new();
    writer.tag("volume").attribute("type", "file").open();
    writer.text("name", &volume.name);
    // The key of a file in a directory is its path.
    writer.text("key", volume.path.display());
    for (name, bytes) in [
        ("capacity", volume.capacity),
        ("allocation", volume.allocation),
        ("physical", volume.physical),
    ] {
        writer.tag(name).attribute("unit", "bytes").text(bytes);
    }
    writer.tag("target").open();
    writer.text("path", volume.path.display());
    writer
        .tag("format")
        .attribute("type", word(volume.format))
        .empty();
    format_permissions(&mut writer, volume.permissions);
    writer.close("target");
    if let Some((path, format)) = &volume.backing {
        backing(&mut writer, path, *format);
    }
    writer.close("volume");
    writer.finish()
}

fn backing(writer: &mut Writer, path: &Path, format: Option<DiskFormat>) {
    writer.tag("backingStore").open();
    writer.text("path", path.display());
    writer.tag("format").attribute("type", word(format)).empty();
    writer.close("backingStore");
}

fn word(format: Option<DiskFormat>) -> &'static str {
    format.map_or("raw", DiskFormat::word)
}
