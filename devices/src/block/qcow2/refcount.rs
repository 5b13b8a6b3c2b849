//! How often each cluster of a file is used, and which are free.
//!
//! The refcount table is in memory (8 MiB at most), its blocks go through a cache of slices. In a
//! file, a count that is too high is a leak and one that is too low is corruption. So counts may
//! be written at any time after they went up, and go down only after nothing in the file refers to
//! the cluster any more; a block is in the file before the table names it.

use std::io::{self, ErrorKind};
use std::ops::Range;

use super::cache::{Place, SliceCache};
use super::entry::END_OF_OFFSETS;
use super::error::{Qcow2Error, invalid};
use super::header::{Geometry, Header, REFCOUNT_TABLE_BYTES, at};
use super::image::{raw, words};
use super::reserved::Reserved;
use super::storage::{ImageFile, Storage, index};

/// Clusters that are looked at for a free one before the search goes on at the end of the file: a
/// full TiB in clusters of 64 KiB. It bounds the time an allocation takes.
const SEARCH: u64 = if cfg!(test) { 1 << 16 } else { 1 << 24 };

/// Refcounts of an image that is written.
#[derive(Debug)]
pub(super) struct Refcounts {
    geometry: Geometry,
    /// Binary logarithm of a refcount's bits, at most 6.
    order: u32,
    /// Where the refcount table is.
    table_offset: u64,
    /// Offsets of the blocks, 0 where there is none and all of its clusters are free.
    table: Vec<u64>,
    /// Entries of the table that are not so in the file yet.
    table_dirty: Range<usize>,
    /// The table in memory has outgrown its place in the file: its entries are not written.
    moving: bool,
    blocks: SliceCache,
    /// Where the search for a free cluster begins.
    hint: u64,
}

impl Refcounts {
    /// Reads the table, and reserves the places of its blocks.
    pub(super) fn open<S: Storage>(
        header: &Header,
        file: &ImageFile<S>,
        reserved: &mut Reserved,
        cache_bytes: usize,
    ) -> Result<Self, Qcow2Error> {
        let geometry = header.geometry;
        let mut bytes = vec![0; index(header.refcount_table_bytes())];
        file.read(&mut bytes, header.refcount_table_offset)?;
        let table = words(&bytes);
        for &block in table.iter().filter(|&&block| block != 0) {
            if !header.is_place(block, geometry.cluster(), file.len()) {
                return Err(Qcow2Error::Table("refcount block is outside the file"));
            }
            reserved.add_table(block)?;
        }
        Ok(Self {
            geometry,
            order: header.refcount_order,
            table_offset: header.refcount_table_offset,
            table,
            table_dirty: 0..0,
            moving: false,
            blocks: SliceCache::new(cache_bytes, geometry.cluster()),
            hint: 0,
        })
    }

    /// Refcounts in a block.
    fn per_block(&self) -> u64 {
        (self.geometry.cluster() * 8) >> self.order
    }

    /// Refcounts in a slice of a block.
    fn per_slice(&self) -> u64 {
        (self.blocks.slice() * 8) >> self.order
    }

    /// Where the block with a cluster's refcount is.
    fn block(&self, cluster: u64) -> Option<u64> {
        let block = self.table.get(index(cluster / self.per_block()));
        block.copied().filter(|&block| block != 0)
    }

    /// The slice with the refcount of a cluster whose block is at `block`.
    fn slice<S: Storage>(
        &mut self,
        file: &mut ImageFile<S>,
        block: u64,
        cluster: u64,
    ) -> io::Result<Place> {
        let in_block = cluster % self.per_block();
        let at = block + in_block / self.per_slice() * self.blocks.slice();
        if self.blocks.crowded() {
            self.write_back(file)?;
        }
        self.blocks.load(file, at)
    }

    fn in_slice(&self, cluster: u64) -> usize {
        index(cluster % self.per_slice())
    }

    /// How often a cluster is used.
    pub(super) fn get<S: Storage>(
        &mut self,
        file: &mut ImageFile<S>,
        cluster: u64,
    ) -> io::Result<u64> {
        let Some(block) = self.block(cluster) else {
            return Ok(0);
        };
        let place = self.slice(file, block, cluster)?;
        Ok(count(
            self.blocks.bytes(place),
            self.order,
            self.in_slice(cluster),
        ))
    }

    /// Changes a count. Its block exists.
    fn set<S: Storage>(
        &mut self,
        file: &mut ImageFile<S>,
        cluster: u64,
        value: u64,
    ) -> io::Result<()> {
        let block = self.block(cluster).ok_or(ErrorKind::InvalidData)?;
        let place = self.slice(file, block, cluster)?;
        let at = self.in_slice(cluster);
        set_count(self.blocks.bytes_mut(place), self.order, at, value);
        Ok(())
    }

    /// A cluster is used once less. True if it is free now.
    pub(super) fn release<S: Storage>(
        &mut self,
        file: &mut ImageFile<S>,
        cluster: u64,
    ) -> io::Result<bool> {
        let count = self.get(file, cluster)?;
        let less = count
            .checked_sub(1)
            .ok_or_else(|| invalid("cluster in use has a refcount of zero"))?;
        self.set(file, cluster, less)?;
        if less == 0 {
            self.hint = self.hint.min(cluster);
        }
        Ok(less == 0)
    }

    /// Takes between one and `most` free clusters that lie together; the first, and how many. What
    /// is in them is anything.
    pub(super) fn allocate<S: Storage>(
        &mut self,
        file: &mut ImageFile<S>,
        reserved: &mut Reserved,
        most: u64,
    ) -> io::Result<(u64, u64)> {
        loop {
            let first = self.find_free(file)?;
            if first / self.per_block() >= self.table.len() as u64 {
                self.grow_table(file, reserved, first)?;
                continue;
            }
            let Some(block) = self.block(first) else {
                self.add_block(file, reserved, first, first)?;
                continue;
            };
            let place = self.slice(file, block, first)?;
            let from = self.in_slice(first);
            let left = self.per_slice() - from as u64;
            let mut taken = 0;
            while taken < most.min(left) && self.is_free(reserved, place, from, first, taken)? {
                let at = from + index(taken);
                set_count(self.blocks.bytes_mut(place), self.order, at, 1);
                taken += 1;
            }
            self.hint = first + taken;
            return Ok((first, taken));
        }
    }

    /// Whether cluster `first` plus `ahead` is free, whose count is that far behind `from` in
    /// `place`.
    fn is_free(
        &self,
        reserved: &Reserved,
        place: Place,
        from: usize,
        first: u64,
        ahead: u64,
    ) -> io::Result<bool> {
        let at = from + index(ahead);
        if count(self.blocks.bytes(place), self.order, at) != 0 {
            return Ok(false);
        }
        let offset = self.offset(first + ahead)?;
        if !reserved.overlaps(offset, self.geometry.cluster()) {
            return Ok(true);
        }
        if ahead > 0 {
            return Ok(false);
        }
        Err(invalid("refcounts say that metadata is free"))
    }

    /// Where a cluster is, if the format's offsets reach it.
    fn offset(&self, cluster: u64) -> io::Result<u64> {
        cluster
            .checked_mul(self.geometry.cluster())
            .filter(|&offset| offset < END_OF_OFFSETS)
            .ok_or_else(|| ErrorKind::StorageFull.into())
    }

    /// Gives back clusters that were just allocated and that nothing refers to.
    pub(super) fn give_back<S: Storage>(
        &mut self,
        file: &mut ImageFile<S>,
        first: u64,
        clusters: u64,
    ) {
        for cluster in first..first + clusters {
            // A count that cannot be lowered is a leak.
            let _ = self.release(file, cluster);
        }
    }

    /// The first free cluster at or behind the hint.
    fn find_free<S: Storage>(&mut self, file: &mut ImageFile<S>) -> io::Result<u64> {
        let end = self.geometry.clusters(file.len());
        if let Some(cluster) = self.search(file, self.hint)? {
            return Ok(cluster);
        }
        // Behind the end there is little but what a crash leaked.
        self.hint = self.hint.max(end);
        self.search(file, self.hint)?
            .ok_or_else(|| ErrorKind::StorageFull.into())
    }

    fn search<S: Storage>(
        &mut self,
        file: &mut ImageFile<S>,
        from: u64,
    ) -> io::Result<Option<u64>> {
        let mut cluster = from;
        while cluster - from < SEARCH {
            let Some(block) = self.block(cluster) else {
                return Ok(Some(cluster));
            };
            let place = self.slice(file, block, cluster)?;
            let from = self.in_slice(cluster);
            if let Some(ahead) = first_free(self.blocks.bytes(place), self.order, from) {
                return Ok(Some(cluster + ahead as u64));
            }
            cluster += self.per_slice() - from as u64;
        }
        self.hint = self.hint.max(cluster);
        Ok(None)
    }

    /// Makes the block for `cluster`, which has none, in the free cluster `home`. Its own count is
    /// in it or in another block that exists.
    fn add_block<S: Storage>(
        &mut self,
        file: &mut ImageFile<S>,
        reserved: &mut Reserved,
        cluster: u64,
        home: u64,
    ) -> io::Result<()> {
        let entry = index(cluster / self.per_block());
        let offset = self.offset(home)?;
        if self.table.get(entry) != Some(&0) {
            return Err(ErrorKind::InvalidData.into());
        }
        // Not later: the table is not to be written between its change and the block's.
        if self.blocks.crowded() {
            self.write_back(file)?;
        }
        reserved.add_table(offset)?;
        self.blocks.forget(offset, self.geometry.cluster());
        if let Err(error) = file.claim(offset, self.geometry.cluster()) {
            reserved.remove_table(offset);
            return Err(error);
        }
        if let Some(block) = self.table.get_mut(entry) {
            *block = offset;
        }
        self.table_dirty = if self.table_dirty.is_empty() {
            entry..entry + 1
        } else {
            self.table_dirty.start.min(entry)..self.table_dirty.end.max(entry + 1)
        };
        let result = self.set(file, home, 1);
        if result.is_err() {
            file.poison();
        }
        result
    }

    /// Takes `clusters` clusters that lie together behind everything else in the file, for a table
    /// that is longer than a cluster. What is in them is zero. The table reaches as far as that
    /// takes.
    fn append<S: Storage>(
        &mut self,
        file: &mut ImageFile<S>,
        reserved: &mut Reserved,
        first: u64,
        clusters: u64,
    ) -> io::Result<()> {
        // Blocks come behind what they are for, and are counted by themselves or one another.
        let mut end = first + clusters;
        let mut homes = Vec::new();
        let mut block = first / self.per_block();
        while block * self.per_block() < end {
            if self.block(block * self.per_block()).is_none() {
                homes.push((block * self.per_block(), end));
                end += 1;
            }
            block += 1;
        }
        let offset = self.offset(first)?;
        self.offset(end)?;
        let len = clusters << self.geometry.cluster_bits;
        if reserved.overlaps(offset, len) {
            return Err(invalid("refcounts say that metadata is free"));
        }
        // From the last one on: it is the one whose own count needs no other.
        for &(cluster, home) in homes.iter().rev() {
            self.add_block(file, reserved, cluster, home)?;
        }
        for cluster in first..first + clusters {
            self.set(file, cluster, 1)?;
        }
        file.claim(offset, len)
    }

    /// The first cluster behind all that is used and behind the end of the file.
    fn end<S: Storage>(&mut self, file: &mut ImageFile<S>) -> io::Result<u64> {
        let least = self.geometry.clusters(file.len());
        let blocks = self.table.iter().rposition(|&block| block != 0);
        let counted = blocks.map_or(0, |last| (last as u64 + 1) * self.per_block());
        let mut end = counted;
        while end > least && counted - end < SEARCH && self.get(file, end - 1)? == 0 {
            end -= 1;
        }
        Ok(end.max(least))
    }

    /// Takes `clusters` clusters that lie together; where they are. What is in them is zero.
    pub(super) fn allocate_together<S: Storage>(
        &mut self,
        file: &mut ImageFile<S>,
        reserved: &mut Reserved,
        clusters: u64,
    ) -> io::Result<u64> {
        let first = self.end(file)?;
        // A block for every block is more than enough.
        let reach = first + 2 * clusters + 2;
        if reach / self.per_block() >= self.table.len() as u64 {
            self.grow_table(file, reserved, reach)?;
            return self.allocate_together(file, reserved, clusters);
        }
        self.append(file, reserved, first, clusters)?;
        self.offset(first)
    }

    /// Makes a longer refcount table, long enough for `cluster` and half as much again.
    fn grow_table<S: Storage>(
        &mut self,
        file: &mut ImageFile<S>,
        reserved: &mut Reserved,
        cluster: u64,
    ) -> io::Result<()> {
        self.write_back(file)?;
        let first = self.end(file)?;
        let old = self.table.len() as u64;
        let least = first.max(cluster) / self.per_block() + 2;
        let entries = least.max(old + old / 2);
        // What the table itself and its blocks take is much less than that.
        let entries = entries + entries / 16 + 4;
        let clusters = entries.div_ceil(self.geometry.cluster() / 8);
        if clusters << self.geometry.cluster_bits > REFCOUNT_TABLE_BYTES {
            return Err(ErrorKind::StorageFull.into());
        }
        let result = self.move_table(file, reserved, first, clusters);
        if result.is_err() {
            // The table in memory has no place in the file.
            file.poison();
        }
        result
    }

    fn move_table<S: Storage>(
        &mut self,
        file: &mut ImageFile<S>,
        reserved: &mut Reserved,
        first: u64,
        clusters: u64,
    ) -> io::Result<()> {
        let old = self.table_offset..self.table_offset + self.table.len() as u64 * 8;
        let bytes = clusters << self.geometry.cluster_bits;
        self.table.resize(index(bytes / 8), 0);
        self.moving = true;
        self.append(file, reserved, first, clusters)?;
        self.blocks.write_back(file)?;
        let offset = self.offset(first)?;
        file.write(&raw(&self.table), offset)?;
        file.sync()?;
        let mut header = offset.to_be_bytes().to_vec();
        let clusters = u32::try_from(clusters).map_err(|_| ErrorKind::StorageFull)?;
        header.extend_from_slice(&clusters.to_be_bytes());
        file.write(&header, at::REFCOUNT_TABLE)?;
        file.sync()?;
        self.table_offset = offset;
        self.table_dirty = 0..0;
        self.moving = false;
        reserved.refcount_table = offset..offset + bytes;
        let cluster = self.geometry.cluster();
        for at in (old.start..old.end).step_by(index(cluster)) {
            self.release(file, at / cluster)?;
        }
        Ok(())
    }

    /// Writes what is dirty: blocks, and behind a barrier the table that names new ones.
    pub(super) fn write_back<S: Storage>(&mut self, file: &mut ImageFile<S>) -> io::Result<()> {
        self.blocks.write_back(file)?;
        if self.table_dirty.is_empty() || self.moving {
            return Ok(());
        }
        file.barrier()?;
        let dirty = self.table.get(self.table_dirty.clone()).unwrap_or_default();
        let offset = self.table_offset + self.table_dirty.start as u64 * 8;
        file.write(&raw(dirty), offset)?;
        self.table_dirty = 0..0;
        Ok(())
    }
}

/// The refcount at place `at` of a slice, of 2 to the power of `order` bits.
fn count(slice: &[u8], order: u32, at: usize) -> u64 {
    if order < 3 {
        let bit = at << order;
        let byte = slice.get(bit / 8).copied().unwrap_or_default();
        return (u64::from(byte) >> (bit % 8)) & ((1 << (1_u32 << order)) - 1);
    }
    let width = 1 << (order - 3);
    let bytes = slice.get(at * width..(at + 1) * width);
    let bytes = bytes.unwrap_or_default().iter();
    bytes.fold(0, |value, &byte| value << 8 | u64::from(byte))
}

/// How far behind place `from` of a slice the first refcount of zero is.
fn first_free(slice: &[u8], order: u32, from: usize) -> Option<usize> {
    if order < 3 {
        let places = (slice.len() * 8) >> order;
        return (from..places).position(|at| count(slice, order, at) == 0);
    }
    let width = 1 << (order - 3);
    slice
        .get(from * width..)?
        .chunks_exact(width)
        .position(|bytes| bytes.iter().all(|&byte| byte == 0))
}

/// Changes it.
fn set_count(slice: &mut [u8], order: u32, at: usize, value: u64) {
    if order < 3 {
        let bit = at << order;
        let mask = ((1_u32 << (1_u32 << order)) - 1) << (bit % 8);
        if let Some(byte) = slice.get_mut(bit / 8) {
            let new = (value << (bit % 8)) & u64::from(mask);
            let kept = u64::from(*byte) & !u64::from(mask);
            *byte = u8::try_from(kept | new).unwrap_or(*byte);
        }
        return;
    }
    let width = 1 << (order - 3);
    let value = value.to_be_bytes();
    let value = value.get(8 - width..).unwrap_or_default();
    if let Some(bytes) = slice.get_mut(at * width..(at + 1) * width) {
        bytes.copy_from_slice(value);
    }
}
