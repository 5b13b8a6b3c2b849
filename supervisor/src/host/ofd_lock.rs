//! Locks on single bytes of a file that belong to an open file description (fcntl(2),
//! `F_OFD_SETLK`): they end with its last descriptor, however the process ends.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Takes the exclusive lock on byte `offset`, without waiting; whether it was free. A byte that the
/// same description holds already counts as free.
///
/// # Errors
/// What the kernel says, other than that somebody holds it.
pub fn try_lock_byte(file: &File, offset: u64) -> io::Result<bool> {
    match set(file, offset, libc::F_WRLCK) {
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
pub fn unlock_byte(file: &File, offset: u64) -> io::Result<()> {
    set(file, offset, libc::F_UNLCK)
}

#[expect(unsafe_code, reason = "rustix has no locks of open file descriptions")]
fn set(file: &File, offset: u64, kind: i32) -> io::Result<()> {
    let invalid = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let lock = libc::flock {
        l_type: i16::try_from(kind).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?,
        l_whence: 0, // SEEK_SET
        l_start: i64::try_from(offset).map_err(invalid)?,
        l_len: 1,
        l_pid: 0, // required to be 0 for these commands
    };
    // SAFETY: F_OFD_SETLK reads one `struct flock` through the pointer during the call, which
    // `lock` is; the descriptor is open for the length of the borrow.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
