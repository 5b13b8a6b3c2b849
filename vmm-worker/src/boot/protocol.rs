//! The structures of the two boot protocols, as they lie in memory: little-endian, as the machine is.
//!
//! Linux `arch/x86/include/uapi/asm/bootparam.h`, and Xen `public/arch-x86/hvm/start_info.h`,
//! version 1. Ours, because the library that has them does not build with the oldest compiler we
//! support; every field is plain bytes.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct setup_header`: from offset 0x1F1 of a bzImage, and of the zero page.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, packed)]
pub(super) struct SetupHeader {
    pub(super) setup_sects: u8,
    pub(super) root_flags: u16,
    pub(super) syssize: u32,
    pub(super) ram_size: u16,
    pub(super) vid_mode: u16,
    pub(super) root_dev: u16,
    pub(super) boot_flag: u16,
    pub(super) jump: u16,
    pub(super) header: u32,
    pub(super) version: u16,
    pub(super) realmode_swtch: u32,
    pub(super) start_sys_seg: u16,
    pub(super) kernel_version: u16,
    pub(super) type_of_loader: u8,
    pub(super) loadflags: u8,
    pub(super) setup_move_size: u16,
    pub(super) code32_start: u32,
    pub(super) ramdisk_image: u32,
    pub(super) ramdisk_size: u32,
    pub(super) bootsect_kludge: u32,
    pub(super) heap_end_ptr: u16,
    pub(super) ext_loader_ver: u8,
    pub(super) ext_loader_type: u8,
    pub(super) cmd_line_ptr: u32,
    pub(super) initrd_addr_max: u32,
    pub(super) kernel_alignment: u32,
    pub(super) relocatable_kernel: u8,
    pub(super) min_alignment: u8,
    pub(super) xloadflags: u16,
    pub(super) cmdline_size: u32,
    pub(super) hardware_subarch: u32,
    pub(super) hardware_subarch_data: u64,
    pub(super) payload_offset: u32,
    pub(super) payload_length: u32,
    pub(super) setup_data: u64,
    pub(super) pref_address: u64,
    pub(super) init_size: u32,
    pub(super) handover_offset: u32,
    pub(super) kernel_info_offset: u32,
}

/// `struct boot_e820_entry`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, packed)]
pub(super) struct E820Entry {
    pub(super) address: u64,
    pub(super) size: u64,
    pub(super) kind: u32,
}

/// Entries of the zero page's memory map.
const E820_ENTRIES: usize = 128;

/// `struct boot_params`, with what we leave zero as plain bytes.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, packed)]
pub(super) struct BootParams {
    screen_to_tboot: [u8; 0x70],
    pub(super) acpi_rsdp_addr: u64,
    drives_to_efi: [u8; 0x1E8 - 0x78],
    pub(super) e820_entries: u8,
    edd_counts: [u8; 0x1F1 - 0x1E9],
    pub(super) setup: SetupHeader,
    edd_signatures: [u8; 0x2D0 - 0x26C],
    pub(super) e820_table: [E820Entry; E820_ENTRIES],
    edd: [u8; 0x1000 - 0xCD0],
}

const _: () = assert!(size_of::<SetupHeader>() == 0x26C - 0x1F1);
const _: () = assert!(size_of::<BootParams>() == 0x1000);

/// `XEN_HVM_START_MAGIC_VALUE`.
pub(super) const START_MAGIC: u32 = 0x336E_C578;

/// `struct hvm_start_info`.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct StartInfo {
    pub(super) magic: u32,
    pub(super) version: u32,
    pub(super) flags: u32,
    pub(super) nr_modules: u32,
    pub(super) modlist_paddr: u64,
    pub(super) cmdline_paddr: u64,
    pub(super) rsdp_paddr: u64,
    pub(super) memmap_paddr: u64,
    pub(super) memmap_entries: u32,
    pub(super) reserved: u32,
}

/// `struct hvm_modlist_entry`.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct ModuleEntry {
    pub(super) paddr: u64,
    pub(super) size: u64,
    pub(super) cmdline_paddr: u64,
    pub(super) reserved: u64,
}

/// `struct hvm_memmap_table_entry`.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct MemoryMapEntry {
    pub(super) address: u64,
    pub(super) size: u64,
    pub(super) kind: u32,
    pub(super) reserved: u32,
}
