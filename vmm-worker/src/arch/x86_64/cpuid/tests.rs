//! The filter over a processor made up for the purpose, with every bit set.

use kvm_bindings::{CpuId, kvm_cpuid_entry2};

use reeve_ipc::spec::CpuidEntry;

use super::{CpuModel, CpuSwitches, HostTimers, physical_address_bits};

fn everything() -> CpuId {
    let leaf = |function, index| kvm_cpuid_entry2 {
        function,
        index,
        eax: u32::MAX,
        ebx: u32::MAX,
        ecx: u32::MAX,
        edx: u32::MAX,
        ..Default::default()
    };
    let mut entries: Vec<_> = [
        1,
        2,
        4,
        6,
        7,
        0xA,
        0xB,
        0xD,
        0x12,
        0x14,
        0x15,
        0x16,
        0x1F,
        0x4000_0000,
        0x4000_0001,
        0x8000_0001,
        0x8000_0007,
        0x8000_0008,
        0x8000_000A,
        0x8000_001D,
        0x8000_001E,
    ]
    .map(|function| leaf(function, 0))
    .to_vec();
    entries.push(kvm_cpuid_entry2 {
        function: 0,
        eax: 0x1F,
        ..Default::default()
    });
    entries.push(leaf(0xB, 1));
    CpuId::from_entries(&entries).expect("entries")
}

fn model(switches: CpuSwitches, timers: HostTimers, vcpus: u32) -> CpuModel {
    CpuModel::new(everything(), switches, timers, vcpus).expect("model")
}

fn entry(cpuid: &CpuId, function: u32, index: u32) -> kvm_cpuid_entry2 {
    let mut found = cpuid
        .as_slice()
        .iter()
        .filter(|e| e.function == function && e.index == index);
    let entry = *found.next().expect("leaf");
    assert!(found.next().is_none(), "leaf {function:#x} is there twice");
    entry
}

const fn bit(value: u32, position: u32) -> bool {
    value & (1 << position) != 0
}

#[test]
fn nested_pmu_and_monitor_are_hidden_and_hypervisor_is_shown() {
    let mut model = model(CpuSwitches::default(), HostTimers::default(), 1);
    let cpuid = model.for_vcpu(0);
    let features = entry(cpuid, 1, 0);
    for hidden in [2, 3, 5, 15] {
        assert!(!bit(features.ecx, hidden), "leaf 1 ecx bit {hidden}");
    }
    assert!(bit(features.ecx, 31));
    assert!(bit(features.ecx, 21), "x2APIC stays");
    assert!(!bit(entry(cpuid, 0x8000_0001, 0).ecx, 2), "SVM");
    for empty in [0xA, 0x12, 0x14, 0x15, 0x16, 0x8000_000A] {
        let e = entry(cpuid, empty, 0);
        assert_eq!(
            (e.eax, e.ebx, e.ecx, e.edx),
            (0, 0, 0, 0),
            "leaf {empty:#x}"
        );
    }
    assert_eq!(entry(cpuid, 6, 0).eax, 1 << 2, "only ARAT");
}

#[test]
fn tsc_deadline_needs_both_switch_and_host() {
    for (switch, host) in [(false, false), (false, true), (true, false), (true, true)] {
        let switches = CpuSwitches {
            tsc_deadline: switch,
            ..Default::default()
        };
        let timers = HostTimers {
            tsc_deadline: host,
            ..Default::default()
        };
        let mut model = model(switches, timers, 1);
        assert_eq!(bit(entry(model.for_vcpu(0), 1, 0).ecx, 24), switch && host);
    }
}

#[test]
fn kvmclock_switch_hides_all_of_the_clock() {
    let switches = CpuSwitches {
        kvmclock: false,
        ..Default::default()
    };
    let mut without = model(switches, HostTimers::default(), 1);
    let features = entry(without.for_vcpu(0), 0x4000_0001, 0).eax;
    assert!(
        ![0, 3, 24]
            .into_iter()
            .any(|position| bit(features, position))
    );
    let mut with = model(CpuSwitches::default(), HostTimers::default(), 1);
    assert!(bit(entry(with.for_vcpu(0), 0x4000_0001, 0).eax, 3));
}

#[test]
fn hypervisor_leaves_name_kvm_and_the_frequencies() {
    let timers = HostTimers {
        tsc_khz: Some(2_245_780),
        ..Default::default()
    };
    let mut model = model(CpuSwitches::default(), timers, 1);
    let cpuid = model.for_vcpu(0);
    let signature = entry(cpuid, 0x4000_0000, 0);
    assert_eq!(signature.eax, 0x4000_0010);
    assert_eq!(signature.ebx.to_le_bytes(), *b"KVMK");
    let timing = entry(cpuid, 0x4000_0010, 0);
    assert_eq!((timing.eax, timing.ebx), (2_245_780, 1_000_000));
}

#[test]
fn every_vcpu_has_its_own_apic_id_everywhere() {
    let mut model = model(CpuSwitches::default(), HostTimers::default(), 6);
    for index in [0, 1, 5, 3] {
        let cpuid = model.for_vcpu(index);
        let basic = entry(cpuid, 1, 0);
        assert_eq!(basic.ebx >> 24, index);
        assert_eq!((basic.ebx >> 16) & 0xFF, 6);
        assert!(bit(basic.edx, 28));
        assert_eq!(entry(cpuid, 0x8000_001E, 0).eax, index);
        for leaf in [0xB, 0x1F] {
            for subleaf in 0..3 {
                assert_eq!(entry(cpuid, leaf, subleaf).edx, index);
            }
            let core = entry(cpuid, leaf, 1);
            assert_eq!((core.eax, core.ebx), (3, 6), "shift and count");
        }
    }
}

#[test]
fn caches_are_shared_by_level() {
    let mut model = model(CpuSwitches::default(), HostTimers::default(), 4);
    let cache = entry(model.for_vcpu(0), 4, 0).eax;
    // Level 7 of the made-up entry counts as shared by the package: four ids.
    assert_eq!((cache >> 14) & 0xFFF, 3);
    assert_eq!(cache >> 26, 3);
}

#[test]
fn one_vcpu_is_no_multiprocessor() {
    let mut model = model(CpuSwitches::default(), HostTimers::default(), 1);
    let cpuid = model.for_vcpu(0);
    assert!(!bit(entry(cpuid, 1, 0).edx, 28));
    assert_eq!(entry(cpuid, 0x8000_0008, 0).ecx, 0);
    assert_eq!(entry(cpuid, 0xB, 1).eax, 0);
}

#[test]
fn a_thousand_vcpus_overflow_no_field() {
    let mut model = model(CpuSwitches::default(), HostTimers::default(), 1024);
    let cpuid = model.for_vcpu(1023);
    assert_eq!(entry(cpuid, 1, 0).ebx >> 16, (0xFF << 8) | 0xFF);
    assert_eq!(entry(cpuid, 0xB, 1).edx, 1023);
    assert_eq!(entry(cpuid, 0x8000_0008, 0).ecx, 255 | (10 << 12));
}

#[test]
fn the_width_of_addresses_is_the_hosts_or_its_paging_s_or_the_least() {
    let leaf = |eax| {
        let other = CpuidEntry {
            function: 0x8000_0007,
            index: 0,
            flags: 0,
            registers: [u32::MAX; 4],
        };
        let sizes = CpuidEntry {
            function: 0x8000_0008,
            registers: [eax, 0, 0, 0],
            ..other
        };
        [other, sizes]
    };
    assert_eq!(physical_address_bits(&leaf(0x3028)), 40);
    assert_eq!(physical_address_bits(&leaf(0x30_3934)), 48);
    assert_eq!(physical_address_bits(&leaf(0x39_302E)), 46);
    assert_eq!(physical_address_bits(&leaf(0)), 36);
    assert_eq!(physical_address_bits(&[]), 36);
}
