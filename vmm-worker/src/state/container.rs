//! The container of records: header, checksum, and the rules that every record keeps.
//!
//! ```text
//!  "REEVEVM\0"   8 bytes                 ┐
//!  format        u32, 1                  │ sealed:
//!  checksum      u32, CRC-32 of the rest │ header
//!  machine type  text                    │
//!  build         text, for a message     │
//!  records       u32, how many           ┘
//!  each: unit text, schema text, version u32, length u32, bytes
//! ```
//! Integers are little-endian; a text is its length in one byte, then printable ASCII. The bytes come
//! from a file, or from another process: nothing is allocated by a length that they name, and a
//! container that breaks a rule is refused as a whole. The checksum is against accidents, not against
//! whoever made the bytes.

use std::collections::BTreeMap;

use reeve_devices::state::{Schema, StateError, StateReader, StateWriter};
use reeve_ipc::spec::MachineType;

/// The most bytes of one record.
pub const MAX_RECORD_BYTES: usize = 1 << 20;
/// The most bytes of a container.
pub const MAX_BYTES: usize = 64 << 20;
/// The most records: every vCPU there can be, every slot, and the rest of a machine.
pub const MAX_RECORDS: usize = 2048;
/// The most bytes of a text.
pub const MAX_TEXT_BYTES: usize = 64;

const MAGIC: [u8; 8] = *b"REEVEVM\0";
const FORMAT: u32 = 1;
/// Up to the end of the checksum.
const SEALED_FROM: usize = MAGIC.len() + 8;
/// What this build says of itself; told in messages, and decides nothing.
const BUILD: &str = concat!("reeve ", env!("CARGO_PKG_VERSION"));

/// Why a container or one of its records was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContainerError {
    /// Other bytes altogether.
    #[error("this is no saved state of a machine")]
    NotAState,
    /// A format that this build does not know.
    #[error("saved state has unknown format {0}")]
    UnknownFormat(u32),
    /// Damaged on its way.
    #[error("saved state is damaged: its checksum does not match")]
    Checksum,
    /// More than [`MAX_BYTES`].
    #[error("saved state of {0} bytes is too long")]
    TooLong(usize),
    /// It ends early, goes on too long, or says something impossible.
    #[error(transparent)]
    Malformed(#[from] StateError),
    /// A machine of another type was saved.
    #[error("a machine of type {found}, saved by {build}, is not one of type {wanted}")]
    MachineType {
        /// What was saved.
        found: String,
        /// What shall be restored.
        wanted: &'static str,
        /// Who saved it.
        build: String,
    },
    /// A record that is too long to be kept or taken.
    #[error("the record of {unit} has {length} bytes, which is too many")]
    RecordTooLong {
        /// Whose.
        unit: String,
        /// Its bytes.
        length: usize,
    },
    /// Two records of one unit.
    #[error("saved state has two records of {0}")]
    Duplicate(String),
    /// More than [`MAX_RECORDS`].
    #[error("saved state has too many records")]
    TooMany,
    /// A record that the machine needs is not there.
    #[error("saved state has no record of {0}")]
    Missing(String),
    /// The record of a unit has another layout than that unit's.
    #[error("the record of {unit} is of {found}, not of {wanted}")]
    Schema {
        /// Whose.
        unit: String,
        /// What it has.
        found: String,
        /// What it should have.
        wanted: &'static str,
    },
    /// A record that nothing of the machine wants.
    #[error("saved state has a record of {0}, which this machine does not have")]
    LeftOver(String),
}

/// Collects records.
#[derive(Debug)]
pub struct Recorder {
    writer: StateWriter,
    length: usize,
    units: std::collections::BTreeSet<String>,
}

impl Recorder {
    /// No record yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            writer: StateWriter::new(),
            length: 0,
            units: std::collections::BTreeSet::new(),
        }
    }

    /// Adds the record of `unit`: printable ASCII, at most [`MAX_TEXT_BYTES`].
    ///
    /// # Errors
    /// A rule of the container is broken: [`ContainerError::RecordTooLong`],
    /// [`ContainerError::Duplicate`], [`ContainerError::TooMany`], [`ContainerError::TooLong`].
    pub fn add(&mut self, unit: &str, schema: Schema, bytes: &[u8]) -> Result<(), ContainerError> {
        let too_long = || ContainerError::RecordTooLong {
            unit: unit.to_owned(),
            length: bytes.len(),
        };
        let length = u32::try_from(bytes.len()).map_err(|_| too_long())?;
        if bytes.len() > MAX_RECORD_BYTES {
            return Err(too_long());
        }
        if self.units.len() == MAX_RECORDS {
            return Err(ContainerError::TooMany);
        }
        if !self.units.insert(unit.to_owned()) {
            return Err(ContainerError::Duplicate(unit.to_owned()));
        }
        write_text(&mut self.writer, unit);
        write_text(&mut self.writer, schema.name);
        self.writer.u32(schema.version).u32(length).bytes(bytes);
        self.length += unit.len() + schema.name.len() + 10 + bytes.len();
        if self.length > MAX_BYTES - 2 * (MAX_TEXT_BYTES + 1) - SEALED_FROM - 4 {
            return Err(ContainerError::TooLong(self.length));
        }
        Ok(())
    }

    /// The container, of a machine of this type.
    #[must_use]
    pub fn seal(mut self, machine: MachineType) -> Vec<u8> {
        let count = u32::try_from(self.units.len()).unwrap_or(u32::MAX);
        let mut sealed = StateWriter::new();
        write_text(&mut sealed, machine.name());
        write_text(&mut sealed, BUILD);
        sealed.u32(count).bytes(&self.writer.finish());
        let sealed = sealed.finish();
        StateWriter::new()
            .bytes(&MAGIC)
            .u32(FORMAT)
            .u32(checksum(&sealed))
            .bytes(&sealed)
            .finish()
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

fn write_text(writer: &mut StateWriter, text: &str) {
    debug_assert!(text.len() <= MAX_TEXT_BYTES, "{text} is a constant of ours");
    let text = text.get(..MAX_TEXT_BYTES).unwrap_or(text);
    writer.u8(u8::try_from(text.len()).unwrap_or(u8::MAX));
    writer.bytes(text.as_bytes());
}

/// One record, as it lies in the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Record<'a> {
    schema: &'a str,
    version: u32,
    bytes: &'a [u8],
}

/// The records of a container, each to be taken exactly once.
#[derive(Debug)]
pub struct Records<'a> {
    machine: &'a str,
    build: &'a str,
    records: BTreeMap<&'a str, Record<'a>>,
}

impl<'a> Records<'a> {
    /// Opens a container.
    ///
    /// # Errors
    /// [`ContainerError`] names the first rule that it breaks.
    pub fn open(container: &'a [u8]) -> Result<Self, ContainerError> {
        if container.len() > MAX_BYTES {
            return Err(ContainerError::TooLong(container.len()));
        }
        let mut reader = StateReader::new(container);
        if reader.bytes() != Ok(MAGIC) {
            return Err(ContainerError::NotAState);
        }
        let format = reader.u32()?;
        if format != FORMAT {
            return Err(ContainerError::UnknownFormat(format));
        }
        let expected = reader.u32()?;
        let sealed = reader.rest();
        if checksum(sealed) != expected {
            return Err(ContainerError::Checksum);
        }
        let mut reader = StateReader::new(sealed);
        let machine = read_text(&mut reader, "machine type")?;
        let build = read_text(&mut reader, "build")?;
        let count = reader.u32()?;
        if usize::try_from(count).map_or(true, |count| count > MAX_RECORDS) {
            return Err(ContainerError::TooMany);
        }
        let mut records = BTreeMap::new();
        for _ in 0..count {
            let unit = read_text(&mut reader, "unit")?;
            let record = read_record(unit, &mut reader)?;
            if records.insert(unit, record).is_some() {
                return Err(ContainerError::Duplicate(unit.to_owned()));
            }
        }
        reader.finish()?;
        Ok(Self {
            machine,
            build,
            records,
        })
    }

    /// Refuses records of a machine of another type than `wanted`.
    ///
    /// # Errors
    /// [`ContainerError::MachineType`].
    pub fn expect_machine(&self, wanted: MachineType) -> Result<(), ContainerError> {
        if self.machine == wanted.name() {
            return Ok(());
        }
        Err(ContainerError::MachineType {
            found: self.machine.to_owned(),
            wanted: wanted.name(),
            build: self.build.to_owned(),
        })
    }

    /// Takes the record of `unit`, which is of the layout `schema`: its version and its bytes.
    ///
    /// # Errors
    /// [`ContainerError::Missing`], [`ContainerError::Schema`].
    pub fn take(
        &mut self,
        unit: &str,
        schema: &'static str,
    ) -> Result<(u32, &'a [u8]), ContainerError> {
        let record = self
            .records
            .remove(unit)
            .ok_or_else(|| ContainerError::Missing(unit.to_owned()))?;
        if record.schema != schema {
            return Err(ContainerError::Schema {
                unit: unit.to_owned(),
                found: record.schema.to_owned(),
                wanted: schema,
            });
        }
        Ok((record.version, record.bytes))
    }

    /// Every record must have been taken.
    ///
    /// # Errors
    /// [`ContainerError::LeftOver`].
    pub fn finish(self) -> Result<(), ContainerError> {
        match self.records.keys().next() {
            Some(unit) => Err(ContainerError::LeftOver((*unit).to_owned())),
            None => Ok(()),
        }
    }
}

fn read_record<'a>(unit: &str, reader: &mut StateReader<'a>) -> Result<Record<'a>, ContainerError> {
    let schema = read_text(reader, "schema")?;
    let version = reader.u32()?;
    let length = usize::try_from(reader.u32()?).unwrap_or(usize::MAX);
    if length > MAX_RECORD_BYTES {
        return Err(ContainerError::RecordTooLong {
            unit: unit.to_owned(),
            length,
        });
    }
    let bytes = reader.slice(length)?;
    Ok(Record {
        schema,
        version,
        bytes,
    })
}

fn read_text<'a>(reader: &mut StateReader<'a>, field: &'static str) -> Result<&'a str, StateError> {
    let invalid = StateError::Invalid { field };
    let length = usize::from(reader.u8()?);
    if length > MAX_TEXT_BYTES {
        return Err(invalid);
    }
    let text = std::str::from_utf8(reader.slice(length)?).map_err(|_| invalid)?;
    // It ends up in messages.
    if text
        .bytes()
        .all(|byte| byte.is_ascii_graphic() || byte == b' ')
    {
        Ok(text)
    } else {
        Err(invalid)
    }
}

/// CRC-32 as in ISO 3309: reflected, polynomial 0x04C11DB7, inverted at both ends.
pub(super) fn checksum(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        let [low, ..] = crc.to_le_bytes();
        crc >> 8 ^ CRC_TABLE[usize::from(low ^ byte)]
    })
}

const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0_u32;
    while index < 256 {
        let mut crc = index;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 0 {
                crc >> 1
            } else {
                crc >> 1 ^ 0xEDB8_8320
            };
            bit += 1;
        }
        table[index as usize] = crc;
        index += 1;
    }
    table
};
