//! Misuse of time: resets while requests run, memory that changes while it is read, too much of
//! everything.

use core::sync::atomic::{AtomicU64, Ordering};

use super::super::Problem;
use super::super::memory::{self, DATA, poke_u16, poke_u32, poke_u64};
use super::super::queue::Wait;
use super::super::ring::{INDIRECT, NEXT, WRITE};
use super::super::virtio::{
    ACKNOWLEDGE, DRIVER, DRIVER_OK, F_EVENT_IDX, FEATURES_OK, RING_FEATURES, common,
};
use super::requests::{PAYLOAD, SLOTS, STEP, part};
use super::{Attack, EDGES};
use crate::machine::read_u64;
use crate::random::XorShift;
use crate::ring0::Interrupt;
use crate::time;

/// What the other processor changes: the descriptors of a queue. Zero: nothing yet.
static TARGET: AtomicU64 = AtomicU64::new(0);
/// Requests that are changed.
const SLOTS_FLIPPED: u16 = 4;

/// The other processor's part of [`Attack::double_fetch`]: never ends.
pub fn flip() {
    let mut random = XorShift::new(0x5eed);
    loop {
        let target = TARGET.load(Ordering::Acquire);
        if target == 0 {
            core::hint::spin_loop();
            continue;
        }
        change(target, &mut random);
    }
}

/// Changes one thing of a request and changes it back.
fn change(target: u64, random: &mut XorShift) {
    let slot = random.below(SLOTS_FLIPPED.into());
    let descriptor = target + (slot * u64::from(STEP) + random.below(3)) * 16;
    let header = part(slot as u16);
    let edge = EDGES
        .get(random.below(EDGES.len() as u64) as usize)
        .copied()
        .unwrap_or(u64::MAX);
    let good = read_u64(descriptor);
    let rest = read_u64(descriptor + 8);
    match random.below(7) {
        0 => poke_u64(descriptor, edge),
        1 => poke_u32(descriptor + 8, u32::MAX),
        2 => poke_u32(descriptor + 8, 0),
        3 => poke_u16(
            descriptor + 12,
            (NEXT | WRITE | INDIRECT) & random.next() as u16,
        ),
        4 => poke_u16(descriptor + 14, random.next() as u16),
        _ => {
            let place = header + random.below(6) * 8;
            let good = read_u64(place);
            poke_u64(place, random.next());
            poke_u64(place, u64::MAX);
            poke_u64(place, good);
        }
    }
    poke_u64(descriptor, good);
    poke_u64(descriptor + 8, rest);
}

impl Attack<'_> {
    pub fn double_fetch(&mut self) -> Result<(), Problem> {
        const MILLISECONDS: u64 = 10;
        let mut random = XorShift::new(self.random.next());
        for _ in 0..self.count(30) {
            self.start()?;
            let rings = self.queue()?.rings;
            let slots = (rings.size / STEP).clamp(1, SLOTS_FLIPPED);
            let table = rings.descriptors;
            for slot in 0..slots {
                let request = self.request(slot, 512);
                self.queue()?.describe(slot * STEP, request.buffers());
            }
            if self.processors > 1 {
                TARGET.store(table, Ordering::Release);
            }
            let deadline = self.clock.after(MILLISECONDS);
            while time::cycles() < deadline && self.runs() {
                let queue = self.queue()?;
                for slot in 0..slots {
                    queue.offer(slot * STEP);
                }
                queue.show();
                if self.processors == 1 {
                    for _ in 0..200 {
                        change(table, &mut random);
                    }
                }
                self.look_for(100);
            }
            TARGET.store(0, Ordering::Release);
            // The other one may be in the middle of it.
            let pause = self.clock.after(1);
            while time::cycles() < pause {
                core::hint::spin_loop();
            }
        }
        Ok(())
    }

    /// Fills the active queue with requests; how many there are.
    fn fill_queue(&mut self, length: u32) -> Result<u16, Problem> {
        let count = (self.queue()?.rings.size / STEP).min(SLOTS);
        for slot in 0..count {
            let request = self.request(slot, length);
            let queue = self.queue()?;
            queue.describe(slot * STEP, request.buffers());
            queue.offer(slot * STEP);
        }
        self.queue()?.show();
        Ok(count)
    }

    pub fn reset_in_flight(&mut self) -> Result<(), Problem> {
        const MARK: u8 = 0x5a;
        const WORD: u64 = 0x5a5a_5a5a_5a5a_5a5a;
        const AFTERWARDS: u64 = 2;
        for round in 0..self.count(60) {
            self.start()?;
            let count = self.fill_queue(PAYLOAD as u32)?;
            if round % 2 == 1 {
                let microseconds = self.random.below(400);
                self.look_for(microseconds);
            }
            if !self.device.reset() {
                return Err("device does not reset with requests in flight");
            }
            // From here on nothing of it may touch memory.
            let bytes = u64::from(count) * PAYLOAD;
            let rings = self.queue()?.rings;
            memory::fill(DATA, bytes, MARK);
            memory::fill(rings.descriptors, memory::RING_BYTES, MARK);
            let until = self.clock.after(AFTERWARDS);
            while time::cycles() < until {
                core::hint::spin_loop();
            }
            let intact = |from: u64, bytes: u64| {
                (from..from + bytes)
                    .step_by(8)
                    .all(|place| read_u64(place) == WORD)
            };
            if !intact(DATA, bytes) || !intact(rings.descriptors, memory::RING_BYTES) {
                return Err("memory is written after a reset");
            }
        }
        Ok(())
    }

    pub fn reset_storm(&mut self) -> Result<(), Problem> {
        let status = |attack: &Self, bits| attack.device.common.write_u8(common::STATUS, bits);
        for _ in 0..self.count(50) {
            self.start()?;
            self.fill_queue(4096)?;
            // Started again at once, without asking whether the reset has ended.
            for bits in [
                0,
                ACKNOWLEDGE,
                ACKNOWLEDGE | DRIVER,
                ACKNOWLEDGE | DRIVER | FEATURES_OK,
                ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK,
            ] {
                status(self, bits);
                self.queue()?.kick();
            }
            for _ in 0..50 {
                status(self, 0);
            }
        }
        Ok(())
    }

    pub fn kick_storm(&mut self) -> Result<(), Problem> {
        const KICKS: u64 = 5000;
        self.start()?;
        for _ in 0..self.count(KICKS) {
            self.queue()?.kick();
        }
        for queue in self.queues.iter().flatten() {
            for _ in 0..100 {
                queue.kick();
            }
        }
        if !self.runs() {
            return Err("notifications alone stop the device");
        }
        // Requests that nobody takes back, notified again and again.
        self.start()?;
        self.fill_queue(PAYLOAD as u32)?;
        for _ in 0..1000 {
            self.queue()?.kick();
        }
        self.look();
        // Chains that are shown bit by bit, without a notification.
        self.start()?;
        for slot in 0..SLOTS {
            let request = self.request(slot, 512);
            let queue = self.queue()?;
            queue.describe(slot * STEP % queue.rings.size, request.buffers());
            queue.offer(slot * STEP % queue.rings.size);
            let shown = queue.rings.available_index();
            poke_u16(shown, slot + 1);
        }
        self.look();
        Ok(())
    }

    pub fn interrupt_storm(&mut self) -> Result<(), Problem> {
        const MILLISECONDS: u64 = 200;
        if self.device.msix.is_none() {
            return Ok(());
        }
        // Without event indexes each turn of the device is an interrupt.
        self.start_with(RING_FEATURES & !F_EVENT_IDX, Wait::Interrupt)?;
        let before = Interrupt::Device.count();
        let deadline = self.clock.after(MILLISECONDS);
        while time::cycles() < deadline {
            self.submit(0)?;
            self.device.isr.read_u8(0);
            self.look_for(1000);
        }
        let interrupts = Interrupt::Device.count().wrapping_sub(before);
        if interrupts == 0 && self.answers > 0 {
            return Err("answers come without interrupts");
        }
        if let Some(msix) = self.device.msix {
            msix.set_control(0);
        }
        Ok(())
    }
}
