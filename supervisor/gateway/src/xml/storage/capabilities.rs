//! `<storagepoolCapabilities>`: which pools there can be, and what can be in them.

use reeve_ipc::spec::DiskFormat;

use super::super::write::Writer;

/// The types that libvirt has, and there are not here.
const NOT_HERE: [&str; 13] = [
    "fs",
    "netfs",
    "logical",
    "disk",
    "iscsi",
    "iscsi-direct",
    "scsi",
    "mpath",
    "rbd",
    "sheepdog",
    "gluster",
    "zfs",
    "vstorage",
];

/// Prints them.
#[must_use]
pub fn format() -> String {
    let mut writer = Writer::new();
    writer.tag("storagepoolCapabilities").open();
    let tag = writer.tag("pool").attribute("type", "dir");
    tag.attribute("supported", "yes").open();
    writer.tag("volOptions").open();
    let raw = DiskFormat::Raw.word();
    writer.tag("defaultFormat").attribute("type", raw).empty();
    let tag = writer.tag("enum");
    tag.attribute("name", "targetFormatType").open();
    for format in [DiskFormat::Raw, DiskFormat::Qcow2] {
        writer.text("value", format.word());
    }
    writer.close("enum");
    writer.close("volOptions");
    writer.close("pool");
    for kind in NOT_HERE {
        let tag = writer.tag("pool").attribute("type", kind);
        tag.attribute("supported", "no").empty();
    }
    writer.close("storagepoolCapabilities");
    writer.finish()
}
