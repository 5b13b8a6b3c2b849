//! Devices as a definition says them, in which no field has its neighbour's value; and any that can be
//! expressed at all.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::network_samples::network_name;
use crate::model::{
    Balloon, BlockSize, Channel, Device, Devices, DirectMode, Disk, DiskTarget, IpRange, Layer,
    Medium, MemorySize, Nic, NicSource, PluggableMemory, PortConsole, Rng, Share, Vsock, Watchdog,
};
use crate::spec::{
    Burst, CacheMode, Discard, DiskFormat, DiskThrottle, IoEngine, NicDriver, PciSlot, Rate, Rates,
    WatchdogAction,
};
use crate::tests::arbitrary::watchdog_action;
use crate::tests::device_samples::{any_mac, any_throttle};

fn slot(number: u8) -> PciSlot {
    PciSlot::try_from(number).unwrap()
}

fn layer(path: &str, format: DiskFormat) -> Layer {
    Layer {
        path: path.into(),
        format,
    }
}

/// One of each, every field set.
pub(in crate::tests) fn devices() -> Devices {
    let rate = |per_second| Rate {
        per_second,
        burst: None,
    };
    let burst = Rate {
        per_second: 2,
        burst: Some(Burst {
            per_second: 3,
            seconds: 4,
        }),
    };
    let disk = Disk {
        target: "vda".parse().unwrap(),
        image: Some(layer("/i/a", DiskFormat::Qcow2)),
        backing: vec![layer("/i/b", DiskFormat::Raw)],
        read_only: false,
        cache: CacheMode::None,
        io: IoEngine::Threads,
        discard: Discard::Unmap,
        serial: Some("S".to_owned()),
        queues: 5,
        block_size: BlockSize::B4096,
        throttle: DiskThrottle {
            bytes: Rates {
                total: Some(burst),
                read: None,
                write: None,
            },
            requests: Rates {
                total: None,
                read: Some(rate(6)),
                write: Some(rate(7)),
            },
        },
        address: Some(slot(1)),
        removable: false,
        from_image: false,
    };
    let empty = Disk {
        read_only: true,
        removable: true,
        ..Disk::new("vdb".parse().unwrap(), None)
    };
    let nic = Nic {
        mac: Some("52:54:00:0a:0b:0c".parse().unwrap()),
        source: NicSource::Bridge("br0".parse().unwrap()),
        target: Some("web0".parse().unwrap()),
        queues: 2,
        mtu: Some(1400),
        link_up: true,
        inbound: Some(rate(8)),
        outbound: None,
        trust_guest: false,
        isolated: true,
        address: Some(slot(2)),
        addresses: vec![
            "192.0.2.5".parse().unwrap(),
            "2001:db8::/64".parse().unwrap(),
        ],
        driver: NicDriver::User,
        filter: Some(Box::new(super::nwfilter_samples::reference())),
        virtual_port: None,
    };
    let kernels = Nic {
        driver: NicDriver::Vhost,
        ..Nic::new(NicSource::Tap("tap0".parse().unwrap()))
    };
    Devices {
        disks: vec![disk, empty],
        nics: vec![
            nic,
            kernels,
            Nic::new(NicSource::Nothing),
            Nic::new(NicSource::Switch("/run/switch".into())),
        ],
        rng: Some(Rng {
            rate: Some(rate(9)),
            address: Some(slot(3)),
        }),
        balloon: Some(Balloon {
            free_page_reporting: true,
            deflate_on_oom: false,
            address: Some(slot(4)),
        }),
        vsock: Some(Vsock {
            cid: Some(33),
            path: "/i/v".into(),
            address: Some(slot(5)),
        }),
        channels: vec![Channel {
            name: "a.0".to_owned(),
            path: "/i/c".into(),
            port: Some(5),
        }],
        consoles: vec![PortConsole {
            path: "/i/h".into(),
            port: Some(0),
        }],
        ports_address: Some(slot(31)),
        shares: vec![Share {
            tag: "t".to_owned(),
            source: "/i/s".into(),
            read_only: true,
            address: Some(slot(29)),
        }],
        watchdog: Some(Watchdog {
            action: WatchdogAction::Shutdown,
            address: Some(slot(28)),
        }),
        memory: Some(PluggableMemory {
            max: MemorySize::mebibytes(3000),
            address: Some(slot(27)),
        }),
    }
}

fn any_address() -> impl Strategy<Value = Option<PciSlot>> {
    option::of((PciSlot::MIN..=PciSlot::MAX).prop_map(slot))
}

fn text() -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..30).prop_map(|chars| chars.into_iter().collect())
}

fn any_rate() -> impl Strategy<Value = Option<Rate>> {
    option::of(any::<u64>().prop_map(|per_second| Rate {
        per_second,
        burst: None,
    }))
}

fn any_layer() -> impl Strategy<Value = Layer> {
    (text(), select(DiskFormat::ALL)).prop_map(|(path, format)| layer(&path, format))
}

fn any_disk() -> impl Strategy<Value = Disk> {
    let what = (
        0..18_000_usize,
        option::of(any_layer()),
        vec(any_layer(), 0..3),
        any::<bool>(),
    );
    let how = (
        select(CacheMode::ALL),
        select(IoEngine::ALL),
        select(Discard::ALL),
        option::of(text()),
    );
    let sizes = select(vec![BlockSize::B512, BlockSize::B4096]);
    let rest = (any::<u16>(), sizes, any_throttle(), any_address());
    (what, how, rest, any::<[bool; 2]>()).prop_map(|(what, how, rest, flags)| Disk {
        target: DiskTarget::at(what.0).unwrap(),
        image: what.1,
        backing: what.2,
        read_only: what.3,
        cache: how.0,
        io: how.1,
        discard: how.2,
        serial: how.3,
        queues: rest.0,
        block_size: rest.1,
        throttle: rest.2,
        address: rest.3,
        removable: flags[0],
        from_image: flags[1],
    })
}

pub(super) fn any_medium() -> impl Strategy<Value = Medium> {
    (any_layer(), vec(any_layer(), 0..3), any::<bool>()).prop_map(|(image, backing, from_image)| {
        Medium {
            image,
            backing,
            from_image,
        }
    })
}

fn any_range() -> impl Strategy<Value = IpRange> {
    let ipv4 =
        (1..=223_u8, 8..=32_u32).prop_map(|(first, prefix)| format!("{first}.0.0.0/{prefix}"));
    let ipv6 =
        (1..=u16::MAX, 32..=128_u32).prop_map(|(part, prefix)| format!("2001:{part:x}::/{prefix}"));
    prop_oneof![ipv4, ipv6].prop_map(|text| text.parse().unwrap())
}

fn any_nic() -> impl Strategy<Value = Nic> {
    let name = || "[!-$&-.0-9;-~]{3,15}".prop_map(|name| name.parse().unwrap());
    let source = prop_oneof![
        name().prop_map(NicSource::Bridge),
        name().prop_map(NicSource::Tap),
        Just(NicSource::Nothing),
        text().prop_map(|path| NicSource::Switch(path.into())),
        (name(), select(DirectMode::ALL))
            .prop_map(|(device, mode)| NicSource::Direct { device, mode }),
        Just(NicSource::User),
        option::of(text()).prop_map(|port_group| NicSource::Network {
            network: network_name(),
            port_group,
            port: None,
        }),
    ];
    let what = (option::of(any_mac()), source, option::of(name()));
    let how = (
        any::<(u16, Option<u16>, [bool; 3])>(),
        any_rate(),
        any_rate(),
    );
    let addresses = vec(any_range(), 0..4);
    let more = (any_address(), addresses, select(NicDriver::ALL));
    (what, how, more).prop_map(|(what, how, (address, addresses, driver))| Nic {
        mac: what.0,
        source: what.1,
        target: what.2,
        queues: how.0.0,
        mtu: how.0.1,
        link_up: how.0.2[0],
        inbound: how.1,
        outbound: how.2,
        trust_guest: how.0.2[1],
        isolated: how.0.2[2],
        address,
        addresses,
        driver,
        filter: None,
        virtual_port: None,
    })
}

/// Any devices.
pub(super) fn any_devices() -> impl Strategy<Value = Devices> {
    let rng = (any_rate(), any_address()).prop_map(|(rate, address)| Rng { rate, address });
    let balloon = (any::<[bool; 2]>(), any_address()).prop_map(|(switches, address)| Balloon {
        free_page_reporting: switches[0],
        deflate_on_oom: switches[1],
        address,
    });
    let vsock = (any::<Option<u32>>(), text(), any_address());
    let vsock = vsock.prop_map(|(cid, path, address)| Vsock {
        cid,
        path: path.into(),
        address,
    });
    let many = (vec(any_disk(), 0..3), vec(any_nic(), 0..3));
    let one = (option::of(rng), option::of(balloon), option::of(vsock));
    let ports = (
        vec(any_channel(), 0..3),
        vec(any_console(), 0..3),
        any_address(),
    );
    let share = (text(), text(), any::<bool>(), any_address());
    let share = share.prop_map(|(tag, source, read_only, address)| Share {
        tag,
        source: source.into(),
        read_only,
        address,
    });
    let shares = vec(share, 0..3);
    let watchdog = (watchdog_action(), any_address());
    let watchdog = watchdog.prop_map(|(action, address)| Watchdog { action, address });
    let memory = (any::<u64>(), any_address());
    let memory = memory.prop_map(|(max, address)| PluggableMemory {
        max: MemorySize(max),
        address,
    });
    let last = (shares, option::of(watchdog), option::of(memory));
    (many, one, ports, last).prop_map(|(many, one, ports, last)| Devices {
        disks: many.0,
        nics: many.1,
        rng: one.0,
        balloon: one.1,
        vsock: one.2,
        channels: ports.0,
        consoles: ports.1,
        ports_address: ports.2,
        shares: last.0,
        watchdog: last.1,
        memory: last.2,
    })
}

fn any_channel() -> impl Strategy<Value = Channel> {
    (text(), text(), any::<Option<u8>>()).prop_map(|(name, path, port)| Channel {
        name,
        path: path.into(),
        port,
    })
}

fn any_console() -> impl Strategy<Value = PortConsole> {
    (text(), any::<Option<u8>>()).prop_map(|(path, port)| PortConsole {
        path: path.into(),
        port,
    })
}

/// Any device that comes by itself.
pub(super) fn any_device() -> impl Strategy<Value = Device> {
    prop_oneof![
        any_disk().prop_map(Device::Disk),
        any_nic().prop_map(Device::Nic),
        (any_rate(), any_address()).prop_map(|(rate, address)| Device::Rng(Rng { rate, address })),
        (any::<[bool; 2]>(), any_address()).prop_map(|(switches, address)| {
            Device::Balloon(Balloon {
                free_page_reporting: switches[0],
                deflate_on_oom: switches[1],
                address,
            })
        }),
        (any::<Option<u32>>(), text(), any_address()).prop_map(|(cid, path, address)| {
            Device::Vsock(Vsock {
                cid,
                path: path.into(),
                address,
            })
        }),
        (text(), text(), any::<bool>(), any_address()).prop_map(
            |(tag, source, read_only, address)| {
                Device::Share(Share {
                    tag,
                    source: source.into(),
                    read_only,
                    address,
                })
            }
        ),
        any_channel().prop_map(Device::Channel),
        any_console().prop_map(Device::Console),
    ]
}
