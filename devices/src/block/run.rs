//! A run of guest memory: the part of a request's buffers that one transfer fills or empties.

use std::io;

use vm_memory::VolatileSlice;
use vm_memory::bitmap::Bitmap;

use crate::memory::GuestRam;
use crate::virtio::chain::{Span, slices};

/// The `len` bytes behind the first `skip` of `spans`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run<'a> {
    pub(super) spans: &'a [Span],
    pub(super) skip: u64,
    pub(super) len: u64,
}

/// Memory of the guest is not there any more: it has unplugged what a request is of.
pub(super) fn unplugged() -> io::Error {
    io::Error::from_raw_os_error(libc::EFAULT)
}

/// What unmapped storage reads as.
const ZEROES: [u8; 4096] = [0; 4096];

impl<'a> Run<'a> {
    /// At most `len` of its bytes, behind the first `skip`.
    pub(super) fn part(self, skip: u64, len: u64) -> Self {
        Self {
            spans: self.spans,
            skip: self.skip.saturating_add(skip),
            len: self.len.saturating_sub(skip).min(len),
        }
    }

    /// Its pieces of memory, in order.
    pub(super) fn slices(
        self,
        ram: &'a GuestRam,
    ) -> impl Iterator<Item = VolatileSlice<'a, ()>> + 'a {
        slices(ram, self.spans, self.skip, self.len)
    }

    /// Fills it with zeroes.
    pub(super) fn zero(self, ram: &GuestRam) {
        for slice in self.slices(ram) {
            let mut done = 0;
            while let Some(rest) = slice
                .len()
                .checked_sub(done)
                .filter(|rest| *rest > 0)
                .and_then(|rest| slice.subslice(done, rest.min(ZEROES.len())).ok())
            {
                rest.copy_from(ZEROES.get(..rest.len()).unwrap_or_default());
                done += rest.len();
            }
        }
    }

    /// Copies `data` into it, as far as it goes; gives how many bytes.
    pub(super) fn fill(self, ram: &GuestRam, data: &[u8]) -> usize {
        let mut rest = data;
        for slice in self.slices(ram) {
            let (now, later) = rest.split_at(slice.len().min(rest.len()));
            slice.copy_from(now);
            rest = later;
        }
        data.len() - rest.len()
    }

    /// Copies it into `data`, as far as that goes; gives how many bytes.
    pub(super) fn empty(self, ram: &GuestRam, data: &mut [u8]) -> usize {
        let mut done = 0;
        for slice in self.slices(ram) {
            done += slice.copy_to(data.get_mut(done..).unwrap_or_default());
        }
        done
    }

    /// Notes that the host's kernel wrote to it, for whoever tracks changes of memory.
    pub(super) fn mark_written(self, ram: &GuestRam) {
        for slice in self.slices(ram) {
            slice.bitmap().mark_dirty(0, slice.len());
        }
    }

    /// Whether each piece begins at a multiple of `memory` in this process, and is of a multiple of
    /// `block` bytes.
    pub(super) fn is_aligned(self, ram: &GuestRam, memory: u64, block: u64) -> bool {
        self.slices(ram).all(|slice| {
            let address = slice.ptr_guard().as_ptr().addr() as u64;
            address % memory == 0 && slice.len() as u64 % block == 0
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::testing::ram;

    #[test]
    fn a_run_is_filled_emptied_and_zeroed_within_its_bounds() {
        let ram = ram(0x10000);
        let spans = [(0x100, 3), (0x2000, 0x1800)].map(|(address, len)| Span { address, len });
        let run = Run {
            spans: &spans,
            skip: 1,
            len: 0x1800,
        };
        ram.write(0, &[7; 0x8000]).expect("in RAM");
        run.zero(&ram);
        let mut bytes = [0; 4];
        ram.read(0x100, &mut bytes).expect("in RAM");
        assert_eq!(bytes, [7, 0, 0, 7]);
        ram.read(0x37fc, &mut bytes).expect("in RAM");
        assert_eq!(bytes, [0, 0, 7, 7]);
        run.part(1, 3).fill(&ram, &[1, 2, 3, 4]);
        ram.read(0x101, &mut bytes).expect("in RAM");
        assert_eq!(bytes, [0, 1, 7, 7]);
        let mut bytes = [9; 4];
        run.part(0, 4).empty(&ram, &mut bytes);
        assert_eq!(bytes, [0, 1, 2, 3]);
    }
}
