//! What guest memory is made of, and the checks on the descriptor that bears it.
//!
//! The module page has the table of what each variant allows.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::SealFlags;

use super::{MemoryError, PAGE_SIZE};

/// Where the bytes of guest memory come from.
#[derive(Debug)]
pub enum Backing {
    /// A memfd sealed against growing and shrinking, mapped shared. The default.
    Shared {
        /// The memfd.
        fd: OwnedFd,
    },
    /// A file of huge pages, mapped shared.
    HugePages {
        /// The file on hugetlbfs, or a memfd made of huge pages.
        fd: OwnedFd,
        /// Size of its pages in bytes.
        page_size: u64,
    },
    /// The saved memory of a base machine, mapped copy-on-write.
    PrivateCopy {
        /// The base's memory; only read.
        fd: OwnedFd,
    },
}

impl Backing {
    /// Bytes of a page of the host behind it.
    #[must_use]
    pub fn page_bytes(&self) -> u64 {
        self.granule()
    }

    /// The unit of sizes in bytes.
    pub(super) fn granule(&self) -> u64 {
        match self {
            Self::HugePages { page_size, .. } => (*page_size).max(PAGE_SIZE),
            Self::Shared { .. } | Self::PrivateCopy { .. } => PAGE_SIZE,
        }
    }

    /// Flags of `mmap`. No swap is reserved: the memory limit of the domain is its cgroup's.
    pub(super) fn map_flags(&self) -> i32 {
        let sharing = match self {
            Self::Shared { .. } | Self::HugePages { .. } => libc::MAP_SHARED,
            Self::PrivateCopy { .. } => libc::MAP_PRIVATE,
        };
        sharing | libc::MAP_NORESERVE
    }

    /// Whether the descriptor can bear `size` bytes of memory for as long as the guest runs.
    pub(super) fn check(&self, size: u64) -> Result<(), MemoryError> {
        if let Self::HugePages { page_size, .. } = self {
            if !page_size.is_power_of_two() || *page_size < PAGE_SIZE {
                return Err(MemoryError::PageSize(*page_size));
            }
        }
        let stat = rustix::fs::fstat(self.fd()).map_err(MemoryError::Descriptor)?;
        let actual = u64::try_from(stat.st_size).unwrap_or(0);
        if actual < size {
            return Err(MemoryError::Short {
                actual,
                needed: size,
            });
        }
        if matches!(self, Self::Shared { .. }) {
            let needed = SealFlags::SHRINK | SealFlags::GROW;
            let seals = rustix::fs::fcntl_get_seals(self.fd()).map_err(|errno| match errno {
                // Not a file that can be sealed at all.
                rustix::io::Errno::INVAL => MemoryError::NotSealed,
                other => MemoryError::Descriptor(other),
            })?;
            if !seals.contains(needed) {
                return Err(MemoryError::NotSealed);
            }
        }
        Ok(())
    }

    /// A second handle on the file, which vm-memory keeps beside the mapping.
    pub(super) fn share_file(&self) -> Result<Arc<File>, rustix::io::Errno> {
        let copy = rustix::io::fcntl_dupfd_cloexec(self.fd(), 0)?;
        Ok(Arc::new(File::from(copy)))
    }

    fn fd(&self) -> &OwnedFd {
        match self {
            Self::Shared { fd } | Self::HugePages { fd, .. } | Self::PrivateCopy { fd } => fd,
        }
    }
}
