//! `<disk type='volume'>`: disks that name their image by its pool and its name there. The model knows paths, so that
//! such a disk becomes one of its volume's file before its document is read.

use std::ops::Range;
use std::path::Path;

use roxmltree::Node;

use super::super::XmlError;
use super::super::element::document;
use super::super::write::escaped;

/// A disk that names a volume, and where it says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskVolume {
    /// The pool.
    pub pool: String,
    /// The volume in it.
    pub volume: String,
    /// The attributes that say that it is a volume, and which.
    places: [Range<usize>; 3],
}

/// The disks of a document that name volumes, in order.
///
/// # Errors
/// It is no document.
pub fn disk_volumes(text: &str) -> Result<Vec<DiskVolume>, XmlError> {
    // Few documents have any.
    if !text.contains("volume") {
        return Ok(Vec::new());
    }
    let document = document(text)?;
    let disks = document
        .descendants()
        .filter(|node| node.has_tag_name("disk") && node.attribute("type") == Some("volume"));
    Ok(disks.filter_map(volume).collect())
}

/// The volume of a disk that names one wholly. One that does not is refused where it is read.
fn volume(disk: Node<'_, '_>) -> Option<DiskVolume> {
    let mut children = disk.children();
    let source = children.find(|node| node.has_tag_name("source"))?;
    let kind = disk.attribute_node("type")?;
    let pool = source.attribute_node("pool")?;
    let volume = source.attribute_node("volume")?;
    Some(DiskVolume {
        pool: pool.value().to_owned(),
        volume: volume.value().to_owned(),
        places: [kind.range(), pool.range(), volume.range()],
    })
}

/// The document with those disks by the paths of their volumes, which are as many.
#[must_use]
pub fn with_disk_paths(text: &str, disks: &[DiskVolume], paths: &[&Path]) -> String {
    let mut edits: Vec<(Range<usize>, String)> = Vec::new();
    for (disk, path) in disks.iter().zip(paths) {
        let [kind, pool, volume] = disk.places.clone();
        edits.push((kind, "type='file'".to_owned()));
        edits.push((pool, format!("file='{}'", escaped(path.display()))));
        edits.push((volume, String::new()));
    }
    edits.sort_by_key(|(place, _)| place.start);
    let mut out = String::with_capacity(text.len());
    let mut from = 0;
    for (place, with) in edits {
        out.push_str(text.get(from..place.start).unwrap_or_default());
        out.push_str(&with);
        from = place.end;
    }
    out.push_str(text.get(from..).unwrap_or_default());
    out
}
