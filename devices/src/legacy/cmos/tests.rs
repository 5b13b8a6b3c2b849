//! Tests of the RTC, after what Linux's mc146818 library and rtc_cmos do to it.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::clock::TimedDevice;
use crate::testing::{ManualClock, RecordLine, RecordWake};

struct Rig {
    device: Cmos,
    clock: Arc<ManualClock>,
    line: Arc<RecordLine>,
    timer: Arc<RecordWake>,
}

/// Sunday 2026-11-22T13:45:58Z, in the middle of the second.
const START: Duration = Duration::new(1_795_355_158, 500_000_000);

impl Rig {
    fn new() -> Self {
        let (irq, line) = RecordLine::line();
        let clock = ManualClock::at(START);
        let timer = Arc::new(RecordWake::default());
        let params = CmosParams {
            clock: clock.clone(),
            irq,
            timer: timer.clone(),
            memory: CmosMemory {
                below_4g: 3 << 30,
                above_4g: 5 << 30,
            },
        };
        Self {
            device: Cmos::new(params),
            clock,
            line,
            timer,
        }
    }

    fn read(&mut self, index: u8) -> u8 {
        let mut byte = [0];
        self.device.write(0, &[index]).unwrap();
        self.device.read(1, &mut byte).unwrap();
        byte[0]
    }

    fn write(&mut self, index: u8, value: u8) {
        self.device.write(0, &[index]).unwrap();
        self.device.write(1, &[value]).unwrap();
    }

    /// Century, year, month, day, hour, minute, second, weekday.
    fn time(&mut self) -> [u8; 8] {
        [
            CENTURY,
            YEAR,
            MONTH,
            DAY_OF_MONTH,
            HOURS,
            MINUTES,
            SECONDS,
            WEEKDAY,
        ]
        .map(|i| self.read(i))
    }

    /// mc146818_set_time(), in binary if `binary`.
    fn linux_set_time(&mut self, fields: [u8; 7]) {
        let control = self.read(REGISTER_B);
        self.write(REGISTER_B, control | B_SET);
        let frequency = self.read(REGISTER_A);
        self.write(REGISTER_A, frequency | 0x70);
        let registers = [CENTURY, YEAR, MONTH, DAY_OF_MONTH, HOURS, MINUTES, SECONDS];
        for (register, value) in registers.into_iter().zip(fields) {
            self.write(register, value);
        }
        self.write(REGISTER_B, control);
        self.write(REGISTER_A, frequency);
    }

    fn wait_for_interrupt(&mut self) -> Duration {
        let wait = self.device.next_event().expect("an event to wait for");
        self.clock.advance(wait);
        self.device.tick();
        assert!(self.line.is_high(), "the event was not early");
        wait
    }
}

#[test]
fn the_host_time_is_shown_in_bcd_and_24_hours() {
    let mut rig = Rig::new();
    assert_eq!(rig.read(REGISTER_B), B_24_HOURS);
    assert_eq!(rig.read(REGISTER_D), D_VALID);
    assert_eq!(rig.time(), [0x20, 0x26, 0x11, 0x22, 0x13, 0x45, 0x58, 0x01]);
    rig.clock.advance(Duration::from_secs(62));
    assert_eq!(rig.time(), [0x20, 0x26, 0x11, 0x22, 0x13, 0x47, 0x00, 0x01]);
}

#[test]
fn binary_and_12_hours_are_shown_when_asked_for() {
    let mut rig = Rig::new();
    rig.write(REGISTER_B, B_BINARY);
    assert_eq!(rig.time(), [20, 26, 11, 22, 0x81, 45, 58, 1]);
    rig.write(REGISTER_B, 0);
    assert_eq!(rig.read(HOURS), 0x81);
}

#[test]
fn update_in_progress_leads_the_change_of_the_second_by_244_us() {
    let mut rig = Rig::new();
    assert_eq!(rig.read(REGISTER_A), A_POWER_ON);
    rig.clock.advance(Duration::from_micros(499_755));
    assert_eq!(rig.read(REGISTER_A), A_POWER_ON);
    rig.clock.advance(Duration::from_micros(1));
    assert_eq!(rig.read(REGISTER_A), A_POWER_ON | A_UPDATE_IN_PROGRESS);
    assert_eq!(rig.read(SECONDS), 0x58);
    rig.clock.advance(Duration::from_micros(244));
    assert_eq!(rig.read(REGISTER_A), A_POWER_ON);
    assert_eq!(rig.read(SECONDS), 0x59);
}

#[test]
fn linux_sets_the_time_and_the_first_update_follows_half_a_second_later() {
    let mut rig = Rig::new();
    rig.linux_set_time([0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x59]);
    assert_eq!(rig.time(), [0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x59, 0x06]);
    rig.clock.advance(Duration::from_millis(499));
    assert_eq!(rig.read(SECONDS), 0x59);
    rig.clock.advance(Duration::from_millis(1));
    assert_eq!(rig.time(), [0x20, 0x00, 0x01, 0x01, 0x00, 0x00, 0x00, 0x07]);
}

#[test]
fn the_clock_stands_still_while_set_is_held() {
    let mut rig = Rig::new();
    rig.write(REGISTER_B, B_24_HOURS | B_SET);
    rig.clock.advance(Duration::from_secs(100));
    assert_eq!(rig.read(SECONDS), 0x58);
    rig.clock.set(START + Duration::from_micros(499_900));
    assert_eq!(
        rig.read(REGISTER_A) & A_UPDATE_IN_PROGRESS,
        0,
        "no update, no UIP"
    );
    rig.write(SECONDS, 0x10);
    rig.write(REGISTER_B, B_24_HOURS);
    assert_eq!(rig.read(SECONDS), 0x10);
    rig.clock.advance(Duration::from_micros(100));
    assert_eq!(
        rig.read(SECONDS),
        0x11,
        "SET alone keeps the phase of the second"
    );
}

#[test]
fn a_running_clock_can_be_set_field_by_field() {
    let mut rig = Rig::new();
    rig.write(YEAR, 0x30);
    rig.write(HOURS, 0x05);
    assert_eq!(rig.time(), [0x20, 0x30, 0x11, 0x22, 0x05, 0x45, 0x58, 0x06]);
}

#[test]
fn fields_that_are_no_time_are_taken_as_the_nearest() {
    let mut rig = Rig::new();
    rig.linux_set_time([0x20, 0x23, 0xff, 0xff, 0xff, 0xff, 0xff]);
    assert_eq!(rig.time(), [0x20, 0x23, 0x01, 0x01, 0x00, 0x00, 0x00, 0x01]);
    rig.linux_set_time([0x20, 0x23, 0x02, 0x31, 0x99, 0x99, 0x99]);
    assert_eq!(rig.time(), [0x20, 0x23, 0x02, 0x28, 0x23, 0x59, 0x59, 0x03]);
}

/// The alarm that rtc core uses for update interrupts and wake-ups.
#[test]
fn the_alarm_interrupts_at_its_time_and_once() {
    let mut rig = Rig::new();
    rig.write(SECONDS_ALARM, 0x00);
    rig.write(MINUTES_ALARM, 0x46);
    rig.write(HOURS_ALARM, 0x13);
    assert_eq!(rig.timer.take(), 0, "nothing to wait for yet");
    assert_eq!(rig.device.next_event(), None);
    rig.read(REGISTER_C);
    rig.write(REGISTER_B, B_24_HOURS | B_ALARM);
    assert_eq!(rig.timer.take(), 1);
    assert_eq!(rig.wait_for_interrupt(), Duration::from_millis(1500));
    assert_eq!(
        rig.device.next_event(),
        None,
        "an asserted line has no next event"
    );
    assert_eq!(rig.read(REGISTER_C), C_INTERRUPT | B_INTERRUPTS);
    assert!(!rig.line.is_high());
    assert_eq!(rig.read(REGISTER_C), 0);
    assert_eq!(rig.wait_for_interrupt(), Duration::from_secs(86_400));
}

#[test]
fn alarm_fields_may_match_anything_or_nothing() {
    let mut rig = Rig::new();
    for register in [SECONDS_ALARM, MINUTES_ALARM, HOURS_ALARM] {
        rig.write(register, 0xc0);
    }
    rig.write(REGISTER_B, B_24_HOURS | B_ALARM);
    assert_eq!(rig.wait_for_interrupt(), Duration::from_millis(500));
    rig.write(SECONDS_ALARM, 0x7f);
    rig.read(REGISTER_C);
    assert_eq!(rig.device.next_event(), None);
    rig.write(SECONDS_ALARM, 0x61);
    assert_eq!(rig.device.next_event(), None);
}

#[test]
fn update_and_periodic_interrupts_come_at_their_rates() {
    let mut rig = Rig::new();
    rig.write(REGISTER_B, B_24_HOURS | B_UPDATE);
    assert_eq!(rig.wait_for_interrupt(), Duration::from_millis(500));
    assert_eq!(rig.read(REGISTER_C), C_INTERRUPT | B_UPDATE | B_PERIODIC);
    assert_eq!(rig.wait_for_interrupt(), Duration::from_secs(1));
    rig.write(REGISTER_B, B_24_HOURS | B_PERIODIC);
    rig.write(REGISTER_A, 0x2f);
    rig.read(REGISTER_C);
    assert!(rig.wait_for_interrupt() <= Duration::from_micros(500_001));
    assert_eq!(rig.read(REGISTER_C), C_INTERRUPT | B_PERIODIC);
    let wait = rig.wait_for_interrupt();
    assert!(wait > Duration::from_millis(499) && wait < Duration::from_millis(501));
}

#[test]
fn flags_are_there_for_a_guest_that_polls() {
    let mut rig = Rig::new();
    assert_eq!(rig.read(REGISTER_C), 0);
    rig.clock.advance(Duration::from_secs(1));
    assert_eq!(rig.read(REGISTER_C), B_UPDATE | B_PERIODIC);
    assert_eq!(rig.line.take_edges(), 0);
    rig.clock.advance(Duration::from_secs(1));
    rig.device.tick();
    rig.write(REGISTER_B, B_24_HOURS | B_UPDATE);
    assert!(
        rig.line.is_high(),
        "enabling a flag that is set raises the line"
    );
}

#[test]
fn a_host_clock_set_back_neither_interrupts_nor_stops_interrupts() {
    let mut rig = Rig::new();
    rig.write(REGISTER_B, B_24_HOURS | B_UPDATE);
    rig.clock.set(START - Duration::from_secs(3600));
    rig.device.tick();
    assert!(!rig.line.is_high());
    assert!(rig.device.next_event().unwrap() <= Duration::from_secs(1));
    rig.wait_for_interrupt();
}

#[test]
fn memory_sizes_are_told() {
    let mut rig = Rig::new();
    let mut word = |low: u8, high: u8| u16::from_le_bytes([rig.read(low), rig.read(high)]);
    assert_eq!(word(0x15, 0x16), 640);
    assert_eq!(word(0x17, 0x18), 0xffff);
    assert_eq!(word(0x30, 0x31), 0xffff);
    assert_eq!(word(0x34, 0x35), 0xbf00);
    assert_eq!(
        [0x5b, 0x5c, 0x5d].map(|index| rig.read(index)),
        [0x00, 0x40, 0x01]
    );
    let small = CmosMemory {
        below_4g: 8 << 20,
        above_4g: 0,
    };
    assert!(small.registers().contains(&(0x17, 0x00)));
    assert!(small.registers().contains(&(0x18, 0x1c)));
    assert!(small.registers().contains(&(0x35, 0)));
    let huge = CmosMemory {
        below_4g: u64::MAX,
        above_4g: u64::MAX,
    };
    assert!(huge.registers().contains(&(0x5d, 0xff)));
    assert_eq!(CmosMemory::default().registers()[0], (0x15, 0));
}

#[test]
fn ram_is_ram_and_the_index_port_is_write_only() {
    let mut rig = Rig::new();
    for index in (0x0e..=0x7f).filter(|index| *index != CENTURY) {
        rig.write(index, index ^ 0x5a);
    }
    for index in (0x0e..=0x7f).filter(|index| *index != CENTURY) {
        assert_eq!(rig.read(index), index ^ 0x5a);
    }
    let mut data = [0; 2];
    rig.device.write(0, &[0x8f, 0x09]).unwrap();
    assert!(rig.device.nmi_masked());
    rig.device.read(0, &mut data).unwrap();
    assert_eq!(data, [0xff, 0x09], "index and value at once");
    rig.device.write(0, &[0x0f]).unwrap();
    assert!(!rig.device.nmi_masked());
}

#[test]
fn reset_keeps_time_and_ram_and_disables_interrupts() {
    let mut rig = Rig::new();
    rig.write(YEAR, 0x30);
    rig.write(0x0f, 0x0a);
    rig.write(REGISTER_B, B_24_HOURS | B_INTERRUPTS);
    rig.wait_for_interrupt();
    rig.device.reset();
    assert!(!rig.line.is_high());
    assert_eq!(rig.device.next_event(), None);
    assert_eq!((rig.read(YEAR), rig.read(0x0f)), (0x30, 0x0a));
    assert_eq!(
        (rig.read(REGISTER_B), rig.read(REGISTER_C)),
        (B_24_HOURS, 0)
    );
}

/// A clock an hour ahead of the host's, with an alarm interrupt pending.
fn golden() -> Vec<u8> {
    let mut bytes = vec![0x8b & 0x7f, 0x01];
    bytes.extend_from_slice(&[
        0x00, 0xa0, 0xb8, 0x30, 0x46, 0x03, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ]);
    let mut ram = [0; RAM_LEN];
    let time = [0x58, 0xc0, 0x45, 0xc0, 0x14, 0xc0, 0x01, 0x22, 0x11, 0x26];
    ram[..10].copy_from_slice(&time);
    ram[10..14].copy_from_slice(&[0x26, 0x22, 0xf0, 0x00]);
    ram[0x14..0x19].copy_from_slice(&[0x02, 0x80, 0x02, 0xff, 0xff]);
    ram[0x30..0x36].copy_from_slice(&[0xff, 0xff, 0x20, 0x00, 0x00, 0xbf]);
    ram[0x5b..0x5e].copy_from_slice(&[0x00, 0x40, 0x01]);
    bytes.extend_from_slice(&ram);
    bytes
}

#[test]
fn version_1_state_is_these_bytes() {
    let mut rig = Rig::new();
    rig.write(HOURS, 0x14);
    for register in [SECONDS_ALARM, MINUTES_ALARM, HOURS_ALARM] {
        rig.write(register, 0xc0);
    }
    rig.write(0x8b, B_24_HOURS | B_ALARM);
    rig.wait_for_interrupt();
    assert_eq!(rig.device.save(), golden());

    let mut other = Rig::new();
    other.clock.set(START + Duration::from_secs(7200));
    other.device.restore(1, &golden()).unwrap();
    assert!(other.line.is_high());
    assert!(other.device.nmi_masked());
    assert_eq!(other.device.save(), golden());
    assert_eq!(
        other.time()[4..7],
        [0x16, 0x45, 0x58],
        "the time away has passed"
    );
    assert_eq!(other.read(REGISTER_C), 0xf0);
}

#[test]
fn impossible_state_is_refused_and_changes_nothing() {
    let mut rig = Rig::new();
    let before = rig.device.save();
    for (at, value, field) in [
        (0, 0x80, "index"),
        (1, 2, "nmi_masked"),
        (17, 0x7f, "offset"),
        (17, 0x80, "offset"),
        (18 + 0x0a, 0x80, "register A"),
        (18 + 0x0b, 0x90, "register B"),
        (18 + 0x0c, 0x01, "register C"),
        (18 + 0x0d, 0x80, "register D"),
    ] {
        let mut bytes = golden();
        bytes[at] = value;
        assert_eq!(
            rig.device.restore(1, &bytes),
            Err(StateError::Invalid { field })
        );
    }
    assert_eq!(
        rig.device.restore(1, &golden()[..145]),
        Err(StateError::Truncated)
    );
    assert!(rig.device.restore(0, &golden()).is_err());
    assert_eq!(rig.device.save(), before);
}

proptest! {
    #[test]
    fn any_access_sequence_leaves_a_state_that_can_be_restored(
        steps in proptest::collection::vec((0u8..4, 0u8..16, any::<u8>()), 0..200),
    ) {
        let mut rig = Rig::new();
        for (step, register, value) in steps {
            let index = if register == 15 { CENTURY } else { register };
            match step {
                0 => drop(rig.read(index)),
                1 | 2 => rig.write(index, value),
                _ => rig.clock.advance(Duration::from_micros(u64::from(value) * 5_003)),
            }
            let pending = rig.device.get(REGISTER_C) & rig.device.get(REGISTER_B) & B_INTERRUPTS;
            prop_assert_eq!(rig.line.is_high(), pending != 0);
            if let Some(wait) = rig.device.next_event() {
                prop_assert!(wait <= Duration::from_secs(86_401));
                rig.clock.advance(wait);
                rig.device.tick();
                prop_assert!(rig.line.is_high(), "a timed event is not early");
            }
        }
        let saved = rig.device.save();
        let mut other = Rig::new();
        other.device.restore(1, &saved).unwrap();
        prop_assert_eq!(other.device.save(), saved);
        prop_assert_eq!(other.line.is_high(), rig.line.is_high());
    }
}
