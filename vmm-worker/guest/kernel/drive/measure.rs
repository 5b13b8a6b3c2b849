//! `mode=measure`: how a run of the benchmarks goes, whatever the device.
//!
//! ```text
//!  warm up ──► "measure: ready" ──► sleep ──► run ──► "measure: operations ..." ──► sleep
//! ```
//!
//! While the guest sleeps, whoever measures reads how much processor time the machine has taken: nothing is
//! in flight, and the processor halts.

use super::latency::Latencies;
use super::options::{Device, Options};
use super::pci::Bus;
use super::queue::Wait;
use super::{Clock, Problem, block, net};
use crate::ring0::Interrupt;
use crate::{console, time};

/// Milliseconds until all that grows with use has grown.
const WARM_UP: u64 = 200;
/// Milliseconds before a run.
const PAUSE: u64 = 100;
/// Milliseconds after it.
const REST: u64 = 1000;

/// What a run did.
pub struct Tally {
    /// Operations that failed.
    pub errors: u64,
    /// From before the first to after the last.
    pub cycles: u64,
}

/// How long operations took: of the one mode that runs.
pub static LATENCIES: Latencies = Latencies::new();

/// Measures the device asked for.
pub fn run(bus: Bus, clock: &Clock, options: &Options, wait: Wait) -> Result<(), Problem> {
    match options.device {
        Some(Device::BLOCK) => block::measure(bus, clock, options, wait),
        Some(Device::NET) => net::measure(bus, clock, options, wait),
        _ => Err("device: block or net"),
    }
}

/// Runs `work` to warm up, and once more until it has taken as long as was asked. It is told when to end,
/// leaves nothing in flight, and notes each operation.
pub fn course(
    clock: &Clock,
    options: &Options,
    mut work: impl FnMut(u64, &Latencies) -> Result<Tally, Problem>,
) -> Result<(), Problem> {
    work(clock.after(WARM_UP), &LATENCIES)?;
    LATENCIES.clear();
    console::print(b"measure: ready\n");
    sleep_until(clock.after(PAUSE));
    let tally = work(clock.after(options.milliseconds), &LATENCIES)?;
    let ns = |cycles| clock.nanoseconds(cycles);
    console::line()
        .text("measure: operations ")
        .decimal(LATENCIES.number())
        .text(", errors ")
        .decimal(tally.errors)
        .text(", ns ")
        .decimal(ns(tally.cycles))
        .text(", min ")
        .decimal(ns(LATENCIES.least()))
        .text(", p50 ")
        .decimal(ns(LATENCIES.percentile(50)))
        .text(", p99 ")
        .decimal(ns(LATENCIES.percentile(99)))
        .end();
    sleep_until(clock.after(REST));
    Ok(())
}

/// Halts until then; the timer runs.
fn sleep_until(deadline: u64) {
    while time::cycles() < deadline {
        Interrupt::Timer.wait(Interrupt::Timer.count());
    }
}
