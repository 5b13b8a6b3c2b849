//! The ACPI tables of the machine: RSDP, FACS, DSDT, FADT, MADT, XSDT, in this order from the start
//! of the area that a guest scans for the RSDP.
//!
//! Written once, on the thread that builds the machine, as one piece. The machine has ACPI's fixed
//! hardware (PM1a, PM timer, a fixed power button) and is in ACPI mode from the start: there is no
//! SMI command port. ACPI 6.5; section numbers in this module are its.

mod dsdt;
mod fadt;
mod madt;
#[cfg(test)]
mod tests;

use acpi_tables::Aml;
use acpi_tables::facs::FACS;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use super::layout;
use crate::memory::GuestMemory;

const OEM_ID: [u8; 6] = *b"REEVE ";
const OEM_TABLE_ID: [u8; 8] = *b"REEVE1.0";
const OEM_REVISION: u32 = 1;

/// The FACS wants 64, the others 16 are usual.
const ALIGNMENT: usize = 64;

/// What the tables depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcpiConfig {
    /// vCPUs, all present; their APIC ids are 0 to `vcpus - 1`.
    pub vcpus: u32,
    /// There are PICs and a PIT (in-kernel interrupt controller).
    pub legacy_pic: bool,
}

/// Why the tables could not be written.
#[derive(Debug, thiserror::Error)]
pub enum AcpiError {
    /// More vCPUs than there is room for.
    #[error("acpi tables need {needed} bytes, there is room for {available}")]
    TooLarge {
        /// Their size in bytes.
        needed: usize,
        /// The size of the area in bytes.
        available: usize,
    },
    /// The area is no guest memory (a bug of the layout).
    #[error("acpi tables could not be written to guest memory")]
    Write(#[source] GuestMemoryError),
}

/// Writes the tables into guest memory; the RSDP is at the start of [`layout::ACPI`].
///
/// # Errors
/// See [`AcpiError`].
pub fn write(memory: &GuestMemory, config: AcpiConfig) -> Result<(), AcpiError> {
    let tables = build(config);
    let available = usize::try_from(layout::ACPI.end - layout::ACPI.start).unwrap_or(0);
    if tables.len() > available {
        return Err(AcpiError::TooLarge {
            needed: tables.len(),
            available,
        });
    }
    memory
        .map_ref()
        .write_slice(&tables, GuestAddress(layout::ACPI.start))
        .map_err(AcpiError::Write)
}

/// All tables as they lie in memory.
fn build(config: AcpiConfig) -> Vec<u8> {
    // The RSDP is first, but made last: it has the address of the XSDT.
    let mut area = Area {
        bytes: vec![0; Rsdp::len()],
    };
    let facs = area.place(&to_bytes(&FACS::new()));
    let dsdt = area.place(&table(*b"DSDT", 2, &dsdt::body(config.vcpus)));
    let fadt = area.place(&to_bytes(&fadt::build(facs, dsdt)));
    let madt = area.place(&table(*b"APIC", 6, &madt::body(config)));

    let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    xsdt.add_entry(fadt);
    xsdt.add_entry(madt);
    let xsdt = area.place(&to_bytes(&xsdt));

    let rsdp = to_bytes(&Rsdp::new(OEM_ID, xsdt));
    for (target, byte) in area.bytes.iter_mut().zip(rsdp) {
        *target = byte;
    }
    area.bytes
}

/// The tables laid out so far.
struct Area {
    bytes: Vec<u8>,
}

impl Area {
    /// Appends a table and returns its guest-physical address.
    fn place(&mut self, table: &[u8]) -> u64 {
        let offset = self.bytes.len().next_multiple_of(ALIGNMENT);
        self.bytes.resize(offset, 0);
        self.bytes.extend_from_slice(table);
        layout::ACPI.start + offset as u64
    }
}

/// A table of a header and a body.
fn table(signature: [u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    const HEADER: u32 = 36;
    let mut table = Sdt::new(
        signature,
        HEADER,
        revision,
        OEM_ID,
        OEM_TABLE_ID,
        OEM_REVISION,
    );
    table.append_slice(body);
    table.as_slice().to_vec()
}

fn to_bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}
