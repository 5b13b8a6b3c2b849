//! Bytes of the disk that are zero from now on, or not needed.

use std::io;

use super::entry::Entry;
use super::storage::Storage;
use super::{Extent, Qcow2};

impl<S: Storage> Qcow2<S> {
    /// Gives back the clusters that lie wholly in the range, as far as what is then read is zero.
    pub(super) fn discard_range(&mut self, offset: u64, len: u64) -> io::Result<()> {
        self.top.begin()?;
        let (first, end) = self.whole_clusters(offset, len);
        let mut at = first;
        while at < end {
            let step = self.free(at, false)?;
            at = at.saturating_add(step);
        }
        Ok(())
    }

    /// Makes the range read as zero.
    pub(super) fn zero_range(&mut self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.top.begin()?;
        let (first, end) = self.whole_clusters(offset, len);
        if first >= end {
            return self.zero_bytes(offset, offset + len);
        }
        self.zero_bytes(offset, first)?;
        let mut at = first;
        while at < end {
            self.top.begin()?;
            let step = if self.can_be_zero_by_entry(unmap) {
                if unmap {
                    self.free(at, true)?
                } else {
                    self.flag_zero(at)?
                }
            } else {
                let cluster = self.top.geometry.cluster();
                self.zero_bytes(at, at.saturating_add(cluster).min(self.top.size))?;
                cluster
            };
            at = at.saturating_add(step);
        }
        self.zero_bytes(end.min(offset + len), offset + len)
    }

    /// The clusters that lie wholly in the range; the disk's last one does if its part of the disk
    /// does.
    fn whole_clusters(&self, offset: u64, len: u64) -> (u64, u64) {
        let geometry = self.top.geometry;
        let mut end = offset.saturating_add(len);
        if end >= self.top.size {
            end = geometry.round_up(end);
        }
        (geometry.round_up(offset), end - geometry.inside(end))
    }

    /// Whether the format can say of a cluster that it is zero.
    fn can_be_zero_by_entry(&self, unmap: bool) -> bool {
        let absent = !self.top.has_backing() && unmap && self.top.may_unmap();
        self.top.geometry.version >= 3 || absent
    }

    /// What an entry is for a cluster that has no place in the file and reads as zero.
    fn nothing(&self) -> Entry {
        if self.top.has_backing() {
            Entry::Zero
        } else {
            Entry::Unallocated
        }
    }

    /// Takes a cluster's place away so that it reads as zero, or else leaves it; with `must`, it
    /// reads as zero in any case. The bytes of the disk that were dealt with.
    fn free(&mut self, at: u64, must: bool) -> io::Result<u64> {
        let geometry = self.top.geometry;
        self.top.begin()?;
        let has_backing = self.top.has_backing();
        let entry = match self.top.table(at)? {
            // The same for all clusters of the table.
            None if !has_backing || !must => {
                return Ok(geometry.l2_span() - at % geometry.l2_span());
            }
            None => Entry::Unallocated,
            Some(table) => self.top.entry(table.offset, at)?,
        };
        let new = match entry {
            Entry::Unallocated if must => self.nothing(),
            Entry::Unallocated | Entry::Zero => return Ok(geometry.cluster()),
            Entry::Data { copied: true, .. } | Entry::ZeroAllocated { copied: true, .. }
                if !self.top.may_unmap() =>
            {
                if must {
                    return self.flag_zero(at);
                }
                return Ok(geometry.cluster());
            }
            _ if has_backing && geometry.version < 3 => return Ok(geometry.cluster()),
            _ => self.nothing(),
        };
        self.change(at, entry, new)
    }

    /// Says of a cluster that it reads as zero; one that has a place in the file keeps it. The
    /// bytes of the disk that were dealt with. Not for version 2.
    fn flag_zero(&mut self, at: u64) -> io::Result<u64> {
        let geometry = self.top.geometry;
        let entry = match self.top.table(at)? {
            None if !self.top.has_backing() => {
                return Ok(geometry.l2_span() - at % geometry.l2_span());
            }
            None => Entry::Unallocated,
            Some(table) => self.top.entry(table.offset, at)?,
        };
        let new = match entry {
            Entry::Zero | Entry::ZeroAllocated { .. } => return Ok(geometry.cluster()),
            Entry::Data {
                offset,
                copied: true,
            } => Entry::ZeroAllocated {
                offset,
                copied: true,
            },
            Entry::Unallocated | Entry::Data { .. } | Entry::Compressed { .. } => self.nothing(),
        };
        self.change(at, entry, new)
    }

    fn change(&mut self, at: u64, old: Entry, new: Entry) -> io::Result<u64> {
        if old != new {
            let table = self.top.own_table(at)?;
            self.top.set_entry(table, at, new)?;
        }
        Ok(self.top.geometry.cluster())
    }

    /// Makes the bytes from `at` to `end` zero by writing to them, where they are not.
    fn zero_bytes(&mut self, mut at: u64, end: u64) -> io::Result<()> {
        while at < end {
            if let Extent::Zero { len } = self.find(at, end - at)? {
                at += len;
                continue;
            }
            let (host, len) = self.place(at, end - at)?;
            self.top.file.zero(host, len)?;
            at += len;
        }
        Ok(())
    }
}
