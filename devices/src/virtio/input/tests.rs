use super::*;
use crate::event::Event;
use crate::memory::testing::ram;
use crate::virtio::rig::Rig;
use crate::virtio::testing::{Driver, RecordInterrupts, into, out};

const RINGS: u64 = 0x10_0000;

struct Guest {
    driver: Driver,
    status: Driver,
    status_kick: Arc<Event>,
    kick: Arc<Event>,
    interrupts: Arc<RecordInterrupts>,
    events: Arc<InputEvents>,
    device: Input,
    rig: Rig,
    buffers: u64,
}

impl Guest {
    fn new(kind: InputKind) -> Self {
        let interrupts = Arc::new(RecordInterrupts::default());
        let memory = ram(0x20_0000);
        let driver = Driver::new(&memory, RINGS, 64);
        let status = Driver::new(&memory, RINGS + 0x1000, 64);
        let queues = [
            driver.running(EVENTS, &interrupts),
            status.running(STATUS, &interrupts),
        ];
        let [kick, status_kick] = [&queues[0].kick, &queues[1].kick].map(Arc::clone);
        let events = Arc::new(InputEvents::new().expect("an eventfd"));
        let mut device = Input::new(kind, Arc::clone(&events));
        events.key(30, true);
        let mut workers = device
            .start(Start {
                features: 0,
                queues: queues.into_iter().map(Some).collect(),
                interrupts: interrupts.clone(),
            })
            .expect("a worker");
        let rig = Rig::new(workers.remove(0));
        Self {
            driver,
            status,
            status_kick,
            kick,
            interrupts,
            events,
            device,
            rig,
            buffers: 0,
        }
    }

    /// Gives the device room for so many events.
    fn offer(&mut self, count: u64) {
        for _ in 0..count {
            self.driver.add(&[into(8 * self.buffers, 8)]);
            self.buffers += 1;
        }
        self.kick.signal();
    }

    /// What has come.
    fn take(&mut self) -> Vec<(u16, u16, u32)> {
        self.rig.run();
        let used = self.driver.take_used().into_iter();
        let events = used.map(|(head, len)| {
            assert_eq!(len, 8);
            let mut bytes = [0; 8];
            self.driver
                .ram
                .read(8 * u64::from(head), &mut bytes)
                .expect("in RAM");
            let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
            let value = u32::from(half(4)) | u32::from(half(6)) << 16;
            (half(0), half(2), value)
        });
        events.collect()
    }

    fn config(&mut self, select: u8, subselect: u8) -> Vec<u8> {
        self.device.write_config(0, &[select]);
        self.device.write_config(1, &[subselect]);
        let mut space = [0; 136];
        self.device.read_config(0, &mut space);
        assert_eq!(space[..2], [select, subselect]);
        let size = usize::from(space[2]);
        assert!(space[8 + size..].iter().all(|byte| *byte == 0));
        space[8..8 + size].to_vec()
    }
}

#[test]
fn keys_reach_the_driver_in_order_when_it_has_room() {
    let mut guest = Guest::new(InputKind::Keyboard);
    guest.events.key(42, true);
    guest.events.key(42, true);
    guest.events.key(42, false);
    guest.events.key(0x300, true);
    guest.events.key(43, false);
    assert_eq!(guest.take(), []);
    assert_eq!(guest.events.waiting(), 4, "none of before the driver ran");
    guest.offer(3);
    assert_eq!(guest.take(), [(1, 42, 1), (0, 0, 0), (1, 42, 0)]);
    assert_eq!(guest.interrupts.take_queue(), 1);
    guest.offer(3);
    assert_eq!(guest.take(), [(0, 0, 0)]);
    guest.events.key(30, true);
    assert_eq!(guest.take(), [(1, 30, 1), (0, 0, 0)]);
    assert!(!guest.interrupts.broken());
}

#[test]
fn the_pointer_is_where_it_is_said_to_be() {
    let mut guest = Guest::new(InputKind::Tablet);
    guest.offer(20);
    guest.events.pointer(PointerEvent {
        x: 5,
        y: u16::MAX,
        buttons: 0b101,
        wheel: -1,
        horizontal: 0,
    });
    let wheel = u32::MAX;
    let expected = [
        (3, 0, 5),
        (3, 1, 0x7fff),
        (2, 8, wheel),
        (1, 0x110, 1),
        (1, 0x111, 1),
        (0, 0, 0),
    ];
    assert_eq!(guest.take(), expected);
    guest.events.pointer(PointerEvent::default());
    let expected = [
        (3, 0, 0),
        (3, 1, 0),
        (1, 0x110, 0),
        (1, 0x111, 0),
        (0, 0, 0),
    ];
    assert_eq!(guest.take(), expected);
}

#[test]
fn a_driver_that_takes_nothing_costs_little_and_no_key_stays_down() {
    let guest = Guest::new(InputKind::Keyboard);
    for round in 0..10_u16 {
        for code in 1..0x300 {
            guest.events.key(code, round % 2 == 0);
        }
    }
    let waiting = guest.events.waiting();
    assert!((1024..1024 + 2 * 0x300 + 2).contains(&waiting), "{waiting}");
    let mut down = 0_i32;
    while let Some((kind, _, value)) = guest.events.take() {
        if kind == 1 {
            down += if value == 1 { 1 } else { -1 };
        }
    }
    assert_eq!(down, 0);
}

#[test]
fn a_driver_finds_out_what_the_device_has() {
    let mut keyboard = Guest::new(InputKind::Keyboard);
    assert_eq!(keyboard.config(1, 0), b"Reeve keyboard");
    assert_eq!(keyboard.config(3, 0), [6, 0, 0, 0, 1, 0, 1, 0]);
    let keys = keyboard.config(0x11, 1);
    assert!(keys[30 / 8] >> (30 % 8) & 1 == 1 && keys[0] & 1 == 0);
    assert_eq!(keyboard.config(0x11, 0x14).len(), 1);
    assert_eq!(keyboard.config(0x12, 0), []);
    let mut tablet = Guest::new(InputKind::Tablet);
    assert_eq!(tablet.config(0x11, 3), [3]);
    assert_eq!(tablet.config(0x11, 1)[0x22], 7);
    let info = tablet.config(0x12, 1);
    assert_eq!(
        (info.len(), &info[..8]),
        (20, &[0, 0, 0, 0, 0xff, 0x7f, 0, 0][..])
    );
    for select in 0..=u8::MAX {
        for subselect in [0, 1, 2, 3, 0x7f, u8::MAX] {
            assert!(tablet.config(select, subselect).len() <= 128);
        }
    }
}

#[test]
fn lights_are_taken_and_nothing_comes_of_them() {
    let mut guest = Guest::new(InputKind::Keyboard);
    guest.status.add(&[out(0, 8)]);
    guest.status_kick.signal();
    guest.rig.run();
    assert_eq!(guest.status.take_used(), [(0, 0)]);
}

#[test]
fn a_buffer_without_room_ends_the_queue() {
    let mut guest = Guest::new(InputKind::Keyboard);
    guest.driver.add(&[into(0, 7)]);
    guest.kick.signal();
    guest.events.key(30, true);
    assert_eq!(guest.take(), []);
    assert!(guest.interrupts.broken());
    guest.events.key(30, false);
    guest.rig.run();
    assert_eq!(guest.rig.stop().len(), 2);
}

#[test]
fn a_reset_forgets_what_waits_and_a_record_keeps_what_was_asked() {
    let mut guest = Guest::new(InputKind::Keyboard);
    guest.events.key(30, true);
    guest.config(1, 0);
    let saved = guest.device.save();
    guest.device.reset();
    assert_eq!(guest.events.waiting(), 0);
    guest.events.key(30, false);
    assert_eq!(guest.events.waiting(), 0, "no driver runs");
    assert_eq!(guest.device.restore(1, &saved), Ok(()));
    assert_eq!(guest.device.save(), saved);
    assert!(guest.device.restore(2, &saved).is_err());
    assert!(guest.device.restore(1, &[1]).is_err());
}
