//! A bzImage by the 64-bit boot protocol (Linux `Documentation/arch/x86/boot.rst`).
//!
//! Needs protocol 2.12 (kernels since 3.8), which says by `xloadflags` that there is a 64-bit entry
//! point 0x200 bytes into the protected-mode kernel.

use zerocopy::{FromZeros, IntoBytes};

use super::protocol::SetupHeader;
use super::{BootError, LoadedKernel, Source};
use crate::arch::x86_64::layout;
use crate::memory::GuestMemory;

/// File offset of the setup header.
const HEADER_OFFSET: u64 = 0x1F1;
/// File offset of the jump's operand, which says where the setup header ends.
const HEADER_END_BASE: u64 = 0x202;
const SECTOR: u64 = 512;
const BOOT_FLAG: u16 = 0xAA55;
const PROTOCOL_2_12: u16 = 0x020C;
/// `loadflags`: the protected-mode code is loaded at 1 MiB and above.
const LOADED_HIGH: u8 = 1 << 0;
/// `xloadflags`: there is a 64-bit entry point.
const XLF_KERNEL_64: u16 = 1 << 0;
/// The 64-bit entry point, from the start of the protected-mode kernel.
const ENTRY_64: u64 = 0x200;

/// Loads the protected-mode part of the image where it prefers to be, or where there is room.
pub(super) fn load<S: Source + ?Sized>(
    image: &S,
    length: u64,
    memory: &GuestMemory,
) -> Result<LoadedKernel, BootError> {
    let setup = read_setup_header(image)?;
    check(&setup)?;

    // "For backwards compatibility, if the setup_sects field contains 0, the real value is 4."
    let setup_sectors = if setup.setup_sects == 0 {
        4
    } else {
        u64::from(setup.setup_sects)
    };
    let payload_offset = (setup_sectors + 1) * SECTOR;
    let in_file = length.saturating_sub(payload_offset);
    // `syssize` counts paragraphs, rounded up: the file may end up to 15 bytes earlier.
    let announced = u64::from(setup.syssize) * 16;
    if announced > in_file.next_multiple_of(16) {
        return Err(BootError::Truncated("its protected-mode code"));
    }
    let payload = announced.min(in_file);
    if payload <= ENTRY_64 {
        return Err(BootError::Malformed("no protected-mode code"));
    }
    let needed = u64::from(setup.init_size).max(payload);
    let address = place(&setup, needed, memory.low_end())?;

    let count = usize::try_from(payload).map_err(|_| BootError::Malformed("size of its code"))?;
    image
        .load_at(payload_offset, memory.map_ref(), address, count)
        .map_err(BootError::reading("its protected-mode code"))?;
    Ok(LoadedKernel {
        entry: address + ENTRY_64,
        memory: address..address + needed,
        initrd_max: u64::from(setup.initrd_addr_max),
        setup: Some(Box::new(setup)),
    })
}

/// Reads the setup header: as much of it as the image says it has, the rest zero.
fn read_setup_header<S: Source + ?Sized>(image: &S) -> Result<SetupHeader, BootError> {
    const PART: &str = "its setup header";
    let mut jump = [0; 1];
    image
        .read_at(HEADER_END_BASE - 1, &mut jump)
        .map_err(BootError::reading(PART))?;
    let end = HEADER_END_BASE + u64::from(jump[0]);
    let mut setup = SetupHeader::new_zeroed();
    let bytes = setup.as_mut_bytes();
    let present = usize::try_from(end - HEADER_OFFSET)
        .unwrap_or(bytes.len())
        .min(bytes.len());
    let (present, _) = bytes.split_at_mut(present);
    image
        .read_at(HEADER_OFFSET, present)
        .map_err(BootError::reading(PART))?;
    Ok(setup)
}

/// Refuses what cannot be booted by the 64-bit protocol.
fn check(setup: &SetupHeader) -> Result<(), BootError> {
    if setup.boot_flag != BOOT_FLAG {
        return Err(BootError::NotAKernel);
    }
    if setup.version < PROTOCOL_2_12 {
        return Err(BootError::UnsupportedBzImage(
            "uses a boot protocol before 2.12: Linux 3.8 or later is needed",
        ));
    }
    if setup.loadflags & LOADED_HIGH == 0 {
        return Err(BootError::UnsupportedBzImage(
            "is a zImage, which loads below 1 MiB",
        ));
    }
    if setup.xloadflags & XLF_KERNEL_64 == 0 {
        return Err(BootError::WrongArchitecture("32-bit x86"));
    }
    Ok(())
}

/// Where the kernel goes: its preferred address if `needed` bytes fit there, else, if it is
/// relocatable, the lowest aligned address from 1 MiB on.
fn place(setup: &SetupHeader, needed: u64, ram_end: u64) -> Result<u64, BootError> {
    let preferred = setup.pref_address;
    let fits = |address: u64| {
        address
            .checked_add(needed)
            .is_some_and(|end| end <= ram_end)
    };
    if preferred >= layout::KERNEL_MIN && fits(preferred) {
        return Ok(preferred);
    }
    let too_large = |address: u64| BootError::KernelTooLarge {
        needed: address.saturating_add(needed),
        available: ram_end,
    };
    if setup.relocatable_kernel == 0 {
        if preferred < layout::KERNEL_MIN {
            return Err(BootError::Misplaced {
                start: preferred,
                end: preferred.saturating_add(needed),
            });
        }
        return Err(too_large(preferred));
    }
    let alignment = u64::from(setup.kernel_alignment);
    if !alignment.is_power_of_two() {
        return Err(BootError::Malformed("its alignment is no power of two"));
    }
    let lowest = layout::KERNEL_MIN.next_multiple_of(alignment);
    if fits(lowest) {
        Ok(lowest)
    } else {
        Err(too_large(lowest))
    }
}
