//! Definitions: sizes as people write them, names, and what is refused.

use proptest::prelude::*;
use uuid::Uuid;

use crate::fd::FdSlot;
use crate::model::{
    BootSource, CpuSet, Devices, Domain, DomainName, DomainUuid, InvalidName, KeptElement,
    KernelBoot, Labels, LifecycleAction, MAX_KEPT_BYTES, MAX_KEPT_ELEMENTS, MAX_KEPT_PATH_BYTES,
    MAX_METADATA_BYTES, MAX_NAMESPACE_BYTES, MemorySize, MetadataElement, ModelError, Platform,
    PluggableMemory, ResourceLimits, Tuning, VcpuPin, Vcpus,
};
use crate::spec::{
    CpuSwitches, MAX_COMMAND_LINE_BYTES, MAX_MEMORY_BYTES, MAX_VCPUS, MIN_MEMORY_BYTES,
    MachineType, MemoryBacking, MemorySpec, PluggableSpec,
};

pub(super) fn domain() -> Domain {
    Domain {
        name: "web".parse().unwrap(),
        uuid: DomainUuid(Uuid::from_u128(1)),
        machine: MachineType::Reeve1_0,
        vcpus: Vcpus::try_from(1).unwrap(),
        max_vcpus: Vcpus::try_from(1).unwrap(),
        platform: Platform::default(),
        kept: Vec::new(),
        tuning: Tuning::default(),
        cpu: CpuSwitches::default(),
        memory: MemorySize::mebibytes(128),
        boot: BootSource::BuiltIn {
            command_line: String::new(),
        },
        devices: Devices::default(),
        lifecycle: LifecycleAction::default(),
        limits: ResourceLimits::default(),
        pinning: Vec::new(),
        labels: Labels::default(),
    }
}

#[test]
fn sizes_are_read_as_people_write_them() {
    for (text, bytes) in [
        ("0", 0),
        ("4096", 4096),
        ("7B", 7),
        ("1K", 1 << 10),
        ("1k", 1 << 10),
        ("512KiB", 512 << 10),
        ("256M", 256 << 20),
        ("256m", 256 << 20),
        ("1MiB", 1 << 20),
        ("4G", 4 << 30),
        ("4GiB", 4 << 30),
        ("2T", 2 << 40),
        ("2TiB", 2 << 40),
        ("18446744073709551615", u64::MAX),
        ("16777215T", 16_777_215 << 40),
    ] {
        assert_eq!(text.parse(), Ok(MemorySize(bytes)), "{text}");
    }
}

#[test]
fn sizes_nobody_can_read_are_refused() {
    for text in [
        "",
        "M",
        "-1",
        "+1",
        "1.5G",
        "1 G",
        " 1G",
        "1G ",
        "1GB",
        "1Mib",
        "0x10",
        "1e3",
        "1GG",
        "G1",
        "1K1",
        "18446744073709551616",
        "16777216T",
        "٣M",
        "1\u{212a}",
    ] {
        let error = text.parse::<MemorySize>().unwrap_err().to_string();
        assert!(error.contains("not a size"), "{text}: {error}");
    }
}

#[test]
fn sizes_are_printed_with_the_largest_unit_that_divides_them() {
    for (bytes, text) in [
        (0, "0"),
        (1, "1"),
        (1023, "1023"),
        (1024, "1K"),
        (1 << 20, "1M"),
        ((1 << 20) + 1, "1048577"),
        (1536 << 20, "1536M"),
        (4 << 30, "4G"),
        (1 << 40, "1T"),
        (u64::MAX, "18446744073709551615"),
    ] {
        assert_eq!(MemorySize(bytes).to_string(), text);
    }
}

#[test]
fn a_domain_of_ordinary_size_is_accepted() {
    assert_eq!(domain().validate(), Ok(()));
}

#[test]
fn vcpus_outside_the_range_are_refused() {
    for count in [0, MAX_VCPUS + 1, u32::MAX] {
        assert_eq!(Vcpus::try_from(count), Err(ModelError::Vcpus(count)));
    }
    for count in [1, MAX_VCPUS] {
        assert_eq!(Vcpus::try_from(count).unwrap().count(), count);
    }
    assert!(serde_json::from_str::<Vcpus>("0").is_err());
}

#[test]
fn memory_outside_the_range_or_of_half_pages_is_refused() {
    for (bytes, fits) in [
        (0, false),
        (MIN_MEMORY_BYTES - 4096, false),
        (MIN_MEMORY_BYTES, true),
        (MIN_MEMORY_BYTES + 1, false),
        (MIN_MEMORY_BYTES + 4096, true),
        (MAX_MEMORY_BYTES, true),
        (MAX_MEMORY_BYTES + 4096, false),
        (u64::MAX, false),
    ] {
        let mut domain = domain();
        domain.memory = MemorySize(bytes);
        let expected = if fits {
            Ok(())
        } else {
            Err(ModelError::Memory(domain.memory))
        };
        assert_eq!(domain.validate(), expected);
    }
}

#[test]
fn memory_to_be_plugged_in_is_whole_blocks_beyond_what_a_domain_starts_with() {
    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;
    let tried = |memory: u64, max: u64| {
        let mut domain = domain();
        domain.memory = MemorySize(memory);
        domain.devices.memory = Some(PluggableMemory {
            max: MemorySize(max),
            address: None,
        });
        domain.validate().map(|()| domain.pluggable().unwrap())
    };
    for (memory, max, block) in [
        (256 * MIB, 258 * MIB, 2 * MIB),
        (256 * MIB, 256 * MIB + 2 * GIB, 2 * MIB),
        (MIB * 256 + 4096, MIB * 512 + 4096, 2 * MIB),
        (GIB, 17 * GIB, 16 * MIB),
        (GIB, 4 * GIB, 4 * MIB),
        (32 * GIB, MAX_MEMORY_BYTES, 32 * GIB),
    ] {
        let pluggable = tried(memory, max).expect("good sizes");
        assert_eq!(pluggable.block_bytes, block);
        assert_eq!(pluggable.bytes, max - memory);
    }
    for (memory, max) in [
        (GIB, GIB),
        (GIB, GIB - 2 * MIB),
        (GIB, 0),
        (GIB, MAX_MEMORY_BYTES + GIB),
        (GIB, u64::MAX),
    ] {
        let (memory_size, max_size) = (MemorySize(memory), MemorySize(max));
        let error = ModelError::MaxMemory {
            max: max_size,
            memory: memory_size,
        };
        assert_eq!(tried(memory, max), Err(error), "{memory} {max}");
    }
    for (extra, block) in [
        (MIB, 2 * MIB),
        (2 * MIB + 4096, 2 * MIB),
        (2 * GIB + 2 * MIB, 4 * MIB),
    ] {
        let error = tried(GIB, GIB + extra).expect_err("no whole blocks");
        let block = MemorySize(block);
        let extra = MemorySize(extra);
        assert_eq!(error, ModelError::MemoryBlocks { extra, block });
    }
}

#[test]
fn a_limit_of_memory_has_room_for_all_that_a_domain_can_be_given() {
    let mut domain = domain();
    domain.memory = MemorySize::mebibytes(64);
    domain.limits.memory = Some(MemorySize::mebibytes(127));
    assert_eq!(domain.validate(), Ok(()));
    let max = MemorySize::mebibytes(128);
    domain.devices.memory = Some(PluggableMemory { max, address: None });
    let limit = MemorySize::mebibytes(127);
    let error = domain.validate().expect_err("too little");
    assert_eq!(error, ModelError::MemoryLimit { limit, max });
    let text = error.to_string();
    assert!(text.contains("127M") && text.contains("128M"), "{text}");
    domain.limits.memory = Some(max);
    assert_eq!(domain.validate(), Ok(()));
}

#[test]
fn memory_to_be_plugged_in_begins_at_a_whole_block_of_the_file() {
    let spec = |size_bytes, pluggable| MemorySpec {
        size_bytes,
        backing: MemoryBacking::Shared { fd: FdSlot(1) },
        pluggable,
    };
    let pluggable = PluggableSpec::new(4 << 20);
    assert_eq!(spec(4096, None).file_bytes(), Some(4096));
    assert_eq!(spec(4096, None).pluggable_offset(), None);
    assert_eq!(spec(4096, pluggable).pluggable_offset(), Some(2 << 20));
    assert_eq!(spec(4096, pluggable).file_bytes(), Some(6 << 20));
    assert_eq!(spec(4 << 20, pluggable).pluggable_offset(), Some(4 << 20));
    assert_eq!(spec(u64::MAX, pluggable).file_bytes(), None);
    assert_eq!(PluggableSpec::new(0), None);
    let hostile = PluggableSpec {
        bytes: u64::MAX,
        block_bytes: 0,
    };
    assert_eq!(spec(4096, Some(hostile)).file_bytes(), None);
}

#[test]
fn a_command_line_that_the_boot_protocol_cannot_carry_is_refused() {
    let sources: [fn(String) -> BootSource; 2] = [
        |command_line| BootSource::BuiltIn { command_line },
        |command_line| {
            BootSource::Kernel(KernelBoot {
                kernel: "/boot/vmlinuz".into(),
                initrd: None,
                command_line,
            })
        },
    ];
    for source in sources {
        let mut domain = domain();
        domain.boot = source("x".repeat(MAX_COMMAND_LINE_BYTES));
        assert_eq!(domain.validate(), Ok(()));
        domain.boot = source("x".repeat(MAX_COMMAND_LINE_BYTES + 1));
        assert_eq!(
            domain.validate(),
            Err(ModelError::CommandLine(MAX_COMMAND_LINE_BYTES + 1))
        );
        domain.boot = source("quiet\0init=/bin/sh".to_owned());
        assert_eq!(domain.validate(), Err(ModelError::CommandLineNul));
    }
}

#[test]
fn names_fit_to_be_file_names_are_accepted_and_others_refused() {
    for name in ["a", "web-1", "Büro", "...", "a b", &"x".repeat(255)] {
        assert_eq!(name.parse::<DomainName>().unwrap().as_str(), name);
    }
    for name in ["", "  ", "\t"] {
        assert_eq!(
            name.parse::<DomainName>(),
            Err(InvalidName::Empty("domain"))
        );
    }
    assert_eq!(
        "x".repeat(256).parse::<DomainName>(),
        Err(InvalidName::TooLong("domain"))
    );
    for name in [".", "..", "a/b", "/", "a\0", "a\n", "\u{85}x"] {
        assert_eq!(
            name.parse::<DomainName>(),
            Err(InvalidName::Forbidden("domain")),
            "{name:?}"
        );
    }
}

#[test]
fn a_forbidden_name_does_not_enter_by_deserialising() {
    assert!(serde_json::from_str::<DomainName>("\"web\"").is_ok());
    assert!(serde_json::from_str::<DomainName>("\"../etc\"").is_err());
}

#[test]
fn a_set_of_cpus_is_read_merged_and_printed() {
    for (text, printed) in [
        ("0", "0"),
        ("0-3,8", "0-3,8"),
        ("8, 2-4,3-6", "2-6,8"),
        ("1,2", "1-2"),
    ] {
        assert_eq!(text.parse::<CpuSet>().unwrap().to_string(), printed);
    }
    for text in ["", "x", "3-1", "4096", "1-", "-1", "1,,2"] {
        assert_eq!(text.parse::<CpuSet>(), Err(ModelError::CpuSet), "{text:?}");
    }
    assert_eq!(
        "0-2,7"
            .parse::<CpuSet>()
            .unwrap()
            .iter()
            .collect::<Vec<_>>(),
        [0, 1, 2, 7]
    );
}

#[test]
fn a_pin_names_a_vcpu_of_the_domain_once() {
    let pin = |vcpu| VcpuPin {
        vcpu,
        cpus: "0".parse().unwrap(),
    };
    let mut domain = domain();
    domain.pinning = vec![pin(0)];
    assert_eq!(domain.validate(), Ok(()));
    domain.pinning = vec![pin(0), pin(0)];
    assert_eq!(domain.validate(), Err(ModelError::Pin(0)));
    domain.pinning = vec![pin(domain.vcpus.count())];
    assert!(matches!(domain.validate(), Err(ModelError::Pin(_))));
    domain.max_vcpus = Vcpus::try_from(2).unwrap();
    assert_eq!(domain.validate(), Ok(()), "of those that may come");
}

#[test]
fn a_domain_does_not_start_with_more_vcpus_than_it_can_have() {
    let mut domain = domain();
    domain.vcpus = Vcpus::try_from(2).unwrap();
    assert_eq!(domain.validate(), Err(ModelError::MoreVcpus(2, 1)));
    domain.max_vcpus = Vcpus::try_from(2).unwrap();
    assert_eq!(domain.validate(), Ok(()));
}

#[test]
fn labels_are_bounded_and_a_namespace_comes_once() {
    let element = |uri: &str, bytes: usize| MetadataElement {
        uri: uri.to_owned(),
        content: "x".repeat(bytes),
    };
    let check = |metadata| {
        Labels {
            metadata,
            ..Labels::default()
        }
        .validate()
        .is_ok()
    };
    assert!(check(vec![element("a", 10), element("b", 10)]));
    assert!(!check(vec![element("a", 1), element("a", 1)]));
    assert!(!check(vec![element("", 1)]));
    assert!(check(vec![element(&"a".repeat(MAX_NAMESPACE_BYTES), 1)]));
    assert!(!check(vec![element(
        &"a".repeat(MAX_NAMESPACE_BYTES + 1),
        1
    )]));
    assert!(!check(vec![element("a", MAX_METADATA_BYTES)]));
}

#[test]
fn what_is_only_kept_is_bounded_and_counted() {
    let element = |path: &str, bytes: usize| KeptElement {
        path: path.to_owned(),
        xml: "x".repeat(bytes),
    };
    let check = |kept: Vec<KeptElement>| {
        let mut domain = domain();
        domain.kept = kept;
        domain.validate()
    };
    assert_eq!(check(vec![element("pm", MAX_KEPT_BYTES)]), Ok(()));
    assert_eq!(check(vec![element("pm", 1); MAX_KEPT_ELEMENTS]), Ok(()));
    let long = "p".repeat(MAX_KEPT_PATH_BYTES + 1);
    for wrong in [
        vec![element("pm", MAX_KEPT_BYTES), element("pm", 1)],
        vec![element("pm", 1); MAX_KEPT_ELEMENTS + 1],
        vec![element("", 1)],
        vec![element("a b", 1)],
        vec![element(&long, 1)],
    ] {
        assert!(matches!(check(wrong), Err(ModelError::Label(_))));
    }
    // With all else that may be long it is more than a message holds.
    let mut full = domain();
    full.kept = vec![element("pm", MAX_KEPT_BYTES)];
    full.labels.metadata = vec![MetadataElement {
        uri: "u".to_owned(),
        content: "x".repeat(MAX_METADATA_BYTES - 1),
    }];
    assert_eq!(full.validate(), Ok(()));
    full.pinning = vec![];
    full.boot = BootSource::Kernel(KernelBoot {
        kernel: "/".repeat(20_000).into(),
        initrd: None,
        command_line: String::new(),
    });
    assert!(matches!(full.validate(), Err(ModelError::Size(_))));
}

#[test]
fn a_limit_of_memory_and_swap_is_beside_one_of_memory_and_no_less() {
    let limits = |memory: Option<u64>, both: Option<u64>| ResourceLimits {
        memory: memory.map(MemorySize),
        memory_and_swap: both.map(MemorySize),
        ..ResourceLimits::default()
    };
    for (memory, both, swap) in [
        (Some(5), Some(7), Some(2)),
        (Some(5), Some(5), Some(0)),
        (Some(5), None, None),
    ] {
        let limits = limits(memory, both);
        assert_eq!((limits.validate(), limits.swap()), (Ok(()), swap));
    }
    assert!(limits(Some(5), Some(4)).validate().is_err());
    assert!(limits(None, Some(4)).validate().is_err());
    let soft = |bytes| ResourceLimits {
        memory_soft: Some(MemorySize(bytes)),
        ..ResourceLimits::default()
    };
    // It may be more than there can be.
    assert_eq!(soft(1).validate(), Ok(()));
    assert!(soft(0).validate().is_err() && soft(1).any());
}

#[test]
fn limits_are_any_as_soon_as_one_is_set() {
    assert!(!ResourceLimits::default().any());
    let memory = ResourceLimits {
        memory: Some(MemorySize(1)),
        ..ResourceLimits::default()
    };
    let cpu = ResourceLimits {
        cpu_percent: Some(1),
        ..ResourceLimits::default()
    };
    let pids = ResourceLimits {
        pids: Some(1),
        ..ResourceLimits::default()
    };
    assert!(memory.any() && cpu.any() && pids.any());
}

proptest! {
    #[test]
    fn a_printed_size_is_read_back(bytes in any::<u64>(), shift in 0_u32..48) {
        for size in [MemorySize(bytes), MemorySize((bytes >> shift) << shift)] {
            prop_assert_eq!(size.to_string().parse::<MemorySize>().unwrap(), size);
        }
    }

    #[test]
    fn no_text_makes_the_size_parser_panic(text in any::<String>()) {
        let _ = text.parse::<MemorySize>();
    }
}

#[test]
fn bounds_of_block_devices_and_quotas_of_vcpus_have_their_ranges() {
    use crate::model::{BlockDeviceTuning, CpuQuota, MAX_BLOCK_DEVICES, MemoryNodes, NodeMode};
    let refused = |change: &dyn Fn(&mut Domain)| {
        let mut domain = domain();
        change(&mut domain);
        domain.validate().unwrap_err().to_string()
    };
    let device = |path: &str| BlockDeviceTuning {
        path: path.into(),
        ..BlockDeviceTuning::default()
    };
    let mut good = domain();
    good.tuning.block.devices = vec![device("/dev/sda"), device("/dev/disk/by-id/a")];
    good.validate().unwrap();
    let long = format!("/dev/{}", "a".repeat(251));
    for path in [
        "sda",
        "/dev",
        "/dev/../etc/x",
        "/etc/x",
        "/dev/a\n",
        "/dev/a,b",
        &long,
    ] {
        let error = refused(&|domain| domain.tuning.block.devices = vec![device(path)]);
        assert!(error.contains("beneath /dev"), "{path}: {error}");
    }
    let error = refused(&|domain| domain.tuning.block.devices = vec![device("/dev/a"); 2]);
    assert!(error.contains("twice"), "{error}");
    let error = refused(&|domain| {
        let devices = (0..=MAX_BLOCK_DEVICES).map(|number| device(&format!("/dev/{number}")));
        domain.tuning.block.devices = devices.collect();
    });
    assert!(error.contains("at most 64"), "{error}");
    for weight in [0, 10_001] {
        let error = refused(&|domain| domain.tuning.block.weight = Some(weight));
        assert!(error.contains("weight"), "{error}");
    }
    let error = refused(&|domain| {
        let mut device = device("/dev/a");
        device.write_operations = Some(0);
        domain.tuning.block.devices = vec![device];
    });
    assert!(error.contains("at least 1"), "{error}");
    for (mode, nodes, why) in [
        (NodeMode::Strict, "1024", "below 1024"),
        (NodeMode::Preferred, "0-1", "single node"),
    ] {
        let error = refused(&|domain| {
            let nodes = nodes.parse().unwrap();
            domain.tuning.memory_nodes = Some(MemoryNodes { mode, nodes });
        });
        assert!(error.contains(why), "{error}");
    }
    for (quota_us, period_us) in [
        (999, 100_000),
        (1 << 44, 100_000),
        (1000, 999),
        (1000, 1_000_001),
    ] {
        let error = refused(&|domain| {
            domain.tuning.vcpu_quota = Some(CpuQuota {
                quota_us,
                period_us,
            });
        });
        assert!(error.contains("quota"), "{error}");
    }
}
