//! Loading a kernel: from hostile image bytes to a guest that can start.
//!
//! Runs in the sandboxed worker, on the thread that builds the machine, before any vCPU runs. The
//! image, the initrd and the command line are hostile input: every offset is checked, work and
//! memory are bounded by the size of the guest's RAM, and nothing panics (`fuzz/` holds it to that).
//!
//! Two protocols, chosen by the image's magic numbers:
//! - an ELF file (`vmlinux`, or any kernel of that shape) starts by PVH: 32-bit protected mode,
//!   paging off, EBX points at an `hvm_start_info` (Xen `docs/misc/pvh.pandoc`);
//! - a bzImage starts by the 64-bit boot protocol: long mode, identity-mapped, RSI points at the
//!   zero page (Linux `Documentation/arch/x86/boot.rst`).
//!
//! The ELF reader is our own: linux-loader's reads the notes and segments of an image in file order
//! while it loads, trusts their sizes to be sane (its note loop has been the subject of an
//! advisory), and cannot say whether segments overlap or touch the machine's own structures. Its
//! definitions of the boot structures are used.
//!
//! ```text
//! 0      0x6000       0x6800    0x7000               0xE0000  1 MiB               top of low RAM
//! |      | start info | cmdline | zero page, tables | ACPI   | kernel ... bss | free | initrd |
//! ```

mod bzimage;
mod elf;
mod error;
mod initrd;
mod memory_map;
mod protocol;
mod pvh;
mod source;
#[cfg(test)]
mod tests;
mod zero_page;

use std::ops::Range;

use vm_memory::{Bytes, GuestAddress};

pub use self::error::BootError;
pub use self::source::Source;
use crate::arch::x86_64::layout;
use crate::memory::GuestMemory;

/// How the first vCPU enters the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// PVH: 32-bit protected mode, EBX = address of the start info.
    Pvh,
    /// The 64-bit Linux boot protocol: long mode, RSI = address of the zero page.
    Linux64,
    /// None: the reset vector, real mode, where firmware is.
    ResetVector,
}

/// A loaded kernel: all that the entry state of the first vCPU depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootPlan {
    /// The way in.
    pub protocol: Protocol,
    /// Guest-physical address of the first instruction.
    pub entry: u64,
    /// Guest-physical address of the structure that the entry register points at.
    pub boot_info: u64,
    /// Guest-physical memory that the kernel occupies, what it needs while it unpacks included.
    pub kernel: Range<u64>,
    /// Guest-physical memory of the initrd.
    pub initrd: Option<Range<u64>>,
}

/// A kernel in guest memory, before the structures that tell it about its machine are written.
#[derive(Debug)]
struct LoadedKernel {
    entry: u64,
    memory: Range<u64>,
    /// The highest guest-physical address an initrd's last byte may have.
    initrd_max: u64,
    /// Set for a bzImage: its setup header, to be handed back in the zero page.
    setup: Option<Box<protocol::SetupHeader>>,
}

/// Loads `kernel`, `initrd` and `cmdline` into `memory`, whose other content must still be zero,
/// and writes the boot structures. The ACPI tables are written apart (`arch::x86_64::acpi`); both
/// protocols point at the RSDP's fixed address.
///
/// # Errors
/// See [`BootError`]. Guest memory is then in an undefined state and must not be run.
pub fn load<S: Source + ?Sized>(
    kernel: &S,
    initrd: Option<&S>,
    cmdline: &str,
    memory: &GuestMemory,
) -> Result<BootPlan, BootError> {
    check_cmdline(cmdline, layout::CMDLINE_CAPACITY - 1)?;
    let loaded = load_kernel(kernel, cmdline, memory)?;
    let initrd = initrd
        .map(|initrd| initrd::load(initrd, &loaded, memory))
        .transpose()?;
    let initrd = initrd.filter(|range| !range.is_empty());
    write_cmdline(cmdline, memory)?;

    let (protocol, boot_info) = match loaded.setup {
        Some(setup) => {
            zero_page::write(memory, *setup, initrd.as_ref(), cmdline)?;
            (Protocol::Linux64, layout::ZERO_PAGE)
        }
        None => {
            pvh::write_start_info(memory, initrd.as_ref())?;
            (Protocol::Pvh, layout::PVH_START_INFO)
        }
    };
    Ok(BootPlan {
        protocol,
        entry: loaded.entry,
        boot_info,
        kernel: loaded.memory,
        initrd,
    })
}

/// Tells the image's kind by its magic numbers and loads it.
fn load_kernel<S: Source + ?Sized>(
    kernel: &S,
    cmdline: &str,
    memory: &GuestMemory,
) -> Result<LoadedKernel, BootError> {
    let length = kernel.length().map_err(BootError::ReadKernel)?;
    let mut head = [0; Magic::SIZE];
    let available = usize::try_from(length)
        .unwrap_or(usize::MAX)
        .min(head.len());
    let (known, _) = head.split_at_mut(available);
    kernel
        .read_at(0, known)
        .map_err(BootError::reading("its first sector"))?;
    match Magic::of(&head) {
        Magic::Elf => elf::load(kernel, length, memory),
        Magic::BzImage => {
            let loaded = bzimage::load(kernel, length, memory)?;
            if let Some(setup) = &loaded.setup {
                // "The maximum size of the command line without the terminating zero."
                check_cmdline(cmdline, setup.cmdline_size as usize)?;
            }
            Ok(loaded)
        }
        Magic::Arm64 => Err(BootError::WrongArchitecture("arm64")),
        Magic::RiscV => Err(BootError::WrongArchitecture("riscv64")),
        Magic::Unknown => Err(BootError::NotAKernel),
    }
}

/// What the first bytes of an image say it is.
enum Magic {
    Elf,
    BzImage,
    Arm64,
    RiscV,
    Unknown,
}

impl Magic {
    /// Bytes that decide: up to the end of the `HdrS` mark of a bzImage.
    const SIZE: usize = 0x206;

    fn of(head: &[u8; Self::SIZE]) -> Self {
        let at = |offset: usize, magic: &[u8]| {
            head.get(offset..)
                .is_some_and(|rest| rest.starts_with(magic))
        };
        if at(0, b"\x7fELF") {
            Self::Elf
        } else if at(0x202, b"HdrS") {
            Self::BzImage
        } else if at(0x38, b"ARM\x64") {
            Self::Arm64
        } else if at(0x38, b"RSC\x05") {
            Self::RiscV
        } else {
            Self::Unknown
        }
    }
}

fn check_cmdline(cmdline: &str, limit: usize) -> Result<(), BootError> {
    if cmdline.len() > limit {
        return Err(BootError::CmdlineTooLong {
            length: cmdline.len(),
            limit,
        });
    }
    if cmdline.contains('\0') {
        return Err(BootError::CmdlineNul);
    }
    Ok(())
}

/// Writes the command line and its NUL.
fn write_cmdline(cmdline: &str, memory: &GuestMemory) -> Result<(), BootError> {
    let mut bytes = Vec::with_capacity(cmdline.len() + 1);
    bytes.extend_from_slice(cmdline.as_bytes());
    bytes.push(0);
    memory
        .map_ref()
        .write_slice(&bytes, GuestAddress(layout::CMDLINE))
        .map_err(BootError::WriteMemory)
}
