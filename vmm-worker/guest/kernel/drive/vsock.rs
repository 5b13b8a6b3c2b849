//! `mode=vsock-dial`: connections to the host by the socket device (virtio 1.3 §5.10), as they are typed.
//!
//! `c` connects to port `count`, sends `size` bytes, says that there are no more, and adds up what comes back
//! until the other end has gone; `f` opens and resets 1,000 connections and then waits until one is answered;
//! `q` ends. No more goes either way than a window holds, so that neither end has to wait for credit.

use super::memory::{DATA, SCRATCH, poke_u8, poke_u16, poke_u32, poke_u64};
use super::options::{Device as Kind, Options};
use super::pci::Bus;
use super::platform::typed;
use super::queue::{Queue, Wait, into, out};
use super::virtio::{Device, RING_FEATURES};
use super::{Clock, Problem, say};
use crate::machine::{read_u8, read_u16, read_u32};
use crate::{console, time};

/// `VIRTIO_VSOCK_F_STREAM`.
const F_STREAM: u64 = 1 << 0;
/// `VIRTIO_VSOCK_TYPE_STREAM`.
const STREAM: u16 = 1;
/// The host's address.
const HOST: u64 = 2;
/// Bytes of `virtio_vsock_hdr`.
const HEADER: u64 = 44;
/// Bytes of data in a packet that is sent, and room in a buffer.
const PIECE: u64 = 4096;
const SLOT_BYTES: u64 = 8192;
const SLOTS: u16 = 16;
/// What is said to be room for all that comes.
const WINDOW: u32 = 256 << 10;
/// The event that there is: `VIRTIO_VSOCK_EVENT_TRANSPORT_RESET`.
const EVENT: u64 = SCRATCH;
/// Milliseconds that an answer may take.
const PATIENCE: u64 = 15_000;
const FLOOD: u64 = 1_000;

const REQUEST: u16 = 1;
const RESPONSE: u16 = 2;
const RESET: u16 = 3;
const SHUTDOWN: u16 = 4;
const BYTES: u16 = 5;
/// `VIRTIO_VSOCK_SHUTDOWN_F_SEND`.
const SENDS_NO_MORE: u32 = 2;
/// That and `VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE`.
const GONE: u32 = 3;

/// The device, and the connection that there is.
struct Exchange {
    receive: Queue,
    transmit: Queue,
    event: Queue,
    cid: u32,
    host_port: u32,
    guest_port: u32,
    /// Bytes that came, modulo 2^32.
    received: u32,
    sum: u64,
    /// What comes is thrown away.
    flooding: bool,
}

/// What came.
struct Packet {
    op: u16,
    flags: u32,
}

/// Dials until it is told to end.
pub fn dial(bus: Bus, clock: &Clock, options: &Options) -> Result<(), Problem> {
    let device = Device::first(bus, Kind::VSOCK).ok_or("no socket device")?;
    let bytes = options.size.unwrap_or(PIECE);
    if bytes > WINDOW.into() {
        return Err("size: 262144 bytes at most");
    }
    let agreed = device.begin(RING_FEATURES | F_STREAM)?;
    let queue = |index| device.set_up(index, index, SLOTS, agreed, Wait::Poll);
    let mut exchange = Exchange {
        receive: queue(0)?,
        transmit: queue(1)?,
        event: queue(2)?,
        cid: device.config.read_u32(0),
        host_port: options.count.unwrap_or(0) as u32,
        guest_port: 1024,
        received: 0,
        sum: 0,
        flooding: false,
    };
    device.run()?;
    exchange.fill();
    console::print(b"vsock: ready\n");
    loop {
        if exchange.event.take().is_some() {
            exchange.event.submit(0);
            console::print(b"vsock: transport reset\n");
        }
        match typed() {
            Some(b'c') => exchange.connect(clock, bytes)?,
            Some(b'f') => exchange.flood(clock)?,
            Some(b'q') => break,
            _ => {}
        }
    }
    device.reset();
    Ok(())
}

impl Exchange {
    /// Gives the device all buffers.
    fn fill(&mut self) {
        self.event.describe(0, &[into(EVENT, 4)]);
        self.event.submit(0);
        for slot in 0..SLOTS.min(self.receive.rings.size) {
            let place = DATA + u64::from(slot) * SLOT_BYTES;
            self.receive
                .describe(slot, &[into(place, (HEADER + PIECE) as u32)]);
            self.receive.offer(slot);
        }
        self.receive.show();
    }

    /// Sends a packet of this connection, whose data is in its place.
    fn send(&mut self, clock: &Clock, op: u16, flags: u32, bytes: u64) -> Result<(), Problem> {
        let place = DATA + u64::from(SLOTS) * SLOT_BYTES;
        poke_u64(place, self.cid.into());
        poke_u64(place + 8, HOST);
        poke_u32(place + 16, self.guest_port);
        poke_u32(place + 20, self.host_port);
        poke_u32(place + 24, bytes as u32);
        poke_u16(place + 28, STREAM);
        poke_u16(place + 30, op);
        poke_u32(place + 32, flags);
        poke_u32(place + 36, WINDOW);
        poke_u32(place + 40, self.received);
        let length = (HEADER + bytes) as u32;
        self.transmit.describe(0, &[out(place, length)]);
        self.transmit.submit(0);
        let deadline = clock.after(PATIENCE);
        while self.transmit.take().is_none() {
            if time::cycles() > deadline {
                return Err("packet is not taken");
            }
            // The device takes none while it has too many resets to send.
            if self.flooding {
                if let Some(used) = self.receive.take() {
                    self.receive.submit(slot(used.head)?);
                }
            }
        }
        Ok(())
    }

    /// The next packet of this connection; its data is added up.
    fn next(&mut self, clock: &Clock) -> Result<Packet, Problem> {
        let deadline = clock.after(PATIENCE);
        loop {
            let used = self.receive.wait(Wait::Poll, deadline);
            let used = used.ok_or("nothing comes")?;
            let slot = slot(used.head)?;
            let place = DATA + u64::from(slot) * SLOT_BYTES;
            let bytes = read_u32(place + 24);
            let ports = (read_u32(place + 16), read_u32(place + 20));
            let packet = Packet {
                op: read_u16(place + 30),
                flags: read_u32(place + 32),
            };
            if u64::from(used.length) != HEADER + u64::from(bytes) || u64::from(bytes) > PIECE {
                return Err("packet of another length than it says");
            }
            let ours = ports == (self.host_port, self.guest_port);
            if ours && packet.op == BYTES {
                self.received = self.received.wrapping_add(bytes);
                for offset in 0..u64::from(bytes) {
                    let byte = read_u8(place + HEADER + offset);
                    self.sum = add(self.sum, byte);
                }
            }
            self.receive.submit(slot);
            if ours {
                return Ok(packet);
            }
        }
    }

    fn open(&mut self, clock: &Clock) -> Result<(), Problem> {
        self.guest_port = self.guest_port.wrapping_add(1);
        self.received = 0;
        self.sum = 0;
        self.send(clock, REQUEST, 0, 0)
    }

    fn connect(&mut self, clock: &Clock, bytes: u64) -> Result<(), Problem> {
        self.open(clock)?;
        match self.next(clock)?.op {
            RESPONSE => console::print(b"vsock: connected\n"),
            RESET => {
                console::print(b"vsock: refused\n");
                return Ok(());
            }
            _ => return Err("an answer to what was not asked"),
        }
        let place = DATA + u64::from(SLOTS) * SLOT_BYTES + HEADER;
        let mut sent = 0;
        while sent < bytes {
            let piece = (bytes - sent).min(PIECE);
            for offset in 0..piece {
                poke_u8(place + offset, pattern(sent + offset));
            }
            self.send(clock, BYTES, 0, piece)?;
            sent += piece;
        }
        self.send(clock, SHUTDOWN, SENDS_NO_MORE, 0)?;
        loop {
            let packet = self.next(clock)?;
            match packet.op {
                SHUTDOWN if packet.flags == GONE => {
                    self.send(clock, RESET, 0, 0)?;
                    break;
                }
                RESET => break,
                _ => {}
            }
        }
        say("vsock: bytes", self.received.into());
        say("vsock: sum", self.sum);
        Ok(())
    }

    fn flood(&mut self, clock: &Clock) -> Result<(), Problem> {
        self.flooding = true;
        for _ in 0..FLOOD {
            self.open(clock)?;
            self.send(clock, RESET, 0, 0)?;
        }
        self.flooding = false;
        self.open(clock)?;
        let packet = self.next(clock)?;
        if packet.op == RESPONSE {
            self.send(clock, RESET, 0, 0)?;
        }
        console::print(b"vsock: flooded\n");
        Ok(())
    }
}

/// The slot of a chain: each is one descriptor of that number.
fn slot(head: u32) -> Result<u16, Problem> {
    u16::try_from(head)
        .ok()
        .filter(|&slot| slot < SLOTS)
        .ok_or("device gives back what it was not given")
}

/// The byte that is sent at a place.
fn pattern(place: u64) -> u8 {
    (place.wrapping_mul(167) >> 3) as u8
}

/// A sum in which the order counts.
fn add(sum: u64, byte: u8) -> u64 {
    sum.wrapping_mul(31).wrapping_add(byte.into())
}
