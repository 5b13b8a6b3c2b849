//! The display on the bus: its configuration space, and how its video memory becomes memory of the guest.

use std::fmt;
use std::sync::Arc;

use super::registers::{self, Registers};
use super::{Framebuffer, MAX_HEIGHT, MAX_WIDTH, MIN_HEIGHT, MIN_WIDTH, VideoMemory};
use crate::bus::{AccessError, BusDevice};
use crate::pci::config_space::{
    BarWidth, Change, ConfigSpace, ConfigStateV1, Identity, LayoutError,
};
use crate::pci::{Bar, Bars, PciFunction};
use crate::power::Reset;
use crate::shared::{Shared, lock, share};
use crate::state::{Saveable, Schema, StateError, StateReader, StateWriter};

/// QEMU's, of the class "some other display": it is no VGA.
const IDENTITY: Identity = Identity {
    vendor: 0x1234,
    device: 0x1111,
    revision: 2,
    class: 0x03_80_00,
    subsystem_vendor: 0x1af4,
    subsystem: 0x1100,
};

/// Video memory.
const MEMORY_BAR: u8 = 0;
/// Registers.
const REGISTER_BAR: u8 = 2;
/// The expansion ROM, which is moved about as a BAR of that number, which there is not.
const ROM_BAR: usize = 5;
/// Bytes of it.
const ROM_BYTES: u32 = 64 << 10;

const SCHEMA: Schema = Schema {
    name: "bochs-display",
    version: 1,
};

/// Makes video memory memory of the guest: supplied by the worker.
///
/// Called with the lock of the display held, on vCPU threads and on the control thread. It may wait, for as long as the
/// hypervisor takes to change its map of memory, for a thread that waits for none of them.
pub trait VideoMemorySlot: fmt::Debug + Send + Sync {
    /// Video memory is at guest-physical `address` from now on. Until that is done, and where it cannot be, each access
    /// leaves the guest, and finds the same memory by way of the MMIO bus.
    fn place(&self, address: u64);

    /// It is nowhere. When this returns, the guest reaches none of it but by the MMIO bus.
    fn take_away(&self);
}

/// The worker's side of a display.
#[derive(Debug)]
pub struct DisplayParams {
    /// What the monitor prefers, in pixels. Brought into [`MIN_WIDTH`] to [`MAX_WIDTH`].
    pub width: u16,
    /// The same, in lines: [`MIN_HEIGHT`] to [`MAX_HEIGHT`].
    pub height: u16,
    /// What BIOS firmware draws with, in the expansion ROM, if there is any: at most 64 KiB, of which what is behind
    /// them is left out. UEFI firmware has a driver of its own.
    pub rom: Vec<u8>,
    /// The memory.
    pub memory: VideoMemory,
    /// Makes it memory of the guest; without one every access leaves the guest.
    pub slot: Option<Arc<dyn VideoMemorySlot>>,
}

/// Accesses to video memory that leave the guest.
#[derive(Debug)]
struct Window(VideoMemory);

impl BusDevice for Window {
    fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), AccessError> {
        self.0.read(offset, data).then_some(()).ok_or(AccessError)
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), AccessError> {
        self.0.write(offset, data).then_some(()).ok_or(AccessError)
    }
}

/// The expansion ROM: firmware copies it, so that it need not be memory.
struct ExpansionRom(Vec<u8>);

impl BusDevice for ExpansionRom {
    fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), AccessError> {
        let known = usize::try_from(offset).ok().and_then(|at| self.0.get(at..));
        let bytes = known
            .unwrap_or_default()
            .iter()
            .chain(std::iter::repeat(&0xff));
        for (target, byte) in data.iter_mut().zip(bytes) {
            *target = *byte;
        }
        Ok(())
    }

    fn write(&mut self, _offset: u64, _data: &[u8]) -> Result<(), AccessError> {
        Err(AccessError)
    }
}

impl fmt::Debug for ExpansionRom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ExpansionRom").field(&self.0.len()).finish()
    }
}

/// The function.
#[derive(Debug)]
pub struct DisplayFunction {
    config: ConfigSpace,
    registers: Shared<Registers>,
    window: Shared<Window>,
    rom: Option<Shared<ExpansionRom>>,
    memory: VideoMemory,
    slot: Option<Arc<dyn VideoMemorySlot>>,
}

impl DisplayFunction {
    /// A display without a picture, whose BARs are nowhere.
    ///
    /// # Errors
    /// The layout is not possible (a bug).
    pub fn new(params: DisplayParams) -> Result<Self, LayoutError> {
        let mut config = ConfigSpace::new(IDENTITY);
        // There are no ports; UEFI firmware takes no display that does not let it enable them.
        config.allow_port_decoding();
        config.add_memory_bar(MEMORY_BAR, VideoMemory::BYTES, BarWidth::Bits32)?;
        config.add_memory_bar(REGISTER_BAR, registers::BYTES, BarWidth::Bits32)?;
        let rom = (!params.rom.is_empty()).then(|| share(ExpansionRom(params.rom)));
        if rom.is_some() {
            config.add_expansion_rom(ROM_BYTES)?;
        }
        let width = params.width.clamp(MIN_WIDTH, MAX_WIDTH);
        let height = params.height.clamp(MIN_HEIGHT, MAX_HEIGHT);
        Ok(Self {
            config,
            registers: share(Registers::new(width, height)),
            window: share(Window(params.memory.clone())),
            rom,
            memory: params.memory,
            slot: params.slot,
        })
    }

    /// The picture.
    #[must_use]
    pub fn framebuffer(&self) -> Framebuffer {
        Framebuffer::new(Shared::clone(&self.registers), self.memory.clone())
    }
}

impl PciFunction for DisplayFunction {
    fn read_config(&mut self, register: u16, data: &mut [u8]) {
        self.config.read(register, data);
    }

    fn write_config(&mut self, register: u16, data: &[u8]) -> Change {
        let before = self.config.expansion_rom();
        match self.config.write(register, data) {
            Change::Nothing if self.config.expansion_rom() == before => Change::Nothing,
            _ => Change::Decoding,
        }
    }

    fn bars(&self) -> Bars {
        let bar = |index, size, device| {
            Some(Bar {
                size,
                address: self.config.bar(index),
                device,
            })
        };
        let memory = bar(
            MEMORY_BAR,
            VideoMemory::BYTES,
            Shared::clone(&self.window) as _,
        );
        let registers = bar(
            REGISTER_BAR,
            registers::BYTES,
            Shared::clone(&self.registers) as _,
        );
        let mut bars = [memory, None, registers, None, None, None];
        if let (Some(rom), Some(last)) = (&self.rom, bars.get_mut(ROM_BAR)) {
            *last = Some(Bar {
                size: ROM_BYTES.into(),
                address: self.config.expansion_rom(),
                device: Shared::clone(rom) as _,
            });
        }
        bars
    }

    fn bar_moved(&mut self, bar: u8, address: Option<u64>) {
        let Some(slot) = self.slot.as_ref().filter(|_| bar == MEMORY_BAR) else {
            return;
        };
        match address {
            Some(address) => slot.place(address),
            None => slot.take_away(),
        }
    }
}

/// What is in video memory stays, as it does in a PC's: whoever draws next draws over it.
impl Reset for DisplayFunction {
    fn reset(&mut self) {
        self.config.reset();
        lock(&self.registers).power_on();
    }
}

/// The registers. Video memory is not in the record: it is memory, to be saved as that. Whoever restores it tells the
/// root.
impl Saveable for DisplayFunction {
    fn schema(&self) -> Schema {
        SCHEMA
    }

    fn save(&self) -> Vec<u8> {
        let mut writer = StateWriter::new();
        self.config.state().encode(&mut writer);
        lock(&self.registers).encode(&mut writer);
        writer.finish()
    }

    fn restore(&mut self, version: u32, bytes: &[u8]) -> Result<(), StateError> {
        SCHEMA.expect_version(version)?;
        let mut reader = StateReader::new(bytes);
        let config = ConfigStateV1::decode(&mut reader, &self.config)?;
        let registers = lock(&self.registers).decode(&mut reader)?;
        reader.finish()?;
        self.config.set_state(&config);
        *lock(&self.registers) = registers;
        Ok(())
    }
}
