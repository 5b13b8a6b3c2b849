//! The guest's memory statistics (virtio 1.3 §5.5.6.3): tagged numbers, none of which is believed.

use crate::memory::GuestRam;
use crate::virtio::chain::Chain;

/// A statistic (§5.5.6.4), by its tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum BalloonStat {
    /// Bytes swapped in.
    SwapIn = 0,
    /// Bytes swapped out.
    SwapOut = 1,
    /// Page faults that needed the disk.
    MajorFaults = 2,
    /// Page faults that did not.
    MinorFaults = 3,
    /// Bytes used for nothing.
    Free = 4,
    /// Bytes the guest has.
    Total = 5,
    /// Bytes available to new programs without swapping.
    Available = 6,
    /// Bytes that can be reclaimed quickly.
    DiskCaches = 7,
    /// Huge page allocations that succeeded.
    HugePageAllocations = 8,
    /// Huge page allocations that failed.
    HugePageFailures = 9,
    /// Processes killed for want of memory.
    OutOfMemoryKills = 10,
    /// Allocations that had to wait.
    AllocationStalls = 11,
    /// Pages scanned in the background.
    AsyncScanned = 12,
    /// Pages scanned by those that wanted memory.
    DirectScanned = 13,
    /// Pages reclaimed in the background.
    AsyncReclaimed = 14,
    /// Pages reclaimed by those that wanted memory.
    DirectReclaimed = 15,
}

/// Tags there are.
const TAGS: usize = 16;
/// Bytes of an entry: a tag and a number.
const ENTRY_BYTES: usize = 10;
/// The most entries read: more than there are tags, and few enough that no buffer keeps the thread.
const MAX_ENTRIES: usize = 64;

/// The statistics of one report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BalloonStats([Option<u64>; TAGS]);

impl BalloonStats {
    /// One of them, if the driver gave it. Whatever it says: check before use.
    #[must_use]
    pub fn get(&self, stat: BalloonStat) -> Option<u64> {
        *self.0.get(stat as usize)?
    }

    /// Reads a report: the first [`MAX_ENTRIES`] entries. Unknown tags and a cut entry are left
    /// out, the last of several with one tag counts.
    pub(super) fn read(chain: &Chain, ram: &GuestRam) -> Self {
        let mut bytes = [0; MAX_ENTRIES * ENTRY_BYTES];
        let got = chain.read_at(ram, 0, &mut bytes);
        let mut stats = Self::default();
        for entry in bytes
            .get(..got)
            .unwrap_or_default()
            .chunks_exact(ENTRY_BYTES)
        {
            let Some((tag, value)) = entry.split_first_chunk() else {
                break;
            };
            let Some(value) = value.first_chunk() else {
                break;
            };
            let slot = stats.0.get_mut(usize::from(u16::from_le_bytes(*tag)));
            if let Some(slot) = slot {
                *slot = Some(u64::from_le_bytes(*value));
            }
        }
        stats
    }
}
