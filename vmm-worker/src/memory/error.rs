//! Why guest memory could not be mapped; each message is one line for an operator.

/// An error of [`GuestMemory::map`](super::GuestMemory::map) or
/// [`GuestMemory::discard`](super::GuestMemory::discard).
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The size is below the minimum or no multiple of the backing's page size.
    #[error(
        "memory size {size} bytes must be at least {} bytes and a multiple of {granule} bytes",
        super::MIN_SIZE
    )]
    Size {
        /// Asked for, in bytes.
        size: u64,
        /// The backing's page size in bytes.
        granule: u64,
    },
    /// The size has no place in the address space.
    #[error("memory size {size} bytes exceeds the address space")]
    TooLarge {
        /// Asked for, in bytes.
        size: u64,
    },
    /// The descriptor cannot be examined or duplicated.
    #[error("memory descriptor is unusable")]
    Descriptor(#[source] rustix::io::Errno),
    /// The file is shorter than the memory.
    #[error("memory descriptor has {actual} bytes, the machine needs {needed}")]
    Short {
        /// Bytes in the file.
        actual: u64,
        /// Bytes of memory.
        needed: u64,
    },
    /// The file could shrink under the guest, which would kill the worker with SIGBUS.
    #[error("memory descriptor is not sealed against a change of its size")]
    NotSealed,
    /// What can be plugged in makes no blocks.
    #[error("memory that can be plugged in is impossible")]
    Blocks(#[from] reeve_devices::memory::blocks::NoBlocks),
    /// Blocks of memory that is mapped privately, or that are no whole pages of it.
    #[error("memory of this kind cannot be plugged in blocks of {0} bytes")]
    NotPluggable(u64),
    /// The page size given is no power of two of at least a page.
    #[error("{0} is no page size")]
    PageSize(u64),
    /// The mapping failed.
    #[error("guest memory could not be mapped")]
    Map(#[source] vm_memory::mmap::MmapRegionError),
    /// The regions do not form one address map (a bug of the layout).
    #[error("guest memory regions do not fit together")]
    Regions(#[source] vm_memory::GuestRegionCollectionError),
    /// Content could not be dropped.
    #[error("guest memory could not be cleared")]
    Discard(#[source] rustix::io::Errno),
}
