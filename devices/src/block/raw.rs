//! A raw disk: a file or a block device that is the disk, byte for byte.
//!
//! Its size is rounded up to whole sectors; what the file does not have of the last one reads as
//! zero. A file is made longer or shorter by [`resize`](Layout::resize); the size of a block device is
//! its host's to change, and is looked at again.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FallocateFlags, FileType, SeekFrom};
use rustix::io::Errno;

use super::bounce::{Bounce, Direct};
use super::{Extent, Layout, SECTOR_BYTES, SizeChange};

/// A raw disk.
#[derive(Debug)]
pub struct Raw {
    file: OwnedFd,
    size: u64,
    read_only: bool,
    zeroes: Bounce,
}

impl Raw {
    /// The disk that `file` is. `direct` says what a file that was opened with `O_DIRECT` asks for,
    /// [`Direct::none`] that it was not.
    ///
    /// # Errors
    /// The size cannot be found out.
    pub fn new(file: OwnedFd, read_only: bool, direct: Direct) -> io::Result<Self> {
        Ok(Self {
            size: size_of(file.as_fd())?,
            file,
            read_only,
            zeroes: Bounce::new(direct),
        })
    }

    fn is_file(&self) -> io::Result<bool> {
        let mode = rustix::fs::fstat(&self.file)?.st_mode;
        Ok(FileType::from_raw_mode(mode) == FileType::RegularFile)
    }

    /// The same disk once more, for another queue.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            file: self.file.try_clone()?,
            size: self.size,
            read_only: self.read_only,
            zeroes: Bounce::new(self.zeroes.direct().clone()),
        })
    }

    fn writable(&self) -> io::Result<()> {
        if self.read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        Ok(())
    }

    fn allocate(&self, how: FallocateFlags, offset: u64, len: u64) -> Result<(), Errno> {
        // Also where whole blocks are meant: a write of a part of one may be under way on another queue.
        let _turn = self.zeroes.direct().take_turn();
        loop {
            match rustix::fs::fallocate(&self.file, how, offset, len) {
                Err(Errno::INTR) => {}
                result => return result,
            }
        }
    }
}

/// Why a disk on a block device has no other size.
fn of_device(there: u64) -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        format!("its block device has {there} bytes, which is the host's to change"),
    )
}

/// Why a disk does not become smaller.
pub(crate) fn would_shrink(from: u64, to: u64) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!(
            "it has {from} bytes, and what is behind byte {to} would be lost; --shrink allows that"
        ),
    )
}

/// Its size, by seeking: the same for files and block devices.
fn size_of(file: BorrowedFd<'_>) -> io::Result<u64> {
    let bytes = rustix::fs::seek(file, SeekFrom::End(0))?;
    bytes
        .checked_next_multiple_of(SECTOR_BYTES)
        .ok_or_else(|| io::ErrorKind::FileTooLarge.into())
}

/// Whether storage answers that it has no such operation, or not for such a range.
fn is_unsupported(errno: Errno) -> bool {
    matches!(errno, Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL)
}

/// A hole: the bytes read as zero and have no room, and the file is as long as before.
const HOLE: FallocateFlags = FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE);
/// The bytes read as zero and keep their room.
const ZEROED: FallocateFlags = FallocateFlags::ZERO_RANGE.union(FallocateFlags::KEEP_SIZE);

impl Layout for Raw {
    fn size(&self) -> u64 {
        self.size
    }

    fn file(&self, index: usize) -> Option<BorrowedFd<'_>> {
        (index == 0).then(|| self.file.as_fd())
    }

    fn map_read(&mut self, offset: u64, len: u64) -> io::Result<Extent> {
        Ok(Extent::Data {
            file: 0,
            offset,
            len,
        })
    }

    fn map_write(&mut self, offset: u64, len: u64) -> io::Result<Extent> {
        self.writable()?;
        self.map_read(offset, len)
    }

    fn discard(&mut self, offset: u64, len: u64) -> io::Result<()> {
        self.writable()?;
        match self.allocate(HOLE, offset, len) {
            // They read as before, which is allowed.
            Err(errno) if is_unsupported(errno) => Ok(()),
            result => Ok(result?),
        }
    }

    fn write_zeroes(&mut self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.writable()?;
        let ways: &[FallocateFlags] = if unmap { &[HOLE, ZEROED] } else { &[ZEROED] };
        for how in ways {
            match self.allocate(*how, offset, len) {
                Err(errno) if is_unsupported(errno) => {}
                result => return Ok(result?),
            }
        }
        self.zeroes.write_zeroes(self.file.as_fd(), offset, len)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.read_only {
            return Ok(());
        }
        Ok(rustix::io::retry_on_intr(|| {
            rustix::fs::fdatasync(&self.file)
        })?)
    }

    fn close(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn is_plain(&self) -> bool {
        true
    }

    fn resize(&mut self, change: SizeChange) -> io::Result<()> {
        let there = size_of(self.file.as_fd())?;
        let wanted = change.to.unwrap_or(there);
        // One that somebody else has made longer keeps what the disk did not have yet.
        let now = self.size.max(there);
        if wanted < now && !change.shrink {
            return Err(would_shrink(now, wanted));
        }
        // Its siblings do the same: the first has done it.
        if wanted != there {
            if !self.is_file()? {
                return Err(of_device(there));
            }
            self.writable()?;
            rustix::io::retry_on_intr(|| rustix::fs::ftruncate(&self.file, wanted))?;
        }
        self.size = wanted;
        Ok(())
    }

    fn limit(&mut self, size: u64) -> io::Result<()> {
        if self.is_file()? {
            self.writable()?;
        } else {
            let there = size_of(self.file.as_fd())?;
            if there != size {
                return Err(of_device(there));
            }
        }
        self.size = self.size.min(size);
        Ok(())
    }
}

#[cfg(test)]
#[path = "raw/tests.rs"]
mod tests;
