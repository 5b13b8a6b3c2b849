//! Guest RAM as devices reach it: by guest-physical address, checked, and through volatile accesses.
//!
//! The guest writes this memory at any instant, so nothing here gives out a Rust slice of it, and a
//! caller reads a field once and checks the copy. Only RAM is translated: an address of a device's
//! window is [`OutsideRam`] like any hole, so no device can be made to access another.

use std::sync::atomic::Ordering;

use vm_memory::{
    AtomicAccess, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion,
    GuestRegionMmap, MemoryRegionAddress, VolatileSlice,
};

/// An address range that is not wholly inside one piece of RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{len:#x} bytes at {address:#x} are not in RAM")]
pub struct OutsideRam {
    /// First guest-physical address.
    pub address: u64,
    /// Length in bytes.
    pub len: u64,
}

/// The RAM of one guest. A clone refers to the same memory.
#[derive(Debug, Clone)]
pub struct GuestRam(GuestMemoryMmap<()>);

impl GuestRam {
    /// The RAM that `map` describes.
    #[must_use]
    pub fn new(map: GuestMemoryMmap<()>) -> Self {
        Self(map)
    }

    /// The `len` bytes at `address`, which lie in one contiguous piece of RAM.
    ///
    /// # Errors
    /// [`OutsideRam`]; also when the end of the range has no address.
    pub fn slice(&self, address: u64, len: usize) -> Result<VolatileSlice<'_, ()>, OutsideRam> {
        let outside = OutsideRam {
            address,
            len: len as u64,
        };
        let region = self.region(address).ok_or(outside)?;
        let offset = address - region.start_addr().0;
        region
            .get_slice(MemoryRegionAddress(offset), len)
            .map_err(|_| outside)
    }

    /// Whether the `len` bytes at `address` lie in one contiguous piece of RAM.
    #[must_use]
    pub fn contains(&self, address: u64, len: u64) -> bool {
        self.region(address).is_some_and(|region| {
            let room = region.len() - (address - region.start_addr().0);
            len <= room
        })
    }

    /// Each piece of RAM: its first guest-physical address, its bytes, and where it is mapped in this process.
    /// For those who have somebody else access it, by addresses of this process.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = (u64, u64, u64)> + '_ {
        self.0.iter().map(|region| {
            let mapped = region.as_ptr() as u64;
            (region.start_addr().0, region.len(), mapped)
        })
    }

    /// The piece of RAM that `address` is in. Most machines have one or two, for which looking costs less
    /// than searching; it is done several times for each request.
    fn region(&self, address: u64) -> Option<&GuestRegionMmap<()>> {
        self.0
            .iter()
            .take(2)
            .find(|region| address.wrapping_sub(region.start_addr().0) < region.len())
            .or_else(|| self.0.find_region(GuestAddress(address)))
    }

    /// Copies from RAM into `data`, once.
    ///
    /// # Errors
    /// [`OutsideRam`]; nothing is copied then.
    pub fn read(&self, address: u64, data: &mut [u8]) -> Result<(), OutsideRam> {
        self.slice(address, data.len())?.copy_to(data);
        Ok(())
    }

    /// Copies `data` into RAM.
    ///
    /// # Errors
    /// [`OutsideRam`]; nothing is copied then.
    pub fn write(&self, address: u64, data: &[u8]) -> Result<(), OutsideRam> {
        self.slice(address, data.len())?.copy_from(data);
        Ok(())
    }

    /// Reads an aligned integer in one access.
    ///
    /// # Errors
    /// [`OutsideRam`], also for an address that is not aligned to its size.
    pub fn load<T: AtomicAccess>(&self, address: u64, order: Ordering) -> Result<T, OutsideRam> {
        let slice = self.slice(address, size_of::<T>())?;
        slice.load(0, order).map_err(|_| OutsideRam {
            address,
            len: size_of::<T>() as u64,
        })
    }

    /// Writes an aligned integer in one access.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub fn store<T: AtomicAccess>(
        &self,
        address: u64,
        value: T,
        order: Ordering,
    ) -> Result<(), OutsideRam> {
        let slice = self.slice(address, size_of::<T>())?;
        slice.store(value, 0, order).map_err(|_| OutsideRam {
            address,
            len: size_of::<T>() as u64,
        })
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// `size` bytes of RAM from address 0.
    pub(crate) fn ram(size: usize) -> GuestRam {
        GuestRam::new(
            GuestMemoryMmap::from_ranges(&[(GuestAddress(0), size)]).expect("memory for a test"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_pieces() -> GuestRam {
        let ranges = [
            (GuestAddress(0), 0x2000),
            (GuestAddress(0x1_0000_0000), 0x1000),
        ];
        GuestRam::new(GuestMemoryMmap::from_ranges(&ranges).expect("memory for a test"))
    }

    #[test]
    fn only_ranges_wholly_in_one_piece_are_ram() {
        let ram = two_pieces();
        for (address, len, inside) in [
            (0, 0x2000, true),
            (0x1fff, 1, true),
            (0x1fff, 2, false),
            (0x2000, 1, false),
            (0x1_0000_0000, 0x1000, true),
            (0xffff_ffff, 2, false),
            (u64::MAX, 1, false),
            (0, u64::MAX, false),
            (u64::MAX, u64::MAX, false),
        ] {
            assert_eq!(
                ram.contains(address, len),
                inside,
                "{len:#x} at {address:#x}"
            );
            if let Ok(len) = usize::try_from(len) {
                assert_eq!(
                    ram.slice(address, len).is_ok(),
                    inside,
                    "{len:#x} at {address:#x}"
                );
            }
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let ram = two_pieces();
        ram.write(0x1_0000_0ffc, &[1, 2, 3, 4]).expect("in RAM");
        assert_eq!(
            ram.load(0x1_0000_0ffc, Ordering::Acquire),
            Ok(0x0403_0201_u32)
        );
        ram.store(0x10, 0xabcd_u16, Ordering::Release)
            .expect("in RAM");
        let mut bytes = [0; 2];
        ram.read(0x10, &mut bytes).expect("in RAM");
        assert_eq!(bytes, [0xcd, 0xab]);
    }

    #[test]
    fn an_integer_that_is_not_aligned_is_refused() {
        assert!(two_pieces().load::<u16>(0x11, Ordering::Relaxed).is_err());
    }
}
