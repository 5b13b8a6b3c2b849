//! Local APIC and IOAPIC, by their memory-mapped registers (SDM vol 3, chapter 11).
//!
//! Used on the boot processor, from ring 3; the end of an interrupt is signalled by its stub.

use crate::acpi::Tables;
#[cfg(drivers)]
use crate::machine::read_u32;
use crate::machine::write_device;
use crate::ring0::Interrupt;
#[cfg(drivers)]
use crate::time;

const LOCAL: u64 = 0xfee0_0000;
const SPURIOUS: u64 = LOCAL + 0xf0;
const COMMAND: u64 = LOCAL + 0x300;
const LVT_TIMER: u64 = LOCAL + 0x320;
const LVT_LINT0: u64 = LOCAL + 0x350;
const INITIAL_COUNT: u64 = LOCAL + 0x380;
#[cfg(drivers)]
const CURRENT_COUNT: u64 = LOCAL + 0x390;
const DIVIDE: u64 = LOCAL + 0x3e0;

/// The timer's ticks in a millisecond: KVM's local APIC counts nanoseconds.
pub const TICKS_PER_MS: u32 = 1_000_000;

/// The stub of this vector does not signal an end (`gates.s`).
const SPURIOUS_VECTOR: u32 = 0x23;
const MASKED: u32 = 1 << 16;
const PERIODIC: u32 = 1 << 17;

/// Turns the local APIC on, with its timer stopped and the old interrupt controller shut out.
pub fn enable() {
    write_device(LVT_LINT0, MASKED); // where there is one, it would send unprogrammed vectors
    write_device(SPURIOUS, 0x100 | SPURIOUS_VECTOR);
    write_device(DIVIDE, 0b1011); // by one
    write_device(LVT_TIMER, MASKED);
}

/// One timer interrupt after `ticks`.
pub fn start_one_shot(ticks: u32) {
    write_device(LVT_TIMER, u32::from(Interrupt::Timer.vector()));
    write_device(INITIAL_COUNT, ticks);
}

/// A timer interrupt every `ticks`.
pub fn start_periodic(ticks: u32) {
    write_device(LVT_TIMER, u32::from(Interrupt::Timer.vector()) | PERIODIC);
    write_device(INITIAL_COUNT, ticks);
}

/// INIT, then start-up at `page` (a page number below 1 MiB), to all processors but this one.
///
/// By shorthand, so that processors beyond the 8-bit identifiers are reached too. The pauses the
/// manual wants between the two are for hardware; KVM takes them in order whenever they come.
pub fn start_others(page: u8) {
    const ALL_BUT_SELF: u32 = 0b11 << 18;
    const ASSERT: u32 = 1 << 14;
    const INIT: u32 = 0b101 << 8;
    const START_UP: u32 = 0b110 << 8;
    write_device(COMMAND, ALL_BUT_SELF | ASSERT | INIT);
    write_device(COMMAND, ALL_BUT_SELF | ASSERT | START_UP | u32::from(page));
}

/// Sends global interrupt `gsi` to the boot processor, edge-triggered and active high.
pub fn route_edge(tables: &Tables, gsi: u32, interrupt: Interrupt) {
    route(tables, gsi, u32::from(interrupt.vector()));
}

/// Sends the system control interrupt to the boot processor, as ACPI describes its line.
pub fn route_system_control(tables: &Tables) {
    let mut entry = u32::from(Interrupt::SystemControl.vector());
    // Anything but an explicit "active high" or "edge" means the default of this interrupt.
    if tables.sci_flags & 0b11 != 0b01 {
        entry |= 1 << 13;
    }
    if tables.sci_flags >> 2 & 0b11 != 0b01 {
        entry |= 1 << 15;
    }
    route(tables, tables.sci_gsi, entry);
}

/// Writes a redirection entry: high half (destination, APIC 0) first, unmasking half last.
fn route(tables: &Tables, gsi: u32, low: u32) {
    let select = tables.io_apic;
    let window = tables.io_apic + 0x10;
    write_device(select, 0x11 + 2 * gsi);
    write_device(window, 0);
    write_device(select, 0x10 + 2 * gsi);
    write_device(window, low);
}

/// The time-stamp counter's frequency in kHz by the local APIC's timer, which must not be in use.
#[cfg(drivers)]
pub fn measure_tsc_khz() -> Option<u64> {
    const MILLISECONDS: u32 = 5;
    write_device(LVT_TIMER, MASKED);
    write_device(INITIAL_COUNT, u32::MAX);
    let begin = (read_u32(CURRENT_COUNT), time::cycles());
    let mut end = begin;
    let passed = time::wait_until(|| {
        end = (read_u32(CURRENT_COUNT), time::cycles());
        begin.0.wrapping_sub(end.0) >= MILLISECONDS * TICKS_PER_MS
    });
    write_device(INITIAL_COUNT, 0);
    let ticks = u64::from(begin.0.wrapping_sub(end.0)).max(1);
    passed.then(|| end.1.wrapping_sub(begin.1) * u64::from(TICKS_PER_MS) / ticks)
}
