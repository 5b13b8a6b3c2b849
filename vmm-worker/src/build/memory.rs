//! From the specification's memory to a mapping of it.

use reeve_ipc::fd::FdTable;
use reeve_ipc::spec::{MemoryBacking, MemorySpec};

use super::BuildError;
use crate::memory::{Backing, GuestMemory};

pub(super) fn map(spec: &MemorySpec, descriptors: &mut FdTable) -> Result<GuestMemory, BuildError> {
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
    Ok(GuestMemory::map(backing, spec.size_bytes)?)
}
