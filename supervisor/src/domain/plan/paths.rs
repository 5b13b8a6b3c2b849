//! Who opens what a definition names.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::host::reason;
use crate::host::sockets::Place;

/// How an image of a disk is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageAccess {
    /// For writing too.
    pub write: bool,
    /// Past the page cache (`O_DIRECT`).
    pub direct: bool,
}

impl ImageAccess {
    pub(crate) fn flags(self) -> OFlags {
        let access = match self.write {
            true => OFlags::RDWR,
            false => OFlags::RDONLY,
        };
        match self.direct {
            true => access | OFlags::DIRECT,
            false => access,
        }
    }
}

/// Opens the files that a definition names: as its caller may, or only where a policy allows. What is
/// opened is close-on-exec, and nothing is waited for but the file system. `what` is what a path is for, as
/// "kernel" or "image of disk 'vda'".
pub trait PathPolicy: std::fmt::Debug + Send + Sync {
    /// Opens `path` for reading.
    ///
    /// # Errors
    /// [`PathError`].
    fn open_read(&self, what: &str, path: &Path) -> Result<OwnedFd, PathError>;

    /// Opens an image of a disk, for reading at least; with `O_NONBLOCK`, which whoever serves it clears.
    ///
    /// # Errors
    /// [`PathError`].
    fn open_image(
        &self,
        what: &str,
        path: &Path,
        access: ImageAccess,
    ) -> Result<OwnedFd, PathError>;

    /// Opens a directory that is to be shared, only looked at (`O_PATH`).
    ///
    /// # Errors
    /// [`PathError`].
    fn open_directory(&self, what: &str, path: &Path) -> Result<OwnedFd, PathError>;

    /// Opens the directory in which a socket is to be made at `path`.
    ///
    /// # Errors
    /// [`PathError`].
    fn place(&self, what: &str, path: &Path) -> Result<Place, PathError>;
}

/// Why a file was not opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// The kernel refused.
    #[error("{}", reason(*.0))]
    Os(Errno),
    /// The policy did: one line that names the file and says what would allow it.
    #[error("{0}")]
    Forbidden(String),
}

/// No policy but the kernel's: this process opens what it may.
#[derive(Debug, Clone, Copy)]
pub struct AnyPath;

impl AnyPath {
    fn open(path: &Path, access: OFlags) -> Result<OwnedFd, PathError> {
        let flags = access | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(PathError::Os)
    }
}

impl PathPolicy for AnyPath {
    fn open_read(&self, _: &str, path: &Path) -> Result<OwnedFd, PathError> {
        Self::open(path, OFlags::RDONLY)
    }

    fn open_image(&self, _: &str, path: &Path, access: ImageAccess) -> Result<OwnedFd, PathError> {
        // Looked at first: some devices do what they are for when they are opened. Who asked sees what it is.
        let itself = Self::open(path, OFlags::PATH)?;
        let kind = rustix::fs::fstat(&itself).map_err(PathError::Os)?.st_mode;
        match FileType::from_raw_mode(kind) {
            FileType::RegularFile | FileType::BlockDevice => Self::open(path, access.flags()),
            _ => Ok(itself),
        }
    }

    fn open_directory(&self, _: &str, path: &Path) -> Result<OwnedFd, PathError> {
        Self::open(path, OFlags::PATH | OFlags::DIRECTORY)
    }

    fn place(&self, _: &str, path: &Path) -> Result<Place, PathError> {
        let Some(name) = path.file_name() else {
            return Err(PathError::Os(Errno::ISDIR));
        };
        let parent = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        Ok(Place {
            directory: Self::open(parent, OFlags::PATH | OFlags::DIRECTORY)?,
            name: name.to_owned(),
        })
    }
}

/// What a file is, for messages.
pub(crate) const fn called(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "a file",
        FileType::Directory => "a directory",
        FileType::BlockDevice => "a block device",
        FileType::Fifo => "a pipe",
        _ => "a device or socket",
    }
}
