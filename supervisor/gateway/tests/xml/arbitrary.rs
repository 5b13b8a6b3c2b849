//! Any domain that the model allows and XML can say comes back the same, and as the same text.

use std::path::PathBuf;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use reeve_gateway::xml::NAMESPACE;
use reeve_ipc::model::{
    Balloon, BlockDeviceTuning, BlockSize, BlockTuning, BootSource, Channel, CpuQuota, CpuSet,
    Devices, DirectMode, Disk, DiskTarget, Domain, DomainName, DomainUuid, GenerationId,
    KeptElement, KernelBoot, Labels, Layer, LifecycleAction, MemoryNodes, MemorySize,
    MetadataElement, Nic, NicSource, NodeMode, OnCrash, OnPowerOff, OnReboot, Platform,
    PluggableMemory, PortConsole, ResourceLimits, Rng, Share, Tuning, VcpuPin, Vcpus, VirtualPort,
    Vlan, VlanTag, Vsock, Watchdog,
};
use reeve_ipc::spec::{
    Burst, CacheMode, CpuSwitches, Discard, DiskFormat, DiskThrottle, IoEngine, MIN_MEMORY_BYTES,
    MacAddress, MachineType, NicDriver, PluggableSpec, Rate, Rates, WatchdogAction,
};
use uuid::Uuid;

use super::schema::validate;
use super::{dumped, parse};

fn text() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9 <>&'\"\u{e9}\u{1f980}\t\r\n=;]{1,30}"
}

fn line() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9<>&'\"\u{e9}][a-zA-Z0-9 <>&'\"\u{e9}=;.]{0,30}"
}

fn path() -> impl Strategy<Value = PathBuf> {
    "(/dev)?/[a-zA-Z0-9 <>&'\"\u{e9}.]{1,30}".prop_map(Into::into)
}

fn rate() -> impl Strategy<Value = Rate> {
    let exact = (1..1_000_u64).prop_map(|kib| kib * 1024);
    let any = 1..10_000_000_u64;
    let burst = option::of((1..4_u64, 1..=86_400_u32));
    (prop_oneof![exact, any], burst).prop_map(|(per_second, burst)| Rate {
        per_second,
        burst: burst.map(|(times, seconds)| Burst {
            per_second: per_second * times,
            seconds,
        }),
    })
}

fn rates() -> impl Strategy<Value = Rates> {
    prop_oneof![
        option::of(rate()).prop_map(|total| Rates {
            total,
            ..Rates::default()
        }),
        (option::of(rate()), option::of(rate())).prop_map(|(read, write)| Rates {
            total: None,
            read,
            write,
        }),
    ]
}

fn format() -> impl Strategy<Value = DiskFormat> {
    select(DiskFormat::ALL)
}

fn disk(index: usize) -> impl Strategy<Value = Disk> {
    let image = option::of((path(), format()));
    let backing = vec((path(), format()), 0..3);
    let words = (
        select(CacheMode::ALL),
        select(IoEngine::ALL),
        select(Discard::ALL),
    );
    let serial = option::of("[A-Za-z0-9_.+-]{1,20}");
    let rest = (serial, 1..=16_u16, any::<[bool; 4]>(), rates(), rates());
    (image, backing, words, rest).prop_map(move |(image, backing, words, rest)| {
        let layer = |number: usize, (path, format): (PathBuf, DiskFormat)| {
            // Every file is another's.
            let path = PathBuf::from(format!("{}-{index}-{number}", path.display()));
            Layer { path, format }
        };
        let mut disk = Disk::new(
            DiskTarget::at(index).unwrap(),
            image.map(|image| layer(0, image)),
        );
        let builds = disk
            .image
            .as_ref()
            .is_some_and(|image| image.format == DiskFormat::Qcow2);
        let [from_image, read_only, removable, large] = rest.2;
        disk.from_image = builds && from_image;
        if builds && !from_image {
            for (number, below) in backing.into_iter().enumerate() {
                let below = layer(number + 1, below);
                let last = below.format == DiskFormat::Raw;
                disk.backing.push(below);
                if last {
                    break;
                }
            }
        }
        (disk.cache, disk.io, disk.discard) = words;
        disk.serial = rest.0;
        disk.removable = removable;
        disk.read_only = read_only || removable;
        disk.queues = if removable { 1 } else { rest.1 };
        disk.block_size = if large {
            BlockSize::B4096
        } else {
            BlockSize::B512
        };
        disk.throttle = DiskThrottle {
            bytes: rest.3,
            requests: rest.4,
        };
        disk
    })
}

fn nic(index: usize) -> impl Strategy<Value = Nic> {
    let source = prop_oneof![
        Just(NicSource::Bridge("br0".parse().unwrap())),
        Just(NicSource::Tap(format!("tap{index}").parse().unwrap())),
        Just(NicSource::Nothing),
        path().prop_map(NicSource::Switch),
        (line(), option::of("[a-z-]{1,9}")).prop_map(|(network, port_group)| NicSource::Network {
            network: network.parse().unwrap(),
            port_group,
            port: None,
        }),
        select(DirectMode::ALL).prop_map(|mode| NicSource::Direct {
            device: "eth0".parse().unwrap(),
            mode,
        }),
        Just(NicSource::User),
    ];
    let addresses = vec(
        select(&["192.0.2.1", "192.0.2.0/24", "2001:db8::1", "2001:db8::/64"][..]),
        0..3,
    );
    let rates = (option::of(rate()), option::of(rate()));
    let rest = (
        any::<[bool; 5]>(),
        1..=8_u16,
        option::of(68..=u16::MAX),
        addresses,
    );
    (source, rates, rest).prop_map(move |(source, rates, rest)| {
        let mut nic = Nic::new(source);
        let [named, up, trusted, isolated, vhost] = rest.0;
        let mac = [0x52, 0x54, 0, 1, 2, u8::try_from(index).unwrap()];
        nic.mac = Some(MacAddress::try_from(mac).unwrap());
        nic.queues = rest.1;
        let switch = matches!(nic.source, NicSource::Switch(_));
        let tap = matches!(nic.source, NicSource::Tap(_));
        let user = matches!(nic.source, NicSource::User);
        if user {
            nic.queues = 1;
        }
        if !tap {
            nic.mtu = rest.2;
        }
        if !switch {
            (nic.inbound, nic.outbound) = rates;
            nic.link_up = up;
            nic.trust_guest = trusted;
            if vhost && !user {
                nic.driver = NicDriver::Vhost;
            }
        }
        if let (NicSource::Network { .. }, Some(mtu)) = (&nic.source, nic.mtu) {
            nic.virtual_port = Some(Box::new(VirtualPort {
                open_vswitch: mtu % 2 == 0 && !isolated,
                vlan: (mtu % 3 == 0).then(|| Vlan {
                    trunk: false,
                    tags: vec![VlanTag {
                        id: mtu % 4096,
                        native: None,
                    }],
                }),
                ..VirtualPort::default()
            }))
            .filter(|port| **port != VirtualPort::default());
        }
        if !switch && !tap && !user {
            nic.isolated = isolated;
            nic.addresses = rest.3.iter().map(|range| range.parse().unwrap()).collect();
            nic.addresses.dedup();
            if named {
                nic.target = Some(format!("mine{index}").parse().unwrap());
            }
        }
        nic
    })
}

fn devices() -> impl Strategy<Value = Devices> {
    let disks = (0..3_usize).prop_flat_map(|count| (0..count).map(disk).collect::<Vec<_>>());
    let nics = (0..3_usize).prop_flat_map(|count| (0..count).map(nic).collect::<Vec<_>>());
    let rng = option::of(option::of(rate()));
    let balloon = option::of(any::<[bool; 2]>());
    let vsock = option::of((option::of(3..u32::MAX), option::of(path())));
    let ports = (vec(path(), 0..3), vec(path(), 0..3));
    let shares = vec((path(), any::<bool>()), 0..2);
    let watchdog = option::of(select(WatchdogAction::ALL));
    (disks, nics, (rng, balloon, vsock), ports, shares, watchdog).prop_map(
        |(disks, nics, (rng, balloon, vsock), (channels, consoles), shares, watchdog)| Devices {
            disks,
            nics,
            rng: rng.map(|rate| Rng {
                rate,
                address: None,
            }),
            balloon: balloon.map(|[free_page_reporting, deflate_on_oom]| Balloon {
                free_page_reporting,
                deflate_on_oom,
                address: None,
            }),
            vsock: vsock.map(|(cid, path)| Vsock {
                cid,
                path: path.unwrap_or_else(|| super::sockets().join(format!("{}.vsock", uuid()))),
                address: None,
            }),
            channels: channels
                .into_iter()
                .enumerate()
                .map(|(number, path)| Channel {
                    name: format!("org.test.{number}"),
                    path: format!("{}-channel{number}", path.display()).into(),
                    port: None,
                })
                .collect(),
            consoles: consoles
                .into_iter()
                .enumerate()
                .map(|(number, path)| PortConsole {
                    path: format!("{}-console{number}", path.display()).into(),
                    port: None,
                })
                .collect(),
            ports_address: None,
            shares: shares
                .into_iter()
                .enumerate()
                .map(|(number, (source, read_only))| Share {
                    tag: format!("tag<{number}>"),
                    source,
                    read_only,
                    address: None,
                })
                .collect(),
            watchdog: watchdog.map(|action| Watchdog {
                action,
                address: None,
            }),
            memory: None,
        },
    )
}

const fn uuid() -> DomainUuid {
    DomainUuid(Uuid::from_u128(0x1234_5678))
}

fn metadata() -> impl Strategy<Value = Vec<MetadataElement>> {
    let element = |uri: &str, content: String| MetadataElement {
        uri: uri.to_owned(),
        content,
    };
    let plain = Just(element(
        "urn:a",
        "<x:a xmlns:x='urn:a'>\n  <x:b c=\"d\"/></x:a>".to_owned(),
    ));
    let default = Just(element("urn:b", "<a xmlns='urn:b'/>".to_owned()));
    // Which an API took, and which are no elements of their namespaces.
    let no_xml = text().prop_map(move |content| element("urn:c", content));
    let ours = text().prop_map(move |content| element(NAMESPACE, content));
    (
        option::of(plain),
        option::of(default),
        option::of(no_xml),
        option::of(ours),
    )
        .prop_map(|(a, b, c, d)| a.into_iter().chain(b).chain(c).chain(d).collect())
}

fn kept() -> impl Strategy<Value = Vec<KeptElement>> {
    let all = [
        ("pm", "<pm><suspend-to-mem enabled='no'/></pm>"),
        ("os/boot", "<boot dev=\"hd\"/>"),
        ("features/vmport", "<vmport state='off'/>"),
        ("cpu", "<cpu mode='host-model' check='partial'/>"),
        (
            "cpu/topology",
            "<topology sockets='1' cores='1' threads='1'/>",
        ),
        ("clock/timer", "<timer name='hpet' present='no'/>"),
        (
            "devices/controller",
            "<controller type='usb' index='0' model='none'/>",
        ),
        ("devices/input", "<input type='tablet' bus='usb'/>"),
    ];
    proptest::sample::subsequence(all.to_vec(), 0..=all.len()).prop_map(|chosen| {
        let element = |(path, xml): (&str, &str)| KeptElement {
            path: path.to_owned(),
            xml: xml.to_owned(),
        };
        chosen.into_iter().map(element).collect()
    })
}

fn boot() -> impl Strategy<Value = BootSource> {
    prop_oneof![
        option::of(text()).prop_map(|line| BootSource::BuiltIn {
            command_line: line.unwrap_or_default()
        }),
        (path(), option::of(path()), option::of(text())).prop_map(|(kernel, initrd, line)| {
            BootSource::Kernel(KernelBoot {
                kernel,
                initrd,
                command_line: line.unwrap_or_default(),
            })
        }),
        Just(BootSource::Firmware),
    ]
}

fn lifecycle() -> impl Strategy<Value = LifecycleAction> {
    let off = select(
        &[
            OnPowerOff::Destroy,
            OnPowerOff::Restart,
            OnPowerOff::Preserve,
        ][..],
    );
    let reboot = select(&[OnReboot::Destroy, OnReboot::Restart, OnReboot::Preserve][..]);
    let crash = select(&[OnCrash::Destroy, OnCrash::Restart, OnCrash::Preserve][..]);
    (off, reboot, crash).prop_map(|(on_power_off, on_reboot, on_crash)| LifecycleAction {
        on_power_off,
        on_reboot,
        on_crash,
    })
}

fn limits() -> impl Strategy<Value = ResourceLimits> {
    let memory = option::of((8_u64 << 30..1 << 40).prop_map(MemorySize));
    let memory = (
        memory,
        option::of((1_u64..1 << 40).prop_map(MemorySize)),
        option::of(0_u64..1 << 40),
    );
    let percent = || option::of(1..=1_000_000_u32);
    let rest = (option::of(1..=10_000_u16), option::of(1..u32::MAX));
    (memory, percent(), percent(), rest).prop_map(|(memory, cpu_percent, vcpu_percent, rest)| {
        ResourceLimits {
            memory: memory.0,
            memory_soft: memory.1,
            memory_and_swap: memory
                .0
                .zip(memory.2)
                .map(|(memory, swap)| MemorySize(memory.bytes() + swap)),
            cpu_percent,
            vcpu_percent,
            cpu_weight: rest.0,
            pids: rest.1,
        }
    })
}

fn block() -> impl Strategy<Value = BlockTuning> {
    // The schema has those of the scheduler bfq that are no less than the default.
    let weight = || option::of(100..=1_000_u16);
    let bytes = || option::of(1..u64::MAX);
    let operations = || option::of(1..u32::MAX);
    let device = (
        "/dev/[a-zA-Z0-9<>&'\"\u{e9}/]{0,20}[a-z]",
        weight(),
        (bytes(), bytes()),
        (operations(), operations()),
    );
    let device = device.prop_map(|(path, weight, bytes, operations)| BlockDeviceTuning {
        path: path.into(),
        weight,
        read_bytes: bytes.0,
        write_bytes: bytes.1,
        read_operations: operations.0,
        write_operations: operations.1,
    });
    (weight(), vec(device, 0..3)).prop_map(|(weight, mut devices)| {
        devices.sort_by(|a, b| a.path.cmp(&b.path));
        devices.dedup_by(|a, b| a.path == b.path);
        BlockTuning { weight, devices }
    })
}

/// A quota of each vCPU, bounds of block devices, and nodes of memory.
fn held() -> impl Strategy<Value = (Option<CpuQuota>, BlockTuning, Option<MemoryNodes>)> {
    let quota = (CpuQuota::QUOTAS, CpuQuota::PERIODS).prop_map(|(quota_us, period_us)| CpuQuota {
        quota_us,
        period_us,
    });
    let nodes = prop_oneof![
        Just((NodeMode::Preferred, "1")),
        Just((NodeMode::Strict, "0-1,1023")),
        Just((NodeMode::Interleave, "0,2")),
        Just((NodeMode::Restrictive, "0")),
    ];
    let nodes = nodes.prop_map(|(mode, nodes)| MemoryNodes {
        mode,
        nodes: nodes.parse().unwrap(),
    });
    (option::of(quota), block(), option::of(nodes))
}

fn domain() -> impl Strategy<Value = Domain> {
    let vcpus = (1..=64_u32, 0..=64_u32);
    let memory = (
        512..1_000_000_u64,
        option::of(1..100_u64),
        option::of(any::<prop::sample::Index>()),
    );
    let labels = (option::of(line()), option::of(text()), metadata());
    let cpus = || select(&["0", "0-3,8", "5,7,4095"][..]);
    let pins = (vec(cpus(), 0..3), option::of(cpus()), held());
    let generation = prop_oneof![
        Just(GenerationId::Absent),
        Just(GenerationId::Random),
        any::<u128>().prop_map(|id| GenerationId::Fixed(Uuid::from_u128(id))),
    ];
    let first = (
        line(),
        select(&MachineType::ALL[..]),
        vcpus,
        any::<[bool; 5]>(),
        memory,
        boot(),
    );
    let second = (
        devices(),
        lifecycle(),
        limits(),
        pins,
        labels,
        generation,
        kept(),
    );
    (first, second).prop_map(|(first, second)| {
        let (name, machine, vcpus, switches, memory, boot) = first;
        let (mut devices, lifecycle, limits, pins, labels, generation_id, mut kept) = second;
        let start = memory.0 * 4096;
        devices.memory = memory.1.map(|blocks| PluggableMemory {
            max: MemorySize(start + blocks * (2 << 20)),
            address: None,
        });
        let max = vcpus.0 + vcpus.1;
        if max != 1 {
            kept.retain(|element| element.path != "cpu/topology");
        }
        let (pins, emulator, (vcpu_quota, block, memory_nodes)) = pins;
        let pins = pins.iter().zip(0..max);
        let current = memory.2.map(|place| {
            // Pages of what it starts with, blocks of what it can have beside.
            let pages = memory.0 - MIN_MEMORY_BYTES / 4096;
            let blocks = memory.1.map_or(0, |blocks| blocks * (2 << 20));
            let blocks = match blocks {
                0 => 0,
                extra => extra / PluggableSpec::block_bytes(extra),
            };
            let place = u64::try_from(place.index(usize::try_from(pages + blocks + 1).unwrap()));
            match place.unwrap() {
                place if place <= pages => MIN_MEMORY_BYTES + place * 4096,
                place => {
                    let extra = memory.1.unwrap() * (2 << 20);
                    start + (place - pages) * PluggableSpec::block_bytes(extra)
                }
            }
        });
        // What it starts with says nothing.
        let current = current.filter(|bytes| *bytes != start).map(MemorySize);
        Domain {
            name: DomainName::try_from(name).unwrap(),
            uuid: uuid(),
            machine,
            vcpus: Vcpus::try_from(vcpus.0).unwrap(),
            cpu: CpuSwitches {
                tsc_deadline: switches[0],
                kvmclock: switches[1],
                invariant_tsc: switches[2],
                transactional_memory: switches[3],
            },
            memory: MemorySize(start),
            boot,
            devices,
            lifecycle,
            limits,
            pinning: pins
                .map(|(cpus, vcpu)| VcpuPin {
                    vcpu,
                    cpus: cpus.parse::<CpuSet>().unwrap(),
                })
                .collect(),
            labels: Labels {
                title: labels.0,
                description: labels.1,
                metadata: labels.2,
            },
            max_vcpus: Vcpus::try_from(max).unwrap(),
            platform: Platform {
                generation_id,
                panic_port: switches[4],
            },
            kept,
            tuning: Tuning {
                current_memory: current,
                emulator_cpus: emulator.map(|cpus| cpus.parse().unwrap()),
                vcpu_quota,
                block,
                memory_nodes,
            },
        }
    })
}

/// What does not matter: the order in which elements of different places are kept, and in which metadata that is
/// an element and that which is none come.
fn sorted(mut domain: Domain) -> Domain {
    domain.kept.sort_by(|a, b| a.path.cmp(&b.path));
    domain.labels.metadata.sort_by(|a, b| a.uri.cmp(&b.uri));
    domain
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_domain_comes_back_the_same_and_as_the_same_text(domain in domain()) {
        let mut domain = domain;
        domain.complete().unwrap();
        domain.validate().unwrap();
        let first = dumped(&domain);
        let again = parse(&first).unwrap_or_else(|error| panic!("{error}\n{first}")).domain;
        prop_assert_eq!(&dumped(&again), &first);
        prop_assert_eq!(sorted(again), sorted(domain), "{}", first);
    }
}

#[test]
fn any_domain_is_valid() {
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let documents: Vec<String> = (0..200)
        .map(|_| {
            let mut domain = domain().new_tree(&mut runner).unwrap().current();
            domain.complete().unwrap();
            dumped(&domain)
        })
        .collect();
    validate("domain", &documents);
}
