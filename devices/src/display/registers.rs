//! The registers of BAR 2.

use super::VideoMemory;
use super::edid::{EDID_BYTES, edid};
use super::framebuffer::Mode;
use crate::bus::{AccessError, BusDevice};
use crate::state::{StateError, StateReader, StateWriter};

/// Bytes of the BAR.
pub const BYTES: u64 = 4096;
/// Where a VGA would have its ports from 0x3c0 on: written by drivers to unblank the screen, and not there.
pub const VGA_PORTS: u64 = 0x400;
const VGA_PORTS_END: u64 = 0x420;
/// The mode's registers, two bytes each.
pub const MODE: u64 = 0x500;
/// Byte order: the length of these registers, and the order.
const EXTENSION: u64 = 0x600;
const EXTENSION_BYTES: u32 = 8;
const LITTLE_ENDIAN: u32 = 0x1e1e_1e1e;

/// How many registers the mode has.
const COUNT: usize = 11;
/// By number: the version of the interface, which is read only.
const ID: usize = 0;
const WIDTH: usize = 1;
const HEIGHT: usize = 2;
const DEPTH: usize = 3;
const ENABLE: usize = 4;
const VIRTUAL_WIDTH: usize = 6;
const X_OFFSET: usize = 8;
const Y_OFFSET: usize = 9;
/// Video memory in units of 64 KiB, which is read only.
const MEMORY: usize = 10;

/// The interface of Bochs' that has everything that is here.
const VERSION: u16 = 0xb0c5;
/// Of the enable register: there is a picture.
const ENABLED: u16 = 1;

/// The registers as the guest has set them: any value at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registers {
    mode: [u16; COUNT],
    edid: [u8; EDID_BYTES],
}

impl Registers {
    /// Those of a display without a picture, whose monitor prefers a mode of that size.
    #[must_use]
    pub fn new(width: u16, height: u16) -> Self {
        Self {
            mode: [0; COUNT],
            edid: edid(width, height),
        }
    }

    pub(super) fn power_on(&mut self) {
        self.mode = [0; COUNT];
    }

    fn register(&self, number: usize) -> u16 {
        match number {
            ID => VERSION,
            MEMORY => u16::try_from(VideoMemory::BYTES >> 16).unwrap_or(u16::MAX),
            _ => self.mode.get(number).copied().unwrap_or(0),
        }
    }

    /// What they mean, if that is a picture.
    pub(super) fn picture(&self) -> Option<Mode> {
        let register = |number| self.register(number);
        if register(ENABLE) & ENABLED == 0 {
            return None;
        }
        Mode::new(
            register(WIDTH),
            register(HEIGHT),
            register(DEPTH),
            register(VIRTUAL_WIDTH),
            (register(X_OFFSET), register(Y_OFFSET)),
        )
    }

    /// The byte at `offset`.
    fn byte(&self, offset: u64) -> u8 {
        let index = |start: u64| usize::try_from(offset - start).unwrap_or(usize::MAX);
        match offset {
            ..VGA_PORTS => self.edid.get(index(0)).copied().unwrap_or(0),
            MODE..EXTENSION => {
                let [low, high] = self.register(index(MODE) / 2).to_le_bytes();
                if offset % 2 == 0 { low } else { high }
            }
            EXTENSION.. => {
                let [first, second] = [EXTENSION_BYTES, LITTLE_ENDIAN].map(u32::to_le_bytes);
                let bytes = [first, second];
                let byte = bytes.as_flattened().get(index(EXTENSION));
                byte.copied().unwrap_or(0)
            }
            _ => 0,
        }
    }

    pub(super) fn encode(&self, writer: &mut StateWriter) {
        for value in self.mode {
            writer.u16(value);
        }
    }

    /// The registers of `bytes`, with this display's monitor.
    pub(super) fn decode(&self, reader: &mut StateReader<'_>) -> Result<Self, StateError> {
        let mut mode = [0; COUNT];
        for value in &mut mode {
            *value = reader.u16()?;
        }
        let edid = self.edid;
        Ok(Self { mode, edid })
    }
}

/// Any width is read; a write is one register of the mode, or is of what is not there and does nothing.
impl BusDevice for Registers {
    fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), AccessError> {
        for (byte, place) in data.iter_mut().zip(offset..) {
            *byte = self.byte(place);
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), AccessError> {
        if (VGA_PORTS..VGA_PORTS_END).contains(&offset) || (EXTENSION..BYTES).contains(&offset) {
            return Ok(());
        }
        let value: [u8; 2] = data.try_into().map_err(|_| AccessError)?;
        let place = offset.checked_sub(MODE).filter(|place| place % 2 == 0);
        let number = place.and_then(|place| usize::try_from(place / 2).ok());
        let register = number.and_then(|number| self.mode.get_mut(number));
        *register.ok_or(AccessError)? = u16::from_le_bytes(value);
        Ok(())
    }
}
