//! Guest RAM as devices reach it: by guest-physical address, checked, and through volatile accesses.
//!
//! The guest writes this memory at any instant, so nothing here gives out a Rust slice of it, and a
//! caller reads a field once and checks the copy. Only RAM is translated: an address of a device's
//! window is [`OutsideRam`] like any hole, so no device can be made to access another. So is RAM that is
//! not plugged in just then ([`blocks`]), though this process has it mapped.

pub mod blocks;
pub(crate) mod followers;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use vm_memory::{
    AtomicAccess, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion,
    GuestRegionMmap, MemoryRegionAddress, VolatileSlice,
};

use self::blocks::Blocks;
use self::followers::Follower;

/// An address range that is not wholly inside one piece of RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{len:#x} bytes at {address:#x} are not in RAM")]
pub struct OutsideRam {
    /// First guest-physical address.
    pub address: u64,
    /// Length in bytes.
    pub len: u64,
}

/// The RAM of one guest. A clone refers to the same memory.
#[derive(Debug, Clone)]
pub struct GuestRam {
    map: GuestMemoryMmap<()>,
    /// Of the RAM from `blocks_start` on, which is there.
    blocks: Option<Arc<Blocks>>,
    blocks_start: u64,
}

impl GuestRam {
    /// The RAM that `map` describes.
    #[must_use]
    pub fn new(map: GuestMemoryMmap<()>) -> Self {
        Self {
            map,
            blocks: None,
            blocks_start: u64::MAX,
        }
    }

    /// The RAM that `map` describes, of which what lies from the start of `blocks` on is RAM while it is
    /// plugged.
    #[must_use]
    pub fn with_blocks(map: GuestMemoryMmap<()>, blocks: Arc<Blocks>) -> Self {
        Self {
            map,
            blocks_start: blocks.range().start,
            blocks: Some(blocks),
        }
    }

    /// The `len` bytes at `address`, which lie in one contiguous piece of RAM.
    ///
    /// # Errors
    /// [`OutsideRam`]; also when the end of the range has no address.
    pub fn slice(&self, address: u64, len: usize) -> Result<VolatileSlice<'_, ()>, OutsideRam> {
        let outside = OutsideRam {
            address,
            len: len as u64,
        };
        let region = self.region(address).ok_or(outside)?;
        if !self.is_plugged(address, len as u64) {
            return Err(outside);
        }
        let offset = address - region.start_addr().0;
        region
            .get_slice(MemoryRegionAddress(offset), len)
            .map_err(|_| outside)
    }

    /// Whether the `len` bytes at `address` lie in one contiguous piece of RAM.
    #[must_use]
    pub fn contains(&self, address: u64, len: u64) -> bool {
        self.region(address).is_some_and(|region| {
            let room = region.len() - (address - region.start_addr().0);
            len <= room && self.is_plugged(address, len)
        })
    }

    /// Each piece of RAM that is there now: its first guest-physical address, its bytes, and where it is mapped
    /// in this process. For those who have somebody else access it, by addresses of this process, and have him
    /// [`follow`](Self::follow).
    ///
    /// They are no more than `most` unless the machine has as many without its blocks: of pieces that blocks
    /// make too many, those with the least between them are given as one, as if that were plugged.
    pub(crate) fn pieces(&self, most: usize) -> Vec<(u64, u64, u64)> {
        let regions = self.map.iter().map(|region| {
            let mapped = region.as_ptr() as u64;
            (region.start_addr().0, region.len(), mapped)
        });
        let Some(blocks) = &self.blocks else {
            return regions.collect();
        };
        let (of_blocks, mut pieces): (Vec<_>, Vec<_>) =
            regions.partition(|(start, ..)| *start >= self.blocks_start);
        let room = most.saturating_sub(pieces.len());
        let runs = blocks.covering_runs(room).into_iter();
        // They lie in one region.
        pieces.extend(
            runs.zip(of_blocks.into_iter().cycle())
                .map(|(run, (start, _, mapped))| {
                    (run.address, run.len, mapped + (run.address - start))
                }),
        );
        pieces
    }

    /// Has `follower` told, for as long as it is held, of every change of what [`pieces`](Self::pieces) gives.
    pub(crate) fn follow(&self, follower: &Arc<dyn Follower>) {
        if let Some(blocks) = &self.blocks {
            blocks.add_follower(follower);
        }
    }

    /// Whether the bytes, in one piece of RAM, are not in blocks that are not plugged.
    fn is_plugged(&self, address: u64, len: u64) -> bool {
        let blocks = self.blocks.as_ref();
        address < self.blocks_start || blocks.is_none_or(|blocks| blocks.holds(address, len))
    }

    /// The piece of RAM that `address` is in. Most machines have one or two, for which looking costs less
    /// than searching; it is done several times for each request.
    fn region(&self, address: u64) -> Option<&GuestRegionMmap<()>> {
        self.map
            .iter()
            .take(2)
            .find(|region| address.wrapping_sub(region.start_addr().0) < region.len())
            .or_else(|| self.map.find_region(GuestAddress(address)))
    }

    /// Copies from RAM into `data`, once.
    ///
    /// # Errors
    /// [`OutsideRam`]; nothing is copied then.
    pub fn read(&self, address: u64, data: &mut [u8]) -> Result<(), OutsideRam> {
        self.slice(address, data.len())?.copy_to(data);
        Ok(())
    }

    /// Copies `data` into RAM.
    ///
    /// # Errors
    /// [`OutsideRam`]; nothing is copied then.
    pub fn write(&self, address: u64, data: &[u8]) -> Result<(), OutsideRam> {
        self.slice(address, data.len())?.copy_from(data);
        Ok(())
    }

    /// Reads an aligned integer in one access.
    ///
    /// # Errors
    /// [`OutsideRam`], also for an address that is not aligned to its size.
    pub fn load<T: AtomicAccess>(&self, address: u64, order: Ordering) -> Result<T, OutsideRam> {
        let slice = self.slice(address, size_of::<T>())?;
        slice.load(0, order).map_err(|_| OutsideRam {
            address,
            len: size_of::<T>() as u64,
        })
    }

    /// Writes an aligned integer in one access.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub fn store<T: AtomicAccess>(
        &self,
        address: u64,
        value: T,
        order: Ordering,
    ) -> Result<(), OutsideRam> {
        let slice = self.slice(address, size_of::<T>())?;
        slice.store(value, 0, order).map_err(|_| OutsideRam {
            address,
            len: size_of::<T>() as u64,
        })
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// `size` bytes of RAM from address 0.
    pub(crate) fn ram(size: usize) -> GuestRam {
        GuestRam::new(
            GuestMemoryMmap::from_ranges(&[(GuestAddress(0), size)]).expect("memory for a test"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_pieces() -> GuestRam {
        let ranges = [
            (GuestAddress(0), 0x2000),
            (GuestAddress(0x1_0000_0000), 0x1000),
        ];
        GuestRam::new(GuestMemoryMmap::from_ranges(&ranges).expect("memory for a test"))
    }

    #[test]
    fn only_ranges_wholly_in_one_piece_are_ram() {
        let ram = two_pieces();
        for (address, len, inside) in [
            (0, 0x2000, true),
            (0x1fff, 1, true),
            (0x1fff, 2, false),
            (0x2000, 1, false),
            (0x1_0000_0000, 0x1000, true),
            (0xffff_ffff, 2, false),
            (u64::MAX, 1, false),
            (0, u64::MAX, false),
            (u64::MAX, u64::MAX, false),
        ] {
            assert_eq!(
                ram.contains(address, len),
                inside,
                "{len:#x} at {address:#x}"
            );
            if let Ok(len) = usize::try_from(len) {
                assert_eq!(
                    ram.slice(address, len).is_ok(),
                    inside,
                    "{len:#x} at {address:#x}"
                );
            }
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let ram = two_pieces();
        ram.write(0x1_0000_0ffc, &[1, 2, 3, 4]).expect("in RAM");
        assert_eq!(
            ram.load(0x1_0000_0ffc, Ordering::Acquire),
            Ok(0x0403_0201_u32)
        );
        ram.store(0x10, 0xabcd_u16, Ordering::Release)
            .expect("in RAM");
        let mut bytes = [0; 2];
        ram.read(0x10, &mut bytes).expect("in RAM");
        assert_eq!(bytes, [0xcd, 0xab]);
    }

    #[test]
    fn a_block_is_ram_while_it_is_plugged() {
        const START: u64 = 0x1_0000_0000;
        const BLOCK: u64 = 2 << 20;
        let ranges = [(GuestAddress(0), 0x2000), (GuestAddress(START), 3 << 21)];
        let map = GuestMemoryMmap::from_ranges(&ranges).expect("memory for a test");
        let blocks = Arc::new(Blocks::new(START, 3 * BLOCK, BLOCK).expect("whole blocks"));
        let ram = GuestRam::with_blocks(map, Arc::clone(&blocks));
        assert!(ram.contains(0, 0x2000), "what a machine starts with stays");
        let there = || {
            let at = [START, START + BLOCK, START + 2 * BLOCK];
            at.map(|at| ram.contains(at, BLOCK) && ram.slice(at, 1).is_ok())
        };
        assert_eq!(there(), [false; 3]);
        blocks.set(&blocks.run(START, 2).expect("whole"), true);
        assert_eq!(there(), [true, true, false]);
        assert!(ram.contains(START + 4096, 2 * BLOCK - 4096));
        assert!(!ram.contains(START + 4096, 2 * BLOCK - 4095));
        assert!(ram.write(START + 2 * BLOCK - 1, &[1, 2]).is_err());
        blocks.set(&blocks.run(START, 1).expect("whole"), false);
        assert_eq!(there(), [false, true, false]);
        assert!(ram.load::<u64>(START, Ordering::Relaxed).is_err());
    }

    #[test]
    fn its_pieces_are_what_is_plugged_and_where_they_are_too_many_a_little_more() {
        const START: u64 = 0x1_0000_0000;
        const BLOCK: u64 = 2 << 20;
        let ranges = [(GuestAddress(0), 0x2000), (GuestAddress(START), 12 << 21)];
        let map = GuestMemoryMmap::from_ranges(&ranges).expect("memory for a test");
        let host = map
            .find_region(GuestAddress(START))
            .expect("there")
            .as_ptr() as u64;
        let blocks = Arc::new(Blocks::new(START, 12 * BLOCK, BLOCK).expect("whole blocks"));
        let ram = GuestRam::with_blocks(map, Arc::clone(&blocks));
        let pieces = |most| {
            let mut pieces = ram.pieces(most).into_iter();
            let (start, len, _) = pieces.next().expect("what a machine starts with");
            assert_eq!((start, len), (0, 0x2000));
            let blocks = pieces.map(|(start, len, mapped)| {
                assert_eq!(mapped - host, start - START);
                ((start - START) / BLOCK, len / BLOCK)
            });
            blocks.collect::<Vec<_>>()
        };
        assert_eq!(pieces(64), []);
        // 0, 3 and 4, 6, 11.
        for (block, count) in [(0, 1), (3, 2), (6, 1), (11, 1)] {
            let run = blocks.run(START + block * BLOCK, count).expect("whole");
            blocks.set(&run, true);
        }
        assert_eq!(pieces(64), [(0, 1), (3, 2), (6, 1), (11, 1)]);
        assert_eq!(pieces(5), [(0, 1), (3, 2), (6, 1), (11, 1)]);
        assert_eq!(pieces(4), [(0, 1), (3, 4), (11, 1)]);
        assert_eq!(pieces(3), [(0, 7), (11, 1)]);
        assert_eq!(pieces(2), [(0, 12)]);
        assert_eq!(
            pieces(0),
            [(0, 12)],
            "it is for the asker to see that it is too much"
        );
        blocks.set(&blocks.all(), true);
        assert_eq!(pieces(64), [(0, 12)]);
    }

    #[test]
    fn an_integer_that_is_not_aligned_is_refused() {
        assert!(two_pieces().load::<u16>(0x11, Ordering::Relaxed).is_err());
    }
}
