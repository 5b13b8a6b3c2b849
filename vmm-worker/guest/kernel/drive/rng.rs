//! `mode=rng-read`: random bytes of the entropy device (virtio 1.3 §5.4).

use super::memory::{DATA, fill};
use super::options::{Device as Kind, Options};
use super::pci::Bus;
use super::queue::{Wait, into};
use super::virtio::{Device, RING_FEATURES};
use super::{Clock, Problem, say};
use crate::machine;

/// Bytes asked for at a time.
const REQUEST: u64 = 64 << 10;
/// Milliseconds that a request may take: there may be a limit on what a guest gets.
const PATIENCE: u64 = 10_000;

/// Reads as many bytes as asked for and says how many of their bits are ones.
pub fn read(bus: Bus, clock: &Clock, options: &Options, wait: Wait) -> Result<(), Problem> {
    let device = Device::first(bus, Kind::RNG).ok_or("no entropy device")?;
    let agreed = device.begin(RING_FEATURES)?;
    device.prepare_interrupts(wait)?;
    let mut queue = device.set_up(0, 0, 64, agreed, wait)?;
    device.run()?;
    let wanted = options.count.unwrap_or(4096);
    let (mut left, mut ones, mut requests) = (wanted, 0, 0);
    while left > 0 {
        let room = left.min(REQUEST);
        fill(DATA, room, 0);
        queue.describe(0, &[into(DATA, room as u32)]);
        queue.submit(0);
        let used = queue
            .wait(wait, clock.after(PATIENCE))
            .ok_or("request is not answered")?;
        let got = u64::from(used.length);
        if got == 0 || got > room {
            return Err("device says it wrote more than there was room for, or nothing");
        }
        ones += (0..got)
            .map(|offset| u64::from(machine::read_u8(DATA + offset).count_ones()))
            .sum::<u64>();
        left -= got;
        requests += 1;
    }
    device.reset();
    say("bytes", wanted);
    say("requests", requests);
    say("ones", ones);
    Ok(())
}
