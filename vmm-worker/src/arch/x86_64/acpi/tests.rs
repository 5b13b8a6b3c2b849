//! The tables as a guest finds them: checksums, lengths, pointers, content.

use self::aml::{Namespace, Object};
use super::{AcpiConfig, build};
use crate::arch::x86_64::layout;

mod aml;
mod loader;

fn config(vcpus: u32) -> AcpiConfig {
    AcpiConfig {
        vcpus,
        max_vcpus: vcpus,
        legacy_pic: false,
        window_32: layout::PCI_WINDOW_32,
        ecam: layout::ECAM,
        pci_window_64: Some(0x1_0000_0000..0x9_0000_0000),
        generation_id: None,
        panic_port: false,
    }
}

fn tables(vcpus: u32) -> Vec<u8> {
    build(&config(vcpus))
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

/// The objects of the DSDT.
fn namespace(area: &[u8]) -> Namespace {
    let (dsdt, _, _) = find(area);
    aml::read(&dsdt[36..])
}

/// The value of a name.
fn value<'a>(space: &'a Namespace, path: &str) -> &'a [u8] {
    match space.get(path) {
        Some(Object::Name(value)) => value,
        other => panic!("{path}: {other:?}"),
    }
}

/// True if `part` is somewhere in `whole`.
fn has(whole: &[u8], part: &[u8]) -> bool {
    whole.windows(part.len()).any(|window| window == part)
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
    assert_eq!(namespace(&area).len(), 7 * 1024 + 168);
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
        let area = build(&AcpiConfig {
            legacy_pic,
            ..config(1)
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
fn madt_says_who_may_come() {
    let area = build(&AcpiConfig {
        max_vcpus: 257,
        ..config(2)
    });
    let (_, _, madt) = find(&area);
    let flags: Vec<_> = entries(madt)
        .into_iter()
        .filter_map(|(kind, entry)| match kind {
            0 => Some(u32_at(entry, 4)),
            9 => Some(u32_at(entry, 8)),
            _ => None,
        })
        .collect();
    assert_eq!(flags[..2], [1, 1], "enabled");
    assert_eq!(flags[2..], [2; 255], "online capable");
    let fewer = build(&AcpiConfig {
        max_vcpus: 0,
        ..config(2)
    });
    assert_eq!(fewer, tables(2));
}

#[test]
fn mcfg_has_the_configuration_space_of_bus_0() {
    let area = tables(1);
    let xsdt = table_at(&area, u64_at(&area, 24));
    let mcfg = table_at(&area, u64_at(xsdt, 52));
    assert_eq!((&mcfg[..4], sum(mcfg)), (&b"MCFG"[..], 0));
    assert_eq!(mcfg.len(), 60);
    assert_eq!(u64_at(mcfg, 44), 0xE000_0000);
    assert_eq!(mcfg[52..56], [0; 4], "segment 0, buses 0 to 0");
}

#[test]
fn fadt_has_the_block_of_general_events() {
    let area = tables(1);
    let (_, fadt, _) = find(&area);
    assert_eq!((u32_at(fadt, 80), fadt[92]), (0x60C, 4));
    assert_eq!(
        (&fadt[220..224], u64_at(fadt, 224)),
        (&[1, 32, 0, 1][..], 0x60C)
    );
    assert_eq!(
        (u32_at(fadt, 84), &fadt[93..95]),
        (0, &[0, 0][..]),
        "no GPE1"
    );
}

#[test]
fn dsdt_has_a_device_for_each_processor_and_the_off_state() {
    let area = build(&AcpiConfig {
        max_vcpus: 3,
        ..config(1)
    });
    let space = namespace(&area);
    for index in 0..3 {
        let name = format!("\\_SB_.C00{index}");
        assert_eq!(space.get(&name), Some(&Object::Device));
        for part in ["_HID", "_UID", "_STA", "_MAT", "_OST"] {
            assert!(space.contains_key(&format!("{name}.{part}")), "{part}");
        }
        let ejectable = space.contains_key(&format!("{name}._EJ0"));
        assert_eq!(ejectable, index != 0, "all but the boot processor");
    }
    assert!(!space.contains_key("\\_SB_.C003"));
    for name in ["\\_SB_.COM1", "\\_SB_.RTC0", "\\_S5_", "\\_PIC"] {
        assert!(space.contains_key(name), "{name}");
    }
}

#[test]
fn dsdt_has_the_root_of_pci_with_its_windows() {
    let space = namespace(&tables(1));
    let root = "\\_SB_.PCI0";
    let is = |name: &str, bytes: &[u8]| assert_eq!(value(&space, &format!("{root}.{name}")), bytes);
    is("_HID", &[0x0C, 0x41, 0xD0, 0x0A, 0x08]);
    is("_CID", &[0x0C, 0x41, 0xD0, 0x0A, 0x03]);
    for name in ["_UID", "_SEG", "_BBN"] {
        is(name, &[0]);
    }
    let resources = value(&space, "\\_SB_.PCI0._CRS");
    let buses = [0x88, 13, 0, 2, 0xC, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
    assert!(has(resources, &buses));
    assert!(has(resources, &[0x47, 1, 0xF8, 0xC, 0xF8, 0xC, 1, 8]));
    let low = [0xC000_0000_u32, 0xDFFF_FFFF, 0, 0x2000_0000];
    assert!(has(resources, low.map(u32::to_le_bytes).as_flattened()));
    let high = [1 << 32, (9 << 32) - 1, 0, 8_u64 << 32];
    assert!(has(resources, high.map(u64::to_le_bytes).as_flattened()));
    let ecam = [0x86, 9, 0, 1, 0, 0, 0, 0xE0, 0, 0, 0x10, 0];
    assert!(has(value(&space, "\\_SB_.MBRD._CRS"), &ecam));

    let without = namespace(&build(&AcpiConfig {
        pci_window_64: None,
        ..config(1)
    }));
    let shorter = value(&without, "\\_SB_.PCI0._CRS").len();
    assert_eq!(resources.len() - shorter, 46 + 1, "and a longer length");
}

#[test]
fn dsdt_has_every_slot_that_can_be_plugged_and_an_event_for_it() {
    let space = namespace(&tables(1));
    for slot in 1..32_u8 {
        let name = format!("\\_SB_.PCI0.S{slot:02X}_");
        let address = [0x0C, 0, 0, slot, 0];
        assert_eq!(value(&space, &format!("{name}._ADR")), address);
        let number = match slot {
            1 => vec![1],
            _ => vec![0x0A, slot],
        };
        assert_eq!(value(&space, &format!("{name}._SUN")), number);
        let eject = space.get(&format!("{name}._EJ0"));
        assert!(matches!(eject, Some(Object::Method { arguments: 1, .. })));
    }
    assert!(!space.contains_key("\\_SB_.PCI0.S00_"), "the host bridge");
    for event in ["\\_GPE._E01", "\\_GPE._E02"] {
        let method = space.get(event);
        assert!(matches!(method, Some(Object::Method { arguments: 0, .. })));
    }
}

#[test]
fn a_generation_id_lies_where_its_device_says_and_has_an_event() {
    let id = *b"0123456789abcdef";
    let area = build(&AcpiConfig {
        generation_id: Some(id),
        ..config(2)
    });
    assert_eq!(area[0x28..0x38], id);
    assert_eq!(sum(&area[..36]), 0, "the RSDP is not in its way");
    let space = namespace(&area);
    let device = "\\_SB_.VGEN";
    assert_eq!(space.get(device), Some(&Object::Device));
    let is =
        |name: &str, bytes: &[u8]| assert_eq!(value(&space, &format!("{device}.{name}")), bytes);
    is("_CID", b"\x12\x1C\x02\x0DVM_Gen_Counter\0\x0DVMGENCTR\0");
    is("_DDN", b"\x0DVM_Gen_Counter\0");
    // A package of the lower and the upper half of the address, on a multiple of 8.
    is("ADDR", &[0x12, 8, 2, 0x0C, 0x28, 0, 0x0E, 0, 0]);
    let Some(Object::Method { arguments, body }) = space.get("\\_GPE._E03") else {
        panic!("no event");
    };
    assert_eq!(*arguments, 0);
    assert_eq!(body, b"\x86\\\x2E_SB_VGEN\x0A\x80", "Notify with 0x80");
}

#[test]
fn a_panic_port_is_found_by_the_id_that_stock_kernels_know() {
    let space = namespace(&build(&AcpiConfig {
        panic_port: true,
        ..config(1)
    }));
    assert_eq!(value(&space, "\\_SB_.PEVT._HID"), b"\x0DQEMU0001\0");
    let resources = value(&space, "\\_SB_.PEVT._CRS");
    assert!(has(resources, &[0x47, 1, 5, 5, 5, 5, 1, 1]));
}

#[test]
fn what_a_machine_does_not_have_is_not_in_its_tables() {
    let space = namespace(&tables(1));
    for name in ["\\_SB_.VGEN", "\\_SB_.PEVT", "\\_GPE._E03"] {
        assert!(!space.contains_key(name), "{name}");
    }
    let bare = tables(u32::from(layout::MAX_VCPUS));
    let full = build(&AcpiConfig {
        generation_id: Some([1; 16]),
        panic_port: true,
        ..config(u32::from(layout::MAX_VCPUS))
    });
    assert!(bare.len() < full.len());
    assert!(full.len() as u64 <= layout::ACPI.end - layout::ACPI.start);
}

/// What a guest sees under a machine type's name never changes. These bytes were disassembled by
/// ACPICA's `iasl` without a complaint, and their DSDT compiled again to the same AML.
#[test]
fn tables_of_reeve_1_0_are_those_that_were_released() {
    assert!(tables(2) == include_bytes!("reeve-1.0-2vcpus.bin"));
}
