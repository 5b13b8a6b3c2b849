//! The firmware configuration device (QEMU, docs/specs/fw_cfg): by which firmware is told what machine it is in.
//!
//! ```text
//!  offset 0  (port 0x510)  selector, 16 bits, write-only: which item is read, from its start
//!         1  (port 0x511)  data, 8 bits: the item's next byte; zero behind its end
//!         4  (port 0x514)  DMA address, 64 bits with the highest byte first: its lower half starts a transfer
//! ```
//!
//! The items are the machine's ([`Items`]): the guest reads them and writes none. A transfer is done when the
//! port write is: it copies at most [`MAX_TRANSFER`] bytes between an item and one piece of RAM, or moves the
//! place where reading goes on. Whatever is wrong with a transfer is answered in its control field, if there is
//! RAM for the answer. A direction that is not served, writing, is an error too.
//!
//! vCPU threads, under the device's lock; the items are replaced by the thread that builds or resets the
//! machine, while no vCPU runs.

use crate::bus::{AccessError, BusDevice};
use crate::memory::GuestRam;
use crate::power::Reset;
use crate::state::{Saveable, Schema, StateError, StateReader, StateWriter};

pub use self::items::{Items, ItemsError, MAX_NAME, Render, key};

mod items;
#[cfg(test)]
mod tests;

/// The most bytes of one transfer. Longer ones are errors: firmware asks for an item's length at most.
pub const MAX_TRANSFER: u32 = 16 << 20;

const SELECTOR: u64 = 0;
const DATA: u64 = 1;
/// Upper and lower half of the address of a transfer.
const DMA_HIGH: u64 = 4;
const DMA_LOW: u64 = 8;
/// What the DMA address reads as.
const DMA_SIGNATURE: [u8; 8] = *b"QEMU CFG";

const CONTROL_ERROR: u32 = 1 << 0;
const CONTROL_READ: u32 = 1 << 1;
const CONTROL_SKIP: u32 = 1 << 2;
const CONTROL_SELECT: u32 = 1 << 3;
const CONTROL_WRITE: u32 = 1 << 4;

/// Bytes of the structure that describes a transfer: control, length, address.
const TRANSFER_LEN: usize = 16;

const SCHEMA: Schema = Schema {
    name: "fw-cfg",
    version: 1,
};

/// A transfer that cannot be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Refused;

/// The device.
#[derive(Debug)]
pub struct FwCfg {
    items: Items,
    ram: GuestRam,
    /// The item that is read.
    selected: u16,
    /// Where reading goes on in it; its length at most.
    offset: u32,
    /// Upper half of the address of the next transfer.
    dma_high: u32,
}

impl FwCfg {
    /// Number of ports from the selector on.
    pub const PORTS: u64 = 12;

    /// A device without items, whose transfers reach `ram`.
    #[must_use]
    pub fn new(ram: GuestRam) -> Self {
        Self {
            items: Items::new(),
            ram,
            selected: 0,
            offset: 0,
            dma_high: 0,
        }
    }

    /// Replaces the items.
    pub fn set_items(&mut self, items: Items) {
        self.items = items;
        self.offset = 0;
    }

    fn select(&mut self, key: u16) {
        self.selected = key;
        self.offset = 0;
        self.items.render(key);
    }

    /// What of the selected item is not read yet.
    fn rest(&self) -> &[u8] {
        let offset = usize::try_from(self.offset).unwrap_or(usize::MAX);
        self.items
            .bytes(self.selected)
            .get(offset..)
            .unwrap_or_default()
    }

    /// Moves on by `len` bytes, to the end of the item at most.
    fn skip(&mut self, len: u32) {
        let left = u32::try_from(self.rest().len()).unwrap_or(u32::MAX);
        self.offset = self.offset.saturating_add(len.min(left));
    }

    fn next_byte(&mut self) -> u8 {
        let byte = self.rest().first().copied().unwrap_or(0);
        self.skip(1);
        byte
    }

    /// Does the transfer that is described at `address`, and leaves there how it went.
    fn transfer(&mut self, address: u64) {
        let mut described = [0; TRANSFER_LEN];
        if self.ram.read(address, &mut described).is_err() {
            return;
        }
        let [c0, c1, c2, c3, l0, l1, l2, l3, target @ ..] = described;
        let control = u32::from_be_bytes([c0, c1, c2, c3]);
        let len = u32::from_be_bytes([l0, l1, l2, l3]);
        let answer = match self.obey(control, len, u64::from_be_bytes(target)) {
            Ok(()) => 0,
            Err(Refused) => CONTROL_ERROR,
        };
        // The structure was in RAM a moment ago; where it is no more nobody waits for the answer.
        let _ = self.ram.write(address, &answer.to_be_bytes());
    }

    fn obey(&mut self, control: u32, len: u32, target: u64) -> Result<(), Refused> {
        if control & CONTROL_SELECT != 0 {
            self.select((control >> 16) as u16);
        }
        if control & CONTROL_READ != 0 {
            self.copy_out(target, len)
        } else if control & CONTROL_WRITE != 0 {
            Err(Refused)
        } else {
            if control & CONTROL_SKIP != 0 {
                self.skip(len);
            }
            Ok(())
        }
    }

    /// Copies `len` bytes of the item into RAM at `target`; zeros behind its end.
    fn copy_out(&mut self, target: u64, len: u32) -> Result<(), Refused> {
        const ZEROS: [u8; 4096] = [0; 4096];
        let wanted = usize::try_from(len).map_err(|_| Refused)?;
        if len > MAX_TRANSFER || !self.ram.contains(target, len.into()) {
            return Err(Refused);
        }
        let known = self.rest().get(..wanted).unwrap_or(self.rest());
        self.ram.write(target, known).map_err(|_| Refused)?;
        let mut done = known.len();
        while done < wanted {
            let zeros = ZEROS.get(..wanted - done).unwrap_or(&ZEROS);
            let place = target.checked_add(done as u64).ok_or(Refused)?;
            self.ram.write(place, zeros).map_err(|_| Refused)?;
            done += zeros.len();
        }
        self.skip(len);
        Ok(())
    }
}

impl BusDevice for FwCfg {
    fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), AccessError> {
        match (offset, &mut *data) {
            (DATA, [byte]) => {
                *byte = self.next_byte();
                Ok(())
            }
            (DMA_HIGH.., data) => {
                let skip = usize::try_from(offset - DMA_HIGH).map_err(|_| AccessError)?;
                let signature = DMA_SIGNATURE.get(skip..);
                let known = signature.and_then(|rest| rest.get(..data.len()));
                data.copy_from_slice(known.ok_or(AccessError)?);
                Ok(())
            }
            _ => Err(AccessError),
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), AccessError> {
        match (offset, data) {
            (SELECTOR, [low, high]) => self.select(u16::from_le_bytes([*low, *high])),
            // Items are read-only; so were they before there was DMA.
            (DATA, [_]) => {}
            (DMA_HIGH, [a, b, c, d]) => self.dma_high = u32::from_be_bytes([*a, *b, *c, *d]),
            (DMA_LOW, [a, b, c, d]) => {
                let low = u32::from_be_bytes([*a, *b, *c, *d]);
                // It is used up, so that the next transfer need write the lower half only.
                let high = std::mem::take(&mut self.dma_high);
                self.transfer(u64::from(high) << 32 | u64::from(low));
            }
            _ => return Err(AccessError),
        }
        Ok(())
    }
}

impl Reset for FwCfg {
    fn reset(&mut self) {
        self.selected = 0;
        self.offset = 0;
        self.dma_high = 0;
    }
}

/// Without the items, which the machine's builder makes anew.
impl Saveable for FwCfg {
    fn schema(&self) -> Schema {
        SCHEMA
    }

    fn save(&self) -> Vec<u8> {
        StateWriter::new()
            .u16(self.selected)
            .u32(self.offset)
            .u32(self.dma_high)
            .finish()
    }

    fn restore(&mut self, version: u32, bytes: &[u8]) -> Result<(), StateError> {
        SCHEMA.expect_version(version)?;
        let mut reader = StateReader::new(bytes);
        let (selected, offset, dma_high) = (reader.u16()?, reader.u32()?, reader.u32()?);
        reader.finish()?;
        // Any offset is sound: behind the end of the item there are zeros.
        self.select(selected);
        self.offset = offset;
        self.dma_high = dma_high;
        Ok(())
    }
}
