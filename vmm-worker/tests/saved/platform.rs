//! Generation ids, watchdogs and the panic port of machines that are saved, restored and handed over.

use std::time::{Duration, Instant};

use reeve_guest::mode;
use reeve_ipc::event::CrashCause;
use reeve_ipc::spec::{PciSlot, WatchdogAction};
use reeve_worker::state::{ContainerError, Origin, RestoreError};
use reeve_worker::vcpu::GuestEnd;

use crate::harness::{Rig, Setup};

const ID: [u8; 16] = *b"0123456789abcdef";

/// What the guest prints of an id: two numbers of its bytes in memory.
fn printed(id: [u8; 16]) -> String {
    let number = |half: &[u8]| u64::from_le_bytes(half.try_into().expect("eight bytes"));
    let (low, high) = id.split_at(8);
    format!("{:#x} {:#x}", number(low), number(high))
}

/// The id in the next line that begins like that; no line before it begins with `never`.
fn id_after(rig: &mut Rig, begin: &str, never: &str) -> String {
    loop {
        let line = rig.line();
        if let Some(id) = line.strip_prefix(begin) {
            return id.to_owned();
        }
        assert!(!line.starts_with(never), "{line}");
    }
}

const START: &str = "generation at the start: ";
const ANOTHER: &str = "generation is another: ";
const NOW: &str = "generation now: ";

#[test]
fn a_guest_has_another_generation_id_once_it_was_restored_and_not_before() {
    let mut rig = Setup::new(mode::GENERATION).generation_id(ID).start();
    assert_eq!(id_after(&mut rig, START, "error"), printed(ID));
    rig.hand_over(true);
    rig.send(b"n");
    assert_eq!(id_after(&mut rig, NOW, ANOTHER), printed(ID));
    rig.reset();
    assert_eq!(id_after(&mut rig, START, ANOTHER), printed(ID));

    rig.hop(Origin::ThisBoot);
    let second = id_after(&mut rig, ANOTHER, "error");
    assert_ne!(second, printed(ID));
    rig.hand_over(true);
    rig.reset();
    assert_eq!(
        id_after(&mut rig, START, ANOTHER),
        second,
        "kept from then on"
    );
    rig.hop(Origin::Elsewhere);
    let third = id_after(&mut rig, ANOTHER, "error");
    assert!(third != second && third != printed(ID));
    rig.send(b"n");
    assert_eq!(id_after(&mut rig, NOW, ANOTHER), third, "told once");
}

#[test]
fn each_machine_of_one_state_has_a_generation_of_its_own() {
    let setup = Setup::new(mode::GENERATION).generation_id(ID);
    let mut rig = setup.clone().start();
    rig.wait_for(START);
    let state = rig.save();
    let ids = [(); 2].map(|()| {
        let machine = rig.build(&setup, &state, Origin::ThisBoot).expect("built");
        let id = machine.generation_id().expect("it has one");
        machine.close();
        id
    });
    assert!(ids[0] != ids[1] && !ids.contains(&ID), "{ids:?}");
}

/// Waits until the watchdog has expired; how long that took.
fn expiry(rig: &mut Rig, most: Duration) -> Duration {
    let start = Instant::now();
    while !rig.machine().watchdog_has_expired() {
        assert!(start.elapsed() < most, "it does not expire");
        std::thread::sleep(Duration::from_millis(5));
    }
    start.elapsed()
}

#[test]
fn a_watchdog_stands_with_its_machine_and_goes_along_to_another() {
    let setup = Setup::new("mode=watchdog ms=4000").watchdog(WatchdogAction::Nothing);
    let mut rig = setup.start();
    rig.wait_for("watchdog: armed");
    rig.machine().pause().expect("stands");
    std::thread::sleep(Duration::from_millis(4500));
    assert!(!rig.machine().watchdog_has_expired());
    rig.hop(Origin::ThisBoot);
    rig.hand_over(true);
    let took = expiry(&mut rig, Duration::from_secs(20));
    assert!(took > Duration::from_millis(500), "{took:?}");
    // Nobody has acted on it: that is left to whoever has the machine next.
    rig.hand_over(true);
    assert_eq!(rig.machine().take_watchdog(), Some(WatchdogAction::Nothing));
    assert_eq!(rig.machine().take_watchdog(), None);
    rig.wait_for("watchdog: has expired");
    rig.reset();
    rig.wait_for("watchdog: has expired before");
}

#[test]
fn a_guest_that_reloads_its_watchdog_is_left_alone() {
    // Reloaded when half of its time is over: the other half is how late a vCPU of a busy host may be.
    let setup = Setup::new("mode=watchdog ms=3000 count=3");
    let mut rig = setup.watchdog(WatchdogAction::Reset).start();
    rig.wait_for("watchdog: left alone");
    assert!(!rig.machine().watchdog_has_expired(), "4.5 s later");
    expiry(&mut rig, Duration::from_secs(20));
}

#[test]
fn an_nmi_reaches_the_guest() {
    let mut rig = Setup::new("mode=watchdog ms=60000")
        .watchdog(WatchdogAction::InjectNmi)
        .start();
    rig.wait_for("watchdog: left alone");
    rig.machine().inject_nmi();
    rig.wait_for("watchdog: NMI");
}

#[test]
fn no_access_to_a_watchdog_stops_the_machine() {
    let mut rig = Setup::new("mode=watchdog-attack seed=7 count=3000")
        .watchdog(WatchdogAction::Nothing)
        .start();
    rig.wait_for("watchdog-attack: survived");
}

fn end_of(rig: &mut Rig) -> GuestEnd {
    let start = Instant::now();
    let end = rig.machine().end_signal();
    loop {
        if let Some(end) = end.take() {
            return end;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "no end");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_guest_that_panics_a_thousand_times_has_ended_once() {
    let mut rig = Setup::new("mode=panic count=1000").panic_port().start();
    rig.wait_for("panic-port: 7");
    let GuestEnd::Crash(report) = end_of(&mut rig) else {
        panic!("another end");
    };
    assert_eq!((report.vcpu, report.cause), (0, CrashCause::Panicked));
    assert!(report.registers.is_some_and(|registers| registers.rip != 0));
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(rig.machine().end_signal().take(), None);
    rig.reset();
    rig.wait_for("panic-port: 7");
    assert!(
        matches!(end_of(&mut rig), GuestEnd::Crash(_)),
        "once a boot"
    );
}

#[test]
fn a_crash_kernel_is_told_of_once_and_by_whoever_has_the_machine_then() {
    let mut rig = Setup::new("mode=crash-kernel count=1000")
        .panic_port()
        .start();
    rig.wait_for("power off");
    assert_eq!(end_of(&mut rig), GuestEnd::PowerOff);
    assert!(rig.machine().take_crash_kernel());
    assert!(!rig.machine().take_crash_kernel());
}

#[test]
fn without_a_panic_port_nothing_is_there() {
    let mut rig = Setup::new("mode=panic count=10").start();
    rig.wait_for("panic-port: 255");
    rig.wait_for("error: a panicked guest runs on");
}

#[test]
fn a_machine_with_other_devices_of_the_platform_is_another() {
    let bare = Setup::new(mode::CLOCK);
    let refusal = |saved: &Setup, wanted: &Setup| {
        let mut rig = saved.clone().start();
        rig.wait_for("tick 1: ");
        let state = rig.save();
        match rig.build(wanted, &state, Origin::ThisBoot) {
            Ok(_) => panic!("{wanted:?} takes the state of {saved:?}"),
            Err(RestoreError::Container(error)) => error,
            Err(other) => panic!("{other}"),
        }
    };
    for (unit, with) in [
        ("pvpanic", bare.clone().panic_port()),
        ("watchdog", bare.clone().watchdog(WatchdogAction::Reset)),
        ("generation-id", bare.clone().generation_id(ID)),
    ] {
        let missing = ContainerError::Missing(unit.to_owned());
        assert_eq!(refusal(&bare, &with), missing);
        let left_over = ContainerError::LeftOver(unit.to_owned());
        assert_eq!(refusal(&with, &bare), left_over);
    }
}

#[test]
fn a_watchdog_is_no_device_that_can_be_detached() {
    let mut rig = Setup::new(mode::CLOCK)
        .watchdog(WatchdogAction::Reset)
        .start();
    let place = PciSlot::try_from(9).expect("a slot");
    assert_eq!(rig.machine().watchdog_place(), Some(place));
    assert!(rig.machine().detach(place, true).is_err());
}
