use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::super::line::{NO_VECTOR, Vectors};
use super::*;
use crate::memory::testing::ram;
use crate::shared::lock;
use crate::state::StateWriter;
use crate::testing::RecordWake;
use crate::virtio::testing::Driver;
use crate::virtio::{DeviceId, Progress, QueueWorker, Remains, Start, StartError, Stopped};

const FEATURE: u64 = 1 << 5;

#[derive(Debug, Default)]
struct Sent(Mutex<Vec<u16>>);

impl Vectors for Sent {
    fn trigger(&self, vector: u16) {
        lock(&self.0).push(vector);
    }

    fn count(&self) -> u16 {
        3
    }
}

/// Runs nothing; ends when the test says so.
#[derive(Default)]
struct ByHand {
    runs: Mutex<usize>,
    done: Mutex<Option<Stopped>>,
    remains: Mutex<Vec<Remains>>,
}

impl std::fmt::Debug for ByHand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ByHand")
    }
}

impl ByHand {
    fn end(&self, progress: Progress) {
        if let Some(done) = lock(&self.done).take() {
            done(progress);
        }
    }
}

impl Executor for ByHand {
    fn run(&self, _workers: Vec<Box<dyn QueueWorker>>) {
        *lock(&self.runs) += 1;
    }

    fn stop(&self, done: Stopped) {
        *lock(&self.done) = Some(done);
    }

    fn discard(&self, remains: Remains) {
        lock(&self.remains).push(remains);
    }
}

#[derive(Default)]
struct Told {
    /// What it serves no driver without.
    required: u64,
    features: u64,
    queues: usize,
    resets: usize,
    /// What the next stop or reset leaves.
    remains: Option<Remains>,
}

struct Device(Arc<Mutex<Told>>);

impl VirtioDevice for Device {
    fn id(&self) -> DeviceId {
        DeviceId::Entropy
    }

    fn features(&self) -> u64 {
        FEATURE
    }

    fn required_features(&self) -> u64 {
        lock(&self.0).required
    }

    fn queue_sizes(&self) -> &[u16] {
        &[8, 16]
    }

    fn read_config(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn start(&mut self, start: Start) -> Result<Vec<Box<dyn QueueWorker>>, StartError> {
        let mut told = lock(&self.0);
        told.features = start.features;
        told.queues = start.queues.iter().flatten().count();
        Ok(Vec::new())
    }

    fn reset(&mut self) {
        lock(&self.0).resets += 1;
    }

    fn take_remains(&mut self) -> Option<Remains> {
        lock(&self.0).remains.take()
    }
}

struct Bench {
    negotiation: Negotiation,
    executor: Arc<ByHand>,
    told: Arc<Mutex<Told>>,
    sent: Arc<Sent>,
    driver: Driver,
}

fn bench() -> Bench {
    let ram = ram(0x2_0000);
    let (executor, told, sent) = (
        Arc::new(ByHand::default()),
        Arc::new(Mutex::new(Told::default())),
        Arc::new(Sent::default()),
    );
    let line = Arc::new(Line::new(Arc::clone(&sent) as _, 2));
    let negotiation = Negotiation::new(
        Box::new(Device(Arc::clone(&told))),
        Arc::clone(&executor) as _,
        ram.clone(),
        line,
    )
    .expect("eventfds");
    Bench {
        negotiation,
        executor,
        told,
        sent,
        driver: Driver::new(&ram, 0x1_0000, 8),
    }
}

impl Bench {
    fn agree(&mut self, features: u64) {
        let negotiation = &mut self.negotiation;
        negotiation.set_status(ACKNOWLEDGE | DRIVER);
        for select in 0..2 {
            negotiation.select_driver_features(select);
            negotiation.set_driver_features(half(features, select));
        }
        negotiation.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
    }

    fn enable(&mut self) {
        let layout = self.driver.layout;
        self.negotiation.set_queue_layout(|to| *to = layout);
        self.negotiation.enable_queue();
    }

    fn run(&mut self) {
        self.agree(F_VERSION_1 | FEATURE);
        self.enable();
        assert!(
            self.negotiation
                .set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK)
        );
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

#[test]
fn a_device_runs_once_its_driver_is_ready() {
    let mut bench = bench();
    bench.run();
    assert_eq!(*lock(&bench.executor.runs), 1);
    let told = lock(&bench.told);
    assert_eq!(told.features, F_VERSION_1 | FEATURE);
    assert_eq!(told.queues, 1);
}

#[test]
fn features_that_were_not_offered_are_not_agreed_on() {
    for features in [FEATURE, F_VERSION_1 | 1 << 40, F_VERSION_1 | 1] {
        let mut bench = bench();
        bench.agree(features);
        assert_eq!(bench.negotiation.status() & FEATURES_OK, 0, "{features:#x}");
        bench.negotiation.set_status(!NEEDS_RESET);
        assert!(!bench.negotiation.is_running());
        assert_eq!(bench.negotiation.status() & DRIVER_OK, 0);
    }
}

#[test]
fn a_driver_without_a_feature_that_the_device_needs_is_told_so_before_it_starts() {
    for (features, agreed) in [(F_VERSION_1, false), (F_VERSION_1 | FEATURE, true)] {
        let mut bench = bench();
        lock(&bench.told).required = FEATURE;
        bench.agree(features);
        let status = bench.negotiation.status();
        assert_eq!(status & FEATURES_OK != 0, agreed, "{features:#x}");
        assert_eq!(status & NEEDS_RESET, 0);
    }
}

#[test]
fn registers_written_while_it_runs_are_ignored_and_it_asks_for_a_reset() {
    let mut bench = bench();
    bench.run();
    let before = bench.negotiation.queue_layout();
    bench.negotiation.set_queue_size(4);
    bench.negotiation.set_queue_layout(|layout| layout.used = 0);
    bench.negotiation.select_driver_features(0);
    bench.negotiation.set_driver_features(0xffff_ffff);
    assert_eq!(bench.negotiation.queue_layout(), before);
    assert_eq!(u64::from(bench.negotiation.driver_features()), FEATURE);
    assert_eq!(bench.negotiation.status() & NEEDS_RESET, NEEDS_RESET);
}

#[test]
fn a_queue_that_makes_no_sense_keeps_the_device_from_starting() {
    for size in [0, 3, 16] {
        let mut bench = bench();
        bench.agree(F_VERSION_1);
        bench.negotiation.set_queue_size(size);
        let layout = bench.driver.layout;
        bench.negotiation.set_queue_layout(|to| {
            *to = QueueLayout { size, ..layout };
        });
        bench.negotiation.enable_queue();
        let all = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;
        assert!(!bench.negotiation.set_status(all), "{size}");
        assert_eq!(bench.negotiation.status(), all | NEEDS_RESET);
    }
}

#[test]
fn a_reset_is_seen_when_the_workers_have_ended() {
    let mut bench = bench();
    bench.run();
    bench.negotiation.set_status(0);
    assert_ne!(bench.negotiation.status(), 0);
    // What comes meanwhile changes nothing.
    bench.negotiation.set_status(ACKNOWLEDGE);
    bench.negotiation.set_status(0);
    assert_ne!(bench.negotiation.status(), 0);
    bench.executor.end(vec![]);
    assert_eq!(bench.negotiation.status(), 0);
    assert!(!bench.negotiation.queue_enabled());
    assert_eq!(lock(&bench.told).resets, 1);
    bench.run();
}

#[test]
fn a_stopped_device_goes_on_where_it_was() {
    let mut bench = bench();
    bench.run();
    let executor = Arc::clone(&bench.executor);
    let at = QueueProgress {
        next_available: 7,
        next_used: 5,
    };
    let ender = std::thread::spawn(move || {
        while lock(&executor.done).is_none() {
            std::thread::yield_now();
        }
        executor.end(vec![(0, at), (9, at)]);
    });
    assert!(bench.negotiation.stop(soon()));
    ender.join().expect("it ended");
    assert_eq!(bench.negotiation.queues[0].progress, at);
    bench.negotiation.resume();
    assert!(bench.negotiation.is_running());
    assert_eq!(*lock(&bench.executor.runs), 2);
    assert!(bench.negotiation.kick(0).expect("there").take());
}

#[test]
fn a_stop_that_takes_too_long_is_told_and_can_be_waited_for_again() {
    let mut bench = bench();
    bench.run();
    assert!(
        !bench
            .negotiation
            .stop(Instant::now() + Duration::from_millis(5))
    );
    bench.executor.end(vec![]);
    assert!(bench.negotiation.stop(soon()));
    assert!(bench.negotiation.power_on(soon()));
    assert_eq!(bench.negotiation.status(), 0);
}

fn at(index: u16) -> QueueProgress {
    QueueProgress {
        next_available: index,
        next_used: index,
    }
}

#[test]
fn what_stops_for_want_of_memory_goes_on_at_the_next_access_once_it_has_stopped() {
    let mut bench = bench();
    bench.run();
    bench.negotiation.set_bus_master(false);
    assert!(!bench.negotiation.is_running());
    bench.negotiation.set_bus_master(true);
    assert!(!bench.negotiation.catch_up(), "it has not stopped");
    bench.executor.end(vec![(0, at(3))]);
    assert!(bench.negotiation.catch_up());
    assert!(bench.negotiation.is_running());
    assert_eq!(bench.negotiation.queues[0].progress, at(3));
    assert!(bench.negotiation.kick(0).expect("there").take());
    assert!(!bench.negotiation.catch_up(), "nothing is owed any more");
    assert_eq!(*lock(&bench.executor.runs), 2);
}

#[test]
fn a_reset_without_memory_is_a_reset() {
    let mut bench = bench();
    bench.run();
    bench.negotiation.set_bus_master(false);
    bench.negotiation.set_status(0);
    bench.executor.end(vec![]);
    assert_eq!(bench.negotiation.status(), 0);
    bench.negotiation.set_bus_master(true);
    assert!(!bench.negotiation.is_running());
    bench.run();
}

#[test]
fn a_host_that_stops_a_device_has_the_last_word() {
    let mut bench = bench();
    bench.run();
    bench.negotiation.set_bus_master(false);
    bench.executor.end(vec![]);
    assert!(bench.negotiation.stop(soon()));
    bench.negotiation.set_bus_master(true);
    assert!(!bench.negotiation.catch_up());
    assert!(!bench.negotiation.is_running());
    bench.negotiation.set_bus_master(false);
    bench.negotiation.resume();
    assert!(!bench.negotiation.is_running());
    bench.negotiation.set_bus_master(true);
    assert!(bench.negotiation.is_running());
}

#[test]
fn a_device_that_is_taken_away_is_not_started_again() {
    let mut bench = bench();
    bench.run();
    bench.negotiation.retire();
    bench.executor.end(vec![]);
    assert!(bench.negotiation.stop(soon()));
    // The driver is as quick as it likes.
    bench.negotiation.set_status(0);
    bench.agree(F_VERSION_1 | FEATURE);
    bench.enable();
    let all = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;
    assert!(!bench.negotiation.set_status(all));
    bench.negotiation.set_bus_master(false);
    bench.negotiation.set_bus_master(true);
    assert!(!bench.negotiation.catch_up());
    bench.negotiation.resume();
    assert!(!bench.negotiation.is_running());
    assert_eq!(*lock(&bench.executor.runs), 1);
}

#[test]
fn a_running_device_that_is_dropped_is_stopped() {
    let mut bench = bench();
    bench.run();
    let executor = Arc::clone(&bench.executor);
    drop(bench.negotiation);
    assert!(lock(&executor.done).is_some());
    executor.end(vec![(0, at(1))]);
}

#[test]
fn vectors_there_are_not_read_back_as_none() {
    let mut bench = bench();
    bench.negotiation.set_queue_vector(3);
    assert_eq!(bench.negotiation.queue_vector(), NO_VECTOR);
    bench.negotiation.set_queue_vector(2);
    let line = Arc::clone(bench.negotiation.line());
    line.set_config_vector(1);
    line.queue(0);
    line.queue(1);
    line.config();
    assert_eq!(*lock(&bench.sent.0), [2, 1]);
    assert_eq!((line.take_isr(), line.take_isr()), (3, 0));
    bench.negotiation.select_queue(77);
    bench.negotiation.set_queue_vector(0);
    assert_eq!(bench.negotiation.queue_size(), 0);
    assert_eq!(bench.negotiation.queue_vector(), NO_VECTOR);
}

#[test]
fn a_saved_state_comes_back_and_runs() {
    let mut from = bench();
    from.run();
    from.executor.end(vec![]);
    let mut writer = StateWriter::new();
    from.negotiation.save(&mut writer);
    let record = writer.finish();

    let mut to = bench();
    to.negotiation.restore(&record).expect("our own record");
    to.negotiation.resume();
    assert!(to.negotiation.is_running());
    assert_eq!(
        to.negotiation.queue_layout(),
        from.negotiation.queue_layout()
    );
}

proptest::proptest! {
    /// No order of register writes panics or starts a device whose queues are not sound.
    #[test]
    fn no_driver_breaks_the_negotiation(
        writes in proptest::collection::vec((0_u8..14, proptest::prelude::any::<u64>()), 0..200),
    ) {
        let mut bench = bench();
        for (what, value) in writes {
            let negotiation = &mut bench.negotiation;
            let [low, ..] = value.to_le_bytes();
            match what {
                0 => { negotiation.set_status(low); }
                1 => negotiation.select_device_features(u32::from(low) % 4),
                2 => negotiation.select_driver_features(u32::from(low) % 4),
                3 => negotiation.set_driver_features((value & 0xffff_ffff) as u32),
                4 => negotiation.select_queue(u16::from(low) % 4),
                5 => negotiation.set_queue_size(u16::from(low)),
                6 => negotiation.enable_queue(),
                7 => negotiation.set_queue_layout(|layout| layout.descriptors = value % 0x3_0000),
                8 => negotiation.set_queue_layout(|layout| layout.used = value % 0x3_0000),
                9 => negotiation.set_queue_vector(u16::from(low) % 5),
                10 => negotiation.notify(u16::from(low) % 4),
                11 => negotiation.set_bus_master(low & 1 != 0),
                12 => { negotiation.catch_up(); }
                _ => bench.executor.end(vec![(u16::from(low), QueueProgress::default())]),
            }
            let _ = bench.negotiation.status();
        }
    }

    #[test]
    fn no_saved_state_breaks_the_negotiation(
        bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..150),
        flips in proptest::collection::vec((0_usize..120, proptest::prelude::any::<u8>()), 0..4),
    ) {
        let mut bench = bench();
        let mut writer = StateWriter::new();
        bench.negotiation.save(&mut writer);
        let mut record = writer.finish();
        for (at, value) in flips {
            if let Some(byte) = record.get_mut(at) {
                *byte = value;
            }
        }
        let _ = bench.negotiation.restore(&record);
        bench.negotiation.resume();
        let _ = bench.negotiation.restore(&bytes);
    }
}

/// Notes on which thread it is dropped.
struct Descriptor(Arc<Mutex<Option<std::thread::ThreadId>>>);

impl Drop for Descriptor {
    fn drop(&mut self) {
        *lock(&self.0) = Some(std::thread::current().id());
    }
}

#[test]
fn what_a_reset_leaves_is_dropped_by_the_executor_and_not_by_the_guests_access() {
    let mut bench = bench();
    for running in [false, true] {
        let dropped = Arc::new(Mutex::new(None));
        lock(&bench.told).remains = Some(Box::new(Descriptor(Arc::clone(&dropped))));
        if running {
            bench.run();
            bench.negotiation.set_status(0);
            bench.executor.end(Progress::new());
            assert_eq!(bench.negotiation.status(), 0);
        } else {
            bench.negotiation.set_status(0);
        }
        assert_eq!(*lock(&dropped), None, "running: {running}");
        let remains = lock(&bench.executor.remains).pop();
        std::thread::spawn(move || drop(remains))
            .join()
            .expect("dropped");
        let thread = lock(&dropped).expect("dropped at last");
        assert_ne!(thread, std::thread::current().id());
    }
}

#[test]
fn a_stop_is_waited_for_without_the_device_and_settled_by_who_asks_again() {
    let mut bench = bench();
    bench.run();
    bench.negotiation.order_stop();
    let stopping = bench.negotiation.stopping().expect("under way");
    assert!(!stopping.wait(Instant::now()));
    let executor = Arc::clone(&bench.executor);
    let progress = QueueProgress {
        next_available: 3,
        next_used: 2,
    };
    let ender = std::thread::spawn(move || executor.end(vec![(0, progress)]));
    assert!(stopping.wait(soon()));
    ender.join().expect("it ends");
    assert!(stopping.wait(Instant::now()), "it stays over");
    assert!(bench.negotiation.stopping().is_none());
    let mut writer = StateWriter::new();
    bench.negotiation.save(&mut writer);
    let saved = writer.finish();
    let found = saved.windows(4).any(|bytes| bytes == [3, 0, 2, 0]);
    assert!(found, "the progress is among what is saved: {saved:?}");
}

#[test]
fn whoever_watches_a_stop_is_woken_once_it_is_over_and_at_once_if_it_is() {
    let mut bench = bench();
    bench.run();
    bench.negotiation.order_stop();
    let stopping = bench.negotiation.stopping().expect("under way");
    let watcher = Arc::new(RecordWake::default());
    stopping.watch(Arc::clone(&watcher) as _);
    stopping.watch(Arc::clone(&watcher) as _);
    assert_eq!(watcher.take(), 0);
    bench.executor.end(Progress::new());
    assert_eq!(watcher.take(), 1);
    stopping.watch(Arc::clone(&watcher) as _);
    assert_eq!(watcher.take(), 1);
}
