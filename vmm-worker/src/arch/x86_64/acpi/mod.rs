//! The ACPI tables of the machine: RSDP, FACS, DSDT, FADT, MADT, MCFG, XSDT, in this order from the
//! start of the area that a guest scans for the RSDP.
//!
//! Written once, on the thread that builds the machine, as one piece. The machine has ACPI's fixed
//! hardware (PM1a, PM timer, a fixed power button), general-purpose events for hotplug, and is in
//! ACPI mode from the start: there is no SMI command port. ACPI 6.5; section numbers in this module
//! are its.
//!
//! The encoders are our own: the library for it needs a newer compiler than we support.

mod aml;
mod dsdt;
mod fadt;
pub mod loader;
mod madt;
mod mcfg;
#[cfg(test)]
mod tests;

use std::ops::Range;

use vm_memory::{Bytes, GuestAddress, GuestMemoryError};
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{Immutable, IntoBytes};

use super::layout;
use crate::memory::GuestMemory;

const OEM_ID: [u8; 6] = *b"REEVE ";
const OEM_TABLE_ID: [u8; 8] = *b"REEVE1.0";
const OEM_REVISION: u32 = 1;
const CREATOR_ID: [u8; 4] = *b"REEV";
const CREATOR_REVISION: u32 = 1;

/// The FACS wants 64, the others 16 are usual.
const ALIGNMENT: usize = 64;

/// The generation id is in the gap that the alignment leaves behind the RSDP.
const GENERATION_ID_OFFSET: usize = 0x28;
const _: () = {
    let id = layout::GENERATION_ID;
    let offset = GENERATION_ID_OFFSET;
    assert!(id.start == layout::ACPI.start + offset as u64 && id.end - id.start == 16);
    assert!(offset % 8 == 0 && size_of::<Rsdp>() <= offset && offset + 16 <= ALIGNMENT);
};

/// What the tables depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcpiConfig {
    /// vCPUs that a guest starts with; their APIC ids are 0 to `vcpus - 1`. Others that are there
    /// already, as a guest that starts again may find, it sees by the hotplug registers.
    pub vcpus: u32,
    /// vCPUs that there may ever be; their APIC ids are 0 to `max_vcpus - 1`. Fewer than `vcpus`
    /// mean as many.
    pub max_vcpus: u32,
    /// There are PICs and a PIT (in-kernel interrupt controller).
    pub legacy_pic: bool,
    /// Where PCI functions may have BARs of 32 bits; not where configuration space is.
    pub window_32: Range<u64>,
    /// Where PCI Express' configuration space is in memory: what of it is reserved. The first bus is all there is.
    pub ecam: Range<u64>,
    /// Where PCI functions may have BARs of 64 bits
    /// ([`pci_window_64`](layout::pci_window_64)).
    pub pci_window_64: Option<Range<u64>>,
    /// The generation id that the guest finds, as the bytes that lie in memory, if it finds one.
    pub generation_id: Option<[u8; 16]>,
    /// There is a port by which the guest says that it panicked.
    pub panic_port: bool,
}

impl AcpiConfig {
    fn possible_vcpus(&self) -> u32 {
        self.max_vcpus.max(self.vcpus)
    }
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
pub fn write(memory: &GuestMemory, config: &AcpiConfig) -> Result<(), AcpiError> {
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
fn build(config: &AcpiConfig) -> Vec<u8> {
    // The RSDP is first, but made last: it has the address of the XSDT.
    let mut area = Area {
        base: layout::ACPI.start,
        bytes: vec![0; size_of::<Rsdp>()],
        tables: Vec::new(),
        pointers: Vec::new(),
    };
    let xsdt = area.fill(config);
    for (target, byte) in area.bytes.iter_mut().zip(rsdp(xsdt).as_bytes()) {
        *target = *byte;
    }
    if let Some(id) = &config.generation_id {
        let behind = area.bytes.iter_mut().skip(GENERATION_ID_OFFSET);
        for (target, byte) in behind.zip(id) {
            *target = *byte;
        }
    }
    area.bytes
}

/// Writes another generation id where the tables say that it is. The guest is not told.
///
/// # Errors
/// The place is no guest memory.
pub fn write_generation_id(memory: &GuestMemory, id: &[u8; 16]) -> Result<(), AcpiError> {
    memory
        .map_ref()
        .write_slice(id, GuestAddress(layout::GENERATION_ID.start))
        .map_err(AcpiError::Write)
}

/// The RSDP (5.2.5.3): what a guest looks for.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Rsdp {
    signature: [u8; 8],
    checksum: u8,
    oem_id: [u8; 6],
    revision: u8,
    rsdt: U32,
    length: U32,
    xsdt: U64,
    extended_checksum: u8,
    reserved: [u8; 3],
}

fn rsdp(xsdt: u64) -> Rsdp {
    /// Bytes that the first checksum covers: those of ACPI 1.0.
    const FIRST: usize = 20;
    let mut rsdp = Rsdp {
        signature: *b"RSD PTR ",
        checksum: 0,
        oem_id: OEM_ID,
        revision: 2,
        rsdt: 0.into(),
        length: 36.into(),
        xsdt: xsdt.into(),
        extended_checksum: 0,
        reserved: [0; 3],
    };
    rsdp.checksum = checksum(rsdp.as_bytes().iter().take(FIRST));
    rsdp.extended_checksum = checksum(rsdp.as_bytes().iter());
    rsdp
}

/// The FACS (5.2.10), which has no common header: no waking vector, and a global lock that nobody
/// shares.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Facs {
    signature: [u8; 4],
    length: U32,
    hardware_signature: U32,
    waking_vector: U32,
    global_lock: U32,
    flags: U32,
    x_waking_vector: U64,
    version: u8,
    reserved: [u8; 31],
}

fn facs() -> Facs {
    Facs {
        signature: *b"FACS",
        length: 64.into(),
        hardware_signature: 0.into(),
        waking_vector: 0.into(),
        global_lock: 0.into(),
        flags: 0.into(),
        x_waking_vector: 0.into(),
        version: 1,
        reserved: [0; 31],
    }
}

/// The tables laid out so far.
struct Area {
    /// The guest-physical address of its first byte.
    base: u64,
    bytes: Vec<u8>,
    /// Where those are that have a header, and a checksum in it.
    tables: Vec<Range<usize>>,
    /// Where an address is, and how many bytes it has.
    pointers: Vec<(usize, u8)>,
}

impl Area {
    /// Appends all tables but the RSDP; gives the address of the XSDT.
    fn fill(&mut self, config: &AcpiConfig) -> u64 {
        let facs = self.place(facs().as_bytes());
        let dsdt = self.place_table(*b"DSDT", 2, &dsdt::body(config), &[]);
        let body = fadt::body(facs, dsdt);
        let fadt = self.place_table(*b"FACP", fadt::REVISION, &body, &fadt::POINTERS);
        let madt = self.place_table(*b"APIC", 6, &madt::body(config), &[]);
        let body = mcfg::body(config.ecam.start);
        let mcfg = self.place_table(*b"MCFG", mcfg::REVISION, &body, &[]);
        let entries = [fadt, madt, mcfg].map(U64::new);
        let pointers = [0, 8, 16].map(|place| (size_of::<Header>() + place, 8));
        self.place_table(*b"XSDT", 1, entries.as_bytes(), &pointers)
    }

    /// Appends a table of a header and a body, which has addresses at `pointers` from the header on.
    fn place_table(
        &mut self,
        signature: [u8; 4],
        revision: u8,
        body: &[u8],
        pointers: &[(usize, u8)],
    ) -> u64 {
        let address = self.place(&table(signature, revision, body));
        let end = self.bytes.len();
        let start = end - (size_of::<Header>() + body.len());
        self.tables.push(start..end);
        let places = pointers.iter().map(|(place, len)| (start + place, *len));
        self.pointers.extend(places);
        address
    }

    /// Appends a table and returns its guest-physical address.
    fn place(&mut self, table: &[u8]) -> u64 {
        let offset = self.bytes.len().next_multiple_of(ALIGNMENT);
        self.bytes.resize(offset, 0);
        self.bytes.extend_from_slice(table);
        self.base + offset as u64
    }
}

/// The header of a table (5.2.6).
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Header {
    signature: [u8; 4],
    length: U32,
    revision: u8,
    checksum: u8,
    oem_id: [u8; 6],
    oem_table_id: [u8; 8],
    oem_revision: U32,
    creator_id: [u8; 4],
    creator_revision: U32,
}

/// A table of a header and a body, with its checksum.
fn table(signature: [u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(size_of::<Header>() + body.len()).unwrap_or(u32::MAX);
    let mut header = Header {
        signature,
        length: length.into(),
        revision,
        checksum: 0,
        oem_id: OEM_ID,
        oem_table_id: OEM_TABLE_ID,
        oem_revision: OEM_REVISION.into(),
        creator_id: CREATOR_ID,
        creator_revision: CREATOR_REVISION.into(),
    };
    header.checksum = checksum(header.as_bytes().iter().chain(body));
    [header.as_bytes(), body].concat()
}

/// What makes the sum of all bytes zero; where it goes there is zero so far.
fn checksum<'a>(bytes: impl Iterator<Item = &'a u8>) -> u8 {
    bytes.fold(0_u8, |sum, byte| sum.wrapping_sub(*byte))
}
