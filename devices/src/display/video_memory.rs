//! Video memory: anonymous memory of the worker's, which the guest writes at any instant.

use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// The memory. A clone is the same memory.
#[derive(Debug, Clone)]
pub struct VideoMemory(GuestMemoryMmap<()>);

/// The host has no memory for it.
#[derive(Debug, thiserror::Error)]
#[error("no memory for the display")]
pub struct VideoMemoryError(#[source] vm_memory::mmap::FromRangesError);

impl VideoMemory {
    /// Bytes of it.
    pub const BYTES: u64 = 16 << 20;

    /// New memory, of zeroes. No page of it is touched.
    ///
    /// # Errors
    /// [`VideoMemoryError`].
    pub fn new() -> Result<Self, VideoMemoryError> {
        let bytes = usize::try_from(Self::BYTES).unwrap_or(0);
        GuestMemoryMmap::from_ranges(&[(GuestAddress(0), bytes)])
            .map(Self)
            .map_err(VideoMemoryError)
    }

    /// Where it is mapped in this process.
    #[must_use]
    pub fn host_address(&self) -> u64 {
        use vm_memory::GuestMemoryRegion as _;
        let mut regions = self.0.iter();
        regions
            .find(|region| region.len() == Self::BYTES)
            .map_or(0, |region| region.as_ptr() as u64)
    }

    /// Copies from `offset` on into `data`, once; false, and nothing copied, if that is not all inside.
    pub fn read(&self, offset: u64, data: &mut [u8]) -> bool {
        let inside = Self::holds(offset, data.len());
        inside && self.0.read_slice(data, GuestAddress(offset)).is_ok()
    }

    /// Copies `data` to `offset`; false, and nothing copied, if that is not all inside.
    pub fn write(&self, offset: u64, data: &[u8]) -> bool {
        let inside = Self::holds(offset, data.len());
        inside && self.0.write_slice(data, GuestAddress(offset)).is_ok()
    }

    fn holds(offset: u64, len: usize) -> bool {
        let end = u64::try_from(len)
            .ok()
            .and_then(|len| offset.checked_add(len));
        end.is_some_and(|end| end <= Self::BYTES)
    }
}
