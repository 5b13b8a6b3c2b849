//! Guest memory: mapped from a descriptor that the supervisor handed over.
//!
//! Built once by the thread that builds the machine; afterwards shared read-only between vCPU and
//! I/O threads (a clone is two reference counts). The memory's *content* is written by the guest at
//! any instant, so it is reached through volatile accessors only and never as a Rust slice.
//!
//! RAM starts at guest-physical 0, leaves the gap between 3 GiB and 4 GiB free and continues at
//! 4 GiB; file offset n of the descriptor is RAM byte n, without the gap. Memory that can be plugged in
//! (virtio 1.3 §5.15) lies behind it, in the guest and in the file, where it is a hole until it is used:
//! one descriptor is all of a guest's memory, whoever it is handed to.
//!
//! # What each backing allows
//!
//! | | [`Backing::Shared`] | [`Backing::HugePages`] | [`Backing::PrivateCopy`] |
//! |---|---|---|---|
//! | descriptor | sealed memfd | memfd on hugetlbfs, or a file there | saved memory of a base machine |
//! | mapping | shared | shared | private, copy-on-write |
//! | start with content of the file | yes (zeroes when new) | yes | yes: that is its purpose |
//! | second process maps the same memory (vhost-user, hand-over to a new worker) | yes | yes | no: its writes are seen by nobody else |
//! | ballooned pages go back to the host | hole punched | whole huge pages only | dropped from the private copy |
//! | pages shared between machines | no | no | every page not yet written |
//! | blocks that are plugged in later | yes | of whole huge pages | no |
//! | lazy restore through userfaultfd | yes | yes | not needed: the file is the lazy source |

mod backing;
mod error;
mod give_back;
mod peek;
mod rom;
#[cfg(test)]
mod tests;

use std::os::fd::AsFd;
use std::sync::Arc;

use reeve_devices::memory::GuestRam;
use reeve_devices::memory::blocks::Blocks;
use rustix::fs::FallocateFlags;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{
    FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion,
    GuestRegionMmap,
};

pub use self::backing::Backing;
pub use self::error::MemoryError;
pub use self::give_back::PageReturner;
pub use self::peek::PeekError;
pub use self::rom::{Rom, RomError};
use crate::arch::x86_64::layout;

/// Page size of the host, and unit of guest memory sizes, in bytes.
pub const PAGE_SIZE: u64 = 4096;

/// The least memory a machine can have, in bytes: the first MiB and as much again for a kernel.
pub const MIN_SIZE: u64 = 2 << 20;

/// The RAM of one guest.
#[derive(Debug, Clone)]
pub struct GuestMemory {
    map: GuestMemoryMmap<()>,
    backing: Arc<Backing>,
    size: u64,
    /// End of the RAM below the gap.
    low_end: u64,
    /// Bytes of the file that are guest memory, plugged or not.
    file_size: u64,
    blocks: Option<Arc<Blocks>>,
}

/// Memory that a machine can be given while it runs, behind what it starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pluggable {
    /// Bytes in all.
    pub bytes: u64,
    /// Bytes of a block, in which it comes and goes.
    pub block_bytes: u64,
    /// Where it begins in the file.
    pub file_offset: u64,
}

/// One contiguous piece of RAM: what KVM needs to make a memory slot of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RamRegion {
    /// First guest-physical address.
    pub guest_address: u64,
    /// Length in bytes, a multiple of [`PAGE_SIZE`].
    pub size: u64,
    /// Where it is mapped in this process.
    pub host_address: u64,
}

impl GuestMemory {
    /// Maps `size` bytes of `backing` as the RAM of a guest, after checking that the descriptor
    /// can bear it: large enough, and sealed against shrinking where sealing exists.
    ///
    /// Touches no page of it.
    ///
    /// # Errors
    /// See [`MemoryError`]; nothing stays mapped.
    pub fn map(backing: Backing, size: u64) -> Result<Self, MemoryError> {
        Self::map_with(backing, size, None)
    }

    /// As [`map`](Self::map), with memory behind it that comes in blocks, of which none is plugged.
    ///
    /// # Errors
    /// See [`MemoryError`]; nothing stays mapped.
    pub fn map_with(
        backing: Backing,
        size: u64,
        pluggable: Option<Pluggable>,
    ) -> Result<Self, MemoryError> {
        Self::map_around(backing, size, pluggable, layout::MMIO_GAP_START)
    }

    /// As [`map_with`](Self::map_with), with a gap below 4 GiB that begins at `gap_start`, a multiple of the
    /// backing's page size.
    ///
    /// # Errors
    /// See [`MemoryError`]; nothing stays mapped.
    pub fn map_around(
        backing: Backing,
        size: u64,
        pluggable: Option<Pluggable>,
        gap_start: u64,
    ) -> Result<Self, MemoryError> {
        let granule = backing.granule();
        if size < MIN_SIZE || size % granule != 0 {
            return Err(MemoryError::Size { size, granule });
        }
        let (low, high) =
            layout::ram_ranges(size, gap_start).ok_or(MemoryError::TooLarge { size })?;
        let too_large = MemoryError::TooLarge { size };
        let ram_end = high.as_ref().unwrap_or(&low).end;
        let mut ranges = vec![(low.clone(), 0)];
        ranges.extend(high.map(|high| (high, low.end)));
        let mut blocks = None;
        let mut file_size = size;
        if let Some(plug) = pluggable {
            check_pluggable(&backing, size, plug)?;
            let range = layout::block_range(ram_end, plug.bytes, plug.block_bytes);
            let range = range.ok_or(too_large)?;
            blocks = Some(Arc::new(Blocks::new(
                range.start,
                plug.bytes,
                plug.block_bytes,
            )?));
            file_size = plug
                .file_offset
                .checked_add(plug.bytes)
                .ok_or(MemoryError::TooLarge { size: plug.bytes })?;
            ranges.push((range, plug.file_offset));
        }
        backing.check(file_size)?;

        let file = backing.share_file().map_err(MemoryError::Descriptor)?;
        let mut regions = Vec::with_capacity(ranges.len());
        for (range, offset) in ranges {
            let length = range.end - range.start;
            let host_length =
                usize::try_from(length).map_err(|_| MemoryError::TooLarge { size })?;
            let mapping = MmapRegionBuilder::new(host_length)
                .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
                .with_mmap_flags(backing.map_flags())
                .with_hugetlbfs(matches!(backing, Backing::HugePages { .. }))
                .with_file_offset(FileOffset::from_arc(Arc::clone(&file), offset))
                .build()
                .map_err(MemoryError::Map)?;
            exclude_from_core_dumps(&mapping);
            let region = GuestRegionMmap::new(mapping, GuestAddress(range.start))
                .ok_or(MemoryError::TooLarge { size })?;
            regions.push(region);
        }
        let map = GuestMemoryMmap::from_regions(regions).map_err(MemoryError::Regions)?;
        Ok(Self {
            map,
            backing: Arc::new(backing),
            size,
            low_end: low.end,
            file_size,
            blocks,
        })
    }

    /// The memory as devices reach it: what is not plugged is no RAM to them.
    #[must_use]
    pub fn ram(&self) -> GuestRam {
        match &self.blocks {
            Some(blocks) => GuestRam::with_blocks(self.map.clone(), Arc::clone(blocks)),
            None => GuestRam::new(self.map.clone()),
        }
    }

    /// The blocks that can be plugged in, if there are any.
    #[must_use]
    pub fn blocks(&self) -> Option<&Arc<Blocks>> {
        self.blocks.as_ref()
    }

    /// The blocks that the `len` bytes at guest-physical `address` are: the number of each, and what KVM
    /// needs to make a memory slot of it. None if those are no whole blocks.
    pub fn block_regions(
        &self,
        address: u64,
        len: u64,
    ) -> impl Iterator<Item = (u32, RamRegion)> + '_ {
        let blocks = self.blocks.as_ref().filter(|blocks| {
            len % blocks.block_bytes() == 0
                && blocks.run(address, len / blocks.block_bytes()).is_some()
        });
        let found = blocks.and_then(|blocks| {
            let region = self.map.find_region(GuestAddress(address))?;
            let host = region.as_ptr() as u64 + (address - region.start_addr().0);
            let first = (address - blocks.range().start) / blocks.block_bytes();
            Some((first, host, blocks.block_bytes()))
        });
        found.into_iter().flat_map(move |(first, host, size)| {
            (0..len / size).filter_map(move |index| {
                let region = RamRegion {
                    guest_address: address + index * size,
                    size,
                    host_address: host + index * size,
                };
                Some((u32::try_from(first + index).ok()?, region))
            })
        })
    }

    /// The mapped regions, for reads and writes by guest-physical address.
    #[must_use]
    pub fn map_ref(&self) -> &GuestMemoryMmap<()> {
        &self.map
    }

    /// What the memory is made of.
    #[must_use]
    pub fn backing(&self) -> &Backing {
        &self.backing
    }

    /// Bytes of RAM that the machine starts with, the gap not counted.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// End of the RAM below the gap, in guest-physical bytes.
    #[must_use]
    pub fn low_end(&self) -> u64 {
        self.low_end
    }

    /// The pieces of RAM that the machine starts with, in ascending order, one memory slot each.
    pub fn regions(&self) -> impl Iterator<Item = RamRegion> + '_ {
        let blocks = self.blocks.as_ref();
        let end = blocks.map_or(u64::MAX, |blocks| blocks.range().start);
        let regions = self.map.iter();
        let regions = regions.filter(move |region| region.start_addr().0 < end);
        regions.map(|region| RamRegion {
            guest_address: region.start_addr().0,
            size: region.len(),
            host_address: region.as_ptr() as u64,
        })
    }

    /// The end of all addresses of RAM, plugged or not.
    #[must_use]
    pub fn end(&self) -> u64 {
        let ends = self
            .map
            .iter()
            .map(|region| region.start_addr().0 + region.len());
        ends.max().unwrap_or(0)
    }

    /// Puts every byte back to what it was when the machine started: zero, or the base's content
    /// for [`Backing::PrivateCopy`]. For a reset; no vCPU and no device may be running.
    ///
    /// # Errors
    /// [`MemoryError::Discard`] if the host refuses; the content is then undefined.
    pub fn discard(&self) -> Result<(), MemoryError> {
        match self.backing.as_ref() {
            Backing::Shared { fd } | Backing::HugePages { fd, .. } => {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                rustix::fs::fallocate(fd, flags, 0, self.file_size).map_err(MemoryError::Discard)
            }
            Backing::PrivateCopy { .. } => self.map.iter().try_for_each(drop_private_pages),
        }
    }

    /// The descriptor behind the memory, to be passed on to a process that maps it too; `None` if
    /// the backing cannot be shared.
    #[must_use]
    pub fn shareable_fd(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        match self.backing.as_ref() {
            Backing::Shared { fd } | Backing::HugePages { fd, .. } => Some(fd.as_fd()),
            Backing::PrivateCopy { .. } => None,
        }
    }
}

/// That memory of this backing can come and go in such blocks, and lies behind the rest of it in the file.
fn check_pluggable(backing: &Backing, size: u64, plug: Pluggable) -> Result<(), MemoryError> {
    let private = matches!(backing, Backing::PrivateCopy { .. });
    let granule = backing.granule();
    let whole = plug.block_bytes % granule == 0 && plug.file_offset % granule == 0;
    if private || !whole || plug.file_offset < size {
        return Err(MemoryError::NotPluggable(plug.block_bytes));
    }
    Ok(())
}

/// Keeps guest memory out of a core dump of the worker. A host that cannot do that is no reason not
/// to start: the worker's core limit is zero as well.
#[expect(unsafe_code, reason = "madvise takes a raw mapping")]
fn exclude_from_core_dumps(mapping: &vm_memory::MmapRegion<()>) {
    // SAFETY: the pointer and the size describe exactly the live mapping owned by `mapping`, and
    // this advice changes neither its content nor its protection.
    let advised = unsafe {
        rustix::mm::madvise(
            mapping.as_ptr().cast(),
            mapping.size(),
            rustix::mm::Advice::LinuxDontDump,
        )
    };
    if let Err(errno) = advised {
        tracing::debug!(%errno, "guest memory stays in core dumps");
    }
}

/// Drops the written pages of a private mapping, which then shows its file's content again.
#[expect(unsafe_code, reason = "madvise takes a raw mapping")]
fn drop_private_pages(region: &GuestRegionMmap<()>) -> Result<(), MemoryError> {
    // SAFETY: the pointer and the size describe exactly the live mapping owned by `region`. Its
    // content changes under nobody: guest memory is only ever reached through volatile accesses.
    unsafe {
        rustix::mm::madvise(
            region.as_ptr().cast(),
            region.size(),
            rustix::mm::Advice::LinuxDontNeed,
        )
    }
    .map_err(MemoryError::Discard)
}
