//! What has passed through the device, as `domifstat` shows it: from the guest's side, so that "rx" is
//! what the guest received. Bytes are those of frames, without the header of §5.1.6.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of one direction. They go round after 2^64.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DirectionCounters {
    /// Frames that went through.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Frames lost because they or the host's queue were faulty.
    pub errors: u64,
    /// Frames lost because there was no room, the link was down, or the host did not take them.
    pub drops: u64,
}

/// Counters of a device since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NetCounters {
    /// To the guest.
    pub rx: DirectionCounters,
    /// From the guest.
    pub tx: DirectionCounters,
}

/// One direction, as workers count.
#[derive(Debug, Default)]
pub(super) struct Direction {
    packets: AtomicU64,
    bytes: AtomicU64,
    errors: AtomicU64,
    drops: AtomicU64,
}

impl Direction {
    pub(super) fn pass(&self, frame: usize) {
        self.packets.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(frame as u64, Ordering::Relaxed);
    }

    pub(super) fn error(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn drop(&self) {
        self.drops.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> DirectionCounters {
        DirectionCounters {
            packets: self.packets.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            drops: self.drops.load(Ordering::Relaxed),
        }
    }
}
