//! Disks: every file of each opened as it will be used, and locked against other machines.
//!
//! What an image says it builds upon is never read here: the definition states it, and the worker holds
//! the image to that.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use reeve_ipc::fd::FdTable;
use reeve_ipc::model::{Disk, DiskTarget, Layer};
use reeve_ipc::spec::{DiskSpec, LayerSpec, PciSlot};
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use super::PlanError;
use super::paths::{ImageAccess, PathError, PathPolicy, called};
use crate::host::block_device;
use crate::host::image_lock::{self, ImageLockError, ImageUse};
use crate::host::reason;

/// Why a disk cannot be had. One line: what failed, on what, what to do.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// A file cannot be opened.
    #[error(
        "cannot open the image {path} of disk '{disk}': {}{}",
        reason(*.errno),
        mend(*.errno, *.access),
        path = .path.display()
    )]
    Open {
        /// The disk.
        disk: DiskTarget,
        /// The file.
        path: PathBuf,
        /// Why.
        errno: Errno,
        /// How it was to be opened.
        access: ImageAccess,
    },
    /// Neither a file nor a block device.
    #[error(
        "the image {path} of disk '{disk}' is {kind}, not a file or block device",
        path = .path.display()
    )]
    NotAnImage {
        /// The disk.
        disk: DiskTarget,
        /// The path.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// Another machine has it, or its file system has no locks.
    #[error(
        "cannot use the image {path} of disk '{disk}': {error}; 'fuser -v {path}' shows who has it",
        path = .path.display()
    )]
    Locked {
        /// The disk.
        disk: DiskTarget,
        /// The file.
        path: PathBuf,
        /// Why.
        error: ImageLockError,
    },
}

impl DiskError {
    /// Whether the definition would have to change.
    pub(crate) const fn is_of_definition(&self) -> bool {
        !matches!(self, Self::Locked { .. })
    }
}

/// What to do, for the end of a line.
const fn mend(errno: Errno, access: ImageAccess) -> &'static str {
    match errno {
        Errno::INVAL if access.direct => {
            "; its file system cannot do without the page cache: set cache to writeback"
        }
        Errno::ROFS | Errno::ACCESS | Errno::PERM if access.write => {
            "; a disk that is read-only needs no right to write"
        }
        _ => "",
    }
}

/// Opens and locks the files of a disk at its place on the bus.
pub(super) fn plan_disk(
    disk: &Disk,
    slot: PciSlot,
    paths: &dyn PathPolicy,
    fds: &mut FdTable,
) -> Result<DiskSpec, PlanError> {
    let mut layers = Vec::new();
    for (depth, layer) in disk.layers().enumerate() {
        let access = ImageAccess {
            write: depth == 0 && !disk.read_only,
            direct: disk.cache.is_direct(),
        };
        let fd = open_layer(&disk.target, layer, paths, access)?;
        let fd = fds.push(fd)?;
        let format = layer.format;
        layers.push(LayerSpec { fd, format });
    }
    Ok(DiskSpec {
        slot,
        name: disk.target.as_str().to_owned(),
        layers,
        read_only: disk.read_only,
        cache: disk.cache,
        engine: disk.io,
        discard: disk.discard,
        serial: disk.serial.clone().unwrap_or_default(),
        queues: disk.queues,
        block_bytes: disk.block_size.into(),
        throttle: disk.throttle,
    })
}

/// Opens one file of a disk, and locks it.
fn open_layer(
    target: &DiskTarget,
    layer: &Layer,
    paths: &dyn PathPolicy,
    access: ImageAccess,
) -> Result<OwnedFd, PlanError> {
    let (disk, path) = (|| target.clone(), || layer.path.clone());
    let open = |errno| {
        PlanError::Disk(DiskError::Open {
            disk: disk(),
            path: path(),
            errno,
            access,
        })
    };
    let what = format!("image of disk '{target}'");
    let fd = paths
        .open_image(&what, &layer.path, access)
        .map_err(|error| match error {
            PathError::Os(errno) => open(errno),
            PathError::Forbidden(line) => PlanError::Forbidden(line),
        })?;
    let stat = rustix::fs::fstat(&fd).map_err(open)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    match kind {
        FileType::RegularFile | FileType::BlockDevice => {}
        kind => {
            return Err(PlanError::Disk(DiskError::NotAnImage {
                disk: disk(),
                path: path(),
                kind: called(kind),
            }));
        }
    }
    let used = match access.write {
        true => ImageUse::Write,
        false => ImageUse::Read,
    };
    let lock = |fd: &OwnedFd| {
        image_lock::lock(fd.as_fd(), used).map_err(|error| {
            PlanError::Disk(DiskError::Locked {
                disk: disk(),
                path: path(),
                error,
            })
        })
    };
    lock(&fd)?;
    let fd = match kind {
        FileType::BlockDevice => match block_device::open_kernels_node(&fd).map_err(open)? {
            // Whoever has it by another node is seen here.
            Some(node) => {
                lock(&node)?;
                node
            }
            None => fd,
        },
        _ => fd,
    };
    // It was there so that opening waits for nobody; io_uring would take it for every request's.
    let flags = rustix::fs::fcntl_getfl(&fd).map_err(open)?;
    rustix::fs::fcntl_setfl(&fd, flags - OFlags::NONBLOCK).map_err(open)?;
    Ok(fd)
}
