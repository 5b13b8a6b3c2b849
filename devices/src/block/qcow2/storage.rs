//! What an image is stored in: positional reads and writes, and the barrier between writes.
//!
//! [`Descriptor`] is the real thing; tests put a recorder in its place to stop, lose and reorder
//! writes. [`ImageFile`] adds what the format code has to know of a file: how long it is, from
//! where on it was never written, and that a failed barrier ends all writing.

use std::fmt::Debug;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FallocateFlags, FileType, SeekFrom};

/// A file or block device, shared by position: nothing here uses or moves a file offset after it
/// was opened. Not opened for direct I/O, since metadata is read and written in small pieces.
pub trait Storage: Send + Debug {
    /// Reads what there is at `offset`; less than `buf` at the end of the file.
    ///
    /// # Errors
    /// The storage's.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `buf`; a reader sees it at once, stable storage after [`sync`](Self::sync).
    ///
    /// # Errors
    /// The storage's; some of it may have been written.
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;

    /// What was written before, and the length, are on stable storage.
    ///
    /// # Errors
    /// The storage's; what was written since the last success may be lost then, for good.
    fn sync(&self) -> io::Result<()>;

    /// Length in bytes.
    ///
    /// # Errors
    /// The storage's.
    fn length(&self) -> io::Result<u64>;

    /// Lengthens the file; the new bytes read as zero.
    ///
    /// # Errors
    /// The storage's; a block device has no other length than its own.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// The bytes, all of them inside the file, read as zero. Their room is kept where the storage
    /// can.
    ///
    /// # Errors
    /// The storage's.
    fn zero(&self, offset: u64, len: u64) -> io::Result<()>;

    /// The bytes are not needed: the storage may take their room. A hint, so it cannot fail; the
    /// bytes read as before or as zero.
    fn release(&self, offset: u64, len: u64);

    /// The same for two that are the same file, if that can be known.
    fn identity(&self) -> Option<(u64, u64)>;

    /// The descriptor for whoever moves data.
    fn descriptor(&self) -> Option<BorrowedFd<'_>>;
}

/// A descriptor of a regular file or block device.
#[derive(Debug)]
pub struct Descriptor(OwnedFd);

impl From<OwnedFd> for Descriptor {
    fn from(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }
}

/// Bytes of zeroes that are written at a time where the storage cannot make them itself.
const ZEROES: usize = 64 << 10;

impl Storage for Descriptor {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        read_at(self.0.as_fd(), buf, offset)
    }

    fn write_at(&self, mut buf: &[u8], mut offset: u64) -> io::Result<()> {
        while !buf.is_empty() {
            match rustix::io::pwrite(&self.0, buf, offset) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => {
                    buf = buf.get(count..).unwrap_or_default();
                    offset = offset.saturating_add(count as u64);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(rustix::io::retry_on_intr(|| {
            rustix::fs::fdatasync(&self.0)
        })?)
    }

    fn length(&self) -> io::Result<u64> {
        let stat = rustix::fs::fstat(&self.0)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice {
            return Ok(rustix::fs::seek(&self.0, SeekFrom::End(0))?);
        }
        u64::try_from(stat.st_size).map_err(|_| ErrorKind::InvalidData.into())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        Ok(rustix::fs::ftruncate(&self.0, len)?)
    }

    fn zero(&self, offset: u64, len: u64) -> io::Result<()> {
        for flag in [FallocateFlags::ZERO_RANGE, FallocateFlags::PUNCH_HOLE] {
            let flags = flag | FallocateFlags::KEEP_SIZE;
            if rustix::fs::fallocate(&self.0, flags, offset, len).is_ok() {
                return Ok(());
            }
        }
        let zeroes = [0; ZEROES];
        let mut done = 0;
        while done < len {
            let part = zeroes.get(..index(len - done)).unwrap_or(&zeroes);
            self.write_at(part, offset.saturating_add(done))?;
            done += part.len() as u64;
        }
        Ok(())
    }

    fn release(&self, offset: u64, len: u64) {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let _ = rustix::fs::fallocate(&self.0, flags, offset, len);
    }

    fn identity(&self) -> Option<(u64, u64)> {
        let stat = rustix::fs::fstat(&self.0).ok()?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice {
            return Some((u64::MAX, stat.st_rdev));
        }
        Some((stat.st_dev, stat.st_ino))
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }
}

/// Reads what there is at `offset` of `file`; less than `buf` at its end.
pub(super) fn read_at(file: BorrowedFd<'_>, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match rustix::io::pread(file, rest, offset.saturating_add(done as u64)) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(done)
}

/// A number as an index: one that is too large for memory is past the end of everything in it.
pub(super) fn index(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// A file with what is known about it.
#[derive(Debug)]
pub(super) struct ImageFile<S> {
    storage: S,
    /// Bytes; what lies behind reads as zero.
    len: u64,
    /// From here on nothing was ever written by whoever had the image open.
    fresh_from: u64,
    /// Metadata was written that a later write may refer to.
    unordered: bool,
    /// Stable storage is not waited for.
    unstable: bool,
    /// A barrier has failed: nobody knows what of the metadata is on storage, so no more is
    /// written.
    poisoned: bool,
}

/// Bytes by which a file grows at least, so that not every cluster costs a call.
const GROWTH: u64 = 1 << 20;

impl<S: Storage> ImageFile<S> {
    pub(super) fn new(storage: S) -> io::Result<Self> {
        let len = storage.length()?;
        Ok(Self {
            storage,
            len,
            fresh_from: len,
            unordered: false,
            unstable: false,
            poisoned: false,
        })
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn storage(&self) -> &S {
        &self.storage
    }

    /// Reads as many bytes as asked for; what lies behind the end is an error.
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        if self.storage.read_at(buf, offset)? != buf.len() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    /// Reads as many bytes as asked for; what lies behind the end is zero.
    pub(super) fn read_padded(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let count = self.storage.read_at(buf, offset)?;
        buf.get_mut(count..).unwrap_or_default().fill(0);
        Ok(())
    }

    pub(super) fn write(&mut self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.check()?;
        self.unordered = true;
        self.storage.write_at(buf, offset)
    }

    pub(super) fn zero(&mut self, offset: u64, len: u64) -> io::Result<()> {
        self.check()?;
        self.unordered = true;
        self.storage.zero(offset, len)
    }

    /// Makes the file reach as far as `end`.
    pub(super) fn reach(&mut self, end: u64) -> io::Result<()> {
        self.check()?;
        if end <= self.len {
            return Ok(());
        }
        let longer = end.checked_next_multiple_of(GROWTH).unwrap_or(end);
        self.unordered = true;
        match self.storage.set_len(longer) {
            // A block device: it has the length it has.
            Err(error) if error.kind() == ErrorKind::InvalidInput => {
                Err(ErrorKind::StorageFull.into())
            }
            Err(error) => Err(error),
            Ok(()) => {
                self.len = longer;
                Ok(())
            }
        }
    }

    /// Makes the file reach over `len` bytes at `offset`, which nobody uses, and makes them zero.
    pub(super) fn claim(&mut self, offset: u64, len: u64) -> io::Result<()> {
        let end = offset
            .checked_add(len)
            .ok_or(io::Error::from(ErrorKind::StorageFull))?;
        self.reach(end)?;
        if offset < self.fresh_from {
            self.zero(offset, len)?;
        }
        self.fresh_from = self.fresh_from.max(end);
        Ok(())
    }

    /// What was written so far reaches stable storage before anything that is written later.
    pub(super) fn barrier(&mut self) -> io::Result<()> {
        if self.unordered {
            self.sync()?;
        }
        Ok(())
    }

    /// What was written so far, by anybody, reaches stable storage.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.check()?;
        if self.unstable {
            return Ok(());
        }
        if let Err(error) = self.storage.sync() {
            self.poison();
            return Err(error);
        }
        self.unordered = false;
        Ok(())
    }

    /// Waits for stable storage no more: writes are ordered as a reader of the file sees them, not as
    /// a crash of the host does.
    pub(super) fn forgo_stability(&mut self) {
        self.unstable = true;
    }

    /// Ends all writing.
    pub(super) fn poison(&mut self) {
        self.poisoned = true;
    }

    /// Whether writing goes on.
    pub(super) fn check(&self) -> io::Result<()> {
        if self.poisoned {
            return Err(io::Error::other(
                "image is not written any more after an earlier error",
            ));
        }
        Ok(())
    }
}
