//! Locks that keep two machines from writing one image, understood by QEMU.
//!
//! QEMU (`block/file-posix.c`) says what it does with a file by shared locks on single bytes, which
//! belong to the open file description: one byte for each thing it may do, and one for each thing that
//! nobody else may do meanwhile. Whoever comes takes its own locks first, then looks whether anyone
//! else's forbid them; of two that come at once both may fail, and never both succeed. Since the locks
//! are on the description, they go with the descriptor to a worker, and end with its last copy: the
//! supervisor keeps nothing, and a detached disk is free when the worker lets go of it.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::ofd_lock::{is_held_by_others, try_share_byte, unlock_byte};

/// Byte of the first thing that is done (`RAW_LOCK_PERM_BASE`).
const DOES: u64 = 100;
/// Byte of the first thing that nobody else may do (`RAW_LOCK_SHARED_BASE`).
const FORBIDS: u64 = 200;

/// How often a lock is tried that somebody holds. Whoever let go of an image may have copies of its
/// descriptor for a moment, in a process that is being made and has not executed its program.
const TRIES: u32 = 11;
/// How long each try waits for the next.
const PAUSE: Duration = Duration::from_millis(10);

/// What may be done with an image (QEMU `BLK_PERM_*`); the discriminant is the offset from either byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    /// Reading what nobody changes under the reader.
    ConsistentRead = 0,
    /// Writing.
    Write = 1,
    /// Changing the size.
    Resize = 3,
}

impl Act {
    const fn of(self, base: u64) -> u64 {
        base + self as u64
    }

    /// As QEMU's own messages call it.
    const fn name(self) -> &'static str {
        match self {
            Self::ConsistentRead => "consistent read",
            Self::Write => "write",
            Self::Resize => "resize",
        }
    }
}

/// What a machine does with an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageUse {
    /// Reads it, and nobody may change it: a read-only disk, or what another image builds upon.
    Read,
    /// Reads and writes it, and nobody else may.
    Write,
}

impl ImageUse {
    const fn does(self) -> &'static [Act] {
        match self {
            Self::Read => &[Act::ConsistentRead],
            Self::Write => &[Act::ConsistentRead, Act::Write, Act::Resize],
        }
    }

    const fn forbids(self) -> &'static [Act] {
        &[Act::Write, Act::Resize]
    }
}

/// Why an image is not locked.
#[derive(Debug, thiserror::Error)]
pub enum ImageLockError {
    /// Somebody forbids what this use does.
    #[error("it is in use elsewhere, where nobody else may have '{0}'")]
    Forbidden(&'static str),
    /// Somebody does what this use forbids.
    #[error("it is in use elsewhere, with '{0}'")]
    Done(&'static str),
    /// Somebody holds a byte in a way that QEMU never does.
    #[error("another program holds a lock on it that no machine does")]
    Foreign,
    /// The file system has no such locks.
    #[error("its file system refuses locks, without which two machines could write it: {0}")]
    Os(#[source] io::Error),
}

/// Locks the file for `what`. It must be open for reading. With an error nothing stays locked; one that says
/// that the image is in use took a tenth of a second.
///
/// # Errors
/// [`ImageLockError`].
pub fn lock(file: BorrowedFd<'_>, what: ImageUse) -> Result<(), ImageLockError> {
    let mut tries = TRIES;
    loop {
        match try_lock(file, what) {
            Err(ImageLockError::Os(error)) => return Err(ImageLockError::Os(error)),
            Err(in_use) => {
                for byte in bytes(what) {
                    unlock_byte(file, byte).map_err(ImageLockError::Os)?;
                }
                tries -= 1;
                if tries == 0 {
                    return Err(in_use);
                }
                std::thread::sleep(PAUSE);
            }
            Ok(()) => return Ok(()),
        }
    }
}

/// Every byte that a use locks.
fn bytes(what: ImageUse) -> impl Iterator<Item = u64> {
    let mine = what.does().iter().map(|act| act.of(DOES));
    let theirs = what.forbids().iter().map(|act| act.of(FORBIDS));
    mine.chain(theirs)
}

fn try_lock(file: BorrowedFd<'_>, what: ImageUse) -> Result<(), ImageLockError> {
    for byte in bytes(what) {
        if !try_share_byte(file, byte).map_err(ImageLockError::Os)? {
            return Err(ImageLockError::Foreign);
        }
    }
    let held = |byte| is_held_by_others(file, byte).map_err(ImageLockError::Os);
    for act in what.does() {
        if held(act.of(FORBIDS))? {
            return Err(ImageLockError::Forbidden(act.name()));
        }
    }
    for act in what.forbids() {
        if held(act.of(DOES))? {
            return Err(ImageLockError::Done(act.name()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
