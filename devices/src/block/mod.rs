//! What a virtual disk is made of: formats that say where its bytes are, and engines that move them.
//!
//! A [`Layout`] is a format: it translates, keeps the format's metadata, and moves only what belongs to
//! that (tables, the rest of a cluster that a write begins). An engine moves the guest's data between
//! guest memory and the files a layout names, and decides how: by io_uring or by blocking calls. So a
//! format knows nothing of queues or rings, and a raw disk costs nothing for the others.
//!
//! The format of a disk is stated by whoever made the layout; nothing here looks at a file's content to
//! find it out. Every descriptor was opened, checked and locked before it came here.

pub mod absent;
pub mod bounce;
pub mod cache;
pub mod engine;
pub mod qcow2;
pub mod raw;
pub mod reserve;
mod run;
pub mod stats;
mod sync;
pub mod throttle;
pub mod uring;
mod vectored;

use std::io;
use std::os::fd::BorrowedFd;

/// Bytes of a sector of virtio-blk, the unit of its addresses.
pub const SECTOR_BYTES: u64 = 512;

/// Where a run of a disk's bytes is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// In a file.
    Data {
        /// Which of [`Layout::file`].
        file: usize,
        /// Byte of that file.
        offset: u64,
        /// Bytes, not zero.
        len: u64,
    },
    /// Nowhere: they read as zero.
    Zero {
        /// Bytes, not zero.
        len: u64,
    },
    /// In memory: they are [`Layout::buffered`] until the layout's next call that may change it. Only
    /// what is read can be there (a compressed cluster, say).
    Buffered {
        /// Bytes, not zero.
        len: u64,
    },
}

/// A change of a disk's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeChange {
    /// Bytes, a multiple of [`SECTOR_BYTES`]; `None` for as many as there are, which somebody else may
    /// have changed.
    pub to: Option<u64>,
    /// It may become smaller: what is behind the new end is lost.
    pub shrink: bool,
}

impl SizeChange {
    /// To at least that size.
    #[must_use]
    pub const fn grow(to: u64) -> Self {
        Self {
            to: Some(to),
            shrink: false,
        }
    }
}

/// A disk format. Owned by the engine that serves the disk; its calls may wait for storage.
///
/// Ranges lie inside [`size`](Self::size): the caller has checked that. Concurrent requests for the
/// same bytes are the guest's own business, as on any disk.
pub trait Layout: Send {
    /// The disk's size in bytes, a multiple of [`SECTOR_BYTES`].
    fn size(&self) -> u64;

    /// A file that extents name. Valid until the layout is changed by [`resize`](Self::resize) or
    /// dropped.
    fn file(&self, index: usize) -> Option<BorrowedFd<'_>>;

    /// The bytes of the [`Extent::Buffered`] that the last [`map_read`](Self::map_read) gave. A format
    /// that never gives one has nothing here.
    fn buffered(&self) -> &[u8] {
        &[]
    }

    /// Where the first bytes of `len` bytes at `offset` are, as many of them as lie together; at most
    /// `len`.
    ///
    /// # Errors
    /// The storage's, or metadata that makes no sense (`InvalidData`).
    fn map_read(&mut self, offset: u64, len: u64) -> io::Result<Extent>;

    /// Where the first bytes of `len` bytes at `offset` are to be written: always
    /// [`Extent::Data`]. The layout makes room and has the surroundings filled in; the caller writes
    /// the bytes. What was mapped becomes durable by a [`flush`](Self::flush) after that write.
    ///
    /// # Errors
    /// As for `map_read`; `StorageFull`; `ReadOnlyFilesystem`.
    fn map_write(&mut self, offset: u64, len: u64) -> io::Result<Extent>;

    /// The bytes are not needed any more: they read as zero or as before.
    ///
    /// # Errors
    /// As for `map_write`.
    fn discard(&mut self, offset: u64, len: u64) -> io::Result<()>;

    /// The bytes read as zero from now on. `unmap` says that their room may be given back.
    ///
    /// # Errors
    /// As for `map_write`.
    fn write_zeroes(&mut self, offset: u64, len: u64, unmap: bool) -> io::Result<()>;

    /// Everything written before is on stable storage: metadata in an order that leaves a consistent
    /// image at any crash, and the data it refers to. Called with no write of data in flight.
    ///
    /// # Errors
    /// The storage's; nothing of what was not flushed may be taken for durable then.
    fn flush(&mut self) -> io::Result<()>;

    /// Writes metadata out without waiting for stable storage, so that whoever opens the image next
    /// sees what was written: at the end of a disk's service.
    ///
    /// # Errors
    /// The storage's.
    fn close(&mut self) -> io::Result<()>;

    /// Whether [`close`](Self::close) would write something, or give something back: what there is of it
    /// is lost with this process.
    fn is_dirty(&self) -> bool {
        false
    }

    /// Nothing waits for stable storage from now on, a [`flush`](Self::flush) included: a crash of the
    /// host may leave anything, one of this process what was flushed.
    fn forgo_stability(&mut self) {}

    /// Whether the format adds nothing to file 0: byte for byte the same, and a flush is no more than
    /// its `fdatasync`, at any time. Engines then let flushes and discards go beside other requests.
    fn is_plain(&self) -> bool {
        false
    }

    /// The disk's size changes, and so does that of a file it is in; of a block device it is only looked
    /// at. Called with nothing in flight.
    ///
    /// # Errors
    /// As for `map_write`; `Unsupported` and `InvalidInput`, in words, where the format or device cannot
    /// have that size. Nothing has changed then.
    fn resize(&mut self, change: SizeChange) -> io::Result<()>;

    /// Leaves alone what is behind byte `size` from now on, which is no more than there is: another queue's
    /// layout is about to cut it off. Called with nothing in flight.
    ///
    /// # Errors
    /// It cannot be cut off, as for `resize`; nothing has changed then.
    fn limit(&mut self, size: u64) -> io::Result<()>;
}
