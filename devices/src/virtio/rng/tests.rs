use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::event::Event;
use crate::memory::testing::ram;
use crate::virtio::rig::Rig;
use crate::virtio::testing::{Driver, RecordInterrupts, into, out};

const RINGS: u64 = 0x10_0000;

struct Guest {
    driver: Driver,
    interrupts: Arc<RecordInterrupts>,
    kick: Arc<Event>,
    rig: Rig,
}

impl Guest {
    fn new(limit: Option<EntropyLimit>) -> Self {
        let interrupts = Arc::new(RecordInterrupts::default());
        let driver = Driver::new(&ram(0x20_0000), RINGS, 64);
        let queue = driver.running(REQUESTS, &interrupts);
        let kick = queue.kick.clone();
        let mut workers = Entropy::new(limit)
            .start(Start {
                features: 0,
                queues: vec![Some(queue)],
                interrupts: interrupts.clone(),
            })
            .expect("a worker");
        let rig = Rig::new(workers.remove(0));
        Self {
            driver,
            interrupts,
            kick,
            rig,
        }
    }

    fn go(&mut self) -> Vec<(u32, u32)> {
        self.kick.signal();
        self.rig.run();
        self.driver.take_used()
    }
}

fn limit(bytes: u64, period: Duration) -> Option<EntropyLimit> {
    Some(EntropyLimit {
        bytes: NonZeroU64::new(bytes).expect("not zero"),
        period,
    })
}

#[test]
fn a_request_is_filled_with_random_bytes() {
    let mut guest = Guest::new(None);
    guest.driver.add(&[into(0, 32), into(0x1000, 32)]);
    assert_eq!(guest.go(), [(0, 64)]);
    assert_eq!(guest.interrupts.take_queue(), 1);
    let mut halves = [[0; 32]; 2];
    guest.driver.ram.read(0, &mut halves[0]).expect("in RAM");
    guest
        .driver
        .ram
        .read(0x1000, &mut halves[1])
        .expect("in RAM");
    assert_ne!(halves[0], [0; 32]);
    assert_ne!(halves[0], halves[1]);
}

#[test]
fn a_huge_request_gets_64_kib_and_the_used_length_says_so() {
    let mut guest = Guest::new(None);
    guest
        .driver
        .add(&[into(0, 0x8_0000), into(0x1000, 0x8_0000)]);
    assert_eq!(guest.go(), [(0, 0x1_0000)]);
    let mut beyond = [0; 64];
    guest
        .driver
        .ram
        .read(0x1_0000, &mut beyond)
        .expect("in RAM");
    assert_eq!(beyond, [0; 64], "the rest is not touched");
}

#[test]
fn a_flood_is_served_in_turns() {
    let mut guest = Guest::new(None);
    for _ in 0..64 {
        guest.driver.add(&[into(0, 0x1_0000)]);
    }
    let start = guest.rig.run();
    assert_eq!(start, 0, "nobody has notified");
    assert_eq!(guest.go().len(), 64);
    assert!(guest.rig.run() == 0);
}

#[test]
fn the_limit_of_a_period_is_kept() {
    let period = Duration::from_secs(3600);
    let mut guest = Guest::new(limit(100, period));
    for _ in 0..3 {
        guest.driver.add(&[into(0, 70)]);
    }
    assert_eq!(guest.go(), [(0, 70), (1, 30)]);
    let due = guest.rig.next_event().expect("the next period");
    assert!(due > Instant::now() + period / 2);
    assert_eq!(guest.go(), [], "a notification does not help");
    guest.rig.tick();
    assert_eq!(guest.driver.take_used(), [], "nor a tick too early");
    assert!(!guest.interrupts.broken());
}

#[test]
fn a_waiting_request_is_served_when_the_next_period_begins() {
    let mut guest = Guest::new(limit(16, Duration::from_millis(20)));
    for _ in 0..3 {
        guest.driver.add(&[into(0, 16)]);
    }
    guest.kick.signal();
    let mut used = Vec::new();
    let driver = &mut guest.driver;
    guest.rig.run_until(|| {
        used.extend(driver.take_used());
        used.len() == 3
    });
    assert_eq!(used, [(0, 16), (1, 16), (2, 16)]);
}

#[test]
fn a_request_without_room_asks_for_a_reset_and_ends_the_queue() {
    let mut guest = Guest::new(None);
    guest.driver.add(&[out(0, 16)]);
    assert_eq!(guest.go(), []);
    assert!(guest.interrupts.broken());
    guest.driver.add(&[into(0, 16)]);
    assert_eq!(guest.go(), []);
    assert_eq!(guest.rig.stop().len(), 1, "its progress is given back");
}

#[test]
fn the_only_queue_cannot_be_done_without() {
    let start = Start {
        features: 0,
        queues: vec![None],
        interrupts: Arc::new(RecordInterrupts::default()),
    };
    assert!(Entropy::new(None).start(start).is_err());
}

#[test]
fn a_stopped_device_goes_on_from_its_progress() {
    let mut guest = Guest::new(None);
    guest.driver.add(&[into(0, 16)]);
    guest.go();
    let progress = guest.rig.stop();
    assert_eq!(progress[0].0, REQUESTS);
    assert_eq!(progress[0].1.next_available, 1);
    assert_eq!(progress[0].1.next_used, 1);
}

proptest! {
    /// Whatever is in the rings, the device neither panics nor spins, and gives no more than it
    /// may.
    #[test]
    fn no_ring_content_breaks_it(
        rings in proptest::collection::vec(any::<u8>(), 1800),
        limited: bool,
    ) {
        let mut guest = Guest::new(limit(1000, Duration::from_secs(3600)).filter(|_| limited));
        guest.driver.ram.write(RINGS, &rings).expect("in RAM");
        guest.driver.set_available(64);
        guest.kick.signal();
        guest.rig.run();
        guest.rig.stop();
    }

    #[test]
    fn any_buffers_get_what_was_asked_up_to_the_cap(
        lengths in proptest::collection::vec(1_u32..0x2_0000, 1..20),
    ) {
        let mut guest = Guest::new(None);
        let buffers: Vec<_> = lengths.iter().map(|len| into(0, *len)).collect();
        guest.driver.add(&buffers);
        let asked: u64 = lengths.iter().map(|len| u64::from(*len)).sum();
        let given = u32::try_from(asked.min(MAX_REQUEST)).expect("small");
        prop_assert_eq!(guest.go(), [(0, given)]);
    }
}
