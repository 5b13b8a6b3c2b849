//! The header of an image: parsed once, checked, and then believed only as far as it was checked.
//!
//! [`read_header`] is for whoever wants to know what an image says of itself without opening it as
//! a disk: it reads a bounded part of the file and follows nothing.
//!
//! Layout: `docs/interop/qcow2.txt` of QEMU. All numbers are big-endian.

use std::io::{self, ErrorKind};
use std::os::fd::BorrowedFd;

use super::error::Qcow2Error;
use super::storage::{index, read_at};

/// "QFI" and 0xfb.
pub(super) const MAGIC: u32 = 0x5146_49fb;
/// Bytes of a header of version 2, and of the least of version 3.
pub(super) const V2_LENGTH: usize = 72;
pub(super) const V3_LENGTH: usize = 104;
/// Bytes of the first cluster that are looked at: header and extensions.
const LOOKED_AT: usize = 64 << 10;
/// Bytes of the longest name of a backing file.
pub(super) const NAME_BYTES: u32 = 1023;
/// Bytes of the longest L1 table: enough for 2 EiB in clusters of 2 MiB, 16 TiB in 64 KiB ones.
pub(super) const L1_BYTES: u64 = 32 << 20;
/// Bytes of the longest refcount table.
pub(super) const REFCOUNT_TABLE_BYTES: u64 = 8 << 20;
/// Snapshots of an image, at most.
pub(super) const SNAPSHOTS: u32 = 65_536;

/// Incompatible feature: refcounts may be wrong.
pub(super) const DIRTY: u64 = 1 << 0;
/// Incompatible feature: structures are known to be wrong.
pub(super) const CORRUPT: u64 = 1 << 1;
const EXTERNAL_DATA: u64 = 1 << 2;
const COMPRESSION_TYPE: u64 = 1 << 3;
const EXTENDED_L2: u64 = 1 << 4;
/// Compatible feature: refcounts may be written late. Here they never are.
pub(super) const LAZY_REFCOUNTS: u64 = 1 << 0;

const END_OF_EXTENSIONS: u32 = 0;
pub(super) const BACKING_FORMAT: u32 = 0xe279_2aca;

/// Where the fields are that are written again later, in bytes.
pub(super) mod at {
    pub const SIZE: u64 = 24;
    pub const REFCOUNT_TABLE: u64 = 48;
    pub const INCOMPATIBLE: u64 = 72;
    pub const AUTOCLEAR: u64 = 88;
}

/// How compressed clusters are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Deflate without a zlib header.
    Zlib,
    /// Zstandard.
    Zstd,
}

/// What an image says of itself. Nothing of it was compared with the rest of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderFacts {
    /// 2 or 3.
    pub version: u32,
    /// The disk's size in bytes.
    pub virtual_size: u64,
    /// Binary logarithm of a cluster's bytes: 9 to 21.
    pub cluster_bits: u32,
    /// Bits of a refcount: a power of two, at most 64.
    pub refcount_bits: u32,
    /// The backing file as named: a path or URL of at most 1,023 bytes, never opened here.
    pub backing_file: Option<String>,
    /// The backing file's format as named.
    pub backing_format: Option<String>,
    /// How compressed clusters are compressed.
    pub compression: Compression,
    /// Internal snapshots.
    pub snapshots: u32,
    /// The guest's data is encrypted.
    pub encrypted: bool,
    /// The guest's data is in another file.
    pub external_data_file: bool,
    /// L2 entries describe parts of clusters.
    pub extended_l2: bool,
    /// Refcounts may be wrong.
    pub dirty: bool,
    /// Structures are known to be wrong.
    pub corrupt: bool,
    /// Refcounts may be written late.
    pub lazy_refcounts: bool,
    /// Incompatible features that have no name here, as a mask.
    pub unknown_features: u64,
}

/// Reads what the image in `file` says of itself. Reads at most 70 KiB; opens nothing.
///
/// # Errors
/// [`Qcow2Error::Header`] for what is no image of version 2 or 3 or contradicts itself; the
/// storage's.
pub fn read_header(file: BorrowedFd<'_>) -> Result<HeaderFacts, Qcow2Error> {
    Ok(Header::read(|buf, offset| read_at(file, buf, offset))?.facts)
}

/// Clusters and what follows from their size.
#[derive(Debug, Clone, Copy)]
pub(super) struct Geometry {
    pub cluster_bits: u32,
    pub version: u32,
}

impl Geometry {
    /// Bytes of a cluster.
    pub(super) fn cluster(self) -> u64 {
        1 << self.cluster_bits
    }

    /// The part of an offset that lies inside a cluster.
    pub(super) fn inside(self, offset: u64) -> u64 {
        offset & (self.cluster() - 1)
    }

    /// Binary logarithm of the entries of an L2 table.
    pub(super) fn l2_bits(self) -> u32 {
        self.cluster_bits - 3
    }

    /// Bytes of a disk that an L2 table describes.
    pub(super) fn l2_span(self) -> u64 {
        1 << (self.cluster_bits + self.l2_bits())
    }

    /// Entry of the L1 table for a byte of the disk.
    pub(super) fn l1_index(self, offset: u64) -> usize {
        index(offset >> (self.cluster_bits + self.l2_bits()))
    }

    /// Entry of its L2 table for a byte of the disk.
    pub(super) fn l2_index(self, offset: u64) -> u64 {
        (offset >> self.cluster_bits) & ((1 << self.l2_bits()) - 1)
    }

    /// Clusters that `bytes` fill.
    pub(super) fn clusters(self, bytes: u64) -> u64 {
        bytes.div_ceil(self.cluster())
    }

    /// `bytes` in whole clusters.
    pub(super) fn round_up(self, bytes: u64) -> u64 {
        bytes
            .checked_next_multiple_of(self.cluster())
            .unwrap_or(u64::MAX)
    }

    /// L1 entries of a disk of `size` bytes.
    pub(super) fn l1_entries(self, size: u64) -> u64 {
        size.div_ceil(self.l2_span())
    }
}

/// A header that makes sense by itself.
#[derive(Debug, Clone)]
pub(super) struct Header {
    pub facts: HeaderFacts,
    pub geometry: Geometry,
    pub l1_size: u32,
    pub l1_offset: u64,
    pub refcount_table_offset: u64,
    pub refcount_table_clusters: u32,
    pub refcount_order: u32,
    pub snapshots_offset: u64,
    pub incompatible: u64,
    pub autoclear: u64,
}

impl Header {
    /// Reads and checks a header by `read`, which reads less only at the end of the file.
    pub(super) fn read(
        read: impl Fn(&mut [u8], u64) -> io::Result<usize>,
    ) -> Result<Self, Qcow2Error> {
        let mut bytes = vec![0; LOOKED_AT];
        let count = read(&mut bytes, 0)?;
        bytes.truncate(count);
        let raw = Fields(&bytes);
        if raw.u32(0)? != MAGIC {
            return Err(Qcow2Error::Header("has no qcow2 magic"));
        }
        let version = raw.u32(4)?;
        let (incompatible, compatible, autoclear, refcount_order, length) = match version {
            2 => (0, 0, 0, 4, V2_LENGTH),
            3 => (
                raw.u64(at::INCOMPATIBLE)?,
                raw.u64(80)?,
                raw.u64(at::AUTOCLEAR)?,
                raw.u32(96)?,
                index(raw.u32(100)?.into()),
            ),
            _ => return Err(Qcow2Error::Header("is of a version other than 2 and 3")),
        };
        let cluster_bits = raw.u32(20)?;
        if !(9..=21).contains(&cluster_bits) {
            return Err(Qcow2Error::Header("has clusters of an impossible size"));
        }
        if refcount_order > 6 {
            return Err(Qcow2Error::Header("has refcounts of an impossible width"));
        }
        let geometry = Geometry {
            cluster_bits,
            version,
        };
        if (version == 3 && length < V3_LENGTH) || length as u64 > geometry.cluster() {
            return Err(Qcow2Error::Header("has an impossible length"));
        }
        let size = raw.u64(at::SIZE)?;
        if i64::try_from(size).is_err() {
            return Err(Qcow2Error::Header("has an impossible size"));
        }
        let compression = match compression_type(&raw, length)? {
            0 if incompatible & COMPRESSION_TYPE == 0 => Compression::Zlib,
            1 if incompatible & COMPRESSION_TYPE != 0 => Compression::Zstd,
            _ => return Err(Qcow2Error::Header("has an unknown compression type")),
        };
        let extensions = Extensions::read(&raw, length, geometry)?;
        let known = DIRTY | CORRUPT | EXTERNAL_DATA | COMPRESSION_TYPE | EXTENDED_L2;
        let facts = HeaderFacts {
            version,
            virtual_size: size,
            cluster_bits,
            refcount_bits: 1 << refcount_order,
            backing_file: backing_name(&raw, &read, geometry)?,
            backing_format: extensions.backing_format,
            compression,
            snapshots: raw.u32(60)?,
            encrypted: raw.u32(32)? != 0,
            external_data_file: incompatible & EXTERNAL_DATA != 0,
            extended_l2: incompatible & EXTENDED_L2 != 0,
            dirty: incompatible & DIRTY != 0,
            corrupt: incompatible & CORRUPT != 0,
            lazy_refcounts: compatible & LAZY_REFCOUNTS != 0,
            unknown_features: incompatible & !known,
        };
        Ok(Self {
            facts,
            geometry,
            l1_size: raw.u32(36)?,
            l1_offset: raw.u64(40)?,
            refcount_table_offset: raw.u64(at::REFCOUNT_TABLE)?,
            refcount_table_clusters: raw.u32(56)?,
            refcount_order,
            snapshots_offset: raw.u64(64)?,
            incompatible,
            autoclear,
        })
    }

    /// Whether a disk can be read by this code, and its tables are where tables can be.
    pub(super) fn check_readable(&self, file_len: u64) -> Result<(), Qcow2Error> {
        let facts = &self.facts;
        if facts.encrypted {
            return Err(Qcow2Error::Unsupported("encryption"));
        }
        if facts.external_data_file {
            return Err(Qcow2Error::Unsupported("an external data file"));
        }
        if facts.extended_l2 {
            return Err(Qcow2Error::Unsupported("extended L2 entries"));
        }
        if facts.unknown_features != 0 {
            return Err(Qcow2Error::UnknownFeatures(facts.unknown_features));
        }
        if u64::from(self.l1_size) < self.geometry.l1_entries(facts.virtual_size) {
            return Err(Qcow2Error::Table("L1 table is too short for the disk"));
        }
        if self.l1_bytes() > L1_BYTES {
            return Err(Qcow2Error::Table("L1 table is longer than 32 MiB"));
        }
        if self.l1_size != 0 && !self.is_place(self.l1_offset, self.l1_bytes(), file_len) {
            return Err(Qcow2Error::Table("L1 table is outside the file"));
        }
        Ok(())
    }

    /// Whether the image may be written, and what writing needs is where it can be.
    pub(super) fn check_writable(&self, file_len: u64) -> Result<(), Qcow2Error> {
        if self.facts.corrupt {
            return Err(Qcow2Error::Corrupt);
        }
        if self.facts.dirty {
            return Err(Qcow2Error::Dirty);
        }
        let bytes = self.refcount_table_bytes();
        if bytes == 0 || bytes > REFCOUNT_TABLE_BYTES {
            return Err(Qcow2Error::Table("refcount table has an impossible length"));
        }
        if !self.is_place(self.refcount_table_offset, bytes, file_len) {
            return Err(Qcow2Error::Table("refcount table is outside the file"));
        }
        if self.facts.snapshots > SNAPSHOTS {
            return Err(Qcow2Error::Table("there are more than 65,536 snapshots"));
        }
        Ok(())
    }

    /// Whether a structure can be at `offset`: behind the header, aligned, inside the file.
    pub(super) fn is_place(&self, offset: u64, bytes: u64, file_len: u64) -> bool {
        offset >= self.geometry.cluster()
            && self.geometry.inside(offset) == 0
            && offset.checked_add(bytes).is_some_and(|end| end <= file_len)
    }

    pub(super) fn l1_bytes(&self) -> u64 {
        u64::from(self.l1_size) * 8
    }

    pub(super) fn refcount_table_bytes(&self) -> u64 {
        u64::from(self.refcount_table_clusters) << self.geometry.cluster_bits
    }
}

/// Numbers of the first bytes of a file.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn bytes(&self, offset: usize, len: usize) -> Result<&[u8], Qcow2Error> {
        offset
            .checked_add(len)
            .and_then(|end| self.0.get(offset..end))
            .ok_or(Qcow2Error::Header("is cut off"))
    }

    fn u32(&self, offset: usize) -> Result<u32, Qcow2Error> {
        let bytes = self.bytes(offset, 4)?.try_into().unwrap_or_default();
        Ok(u32::from_be_bytes(bytes))
    }

    fn u64(&self, offset: u64) -> Result<u64, Qcow2Error> {
        let bytes = self.bytes(index(offset), 8)?.try_into().unwrap_or_default();
        Ok(u64::from_be_bytes(bytes))
    }
}

fn compression_type(raw: &Fields<'_>, length: usize) -> Result<u8, Qcow2Error> {
    if length <= V3_LENGTH {
        return Ok(0);
    }
    Ok(raw
        .bytes(V3_LENGTH, 1)?
        .first()
        .copied()
        .unwrap_or_default())
}

fn backing_name(
    raw: &Fields<'_>,
    read: impl Fn(&mut [u8], u64) -> io::Result<usize>,
    geometry: Geometry,
) -> Result<Option<String>, Qcow2Error> {
    let offset = raw.u64(8)?;
    let len = raw.u32(16)?;
    if offset == 0 || len == 0 {
        return Ok(None);
    }
    let end = offset.checked_add(len.into());
    if len > NAME_BYTES || end.is_none_or(|end| end > geometry.cluster()) {
        return Err(Qcow2Error::Header(
            "names its backing file outside of itself",
        ));
    }
    let mut name = vec![0; index(len.into())];
    if read(&mut name, offset)? != name.len() {
        return Err(io::Error::from(ErrorKind::UnexpectedEof).into());
    }
    text(&name).map(Some)
}

fn text(bytes: &[u8]) -> Result<String, Qcow2Error> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Qcow2Error::Header("has a name that is no UTF-8"))
}

/// What the header extensions say; those that are not listed here say nothing about a disk's bytes.
#[derive(Debug, Default)]
struct Extensions {
    backing_format: Option<String>,
}

impl Extensions {
    fn read(raw: &Fields<'_>, start: usize, geometry: Geometry) -> Result<Self, Qcow2Error> {
        let mut found = Self::default();
        let mut limit = index(geometry.cluster()).min(raw.0.len());
        // They end where the backing file's name begins; images older than they are have it at
        // once.
        let name = raw.u64(8)?;
        if name != 0 {
            limit = limit.min(index(name));
        }
        let mut offset = start;
        while offset.saturating_add(8) <= limit {
            let kind = raw.u32(offset)?;
            let len = index(raw.u32(offset + 4)?.into());
            if kind == END_OF_EXTENSIONS {
                break;
            }
            let data = offset + 8;
            if data.checked_add(len).is_none_or(|end| end > limit) {
                return Err(Qcow2Error::Header("has an extension outside of itself"));
            }
            if kind == BACKING_FORMAT {
                found.backing_format = Some(text(raw.bytes(data, len)?)?);
            }
            offset = data.saturating_add(len.next_multiple_of(8));
        }
        Ok(found)
    }
}
