//! `<volume type='file'>`.

use std::path::PathBuf;

use reeve_ipc::model::VolumeName;
use reeve_ipc::spec::DiskFormat;

use super::super::XmlError;
use super::super::element::{Element, document};
use super::super::write::Writer;
use super::{Permissions, absolute, contents, format_permissions, format_sizes, part, permissions};

/// A volume as a document has it, to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its name, which is its file's.
    pub name: VolumeName,
    /// How large its guest sees it, in bytes. A clone may leave it out.
    pub capacity: Option<u64>,
    /// How many bytes of it are allocated at once, where it is said.
    pub allocation: Option<u64>,
    /// What is in it.
    pub format: DiskFormat,
    /// What it builds upon.
    pub backing: Option<(PathBuf, DiskFormat)>,
    /// Who owns the file.
    pub permissions: Permissions,
    /// Bytes of a cluster, where they are said.
    pub cluster_size: Option<u64>,
    /// Counts of references may be behind, in a file that says so.
    pub lazy_refcounts: bool,
}

/// When a file was used, in seconds and nanoseconds since 1970.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timestamps {
    /// It was read.
    pub accessed: (i64, u32),
    /// It was written.
    pub modified: (i64, u32),
    /// It was changed, or what is said of it.
    pub changed: (i64, u32),
}

/// What a volume builds upon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backing {
    /// Its file; absolute.
    pub path: PathBuf,
    /// What is in it, where the volume says so.
    pub format: Option<DiskFormat>,
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
    /// When it was used, where that is known.
    pub timestamps: Option<Timestamps>,
    /// Of qcow2: bytes of a cluster.
    pub cluster_size: Option<u64>,
    /// Of qcow2: counts of references may be behind.
    pub lazy_refcounts: bool,
    /// What it builds upon, as its header says it.
    pub backing: Option<Backing>,
}

/// Reads a volume that is to be made. Its path is its pool's to say, and is passed over.
///
/// # Errors
/// [`XmlError`].
pub fn parse_volume(text: &str) -> Result<Volume, XmlError> {
    let document = document(text)?;
    let root = Element::root(&document, "volume")?;
    root.known(&["type"])?;
    root.only("type", &["file"])?;
    let known = [
        "name",
        "key",
        "source",
        "capacity",
        "allocation",
        "physical",
        "target",
        "backingStore",
    ];
    contents(root, &known)?;
    if let Some(source) = root.child("source") {
        // Older libvirts print an empty one.
        source.known(&[])?;
        source.no_children()?;
    }
    let mut volume = Volume {
        name: VolumeName::try_from(part(root, "name")?.text())?,
        capacity: size(root, "capacity")?,
        allocation: size(root, "allocation")?,
        format: DiskFormat::Raw,
        backing: None,
        permissions: Permissions::default(),
        cluster_size: None,
        lazy_refcounts: false,
    };
    if let Some(target) = root.child("target") {
        self::target(target, &mut volume)?;
    }
    if let Some(element) = root.child("backingStore") {
        volume.backing = Some(backing(element)?);
    }
    match volume.format {
        DiskFormat::Qcow2 => Ok(volume),
        _ if volume.backing.is_some() => {
            Err(root.unsupported("only qcow2 builds upon another volume"))
        }
        _ => Ok(volume),
    }
}

/// Bytes; where no unit is said, unlike memory, it is bytes.
fn size(root: Element<'_>, name: &str) -> Result<Option<u64>, XmlError> {
    let Some(element) = root.child(name) else {
        return Ok(None);
    };
    element.known(&["unit"])?;
    element.bytes_in("bytes").map(Some)
}

fn target(target: Element<'_>, volume: &mut Volume) -> Result<(), XmlError> {
    target.known(&[])?;
    let known = [
        "path",
        "format",
        "permissions",
        "timestamps",
        "compat",
        "clusterSize",
        "features",
    ];
    contents(target, &known)?;
    volume.format = format(target)?.unwrap_or(DiskFormat::Raw);
    volume.permissions = permissions(target)?;
    let qcow2 = volume.format == DiskFormat::Qcow2;
    if let Some(compat) = target.child("compat") {
        // That of libvirt's documents: version 3 of the format.
        if qcow2 && compat.text().trim() != COMPAT {
            return Err(compat.unsupported(format!("there is {COMPAT}")));
        }
    }
    volume.cluster_size = size(target, "clusterSize")?.filter(|_| qcow2);
    if let Some(features) = target.child("features") {
        features.known(&[])?;
        contents(features, &["lazy_refcounts"])?;
        volume.lazy_refcounts = qcow2 && features.child("lazy_refcounts").is_some();
    }
    Ok(())
}

/// What qcow2 of version 3 is called by the version of QEMU that brought it.
const COMPAT: &str = "1.1";

fn backing(element: Element<'_>) -> Result<(PathBuf, DiskFormat), XmlError> {
    element.known(&[])?;
    contents(element, &["path", "format", "permissions", "timestamps"])?;
    let path = absolute(part(element, "path")?)?;
    let missing = "there is no <format> in it: what is in a file is not guessed";
    let format = format(element)?.ok_or_else(|| element.invalid(missing))?;
    Ok((path, format))
}

fn format(element: Element<'_>) -> Result<Option<DiskFormat>, XmlError> {
    let Some(format) = element.child("format") else {
        return Ok(None);
    };
    format.known(&["type"])?;
    match format.required("type")? {
        // An ISO image is bytes as they are.
        "iso" => Ok(Some(DiskFormat::Raw)),
        _ => format.word("type"),
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
    let sizes = [
        ("capacity", volume.capacity),
        ("allocation", volume.allocation),
        ("physical", volume.physical),
    ];
    format_sizes(&mut writer, &sizes);
    writer.tag("target").open();
    writer.text("path", volume.path.display());
    format_format(&mut writer, volume.format);
    format_permissions(&mut writer, volume.permissions);
    if let Some(timestamps) = volume.timestamps {
        format_timestamps(&mut writer, timestamps);
    }
    if volume.format == Some(DiskFormat::Qcow2) {
        writer.text("compat", COMPAT);
        if let Some(bytes) = volume.cluster_size {
            writer.tag("clusterSize").attribute("unit", "B").text(bytes);
        }
        if volume.lazy_refcounts {
            writer.tag("features").open();
            writer.tag("lazy_refcounts").empty();
            writer.close("features");
        } else {
            writer.tag("features").empty();
        }
    }
    writer.close("target");
    if let Some(backing) = &volume.backing {
        writer.tag("backingStore").open();
        writer.text("path", backing.path.display());
        format_format(&mut writer, backing.format);
        writer.close("backingStore");
    }
    writer.close("volume");
    writer.finish()
}

fn format_format(writer: &mut Writer, format: Option<DiskFormat>) {
    let word = format.map_or("raw", DiskFormat::word);
    writer.tag("format").attribute("type", word).empty();
}

fn format_timestamps(writer: &mut Writer, timestamps: Timestamps) {
    writer.tag("timestamps").open();
    let times = [
        ("atime", timestamps.accessed),
        ("mtime", timestamps.modified),
        ("ctime", timestamps.changed),
    ];
    for (name, (seconds, nanoseconds)) in times {
        // Before 1970 the schema has no word for it.
        let seconds = seconds.max(0);
        writer.text(name, format_args!("{seconds}.{nanoseconds:09}"));
    }
    writer.close("timestamps");
}
