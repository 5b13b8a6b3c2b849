//! `mode=steady`: work without end that notices when it is disturbed.
//!
//! For machines that are saved and go on elsewhere. Every processor but the first goes round a loop
//! with a vector register that must not change and a time-stamp counter that must not go back, neither
//! its own nor behind another's. The first sleeps between the ticks of its timer and tells how it goes.

use core::arch::asm;
use core::arch::x86_64::_mm_lfence;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::boot::Boot;
use crate::ring0::Interrupt;
use crate::{apic, console, cpus, interactive, time};

/// Processors that are watched; more are kept busy only.
const WATCHED: usize = 64;
/// How far, in cycles, counters that stand at the same time may be apart.
const SLACK: u64 = 20_000;
const PERIOD_MS: u32 = 50;

static ROUNDS: [AtomicU64; WATCHED] = [const { AtomicU64::new(0) }; WATCHED];
/// The latest time-stamp counter of any processor.
static LATEST: AtomicU64 = AtomicU64::new(0);
static WENT_BACK: AtomicU32 = AtomicU32::new(0);
static CHANGED: AtomicU32 = AtomicU32::new(0);

/// Works for good, as processor `number` of the others.
pub fn work(number: u32) -> ! {
    let rounds = ROUNDS.get(number as usize % WATCHED);
    let pattern = 0x5eed_0000_0000_0001 + (u64::from(number) << 8);
    loop {
        if keep_in_register(pattern) != pattern {
            CHANGED.fetch_add(1, Ordering::AcqRel);
        }
        look_at_the_clock();
        if let Some(rounds) = rounds {
            rounds.fetch_add(1, Ordering::AcqRel);
        }
    }
}

/// Holds `pattern` in a vector register for a while, and gives back what is there then.
fn keep_in_register(pattern: u64) -> u64 {
    let kept: u64;
    // SAFETY: changes two registers, both declared, and no memory.
    unsafe {
        asm!(
            "movq xmm7, {pattern}",
            "2: dec {turns:e}",
            "jnz 2b",
            "movq {kept}, xmm7",
            pattern = in(reg) pattern,
            turns = inout(reg) 20_000_u32 => _,
            kept = lateout(reg) kept,
            out("xmm7") _,
            options(nomem, nostack),
        );
    }
    kept
}

/// Compares the time-stamp counter with the latest one that any processor has seen.
fn look_at_the_clock() {
    let latest = LATEST.load(Ordering::Acquire);
    // SAFETY: every x86-64 processor has the instruction; it orders loads.
    unsafe { _mm_lfence() };
    let now = time::cycles();
    if now.saturating_add(SLACK) < latest {
        WENT_BACK.fetch_add(1, Ordering::AcqRel);
    }
    LATEST.fetch_max(now, Ordering::AcqRel);
}

/// Keeps all busy and tells how it goes, until the power button.
pub fn run(boot: &Boot) {
    let Some(tables) = interactive::listen_for_power_button(boot) else {
        return;
    };
    let others = cpus::start_steady(boot, &tables);
    let mut before = [0; WATCHED];
    let mut seen = Interrupt::Timer.count();
    let mut last = time::now();
    let mut number = 0;
    apic::start_periodic(PERIOD_MS * apic::TICKS_PER_MS);
    while !interactive::power_button_pressed() {
        Interrupt::Timer.wait(seen);
        if Interrupt::Timer.count() == seen {
            continue;
        }
        seen = Interrupt::Timer.count();
        number += 1;
        look_at_the_clock();
        let now = time::now();
        let elapsed = last.elapsed_at(now);
        last = now;
        let (mut busy, mut sum) = (0, 0_u64);
        for (rounds, before) in ROUNDS.iter().take(others as usize).zip(&mut before) {
            let now = rounds.load(Ordering::Acquire);
            busy += u64::from(now != *before);
            sum = sum.wrapping_add(now);
            *before = now;
        }
        tell_faults();
        console::line()
            .text("steady ")
            .decimal(number)
            .text(": ")
            .decimal(elapsed.cycles)
            .text(" cycles, pm ")
            .decimal(elapsed.microseconds)
            .text(" us, ")
            .decimal(busy)
            .text(" busy, ")
            .decimal(sum)
            .text(" rounds")
            .end();
    }
}

fn tell_faults() {
    let (back, changed) = (
        WENT_BACK.swap(0, Ordering::AcqRel),
        CHANGED.swap(0, Ordering::AcqRel),
    );
    if back != 0 || changed != 0 {
        console::line()
            .text("steady: FAILED, the time-stamp counter went back ")
            .decimal(u64::from(back))
            .text(" times, a register changed ")
            .decimal(u64::from(changed))
            .text(" times")
            .end();
    }
}
