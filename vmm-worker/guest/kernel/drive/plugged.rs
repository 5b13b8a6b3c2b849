//! `mode=memory-watch`: plugs and unplugs memory as it is asked to (virtio 1.3 §5.15), and says what is in it.
//!
//! The lowest blocks are plugged, so that how many there are says which. In each a mark is written that
//! stays there; every change has all of them looked at.

use super::memory::{PARTS, Registers, poke_u16, poke_u64};
use super::options::{Device as Kind, Options};
use super::pci::Bus;
use super::queue::{Queue, Wait, into, out};
use super::virtio::{Device, RING_FEATURES};
use super::{Clock, Problem, say};
use crate::machine::read_u16;
use crate::time;

/// `VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE`.
pub const F_UNPLUGGED_INACCESSIBLE: u64 = 1 << 1;

/// Registers of the device's configuration (§5.15.4).
pub mod config {
    /// Bytes of a block.
    pub const BLOCK: u64 = 0;
    /// The first address of a block.
    pub const ADDRESS: u64 = 16;
    /// Bytes of all blocks.
    pub const REGION: u64 = 24;
    /// Bytes that are plugged.
    pub const PLUGGED: u64 = 40;
    /// Bytes that are to be.
    pub const REQUESTED: u64 = 48;
}

/// Requests (§5.15.6).
pub const PLUG: u16 = 0;
/// The other way.
pub const UNPLUG: u16 = 1;
/// All of it the other way.
pub const UNPLUG_ALL: u16 = 2;
/// A question.
pub const STATE: u16 = 3;
/// Bytes of a request.
pub const REQUEST: u32 = 24;
/// Bytes of an answer.
pub const ANSWER: u32 = 10;

const ACK: u16 = 0;
const NACK: u16 = 1;

/// Milliseconds that a request may take.
const PATIENCE: u64 = 20_000;
/// Milliseconds between two looks.
const PAUSE: u64 = 2;
/// What is read where nothing is.
const NOTHING: u64 = u64::MAX;

/// Writes a request into memory at `place`, with the answer's place 64 bytes behind it.
pub fn put_request(place: u64, kind: u16, address: u64, blocks: u16) {
    poke_u64(place, kind.into());
    poke_u64(place + 8, address);
    poke_u64(place + 16, blocks.into());
    poke_u16(place + 64, u16::MAX);
}

struct Memory<'a> {
    device: Device,
    queue: Queue,
    clock: &'a Clock,
    wait: Wait,
}

impl Memory<'_> {
    fn field(&self, register: u64) -> u64 {
        self.device.config.read_u64(register)
    }

    /// Asks for something; gives the type of the answer.
    fn ask(&mut self, kind: u16, address: u64, blocks: u16) -> Result<u16, Problem> {
        put_request(PARTS, kind, address, blocks);
        let chain = [out(PARTS, REQUEST), into(PARTS + 64, ANSWER)];
        self.queue.describe(0, &chain);
        self.queue.submit(0);
        let deadline = self.clock.after(PATIENCE);
        let used = self.queue.wait(self.wait, deadline);
        match used.ok_or("a request is not answered")?.length {
            ANSWER => Ok(read_u16(PARTS + 64)),
            _ => Err("an answer has another length"),
        }
    }

    /// The first and the last word of a block.
    fn words(&self, block: u64) -> Result<[(Registers, u64); 2], Problem> {
        let bytes = self.field(config::BLOCK);
        let address = self.field(config::ADDRESS) + block * bytes;
        let mapped = Registers::map(address, bytes).ok_or("no room to map a block")?;
        Ok([(mapped, 0), (mapped, mapped.length() - 8)])
    }

    fn mark(block: u64) -> u64 {
        0x5265_6576_6500_0000 | block
    }

    fn plug(&mut self, block: u64) -> Result<(), Problem> {
        let address = self.field(config::ADDRESS) + block * self.field(config::BLOCK);
        let words = self.words(block)?;
        if words.iter().any(|(page, at)| page.read_u64(*at) != NOTHING) {
            return Err("FAILED, there is memory that is not plugged");
        }
        match self.ask(PLUG, address, 1)? {
            ACK => {}
            _ => return Err("FAILED, what is requested is not plugged"),
        }
        self.write_marks(block)
    }

    fn write_marks(&self, block: u64) -> Result<(), Problem> {
        for (page, at) in self.words(block)? {
            if page.read_u64(at) == NOTHING {
                return Err("FAILED, there is no memory where it was plugged");
            }
            page.write_u64(at, Self::mark(block));
        }
        Ok(())
    }

    fn unplug(&mut self, block: u64) -> Result<(), Problem> {
        let address = self.field(config::ADDRESS) + block * self.field(config::BLOCK);
        if self.ask(UNPLUG, address, 1)? != ACK {
            return Err("FAILED, what was plugged is not unplugged");
        }
        for (page, at) in self.words(block)? {
            page.write_u64(at, Self::mark(block));
            if page.read_u64(at) != NOTHING {
                return Err("FAILED, there is memory that was unplugged");
            }
        }
        Ok(())
    }

    /// Plugs and unplugs until it is as requested; gives how many blocks there are.
    fn follow(&mut self) -> Result<u64, Problem> {
        loop {
            let block = self.field(config::BLOCK).max(1);
            let (plugged, requested) = (self.field(config::PLUGGED), self.field(config::REQUESTED));
            let blocks = plugged / block;
            if plugged < requested {
                self.plug(blocks)?;
            } else if plugged > requested {
                self.unplug(blocks.saturating_sub(1))?;
            } else {
                let beyond = self.field(config::ADDRESS) + plugged;
                let room = plugged < self.field(config::REGION);
                if !room || self.ask(PLUG, beyond, 1)? == NACK {
                    return Ok(blocks);
                }
                // What is asked for may have become more just then.
                if self.field(config::REQUESTED) == requested {
                    return Err("FAILED, more is plugged than is requested");
                }
                self.write_marks(blocks)?;
            }
        }
    }

    fn look(&self, blocks: u64) -> Result<(), Problem> {
        for block in 0..blocks {
            for (page, at) in self.words(block)? {
                if page.read_u64(at) != Self::mark(block) {
                    return Err("FAILED, plugged memory has lost what was in it");
                }
            }
        }
        Ok(())
    }
}

/// Does what is asked of it for so many milliseconds.
pub fn watch(bus: Bus, clock: &Clock, options: &Options, wait: Wait) -> Result<(), Problem> {
    let device = Device::first(bus, Kind::MEM).ok_or("no memory device")?;
    let agreed = device.begin(RING_FEATURES | F_UNPLUGGED_INACCESSIBLE)?;
    device.prepare_interrupts(wait)?;
    let queue = device.set_up(0, 0, 8, agreed, wait)?;
    device.run()?;
    let mut memory = Memory {
        device,
        queue,
        clock,
        wait,
    };
    say("block", memory.field(config::BLOCK));
    say("region", memory.field(config::REGION));
    say("plugged at first", memory.field(config::PLUGGED));
    let deadline = clock.after(options.milliseconds);
    let mut told = None;
    while time::cycles() < deadline {
        let blocks = memory.follow()?;
        memory.look(blocks)?;
        if told != Some(blocks) {
            told = Some(blocks);
            say("plugged", blocks * memory.field(config::BLOCK));
        }
        let next = clock.after(PAUSE);
        while time::cycles() < next {
            core::hint::spin_loop();
        }
    }
    Ok(())
}
