//! The ACPI tables this guest needs: RSDP, XSDT, FADT, MADT (ACPI 6.5, chapter 5.2).
//!
//! Every table is checked by length and checksum before it is used. Walks are bounded by the
//! table's own length, which is bounded by [`MAX_TABLE`].

use crate::boot::Boot;
use crate::{console, machine};

/// Far above what the tables of the largest machine need.
const MAX_TABLE: u64 = 64 << 10;
/// Signature, length and the rest that every table begins with.
const HEADER: u64 = 36;

/// What was found.
pub struct Tables {
    /// Enabled processors in the MADT.
    pub processors: u32,
    /// Base address of the first IOAPIC.
    pub io_apic: u64,
    /// The system control interrupt's global number.
    pub sci_gsi: u32,
    /// MADT flags of that interrupt: polarity in bits 0-1, trigger mode in bits 2-3.
    pub sci_flags: u16,
}

struct Table {
    address: u64,
    length: u64,
}

/// Finds and reads the tables; takes the power ports from the FADT. Says what is wrong, if so.
pub fn read(boot: &Boot) -> Option<Tables> {
    let tables = find(boot);
    if let Err(problem) = &tables {
        console::line().text("acpi: FAILED, ").text(problem).end();
    }
    tables.ok()
}

/// The XSDT, by way of a sound RSDP.
fn root(boot: &Boot) -> Result<Table, &'static str> {
    if boot.rsdp == 0 {
        return Err("no RSDP");
    }
    // Twenty bytes of it have one checksum, all thirty-six another.
    if machine::read_u64(boot.rsdp) != u64::from_le_bytes(*b"RSD PTR ") {
        return Err("bad RSDP");
    }
    if sum(boot.rsdp, 20) != 0 || sum(boot.rsdp, 36) != 0 {
        return Err("bad RSDP checksum");
    }
    table(machine::read_u64(boot.rsdp + 24), b"XSDT")
}

/// The addresses of the tables that the XSDT lists.
fn listed(xsdt: &Table) -> impl Iterator<Item = u64> + use<> {
    (xsdt.address + HEADER..xsdt.address + xsdt.length)
        .step_by(8)
        .map(machine::read_u64)
}

fn find(boot: &Boot) -> Result<Tables, &'static str> {
    let xsdt = root(boot)?;
    let mut tables = Tables {
        processors: 0,
        io_apic: 0xfec0_0000,
        sci_gsi: 9,
        // Active low and level-triggered, unless an override says otherwise.
        sci_flags: 0b1111,
    };
    let (mut madt, mut fadt) = (None, None);
    for address in listed(&xsdt) {
        match &machine::read_u32(address).to_le_bytes() {
            b"APIC" => madt = Some(table(address, b"APIC")?),
            b"FACP" => fadt = Some(table(address, b"FACP")?),
            _ => {}
        }
    }
    read_fadt(&fadt.ok_or("no FADT")?, &mut tables);
    read_madt(&madt.ok_or("no MADT")?, &mut tables);
    Ok(tables)
}

fn table(address: u64, signature: &[u8; 4]) -> Result<Table, &'static str> {
    if machine::read_u32(address) != u32::from_le_bytes(*signature) {
        return Err("bad table signature");
    }
    let length = u64::from(machine::read_u32(address + 4));
    if !(HEADER..=MAX_TABLE).contains(&length) {
        return Err("bad table length");
    }
    if sum(address, length) != 0 {
        return Err("bad table checksum");
    }
    Ok(Table { address, length })
}

fn sum(address: u64, length: u64) -> u8 {
    (address..address + length).fold(0, |sum, byte| machine::read_u8(byte).wrapping_add(sum))
}

/// FADT: interrupt, power and reset ports (ACPI 6.5, 5.2.9).
fn read_fadt(fadt: &Table, tables: &mut Tables) {
    const RESET_REGISTER_SUPPORTED: u32 = 1 << 10;
    const SYSTEM_IO: u8 = 1;
    if fadt.length < 129 {
        return;
    }
    let at = |offset| fadt.address + offset;
    tables.sci_gsi = u32::from(machine::read_u16(at(46)));
    let reset = (machine::read_u32(at(112)) & RESET_REGISTER_SUPPORTED != 0
        && machine::read_u8(at(116)) == SYSTEM_IO)
        .then(|| (machine::read_u64(at(120)) as u16, machine::read_u8(at(128))));
    let pm1_control = machine::read_u32(at(64)) as u16;
    if pm1_control != 0 {
        machine::set_power_ports(pm1_control, reset);
    }
}

/// MADT: processors, the IOAPIC, the override of the control interrupt (ACPI 6.5, 5.2.12).
fn read_madt(madt: &Table, tables: &mut Tables) {
    const LOCAL_APIC: u8 = 0;
    const IO_APIC: u8 = 1;
    const INTERRUPT_OVERRIDE: u8 = 2;
    const LOCAL_X2APIC: u8 = 9;
    let end = madt.address + madt.length;
    let mut entry = madt.address + HEADER + 8;
    while entry + 2 <= end {
        let length = u64::from(machine::read_u8(entry + 1));
        if length < 2 || entry + length > end {
            return;
        }
        match machine::read_u8(entry) {
            LOCAL_APIC => tables.processors += machine::read_u32(entry + 4) & 1,
            LOCAL_X2APIC => tables.processors += machine::read_u32(entry + 8) & 1,
            IO_APIC => tables.io_apic = u64::from(machine::read_u32(entry + 4)),
            INTERRUPT_OVERRIDE if u32::from(machine::read_u8(entry + 3)) == tables.sci_gsi => {
                tables.sci_gsi = machine::read_u32(entry + 4);
                tables.sci_flags = machine::read_u16(entry + 8);
            }
            _ => {}
        }
        entry += length;
    }
}

/// Where the generation id is: what `ADDR` names in the DSDT, a package of the lower and the upper half of
/// an address (Microsoft, Virtual Machine Generation ID). Its lower half is looked for as a number of 32 bits.
#[cfg(drivers)]
pub fn generation_id(boot: &Boot) -> Option<u64> {
    /// A package of two elements, the first of them a number of 32 bits.
    const PACKAGE: [u8; 2] = [0x12, 8];
    const NUMBER: [u8; 2] = [2, 0x0c];
    let xsdt = root(boot).ok()?;
    let fadt = listed(&xsdt)
        .find(|&address| machine::read_u32(address) == u32::from_le_bytes(*b"FACP"))?;
    let dsdt = table(machine::read_u64(table(fadt, b"FACP").ok()?.address + 140), b"DSDT").ok()?;
    let found = (dsdt.address..dsdt.address + dsdt.length - 12).find(|&at| {
        machine::read_u32(at) == u32::from_le_bytes(*b"ADDR")
            && machine::read_u16(at + 4) == u16::from_le_bytes(PACKAGE)
            && machine::read_u16(at + 6) == u16::from_le_bytes(NUMBER)
    })?;
    Some(machine::read_u32(found + 8).into())
}

/// Where the configuration space of bus 0 is, by the MCFG (PCI Firmware 3.3, 4.1.2).
#[cfg(drivers)]
pub fn configuration_space(boot: &Boot) -> Option<u64> {
    let xsdt = root(boot).ok()?;
    let address = listed(&xsdt)
        .find(|&address| machine::read_u32(address) == u32::from_le_bytes(*b"MCFG"))?;
    let mcfg = table(address, b"MCFG").ok()?;
    let first = mcfg.address + HEADER + 8;
    (mcfg.length >= HEADER + 24).then(|| machine::read_u64(first))
}
