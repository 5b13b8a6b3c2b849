//! The configuration space of one function: a type 0 header and a list of capabilities.
//!
//! Each register is bytes and a mask of the bits that the guest can write; nothing else of it has any
//! effect, except that memory space enable and the BARs decide where the function answers. What a
//! capability does is its owner's matter, who reads it back after a write. Interrupt pins exist only
//! where an old device has one: functions here have MSI-X otherwise. Beyond the first 256 bytes
//! everything reads as zero, which says that there are no extended capabilities.
//!
//! Part of a function, and so behind its lock.

use super::BARS;

mod state;
#[cfg(test)]
mod tests;

pub use self::state::ConfigStateV1;

/// Bytes with anything in them.
const LEN: usize = 256;

const VENDOR: usize = 0x00;
const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const REVISION: usize = 0x08;
const CACHE_LINE_SIZE: usize = 0x0c;
const FIRST_BAR: usize = 0x10;
const SUBSYSTEM_VENDOR: usize = 0x2c;
const EXPANSION_ROM: usize = 0x30;
const CAPABILITIES: usize = 0x34;
const INTERRUPT_LINE: usize = 0x3c;
const INTERRUPT_PIN: usize = 0x3d;
const FIRST_CAPABILITY: usize = 0x40;

const COMMAND_PORTS: u16 = 1 << 0;
const COMMAND_MEMORY: u16 = 1 << 1;
const COMMAND_BUS_MASTER: u16 = 1 << 2;
const COMMAND_INTERRUPT_DISABLE: u16 = 1 << 10;
const COMMAND_WRITABLE: u16 = COMMAND_MEMORY | COMMAND_BUS_MASTER | COMMAND_INTERRUPT_DISABLE;
const STATUS_CAPABILITIES: u16 = 1 << 4;

/// Bit 0 of the expansion ROM's register: it is decoded.
const ROM_ENABLE: u32 = 1 << 0;

/// Bits 2:1 of a BAR: 64 bits wide.
const BAR_64: u32 = 0b10 << 1;
/// The smallest BAR made, so that no two share a page.
const MIN_BAR: u64 = 4096;

/// Id of the PCI Express capability.
const PCI_EXPRESS: u8 = 0x10;
/// Its length (§7.5.3), most of it registers of links, slots and roots.
const EXPRESS_LEN: usize = 0x3c;
/// PCI Express capabilities register: version 2, root complex integrated endpoint.
const EXPRESS_CAPABILITIES: u16 = 9 << 4 | 2;
/// Device capabilities: role-based error reporting, which is required; payloads of 128 bytes.
const EXPRESS_DEVICE: u32 = 1 << 15;
/// Device control after reset: relaxed ordering, no snoop, read requests of 512 bytes.
const EXPRESS_CONTROL: u16 = 0x2810;
/// Those fields and the four error reporting enables.
const EXPRESS_CONTROL_WRITABLE: u16 = 0x781f;

/// What a function is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Revision ID.
    pub revision: u8,
    /// Class code: class, subclass and programming interface, 24 bits.
    pub class: u32,
    /// Subsystem vendor ID.
    pub subsystem_vendor: u16,
    /// Subsystem ID.
    pub subsystem: u16,
}

/// How wide a memory BAR is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BarWidth {
    /// One register: below 4 GiB.
    Bits32,
    /// Two registers.
    Bits64,
}

/// What a write to configuration space has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "the root follows a change of decoding"]
pub enum Change {
    /// Nothing outside the function.
    Nothing,
    /// Where, or whether, the function decodes a BAR.
    Decoding,
}

/// A configuration space that cannot be built like that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// The register of that index, or that of the upper half, does not exist or is in use.
    #[error("BAR {index} is not free")]
    Bar {
        /// The index.
        index: u8,
    },
    /// Not a power of two, too small or too large for the register.
    #[error("BAR {index} cannot have {size:#x} bytes")]
    BarSize {
        /// The index.
        index: u8,
        /// The length asked for.
        size: u64,
    },
    /// Not a multiple of the BAR's size, too large for the register, or there is no such BAR.
    #[error("BAR {index} cannot be at {address:#x}")]
    BarAddress {
        /// The index.
        index: u8,
        /// The address asked for.
        address: u64,
    },
    /// No room for the capability, or its mask is not as long as its body.
    #[error("capability {id:#x} of {len} bytes does not fit")]
    Capability {
        /// Its id.
        id: u8,
        /// Its length, without id and next pointer.
        len: usize,
    },
    /// MSI-X has 1 to 2048 vectors.
    #[error("MSI-X cannot have {count} vectors")]
    Vectors {
        /// The number asked for.
        count: u16,
    },
}

#[derive(Debug, Clone, Copy)]
struct Layout {
    size: u64,
    width: BarWidth,
}

/// The registers of a function.
#[derive(Debug, Clone)]
pub struct ConfigSpace {
    bytes: [u8; LEN],
    writable: [u8; LEN],
    power_on: [u8; LEN],
    bars: [Option<Layout>; BARS],
    /// The pointer to the next capability, in the last one or the header.
    last_next: usize,
    /// Where the next capability goes.
    free: usize,
}

impl ConfigSpace {
    /// A function without BARs and capabilities.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        let mut space = Self {
            bytes: [0; LEN],
            writable: [0; LEN],
            power_on: [0; LEN],
            bars: [None; BARS],
            last_next: CAPABILITIES,
            free: FIRST_CAPABILITY,
        };
        let [vendor, device] = [identity.vendor, identity.device].map(u16::to_le_bytes);
        space.define(VENDOR, &[vendor, device].concat(), &[]);
        let class = identity.class << 8 | u32::from(identity.revision);
        space.define(REVISION, &class.to_le_bytes(), &[]);
        let [vendor, subsystem] =
            [identity.subsystem_vendor, identity.subsystem].map(u16::to_le_bytes);
        space.define(SUBSYSTEM_VENDOR, &[vendor, subsystem].concat(), &[]);
        space.define(COMMAND, &[0; 2], &COMMAND_WRITABLE.to_le_bytes());
        // Without effect, but writable: drivers and firmware leave notes in both (§7.5.1.1).
        space.define(CACHE_LINE_SIZE, &[0], &[0xff]);
        space.define(INTERRUPT_LINE, &[0], &[0xff]);
        space
    }

    /// Gives the function a memory BAR of `size` bytes, a power of two from 4096, at `index`; one of
    /// 64 bits takes `index + 1` as well. It is at address 0 until
    /// [`set_bar_address`](Self::set_bar_address), and not prefetchable.
    ///
    /// # Errors
    /// [`LayoutError::Bar`], [`LayoutError::BarSize`].
    pub fn add_memory_bar(
        &mut self,
        index: u8,
        size: u64,
        width: BarWidth,
    ) -> Result<(), LayoutError> {
        let slots = usize::from(index)
            ..usize::from(index)
                + match width {
                    BarWidth::Bits32 => 1,
                    BarWidth::Bits64 => 2,
                };
        let free = slots.end <= BARS && slots.clone().all(|slot| self.is_free(slot));
        if !free {
            return Err(LayoutError::Bar { index });
        }
        let fits = width == BarWidth::Bits64 || size <= 1 << 31;
        if !size.is_power_of_two() || size < MIN_BAR || !fits {
            return Err(LayoutError::BarSize { index, size });
        }
        if let Some(bar) = self.bars.get_mut(slots.start) {
            *bar = Some(Layout { size, width });
        }
        let (flags, len) = match width {
            BarWidth::Bits32 => (0, 4),
            BarWidth::Bits64 => (u64::from(BAR_64), 8),
        };
        let (value, mask) = (flags.to_le_bytes(), (!(size - 1)).to_le_bytes());
        let register = bar_register(slots.start);
        self.define(
            register,
            value.get(..len).unwrap_or_default(),
            mask.get(..len).unwrap_or_default(),
        );
        Ok(())
    }

    /// Gives the function an expansion ROM of `size` bytes, a power of two from 4096 to 16 MiB, which its owner moves
    /// about as if it were a BAR.
    ///
    /// # Errors
    /// [`LayoutError::BarSize`], with the number of no BAR.
    pub fn add_expansion_rom(&mut self, size: u32) -> Result<(), LayoutError> {
        if !size.is_power_of_two() || !(4096..=16 << 20).contains(&size) {
            let (index, size) = (u8::MAX, size.into());
            return Err(LayoutError::BarSize { index, size });
        }
        let writable = !(size - 1) | ROM_ENABLE;
        self.define(EXPANSION_ROM, &[0; 4], &writable.to_le_bytes());
        Ok(())
    }

    /// Where the function decodes its expansion ROM, if it has one and does.
    #[must_use]
    pub fn expansion_rom(&self) -> Option<u64> {
        let register = u32::from_le_bytes(self.field(EXPANSION_ROM));
        let enabled = self.command() & COMMAND_MEMORY != 0 && register & ROM_ENABLE != 0;
        enabled.then_some(u64::from(register & !ROM_ENABLE))
    }

    /// Where the BAR is after power-on, and now.
    ///
    /// # Errors
    /// [`LayoutError::BarAddress`].
    pub fn set_bar_address(&mut self, index: u8, address: u64) -> Result<(), LayoutError> {
        let refusal = LayoutError::BarAddress { index, address };
        let bar = self.layout(index).ok_or(refusal)?;
        let last = address.checked_add(bar.size - 1).ok_or(refusal)?;
        let fits = bar.width == BarWidth::Bits64 || last <= u32::MAX.into();
        if address % bar.size != 0 || !fits {
            return Err(refusal);
        }
        let register = bar_register(index.into());
        let fields = address.to_le_bytes().into_iter().zip(register..);
        let len = match bar.width {
            BarWidth::Bits32 => 4,
            BarWidth::Bits64 => 8,
        };
        for (value, place) in fields.take(len) {
            for bytes in [&mut self.power_on, &mut self.bytes] {
                let mask = self.writable.get(place).copied().unwrap_or(0);
                merge(bytes, place, value, mask);
            }
        }
        Ok(())
    }

    /// Appends a capability: `body` is what follows id and next pointer, `writable` the bits of it
    /// that the guest can write. The offset of its id, a multiple of 4 from 0x40.
    ///
    /// # Errors
    /// [`LayoutError::Capability`].
    pub fn add_capability(
        &mut self,
        id: u8,
        body: &[u8],
        writable: &[u8],
    ) -> Result<u8, LayoutError> {
        let len = body.len();
        let refusal = LayoutError::Capability { id, len };
        let end = self.free.saturating_add(2).saturating_add(len);
        if end > LEN || writable.len() != len {
            return Err(refusal);
        }
        let offset = u8::try_from(self.free).map_err(|_| refusal)?;
        self.define(self.last_next, &[offset], &[]);
        self.define(STATUS, &STATUS_CAPABILITIES.to_le_bytes(), &[]);
        self.define(self.free, &[id, 0], &[]);
        self.define(self.free + 2, body, writable);
        self.last_next = self.free + 1;
        self.free = end.next_multiple_of(4);
        Ok(offset)
    }

    /// Appends the PCI Express capability of a root complex integrated endpoint (§7.5.3): no link, no
    /// slot, no function level reset.
    ///
    /// # Errors
    /// [`LayoutError::Capability`].
    pub fn add_pci_express(&mut self) -> Result<u8, LayoutError> {
        let (mut body, mut writable) = ([0; EXPRESS_LEN - 2], [0; EXPRESS_LEN - 2]);
        let fields = EXPRESS_CAPABILITIES
            .to_le_bytes()
            .into_iter()
            .chain(EXPRESS_DEVICE.to_le_bytes())
            .chain(EXPRESS_CONTROL.to_le_bytes());
        for (byte, field) in body.iter_mut().zip(fields) {
            *byte = field;
        }
        // The only register to write is the third, behind 6 bytes.
        for (byte, mask) in writable
            .iter_mut()
            .skip(6)
            .zip(EXPRESS_CONTROL_WRITABLE.to_le_bytes())
        {
            *byte = mask;
        }
        self.add_capability(PCI_EXPRESS, &body, &writable)
    }

    /// Gives the function an interrupt pin, 1 for INTA#, and notes after power-on that it is connected to
    /// the interrupt controller's input `line`, as firmware would.
    pub fn set_interrupt(&mut self, pin: u8, line: u8) {
        self.define(INTERRUPT_LINE, &[line], &[0xff]);
        self.define(INTERRUPT_PIN, &[pin], &[]);
    }

    /// Gives the function registers of its own from `offset` on, a byte offset from 0x40, which no capability
    /// takes: `values` after power-on, of which the bits of `writable`, as long or shorter, can be written.
    /// What of them is beyond the space is left out.
    pub fn add_registers(&mut self, offset: u8, values: &[u8], writable: &[u8]) {
        self.define(usize::from(offset).max(FIRST_CAPABILITY), values, writable);
    }

    /// Lets the guest enable the decoding of I/O ports, which no BAR is about: for a bridge to another bus.
    pub fn allow_port_decoding(&mut self) {
        let writable = COMMAND_WRITABLE | COMMAND_PORTS;
        self.define(COMMAND, &[0; 2], &writable.to_le_bytes());
    }

    /// Fills `data` from `register` on.
    pub fn read(&self, register: u16, data: &mut [u8]) {
        for (byte, place) in data.iter_mut().zip(usize::from(register)..) {
            *byte = self.bytes.get(place).copied().unwrap_or(0);
        }
    }

    /// Takes what is writable of `data`, from `register` on.
    pub fn write(&mut self, register: u16, data: &[u8]) -> Change {
        let before = self.decoded();
        for (byte, place) in data.iter().zip(usize::from(register)..) {
            let mask = self.writable.get(place).copied().unwrap_or(0);
            merge(&mut self.bytes, place, *byte, mask);
        }
        if self.decoded() == before {
            Change::Nothing
        } else {
            Change::Decoding
        }
    }

    /// Where the function decodes the BAR: not while memory space is disabled, nor where the BAR
    /// would wrap around the end of the address space. `None` as well if there is no such BAR.
    #[must_use]
    pub fn bar(&self, index: u8) -> Option<u64> {
        let bar = self.layout(index)?;
        let register = bar_register(index.into());
        let address = match bar.width {
            BarWidth::Bits32 => u32::from_le_bytes(self.field(register)).into(),
            BarWidth::Bits64 => u64::from_le_bytes(self.field(register)),
        } & !(bar.size - 1);
        let enabled = self.command() & COMMAND_MEMORY != 0;
        (enabled && address.checked_add(bar.size).is_some()).then_some(address)
    }

    /// Length of the BAR in bytes, if there is one.
    #[must_use]
    pub fn bar_size(&self, index: u8) -> Option<u64> {
        self.layout(index).map(|bar| bar.size)
    }

    /// Whether the function may write to memory, messages of interrupts included.
    #[must_use]
    pub fn bus_master(&self) -> bool {
        self.command() & COMMAND_BUS_MASTER != 0
    }

    /// Goes to the state after power-on, the addresses given by
    /// [`set_bar_address`](Self::set_bar_address) included: nothing is decoded.
    pub fn reset(&mut self) {
        self.bytes = self.power_on;
    }

    fn command(&self) -> u16 {
        u16::from_le_bytes(self.field(COMMAND))
    }

    /// The bytes from `offset` on; zeros beyond the end.
    fn field<const N: usize>(&self, offset: usize) -> [u8; N] {
        self.bytes
            .get(offset..)
            .and_then(|rest| rest.first_chunk())
            .copied()
            .unwrap_or([0; N])
    }

    fn decoded(&self) -> [Option<u64>; BARS] {
        [0, 1, 2, 3, 4, 5].map(|index| self.bar(index))
    }

    fn layout(&self, index: u8) -> Option<Layout> {
        self.bars.get(usize::from(index)).copied().flatten()
    }

    /// Whether no BAR has the register.
    fn is_free(&self, slot: usize) -> bool {
        let below = slot.checked_sub(1).and_then(|below| self.bars.get(below));
        let upper_half = below
            .copied()
            .flatten()
            .is_some_and(|bar| bar.width == BarWidth::Bits64);
        self.bars.get(slot).is_some_and(Option::is_none) && !upper_half
    }

    /// Sets registers as they are after power-on, and now. `writable` may be shorter: the rest is
    /// read-only.
    fn define(&mut self, offset: usize, values: &[u8], writable: &[u8]) {
        for (index, value) in values.iter().enumerate() {
            let mask = writable.get(index).copied().unwrap_or(0);
            merge(&mut self.power_on, offset + index, *value, 0xff);
            merge(&mut self.bytes, offset + index, *value, 0xff);
            merge(&mut self.writable, offset + index, mask, 0xff);
        }
    }
}

fn bar_register(index: usize) -> usize {
    FIRST_BAR + 4 * index
}

/// Puts the bits of `value` that are in `mask` at `place`, if it exists.
fn merge(bytes: &mut [u8; LEN], place: usize, value: u8, mask: u8) {
    if let Some(byte) = bytes.get_mut(place) {
        *byte = *byte & !mask | value & mask;
    }
}
