//! Where bytes of the disk are to be written: clusters are made, and filled around what is written.

use std::io;

use super::Qcow2;
use super::entry::Entry;
use super::storage::{Storage, index};

/// Clusters that one request is given at once, at most.
const MOST: u64 = 512;

impl<S: Storage> Qcow2<S> {
    /// Where in the image's file the first of `len` bytes at `offset` are to be written, and how
    /// many.
    pub(super) fn place(&mut self, offset: u64, len: u64) -> io::Result<(u64, u64)> {
        self.top.begin()?;
        let geometry = self.top.geometry;
        let inside = geometry.inside(offset);
        let first = offset - inside;
        let table = self.top.own_table(offset)?;
        let entry = self.top.entry(table, offset)?;
        self.top.check_entry(entry)?;
        let entry = self.adopt(table, first, entry)?;
        match entry {
            Entry::Data {
                offset: host,
                copied: true,
            } => {
                let clusters = self.in_place(table, first, host, inside + len)?;
                let run = len.min(clusters * geometry.cluster() - inside);
                // The file may end inside of its last cluster.
                self.top.file.reach(host + inside + run)?;
                Ok((host + inside, run))
            }
            Entry::ZeroAllocated {
                offset: host,
                copied: true,
            } => {
                let data = Entry::Data {
                    offset: host,
                    copied: true,
                };
                self.top.file.reach(host + geometry.cluster())?;
                self.top.file.zero(host, geometry.cluster())?;
                self.top.set_entry(table, offset, data)?;
                Ok((host + inside, (geometry.cluster() - inside).min(len)))
            }
            _ => {
                let wanted = self.absent(table, first, inside + len)?;
                let (host, clusters) = self.top.allocate(wanted)?;
                let run = (clusters * geometry.cluster() - inside).min(len);
                if let Err(error) = self.fill_ends(first, host, inside, run) {
                    self.top.unallocate(host, clusters);
                    return Err(error);
                }
                for number in 0..clusters {
                    let ahead = number * geometry.cluster();
                    let data = Entry::Data {
                        offset: host + ahead,
                        copied: true,
                    };
                    self.top.set_entry(table, first + ahead, data)?;
                }
                Ok((host + inside, run))
            }
        }
    }

    /// The entry of the disk's cluster `first`, made writable in place if nobody else uses what it
    /// refers to, whatever its flag says.
    ///
    /// Not only to save a copy: a cluster that is freed because its last user copied it might
    /// still be under a read, of other sectors than those that are written.
    fn adopt(&mut self, table: u64, first: u64, entry: Entry) -> io::Result<Entry> {
        let own = match entry {
            Entry::Data {
                offset,
                copied: false,
            } if self.top.refcount(offset)? == 1 => Entry::Data {
                offset,
                copied: true,
            },
            _ => return Ok(entry),
        };
        self.top.set_entry(table, first, own)?;
        Ok(own)
    }

    /// Clusters from `first` on, for `len` bytes, that lie together from `host` on and may be
    /// written in place.
    fn in_place(&mut self, table: u64, first: u64, host: u64, len: u64) -> io::Result<u64> {
        let cluster = self.top.geometry.cluster();
        let mut clusters = 1;
        while clusters * cluster < len && !self.ends_table(first + clusters * cluster) {
            let next = self.top.entry(table, first + clusters * cluster)?;
            let wanted = Entry::Data {
                offset: host + clusters * cluster,
                copied: true,
            };
            if next != wanted {
                break;
            }
            self.top.check_entry(next)?;
            clusters += 1;
        }
        Ok(clusters)
    }

    /// Clusters from `first` on, for `len` bytes, that need a place in the file.
    fn absent(&mut self, table: u64, first: u64, len: u64) -> io::Result<u64> {
        let cluster = self.top.geometry.cluster();
        let mut clusters = 1;
        while clusters * cluster < len
            && clusters < MOST
            && !self.ends_table(first + clusters * cluster)
        {
            let next = self.top.entry(table, first + clusters * cluster)?;
            self.top.check_entry(next)?;
            match next {
                Entry::Data { copied: true, .. } | Entry::ZeroAllocated { copied: true, .. } => {
                    break;
                }
                Entry::Data { offset, .. } if self.top.refcount(offset)? == 1 => break,
                _ => clusters += 1,
            }
        }
        Ok(clusters)
    }

    fn ends_table(&self, offset: u64) -> bool {
        offset % self.top.geometry.l2_span() == 0
    }

    /// Fills the clusters that `len` bytes, `inside` bytes behind the start of the disk's cluster
    /// `first`, begin or end in, with what the disk has there. They are at `host` and read as zero.
    fn fill_ends(&mut self, first: u64, host: u64, inside: u64, len: u64) -> io::Result<()> {
        let cluster = self.top.geometry.cluster();
        let last = (inside + len - 1) / cluster;
        if inside != 0 || (last == 0 && len < cluster) {
            self.fill(first, host)?;
        }
        if last != 0 && (inside + len) % cluster != 0 {
            self.fill(first + last * cluster, host + last * cluster)?;
        }
        Ok(())
    }

    fn fill(&mut self, offset: u64, host: u64) -> io::Result<()> {
        let mut old = vec![0; index(self.top.geometry.cluster())];
        if self.read_old(&mut old, offset)? {
            self.top.file.write(&old, host)?;
        }
        Ok(())
    }
}
