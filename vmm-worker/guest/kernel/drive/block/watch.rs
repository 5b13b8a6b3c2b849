//! `mode=block-watch`: says how large the first disk is and what is in it, at first and at each change.

use super::super::memory::DATA;
use super::super::options::Options;
use super::super::pci::Bus;
use super::super::queue::{Wait, into};
use super::super::{Clock, Problem, say};
use super::{Disk, READ, SECTOR};
use crate::{console, machine, time};

/// Milliseconds that a request may take.
const PATIENCE: u64 = 20_000;
/// Milliseconds between two looks.
const PAUSE: u64 = 2;

/// Watches for so many milliseconds.
pub fn watch(bus: Bus, clock: &Clock, options: &Options, wait: Wait) -> Result<(), Problem> {
    let stride = options.size.unwrap_or(64 << 10) / SECTOR;
    let mut disk = Disk::open(bus, wait, 1, 1)?;
    let mut before = None;
    let deadline = clock.after(options.milliseconds);
    while time::cycles() < deadline {
        // An exchange of one medium for another of the same size shows by the generation.
        let now = (disk.device.generation(), disk.device.config.read_u64(0));
        if before == Some(now) {
            let next = clock.after(PAUSE);
            while time::cycles() < next {
                core::hint::spin_loop();
            }
            continue;
        }
        before = Some(now);
        say("capacity", now.1);
        for place in 0..options.count.unwrap_or(1) {
            read(&mut disk, clock, place.saturating_mul(stride), wait)?;
        }
        console::line().text("looked").end();
    }
    disk.close();
    Ok(())
}

/// Reads a sector, and says how that went and which byte it begins with.
fn read(disk: &mut Disk, clock: &Clock, sector: u64, wait: Wait) -> Result<(), Problem> {
    disk.describe(0, READ, sector, &[into(DATA, SECTOR as u32)]);
    disk.offer(0);
    disk.queue.show();
    if disk.queue.wait(wait, clock.after(PATIENCE)).is_none() {
        return Err("a request is not answered");
    }
    console::line()
        .text("sector ")
        .decimal(sector)
        .text(": status ")
        .decimal(disk.status(0).into())
        .text(", byte ")
        .decimal(machine::read_u8(DATA).into())
        .end();
    Ok(())
}
