//! The guest's memory as a back end maps it.
//!
//! The protocol has a back end translate "user addresses", those of the front end's own mapping. Here
//! they are the guest's: a back end cannot tell the difference, and learns nothing of where things are in
//! this process.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use vm_memory::{GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use crate::virtio::vhost;

/// The most regions that a back end takes (`VHOST_MEMORY_MAX_NREGIONS`).
pub(super) const MAX_REGIONS: usize = 8;

/// Memory that no other process can map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the guest's memory cannot be shared with another process")]
pub struct NotShared;

#[derive(Debug, Clone)]
struct Region {
    guest_address: u64,
    len: u64,
    file: Arc<File>,
    offset: u64,
}

/// What of a guest's memory is handed over.
#[derive(Debug, Clone)]
pub struct SharedMemory {
    /// At most [`MAX_REGIONS`].
    regions: Vec<Region>,
}

impl SharedMemory {
    /// All of `map`.
    ///
    /// # Errors
    /// [`NotShared`]: a piece of it is no file's, or is mapped privately, or there are too many.
    pub fn new(map: &GuestMemoryMmap<()>) -> Result<Self, NotShared> {
        let regions = map.iter().map(|region| {
            let file = region.file_offset().ok_or(NotShared)?;
            if region.flags() & libc::MAP_SHARED == 0 {
                return Err(NotShared);
            }
            Ok(Region {
                guest_address: region.start_addr().0,
                len: region.len(),
                file: Arc::clone(file.arc()),
                offset: file.start(),
            })
        });
        let regions = regions.collect::<Result<Vec<_>, _>>()?;
        if regions.len() > MAX_REGIONS {
            return Err(NotShared);
        }
        Ok(Self { regions })
    }

    /// The body of the message (`struct VhostUserMemory`), whose descriptors are [`Self::files`].
    pub(super) fn table(&self) -> Vec<u8> {
        vhost::memory_table(self.regions.iter().map(|region| {
            [
                region.guest_address,
                region.len,
                region.guest_address,
                region.offset,
            ]
        }))
    }

    pub(super) fn files(&self) -> Vec<BorrowedFd<'_>> {
        self.regions
            .iter()
            .map(|region| region.file.as_fd())
            .collect()
    }
}
