//! vCPUs that come and go: how many there are is the worker's to say, whenever it does.

use reeve_ipc::vcpus::VcpuStanding;

use super::devices::running;
use super::*;
use crate::domain::driver::{CallFailure, DeviceCall};

pub(super) fn set(vcpus: u32, live: bool, persistent: bool) -> Request {
    Request::SetVcpus {
        vcpus: Vcpus::try_from(vcpus).unwrap(),
        live,
        persistent,
    }
}

/// So many are there, of as many as were asked for last.
pub(super) fn stands(vcpus: u32, wanted: u32) -> Notice {
    Notice::Vcpus(VcpuStanding {
        present: (0..vcpus).collect(),
        leaving: (wanted..vcpus).collect(),
        new: (1..vcpus).collect(),
        wanted,
    })
}

/// So many are there, and the guest does not let go of any.
fn refused(vcpus: u32, wanted: u32) -> Notice {
    Notice::Vcpus(VcpuStanding {
        present: (0..vcpus).collect(),
        wanted,
        ..VcpuStanding::default()
    })
}

fn asked(effects: &[Effect]) -> (u64, u32) {
    let asked = effects.iter().find_map(|effect| match effect {
        Effect::Device(serial, _, DeviceCall::Vcpus { count, .. }) => Some((*serial, *count)),
        _ => None,
    });
    asked.unwrap_or_else(|| panic!("no vCPUs are asked for: {effects:?}"))
}

fn told(effects: &[Effect], vcpus: u32) -> bool {
    let event = Effect::Event(EventKind::VcpusChanged { vcpus });
    let noted = effects.iter().any(|effect| {
        matches!(effect, Effect::WriteStatus(None, _, record) if record.definition.vcpus.count() == vcpus)
    });
    effects.contains(&event) && noted
}

impl Fed {
    fn vcpus(&self, persistent: bool) -> u32 {
        self.actor.definition(persistent).unwrap().vcpus.count()
    }
}

#[test]
fn vcpus_that_come_are_noted_when_the_worker_says_so() {
    for early in [true, false] {
        let mut fed = running();
        let effects = fed.ask(set(3, true, false));
        let (serial, count) = asked(&effects);
        assert_eq!(count, 3);
        assert_eq!(answer(&effects), None);
        let last = if early {
            assert!(told(&fed.notice(stands(3, 3)), 3));
            fed.called(serial, Ok(()))
        } else {
            assert_eq!(answer(&fed.called(serial, Ok(()))), None);
            let effects = fed.notice(stands(3, 3));
            assert!(told(&effects, 3));
            effects
        };
        assert_eq!(answer(&last), Some(Ok(())));
        assert_eq!((fed.vcpus(false), fed.vcpus(true)), (3, 1));
        assert_eq!(fed.notice(stands(3, 3)), [], "that is no news");
    }
}

#[test]
fn a_guest_lets_go_of_vcpus_one_by_one_or_late() {
    let mut fed = running();
    fed.notice(stands(4, 4));
    let (serial, _) = asked(&fed.ask(set(2, true, false)));
    fed.called(serial, Ok(()));
    assert_eq!(answer(&fed.notice(stands(4, 2))), None);
    let effects = fed.notice(stands(3, 2));
    assert!(told(&effects, 3) && answer(&effects).is_none());
    let effects = fed.notice(stands(2, 2));
    assert!(told(&effects, 2));
    assert_eq!(answer(&effects), Some(Ok(())));

    let (serial, _) = asked(&fed.ask(set(1, true, false)));
    let effects = fed.called(serial, Ok(()));
    let timer = Timer::DetachDeadline(serial);
    assert!(effects.contains(&Effect::SetTimer(timer, DETACH_MS)));
    let effects = fed.feed(Input::Timer(timer));
    assert_eq!(answer(&effects), Some(Err(ApiErrorCode::Timeout)));
    assert_eq!(fed.vcpus(false), 2);
    assert!(told(&fed.notice(stands(1, 1)), 1));
    assert_eq!(fed.vcpus(false), 1);
    assert_eq!(fed.feed(Input::Timer(timer)), []);
}

#[test]
fn a_guest_that_refuses_is_reported_at_once_and_what_came_before_is_not() {
    let mut fed = running();
    fed.notice(stands(3, 3));
    let (serial, _) = asked(&fed.ask(set(1, true, false)));
    fed.called(serial, Ok(()));
    assert_eq!(answer(&fed.notice(refused(3, 3))), None, "an older notice");
    let effects = fed.notice(refused(3, 1));
    assert_eq!(answer(&effects), Some(Err(ApiErrorCode::Worker)));
    let Some(Effect::Answer(_, Err(error))) = effects.first() else {
        panic!("{effects:?}");
    };
    assert!(error.message.contains("3 vCPUs and not 1"), "{error}");
    assert_eq!(fed.vcpus(false), 3);
}

#[test]
fn more_vcpus_than_there_can_be_are_refused_and_never_believed() {
    let mut fed = running();
    for (live, persistent) in [(true, false), (false, true), (true, true)] {
        let effects = fed.ask(set(5, live, persistent));
        assert_eq!(answer(&effects), Some(Err(ApiErrorCode::InvalidArgument)));
    }
    fed.notice(stands(9, 9));
    assert_eq!(fed.vcpus(false), 4);
}

#[test]
fn the_kept_definition_is_changed_behind_the_machine_which_is_changed_back_where_that_fails() {
    let mut fed = running();
    let effects = fed.ask(set(2, true, true));
    let (serial, _) = asked(&effects);
    fed.called(serial, Ok(()));
    let effects = fed.notice(stands(2, 2));
    let record = effects.iter().find_map(|effect| match effect {
        Effect::WriteRecord(serial, record) => Some((*serial, record.domain.vcpus.count())),
        _ => None,
    });
    let (serial, vcpus) = record.expect("the record is written");
    assert_eq!(vcpus, 2);
    let full = Done::Written(Err("no space left".to_owned()));
    let effects = fed.feed(Input::Done(serial, full));
    assert_eq!(answer(&effects), Some(Err(ApiErrorCode::Storage)));
    assert_eq!(asked(&effects).1, 1, "as before");
    fed.notice(stands(1, 1));
    assert_eq!((fed.vcpus(false), fed.vcpus(true)), (1, 1));

    let effects = fed.ask(set(3, false, true));
    let effects = fed.written(effects);
    assert_eq!(answer(&effects), Some(Ok(())));
    assert_eq!((fed.vcpus(false), fed.vcpus(true)), (1, 3));
}

#[test]
fn a_call_that_fails_or_a_guest_that_ends_leaves_what_the_worker_says() {
    let mut fed = running();
    let (serial, _) = asked(&fed.ask(set(3, true, false)));
    let no = CallFailure::Refused("no thread is left".to_owned());
    let effects = fed.called(serial, Err(no));
    assert_eq!(answer(&effects), Some(Err(ApiErrorCode::Worker)));
    assert_eq!(fed.vcpus(false), 1);
    let (serial, _) = asked(&fed.ask(set(3, true, false)));
    fed.called(serial, Err(CallFailure::Deadline));
    fed.notice(stands(3, 3));
    assert_eq!(fed.vcpus(false), 3, "it obeyed late");
    let (serial, _) = asked(&fed.ask(set(1, true, false)));
    fed.called(serial, Ok(()));
    let effects = fed.notice(ended(GuestEnd::PoweredOff));
    assert_eq!(answer(&effects), Some(Err(ApiErrorCode::WrongState)));
}
