//! What is asked and told of devices while a machine runs, in which no field has its neighbour's value;
//! and any of it that can be expressed at all.

use proptest::option;
use proptest::prelude::*;

use super::device_samples::{BURST, any_rate, any_slot, any_throttle, rate, slot};
use crate::device::{
    BalloonFigures, DeviceChange, DeviceFigures, DeviceReport, DirectionFigures, DiskFigures,
    GuestMemoryFigures, MemoryFigures, NicFigures, OperationFigures, PortFigures, PortsFigures,
};
use crate::event::Event;
use crate::spec::{DiskThrottle, Rates};

/// One of each change.
pub(super) fn changes() -> Vec<(&'static str, DeviceChange)> {
    let throttle = DiskThrottle {
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
    };
    vec![
        ("change: link", DeviceChange::Link { up: true }),
        ("change: rates", {
            let (inbound, outbound) = (Some(rate(8)), None);
            DeviceChange::NicRates { inbound, outbound }
        }),
        ("change: throttle", DeviceChange::DiskThrottle(throttle)),
        ("change: balloon", {
            let bytes = 1 << 27;
            DeviceChange::BalloonTarget { bytes }
        }),
        ("change: poll", DeviceChange::BalloonPoll),
        ("change: size", {
            let (bytes, shrink) = (Some(1 << 34), true);
            DeviceChange::DiskSize { bytes, shrink }
        }),
        ("change: memory", {
            let bytes = 1 << 28;
            DeviceChange::MemoryRequest { bytes }
        }),
    ]
}

const fn operations(first: u64) -> OperationFigures {
    OperationFigures {
        operations: first,
        bytes: first + 1,
        nanoseconds: first + 2,
        errors: first + 3,
    }
}

const fn direction(first: u64) -> DirectionFigures {
    DirectionFigures {
        packets: first,
        bytes: first + 1,
        errors: first + 2,
        drops: first + 3,
    }
}

/// The figures of one of each kind.
pub(super) fn figures() -> Vec<DeviceFigures> {
    let guest = GuestMemoryFigures {
        age_ms: 33,
        swap_in: Some(34),
        swap_out: Some(35),
        major_faults: Some(36),
        minor_faults: Some(37),
        free: Some(38),
        total: Some(39),
        available: Some(40),
        disk_caches: None,
    };
    let balloon = |guest| BalloonFigures {
        target_bytes: 31,
        actual_bytes: 32,
        guest,
    };
    vec![
        DeviceFigures::Disk(DiskFigures {
            reads: operations(3),
            writes: operations(7),
            flushes: operations(11),
            discards: operations(15),
        }),
        DeviceFigures::Nic(NicFigures {
            received: direction(19),
            sent: direction(23),
            by_kernel: true,
        }),
        DeviceFigures::Balloon(balloon(Some(guest))),
        DeviceFigures::Balloon(balloon(None)),
        DeviceFigures::None,
        DeviceFigures::Ports(PortsFigures {
            present: 0b111,
            guest_open: 0b011,
            connected: 1 << 30,
        }),
        DeviceFigures::Port(PortFigures {
            number: 3,
            guest_open: true,
            connected: false,
        }),
        DeviceFigures::Memory(MemoryFigures {
            requested_bytes: 41,
            plugged_bytes: 42,
            most_bytes: 43,
            block_bytes: 44,
        }),
    ]
}

/// A report of each.
pub(super) fn reports() -> Vec<DeviceReport> {
    let reports = (1..).zip(figures()).map(|(number, figures)| DeviceReport {
        slot: slot(number),
        figures,
    });
    reports.collect()
}

/// One of each event.
pub(super) fn device_events() -> Vec<(&'static str, Event)> {
    let slot = slot(5);
    vec![
        ("device removed", Event::DeviceRemoved { slot }),
        ("balloon changed", {
            let (bytes, plugged_bytes) = (1 << 26, 1 << 25);
            Event::BalloonChanged {
                bytes,
                plugged_bytes,
            }
        }),
        ("port removed", Event::PortRemoved { slot, number: 3 }),
        ("ports changed", {
            let guest_open = 0b101;
            Event::PortsChanged { slot, guest_open }
        }),
    ]
}

pub(super) fn any_change() -> impl Strategy<Value = DeviceChange> {
    let rates = (option::of(any_rate()), option::of(any_rate()));
    prop_oneof![
        any::<bool>().prop_map(|up| DeviceChange::Link { up }),
        rates.prop_map(|(inbound, outbound)| DeviceChange::NicRates { inbound, outbound }),
        any_throttle().prop_map(DeviceChange::DiskThrottle),
        any::<u64>().prop_map(|bytes| DeviceChange::BalloonTarget { bytes }),
        Just(DeviceChange::BalloonPoll),
        any::<u64>().prop_map(|bytes| DeviceChange::MemoryRequest { bytes }),
        any::<(Option<u64>, bool)>()
            .prop_map(|(bytes, shrink)| DeviceChange::DiskSize { bytes, shrink }),
    ]
}

fn any_operations() -> impl Strategy<Value = OperationFigures> {
    any::<[u64; 4]>().prop_map(|numbers| OperationFigures {
        operations: numbers[0],
        bytes: numbers[1],
        nanoseconds: numbers[2],
        errors: numbers[3],
    })
}

fn any_direction() -> impl Strategy<Value = DirectionFigures> {
    any::<[u64; 4]>().prop_map(|numbers| DirectionFigures {
        packets: numbers[0],
        bytes: numbers[1],
        errors: numbers[2],
        drops: numbers[3],
    })
}

fn any_guest() -> impl Strategy<Value = GuestMemoryFigures> {
    (any::<u64>(), any::<[Option<u64>; 8]>()).prop_map(|(age_ms, numbers)| GuestMemoryFigures {
        age_ms,
        swap_in: numbers[0],
        swap_out: numbers[1],
        major_faults: numbers[2],
        minor_faults: numbers[3],
        free: numbers[4],
        total: numbers[5],
        available: numbers[6],
        disk_caches: numbers[7],
    })
}

/// The figures of any device.
pub(super) fn any_figures() -> impl Strategy<Value = DeviceFigures> {
    let four = || any_operations();
    prop_oneof![
        (four(), four(), four(), four()).prop_map(|(reads, writes, flushes, discards)| {
            DeviceFigures::Disk(DiskFigures {
                reads,
                writes,
                flushes,
                discards,
            })
        }),
        (any_direction(), any_direction(), any::<bool>()).prop_map(
            |(received, sent, by_kernel)| DeviceFigures::Nic(NicFigures {
                received,
                sent,
                by_kernel,
            })
        ),
        (any::<[u64; 2]>(), option::of(any_guest())).prop_map(|(bytes, guest)| {
            DeviceFigures::Balloon(BalloonFigures {
                target_bytes: bytes[0],
                actual_bytes: bytes[1],
                guest,
            })
        }),
        Just(DeviceFigures::None),
        any::<[u32; 3]>().prop_map(|[present, guest_open, connected]| {
            DeviceFigures::Ports(PortsFigures {
                present,
                guest_open,
                connected,
            })
        }),
        any::<(u8, bool, bool)>().prop_map(|(number, guest_open, connected)| {
            DeviceFigures::Port(PortFigures {
                number,
                guest_open,
                connected,
            })
        }),
        any::<[u64; 4]>().prop_map(|bytes| {
            DeviceFigures::Memory(MemoryFigures {
                requested_bytes: bytes[0],
                plugged_bytes: bytes[1],
                most_bytes: bytes[2],
                block_bytes: bytes[3],
            })
        }),
    ]
}

pub(super) fn any_report() -> impl Strategy<Value = DeviceReport> {
    (any_slot(), any_figures()).prop_map(|(slot, figures)| DeviceReport { slot, figures })
}
