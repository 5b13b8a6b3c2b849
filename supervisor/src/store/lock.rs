//! One supervisor a directory: an exclusive lock on the file `lock` in it.
//!
//! The lock is the kernel's (flock(2)): it ends with the process, however that ends. The file stays.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::error::StoreError;

const NAME: &str = "lock";
/// A process that was just killed holds its files for a moment more.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(10);

/// Held while it lives.
#[derive(Debug)]
pub(super) struct InstanceLock {
    _file: OwnedFd,
}

impl InstanceLock {
    /// Takes the lock of the directory `directory`, which `path` names, and writes our pid into it.
    pub(super) fn take(directory: BorrowedFd<'_>, path: &Path) -> Result<Self, StoreError> {
        let name = path.join(NAME);
        let flags = OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let create = flags | OFlags::RDWR | OFlags::CREATE;
        let file = match rustix::fs::openat(directory, NAME, create, Mode::from_raw_mode(0o600)) {
            // A disk that went read-only under running domains: they are still to be taken over.
            Err(Errno::ROFS) => {
                rustix::fs::openat(directory, NAME, flags | OFlags::RDONLY, Mode::empty())
            }
            opened => opened,
        }
        .map_err(StoreError::io("open", &name))?;
        for attempt in 1.. {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) if attempt < TRIES => std::thread::sleep(PAUSE),
                Err(Errno::WOULDBLOCK) => {
                    return Err(StoreError::Held {
                        path: path.to_owned(),
                        pid: read_pid(&file),
                    });
                }
                Err(errno) => return Err(StoreError::io("lock", &name)(errno)),
            }
        }
        // For the other's error message only: a full disk is no reason not to start.
        let pid = format!("{}\n", std::process::id());
        let _ = rustix::fs::ftruncate(&file, 0);
        let _ = rustix::io::pwrite(&file, pid.as_bytes(), 0);
        Ok(Self { _file: file })
    }
}

fn read_pid(file: &OwnedFd) -> Option<u32> {
    let mut text = [0_u8; 16];
    let length = rustix::io::pread(file, &mut text, 0).ok()?;
    std::str::from_utf8(text.get(..length)?)
        .ok()?
        .trim()
        .parse()
        .ok()
}
