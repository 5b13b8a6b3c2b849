//! A fixed number of slices of metadata tables in memory.
//!
//! A slice is 4 KiB of a table, or a cluster where that is smaller: so a random access costs one
//! small read, and the memory does not depend on the image. Slices are known by their offset in
//! the file. What was changed is dirty until [`write_back`](SliceCache::write_back); a dirty slice
//! is never dropped to make room, since the order in which tables are written is its owner's to
//! keep. Hence [`crowded`](SliceCache::crowded): the owner asks before it changes a slice, and
//! writes back first if so; a part of the slices is then never dirty and can always be replaced.

use std::collections::HashMap;
use std::io::{self, ErrorKind};

use super::storage::{ImageFile, Storage, index};

/// Bytes of a slice, at most.
const SLICE: u64 = 4096;
/// Slices of a cache, at least.
const LEAST: usize = 8;
/// Offset of a slot that holds nothing: no table is there.
const NOWHERE: u64 = u64::MAX;

/// Where a slice is in the cache; valid until the next load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(usize);

#[derive(Debug)]
struct Slot {
    offset: u64,
    bytes: Box<[u8]>,
    dirty: bool,
    used: bool,
}

/// Slices of tables.
#[derive(Debug)]
pub(super) struct SliceCache {
    slice: u64,
    capacity: usize,
    places: HashMap<u64, usize>,
    slots: Vec<Slot>,
    /// Next slot that is considered for replacement.
    hand: usize,
    dirty: usize,
}

impl SliceCache {
    /// A cache of about `bytes` for tables in clusters of `cluster` bytes. Takes memory as it
    /// fills.
    pub(super) fn new(bytes: usize, cluster: u64) -> Self {
        let slice = SLICE.min(cluster);
        Self {
            slice,
            capacity: (bytes / index(slice)).max(LEAST),
            places: HashMap::new(),
            slots: Vec::new(),
            hand: 0,
            dirty: 0,
        }
    }

    /// Bytes of a slice.
    pub(super) fn slice(&self) -> u64 {
        self.slice
    }

    /// Whether so much is dirty that it must be written back before more is changed.
    pub(super) fn crowded(&self) -> bool {
        self.dirty >= self.capacity - self.capacity / 4
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.dirty != 0
    }

    /// The slice that contains byte `offset` of the file, if it is here.
    pub(super) fn find(&mut self, offset: u64) -> Option<Place> {
        let place = *self.places.get(&self.start(offset))?;
        self.slots.get_mut(place)?.used = true;
        Some(Place(place))
    }

    /// Reads the slice that contains byte `offset` of the file, in place of one that is not dirty.
    pub(super) fn load<S: Storage>(
        &mut self,
        file: &ImageFile<S>,
        offset: u64,
    ) -> io::Result<Place> {
        let start = self.start(offset);
        if let Some(place) = self.find(start) {
            return Ok(place);
        }
        let place = self.room()?;
        let slot = self.slots.get_mut(place).ok_or(ErrorKind::OutOfMemory)?;
        self.places.remove(&slot.offset);
        slot.offset = NOWHERE;
        file.read(&mut slot.bytes, start)?;
        slot.offset = start;
        slot.used = true;
        self.places.insert(start, place);
        Ok(Place(place))
    }

    /// A slot that may be overwritten: a new one, or the next that was not used for a round.
    fn room(&mut self) -> io::Result<usize> {
        if self.slots.len() < self.capacity {
            self.slots.push(Slot {
                offset: NOWHERE,
                bytes: vec![0; index(self.slice)].into_boxed_slice(),
                dirty: false,
                used: false,
            });
            return Ok(self.slots.len() - 1);
        }
        for _ in 0..2 * self.capacity {
            let place = self.hand;
            self.hand = (self.hand + 1) % self.capacity;
            match self.slots.get_mut(place) {
                Some(slot) if slot.dirty => {}
                Some(slot) if slot.used => slot.used = false,
                Some(_) => return Ok(place),
                None => break,
            }
        }
        Err(ErrorKind::OutOfMemory.into())
    }

    fn start(&self, offset: u64) -> u64 {
        offset & !(self.slice - 1)
    }

    /// A slice's bytes.
    pub(super) fn bytes(&self, place: Place) -> &[u8] {
        self.slots
            .get(place.0)
            .map(|slot| &*slot.bytes)
            .unwrap_or_default()
    }

    /// A slice's bytes, to change them.
    pub(super) fn bytes_mut(&mut self, place: Place) -> &mut [u8] {
        let Some(slot) = self.slots.get_mut(place.0) else {
            return &mut [];
        };
        if !slot.dirty {
            slot.dirty = true;
            self.dirty += 1;
        }
        &mut slot.bytes
    }

    /// The 64-bit entry that is at byte `offset` of the file, in its slice.
    pub(super) fn word(&self, place: Place, offset: u64) -> u64 {
        let at = index(offset % self.slice);
        self.bytes(place)
            .get(at..)
            .and_then(|bytes| bytes.first_chunk())
            .map_or(0, |bytes| u64::from_be_bytes(*bytes))
    }

    /// Changes that entry.
    pub(super) fn set_word(&mut self, place: Place, offset: u64, value: u64) {
        let at = index(offset % self.slice);
        let bytes = self.bytes_mut(place).get_mut(at..);
        if let Some(word) = bytes.and_then(|bytes| bytes.first_chunk_mut()) {
            *word = value.to_be_bytes();
        }
    }

    /// Writes what is dirty. After an error, what was not written is still dirty.
    pub(super) fn write_back<S: Storage>(&mut self, file: &mut ImageFile<S>) -> io::Result<()> {
        if self.dirty == 0 {
            return Ok(());
        }
        let mut dirty: Vec<&mut Slot> = self.slots.iter_mut().filter(|slot| slot.dirty).collect();
        dirty.sort_unstable_by_key(|slot| slot.offset);
        for slot in dirty {
            file.write(&slot.bytes, slot.offset)?;
            slot.dirty = false;
            self.dirty = self.dirty.saturating_sub(1);
        }
        Ok(())
    }

    /// Drops, unwritten, what is here of `len` bytes at `offset`: they begin another life.
    pub(super) fn forget(&mut self, offset: u64, len: u64) {
        let mut start = offset;
        while start < offset.saturating_add(len) {
            if let Some(place) = self.places.remove(&start) {
                if let Some(slot) = self.slots.get_mut(place) {
                    slot.offset = NOWHERE;
                    slot.used = false;
                    if std::mem::take(&mut slot.dirty) {
                        self.dirty = self.dirty.saturating_sub(1);
                    }
                }
            }
            start = start.saturating_add(self.slice);
        }
    }
}
