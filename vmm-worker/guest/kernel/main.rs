//! Reeve's built-in guest: the freestanding kernel itself.
//!
//! Ring 0 is assembly and small (`entry.s`, `gates.s`, `ap.s`); everything else is this Rust code
//! in ring 3, where the restricted KVMs run at full speed. One address space, mapped one to one.
//! The boot processor runs [`ring3_main`]; application processors wait in `cpus.rs` until they
//! are given work. Interrupt stubs only count; nothing here runs in interrupt context. Compiled twice:
//! with `--cfg drivers` there is `drive/` as well.
//!
//! Trust: what the loader and the devices say is taken at its word where a wrong word can only
//! stop this guest; table walks are bounded and checked all the same.

#![no_std]
#![no_main]
#![deny(unsafe_op_in_unsafe_fn)]
#![warn(missing_docs)]
#![allow(
    unused_unsafe,
    reason = "`__cpuid` is safe to call in newer compilers, not in the oldest"
)]

mod acpi;
mod apic;
mod boot;
mod console;
mod cpus;
#[cfg(drivers)]
mod drive;
mod interactive;
mod machine;
mod mem;
mod misbehave;
mod options;
mod random;
mod report;
mod ring0;
mod steady;
mod time;

use core::panic::PanicInfo;

use crate::boot::Boot;
use crate::options::{Mode, Options};

/// Where ring 0 hands over; `info` is the physical address of `hvm_start_info`.
///
/// # Safety
///
/// Called once, by `entry.s`, with the address PVH passed and the first 2 MiB mapped.
#[unsafe(no_mangle)]
unsafe extern "C" fn ring3_main(info: u64) -> ! {
    // SAFETY: the caller passes on the loader's start info, which lies in the mapped 2 MiB.
    let boot = unsafe { Boot::read(info) };
    let options = Options::parse(boot.command_line());
    run(&boot, &options);
    machine::power_off()
}

/// Runs the mode asked for. Returns when the guest has nothing left to do.
fn run(boot: &Boot, options: &Options) {
    match options.mode {
        // Asked for by an option that is not the first, so `entry.s` left it to us.
        Mode::Bench => console::print(b"\n"),
        Mode::Hold => {
            console::print(b"\n");
            ring0::sleep_forever();
        }
        Mode::BenchAnywhere => {
            console::print(b"\n");
            machine::end_any_monitor();
        }
        _ => {
            // The 'R' went out from the entry code.
            console::print(b"eeve built-in guest\n");
            #[cfg(drivers)]
            if drive::run(boot) {
                return;
            }
            run_spoken(boot, options);
        }
    }
}

/// The modes that begin with the banner.
fn run_spoken(boot: &Boot, options: &Options) {
    match options.mode {
        Mode::Report => report::run(boot),
        Mode::Echo => interactive::echo(boot),
        Mode::Clock => interactive::clock(boot),
        Mode::Steady => steady::run(boot),
        Mode::CpuLoop => cpus::busy(boot, options.milliseconds),
        Mode::Unknown => console::line().text("error: unknown mode").end(),
        other => misbehave::run(boot, other, options),
    }
}

/// Where ring 0 sends a processor that faulted: says so and powers off.
#[unsafe(no_mangle)]
extern "C" fn ring3_fault() -> ! {
    let fault = ring0::last_fault();
    console::line()
        .text("fault: vector ")
        .decimal(fault.vector)
        .text(" error ")
        .hex(fault.error_code)
        .text(" at ")
        .hex(fault.rip)
        .text(" address ")
        .hex(fault.cr2)
        .end();
    machine::power_off()
}

/// A broken invariant of this program. The line is enough to find it.
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let line = info.location().map_or(0, core::panic::Location::line);
    console::line()
        .text("panic: source line ")
        .decimal(u64::from(line))
        .end();
    machine::power_off()
}
