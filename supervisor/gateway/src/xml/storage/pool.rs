//! `<pool type='dir'>`.

use reeve_ipc::api::storage::PoolSizes;
use reeve_ipc::model::{Pool, PoolName, PoolUuid};

use super::super::XmlError;
use super::super::element::{Element, document};
use super::super::write::Writer;
use super::{absolute, contents, format_permissions, format_sizes, part, permissions};

/// Reads a pool; one whose document has no UUID gets that one. Sizes are the host's to say, and are passed
/// over.
///
/// # Errors
/// [`XmlError`].
pub fn parse_pool(text: &str, uuid: PoolUuid) -> Result<Pool, XmlError> {
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
        uuid: match root.child("uuid") {
            Some(uuid) => PoolUuid(uuid.value()?),
            None => uuid,
        },
        target: absolute(part(target, "path")?)?,
        permissions: permissions(target)?,
    })
}

/// Prints a pool; its sizes while it is active.
#[must_use]
pub fn format_pool(pool: &Pool, sizes: Option<PoolSizes>) -> String {
    let mut writer = Writer::new();
    writer.tag("pool").attribute("type", "dir").open();
    writer.text("name", &pool.name);
    writer.text("uuid", pool.uuid);
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
    writer.text("path", pool.target.display());
    format_permissions(&mut writer, pool.permissions);
    writer.close("target");
    writer.close("pool");
    writer.finish()
}
