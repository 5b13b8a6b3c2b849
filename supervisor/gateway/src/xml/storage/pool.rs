//! `<pool type='dir'>`.

use std::path::PathBuf;

use reeve_ipc::model::PoolName;
use uuid::Uuid;

use super::super::XmlError;
use super::super::element::{Element, document};
use super::super::write::Writer;
use super::{Permissions, absolute, contents, format_permissions, format_sizes, part, permissions};

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
    let known = [
        "name",
        "uuid",
        "capacity",
        "allocation",
        "available",
        "source",
        "target",
    ];
    contents(root, &known)?;
    if let Some(source) = root.child("source") {
        // libvirt prints an empty one.
        source.known(&[])?;
        source.no_children()?;
    }
    let target = part(root, "target")?;
    target.known(&[])?;
    contents(target, &["path", "permissions"])?;
    Ok(Pool {
        name: PoolName::try_from(part(root, "name")?.text())?,
        uuid: root.child("uuid").map(Element::value).transpose()?,
        directory: absolute(part(target, "path")?)?,
        permissions: permissions(target)?,
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
    let sizes = [
        ("capacity", sizes.capacity),
        ("allocation", sizes.allocation),
        ("available", sizes.available),
    ];
    format_sizes(&mut writer, &sizes);
    writer.tag("source").open();
    writer.close("source");
    writer.tag("target").open();
    writer.text("path", pool.directory.display());
    format_permissions(&mut writer, pool.permissions);
    writer.close("target");
    writer.close("pool");
    writer.finish()
}
