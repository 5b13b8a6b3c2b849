//! qcow2 images, read and written, with the files they are based on.
//!
//! [`Qcow2`] is a [`Layout`]: it says where bytes are, keeps the tables, and moves only what
//! belongs to a cluster that a write begins. It is given open descriptors, of the image and of
//! each file behind it, and the format of each; the names in a header are never followed.
//!
//! ```text
//!  disk offset -> L1 -> L2 -> cluster of the image  -> Extent::Data { file: 0 }
//!                          |  zero                  -> Extent::Zero
//!                          |  compressed            -> Extent::Buffered
//!                          +- nothing: the same in the backing file (1, 2, ...), else zero
//! ```
//!
//! Everything an image says is hostile: offsets are aligned, inside the file and apart from
//! metadata before anything is written to them, tables and chains are bounded. Memory depends on
//! the caches asked for, on the L1 table (32 MiB at most, 64 MiB in a chain) and for an image that
//! is written on the number of its tables (some 32 MiB at most), not on what else is in it. A
//! broken image is an error, of one request where possible; one that contradicts itself while it
//! is written is marked corrupt, and not written any more.
//!
//! # Crashes
//! `writer.rs` has the order in which metadata is written; a crash at any write leaves an image
//! that has leaked clusters at worst. What was flushed is there. A write that was not flushed is
//! there or not, sector by sector, with one exception: where a whole cluster was written over what
//! a backing file, a snapshot or a compressed cluster held, and much other metadata changed before
//! that write's data was on storage, it may read as zero.
//!
//! # Threads
//! None here. Requests may be under way while a layout is called, with these limits: a flush finds
//! no write under way, since it gives back clusters that were discarded; a change of size may.
//!
//! # Decisions
//! 1. (2026-11) Own code, not the crate `imago` (0.2): its interface is asynchronous and moves the
//!    data itself, while here an engine moves it by what a layout says; its order of writes is not
//!    ours to state and test crash by crash; and its storage blocks inside of async functions.
//! 2. (2026-11) Refcounts are exact or too high, never rebuilt: an image with lazy refcounts that
//!    was not closed is refused for writing, and `qemu-img check -r all` named.
//! 3. (2026-11) A write of a part of a new cluster fills the whole cluster with what was there
//!    before, the part itself included: one read and one write, and a crash finds the old bytes,
//!    not zeroes.
//! 4. (2026-11) Compressed clusters become ordinary when they are written; nothing is compressed.
//!    What they hold is handed over in memory, since no file has it.
//! 5. (2026-11) Room for discards that wait for a flush is bounded, and what waits is no more than the
//!    disk, so that the file is at most twice as long. Where a guest does not flush, further discards
//!    are ignored, and zeroes are marked instead of unmapped.
//! 6. (2026-11) L2 tables are cached in slices of 4 KiB, as a random access needs little of a
//!    table, and the L1 and refcount tables wholly, as every allocation is checked against them.

mod cache;
mod compressed;
mod create;
mod entry;
mod error;
mod header;
mod image;
mod refcount;
mod reserved;
mod resize;
mod storage;
#[cfg(test)]
mod tests;
mod write;
mod writer;
mod zero;
mod zstd;

use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::fd::{BorrowedFd, OwnedFd};

pub use create::{CreateOptions, Form, create, create_as};
pub use error::Qcow2Error;
pub use header::{Compression, HeaderFacts, read_header};
pub use storage::{Descriptor, Storage};

use self::compressed::{Decompressed, decompress};
use self::image::{Found, Image};
use self::storage::{ImageFile, index};
use super::{Extent, Layout, SECTOR_BYTES, SizeChange};

/// Files of a chain, at most.
const CHAIN: usize = 64;
/// [`SECTOR_BYTES`].
const SECTOR: usize = 512;
/// Bytes of the L1 tables of a chain, at most.
const L1_BYTES: u64 = 64 << 20;

/// The format of a backing file, as stated by whoever opened it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The bytes of a disk.
    Raw,
    /// An image, with the next file of the chain behind it if it names a backing file.
    Qcow2,
}

/// How an image is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// The image is written, else only read.
    pub writable: bool,
    /// Bytes for L2 tables, of each image of a chain.
    pub l2_cache_bytes: usize,
    /// Bytes for refcounts, of the image that is written.
    pub refcount_cache_bytes: usize,
}

impl Default for Options {
    /// Writable; caches for 8 GiB of a disk in clusters of 64 KiB.
    fn default() -> Self {
        Self {
            writable: true,
            l2_cache_bytes: 1 << 20,
            refcount_cache_bytes: 256 << 10,
        }
    }
}

/// A file behind the image.
#[derive(Debug)]
enum Backing<S> {
    Raw(ImageFile<S>),
    Qcow2(Box<Image<S>>),
}

impl<S: Storage> Backing<S> {
    fn file(&self) -> &ImageFile<S> {
        match self {
            Self::Raw(file) => file,
            Self::Qcow2(image) => &image.file,
        }
    }

    fn size(&self) -> u64 {
        match self {
            Self::Raw(file) => file.len().next_multiple_of(SECTOR_BYTES),
            Self::Qcow2(image) => image.size,
        }
    }
}

/// A disk in an image and the files it is based on.
#[derive(Debug)]
pub struct Qcow2<S = Descriptor> {
    top: Image<S>,
    backing: Vec<Backing<S>>,
    decompressed: Decompressed,
    /// Where the bytes of the last [`Extent::Buffered`] are in the last decompressed cluster;
    /// `None` if they are the sector.
    buffered: Option<Range<usize>>,
    /// A sector that its file has only a part of.
    sector: [u8; SECTOR],
}

impl Qcow2 {
    /// Opens an image whose file is based on `backing`, the nearest first. All of them were opened,
    /// checked and locked by the caller, not for direct I/O; only `image` is ever written.
    ///
    /// # Errors
    /// The image is broken, uses what is not supported, or cannot be written as it is; the chain
    /// is not the one that the headers speak of.
    pub fn open(
        image: OwnedFd,
        backing: Vec<(OwnedFd, Format)>,
        options: Options,
    ) -> Result<Self, Qcow2Error> {
        let backing = backing
            .into_iter()
            .map(|(file, format)| (file.into(), format))
            .collect();
        Self::open_storage(image.into(), backing, options)
    }
}

impl<S: Storage> Qcow2<S> {
    /// [`open`](Qcow2::open) for any storage.
    ///
    /// # Errors
    /// As there.
    pub fn open_storage(
        image: S,
        backing: Vec<(S, Format)>,
        options: Options,
    ) -> Result<Self, Qcow2Error> {
        if backing.len() >= CHAIN {
            return Err(Qcow2Error::Chain("is longer than 64 files"));
        }
        let mut seen = vec![image.identity()];
        let mut budget = L1_BYTES;
        let mut top = Image::open(image, options.l2_cache_bytes, &mut budget)?;
        let mut wants_more = top.has_backing();
        let mut files = Vec::new();
        for (file, format) in backing {
            if !wants_more {
                return Err(Qcow2Error::Chain("has a file that no header names"));
            }
            let identity = file.identity();
            if identity.is_some() && seen.contains(&identity) {
                return Err(Qcow2Error::Chain("has the same file twice"));
            }
            seen.push(identity);
            let file = match format {
                Format::Raw => Backing::Raw(ImageFile::new(file)?),
                Format::Qcow2 => {
                    let image = Image::open(file, options.l2_cache_bytes, &mut budget)?;
                    Backing::Qcow2(Box::new(image))
                }
            };
            wants_more = matches!(&file, Backing::Qcow2(image) if image.has_backing());
            files.push(file);
        }
        if wants_more {
            return Err(Qcow2Error::Chain("lacks a file that a header names"));
        }
        if options.writable {
            top.enable_writing(options.refcount_cache_bytes)?;
        }
        Ok(Self {
            top,
            backing: files,
            decompressed: Decompressed::default(),
            buffered: None,
            sector: [0; SECTOR],
        })
    }

    /// The range, no longer than the disk.
    fn clip(&self, offset: u64, len: u64) -> io::Result<u64> {
        match self.top.size.checked_sub(offset) {
            Some(left) if left > 0 && len > 0 => Ok(len.min(left)),
            _ => Err(ErrorKind::InvalidInput.into()),
        }
    }

    /// Where the first of `len` bytes at `offset` are, through the chain.
    fn find(&mut self, offset: u64, mut len: u64) -> io::Result<Extent> {
        let (found, run) = self.top.lookup(offset, len)?;
        if found != Found::Unallocated {
            return self.extent(0, found, run);
        }
        len = run;
        for file in 0..self.backing.len() {
            let Some(backing) = self.backing.get_mut(file) else {
                break;
            };
            // A shorter backing file reads as zero behind its end, whatever is behind it.
            let Some(left) = backing.size().checked_sub(offset).filter(|&left| left > 0) else {
                return Ok(Extent::Zero { len });
            };
            len = len.min(left);
            let (found, run) = match backing {
                Backing::Raw(_) => (Found::Data(offset), len),
                Backing::Qcow2(image) => image.lookup(offset, len)?,
            };
            if found != Found::Unallocated {
                return self.extent(file + 1, found, run);
            }
            len = run;
        }
        Ok(Extent::Zero { len })
    }

    fn image_file(&self, file: usize) -> io::Result<&ImageFile<S>> {
        match file.checked_sub(1) {
            None => Ok(&self.top.file),
            Some(backing) => {
                let backing = self.backing.get(backing).map(Backing::file);
                backing.ok_or_else(|| ErrorKind::InvalidInput.into())
            }
        }
    }

    /// What is found in a file, as an extent that lies inside of it.
    fn extent(&mut self, file: usize, found: Found, len: u64) -> io::Result<Extent> {
        match found {
            Found::Unallocated | Found::Zero => Ok(Extent::Zero { len }),
            Found::Data(offset) => {
                let end = self.image_file(file)?.len();
                let Some(left) = end.checked_sub(offset).filter(|&left| left > 0) else {
                    return Ok(Extent::Zero { len });
                };
                let whole = len.min(left - left % SECTOR_BYTES);
                if whole > 0 {
                    return Ok(Extent::Data {
                        file,
                        offset,
                        len: whole,
                    });
                }
                let mut sector = self.sector;
                self.image_file(file)?.read_padded(&mut sector, offset)?;
                self.sector = sector;
                self.buffered = None;
                Ok(Extent::Buffered {
                    len: len.min(SECTOR_BYTES),
                })
            }
            Found::Compressed {
                offset,
                len: bytes,
                inside,
            } => {
                let source = (file, offset);
                if !self.decompressed.find(source) {
                    self.decompress(source, bytes)?;
                }
                self.buffered = Some(index(inside)..index(inside.saturating_add(len)));
                Ok(Extent::Buffered { len })
            }
        }
    }

    fn decompress(&mut self, source: (usize, u64), len: u64) -> io::Result<()> {
        let (file, offset) = source;
        let header = match file.checked_sub(1).and_then(|file| self.backing.get(file)) {
            Some(Backing::Qcow2(image)) => &image.header,
            _ => &self.top.header,
        };
        let (compression, cluster) = (header.facts.compression, header.geometry.cluster());
        let mut bytes = vec![0; index(len)];
        // The last sector need not be there whole.
        self.image_file(file)?.read_padded(&mut bytes, offset)?;
        let cluster = decompress(compression, &bytes, cluster)?;
        self.decompressed.keep(source, cluster);
        Ok(())
    }

    /// Reads bytes of the disk; what lies behind its end is zero. True if any is not zero.
    fn read_old(&mut self, buf: &mut [u8], offset: u64) -> io::Result<bool> {
        let mut done = 0;
        let mut any = false;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = offset + done as u64;
            if at >= self.top.size {
                rest.fill(0);
                break;
            }
            let len = self.clip(at, rest.len() as u64)?;
            match self.find(at, len)? {
                Extent::Zero { len } => {
                    rest.get_mut(..index(len)).unwrap_or_default().fill(0);
                    done += index(len);
                }
                Extent::Data { file, offset, len } => {
                    let part = rest.get_mut(..index(len)).unwrap_or_default();
                    self.image_file(file)?.read_padded(part, offset)?;
                    any = true;
                    done += index(len);
                }
                Extent::Buffered { len } => {
                    for (to, from) in rest.iter_mut().zip(self.buffered()) {
                        *to = *from;
                    }
                    any = true;
                    done += index(len);
                }
            }
        }
        Ok(any)
    }
}

impl<S: Storage> Layout for Qcow2<S> {
    fn size(&self) -> u64 {
        self.top.size
    }

    fn file(&self, index: usize) -> Option<BorrowedFd<'_>> {
        self.image_file(index).ok()?.storage().descriptor()
    }

    fn buffered(&self) -> &[u8] {
        match &self.buffered {
            Some(part) => self
                .decompressed
                .last()
                .get(part.clone())
                .unwrap_or_default(),
            None => &self.sector,
        }
    }

    fn map_read(&mut self, offset: u64, len: u64) -> io::Result<Extent> {
        let len = self.clip(offset, len)?;
        self.find(offset, len)
    }

    fn map_write(&mut self, offset: u64, len: u64) -> io::Result<Extent> {
        let len = self.clip(offset, len)?;
        let (offset, len) = self.place(offset, len)?;
        Ok(Extent::Data {
            file: 0,
            offset,
            len,
        })
    }

    fn discard(&mut self, offset: u64, len: u64) -> io::Result<()> {
        let len = self.clip(offset, len)?;
        self.discard_range(offset, len)
    }

    fn write_zeroes(&mut self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        let len = self.clip(offset, len)?;
        self.zero_range(offset, len, unmap)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.top.writer.is_none() {
            return Ok(());
        }
        self.top.flush()
    }

    fn close(&mut self) -> io::Result<()> {
        if self.top.writer.is_none() {
            return Ok(());
        }
        self.top.close()
    }

    fn is_dirty(&self) -> bool {
        self.top.is_dirty()
    }

    fn forgo_stability(&mut self) {
        self.top.file.forgo_stability();
    }

    fn resize(&mut self, change: SizeChange) -> io::Result<()> {
        match change.to {
            // Its size is in its header, which nobody else may change.
            None => Ok(()),
            Some(size) => {
                self.grow(size)?;
                // The clusters of the table that was too small are free, and on the file they still have
                // users. It is larger all the same where that is not written: the next flush says what is
                // wrong.
                let _ = self.flush();
                Ok(())
            }
        }
    }

    fn limit(&mut self, _: u64) -> io::Result<()> {
        Err(resize::cannot_shrink())
    }
}
