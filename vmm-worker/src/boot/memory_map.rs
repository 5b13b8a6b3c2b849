//! The memory map that both boot protocols report: what is RAM, what a guest must leave alone.

use std::ops::Range;

use crate::arch::x86_64::layout;
use crate::memory::GuestMemory;

/// What a range of the memory map is. The numbers are those of E820 and, the same, of PVH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Kind {
    Ram = 1,
    Reserved = 2,
}

/// The most ranges [`build`] returns.
pub(super) const MAX_RANGES: usize = 6;

/// The map, ascending and without overlap.
///
/// The ranges around the first MiB are those of a PC: the EBDA and the BIOS area, where the ACPI
/// tables are, are reserved; the hole between is not listed, although there is RAM behind it. PCI
/// Express' configuration space is reserved too: guests use it only if they are told so here.
pub(super) fn build(memory: &GuestMemory) -> impl Iterator<Item = (Range<u64>, Kind)> {
    let mut high = memory
        .regions()
        .filter(|region| region.guest_address >= layout::MMIO_GAP_END)
        .map(|region| region.guest_address..region.guest_address + region.size);
    let ranges: [Option<(Range<u64>, Kind)>; MAX_RANGES] = [
        Some((0..layout::CONVENTIONAL_END, Kind::Ram)),
        Some((
            layout::CONVENTIONAL_END..layout::LOW_640K_END,
            Kind::Reserved,
        )),
        Some((layout::ACPI, Kind::Reserved)),
        Some((layout::KERNEL_MIN..memory.low_end(), Kind::Ram)),
        Some((layout::ECAM, Kind::Reserved)),
        high.next().map(|range| (range, Kind::Ram)),
    ];
    ranges.into_iter().flatten()
}
