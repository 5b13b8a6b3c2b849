//! Misuse of configuration space, of BARs, of MSI-X and of the machine's own ports.

use super::super::Problem;
use super::super::memory::{ARENA_END, DATA, Registers};
use super::super::pci::{
    BUS_MASTER, COMMAND, FIRST_BAR, Function, IDENTITY, MEMORY, SLOTS, VENDOR_SPECIFIC,
};
use super::super::queue::Wait;
use super::super::virtio::common;
use super::registers::{read, write};
use super::{Attack, MAX_DEVICES};
use crate::machine::{in8, in16, in32, out8, out16, out32};

/// BARs and command register of a function.
#[derive(Clone, Copy)]
struct Decoding {
    function: Function,
    bars: [u32; 6],
    command: u16,
}

impl Decoding {
    fn of(function: Function) -> Self {
        let mut bars = [0; 6];
        for (register, bar) in (FIRST_BAR..).step_by(4).zip(&mut bars) {
            *bar = function.read_u32(register);
        }
        Self {
            function,
            bars,
            command: function.read_u16(COMMAND),
        }
    }

    /// Puts it back, decoding off meanwhile.
    fn restore(&self) {
        self.function.write_u16(COMMAND, 0);
        for (register, bar) in (FIRST_BAR..).step_by(4).zip(self.bars) {
            self.function.write_u32(register, bar);
        }
        self.function.write_u16(COMMAND, self.command);
    }
}

impl Attack<'_> {
    /// How every device decodes.
    fn decoding(&self) -> [Option<Decoding>; MAX_DEVICES] {
        let mut all = [None; MAX_DEVICES];
        for (place, device) in all.iter_mut().zip(self.all.iter().flatten()) {
            *place = Some(Decoding::of(device.function));
        }
        all
    }

    pub fn bar_move(&mut self) -> Result<(), Problem> {
        let (function, bar) = (self.device.function, self.device.bar);
        let home = function.bar_address(bar).unwrap_or(0);
        let decoding = Decoding::of(function);
        let other = self
            .all
            .iter()
            .flatten()
            .find(|other| other.function.slot != function.slot)
            .and_then(|other| other.function.bar_address(other.bar))
            .unwrap_or(home);
        for target in [
            home + 0x10_0000,
            other,
            0xfee0_0000,
            0xfec0_0000,
            0xe000_0000,
            0xffff_8000,
            0x1_0000_0000 - 0x8000,
            0,
            DATA,
            ARENA_END,
            self.ram_end,
            0x1_0000_0000,
            0x10_0000_0000,
            0x7fff_ffff_0000,
            1 << 63,
            u64::MAX,
        ] {
            if !self.runs() {
                self.start()?;
            }
            self.submit(0)?;
            function.set_bar_address(bar, target);
            // Where it was, and where it may be now.
            self.queue()?.kick();
            self.device.common.read_u8(common::STATUS);
            // Not the interrupt controllers, which this guest needs.
            if let Some(there) = Registers::map(target, 0x8000).filter(|_| target < 0xfec0_0000) {
                read(there, common::STATUS, 0);
                write(there, 0x2000, 1, 0);
            }
            self.submit(1)?;
            decoding.restore();
            self.queue()?.kick();
            self.look();
        }
        // Moves by halves, and with decoding turned on and off, as fast as that goes.
        self.start()?;
        for _ in 0..self.count(200) {
            let value = self.random.next();
            match self.random.below(4) {
                0 => function.write_u32(FIRST_BAR + u16::from(bar) * 4, value as u32),
                1 => function.write_u32(FIRST_BAR + u16::from(bar) * 4 + 4, value as u32 & 0xff),
                2 => function.write_u16(COMMAND, value as u16 & (MEMORY | BUS_MASTER)),
                _ => decoding.restore(),
            }
            self.queue()?.kick();
        }
        decoding.restore();
        self.look();
        Ok(())
    }

    pub fn msix_garbage(&mut self) -> Result<(), Problem> {
        // Fixed or lowest priority: the guest that sends itself an INIT is its own victim.
        const DELIVERY: u64 = 0x600;
        let Some(msix) = self.device.msix else {
            return Ok(());
        };
        for round in 0..self.count(20) {
            self.start_with(u64::MAX, Wait::Interrupt)?;
            for _ in 0..40 {
                let offset = self.random.below(msix.table.length());
                let width = self.random.below(4);
                let value = self.random.next();
                let aligned = offset & !3;
                match offset & 0xc {
                    // Messages to everywhere: other processors, no interrupt at all, memory.
                    0 if value & 1 == 0 => msix
                        .table
                        .write_u32(aligned, 0xfee0_0000 | value as u32 & 0xf_ffff),
                    0 | 4 => msix.table.write_u32(aligned, value as u32),
                    8 => msix.table.write_u32(aligned, (value & !DELIVERY) as u32),
                    _ => msix.table.write_u32(aligned, value as u32 & 1),
                }
                read(msix.table, offset, width);
                if value & 0xf0 == 0 {
                    msix.set_control((value >> 48) as u16);
                }
                if value & 0xf00 == 0 {
                    self.device
                        .common
                        .write_u16(common::CONFIG_VECTOR, value as u16);
                }
                self.submit((value & 7) as u16)?;
            }
            // Widths and places that no register has; the vector stays one that is masked here.
            if round == 0 {
                for offset in 0..16 {
                    write(msix.table, offset, 0, 0);
                    write(msix.table, offset, 3, 0);
                    read(msix.table, offset, 3);
                }
            }
            self.look();
            msix.set_control(0);
        }
        Ok(())
    }

    pub fn bus_master(&mut self) -> Result<(), Problem> {
        let function = self.device.function;
        let command = function.read_u16(COMMAND);
        for off in [BUS_MASTER, MEMORY, BUS_MASTER | MEMORY, u16::MAX] {
            self.start()?;
            self.submit(0)?;
            function.write_u16(COMMAND, command & !off);
            for slot in 1..8 {
                self.submit(slot)?;
                self.queue()?.kick();
            }
            self.device.common.read_u8(common::STATUS);
            self.device.common.write_u8(common::STATUS, 0);
            self.look_for(1000);
            function.write_u16(COMMAND, command);
            self.look();
        }
        // Back and forth while requests run.
        self.start()?;
        for round in 0..self.count(100) {
            self.submit((round % 16) as u16)?;
            let value = self.random.next() as u16;
            function.write_u16(COMMAND, command ^ value & (BUS_MASTER | MEMORY));
        }
        function.write_u16(COMMAND, command);
        self.look();
        Ok(())
    }

    pub fn hotplug_registers(&mut self) -> Result<(), Problem> {
        const HOTPLUG: u16 = 0xae00;
        const EVENTS: u16 = 0x60c;
        self.start()?;
        for _ in 0..self.count(2000) {
            let choice = self.random.next();
            let port = if choice & 0x300 == 0 {
                EVENTS + (choice >> 16 & 3) as u16
            } else {
                HOTPLUG + (choice >> 16 & 0x1f) as u16
            };
            let value = (choice >> 32) as u32;
            match choice & 7 {
                0 => drop(in8(port)),
                1 => drop(in16(port)),
                2 => drop(in32(port)),
                3 | 4 => out8(port, value as u8),
                5 => out16(port, value as u16),
                6 => out32(port, value),
                // One bit, as the interface means it.
                _ => out32(port & !3, 1 << (value & 31)),
            }
        }
        out32(EVENTS, 0);
        if !self.is_gone() && self.runs() {
            self.submit(0)?;
            self.look();
        }
        Ok(())
    }

    pub fn config_space(&mut self) -> Result<(), Problem> {
        let decoding = self.decoding();
        for round in 0..self.count(1500) {
            if round % 100 == 0 {
                decoding.iter().flatten().for_each(Decoding::restore);
                self.start()?;
                self.submit(0)?;
            }
            let function = match self.random.below(4) {
                0 => self
                    .device
                    .function
                    .in_slot(self.random.below(SLOTS.into()) as u8),
                1 => self.device.function.in_slot(0),
                _ => self.device.function,
            };
            let register = self.random.below(0x100) as u16;
            let value = self.random.next();
            match self.random.below(6) {
                0 => function.write_u8(register, value as u8),
                1 => function.write_u16(register & !1, value as u16),
                2 | 3 => function.write_u32(register & !3, value as u32),
                4 => drop(function.read_u32(register & 0xffc)),
                _ => {
                    // Across dwords and beyond the first function, where there is memory for it.
                    if let Some(space) = function.bus().memory() {
                        let place = function.offset(0) + (value & 0x7fff);
                        write(space, place, value >> 60 & 3, value);
                        read(space, place, value >> 60 & 3);
                    }
                }
            }
        }
        if let Some(msix) = self.device.msix {
            msix.set_control(0);
        }
        decoding.iter().flatten().for_each(Decoding::restore);
        Ok(())
    }

    pub fn config_ports(&mut self) -> Result<(), Problem> {
        const ADDRESS: u16 = 0xcf8;
        const DATA_PORT: u16 = 0xcfc;
        let decoding = self.decoding();
        self.start()?;
        for _ in 0..self.count(2000) {
            let choice = self.random.next();
            let value = self.random.next() as u32;
            let inside = (choice >> 8 & 3) as u16;
            match choice & 0xf {
                // A slot, a register, and sometimes other buses and functions, or no access at all.
                0..=3 => {
                    let slot = u32::from(self.device.function.slot);
                    out32(ADDRESS, 1 << 31 | slot << 11 | value & 0xff);
                }
                4 => out32(ADDRESS, value),
                5 => drop(in32(ADDRESS)),
                6 => drop(in8(ADDRESS + inside)),
                7 => drop(in16(ADDRESS + inside)),
                // 0xcf9 resets the machine, if bit 2 is set.
                8 => out8(ADDRESS, value as u8),
                9 => out8(ADDRESS + 2 + inside % 2, value as u8),
                10 => out16(ADDRESS, value as u16 & 0x00ff),
                11 => drop(in32(DATA_PORT + inside)),
                12 => drop(in16(DATA_PORT + inside)),
                13 => out8(DATA_PORT + inside, value as u8),
                14 => out16(DATA_PORT + inside, value as u16),
                _ => out32(DATA_PORT + inside, value),
            }
        }
        out32(ADDRESS, 0);
        if let Some(msix) = self.device.msix {
            msix.set_control(0);
        }
        decoding.iter().flatten().for_each(Decoding::restore);
        Ok(())
    }

    pub fn config_window(&mut self) -> Result<(), Problem> {
        const WINDOW: u8 = 5;
        const LENGTHS: [u32; 8] = [0, 1, 2, 3, 4, 8, 0x8000_0000, u32::MAX];
        let function = self.device.function;
        let Some((_, window)) = function
            .capabilities()
            .find(|(id, place)| *id == VENDOR_SPECIFIC && function.read_u8(place + 3) == WINDOW)
        else {
            return Ok(());
        };
        for round in 0..self.count(1000) {
            if round % 100 == 0 {
                self.start()?;
                self.submit(0)?;
            }
            let value = self.random.next();
            let bar = match value & 7 {
                0 => (value >> 8) as u8,
                _ => self.device.bar,
            };
            let offset = match value >> 3 & 3 {
                0 => (value >> 16) as u32,
                _ => (value >> 16) as u32 & 0x7fff,
            };
            let length = LENGTHS.get((value >> 5 & 7) as usize).copied();
            function.write_u8(window + 4, bar);
            function.write_u32(window + 8, offset);
            function.write_u32(window + 12, length.unwrap_or(4));
            let data = window + 16;
            match value >> 60 & 7 {
                0 => drop(function.read_u8(data + (value >> 56 & 3) as u16)),
                1 => drop(function.read_u16(data)),
                2 | 3 => drop(function.read_u32(data)),
                4 => function.write_u8(data + (value >> 56 & 3) as u16, value as u8),
                5 => function.write_u16(data, value as u16),
                _ => function.write_u32(data, value as u32),
            }
        }
        // Through the window the table of MSI-X may have been written.
        if let Some(msix) = self.device.msix {
            msix.set_control(0);
        }
        if function.read_u16(IDENTITY) == 0xffff {
            return Err("the window takes the function away");
        }
        Ok(())
    }
}
