//! Tests of the power management registers, after what ACPICA does to them.

use proptest::prelude::*;

use super::*;
use crate::shared::share;
use crate::testing::{ManualClock, RecordLine, RecordPower, RecordWake};

struct Rig {
    device: AcpiPm,
    clock: Arc<ManualClock>,
    sci: Arc<RecordLine>,
    power: Arc<RecordPower>,
    timer: Arc<RecordWake>,
}

const STATUS: u64 = EVENT_BLOCK;
const ENABLE: u64 = EVENT_BLOCK + 2;
const GPE_STATUS: u64 = GPE0_BLOCK;
const GPE_ENABLE: u64 = GPE0_BLOCK + 2;

impl Rig {
    fn new() -> Self {
        Self::with_width(PmTimerWidth::Bits32)
    }

    fn with_width(timer_width: PmTimerWidth) -> Self {
        let (sci, record) = RecordLine::line();
        let clock = ManualClock::at(Duration::from_secs(1000));
        let power = Arc::new(RecordPower::default());
        let timer = Arc::new(RecordWake::default());
        let params = AcpiPmParams {
            timer_width,
            clock: clock.clone(),
            sci,
            power: power.clone(),
            timer: timer.clone(),
            gpes: Vec::new(),
        };
        Self {
            device: AcpiPm::new(params),
            clock,
            sci: record,
            power,
            timer,
        }
    }

    fn read16(&mut self, offset: u64) -> u16 {
        let mut data = [0; 2];
        self.device.read(offset, &mut data).unwrap();
        u16::from_le_bytes(data)
    }

    fn write16(&mut self, offset: u64, value: u16) {
        self.device.write(offset, &value.to_le_bytes()).unwrap();
    }

    fn timer_value(&mut self) -> u32 {
        let mut data = [0; 4];
        self.device.read(TIMER_BLOCK, &mut data).unwrap();
        u32::from_le_bytes(data)
    }
}

/// ACPICA: acpi_install_fixed_event_handler, the event, acpi_ev_fixed_event_dispatch.
#[test]
fn the_power_button_interrupts_until_its_status_is_cleared() {
    let mut rig = Rig::new();
    rig.write16(STATUS, POWER_BUTTON_STATUS);
    rig.write16(ENABLE, POWER_BUTTON_STATUS);
    assert!(rig.device.power_button_enabled());
    assert!(!rig.sci.is_high());
    rig.device.press_power_button();
    rig.device.press_power_button();
    assert!(rig.sci.is_high());
    assert_eq!(rig.sci.take_edges(), 1);
    assert_eq!(rig.read16(STATUS), POWER_BUTTON_STATUS);
    rig.write16(STATUS, !POWER_BUTTON_STATUS);
    assert!(rig.sci.is_high(), "other bits do not clear it");
    rig.write16(STATUS, POWER_BUTTON_STATUS);
    assert!(!rig.sci.is_high());
    assert_eq!(rig.read16(STATUS), 0);
    rig.device.press_power_button();
    assert!(rig.sci.is_high());
}

#[test]
fn a_button_pressed_early_waits_until_the_guest_enables_or_clears_it() {
    let mut rig = Rig::new();
    rig.device.press_power_button();
    assert!(!rig.sci.is_high());
    rig.write16(ENABLE, POWER_BUTTON_STATUS);
    assert!(rig.sci.is_high());
    rig.write16(ENABLE, 0);
    assert!(!rig.sci.is_high());
    rig.write16(STATUS, POWER_BUTTON_STATUS);
    rig.write16(ENABLE, POWER_BUTTON_STATUS);
    assert!(!rig.sci.is_high());
}

/// acpi_hw_legacy_sleep(): SLP_TYP first, then again with SLP_EN.
#[test]
fn s5_powers_off() {
    let mut rig = Rig::new();
    let control = rig.read16(CONTROL_BLOCK);
    assert_eq!(control, CONTROL_SCI_EN, "ACPI mode is on");
    let s5 = control | 5 << 10;
    rig.write16(CONTROL_BLOCK, s5);
    assert_eq!(*rig.power.power_offs(), 0);
    assert_eq!(rig.read16(CONTROL_BLOCK), s5);
    rig.write16(CONTROL_BLOCK, s5 | CONTROL_SLEEP_ENABLE);
    assert_eq!(*rig.power.power_offs(), 1);
    assert_eq!(rig.read16(CONTROL_BLOCK), s5, "SLP_EN is write-only");
    assert_eq!(*rig.power.resets(), 0);
}

#[test]
fn bytes_of_the_control_register_power_off_too_and_other_states_do_not() {
    let mut rig = Rig::new();
    rig.device.write(CONTROL_BLOCK + 1, &[0x34]).unwrap();
    assert_eq!(*rig.power.power_offs(), 1);
    for sleep_type in [0, 1, 2, 3, 4, 6, 7] {
        rig.write16(CONTROL_BLOCK, sleep_type << 10 | CONTROL_SLEEP_ENABLE);
    }
    assert_eq!(*rig.power.power_offs(), 1);
}

#[test]
fn writing_control_does_not_repeat_when_only_events_are_written() {
    let mut rig = Rig::new();
    rig.write16(CONTROL_BLOCK, 5 << 10);
    rig.write16(STATUS, 0xffff);
    rig.write16(ENABLE, 0xffff);
    assert_eq!(*rig.power.power_offs(), 0);
    assert_eq!(rig.read16(ENABLE), ENABLE_MASK);
}

#[test]
fn the_timer_counts_at_its_frequency_and_wraps_at_its_width() {
    let mut wide = Rig::with_width(PmTimerWidth::Bits32);
    let mut narrow = Rig::with_width(PmTimerWidth::Bits24);
    for rig in [&mut wide, &mut narrow] {
        assert_eq!(rig.timer_value(), 0);
        rig.clock.advance(Duration::from_secs(1));
        assert_eq!(rig.timer_value(), 3_579_545);
        rig.clock.advance(Duration::from_secs(4));
    }
    assert_eq!(wide.timer_value(), 5 * 3_579_545);
    assert_eq!(narrow.timer_value(), 5 * 3_579_545 - (1 << 24));
    wide.device.write(TIMER_BLOCK, &[0; 4]).unwrap();
    assert_eq!(wide.timer_value(), 5 * 3_579_545, "read-only");
}

#[test]
fn the_timer_status_follows_its_highest_bit_and_interrupts_when_enabled() {
    let mut rig = Rig::with_width(PmTimerWidth::Bits24);
    assert_eq!(rig.device.next_event(), None);
    rig.write16(ENABLE, TIMER_STATUS);
    assert_eq!(rig.timer.take(), 1);
    for _ in 0..3 {
        let wait = rig.device.next_event().unwrap();
        assert!(wait > Duration::from_millis(2343) && wait < Duration::from_millis(2344));
        rig.clock.advance(wait - Duration::from_micros(1));
        rig.device.tick();
        assert!(!rig.sci.is_high());
        rig.clock.advance(Duration::from_micros(1));
        rig.device.tick();
        assert!(rig.sci.is_high());
        assert_eq!(
            rig.device.next_event(),
            None,
            "nothing more to say until it is cleared"
        );
        assert_eq!(rig.read16(STATUS), TIMER_STATUS);
        rig.write16(STATUS, TIMER_STATUS);
        assert!(!rig.sci.is_high());
    }
    rig.write16(ENABLE, 0);
    rig.timer.take();
    rig.write16(STATUS, 0xffff);
    assert_eq!(
        rig.timer.take(),
        0,
        "no wakes for a guest that does not use it"
    );
}

#[test]
fn accesses_beyond_the_registers_are_not_answered() {
    let mut rig = Rig::new();
    assert_eq!(rig.device.read(13, &mut [0; 4]), Err(AccessError));
    assert_eq!(rig.device.read(u64::MAX, &mut [0]), Err(AccessError));
    assert_eq!(rig.device.write(16, &[0]), Err(AccessError));
    assert_eq!(rig.device.write(u64::MAX, &[0]), Err(AccessError));
    assert_eq!(rig.device.write(14, &[0xff; 4]), Err(AccessError));
    assert_eq!(rig.read16(GPE_ENABLE), 0, "not even in part");
    let mut data = [0; 4];
    rig.device.read(CONTROL_BLOCK, &mut data).unwrap();
    assert_eq!(data, [1, 0, 0xff, 0xff]);
}

/// acpi_hw_clear_gpe_block, acpi_ev_gpe_detect, acpi_ev_gpe_dispatch, acpi_ev_finish_gpe: bytes, and
/// an edge event's status is cleared before its method runs.
#[test]
fn a_general_event_interrupts_while_it_is_enabled_and_not_cleared() {
    let mut rig = Rig::new();
    rig.device.write(GPE_STATUS, &[0xff]).unwrap();
    rig.device.write(GPE_ENABLE, &[1 << 1 | 1 << 2]).unwrap();
    assert!(rig.device.gpe_enabled(1) && !rig.device.gpe_enabled(3));
    rig.device.raise_gpe(3);
    assert!(!rig.sci.is_high(), "not enabled");
    rig.device.raise_gpe(1);
    rig.device.raise_gpe(1);
    assert!(rig.sci.is_high());
    assert_eq!(rig.sci.take_edges(), 1);
    assert_eq!(rig.read16(GPE_STATUS), 1 << 3 | 1 << 1);
    rig.device.raise_gpe(2);
    rig.device.write(GPE_STATUS, &[1 << 1]).unwrap();
    assert!(rig.sci.is_high(), "the other one is still pending");
    rig.device.write(GPE_STATUS, &[1 << 2]).unwrap();
    assert!(!rig.sci.is_high());
    rig.device.raise_gpe(1);
    assert!(rig.sci.is_high(), "raised while its method runs");
    rig.write16(GPE_ENABLE, 0);
    assert!(!rig.sci.is_high());
}

#[derive(Debug)]
struct News(bool);

impl GpeSource for News {
    fn has_news(&self) -> bool {
        self.0
    }
}

/// ACPICA: acpi_ev_create_gpe_info_blocks clears every status; acpi_update_all_gpes enables.
#[test]
fn an_event_that_was_cleared_before_it_was_enabled_is_raised_again_while_there_is_news() {
    let mut rig = Rig::new();
    let source = share(News(true));
    rig.device.gpes = vec![(2, Arc::clone(&source) as _), (11, share(News(true)))];
    rig.device.raise_gpe(2);
    rig.write16(GPE_ENABLE, 0);
    rig.write16(GPE_STATUS, u16::MAX);
    assert_eq!(rig.read16(GPE_STATUS), 0);
    rig.device.write(GPE_ENABLE, &[1 << 2]).unwrap();
    assert_eq!(rig.read16(GPE_STATUS), 1 << 2, "not what is disabled");
    assert!(rig.sci.is_high());
    rig.write16(GPE_STATUS, 1 << 2);
    rig.write16(GPE_ENABLE, 1 << 2);
    assert_eq!(rig.read16(GPE_STATUS), 0, "it was enabled before");
    lock(&source).0 = false;
    rig.write16(GPE_ENABLE, 0);
    rig.write16(GPE_ENABLE, 1 << 2);
    assert_eq!(rig.read16(GPE_STATUS), 0, "there is no news");
}

#[test]
fn fixed_and_general_events_share_the_sci() {
    let mut rig = Rig::new();
    rig.write16(ENABLE, POWER_BUTTON_STATUS);
    rig.write16(GPE_ENABLE, 1 << 9);
    rig.device.raise_gpe(9);
    rig.device.press_power_button();
    assert_eq!(rig.sci.take_edges(), 1);
    rig.write16(STATUS, POWER_BUTTON_STATUS);
    assert!(rig.sci.is_high());
    assert_eq!(rig.read16(GPE_STATUS), 1 << 9);
    rig.write16(GPE_STATUS, 1 << 9);
    assert!(!rig.sci.is_high());
}

#[test]
fn an_event_beyond_the_block_is_nothing() {
    let mut rig = Rig::new();
    rig.write16(GPE_ENABLE, 0xffff);
    for number in AcpiPm::GPES..=u8::MAX {
        rig.device.raise_gpe(number);
        assert!(!rig.device.gpe_enabled(number));
    }
    assert!(!rig.sci.is_high());
    assert_eq!(rig.read16(GPE_STATUS), 0);
}

/// What version 1 wrote.
const GOLDEN_1: [u8; 14] = [
    0x01, 0x01, 0x20, 0x01, 0x00, 0x14, 0, 0, 0, 0x80, 0, 0, 0, 0,
];

const GOLDEN: [u8; 18] = [
    0x01, 0x01, 0x20, 0x01, 0x00, 0x14, 0, 0, 0, 0x80, 0, 0, 0, 0, 0x06, 0x00, 0x02, 0x80,
];

#[test]
fn version_1_state_is_taken_with_no_general_event() {
    let mut rig = Rig::new();
    rig.write16(GPE_ENABLE, 0xffff);
    rig.device.raise_gpe(4);
    rig.device.restore(1, &GOLDEN_1).unwrap();
    assert!(rig.sci.is_high(), "the power button");
    assert_eq!(rig.read16(STATUS), POWER_BUTTON_STATUS | TIMER_STATUS);
    assert_eq!((rig.read16(GPE_STATUS), rig.read16(GPE_ENABLE)), (0, 0));
    assert_eq!(rig.device.save()[..14], GOLDEN_1);
    assert_eq!(
        rig.device.restore(1, &GOLDEN),
        Err(StateError::TrailingBytes { count: 4 })
    );
    assert_eq!(rig.device.restore(2, &GOLDEN_1), Err(StateError::Truncated));
}

#[test]
fn a_pending_general_event_interrupts_after_a_restore() {
    let mut rig = Rig::new();
    rig.write16(GPE_ENABLE, 1 << 1);
    rig.device.raise_gpe(1);
    let mut other = Rig::new();
    other.device.restore(2, &rig.device.save()).unwrap();
    assert!(other.sci.is_high());
    other.device.reset();
    assert!(!other.sci.is_high());
    assert_eq!((other.read16(GPE_STATUS), other.read16(GPE_ENABLE)), (0, 0));
}

#[test]
fn version_2_state_is_these_bytes() {
    let mut rig = Rig::new();
    rig.write16(ENABLE, POWER_BUTTON_STATUS | GLOBAL_STATUS);
    rig.write16(CONTROL_BLOCK, 5 << 10);
    rig.write16(GPE_ENABLE, 0x8002);
    rig.device.raise_gpe(1);
    rig.device.raise_gpe(2);
    rig.device.press_power_button();
    rig.clock.advance(rig.device.pm_timer.until_carry());
    assert_eq!(rig.device.save(), GOLDEN);

    let mut other = Rig::new();
    other.clock.set(Duration::from_secs(77));
    other.device.restore(2, &GOLDEN).unwrap();
    assert!(other.sci.is_high());
    assert_eq!(other.read16(STATUS), POWER_BUTTON_STATUS | TIMER_STATUS);
    assert_eq!(
        other.timer_value(),
        0x8000_0000,
        "the timer goes on, not with the clock's origin"
    );
    assert_eq!(other.device.save(), GOLDEN);
}

#[test]
fn time_that_passes_between_save_and_restore_is_on_the_timer() {
    let mut rig = Rig::new();
    rig.write16(ENABLE, TIMER_STATUS);
    let before = rig.timer_value();
    rig.device.pass(Duration::from_secs(2));
    assert_eq!(rig.timer_value() - before, 2 * 3_579_545);
    assert!(!rig.sci.is_high());
    let wait = rig.device.pm_timer.until_carry();
    rig.device.pass(wait);
    assert!(rig.sci.is_high(), "its highest bit has changed meanwhile");
}

#[test]
fn impossible_state_is_refused_and_changes_nothing() {
    let mut rig = Rig::new();
    let good = rig.device.save();
    for (at, value, field) in [
        (0, 0x02, "status"),
        (3, 0x80, "enable"),
        (4, 0x01, "control"),
    ] {
        let mut bytes = GOLDEN;
        bytes[at] = value;
        assert_eq!(
            rig.device.restore(2, &bytes),
            Err(StateError::Invalid { field })
        );
    }
    assert_eq!(
        rig.device.restore(2, &GOLDEN[..17]),
        Err(StateError::Truncated)
    );
    for version in [0, 3, 9] {
        assert!(rig.device.restore(version, &GOLDEN).is_err());
    }
    assert_eq!(rig.device.save(), good);
}

#[test]
fn the_latest_possible_timer_does_not_overflow() {
    let mut rig = Rig::new();
    let mut bytes = GOLDEN;
    bytes[6..14].fill(0xff);
    rig.device.restore(2, &bytes).unwrap();
    rig.write16(ENABLE, TIMER_STATUS);
    rig.write16(STATUS, TIMER_STATUS);
    rig.clock.set(Duration::MAX);
    rig.timer_value();
    rig.device.tick();
    rig.device.next_event();
}

#[test]
fn reset_lowers_sci_and_restarts_the_timer() {
    let mut rig = Rig::new();
    rig.write16(ENABLE, POWER_BUTTON_STATUS);
    rig.device.press_power_button();
    rig.clock.advance(Duration::from_secs(5));
    rig.device.reset();
    assert!(!rig.sci.is_high());
    assert_eq!(rig.timer_value(), 0);
    assert_eq!(rig.device.save(), Rig::new().device.save());
}

proptest! {
    #[test]
    fn any_access_sequence_leaves_a_state_that_can_be_restored(
        steps in proptest::collection::vec((0u64..16, 0usize..3, any::<u32>(), 0u8..5), 0..200),
    ) {
        let mut rig = Rig::with_width(PmTimerWidth::Bits24);
        for (offset, width, value, step) in steps {
            let data = &value.to_le_bytes()[..1 << width];
            match step {
                0 => drop(rig.device.read(offset, &mut data.to_vec())),
                1 => drop(rig.device.write(offset, data)),
                2 => rig.clock.advance(Duration::from_micros(u64::from(value >> 8))),
                3 => rig.device.press_power_button(),
                _ => rig.device.raise_gpe(value.to_le_bytes()[2] & 0x1f),
            }
            if let Some(wait) = rig.device.next_event() {
                rig.clock.advance(wait);
                rig.device.tick();
                prop_assert!(rig.sci.is_high(), "a timed event is not early");
            }
        }
        let saved = rig.device.save();
        let mut other = Rig::with_width(PmTimerWidth::Bits24);
        other.device.restore(2, &saved).unwrap();
        prop_assert_eq!(other.device.save(), saved);
    }
}
