//! Tests of the bus.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};

use proptest::prelude::*;

use super::*;
use crate::shared::share;

/// Answers with its tag and remembers the last access.
#[derive(Default)]
struct Probe {
    tag: u8,
    last: Option<(u64, usize)>,
    refuse: bool,
}

impl BusDevice for Probe {
    fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), AccessError> {
        self.last = Some((offset, data.len()));
        data.fill(self.tag);
        if self.refuse {
            Err(AccessError)
        } else {
            Ok(())
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), AccessError> {
        self.last = Some((offset, data.len()));
        if self.refuse {
            Err(AccessError)
        } else {
            Ok(())
        }
    }
}

fn probe(tag: u8) -> Shared<Probe> {
    share(Probe {
        tag,
        ..Probe::default()
    })
}

#[test]
fn accesses_reach_the_device_with_the_offset_of_its_region() {
    let bus = MmioBus::new();
    let (low, high) = (probe(1), probe(2));
    bus.insert(MmioAddress(0x1000), 0x100, low.clone()).unwrap();
    bus.insert_at(MmioAddress(0x1100), 0x100, 0x40, high.clone())
        .unwrap();
    let mut data = [0; 4];
    assert!(bus.read(MmioAddress(0x10fc), &mut data));
    assert_eq!(data, [1; 4]);
    assert_eq!(lock(&low).last, Some((0xfc, 4)));
    assert!(bus.write(MmioAddress(0x1108), &[0; 8]));
    assert_eq!(lock(&high).last, Some((0x48, 8)));
}

#[test]
fn unclaimed_and_refused_reads_give_all_ones() {
    let bus = PortBus::new();
    let device = probe(0);
    bus.insert(Port(0x60), 4, device.clone()).unwrap();
    for (port, width) in [(0x5f, 1), (0x64, 1), (0x63, 2), (0x5f, 2), (0xffff, 4)] {
        let mut data = vec![0; width];
        assert!(!bus.read(Port(port), &mut data), "{port:#x} {width}");
        assert_eq!(data, vec![0xff; width]);
        assert!(!bus.write(Port(port), &data));
    }
    assert_eq!(lock(&device).last, None);
    lock(&device).refuse = true;
    let mut data = [0; 2];
    assert!(!bus.read(Port(0x60), &mut data));
    assert_eq!(data, [0xff; 2]);
    assert!(!bus.write(Port(0x60), &data));
}

#[test]
fn widths_no_processor_has_are_unclaimed() {
    let bus = PortBus::new();
    bus.insert(Port(0), 0x10000, probe(0)).unwrap();
    for width in [0, 3, 5, 6, 7, 9, 16] {
        let mut data = vec![0; width];
        assert!(!bus.read(Port(0), &mut data));
        assert!(!bus.write(Port(0), &data));
    }
}

#[test]
fn bad_regions_are_refused() {
    let bus = PortBus::new();
    assert_eq!(
        bus.insert(Port(1), 0, probe(0)),
        Err(BusError::Empty {
            space: "port",
            start: 1
        })
    );
    assert_eq!(
        bus.insert(Port(0xffff), 2, probe(0)),
        Err(BusError::Overflow {
            space: "port",
            start: 0xffff,
            len: 2
        })
    );
    assert_eq!(
        bus.insert(Port(0), u64::MAX, probe(0)),
        Err(BusError::Overflow {
            space: "port",
            start: 0,
            len: u64::MAX
        })
    );
    bus.insert(Port(0xfff8), 8, probe(0)).unwrap();
    let mmio = MmioBus::new();
    mmio.insert(MmioAddress(u64::MAX - 7), 8, probe(0)).unwrap();
    assert!(mmio.insert(MmioAddress(u64::MAX), 2, probe(0)).is_err());
    assert!(
        mmio.insert_at(MmioAddress(0), 2, u64::MAX, probe(0))
            .is_err()
    );
    assert!(mmio.read(MmioAddress(u64::MAX), &mut [0]));
    assert!(!mmio.read(MmioAddress(u64::MAX), &mut [0; 2]));
}

#[test]
fn a_removed_region_is_unclaimed_and_its_place_free() {
    let bus = PortBus::new();
    bus.insert(Port(0x10), 4, probe(1)).unwrap();
    assert!(bus.remove(Port(0x11)).is_err());
    assert!(bus.remove(Port(0x10)).is_ok());
    assert!(!bus.read(Port(0x10), &mut [0]));
    bus.insert(Port(0x0e), 4, probe(2)).unwrap();
    assert!(bus.read(Port(0x10), &mut [0]));
}

/// A device whose handler changes the bus that called it, and waits while another thread uses it.
struct Rewires {
    bus: Arc<PortBus>,
    entered: Arc<Barrier>,
    other_done: Arc<AtomicBool>,
}

impl BusDevice for Rewires {
    fn read(&mut self, _offset: u64, _data: &mut [u8]) -> Result<(), AccessError> {
        self.bus
            .insert(Port(0x20), 1, probe(9))
            .map_err(|_| AccessError)?;
        self.entered.wait();
        while !self.other_done.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        Ok(())
    }

    fn write(&mut self, _offset: u64, _data: &[u8]) -> Result<(), AccessError> {
        Err(AccessError)
    }
}

#[test]
fn handlers_run_with_the_map_unlocked_and_hold_up_only_their_own_device() {
    let bus = Arc::new(PortBus::new());
    let entered = Arc::new(Barrier::new(2));
    let other_done = Arc::new(AtomicBool::new(false));
    let rewires = Rewires {
        bus: bus.clone(),
        entered: entered.clone(),
        other_done: other_done.clone(),
    };
    bus.insert(Port(0x10), 1, share(rewires)).unwrap();
    let blocked = std::thread::spawn({
        let bus = bus.clone();
        move || bus.read(Port(0x10), &mut [0])
    });
    entered.wait();
    let mut data = [0];
    assert!(bus.read(Port(0x20), &mut data));
    assert_eq!(data, [9]);
    other_done.store(true, Ordering::Release);
    assert!(blocked.join().unwrap());
}

proptest! {
    /// The map agrees with a plain list of accepted regions, whatever is inserted.
    #[test]
    fn lookup_agrees_with_a_linear_search(
        regions in proptest::collection::vec((0u16..200, 1u64..40), 0..20),
        accesses in proptest::collection::vec((0u16..260, 0usize..4), 0..50),
    ) {
        let bus = PortBus::new();
        let mut model: Vec<(u64, u64, u8)> = Vec::new();
        for (tag, (start, len)) in (0u8..).zip(regions) {
            let (first, last) = (u64::from(start), u64::from(start) + len - 1);
            let free = model.iter().all(|(f, l, _)| last < *f || first > *l);
            prop_assert_eq!(bus.insert(Port(start), len, probe(tag)).is_ok(), free);
            if free {
                model.push((first, last, tag));
            }
        }
        for (port, width) in accesses {
            let mut data = vec![0xee; 1 << width];
            let (first, last) = (u64::from(port), u64::from(port) + data.len() as u64 - 1);
            let owner = model.iter().find(|(f, l, _)| *f <= first && last <= *l);
            prop_assert_eq!(bus.read(Port(port), &mut data), owner.is_some());
            let expected = owner.map_or(0xff, |(_, _, tag)| *tag);
            prop_assert!(data.iter().all(|byte| *byte == expected));
        }
    }
}
