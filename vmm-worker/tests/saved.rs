//! Machines on the host's KVM that are saved, taken apart, built again from their records over the same
//! memory, and go on: busy ones, idle ones, and ones whose records somebody has been at.

#[path = "saved/harness.rs"]
mod harness;
#[path = "saved/platform.rs"]
mod platform;
#[path = "saved/steady.rs"]
mod steady;

use std::time::Duration;

use reeve_guest::mode;
use reeve_ipc::spec::{DeviceSpec, MachineType, PciSlot, RngSpec};
use reeve_sandbox::seccomp::{Role, enter_role};
use reeve_worker::state::{ContainerError, Origin, RestoreError, SaveError};

use self::harness::{Rig, Setup};

const TYPES: [MachineType; 2] = [MachineType::Reeve1_0, MachineType::ReeveLegacy1_0];

#[test]
fn busy_vcpus_go_on_through_twenty_saves_in_a_row() {
    for machine in TYPES {
        let mut rig = Setup::new(mode::STEADY).machine(machine).vcpus(4).start();
        rig.wait_for("Reeve built-in guest");
        steady::go_on(&mut rig, 20, Duration::from_millis(100), Origin::ThisBoot);
    }
}

#[test]
fn clocks_agree_on_a_host_that_shares_nothing_but_the_time_of_day() {
    for machine in TYPES {
        let mut rig = Setup::new(mode::STEADY).machine(machine).vcpus(4).start();
        rig.wait_for("Reeve built-in guest");
        steady::go_on(&mut rig, 5, Duration::from_millis(400), Origin::Elsewhere);
    }
}

#[test]
fn busy_vcpus_go_on_in_twenty_workers_in_a_row_with_the_same_console() {
    for machine in TYPES {
        let mut rig = Setup::new(mode::STEADY).machine(machine).vcpus(4).start();
        rig.wait_for("Reeve built-in guest");
        steady::go_over(&mut rig, 20);
    }
}

#[test]
fn a_machine_that_nobody_takes_goes_on_where_it_was() {
    let mut rig = Setup::new(mode::ECHO).start();
    rig.wait_for("echo: ready");
    rig.hand_over(false);
    rig.send(b"one\n");
    rig.wait_for("one");
    rig.hand_over(true);
    rig.send(b"two\n");
    rig.wait_for("two");
}

#[test]
fn an_idle_guest_ticks_on() {
    for machine in TYPES {
        let mut rig = Setup::new(mode::CLOCK).machine(machine).start();
        for number in 1..=4 {
            rig.wait_for(&format!("tick {number}: "));
            rig.hop(Origin::ThisBoot);
        }
        rig.wait_for("tick 5: ");
    }
}

#[test]
fn input_and_the_power_button_reach_a_restored_guest() {
    for machine in TYPES {
        let mut rig = Setup::new(mode::ECHO).machine(machine).start();
        rig.wait_for("echo: ready");
        rig.send(b"one\n");
        rig.wait_for("one");
        rig.hop(Origin::ThisBoot);
        // By an edge-triggered pin.
        rig.send(b"two\n");
        rig.wait_for("two");
        rig.hop(Origin::ThisBoot);
        // By a level-triggered one.
        rig.machine().press_power_button();
        rig.wait_for("power button");
        rig.wait_for_end();
    }
}

#[test]
fn a_button_pressed_while_the_guest_stands_is_among_the_records() {
    for machine in TYPES {
        let mut rig = Setup::new(mode::ECHO).machine(machine).start();
        rig.wait_for("echo: ready");
        rig.machine().pause().expect("stands");
        rig.machine().press_power_button();
        rig.hop(Origin::ThisBoot);
        rig.wait_for("power button");
        rig.wait_for_end();
    }
}

#[test]
fn an_end_of_interrupt_that_a_pause_cut_off_is_made_up_for() {
    let mut rig = Setup::new(mode::ECHO).start();
    rig.wait_for("echo: ready");
    // Pin 9, the system control interrupt, level-triggered: delivered, says the IOAPIC, and not ended;
    // but no local APIC holds it. So it is if the vCPU stood before KVM could tell of the end.
    const ENTRIES: usize = 6;
    const REMOTE_IRR: u8 = 1 << 6;
    rig.hop_changed(Origin::ThisBoot, |state| {
        let ioapic = harness::record(state, "ioapic");
        state[ioapic.start + ENTRIES + 9 * 8 + 1] |= REMOTE_IRR;
    });
    rig.machine().press_power_button();
    rig.wait_for("power button");
    rig.wait_for_end();
}

#[test]
fn the_filters_of_a_running_worker_let_it_be_saved() {
    for machine in TYPES {
        let mut rig = Setup::new(mode::CLOCK).machine(machine).vcpus(2).start();
        rig.wait_for("tick 1: ");
        let machine = rig.machine();
        // Not under the filter, which knows the worker by its number in its own namespace.
        machine.pause().expect("stands");
        let saved = std::thread::scope(|scope| {
            let control = scope.spawn(|| {
                enter_role(Role::Control).expect("a filter");
                let state = machine.save().expect("a state");
                machine.resume().expect("goes on");
                state
            });
            control.join().expect("its filter lets it")
        });
        assert!(!saved.is_empty());
        rig.wait_for("tick 3: ");
    }
}

#[test]
fn input_that_the_guest_has_not_had_yet_goes_with_it() {
    let mut rig = Setup::new(mode::ECHO).start();
    rig.wait_for("echo: ready");
    rig.machine().pause().expect("stands");
    // More than the serial port takes while nobody reads it.
    let sent: String = (0..200).map(|number| format!("{number};")).collect();
    rig.send(format!("{sent}\n").as_bytes());
    rig.wait_until_taken();
    rig.hop(Origin::ThisBoot);
    assert_eq!(rig.line(), sent);
}

#[test]
fn a_restored_machine_can_be_reset() {
    for machine in TYPES {
        let mut rig = Setup::new(mode::CLOCK).machine(machine).vcpus(2).start();
        rig.wait_for("tick 2: ");
        rig.hop(Origin::ThisBoot);
        rig.reset();
        rig.wait_for("Reeve built-in guest");
        rig.wait_for("tick 1: ");
        assert_eq!(rig.machine().resets(), 1);
        rig.hop(Origin::ThisBoot);
        assert_eq!(rig.machine().resets(), 1);
        rig.wait_for("tick 3: ");
    }
}

#[test]
fn a_saved_machine_goes_on_where_it_is_if_it_is_wanted_here() {
    let mut rig = Setup::new(mode::CLOCK).start();
    rig.wait_for("tick 1: ");
    rig.machine().pause().expect("stands");
    let first = rig.machine().save().expect("a state");
    let second = rig.machine().save().expect("the state again");
    assert_eq!(first.len(), second.len());
    rig.machine().resume().expect("goes on");
    rig.wait_for("tick 3: ");
}

#[test]
fn a_machine_whose_guest_has_ended_is_not_saved() {
    let mut rig = Setup::new(mode::BENCH).start();
    rig.wait_for("R");
    rig.wait_for_end();
    assert!(matches!(rig.machine().save(), Err(SaveError::Ended)));
}

#[test]
fn nothing_is_left_of_a_machine_that_was_taken_apart() {
    for machine in TYPES {
        let mut rig = Setup::new(mode::CLOCK).machine(machine).start();
        rig.wait_for("tick 1: ");
        rig.hop(Origin::ThisBoot);
        rig.wait_for("tick 2: ");
        let name = rig.name.clone();
        let mapped = || {
            let maps = std::fs::read_to_string("/proc/self/maps").expect("our maps");
            maps.lines().filter(|line| line.contains(&name)).count()
        };
        assert_eq!(mapped(), 1, "one of two machines is gone");
        rig.take_machine().close();
        assert_eq!(mapped(), 0);
    }
}

/// What comes of the records of one machine in the specification of another.
fn refusal(saved: &Setup, wanted: &Setup) -> RestoreError {
    let mut rig = saved.clone().start();
    rig.wait_for("tick 1: ");
    let state = rig.save();
    let error = match rig.build(wanted, &state, Origin::ThisBoot) {
        Ok(machine) => {
            machine.close();
            panic!("{wanted:?} takes the state of {saved:?}");
        }
        Err(error) => error,
    };
    // The machine that was saved is none the worse for it.
    rig.machine().resume().expect("goes on");
    rig.wait_for("tick 3: ");
    error
}

#[test]
fn a_state_fits_its_own_specification_only() {
    let one = Setup::new(mode::CLOCK).devices(Vec::new());
    let rng = |slot: u8| {
        DeviceSpec::Rng(RngSpec {
            slot: PciSlot::try_from(slot).expect("a slot"),
            rate: None,
        })
    };
    let mismatch = |wanted: &Setup| match refusal(&one, wanted) {
        RestoreError::Mismatch { what, .. } => what,
        other => panic!("{other}"),
    };
    assert_eq!(mismatch(&one.clone().vcpus(2)), "most vCPUs");
    assert_eq!(mismatch(&one.clone().memory(33 << 20)), "memory in bytes");

    let container = |saved: &Setup, wanted: &Setup| match refusal(saved, wanted) {
        RestoreError::Container(error) => error,
        other => panic!("{other}"),
    };
    let legacy = one.clone().machine(MachineType::ReeveLegacy1_0);
    assert!(matches!(
        container(&one, &legacy),
        ContainerError::MachineType { .. }
    ));
    let three = one.clone().devices(vec![rng(3)]);
    let four = one.clone().devices(vec![rng(4)]);
    let unit = |number| format!("entropy device/{number}");
    assert_eq!(container(&one, &three), ContainerError::Missing(unit(3)));
    assert_eq!(container(&three, &one), ContainerError::LeftOver(unit(3)));
    assert_eq!(container(&three, &four), ContainerError::Missing(unit(4)));
}

#[test]
fn records_that_somebody_changed_are_refused_or_run_and_nothing_hangs() {
    for machine in TYPES {
        let setup = Setup::new(mode::CLOCK).machine(machine).vcpus(2);
        let mut rig = setup.clone().start();
        rig.wait_for("tick 1: ");
        let state = rig.save();
        let (mut refused, mut taken) = (0, 0);
        for seed in 0..150 {
            let changed = harness::change_one_byte(&state, seed);
            match rig.build(&setup, &changed, Origin::Elsewhere) {
                Ok(mut built) => {
                    taken += 1;
                    built.resume().expect("goes on");
                    std::thread::sleep(Duration::from_millis(2));
                    built.pause().expect("stands");
                    built.close();
                }
                Err(error) => {
                    refused += 1;
                    assert!(!error.to_string().is_empty());
                }
            }
        }
        assert!(refused > 0 && taken > 0, "{refused} refused, {taken} taken");
    }
}

#[test]
fn a_state_without_its_end_or_with_more_is_refused() {
    let setup = Setup::new(mode::CLOCK);
    let mut rig: Rig = setup.clone().start();
    rig.wait_for("tick 1: ");
    let state = rig.save();
    for bytes in [&state[..state.len() - 1], &[&state[..], &[0]].concat()] {
        let refused = rig.build(&setup, bytes, Origin::ThisBoot);
        assert!(matches!(
            refused,
            Err(RestoreError::Container(ContainerError::Checksum))
        ));
        let sealed = harness::seal_again(bytes);
        let refused = rig.build(&setup, &sealed, Origin::ThisBoot);
        assert!(matches!(
            refused,
            Err(RestoreError::Container(ContainerError::Malformed(_)))
        ));
    }
}

#[test]
fn vcpus_that_came_are_there_after_a_reset_and_in_another_machine() {
    for machine in TYPES {
        let setup = Setup::new(mode::CLOCK).machine(machine).max_vcpus(4);
        let mut rig = setup.start();
        rig.wait_for("tick 1: ");
        let refused = rig.machine().set_vcpus(5).expect_err("no place");
        assert!(refused.message.contains("1 to 4"), "{refused}");
        rig.machine().set_vcpus(0).expect_err("none");
        rig.machine().set_vcpus(3).expect("brought");
        let standing = rig.machine().settle_vcpus().0.expect("news");
        assert_eq!(standing.present, (0..3).collect());
        assert_eq!((standing.new, standing.wanted), ((1..3).collect(), 3));
        assert!(standing.is_possible(4));
        assert_eq!(rig.machine().settle_vcpus(), (None, None));
        // The guest has no driver that would let go: it is asked, and asked no more.
        rig.machine().set_vcpus(2).expect("asked");
        let standing = rig.machine().vcpus();
        assert_eq!(standing.present, (0..3).collect());
        assert_eq!(standing.leaving, [2].into_iter().collect());
        rig.hop(Origin::ThisBoot);
        assert_eq!(rig.machine().vcpus(), standing);
        rig.wait_for("tick 2: ");
        rig.machine().set_vcpus(4).expect("brought");
        let standing = rig.machine().vcpus();
        assert_eq!(standing.present, (0..4).collect());
        assert_eq!(standing.leaving.count(), 0);
        rig.hop(Origin::Elsewhere);
        rig.reset();
        rig.wait_for("tick 1: ");
        let standing = rig.machine().vcpus();
        assert_eq!(standing.present, (0..4).collect(), "a reset keeps them");
        assert_eq!(standing.new.count(), 0, "the guest finds them itself");
    }
}

#[test]
fn vcpus_that_go_at_a_reset_come_again_as_often_as_they_like() {
    for machine in TYPES {
        let mut rig = Setup::new(mode::CLOCK)
            .machine(machine)
            .max_vcpus(3)
            .start();
        rig.wait_for("tick 1: ");
        for _ in 0..10 {
            rig.machine().set_vcpus(3).expect("brought");
            rig.machine().set_vcpus(1).expect("asked");
            assert_eq!(rig.machine().vcpus().leaving, (1..3).collect());
            rig.reset();
            let standing = rig.machine().vcpus();
            assert_eq!(standing.present, [0].into_iter().collect());
            assert_eq!(standing.leaving.count(), 0);
        }
        // All of them run: the guest starts each that its tables tell of.
        rig.machine().set_vcpus(3).expect("brought");
        rig.reset();
        rig.wait_for("tick 1: ");
    }
}

#[test]
fn a_machine_that_can_have_more_vcpus_is_another() {
    let mut rig = Setup::new(mode::CLOCK).max_vcpus(2).start();
    rig.wait_for("tick 1: ");
    let state = rig.save();
    let other = Setup::new(mode::CLOCK).max_vcpus(3);
    let error = rig
        .build(&other, &state, Origin::ThisBoot)
        .expect_err("another");
    assert!(
        matches!(
            error,
            RestoreError::Mismatch {
                what: "most vCPUs",
                ..
            }
        ),
        "{error}"
    );
}
