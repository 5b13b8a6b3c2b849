//! A drive with no medium in it: a disk of no bytes, of which every request fails.

use std::io;
use std::os::fd::BorrowedFd;

use super::{Extent, Layout, SizeChange};

/// No medium.
#[derive(Debug, Clone, Copy, Default)]
pub struct Absent;

fn no_medium<T>() -> io::Result<T> {
    Err(io::Error::other("there is no medium"))
}

impl Layout for Absent {
    fn size(&self) -> u64 {
        0
    }

    fn file(&self, _: usize) -> Option<BorrowedFd<'_>> {
        None
    }

    fn map_read(&mut self, _: u64, _: u64) -> io::Result<Extent> {
        no_medium()
    }

    fn map_write(&mut self, _: u64, _: u64) -> io::Result<Extent> {
        no_medium()
    }

    fn discard(&mut self, _: u64, _: u64) -> io::Result<()> {
        no_medium()
    }

    fn write_zeroes(&mut self, _: u64, _: u64, _: bool) -> io::Result<()> {
        no_medium()
    }

    fn flush(&mut self) -> io::Result<()> {
        no_medium()
    }

    fn close(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn resize(&mut self, _: SizeChange) -> io::Result<()> {
        no_medium()
    }

    fn limit(&mut self, _: u64) -> io::Result<()> {
        no_medium()
    }
}
