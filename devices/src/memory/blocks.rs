//! RAM that comes and goes in blocks while the guest runs (virtio 1.3 §5.15): which blocks are there.
//!
//! The blocks lie in one range of guest-physical addresses, behind all other RAM. What is noted here is
//! noted once, for the device that plugs them and for every device that reaches RAM by an address: a
//! block that is not plugged is no RAM to any of them ([`super::GuestRam`]). Changed by one thread at a
//! time, read by all.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::followers::{Follower, Followers};
use crate::state::{StateError, StateReader, StateWriter, check};

/// The least size of a block in bytes: a huge page of the host.
pub const MIN_BLOCK_BYTES: u64 = 2 << 20;
/// The most blocks: each may cost the host a system call and a memory slot.
pub const MAX_BLOCKS: u64 = 4096;

/// Bits of a word.
const WORD: u64 = 64;

/// Which blocks are plugged.
#[derive(Debug)]
pub struct Blocks {
    start: u64,
    block_bytes: u64,
    count: u64,
    words: Box<[AtomicU64]>,
    followers: Followers,
}

/// Sizes that make no blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{bytes:#x} bytes at {start:#x} are no blocks of {block_bytes:#x} bytes")]
pub struct NoBlocks {
    start: u64,
    bytes: u64,
    block_bytes: u64,
}

/// Blocks in a row: a range that [`Blocks::run`] has checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    indices: Range<u64>,
    /// Its first guest-physical address.
    pub address: u64,
    /// Its length in bytes.
    pub len: u64,
}

impl Run {
    /// How many blocks it has.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.indices.end - self.indices.start
    }
}

/// How the blocks of a [`Run`] stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// All are plugged.
    Plugged,
    /// None is.
    Unplugged,
    /// Some are.
    Mixed,
}

impl Blocks {
    /// Blocks of `block_bytes`, a power of two of at least [`MIN_BLOCK_BYTES`], in the `bytes` bytes at
    /// guest-physical `start`: 1 to [`MAX_BLOCKS`] whole ones, aligned to their size. None is plugged.
    ///
    /// # Errors
    /// [`NoBlocks`]: the numbers are not such.
    pub fn new(start: u64, bytes: u64, block_bytes: u64) -> Result<Self, NoBlocks> {
        let whole = block_bytes.is_power_of_two()
            && block_bytes >= MIN_BLOCK_BYTES
            && start % block_bytes == 0
            && bytes % block_bytes == 0
            && start.checked_add(bytes).is_some();
        let count = bytes.checked_div(block_bytes).unwrap_or(0);
        if !whole || !(1..=MAX_BLOCKS).contains(&count) {
            return Err(NoBlocks {
                start,
                bytes,
                block_bytes,
            });
        }
        let words = (0..count.div_ceil(WORD)).map(|_| AtomicU64::new(0));
        Ok(Self {
            start,
            block_bytes,
            count,
            words: words.collect(),
            followers: Followers::default(),
        })
    }

    /// The guest-physical addresses that blocks may be at.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        self.start..self.start + self.count * self.block_bytes
    }

    /// Bytes of a block.
    #[must_use]
    pub fn block_bytes(&self) -> u64 {
        self.block_bytes
    }

    /// Bytes that are plugged.
    #[must_use]
    pub fn plugged_bytes(&self) -> u64 {
        let words = self.words.iter();
        let blocks = words.map(|word| u64::from(word.load(Ordering::Relaxed).count_ones()));
        blocks.sum::<u64>() * self.block_bytes
    }

    /// The blocks of the `count` blocks at `address`; `None` unless those are one or more whole ones of
    /// here.
    #[must_use]
    pub fn run(&self, address: u64, count: u64) -> Option<Run> {
        let offset = address.checked_sub(self.start)?;
        let first = offset / self.block_bytes;
        let end = first.checked_add(count)?;
        let whole = offset % self.block_bytes == 0 && count > 0 && end <= self.count;
        whole.then(|| self.blocks_between(first..end))
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Run {
        self.blocks_between(0..self.count)
    }

    fn blocks_between(&self, indices: Range<u64>) -> Run {
        Run {
            address: self.start + indices.start * self.block_bytes,
            len: (indices.end - indices.start) * self.block_bytes,
            indices,
        }
    }

    /// Whether every block that one of the `len` bytes at `address` is in is plugged. Of no bytes the
    /// one at `address` counts.
    #[must_use]
    pub fn holds(&self, address: u64, len: u64) -> bool {
        let Some(offset) = address.checked_sub(self.start) else {
            return false;
        };
        let Some(last) = offset.checked_add(len.max(1) - 1) else {
            return false;
        };
        let end = last / self.block_bytes;
        end < self.count && (offset / self.block_bytes..=end).all(|index| self.is_plugged(index))
    }

    /// How the blocks of `run` stand.
    #[must_use]
    pub fn standing(&self, run: &Run) -> Standing {
        let plugged = run.indices.clone().filter(|index| self.is_plugged(*index));
        match plugged.count() as u64 {
            0 => Standing::Unplugged,
            count if count == run.blocks() => Standing::Plugged,
            _ => Standing::Mixed,
        }
    }

    /// The plugged blocks, as few runs as they are, by rising address.
    #[must_use]
    pub fn plugged_runs(&self) -> Vec<Run> {
        self.runs(|index| self.is_plugged(index))
    }

    /// As [`plugged_runs`](Self::plugged_runs), but no more than `most`, of which at least one: those with the
    /// least between them become one, with what is between.
    pub(crate) fn covering_runs(&self, most: usize) -> Vec<Run> {
        let runs = self.plugged_runs();
        let gaps = runs.iter().zip(runs.iter().skip(1));
        let gaps = gaps.map(|(run, next)| next.indices.start - run.indices.end);
        let mut gaps: Vec<(u64, usize)> = gaps.zip(1..).collect();
        gaps.sort_unstable();
        gaps.truncate(runs.len().saturating_sub(most.max(1)));
        let mut joined: Vec<usize> = gaps.into_iter().map(|(_, at)| at).collect();
        joined.sort_unstable();
        let mut covering: Vec<Run> = Vec::new();
        for (at, run) in runs.into_iter().enumerate() {
            match covering.last_mut() {
                Some(last) if joined.binary_search(&at).is_ok() => {
                    *last = self.blocks_between(last.indices.start..run.indices.end);
                }
                _ => covering.push(run),
            }
        }
        covering
    }

    /// Has `follower` told of changes, as long as it is held by somebody else.
    pub(super) fn add_follower(&self, follower: &Arc<dyn Follower>) {
        self.followers.add(follower);
    }

    /// Tells those who follow of what is plugged now.
    ///
    /// # Errors
    /// One of them goes by what was plugged before.
    pub(crate) fn tell_followers(&self) -> io::Result<()> {
        self.followers.tell()
    }

    /// The blocks that `wanted` is true of, as few runs as they are, by rising address.
    fn runs(&self, wanted: impl Fn(u64) -> bool) -> Vec<Run> {
        let mut runs = Vec::new();
        let mut first = None;
        for index in 0..=self.count {
            let here = index < self.count && wanted(index);
            match (first, here) {
                (None, true) => first = Some(index),
                (Some(start), false) => {
                    runs.push(self.blocks_between(start..index));
                    first = None;
                }
                _ => {}
            }
        }
        runs
    }

    /// Notes that the blocks of `run` are plugged, or are not any more.
    pub(crate) fn set(&self, run: &Run, plugged: bool) {
        for index in run.indices.clone() {
            let Some((word, bit)) = self.place(index) else {
                continue;
            };
            match plugged {
                true => word.fetch_or(bit, Ordering::Release),
                false => word.fetch_and(!bit, Ordering::Release),
            };
        }
    }

    fn is_plugged(&self, index: u64) -> bool {
        self.place(index)
            .is_some_and(|(word, bit)| word.load(Ordering::Acquire) & bit != 0)
    }

    fn place(&self, index: u64) -> Option<(&AtomicU64, u64)> {
        let word = self.words.get(usize::try_from(index / WORD).ok()?)?;
        Some((word, 1 << (index % WORD)))
    }

    /// The state: sizes, by which other blocks are told from these, and a bit for each block.
    pub(crate) fn save(&self) -> Vec<u8> {
        let mut writer = StateWriter::new();
        writer.u64(self.start).u64(self.block_bytes).u64(self.count);
        for word in &self.words {
            writer.u64(word.load(Ordering::Acquire));
        }
        writer.finish()
    }

    /// What would have to come and go for the saved state to be so: the runs to unplug, and those to
    /// plug. Nothing is changed.
    ///
    /// # Errors
    /// Bytes that `save` of blocks of these sizes could not have written.
    pub(crate) fn difference(&self, bytes: &[u8]) -> Result<(Vec<Run>, Vec<Run>), StateError> {
        let mut reader = StateReader::new(bytes);
        check(reader.u64()? == self.start, "address of blocks")?;
        check(reader.u64()? == self.block_bytes, "size of blocks")?;
        check(reader.u64()? == self.count, "number of blocks")?;
        let words = (0..self.words.len()).map(|_| reader.u64());
        let words = words.collect::<Result<Vec<_>, _>>()?;
        reader.finish()?;
        let wanted = |index: u64| {
            let word = usize::try_from(index / WORD)
                .ok()
                .and_then(|at| words.get(at));
            word.is_some_and(|word| word & (1 << (index % WORD)) != 0)
        };
        let beyond = (self.count..words.len() as u64 * WORD).any(wanted);
        check(!beyond, "plugged blocks")?;
        let go = self.runs(|index| self.is_plugged(index) && !wanted(index));
        let come = self.runs(|index| !self.is_plugged(index) && wanted(index));
        Ok((go, come))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BLOCK: u64 = MIN_BLOCK_BYTES;
    const START: u64 = 4 << 30;

    fn blocks(count: u64) -> Blocks {
        Blocks::new(START, count * BLOCK, BLOCK).expect("whole blocks")
    }

    #[test]
    fn only_whole_aligned_blocks_in_their_number_are_blocks() {
        for (start, bytes, block, good) in [
            (0, BLOCK, BLOCK, true),
            (START, MAX_BLOCKS * BLOCK, BLOCK, true),
            (START, (MAX_BLOCKS + 1) * BLOCK, BLOCK, false),
            (START, 0, BLOCK, false),
            (START, BLOCK, BLOCK / 2, false),
            (START, BLOCK, 0, false),
            (START, 3 * BLOCK, 3 * BLOCK, false),
            (START, BLOCK + 4096, BLOCK, false),
            (START + 4096, BLOCK, BLOCK, false),
            (u64::MAX - BLOCK + 1, BLOCK, BLOCK, false),
            (u64::MAX - 2 * BLOCK + 1, BLOCK, BLOCK, true),
        ] {
            let made = Blocks::new(start, bytes, block);
            assert_eq!(made.is_ok(), good, "{start:#x} {bytes:#x} {block:#x}");
        }
    }

    #[test]
    fn a_run_is_of_whole_blocks_within_the_range() {
        let blocks = blocks(4);
        for (address, count, good) in [
            (START, 1, true),
            (START, 4, true),
            (START, 5, false),
            (START, 0, false),
            (START + 3 * BLOCK, 1, true),
            (START + 3 * BLOCK, 2, false),
            (START + 4 * BLOCK, 1, false),
            (START + 1, 1, false),
            (START + BLOCK / 2, 1, false),
            (START - BLOCK, 1, false),
            (0, 1, false),
            (u64::MAX, 1, false),
            (u64::MAX - BLOCK + 1, u64::MAX, false),
            (START, u64::MAX, false),
            (START + BLOCK, u64::MAX, false),
        ] {
            let run = blocks.run(address, count);
            assert_eq!(run.is_some(), good, "{count} at {address:#x}");
            if let Some(run) = run {
                assert_eq!((run.address, run.len), (address, count * BLOCK));
            }
        }
    }

    #[test]
    fn bytes_are_there_while_each_of_their_blocks_is_plugged() {
        let blocks = blocks(70);
        let at = |index: u64| START + index * BLOCK;
        blocks.set(&blocks.run(at(63), 3).expect("whole"), true);
        for (address, len, there) in [
            (at(63), 1, true),
            (at(63), 3 * BLOCK, true),
            (at(63), 3 * BLOCK + 1, false),
            (at(63) - 1, 1, false),
            (at(63) - 1, 2, false),
            (at(66) - 1, 1, true),
            (at(66) - 1, 2, false),
            (at(66), 0, false),
            (at(64), 0, true),
            (at(70), 1, false),
            (0, 1, false),
            (at(64), u64::MAX, false),
            (u64::MAX, u64::MAX, false),
        ] {
            assert_eq!(
                blocks.holds(address, len),
                there,
                "{len:#x} at {address:#x}"
            );
        }
        blocks.set(&blocks.run(at(64), 1).expect("whole"), false);
        assert!(!blocks.holds(at(63), BLOCK + 1));
        assert!(blocks.holds(at(63), BLOCK));
        assert_eq!(blocks.plugged_bytes(), 2 * BLOCK);
        let runs: Vec<_> = blocks
            .plugged_runs()
            .iter()
            .map(|run| run.address)
            .collect();
        assert_eq!(runs, [at(63), at(65)]);
    }

    #[test]
    fn a_state_of_other_blocks_or_of_more_than_there_are_is_refused() {
        let few = blocks(3);
        let saved = few.save();
        assert_eq!(few.difference(&saved), Ok((Vec::new(), Vec::new())));
        for other in [blocks(4), blocks(65)] {
            let refused = few.difference(&other.save());
            let field = "number of blocks";
            assert_eq!(refused, Err(StateError::Invalid { field }));
        }
        for length in 0..saved.len() {
            assert_eq!(few.difference(&saved[..length]), Err(StateError::Truncated));
        }
        let mut long = saved.clone();
        long.push(0);
        let error = StateError::TrailingBytes { count: 1 };
        assert_eq!(few.difference(&long), Err(error));
        let mut beyond = saved;
        beyond[24] = 0b1000;
        let field = "plugged blocks";
        assert_eq!(few.difference(&beyond), Err(StateError::Invalid { field }));
    }

    proptest! {
        #[test]
        fn what_is_saved_says_what_has_to_come_and_go(
            now in any::<[bool; 130]>(),
            saved in any::<[bool; 130]>(),
        ) {
            let made = |plugged: [bool; 130]| {
                let blocks = blocks(130);
                for (index, plugged) in (0..).zip(plugged) {
                    let run = blocks.run(START + index * BLOCK, 1).expect("whole");
                    blocks.set(&run, plugged);
                }
                blocks
            };
            let (here, there) = (made(now), made(saved));
            let (go, come) = here.difference(&there.save()).expect("its own");
            for run in &go {
                prop_assert_eq!(here.standing(run), Standing::Plugged);
                here.set(run, false);
            }
            for run in &come {
                prop_assert_eq!(here.standing(run), Standing::Unplugged);
                here.set(run, true);
            }
            prop_assert_eq!(here.save(), there.save());
        }
    }
}
