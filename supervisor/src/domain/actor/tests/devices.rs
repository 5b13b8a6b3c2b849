//! Devices that come, go and change: what is noted before the worker is asked, what is taken back, and
//! what a guest that lets go early, late or never means.

use reeve_ipc::model::{Device, DevicePlace, PluggableMemory, Rng};
use reeve_ipc::spec::PciSlot;

use super::*;
use crate::domain::driver::{CallFailure, DeviceCall, GuestMemory};

pub(super) fn attach(target: &str, live: bool, persistent: bool) -> Request {
    let disk = Disk::new(target.parse().unwrap(), None);
    Request::Attach {
        device: Box::new(Device::Disk(disk)),
        live,
        persistent,
    }
}

pub(super) fn detach(device: &str, force: bool) -> Request {
    Request::Detach {
        device: device.parse().unwrap(),
        force,
        live: true,
        persistent: false,
    }
}

pub(super) fn slot(number: u8) -> PciSlot {
    number.try_into().unwrap()
}

pub(super) fn at(number: u8) -> DevicePlace {
    slot(number).into()
}

/// The serial of what is asked of a device, and what.
pub(super) fn asked(effects: &[Effect]) -> (u64, DeviceCall) {
    let asked = effects.iter().find_map(|effect| match effect {
        Effect::Device(serial, _, call) => Some((*serial, call.clone())),
        _ => None,
    });
    asked.unwrap_or_else(|| panic!("no device is asked for: {effects:?}"))
}

/// By which number the worker is asked where it has devices.
pub(super) fn listed(effects: &[Effect]) -> u64 {
    let listed = effects.iter().find_map(|effect| match effect {
        Effect::AskDevices(number, _) => Some(*number),
        _ => None,
    });
    listed.unwrap_or_else(|| panic!("the devices are not asked for: {effects:?}"))
}

fn responsive() -> Notice {
    Notice::Responsive {
        phase: Phase::Running,
        resets: 0,
        end: None,
    }
}

pub(super) fn told(effects: &[Effect], event: &EventKind) -> bool {
    effects
        .iter()
        .any(|effect| matches!(effect, Effect::Event(kind) if kind == event))
}

fn removed(effects: &[Effect], device: &str, number: u8) -> bool {
    let (device, slot) = (device.parse().unwrap(), slot(number));
    let event = EventKind::DeviceRemoved { device, slot };
    told(effects, &event)
        && effects
            .iter()
            .any(|effect| matches!(effect, Effect::Release(_, at) if *at == slot.into()))
}

impl Fed {
    /// Asks, and lets what is written succeed; the effects after that.
    pub(super) fn ask_written(&mut self, request: Request) -> Vec<Effect> {
        let effects = self.ask(request);
        self.written(effects)
    }

    pub(super) fn written(&mut self, effects: Vec<Effect>) -> Vec<Effect> {
        let serial = writes(&effects);
        let mut all = effects;
        all.extend(self.feed(Input::Done(serial, Done::Written(Ok(())))));
        all
    }

    pub(super) fn called(&mut self, serial: u64, result: Result<(), CallFailure>) -> Vec<Effect> {
        self.feed(Input::Done(serial, Done::Called(result)))
    }

    pub(super) fn live_has(&self, device: &str) -> bool {
        let devices = &self.actor.definition(false).unwrap().devices;
        devices.find(&device.parse().unwrap()).is_some()
    }

    pub(super) fn kept_has(&self, device: &str) -> bool {
        let devices = &self.actor.definition(true).unwrap().devices;
        devices.find(&device.parse().unwrap()).is_some()
    }
}

pub(super) fn noted_has(effects: &[Effect], device: &str) -> bool {
    let devices = &noted(effects).expect("a status").definition.devices;
    devices.find(&device.parse().unwrap()).is_some()
}

pub(super) fn running() -> Fed {
    Fed::running(LifecycleAction::default())
}

#[test]
fn a_device_is_noted_before_the_worker_is_asked_and_told_when_it_is_there() {
    let mut fed = running();
    let effects = fed.ask(attach("vdb", true, true));
    assert!(noted_has(&effects, "vdb"), "{effects:?}");
    let effects = fed.written(effects);
    let (serial, call) = asked(&effects);
    let DeviceCall::Attach { domain, place } = call else {
        panic!("{call:?}");
    };
    assert_eq!(place, at(3), "the first that is free");
    assert!(domain.devices.find(&"vdb".parse().unwrap()).is_some());
    let effects = fed.called(serial, Ok(()));
    let (device, slot) = ("vdb".parse().unwrap(), place.slot);
    assert!(told(&effects, &EventKind::DeviceAdded { device, slot }));
    let effects = fed.written(effects);
    assert_eq!(answer(&effects), Some(Ok(())));
    assert!(fed.live_has("vdb") && fed.kept_has("vdb") && fed.kept_has("3"));
}

#[test]
fn a_kept_definition_gets_a_device_without_a_machine() {
    let mut fed = running();
    let effects = fed.ask(attach("vdb", false, true));
    let effects = fed.written(effects);
    assert_eq!(answer(&effects), Some(Ok(())));
    assert!(!fed.live_has("vdb") && fed.kept_has("vdb"));
    // Its place is taken there only: what comes next has one place in each.
    let effects = fed.ask(attach("vdc", true, true));
    let effects = fed.through(effects);
    assert_eq!(answer(&effects), Some(Ok(())));
    assert!(fed.live_has("3") && fed.kept_has("4"));
}

#[test]
fn what_cannot_be_attached_is_refused_before_anything_is_done() {
    let mut fed = running();
    let mut refusals = vec![(attach("vda", true, false), ApiErrorCode::InvalidArgument)];
    let balloon = Request::Attach {
        device: Box::new(Device::Balloon(Balloon::default())),
        live: true,
        persistent: false,
    };
    refusals.push((balloon, ApiErrorCode::InvalidArgument));
    let rng = Rng {
        rate: None,
        address: Some(slot(1)),
    };
    let taken = Request::Attach {
        device: Box::new(Device::Rng(rng)),
        live: true,
        persistent: false,
    };
    refusals.push((taken, ApiErrorCode::InvalidArgument));
    refusals.push((detach("vdz", true), ApiErrorCode::NoDevice));
    let link = Request::Update {
        device: "vda".parse().unwrap(),
        change: DeviceChange::Link { up: true },
        live: true,
        persistent: false,
    };
    refusals.push((link, ApiErrorCode::InvalidArgument));
    let kept = Request::Update {
        device: DeviceName::Balloon,
        change: DeviceChange::BalloonPoll,
        live: false,
        persistent: true,
    };
    refusals.push((kept, ApiErrorCode::InvalidArgument));
    let too_much = set_memory(65);
    refusals.push((too_much, ApiErrorCode::InvalidArgument));
    for (request, code) in refusals {
        let effects = fed.ask(request.clone());
        assert_eq!(answer(&effects), Some(Err(code)), "{request:?}");
        assert_eq!(effects.len(), 1, "{effects:?}");
    }
}

#[test]
fn a_bus_that_is_full_takes_no_more() {
    let mut fed = running();
    for _ in 0..29 {
        let mut disks = (1..).map(|place| reeve_ipc::model::DiskTarget::at(place).unwrap());
        let free = disks.find(|target| !fed.live_has(target.as_str())).unwrap();
        let effects = fed.ask(attach(free.as_str(), true, false));
        assert_eq!(answer(&fed.through(effects)), Some(Ok(())));
    }
    let effects = fed.ask(attach("vdzz", true, false));
    assert_eq!(answer(&effects), Some(Err(ApiErrorCode::InvalidArgument)));
}

#[test]
fn a_device_that_could_not_be_made_is_taken_back() {
    for failure in [
        CallFailure::Refused("no".to_owned()),
        CallFailure::Busy,
        CallFailure::Gone,
    ] {
        let mut fed = running();
        let effects = fed.ask_written(attach("vdb", true, true));
        let effects = fed.called(asked(&effects).0, Err(failure));
        assert!(matches!(answer(&effects), Some(Err(_))));
        assert!(!noted_has(&effects, "vdb"));
        assert!(!fed.live_has("vdb") && !fed.kept_has("vdb"));
    }
}

#[test]
fn a_device_of_a_worker_that_did_not_answer_is_known_when_it_does() {
    for arrived in [true, false] {
        let mut fed = running();
        let effects = fed.ask_written(attach("vdb", true, false));
        let effects = fed.called(asked(&effects).0, Err(CallFailure::Deadline));
        assert_eq!(answer(&effects), Some(Err(ApiErrorCode::Timeout)));
        assert!(fed.live_has("vdb"), "it may come yet");
        let mut there = vec![at(1), at(2)];
        there.extend(arrived.then(|| at(3)));
        let effects = fed.notice(responsive());
        let effects = fed.notice(Notice::Devices(listed(&effects), there));
        assert_eq!(removed(&effects, "vdb", 3), !arrived);
        assert_eq!(fed.live_has("vdb"), arrived);
    }
}

#[test]
fn a_device_that_never_came_is_found_out_while_another_is_being_made() {
    let mut fed = running();
    let effects = fed.ask_written(attach("vdb", true, false));
    fed.called(asked(&effects).0, Err(CallFailure::Deadline));
    let effects = fed.ask_written(attach("vdc", true, false));
    let (serial, _) = asked(&effects);
    let effects = fed.notice(responsive());
    let there = vec![at(1), at(2)];
    let effects = fed.notice(Notice::Devices(listed(&effects), there));
    assert!(removed(&effects, "vdb", 3));
    assert!(!fed.live_has("vdb") && fed.live_has("vdc"));
    let effects = fed.called(serial, Ok(()));
    assert_eq!(answer(&effects), Some(Ok(())));
    assert!(fed.live_has("vdc"));
}

#[test]
fn an_answer_from_before_a_device_was_there_takes_it_from_nobody() {
    let mut fed = running();
    let effects = fed.notice(responsive());
    let first = listed(&effects);
    // The worker answers that, then makes a device, whose outcome overtakes the answer.
    let effects = fed.ask_written(attach("vdb", true, false));
    fed.called(asked(&effects).0, Ok(()));
    let effects = fed.notice(Notice::Devices(first, vec![at(1), at(2)]));
    assert!(fed.live_has("vdb"));
    let again = listed(&effects);
    let effects = fed.notice(Notice::Devices(again, vec![at(1), at(3)]));
    assert!(removed(&effects, "balloon", 2), "{effects:?}");
    assert!(fed.live_has("vdb"));
    // One that nobody asked for means nothing.
    assert_eq!(fed.notice(Notice::Devices(again, Vec::new())), []);
    assert!(fed.live_has("vdb"));
}

#[test]
fn what_nobody_has_heard_of_is_made_up_for() {
    let mut fed = running();
    let effects = fed.notice(Notice::Lost);
    let first = listed(&effects);
    // Lost again before there was an answer: that may be too old.
    assert_eq!(fed.notice(Notice::Lost), []);
    let effects = fed.notice(Notice::Devices(first, vec![at(1), at(2)]));
    let effects = fed.notice(Notice::Devices(listed(&effects), vec![at(2)]));
    assert!(removed(&effects, "vda", 1));
    // Another worker does not know what the one before was about to tell.
    let effects = fed.ask(Request::Upgrade);
    let serial = effects.iter().find_map(|effect| match effect {
        Effect::HandOver(serial, ..) => Some(*serial),
        _ => None,
    });
    let effects = fed.called(serial.unwrap(), Ok(()));
    let effects = fed.notice(Notice::Devices(listed(&effects), Vec::new()));
    assert!(removed(&effects, "balloon", 2));
}

#[test]
fn a_device_whose_going_nobody_heard_of_is_detached_when_its_time_is_over() {
    let mut fed = running();
    let effects = fed.ask(detach("vda", false));
    let (serial, _) = asked(&effects);
    fed.called(serial, Ok(()));
    let effects = fed.feed(Input::Timer(Timer::DetachDeadline(serial)));
    let effects = fed.notice(Notice::Devices(listed(&effects), vec![at(2)]));
    assert!(removed(&effects, "vda", 1));
    assert_eq!(answer(&effects), Some(Ok(())));
}

#[test]
fn what_is_kept_is_without_a_device_whatever_becomes_of_it_in_the_machine() {
    let both = || Request::Detach {
        device: "vda".parse().unwrap(),
        force: false,
        live: true,
        persistent: true,
    };
    let mut fed = running();
    let effects = fed.ask_written(both());
    let (serial, _) = asked(&effects);
    fed.called(serial, Ok(()));
    fed.feed(Input::Timer(Timer::DetachDeadline(serial)));
    let effects = fed.feed(Input::Timer(Timer::DetachUnchecked(serial)));
    let Some(Effect::Answer(_, Err(error))) = effects.first() else {
        panic!("{effects:?}");
    };
    assert!(error.message.contains("kept of the domain"), "{error}");
    assert!(fed.live_has("vda") && !fed.kept_has("vda"));

    let ends = [
        ended(GuestEnd::PoweredOff),
        Notice::Gone(crate::domain::driver::Verdict::Failed("it died".to_owned())),
    ];
    for end in ends {
        let mut fed = running();
        fed.ask_written(both());
        let effects = fed.notice(end);
        assert!(matches!(answer(&effects), Some(Err(_))), "{effects:?}");
        assert!(!fed.kept_has("vda"));
    }
    let mut fed = running();
    fed.ask_written(both());
    fed.ask(Request::Destroy);
    assert!(!fed.kept_has("vda"));
    // What cannot be written is not taken from the machine either.
    let mut fed = running();
    let effects = fed.ask(both());
    let full = Done::Written(Err("no space left".to_owned()));
    let effects = fed.feed(Input::Done(writes(&effects), full));
    assert_eq!(answer(&effects), Some(Err(ApiErrorCode::Storage)));
    assert!(fed.live_has("vda") && fed.kept_has("vda"));
}

#[test]
fn a_definition_written_by_hand_without_places_takes_a_device() {
    let mut domain = domain();
    domain.devices = Devices {
        disks: vec![Disk::new("vda".parse().unwrap(), None)],
        balloon: Some(Balloon::default()),
        ..Devices::default()
    };
    let record = DomainDefinition {
        domain: domain.clone(),
        autostart: None,
    };
    let ids = Arc::new(AtomicU32::new(1));
    let mut fed = Fed::with(DomainActor::recovered(domain.uuid, Some(record), None, ids));
    let effects = fed.ask_written(attach("vdb", false, true));
    assert_eq!(answer(&effects), Some(Ok(())));
    let devices = &fed.actor.definition(true).unwrap().devices;
    let at = |name: &str| devices.find(&name.parse().unwrap()).map(|(slot, _)| slot);
    assert_eq!(at("vda"), Some(slot(1)));
    assert_eq!(at("vdb"), Some(slot(3)));
}

#[test]
fn a_definition_that_cannot_be_written_costs_the_device() {
    let mut fed = running();
    let effects = fed.ask_written(attach("vdb", true, true));
    let effects = fed.called(asked(&effects).0, Ok(()));
    let full = Done::Written(Err("no space left".to_owned()));
    let effects = fed.feed(Input::Done(writes(&effects), full));
    assert_eq!(answer(&effects), Some(Err(ApiErrorCode::Storage)));
    let (_, call) = asked(&effects);
    let taken = DeviceCall::Detach {
        place: at(3),
        force: true,
    };
    assert_eq!(call, taken);
    let effects = fed.notice(Notice::DeviceRemoved(at(3)));
    assert!(removed(&effects, "vdb", 3));
    assert!(!fed.live_has("vdb") && !fed.kept_has("vdb"));
}

#[test]
fn a_change_whose_definition_cannot_be_written_is_undone() {
    let mut fed = running();
    let throttle = |per_second| {
        let mut throttle = reeve_ipc::spec::DiskThrottle::default();
        throttle.bytes.total = Some(reeve_ipc::spec::Rate {
            per_second,
            burst: None,
        });
        throttle
    };
    let change = DeviceChange::DiskThrottle(throttle(7));
    let request = |persistent| Request::Update {
        device: "1".parse().unwrap(),
        change,
        live: true,
        persistent,
    };
    let before = fed.actor.definition(false).unwrap().clone();
    let effects = fed.ask_written(request(true));
    let (serial, call) = asked(&effects);
    let slot = slot(1);
    assert_eq!(call, DeviceCall::Update { slot, change });
    let effects = fed.called(serial, Ok(()));
    let full = Done::Written(Err("no space left".to_owned()));
    let effects = fed.feed(Input::Done(writes(&effects), full));
    assert_eq!(answer(&effects), Some(Err(ApiErrorCode::Storage)));
    let change = DeviceChange::DiskThrottle(reeve_ipc::spec::DiskThrottle::default());
    assert_eq!(asked(&effects).1, DeviceCall::Update { slot, change });
    assert_eq!(fed.actor.definition(false), Some(&before));
    let effects = fed.ask(request(false));
    assert_eq!(answer(&fed.through(effects)), Some(Ok(())));
    let disks = &fed.actor.definition(false).unwrap().devices.disks;
    assert_eq!(disks[0].throttle, throttle(7));
}

#[test]
fn a_guest_that_lets_go_ends_the_wait_and_everything_of_the_device() {
    for early in [true, false] {
        let mut fed = running();
        let effects = fed.ask(Request::Detach {
            device: "1".parse().unwrap(),
            force: false,
            live: true,
            persistent: true,
        });
        // What is kept goes first, whatever the guest does.
        let effects = fed.written(effects);
        assert!(!fed.kept_has("vda") && fed.live_has("vda"));
        let event = EventKind::Defined { changed: true };
        assert!(told(&effects, &event), "{effects:?}");
        let (serial, call) = asked(&effects);
        let nicely = DeviceCall::Detach {
            place: at(1),
            force: false,
        };
        assert_eq!(call, nicely);
        let (effects, last) = if early {
            // It was faster than the answer.
            let effects = fed.notice(Notice::DeviceRemoved(at(1)));
            let last = fed.called(serial, Ok(()));
            (effects, last)
        } else {
            let effects = fed.called(serial, Ok(()));
            assert_eq!(answer(&effects), None);
            let effects = fed.notice(Notice::DeviceRemoved(at(1)));
            (effects.clone(), effects)
        };
        assert!(removed(&effects, "vda", 1) && !noted_has(&effects, "vda"));
        assert_eq!(answer(&last), Some(Ok(())));
        assert!(!fed.live_has("vda") && !fed.kept_has("vda"));
    }
}

#[test]
fn a_guest_that_does_not_let_go_keeps_the_device_and_may_do_so_late() {
    let mut fed = running();
    let effects = fed.ask(detach("vda", false));
    let (serial, _) = asked(&effects);
    let effects = fed.called(serial, Ok(()));
    let timer = effects.iter().find_map(|effect| match effect {
        Effect::SetTimer(timer, after) => Some((*timer, *after)),
        _ => None,
    });
    assert_eq!(timer, Some((Timer::DetachDeadline(serial), DETACH_MS)));
    let effects = fed.feed(Input::Timer(Timer::DetachDeadline(serial)));
    assert_eq!(answer(&effects), None, "nobody may have heard of it");
    let effects = fed.notice(Notice::Devices(listed(&effects), vec![at(1), at(2)]));
    assert_eq!(answer(&effects), Some(Err(ApiErrorCode::Timeout)));
    let Some(Effect::Answer(_, Err(error))) = effects.first() else {
        panic!("{effects:?}");
    };
    assert!(error.message.contains("--force"), "{error}");
    assert!(fed.live_has("vda"));
    // An old timer means nothing to another job.
    let effects = fed.ask(detach("vda", false));
    let again = asked(&effects).0;
    fed.called(again, Ok(()));
    assert_eq!(fed.feed(Input::Timer(Timer::DetachDeadline(serial))), []);
    fed.feed(Input::Timer(Timer::DetachDeadline(again)));
    // A worker that does not say is not waited for.
    let effects = fed.feed(Input::Timer(Timer::DetachUnchecked(again)));
    assert_eq!(answer(&effects), Some(Err(ApiErrorCode::Timeout)));
    assert_eq!(fed.feed(Input::Timer(Timer::DetachUnchecked(again))), []);
    let effects = fed.notice(Notice::DeviceRemoved(at(1)));
    assert!(removed(&effects, "vda", 1));
    assert!(!fed.live_has("vda") && fed.kept_has("vda"));
}

#[test]
fn what_is_said_of_devices_that_are_not_there_means_nothing() {
    let mut fed = running();
    for number in 3..32 {
        assert_eq!(fed.notice(Notice::DeviceRemoved(at(number))), []);
    }
    assert!(!fed.notice(Notice::DeviceRemoved(at(1))).is_empty());
    assert_eq!(fed.notice(Notice::DeviceRemoved(at(1))), []);
    // What it has of a device that it lacks counts for nothing.
    let guest = GuestMemory {
        lent: 1 << 20,
        plugged: u64::MAX,
    };
    let effects = fed.notice(Notice::Memory(guest));
    let memory = MemorySize::mebibytes(63);
    assert!(told(&effects, &EventKind::BalloonChanged { memory }));
    let guest = GuestMemory {
        lent: u64::MAX,
        plugged: 0,
    };
    let effects = fed.notice(Notice::Memory(guest));
    let memory = MemorySize(0);
    assert!(told(&effects, &EventKind::BalloonChanged { memory }));
}

#[test]
fn a_destroy_does_not_wait_for_a_device() {
    for request in [attach("vdb", true, false), detach("vda", false)] {
        let mut fed = running();
        let effects = fed.ask(request);
        let asks = effects
            .iter()
            .any(|effect| matches!(effect, Effect::Device(..)));
        if !asks {
            fed.written(effects);
        }
        let effects = fed.ask(Request::Destroy);
        assert!(kills(&effects));
        assert_eq!(answer(&effects), Some(Err(ApiErrorCode::Cancelled)));
        assert!(!fed.live_has("vdb"));
    }
}

#[test]
fn a_device_that_killed_the_worker_is_not_given_to_the_next() {
    let lifecycle = LifecycleAction {
        on_crash: reeve_ipc::model::OnCrash::Restart,
        ..LifecycleAction::default()
    };
    let mut fed = Fed::running(lifecycle);
    fed.ask_written(attach("vdb", true, false));
    let verdict = crate::domain::driver::Verdict::Failed("it died".to_owned());
    let effects = fed.notice(Notice::Gone(verdict));
    assert_eq!(answer(&effects), Some(Err(ApiErrorCode::Worker)));
    let started = effects.iter().find_map(|effect| match effect {
        Effect::Start { record, .. } => Some(record.definition.clone()),
        _ => None,
    });
    assert!(
        started
            .unwrap()
            .devices
            .find(&"vdb".parse().unwrap())
            .is_none()
    );
}

#[test]
fn what_a_reset_takes_away_stays_away() {
    let lifecycle = LifecycleAction {
        on_power_off: reeve_ipc::model::OnPowerOff::Restart,
        ..LifecycleAction::default()
    };
    let mut fed = Fed::running(lifecycle);
    let effects = fed.notice(ended(GuestEnd::PoweredOff));
    let effects = fed.written(effects);
    let serial = called(&effects, WorkerCall::Reset);
    // It was asked to let go of it before it ended.
    let effects = fed.notice(Notice::DeviceRemoved(at(1)));
    assert!(removed(&effects, "vda", 1));
    let effects = fed.called(serial, Ok(()));
    let effects = fed.called(called(&effects, WorkerCall::Resume), Ok(()));
    assert!(!noted_has(&effects, "vda"), "the last note is of before");
    fed.written(effects);
    assert!(!fed.live_has("vda"));
}

#[test]
fn an_end_of_the_guest_waits_for_a_device_that_is_being_made() {
    let mut fed = running();
    let effects = fed.ask_written(attach("vdb", true, false));
    let effects_of_end = fed.notice(ended(GuestEnd::PoweredOff));
    assert_eq!(answer(&effects_of_end), None);
    let refused = CallFailure::Refused("the machine is powered off".to_owned());
    let effects = fed.called(asked(&effects).0, Err(refused));
    assert_eq!(answer(&effects), Some(Err(ApiErrorCode::Worker)));
    assert!(!noted_has(&effects, "vdb"));
}

#[test]
fn memory_is_what_is_left_to_the_guest() {
    let mut fed = running();
    let effects = fed.ask(set_memory(48));
    let bytes = 16 << 20;
    let change = DeviceChange::BalloonTarget { bytes };
    let slot = slot(2);
    assert_eq!(asked(&effects).1, DeviceCall::Update { slot, change });
    assert_eq!(answer(&fed.through(effects)), Some(Ok(())));
}

/// Of 64 MiB and 16 more, with a balloon or without.
fn growing(balloon: bool) -> Fed {
    let mut domain = domain();
    domain.devices.memory = Some(PluggableMemory {
        max: MemorySize::mebibytes(80),
        address: None,
    });
    domain.devices.balloon = domain.devices.balloon.filter(|_| balloon);
    domain.complete().unwrap();
    Fed::running_as(domain)
}

/// Every change that the worker is asked for, one after the other, all of which succeed.
fn changes(fed: &mut Fed, memory: MemorySize) -> Vec<DeviceChange> {
    let mut changes = Vec::new();
    let mut effects = fed.ask(Request::SetMemory {
        memory,
        live: true,
        persistent: false,
    });
    while answer(&effects).is_none() {
        let (serial, call) = asked(&effects);
        let DeviceCall::Update { change, .. } = call else {
            panic!("{call:?}");
        };
        changes.push(change);
        effects = fed.called(serial, Ok(()));
    }
    assert_eq!(answer(&effects), Some(Ok(())));
    changes
}

#[test]
fn memory_beyond_the_start_is_plugged_and_less_than_it_is_lent() {
    use DeviceChange::{BalloonTarget, MemoryRequest};
    const MIB: u64 = 1 << 20;
    for (mebibytes, plugged, lent) in [(80, 16, 0), (66, 2, 0), (64, 0, 0), (48, 0, 16)] {
        let memory = MemorySize::mebibytes(mebibytes);
        let request = MemoryRequest {
            bytes: plugged * MIB,
        };
        let target = BalloonTarget { bytes: lent * MIB };
        assert_eq!(changes(&mut growing(true), memory), [request, target]);
        if lent == 0 {
            assert_eq!(changes(&mut growing(false), memory), [request]);
        }
    }
    for (balloon, mebibytes, code, text) in [
        (true, 81, ApiErrorCode::InvalidArgument, "2M to 80M"),
        (true, 65, ApiErrorCode::InvalidArgument, "blocks of 2M"),
        (false, 48, ApiErrorCode::NoDevice, "no balloon"),
    ] {
        let mut fed = growing(balloon);
        let effects = fed.ask(set_memory(mebibytes));
        assert_eq!(answer(&effects), Some(Err(code)), "{mebibytes}");
        assert!(format!("{effects:?}").contains(text), "{effects:?}");
    }
}

#[test]
fn what_is_left_to_a_guest_counts_what_it_has_plugged_and_no_more_than_it_can() {
    const MIB: u64 = 1 << 20;
    let mut fed = growing(true);
    for (lent, plugged, left) in [(0, 4, 68), (2, 4, 66), (0, 999, 80), (999, 16, 0)] {
        let effects = fed.notice(Notice::Memory(GuestMemory {
            lent: lent * MIB,
            plugged: plugged * MIB,
        }));
        let memory = MemorySize::mebibytes(left);
        assert!(told(&effects, &EventKind::BalloonChanged { memory }));
    }
}

#[test]
fn a_memory_device_is_not_taken_from_a_machine_that_runs() {
    let mut fed = growing(true);
    for force in [false, true] {
        let effects = fed.ask(detach("memory", force));
        assert_eq!(answer(&effects), Some(Err(ApiErrorCode::Unsupported)));
    }
    assert!(fed.live_has("memory"));
}
