//! What an image needs beyond its tables to be written, and the order in which metadata reaches its
//! file.
//!
//! A change goes through three stages, each of which is in the file before the next begins:
//!
//! ```text
//!  1. refcounts go up, blocks before the table that names them; what is new is filled
//!     ----- barrier -----
//!  2. L2 entries and L1 entries refer to what is new, and no more to what was
//!     ----- barrier -----
//!  3. refcounts of what was go down, its room is given back
//! ```
//!
//! So at any moment the file holds no reference to what is not counted and filled: a crash leaks
//! clusters, at worst. New tables are whole before stage 2, which is why L1 and L2 need no barrier
//! between them: an entry more or less of a table that is referred to is an older disk, not a
//! broken one.
//!
//! Clusters that a request may still be written to are given back in [`Image::flush`] only, which
//! is called with no such request under way: else a late write would land in a stranger's cluster.

use std::io::{self, ErrorKind};

use super::entry::{COPIED, Entry, Table};
use super::error::{Qcow2Error, invalid};
use super::header::{CORRUPT, at};
use super::image::{Image, raw};
use super::refcount::Refcounts;
use super::reserved::Reserved;
use super::storage::{Storage, index};

/// Runs of clusters that wait for being given back, of either kind, at most.
const WAITING: usize = if cfg!(test) { 64 } else { 1 << 15 };
/// Bytes of the L1 table that are written at once.
const L1_PIECE: usize = 512;
/// Bytes of a table that are copied at once.
const COPY_PIECE: u64 = 64 << 10;

/// Clusters that nothing in memory refers to any more.
#[derive(Debug, Default)]
struct Frees {
    /// The first of a run, and how many.
    runs: Vec<(u64, u64)>,
    /// How many in all runs.
    clusters: u64,
}

impl Frees {
    fn push(&mut self, first: u64, clusters: u64) {
        self.clusters += clusters;
        match self.runs.last_mut() {
            Some((start, count)) if *start + *count == first => *count += clusters,
            _ => self.runs.push((first, clusters)),
        }
    }

    fn is_full(&self) -> bool {
        self.runs.len() >= WAITING
    }
}

/// State of an image that is written.
#[derive(Debug)]
pub(super) struct Writer {
    refcounts: Refcounts,
    reserved: Reserved,
    /// Tables, compressed and shared clusters: nobody writes to these.
    quiet: Frees,
    /// Clusters that were mapped for writing at some time.
    mapped: Frees,
}

impl<S: Storage> Image<S> {
    /// Makes a readable image writable.
    pub(super) fn enable_writing(&mut self, refcount_cache_bytes: usize) -> Result<(), Qcow2Error> {
        self.header.check_writable(self.file.len())?;
        let mut reserved = Reserved::new(&self.header, &self.file)?;
        let refcounts = Refcounts::open(
            &self.header,
            &self.file,
            &mut reserved,
            refcount_cache_bytes,
        )?;
        for table in self.l1.iter().filter_map(|&entry| Table::parse(entry)) {
            let cluster = self.geometry.cluster();
            if !self.header.is_place(table.offset, cluster, self.file.len()) {
                return Err(Qcow2Error::Table("L2 table is outside the file"));
            }
            reserved.add_table(table.offset)?;
        }
        self.writer = Some(Writer {
            refcounts,
            reserved,
            quiet: Frees::default(),
            mapped: Frees::default(),
        });
        Ok(())
    }

    fn writer(&mut self) -> io::Result<&mut Writer> {
        self.writer
            .as_mut()
            .ok_or_else(|| ErrorKind::ReadOnlyFilesystem.into())
    }

    /// Before a change: the image is written at all, and what waits is not too much.
    pub(super) fn begin(&mut self) -> io::Result<()> {
        let full = self.writer()?.quiet.is_full();
        self.file.check()?;
        // These say that something describes the image as it is, which is over.
        if self.header.autoclear != 0 {
            self.file.write(&[0; 8], at::AUTOCLEAR)?;
            self.file.sync()?;
            self.header.autoclear = 0;
        }
        if full {
            self.settle()?;
        }
        Ok(())
    }

    /// All three stages, but for clusters that may be under a write.
    pub(super) fn settle(&mut self) -> io::Result<()> {
        self.write_back()?;
        self.file.sync()?;
        let quiet = std::mem::take(&mut self.writer()?.quiet);
        self.give_back(quiet)
    }

    /// How often the cluster at `offset` is used.
    pub(super) fn refcount(&mut self, offset: u64) -> io::Result<u64> {
        let writer = self.writer.as_mut().ok_or(ErrorKind::ReadOnlyFilesystem)?;
        let cluster = offset >> self.geometry.cluster_bits;
        writer.refcounts.get(&mut self.file, cluster)
    }

    /// Whether clusters that may be under a write can be freed now: not when as many wait as the disk
    /// has, or a guest that writes, discards and never flushes would make the file longer without end.
    pub(super) fn may_unmap(&self) -> bool {
        let most = self.geometry.clusters(self.size);
        self.writer
            .as_ref()
            .is_some_and(|writer| !writer.mapped.is_full() && writer.mapped.clusters < most)
    }

    /// Takes between one and `most` clusters that lie together; where they are, and how many. What
    /// is in them reads as zero.
    pub(super) fn allocate(&mut self, most: u64) -> io::Result<(u64, u64)> {
        let cluster = self.geometry.cluster();
        let file = &mut self.file;
        let writer = self.writer.as_mut().ok_or(ErrorKind::ReadOnlyFilesystem)?;
        let taken = writer.refcounts.allocate(file, &mut writer.reserved, most);
        let (first, clusters) = match taken {
            Ok(taken) => taken,
            Err(error) => return Err(self.corrupt_if_invalid(error)),
        };
        let offset = first * cluster;
        if let Err(error) = file.claim(offset, clusters * cluster) {
            writer.refcounts.give_back(file, first, clusters);
            return Err(error);
        }
        Ok((offset, clusters))
    }

    /// Gives back what was allocated and is used for nothing.
    pub(super) fn unallocate(&mut self, offset: u64, clusters: u64) {
        let first = offset >> self.geometry.cluster_bits;
        if let Some(writer) = self.writer.as_mut() {
            writer.refcounts.give_back(&mut self.file, first, clusters);
        }
    }

    /// The L2 table for a byte of the disk, made or copied if this image has none of its own.
    pub(super) fn own_table(&mut self, offset: u64) -> io::Result<u64> {
        let old = self.table(offset)?;
        if let Some(table) = old.filter(|table| table.copied) {
            return Ok(table.offset);
        }
        let cluster = self.geometry.cluster();
        let (new, _) = self.allocate(1)?;
        if let Err(error) = self.fill_table(old, new) {
            self.unallocate(new, 1);
            return Err(error);
        }
        self.l2.forget(new, cluster);
        let entry = self.geometry.l1_index(offset);
        if let Some(word) = self.l1.get_mut(entry) {
            *word = new | COPIED;
            self.l1_dirty.insert(entry);
        }
        let bits = self.geometry.cluster_bits;
        if let (Some(old), Ok(writer)) = (old, self.writer()) {
            writer.quiet.push(old.offset >> bits, 1);
        }
        Ok(new)
    }

    fn fill_table(&mut self, old: Option<Table>, new: u64) -> io::Result<()> {
        let cluster = self.geometry.cluster();
        if let Some(old) = old {
            // A table that others use too is never dirty: the file has it as it is.
            let mut piece = vec![0; index(cluster.min(COPY_PIECE))];
            for at in (0..cluster).step_by(piece.len()) {
                self.file.read(&mut piece, old.offset + at)?;
                self.file.write(&piece, new + at)?;
            }
        }
        Ok(self.writer()?.reserved.add_table(new)?)
    }

    /// Changes the entry for a byte of the disk in an L2 table of this image's own. What the entry
    /// referred to before is freed, unless the new one refers to it too.
    pub(super) fn set_entry(&mut self, table: u64, offset: u64, new: Entry) -> io::Result<()> {
        let at = table + self.geometry.l2_index(offset) * 8;
        if self.l2.crowded() {
            self.write_back()?;
        }
        let place = self.l2.load(&self.file, at)?;
        let old = Entry::parse(self.l2.word(place, at), self.geometry)?;
        if old == new {
            return Ok(());
        }
        self.check_entry(old)?;
        self.l2.set_word(place, at, new.raw());
        let bits = self.geometry.cluster_bits;
        let writer = self.writer()?;
        match (old, new) {
            (
                Entry::Data { offset, .. } | Entry::ZeroAllocated { offset, .. },
                Entry::Data { offset: same, .. } | Entry::ZeroAllocated { offset: same, .. },
            ) if offset == same => {}
            (Entry::Data { offset, copied } | Entry::ZeroAllocated { offset, copied }, _) => {
                let frees = if copied {
                    &mut writer.mapped
                } else {
                    &mut writer.quiet
                };
                frees.push(offset >> bits, 1);
            }
            (Entry::Compressed { offset, len }, _) => {
                let first = offset >> bits;
                // One at a time: neighbours share the clusters at either end.
                for cluster in first..=(offset + len - 1) >> bits {
                    writer.quiet.push(cluster, 1);
                }
            }
            (Entry::Unallocated | Entry::Zero, _) => {}
        }
        Ok(())
    }

    /// Whether what an entry refers to can be data: inside the file, and no metadata.
    pub(super) fn check_entry(&mut self, entry: Entry) -> io::Result<()> {
        let (offset, len) = match entry {
            Entry::Unallocated | Entry::Zero => return Ok(()),
            Entry::Data { offset, .. } | Entry::ZeroAllocated { offset, .. } => {
                (offset, self.geometry.cluster())
            }
            Entry::Compressed { offset, len } => (offset, len),
        };
        let first = offset - self.geometry.inside(offset);
        let end = self.geometry.round_up(offset.saturating_add(len));
        let outside = first >= self.geometry.round_up(self.file.len());
        if outside || self.writer()?.reserved.overlaps(first, end - first) {
            let error = invalid("L2 entry refers to metadata, or to nothing");
            return Err(self.corrupt_if_invalid(error));
        }
        Ok(())
    }

    /// Ends writing, for good, if metadata has turned out to make no sense.
    pub(super) fn corrupt_if_invalid(&mut self, error: io::Error) -> io::Error {
        if error.kind() == ErrorKind::InvalidData && self.writer.is_some() {
            if self.geometry.version >= 3 && self.header.incompatible & CORRUPT == 0 {
                self.header.incompatible |= CORRUPT;
                let bits = self.header.incompatible.to_be_bytes();
                let _ = self.file.write(&bits, at::INCOMPATIBLE);
            }
            self.file.poison();
            tracing::error!(%error, "qcow2 image is corrupt, it is not written any more");
        }
        error
    }

    /// Writes what is dirty, in order: stages 1 and 2.
    pub(super) fn write_back(&mut self) -> io::Result<()> {
        if !self.l2.is_dirty() && self.l1_dirty.is_empty() {
            return Ok(());
        }
        let file = &mut self.file;
        let writer = self.writer.as_mut().ok_or(ErrorKind::ReadOnlyFilesystem)?;
        writer.refcounts.write_back(file)?;
        file.barrier()?;
        self.l2.write_back(file)?;
        while let Some(&entry) = self.l1_dirty.first() {
            let start = entry - entry % L1_PIECE;
            let end = self.l1.len().min(start + L1_PIECE);
            let piece = self.l1.get(start..end).unwrap_or_default();
            file.write(&raw(piece), self.header.l1_offset + start as u64 * 8)?;
            self.l1_dirty = self.l1_dirty.split_off(&end);
        }
        Ok(())
    }

    /// All three stages, after which everything written before is on stable storage.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.settle()?;
        let mapped = std::mem::take(&mut self.writer()?.mapped);
        self.give_back(mapped)?;
        let writer = self.writer.as_mut().ok_or(ErrorKind::ReadOnlyFilesystem)?;
        // Not waited for: what a crash loses of this is leaked.
        writer.refcounts.write_back(&mut self.file)
    }

    /// Whether metadata is not in the file yet, or clusters wait for being given back.
    pub(super) fn is_dirty(&self) -> bool {
        self.writer.as_ref().is_some_and(|writer| {
            let waiting = !writer.quiet.runs.is_empty() || !writer.mapped.runs.is_empty();
            waiting || self.l2.is_dirty() || !self.l1_dirty.is_empty()
        })
    }

    /// Stages 1 and 2, and 3 if something waits for it: what is written is left to the storage
    /// where its order does not matter.
    pub(super) fn close(&mut self) -> io::Result<()> {
        let writer = self.writer()?;
        if !writer.quiet.runs.is_empty() || !writer.mapped.runs.is_empty() {
            return self.flush();
        }
        self.write_back()?;
        self.write_refcounts()
    }

    /// Stage 3. What could not be given back waits for the next time.
    fn give_back(&mut self, frees: Frees) -> io::Result<()> {
        let cluster = self.geometry.cluster();
        let mut free = Frees::default();
        let mut left = Frees::default();
        let mut failure = None;
        let runs = frees.runs.into_iter();
        for number in runs.flat_map(|(first, clusters)| first..first + clusters) {
            let writer = self.writer.as_mut().ok_or(ErrorKind::ReadOnlyFilesystem)?;
            if failure.is_some() {
                left.push(number, 1);
                continue;
            }
            match writer.refcounts.release(&mut self.file, number) {
                Ok(true) => {
                    writer.reserved.remove_table(number * cluster);
                    free.push(number, 1);
                }
                Ok(false) => {}
                Err(error) => {
                    left.push(number, 1);
                    failure = Some(error);
                }
            }
        }
        for (first, clusters) in free.runs {
            self.file
                .storage()
                .release(first * cluster, clusters * cluster);
        }
        let Some(error) = failure else {
            return Ok(());
        };
        // Nothing refers to these in the file, and nobody writes to them any more.
        self.writer()?.quiet.runs.extend(left.runs);
        Err(self.corrupt_if_invalid(error))
    }
}

/// For an L1 table that moves.
impl<S: Storage> Image<S> {
    /// Takes clusters that lie together, for an L1 table; where they are. They read as zero.
    pub(super) fn allocate_together(&mut self, clusters: u64) -> io::Result<u64> {
        let file = &mut self.file;
        let writer = self.writer.as_mut().ok_or(ErrorKind::ReadOnlyFilesystem)?;
        let taken = writer
            .refcounts
            .allocate_together(file, &mut writer.reserved, clusters);
        taken.map_err(|error| self.corrupt_if_invalid(error))
    }

    /// Stage 1 alone.
    pub(super) fn write_refcounts(&mut self) -> io::Result<()> {
        let writer = self.writer.as_mut().ok_or(ErrorKind::ReadOnlyFilesystem)?;
        writer.refcounts.write_back(&mut self.file)
    }

    /// The header names another L1 table than the one at this offset, of so many clusters.
    pub(super) fn release_l1(&mut self, (offset, clusters): (u64, u64)) {
        let bytes = self.geometry.round_up(self.header.l1_bytes());
        let start = self.header.l1_offset;
        let bits = self.geometry.cluster_bits;
        if let Some(writer) = self.writer.as_mut() {
            writer.reserved.l1 = start..start.saturating_add(bytes);
            writer.quiet.push(offset >> bits, clusters);
        }
    }
}
