//! A disk: the files it is made of, and how they are read and written.

use serde::{Deserialize, Serialize};

use super::words::words;
use super::{PciSlot, Rate};
use crate::fd::FdSlot;

/// The most files of one disk: its image and what that builds upon.
pub const MAX_LAYERS: usize = 32;
/// The most queues of a disk.
pub const MAX_DISK_QUEUES: u16 = 16;
/// The most bytes of a disk's serial number (virtio 1.3 §5.2.6).
pub const MAX_SERIAL_BYTES: usize = 20;

words! {
    /// What is in an image. Always stated: a guest that writes the beginning of another format into a raw
    /// disk must not have its next start read it as that.
    DiskFormat, "disk format" {
        /// The disk's bytes as they are.
        Raw = "raw",
        /// QEMU's copy-on-write format, version 2 or 3.
        Qcow2 = "qcow2",
    }

    /// Where what a guest writes is kept before it is on stable storage (QEMU's and libvirt's `cache`).
    CacheMode, "cache mode" {
        /// In the host's page cache, until the guest flushes.
        WriteBack = "writeback",
        /// Past the page cache (`O_DIRECT`); the guest flushes.
        None = "none",
        /// In the page cache and, before a write is answered, on stable storage.
        WriteThrough = "writethrough",
        /// Past the page cache and, before a write is answered, on stable storage.
        DirectSync = "directsync",
        /// In the page cache; the guest's flushes do nothing, and a crash of the host may cost the disk.
        Unsafe = "unsafe",
    }

    /// What moves a disk's bytes. `native`, which asks libvirt for Linux' older asynchronous calls, is
    /// read as `io_uring`.
    IoEngine, "I/O engine" {
        /// io_uring(7).
        IoUring = "io_uring" or "native",
        /// Threads that wait.
        Threads = "threads",
    }

    /// What happens to blocks that the guest does not need any more.
    Discard, "discard mode" {
        /// Nothing.
        Ignore = "ignore",
        /// Their room goes back to the file system or device.
        Unmap = "unmap",
    }
}

impl CacheMode {
    /// Whether the host's page cache is left out.
    #[must_use]
    pub const fn is_direct(self) -> bool {
        matches!(self, Self::None | Self::DirectSync)
    }
}

/// A disk (virtio 1.3 §5.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskSpec {
    /// Its place on the bus.
    pub slot: PciSlot,
    /// What messages call it, as `vda`.
    pub name: String,
    /// The image, then what it builds upon, at most [`MAX_LAYERS`]; without one there is no medium. Every
    /// one but the first is open for reading only. All were locked against other writers.
    pub layers: Vec<LayerSpec>,
    /// The guest may not write.
    pub read_only: bool,
    /// How writes are kept. Where it is direct, every layer was opened with `O_DIRECT`.
    pub cache: CacheMode,
    /// What moves the bytes.
    pub engine: IoEngine,
    /// What a discard does.
    pub discard: Discard,
    /// Its serial number, at most [`MAX_SERIAL_BYTES`] bytes of ASCII; empty for none.
    pub serial: String,
    /// Its queues, 1 to [`MAX_DISK_QUEUES`].
    pub queues: u16,
    /// Bytes of a block, as the guest sees it: 512 or 4096.
    pub block_bytes: u32,
    /// How fast it may be used.
    pub throttle: DiskThrottle,
}

/// One file of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerSpec {
    /// A regular file or block device.
    pub fd: FdSlot,
    /// What is in it.
    pub format: DiskFormat,
}

/// How fast a disk may be used (libvirt `iotune`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskThrottle {
    /// Bytes.
    pub bytes: Rates,
    /// Requests.
    pub requests: Rates,
}

impl DiskThrottle {
    /// Whether there is any bound.
    #[must_use]
    pub fn any(&self) -> bool {
        *self != Self::default()
    }
}

/// Rates of one unit. `total` comes alone; the others may come together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rates {
    /// Of reads and writes together.
    pub total: Option<Rate>,
    /// Of reads.
    pub read: Option<Rate>,
    /// Of writes.
    pub write: Option<Rate>,
}
