//! Requests as the devices take them, and requests they do not.

use super::super::memory::{ARENA_END, DATA, PARTS, poke_u8, poke_u16, poke_u32, poke_u64, put};
use super::super::queue::{Buffer, into, out};
use super::super::virtio::NEEDS_RESET;
use super::super::{Problem, block, plugged};
use super::Attack;
use crate::machine::{read_u8, read_u16};

/// Bytes of small parts a request has for itself.
pub const PART: u64 = 512;
/// Bytes of payload.
pub const PAYLOAD: u64 = 32 << 10;
/// Requests that can be described at once.
pub const SLOTS: u16 = 64;
/// Milliseconds that a good request may take.
const PATIENCE: u64 = 20_000;
/// Frames have room for the header and an Ethernet frame.
const FRAME: u32 = 12 + 60;

/// Descriptors kept for a request.
pub const STEP: u16 = 4;

/// A request's buffers.
#[derive(Clone, Copy)]
pub struct Request {
    buffers: [Buffer; 4],
    used: usize,
}

impl Request {
    pub fn new(buffers: &[Buffer]) -> Self {
        let mut request = Self {
            buffers: [out(0, 0); 4],
            used: buffers.len().min(4),
        };
        for (to, from) in request.buffers.iter_mut().zip(buffers) {
            *to = *from;
        }
        request
    }

    pub fn buffers(&self) -> &[Buffer] {
        self.buffers.get(..self.used).unwrap_or_default()
    }

    pub fn buffers_mut(&mut self) -> &mut [Buffer] {
        self.buffers.get_mut(..self.used).unwrap_or_default()
    }
}

/// Where a slot's small parts are.
pub fn part(slot: u16) -> u64 {
    PARTS + u64::from(slot) * PART
}

/// Where a slot's payload is.
pub fn payload(slot: u16) -> u64 {
    DATA + u64::from(slot) * PAYLOAD
}

impl Attack<'_> {
    /// The queues on which a device serves requests without anybody at its other end, the surest first.
    pub fn serving_queues(&self) -> &'static [u16] {
        match self.device.id {
            1 => &[1, 2],
            3 => &[3, 1],
            5 => &[0, 1, 2, 4],
            19 | 26 => &[1],
            _ => &[0],
        }
    }

    /// Features without which a good request is none.
    pub fn needed(&self) -> u64 {
        const CONSOLE_MULTIPORT: u64 = 1 << 1;
        match self.device.id {
            3 => CONSOLE_MULTIPORT,
            24 => plugged::F_UNPLUGGED_INACCESSIBLE,
            _ => 0,
        }
    }

    /// A request that the device serves on the active queue, in the memory of a slot, with `length`
    /// bytes of payload where it has any.
    pub fn request(&mut self, slot: u16, length: u32) -> Request {
        let (part, payload) = (part(slot), payload(slot));
        match (self.device.id, self.active) {
            // Receive all frames, promiscuously.
            (1, 2) => {
                poke_u16(part, 0);
                poke_u8(part + 2, 1);
                Request::new(&[out(part, 2), out(part + 2, 1), into(part + 64, 1)])
            }
            // A frame to nobody.
            (1, _) => {
                poke_u64(part, 0);
                poke_u32(part + 8, 0);
                poke_u64(part + 12, 0x5452_0100_0000_0002);
                poke_u64(part + 20, 0xb588_5634_1200);
                Request::new(&[out(part, FRAME)])
            }
            (2, _) => {
                poke_u32(part, block::READ);
                poke_u32(part + 4, 0);
                poke_u64(part + 8, 0);
                poke_u8(part + 64, 0xff);
                Request::new(&[out(part, 16), into(payload, length), into(part + 64, 1)])
            }
            // The driver is ready.
            (3, 3) => {
                poke_u32(part, u32::MAX);
                poke_u32(part + 4, 1 << 16);
                Request::new(&[out(part, 8)])
            }
            (3, _) => {
                poke_u8(part, b'\n');
                Request::new(&[out(part, 1)])
            }
            // Free memory, in bytes.
            (5, 2) => {
                poke_u16(part, 4);
                poke_u64(part + 2, 1 << 20);
                Request::new(&[out(part, 10)])
            }
            // A page reported as free, which loses its content.
            (5, 4) => Request::new(&[into(payload, 4096)]),
            // A page nobody uses: behind the arena, or in it.
            (5, _) => {
                let page = if self.ram_end > ARENA_END + (1 << 20) {
                    ARENA_END >> 12
                } else {
                    payload >> 12
                };
                poke_u32(part, page as u32 + u32::from(slot));
                Request::new(&[out(part, 4)])
            }
            // A reset of a connection there is not.
            (19, _) => {
                for offset in (0..48).step_by(8) {
                    poke_u64(part + offset, 0);
                }
                poke_u64(part, 3);
                poke_u64(part + 8, 2);
                poke_u16(part + 28, 1);
                poke_u16(part + 30, 3);
                Request::new(&[out(part, 44)])
            }
            // Blocks that come and go, or are asked about; whether that can be, any is answered.
            (24, _) => {
                let (kind, block) = (self.random.below(4) as u16, self.random.below(20));
                let bytes = self.device.config.read_u64(plugged::config::BLOCK);
                let address = self.device.config.read_u64(plugged::config::ADDRESS);
                let blocks = self.random.below(4) as u16;
                let address = address.wrapping_add(block.wrapping_mul(bytes));
                plugged::put_request(part, kind, address, blocks);
                Request::new(&[
                    out(part, plugged::REQUEST),
                    into(part + 64, plugged::ANSWER),
                ])
            }
            (4, _) => Request::new(&[into(payload, length)]),
            _ => Request::new(&[out(part, 64), into(payload, length)]),
        }
    }

    /// Makes a request available that the device serves.
    pub fn submit(&mut self, slot: u16) -> Result<(), Problem> {
        let request = self.request(slot, 512);
        let queue = self.queue()?;
        let head = slot * STEP % queue.rings.size;
        queue.describe(head, request.buffers());
        queue.submit(head);
        Ok(())
    }

    /// A good request has to be answered, where the device is one that we know to answer.
    pub fn serve_one(&mut self) -> Result<(), Problem> {
        if !matches!(self.device.id, 1..=5 | 19 | 24) {
            return Ok(());
        }
        self.submit(0)?;
        let deadline = self.clock.after(PATIENCE);
        let used = self
            .queue()?
            .wait(super::Wait::Poll, deadline)
            .ok_or("a good request is not answered")?;
        if self.device.status() & NEEDS_RESET != 0 {
            return Err("device asks for a reset after a good request");
        }
        let (wanted, good) = match self.device.id {
            2 => (513, read_u8(part(0) + 64) == 0),
            4 => (used.length.clamp(1, 512), true),
            24 => (plugged::ANSWER, read_u16(part(0) + 64) <= 3),
            _ => (used.length, true),
        };
        if used.length != wanted || !good {
            return Err("a good request fails");
        }
        if self.device.id == 5 {
            self.deflate();
        }
        Ok(())
    }

    /// Takes the balloon's page back.
    fn deflate(&mut self) {
        let request = self.request(0, 0);
        let deadline = self.clock.after(PATIENCE);
        if let Some(Some(queue)) = self.queues.get_mut(1) {
            queue.describe(0, request.buffers());
            queue.submit(0);
            queue.wait(super::Wait::Poll, deadline);
        }
    }

    /// Requests of no known kind, of odd lengths, about what is not there.
    pub fn bad_requests(&mut self) -> Result<(), Problem> {
        if self.device.id == 2 {
            self.bad_disk_requests()?;
        }
        for _ in 0..self.count(300) {
            if self.rounds == 0 || !self.runs() {
                self.start()?;
            }
            // All queues, not only the one for requests.
            let index = self.any_queue();
            let slot = self.random.below(16) as u16;
            let mut request = self.request(slot, 512);
            self.mutate(slot);
            for buffer in request.buffers_mut() {
                if self.random.below(3) == 0 {
                    buffer.length = self.odd_length();
                }
            }
            if self.random.below(4) == 0 {
                let length = self.odd_length();
                request = Request::new(&[out(part(slot), length), into(payload(slot), 512)]);
            }
            let Some(Some(queue)) = self.queues.get_mut(index) else {
                continue;
            };
            let head = slot * STEP % queue.rings.size;
            queue.describe(head, request.buffers());
            queue.submit(head);
            self.look_for(300);
        }
        Ok(())
    }

    /// Makes a raw disk look as if it were an image of another file: who guesses formats will open that.
    pub fn format_probe(&mut self) -> Result<(), Problem> {
        const PATH: &[u8] = b"/etc/passwd";
        const AT: u64 = 0x100;
        if self.device.id != 2 {
            return Ok(());
        }
        self.start()?;
        let (part, data) = (part(0), payload(0));
        for (offset, word) in [
            (0, 0x5146_49fb), // magic
            (4, 3),           // version
            (12, AT as u32),  // where the backing file's name is
            (16, PATH.len() as u32),
            (20, 16),       // bits of a cluster
            (28, 16 << 20), // size
            (100, 104),     // bytes of the header
        ] {
            poke_u32(data + offset, word.to_be());
        }
        put(data + AT, PATH);
        self.request(0, 512);
        poke_u32(part, block::WRITE);
        let deadline = self.clock.after(PATIENCE);
        let queue = self.queue()?;
        queue.describe(0, &[out(part, 16), out(data, 512), into(part + 64, 1)]);
        queue.submit(0);
        queue
            .wait(super::Wait::Poll, deadline)
            .ok_or("a write is not answered")?;
        self.answers += 1;
        Ok(())
    }

    /// A queue for requests that may say anything. Not one on which a balloon is given pages: what such a
    /// request says may be this guest's own code, which would be gone then.
    pub fn any_queue(&mut self) -> usize {
        const BALLOON: u16 = 5;
        let index = self.random.below(self.queues.len() as u64) as usize;
        match index {
            1 | 2 => index,
            _ if self.device.id == BALLOON => 1 + index % 2,
            _ => index,
        }
    }

    /// Changes bytes of a slot's small parts.
    fn mutate(&mut self, slot: u16) {
        const WORDS: [u32; 8] = [0, 1, 2, 0x7f, 0xffff, 0x7fff_ffff, 0x8000_0000, u32::MAX];
        for _ in 0..self.random.below(4) {
            let place = part(slot) + self.random.below(15) * 4;
            let choice = self.random.below(16) as usize;
            let word = WORDS
                .get(choice)
                .copied()
                .unwrap_or(self.random.next() as u32);
            match self.random.below(3) {
                0 => poke_u8(place + self.random.below(4), word as u8),
                1 => poke_u16(place, word as u16),
                _ => poke_u32(place, word),
            }
        }
    }

    /// A length that is seldom the right one and never beyond a slot's payload.
    fn odd_length(&mut self) -> u32 {
        const LENGTHS: [u32; 12] = [1, 2, 8, 11, 13, 15, 16, 17, 43, 511, 513, 16385];
        let choice = self.random.below(LENGTHS.len() as u64) as usize;
        LENGTHS.get(choice).copied().unwrap_or(1)
    }

    fn bad_disk_requests(&mut self) -> Result<(), Problem> {
        const KINDS: [u32; 14] = [0, 1, 2, 3, 4, 5, 7, 8, 9, 11, 13, 14, 0x8000_0000, u32::MAX];
        let capacity = self.device.config.read_u64(0);
        let sectors = [
            0,
            capacity.wrapping_sub(1),
            capacity,
            1 << 54,
            1 << 55,
            u64::MAX >> 9,
            u64::MAX - 7,
            u64::MAX,
        ];
        self.start()?;
        for kind in KINDS {
            for sector in sectors {
                if !self.runs() {
                    self.start()?;
                }
                let slot = self.random.below(16) as u16;
                let (part, payload) = (part(slot), payload(slot));
                self.request(slot, 512);
                poke_u32(part, kind);
                poke_u64(part + 8, sector);
                // As a segment of a discard: a sector and a count that wrap, and all flags.
                for entry in (0..4096).step_by(16) {
                    poke_u64(payload + entry, sector);
                    poke_u32(payload + entry + 8, self.random.next() as u32 | 1 << 31);
                    poke_u32(payload + entry + 12, self.random.next() as u32 & 0x11);
                }
                let length = [16, 512, 4096, 1024].get(self.random.below(4) as usize);
                let length = length.copied().unwrap_or(0);
                let status = into(part + 64, 1);
                let data = if self.random.below(2) == 0 {
                    out(payload, length)
                } else {
                    into(payload, length)
                };
                let queue = self.queue()?;
                let head = slot * STEP % queue.rings.size;
                queue.describe(head, &[out(part, 16), data, status]);
                queue.submit(head);
                self.look_for(200);
            }
        }
        Ok(())
    }
}
