//! `mode=report`: one line for each thing this machine ought to have, then power-off.
//!
//! Each line is `name: value`; a value that begins with FAILED is a fault of the machine.

use core::arch::x86_64::__cpuid;

use crate::boot::Boot;
use crate::ring0::{self, Interrupt};
use crate::{acpi, apic, console, cpus, time};

/// Prints the report.
pub fn run(boot: &Boot) {
    let bytes: u64 = boot.ram().map(|ram| ram.size).fold(0, u64::wrapping_add);
    // The holes below 1 MiB must not make 128 MiB look like 127.
    let mebibytes = bytes.wrapping_add((1 << 20) - 1) >> 20;
    console::line()
        .text("memory: ")
        .decimal(mebibytes)
        .text(" MiB")
        .end();
    apic::enable();
    processors(boot);
    let tsc_khz = timer();
    date();
    signatures();
    if let Some(khz) = tsc_khz {
        let cycles = time::cycles().wrapping_sub(ring0::entry_time());
        console::line()
            .text("time: ")
            .decimal(cycles * 1000 / khz.max(1))
            .text(" us")
            .end();
    }
    console::print(b"power off\n");
}

fn processors(boot: &Boot) {
    let Some(tables) = acpi::read(boot) else {
        return;
    };
    let up = cpus::start_others(boot, &tables);
    let verdict = if up == tables.processors {
        ""
    } else {
        "FAILED, "
    };
    console::line()
        .text("cpus: ")
        .text(verdict)
        .decimal(u64::from(tables.processors))
        .text(" found, ")
        .decimal(u64::from(up))
        .text(" up")
        .end();
}

/// One interrupt after a millisecond, timed by the other counters; the TSC's frequency in kHz.
fn timer() -> Option<u64> {
    let seen = Interrupt::Timer.count();
    let start = time::now();
    apic::start_one_shot(apic::TICKS_PER_MS);
    // Spinning, not halting, so that a timer that never fires is a line and not a hang.
    if !time::wait_until(|| Interrupt::Timer.count() != seen) {
        console::print(b"timer: FAILED, no interrupt\n");
        return None;
    }
    let elapsed = start.elapsed();
    match elapsed.microseconds {
        0 => {
            time::say_still();
            return None;
        }
        early @ ..900 => console::line()
            .text("timer: FAILED, early: ")
            .decimal(early)
            .text(" us")
            .end(),
        microseconds => {
            let tenths = (microseconds + 50) / 100;
            let mut line = console::line();
            line.text("timer: ok ")
                .decimal(tenths / 10)
                .text(".")
                .decimal(tenths % 10)
                .text(" ms")
                .end();
        }
    }
    Some(elapsed.cycles * 1000 / elapsed.microseconds)
}

fn date() {
    let date = time::date();
    console::line()
        .text("date: ")
        .padded(date.year, 4)
        .text("-")
        .padded(date.month, 2)
        .text("-")
        .padded(date.day, 2)
        .text(" ")
        .padded(date.hour, 2)
        .text(":")
        .padded(date.minute, 2)
        .text(":")
        .padded(date.second, 2)
        .end();
}

/// The processor's vendor and, if there is one, the hypervisor's signature.
fn signatures() {
    const HYPERVISOR_PRESENT: u32 = 1 << 31;
    // SAFETY: every x86-64 processor has CPUID.
    let vendor = unsafe { __cpuid(0) };
    // SAFETY: as above.
    let features = unsafe { __cpuid(1) };
    let mut line = console::line();
    line.text("cpu: ")
        .raw(&vendor.ebx.to_le_bytes())
        .raw(&vendor.edx.to_le_bytes())
        .raw(&vendor.ecx.to_le_bytes());
    if features.ecx & HYPERVISOR_PRESENT != 0 {
        // SAFETY: the leaf exists, since the hypervisor bit is set.
        let signature = unsafe { __cpuid(0x4000_0000) };
        line.text(" on ");
        for word in [signature.ebx, signature.ecx, signature.edx] {
            for byte in word.to_le_bytes() {
                if byte.is_ascii_graphic() {
                    line.raw(&[byte]);
                }
            }
        }
    }
    line.end();
}
