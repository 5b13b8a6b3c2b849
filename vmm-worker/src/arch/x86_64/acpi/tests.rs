//! The tables as a guest finds them: checksums, lengths, pointers, content.

use super::{AcpiConfig, build};
use crate::arch::x86_64::layout;

fn tables(vcpus: u32) -> Vec<u8> {
    build(AcpiConfig {
        vcpus,
        legacy_pic: false,
    })
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(bytes[offset..offset + 8].try_into().expect("eight bytes"))
}

/// The table at a guest-physical address, by its own length.
fn table_at(area: &[u8], address: u64) -> &[u8] {
    let start = usize::try_from(address - layout::ACPI.start).expect("within");
    let length = u32_at(area, start + 4) as usize;
    &area[start..start + length]
}

/// DSDT, FADT, MADT, found as a guest finds them.
fn find(area: &[u8]) -> (&[u8], &[u8], &[u8]) {
    let xsdt = table_at(area, u64_at(area, 24));
    assert_eq!(&xsdt[..4], b"XSDT");
    assert_eq!(sum(xsdt), 0);
    let fadt = table_at(area, u64_at(xsdt, 36));
    let madt = table_at(area, u64_at(xsdt, 44));
    let dsdt = table_at(area, u64_at(fadt, 140));
    (dsdt, fadt, madt)
}

#[test]
fn checksums_and_pointers_hold_for_any_number_of_vcpus() {
    for vcpus in [1, 2, 4, 254, 255, 256, 1024] {
        let area = tables(vcpus);
        assert_eq!(&area[..8], b"RSD PTR ");
        assert_eq!(sum(&area[..20]), 0);
        assert_eq!(sum(&area[..36]), 0);
        let (dsdt, fadt, madt) = find(&area);
        for (table, signature) in [(dsdt, b"DSDT"), (fadt, b"FACP"), (madt, b"APIC")] {
            assert_eq!(&table[..4], signature);
            assert_eq!(sum(table), 0, "{vcpus} vCPUs");
        }
        assert_eq!(
            u64::from(u32_at(fadt, 40)),
            u64_at(fadt, 140),
            "both DSDT addresses"
        );
        let facs = table_at(&area, u64::from(u32_at(fadt, 36)));
        assert_eq!((&facs[..4], facs.len()), (&b"FACS"[..], 64));
        assert_eq!(u32_at(fadt, 36) % 64, 0);
    }
}

#[test]
fn the_most_vcpus_fit() {
    let area = tables(u32::from(layout::MAX_VCPUS));
    assert!(
        area.len() as u64 <= layout::ACPI.end - layout::ACPI.start,
        "{}",
        area.len()
    );
}

#[test]
fn fadt_describes_fixed_hardware() {
    let area = tables(1);
    let (_, fadt, _) = find(&area);
    assert_eq!(fadt.len(), 276);
    assert_eq!(u32_at(fadt, 48), 0, "no SMI command port");
    assert_eq!(u32_at(fadt, 56), 0x600);
    assert_eq!(u32_at(fadt, 64), 0x604);
    assert_eq!(u32_at(fadt, 76), 0x608);
    assert_eq!(&fadt[88..92], &[4, 2, 0, 4], "register block lengths");
    let flags = u32_at(fadt, 112);
    assert_eq!(flags & (1 << 4), 0, "fixed power button");
    assert_ne!(flags & (1 << 10), 0, "reset register");
    assert_eq!(flags & (1 << 20), 0, "not hardware-reduced");
    assert_eq!((u64_at(fadt, 120), fadt[128]), (0xCF9, 6));
}

/// The MADT's entries: type and bytes.
fn entries(madt: &[u8]) -> Vec<(u8, &[u8])> {
    let mut rest = &madt[44..];
    let mut entries = Vec::new();
    while !rest.is_empty() {
        let (entry, after) = rest.split_at(rest[1].into());
        entries.push((entry[0], entry));
        rest = after;
    }
    entries
}

#[test]
fn madt_has_every_processor_once_in_the_form_for_its_id() {
    let area = tables(300);
    let (_, _, madt) = find(&area);
    let entries = entries(madt);
    let small: Vec<_> = entries.iter().filter(|(kind, _)| *kind == 0).collect();
    let large: Vec<_> = entries.iter().filter(|(kind, _)| *kind == 9).collect();
    assert_eq!((small.len(), large.len()), (255, 45));
    assert!(
        small
            .iter()
            .enumerate()
            .all(|(id, (_, e))| usize::from(e[3]) == id && e[2] == e[3])
    );
    assert_eq!(u32_at(large[0].1, 4), 255);
    assert_eq!(u32_at(large[44].1, 12), 299);
    assert_eq!(
        entries.iter().filter(|(kind, _)| *kind == 0xA).count(),
        1,
        "x2APIC NMI"
    );
}

#[test]
fn madt_overrides_the_sci_and_with_a_pit_the_timer() {
    for (legacy_pic, sources) in [(false, vec![9]), (true, vec![0, 9])] {
        let area = build(AcpiConfig {
            vcpus: 1,
            legacy_pic,
        });
        let (_, _, madt) = find(&area);
        assert_eq!(u32_at(madt, 40), u32::from(legacy_pic));
        let overrides: Vec<_> = entries(madt)
            .into_iter()
            .filter(|(kind, _)| *kind == 2)
            .map(|(_, e)| e)
            .collect();
        assert_eq!(overrides.iter().map(|e| e[3]).collect::<Vec<_>>(), sources);
        let sci = overrides.last().expect("SCI");
        assert_eq!((u32_at(sci, 4), sci[8]), (9, 0b1101), "level, active high");
    }
}

#[test]
fn dsdt_has_a_device_for_each_processor_and_the_off_state() {
    let area = tables(3);
    let (dsdt, _, _) = find(&area);
    let has = |name: &[u8]| dsdt.windows(name.len()).any(|window| window == name);
    for name in [b"C000", b"C001", b"C002", b"COM1", b"_S5_", b"_PIC"] {
        assert!(has(name), "{}", String::from_utf8_lossy(name));
    }
    assert!(!has(b"C003"));
}

/// What a guest sees under a machine type's name never changes. These bytes were disassembled by
/// ACPICA's `iasl` without a complaint, and their DSDT compiled again to the same AML.
#[test]
fn tables_of_reeve_1_0_are_those_that_were_released() {
    assert_eq!(tables(2), include_bytes!("reeve-1.0-2vcpus.bin"));
}
