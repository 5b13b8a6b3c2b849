//! Files that are there whole or not at all: a temporary, renamed.
//!
//! Temporaries are named `.<name>.<number>.tmp`; whoever finds one that is not its own, at a start
//! with the directory's lock held, removes it.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::error::StoreError;

/// How a file is put in place.
#[derive(Debug, Clone, Copy)]
pub(super) struct How {
    /// Wait until it would survive the host.
    pub(super) durable: bool,
    /// Refuse with `EEXIST` when there is a file of this name.
    pub(super) only_new: bool,
}

/// What was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reached {
    Temporary,
    Renamed,
}

/// Puts `bytes` under `name` into the directory. On an error the file that was there stands, unless
/// [`Reached::Renamed`] was told: then only its directory could not be synchronised.
pub(super) fn replace(
    directory: BorrowedFd<'_>,
    path: &Path,
    name: &str,
    bytes: &[u8],
    how: How,
    mut reached: impl FnMut(Reached),
) -> Result<(), StoreError> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let temporary = format!(".{name}.{number}.tmp");
    let target = path.join(name);
    let result = write_temporary(directory, &temporary, bytes, how.durable)
        .map_err(StoreError::io("write", &target))
        .and_then(|()| {
            reached(Reached::Temporary);
            rename(directory, &temporary, name, how.only_new)
                .map_err(StoreError::io("put in place", &target))
        });
    if let Err(error) = result {
        let _ = rustix::fs::unlinkat(directory, &temporary, AtFlags::empty());
        return Err(error);
    }
    reached(Reached::Renamed);
    if how.durable {
        synchronise(directory, path)?;
    }
    Ok(())
}

/// Waits until the directory's names would survive the host.
pub(super) fn synchronise(directory: BorrowedFd<'_>, path: &Path) -> Result<(), StoreError> {
    rustix::fs::fsync(directory).map_err(StoreError::io("synchronise", path))
}

fn write_temporary(
    directory: BorrowedFd<'_>,
    name: &str,
    bytes: &[u8],
    durable: bool,
) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mode = Mode::from_raw_mode(0o600);
    let file = match rustix::fs::openat(directory, name, flags, mode) {
        // The directory's lock is ours: it is of a supervisor that died.
        Err(Errno::EXIST) => {
            rustix::fs::unlinkat(directory, name, AtFlags::empty())?;
            rustix::fs::openat(directory, name, flags, mode)?
        }
        opened => opened?,
    };
    let mut rest = bytes;
    while !rest.is_empty() {
        let written = rustix::io::retry_on_intr(|| rustix::io::write(&file, rest))?;
        rest = rest.get(written..).unwrap_or_default();
    }
    if durable {
        rustix::fs::fsync(&file)?;
    }
    Ok(())
}

fn rename(directory: BorrowedFd<'_>, from: &str, to: &str, only_new: bool) -> Result<(), Errno> {
    if !only_new {
        return rustix::fs::renameat(directory, from, directory, to);
    }
    match rustix::fs::renameat_with(directory, from, directory, to, RenameFlags::NOREPLACE) {
        // A file system without it.
        Err(Errno::INVAL | Errno::NOSYS) => {
            if exists(directory, to) {
                return Err(Errno::EXIST);
            }
            rustix::fs::renameat(directory, from, directory, to)
        }
        renamed => renamed,
    }
}

/// Whether the directory has an entry of this name.
pub(super) fn exists(directory: BorrowedFd<'_>, name: &str) -> bool {
    rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

/// Opens a directory for what is done in it.
pub(super) fn open_directory(path: &Path) -> Result<OwnedFd, StoreError> {
    rustix::fs::open(
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(StoreError::io("open", path))
}

/// The names in a directory in their order, without `.` and `..`. Those that are not UTF-8 are
/// nobody's here, and left out.
pub(super) fn names(directory: BorrowedFd<'_>, path: &Path) -> Result<Vec<String>, StoreError> {
    let refuse = || StoreError::io("list", path);
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory).map_err(refuse())? {
        let entry = entry.map_err(refuse())?;
        match entry.file_name().to_str() {
            Ok("." | "..") | Err(_) => {}
            Ok(name) => names.push(name.to_owned()),
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Whether this is the name of a temporary.
pub(super) fn is_temporary(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(".tmp")
}

/// Removes a temporary that was left over.
pub(super) fn sweep(directory: BorrowedFd<'_>, name: &str) {
    if let Err(errno) = rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        tracing::warn!(name, error = %errno, "a left-over temporary could not be removed");
    }
}

/// Reads a regular file of at most `limit` bytes; the reason otherwise follows its name.
pub(super) fn read(
    directory: BorrowedFd<'_>,
    name: &str,
    limit: usize,
) -> Result<Vec<u8>, ReadError> {
    // A pipe of this name must not hold the supervisor up.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = rustix::fs::openat(directory, name, flags | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| match errno {
            Errno::LOOP => ReadError::NotAFile,
            errno => ReadError::Io(errno),
        })?;
    let stat = rustix::fs::fstat(file.as_fd()).map_err(ReadError::Io)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(ReadError::NotAFile);
    }
    let limit = u64::try_from(limit).unwrap_or(u64::MAX);
    let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
    if size > limit {
        return Err(ReadError::TooLarge { size, limit });
    }
    let mut bytes = Vec::new();
    std::fs::File::from(file)
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(|error| ReadError::Io(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
    Ok(bytes)
}

/// Why a file was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ReadError {
    #[error("it is no regular file")]
    NotAFile,
    #[error("it has {size} bytes, and none may have more than {limit}")]
    TooLarge { size: u64, limit: u64 },
    #[error("it cannot be read: {}", crate::host::reason(*.0))]
    Io(Errno),
}
