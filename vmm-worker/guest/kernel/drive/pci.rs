//! PCI functions on the root bus: configuration space, capabilities, BARs, MSI-X (PCI Express 6.0,
//! chapter 7; PCI Local Bus 3.0, chapter 6).
//!
//! Configuration space is reached by memory where the MCFG says so or where the machine type has it,
//! else by ports. One function to a slot is looked at.

use super::memory::Registers;
use crate::acpi;
use crate::boot::Boot;
use crate::machine::{self, in8, in16, in32, out8, out16, out32};
use crate::ring0::Interrupt;

/// Where this machine type has configuration space.
const MACHINE_ECAM: u64 = 0xe000_0000;
/// Slots of a bus.
pub const SLOTS: u8 = 32;
/// Configuration space of a bus: 32 slots, 8 functions, 4096 bytes each.
const ECAM_BYTES: u64 = 1 << 20;

const CONFIG_ADDRESS: u16 = 0xcf8;
const CONFIG_DATA: u16 = 0xcfc;

/// Register: vendor and device.
pub const IDENTITY: u16 = 0x00;
/// Register: command.
pub const COMMAND: u16 = 0x04;
/// Register: the first BAR.
pub const FIRST_BAR: u16 = 0x10;
const STATUS: u16 = 0x06;
const CAPABILITIES: u16 = 0x34;
/// Command: memory is decoded.
pub const MEMORY: u16 = 1 << 1;
/// Command: the function may write to memory.
pub const BUS_MASTER: u16 = 1 << 2;
const HAS_CAPABILITIES: u16 = 1 << 4;

/// Capability: MSI-X.
pub const MSIX: u8 = 0x11;
/// Capability: vendor-specific.
pub const VENDOR_SPECIFIC: u8 = 0x09;
/// More than fit into the 192 bytes they have.
const MAX_CAPABILITIES: usize = 48;

/// How configuration space is reached.
#[derive(Clone, Copy)]
pub enum Bus {
    /// By memory: the first bus.
    Memory(Registers),
    /// By ports 0xcf8 and 0xcfc.
    Ports,
}

impl Bus {
    /// The root bus, if there is one.
    pub fn find(boot: &Boot) -> Option<Self> {
        let named = acpi::configuration_space(boot);
        for address in [named, Some(MACHINE_ECAM)].into_iter().flatten() {
            let bus = Self::Memory(Registers::map(address, ECAM_BYTES)?);
            if bus.slots().next().is_some() {
                return Some(bus);
            }
        }
        Some(Self::Ports).filter(|bus| bus.slots().next().is_some())
    }

    /// The slots that have a function.
    pub fn slots(self) -> impl Iterator<Item = Function> {
        (0..SLOTS)
            .map(move |slot| Function { bus: self, slot })
            .filter(|function| function.read_u16(IDENTITY) != 0xffff)
    }

    /// Where configuration space is by memory, the first bus of it.
    pub fn memory(self) -> Option<Registers> {
        match self {
            Self::Memory(registers) => Some(registers),
            Self::Ports => None,
        }
    }
}

/// A function.
#[derive(Clone, Copy)]
pub struct Function {
    bus: Bus,
    /// Its device number.
    pub slot: u8,
}

macro_rules! configuration {
    ($read:ident, $write:ident, $type:ty, $input:ident, $output:ident) => {
        /// Reads a register.
        pub fn $read(self, register: u16) -> $type {
            match self.bus {
                Bus::Memory(space) => space.$read(self.offset(register)),
                Bus::Ports => $input(self.select(register)),
            }
        }

        /// Writes a register.
        pub fn $write(self, register: u16, value: $type) {
            match self.bus {
                Bus::Memory(space) => space.$write(self.offset(register), value),
                Bus::Ports => $output(self.select(register), value),
            }
        }
    };
}

impl Function {
    configuration!(read_u8, write_u8, u8, in8, out8);
    configuration!(read_u16, write_u16, u16, in16, out16);
    configuration!(read_u32, write_u32, u32, in32, out32);

    /// The bus it is on.
    pub fn bus(self) -> Bus {
        self.bus
    }

    /// The function in another slot, whether there is one or not.
    pub fn in_slot(self, slot: u8) -> Self {
        Self { slot, ..self }
    }

    /// Its place in configuration space by memory.
    pub fn offset(self, register: u16) -> u64 {
        u64::from(self.slot) << 15 | u64::from(register & 0xfff)
    }

    fn select(self, register: u16) -> u16 {
        let target = 1 << 31 | u32::from(self.slot) << 11 | u32::from(register & 0xfc);
        out32(CONFIG_ADDRESS, target);
        CONFIG_DATA + (register & 3)
    }

    /// The capabilities: identifier and place.
    pub fn capabilities(self) -> impl Iterator<Item = (u8, u16)> {
        let listed = self.read_u16(STATUS) & HAS_CAPABILITIES != 0;
        let first = if listed {
            self.read_u8(CAPABILITIES) & !3
        } else {
            0
        };
        core::iter::successors(Some(first), move |&place| {
            Some(self.read_u8(u16::from(place) + 1) & !3)
        })
        .take_while(|&place| place >= 0x40)
        .take(MAX_CAPABILITIES)
        .map(move |place| (self.read_u8(u16::from(place)), u16::from(place)))
    }

    /// Where a memory BAR is, and how it is written: its register, and whether it has a second one.
    fn bar(self, number: u8) -> Option<(u64, bool)> {
        const IO: u32 = 1;
        const TYPE: u32 = 3 << 1;
        const BITS_64: u32 = 2 << 1;
        let register = FIRST_BAR + u16::from(number) * 4;
        if number > 5 {
            return None;
        }
        let low = self.read_u32(register);
        if low & IO != 0 {
            return None;
        }
        let wide = low & TYPE == BITS_64 && number < 5;
        let high = if wide { self.read_u32(register + 4) } else { 0 };
        Some((u64::from(high) << 32 | u64::from(low & !0xf), wide))
    }

    /// The address of a memory BAR, as its register has it.
    pub fn bar_address(self, number: u8) -> Option<u64> {
        self.bar(number).map(|(address, _)| address)
    }

    /// Moves a memory BAR.
    pub fn set_bar_address(self, number: u8, address: u64) {
        if let Some((_, wide)) = self.bar(number) {
            let register = FIRST_BAR + u16::from(number) * 4;
            self.write_u32(register, address as u32);
            if wide {
                self.write_u32(register + 4, (address >> 32) as u32);
            }
        }
    }

    /// The memory BARs, by number; the second register of a wide one is none.
    pub fn bars(self) -> impl Iterator<Item = u8> {
        let mut number = 0;
        core::iter::from_fn(move || {
            while number < 6 {
                let this = number;
                let bar = self.bar(this);
                number += if bar.is_some_and(|(_, wide)| wide) {
                    2
                } else {
                    1
                };
                if bar.is_some() {
                    return Some(this);
                }
            }
            None
        })
    }

    /// The length of a memory BAR; zero if there is none. What it decodes meanwhile is nowhere.
    pub fn bar_length(self, number: u8) -> u64 {
        let Some((address, wide)) = self.bar(number) else {
            return 0;
        };
        self.set_bar_address(number, u64::MAX);
        let answer = self.bar_address(number).unwrap_or(0);
        self.set_bar_address(number, address);
        let mask = if wide || answer == 0 {
            answer
        } else {
            answer | !0 << 32
        };
        (!mask).wrapping_add(1)
    }

    /// Lets the function decode memory, write to it, and send messages. A BAR that has no address yet
    /// gets one: where no firmware has run, that is for the driver to do.
    pub fn enable(self) {
        const WHERE_BARS_GO: u64 = 0xc000_0000;
        const ROOM: u64 = 1 << 20;
        let command = self.read_u16(COMMAND) & !MEMORY;
        for number in self.bars() {
            if self.bar_address(number) == Some(0) {
                self.write_u16(COMMAND, command);
                let place = u64::from(self.slot) * 6 + u64::from(number);
                if (1..=ROOM).contains(&self.bar_length(number)) {
                    self.set_bar_address(number, WHERE_BARS_GO + place * ROOM);
                }
            }
        }
        self.write_u16(COMMAND, command | MEMORY | BUS_MASTER);
    }

    /// The registers of a BAR, from `offset` on.
    pub fn registers(self, bar: u8, offset: u32, length: u32) -> Option<Registers> {
        let address = self.bar_address(bar).filter(|&address| address != 0)?;
        Registers::map(address.checked_add(u64::from(offset))?, u64::from(length))
    }
}

/// The MSI-X capability of a function, and its table.
#[derive(Clone, Copy)]
pub struct Msix {
    function: Function,
    capability: u16,
    /// Entries of the table.
    pub vectors: u16,
    /// The table: 16 bytes an entry.
    pub table: Registers,
}

/// Message control, from the capability's start.
const CONTROL: u16 = 2;
const ENABLED: u16 = 1 << 15;
const ALL_MASKED: u16 = 1 << 14;

impl Msix {
    /// That of a function, if it has one.
    pub fn find(function: Function) -> Option<Self> {
        let (_, capability) = function.capabilities().find(|(id, _)| *id == MSIX)?;
        let vectors = (function.read_u16(capability + CONTROL) & 0x7ff) + 1;
        let place = function.read_u32(capability + 4);
        let length = u32::from(vectors) * 16;
        let table = function.registers((place & 7) as u8, place & !7, length)?;
        Some(Self {
            function,
            capability,
            vectors,
            table,
        })
    }

    /// Sends every vector to this processor's device interrupt.
    pub fn enable(self) {
        const MESSAGES: u64 = 0xfee0_0000;
        const APIC_ID: u64 = MESSAGES + 0x20;
        let destination = machine::read_u32(APIC_ID) >> 24 << 12;
        self.function
            .write_u16(self.capability + CONTROL, ENABLED | ALL_MASKED);
        for entry in (0..u64::from(self.vectors)).map(|vector| vector * 16) {
            self.table.write_u32(entry, MESSAGES as u32 | destination);
            self.table.write_u32(entry + 4, 0);
            self.table
                .write_u32(entry + 8, Interrupt::Device.vector().into());
            self.table.write_u32(entry + 12, 0);
        }
        self.function.write_u16(self.capability + CONTROL, ENABLED);
    }

    /// Writes message control as it is.
    pub fn set_control(self, control: u16) {
        self.function.write_u16(self.capability + CONTROL, control);
    }
}
