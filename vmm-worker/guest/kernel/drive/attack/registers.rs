//! Misuse of a device's registers.

use super::super::Problem;
use super::super::memory::{ARENA_END, RINGS, Registers};
use super::super::pci::Bus;
use super::super::queue::Wait;
use super::super::ring::Rings;
use super::super::virtio::{
    ACKNOWLEDGE, DRIVER, DRIVER_OK, F_VERSION_1, FAILED, FEATURES_OK, NEEDS_RESET, RING_FEATURES,
    common,
};
use super::{Attack, EDGES};
use crate::misbehave;

/// Writes `width` bytes of `value`, aligned or not.
pub fn write(registers: Registers, offset: u64, width: u64, value: u64) {
    match width {
        0 => registers.write_u8(offset, value as u8),
        1 => registers.write_u16(offset, value as u16),
        2 => registers.write_u32(offset, value as u32),
        _ => registers.write_u64(offset, value),
    }
}

/// Reads as many, to no end.
pub fn read(registers: Registers, offset: u64, width: u64) {
    match width {
        0 => drop(registers.read_u8(offset)),
        1 => drop(registers.read_u16(offset)),
        2 => drop(registers.read_u32(offset)),
        _ => drop(registers.read_u64(offset)),
    }
}

impl Attack<'_> {
    pub fn config_after_start(&mut self) -> Result<(), Problem> {
        let select = self.active;
        for step in 0..8 {
            self.start()?;
            self.submit(0)?;
            let registers = self.device.common;
            registers.write_u16(common::QUEUE_SELECT, select);
            match step {
                0 => registers.write_u16(common::QUEUE_SIZE, 0x8000),
                1 => registers.write_u16(common::QUEUE_SIZE, 0),
                2 => self.device.write_queue(&Rings::at(RINGS + 0x10_0000, 16)),
                3 => registers.write_u64(common::QUEUE_DEVICE, u64::MAX),
                4 => registers.write_u16(common::QUEUE_ENABLE, 0),
                5 => registers.write_u16(common::QUEUE_VECTOR, 0x1234),
                6 => {
                    self.device.set_features(u64::MAX);
                    self.device.add_status(FEATURES_OK);
                }
                _ => {
                    // A queue that was not there when the device was started.
                    registers.write_u16(common::QUEUE_SELECT, 7);
                    self.device.write_queue(&Rings::at(RINGS, 0xffff));
                    registers.write_u16(common::QUEUE_ENABLE, 1);
                }
            }
            for slot in 1..8 {
                self.submit(slot)?;
                self.queue()?.kick();
            }
            self.look();
        }
        // Again and again, while requests are served.
        self.start()?;
        for slot in 0..64 {
            self.submit(slot % 16)?;
            self.device.write_queue(&Rings::at(RINGS, 1 << (slot % 16)));
        }
        self.look();
        Ok(())
    }

    /// Negotiates up to where queues are set up.
    fn prepare(&mut self) -> Result<(), Problem> {
        self.rounds += 1;
        self.agreed = self.device.begin(RING_FEATURES | self.needed())?;
        self.set_up(Wait::Poll)
    }

    /// Resets, and sets the active queue up as it must not be.
    fn start_on(&mut self, rings: Rings) -> Result<(), Problem> {
        self.rounds += 1;
        self.agreed = self.device.begin(RING_FEATURES | self.needed())?;
        let active = self.active;
        let common = self.device.common;
        common.write_u16(common::QUEUE_SELECT, active);
        self.device.write_queue(&rings);
        common.write_u16(common::QUEUE_ENABLE, 1);
        self.device.add_status(DRIVER_OK);
        self.device
            .notify
            .write_u16(u64::from(active) * u64::from(self.device.stride), active);
        if self.device.status() & NEEDS_RESET != 0 {
            self.resets += 1;
        }
        Ok(())
    }

    pub fn queue_size(&mut self) -> Result<(), Problem> {
        let active = self.active;
        let most = self.device.max_queue_size(active);
        for size in [
            0,
            1,
            3,
            most.wrapping_add(1),
            most.wrapping_mul(2),
            most.wrapping_sub(1),
            0x7fff,
            0x8000,
            0xffff,
        ] {
            let rings = Rings {
                size,
                ..Rings::at(RINGS, 256)
            };
            self.start_on(rings)?;
            self.look();
        }
        Ok(())
    }

    pub fn queue_address(&mut self) -> Result<(), Problem> {
        let good = Rings::at(RINGS, 16);
        let end = self.ram_end;
        let wrong = [
            RINGS + 1,
            RINGS + 8,
            RINGS + 2,
            end - 16,
            end - 8,
            end,
            end + (1 << 21),
            ARENA_END - 1,
        ];
        for address in wrong.into_iter().chain(EDGES) {
            for ring in 0..3 {
                let mut rings = good;
                match ring {
                    0 => rings.descriptors = address,
                    1 => rings.available = address,
                    _ => rings.used = address,
                }
                self.start_on(rings)?;
                self.look_for(500);
            }
        }
        // One over the other.
        for (available, used) in [(0, 0), (0, 4), (2, 0), (16, 16), (0x4000, 0x4000)] {
            self.start_on(Rings {
                available: RINGS + available,
                used: RINGS + used,
                ..good
            })?;
            self.look_for(500);
        }
        Ok(())
    }

    pub fn select_range(&mut self) -> Result<(), Problem> {
        let registers = self.device.common;
        let count = self.device.queues();
        for running in [false, true] {
            if running {
                self.start()?;
            } else {
                self.prepare()?;
            }
            for select in [count, count + 1, 0x7f, 0xff, 0x7fff, 0x8000, 0xffff] {
                registers.write_u16(common::QUEUE_SELECT, select);
                for offset in (common::QUEUE_SIZE..common::END).step_by(2) {
                    read(registers, offset, 1);
                    let value = self.random.next();
                    registers.write_u16(offset, value as u16);
                }
                registers.write_u16(common::QUEUE_ENABLE, 1);
            }
            for select in [2, 3, 31, 32, 0x7fff_ffff, u32::MAX] {
                registers.write_u32(common::DEVICE_FEATURE_SELECT, select);
                registers.read_u32(common::DEVICE_FEATURE);
                registers.write_u32(common::DRIVER_FEATURE_SELECT, select);
                registers.write_u32(common::DRIVER_FEATURE, u32::MAX);
                registers.read_u32(common::DRIVER_FEATURE);
            }
            self.look_for(500);
        }
        // Everything to everything but the status.
        for _ in 0..self.count(500) {
            let offset = self.random.below(common::END);
            let width = self.random.below(4);
            let value = self.random.next();
            if !(common::STATUS - 7..=common::STATUS).contains(&offset) {
                write(registers, offset, width, value);
            }
            read(registers, offset, width);
        }
        Ok(())
    }

    pub fn features(&mut self) -> Result<(), Problem> {
        let offered = self.device.offered();
        let refused = |attack: &mut Self, features| {
            attack.rounds += 1;
            if !attack.device.reset() {
                return Err("device does not reset");
            }
            attack.device.add_status(ACKNOWLEDGE | DRIVER);
            attack.device.set_features(features);
            attack.device.add_status(FEATURES_OK);
            let refused = attack.device.status() & FEATURES_OK == 0;
            // As if it had been agreed to.
            attack.set_up(Wait::Poll)?;
            attack.device.add_status(DRIVER_OK);
            attack.submit(0)?;
            attack.look_for(500);
            Ok(refused)
        };
        for bit in 0..64 {
            if offered >> bit & 1 == 0 && !refused(self, offered | 1 << bit)? {
                return Err("a feature is agreed to that was never offered");
            }
        }
        for features in [0, RING_FEATURES & !F_VERSION_1, u64::MAX, !offered] {
            if !refused(self, features)? {
                return Err("features are agreed to that make no sense");
            }
        }
        Ok(())
    }

    pub fn status_order(&mut self) -> Result<(), Problem> {
        let registers = self.device.common;
        for first in [
            DRIVER_OK,
            DRIVER,
            FEATURES_OK,
            FEATURES_OK | DRIVER_OK,
            ACKNOWLEDGE | DRIVER | DRIVER_OK,
            NEEDS_RESET,
            FAILED,
            0xff,
            0x30,
        ] {
            self.rounds += 1;
            if !self.device.reset() {
                return Err("device does not reset");
            }
            registers.write_u8(common::STATUS, first);
            self.device.set_features(RING_FEATURES | self.needed());
            self.set_up(Wait::Poll)?;
            self.submit(0)?;
            registers.write_u8(common::STATUS, first | DRIVER_OK);
            self.look_for(500);
        }
        for _ in 0..self.count(200) {
            let status = self.random.next() as u8;
            registers.write_u8(common::STATUS, status);
            self.queue()?.kick();
            if status & 0x1f == 0 {
                self.prepare()?;
            }
        }
        Ok(())
    }

    pub fn device_config(&mut self) -> Result<(), Problem> {
        let config = self.device.config;
        for running in [false, true] {
            if running {
                self.start()?;
            } else {
                self.prepare()?;
            }
            for _ in 0..self.count(300) {
                let offset = self.random.below(config.length().clamp(8, 128));
                let width = self.random.below(4);
                let value = self.random.next();
                write(config, offset, width, value);
                read(config, offset, width);
            }
            for offset in config.length().saturating_sub(16)..config.length() {
                for width in 0..4 {
                    read(config, offset, width);
                    write(config, offset, width, u64::MAX);
                }
            }
            self.look_for(500);
        }
        Ok(())
    }

    pub fn notify_range(&mut self) -> Result<(), Problem> {
        let notify = self.device.notify;
        for running in [false, true] {
            if running {
                self.start()?;
                self.submit(0)?;
            } else {
                self.prepare()?;
            }
            for offset in (0..notify.length()).step_by(61) {
                let value = self.random.next();
                for width in 0..4 {
                    write(notify, offset, width, value);
                    read(notify, offset, width);
                }
            }
            for queue in [self.device.queues(), 0x7fff, 0x8000, 0xffff] {
                let place = u64::from(queue) * u64::from(self.device.stride);
                notify.write_u16(place, queue);
                notify.write_u16(0, queue);
                notify.write_u32(0, u32::from(queue) << 16);
            }
            self.look();
        }
        Ok(())
    }

    pub fn access_sizes(&mut self) -> Result<(), Problem> {
        self.prepare()?;
        for bar in self.device.function.bars() {
            let length = self.device.function.bar_length(bar).min(0x1_0000);
            let Some(registers) = self.device.function.registers(bar, 0, length as u32) else {
                continue;
            };
            let mut offset = 0;
            while offset < length {
                touch(registers, offset);
                // Densely where registers are side by side, with a prime number elsewhere.
                offset += match offset {
                    0..0x40 | 0x800..0x804 | 0x1000..0x1010 | 0x3000..0x3010 => 1,
                    _ => 251,
                };
            }
            for offset in length.saturating_sub(64)..length {
                read(registers, offset, 3);
                read(registers, offset, 0);
                write(registers, offset, 3, u64::MAX);
            }
        }
        // Reads only: writes to configuration space are another case.
        if let Some(space) = self.device.function.bus().memory() {
            let start = self.device.function.offset(0);
            for offset in start..start + 0x100 {
                for width in 0..4 {
                    read(space, offset, width);
                }
            }
            for offset in (0..space.length()).step_by(4093) {
                read(space, offset, 3);
                read(space, offset, 2);
            }
        }
        if let Bus::Memory(space) = self.device.function.bus() {
            read(space, space.length() - 4, 2);
        }
        // MSI-X is as the accesses left it.
        if let Some(msix) = self.device.msix {
            msix.set_control(0);
        }
        Ok(())
    }
}

/// Every kind of access to the sixteen bytes at `offset`, if they are there.
fn touch(registers: Registers, offset: u64) {
    if let Some(address) = registers.place(offset, 16) {
        // SAFETY: mapped registers, no Rust object; no access is longer than sixteen bytes.
        unsafe { misbehave::touch(address) };
    }
}
