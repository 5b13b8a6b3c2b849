//! Tests of the watchdog, after what Linux's i6300esb driver does to it.

use proptest::prelude::*;

use super::*;
use crate::pci::PciFunction;
use crate::pci::config_space::Change;
use crate::power::Reset;
use crate::shared::{Shared, lock};
use crate::state::Saveable;
use crate::testing::{ManualClock, RecordLine, RecordWake};

const SECOND: Duration = Duration::from_secs(1);
/// Where the BAR is after power-on.
const BAR: u64 = 0xc000_0000;

struct Rig {
    function: WatchdogFunction,
    watchdog: Shared<Watchdog>,
    clock: Arc<ManualClock>,
    line: Arc<RecordLine>,
    timer: Arc<RecordWake>,
    news: Arc<RecordWake>,
}

impl Rig {
    /// One of a machine that runs.
    fn new() -> Self {
        let rig = Self::standing();
        lock(&rig.watchdog).go_on();
        rig
    }

    fn standing() -> Self {
        let (irq, line) = RecordLine::line();
        let clock = ManualClock::at(SECOND);
        let (timer, news) = (Arc::<RecordWake>::default(), Arc::<RecordWake>::default());
        let params = WatchdogParams {
            clock: clock.clone(),
            irq,
            timer: timer.clone(),
            news: news.clone(),
        };
        let function = WatchdogFunction::new(params, BAR, 10).unwrap();
        Self {
            watchdog: function.watchdog(),
            function,
            clock,
            line,
            timer,
            news,
        }
    }

    fn write(&self, register: u64, value: u32, width: usize) {
        let bytes = value.to_le_bytes();
        let mut watchdog = lock(&self.watchdog);
        watchdog.write(register, &bytes[..width]).unwrap();
    }

    fn read(&self, register: u64) -> u32 {
        let mut bytes = [0; 4];
        lock(&self.watchdog).read(register, &mut bytes).unwrap();
        u32::from_le_bytes(bytes)
    }

    /// A write behind the two that unlock a register.
    fn unlocked(&self, register: u64, value: u32, width: usize) {
        self.write(RELOAD, 0x80, 2);
        self.write(RELOAD, 0x86, 2);
        self.write(register, value, width);
    }

    fn config(&mut self, register: u16, bytes: &[u8]) {
        assert_eq!(self.function.write_config(register, bytes), Change::Nothing);
    }

    fn config_byte(&mut self, register: u16) -> u8 {
        let mut byte = [0];
        self.function.read_config(register, &mut byte);
        byte[0]
    }

    /// As the driver: no interrupt, the slow clock, the same length for both timers, enabled. What the driver
    /// takes for a second is 1.017 of them.
    fn arm(&mut self, seconds: u32) {
        self.config(0x60, &[3, 0]);
        self.config(0x68, &[0]);
        self.unlocked(TIMER_1, seconds << 9, 4);
        self.unlocked(TIMER_2, seconds << 9, 4);
        self.unlocked(RELOAD, RELOAD_NOW, 2);
        self.config(0x68, &[ENABLED]);
    }

    /// Lets time pass as the thread that ticks does, and no more than so often.
    fn pass(&self, time: Duration) -> usize {
        let end = self.clock.now() + time;
        let mut ticks = 0;
        loop {
            let next = lock(&self.watchdog).next_event();
            let Some(next) = next.filter(|next| self.clock.now() + *next <= end) else {
                break;
            };
            self.clock.advance(next);
            lock(&self.watchdog).tick();
            ticks += 1;
            assert!(ticks < 10_000, "a timer without end");
        }
        self.clock.set(end);
        ticks
    }

    fn expired(&self) -> bool {
        lock(&self.watchdog).take_expired()
    }
}

#[test]
fn it_is_found_as_what_it_is() {
    let mut rig = Rig::new();
    let mut ids = [0; 4];
    rig.function.read_config(0, &mut ids);
    assert_eq!(ids, [0x86, 0x80, 0xab, 0x25]);
    assert_eq!((rig.config_byte(0x3c), rig.config_byte(0x3d)), (10, 1));
    assert_eq!(rig.function.write_config(4, &[2, 0]), Change::Decoding);
    let bars = rig.function.bars();
    let bar = bars[0].as_ref().unwrap();
    assert_eq!((bar.size, bar.address), (4096, Some(BAR)));
}

#[test]
fn a_guest_that_does_not_reload_it_sees_it_expire_after_both_stages() {
    let mut rig = Rig::new();
    rig.arm(30);
    rig.pass(29 * SECOND);
    assert!(!rig.expired());
    rig.pass(2 * SECOND);
    assert!(rig.expired(), "two stages of half the time each");
    assert!(!rig.expired(), "taken once");
    assert_eq!(rig.news.take(), 1);
    assert_eq!(lock(&rig.watchdog).next_event(), None, "disabled again");
    assert_eq!(rig.read(RELOAD) & TIMED_OUT, TIMED_OUT);
    rig.function.reset();
    assert_eq!(rig.read(RELOAD) & TIMED_OUT, TIMED_OUT, "for the next boot");
    rig.unlocked(RELOAD, TIMED_OUT, 2);
    assert_eq!(rig.read(RELOAD), 0);
}

#[test]
fn an_expiry_that_nobody_has_acted_on_is_forgotten_at_a_reset() {
    let mut rig = Rig::new();
    rig.arm(30);
    rig.pass(31 * SECOND);
    assert!(lock(&rig.watchdog).has_expired());
    rig.function.reset();
    assert!(!rig.expired(), "the machine that comes is another");
    assert_eq!(rig.read(RELOAD) & TIMED_OUT, TIMED_OUT, "it may know of it");
}

#[test]
fn one_that_reloads_it_in_time_is_left_alone() {
    let mut rig = Rig::new();
    rig.arm(10);
    let _ = rig.timer.take();
    for _ in 0..1000 {
        rig.pass(9 * SECOND);
        rig.unlocked(RELOAD, RELOAD_NOW, 2);
    }
    assert!(!rig.expired());
    assert_eq!(rig.timer.take(), 0, "a later end wakes nobody");
    rig.pass(11 * SECOND);
    assert!(rig.expired());
}

#[test]
fn a_register_takes_a_write_behind_the_two_that_unlock_it_only() {
    let rig = Rig::new();
    rig.write(TIMER_1, 5, 4);
    rig.write(RELOAD, 0x86, 2);
    rig.write(TIMER_1, 5, 4);
    rig.write(RELOAD, 0x80, 2);
    rig.write(TIMER_1, 5, 4);
    rig.write(RELOAD, 0x86, 2);
    rig.write(TIMER_1, 5, 4);
    assert_eq!(rig.read(TIMER_1), LENGTH_MASK);
    rig.unlocked(TIMER_1, 0xfff0_0005, 4);
    assert_eq!(rig.read(TIMER_1), 5);
    rig.write(TIMER_2, 7, 4);
    assert_eq!(rig.read(TIMER_2), LENGTH_MASK, "locked again");
}

#[test]
fn a_locked_one_cannot_be_disabled_before_the_machine_is_reset() {
    let mut rig = Rig::new();
    rig.arm(10);
    rig.config(0x68, &[ENABLED | LOCKED]);
    rig.config(0x68, &[0]);
    assert_eq!(rig.config_byte(0x68), ENABLED | LOCKED);
    rig.pass(11 * SECOND);
    assert!(rig.expired());
    rig.arm(10);
    rig.config(0x68, &[ENABLED | LOCKED]);
    rig.function.reset();
    assert_eq!(rig.config_byte(0x68), 0);
    rig.pass(100 * SECOND);
    assert!(!rig.expired());
}

#[test]
fn the_first_timer_gives_an_interrupt_where_the_guest_wants_one() {
    let mut rig = Rig::new();
    rig.arm(10);
    rig.pass(6 * SECOND);
    assert!(!rig.line.is_high(), "the driver wants none");
    rig.arm(10);
    rig.config(0x60, &[0, 0]);
    rig.unlocked(RELOAD, RELOAD_NOW, 2);
    rig.pass(6 * SECOND);
    assert!(rig.line.is_high());
    assert_eq!(rig.read(INTERRUPT), 1);
    rig.write(INTERRUPT, 1, 1);
    assert!(!rig.line.is_high());
    assert!(!rig.expired(), "there is time yet");
    rig.pass(5 * SECOND);
    assert!(rig.expired());
}

#[test]
fn without_its_output_it_is_a_timer_that_runs_once_or_freely() {
    let mut rig = Rig::new();
    rig.arm(10);
    rig.config(0x60, &[3 | OUTPUT_OFF, 0]);
    assert_eq!(rig.pass(100 * SECOND), 2, "both stages, once");
    rig.config(0x68, &[0]);
    rig.config(0x68, &[ENABLED | FREE_RUNNING]);
    assert!(rig.pass(100 * SECOND) > 18);
    assert!(!rig.expired());
}

#[test]
fn no_guest_makes_it_tick_more_often_than_a_thousand_times_a_second() {
    let mut rig = Rig::new();
    rig.config(0x60, &[FAST | OUTPUT_OFF, 0]);
    rig.unlocked(TIMER_1, 0, 4);
    rig.unlocked(TIMER_2, 0, 4);
    rig.config(0x68, &[ENABLED | FREE_RUNNING]);
    assert_eq!(rig.pass(SECOND), 1000);
}

#[test]
fn it_stands_while_the_machine_does() {
    let mut rig = Rig::new();
    rig.arm(10);
    rig.pass(8 * SECOND);
    lock(&rig.watchdog).hold();
    assert_eq!(rig.pass(1000 * SECOND), 0);
    lock(&rig.watchdog).tick();
    lock(&rig.watchdog).go_on();
    rig.pass(SECOND);
    assert!(!rig.expired());
    rig.pass(2 * SECOND);
    assert!(rig.expired());
}

#[test]
fn a_saved_one_goes_on_where_it_was_however_late() {
    let mut rig = Rig::new();
    rig.arm(10);
    let _ = rig.function.write_config(4, &[2, 0]);
    rig.pass(8 * SECOND);
    lock(&rig.watchdog).hold();
    let saved = rig.function.save();
    let mut other = Rig::standing();
    other.clock.set(5000 * SECOND);
    other.function.restore(1, &saved).unwrap();
    assert_eq!(other.function.save(), saved);
    assert_eq!(
        other.function.bars()[0].as_ref().unwrap().address,
        Some(BAR)
    );
    other.pass(100 * SECOND);
    assert!(!other.expired());
    lock(&other.watchdog).go_on();
    other.pass(3 * SECOND);
    assert!(other.expired());
}

#[test]
fn what_nobody_has_acted_on_yet_is_told_after_a_restore() {
    let mut rig = Rig::new();
    rig.arm(1);
    rig.pass(2 * SECOND);
    let saved = rig.function.save();
    let mut other = Rig::standing();
    other.function.restore(1, &saved).unwrap();
    assert_eq!(other.news.take(), 1);
    assert!(other.expired());
}

#[test]
fn its_layout_in_a_record_does_not_change() {
    let state = WatchdogStateV1 {
        config: 0x23,
        lock: 2,
        lengths: [0x1_0203, 0x4_0506],
        second: true,
        unlocked: 1,
        interrupt: false,
        timed_out: true,
        expired: false,
        left_ns: Some(0x0708),
    };
    let mut writer = crate::state::StateWriter::new();
    state.encode(&mut writer);
    let bytes = writer.finish();
    let golden = [
        0x23, 2, 3, 2, 1, 0, 6, 5, 4, 0, 1, 1, 0, 1, 0, 1, 8, 7, 0, 0, 0, 0, 0, 0,
    ];
    assert_eq!(bytes, golden);
    let mut reader = crate::state::StateReader::new(&bytes);
    assert_eq!(WatchdogStateV1::decode(&mut reader), Ok(state));
}

#[test]
fn records_that_no_watchdog_writes_are_refused_and_change_nothing() {
    let mut rig = Rig::new();
    rig.arm(10);
    lock(&rig.watchdog).hold();
    let saved = rig.function.save();
    let at = saved.len() - 24;
    for (offset, byte) in [
        (0, 0x40),
        (1, 0x80),
        (4, 0x10),
        (10, 2),
        (11, 3),
        (12, 2),
        (15, 0),
        (23, 0xff),
    ] {
        let mut record = saved.clone();
        record[at + offset] = byte;
        assert!(rig.function.restore(1, &record).is_err(), "{offset}");
        assert_eq!(rig.function.save(), saved);
    }
    assert!(rig.function.restore(1, &saved[..saved.len() - 1]).is_err());
    assert!(rig.function.restore(2, &saved).is_err());
}

#[test]
fn accesses_beyond_the_registers_and_of_odd_widths_are_refused() {
    let rig = Rig::new();
    let mut watchdog = lock(&rig.watchdog);
    assert_eq!(watchdog.read(16, &mut [0; 4]), Err(AccessError));
    assert_eq!(watchdog.read(14, &mut [0; 4]), Err(AccessError));
    assert_eq!(watchdog.read(u64::MAX, &mut [0; 1]), Err(AccessError));
    assert_eq!(watchdog.write(16, &[0; 4]), Err(AccessError));
    assert_eq!(watchdog.write(8, &[0; 8]), Err(AccessError));
    assert_eq!(watchdog.read(8, &mut [0; 8]), Ok(()));
}

proptest! {
    #[test]
    fn whatever_a_guest_does_its_state_can_be_restored(
        steps in prop::collection::vec((0u8..8, any::<u8>(), any::<u32>()), 0..64),
    ) {
        let mut rig = Rig::new();
        for (kind, place, value) in steps {
            let bytes = value.to_le_bytes();
            let width = 1 << (place >> 6).min(2);
            match kind {
                0 => drop(lock(&rig.watchdog).write(u64::from(place & 0x1f), &bytes[..width])),
                1 => rig.unlocked(u64::from(place & 0xc), value, 4),
                2 => drop(rig.function.write_config(0x60, &bytes[..1])),
                3 => drop(rig.function.write_config(0x68, &bytes[..1])),
                4 => drop(rig.pass(Duration::from_nanos(u64::from(value) << (place & 3)).min(SECOND))),
                5 => lock(&rig.watchdog).hold(),
                6 => lock(&rig.watchdog).go_on(),
                _ => rig.function.reset(),
            }
        }
        let saved = rig.function.save();
        let mut other = Rig::standing();
        prop_assert_eq!(other.function.restore(1, &saved), Ok(()));
        prop_assert_eq!(other.function.save(), saved);
        prop_assert_eq!(other.line.is_high(), lock(&other.watchdog).interrupt);
    }
}
