//! The kernel reads and writes guest memory in place: lists of `iovec`, and `preadv` and `pwritev` on
//! them. With [`uring`](super::uring) the one place of the block device that is not safe Rust.
//!
//! No Rust reference to guest memory is made: the guest may change it at any instant. The addresses
//! come from `vm_memory`, which checked them against the mapping.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::run::{Run, unplugged};
use crate::memory::GuestRam;

/// The most entries of one list that the kernel takes (`UIO_MAXIOV`).
const MAX_VECTORS: usize = 1024;

/// A list of pieces of guest memory. Reused, so that a transfer allocates nothing.
#[derive(Default)]
pub(super) struct Vectors(Vec<libc::iovec>);

#[expect(
    unsafe_code,
    reason = "the list is addresses, which belong to no thread"
)]
// SAFETY: nothing here follows the addresses; those who hand them to the kernel hold the memory.
unsafe impl Send for Vectors {}

impl fmt::Debug for Vectors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Vectors").field(&self.0.len()).finish()
    }
}

impl Vectors {
    /// Lists the pieces of `run`, as many as the kernel takes at once: what is left is moved
    /// afterwards, like the rest of any short transfer.
    ///
    /// # Errors
    /// `EFAULT` where none of it is there any more.
    pub(super) fn list(&mut self, ram: &GuestRam, run: Run<'_>) -> io::Result<()> {
        self.0.clear();
        let pieces = run.slices(ram).take(MAX_VECTORS);
        self.0.extend(pieces.map(|slice| libc::iovec {
            iov_base: slice.ptr_guard_mut().as_ptr().cast(),
            iov_len: slice.len(),
        }));
        match self.0.is_empty() && run.len > 0 {
            true => Err(unplugged()),
            false => Ok(()),
        }
    }

    /// The list as the kernel takes it.
    pub(super) fn as_ptr(&self) -> *const libc::iovec {
        self.0.as_ptr()
    }

    /// Its entries: at most [`MAX_VECTORS`].
    pub(super) fn len(&self) -> u16 {
        u16::try_from(self.0.len()).unwrap_or_default()
    }
}

/// A file offset as the kernel takes it.
///
/// # Errors
/// There is none so large.
pub(super) fn file_offset(offset: u64) -> io::Result<i64> {
    i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Reads from byte `offset` of `fd` into `run`, once; gives how many bytes there were.
///
/// # Errors
/// The kernel's.
#[expect(unsafe_code, reason = "a system call on guest memory")]
pub(super) fn read(
    fd: BorrowedFd<'_>,
    ram: &GuestRam,
    run: Run<'_>,
    offset: u64,
    vectors: &mut Vectors,
) -> io::Result<u64> {
    let offset = file_offset(offset)?;
    vectors.list(ram, run)?;
    let (list, len) = (vectors.as_ptr(), vectors.len().into());
    // SAFETY: the list has `len` entries, each in guest memory, which `ram` keeps mapped during the
    // call and which only volatile accesses touch.
    let got = unsafe { libc::preadv(fd.as_raw_fd(), list, len, offset) };
    u64::try_from(got).map_err(|_| io::Error::last_os_error())
}

/// Writes `run` to byte `offset` of `fd`, once; gives how many bytes were taken.
///
/// # Errors
/// The kernel's.
#[expect(unsafe_code, reason = "a system call on guest memory")]
pub(super) fn write(
    fd: BorrowedFd<'_>,
    ram: &GuestRam,
    run: Run<'_>,
    offset: u64,
    vectors: &mut Vectors,
) -> io::Result<u64> {
    let offset = file_offset(offset)?;
    vectors.list(ram, run)?;
    let (list, len) = (vectors.as_ptr(), vectors.len().into());
    // SAFETY: as in `read`; the kernel only reads the memory.
    let got = unsafe { libc::pwritev(fd.as_raw_fd(), list, len, offset) };
    u64::try_from(got).map_err(|_| io::Error::last_os_error())
}
