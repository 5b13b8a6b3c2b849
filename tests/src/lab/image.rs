//! Read-only disk images: an ext4 file system filled from a directory by `mke2fs -d`, without root
//! and without mounting. Debian's cloud kernel has ext4 built in, and pages are read only when they
//! are used, which matters under emulation (copying 60 MB into the guest takes 2 s there).

use std::fs::File;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::packages::run;

/// Every disk has this size, whatever is in it, so that a saved machine finds the size it knows.
/// Nearly all of it is a hole.
const DISK_BYTES: u64 = 8 << 30;

/// Makes `image` from the tree below `from`.
pub fn build(from: &Path, image: &Path) -> Result<()> {
    let mebibytes = (tree_bytes(from)? >> 20) * 9 / 8 + 16;
    run(Command::new("mke2fs")
        .env("PATH", with_system_directories())
        .args([
            "-q",
            "-t",
            "ext4",
            "-m",
            "0",
            "-E",
            "root_owner=0:0,lazy_itable_init=1",
        ])
        .args(["-O", "^has_journal,^metadata_csum,^resize_inode", "-d"])
        .arg(from)
        .arg(image)
        .arg(format!("{mebibytes}M")))?;
    File::options()
        .write(true)
        .open(image)?
        .set_len(DISK_BYTES)?;
    Ok(())
}

fn tree_bytes(directory: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        // Every file takes an inode and a part of a block more than its size.
        bytes += 4096 + metadata.len();
        if metadata.is_dir() {
            bytes += tree_bytes(&entry.path())?;
        }
    }
    Ok(bytes)
}

/// mke2fs lies outside an ordinary user's search path.
fn with_system_directories() -> String {
    format!(
        "{}:/usr/sbin:/sbin",
        std::env::var("PATH").unwrap_or_default()
    )
}
