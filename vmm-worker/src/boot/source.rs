//! Where a kernel or an initrd is read from: a regular file, or bytes in this process.
//!
//! Reads are positioned, so that a file description which somebody else holds too is read right,
//! and go straight into guest memory without a buffer between. The bytes are hostile, and a file's
//! length may change between two reads: a short read is an error, never an assumption.

use std::fs::File;
use std::io;

use vm_memory::bitmap::BitmapSlice;
use vm_memory::{
    Bytes, GuestAddress, GuestMemoryMmap, ReadVolatile, VolatileMemoryError, VolatileSlice,
};

/// An image that can be read at any position.
pub trait Source {
    /// Length in bytes.
    ///
    /// # Errors
    /// The file cannot be examined, or is no regular file (reading a pipe or a terminal could block
    /// for ever).
    fn length(&self) -> io::Result<u64>;

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] if the source ends before.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Copies `count` bytes from `offset` on into guest memory at `address`.
    ///
    /// # Errors
    /// As [`Self::read_at`], and any error for a target outside guest memory.
    fn load_at(
        &self,
        offset: u64,
        memory: &GuestMemoryMmap<()>,
        address: u64,
        count: usize,
    ) -> io::Result<()>;
}

impl Source for File {
    fn length(&self) -> io::Result<u64> {
        // Not std's metadata(): its statx is a call that the control thread's filter has no need of.
        let stat = rustix::fs::fstat(self)?;
        if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::RegularFile {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file",
            ));
        }
        Ok(u64::try_from(stat.st_size).unwrap_or(0))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self, buffer, offset)
    }

    fn load_at(
        &self,
        offset: u64,
        memory: &GuestMemoryMmap<()>,
        address: u64,
        count: usize,
    ) -> io::Result<()> {
        let mut reader = PositionedReader { file: self, offset };
        memory
            .read_exact_volatile_from(GuestAddress(address), &mut reader, count)
            .map_err(flatten)
    }
}

impl Source for [u8] {
    fn length(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let source = self.slice(offset, buffer.len())?;
        buffer.copy_from_slice(source);
        Ok(())
    }

    fn load_at(
        &self,
        offset: u64,
        memory: &GuestMemoryMmap<()>,
        address: u64,
        count: usize,
    ) -> io::Result<()> {
        memory
            .write_slice(self.slice(offset, count)?, GuestAddress(address))
            .map_err(io::Error::other)
    }
}

/// Bounded sub-slices of an image in memory.
trait SliceSource {
    fn slice(&self, offset: u64, count: usize) -> io::Result<&[u8]>;
}

impl SliceSource for [u8] {
    fn slice(&self, offset: u64, count: usize) -> io::Result<&[u8]> {
        usize::try_from(offset)
            .ok()
            .and_then(|start| self.get(start..start.checked_add(count)?))
            .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

/// Reads a file from a position of its own into volatile memory.
struct PositionedReader<'a> {
    file: &'a File,
    offset: u64,
}

impl ReadVolatile for PositionedReader<'_> {
    #[expect(
        unsafe_code,
        reason = "pread into guest memory, which is no Rust slice"
    )]
    fn read_volatile<B: BitmapSlice>(
        &mut self,
        buffer: &mut VolatileSlice<B>,
    ) -> Result<usize, VolatileMemoryError> {
        use std::os::fd::AsRawFd;

        let offset = libc::off_t::try_from(self.offset)
            .map_err(|_| VolatileMemoryError::IOError(io::ErrorKind::UnexpectedEof.into()))?;
        let guard = buffer.ptr_guard_mut();
        // SAFETY: the guard keeps the slice's memory mapped and the slice is valid for writes of
        // `len()` bytes; guest memory has no Rust references into it that the write could alias.
        let read = unsafe {
            libc::pread(
                self.file.as_raw_fd(),
                guard.as_ptr().cast(),
                buffer.len(),
                offset,
            )
        };
        let read = usize::try_from(read)
            .map_err(|_| VolatileMemoryError::IOError(io::Error::last_os_error()))?;
        buffer.bitmap().mark_dirty(0, read);
        self.offset = self.offset.saturating_add(read as u64);
        Ok(read)
    }
}

/// The I/O error inside an error of guest memory, with its kind kept.
fn flatten(error: vm_memory::GuestMemoryError) -> io::Error {
    match error {
        vm_memory::GuestMemoryError::IOError(error) => error,
        other => io::Error::other(other),
    }
}
