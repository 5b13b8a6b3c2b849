//! Misuse of the rings: how chains hang together, and what is made available when.

use super::super::Problem;
use super::super::memory::{DATA, RING_BYTES, RINGS, poke_u16, poke_u32, poke_u64};
use super::super::queue::{Wait, put_descriptor};
use super::super::ring::{INDIRECT, NEXT, WRITE};
use super::super::virtio::{F_INDIRECT_DESC, RING_FEATURES};
use super::requests::{Request, payload};
use super::{Attack, EDGES};

/// Where tables of descriptors are built: 65536 of them fit.
pub const TABLE: u64 = DATA + (4 << 20);

impl Attack<'_> {
    pub fn same_head(&mut self) -> Result<(), Problem> {
        for _ in 0..self.count(20) {
            self.start()?;
            let request = self.request(0, 16 << 10);
            let queue = self.queue()?;
            queue.describe(0, request.buffers());
            for _ in 0..queue.rings.size {
                queue.offer(0);
            }
            queue.show();
            self.look();
            // And again, while some of them may be in flight.
            let queue = self.queue()?;
            for _ in 0..4 {
                queue.submit(0);
            }
            self.look();
        }
        Ok(())
    }

    pub fn circles(&mut self) -> Result<(), Problem> {
        for write in [0, WRITE] {
            // Onto itself, in twos, round the whole table, into the middle of itself.
            for (length, back) in [(1, 0), (2, 0), (u16::MAX, 0), (8, 3)] {
                self.start()?;
                let queue = self.queue()?;
                let length = length.min(queue.rings.size);
                for index in 0..length {
                    let next = if index + 1 == length { back } else { index + 1 };
                    queue.descriptor(index, DATA, 64, NEXT | write, next);
                }
                queue.submit(0);
                self.look();
            }
            // The same in a table.
            self.start()?;
            let queue = self.queue()?;
            put_descriptor(TABLE, DATA, 64, NEXT | write, 1);
            put_descriptor(TABLE + 16, DATA, 64, NEXT | write, 0);
            queue.descriptor(0, TABLE, 32, INDIRECT, 0);
            queue.submit(0);
            self.look();
        }
        Ok(())
    }

    pub fn indirect(&mut self) -> Result<(), Problem> {
        let good = self.request(0, 512);
        let end = self.ram_end;
        // What the descriptor of a sound table says of it instead.
        for (address, length, flags) in [
            (TABLE, 0, INDIRECT),
            (TABLE, 1, INDIRECT),
            (TABLE, 15, INDIRECT),
            (TABLE, 17, INDIRECT),
            (TABLE + 1, 16, INDIRECT),
            (TABLE, u32::MAX, INDIRECT),
            (TABLE, 0xffff_fff0, INDIRECT),
            (TABLE, 1 << 20, INDIRECT),
            (TABLE, 64, INDIRECT | WRITE),
            (TABLE, 64, INDIRECT | NEXT),
            (TABLE, 64, INDIRECT | NEXT | WRITE),
            (TABLE, 64, 0xfff8 | INDIRECT),
            (end - 16, 32, INDIRECT),
            (end, 16, INDIRECT),
            (u64::MAX - 15, 16, INDIRECT),
            (u64::MAX - 15, 64, INDIRECT),
            (0xfee0_0000, 64, INDIRECT),
            (0xe000_0000, 64, INDIRECT),
        ] {
            self.start()?;
            let queue = self.queue()?;
            queue.describe_indirect(0, TABLE, good.buffers());
            queue.descriptor(1, DATA, 64, WRITE, 0);
            queue.descriptor(0, address, length, flags, 1);
            queue.submit(0);
            self.look();
        }
        // Tables in tables: of another, of itself, of the ring's; and links out of the table.
        for (address, length, flags, next) in [
            (TABLE + 64, 32, INDIRECT, 0),
            (TABLE, 32, INDIRECT, 0),
            (RINGS, 64, INDIRECT, 0),
            (DATA, 16, NEXT, 2),
            (DATA, 16, NEXT, u16::MAX),
            (DATA, 16, INDIRECT | NEXT, 1),
        ] {
            self.start()?;
            let queue = self.queue()?;
            put_descriptor(TABLE, address, length, flags, next);
            put_descriptor(TABLE + 16, DATA, 16, WRITE, 0);
            put_descriptor(TABLE + 64, DATA, 16, NEXT, 1);
            put_descriptor(TABLE + 80, DATA, 16, WRITE, 0);
            queue.descriptor(0, TABLE, 32, INDIRECT, 0);
            queue.submit(0);
            self.look();
        }
        // A chain that goes on in a table, and tables though none were agreed on.
        self.start()?;
        let queue = self.queue()?;
        queue.descriptor(0, DATA, 16, NEXT, 1);
        queue.describe_indirect(1, TABLE, good.buffers());
        queue.submit(0);
        self.look();
        self.start_with(RING_FEATURES & !F_INDIRECT_DESC, Wait::Poll)?;
        let queue = self.queue()?;
        queue.describe_indirect(0, TABLE, good.buffers());
        queue.submit(0);
        self.look();
        Ok(())
    }

    pub fn long_chain(&mut self) -> Result<(), Problem> {
        for write in [0, WRITE] {
            self.start()?;
            let queue = self.queue()?;
            let size = queue.rings.size;
            for index in 0..size {
                let next = if index + 1 == size { 0 } else { NEXT };
                queue.descriptor(index, DATA, 1, next | write, index + 1);
            }
            queue.submit(0);
            self.look();
            for count in [u32::from(size) + 1, 1024, 1025, 32768, 65535, 65536, 65537] {
                self.start()?;
                for index in 0..count {
                    let next = if index + 1 == count { 0 } else { NEXT };
                    let place = TABLE + u64::from(index) * 16;
                    put_descriptor(place, DATA, 16, next | write, index as u16 + 1);
                }
                let queue = self.queue()?;
                queue.descriptor(0, TABLE, count * 16, INDIRECT, 0);
                queue.submit(0);
                self.look();
            }
        }
        Ok(())
    }

    pub fn head_range(&mut self) -> Result<(), Problem> {
        for wrong in [0, 1, 2, 255, 0x7fff] {
            self.start()?;
            let queue = self.queue()?;
            let head = queue.rings.size.saturating_add(wrong);
            queue.submit(head);
            self.look();
            self.start()?;
            let queue = self.queue()?;
            queue.descriptor(0, DATA, 16, NEXT, head);
            queue.submit(0);
            self.look();
        }
        self.start()?;
        self.queue()?.submit(u16::MAX);
        self.look();
        Ok(())
    }

    pub fn available_jump(&mut self) -> Result<(), Problem> {
        let size = 256;
        for by in [
            size + 1,
            size * 2,
            0x7fff,
            0x8000,
            u16::MAX,
            u16::MAX - 1,
            3,
        ] {
            self.start()?;
            self.submit(0)?;
            self.queue()?.jump(by);
            self.queue()?.kick();
            self.look();
            // Back again, as if nothing had been.
            self.queue()?.jump(by.wrapping_neg());
            self.queue()?.kick();
            self.look();
        }
        for _ in 0..self.count(50) {
            if self.rounds == 0 || !self.runs() {
                self.start()?;
            }
            let by = self.random.next() as u16;
            let queue = self.queue()?;
            queue.jump(by);
            queue.kick();
            self.look_for(300);
        }
        Ok(())
    }

    pub fn event_index(&mut self) -> Result<(), Problem> {
        for _ in 0..self.count(300) {
            if self.rounds == 0 || !self.runs() {
                self.start()?;
            }
            let (wish, flags) = (self.random.next() as u16, self.random.next() as u16);
            let slot = self.random.below(16) as u16;
            let rings = self.queue()?.rings;
            poke_u16(rings.used_event(), wish);
            poke_u16(rings.available, flags);
            // The device's own side of it, which is not ours to write.
            if wish & 3 == 0 {
                poke_u16(rings.available_event(), flags);
                poke_u16(rings.used, wish);
            }
            self.submit(slot)?;
            self.queue()?.kick();
            self.look_for(200);
        }
        Ok(())
    }

    pub fn ring_overwrite(&mut self) -> Result<(), Problem> {
        let rings = self.device_rings()?;
        for address in [
            rings.descriptors,
            rings.descriptors + 16,
            rings.available,
            rings.available + 2,
            rings.used,
            rings.used + 2,
            rings.used_entry(0),
        ] {
            for length in [1, 2, 4, 16, 512, 4096, RING_BYTES as u32] {
                let mut request = self.request(0, 512);
                for buffer in request.buffers_mut().iter_mut().filter(|b| b.writable) {
                    (buffer.address, buffer.length) = (address, length);
                }
                self.round(request.buffers())?;
                // Whatever is in the rings now is what the next request is made of.
                self.queue()?.submit(1);
                self.look_for(500);
            }
        }
        Ok(())
    }

    fn device_rings(&mut self) -> Result<super::super::ring::Rings, Problem> {
        self.start()?;
        Ok(self.queue()?.rings)
    }

    pub fn at_random(&mut self) -> Result<(), Problem> {
        const LENGTHS: [u32; 14] = [
            0,
            1,
            4,
            12,
            16,
            44,
            511,
            512,
            513,
            4096,
            65536,
            0x7fff_ffff,
            0x8000_0000,
            u32::MAX,
        ];
        for _ in 0..self.count(500) {
            if self.rounds == 0 || !self.runs() {
                self.start()?;
            }
            let index = self.any_queue();
            let first = self.random.below(16) as u16;
            let count = 1 + self.random.below(8) as u16;
            let slot = self.random.below(16) as u16;
            let request: Request = self.request(slot, 512);
            let Some(queue) = self.queues.get_mut(index).and_then(Option::as_mut).copied() else {
                continue;
            };
            for step in 0..count {
                let wild = self.random.below(8);
                let sound = request.buffers().get(usize::from(step)).copied();
                let choice = self.random.below(EDGES.len() as u64 + 4) as usize;
                let address = match (wild, sound) {
                    (1.., Some(buffer)) => buffer.address,
                    (4.., None) => payload(slot) + self.random.below(4096),
                    _ => EDGES
                        .get(choice)
                        .copied()
                        .unwrap_or(self.ram_end - self.random.below(4096)),
                };
                let wild = self.random.below(6);
                let choice = self.random.below(LENGTHS.len() as u64) as usize;
                let length = match (wild, sound) {
                    (1.., Some(buffer)) => buffer.length,
                    _ => LENGTHS.get(choice).copied().unwrap_or(1),
                };
                let odd = self.random.below(16) as u16;
                let sound_flags = if sound.is_some_and(|buffer| buffer.writable) {
                    WRITE
                } else {
                    0
                };
                let last = step + 1 == count;
                let flags = match odd {
                    0 => self.random.below(8) as u16,
                    1 => sound_flags ^ WRITE,
                    _ => sound_flags | if last { 0 } else { NEXT },
                };
                let next = if odd == 2 {
                    self.random.next() as u16
                } else {
                    first + step + 1
                };
                queue.descriptor(first + step, address, length, flags, next);
            }
            let jump = self.random.below(64) == 0;
            let by = self.random.below(300) as u16;
            if let Some(Some(queue)) = self.queues.get_mut(index) {
                if jump {
                    queue.jump(by);
                }
                queue.submit(first);
                queue.kick();
            }
            // What the payload says may be read as descriptors next.
            poke_u64(payload(slot), self.random.next());
            poke_u32(payload(slot) + 8, self.random.next() as u32);
            self.look_for(200);
        }
        Ok(())
    }
}
