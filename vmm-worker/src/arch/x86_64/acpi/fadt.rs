//! The FADT (5.2.9): where the fixed hardware is.

use std::ops::Range;

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromZeros, Immutable, IntoBytes, KnownLayout};

use crate::arch::x86_64::layout;

/// The revision of the table, 6.5.
pub(super) const REVISION: u8 = 6;
const MINOR_REVISION: u8 = 5;

/// Preferred power management profile: a server.
const ENTERPRISE_SERVER: u8 = 4;

/// `IAPC_BOOT_ARCH` (table 5.11): there are devices on the ISA bus, namely a serial port.
const LEGACY_DEVICES: u16 = 1 << 0;
/// There is no VGA to probe for.
const VGA_NOT_PRESENT: u16 = 1 << 2;
/// ASPM is not to be touched. The bits that are clear say: MSI works, there is an RTC; and there is
/// no 8042, because what is at its ports only resets the machine, and probing it takes time.
const NO_ASPM: u16 = 1 << 4;

/// Flags (table 5.10). A power button of the fixed hardware is said by a clear bit.
const WBINVD: u32 = 1 << 0;
const PROC_C1: u32 = 1 << 2;
/// There is no sleep button in the fixed hardware.
const NO_SLEEP_BUTTON: u32 = 1 << 5;
/// The RTC's wake-up is not in the fixed hardware.
const NO_FIXED_RTC: u32 = 1 << 6;
const TIMER_32_BITS: u32 = 1 << 8;
const RESET_REGISTER: u32 = 1 << 10;
const HEADLESS: u32 = 1 << 12;

/// Beyond these, in microseconds, the states C2 and C3 do not exist.
const NO_C2_LATENCY: u16 = 101;
const NO_C3_LATENCY: u16 = 1001;

/// CMOS byte that holds the century.
const RTC_CENTURY: u8 = 0x32;

/// A generic address (5.2.3.2).
#[derive(FromZeros, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct GenericAddress {
    space: u8,
    bits: u8,
    offset: u8,
    access: u8,
    address: U64,
}

/// The widths of an access to a register.
const BYTE: u8 = 1;
const WORD: u8 = 2;
const DWORD: u8 = 3;

fn port(address: u16, bits: u8, access: u8) -> GenericAddress {
    const SYSTEM_IO: u8 = 1;
    GenericAddress {
        space: SYSTEM_IO,
        bits,
        offset: 0,
        access,
        address: u64::from(address).into(),
    }
}

/// The table behind its header (table 5.9).
#[derive(FromZeros, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Fadt {
    firmware_ctrl: U32,
    dsdt: U32,
    reserved: u8,
    preferred_pm_profile: u8,
    sci_int: U16,
    smi_cmd: U32,
    acpi_enable: u8,
    acpi_disable: u8,
    s4bios_req: u8,
    pstate_cnt: u8,
    pm1a_evt_blk: U32,
    pm1b_evt_blk: U32,
    pm1a_cnt_blk: U32,
    pm1b_cnt_blk: U32,
    pm2_cnt_blk: U32,
    pm_tmr_blk: U32,
    gpe0_blk: U32,
    gpe1_blk: U32,
    pm1_evt_len: u8,
    pm1_cnt_len: u8,
    pm2_cnt_len: u8,
    pm_tmr_len: u8,
    gpe0_blk_len: u8,
    gpe1_blk_len_and_base: [u8; 2],
    cst_cnt: u8,
    p_lvl2_lat: U16,
    p_lvl3_lat: U16,
    flush: [U16; 2],
    duty_and_alarms: [u8; 4],
    century: u8,
    iapc_boot_arch: U16,
    reserved2: u8,
    flags: U32,
    reset_reg: GenericAddress,
    reset_value: u8,
    arm_boot_arch: U16,
    minor_revision: u8,
    x_firmware_ctrl: U64,
    x_dsdt: U64,
    x_pm1a_evt_blk: GenericAddress,
    x_pm1b_evt_blk: GenericAddress,
    x_pm1a_cnt_blk: GenericAddress,
    x_pm1b_cnt_blk: GenericAddress,
    x_pm2_cnt_blk: GenericAddress,
    x_pm_tmr_blk: GenericAddress,
    x_gpe0_blk: GenericAddress,
    x_gpe1_blk: GenericAddress,
    sleep_registers: [GenericAddress; 2],
    hypervisor_vendor_identity: U64,
}

const _: () = assert!(size_of::<Fadt>() == 276 - 36);

/// Where there are addresses of other tables, from the table's header on, and of how many bytes: FIRMWARE_CTRL,
/// DSDT, X_DSDT.
pub(super) const POINTERS: [(usize, u8); 3] = [(36, 4), (40, 4), (140, 8)];
const _: () = {
    assert!(36 + core::mem::offset_of!(Fadt, dsdt) == 40);
    assert!(36 + core::mem::offset_of!(Fadt, x_dsdt) == 140);
};

/// The table without its header; `facs` and `dsdt` are guest-physical addresses below 4 GiB.
pub(super) fn body(facs: u64, dsdt: u64) -> Vec<u8> {
    let mut fadt = Fadt::new_zeroed();
    // Both forms of the DSDT's address, as old guests look only at the first.
    fadt.firmware_ctrl = low(facs).into();
    fadt.dsdt = low(dsdt).into();
    fadt.x_dsdt = dsdt.into();
    fadt.preferred_pm_profile = ENTERPRISE_SERVER;
    fadt.sci_int = u16::from(layout::SCI_GSI).into();
    fadt.pm1a_evt_blk = u32::from(layout::PM1A_EVENT.start).into();
    fadt.pm1_evt_len = length(&layout::PM1A_EVENT);
    fadt.pm1a_cnt_blk = u32::from(layout::PM1A_CONTROL.start).into();
    fadt.pm1_cnt_len = length(&layout::PM1A_CONTROL);
    fadt.pm_tmr_blk = u32::from(layout::PM_TIMER.start).into();
    fadt.pm_tmr_len = length(&layout::PM_TIMER);
    fadt.gpe0_blk = u32::from(layout::GPE0.start).into();
    fadt.gpe0_blk_len = length(&layout::GPE0);
    fadt.x_pm1a_evt_blk = port(layout::PM1A_EVENT.start, 32, WORD);
    fadt.x_pm1a_cnt_blk = port(layout::PM1A_CONTROL.start, 16, WORD);
    fadt.x_pm_tmr_blk = port(layout::PM_TIMER.start, 32, DWORD);
    fadt.x_gpe0_blk = port(layout::GPE0.start, 32, BYTE);
    fadt.p_lvl2_lat = NO_C2_LATENCY.into();
    fadt.p_lvl3_lat = NO_C3_LATENCY.into();
    fadt.century = RTC_CENTURY;
    fadt.iapc_boot_arch = (LEGACY_DEVICES | VGA_NOT_PRESENT | NO_ASPM).into();
    fadt.flags = (WBINVD
        | PROC_C1
        | NO_SLEEP_BUTTON
        | NO_FIXED_RTC
        | TIMER_32_BITS
        | RESET_REGISTER
        | HEADLESS)
        .into();
    fadt.reset_reg = port(layout::RESET_PORT, 8, BYTE);
    fadt.reset_value = layout::RESET_VALUE;
    fadt.minor_revision = MINOR_REVISION;
    fadt.hypervisor_vendor_identity = u64::from_le_bytes(*b"REEVE\0\0\0").into();
    fadt.as_bytes().to_vec()
}

fn length(ports: &Range<u16>) -> u8 {
    u8::try_from(ports.end - ports.start).unwrap_or(u8::MAX)
}

/// The tables lie below 1 MiB.
fn low(address: u64) -> u32 {
    u32::try_from(address).unwrap_or(0)
}
