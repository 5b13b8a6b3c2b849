//! The zero page: `struct boot_params` (Linux `arch/x86/include/uapi/asm/bootparam.h`).

use std::ops::Range;

use vm_memory::{Bytes, GuestAddress};
use zerocopy::{FromZeros, IntoBytes};

use super::protocol::{BootParams, E820Entry, SetupHeader};
use super::{BootError, memory_map};
use crate::arch::x86_64::layout;
use crate::memory::GuestMemory;

/// `type_of_loader`: a boot loader without a number of its own.
const LOADER_UNDEFINED: u8 = 0xFF;

/// Writes the zero page: the kernel's own setup header back, and where the command line, the
/// initrd, the memory and the RSDP are.
pub(super) fn write(
    memory: &GuestMemory,
    setup: SetupHeader,
    initrd: Option<&Range<u64>>,
    cmdline: &str,
) -> Result<(), BootError> {
    let mut params = BootParams::new_zeroed();
    params.setup = setup;
    params.setup.type_of_loader = LOADER_UNDEFINED;
    params.setup.cmd_line_ptr = low(layout::CMDLINE);
    params.setup.cmdline_size = u32::try_from(cmdline.len()).unwrap_or(0);
    let initrd = initrd.cloned().unwrap_or(0..0);
    params.setup.ramdisk_image = low(initrd.start);
    params.setup.ramdisk_size = low(initrd.end - initrd.start);
    // A list of setup data in the image would be an address of its maker's choosing.
    params.setup.setup_data = 0;
    params.acpi_rsdp_addr = layout::ACPI.start;

    let mut table = params.e820_table;
    let mut count = 0;
    for (slot, (range, kind)) in table.iter_mut().zip(memory_map::build(memory)) {
        *slot = E820Entry {
            address: range.start,
            size: range.end - range.start,
            kind: kind as u32,
        };
        count += 1;
    }
    params.e820_table = table;
    params.e820_entries = count;

    memory
        .map_ref()
        .write_slice(params.as_bytes(), GuestAddress(layout::ZERO_PAGE))
        .map_err(BootError::WriteMemory)
}

/// The low half of an address known to lie below 4 GiB: all that we place does.
fn low(value: u64) -> u32 {
    debug_assert!(
        u32::try_from(value).is_ok(),
        "{value:#x} is placed below the gap"
    );
    (value & 0xFFFF_FFFF) as u32
}
