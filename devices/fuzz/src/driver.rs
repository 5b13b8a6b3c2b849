//! The driver's side of one queue, as good or as bad as it is told to be.

use reeve_devices::memory::GuestRam;
use reeve_devices::virtio::queue::QueueLayout;

use super::bus::{HIGH, HIGH_BYTES, RAM, WINDOW};
use super::input::Input;

/// Where the buffers are that [`Driver::submit`] uses; what is below is rings.
pub const DATA: u64 = 0x1_8000;
/// Bytes from one queue's rings to the next one's.
const RINGS: u64 = 0x1c00;
/// The most entries of a queue: with more, its rings would not fit.
pub const MAX_SIZE: u16 = 256;

/// A buffer of a chain.
#[derive(Debug, Clone)]
pub enum Piece {
    /// The device reads these bytes.
    Out(Vec<u8>),
    /// The device writes as many.
    In(u32),
}

/// A queue.
#[derive(Debug)]
pub struct Driver {
    /// Where it is.
    pub layout: QueueLayout,
    next: u16,
    available: u16,
}

impl Driver {
    /// The queue with number `index` of a device.
    pub fn new(index: usize, size: u16) -> Self {
        let size = size.min(MAX_SIZE);
        let entries = u64::from(size);
        let base = RINGS * (index as u64 + 1);
        let available = base + entries * 16;
        let used = (available + 6 + entries * 2).next_multiple_of(4);
        Self {
            layout: QueueLayout {
                size,
                descriptors: base,
                available,
                used,
            },
            next: 0,
            available: 0,
        }
    }

    fn index(&mut self) -> u16 {
        let index = self.next;
        self.next = (self.next + 1) % self.layout.size;
        index
    }

    /// Makes a chain of `pieces` available, in buffers from `place` on, which goes round and round.
    pub fn submit(&mut self, ram: &GuestRam, place: &mut u64, pieces: &[Piece], indirect: bool) {
        let mut descriptors = Vec::new();
        for piece in pieces {
            let (len, flags) = match piece {
                Piece::Out(bytes) => (bytes.len() as u64, 0),
                Piece::In(len) => (u64::from(*len), 2),
            };
            if *place + len > RAM {
                *place = DATA;
            }
            if let Piece::Out(bytes) = piece {
                // One that fits nowhere is described all the same.
                let _ = ram.write(*place, bytes);
            }
            descriptors.push((*place, u32::try_from(len).unwrap_or(u32::MAX), flags));
            *place = (*place + len).next_multiple_of(16).min(RAM);
        }
        let last = descriptors.len().saturating_sub(1);
        let chained = |position| u16::from(position != last);
        let Some(&first) = descriptors.first() else {
            let head = self.index();
            self.offer(ram, head);
            return;
        };
        let head = self.index();
        if indirect {
            let table: Vec<u8> = (0_u16..)
                .zip(&descriptors)
                .flat_map(|(number, &(address, len, flags))| {
                    let next = flags | chained(number.into());
                    descriptor(address, len, next, number + 1)
                })
                .collect();
            if *place + table.len() as u64 > RAM {
                *place = DATA;
            }
            let _ = ram.write(*place, &table);
            let len = u32::try_from(table.len()).unwrap_or(u32::MAX);
            self.describe(ram, head, descriptor(*place, len, 4, 0));
            *place = (*place + u64::from(len)).min(RAM);
        } else {
            let (mut index, mut current) = (head, first);
            for (position, &following) in descriptors.iter().enumerate().skip(1) {
                let next = self.index();
                let (address, len, flags) = current;
                let flags = flags | chained(position - 1);
                self.describe(ram, index, descriptor(address, len, flags, next));
                (index, current) = (next, following);
            }
            let (address, len, flags) = current;
            self.describe(ram, index, descriptor(address, len, flags, 0));
        }
        self.offer(ram, head);
    }

    fn describe(&self, ram: &GuestRam, index: u16, bytes: [u8; 16]) {
        let place = self.layout.descriptors + u64::from(index) * 16;
        ram.write(place, &bytes).expect("rings are in RAM");
    }

    /// Makes descriptor `head` available, whatever is there.
    pub fn offer(&mut self, ram: &GuestRam, head: u16) {
        let slot = u64::from(self.available % self.layout.size);
        let place = self.layout.available + 4 + slot * 2;
        ram.write(place, &head.to_le_bytes())
            .expect("rings are in RAM");
        self.set_available(ram, self.available.wrapping_add(1));
    }

    /// Sets the available index.
    pub fn set_available(&mut self, ram: &GuestRam, index: u16) {
        self.available = index;
        ram.write(self.layout.available + 2, &index.to_le_bytes())
            .expect("rings are in RAM");
    }

    /// Does something that a good driver does not.
    pub fn misbehave(&mut self, ram: &GuestRam, input: &mut Input<'_>) {
        let size = self.layout.size;
        match input.u8() % 6 {
            0 => {
                let (index, address) = (input.u16() % size, address(input));
                let (len, flags) = (input.len(), input.u8().into());
                let next = input.u8().into();
                self.describe(ram, index, descriptor(address, len, flags, next));
            }
            1 => {
                let head = input.u8().into();
                self.offer(ram, head);
            }
            2 => self.set_available(ram, input.u16()),
            // As many as there may be, all of them what is in the ring already.
            3 => self.set_available(ram, self.available.wrapping_add(size)),
            // Flags and the index of events.
            4 => {
                let flags = input.u16().to_le_bytes();
                let _ = ram.write(self.layout.available, &flags);
            }
            _ => {
                let event = input.u16().to_le_bytes();
                let _ = ram.write(self.layout.available + 4 + u64::from(size) * 2, &event);
            }
        }
    }
}

/// The bytes of a descriptor.
pub fn descriptor(address: u64, len: u32, flags: u16, next: u16) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&address.to_le_bytes());
    bytes[8..12].copy_from_slice(&len.to_le_bytes());
    bytes[12..14].copy_from_slice(&flags.to_le_bytes());
    bytes[14..].copy_from_slice(&next.to_le_bytes());
    bytes
}

/// An address: mostly of RAM, at times at the end of a piece, in a hole, or a device's.
pub fn address(input: &mut Input<'_>) -> u64 {
    match input.u8() & 7 {
        0..=2 => u64::from(input.u16()) << 2,
        3 => RAM - u64::from(input.u8()),
        4 => HIGH + u64::from(input.u16()),
        5 => HIGH + HIGH_BYTES - u64::from(input.u8()),
        6 => WINDOW + u64::from(input.u16()),
        _ => input.u64(),
    }
}
