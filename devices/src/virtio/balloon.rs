//! The balloon (virtio 1.3 §5.5): memory that the guest lends back to the host.
//!
//! ```text
//!  control thread                vCPU threads                   device thread
//!  BalloonControl ──target──► num_pages ──► driver ──inflateq──► runs of pages ──► PageReturn
//!        ▲      └──config interrupt──►        │ ├────deflateq──► (the pages fill again by themselves)
//!        └──────────── actual ◄───────────────┘ ├──reportingq──► free ranges ───► PageReturn
//!        └──────────── statistics ◄─────────────┴──────statsq──► kept until fresh ones are asked for
//! ```
//!
//! A page that was given back reads as it did when the machine's memory was made, when the guest
//! touches it again: as zeroes, or as the memory that the machine was copied from. No driver may count
//! on either (§5.5.6, `PAGE_POISON` is not offered). The host pays for it again, so the host's safety needs no record of who owns which page, and a deflation needs
//! no work. A guest that lends a page it uses harms itself.
//!
//! # What is counted
//! No number is kept by adding up what the queues say: a driver may inflate a page twice and
//! deflate one it never lent. The size of the balloon is what the driver wrote to `actual`, shown
//! as no more than fits in the machine's memory; what was given back is a count that only grows and
//! stops at its end.
//!
//! # Huge pages
//! Where memory is backed by huge pages, only whole ones can be given back, and drivers lend 4 KiB
//! at a time. The device then notes which parts of a huge page are lent, which takes the guest
//! telling before it uses a lent page again (`MUST_TELL_HOST`); without that feature only what one
//! request lends as a whole goes back. The notes are at most a 9,000th of the machine's memory, and
//! are no part of the saved state: what was lent in part before a restore stays with the guest.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

use self::pages::LentPages;
use self::worker::BalloonWorker;
use super::{DeviceId, QueueWorker, RunningQueue, Start, StartError, VirtioDevice, take_queue};
use crate::event::Event;
use crate::shared::{Shared, Wake, lock, share};
use crate::state::{Schema, StateError, StateReader, StateWriter, check};

pub use self::control::{BalloonControl, BalloonInfo};
pub use self::stats::{BalloonStat, BalloonStats};

mod control;
mod pages;
mod stats;
#[cfg(test)]
mod tests;
mod worker;

/// Bytes of a balloon page, whatever the guest's own pages are (§5.5.6).
pub const PAGE_BYTES: u64 = 4096;

/// `VIRTIO_BALLOON_F_MUST_TELL_HOST`.
const F_MUST_TELL_HOST: u64 = 1 << 0;
/// `VIRTIO_BALLOON_F_STATS_VQ`.
const F_STATS: u64 = 1 << 1;
/// `VIRTIO_BALLOON_F_DEFLATE_ON_OOM`.
const F_DEFLATE_ON_OOM: u64 = 1 << 2;
/// `VIRTIO_BALLOON_F_PAGE_REPORTING`.
const F_REPORTING: u64 = 1 << 5;

const INFLATE: u16 = 0;
const DEFLATE: u16 = 1;
const STATS: u16 = 2;
/// The number of §5.5.2. See [`reporting_queue`].
const REPORTING: u16 = 4;
/// All the queues of §5.5.2. The fourth is of a feature that is not offered.
const QUEUE_SIZES: &[u16] = &[128; 5];

/// The layout of the saved state: the target and the driver's `actual`, in pages.
const SCHEMA: Schema = Schema {
    name: "virtio-balloon",
    version: 1,
};

/// Where the driver says how many pages it has lent.
const CONFIG_ACTUAL: u64 = 4;
/// Bytes of the configuration space.
const CONFIG_BYTES: usize = 8;

/// Takes memory out of the guest. Supplied by the worker process.
///
/// One that must leave memory where it is, because a device reaches it by its own (VFIO), does
/// nothing and says so by an error; the guest does not notice.
pub trait PageReturn: Debug + Send + Sync {
    /// Frees what is behind the `len` bytes at guest-physical `address`, which then read as they did
    /// when the machine's memory was made: as zeroes, or where it is a private copy of another
    /// machine's, as that had them. Both are multiples of the page size the device was made with, and lie in one piece of RAM.
    /// Does not wait for anything but the host's memory management.
    ///
    /// # Errors
    /// The kernel's. The memory may still be there.
    fn give_back(&self, address: u64, len: u64) -> io::Result<()>;
}

/// What a balloon is made with.
#[derive(Debug, Clone)]
pub struct BalloonParams {
    /// The machine's memory in bytes: what a balloon cannot be larger than.
    pub memory_bytes: u64,
    /// Bytes that are backed by one page of the host: a power of two, at least [`PAGE_BYTES`].
    pub backing_page_bytes: u64,
    /// The guest may take memory back by itself before it kills a process.
    pub deflate_on_oom: bool,
    /// The guest reports memory that it does not use.
    pub free_page_reporting: bool,
}

/// The front half.
#[derive(Debug)]
pub struct Balloon {
    params: BalloonParams,
    control: Arc<BalloonControl>,
    pages: Arc<dyn PageReturn>,
    /// Locked by the worker while there is one.
    lent: Shared<LentPages>,
}

impl Balloon {
    /// An empty balloon that gives back through `pages`. `changed` is called, on any thread, when
    /// the driver has changed the balloon's size or sent statistics.
    ///
    /// # Errors
    /// The host has no descriptor left.
    pub fn new(
        params: BalloonParams,
        pages: Arc<dyn PageReturn>,
        changed: Arc<dyn Wake>,
    ) -> rustix::io::Result<Self> {
        let control = BalloonControl::new(params.memory_bytes, Event::new()?, changed);
        let lent = LentPages::new(params.backing_page_bytes.max(PAGE_BYTES));
        Ok(Self {
            params,
            control: Arc::new(control),
            pages,
            lent: share(lent),
        })
    }

    /// What the control thread holds of it.
    #[must_use]
    pub fn control(&self) -> Arc<BalloonControl> {
        self.control.clone()
    }

    fn huge(&self) -> bool {
        self.params.backing_page_bytes > PAGE_BYTES
    }

    fn config(&self) -> [u8; CONFIG_BYTES] {
        let [t0, t1, t2, t3] = self.control.target_pages().to_le_bytes();
        let [a0, a1, a2, a3] = self.control.actual_pages().to_le_bytes();
        [t0, t1, t2, t3, a0, a1, a2, a3]
    }
}

/// Takes the reporting queue. Drivers do not agree on its number: by §5.5.2 it is the fifth
/// whatever was negotiated, but Linux counts only the queues there are.
fn reporting_queue(
    queues: &mut [Option<RunningQueue>],
    stats: bool,
) -> Result<RunningQueue, StartError> {
    take_queue(queues, REPORTING).or_else(|missing| {
        let compact = if stats { STATS + 1 } else { STATS };
        take_queue(queues, compact).map_err(|_| missing)
    })
}

impl VirtioDevice for Balloon {
    fn id(&self) -> DeviceId {
        DeviceId::Balloon
    }

    fn features(&self) -> u64 {
        let mut features = F_STATS;
        if self.huge() {
            features |= F_MUST_TELL_HOST;
        }
        if self.params.deflate_on_oom {
            features |= F_DEFLATE_ON_OOM;
        }
        if self.params.free_page_reporting {
            features |= F_REPORTING;
        }
        features
    }

    fn queue_sizes(&self) -> &[u16] {
        QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let config = self.config();
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = config.get(offset..).unwrap_or_default();
        data.fill(0);
        for (target, source) in data.iter_mut().zip(rest) {
            *target = *source;
        }
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        // Drivers write the four bytes at once, or one by one; the rest is not theirs.
        let mut actual = self.control.actual_pages().to_le_bytes();
        for (position, slot) in (CONFIG_ACTUAL..).zip(&mut actual) {
            let at = position.checked_sub(offset);
            let byte = at.and_then(|at| data.get(usize::try_from(at).ok()?));
            if let Some(byte) = byte {
                *slot = *byte;
            }
        }
        self.control.set_actual(u32::from_le_bytes(actual));
    }

    fn start(&mut self, mut start: Start) -> Result<Vec<Box<dyn QueueWorker>>, StartError> {
        let negotiated = |feature| start.features & feature != 0;
        let queues = &mut start.queues;
        let inflate = take_queue(queues, INFLATE)?;
        let deflate = take_queue(queues, DEFLATE)?;
        let stats = match negotiated(F_STATS) {
            true => Some(take_queue(queues, STATS)?),
            false => None,
        };
        let reporting = match negotiated(F_REPORTING) {
            true => Some(reporting_queue(queues, stats.is_some())?),
            false => None,
        };
        lock(&self.lent).set_told(negotiated(F_MUST_TELL_HOST));
        self.control.connect(Some(start.interrupts.clone()));
        Ok(vec![Box::new(BalloonWorker::new(
            [Some(inflate), Some(deflate), stats, reporting],
            self.lent.clone(),
            self.control.clone(),
            self.pages.clone(),
        ))])
    }

    fn stopped(&mut self) {
        self.control.connect(None);
    }

    fn reset(&mut self) {
        lock(&self.lent).clear();
        self.control.forget();
    }

    fn save(&self) -> Vec<u8> {
        StateWriter::new()
            .u32(self.control.target_pages())
            .u32(self.control.actual_pages())
            .finish()
    }

    fn restore(&mut self, version: u32, bytes: &[u8]) -> Result<(), StateError> {
        SCHEMA.expect_version(version)?;
        let mut reader = StateReader::new(bytes);
        let target = reader.u32()?;
        let actual = reader.u32()?;
        reader.finish()?;
        check(self.control.fits(target), "target")?;
        lock(&self.lent).clear();
        self.control.forget();
        self.control.set_target_pages(target);
        self.control.set_actual(actual);
        Ok(())
    }
}
