//! The one node by which every machine has a block device.
//!
//! The locks of [`super::image_lock`] are on a node's inode, and a device may have several nodes: one that a
//! container was given, or that somebody made. Machines that have it by different ones would not see each
//! other's locks. So each has it by the node that the kernel itself keeps, which the usual links beneath
//! `/dev` lead to as well, and so do those that QEMU is told.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat, fcntl_getfl, fstat, major, minor};
use rustix::io::Errno;

use super::paths::resolve;

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

/// Why nothing can be bounded of what a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It leads to no block device. Why it does not is nobody's business: a client learns nothing from it of what is
    /// there that it may not see.
    #[error("no block device of the host's own is there")]
    NoDevice,
    /// The kernel bounds whole disks alone.
    #[error("it is a partition: only a whole disk's use is bounded")]
    Partition,
    /// The host has no room to look.
    #[error("{}", super::reason(*.0))]
    Host(Errno),
}

/// The major and minor number of the whole disk that `path` leads to, beneath `/dev` and by the nodes and links of the
/// file system that is mounted there alone: those are root's, and looking never waits for anything. In file systems
/// beneath it, as `/dev/shm`, anybody makes links. Nothing is opened but for its number.
///
/// # Errors
/// [`Unfit`].
pub fn number(path: &Path) -> Result<(u32, u32), Unfit> {
    let beneath = path.strip_prefix("/dev").map_err(|_| Unfit::NoDevice)?;
    let (major, minor) = number_beneath(Path::new("/dev"), beneath)?;
    match Path::new(&format!("/sys/dev/block/{major}:{minor}/partition")).exists() {
        true => Err(Unfit::Partition),
        false => Ok((major, minor)),
    }
}

fn number_beneath(directory: &Path, path: &Path) -> Result<(u32, u32), Unfit> {
    let unfit = |errno| match errno {
        Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOSYS | Errno::AGAIN => {
            Unfit::Host(errno)
        }
        _ => Unfit::NoDevice,
    };
    let look = OFlags::PATH | OFlags::CLOEXEC;
    let nodes = look | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let directory = rustix::fs::open(directory, nodes, Mode::empty()).map_err(unfit)?;
    let rules = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let found = resolve(directory.as_fd(), path, look, rules).map_err(unfit)?;
    let found = fstat(&found).map_err(unfit)?;
    match FileType::from_raw_mode(found.st_mode) {
        FileType::BlockDevice => Ok((major(found.st_rdev), minor(found.st_rdev))),
        _ => Err(Unfit::NoDevice),
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
    use std::os::unix::fs::symlink;

    use rustix::fs::{CWD, makedev, mknodat, open};

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

    #[test]
    fn a_device_is_found_by_the_links_to_its_node_and_by_none_that_lead_elsewhere() {
        let directory = tempfile::tempdir().unwrap();
        let (dev, outside) = (
            directory.path().join("dev"),
            directory.path().join("outside"),
        );
        std::fs::create_dir_all(dev.join("disk/by-id")).unwrap();
        std::fs::create_dir(dev.join("mapper")).unwrap();
        let mode = Mode::RUSR | Mode::WUSR;
        for node in [&dev.join("sda"), &outside] {
            let made = mknodat(CWD, node, FileType::BlockDevice, mode, makedev(7, 3));
            made.expect("a node of a device, which takes root");
        }
        std::fs::write(dev.join("file"), "").unwrap();
        for (link, to) in [
            ("disk/by-id/usual", "../../sda"),
            ("mapper/volume", "../sda"),
            ("above", "../outside"),
            ("absolute", outside.to_str().unwrap()),
            ("fd", "/proc/self/fd"),
            ("nowhere", "nothing"),
        ] {
            symlink(to, dev.join(link)).unwrap();
        }
        for path in ["sda", "disk/by-id/usual", "mapper/volume"] {
            assert_eq!(number_beneath(&dev, Path::new(path)), Ok((7, 3)), "{path}");
        }
        // All in the same words.
        for path in [
            "above", "absolute", "fd", "fd/0", "nowhere", "nothing", "file", "file/x", "mapper",
        ] {
            let found = number_beneath(&dev, Path::new(path));
            assert_eq!(found, Err(Unfit::NoDevice), "{path}");
        }
    }

    #[test]
    fn what_is_no_node_of_a_block_device_is_none() {
        assert_eq!(number(Path::new("/etc/passwd")), Err(Unfit::NoDevice));
        assert_eq!(number(Path::new("/dev/null")), Err(Unfit::NoDevice));
    }
}
