//! Giving parts of guest memory back to the host while the guest runs.

use std::io;

use reeve_devices::virtio::balloon::PageReturn;
use rustix::fs::FallocateFlags;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryRegion, MemoryRegionAddress};

use super::{Backing, GuestMemory};

/// Gives back what a balloon or a report of free pages names.
#[derive(Debug)]
pub struct PageReturner {
    memory: GuestMemory,
}

impl PageReturner {
    /// That of this memory.
    #[must_use]
    pub fn new(memory: GuestMemory) -> Self {
        Self { memory }
    }
}

impl PageReturn for PageReturner {
    fn give_back(&self, address: u64, len: u64) -> io::Result<()> {
        self.memory.give_back(address, len)
    }
}

impl GuestMemory {
    /// Frees the host's memory behind `len` bytes at guest-physical `address`, whole pages of the
    /// backing in one piece of RAM, plugged or not. They then read as they did when the machine started.
    ///
    /// # Errors
    /// `InvalidInput` for a range that is not in one piece of RAM; the host's.
    pub fn give_back(&self, address: u64, len: u64) -> io::Result<()> {
        let outside = || io::Error::from(io::ErrorKind::InvalidInput);
        let region = self
            .map
            .find_region(GuestAddress(address))
            .ok_or_else(outside)?;
        let offset = address - region.start_addr().0;
        let end = offset.checked_add(len).ok_or_else(outside)?;
        if end > region.len() {
            return Err(outside());
        }
        match self.backing.as_ref() {
            Backing::Shared { fd } | Backing::HugePages { fd, .. } => {
                let start = region
                    .file_offset()
                    .map(|file| file.start())
                    .ok_or_else(outside)?;
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                Ok(rustix::fs::fallocate(fd, flags, start + offset, len)?)
            }
            Backing::PrivateCopy { .. } => {
                let host = region
                    .get_host_address(MemoryRegionAddress(offset))
                    .map_err(|_| outside())?;
                let len = usize::try_from(len).map_err(|_| outside())?;
                Ok(drop_pages(host, len)?)
            }
        }
    }
}

/// Drops the written pages of a part of a private mapping, which then shows its file's content again.
#[expect(unsafe_code, reason = "madvise takes a raw mapping")]
fn drop_pages(host: *mut u8, len: usize) -> rustix::io::Result<()> {
    // SAFETY: the caller has found the range inside a live mapping of guest memory. Its content changes
    // under nobody: guest memory is only ever reached through volatile accesses.
    unsafe { rustix::mm::madvise(host.cast(), len, rustix::mm::Advice::LinuxDontNeed) }
}
