//! Errors of this crate, and the log for guests that misbehave.
//!
//! A guest fault never ends anything: the access is ignored or reads as all ones, and at most a
//! line is logged. Since the guest decides how often that happens, [`FaultLog`] limits the rate.

use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::bus::BusError;
use crate::shared::lock;
use crate::state::StateError;
use crate::virtio::queue::QueueFault;

/// Why a device could not be made, placed or restored.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DeviceError {
    /// The address range could not be claimed.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The saved state was refused.
    #[error(transparent)]
    State(#[from] StateError),
    /// The interrupt controller has no such input.
    #[error("interrupt controller has no pin {pin}")]
    NoSuchPin {
        /// The pin asked for.
        pin: u8,
    },
}

/// Something a correct guest does not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GuestFault {
    /// A read that no device answers; it reads as all ones.
    #[error("{space} read of {width} bytes at {address:#x} answered by no device")]
    UnclaimedRead {
        /// Name of the address space.
        space: &'static str,
        /// Address of the access.
        address: u64,
        /// Width in bytes.
        width: usize,
    },
    /// A write that no device takes; it is dropped.
    #[error("{space} write of {width} bytes at {address:#x} taken by no device")]
    UnclaimedWrite {
        /// Name of the address space.
        space: &'static str,
        /// Address of the access.
        address: u64,
        /// Width in bytes.
        width: usize,
    },
    /// ACPI sleep state that this machine does not have.
    #[error("sleep type {sleep_type} is not supported")]
    UnsupportedSleepType {
        /// SLP_TYP as written.
        sleep_type: u8,
    },
    /// An interrupt that its redirection entry cannot deliver.
    #[error("interrupt on pin {pin} dropped: redirection entry {entry:#x} cannot deliver it")]
    UndeliverableInterrupt {
        /// The pin.
        pin: u8,
        /// The redirection entry as the guest left it.
        entry: u64,
    },
    /// A BAR at a place where none can be; it is not decoded. The usual way of sizing one.
    #[error("BAR {bar} of PCI slot {slot} at {address:#x} is outside the windows")]
    BarOutside {
        /// Device number.
        slot: u8,
        /// Index of the BAR.
        bar: u8,
        /// Its address.
        address: u64,
    },
    /// A BAR on top of something else; it is not decoded.
    #[error("BAR {bar} of PCI slot {slot} at {address:#x} overlaps another region")]
    BarOverlap {
        /// Device number.
        slot: u8,
        /// Index of the BAR.
        bar: u8,
        /// Its address.
        address: u64,
    },
    /// A driver that is ready, and whose device cannot start: it lacks a queue, or the host something.
    #[error("{device} was not started; it asks to be reset")]
    NotStarted {
        /// What the device is.
        device: &'static str,
    },
    /// A driver that says that it cannot use the ports of a console device.
    #[error("the driver cannot use the ports of a console")]
    PortsRefused,
    /// A driver that says that it cannot use one of them.
    #[error("the driver cannot use port {id} of a console")]
    PortRefused {
        /// The port.
        id: u32,
    },
    /// A virtqueue that its driver broke; the device asks to be reset.
    #[error("virtqueue of {device} is broken: {fault}")]
    Virtqueue {
        /// What the device is.
        device: &'static str,
        /// What the driver did.
        fault: QueueFault,
    },
}

impl GuestFault {
    /// Ordinary kernels probe for absent hardware and size BARs, which is not worth a warning.
    fn is_routine(self) -> bool {
        matches!(
            self,
            Self::UnclaimedRead { .. } | Self::UnclaimedWrite { .. } | Self::BarOutside { .. }
        )
    }
}

/// Logs guest faults: a burst of [`FaultLog::BURST`], then one a second, with a count of the
/// faults left out in between.
pub struct FaultLog {
    bucket: Mutex<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    tokens: u32,
    refilled: Option<Instant>,
    suppressed: u64,
}

impl FaultLog {
    /// Lines that may be written back to back.
    pub const BURST: u32 = 16;
    /// Time in which one further line is earned.
    pub const INTERVAL: Duration = Duration::from_secs(1);

    /// A log with its whole burst available.
    pub const fn new() -> Self {
        Self {
            bucket: Mutex::new(Bucket {
                tokens: Self::BURST,
                refilled: None,
                suppressed: 0,
            }),
        }
    }

    /// Logs `fault`, or counts it if the guest has used up its share.
    pub fn report(&self, fault: GuestFault) {
        let routine = fault.is_routine();
        // Asked first: an unclaimed port is an ordinary delay loop to some guests.
        if routine && !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        let Some(suppressed) = self.admit(Instant::now()) else {
            return;
        };
        if routine {
            tracing::debug!(%fault, suppressed, "ignoring guest access");
        } else {
            tracing::warn!(%fault, suppressed, "ignoring guest fault");
        }
    }

    /// Takes a token; the number of faults suppressed before, or `None` if there is no token.
    fn admit(&self, now: Instant) -> Option<u64> {
        let mut bucket = lock(&self.bucket);
        let since = *bucket.refilled.get_or_insert(now);
        let elapsed = now.saturating_duration_since(since);
        let earned = elapsed.as_secs() / Self::INTERVAL.as_secs();
        if earned > 0 {
            bucket.refilled = Some(now);
            let earned = u32::try_from(earned).unwrap_or(u32::MAX);
            bucket.tokens = bucket.tokens.saturating_add(earned).min(Self::BURST);
        }
        if bucket.tokens == 0 {
            bucket.suppressed = bucket.suppressed.saturating_add(1);
            return None;
        }
        bucket.tokens -= 1;
        Some(std::mem::take(&mut bucket.suppressed))
    }
}

impl Default for FaultLog {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for FaultLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultLog").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_faults_is_limited_and_counted() {
        let log = FaultLog::new();
        let start = Instant::now();
        let admitted = (0..1000).filter(|_| log.admit(start).is_some()).count();
        assert_eq!(admitted, FaultLog::BURST as usize);
        assert_eq!(
            log.admit(start + FaultLog::INTERVAL),
            Some(1000 - u64::from(FaultLog::BURST))
        );
        assert_eq!(log.admit(start + FaultLog::INTERVAL), None);
    }

    #[test]
    fn the_burst_comes_back_after_a_quiet_time_and_no_more_than_that() {
        let log = FaultLog::new();
        let start = Instant::now();
        assert!(log.admit(start).is_some());
        let later = start + Duration::from_secs(10_000);
        let admitted = (0..1000).filter(|_| log.admit(later).is_some()).count();
        assert_eq!(admitted, FaultLog::BURST as usize);
    }
}
