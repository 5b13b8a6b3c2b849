//! Misuse of single descriptors: where they point to, how long they are, which way they go.

use super::super::Problem;
use super::super::memory::{ARENA_END, DATA, DATA_BYTES};
use super::super::queue::{Buffer, into, out, put_descriptor};
use super::super::ring::{INDIRECT, NEXT, WRITE};
use super::rings::TABLE;
use super::{Attack, EDGES};

impl Attack<'_> {
    /// A round with one chain, in the first descriptors.
    pub fn round(&mut self, buffers: &[Buffer]) -> Result<(), Problem> {
        self.start()?;
        let queue = self.queue()?;
        queue.describe(0, buffers);
        queue.submit(0);
        self.look();
        Ok(())
    }

    /// A round for each buffer of a good request, in which that one is another.
    fn rounds_with(&mut self, address: Option<u64>, length: Option<u32>) -> Result<(), Problem> {
        let count = self.request(0, 512).buffers().len();
        for changed in 0..count {
            let mut request = self.request(0, 512);
            if let Some(buffer) = request.buffers_mut().get_mut(changed) {
                buffer.address = address.unwrap_or(buffer.address);
                buffer.length = length.unwrap_or(buffer.length);
            }
            self.round(request.buffers())?;
        }
        Ok(())
    }

    pub fn descriptor_length(&mut self) -> Result<(), Problem> {
        let end = self.ram_end;
        for (address, length) in [
            (end - 4096, 4097),
            (end - 4096, 8192),
            (end - 1, 2),
            (end - 16, u32::MAX),
            (ARENA_END - 4096, u32::MAX),
            (DATA, u32::MAX),
            (DATA, 1 << 31),
            (DATA, (1 << 31) - 1),
            (u64::MAX - 511, 512),
            (u64::MAX - 15, 512),
            (u64::MAX, 1),
            (u64::MAX - u64::from(u32::MAX), u32::MAX),
            (0xffff_f000, u32::MAX),
        ] {
            self.rounds_with(Some(address), Some(length))?;
        }
        for length in [u32::MAX, 1 << 31, 1 << 30] {
            self.rounds_with(None, Some(length))?;
        }
        Ok(())
    }

    pub fn descriptor_address(&mut self) -> Result<(), Problem> {
        for address in EDGES {
            self.rounds_with(Some(address), None)?;
        }
        let end = self.ram_end;
        self.rounds_with(Some(end), None)?;
        self.rounds_with(Some(end - 16), None)?;
        self.rounds_with(Some(end + (1 << 20)), None)
    }

    pub fn device_windows(&mut self) -> Result<(), Problem> {
        for other in self.all.iter().flatten() {
            for bar in other.function.bars() {
                let Some(address) = other.function.bar_address(bar).filter(|at| *at != 0) else {
                    continue;
                };
                self.rounds_with(Some(address), None)?;
            }
        }
        // Its own notifications and status, a register at a time.
        if let Some(address) = self.device.function.bar_address(self.device.bar) {
            for offset in [0x14, 0x800, 0x1000, 0x2000, 0x3000] {
                self.rounds_with(Some(address + offset), Some(4))?;
            }
        }
        for address in [
            0xe000_8000,
            0xfec0_0000,
            0xfec0_0010,
            0xfee0_0300,
            0xfee0_00b0,
        ] {
            self.rounds_with(Some(address), Some(16))?;
        }
        Ok(())
    }

    pub fn zero_length(&mut self) -> Result<(), Problem> {
        self.rounds_with(None, Some(0))?;
        self.rounds_with(Some(u64::MAX), Some(0))?;
        let nothing = [out(DATA, 0), out(0, 0), into(DATA, 0), into(u64::MAX, 0)];
        for count in 1..=nothing.len() {
            self.round(nothing.get(..count).unwrap_or_default())?;
        }
        self.round(&[into(DATA, 0)])
    }

    pub fn direction(&mut self) -> Result<(), Problem> {
        let good = self.request(0, 512);
        let count = good.buffers().len() as u32;
        for turned in 0..1_u32 << count {
            let mut request = good;
            for (number, buffer) in (0..).zip(request.buffers_mut()) {
                buffer.writable ^= turned >> number & 1 != 0;
            }
            self.round(request.buffers())?;
        }
        // Head only, and all orders of three.
        for pattern in 0..8 {
            let mut buffers = [out(DATA, 16), out(DATA + 4096, 512), out(DATA + 8192, 1)];
            for (number, buffer) in (0..).zip(&mut buffers) {
                buffer.writable = pattern >> number & 1 != 0;
            }
            self.round(&buffers)?;
            self.round(buffers.get(..1).unwrap_or_default())?;
        }
        Ok(())
    }

    /// All of RAM that this guest does not need, or all of its payload.
    fn everything(&self) -> (u64, u32) {
        if self.ram_end > ARENA_END + DATA_BYTES {
            let length = (self.ram_end - ARENA_END).min(1 << 30);
            (ARENA_END, length as u32)
        } else {
            (DATA, 4 << 20)
        }
    }

    pub fn giant(&mut self) -> Result<(), Problem> {
        const BUFFERS: u32 = 48;
        let (address, length) = self.everything();
        for _ in 0..self.count(5) {
            // The payload of a good request is as much as there is.
            for changed in 0..3 {
                let request = self.request(0, 512);
                let Some(buffer) = request.buffers().get(changed).copied() else {
                    continue;
                };
                self.start()?;
                let mut places = 0;
                let mut put = |buffer: Buffer, last: bool| {
                    let next = if last { 0 } else { NEXT };
                    let write = if buffer.writable { WRITE } else { 0 };
                    let place = TABLE + u64::from(places) * 16;
                    places += 1;
                    put_descriptor(
                        place,
                        buffer.address,
                        buffer.length,
                        next | write,
                        places as u16,
                    );
                };
                let end = request.buffers().len() - 1;
                for (number, sound) in request.buffers().iter().enumerate() {
                    if number == changed {
                        for step in 1..=BUFFERS {
                            let whole = Buffer {
                                address,
                                length,
                                ..buffer
                            };
                            put(whole, number == end && step == BUFFERS);
                        }
                    } else {
                        put(*sound, number == end);
                    }
                }
                let queue = self.queue()?;
                for head in 0..queue.rings.size.min(32) {
                    queue.descriptor(head, TABLE, places * 16, INDIRECT, 0);
                    queue.offer(head);
                }
                queue.show();
                self.look_for(20_000);
            }
        }
        Ok(())
    }
}
