//! `mode=block-bench` and `mode=measure device=block`: keep a number of requests in flight for a time.

use super::super::latency::Latencies;
use super::super::measure::{LATENCIES, Tally, course};
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

/// A disk and the requests it is kept busy with.
struct Load {
    disk: Disk,
    places: Places,
    depth: u64,
    size: u64,
    wait: Wait,
}

impl Load {
    fn open(bus: Bus, options: &Options, wait: Wait) -> Result<Self, Problem> {
        let size = options.size.unwrap_or(4096);
        let depth = options.depth.max(1);
        if size % SECTOR != 0
            || size == 0
            || depth > 1024
            || depth.saturating_mul(size) > DATA_BYTES
        {
            return Err("size: a multiple of 512; depth: at most 1024; together: at most 10 MiB");
        }
        let disk = Disk::open(bus, wait, depth, 1)?;
        let count = disk.capacity.saturating_mul(SECTOR) / size;
        if count == 0 || size / SECTOR % disk.unit != 0 {
            return Err("disk is too small, or has larger blocks");
        }
        if options.write && disk.agreed & F_READ_ONLY != 0 {
            return Err("disk is read-only");
        }
        for slot in 0..depth as u16 {
            let data = DATA + u64::from(slot) * size;
            if options.write {
                disk.describe(slot, WRITE, 0, &[out(data, size as u32)]);
            } else {
                disk.describe(slot, READ, 0, &[into(data, size as u32)]);
            }
        }
        let places = Places {
            random: XorShift::new(options.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            count,
            sectors: size / SECTOR,
            sequential: options.sequential,
            next: 0,
        };
        Ok(Self {
            disk,
            places,
            depth,
            size,
            wait,
        })
    }

    /// Makes the next request in a slot.
    fn offer(&mut self, slot: u16) {
        self.disk.aim(slot, self.places.next());
        self.disk.offer(slot);
        poke_u64(began(slot), time::cycles());
    }

    /// Keeps the disk busy until `deadline`, and waits for the last requests.
    fn run(
        &mut self,
        clock: &Clock,
        deadline: u64,
        latencies: &Latencies,
    ) -> Result<Tally, Problem> {
        let mut errors = 0;
        let begin = time::cycles();
        for slot in 0..self.depth as u16 {
            self.offer(slot);
        }
        self.disk.queue.show();
        let mut end = begin;
        while self.disk.queue.in_flight() > 0 {
            let mut next = self.disk.queue.wait(self.wait, clock.after(PATIENCE));
            if next.is_none() {
                return Err("requests are not answered");
            }
            end = time::cycles();
            while let Some(used) = next {
                let slot = self.disk.slot(used.head);
                if u64::from(slot) >= self.depth {
                    return Err("device gives back what it was not given");
                }
                latencies.note(end.wrapping_sub(machine::read_u64(began(slot))));
                errors += u64::from(self.disk.status(slot) != 0);
                if end < deadline {
                    self.offer(slot);
                }
                next = self.disk.queue.take();
            }
            self.disk.queue.show();
        }
        let cycles = end.wrapping_sub(begin);
        Ok(Tally { errors, cycles })
    }
}

/// Runs, and prints the figures.
pub fn bench(bus: Bus, clock: &Clock, options: &Options, wait: Wait) -> Result<(), Problem> {
    let mut load = Load::open(bus, options, wait)?;
    let latencies = &LATENCIES;
    let tally = load.run(clock, clock.after(options.milliseconds), latencies)?;
    load.disk.close();

    let elapsed = clock.nanoseconds(tally.cycles) / 1000;
    let requests = latencies.number();
    console::line()
        .text("block-bench: ")
        .text(if options.write { "write" } else { "read" })
        .text(", ")
        .decimal(load.size)
        .text(" bytes, depth ")
        .decimal(load.depth)
        .end();
    say("requests", requests);
    say("errors", tally.errors);
    say("elapsed", elapsed);
    say("iops", requests * 1_000_000 / elapsed.max(1));
    say("latency", clock.nanoseconds(latencies.mean()));
    say("longest", clock.nanoseconds(latencies.most()));
    Ok(())
}

/// The same for `mode=measure`.
pub fn measure(bus: Bus, clock: &Clock, options: &Options, wait: Wait) -> Result<(), Problem> {
    let mut load = Load::open(bus, options, wait)?;
    course(clock, options, |deadline, latencies| {
        load.run(clock, deadline, latencies)
    })?;
    load.disk.close();
    Ok(())
}

/// Where it is kept when a slot's request was made.
fn began(slot: u16) -> u64 {
    SCRATCH + u64::from(slot) * 8
}
