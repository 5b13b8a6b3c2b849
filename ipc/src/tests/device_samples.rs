//! Devices as a launch names them, in which no field has its neighbour's value; and any that can be
//! expressed at all.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::fd::FdSlot;
use crate::spec::{
    BalloonSpec, Burst, CacheMode, DeviceSpec, Discard, DiskFormat, DiskSpec, DiskThrottle,
    IoEngine, LayerSpec, MacAddress, MemoryDeviceSpec, NicSpec, PciSlot, PortKind, PortSpec,
    PortsSpec, Rate, Rates, RngSpec, ShareSpec, SwitchedNicSpec, UserNicSpec, VsockSpec,
};

pub(super) fn slot(number: u8) -> PciSlot {
    PciSlot::try_from(number).unwrap()
}

pub(super) const fn rate(per_second: u64) -> Rate {
    Rate {
        per_second,
        burst: None,
    }
}

pub(super) const BURST: Rate = Rate {
    per_second: 2,
    burst: Some(Burst {
        per_second: 3,
        seconds: 4,
    }),
};

fn layer(fd: u16, format: DiskFormat) -> LayerSpec {
    let fd = FdSlot(fd);
    LayerSpec { fd, format }
}

fn disk() -> DiskSpec {
    DiskSpec {
        slot: slot(1),
        name: "vda".to_owned(),
        layers: vec![layer(10, DiskFormat::Qcow2), layer(11, DiskFormat::Raw)],
        read_only: false,
        cache: CacheMode::None,
        engine: IoEngine::Threads,
        discard: Discard::Unmap,
        serial: "S".to_owned(),
        queues: 5,
        block_bytes: 4096,
        throttle: DiskThrottle {
            bytes: Rates {
                total: Some(BURST),
                read: None,
                write: None,
            },
            requests: Rates {
                total: None,
                read: Some(rate(6)),
                write: Some(rate(7)),
            },
        },
    }
}

/// One of each.
pub(super) fn devices() -> Vec<DeviceSpec> {
    let nic = NicSpec {
        slot: slot(2),
        name: "vnet0".to_owned(),
        mac: "52:54:00:0a:0b:0c".parse().unwrap(),
        taps: vec![FdSlot(12), FdSlot(13)],
        mtu: Some(1400),
        link_up: true,
        inbound: Some(rate(8)),
        outbound: None,
        may_change_mac: false,
        vhost: vec![FdSlot(20), FdSlot(21)],
    };
    let rng = RngSpec {
        slot: slot(3),
        rate: Some(rate(9)),
    };
    let balloon = BalloonSpec {
        slot: slot(4),
        free_page_reporting: true,
        deflate_on_oom: false,
    };
    let vsock = VsockSpec {
        slot: slot(5),
        cid: 33,
        listener: FdSlot(14),
        acceptor: Some(FdSlot(15)),
    };
    let console = PortSpec {
        number: 0,
        kind: PortKind::Console,
        listener: FdSlot(16),
    };
    let channel = PortSpec {
        number: 1,
        kind: PortKind::Channel {
            name: "a.0".to_owned(),
        },
        listener: FdSlot(17),
    };
    let ports = PortsSpec {
        slot: slot(31),
        ports: vec![console, channel],
        room: 8,
    };
    vec![
        DeviceSpec::Disk(disk()),
        DeviceSpec::Nic(nic),
        DeviceSpec::Rng(rng),
        DeviceSpec::Balloon(balloon),
        DeviceSpec::Vsock(vsock),
        DeviceSpec::Ports(ports),
        DeviceSpec::Share(ShareSpec {
            slot: slot(7),
            tag: "t".to_owned(),
            socket: FdSlot(18),
            words: FdSlot(19),
        }),
        DeviceSpec::SwitchedNic(SwitchedNicSpec {
            slot: slot(9),
            name: "/run/switch".to_owned(),
            mac: "52:54:00:0a:0b:0d".parse().unwrap(),
            socket: FdSlot(40),
            queues: 2,
            mtu: Some(1400),
        }),
        DeviceSpec::Memory(MemoryDeviceSpec { slot: slot(8) }),
        DeviceSpec::UserNic(UserNicSpec {
            slot: slot(10),
            mac: "52:54:00:0a:0b:0e".parse().unwrap(),
            socket: FdSlot(41),
            words: FdSlot(42),
            mtu: Some(1300),
            link_up: true,
            inbound: Some(Rate {
                per_second: 3000,
                burst: None,
            }),
            outbound: None,
        }),
    ]
}

/// The other variants of what is in them.
pub(super) fn other_devices() -> Vec<DeviceSpec> {
    let modes = [
        CacheMode::WriteBack,
        CacheMode::WriteThrough,
        CacheMode::DirectSync,
        CacheMode::Unsafe,
    ];
    let disks = modes.into_iter().zip(1_u8..).map(|(cache, number)| {
        DeviceSpec::Disk(DiskSpec {
            slot: slot(number),
            layers: Vec::new(),
            read_only: true,
            cache,
            engine: IoEngine::IoUring,
            discard: Discard::Ignore,
            serial: String::new(),
            block_bytes: 512,
            throttle: DiskThrottle::default(),
            ..disk()
        })
    });
    disks.collect()
}

pub(super) fn any_slot() -> impl Strategy<Value = PciSlot> {
    (PciSlot::MIN..=PciSlot::MAX).prop_map(slot)
}

fn any_fd() -> impl Strategy<Value = FdSlot> {
    any::<u16>().prop_map(FdSlot)
}

pub(super) fn any_rate() -> impl Strategy<Value = Rate> {
    let burst = any::<(u64, u32)>().prop_map(|(per_second, seconds)| Burst {
        per_second,
        seconds,
    });
    (any::<u64>(), option::of(burst)).prop_map(|(per_second, burst)| Rate { per_second, burst })
}

fn any_rates() -> impl Strategy<Value = Rates> {
    let rate = || option::of(any_rate());
    (rate(), rate(), rate()).prop_map(|(total, read, write)| Rates { total, read, write })
}

pub(super) fn any_throttle() -> impl Strategy<Value = DiskThrottle> {
    (any_rates(), any_rates()).prop_map(|(bytes, requests)| DiskThrottle { bytes, requests })
}

pub(super) fn any_mac() -> impl Strategy<Value = MacAddress> {
    any::<[u8; 6]>().prop_map(|mut octets| {
        octets[0] = octets[0] & !1 | 2;
        MacAddress::try_from(octets).unwrap()
    })
}

fn text() -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..30).prop_map(|chars| chars.into_iter().collect())
}

pub(super) fn any_layer() -> impl Strategy<Value = LayerSpec> {
    (any_fd(), select(DiskFormat::ALL)).prop_map(|(fd, format)| LayerSpec { fd, format })
}

fn any_disk() -> impl Strategy<Value = DiskSpec> {
    let what = (any_slot(), text(), vec(any_layer(), 0..4), any::<bool>());
    let how = (
        select(CacheMode::ALL),
        select(IoEngine::ALL),
        select(Discard::ALL),
    );
    let rest = (text(), any::<u16>(), any::<u32>(), any_throttle());
    (what, how, rest).prop_map(|(what, how, rest)| DiskSpec {
        slot: what.0,
        name: what.1,
        layers: what.2,
        read_only: what.3,
        cache: how.0,
        engine: how.1,
        discard: how.2,
        serial: rest.0,
        queues: rest.1,
        block_bytes: rest.2,
        throttle: rest.3,
    })
}

fn any_nic() -> impl Strategy<Value = NicSpec> {
    let what = (any_slot(), text(), any_mac(), vec(any_fd(), 0..9));
    let rates = (option::of(any_rate()), option::of(any_rate()));
    let rest = (
        any::<Option<u16>>(),
        any::<[bool; 2]>(),
        vec(any_fd(), 0..9),
    );
    (what, rates, rest).prop_map(|(what, rates, rest)| NicSpec {
        slot: what.0,
        name: what.1,
        mac: what.2,
        taps: what.3,
        mtu: rest.0,
        link_up: rest.1[0],
        inbound: rates.0,
        outbound: rates.1,
        may_change_mac: rest.1[1],
        vhost: rest.2,
    })
}

pub(super) fn any_port() -> impl Strategy<Value = PortSpec> {
    let kind = prop_oneof![
        Just(PortKind::Console),
        text().prop_map(|name| PortKind::Channel { name }),
    ];
    (any::<u16>(), kind, any_fd()).prop_map(|(number, kind, listener)| PortSpec {
        number,
        kind,
        listener,
    })
}

fn any_ports() -> impl Strategy<Value = PortsSpec> {
    (any_slot(), vec(any_port(), 0..4), any::<u16>()).prop_map(|(slot, ports, room)| PortsSpec {
        slot,
        ports,
        room,
    })
}

/// Any device.
pub(super) fn any_device() -> impl Strategy<Value = DeviceSpec> {
    prop_oneof![
        any_disk().prop_map(DeviceSpec::Disk),
        any_nic().prop_map(DeviceSpec::Nic),
        (any_slot(), option::of(any_rate()))
            .prop_map(|(slot, rate)| DeviceSpec::Rng(RngSpec { slot, rate })),
        (any_slot(), any::<[bool; 2]>()).prop_map(|(slot, switches)| {
            DeviceSpec::Balloon(BalloonSpec {
                slot,
                free_page_reporting: switches[0],
                deflate_on_oom: switches[1],
            })
        }),
        (any_slot(), any::<u32>(), any_fd(), option::of(any_fd())).prop_map(
            |(slot, cid, listener, acceptor)| {
                DeviceSpec::Vsock(VsockSpec {
                    slot,
                    cid,
                    listener,
                    acceptor,
                })
            }
        ),
        any_ports().prop_map(DeviceSpec::Ports),
        (any_slot(), "[a-z]{1,36}", any_fd(), any_fd()).prop_map(|(slot, tag, socket, words)| {
            DeviceSpec::Share(ShareSpec {
                slot,
                tag,
                socket,
                words,
            })
        }),
        any_slot().prop_map(|slot| DeviceSpec::Memory(MemoryDeviceSpec { slot })),
    ]
}
