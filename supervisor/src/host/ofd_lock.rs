//! Locks on single bytes of a file that belong to an open file description (fcntl(2),
//! `F_OFD_SETLK`): they end with its last descriptor, however the process ends.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Takes the exclusive lock on byte `offset`, without waiting; whether it was free. A byte that the
/// same description holds already counts as free.
///
/// # Errors
/// What the kernel says, other than that somebody holds it.
pub fn try_lock_byte(file: impl AsFd, offset: u64) -> io::Result<bool> {
    try_set(file, offset, libc::F_WRLCK)
}

/// Takes a shared lock on byte `offset` of a file that is open for reading, without waiting; whether
/// nobody holds it exclusively.
///
/// # Errors
/// As for [`try_lock_byte`].
pub fn try_share_byte(file: impl AsFd, offset: u64) -> io::Result<bool> {
    try_set(file, offset, libc::F_RDLCK)
}

/// Whether another open file description, or a process, holds a lock of any kind on byte `offset`.
///
/// # Errors
/// What the kernel says.
pub fn is_held_by_others(file: impl AsFd, offset: u64) -> io::Result<bool> {
    let mut lock = lock(offset, libc::F_WRLCK)?;
    fcntl(file, libc::F_OFD_GETLK, &mut lock)?;
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}

fn try_set(file: impl AsFd, offset: u64, kind: i32) -> io::Result<bool> {
    match fcntl(file, libc::F_OFD_SETLK, &mut lock(offset, kind)?) {
        Ok(()) => Ok(true),
        Err(error) => match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EACCES) => Ok(false),
            _ => Err(error),
        },
    }
}

/// Gives the lock on byte `offset` back.
///
/// # Errors
/// What the kernel says.
pub fn unlock_byte(file: impl AsFd, offset: u64) -> io::Result<()> {
    fcntl(file, libc::F_OFD_SETLK, &mut lock(offset, libc::F_UNLCK)?)
}

fn lock(offset: u64, kind: i32) -> io::Result<libc::flock> {
    let invalid = |_| io::Error::from(io::ErrorKind::InvalidInput);
    Ok(libc::flock {
        l_type: i16::try_from(kind).map_err(invalid)?,
        l_whence: 0, // SEEK_SET
        l_start: i64::try_from(offset).map_err(invalid)?,
        l_len: 1,
        l_pid: 0, // required to be 0 for these commands
    })
}

#[expect(unsafe_code, reason = "rustix has no locks of open file descriptions")]
fn fcntl(file: impl AsFd, command: i32, lock: &mut libc::flock) -> io::Result<()> {
    let number = file.as_fd().as_raw_fd();
    // SAFETY: F_OFD_SETLK and F_OFD_GETLK, which are all that is asked for here, read and write one
    // `struct flock` through the pointer during the call, which is borrowed for its length; so is the
    // descriptor.
    let result = unsafe { libc::fcntl(number, command, &raw mut *lock) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
