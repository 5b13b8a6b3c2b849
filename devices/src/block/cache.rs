//! Cache modes: what stands between a guest's write and stable storage.
//!
//! The names are libvirt's and QEMU's, and mean what they mean there. A mode says two things: whether
//! data passes through the host's page cache (or the file was opened with `O_DIRECT`), and who sees to
//! it that writes become durable: the guest by flushes, this side with every write, or nobody.

/// How a disk is cached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CacheMode {
    /// The page cache; durable when the guest flushes.
    #[default]
    Writeback,
    /// No page cache; durable when the guest flushes.
    None,
    /// The page cache; every write is durable when it completes.
    Writethrough,
    /// No page cache; every write is durable when it completes.
    DirectSync,
    /// The page cache; flushes do not wait for storage, and a crash of the host loses the disk. What
    /// was flushed outlives a crash of the process.
    Unsafe,
}

impl CacheMode {
    /// Whether the disk's files are opened with `O_DIRECT`.
    #[must_use]
    pub const fn is_direct(self) -> bool {
        matches!(self, Self::None | Self::DirectSync)
    }

    /// Whether every write is made durable before it completes.
    #[must_use]
    pub const fn is_write_through(self) -> bool {
        matches!(self, Self::Writethrough | Self::DirectSync)
    }

    /// Whether flushes wait for stable storage.
    #[must_use]
    pub const fn honours_flush(self) -> bool {
        !matches!(self, Self::Unsafe)
    }
}
