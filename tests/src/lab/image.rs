//! Disk images: an ext4 file system filled from a directory by `mke2fs -d`, without root and without
//! mounting. Debian's cloud kernel has ext4 built in, and pages are read only when they are used,
//! which matters under emulation (copying 60 MB into the guest takes 2 s there).

use std::fs::File;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::packages::run;

/// Every disk has this size, whatever is in it, so that a saved machine finds the size it knows.
/// Nearly all of it is a hole.
const DISK_BYTES: u64 = 8 << 30;

/// Makes `image` from the tree below `from`, to be read only.
pub fn build(from: &Path, image: &Path) -> Result<()> {
    let mebibytes = (tree_bytes(from)? >> 20) * 9 / 8 + 16;
    let options = [
        "-E",
        "root_owner=0:0,lazy_itable_init=1",
        "-O",
        "^has_journal,^metadata_csum,^resize_inode",
    ];
    mke2fs(from, image, mebibytes, &options)?;
    File::options()
        .write(true)
        .open(image)?
        .set_len(DISK_BYTES)?;
    Ok(())
}

/// Makes `image`, a disk of `mebibytes` with a file system as an installer makes it, from the tree
/// below `from`. Nothing is left for a kernel to do to it in the background.
pub fn disk(from: &Path, image: &Path, mebibytes: u64) -> Result<()> {
    let options = [
        "-E",
        "root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0",
        "-O",
        "has_journal,metadata_csum",
        "-J",
        "size=16",
    ];
    mke2fs(from, image, mebibytes, &options)
}

fn mke2fs(from: &Path, image: &Path, mebibytes: u64, options: &[&str]) -> Result<()> {
    run(Command::new("mke2fs")
        .env("PATH", with_system_directories())
        .args(["-q", "-t", "ext4", "-m", "0"])
        .args(options)
        .arg("-d")
        .arg(from)
        .arg(image)
        .arg(format!("{mebibytes}M")))?;
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

/// The search path with what lies outside an ordinary user's: mke2fs and others.
pub(super) fn with_system_directories() -> String {
    format!(
        "{}:/usr/sbin:/sbin",
        std::env::var("PATH").unwrap_or_default()
    )
}
