//! Disks: every file of each opened as it will be used, and locked against other machines.
//!
//! What an image builds upon the definition states, or a process that reads the image's header does
//! ([`super::chain`]); the worker holds the image to that.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use reeve_ipc::fd::FdTable;
use reeve_ipc::model::{Disk, DiskTarget, Layer};
use reeve_ipc::spec::{DiskSpec, LayerSpec, PciSlot};
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use super::chain::{Chain, ChainError};
use super::paths::{ImageAccess, PathError, PathPolicy, called};
use super::{Files, PlanError};
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
    /// What an image builds upon is not known, or cannot be used.
    #[error("cannot tell what the image {path} of disk '{disk}' builds upon: {error}", path = .path.display())]
    Chain {
        /// The disk.
        disk: DiskTarget,
        /// The file.
        path: PathBuf,
        /// Why.
        error: ChainError,
    },
    /// No image, of a disk that keeps it.
    #[error("disk '{disk}' has no image: name one, or define it with removable = true")]
    Absent {
        /// The disk.
        disk: DiskTarget,
    },
}

impl DiskError {
    /// Whether the definition would have to change.
    pub(crate) const fn is_of_definition(&self) -> bool {
        match self {
            // The file may yet come.
            Self::Locked { .. } | Self::Open { .. } => false,
            Self::Chain { error, .. } => error.is_of_definition(),
            _ => true,
        }
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
    files: Files<'_>,
    fds: &mut FdTable,
) -> Result<DiskSpec, PlanError> {
    if disk.image.is_none() && !disk.removable {
        let disk = disk.target.clone();
        return Err(PlanError::Disk(DiskError::Absent { disk }));
    }
    let layers = plan_layers(disk, files, fds)?;
    Ok(DiskSpec {
        slot,
        name: disk.target.as_str().to_owned(),
        layers,
        read_only: disk.read_only,
        cache: disk.cache,
        engine: disk.io,
        discard: disk.discard,
        serial: disk.found_serial(),
        queues: disk.queues,
        block_bytes: disk.block_size.into(),
        throttle: disk.throttle,
    })
}

/// Opens and locks the files of a disk: its image, what the definition or the image says that builds upon,
/// and so on.
pub(super) fn plan_layers(
    disk: &Disk,
    files: Files<'_>,
    fds: &mut FdTable,
) -> Result<Vec<LayerSpec>, PlanError> {
    let direct = disk.cache.is_direct();
    let mut chain = Chain::default();
    let mut layers = Vec::new();
    let mut stated = disk.layers().cloned();
    let mut next = stated.next();
    while let Some(layer) = next.take() {
        let access = ImageAccess {
            write: layers.is_empty() && !disk.read_only,
            direct,
        };
        let what = match layers.is_empty() || !disk.asks_image() {
            true => format!("image of disk '{}'", disk.target),
            false => format!("backing file of disk '{}'", disk.target),
        };
        let failed = |error| {
            PlanError::Disk(DiskError::Chain {
                disk: disk.target.clone(),
                path: layer.path.clone(),
                error,
            })
        };
        // Before it is locked: an image that builds upon itself is not somebody else's.
        let enter = |fd: BorrowedFd<'_>| match disk.asks_image() {
            true => chain.enter(fd).map_err(failed),
            false => Ok(()),
        };
        let fd = open_layer(&disk.target, &layer, &what, files.paths, access, enter)?;
        next = match disk.asks_image() {
            false => stated.next(),
            true => {
                let below = chain.below(&layer, fd.as_fd(), files.images);
                below.map_err(failed)?
            }
        };
        let fd = fds.push(fd)?;
        let format = layer.format;
        layers.push(LayerSpec { fd, format });
    }
    Ok(layers)
}

/// Opens one file of a disk, and locks it once `enter` has looked at it. `what` says which, for refusals.
fn open_layer(
    target: &DiskTarget,
    layer: &Layer,
    what: &str,
    paths: &dyn PathPolicy,
    access: ImageAccess,
    enter: impl FnOnce(BorrowedFd<'_>) -> Result<(), PlanError>,
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
    let fd = paths
        .open_image(what, &layer.path, access)
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
    enter(fd.as_fd())?;
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
    // Whoever removed it had it locked until it was gone: what is written to it would be lost.
    if kind == FileType::RegularFile && rustix::fs::fstat(&fd).map_err(open)?.st_nlink == 0 {
        return Err(open(rustix::io::Errno::NOENT));
    }
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

#[cfg(test)]
mod tests {
    use reeve_ipc::spec::DiskFormat;

    use super::*;
    use crate::domain::plan::AnyPath;

    #[test]
    fn a_file_that_is_removed_before_it_is_locked_is_no_disk() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk.raw");
        std::fs::write(&path, [0; 512]).unwrap();
        let layer = Layer {
            path: path.clone(),
            format: DiskFormat::Raw,
        };
        let target: DiskTarget = "vda".parse().unwrap();
        let access = ImageAccess {
            write: true,
            direct: false,
        };
        let open = |enter: &dyn Fn()| {
            let enter = |_: BorrowedFd<'_>| {
                enter();
                Ok(())
            };
            open_layer(&target, &layer, "image", &AnyPath, access, enter)
        };
        drop(open(&|| {}).unwrap());
        // As whoever deletes a volume does, once it has it open.
        let error = open(&|| std::fs::remove_file(&path).unwrap()).unwrap_err();
        let PlanError::Disk(DiskError::Open { errno, .. }) = error else {
            panic!("{error}");
        };
        assert_eq!(errno, rustix::io::Errno::NOENT);
    }
}
