//! From the specification's memory to a mapping of it.

use reeve_ipc::fd::FdTable;
use reeve_ipc::spec::{MemoryBacking, MemorySpec};

use super::BuildError;
use crate::memory::{Backing, GuestMemory, MemoryError, Pluggable};

/// Maps it for a guest whose CPUs have physical addresses of `address_bits` bits, with a gap below 4 GiB that
/// begins at `gap_start`.
pub(super) fn map(
    spec: &MemorySpec,
    address_bits: u32,
    gap_start: u64,
    descriptors: &mut FdTable,
) -> Result<GuestMemory, BuildError> {
    let backing = match spec.backing {
        MemoryBacking::Shared { fd } => Backing::Shared {
            fd: descriptors.take(fd)?,
        },
        MemoryBacking::HugePages { fd, page_bytes } => Backing::HugePages {
            fd: descriptors.take(fd)?,
            page_size: page_bytes,
        },
        MemoryBacking::PrivateCopy { fd } => Backing::PrivateCopy {
            fd: descriptors.take(fd)?,
        },
    };
    let pluggable = match (spec.pluggable, spec.pluggable_offset()) {
        (Some(pluggable), Some(file_offset)) => Some(Pluggable {
            bytes: pluggable.bytes,
            block_bytes: pluggable.block_bytes,
            file_offset,
        }),
        (Some(pluggable), None) => {
            let size = pluggable.bytes;
            return Err(MemoryError::TooLarge { size }.into());
        }
        (None, _) => None,
    };
    let memory = GuestMemory::map_around(backing, spec.size_bytes, pluggable, gap_start)?;
    if let Some(blocks) = memory.blocks() {
        let (end, space) = (blocks.range().end, 1_u64.checked_shl(address_bits));
        if space.is_some_and(|space| end > space) {
            return Err(BuildError::Unaddressable { end, address_bits });
        }
    }
    Ok(memory)
}
