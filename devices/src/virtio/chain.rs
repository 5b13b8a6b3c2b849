//! A descriptor chain: what a driver hands over in one request (virtio 1.3 §2.7).
//!
//! [`Queue::pop`](super::queue::Queue::pop) fills one in. By then every descriptor was read once, and
//! lies wholly in RAM, and the readable ones come first; what they point to is still the guest's to
//! change at any instant.

use vm_memory::VolatileSlice;

use crate::memory::GuestRam;

/// One buffer of a chain, wholly in one piece of RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Guest-physical address.
    pub address: u64,
    /// Length in bytes, not zero.
    pub len: u32,
}

/// One request's buffers. Reused from request to request, so that taking one allocates nothing.
#[derive(Debug, Default)]
pub struct Chain {
    pub(super) head: u16,
    pub(super) spans: Vec<Span>,
    /// How many of `spans`, from the first, the device may read; it may write the others.
    pub(super) readable: usize,
    pub(super) readable_bytes: u64,
    pub(super) writable_bytes: u64,
}

impl Chain {
    /// An empty one, with room for the buffers of an ordinary request.
    #[must_use]
    pub fn new() -> Self {
        Self {
            spans: Vec::with_capacity(32),
            ..Self::default()
        }
    }

    pub(super) fn clear(&mut self, head: u16) {
        self.head = head;
        self.spans.clear();
        self.readable = 0;
        self.readable_bytes = 0;
        self.writable_bytes = 0;
    }

    /// The number of its first descriptor, by which it is given back.
    #[must_use]
    pub fn head(&self) -> u16 {
        self.head
    }

    /// Bytes the device may read.
    #[must_use]
    pub fn readable_bytes(&self) -> u64 {
        self.readable_bytes
    }

    /// Bytes the device may write.
    #[must_use]
    pub fn writable_bytes(&self) -> u64 {
        self.writable_bytes
    }

    /// The buffers the device may read, in order.
    #[must_use]
    pub fn readable(&self) -> &[Span] {
        self.spans.get(..self.readable).unwrap_or_default()
    }

    /// The buffers the device may write, in order.
    #[must_use]
    pub fn writable(&self) -> &[Span] {
        self.spans.get(self.readable..).unwrap_or_default()
    }

    /// Copies what the device may read, from byte `offset` on, into `data`; gives how many bytes
    /// there were.
    pub fn read_at(&self, ram: &GuestRam, offset: u64, data: &mut [u8]) -> usize {
        let mut done = 0;
        for slice in slices(ram, self.readable(), offset, data.len() as u64) {
            let rest = data.get_mut(done..).unwrap_or_default();
            done += slice.copy_to(rest);
        }
        done
    }

    /// Copies `data` into what the device may write, from byte `offset` on; gives how many bytes had
    /// room.
    pub fn write_at(&self, ram: &GuestRam, offset: u64, data: &[u8]) -> usize {
        let mut done = 0;
        for slice in slices(ram, self.writable(), offset, data.len() as u64) {
            let rest = data.get(done..).unwrap_or_default();
            let len = slice.len().min(rest.len());
            slice.copy_from(rest.get(..len).unwrap_or_default());
            done += len;
        }
        done
    }

    /// At most `len` bytes that the device may read, from byte `offset` on.
    pub fn readable_slices<'a>(
        &'a self,
        ram: &'a GuestRam,
        offset: u64,
        len: u64,
    ) -> impl Iterator<Item = VolatileSlice<'a, ()>> + 'a {
        slices(ram, self.readable(), offset, len)
    }

    /// At most `len` bytes that the device may write, from byte `offset` on.
    pub fn writable_slices<'a>(
        &'a self,
        ram: &'a GuestRam,
        offset: u64,
        len: u64,
    ) -> impl Iterator<Item = VolatileSlice<'a, ()>> + 'a {
        slices(ram, self.writable(), offset, len)
    }
}

/// The parts of `spans` that make up the `len` bytes behind the first `skip`. They were in RAM when the chain
/// was taken, and RAM does not move; but a guest may have unplugged a block of it since: what comes before
/// such a place is there, and nothing behind it.
pub fn slices<'a>(
    ram: &'a GuestRam,
    spans: &'a [Span],
    skip: u64,
    len: u64,
) -> impl Iterator<Item = VolatileSlice<'a, ()>> + 'a {
    let (mut skip, mut left) = (skip, len);
    let mut whole_so_far = true;
    spans.iter().filter_map(move |span| {
        let whole = u64::from(span.len);
        let skipped = skip.min(whole);
        skip -= skipped;
        let taken = (whole - skipped).min(left);
        left -= taken;
        if taken == 0 || !whole_so_far {
            return None;
        }
        let len = usize::try_from(taken).ok()?;
        let slice = ram.slice(span.address + skipped, len).ok();
        whole_so_far = slice.is_some();
        slice
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::testing::ram;

    fn chain() -> Chain {
        Chain {
            spans: [(0, 4), (0x100, 2), (0x200, 3), (0x300, 5)]
                .map(|(address, len)| Span { address, len })
                .to_vec(),
            readable: 2,
            readable_bytes: 6,
            writable_bytes: 8,
            ..Chain::default()
        }
    }

    #[test]
    fn bytes_are_read_across_buffers_from_any_offset() {
        let ram = ram(0x1000);
        ram.write(0, &[1, 2, 3, 4]).expect("in RAM");
        ram.write(0x100, &[5, 6]).expect("in RAM");
        let mut data = [0; 8];
        assert_eq!(chain().read_at(&ram, 0, &mut data), 6);
        assert_eq!(data, [1, 2, 3, 4, 5, 6, 0, 0]);
        let mut two = [0; 2];
        assert_eq!(chain().read_at(&ram, 3, &mut two), 2);
        assert_eq!(two, [4, 5]);
        assert_eq!(chain().read_at(&ram, 6, &mut two), 0);
        assert_eq!(chain().read_at(&ram, u64::MAX, &mut two), 0);
    }

    #[test]
    fn bytes_are_written_across_buffers_and_no_further() {
        let ram = ram(0x1000);
        assert_eq!(chain().write_at(&ram, 2, &[9; 20]), 6);
        let mut data = [0; 4];
        ram.read(0x200, &mut data).expect("in RAM");
        assert_eq!(data, [0, 0, 9, 0]);
        let mut data = [0; 6];
        ram.read(0x300, &mut data).expect("in RAM");
        assert_eq!(data, [9, 9, 9, 9, 9, 0]);
    }
}
