//! Entries of L1 and L2 tables: what a cluster of the disk is.

use std::io;

use super::error::invalid;
use super::header::Geometry;

/// Nobody else uses the cluster or table: it may be written in place.
pub(super) const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
const ZERO: u64 = 1 << 0;
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// File offsets an entry can hold end here.
pub(super) const END_OF_OFFSETS: u64 = 1 << 56;

/// An L1 entry: where an L2 table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Table {
    pub offset: u64,
    pub copied: bool,
}

impl Table {
    /// Reads an entry; `None` where there is no table.
    pub(super) fn parse(raw: u64) -> Option<Self> {
        let offset = raw & OFFSET;
        (offset != 0).then_some(Self {
            offset,
            copied: raw & COPIED != 0,
        })
    }
}

/// An L2 entry: what a cluster of the disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// The backing file's, or zero.
    Unallocated,
    /// Zero.
    Zero,
    /// Zero, with a cluster of the file set aside for it.
    ZeroAllocated { offset: u64, copied: bool },
    /// A cluster of the file.
    Data { offset: u64, copied: bool },
    /// Compressed in `len` bytes of the file at most.
    Compressed { offset: u64, len: u64 },
}

impl Entry {
    /// Reads an entry. An offset it gives is aligned as it must be; whether it lies inside the
    /// file is another question.
    pub(super) fn parse(raw: u64, geometry: Geometry) -> io::Result<Self> {
        if raw & COMPRESSED != 0 {
            return Ok(Self::compressed(raw, geometry));
        }
        let offset = raw & OFFSET;
        let copied = raw & COPIED != 0;
        if geometry.inside(offset) != 0 {
            return Err(invalid("L2 entry is not aligned"));
        }
        match (raw & ZERO != 0, offset) {
            (true, _) if geometry.version < 3 => {
                Err(invalid("L2 entry has a flag of a later version"))
            }
            (true, 0) => Ok(Self::Zero),
            (true, _) => Ok(Self::ZeroAllocated { offset, copied }),
            (false, 0) => Ok(Self::Unallocated),
            (false, _) => Ok(Self::Data { offset, copied }),
        }
    }

    fn compressed(raw: u64, geometry: Geometry) -> Self {
        // The low bits are an offset in bytes, the rest counts the sectors behind the first.
        let offset_bits = 62 - (geometry.cluster_bits - 8);
        let descriptor = raw & (COMPRESSED - 1);
        let offset = descriptor & ((1 << offset_bits) - 1) & (END_OF_OFFSETS - 1);
        let sectors = (descriptor >> offset_bits) + 1;
        Self::Compressed {
            offset,
            len: sectors * 512 - (offset & 511),
        }
    }

    /// The entry as it is in the table. Compressed clusters are only ever read.
    pub(super) fn raw(self) -> u64 {
        let flag = |copied| if copied { COPIED } else { 0 };
        match self {
            Self::Unallocated | Self::Compressed { .. } => 0,
            Self::Zero => ZERO,
            Self::ZeroAllocated { offset, copied } => offset | flag(copied) | ZERO,
            Self::Data { offset, copied } => offset | flag(copied),
        }
    }
}
