//! Why a kernel was refused; each message is one line for whoever chose the kernel.

use std::io;

/// An error of [`load`](super::load).
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The kernel image cannot be read.
    #[error("kernel image cannot be read")]
    ReadKernel(#[source] io::Error),
    /// The image ends within something that it announces.
    #[error("kernel image is truncated: {0} reaches beyond its end")]
    Truncated(&'static str),
    /// Neither an ELF file nor a bzImage.
    #[error("not a kernel: neither an ELF file nor a bzImage")]
    NotAKernel,
    /// A kernel of another architecture.
    #[error("kernel is built for {0}, this machine is x86-64")]
    WrongArchitecture(&'static str),
    /// An ELF file without the note that names its entry point.
    #[error("ELF without a PVH entry note: build with CONFIG_PVH=y or use the bzImage")]
    NoPvhNote,
    /// A bzImage that lacks something this machine needs.
    #[error("bzImage {0}")]
    UnsupportedBzImage(&'static str),
    /// The image contradicts itself.
    #[error("kernel image is malformed: {0}")]
    Malformed(&'static str),
    /// The kernel does not fit.
    #[error("kernel needs memory up to {needed:#x}, the machine has RAM up to {available:#x}")]
    KernelTooLarge {
        /// The guest-physical address it would end at.
        needed: u64,
        /// End of the RAM it may use.
        available: u64,
    },
    /// The kernel wants a place that is no RAM, or that the machine needs for itself.
    #[error("kernel segment at {start:#x}..{end:#x} is outside the RAM a kernel may use")]
    Misplaced {
        /// First guest-physical address of the segment.
        start: u64,
        /// Its end.
        end: u64,
    },
    /// The initrd cannot be read.
    #[error("initrd cannot be read")]
    ReadInitrd(#[source] io::Error),
    /// The initrd does not fit between the kernel and the highest address it may have.
    #[error("initrd of {size} bytes does not fit: {available} bytes are free for it")]
    InitrdTooLarge {
        /// Its size in bytes.
        size: u64,
        /// Bytes that were left.
        available: u64,
    },
    /// The command line is too long for the machine or for this kernel.
    #[error("kernel command line has {length} bytes, the limit is {limit}")]
    CmdlineTooLong {
        /// Its length in bytes.
        length: usize,
        /// The limit in bytes, the terminating NUL not counted.
        limit: usize,
    },
    /// The command line has a NUL inside.
    #[error("kernel command line contains a NUL byte")]
    CmdlineNul,
    /// A boot structure could not be written (a bug of the layout: they all lie in the first MiB).
    #[error("boot structure could not be written to guest memory")]
    WriteMemory(#[source] vm_memory::GuestMemoryError),
}

impl BootError {
    /// Maps a failed read of the kernel: an early end is [`BootError::Truncated`] in `part`.
    pub(super) fn reading(part: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Truncated(part),
            _ => Self::ReadKernel(error),
        }
    }
}
