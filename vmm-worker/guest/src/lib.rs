//! Reeve's built-in guest: a small kernel of our own, for machines that are given none.
//!
//! `reeve run` without a kernel boots it; the benchmarks measure with it; the tests and the attack
//! tests misbehave with it. It is built by this package's `build.rs` from the freestanding
//! sources in `kernel/`, with nothing but the compiler that builds the workspace, and is
//! embedded twice: as [`IMAGE`], and as [`DRIVERS_IMAGE`] with drivers for PCI and virtio.
//!
//! # Shape
//!
//! ```text
//! PVH loader ──► entry.s   ring 0, 32 bit: first byte on COM1; mode=bench and mode=hold end here
//!                   │      three page-table stores, long mode, TSS with an open I/O bitmap
//!                   ▼ iretq
//!                main.rs   ring 3: command line, report, devices, misbehaviour
//!                   │ ▲      drive/ (DRIVERS_IMAGE): disks, networks, attacks on devices
//!                   │ │
//!      ud2, faults  ▼ │ iretq
//!                gates.s   ring 0: interrupt stubs that count; services (print, sleep, jump)
//!                ap.s      ring 0: application processors, real mode to ring 3
//! ```
//!
//! There are KVMs that run ring 3 natively and emulate ring 0, at about a microsecond an
//! instruction and without SSE, `popcnt`, `int` or `xsave`. So ring 0 is a few dozen
//! instructions of assembly and all Rust code runs in ring 3. Nothing in it depends on
//! such a KVM: it is an ordinary long-mode guest on any other.
//!
//! # What it needs from the machine
//!
//! - an ELF loader that finds the PVH note (XEN_ELFNOTE_PHYS32_ENTRY), the start info (version 1,
//!   with the memory map), command line and ACPI tables below 2 MiB or at least below 4 GiB,
//!   nothing of the loader's in 0x9000..0xa000 (the start-up page) and in 2 MiB upwards (one page
//!   for each further processor);
//! - for the drivers, nothing of the loader's in 18 MiB to 32 MiB either, which they share with
//!   devices, and a PCI bus whose configuration space the MCFG names;
//! - image and zeroed memory (`p_memsz`) placed anew at every reset;
//! - COM1 at 0x3f8 that takes bytes at any rate, CMOS at 0x70, PM timer at 0x608, PM1a events at
//!   0x600, local APICs in xAPIC mode, their timer at 1 GHz; power-off and reset ports are taken
//!   from the FADT, IOAPIC base and interrupt overrides from the MADT.
//!
//! # Output
//!
//! The first byte is `R` in every mode. `bench` and `hold` print `R\n`; all others begin with
//! the line `Reeve built-in guest`. The report is `name: value` lines; a value that begins with
//! `FAILED` is a fault of the machine. Faults and panics of the guest itself are lines that begin
//! with `fault:` and `panic:`, followed by power-off.
//!
//! # Decisions
//!
//! 1. (2026-11) The first byte is sent before the command line is looked at, so that it costs
//!    three instructions and is the same for every mode.
//! 2. (2026-11) `ud2` at one address is the way into ring 0: `syscall` and `int` fail in ring 3
//!    of the restricted KVM.
//! 3. (2026-11) Text is printed by `rep outsb` in ring 0: an exit from there costs 3 us where one
//!    from ring 3 costs 15 on the restricted KVM, and the same on others.
//! 4. (2026-11) Drivers are in an image of their own: it is four times as large, each page of it costs
//!    12 us to place where memory is a memfd, and the start of the plain guest is what is measured.

/// The kernel: a static ELF64 with a PVH note, linked at 1 MiB, one loadable segment.
pub const IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/reeve-guest.elf"));

/// The same kernel with drivers for PCI and virtio, for the modes of [`mode`] that say so: four times
/// as large, so that a machine that needs none starts no later for them.
pub const DRIVERS_IMAGE: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/reeve-guest-drivers.elf"));

/// The smaller image that knows the mode `command_line` asks for.
#[must_use]
pub fn image(command_line: &str) -> &'static [u8] {
    let mode = command_line
        .split_ascii_whitespace()
        .filter_map(|word| word.strip_prefix("mode="))
        .next_back();
    if mode.is_some_and(mode::needs_drivers) {
        DRIVERS_IMAGE
    } else {
        IMAGE
    }
}

pub mod mode;

#[cfg(test)]
mod tests;
