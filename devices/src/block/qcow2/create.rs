//! A new, empty image.

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;

use super::SECTOR_BYTES;
use super::error::Qcow2Error;
use super::header::{
    BACKING_FORMAT, Geometry, L1_BYTES, LAZY_REFCOUNTS, MAGIC, NAME_BYTES, REFCOUNT_TABLE_BYTES,
    V2_LENGTH, V3_LENGTH,
};
use super::image::raw;
use super::storage::{Descriptor, Storage, index};

/// What to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateOptions<'a> {
    /// The disk's size in bytes; rounded up to a sector.
    pub size: u64,
    /// Binary logarithm of a cluster's bytes: 9 to 21; 16 is usual.
    pub cluster_bits: u32,
    /// A backing file's name and format, which are written down and not looked at.
    pub backing: Option<(&'a str, &'a str)>,
}

/// What of the format an image uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    /// 2 or 3.
    pub version: u32,
    /// Whoever writes it may write refcounts late; of version 3 only.
    pub lazy_refcounts: bool,
}

impl Default for Form {
    /// Version 3.
    fn default() -> Self {
        Self {
            version: 3,
            lazy_refcounts: false,
        }
    }
}

/// Makes an image of version 3 in an empty file, on stable storage when this returns.
///
/// # Errors
/// [`Qcow2Error::Parameters`]; the storage's.
pub fn create(file: OwnedFd, options: &CreateOptions<'_>) -> Result<(), Qcow2Error> {
    create_in(&Descriptor::from(file), options, Form::default())
}

/// [`create`] of another form.
///
/// # Errors
/// As there.
pub fn create_as(file: OwnedFd, options: &CreateOptions<'_>, form: Form) -> Result<(), Qcow2Error> {
    create_in(&Descriptor::from(file), options, form)
}

/// Bits of a refcount are 16, of which this is the logarithm.
const REFCOUNT_ORDER: u32 = 4;

/// [`create`] for any storage.
pub(super) fn create_in<S: Storage>(
    file: &S,
    options: &CreateOptions<'_>,
    form: Form,
) -> Result<(), Qcow2Error> {
    if !(2..=3).contains(&form.version) || (form.lazy_refcounts && form.version == 2) {
        return Err(Qcow2Error::Parameters("its version has no such features"));
    }
    if file.length()? != 0 {
        return Err(io::Error::from(ErrorKind::AlreadyExists).into());
    }
    let size = options
        .size
        .checked_next_multiple_of(SECTOR_BYTES)
        .filter(|&size| i64::try_from(size).is_ok())
        .ok_or(Qcow2Error::Parameters("size is too large"))?;
    if !(9..=21).contains(&options.cluster_bits) {
        return Err(Qcow2Error::Parameters("cluster size is out of range"));
    }
    let geometry = Geometry {
        cluster_bits: options.cluster_bits,
        version: form.version,
    };
    let l1_entries = geometry.l1_entries(size);
    if l1_entries * 8 > L1_BYTES {
        return Err(Qcow2Error::Parameters("disk is too large for its clusters"));
    }
    let plan = Plan::new(geometry, l1_entries)?;
    let header = plan.header(size, options.backing, form)?;
    file.set_len(plan.clusters() * geometry.cluster())?;
    for (number, block) in plan.refcount_blocks().into_iter().enumerate() {
        file.write_at(
            &block,
            (1 + plan.table + number as u64) * geometry.cluster(),
        )?;
    }
    let blocks = (0..plan.blocks).map(|number| (1 + plan.table + number) * geometry.cluster());
    file.write_at(&raw(&blocks.collect::<Vec<_>>()), geometry.cluster())?;
    // The L1 table is zero. An image without a header is no image, so that comes last.
    file.sync()?;
    file.write_at(&header, 0)?;
    file.sync()?;
    Ok(())
}

/// Clusters of a new image, in this order: header, refcount table, refcount blocks, L1 table.
struct Plan {
    geometry: Geometry,
    table: u64,
    blocks: u64,
    l1: u64,
    l1_entries: u64,
}

impl Plan {
    fn new(geometry: Geometry, l1_entries: u64) -> Result<Self, Qcow2Error> {
        let mut plan = Self {
            geometry,
            table: 1,
            blocks: 1,
            l1: geometry.clusters(l1_entries * 8),
            l1_entries,
        };
        // More of the one may need more of the other.
        loop {
            let blocks = plan.clusters().div_ceil(plan.per_block());
            let table = geometry.clusters(blocks * 8);
            if (table, blocks) == (plan.table, plan.blocks) {
                break;
            }
            (plan.table, plan.blocks) = (table.max(plan.table), blocks.max(plan.blocks));
        }
        if plan.table * geometry.cluster() > REFCOUNT_TABLE_BYTES {
            return Err(Qcow2Error::Parameters("disk is too large for its clusters"));
        }
        Ok(plan)
    }

    fn per_block(&self) -> u64 {
        (self.geometry.cluster() * 8) >> REFCOUNT_ORDER
    }

    fn clusters(&self) -> u64 {
        1 + self.table + self.blocks + self.l1
    }

    /// One for each cluster.
    fn refcount_blocks(&self) -> Vec<Vec<u8>> {
        let counts = vec![[0, 1]; index(self.clusters())];
        counts
            .chunks(index(self.per_block()))
            .map(|counts| counts.concat())
            .collect()
    }

    fn header(
        &self,
        size: u64,
        backing: Option<(&str, &str)>,
        form: Form,
    ) -> Result<Vec<u8>, Qcow2Error> {
        let length = match form.version {
            2 => V2_LENGTH,
            _ => V3_LENGTH,
        };
        let too_long = || Qcow2Error::Parameters("name of the backing file is too long");
        let mut extensions = Vec::new();
        if let Some((_, format)) = backing {
            let len = u32::try_from(format.len()).map_err(|_| too_long())?;
            extensions.extend_from_slice(&BACKING_FORMAT.to_be_bytes());
            extensions.extend_from_slice(&len.to_be_bytes());
            extensions.extend_from_slice(format.as_bytes());
            extensions.resize(extensions.len().next_multiple_of(8), 0);
        }
        extensions.extend_from_slice(&[0; 8]);
        let name = backing.map_or("", |(name, _)| name);
        let name_len = u32::try_from(name.len()).map_err(|_| too_long())?;
        let name_at = length + extensions.len();
        if name_len > NAME_BYTES || (name_at + name.len()) as u64 > self.geometry.cluster() {
            return Err(too_long());
        }
        let narrow = |number| u32::try_from(number).map_err(|_| too_long());
        let cluster = self.geometry.cluster();
        let mut header = Vec::new();
        header.extend_from_slice(&MAGIC.to_be_bytes());
        header.extend_from_slice(&form.version.to_be_bytes());
        let name_at = if name.is_empty() { 0 } else { name_at as u64 };
        header.extend_from_slice(&name_at.to_be_bytes());
        header.extend_from_slice(&name_len.to_be_bytes());
        header.extend_from_slice(&self.geometry.cluster_bits.to_be_bytes());
        header.extend_from_slice(&size.to_be_bytes());
        // Encryption: none.
        header.extend_from_slice(&0_u32.to_be_bytes());
        header.extend_from_slice(&narrow(self.l1_entries)?.to_be_bytes());
        let l1 = (1 + self.table + self.blocks) * cluster;
        header.extend_from_slice(&l1.to_be_bytes());
        header.extend_from_slice(&cluster.to_be_bytes());
        header.extend_from_slice(&narrow(self.table)?.to_be_bytes());
        // No snapshots.
        header.extend_from_slice(&[0; 4 + 8]);
        if form.version == 3 {
            // No feature that whoever writes it must know, or that a writer must take away.
            let compatible = if form.lazy_refcounts {
                LAZY_REFCOUNTS
            } else {
                0
            };
            for features in [0, compatible, 0] {
                header.extend_from_slice(&features.to_be_bytes());
            }
            header.extend_from_slice(&REFCOUNT_ORDER.to_be_bytes());
            header.extend_from_slice(&narrow(V3_LENGTH as u64)?.to_be_bytes());
        }
        header.extend_from_slice(&extensions);
        header.extend_from_slice(name.as_bytes());
        Ok(header)
    }
}
