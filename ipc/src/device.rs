//! What is asked of a device while its machine runs, and what a device says of itself.

use serde::{Deserialize, Serialize};

use crate::spec::{DiskThrottle, PciSlot, Rate};

/// A change of a device that needs no new device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceChange {
    /// A network interface's link.
    Link {
        /// Whether there is one.
        up: bool,
    },
    /// How fast a network interface may be used; `None` for no bound.
    NicRates {
        /// Bytes to the guest.
        inbound: Option<Rate>,
        /// Bytes from the guest.
        outbound: Option<Rate>,
    },
    /// How fast a disk may be used.
    DiskThrottle(DiskThrottle),
    /// What a balloon is to take of the guest's memory, in bytes; no more than there is.
    BalloonTarget {
        /// Bytes.
        bytes: u64,
    },
    /// A guest is asked for its memory statistics, which come later.
    BalloonPoll,
    /// A disk's size, which is in its image.
    DiskSize {
        /// Bytes, a multiple of its blocks; `None` for as many as its file or block device has by now.
        bytes: Option<u64>,
        /// It may become smaller, and loses what is behind its new end.
        shrink: bool,
    },
    /// What a guest is asked to have plugged of the memory beyond what its machine started with, in bytes:
    /// whole blocks, no more than there are.
    MemoryRequest {
        /// Bytes.
        bytes: u64,
    },
}

/// What one device has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceReport {
    /// Its place on the bus.
    pub slot: PciSlot,
    /// The figures of its kind.
    pub figures: DeviceFigures,
}

/// Figures of a device, by its kind. Counters count from when it was made, and go round after 2^64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceFigures {
    /// A disk's.
    Disk(DiskFigures),
    /// A network interface's.
    Nic(NicFigures),
    /// A balloon's.
    Balloon(BalloonFigures),
    /// A device that has none.
    None,
    /// A serial controller's, as its worker tells them.
    Ports(PortsFigures),
    /// A port's, as a client of the supervisor is told them.
    Port(PortFigures),
    /// A memory device's.
    Memory(MemoryFigures),
}

/// How the ports of a serial controller stand: bit n of each is port n.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortsFigures {
    /// There is one.
    pub present: u32,
    /// Somebody in the guest has it open; always so for a console.
    pub guest_open: u32,
    /// A client of the host is connected.
    pub connected: u32,
}

const _: () = assert!(crate::spec::MAX_PORTS <= 32);

impl PortsFigures {
    /// The numbers of those that are there, rising.
    pub fn numbers(self) -> impl Iterator<Item = u8> {
        (0..32).filter(move |number| self.port(*number).is_some())
    }

    /// How port `number` stands, if there is one.
    #[must_use]
    pub fn port(self, number: u8) -> Option<PortFigures> {
        let bit = 1_u32.checked_shl(number.into())?;
        (self.present & bit != 0).then_some(PortFigures {
            number,
            guest_open: self.guest_open & bit != 0,
            connected: self.connected & bit != 0,
        })
    }
}

/// How a port stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortFigures {
    /// Its number on its controller.
    pub number: u8,
    /// Somebody in the guest has it open; always so for a console.
    pub guest_open: bool,
    /// A client of the host is connected.
    pub connected: bool,
}

/// What a disk has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskFigures {
    /// Reads.
    pub reads: OperationFigures,
    /// Writes.
    pub writes: OperationFigures,
    /// Flushes; without bytes.
    pub flushes: OperationFigures,
    /// Ranges discarded or zeroed.
    pub discards: OperationFigures,
}

/// Requests of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationFigures {
    /// Those that succeeded.
    pub operations: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The time they took, summed, in nanoseconds.
    pub nanoseconds: u64,
    /// Those that failed.
    pub errors: u64,
}

/// What has passed through a network interface, from the guest's side.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicFigures {
    /// To the guest.
    pub received: DirectionFigures,
    /// From the guest.
    pub sent: DirectionFigures,
    /// The kernel moves its frames, and counts them at its tap: packets and bytes are those of the tap since
    /// that was made, where the host tells them, and the others the tap's and the worker's together.
    pub by_kernel: bool,
}

/// Frames of one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectionFigures {
    /// Frames.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Frames lost because they were faulty.
    pub errors: u64,
    /// Frames lost because there was no room, no link, or nobody to take them.
    pub drops: u64,
}

/// How a balloon stands. What is the guest's own word may be any number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalloonFigures {
    /// Bytes it is to take.
    pub target_bytes: u64,
    /// Bytes the guest says it has given; no more than it has.
    pub actual_bytes: u64,
    /// What the guest says of its memory, if it was asked and has answered.
    pub guest: Option<GuestMemoryFigures>,
}

/// How a memory device stands, all by the worker's own count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryFigures {
    /// Bytes that the guest is asked to have plugged.
    pub requested_bytes: u64,
    /// Bytes that it has.
    pub plugged_bytes: u64,
    /// Bytes that it can have.
    pub most_bytes: u64,
    /// Bytes of a block, in which all of them come.
    pub block_bytes: u64,
}

/// A guest's memory as its driver tells it (virtio 1.3 §5.5.6.3), in bytes and in events since it
/// booted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestMemoryFigures {
    /// Milliseconds since it said so.
    pub age_ms: u64,
    /// Bytes read back from swap.
    pub swap_in: Option<u64>,
    /// Bytes written to swap.
    pub swap_out: Option<u64>,
    /// Faults that needed a disk.
    pub major_faults: Option<u64>,
    /// Faults that did not.
    pub minor_faults: Option<u64>,
    /// Bytes unused.
    pub free: Option<u64>,
    /// Bytes it knows of.
    pub total: Option<u64>,
    /// Bytes that can be had without swapping.
    pub available: Option<u64>,
    /// Bytes of its page cache.
    pub disk_caches: Option<u64>,
}
