//! The tables as firmware takes them over (QEMU, hw/acpi/bios-linker-loader.c): two
//! files, and a script that says where firmware allocates them, which addresses in them it completes, and of what
//! it makes the checksums.
//!
//! The first file is the RSDP, which belongs where a guest looks for it, the second all other tables. Addresses in
//! them are offsets into the second file, until firmware adds where that is.

use zerocopy::IntoBytes;

use super::{ALIGNMENT, AcpiConfig, Area, Rsdp, rsdp};

/// The files' names, and the script's.
pub const RSDP: &str = "etc/acpi/rsdp";
/// The tables.
pub const TABLES: &str = "etc/acpi/tables";
/// What is done with both.
pub const SCRIPT: &str = "etc/table-loader";

/// Bytes of a command of the script, and of a file's name in it.
const COMMAND_BYTES: usize = 128;
const NAME_BYTES: usize = 56;

const ALLOCATE: u32 = 1;
const ADD_POINTER: u32 = 2;
const ADD_CHECKSUM: u32 = 3;

/// Zones of memory: any below 4 GiB; that in which a guest looks for the RSDP.
const ZONE_HIGH: u8 = 1;
const ZONE_BIOS: u8 = 2;

/// Where the checksum is in a table's header.
const TABLE_CHECKSUM: usize = 9;
/// Where the RSDP's checksums are, of how many bytes, and where its address of the XSDT is.
const RSDP_CHECKSUMS: [(usize, usize); 2] = [(8, 20), (32, 36)];
const RSDP_XSDT: usize = 24;
const _: () = assert!(size_of::<Rsdp>() == 36 && core::mem::offset_of!(Rsdp, xsdt) == RSDP_XSDT);

/// The files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// [`RSDP`].
    pub rsdp: Vec<u8>,
    /// [`TABLES`].
    pub tables: Vec<u8>,
    /// [`SCRIPT`].
    pub script: Vec<u8>,
}

/// Makes the files. Their lengths depend on `config` but for where things are in it. A generation id is left out.
#[must_use]
pub fn files(config: &AcpiConfig) -> Files {
    let config = AcpiConfig {
        generation_id: None,
        ..config.clone()
    };
    let mut area = Area {
        base: 0,
        bytes: Vec::new(),
        tables: Vec::new(),
        pointers: Vec::new(),
    };
    let xsdt = area.fill(&config);
    let mut script = Script::default();
    script.allocate(RSDP, 16, ZONE_BIOS);
    script.allocate(TABLES, ALIGNMENT, ZONE_HIGH);
    for (place, len) in &area.pointers {
        script.add_pointer(TABLES, *place, *len);
    }
    for table in &area.tables {
        let checksum = table.start + TABLE_CHECKSUM;
        // Firmware makes the checksum of what is there, which must have none yet.
        clear(&mut area.bytes, checksum);
        script.add_checksum(TABLES, checksum, table.start, table.len());
    }
    let mut root = rsdp(xsdt).as_bytes().to_vec();
    script.add_pointer(RSDP, RSDP_XSDT, 8);
    for (checksum, len) in RSDP_CHECKSUMS {
        clear(&mut root, checksum);
        script.add_checksum(RSDP, checksum, 0, len);
    }
    Files {
        rsdp: root,
        tables: area.bytes,
        script: script.0,
    }
}

fn clear(bytes: &mut [u8], place: usize) {
    if let Some(byte) = bytes.get_mut(place) {
        *byte = 0;
    }
}

/// The commands so far.
#[derive(Default)]
struct Script(Vec<u8>);

impl Script {
    /// Has firmware read `file` into memory of `zone`.
    fn allocate(&mut self, file: &str, alignment: usize, zone: u8) {
        let fields = [&name(file)[..], &number(alignment), &[zone]];
        self.command(ALLOCATE, &fields);
    }

    /// Has the address of the tables added to the number at `place` of `file`.
    fn add_pointer(&mut self, file: &str, place: usize, len: u8) {
        let fields = [&name(file)[..], &name(TABLES), &number(place), &[len]];
        self.command(ADD_POINTER, &fields);
    }

    /// Has the byte at `place` of `file` make the sum of `len` bytes from `start` on zero.
    fn add_checksum(&mut self, file: &str, place: usize, start: usize, len: usize) {
        let fields = [
            &name(file)[..],
            &number(place),
            &number(start),
            &number(len),
        ];
        self.command(ADD_CHECKSUM, &fields);
    }

    fn command(&mut self, number: u32, fields: &[&[u8]]) {
        let end = self.0.len() + COMMAND_BYTES;
        self.0.extend_from_slice(&number.to_le_bytes());
        for field in fields {
            self.0.extend_from_slice(field);
        }
        self.0.resize(end, 0);
    }
}

fn name(file: &str) -> [u8; NAME_BYTES] {
    let mut name = [0; NAME_BYTES];
    for (target, byte) in name.iter_mut().zip(file.bytes()) {
        *target = byte;
    }
    name
}

/// The tables are far shorter than 4 GiB.
fn number(value: usize) -> [u8; 4] {
    u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes()
}
