use std::sync::Mutex;

use proptest::prelude::*;

use super::worker::MAX_PAGES;
use super::*;
use crate::memory::GuestRam;
use crate::memory::testing::ram;
use crate::testing::RecordWake;
use crate::virtio::rig::Rig;
use crate::virtio::testing::{Driver, RecordInterrupts, into, out};

const MIB: u64 = 1 << 20;
/// Where page numbers and statistics lie.
const DATA: u64 = 0x20_0000;
/// Where the rings of the queues are, each in 64 KiB.
const RINGS: u64 = 0x30_0000;
const HUGE: u64 = 2 * MIB;

/// Records what is given back.
#[derive(Debug, Default)]
struct RecordReturn {
    ranges: Mutex<Vec<(u64, u64)>>,
    refuse: bool,
}

impl RecordReturn {
    fn take(&self) -> Vec<(u64, u64)> {
        std::mem::take(&mut lock(&self.ranges))
    }
}

impl PageReturn for RecordReturn {
    fn give_back(&self, address: u64, len: u64) -> io::Result<()> {
        lock(&self.ranges).push((address, len));
        match self.refuse {
            true => Err(io::ErrorKind::PermissionDenied.into()),
            false => Ok(()),
        }
    }
}

fn params(backing_page_bytes: u64) -> BalloonParams {
    BalloonParams {
        memory_bytes: 16 * MIB,
        backing_page_bytes,
        deflate_on_oom: true,
        free_page_reporting: true,
    }
}

struct Guest {
    ram: GuestRam,
    device: Balloon,
    control: Arc<BalloonControl>,
    returned: Arc<RecordReturn>,
    changed: Arc<RecordWake>,
    interrupts: Arc<RecordInterrupts>,
    drivers: Vec<Driver>,
    kicks: Vec<Arc<Event>>,
    rig: Option<Rig>,
}

fn drivers(ram: &GuestRam) -> Vec<Driver> {
    let queues = (0..).zip(QUEUE_SIZES);
    queues
        .map(|(i, size)| Driver::new(ram, RINGS + i * 0x1_0000, *size))
        .collect()
}

impl Guest {
    fn off(params: BalloonParams, returned: RecordReturn) -> Self {
        let ram = ram(16 << 20);
        let returned = Arc::new(returned);
        let changed = Arc::new(RecordWake::default());
        let device = Balloon::new(params, returned.clone(), changed.clone()).expect("a balloon");
        Self {
            drivers: drivers(&ram),
            control: device.control(),
            ram,
            device,
            returned,
            changed,
            interrupts: Arc::new(RecordInterrupts::default()),
            kicks: Vec::new(),
            rig: None,
        }
    }

    fn new(backing: u64) -> Self {
        let mut guest = Self::off(params(backing), RecordReturn::default());
        let all = guest.device.features();
        guest.start(all, &[INFLATE, DEFLATE, STATS, REPORTING]);
        guest
    }

    fn try_start(&mut self, features: u64, enabled: &[u16]) -> Result<(), StartError> {
        self.kicks.clear();
        let mut queues = Vec::new();
        for (index, driver) in (0..).zip(&self.drivers) {
            let queue = driver.running(index, &self.interrupts);
            self.kicks.push(queue.kick.clone());
            queues.push(enabled.contains(&index).then_some(queue));
        }
        let start = Start {
            features,
            queues,
            interrupts: self.interrupts.clone(),
        };
        self.rig = Some(Rig::new(self.device.start(start)?.remove(0)));
        Ok(())
    }

    fn start(&mut self, features: u64, enabled: &[u16]) {
        self.try_start(features, enabled).expect("a worker");
    }

    fn reboot(&mut self) {
        self.rig().stop();
        self.device.stopped();
        self.device.reset();
        self.ram.write(RINGS, &[0; 0x5_0000]).expect("in RAM");
        self.drivers = drivers(&self.ram);
        let all = self.device.features();
        self.start(all, &[INFLATE, DEFLATE, STATS, REPORTING]);
    }

    fn rig(&mut self) -> &mut Rig {
        self.rig.as_mut().expect("running")
    }

    fn kick(&mut self, queue: u16) -> Vec<(u32, u32)> {
        self.kicks[usize::from(queue)].signal();
        self.rig().run();
        self.drivers[usize::from(queue)].take_used()
    }

    fn put_numbers(&mut self, queue: u16, numbers: &[u32]) {
        let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        self.ram.write(DATA, &bytes).expect("in RAM");
        let len = u32::try_from(bytes.len()).expect("small");
        self.drivers[usize::from(queue)].add(&[out(DATA, len)]);
    }

    /// Sends one request; gives what it gave back.
    fn lend(&mut self, numbers: &[u32]) -> Vec<(u64, u64)> {
        self.put_numbers(INFLATE, numbers);
        assert_eq!(self.kick(INFLATE).len(), 1);
        self.returned.take()
    }

    fn reclaim(&mut self, numbers: &[u32]) {
        self.put_numbers(DEFLATE, numbers);
        assert_eq!(self.kick(DEFLATE).len(), 1);
    }

    fn put_stats(&mut self, entries: &[(u16, u64)], slack: u32) -> u32 {
        let bytes: Vec<u8> = entries
            .iter()
            .flat_map(|(tag, value)| {
                let mut entry = tag.to_le_bytes().to_vec();
                entry.extend(value.to_le_bytes());
                entry
            })
            .collect();
        self.ram.write(DATA, &bytes).expect("in RAM");
        let len = u32::try_from(bytes.len()).expect("small") + slack;
        u32::from(self.drivers[usize::from(STATS)].add(&[out(DATA, len)]))
    }

    fn stat(&self, stat: BalloonStat) -> Option<u64> {
        self.control.stats().and_then(|(stats, _)| stats.get(stat))
    }
}

#[test]
fn neighbours_in_a_request_are_given_back_as_one_range_in_any_order() {
    let mut guest = Guest::new(PAGE_BYTES);
    assert_eq!(
        guest.lend(&[7, 3, 5, 4, 1, 4]),
        [(0x1000, 0x1000), (0x3000, 0x3000), (0x7000, 0x1000)]
    );
    assert_eq!(guest.control.info().returned_bytes, 0x5000);
    assert_eq!(guest.control.info().ignored_pages, 0);
    assert_eq!(guest.interrupts.take_queue(), 1);
}

#[test]
fn pages_outside_of_memory_are_ignored_and_counted() {
    let mut guest = Guest::new(PAGE_BYTES);
    let end = u32::try_from(16 * MIB / PAGE_BYTES).expect("small");
    assert_eq!(
        guest.lend(&[u32::MAX, end, end - 1, 0x8000_0000]),
        [(16 * MIB - 0x1000, 0x1000)]
    );
    assert_eq!(guest.control.info().ignored_pages, 3);
    assert!(!guest.interrupts.broken());
}

#[test]
fn a_request_of_too_many_pages_is_cut_and_the_rest_counted() {
    let mut guest = Guest::new(PAGE_BYTES);
    // The same page again and again: three times the bytes, as the driver may describe them.
    let len = u32::try_from(MAX_PAGES * 4).expect("small");
    guest.drivers[0].add(&[out(DATA, len), out(DATA, len), out(DATA, len + 2)]);
    assert_eq!(guest.kick(INFLATE), [(0, 0)]);
    assert_eq!(guest.returned.take(), [(0, 0x1000)]);
    assert_eq!(guest.control.info().ignored_pages, 2 * MAX_PAGES as u64);
}

#[test]
fn a_flood_of_scattered_pages_is_served_in_turns() {
    let mut guest = Guest::new(PAGE_BYTES);
    let numbers: Vec<u32> = (0..1024).map(|n| n * 2).collect();
    for _ in 0..4 {
        guest.put_numbers(INFLATE, &numbers);
    }
    guest.kicks[0].signal();
    let events = guest.rig().run();
    assert!(events >= 4, "{events} turns");
    assert_eq!(guest.drivers[0].take_used().len(), 4);
}

#[test]
fn refused_ranges_are_not_counted_and_do_not_disturb_the_guest() {
    let refuse = RecordReturn {
        refuse: true,
        ..RecordReturn::default()
    };
    let mut guest = Guest::off(params(PAGE_BYTES), refuse);
    guest.start(0, &[INFLATE, DEFLATE]);
    assert_eq!(guest.lend(&[1]).len(), 1);
    assert_eq!(guest.control.info().returned_bytes, 0);
    assert!(!guest.interrupts.broken());
}

#[test]
fn deflating_what_was_never_lent_changes_no_count() {
    for backing in [PAGE_BYTES, HUGE] {
        let mut guest = Guest::new(backing);
        let before = guest.control.info();
        guest.reclaim(&[1, 2, u32::MAX, 1]);
        assert_eq!(guest.control.info(), before);
        assert_eq!(guest.returned.take(), []);
    }
}

#[test]
fn of_huge_pages_only_whole_ones_go_back() {
    let mut guest = Guest::new(HUGE);
    let first: Vec<u32> = (512..768).collect();
    let second: Vec<u32> = (768..1024).collect();
    assert_eq!(guest.lend(&first), []);
    assert_eq!(guest.lend(&second), [(HUGE, HUGE)]);
    // Again lent after it was taken back in part.
    guest.reclaim(&[600]);
    assert_eq!(guest.lend(&first[..10]), []);
    assert_eq!(guest.lend(&[600]), [(HUGE, HUGE)]);
}

#[test]
fn a_huge_page_is_not_whole_while_a_part_of_it_is_in_use() {
    let mut guest = Guest::new(HUGE);
    let most: Vec<u32> = (512..1023).collect();
    assert_eq!(guest.lend(&most), []);
    guest.reclaim(&[512]);
    assert_eq!(guest.lend(&[1023]), []);
    // A reset takes everything back.
    guest.reboot();
    assert_eq!(guest.lend(&[512]), []);
}

#[test]
fn a_driver_that_does_not_tell_gives_back_only_what_it_lends_whole() {
    let mut guest = Guest::off(params(HUGE), RecordReturn::default());
    guest.start(0, &[INFLATE, DEFLATE]);
    let all: Vec<u32> = (500..1030).collect();
    assert_eq!(guest.lend(&all[..300]), []);
    assert_eq!(guest.lend(&all[300..]), []);
    assert_eq!(guest.lend(&all), [(HUGE, HUGE)]);
}

#[test]
fn an_overlong_deflation_forgets_what_was_noted() {
    let mut guest = Guest::new(HUGE);
    let most: Vec<u32> = (512..1023).collect();
    guest.lend(&most);
    let len = u32::try_from(MAX_PAGES * 4).expect("small");
    guest.drivers[1].add(&[out(DATA, len), out(DATA, 4)]);
    assert_eq!(guest.kick(DEFLATE).len(), 1);
    assert_eq!(guest.lend(&[1023]), []);
}

#[test]
fn reported_ranges_go_back_in_whole_pages() {
    let mut guest = Guest::new(PAGE_BYTES);
    guest.drivers[4].add(&[
        into(0x1000, 0x4000),
        into(0x8001, 0x1fff),
        into(0xa010, 0x100),
    ]);
    assert_eq!(guest.kick(REPORTING), [(0, 0)]);
    assert_eq!(guest.returned.take(), [(0x1000, 0x4000), (0x9000, 0x1000)]);

    let mut guest = Guest::new(HUGE);
    guest.drivers[4].add(&[into(0x10_0000, 0x50_0000), into(0, 0x10_0000)]);
    guest.kick(REPORTING);
    assert_eq!(guest.returned.take(), [(HUGE, 2 * HUGE)]);
}

#[test]
fn the_reporting_queue_is_found_where_linux_puts_it() {
    for (features, queues) in [
        (F_STATS | F_REPORTING, &[0_u16, 1, 2, 3][..]),
        (F_REPORTING, &[0, 1, 2]),
        (F_REPORTING, &[0, 1, 4]),
    ] {
        let mut guest = Guest::off(params(PAGE_BYTES), RecordReturn::default());
        guest.start(features, queues);
        let last = *queues.last().expect("one");
        guest.drivers[usize::from(last)].add(&[into(0, 0x1000)]);
        assert_eq!(guest.kick(last), [(0, 0)], "{queues:?}");
        assert_eq!(guest.returned.take(), [(0, 0x1000)]);
    }
    let mut guest = Guest::off(params(PAGE_BYTES), RecordReturn::default());
    assert!(guest.try_start(F_REPORTING, &[0, 1]).is_err());
    assert!(guest.try_start(F_STATS, &[0, 1]).is_err());
    assert!(guest.try_start(0, &[0]).is_err());
}

#[test]
fn the_target_is_whole_pages_that_the_machine_has_and_interrupts() {
    let mut guest = Guest::new(PAGE_BYTES);
    assert_eq!(guest.control.set_target(5000), 4096);
    assert_eq!(guest.interrupts.take_config(), 1);
    let mut config = [0xff; 12];
    guest.device.read_config(0, &mut config);
    assert_eq!(config, [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(guest.control.set_target(u64::MAX), 16 * MIB);
    guest.rig().stop();
    guest.device.stopped();
    guest.interrupts.take_config();
    assert_eq!(guest.control.set_target(0), 0);
    assert_eq!(guest.interrupts.take_config(), 0, "nobody is there to tell");
}

#[test]
fn an_actual_size_beyond_memory_is_shown_as_what_fits() {
    let mut guest = Guest::new(PAGE_BYTES);
    guest.device.write_config(4, &[2, 0, 0, 0]);
    assert_eq!(guest.control.info().actual_bytes, 0x2000);
    assert_eq!(guest.changed.take(), 1);
    guest.device.write_config(4, &[2, 0, 0, 0]);
    assert_eq!(guest.changed.take(), 0, "nothing changed");
    guest.device.write_config(4, &[0xff; 4]);
    assert_eq!(guest.control.info().actual_bytes, 16 * MIB);
}

#[test]
fn only_the_actual_size_can_be_written_in_any_width() {
    let mut guest = Guest::new(PAGE_BYTES);
    guest.control.set_target(0x3000);
    guest.device.write_config(0, &[9; 5]);
    let mut config = [0; 8];
    guest.device.read_config(0, &mut config);
    assert_eq!(config, [3, 0, 0, 0, 9, 0, 0, 0]);
    guest.device.write_config(5, &[1]);
    guest.device.write_config(7, &[0, 7, 7]);
    guest.device.write_config(u64::MAX, &[7, 7]);
    assert_eq!(guest.control.actual_pages(), 0x109);
    guest.device.read_config(u64::MAX, &mut config);
    assert_eq!(config, [0; 8]);
}

#[test]
fn statistics_are_read_and_the_buffer_kept_until_they_are_asked_for() {
    let mut guest = Guest::new(PAGE_BYTES);
    let first = guest.put_stats(&[(4, 100), (5, 200), (99, 1), (4, 101)], 0);
    assert_eq!(guest.kick(STATS), []);
    assert_eq!(guest.stat(BalloonStat::Free), Some(101));
    assert_eq!(guest.stat(BalloonStat::Total), Some(200));
    assert_eq!(guest.stat(BalloonStat::SwapIn), None);
    assert_eq!(guest.changed.take(), 1);
    guest.control.request_stats();
    guest.control.request_stats();
    guest.rig().run();
    assert_eq!(guest.drivers[2].take_used(), [(first, 0)]);
    assert_eq!(guest.interrupts.take_queue(), 1);
    guest.put_stats(&[(4, 102)], 0);
    assert_eq!(guest.kick(STATS), []);
    assert_eq!(guest.stat(BalloonStat::Free), Some(102));
    assert_eq!(guest.stat(BalloonStat::Total), None, "the report is whole");
}

#[test]
fn a_wish_for_statistics_that_comes_first_is_met_by_the_first_report() {
    let mut guest = Guest::new(PAGE_BYTES);
    guest.control.request_stats();
    guest.rig().run();
    guest.put_stats(&[(4, 1)], 0);
    assert_eq!(guest.kick(STATS), []);
    assert_eq!(guest.stat(BalloonStat::Free), Some(1));
}

#[test]
fn an_oversize_report_is_read_to_its_bound_and_stalls_nothing() {
    let mut guest = Guest::new(PAGE_BYTES);
    let len = u32::try_from(8 * MIB).expect("small");
    for _ in 0..4 {
        guest.drivers[2].add(&[out(0, len), out(0, len), into(0, 7)]);
    }
    assert_eq!(guest.kick(STATS), [], "one is kept, the others wait");
    assert_eq!(guest.lend(&[1]), [(0x1000, 0x1000)]);
    guest.control.request_stats();
    guest.rig().run();
    assert_eq!(guest.drivers[2].take_used().len(), 1);
}

#[test]
fn a_report_cut_inside_an_entry_leaves_that_entry_out() {
    let mut guest = Guest::new(PAGE_BYTES);
    guest.ram.write(DATA, &[0; 64]).expect("in RAM");
    guest.put_stats(&[(5, 8)], 9);
    guest.kick(STATS);
    assert_eq!(guest.stat(BalloonStat::Total), Some(8));
    assert_eq!(guest.stat(BalloonStat::SwapIn), None);
}

#[test]
fn a_kept_statistics_buffer_is_taken_again_after_a_pause() {
    let mut guest = Guest::new(PAGE_BYTES);
    guest.put_stats(&[(4, 1)], 0);
    guest.kick(STATS);
    let progress = guest.rig().stop();
    let stats = progress.iter().find(|(index, _)| *index == STATS);
    assert_eq!(stats.expect("there").1.next_available, 0);
    assert_eq!(progress.len(), 4);
}

#[test]
fn a_broken_queue_ends_all_of_them() {
    let mut guest = Guest::new(PAGE_BYTES);
    guest.drivers[1].set_available(500);
    assert_eq!(guest.kick(DEFLATE), []);
    assert!(guest.interrupts.broken());
    guest.put_numbers(INFLATE, &[1]);
    assert_eq!(guest.kick(INFLATE), []);
    guest.control.request_stats();
    guest.rig().run();
    guest.rig().stop();
}

#[test]
fn the_target_and_the_actual_size_survive_a_restore_and_the_size_no_reset() {
    let mut guest = Guest::new(PAGE_BYTES);
    guest.control.set_target(0x5000);
    guest.device.write_config(4, &[3, 0, 0, 0]);
    guest.rig().stop();
    let saved = guest.device.save();
    assert_eq!(saved, [5, 0, 0, 0, 3, 0, 0, 0]);
    let mut other = Guest::off(params(PAGE_BYTES), RecordReturn::default());
    other.device.restore(1, &saved).expect("good state");
    assert_eq!(other.device.save(), saved);
    other.device.reset();
    assert_eq!(other.device.save(), [5, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn impossible_state_is_refused_and_changes_nothing() {
    let mut guest = Guest::off(params(PAGE_BYTES), RecordReturn::default());
    guest.control.set_target(0x5000);
    let before = guest.device.save();
    for bytes in [&[0xff; 8][..], &[0; 7], &[0; 9], &[]] {
        assert!(guest.device.restore(1, bytes).is_err());
    }
    assert!(guest.device.restore(2, &[0; 8]).is_err());
    assert_eq!(guest.device.save(), before);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a driver lends and takes back, a huge page goes back only while all of it is lent.
    #[test]
    fn no_page_in_use_is_ever_given_back(
        requests in proptest::collection::vec(
            (any::<bool>(), proptest::collection::vec((0_u32..40, 1_u32..40), 1..6)),
            1..40,
        ),
    ) {
        // Pages of 64 KiB, so that a few numbers fill one.
        let mut pages = LentPages::new(16 * PAGE_BYTES);
        pages.set_told(true);
        let ram = ram(1 << 20);
        let mut lent = std::collections::BTreeSet::new();
        for (inflate, runs) in requests {
            let mut numbers: Vec<u32> = runs.iter().flat_map(|(first, n)| *first..first + n).collect();
            if !inflate {
                pages.deflate(&numbers);
                for number in &numbers {
                    lent.remove(number);
                }
                continue;
            }
            lent.extend(numbers.iter().copied());
            let mut given = Vec::new();
            pages.inflate(&mut numbers, &ram, |start, len| given.push((start, len)));
            for (start, len) in given {
                prop_assert_eq!((start % (16 * PAGE_BYTES), len % (16 * PAGE_BYTES)), (0, 0));
                for address in (start..start + len).step_by(4096) {
                    let number = u32::try_from(address / PAGE_BYTES).expect("small");
                    prop_assert!(lent.contains(&number));
                }
            }
        }
    }

    /// Whatever is in the rings, the device neither panics nor spins.
    #[test]
    fn no_ring_content_breaks_it(
        rings in proptest::collection::vec(any::<u8>(), 3400),
        queue in 0_usize..4,
        huge: bool,
    ) {
        let mut guest = Guest::new(if huge { HUGE } else { PAGE_BYTES });
        let queue = [INFLATE, DEFLATE, STATS, REPORTING][queue];
        guest.ram.write(RINGS + u64::from(queue) * 0x1_0000, &rings).expect("in RAM");
        guest.drivers[usize::from(queue)].set_available(128);
        guest.kick(queue);
        guest.control.request_stats();
        guest.rig().run();
        guest.rig().stop();
    }
}
