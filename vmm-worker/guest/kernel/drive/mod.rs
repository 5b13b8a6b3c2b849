//! Drivers for PCI and virtio, and the modes that need them. In the larger of the two images only.
//!
//! ```text
//!  mod.rs ──► report.rs, block/, net/, rng.rs, vsock.rs, plugged.rs, attack/, platform.rs; measure.rs: how the benchmarks' runs go
//!                 │
//!                 ▼
//!  virtio.rs: negotiation ──► queue.rs: split rings ──► ring.rs: their arithmetic
//!      │                          │
//!      ▼                          ▼
//!  pci.rs: functions, MSI-X ──► memory.rs: arena, registers
//! ```
//!
//! All of it runs on the boot processor, in ring 3. A driver looks for what is done, or sleeps until
//! an interrupt; no wait is without end, whatever a device does or leaves undone. Each mode prints
//! `name: value` lines and ends with `power off`; one that begins with `error:` says why there is
//! nothing to print.

mod attack;
mod block;
mod cases;
mod latency;
mod measure;
mod memory;
mod net;
mod options;
mod pci;
mod platform;
mod plugged;
mod queue;
mod report;
mod ring;
mod rng;
mod virtio;
mod vsock;

use self::options::{Mode, Options};
use self::pci::Bus;
use self::queue::Wait;
use crate::boot::Boot;
use crate::{apic, console, time};

/// Why a mode has nothing to say.
type Problem = &'static str;

/// Runs the mode asked for, if it is one of these.
pub fn run(boot: &Boot) -> bool {
    let options = Options::parse(boot.command_line());
    let Some(mode) = options.mode else {
        return false;
    };
    match dispatch(boot, mode, &options) {
        Ok(()) => console::print(b"power off\n"),
        Err(problem) => console::line().text("error: ").text(problem).end(),
    }
    true
}

fn dispatch(boot: &Boot, mode: Mode, options: &Options) -> Result<(), Problem> {
    if !memory::prepare(boot) {
        return Err("less than 32 MiB of memory");
    }
    let bus = Bus::find(boot).ok_or("no PCI bus")?;
    apic::enable();
    let clock = Clock::new()?;
    if options.interrupt || mode == Mode::Measure {
        // Ends a sleep from which no device wakes us.
        apic::start_periodic(50 * apic::TICKS_PER_MS);
    }
    let wait = if options.interrupt {
        Wait::Interrupt
    } else {
        Wait::Poll
    };
    match mode {
        Mode::Report => report::run(bus),
        Mode::BlockVerify => block::verify(bus, &clock, options, wait),
        Mode::BlockBench => block::bench(bus, &clock, options, wait),
        Mode::BlockWatch => block::watch(bus, &clock, options, wait),
        Mode::NetBench => net::bench(bus, &clock, options, wait),
        Mode::NetEcho => net::echo(bus, &clock, options, wait),
        Mode::RngRead => rng::read(bus, &clock, options, wait),
        Mode::Attack => attack::run(boot, bus, &clock, options),
        Mode::Panic => platform::panic(options),
        Mode::CrashKernel => platform::crash_kernel(options),
        Mode::Watchdog => platform::watchdog(bus, &clock, options),
        Mode::WatchdogAttack => platform::attack(bus, &clock, options),
        Mode::Generation => platform::generation(boot),
        Mode::MemoryWatch => plugged::watch(bus, &clock, options, wait),
        Mode::Measure => measure::run(bus, &clock, options, wait),
        Mode::VsockDial => vsock::dial(bus, &clock, options),
    }
}

/// Milliseconds as a point of the time-stamp counter, and that counter's frequency in kHz.
struct Clock {
    khz: u64,
}

impl Clock {
    fn new() -> Result<Self, Problem> {
        let khz = if time::pm_timer_runs() {
            time::measure_tsc_khz()
        } else {
            // QEMU's microvm has none.
            apic::measure_tsc_khz()
        };
        let khz = khz.ok_or("no clock")?.max(1);
        Ok(Self { khz })
    }

    /// The counter in so many milliseconds.
    fn after(&self, milliseconds: u64) -> u64 {
        time::cycles().saturating_add(self.khz.saturating_mul(milliseconds))
    }

    /// What the counter moves in so many microseconds.
    fn cycles(&self, microseconds: u64) -> u64 {
        self.khz.saturating_mul(microseconds) / 1000
    }

    /// Nanoseconds of so many cycles: of up to a day of them.
    fn nanoseconds(&self, cycles: u64) -> u64 {
        let wide = u128::from(cycles) * 1_000_000 / u128::from(self.khz);
        wide as u64
    }
}

/// A line `name: number`.
fn say(name: &str, value: u64) {
    console::line().text(name).text(": ").decimal(value).end();
}
