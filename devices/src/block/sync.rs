//! The blocking engine's transfers: each is done when the call returns. Used where the host has no
//! io_uring for us.

use std::io;
use std::os::fd::BorrowedFd;

use super::run::Run;
use super::vectored::{self, Vectors};
use crate::memory::GuestRam;

/// Moves data by `preadv` and `pwritev`.
#[derive(Debug, Default)]
pub(super) struct Blocking {
    vectors: Vectors,
}

impl Blocking {
    /// Moves bytes once, from or to byte `offset` of `fd`; gives how many were moved.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn transfer(
        &mut self,
        write: bool,
        fd: BorrowedFd<'_>,
        ram: &GuestRam,
        run: Run<'_>,
        offset: u64,
    ) -> io::Result<u64> {
        if write {
            vectored::write(fd, ram, run, offset, &mut self.vectors)
        } else {
            vectored::read(fd, ram, run, offset, &mut self.vectors)
        }
    }
}
