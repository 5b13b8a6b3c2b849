//! A machine on the host's KVM whose guest resets itself, or that is to be handed over, while the storage of
//! one of its disks stalls.

#[path = "../../tests/saved/harness.rs"]
#[expect(dead_code, reason = "shared with the tests of saved machines")]
mod harness;

use std::time::Instant;

use std::os::fd::AsFd;

use reeve_devices::memory::GuestRam;
use reeve_guest::mode;
use reeve_ipc::event::CrashReport;
use reeve_ipc::fd::FdSlot;
use reeve_ipc::request::{DeviceDetach, HandOver, Pause, Reset, Resume, WorkerService};
use reeve_ipc::scm;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use self::harness::{Rig, Setup};
use super::*;
use crate::device_set::slow::{self, Gate};

const SLOT: u8 = 9;
/// Where the driver of the disk has its rings: nothing else is there.
const RINGS: u64 = 24 << 20;

/// A machine that runs, with a disk that is used, as a worker has it.
fn running() -> (Service, Rig, Arc<Gate>) {
    let mut rig = Setup::new(mode::CLOCK).start();
    rig.wait_for("tick 1: ");
    let mut machine = rig.take_machine();
    let ram = GuestRam::new(machine.memory().map_ref().clone());
    let (disk, gate) = slow::in_use(SLOT, ram, RINGS);
    machine.plugging().devices.insert(disk).unwrap();
    let mut service = Service::new(Dropped::default());
    service.policy.on_reset = ResetAction::Reset;
    service.phase = Phase::Running;
    service.machine = Some(machine);
    (service, rig, gate)
}

/// Does what the control thread does when it is told something, until `done`.
fn serve(service: &mut Service, mut done: impl FnMut(&mut Service) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let later = service.take_notices().later;
        if done(service) {
            return;
        }
        let notices = service.notices().unwrap();
        let mut fds = [PollFd::from_borrowed_fd(notices.as_fd(), PollFlags::IN)];
        let patience = later.unwrap_or(Duration::from_secs(20));
        let timeout = Timespec {
            tv_sec: patience.as_secs().try_into().unwrap(),
            tv_nsec: patience.subsec_nanos().into(),
        };
        poll(&mut fds, Some(&timeout)).unwrap();
        assert!(Instant::now() < deadline, "it does not happen");
    }
}

#[test]
fn a_guest_that_resets_itself_while_its_storage_stalls_goes_on_when_that_has_finished() {
    let (mut service, mut rig, gate) = running();
    service.settle(&GuestEnd::Reset).unwrap();
    assert!(!service.reset_guest().unwrap(), "the disk has not finished");
    assert_eq!((service.phase_now(), service.resets()), (Phase::Running, 0));
    // Nothing runs before it is reset, whoever wants it.
    let refused = service.machine().unwrap().resume().unwrap_err();
    assert!(matches!(refused, MachineError::Resetting), "{refused}");
    let saved = service.machine().unwrap().save();
    assert!(saved.is_err(), "half a machine is not saved");
    service.pause(Pause {}).unwrap();
    service.resume(Resume {}).unwrap();
    assert_eq!(service.phase_now(), Phase::Running);
    assert!(!service.reset_guest().unwrap());
    gate.open();
    serve(&mut service, |service| service.reset_guest().unwrap());
    assert_eq!((service.phase_now(), service.resets()), (Phase::Running, 1));
    rig.wait_for("tick 1: ");
    assert!(!service.reset_guest().unwrap(), "once");
    service.close();
}

#[test]
fn a_machine_that_was_paused_while_its_reset_waited_stays_so() {
    let (mut service, mut rig, gate) = running();
    service.settle(&GuestEnd::Reset).unwrap();
    assert!(!service.reset_guest().unwrap());
    service.pause(Pause {}).unwrap();
    gate.open();
    serve(&mut service, |service| service.reset_guest().unwrap());
    assert_eq!((service.phase_now(), service.resets()), (Phase::Paused, 1));
    service.resume(Resume {}).unwrap();
    rig.wait_for("tick 1: ");
    service.close();
}

#[test]
fn a_disk_that_is_taken_by_force_while_its_storage_stalls_is_told_of_when_it_is_gone() {
    let (mut service, mut rig, gate) = running();
    let slot = PciSlot::try_from(SLOT).unwrap();
    let request = DeviceDetach { slot, force: true };
    let refused = service.device_detach(request).unwrap_err();
    assert_eq!(refused.code, ErrorCode::Timeout);
    rig.wait_for("tick ");
    gate.open();
    serve(&mut service, |service| !service.removed.is_empty());
    assert_eq!(service.removed, [slot]);
    service.close();
}

#[test]
fn a_crash_is_kept_and_nothing_is_reset() {
    let (mut service, _rig, gate) = running();
    gate.open();
    let crash = CrashReport {
        vcpu: 0,
        cause: reeve_ipc::event::CrashCause::TripleFault,
        registers: None,
    };
    service.settle(&GuestEnd::Crash(crash)).unwrap();
    assert_eq!(service.phase_now(), Phase::Crashed);
    assert!(!service.reset_guest().unwrap());
    service.close();
}

/// Asks for the machine to be given to a worker that never gets it.
fn refuse_hand_over(service: &mut Service) -> WireError {
    let (give, _take) = scm::pair().unwrap();
    let mut descriptors = FdTable::new();
    let to = descriptors.push(give).unwrap();
    assert_eq!(to, FdSlot(0));
    service.take_descriptors(&mut descriptors);
    service.hand_over(HandOver { to }).unwrap_err()
}

#[test]
fn a_machine_that_is_not_handed_over_while_its_storage_stalls_goes_on_when_that_has_finished() {
    let (mut service, mut rig, gate) = running();
    let refused = refuse_hand_over(&mut service);
    assert_eq!(refused.code, ErrorCode::Timeout);
    assert!(refused.message.contains("goes on when it has"), "{refused}");
    assert_eq!(service.phase_now(), Phase::Running);
    assert!(!service.go_on_here().unwrap(), "the disk has not finished");
    // Nor does it run before that, whoever wants it.
    service.pause(Pause {}).unwrap();
    service.resume(Resume {}).unwrap();
    assert_eq!(service.phase_now(), Phase::Running);
    rig.read_all();
    rig.unread.clear();
    gate.open();
    serve(&mut service, |service| service.go_on_here().unwrap());
    rig.wait_for("tick ");
    assert!(!service.go_on_here().unwrap(), "once");
    service.close();
}

#[test]
fn a_machine_that_is_handed_over_at_the_second_attempt_does_not_go_on_here() {
    let (mut service, mut rig, gate) = running();
    refuse_hand_over(&mut service);
    assert!(service.go_on_waits);
    gate.open();
    // Its disk finishes meanwhile, and nobody has looked.
    let begin = Instant::now();
    let take = loop {
        let (give, take) = scm::pair().unwrap();
        let mut descriptors = FdTable::new();
        let to = descriptors.push(give).unwrap();
        service.take_descriptors(&mut descriptors);
        match service.hand_over(HandOver { to }) {
            Ok(()) => break take,
            Err(error) => assert!(begin.elapsed().as_secs() < 10, "{error}"),
        }
    };
    rig.read_all();
    rig.unread.clear();
    assert!(!service.go_on_here().unwrap(), "it is on its way");
    assert!(!service.go_on_waits);
    std::thread::sleep(Duration::from_millis(300));
    rig.read_all();
    assert!(rig.unread.is_empty(), "nobody runs it");
    // Until it is not taken.
    drop(take);
    serve(&mut service, |service| {
        assert_eq!(service.turn_of_giving().unwrap(), None);
        service.giving().is_none()
    });
    rig.wait_for("tick ");
    service.close();
}

#[test]
fn a_watchdog_s_pause_waits_for_a_vcpu_that_does_not_stop() {
    let (mut service, mut rig, gate) = running();
    gate.open();
    let serial = Arc::clone(&service.machine().unwrap().chipset().serial);
    let stuck = |service: &mut Service| {
        // The vCPU comes to its serial port sooner or later, and stands there: where it had not come yet it is
        // let on.
        let mut wait = Duration::from_millis(100);
        let held = loop {
            let held = reeve_devices::shared::lock(&serial);
            std::thread::sleep(wait);
            service.act_on_watchdog(WatchdogAction::Pause).unwrap();
            if service.phase_now() == Phase::Running {
                break held;
            }
            drop(held);
            service.resume(Resume {}).unwrap();
            wait *= 2;
            assert!(wait.as_secs() < 60, "it does not come there");
        };
        assert!(!service.pause_at_last().unwrap());
        let later = service.take_notices().later;
        assert!(later.is_some_and(|later| later <= PAUSE_PATIENCE));
        drop(held);
    };
    stuck(&mut service);
    serve(&mut service, |service| service.pause_at_last().unwrap());
    assert_eq!(service.phase_now(), Phase::Paused);
    assert!(!service.pause_at_last().unwrap(), "once");
    rig.read_all();
    rig.unread.clear();
    service.resume(Resume {}).unwrap();
    rig.wait_for("tick ");
    // Whoever has it go on before it stands is obeyed.
    stuck(&mut service);
    service.resume(Resume {}).unwrap();
    assert!(!service.pause_at_last().unwrap());
    rig.read_all();
    rig.unread.clear();
    rig.wait_for("tick ");
    assert_eq!(service.phase_now(), Phase::Running);
    service.close();
}

#[test]
fn a_machine_that_was_paused_while_it_waited_to_go_on_stays_so() {
    let (mut service, mut rig, gate) = running();
    refuse_hand_over(&mut service);
    service.pause(Pause {}).unwrap();
    gate.open();
    serve(&mut service, |service| service.go_on_here().unwrap());
    assert_eq!(service.phase_now(), Phase::Paused);
    rig.read_all();
    rig.unread.clear();
    service.resume(Resume {}).unwrap();
    rig.wait_for("tick ");
    service.close();
}

#[test]
fn a_machine_that_is_reset_while_it_waits_to_go_on_goes_on_by_that() {
    let (mut service, mut rig, gate) = running();
    refuse_hand_over(&mut service);
    let waits = service.reset(Reset {}).unwrap_err();
    assert_eq!(waits.code, ErrorCode::Timeout);
    gate.open();
    serve(&mut service, |service| {
        assert!(!service.go_on_here().unwrap(), "half of it is reset");
        service.reset_guest().unwrap()
    });
    assert_eq!((service.phase_now(), service.resets()), (Phase::Running, 1));
    assert!(!service.go_on_here().unwrap());
    rig.wait_for("tick 1: ");
    service.close();
}
