//! The FADT (5.2.9): where the fixed hardware is.

use acpi_tables::fadt::{FADT, FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};

use super::{OEM_ID, OEM_REVISION, OEM_TABLE_ID};
use crate::arch::x86_64::layout;

/// `IAPC_BOOT_ARCH` (table 5.11): there are devices on the ISA bus, namely a serial port.
const LEGACY_DEVICES: u16 = 1 << 0;
/// There is no VGA to probe for.
const VGA_NOT_PRESENT: u16 = 1 << 2;
/// ASPM is not to be touched. The bits that are clear say: MSI works, there is an RTC; and there is
/// no 8042, because what is at its ports only resets the machine, and probing it takes time.
const NO_ASPM: u16 = 1 << 4;

/// Beyond these, in microseconds, the states C2 and C3 do not exist.
const NO_C2_LATENCY: u16 = 101;
const NO_C3_LATENCY: u16 = 1001;

/// CMOS byte that holds the century.
const RTC_CENTURY: u8 = 0x32;

/// Builds the table; `facs` and `dsdt` are guest-physical addresses below 4 GiB.
pub(super) fn build(facs: u64, dsdt: u64) -> FADT {
    let mut fadt = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .dsdt_64(dsdt)
        .firmware_ctrl_64(facs)
        .preferred_pm_profile(PmProfile::EnterpriseServer)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        // A power button of the fixed hardware is said by a clear bit; a sleep button there is none.
        .flag(Flags::SlpButton)
        .flag(Flags::FixRtc)
        .flag(Flags::TmrValExt)
        .flag(Flags::ResetRegSup)
        .flag(Flags::Headless);
    // Both forms of the two addresses, as old guests look only at the first.
    fadt.dsdt = low(dsdt).into();
    fadt.firmware_ctrl = low(facs).into();
    fadt.x_firmware_ctrl = 0.into();

    fadt.sci_int = u16::from(layout::SCI_GSI).into();
    fadt.pm1a_evt_blk = u32::from(layout::PM1A_EVENT.start).into();
    fadt.pm1_evt_len = length(&layout::PM1A_EVENT);
    fadt.pm1a_cnt_blk = u32::from(layout::PM1A_CONTROL.start).into();
    fadt.pm1_cnt_len = length(&layout::PM1A_CONTROL);
    fadt.pm_tmr_blk = u32::from(layout::PM_TIMER.start).into();
    fadt.pm_tmr_len = length(&layout::PM_TIMER);
    fadt.x_pm1a_evt_blk = port(layout::PM1A_EVENT.start, 32, AccessSize::WordAccess);
    fadt.x_pm1a_cnt_blk = port(layout::PM1A_CONTROL.start, 16, AccessSize::WordAccess);
    fadt.x_pm_tmr_blk = port(layout::PM_TIMER.start, 32, AccessSize::DwordAccess);
    fadt.p_lvl2_lat = NO_C2_LATENCY.into();
    fadt.p_lvl3_lat = NO_C3_LATENCY.into();
    fadt.century = RTC_CENTURY;
    fadt.iapc_boot_arch = (LEGACY_DEVICES | VGA_NOT_PRESENT | NO_ASPM).into();
    fadt.reset_reg = port(layout::RESET_PORT, 8, AccessSize::ByteAccess);
    fadt.reset_value = layout::RESET_VALUE;
    fadt.hypervisor_vendor_identity = u64::from_le_bytes(*b"REEVE\0\0\0").into();
    fadt.finalize()
}

fn port(address: u16, width: u8, access: AccessSize) -> GAS {
    GAS::new(AddressSpace::SystemIo, width, 0, access, u64::from(address))
}

fn length(ports: &std::ops::Range<u16>) -> u8 {
    u8::try_from(ports.end - ports.start).unwrap_or(u8::MAX)
}

/// The tables lie below 1 MiB.
fn low(address: u64) -> u32 {
    u32::try_from(address).unwrap_or(0)
}
