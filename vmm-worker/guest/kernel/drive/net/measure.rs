//! `mode=measure device=net`: frames one way, or there and back.
//!
//! For a round trip each frame has its number behind the EtherType. The frames that come are received
//! behind those that go, in slots of their own; what was sent is looked for when something has come, since
//! it is done by then.

use super::super::latency::Latencies;
use super::super::measure::{Tally, course};
use super::super::memory::{SCRATCH, poke_u64};
use super::super::options::{Direction, Options};
use super::super::pci::Bus;
use super::super::queue::Wait;
use super::super::{Clock, Problem};
use super::{Card, ETHERNET, EXPERIMENTAL, HEADER, MAX_SLOTS, PATIENCE, place, slot};
use crate::machine::{read_u16, read_u64};
use crate::time;

/// Runs the direction asked for.
pub fn measure(bus: Bus, clock: &Clock, options: &Options, wait: Wait) -> Result<(), Problem> {
    let mut card = Card::open(bus, options, wait)?;
    match options.direction {
        Direction::Transmit => {
            card.describe_frames();
            course(clock, options, |deadline, latencies| {
                transmit(&mut card, clock, wait, deadline, latencies)
            })?;
        }
        Direction::Receive => {
            for slot in 0..card.slots {
                card.offer_receive(slot);
            }
            card.receive.show();
            course(clock, options, |deadline, latencies| {
                receive(&mut card, wait, deadline, latencies)
            })?;
        }
        Direction::RoundTrip => {
            if card.size < ETHERNET + 2 || u64::from(card.slots) * 2 > MAX_SLOTS {
                return Err("size: at least 16 bytes; depth: at most 320");
            }
            card.describe_frames();
            for slot in 0..card.slots {
                super::poke_u16(place(slot) + HEADER + ETHERNET, slot);
                card.offer_receive_at(slot, place(card.slots + slot));
            }
            card.receive.show();
            course(clock, options, |deadline, latencies| {
                round_trip(&mut card, clock, wait, deadline, latencies)
            })?;
        }
    }
    card.close();
    Ok(())
}

fn transmit(
    card: &mut Card,
    clock: &Clock,
    wait: Wait,
    deadline: u64,
    latencies: &Latencies,
) -> Result<Tally, Problem> {
    // As stock drivers do: interrupted when most of what is out has gone, not for each frame.
    let most = (card.slots * 3 / 4).max(1);
    let begin = time::cycles();
    for slot in 0..card.slots {
        card.transmit.offer(slot);
        poke_u64(began(slot), begin);
    }
    card.transmit.show();
    let mut end = begin;
    while card.transmit.in_flight() > 0 {
        let entries = most.min(card.transmit.in_flight());
        let mut next = card
            .transmit
            .wait_for(entries, wait, clock.after(PATIENCE));
        if next.is_none() {
            return Err("frames are not taken");
        }
        end = time::cycles();
        while let Some(used) = next {
            let slot = slot(used.head, card.slots)?;
            latencies.note(end.wrapping_sub(read_u64(began(slot))));
            if end < deadline {
                card.transmit.offer(slot);
                poke_u64(began(slot), end);
            }
            next = card.transmit.take();
        }
        card.transmit.show();
    }
    let cycles = end.wrapping_sub(begin);
    Ok(Tally { errors: 0, cycles })
}

fn receive(
    card: &mut Card,
    wait: Wait,
    deadline: u64,
    latencies: &Latencies,
) -> Result<Tally, Problem> {
    let begin = time::cycles();
    let mut last = begin;
    let mut errors = 0;
    loop {
        let mut next = card.receive.wait(wait, deadline);
        let now = time::cycles();
        while let Some(used) = next {
            let slot = slot(used.head, card.slots)?;
            if u64::from(used.length) == HEADER + card.size {
                latencies.note(now.wrapping_sub(last));
                last = now;
            } else {
                errors += 1;
            }
            card.offer_receive(slot);
            next = card.receive.take();
        }
        card.receive.show();
        if now >= deadline {
            break;
        }
    }
    let cycles = time::cycles().wrapping_sub(begin);
    Ok(Tally { errors, cycles })
}

fn round_trip(
    card: &mut Card,
    clock: &Clock,
    wait: Wait,
    deadline: u64,
    latencies: &Latencies,
) -> Result<Tally, Problem> {
    let begin = time::cycles();
    for slot in 0..card.slots {
        card.transmit.offer(slot);
        poke_u64(began(slot), time::cycles());
    }
    card.transmit.show();
    let (mut end, mut out, mut errors) = (begin, card.slots, 0);
    while out > 0 {
        let mut next = card.receive.wait(wait, clock.after(PATIENCE));
        if next.is_none() {
            return Err("frames do not come back");
        }
        end = time::cycles();
        while card.transmit.take().is_some() {}
        while let Some(used) = next {
            let into = slot(used.head, card.slots)?;
            let frame = place(card.slots + into) + HEADER;
            // Others than ours: the host's own.
            if read_u16(frame + 12) == EXPERIMENTAL {
                let number = slot(read_u16(frame + ETHERNET).into(), card.slots)?;
                latencies.note(end.wrapping_sub(read_u64(began(number))));
                out -= 1;
                if end < deadline {
                    // Its buffer may not be back yet, though its frame is.
                    if !time::wait_until(|| {
                        while card.transmit.take().is_some() {}
                        card.transmit.in_flight() < card.slots
                    }) {
                        return Err("frames are not given back");
                    }
                    card.transmit.offer(number);
                    poke_u64(began(number), time::cycles());
                    out += 1;
                }
            } else {
                errors += 1;
            }
            card.offer_receive_at(into, place(card.slots + into));
            next = card.receive.take();
        }
        card.receive.show();
        card.transmit.show();
    }
    let cycles = end.wrapping_sub(begin);
    Ok(Tally { errors, cycles })
}

/// Where it is kept when a slot's frame was sent.
fn began(slot: u16) -> u64 {
    SCRATCH + u64::from(slot) * 8
}
