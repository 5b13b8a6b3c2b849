//! Memory that the guest reads and runs from, and cannot write.

use std::io;

use reeve_devices::memory::GuestRam;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use super::{PAGE_SIZE, RamRegion};
use crate::arch::x86_64::layout;
use crate::boot::Source;

/// The largest image: what there is room for between the local APICs and 4 GiB.
const MAX_BYTES: u64 = 16 << 20;

/// An image in the address space. It is no RAM: no device reaches it, but for the flash whose array it is.
#[derive(Debug)]
pub struct Rom {
    map: GuestMemoryMmap<()>,
    address: u64,
    size: u64,
}

/// Why an image cannot be there; each message is one line for whoever chose it.
#[derive(Debug, thiserror::Error)]
pub enum RomError {
    /// It cannot be read.
    #[error("the firmware image cannot be read")]
    Read(#[source] io::Error),
    /// No whole pages, none, or too many.
    #[error(
        "a firmware image of {0} bytes cannot be mapped: it is no multiple of 4096 up to 16 MiB"
    )]
    Size(u64),
    /// It would begin more than 16 MiB below 4 GiB.
    #[error(
        "a firmware image of {0} bytes cannot be mapped: with the others it is more than 16 MiB"
    )]
    NoRoom(u64),
    /// The host has no memory for it.
    #[error("no memory for the firmware image")]
    Map(#[source] vm_memory::mmap::FromRangesError),
}

impl Rom {
    /// Reads the whole of `image` into memory of its own that ends before the guest-physical address `end`, a
    /// multiple of [`PAGE_SIZE`] up to 4 GiB.
    ///
    /// # Errors
    /// [`RomError`].
    pub fn load<S: Source + ?Sized>(image: &S, end: u64) -> Result<Self, RomError> {
        let size = image.length().map_err(RomError::Read)?;
        let refusal = RomError::Size(size);
        if size == 0 || size % PAGE_SIZE != 0 || size > MAX_BYTES {
            return Err(refusal);
        }
        let (Some(address), Ok(len)) = (end.checked_sub(size), usize::try_from(size)) else {
            return Err(refusal);
        };
        if address < layout::MMIO_GAP_END - MAX_BYTES {
            return Err(RomError::NoRoom(size));
        }
        let place = GuestAddress(address);
        let map = GuestMemoryMmap::from_ranges(&[(place, len)]).map_err(RomError::Map)?;
        image
            .load_at(0, &map, address, len)
            .map_err(RomError::Read)?;
        Ok(Self { map, address, size })
    }

    /// Its last bytes, at most as many as `out` has room for, at the end of `out`; how many there are not.
    ///
    /// # Errors
    /// The mapping is not what it was made as (a bug).
    pub fn read_end(&self, out: &mut [u8]) -> Result<usize, vm_memory::GuestMemoryError> {
        let wanted = u64::try_from(out.len()).unwrap_or(u64::MAX);
        let known = wanted.min(self.size);
        let missing = usize::try_from(wanted - known).unwrap_or(0);
        let from = GuestAddress(self.address + (self.size - known));
        self.map
            .read_slice(out.get_mut(missing..).unwrap_or_default(), from)?;
        Ok(missing)
    }

    /// Its first guest-physical address.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Its bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The memory as the one device reaches it whose content it is.
    #[must_use]
    pub fn ram(&self) -> GuestRam {
        GuestRam::new(self.map.clone())
    }

    /// What KVM needs to make a memory slot of it.
    pub fn region(&self) -> Option<RamRegion> {
        let region = self.map.iter().next()?;
        Some(RamRegion {
            guest_address: self.address,
            size: self.size,
            host_address: region.as_ptr() as u64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: u64 = 1 << 32;

    #[test]
    fn an_image_ends_where_it_shall() {
        let mut image = vec![7; 8192];
        image[8191] = 9;
        let rom = Rom::load(image.as_slice(), END).unwrap();
        let region = rom.region().unwrap();
        assert_eq!((region.guest_address, region.size), (END - 8192, 8192));
        let mut end = [0; 2];
        assert_eq!(rom.read_end(&mut end).unwrap(), 0);
        assert_eq!(end, [7, 9]);
        let mut more = vec![1; 8193];
        assert_eq!(rom.read_end(&mut more).unwrap(), 1);
        assert_eq!((more[0], more[1], more[8192]), (1, 7, 9));
    }

    #[test]
    fn images_one_below_the_other_have_16_mib() {
        let image = vec![0; 8 << 20];
        let below = |end| Rom::load(image.as_slice(), end).map(|rom| rom.address());
        let first = below(END).unwrap();
        let second = below(first).unwrap();
        assert_eq!(second, END - (16 << 20));
        assert!(matches!(below(second + 4096), Err(RomError::NoRoom(_))));
    }

    #[test]
    fn no_pages_no_image() {
        for bytes in [0, 1, 4095, 4097, (16 << 20) + 4096] {
            let image = vec![0; bytes];
            let refused = Rom::load(image.as_slice(), END);
            assert!(matches!(refused, Err(RomError::Size(_))), "{bytes}");
        }
    }
}
