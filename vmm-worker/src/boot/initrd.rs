//! Placing the initrd: as high as it may go below the gap, out of the way of a kernel that unpacks
//! or moves itself.

use std::io;
use std::ops::Range;

use super::{BootError, LoadedKernel, Source};
use crate::memory::{GuestMemory, PAGE_SIZE};

/// Loads the initrd and returns where it is; an empty one is an empty range.
pub(super) fn load<S: Source + ?Sized>(
    initrd: &S,
    kernel: &LoadedKernel,
    memory: &GuestMemory,
) -> Result<Range<u64>, BootError> {
    let size = initrd.length().map_err(BootError::ReadInitrd)?;
    let top = memory.low_end().min(kernel.initrd_max.saturating_add(1));
    // A kernel loaded above 4 GiB leaves all low RAM; its end is then no bound.
    let bottom = if kernel.memory.start < memory.low_end() {
        kernel.memory.end.next_multiple_of(PAGE_SIZE)
    } else {
        crate::arch::x86_64::layout::KERNEL_MIN
    };
    let available = top.saturating_sub(bottom);
    let start = top
        .checked_sub(size)
        .map(|start| start - start % PAGE_SIZE)
        .filter(|start| *start >= bottom)
        .ok_or(BootError::InitrdTooLarge { size, available })?;
    let count = usize::try_from(size).map_err(|_| BootError::InitrdTooLarge { size, available })?;
    initrd
        .load_at(0, memory.map_ref(), start, count)
        .map_err(|error| {
            let truncated = error.kind() == io::ErrorKind::UnexpectedEof;
            BootError::ReadInitrd(if truncated {
                io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "it became shorter while it was read",
                )
            } else {
                error
            })
        })?;
    Ok(start..start + size)
}
