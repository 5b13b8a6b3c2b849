//! The one node by which every machine has a block device.
//!
//! The locks of [`super::image_lock`] are on a node's inode, and a device may have several nodes: one that a
//! container was given, or that somebody made. Machines that have it by different ones would not see each
//! other's locks. So each has it by the node that the kernel itself keeps, which the usual links beneath
//! `/dev` lead to as well, and so do those that QEMU is told.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, Stat, fcntl_getfl, fstat, major, minor};
use rustix::io::Errno;

/// Opens the device again by the kernel's own node, in the same way; `None` where `opened` is that node,
/// or it cannot be had: there is none where the supervisor runs, or it may not be opened.
///
/// # Errors
/// `opened` is no open file of any kind.
pub fn open_kernels_node(opened: &OwnedFd) -> Result<Option<OwnedFd>, Errno> {
    let (is, flags) = (fstat(opened)?, fcntl_getfl(opened)?);
    let Some(path) = kernels_node(&is) else {
        return Ok(None);
    };
    let flags = flags & (OFlags::RWMODE | OFlags::DIRECT);
    let flags = flags | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW;
    let Ok(node) = rustix::fs::open(&path, flags, Mode::empty()) else {
        return Ok(None);
    };
    let found = fstat(&node)?;
    let same_device = FileType::from_raw_mode(found.st_mode) == FileType::BlockDevice
        && found.st_rdev == is.st_rdev;
    let same_node = (found.st_dev, found.st_ino) == (is.st_dev, is.st_ino);
    Ok(Some(node).filter(|_| same_device && !same_node))
}

/// The major and minor number of the block device that `path` leads to. Nothing is opened.
///
/// # Errors
/// It leads nowhere, or to something else ([`Errno::NOTBLK`]).
pub fn number(path: &Path) -> Result<(u32, u32), Errno> {
    let found = rustix::fs::stat(path)?;
    match FileType::from_raw_mode(found.st_mode) {
        FileType::BlockDevice => Ok((major(found.st_rdev), minor(found.st_rdev))),
        _ => Err(Errno::NOTBLK),
    }
}

/// What the kernel calls the device beneath `/dev`.
fn kernels_node(device: &Stat) -> Option<PathBuf> {
    let (major, minor) = (major(device.st_rdev), minor(device.st_rdev));
    let facts = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/uevent")).ok()?;
    let name = facts
        .lines()
        .find_map(|line| line.strip_prefix("DEVNAME="))?;
    Some(Path::new("/dev").join(name))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::fs::{CWD, mknodat, open};

    use super::*;
    use crate::host::image_lock::{self, ImageLockError, ImageUse};

    /// A device that can be read.
    fn device() -> OwnedFd {
        let devices = std::fs::read_dir("/sys/dev/block").unwrap();
        let found = devices.flatten().find_map(|entry| {
            let facts = std::fs::read_to_string(entry.path().join("uevent")).ok()?;
            let name = facts.lines().find_map(|l| l.strip_prefix("DEVNAME="))?;
            let path = Path::new("/dev").join(name);
            open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()
        });
        found.expect("a block device that may be read, which takes root or the group 'disk' and a disk or loop device")
    }

    /// Another node of the device.
    fn other_node(directory: &Path, device: &OwnedFd) -> OwnedFd {
        let path = directory.join("disk");
        let number = fstat(device).unwrap().st_rdev;
        let mode = Mode::RUSR | Mode::WUSR;
        let made = mknodat(CWD, &path, FileType::BlockDevice, mode, number);
        made.expect("a node of a device, which takes root and a TMPDIR without 'nodev'");
        open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .expect("the node, in a TMPDIR without 'nodev'")
    }

    #[test]
    fn machines_that_have_a_device_by_two_nodes_do_not_both_get_it() {
        let directory = tempfile::tempdir().unwrap();
        let first = device();
        let second = other_node(directory.path(), &first);
        image_lock::lock(first.as_fd(), ImageUse::Write).unwrap();
        // By its own node it sees nothing of that.
        image_lock::lock(second.as_fd(), ImageUse::Write).unwrap();
        let node = open_kernels_node(&second).unwrap().unwrap();
        let refused = image_lock::lock(node.as_fd(), ImageUse::Write).unwrap_err();
        assert!(matches!(refused, ImageLockError::Forbidden("write")));
        drop(first);
        let node = open_kernels_node(&second).unwrap().unwrap();
        image_lock::lock(node.as_fd(), ImageUse::Write).unwrap();
    }

    #[test]
    fn a_device_by_the_kernels_own_node_is_left_as_it_is() {
        let node = device();
        assert!(open_kernels_node(&node).unwrap().is_none());
    }

    #[test]
    fn what_is_no_device_has_no_node() {
        let file = tempfile::tempfile().unwrap();
        assert!(open_kernels_node(&file.into()).unwrap().is_none());
    }
}
