//! The disk (virtio 1.3 §5.2): requests, and the modes that make them.

mod bench;
mod verify;
mod watch;

pub use bench::{bench, measure};
pub use verify::verify;
pub use watch::watch;

use super::Problem;
use super::memory::{PARTS, PARTS_BYTES, poke_u8, poke_u32, poke_u64};
use super::options::Device as Kind;
use super::pci::Bus;
use super::queue::{Buffer, Queue, Wait, into, out};
use super::virtio::{Device, F_INDIRECT_DESC, RING_FEATURES};
use crate::machine;

/// `VIRTIO_BLK_T_IN`.
pub const READ: u32 = 0;
/// `VIRTIO_BLK_T_OUT`.
pub const WRITE: u32 = 1;
/// `VIRTIO_BLK_T_FLUSH`.
pub const FLUSH: u32 = 4;
/// `VIRTIO_BLK_T_DISCARD`.
pub const DISCARD: u32 = 11;
/// `VIRTIO_BLK_T_WRITE_ZEROES`.
pub const WRITE_ZEROES: u32 = 13;

/// `VIRTIO_BLK_F_RO`.
pub const F_READ_ONLY: u64 = 1 << 5;
/// `VIRTIO_BLK_F_BLK_SIZE`.
pub const F_BLOCK_SIZE: u64 = 1 << 6;
/// `VIRTIO_BLK_F_FLUSH`.
pub const F_FLUSH: u64 = 1 << 9;
/// `VIRTIO_BLK_F_DISCARD`.
pub const F_DISCARD: u64 = 1 << 13;
/// `VIRTIO_BLK_F_WRITE_ZEROES`.
pub const F_WRITE_ZEROES: u64 = 1 << 14;

/// Bytes of a sector.
pub const SECTOR: u64 = 512;
/// The most buffers of payload in a request.
pub const MAX_BUFFERS: usize = 6;
/// Descriptors of a request: header, payload, status.
const CHAIN: usize = MAX_BUFFERS + 2;
/// Bytes of a slot's header and status.
const PART: u64 = 64;
/// Where tables of descriptors begin.
const TABLES: u64 = PARTS + PARTS_BYTES / 2;
/// No device says this (`VIRTIO_BLK_S_OK` is 0).
const UNANSWERED: u8 = 0xff;

/// A disk in use. Requests have slots, as many as it was opened with.
pub struct Disk {
    device: Device,
    /// Its queue.
    pub queue: Queue,
    /// Features agreed on.
    pub agreed: u64,
    /// Sectors.
    pub capacity: u64,
    /// Sectors of a logical block.
    pub unit: u64,
    /// Descriptors from one slot's first to the next one's; one if chains are indirect.
    step: u16,
}

impl Disk {
    /// The first disk, with room for `slots` requests of `buffers` buffers each.
    pub fn open(bus: Bus, wait: Wait, slots: u64, buffers: u16) -> Result<Self, Problem> {
        const WANTED: u64 =
            F_READ_ONLY | F_BLOCK_SIZE | F_FLUSH | F_DISCARD | F_WRITE_ZEROES | RING_FEATURES;
        let device = Device::first(bus, Kind::BLOCK).ok_or("no disk")?;
        let agreed = device.begin(WANTED)?;
        device.prepare_interrupts(wait)?;
        let queue = device.set_up(0, 0, u16::MAX, agreed, wait)?;
        device.run()?;
        let size = u64::from(queue.rings.size);
        let direct = u64::from(buffers) + 2;
        let step = if slots * direct <= size {
            direct
        } else if agreed & F_INDIRECT_DESC != 0 {
            1
        } else {
            direct
        };
        if slots * step > size {
            return Err("depth is more than the queue has room for");
        }
        let block = if agreed & F_BLOCK_SIZE != 0 {
            u64::from(device.config.read_u32(20))
        } else {
            SECTOR
        };
        Ok(Self {
            device,
            queue,
            agreed,
            capacity: device.config.read_u64(0),
            unit: (block / SECTOR).max(1),
            step: step as u16,
        })
    }

    /// Writes a request into a slot.
    pub fn describe(&self, slot: u16, kind: u32, sector: u64, data: &[Buffer]) {
        let header = header(slot);
        poke_u32(header, kind);
        poke_u32(header + 4, 0);
        let mut chain = [out(header, 16); CHAIN];
        let end = data.len().min(MAX_BUFFERS) + 1;
        for (place, buffer) in chain.iter_mut().skip(1).zip(data) {
            *place = *buffer;
        }
        if let Some(place) = chain.get_mut(end) {
            *place = into(status(slot), 1);
        }
        let chain = chain.get(..=end).unwrap_or_default();
        if self.step == 1 {
            let table = TABLES + u64::from(slot) * CHAIN as u64 * 16;
            self.queue.describe_indirect(slot, table, chain);
        } else {
            self.queue.describe(slot * self.step, chain);
        }
        self.aim(slot, sector);
    }

    /// Makes a described request one of another place, not yet answered.
    pub fn aim(&self, slot: u16, sector: u64) {
        poke_u64(header(slot) + 8, sector);
        poke_u8(status(slot), UNANSWERED);
    }

    /// Puts a slot's request into the available ring.
    pub fn offer(&mut self, slot: u16) {
        self.queue.offer(slot * self.step);
    }

    /// The slot of a chain that came back.
    pub fn slot(&self, head: u32) -> u16 {
        (head / u32::from(self.step)) as u16
    }

    /// What the device said to a slot's request; zero is good.
    pub fn status(&self, slot: u16) -> u8 {
        machine::read_u8(status(slot))
    }

    /// Resets the device.
    pub fn close(&self) {
        self.device.reset();
    }
}

fn header(slot: u16) -> u64 {
    PARTS + u64::from(slot) * PART
}

fn status(slot: u16) -> u64 {
    header(slot) + 16
}
