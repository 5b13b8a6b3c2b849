//! Where a file's metadata is: no data of the guest may be written there, whatever a table says.
//!
//! Known are the header, the L1 table, the refcount table and its blocks, the L2 tables that the L1
//! table names, and the tables of snapshots. L2 tables of snapshots are kept by their refcounts
//! alone.

use std::collections::BTreeSet;
use std::ops::Range;

use super::error::Qcow2Error;
use super::header::{Geometry, Header, SNAPSHOTS};
use super::storage::{ImageFile, Storage};

/// Tables that are known one by one, at most: L2 tables and refcount blocks.
const TABLES: usize = 1 << 20;
/// Bytes of a snapshot's entry before its names.
const SNAPSHOT_ENTRY: usize = 40;
/// Bytes of what may follow the fixed part of a snapshot's entry without a name.
const SNAPSHOT_EXTRA: u64 = 1024;

/// Places of metadata.
#[derive(Debug)]
pub(super) struct Reserved {
    geometry: Geometry,
    /// The L1 table, in bytes of the file.
    pub l1: Range<u64>,
    /// The refcount table.
    pub refcount_table: Range<u64>,
    /// The snapshot table and the L1 tables it names: sorted, apart from each other.
    snapshots: Vec<Range<u64>>,
    /// L2 tables and refcount blocks, each of them a cluster.
    tables: BTreeSet<u64>,
}

impl Reserved {
    /// The places that a header and a snapshot table name.
    pub(super) fn new<S: Storage>(
        header: &Header,
        file: &ImageFile<S>,
    ) -> Result<Self, Qcow2Error> {
        let geometry = header.geometry;
        let reserved = Self {
            geometry,
            l1: place(geometry, header.l1_offset, header.l1_bytes()),
            refcount_table: place(
                geometry,
                header.refcount_table_offset,
                header.refcount_table_bytes(),
            ),
            snapshots: snapshots(header, file)?,
            tables: BTreeSet::new(),
        };
        if overlap(&reserved.l1, &reserved.refcount_table) {
            return Err(Qcow2Error::Table("L1 table and refcount table overlap"));
        }
        Ok(reserved)
    }

    /// Adds a table of one cluster, which lies nowhere else.
    pub(super) fn add_table(&mut self, offset: u64) -> Result<(), Qcow2Error> {
        if self.overlaps(offset, self.geometry.cluster()) {
            return Err(Qcow2Error::Table("tables overlap"));
        }
        if self.tables.len() >= TABLES {
            return Err(Qcow2Error::Table("tables are too many to be written"));
        }
        self.tables.insert(offset);
        Ok(())
    }

    /// A cluster is free: if a table was there, it is no more.
    pub(super) fn remove_table(&mut self, offset: u64) {
        self.tables.remove(&offset);
    }

    /// Whether `len` bytes at `offset` touch metadata.
    pub(super) fn overlaps(&self, offset: u64, len: u64) -> bool {
        let wanted = offset..offset.saturating_add(len);
        if wanted.start < self.geometry.cluster()
            || overlap(&wanted, &self.l1)
            || overlap(&wanted, &self.refcount_table)
        {
            return true;
        }
        let after = self
            .snapshots
            .partition_point(|range| range.end <= wanted.start);
        if self
            .snapshots
            .get(after)
            .is_some_and(|range| overlap(&wanted, range))
        {
            return true;
        }
        let first = wanted.start & !(self.geometry.cluster() - 1);
        self.tables.range(first..wanted.end).next().is_some()
    }
}

fn overlap(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

fn place(geometry: Geometry, offset: u64, bytes: u64) -> Range<u64> {
    offset..offset.saturating_add(geometry.round_up(bytes))
}

/// Where the snapshot table and its L1 tables are.
fn snapshots<S: Storage>(
    header: &Header,
    file: &ImageFile<S>,
) -> Result<Vec<Range<u64>>, Qcow2Error> {
    let count = header.facts.snapshots.min(SNAPSHOTS);
    if count == 0 {
        return Ok(Vec::new());
    }
    let bad = Qcow2Error::Table("snapshot table makes no sense");
    let start = header.snapshots_offset;
    if !header.is_place(start, SNAPSHOT_ENTRY as u64, file.len()) {
        return Err(bad);
    }
    let mut places = Vec::new();
    let mut at = start;
    for _ in 0..count {
        let mut entry = [0; SNAPSHOT_ENTRY];
        file.read(&mut entry, at)?;
        let number = |range: Range<usize>| {
            let bytes = entry.get(range).unwrap_or_default();
            bytes
                .iter()
                .fold(0_u64, |value, &byte| value << 8 | u64::from(byte))
        };
        let l1_bytes = number(8..12) * 8;
        let extra = number(36..40);
        let inside = l1_bytes == 0 || header.is_place(number(0..8), l1_bytes, file.len());
        if extra > SNAPSHOT_EXTRA || !inside {
            return Err(bad);
        }
        places.push(place(header.geometry, number(0..8), l1_bytes));
        let names = number(12..14) + number(14..16);
        at += (SNAPSHOT_ENTRY as u64 + extra + names).next_multiple_of(8);
    }
    places.push(place(header.geometry, start, at - start));
    Ok(merged(places))
}

/// Sorted, and what touches made one.
fn merged(mut places: Vec<Range<u64>>) -> Vec<Range<u64>> {
    places.sort_unstable_by_key(|range| range.start);
    let mut apart: Vec<Range<u64>> = Vec::new();
    for range in places {
        match apart.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => apart.push(range),
        }
    }
    apart
}
