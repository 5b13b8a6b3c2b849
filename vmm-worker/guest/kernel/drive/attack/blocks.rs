//! Blocks of memory as no driver of a memory device names them (virtio 1.3 §5.15.6).

use super::super::Problem;
use super::super::plugged::{
    ANSWER, PLUG, REQUEST, STATE, UNPLUG, UNPLUG_ALL, config, put_request,
};
use super::super::queue::{Wait, into, out};
use super::Attack;
use super::requests::part;
use crate::machine::read_u16;

/// `VIRTIO_MEM_RESP_ERROR`.
const ERROR: u16 = 3;
/// Milliseconds that a request may take.
const PATIENCE: u64 = 20_000;
const MEMORY: u16 = 24;

impl Attack<'_> {
    /// Each is an error, and nothing is plugged or unplugged by it.
    pub fn memory_blocks(&mut self) -> Result<(), Problem> {
        if self.device.id != MEMORY {
            return Ok(());
        }
        self.start()?;
        let field = |register| self.device.config.read_u64(register);
        let (block, start) = (field(config::BLOCK), field(config::ADDRESS));
        let end = start + field(config::REGION);
        self.ask(UNPLUG_ALL, 0, 0)?;
        for kind in [PLUG, UNPLUG, STATE] {
            for (address, blocks) in [
                (start, 0),
                (start + 4096, 1),
                (start + block / 2, 1),
                (start - block, 1),
                (start - block, 2),
                (end, 1),
                (end - block, 2),
                (end - block, u16::MAX),
                (0, 1),
                (0x10_0000, 1),
                (0u64.wrapping_sub(block), 1),
                (0u64.wrapping_sub(block), u16::MAX),
                (u64::MAX, u16::MAX),
            ] {
                self.is_wrong(kind, address, blocks)?;
            }
        }
        // What was never plugged, and what is.
        self.is_wrong(UNPLUG, start, 1)?;
        self.is_wrong(UNPLUG, start, 4)?;
        if self.ask(PLUG, start + block, 1)? == 0 {
            for (kind, first, blocks) in [
                (PLUG, 1, 1),
                (PLUG, 0, 2),
                (PLUG, 1, 2),
                (UNPLUG, 0, 2),
                (UNPLUG, 1, 2),
                (UNPLUG, 0, 1),
            ] {
                self.is_wrong(kind, start + first * block, blocks)?;
            }
        }
        for kind in [4, 0x100, 0x8000, u16::MAX] {
            self.is_wrong(kind, start, 1)?;
        }
        self.ask(UNPLUG_ALL, u64::MAX, u16::MAX)?;
        Ok(())
    }

    fn is_wrong(&mut self, kind: u16, address: u64, blocks: u16) -> Result<(), Problem> {
        let before = self.device.config.read_u64(config::PLUGGED);
        let answer = self.ask(kind, address, blocks)?;
        // More than is requested is refused before it is looked at more closely.
        let refused = answer == 1 && kind == PLUG;
        if answer != ERROR && !refused {
            return Err("FAILED, blocks are plugged, unplugged or told of that are none");
        }
        if self.device.config.read_u64(config::PLUGGED) != before {
            return Err("FAILED, what was refused has changed something");
        }
        Ok(())
    }

    fn ask(&mut self, kind: u16, address: u64, blocks: u16) -> Result<u16, Problem> {
        put_request(part(0), kind, address, blocks);
        let deadline = self.clock.after(PATIENCE);
        let queue = self.queue()?;
        queue.describe(0, &[out(part(0), REQUEST), into(part(0) + 64, ANSWER)]);
        queue.submit(0);
        queue
            .wait(Wait::Poll, deadline)
            .ok_or("a request is not answered")?;
        self.answers += 1;
        Ok(read_u16(part(0) + 64))
    }
}
