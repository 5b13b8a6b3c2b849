//! One image of a chain: its tables, and where a byte of the disk is according to them.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};

use super::cache::SliceCache;
use super::entry::{Entry, Table};
use super::error::{Qcow2Error, invalid};
use super::header::{Geometry, Header};
use super::storage::{ImageFile, Storage, index};
use super::writer::Writer;

/// What a run of clusters is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// The backing file's, or zero.
    Unallocated,
    /// Zero.
    Zero,
    /// In this image's file from a byte on.
    Data(u64),
    /// In a compressed cluster of `len` bytes at most, from byte `inside` of what it holds.
    Compressed { offset: u64, len: u64, inside: u64 },
}

/// An opened image.
#[derive(Debug)]
pub(super) struct Image<S> {
    pub file: ImageFile<S>,
    pub header: Header,
    pub geometry: Geometry,
    /// The disk's size in bytes, a multiple of a sector.
    pub size: u64,
    /// The L1 table, as it is to be in the file.
    pub l1: Vec<u64>,
    /// Entries of the L1 table that are not so in the file yet.
    pub l1_dirty: BTreeSet<usize>,
    pub l2: SliceCache,
    /// What only an image that is written has.
    pub writer: Option<Writer>,
}

impl<S: Storage> Image<S> {
    /// Opens an image to read it. `l1_budget` bounds the bytes of L1 tables of a whole chain.
    pub(super) fn open(
        storage: S,
        l2_cache_bytes: usize,
        l1_budget: &mut u64,
    ) -> Result<Self, Qcow2Error> {
        let file = ImageFile::new(storage)?;
        let header = Header::read(|buf, offset| file.storage().read_at(buf, offset))?;
        header.check_readable(file.len())?;
        *l1_budget = l1_budget
            .checked_sub(header.l1_bytes())
            .ok_or(Qcow2Error::Chain("has L1 tables of more than 64 MiB"))?;
        let mut raw = vec![0; index(header.l1_bytes())];
        file.read(&mut raw, header.l1_offset)?;
        let geometry = header.geometry;
        Ok(Self {
            size: header.facts.virtual_size & !(crate::block::SECTOR_BYTES - 1),
            l1: words(&raw),
            l1_dirty: BTreeSet::new(),
            l2: SliceCache::new(l2_cache_bytes, geometry.cluster()),
            writer: None,
            file,
            header,
            geometry,
        })
    }

    /// Whether what this image does not have is somewhere else.
    pub(super) fn has_backing(&self) -> bool {
        self.header.facts.backing_file.is_some()
    }

    /// What the first of `len` bytes at `offset` are, and how many of them are the same. The range
    /// lies inside the disk.
    pub(super) fn lookup(&mut self, offset: u64, len: u64) -> io::Result<(Found, u64)> {
        let inside = self.geometry.inside(offset);
        let Some(table) = self.table(offset)? else {
            let span = self.geometry.l2_span();
            return Ok((Found::Unallocated, len.min(span - offset % span)));
        };
        let first = self.entry(table.offset, offset)?;
        let cluster = self.geometry.cluster();
        let mut run = cluster - inside;
        let found = match first {
            Entry::Unallocated => Found::Unallocated,
            Entry::Zero | Entry::ZeroAllocated { .. } => Found::Zero,
            Entry::Data { offset, .. } => Found::Data(offset + inside),
            Entry::Compressed { offset, len: bytes } => {
                let found = Found::Compressed {
                    offset,
                    len: bytes,
                    inside,
                };
                return Ok((found, len.min(run)));
            }
        };
        while run < len && (offset + run) % self.geometry.l2_span() != 0 {
            let next = self.entry(table.offset, offset + run)?;
            let same = match (next, found) {
                (Entry::Unallocated, Found::Unallocated)
                | (Entry::Zero | Entry::ZeroAllocated { .. }, Found::Zero) => true,
                (Entry::Data { offset, .. }, Found::Data(first)) => offset == first + run,
                _ => false,
            };
            if !same {
                break;
            }
            run += cluster;
        }
        Ok((found, len.min(run)))
    }

    /// The L2 table for a byte of the disk.
    pub(super) fn table(&self, offset: u64) -> io::Result<Option<Table>> {
        let entry = self.l1.get(self.geometry.l1_index(offset));
        let Some(table) = Table::parse(*entry.ok_or(ErrorKind::InvalidInput)?) else {
            return Ok(None);
        };
        let cluster = self.geometry.cluster();
        if !self.header.is_place(table.offset, cluster, self.file.len()) {
            return Err(invalid("L2 table is outside the file"));
        }
        Ok(Some(table))
    }

    /// The entry for a byte of the disk, in the L2 table at `table`.
    pub(super) fn entry(&mut self, table: u64, offset: u64) -> io::Result<Entry> {
        let at = table + self.geometry.l2_index(offset) * 8;
        let place = match self.l2.find(at) {
            Some(place) => place,
            None => {
                // Where the storage does not take writes, what can be read is still read.
                if self.l2.crowded() {
                    let _ = self.write_back();
                }
                self.l2.load(&self.file, at)?
            }
        };
        Entry::parse(self.l2.word(place, at), self.geometry)
    }
}

/// A table's bytes as numbers.
pub(super) fn words(raw: &[u8]) -> Vec<u64> {
    raw.chunks_exact(8)
        .map(|word| u64::from_be_bytes(word.try_into().unwrap_or_default()))
        .collect()
}

/// Numbers as a table's bytes.
pub(super) fn raw(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}
