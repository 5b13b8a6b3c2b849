//! Tests of the IOAPIC, after what operating systems do to it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;

use super::*;
use crate::irq::MsiMessage;
use crate::shared::share;

/// Local APICs and routing table of the far side.
#[derive(Debug, Default)]
struct Far {
    sent: Mutex<Vec<MsiMessage>>,
    routed: Mutex<Vec<(u8, Option<Route>)>>,
    refuse: AtomicBool,
}

impl Far {
    fn sent(&self) -> Vec<MsiMessage> {
        std::mem::take(&mut lock(&self.sent))
    }

    fn routed(&self) -> Vec<(u8, Option<Route>)> {
        std::mem::take(&mut lock(&self.routed))
    }
}

impl MsiSink for Far {
    fn send(&self, message: MsiMessage) -> bool {
        lock(&self.sent).push(message);
        !self.refuse.load(Ordering::Relaxed)
    }
}

impl RouteSink for Far {
    fn route_changed(&self, pin: u8, route: Option<Route>) {
        lock(&self.routed).push((pin, route));
    }
}

struct Rig {
    ioapic: Ioapic,
    far: Arc<Far>,
}

const EDGE: u32 = 0;
const LEVEL: u32 = 1 << 15;
const MASKED: u32 = 1 << 16;
const REMOTE_IRR: u32 = 1 << 14;

impl Rig {
    fn new() -> Self {
        let far = Arc::new(Far::default());
        Self {
            ioapic: Ioapic::new(far.clone(), far.clone()),
            far,
        }
    }

    fn select(&mut self, register: u8) {
        self.ioapic
            .write(SELECT, &u32::from(register).to_le_bytes())
            .unwrap();
    }

    fn read(&mut self, register: u8) -> u32 {
        self.select(register);
        let mut data = [0; 4];
        self.ioapic.read(WINDOW, &mut data).unwrap();
        u32::from_le_bytes(data)
    }

    fn write(&mut self, register: u8, value: u32) {
        self.select(register);
        self.ioapic.write(WINDOW, &value.to_le_bytes()).unwrap();
    }

    fn low(&mut self, pin: u8) -> u32 {
        self.read(0x10 + 2 * pin)
    }

    fn program(&mut self, pin: u8, low: u32, destination: u32) {
        // Linux writes the high half first, with the entry still masked.
        self.write(0x11 + 2 * pin, destination << 24);
        self.write(0x10 + 2 * pin, low);
    }
}

fn message(vector: u32, level: bool, destination: u64) -> MsiMessage {
    MsiMessage {
        address: 0xfee0_0000 | destination << 12,
        data: vector | if level { 1 << 15 } else { 0 },
    }
}

#[test]
fn identification_is_that_of_a_24_pin_version_20_part() {
    let mut rig = Rig::new();
    assert_eq!(rig.read(1), 0x0017_0020);
    rig.write(1, u32::MAX);
    rig.write(2, u32::MAX);
    assert_eq!((rig.read(0), rig.read(1), rig.read(2)), (0, 0x0017_0020, 0));
    rig.write(0, 0xff00_0000);
    assert_eq!((rig.read(0), rig.read(2)), (0x0f00_0000, 0x0f00_0000));
    for pin in 0..24 {
        assert_eq!((rig.low(pin), rig.read(0x11 + 2 * pin)), (MASKED, 0));
    }
    for register in (0x03..0x10).chain(0x40..=0xff) {
        rig.write(register, u32::MAX);
        assert_eq!(rig.read(register), 0, "{register:#x}");
    }
}

#[test]
fn read_only_bits_stay() {
    let mut rig = Rig::new();
    rig.write(0x10, u32::MAX);
    rig.write(0x11, u32::MAX);
    assert_eq!((rig.low(0), rig.read(0x11)), (0x0001_afff, 0xfffe_0000));
}

#[test]
fn an_edge_interrupts_once_however_long_it_lasts() {
    let mut rig = Rig::new();
    rig.program(4, EDGE | 0x31, 2);
    rig.ioapic.set_line(4, true);
    rig.ioapic.set_line(4, true);
    assert_eq!(rig.far.sent(), [message(0x31, false, 2)]);
    assert_eq!(rig.low(4) & REMOTE_IRR, 0);
    rig.ioapic.set_line(4, false);
    rig.ioapic.end_of_interrupt(0x31);
    assert_eq!(rig.far.sent(), []);
    rig.ioapic.set_line(4, true);
    assert_eq!(rig.far.sent().len(), 1);
}

#[test]
fn an_edge_on_a_masked_entry_is_lost() {
    let mut rig = Rig::new();
    rig.program(4, EDGE | MASKED | 0x31, 0);
    rig.ioapic.set_line(4, true);
    rig.program(4, EDGE | 0x31, 0);
    assert_eq!(rig.far.sent(), []);
    rig.ioapic.set_line(4, false);
    rig.ioapic.set_line(4, true);
    assert_eq!(rig.far.sent().len(), 1);
}

#[test]
fn a_level_interrupts_until_its_cause_is_gone() {
    let mut rig = Rig::new();
    rig.program(9, LEVEL | 0x39, 1);
    rig.ioapic.set_line(9, true);
    assert_eq!(rig.far.sent(), [message(0x39, true, 1)]);
    assert_eq!(rig.low(9) & REMOTE_IRR, REMOTE_IRR);
    rig.ioapic.set_line(9, false);
    rig.ioapic.set_line(9, true);
    assert_eq!(rig.far.sent(), [], "in service");
    rig.ioapic.end_of_interrupt(0x38);
    assert_eq!(rig.far.sent(), [], "someone else's EOI");
    rig.ioapic.end_of_interrupt(0x39);
    assert_eq!(rig.far.sent(), [message(0x39, true, 1)], "still asserted");
    rig.ioapic.set_line(9, false);
    rig.ioapic.end_of_interrupt(0x39);
    assert_eq!(rig.far.sent(), []);
    assert_eq!(rig.low(9) & REMOTE_IRR, 0);
}

#[test]
fn the_eoi_register_ends_an_interrupt_too() {
    let mut rig = Rig::new();
    rig.program(9, LEVEL | 0x39, 0);
    rig.ioapic.set_line(9, true);
    rig.ioapic.set_line(9, false);
    rig.ioapic
        .write(END_OF_INTERRUPT, &0x39_u32.to_le_bytes())
        .unwrap();
    assert_eq!(rig.low(9) & REMOTE_IRR, 0);
}

#[test]
fn a_masked_level_waits_for_the_unmasking_unless_it_goes_away() {
    let mut rig = Rig::new();
    rig.program(9, LEVEL | MASKED | 0x39, 0);
    rig.ioapic.set_line(9, true);
    assert_eq!(rig.far.sent(), []);
    rig.program(9, LEVEL | 0x39, 0);
    assert_eq!(rig.far.sent().len(), 1);
    rig.program(9, LEVEL | MASKED | 0x39, 0);
    rig.ioapic.end_of_interrupt(0x39);
    rig.ioapic.set_line(9, false);
    rig.program(9, LEVEL | 0x39, 0);
    assert_eq!(rig.far.sent(), []);
}

/// Linux's ioapic_ack_level() with a pending affinity change: mask, EOI, move, unmask.
#[test]
fn moving_a_level_interrupt_keeps_its_route_for_the_eoi() {
    let mut rig = Rig::new();
    rig.program(9, LEVEL | 0x39, 0);
    rig.ioapic.set_line(9, true);
    rig.ioapic.set_line(9, false);
    rig.far.routed();
    rig.write(0x10 + 18, LEVEL | MASKED | 0x39);
    assert_eq!(
        rig.far.routed(),
        [],
        "masking leaves the route that brings the EOI"
    );
    rig.ioapic.end_of_interrupt(0x39);
    rig.program(9, LEVEL | MASKED | 0x41, 1);
    rig.program(9, LEVEL | 0x41, 1);
    let last = rig.far.routed().pop().unwrap();
    let route = Route {
        message: message(0x41, true, 1),
        level_triggered: true,
    };
    assert_eq!(last, (9, Some(route)));
    rig.ioapic.set_line(9, true);
    assert_eq!(rig.far.sent().pop(), Some(message(0x41, true, 1)));
}

#[test]
fn switching_to_edge_forgets_a_lost_eoi() {
    let mut rig = Rig::new();
    rig.program(9, LEVEL | 0x39, 0);
    rig.ioapic.set_line(9, true);
    rig.far.sent();
    rig.program(9, EDGE | MASKED | 0x39, 0);
    assert_eq!(rig.low(9) & REMOTE_IRR, 0);
    rig.program(9, LEVEL | 0x39, 0);
    assert_eq!(rig.far.sent().len(), 1);
}

#[test]
fn inputs_that_share_a_vector_are_all_ended() {
    let mut rig = Rig::new();
    for pin in [9, 10, 11] {
        rig.program(pin, LEVEL | 0x39, 0);
        rig.ioapic.set_line(pin, true);
    }
    rig.ioapic.set_line(10, false);
    rig.far.sent();
    rig.ioapic.end_of_interrupt(0x39);
    assert_eq!(rig.far.sent().len(), 2);
    assert_eq!(rig.low(10) & REMOTE_IRR, 0);
}

#[test]
fn an_interrupt_that_no_local_apic_takes_is_not_in_service() {
    let mut rig = Rig::new();
    rig.far.refuse.store(true, Ordering::Relaxed);
    rig.program(9, LEVEL | 0x39, 0);
    rig.ioapic.set_line(9, true);
    assert_eq!(rig.low(9) & REMOTE_IRR, 0);
    rig.far.refuse.store(false, Ordering::Relaxed);
    rig.ioapic.set_line(9, true);
    assert_eq!(rig.low(9) & REMOTE_IRR, REMOTE_IRR);
}

#[test]
fn messages_carry_mode_destination_and_trigger() {
    let mut rig = Rig::new();
    let logical = 1 << 11;
    rig.program(2, logical | 1 << 8 | 0x30, 0xff);
    rig.ioapic.set_line(2, true);
    rig.program(3, 4 << 8, 0);
    rig.ioapic.set_line(3, true);
    rig.write(0x11 + 2 * 5, 0x0102_0000);
    rig.write(0x10 + 2 * 5, 0x35);
    rig.ioapic.set_line(5, true);
    let expected = [
        MsiMessage {
            address: 0xfeef_f004,
            data: 0x130,
        },
        MsiMessage {
            address: 0xfee0_0000,
            data: 0x400,
        },
        MsiMessage {
            address: 0xfee0_1020,
            data: 0x35,
        },
    ];
    assert_eq!(rig.far.sent(), expected);
}

#[test]
fn deliveries_that_do_not_exist_are_dropped() {
    let mut rig = Rig::new();
    let modes = [2, 3, 6, 7].map(|mode: u32| mode << 8 | 0x40);
    for (pin, low) in (0..).zip(modes.into_iter().chain([0x0f, 1 << 8])) {
        rig.program(pin, low, 0);
        rig.ioapic.set_line(pin, true);
        rig.program(pin + 8, LEVEL | low, 0);
        rig.ioapic.set_line(pin + 8, true);
        assert_eq!(rig.low(pin + 8) & REMOTE_IRR, 0);
    }
    assert_eq!(rig.far.sent(), []);
    assert_eq!(rig.far.routed(), []);
}

#[test]
fn routes_follow_the_table_and_are_told_only_when_they_change() {
    let mut rig = Rig::new();
    rig.program(4, EDGE | MASKED | 0x31, 0);
    assert_eq!(rig.far.routed(), []);
    let edge = Route {
        message: message(0x31, false, 0),
        level_triggered: false,
    };
    rig.program(4, EDGE | 0x31, 0);
    assert_eq!(rig.far.routed(), [(4, Some(edge))]);
    rig.program(4, EDGE | 0x31, 0);
    assert_eq!(rig.far.routed(), []);
    assert_eq!(rig.ioapic.routes()[4], Some(edge));
    rig.program(4, EDGE | MASKED | 0x31, 0);
    assert_eq!(rig.far.routed(), [(4, None)]);
    assert_eq!(rig.ioapic.routes(), [None; PINS]);
}

#[test]
fn widths_and_offsets_that_do_not_exist_are_not_answered() {
    let mut rig = Rig::new();
    for (offset, width) in [
        (WINDOW, 1),
        (WINDOW, 8),
        (SELECT, 8),
        (4, 4),
        (0x20, 4),
        (0xffc, 4),
    ] {
        assert_eq!(
            rig.ioapic.read(offset, &mut vec![0; width]),
            Err(AccessError)
        );
        assert_eq!(rig.ioapic.write(offset, &vec![0; width]), Err(AccessError));
    }
    rig.ioapic.write(SELECT, &[1]).unwrap();
    let mut data = [0; 4];
    rig.ioapic.read(WINDOW, &mut data).unwrap();
    assert_eq!(u32::from_le_bytes(data), 0x0017_0020);
}

#[test]
fn pins_beyond_the_last_do_nothing() {
    let mut rig = Rig::new();
    rig.ioapic.set_line(24, true);
    rig.ioapic.set_line(255, true);
    assert_eq!(rig.ioapic.levels, 0);
    let shared = share(rig.ioapic);
    assert!(Ioapic::irq_line(&shared, 23).is_ok());
    assert_eq!(
        Ioapic::irq_line(&shared, 24).unwrap_err(),
        DeviceError::NoSuchPin { pin: 24 }
    );
}

#[test]
fn version_1_state_is_these_bytes() {
    let mut rig = Rig::new();
    rig.write(0, 0x0100_0000);
    rig.program(4, EDGE | 0x31, 2);
    rig.program(9, LEVEL | 0x39, 1);
    rig.ioapic.set_line(9, true);
    rig.select(0x22);
    let mut golden = vec![0x01, 0x22, 0x00, 0x02, 0x00, 0x00];
    for pin in 0..24 {
        golden.extend_from_slice(match pin {
            4 => &[0x31, 0, 0, 0, 0, 0, 0, 2],
            9 => &[0x39, 0xc0, 0, 0, 0, 0, 0, 1],
            _ => &[0, 0, 1, 0, 0, 0, 0, 0],
        });
    }
    assert_eq!(rig.ioapic.save(), golden);

    let mut other = Rig::new();
    other.ioapic.restore(1, &golden).unwrap();
    assert_eq!(other.ioapic.save(), golden);
    assert_eq!(other.far.sent(), [], "in service already");
    assert_eq!(other.far.routed().len(), PINS);
    other.ioapic.set_line(9, true);
    assert_eq!(
        other.far.sent(),
        [],
        "the device driving its line again is no new interrupt"
    );
    other.ioapic.end_of_interrupt(0x39);
    assert_eq!(other.far.sent().len(), 1);
}

#[test]
fn impossible_state_is_refused_and_changes_nothing() {
    let mut rig = Rig::new();
    rig.program(4, EDGE | 0x31, 2);
    let good = rig.ioapic.save();
    let refuse = |rig: &mut Rig, at: usize, value: u8, field| {
        let mut bytes = good.clone();
        bytes[at] = value;
        assert_eq!(
            rig.ioapic.restore(1, &bytes),
            Err(StateError::Invalid { field })
        );
    };
    refuse(&mut rig, 0, 16, "id");
    refuse(&mut rig, 5, 1, "levels");
    refuse(&mut rig, 7, 0x40, "table");
    refuse(&mut rig, 7, 0x10, "table");
    refuse(&mut rig, 10, 1, "table");
    assert!(rig.ioapic.restore(0, &good).is_err());
    assert_eq!(
        rig.ioapic.restore(1, &good[..197]),
        Err(StateError::Truncated)
    );
    assert_eq!(rig.ioapic.save(), good);
}

#[test]
fn reset_masks_everything_and_withdraws_the_routes() {
    let mut rig = Rig::new();
    rig.program(9, LEVEL | 0x39, 0);
    rig.ioapic.set_line(9, true);
    rig.far.routed();
    rig.ioapic.reset();
    assert_eq!(rig.far.routed(), [(9, None)]);
    assert_eq!(rig.low(9), MASKED);
    rig.ioapic.set_line(9, false);
    rig.ioapic.set_line(9, true);
    assert_eq!(rig.far.sent().len(), 1, "the one before the reset");
}

/// Four devices and an EOI thread at once: every level that stays asserted stays in service.
#[test]
fn concurrent_lines_and_eois_leave_no_interrupt_behind() {
    let mut rig = Rig::new();
    for pin in 0..4 {
        rig.program(pin, LEVEL | 0x40 | u32::from(pin), 0);
    }
    let far = rig.far.clone();
    let ioapic = share(rig.ioapic);
    let mut threads: Vec<_> = (0..4)
        .map(|pin| {
            let line = Ioapic::irq_line(&ioapic, pin).unwrap();
            std::thread::spawn(move || {
                (0..2_000).for_each(|_| line.pulse());
                line.assert();
            })
        })
        .collect();
    let eois = ioapic.clone();
    threads.push(std::thread::spawn(move || {
        (0..2_000).for_each(|round: u32| lock(&eois).end_of_interrupt(0x40 + (round % 4) as u8));
    }));
    for thread in threads {
        thread.join().unwrap();
    }
    far.sent();
    for pin in 0..4 {
        assert!(lock(&ioapic).table[usize::from(pin)].remote_irr());
        lock(&ioapic).end_of_interrupt(0x40 + pin);
    }
    assert_eq!(far.sent().len(), 4);
}

proptest! {
    /// Whatever the guest writes and the devices do, no level interrupt that is due is left unsent,
    /// the routes told are the routes there are, and the state can be restored.
    #[test]
    fn invariants_hold_under_any_sequence(
        steps in proptest::collection::vec((0u8..5, any::<u8>(), any::<u32>()), 0..300),
    ) {
        let mut rig = Rig::new();
        let mut told = [None; PINS];
        for (step, register, value) in steps {
            match step {
                0 => rig.write(register, value),
                1 => rig.write(0x10 + register % 48, value & 0x1_a1ff | 0x10),
                2 => rig.ioapic.set_line(register % 26, value % 2 == 0),
                3 => rig.ioapic.end_of_interrupt(register | 0x10),
                _ => drop(rig.read(register)),
            }
            for (pin, route) in rig.far.routed() {
                told[usize::from(pin)] = route;
            }
            prop_assert_eq!(rig.ioapic.routes(), told);
            for (pin, entry) in rig.ioapic.table.iter().enumerate() {
                let due = entry.is_level() && !entry.is_masked() && entry.message().is_some()
                    && rig.ioapic.levels & 1 << pin != 0;
                prop_assert!(!due || entry.remote_irr());
                prop_assert!(entry.is_level() || !entry.remote_irr());
            }
        }
        let saved = rig.ioapic.save();
        let mut other = Rig::new();
        other.ioapic.restore(1, &saved).unwrap();
        prop_assert_eq!(other.ioapic.save(), saved);
        prop_assert_eq!(other.far.sent(), vec![]);
    }
}
