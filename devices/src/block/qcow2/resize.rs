//! A disk that becomes larger.

use std::io::{self, ErrorKind};

use super::header::{L1_BYTES, at};
use super::image::raw;
use super::storage::{Storage, index};
use super::{Backing, Qcow2, SECTOR_BYTES};

/// Why an image becomes no smaller.
pub(super) fn cannot_shrink() -> io::Error {
    let why = "a qcow2 image cannot become smaller while it is in use; 'qemu-img resize --shrink' can do \
               it to one that nobody uses";
    io::Error::new(ErrorKind::Unsupported, why)
}

impl<S: Storage> Qcow2<S> {
    /// Makes the disk `size` bytes long, which is no less than it is; the new bytes read as zero.
    pub(super) fn grow(&mut self, size: u64) -> io::Result<()> {
        self.top.begin()?;
        let old = self.top.size;
        if size < old {
            return Err(cannot_shrink());
        }
        if self.top.header.facts.snapshots != 0 {
            let why = "its image has internal snapshots, which are of the old size";
            return Err(io::Error::new(ErrorKind::Unsupported, why));
        }
        let size = size
            .checked_next_multiple_of(SECTOR_BYTES)
            .filter(|&size| i64::try_from(size).is_ok())
            .ok_or(ErrorKind::InvalidInput)?;
        if size == old {
            return Ok(());
        }
        self.top.grow_l1(self.top.geometry.l1_entries(size))?;
        // What lies behind the old end shows: the rest of the last cluster, a longer backing file,
        // and entries that something else left there.
        let geometry = self.top.geometry;
        let shows = self.backing.first().map_or(0, Backing::size);
        let mut end = geometry.round_up(old).max(shows);
        let used = index(geometry.l1_entries(old));
        if self.top.l1.iter().skip(used).any(|&entry| entry != 0) {
            end = size;
        } else if old % geometry.l2_span() != 0 && self.top.table(old)?.is_some() {
            end = end.max(old - old % geometry.l2_span() + geometry.l2_span());
        }
        let end = end.min(size);
        self.top.size = size;
        let zeroed = if end > old {
            self.zero_range(old, end - old, true)
        } else {
            Ok(())
        };
        let written = zeroed
            .and_then(|()| self.top.settle())
            .and_then(|()| self.top.write_size());
        if written.is_err() {
            self.top.size = old;
        }
        written
    }
}

impl<S: Storage> super::image::Image<S> {
    /// Makes an L1 table of at least `entries` entries.
    fn grow_l1(&mut self, entries: u64) -> io::Result<()> {
        let old_entries = self.l1.len() as u64;
        if entries <= old_entries {
            return Ok(());
        }
        if entries * 8 > L1_BYTES {
            return Err(ErrorKind::StorageFull.into());
        }
        self.write_back()?;
        let old = (
            self.header.l1_offset,
            self.geometry.clusters(old_entries * 8),
        );
        let offset = self.move_l1(index(entries))?;
        let result = self.name_l1(offset, entries);
        if result.is_err() {
            // Which table the header names is not known.
            self.file.poison();
            return result;
        }
        self.release_l1(old);
        Ok(())
    }

    /// Points the header to the L1 table at `offset`, which is written.
    fn name_l1(&mut self, offset: u64, entries: u64) -> io::Result<()> {
        self.file.sync()?;
        let l1_size = u32::try_from(entries).map_err(|_| ErrorKind::StorageFull)?;
        self.header.l1_offset = offset;
        self.header.l1_size = l1_size;
        self.write_l1_fields(self.header.facts.virtual_size)?;
        self.file.sync()
    }

    /// Writes the disk's size into the header.
    fn write_size(&mut self) -> io::Result<()> {
        self.write_l1_fields(self.size)?;
        self.file.sync()?;
        self.header.facts.virtual_size = self.size;
        Ok(())
    }

    /// Size, encryption (none), L1 entries and L1 offset: together in the header, so changed
    /// together.
    fn write_l1_fields(&mut self, size: u64) -> io::Result<()> {
        let mut fields = size.to_be_bytes().to_vec();
        fields.extend_from_slice(&0_u32.to_be_bytes());
        fields.extend_from_slice(&self.header.l1_size.to_be_bytes());
        fields.extend_from_slice(&self.header.l1_offset.to_be_bytes());
        self.file.write(&fields, at::SIZE)
    }

    /// Writes the L1 table, lengthened to `entries`, to a new place.
    fn move_l1(&mut self, entries: usize) -> io::Result<u64> {
        let mut table = self.l1.clone();
        table.resize(entries, 0);
        let bytes = raw(&table);
        let clusters = self.geometry.clusters(bytes.len() as u64);
        let offset = self.allocate_together(clusters)?;
        self.file.write(&bytes, offset)?;
        self.write_refcounts()?;
        self.l1 = table;
        Ok(offset)
    }
}
