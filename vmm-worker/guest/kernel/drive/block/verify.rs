//! `mode=block-verify`: random requests whose data say where and when they were written, all of them
//! compared when they are read.
//!
//! The disk is looked at through up to 512 pieces of 1 MiB, spread over it from its first sector to its
//! last, so that what is remembered of each sector (one byte) fits. The content of a sector is a
//! function of the seed, its number and its version.

use super::super::memory::{self, DATA, PARTS, PARTS_BYTES, SCRATCH, poke_u8, poke_u32, poke_u64};
use super::super::options::Options;
use super::super::pci::Bus;
use super::super::queue::{Buffer, Wait, into, out};
use super::super::{Clock, Problem};
use super::{
    DISCARD, Disk, F_DISCARD, F_FLUSH, F_READ_ONLY, F_WRITE_ZEROES, FLUSH, READ, SECTOR, WRITE,
    WRITE_ZEROES,
};
use crate::console;
use crate::machine::{read_u8, read_u64};
use crate::random::XorShift;

/// Sectors of a piece of the disk.
const PIECE: u64 = 2048;
const MAX_PIECES: u64 = 512;
/// Requests in flight.
const SLOTS: usize = 8;
/// The most sectors of a request.
const MAX_SECTORS: u64 = 128;
/// The most buffers of a request.
const BUFFERS: usize = 4;
/// Bytes of memory of a slot: data, and what lies between its buffers.
const SLOT_BYTES: u64 = 128 << 10;
/// Where data are put together and taken apart.
const STAGE: u64 = DATA + SLOTS as u64 * SLOT_BYTES;
/// Segments of discards: one for each slot.
const SEGMENTS: u64 = PARTS + PARTS_BYTES / 4;
/// Milliseconds that a request may take.
const PATIENCE: u64 = 30_000;

/// Version of a sector of which nothing is known.
const UNKNOWN: u8 = 0;
/// Version of a sector of zeroes.
const ZEROES: u8 = 255;

#[derive(Clone, Copy)]
struct Request {
    kind: u32,
    /// First sector, counted through the pieces.
    index: u64,
    sectors: u64,
    buffers: [Buffer; BUFFERS],
    used: usize,
}

struct Verifier<'a> {
    disk: Disk,
    clock: &'a Clock,
    wait: Wait,
    random: XorShift,
    seed: u64,
    pieces: u64,
    /// Sectors that are looked at.
    area: u64,
    version: u8,
    slots: [Option<Request>; SLOTS],
    verified: u64,
    compared: u64,
}

/// Runs, and says how many requests were verified.
pub fn verify(bus: Bus, clock: &Clock, options: &Options, wait: Wait) -> Result<(), Problem> {
    let disk = Disk::open(bus, wait, SLOTS as u64, BUFFERS as u16)?;
    if disk.unit > 8 || disk.capacity < disk.unit {
        return Err("disk is too small, or has larger blocks than 4 KiB");
    }
    let pieces = (disk.capacity / PIECE).clamp(1, MAX_PIECES);
    let mut verifier = Verifier {
        area: (pieces * PIECE).min(disk.capacity / disk.unit * disk.unit),
        pieces,
        disk,
        clock,
        wait,
        random: XorShift::new(options.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        seed: options.seed,
        version: 0,
        slots: [None; SLOTS],
        verified: 0,
        compared: 0,
    };
    memory::fill(SCRATCH, MAX_PIECES * PIECE, UNKNOWN);
    for _ in 0..options.count.unwrap_or(1000) {
        verifier.step()?;
    }
    verifier.drain()?;
    verifier.read_all()?;
    verifier.disk.close();
    console::line()
        .text("block: ")
        .decimal(verifier.verified)
        .text(" requests verified, ")
        .decimal(verifier.compared)
        .text(" sectors compared")
        .end();
    Ok(())
}

/// What is remembered of a sector.
fn version_of(index: u64) -> u64 {
    SCRATCH + index
}

/// Word `word` of a sector of that version.
fn content(seed: u64, sector: u64, version: u8, word: u64) -> u64 {
    if version == ZEROES {
        return 0;
    }
    // splitmix64 of where and when.
    let mut value = seed
        ^ sector.wrapping_mul(0xbf58_476d_1ce4_e5b9)
        ^ u64::from(version) << 48
        ^ word.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

impl Verifier<'_> {
    /// Where a sector that is looked at is on the disk.
    fn sector(&self, index: u64) -> u64 {
        let (piece, inside) = (index / PIECE, index % PIECE);
        let last = self.disk.capacity.saturating_sub(PIECE) & !7;
        let start = if piece + 1 == self.pieces {
            last
        } else {
            last / (self.pieces - 1) * piece & !7
        };
        start + inside
    }

    /// Makes one request; waits first if it has no free slot.
    fn step(&mut self) -> Result<(), Problem> {
        let slot = loop {
            match self.slots.iter().position(Option::is_none) {
                Some(slot) => break slot,
                None => self.complete()?,
            }
        };
        let request = self.choose(slot as u64);
        // Two requests for one sector at once have no defined result.
        let meets = |other: &Request| {
            request.index < other.index + other.sectors
                && other.index < request.index + request.sectors
        };
        while self.slots.iter().flatten().any(meets) {
            self.complete()?;
        }
        self.start(slot, request);
        Ok(())
    }

    fn choose(&mut self, slot: u64) -> Request {
        let kind = self.kind();
        let unit = self.disk.unit;
        let index = self.random.below(self.area) / unit * unit;
        let room = (PIECE - index % PIECE).min(self.area - index);
        // Small requests more often than large ones.
        let most = 1 << self.random.below(8);
        let sectors = (1 + self.random.below(most)).next_multiple_of(unit);
        let mut request = Request {
            kind,
            index,
            sectors: sectors.min(MAX_SECTORS).min(room),
            buffers: [out(0, 0); BUFFERS],
            used: 0,
        };
        match kind {
            READ | WRITE => self.scatter(&mut request, DATA + slot * SLOT_BYTES),
            FLUSH => request.sectors = 0,
            _ => {
                let segment = SEGMENTS + slot * 16;
                poke_u64(segment, self.sector(index));
                poke_u32(segment + 8, request.sectors as u32);
                poke_u32(segment + 12, 0);
                request.set(&[out(segment, 16)]);
            }
        }
        request
    }

    fn kind(&mut self) -> u32 {
        let agreed = self.disk.agreed;
        let wanted = match self.random.below(100) {
            0..=4 => (FLUSH, agreed & F_FLUSH != 0),
            5..=9 => (WRITE_ZEROES, agreed & F_WRITE_ZEROES != 0),
            10..=12 => (DISCARD, agreed & F_DISCARD != 0),
            13..=54 => (READ, true),
            _ => (WRITE, true),
        };
        let writable = agreed & F_READ_ONLY == 0 || wanted.0 == FLUSH;
        if wanted.1 && writable { wanted.0 } else { READ }
    }

    /// Cuts the memory of a request into buffers: at any byte in half of the cases, at sectors in the
    /// others, with something between them.
    fn scatter(&mut self, request: &mut Request, place: u64) {
        let odd = self.random.below(2) == 0;
        let mut left = request.sectors * SECTOR;
        let mut address = place + if odd { self.random.below(512) } else { 0 };
        let parts = 1 + self.random.below(BUFFERS as u64);
        let mut buffers = [out(0, 0); BUFFERS];
        let mut used = 0;
        for (part, buffer) in (1..=parts).zip(&mut buffers) {
            let grain = if odd { 1 } else { SECTOR };
            let length = if part == parts {
                left
            } else {
                self.random.below(left / grain + 1) * grain
            };
            if length == 0 {
                continue;
            }
            *buffer = if request.kind == READ {
                into(address, length as u32)
            } else {
                out(address, length as u32)
            };
            used += 1;
            left -= length;
            address += length
                + if odd {
                    1 + self.random.below(600)
                } else {
                    SECTOR
                };
        }
        // Parts of no bytes left holes.
        let mut whole = [out(0, 0); BUFFERS];
        for (to, from) in whole
            .iter_mut()
            .zip(buffers.iter().filter(|buffer| buffer.length > 0))
        {
            *to = *from;
        }
        request.buffers = whole;
        request.used = used;
    }

    fn start(&mut self, slot: usize, request: Request) {
        match request.kind {
            WRITE => {
                self.version = self.version % (ZEROES - 1) + 1;
                for step in 0..request.sectors {
                    poke_u8(version_of(request.index + step), self.version);
                    let sector = self.sector(request.index + step);
                    for word in 0..SECTOR / 8 {
                        let value = content(self.seed, sector, self.version, word);
                        poke_u64(STAGE + step * SECTOR + word * 8, value);
                    }
                }
                let mut from = STAGE;
                for buffer in request.data() {
                    memory::copy(from, buffer.address, buffer.length.into());
                    from += u64::from(buffer.length);
                }
            }
            WRITE_ZEROES => self.remember(&request, ZEROES),
            DISCARD => self.remember(&request, UNKNOWN),
            _ => {
                for buffer in request.data() {
                    memory::fill(buffer.address, buffer.length.into(), 0xa5);
                }
            }
        }
        let sector = match request.kind {
            READ | WRITE => self.sector(request.index),
            _ => 0,
        };
        let slot_number = slot as u16;
        self.disk
            .describe(slot_number, request.kind, sector, request.data());
        self.disk.offer(slot_number);
        if let Some(place) = self.slots.get_mut(slot) {
            *place = Some(request);
        }
        self.disk.queue.show();
    }

    fn remember(&self, request: &Request, version: u8) {
        memory::fill(version_of(request.index), request.sectors, version);
    }

    /// Waits for a request and judges it.
    fn complete(&mut self) -> Result<(), Problem> {
        let deadline = self.clock.after(PATIENCE);
        let used = self
            .disk
            .queue
            .wait(self.wait, deadline)
            .ok_or("a request is not answered")?;
        let slot = self.disk.slot(used.head);
        let request = self
            .slots
            .get_mut(usize::from(slot))
            .and_then(Option::take)
            .ok_or("device gives back what it was not given")?;
        let status = self.disk.status(slot);
        if status != 0 {
            console::line()
                .text("block: FAILED, request of kind ")
                .decimal(request.kind.into())
                .text(", sector ")
                .decimal(self.sector(request.index))
                .text(", ")
                .decimal(request.sectors)
                .text(" sectors: status ")
                .decimal(status.into())
                .end();
            return Err("a request failed");
        }
        if request.kind == READ {
            if u64::from(used.length) != request.sectors * SECTOR + 1 {
                return Err("a read says it wrote another number of bytes");
            }
            self.compare(&request)?;
        }
        self.verified += 1;
        Ok(())
    }

    fn compare(&mut self, request: &Request) -> Result<(), Problem> {
        let mut to = STAGE;
        for buffer in request.data() {
            memory::copy(buffer.address, to, buffer.length.into());
            to += u64::from(buffer.length);
        }
        for step in 0..request.sectors {
            let version = read_u8(version_of(request.index + step));
            if version == UNKNOWN {
                continue;
            }
            let sector = self.sector(request.index + step);
            for word in 0..SECTOR / 8 {
                let wanted = content(self.seed, sector, version, word);
                let found = read_u64(STAGE + step * SECTOR + word * 8);
                if found != wanted {
                    console::line()
                        .text("block: FAILED, sector ")
                        .decimal(sector)
                        .text(" byte ")
                        .decimal(word * 8)
                        .text(": ")
                        .hex(found)
                        .text(" instead of ")
                        .hex(wanted)
                        .end();
                    return Err("a sector is not what was written");
                }
            }
            self.compared += 1;
        }
        Ok(())
    }

    fn drain(&mut self) -> Result<(), Problem> {
        while self.slots.iter().any(Option::is_some) {
            self.complete()?;
        }
        Ok(())
    }

    /// Reads everything back of which something is known.
    fn read_all(&mut self) -> Result<(), Problem> {
        for index in (0..self.area).step_by(MAX_SECTORS as usize) {
            let sectors = MAX_SECTORS.min(self.area - index);
            if (index..index + sectors).all(|at| read_u8(version_of(at)) == UNKNOWN) {
                continue;
            }
            let mut request = Request {
                kind: READ,
                index,
                sectors,
                buffers: [out(0, 0); BUFFERS],
                used: 0,
            };
            request.set(&[into(DATA, (sectors * SECTOR) as u32)]);
            self.start(0, request);
            self.drain()?;
        }
        Ok(())
    }
}

impl Request {
    fn set(&mut self, buffers: &[Buffer]) {
        for (to, from) in self.buffers.iter_mut().zip(buffers) {
            *to = *from;
        }
        self.used = buffers.len().min(BUFFERS);
    }

    fn data(&self) -> &[Buffer] {
        self.buffers.get(..self.used).unwrap_or_default()
    }
}
