//! `<volume type='file'>`.

use std::path::PathBuf;

use reeve_ipc::api::storage::{FileTimes, Volume, VolumeKind};
use reeve_ipc::model::{Layer, NewVolume, Permissions, Qcow2Compat, Qcow2Options, VolumeName};
use reeve_ipc::spec::DiskFormat;

use super::super::XmlError;
use super::super::element::{Element, document};
use super::super::write::Writer;
use super::{contents, format_permissions, format_sizes, part, permissions};

/// What a document says of a volume that is to be made: anew, or as a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeDocument {
    /// The volume, without what it builds upon.
    pub volume: NewVolume,
    /// What it builds upon.
    pub backing: Option<BackingStore>,
}

/// What a volume builds upon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackingStore {
    /// Its file, as it is written.
    pub path: PathBuf,
    /// What is in it, where that is said.
    pub format: Option<DiskFormat>,
}

impl VolumeDocument {
    /// The volume as it is made anew. As libvirt documents it, a raw one is allocated whole where nothing is said
    /// of that; a qcow2 image is allocated whole or not at all.
    ///
    /// # Errors
    /// What it builds upon is not said well enough, or it can build upon nothing.
    pub fn made(self) -> Result<NewVolume, XmlError> {
        let Self {
            mut volume,
            backing,
        } = self;
        let whole = match volume.format {
            // A file has blocks, and may take more room than it has bytes.
            DiskFormat::Raw => match (volume.allocation, volume.capacity) {
                (Some(allocation), Some(capacity)) => Some(allocation.min(capacity)),
                (allocation, capacity) => allocation.or(capacity),
            },
            DiskFormat::Qcow2 => self::whole(&volume),
        };
        volume.allocation = whole;
        if let Some(BackingStore { path, format }) = backing {
            let invalid = |what: &str| XmlError::invalid(format!("volume/backingStore/{what}"));
            if !path.is_absolute() {
                return Err(invalid("path: it must be an absolute path"));
            }
            let missing = "format: it is not there, and what is in a file is not guessed";
            let format = format.ok_or_else(|| invalid(missing))?;
            if volume.format == DiskFormat::Raw {
                let why = "volume/backingStore: only qcow2 builds upon another volume";
                return Err(XmlError::unsupported(why));
            }
            volume.backing = Some(Layer { path, format });
        }
        Ok(volume)
    }

    /// The volume as it is copied, of one that builds upon that: it has the holes that the other has, or none.
    ///
    /// # Errors
    /// It is to build upon something else.
    pub fn copied(self, from: Option<&std::path::Path>) -> Result<NewVolume, XmlError> {
        let Self {
            mut volume,
            backing,
        } = self;
        if let Some(backing) = backing {
            if from != Some(&backing.path) {
                let why = "volume/backingStore: a copy builds upon what its original does, and upon nothing else";
                return Err(XmlError::unsupported(why));
            }
        }
        volume.allocation = whole(&volume);
        Ok(volume)
    }
}

/// All that there is to allocate, where no less is asked for.
fn whole(volume: &NewVolume) -> Option<u64> {
    let (capacity, allocation) = (volume.capacity?, volume.allocation?);
    (allocation >= capacity).then_some(capacity)
}

/// Reads a volume that is to be made. Its path is its pool's to say, and is passed over.
///
/// # Errors
/// [`XmlError`].
pub fn parse_volume(text: &str) -> Result<VolumeDocument, XmlError> {
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
    let mut volume = NewVolume {
        name: VolumeName::try_from(part(root, "name")?.text())?,
        capacity: size(root, "capacity")?,
        allocation: size(root, "allocation")?,
        format: DiskFormat::Raw,
        qcow2: Qcow2Options::default(),
        backing: None,
        permissions: Permissions::default(),
    };
    if let Some(target) = root.child("target") {
        self::target(target, &mut volume)?;
    }
    let backing = root.child("backingStore").map(backing).transpose()?;
    Ok(VolumeDocument { volume, backing })
}

/// Bytes; where no unit is said, unlike memory, it is bytes.
fn size(root: Element<'_>, name: &str) -> Result<Option<u64>, XmlError> {
    let Some(element) = root.child(name) else {
        return Ok(None);
    };
    element.known(&["unit"])?;
    element.bytes_in("bytes").map(Some)
}

fn target(target: Element<'_>, volume: &mut NewVolume) -> Result<(), XmlError> {
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
    let mut qcow2 = Qcow2Options::default();
    if let Some(compat) = target.child("compat") {
        let text = compat.text();
        let all = [Qcow2Compat::V2, Qcow2Compat::V3];
        let found = all.into_iter().find(|known| known.word() == text.trim());
        let words = all.map(Qcow2Compat::word).join(" and ");
        qcow2.compat = found.ok_or_else(|| compat.unsupported(format!("there is {words}")))?;
    }
    if let Some(bytes) = size(target, "clusterSize")? {
        let invalid = |_| XmlError::invalid("volume/target/clusterSize: the number is too large");
        qcow2.cluster_bytes = u32::try_from(bytes).map_err(invalid)?;
    }
    if let Some(features) = target.child("features") {
        features.known(&[])?;
        contents(features, &["lazy_refcounts"])?;
        qcow2.lazy_refcounts = features.child("lazy_refcounts").is_some();
    }
    // As clients write them whatever the format is.
    if volume.format == DiskFormat::Qcow2 {
        volume.qcow2 = qcow2;
    }
    Ok(())
}

fn backing(element: Element<'_>) -> Result<BackingStore, XmlError> {
    element.known(&[])?;
    contents(element, &["path", "format", "permissions", "timestamps"])?;
    Ok(BackingStore {
        path: PathBuf::from(part(element, "path")?.text()),
        format: format(element)?,
    })
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
pub fn format_volume(volume: &Volume) -> String {
    let mut writer = Writer::new();
    let kind = match volume.kind {
        VolumeKind::File => "file",
        VolumeKind::Directory => "dir",
    };
    writer.tag("volume").attribute("type", kind).open();
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
    format_format(&mut writer, volume.format.word());
    let owner = Permissions {
        mode: Some(volume.owner.mode),
        owner: Some(volume.owner.owner),
        group: Some(volume.owner.group),
    };
    format_permissions(&mut writer, owner);
    format_times(&mut writer, &volume.times);
    if let Some(qcow2) = volume.qcow2 {
        writer.text("compat", qcow2.compat.word());
        let tag = writer.tag("clusterSize").attribute("unit", "B");
        tag.text(qcow2.cluster_bytes);
        if qcow2.lazy_refcounts {
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
        match &backing.path {
            Some(path) => writer.text("path", path.display()),
            // No file of this host: told as it is written, for nobody is to take the volume for a whole one.
            None => writer.text("path", &backing.written),
        }
        if let Some(format) = &backing.format {
            format_format(&mut writer, format.word());
        }
        writer.close("backingStore");
    }
    writer.close("volume");
    writer.finish()
}

fn format_format(writer: &mut Writer, word: &str) {
    writer.tag("format").attribute("type", word).empty();
}

fn format_times(writer: &mut Writer, times: &FileTimes) {
    writer.tag("timestamps").open();
    let all = [
        ("atime", Some(times.accessed)),
        ("mtime", Some(times.modified)),
        ("ctime", Some(times.changed)),
        ("btime", times.born),
    ];
    for (name, time) in all {
        if let Some(time) = time {
            // The schema has no word for a time before 1970.
            let seconds = time.seconds.max(0);
            writer.text(name, format_args!("{seconds}.{:09}", time.nanoseconds));
        }
    }
    writer.close("timestamps");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_takes_more_room_than_it_has_bytes_is_made_whole() {
        let made = |allocation: &str| {
            let text = format!(
                "<volume><name>a</name><capacity>10000</capacity>{allocation}\
                 <target><format type='raw'/></target></volume>"
            );
            parse_volume(&text).unwrap().made().unwrap().allocation
        };
        // As 'vol-dumpxml' gives it.
        assert_eq!(made("<allocation>12288</allocation>"), Some(10_000));
        assert_eq!(made("<allocation>4096</allocation>"), Some(4096));
        assert_eq!(made(""), Some(10_000));
    }
}
