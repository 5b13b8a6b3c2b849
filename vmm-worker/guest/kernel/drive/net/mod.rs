//! `mode=net-bench`, `mode=net-echo` and `mode=measure device=net`: raw Ethernet frames by the network device (virtio 1.3 §5.1).
//!
//! No offload is taken, so the header before each frame is twelve zeroes. Frames that are made here have
//! the EtherType for local experiments (IEEE 802, 0x88b5), to which no stack answers.

mod measure;

pub use measure::measure;

use super::memory::{DATA, DATA_BYTES, fill, poke_u16, poke_u32, put};
use super::options::{Device as Kind, Direction, Options};
use super::pci::Bus;
use super::queue::{Queue, Wait, into, out};
use super::virtio::{Device, RING_FEATURES};
use super::{Clock, Problem, say};
use crate::machine::{read_u16, read_u32};
use crate::{console, time};

/// `VIRTIO_NET_F_MAC`.
const F_MAC: u64 = 1 << 5;
const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
/// Bytes of `virtio_net_hdr`.
const HEADER: u64 = 12;
/// Bytes of the Ethernet header.
const ETHERNET: u64 = 14;
/// Bytes kept for a frame and its header.
const SLOT_BYTES: u64 = 16 << 10;
const MAX_SLOTS: u64 = DATA_BYTES / SLOT_BYTES;
const EXPERIMENTAL: u16 = 0x88b5_u16.to_be();
/// Whom frames are sent to: a locally administered address.
const PEER: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Milliseconds for what should take none.
const PATIENCE: u64 = 10_000;

struct Card {
    device: Device,
    receive: Queue,
    transmit: Queue,
    slots: u16,
    /// Bytes of a frame, or room for one.
    size: u64,
}

impl Card {
    fn open(bus: Bus, options: &Options, wait: Wait) -> Result<Self, Problem> {
        let device = Device::first(bus, Kind::NET).ok_or("no network device")?;
        let size = options.size.unwrap_or(1514);
        if !(ETHERNET..=SLOT_BYTES - HEADER).contains(&size) {
            return Err("size: 14 to 16372 bytes");
        }
        let agreed = device.begin(RING_FEATURES | F_MAC)?;
        device.prepare_interrupts(wait)?;
        let receive = device.set_up(RECEIVE, 0, 256, agreed, wait)?;
        let transmit = device.set_up(TRANSMIT, 1, 256, agreed, wait)?;
        let most = u64::from(receive.rings.size.min(transmit.rings.size)).min(MAX_SLOTS);
        let slots = options.depth.clamp(1, most) as u16;
        device.run()?;
        Ok(Self {
            device,
            receive,
            transmit,
            slots,
            size,
        })
    }

    /// Writes a frame of this size into each slot.
    fn describe_frames(&self) {
        for slot in 0..self.slots {
            let frame = place(slot) + HEADER;
            fill(place(slot), HEADER + self.size, 0);
            put(frame, &PEER);
            for byte in 0..6 {
                put(frame + 6 + byte, &[self.device.config.read_u8(byte)]);
            }
            poke_u16(frame + 12, EXPERIMENTAL);
            let length = (HEADER + self.size) as u32;
            self.transmit.describe(slot, &[out(place(slot), length)]);
        }
    }

    fn offer_receive(&mut self, slot: u16) {
        self.offer_receive_at(slot, place(slot));
    }

    fn offer_receive_at(&mut self, slot: u16, place: u64) {
        let room = (HEADER + self.size) as u32;
        self.receive.describe(slot, &[into(place, room)]);
        self.receive.offer(slot);
    }

    fn close(&self) {
        self.device.reset();
    }
}

/// Where a slot's header and frame are.
fn place(slot: u16) -> u64 {
    DATA + u64::from(slot) * SLOT_BYTES
}

/// The slot of a chain: each is one descriptor of that number.
fn slot(head: u32, slots: u16) -> Result<u16, Problem> {
    u16::try_from(head)
        .ok()
        .filter(|&slot| slot < slots)
        .ok_or("device gives back what it was not given")
}

/// Sends or receives frames for a time, or until there were `count`.
pub fn bench(bus: Bus, clock: &Clock, options: &Options, wait: Wait) -> Result<(), Problem> {
    let mut card = Card::open(bus, options, wait)?;
    let figures = if options.direction == Direction::Receive {
        receive(&mut card, clock, options, wait)?
    } else {
        transmit(&mut card, clock, options, wait)?
    };
    card.close();
    let microseconds = clock.nanoseconds(figures.cycles) / 1000;
    say("packets", figures.packets);
    say("bytes", figures.bytes);
    say("elapsed", microseconds);
    say(
        "rate",
        figures.packets.saturating_mul(1_000_000) / microseconds.max(1),
    );
    Ok(())
}

/// What went over the wire. Bytes are without `virtio_net_hdr`.
#[derive(Default)]
struct Figures {
    packets: u64,
    bytes: u64,
    cycles: u64,
}

fn transmit(
    card: &mut Card,
    clock: &Clock,
    options: &Options,
    wait: Wait,
) -> Result<Figures, Problem> {
    card.describe_frames();
    let most = options.count.unwrap_or(u64::MAX);
    let (mut sent, mut done) = (0, 0);
    let begin = time::cycles();
    let deadline = clock.after(options.milliseconds);
    for slot in (0..card.slots).take(most as usize) {
        card.transmit.offer(slot);
        sent += 1;
    }
    card.transmit.show();
    while done < sent {
        let mut next = card.transmit.wait(wait, clock.after(PATIENCE));
        if next.is_none() {
            return Err("frames are not taken");
        }
        let more = time::cycles() < deadline;
        while let Some(used) = next {
            done += 1;
            let slot = slot(used.head, card.slots)?;
            if more && sent < most {
                card.transmit.offer(slot);
                sent += 1;
            }
            next = card.transmit.take();
        }
        card.transmit.show();
    }
    Ok(Figures {
        packets: done,
        bytes: done * card.size,
        cycles: time::cycles().wrapping_sub(begin),
    })
}

fn receive(
    card: &mut Card,
    clock: &Clock,
    options: &Options,
    wait: Wait,
) -> Result<Figures, Problem> {
    for slot in 0..card.slots {
        card.offer_receive(slot);
    }
    card.receive.show();
    console::print(b"net-bench: ready\n");
    let most = options.count.unwrap_or(u64::MAX);
    let deadline = clock.after(options.milliseconds);
    let mut figures = Figures::default();
    let mut first = None;
    let mut last = 0;
    while figures.packets < most {
        let Some(used) = card.receive.wait(wait, deadline) else {
            break;
        };
        last = time::cycles();
        first.get_or_insert(last);
        let mut next = Some(used);
        while let Some(used) = next {
            figures.packets += 1;
            figures.bytes += u64::from(used.length).saturating_sub(HEADER);
            let slot = slot(used.head, card.slots)?;
            card.receive.offer(slot);
            next = card.receive.take();
        }
        card.receive.show();
    }
    // From the first frame to the last, not from when we began to listen.
    figures.cycles = last.wrapping_sub(first.unwrap_or(last));
    Ok(figures)
}

/// Sends each frame back to where it came from, out of the buffer it came in, until the time is over
/// or there were `count`.
pub fn echo(bus: Bus, clock: &Clock, options: &Options, wait: Wait) -> Result<(), Problem> {
    let mut card = Card::open(bus, options, wait)?;
    for slot in 0..card.slots {
        card.offer_receive(slot);
    }
    card.receive.show();
    console::print(b"net-echo: ready\n");
    let deadline = clock.after(options.milliseconds);
    let most = options.count.unwrap_or(u64::MAX);
    let mut packets = 0;
    while packets < most {
        // What was sent can be received into again; if all is being sent, that comes first.
        while let Some(used) = card.transmit.take() {
            let slot = slot(used.head, card.slots)?;
            card.offer_receive(slot);
        }
        card.receive.show();
        if card.transmit.in_flight() == card.slots {
            if time::cycles() > deadline {
                break;
            }
            continue;
        }
        let Some(mut used) = card.receive.wait(wait, deadline) else {
            break;
        };
        loop {
            let slot = slot(used.head, card.slots)?;
            let length = u64::from(used.length).clamp(HEADER, HEADER + card.size);
            if length >= HEADER + ETHERNET {
                turn_round(place(slot));
                packets += 1;
                card.transmit
                    .describe(slot, &[out(place(slot), length as u32)]);
                card.transmit.offer(slot);
            } else {
                card.offer_receive(slot);
            }
            match card.receive.take() {
                Some(next) => used = next,
                None => break,
            }
        }
        card.transmit.show();
    }
    time::wait_until(|| card.transmit.take().is_none() && card.transmit.in_flight() == 0);
    card.close();
    say("packets", packets);
    Ok(())
}

/// Clears the header and swaps the addresses.
fn turn_round(place: u64) {
    fill(place, HEADER, 0);
    let frame = place + HEADER;
    let (to, from) = (
        (read_u32(frame), read_u16(frame + 4)),
        (read_u32(frame + 6), read_u16(frame + 10)),
    );
    poke_u32(frame, from.0);
    poke_u16(frame + 4, from.1);
    poke_u32(frame + 6, to.0);
    poke_u16(frame + 10, to.1);
}
