//! The files for firmware, taken over as firmware does that.

use std::collections::BTreeMap;

use super::{config, sum, u32_at, u64_at};
use crate::arch::x86_64::acpi::loader::{self, Files};
use crate::arch::x86_64::acpi::{AcpiConfig, build};
use crate::arch::x86_64::layout;

/// Where the firmware of these tests has both files.
const RSDP_AT: u64 = 0xf_5000;
const TABLES_AT: u64 = 0x0fe0_0000;

/// What firmware does with the files, with the checks that it makes.
fn take_over(files: &Files) -> (Vec<u8>, Vec<u8>) {
    let known = [
        (loader::RSDP, &files.rsdp, RSDP_AT),
        (loader::TABLES, &files.tables, TABLES_AT),
    ];
    let mut there: BTreeMap<String, (Vec<u8>, u64)> = BTreeMap::new();
    assert_eq!(files.script.len() % 128, 0);
    for command in files.script.chunks(128) {
        let name = |at: usize| {
            let bytes = &command[at..at + 56];
            assert_eq!(bytes[55], 0);
            let end = bytes.iter().position(|byte| *byte == 0).expect("an end");
            String::from_utf8(bytes[..end].to_vec()).expect("a name")
        };
        let file = name(4);
        let number = |at: usize| u32_at(command, at) as usize;
        match u32_at(command, 0) {
            1 => {
                let (_, bytes, at) = known.iter().find(|(name, ..)| *name == file).expect("it");
                assert_eq!(*at % number(60) as u64, 0);
                assert_eq!(command[64], if file == loader::RSDP { 2 } else { 1 });
                assert!(there.insert(file, ((*bytes).clone(), *at)).is_none());
            }
            2 => {
                let source = there[&name(60)].1;
                let (place, len) = (number(116), usize::from(command[120]));
                let bytes = &mut there.get_mut(&file).expect("allocated").0;
                let mut value = [0; 8];
                value[..len].copy_from_slice(&bytes[place..place + len]);
                let value = (u64::from_le_bytes(value) + source).to_le_bytes();
                assert!(value[len..].iter().all(|byte| *byte == 0));
                bytes[place..place + len].copy_from_slice(&value[..len]);
            }
            3 => {
                let (place, start, len) = (number(60), number(64), number(68));
                let bytes = &mut there.get_mut(&file).expect("allocated").0;
                assert_eq!(bytes[place], 0, "no checksum yet");
                bytes[place] = sum(&bytes[start..start + len]).wrapping_neg();
            }
            other => panic!("command {other}"),
        }
    }
    let mut take = |name: &str| there.remove(name).expect("allocated").0;
    (take(loader::RSDP), take(loader::TABLES))
}

fn table(tables: &[u8], address: u64) -> &[u8] {
    let start = usize::try_from(address - TABLES_AT).expect("within");
    &tables[start..start + u32_at(tables, start + 4) as usize]
}

#[test]
fn firmware_has_the_same_tables_as_a_kernel() {
    for vcpus in [1, 4, 300] {
        let config = config(vcpus);
        let (rsdp, tables) = take_over(&loader::files(&config));
        assert_eq!(sum(&rsdp[..20]), 0);
        assert_eq!(sum(&rsdp), 0);
        let xsdt = table(&tables, u64_at(&rsdp, 24));
        assert_eq!(sum(xsdt), 0);
        let listed: Vec<_> = (36..xsdt.len())
            .step_by(8)
            .map(|at| u64_at(xsdt, at))
            .collect();
        let signatures: Vec<_> = listed.iter().map(|at| &table(&tables, *at)[..4]).collect();
        assert_eq!(signatures, [b"FACP", b"APIC", b"MCFG"]);
        let direct = build(&config);
        for address in &listed {
            let table = table(&tables, *address);
            assert_eq!(sum(table), 0);
            if &table[..4] != b"FACP" {
                assert!(direct.windows(table.len()).any(|window| window == table));
            }
        }
        let fadt = table(&tables, listed[0]);
        let dsdt = u64_at(fadt, 140);
        assert_eq!(u64::from(u32_at(fadt, 40)), dsdt);
        assert_eq!(&table(&tables, dsdt)[..4], b"DSDT");
        assert_eq!(sum(table(&tables, dsdt)), 0);
        let facs = u64::from(u32_at(fadt, 36));
        assert_eq!(facs % 64, 0);
        assert_eq!(&table(&tables, facs)[..4], b"FACS");
    }
}

#[test]
fn where_configuration_space_is_changes_no_length() {
    let at = |base: u64| {
        loader::files(&AcpiConfig {
            window_32: 0x8000_0000..0xfec0_0000,
            ecam: base..base + (256 << 20),
            ..config(2)
        })
    };
    let (bios, uefi) = (at(0xb000_0000), at(0xe000_0000));
    assert_ne!(bios.tables, uefi.tables);
    assert_eq!(bios.script, uefi.script);
    assert_eq!(bios.tables.len(), uefi.tables.len());
}

#[test]
fn the_window_of_a_bridge_leaves_configuration_space_out() {
    let config = AcpiConfig {
        window_32: 0x8000_0000..0xfec0_0000,
        ecam: 0xb000_0000..0xc000_0000,
        ..config(1)
    };
    let tables = loader::files(&config).tables;
    let has = |start: u32, last: u32| {
        let ends = [start.to_le_bytes(), last.to_le_bytes()].concat();
        tables.windows(8).any(|window| window == ends)
    };
    assert!(has(0x8000_0000, 0xafff_ffff));
    assert!(has(0xc000_0000, 0xfebf_ffff));
    assert!(!has(0x8000_0000, 0xfebf_ffff));
    assert_eq!(layout::ECAM.start, layout::PCI_WINDOW_32.end);
}
