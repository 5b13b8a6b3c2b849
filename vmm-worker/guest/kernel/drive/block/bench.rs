//! `mode=block-bench`: keeps a number of requests in flight for a time.

use super::super::memory::{DATA, DATA_BYTES, SCRATCH, poke_u64};
use super::super::options::Options;
use super::super::pci::Bus;
use super::super::queue::{Wait, into, out};
use super::super::{Clock, Problem, say};
use super::{Disk, F_READ_ONLY, READ, SECTOR, WRITE};
use crate::random::XorShift;
use crate::{console, machine, time};

/// Milliseconds that the last requests may take when the time is over.
const PATIENCE: u64 = 20_000;

/// Where the next request goes.
struct Places {
    random: XorShift,
    /// Requests that fit on the disk side by side.
    count: u64,
    sectors: u64,
    sequential: bool,
    next: u64,
}

impl Places {
    fn next(&mut self) -> u64 {
        let place = if self.sequential {
            self.next
        } else {
            self.random.below(self.count)
        };
        self.next = (place + 1) % self.count;
        place * self.sectors
    }
}

/// Runs, and prints the figures.
pub fn bench(bus: Bus, clock: &Clock, options: &Options, wait: Wait) -> Result<(), Problem> {
    let size = options.size.unwrap_or(4096);
    let depth = options.depth.max(1);
    if size % SECTOR != 0 || size == 0 || depth > 1024 || depth.saturating_mul(size) > DATA_BYTES {
        return Err("size: a multiple of 512; depth: at most 1024; together: at most 10 MiB");
    }
    let mut disk = Disk::open(bus, wait, depth, 1)?;
    let count = disk.capacity.saturating_mul(SECTOR) / size;
    if count == 0 || size / SECTOR % disk.unit != 0 {
        return Err("disk is too small, or has larger blocks");
    }
    if options.write && disk.agreed & F_READ_ONLY != 0 {
        return Err("disk is read-only");
    }
    let mut places = Places {
        random: XorShift::new(options.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        count,
        sectors: size / SECTOR,
        sequential: options.sequential,
        next: 0,
    };
    for slot in 0..depth as u16 {
        let data = DATA + u64::from(slot) * size;
        if options.write {
            disk.describe(slot, WRITE, 0, &[out(data, size as u32)]);
        } else {
            disk.describe(slot, READ, 0, &[into(data, size as u32)]);
        }
    }

    let mut requests: u64 = 0;
    let mut errors: u64 = 0;
    let (mut total, mut longest): (u64, u64) = (0, 0);
    let begin = time::cycles();
    let deadline = clock.after(options.milliseconds);
    for slot in 0..depth as u16 {
        disk.aim(slot, places.next());
        disk.offer(slot);
        poke_u64(began(slot), time::cycles());
    }
    disk.queue.show();
    let mut end = begin;
    while disk.queue.in_flight() > 0 {
        let mut next = disk.queue.wait(wait, clock.after(PATIENCE));
        if next.is_none() {
            return Err("requests are not answered");
        }
        end = time::cycles();
        while let Some(used) = next {
            let slot = disk.slot(used.head);
            if u64::from(slot) >= depth {
                return Err("device gives back what it was not given");
            }
            let took = end.wrapping_sub(machine::read_u64(began(slot)));
            total += took;
            longest = longest.max(took);
            requests += 1;
            errors += u64::from(disk.status(slot) != 0);
            if end < deadline {
                disk.aim(slot, places.next());
                disk.offer(slot);
                poke_u64(began(slot), time::cycles());
            }
            next = disk.queue.take();
        }
        disk.queue.show();
    }
    disk.close();

    let elapsed = clock.nanoseconds(end.wrapping_sub(begin)) / 1000;
    console::line()
        .text("block-bench: ")
        .text(if options.write { "write" } else { "read" })
        .text(", ")
        .decimal(size)
        .text(" bytes, depth ")
        .decimal(depth)
        .end();
    say("requests", requests);
    say("errors", errors);
    say("elapsed", elapsed);
    say("iops", requests * 1_000_000 / elapsed.max(1));
    say("latency", clock.nanoseconds(total / requests.max(1)));
    say("longest", clock.nanoseconds(longest));
    Ok(())
}

/// Where it is kept when a slot's request was made.
fn began(slot: u16) -> u64 {
    SCRATCH + u64::from(slot) * 8
}
