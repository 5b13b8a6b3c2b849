//! Reading guest memory for somebody else than the guest.

use reeve_devices::memory::OutsideRam;
use rustix::io::Errno;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use super::{Backing, GuestMemory};

/// Why no memory was read.
#[derive(Debug, thiserror::Error)]
pub enum PeekError {
    /// There is none, or none that is plugged.
    #[error("no memory of the guest's: {0}")]
    Outside(#[from] OutsideRam),
    /// The host could not read it.
    #[error("the guest's memory was not read: {0}")]
    Host(Errno),
}

impl GuestMemory {
    /// Copies guest memory that lies in one piece of RAM, and makes no page of it resident: what its guest has lent
    /// or never used reads as zeroes and stays the host's. A look through the mapping would allocate it, at the
    /// cost of the machine's own limit.
    ///
    /// # Errors
    /// [`PeekError`].
    pub fn peek(&self, address: u64, data: &mut [u8]) -> Result<(), PeekError> {
        let ram = self.ram();
        let piece = ram.slice(address, data.len())?;
        let region = self.map.find_region(GuestAddress(address));
        let place = region.and_then(|region| {
            let start = region.file_offset()?.start();
            start.checked_add(address.checked_sub(region.start_addr().0)?)
        });
        match (self.backing.as_ref(), place) {
            // The file is the memory, and a hole of it is read as one.
            (Backing::Shared { fd } | Backing::HugePages { fd, .. }, Some(mut place)) => {
                let mut left = data;
                while !left.is_empty() {
                    let read = match rustix::io::pread(fd, &mut *left, place) {
                        Ok(0) => return Err(PeekError::Host(Errno::IO)),
                        Ok(read) => read,
                        Err(Errno::INTR) => continue,
                        Err(errno) => return Err(PeekError::Host(errno)),
                    };
                    left = left.get_mut(read..).unwrap_or_default();
                    place = place.saturating_add(read as u64);
                }
            }
            // What is not written there is the file's page, which is there for all.
            (Backing::PrivateCopy { .. }, _) | (_, None) => {
                piece.copy_to(data);
            }
        }
        Ok(())
    }
}
