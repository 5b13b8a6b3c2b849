//! What a domain is held to: of the machine that runs, of the kept definition, and of both.

use reeve_ipc::api::call::TuningChange;
use reeve_ipc::api::event::{Cursor, DomainEvent, Event, MAX_TUNED_BYTES};
use reeve_ipc::api::message::ToClient;
use reeve_ipc::codec;
use reeve_ipc::model::{
    BlockDeviceTuning, BlockTuning, CpuQuota, CpuSet, MAX_BLOCK_DEVICES, MemoryNodes, NodeMode,
    OnCrash,
};

use super::super::bounds;
use super::devices::{asked, running, told};
use super::*;
use crate::domain::driver::{CallFailure, DeviceCall, StartFailure, StartFailureKind, Verdict};

fn tune(changes: Vec<TuningChange>, live: bool, persistent: bool) -> Request {
    Request::Tune {
        changes,
        live,
        persistent,
    }
}

/// One of each kind that a machine that runs can have changed.
fn bound() -> Vec<TuningChange> {
    vec![
        TuningChange::VcpuCpus {
            vcpu: 0,
            cpus: Some("1".parse().unwrap()),
        },
        TuningChange::MemoryLimit(Some(MemorySize::mebibytes(256))),
        TuningChange::MemorySoftLimit(Some(MemorySize::mebibytes(200))),
        TuningChange::MemoryAndSwapLimit(Some(MemorySize::mebibytes(300))),
        TuningChange::CpuPercent(Some(150)),
        TuningChange::VcpuPercent(Some(90)),
        TuningChange::CpuWeight(Some(200)),
        TuningChange::VcpuQuota(Some(CpuQuota {
            quota_us: 20_000,
            period_us: 50_000,
        })),
        TuningChange::EmulatorCpus(Some("0".parse().unwrap())),
        TuningChange::Block(BlockTuning {
            weight: Some(300),
            devices: vec![device("/dev/sda")],
        }),
    ]
}

fn device(path: &str) -> BlockDeviceTuning {
    BlockDeviceTuning {
        path: path.into(),
        read_bytes: Some(4096),
        ..BlockDeviceTuning::default()
    }
}

/// Whether all of that is so; none of it is so otherwise.
fn is_bound(domain: &Domain) -> bool {
    let (limits, tuning) = (&domain.limits, &domain.tuning);
    let is = [
        !domain.pinning.is_empty(),
        limits.memory.is_some(),
        limits.memory_soft.is_some(),
        limits.memory_and_swap.is_some(),
        limits.cpu_percent.is_some(),
        limits.vcpu_percent.is_some(),
        limits.cpu_weight.is_some(),
        tuning.vcpu_quota.is_some(),
        tuning.emulator_cpus.is_some(),
        tuning.block.weight.is_some(),
        !tuning.block.devices.is_empty(),
    ];
    assert!(is.iter().all(|one| *one == is[0]), "{domain:?}");
    is[0]
}

impl Fed {
    fn is_bound(&self, persistent: bool) -> bool {
        is_bound(self.actor.definition(persistent).unwrap())
    }

    /// Asks for a tune that the host has nothing against, up to where it is noted.
    fn checked(&mut self, request: Request) -> Vec<Effect> {
        let effects = self.ask(request);
        let (serial, call) = asked(&effects);
        assert!(matches!(call, DeviceCall::TuneCheck { .. }), "{call:?}");
        let effects = self.called(serial, Ok(()));
        self.written(effects)
    }
}

#[test]
fn a_machine_is_bound_once_its_status_says_so() {
    let mut fed = running();
    let effects = fed.ask(tune(bound(), true, false));
    assert!(
        noted(&effects).is_none(),
        "before it is known whether it can be"
    );
    let (serial, call) = asked(&effects);
    assert!(
        matches!(call, DeviceCall::TuneCheck { domain, before: Some(before) }
        if is_bound(&domain) && !is_bound(&before))
    );
    let effects = fed.called(serial, Ok(()));
    let status = noted(&effects).unwrap();
    assert!(is_bound(&status.definition) && status.intents.tuning);
    let before = status.intents.tuned_before.clone();
    assert!(!is_bound(&before.unwrap()));
    let effects = fed.written(effects);
    let (serial, call) = asked(&effects);
    let DeviceCall::Tune { domain, before } = call else {
        panic!("{call:?}");
    };
    assert!(is_bound(&domain) && !is_bound(&before.unwrap()));
    let effects = fed.called(serial, Ok(()));
    assert_eq!(answer(&effects), Some(Ok(())));
    let changes = bound();
    assert!(told(&effects, &EventKind::Tuned { changes }));
    let status = noted(&effects).unwrap();
    assert!(is_bound(&status.definition) && !status.intents.tuning);
    assert!(status.intents.tuned_before.is_none());
    assert!(fed.is_bound(false) && !fed.is_bound(true));
    let loose = vec![
        TuningChange::VcpuCpus {
            vcpu: 0,
            cpus: None,
        },
        // Nothing is swapped out beside memory that has no limit.
        TuningChange::MemoryAndSwapLimit(None),
        TuningChange::MemoryLimit(None),
        TuningChange::MemorySoftLimit(None),
        TuningChange::CpuPercent(None),
        TuningChange::VcpuPercent(None),
        TuningChange::CpuWeight(None),
        TuningChange::VcpuQuota(None),
        TuningChange::EmulatorCpus(None),
        TuningChange::Block(BlockTuning::default()),
    ];
    let effects = fed.checked(tune(loose, true, false));
    let effects = fed.called(asked(&effects).0, Ok(()));
    assert_eq!(answer(&effects), Some(Ok(())));
    assert!(!fed.is_bound(false));
}

#[test]
fn a_host_that_refuses_leaves_the_machine_as_it_was() {
    let mut fed = running();
    let effects = fed.checked(tune(bound(), true, true));
    let refused = CallFailure::Refused("no such CPU".to_owned());
    let effects = fed.called(asked(&effects).0, Err(refused));
    assert_eq!(answer(&effects), Some(Err(ApiErrorCode::Worker)));
    assert!(!fed.is_bound(false) && !fed.is_bound(true));
}

fn lacks_it() -> Result<(), CallFailure> {
    Err(CallFailure::NotMade(StartFailure {
        kind: StartFailureKind::Definition,
        message: "no such CPU".to_owned(),
    }))
}

#[test]
fn what_the_host_lacks_is_never_noted() {
    let mut fed = running();
    let effects = fed.ask(tune(bound(), true, true));
    let effects = fed.called(asked(&effects).0, lacks_it());
    assert_eq!(answer(&effects), Some(Err(ApiErrorCode::InvalidArgument)));
    assert!(noted(&effects).is_none(), "{effects:?}");
    assert!(!fed.is_bound(false) && !fed.is_bound(true));
}

#[test]
fn a_machine_whose_worker_ends_while_it_is_bound_is_made_again_as_it_was() {
    let mut fed = Fed::running(LifecycleAction {
        on_crash: OnCrash::Restart,
        ..LifecycleAction::default()
    });
    fed.checked(tune(bound(), true, false));
    let effects = fed.notice(Notice::Gone(Verdict::Failed("killed".to_owned())));
    assert_eq!(answer(&effects), Some(Err(ApiErrorCode::Worker)));
    let started = effects.iter().find_map(|effect| match effect {
        Effect::Start { record, .. } => Some(record),
        _ => None,
    });
    assert!(!is_bound(&started.unwrap().definition));
}

#[test]
fn a_definition_is_tuned_whether_its_machine_runs_or_not() {
    let mut fed = running();
    let effects = fed.ask(tune(bound(), false, true));
    assert_eq!(answer(&fed.through(effects)), Some(Ok(())));
    assert!(fed.is_bound(true) && !fed.is_bound(false));
    let wrong = vec![TuningChange::VcpuCpus {
        vcpu: 7,
        cpus: Some("0".parse().unwrap()),
    }];
    for changes in [wrong, vec![TuningChange::CpuWeight(Some(0))]] {
        let effects = fed.ask(tune(changes, false, true));
        assert_eq!(answer(&effects), Some(Err(ApiErrorCode::InvalidArgument)));
    }
    let many = vec![TuningChange::CpuWeight(None); 65];
    let effects = fed.ask(tune(many, false, true));
    assert_eq!(answer(&effects), Some(Err(ApiErrorCode::InvalidArgument)));
}

fn memory(mebibytes: u32, live: bool, persistent: bool) -> Request {
    Request::SetMemory {
        memory: MemorySize::mebibytes(mebibytes),
        live,
        persistent,
    }
}

#[test]
fn the_memory_of_the_next_start_is_kept_and_no_more_than_there_is() {
    let mut fed = running();
    let effects = fed.ask(memory(48, false, true));
    assert_eq!(answer(&fed.through(effects)), Some(Ok(())));
    let kept = |fed: &Fed| fed.actor.definition(true).unwrap().clone();
    let size = MemorySize::mebibytes;
    assert_eq!(kept(&fed).tuning.current_memory, Some(size(48)));
    assert_eq!(kept(&fed).max_memory(), size(64));
    for too_much in [65, 1] {
        let effects = fed.ask(memory(too_much, false, true));
        assert_eq!(answer(&effects), Some(Err(ApiErrorCode::InvalidArgument)));
    }
    let effects = fed.ask(Request::SetMaxMemory(size(128)));
    assert_eq!(answer(&fed.through(effects)), Some(Ok(())));
    assert_eq!(
        (kept(&fed).memory, kept(&fed).tuning.current_memory),
        (size(128), Some(size(48)))
    );
    let effects = fed.ask(Request::SetMaxMemory(size(32)));
    assert_eq!(answer(&fed.through(effects)), Some(Ok(())));
    assert_eq!(
        (kept(&fed).memory, kept(&fed).tuning.current_memory),
        (size(32), None)
    );
    assert_eq!(
        fed.actor.definition(false).unwrap().memory,
        size(64),
        "which runs with what it has"
    );
    let effects = fed.ask(Request::SetMaxMemory(size(64)));
    assert_eq!(answer(&fed.through(effects)), Some(Ok(())));
    assert_eq!(
        (kept(&fed).memory, kept(&fed).tuning.current_memory),
        (size(64), Some(size(32))),
        "it can be given more, and has what it had"
    );
    let effects = fed.ask(memory(64, false, true));
    assert_eq!(answer(&fed.through(effects)), Some(Ok(())));
    assert_eq!(kept(&fed).tuning.current_memory, None, "which is all");
    let effects = fed.ask(Request::SetMaxMemory(size(1)));
    assert_eq!(answer(&effects), Some(Err(ApiErrorCode::InvalidArgument)));
}

#[test]
fn a_machine_is_asked_at_its_start_for_what_its_definition_lends() {
    let mut domain = domain();
    domain.tuning.current_memory = Some(MemorySize::mebibytes(48));
    let mut fed = Fed::new();
    let effects = fed.ask(Request::Define {
        domain: Box::new(domain),
        only_new: false,
    });
    fed.through(effects);
    let options = StartOptions::default();
    let effects = fed.ask(Request::Start(options, SessionId(1)));
    let (serial, record) = effects
        .iter()
        .find_map(|effect| match effect {
            Effect::Start { serial, record, .. } => Some((*serial, record.clone())),
            _ => None,
        })
        .unwrap();
    assert!(record.intents.asks_memory, "until it is asked");
    let effects = fed.feed(Input::Done(serial, Done::Started(Ok(Phase::Running))));
    let bytes = 16 << 20;
    assert_eq!(answer(&effects), Some(Ok(())), "which waits for no guest");
    assert_eq!(changes(&effects), [DeviceChange::BalloonTarget { bytes }]);
    let effects = fed.through(effects);
    assert!(!noted(&effects).unwrap().intents.asks_memory);
    let summary = fed.actor.summary().unwrap();
    assert_eq!(
        summary.current_memory,
        MemorySize::mebibytes(64),
        "until its guest says otherwise"
    );
}

#[test]
fn the_memory_of_a_guest_is_shown_as_it_was_last_heard_of() {
    let mut fed = running();
    fed.notice(Notice::Memory(crate::domain::driver::GuestMemory {
        lent: 16 << 20,
        plugged: 0,
    }));
    let summary = fed.actor.summary().unwrap();
    assert_eq!(summary.current_memory, MemorySize::mebibytes(48));
    assert_eq!(
        (summary.memory, summary.max_memory),
        (MemorySize::mebibytes(64), MemorySize::mebibytes(64))
    );
}

/// One that starts with 64 MiB and can have 192.
fn growing() -> Fed {
    let mut definition = super::domain();
    definition.devices.memory = Some(reeve_ipc::model::PluggableMemory {
        max: MemorySize::mebibytes(192),
        address: None,
    });
    definition.complete().unwrap();
    Fed::running_as(definition)
}

#[test]
fn what_can_be_plugged_in_is_asked_for_up_to_the_most_there_is() {
    let mut fed = growing();
    let size = MemorySize::mebibytes;
    let current = |fed: &Fed| {
        let kept = fed.actor.definition(true).unwrap();
        (kept.max_memory(), kept.tuning.current_memory)
    };
    let effects = fed.ask(memory(192, false, true));
    assert_eq!(answer(&fed.through(effects)), Some(Ok(())));
    for most in [192, 128] {
        let effects = fed.ask(Request::SetMaxMemory(size(most)));
        assert_eq!(answer(&fed.through(effects)), Some(Ok(())));
        assert_eq!(current(&fed), (size(most), Some(size(most))));
    }
    // What the device would have brought is asked for no more, or nobody could read the definition.
    let effects = fed.ask(Request::Detach {
        device: "memory".parse().unwrap(),
        force: false,
        live: false,
        persistent: true,
    });
    assert_eq!(answer(&fed.through(effects)), Some(Ok(())));
    assert_eq!(current(&fed), (size(64), None));
    fed.actor.definition(true).unwrap().validate().unwrap();
}

/// What devices are asked to change.
fn changes(effects: &[Effect]) -> Vec<DeviceChange> {
    let changes = effects.iter().filter_map(|effect| match effect {
        Effect::Device(_, _, DeviceCall::Update { change, .. }) => Some(*change),
        _ => None,
    });
    changes.collect()
}

/// One that a supervisor left that had noted `intents`, and that is found.
fn found(intents: Intents) -> (Fed, Vec<Effect>) {
    let mut domain = domain();
    apply_bound(&mut domain);
    domain.tuning.current_memory = Some(MemorySize::mebibytes(48));
    let live = LiveRecord {
        definition: domain.clone(),
        intents,
        started_ms: 1,
        agent_timeout: None,
    };
    let ids = Arc::new(AtomicU32::new(1));
    let actor = DomainActor::recovered(domain.uuid, None, Some(live), ids);
    let mut fed = Fed::with(actor);
    let effects = fed.feed(Input::Recover);
    let serial = effects.iter().find_map(|effect| match effect {
        Effect::Adopt { serial, .. } => Some(*serial),
        _ => None,
    });
    let found = Adopted::Found {
        phase: Phase::Running,
        end: None,
        resets: 0,
        devices: None,
    };
    let effects = fed.feed(Input::Done(serial.unwrap(), Done::Adopted(found)));
    (fed, effects)
}

fn apply_bound(domain: &mut Domain) {
    for change in bound() {
        bounds::apply(domain, &change);
    }
}

#[test]
fn a_change_that_a_supervisor_noted_and_did_not_come_to_is_made_by_the_next() {
    let (mut fed, effects) = found(Intents {
        tuning: true,
        asks_memory: true,
        ..Intents::default()
    });
    let (serial, call) = asked(&effects);
    let DeviceCall::Tune { domain, before } = call else {
        panic!("{call:?}");
    };
    assert!(is_bound(&domain) && before.is_none(), "nobody knows");
    let effects = fed.called(serial, Ok(()));
    let bytes = 16 << 20;
    assert_eq!(changes(&effects), [DeviceChange::BalloonTarget { bytes }]);
    let effects = fed.through(effects);
    let intents = &noted(&effects).unwrap().intents;
    assert!(!intents.tuning && !intents.asks_memory);
    assert_eq!(fed.actor.job_kind(), None);
    // What was done is not done again.
    let (_, effects) = found(Intents::default());
    assert!(
        !effects
            .iter()
            .any(|effect| matches!(effect, Effect::Device(..)))
    );
}

#[test]
fn what_is_refused_to_the_next_supervisor_is_as_it_was_before() {
    let mut before = super::domain();
    // Since then it has lost a disk.
    before
        .devices
        .disks
        .push(Disk::new("vdc".parse().unwrap(), None));
    before.complete().unwrap();
    let (mut fed, effects) = found(Intents {
        tuning: true,
        tuned_before: Some(Box::new(before)),
        ..Intents::default()
    });
    let effects = fed.called(asked(&effects).0, lacks_it());
    let status = noted(&effects).unwrap();
    assert!(!is_bound(&status.definition) && status.intents.tuned_before.is_none());
    assert_eq!(status.definition.devices.disks.len(), 1);
    assert!(status.intents.tuning, "it may have been in force in part");
    let (serial, call) = asked(&effects);
    assert!(matches!(call, DeviceCall::Tune { domain, before: None } if !is_bound(&domain)));
    let effects = fed.called(serial, lacks_it());
    assert!(!noted(&effects).unwrap().intents.tuning, "{effects:?}");
    assert!(!fed.is_bound(false) && !kills(&effects));
    assert_eq!(fed.actor.job_kind(), None, "nothing more is asked for");
    let effects = fed.checked(tune(bound(), true, false));
    let effects = fed.called(asked(&effects).0, Ok(()));
    assert_eq!(answer(&effects), Some(Ok(())));
    assert!(fed.is_bound(false));
}

#[test]
fn what_is_refused_to_the_next_supervisor_is_told_and_ends_nothing() {
    let (mut fed, effects) = found(Intents {
        tuning: true,
        asks_memory: true,
        ..Intents::default()
    });
    let refused = CallFailure::Refused("no such CPU".to_owned());
    let effects = fed.called(asked(&effects).0, Err(refused));
    let told = effects.iter().any(|effect| {
        matches!(
            effect,
            Effect::Event(EventKind::JobFailed {
                job: JobKind::Tune,
                ..
            })
        )
    });
    assert!(told && !kills(&effects), "{effects:?}");
    assert!(
        !noted(&effects).unwrap().intents.tuning,
        "nor by the one after it"
    );
    let bytes = 16 << 20;
    assert_eq!(changes(&effects), [DeviceChange::BalloonTarget { bytes }]);
    let effects = fed.called(asked(&effects).0, Ok(()));
    fed.written(effects);
    // A client's own change stands for it then.
    let effects = fed.checked(tune(bound(), true, false));
    let effects = fed.called(asked(&effects).0, Ok(()));
    assert_eq!(answer(&effects), Some(Ok(())));
    assert!(!noted(&effects).unwrap().intents.tuning);
}

#[test]
fn a_guest_is_asked_for_what_a_client_wants_last() {
    let (mut fed, effects) = found(Intents {
        asks_memory: true,
        ..Intents::default()
    });
    let effects = fed.called(asked(&effects).0, Err(CallFailure::Deadline));
    assert!(
        noted(&effects).is_none(),
        "it may have been asked: {effects:?}"
    );
    let effects = fed.ask(memory(32, true, false));
    assert!(!noted(&effects).unwrap().intents.asks_memory);
    let effects = fed.through(effects);
    assert_eq!(answer(&effects), Some(Ok(())));
}

#[test]
fn a_machine_whose_record_cannot_be_written_is_bound_as_before() {
    let mut fed = running();
    let effects = fed.checked(tune(bound(), true, true));
    let effects = fed.called(asked(&effects).0, Ok(()));
    let full = Done::Written(Err("full".to_owned()));
    let effects = fed.feed(Input::Done(writes(&effects), full));
    assert_eq!(answer(&effects), Some(Err(ApiErrorCode::Storage)));
    let status = noted(&effects).unwrap();
    assert!(!is_bound(&status.definition) && status.intents.tuning);
    let (serial, call) = asked(&effects);
    assert!(matches!(call, DeviceCall::Tune { domain, .. } if !is_bound(&domain)));
    let effects = fed.called(serial, Ok(()));
    assert!(!noted(&effects).unwrap().intents.tuning);
    fed.through(effects);
    assert_eq!(fed.actor.job_kind(), None);
}

#[test]
fn a_guest_that_ends_while_its_machine_is_bound_waits_for_that() {
    let mut fed = running();
    let effects = fed.checked(tune(bound(), true, false));
    let serial = asked(&effects).0;
    let effects = fed.notice(ended(GuestEnd::PoweredOff));
    assert_eq!(answer(&effects), None);
    let effects = fed.called(serial, Ok(()));
    assert_eq!(answer(&effects), Some(Ok(())));
    called(&effects, WorkerCall::Stop);
}

#[test]
fn memory_whose_record_cannot_be_written_is_asked_for_as_before() {
    let mut fed = running();
    let effects = fed.ask(memory(48, true, false));
    fed.through(effects);
    let effects = fed.ask(memory(32, true, true));
    let effects = fed.called(asked(&effects).0, Ok(()));
    let full = Done::Written(Err("full".to_owned()));
    let effects = fed.feed(Input::Done(writes(&effects), full));
    assert_eq!(answer(&effects), Some(Err(ApiErrorCode::Storage)));
    let bytes = 16 << 20;
    assert_eq!(changes(&effects), [DeviceChange::BalloonTarget { bytes }]);
}

#[test]
fn memory_of_which_half_is_refused_is_asked_for_as_before() {
    let mut fed = growing();
    let mib = 1 << 20;
    fed.notice(Notice::Memory(crate::domain::driver::GuestMemory {
        lent: 0,
        plugged: 64 * mib,
    }));
    let effects = fed.ask(memory(192, true, false));
    let (serial, call) = asked(&effects);
    let DeviceCall::Update { change, .. } = call else {
        panic!("{call:?}");
    };
    let bytes = 128 * mib;
    assert_eq!(change, DeviceChange::MemoryRequest { bytes });
    let effects = fed.called(serial, Ok(()));
    let refused = CallFailure::Refused("no".to_owned());
    let effects = fed.called(asked(&effects).0, Err(refused));
    assert_eq!(answer(&effects), Some(Err(ApiErrorCode::Worker)));
    let bytes = 64 * mib;
    assert_eq!(
        changes(&effects),
        [
            DeviceChange::BalloonTarget { bytes: 0 },
            DeviceChange::MemoryRequest { bytes }
        ]
    );
}

#[test]
fn memory_that_no_cgroup_holds_stays_on_its_nodes_while_the_machine_runs() {
    let nodes = |mode, nodes: &str| {
        let nodes = nodes.parse().unwrap();
        let change = Some(MemoryNodes { mode, nodes });
        vec![TuningChange::MemoryNodes(change)]
    };
    let mut fed = running();
    for mode in [NodeMode::Strict, NodeMode::Restrictive] {
        let effects = fed.ask(tune(nodes(mode, "0"), true, false));
        assert_eq!(answer(&effects), Some(Err(ApiErrorCode::WrongState)));
    }
    let effects = fed.ask_written(tune(nodes(NodeMode::Strict, "0"), false, true));
    assert_eq!(answer(&effects), Some(Ok(())));
}

#[test]
fn all_that_binds_a_machine_is_taken_back_and_nothing_else() {
    let mut tuned = domain();
    apply_bound(&mut tuned);
    let nodes = "0".parse().unwrap();
    let mode = NodeMode::Restrictive;
    let nodes = TuningChange::MemoryNodes(Some(MemoryNodes { mode, nodes }));
    bounds::apply(&mut tuned, &nodes);
    tuned.tuning.current_memory = Some(MemorySize::mebibytes(48));
    let mut expected = domain();
    expected.tuning.current_memory = tuned.tuning.current_memory;
    let mut back = tuned.clone();
    bounds::bind_as(&mut back, &domain());
    assert_eq!(back, expected);
    bounds::bind_as(&mut back, &tuned);
    assert_eq!(back, tuned);
    let mut kinds = bound();
    kinds.insert(kinds.len() - 1, nodes);
    assert_eq!(bounds::differences(&domain(), &tuned), kinds);
}

/// The event of a tune of a machine that runs.
fn event(effects: &[Effect]) -> Vec<TuningChange> {
    let told = effects.iter().find_map(|effect| match effect {
        Effect::Event(EventKind::Tuned { changes }) => Some(changes.clone()),
        _ => None,
    });
    told.unwrap_or_default()
}

#[test]
fn what_is_told_of_a_tune_is_what_is_other_however_much_was_asked_for() {
    let mut fed = running();
    let long = format!("/dev/{}", "x".repeat(250));
    let loud = BlockTuning {
        weight: None,
        devices: vec![device(&long)],
    };
    let mut changes = vec![TuningChange::Block(loud); 40];
    changes.push(TuningChange::CpuWeight(Some(7)));
    changes.push(TuningChange::Block(BlockTuning::default()));
    changes.push(TuningChange::CpuWeight(Some(9)));
    let effects = fed.checked(tune(changes, true, false));
    let effects = fed.called(asked(&effects).0, Ok(()));
    assert_eq!(answer(&effects), Some(Ok(())));
    assert_eq!(event(&effects), [TuningChange::CpuWeight(Some(9))]);
    // What is not valid is refused even where a later change takes it back.
    let wrong = BlockTuning {
        weight: None,
        devices: vec![device("/etc/passwd")],
    };
    let changes = vec![
        TuningChange::Block(wrong),
        TuningChange::Block(BlockTuning::default()),
    ];
    let effects = fed.ask(tune(changes, true, false));
    assert_eq!(answer(&effects), Some(Err(ApiErrorCode::InvalidArgument)));
}

#[test]
fn the_largest_change_there_can_be_is_told_in_an_event_of_bounded_size() {
    let path = |index: usize| device(&format!("/dev/{index:0>250}"));
    let devices: Vec<_> = (0..MAX_BLOCK_DEVICES).map(path).collect();
    let every_other: Vec<_> = (0..4096).step_by(2).map(|cpu| (cpu, cpu)).collect();
    let changes = vec![
        TuningChange::VcpuCpus {
            vcpu: 0,
            cpus: Some("0-1".parse().unwrap()),
        },
        TuningChange::EmulatorCpus(Some(CpuSet::try_from(every_other).unwrap())),
        TuningChange::Block(BlockTuning {
            weight: Some(1),
            devices,
        }),
        TuningChange::CpuWeight(Some(9)),
    ];
    let mut fed = running();
    let effects = fed.checked(tune(changes, true, false));
    let effects = fed.called(asked(&effects).0, Ok(()));
    assert_eq!(answer(&effects), Some(Ok(())));
    let changes = event(&effects);
    assert_eq!(changes.len(), 2, "{changes:?}");
    let bytes: usize = changes.iter().map(TuningChange::bytes).sum();
    assert!(bytes <= MAX_TUNED_BYTES);
    let told = ToClient::Event {
        cursor: Cursor {
            epoch: u64::MAX,
            number: u64::MAX,
        },
        event: Event::Domain(DomainEvent {
            uuid: domain().uuid,
            name: domain().name,
            time_ms: u64::MAX,
            kind: EventKind::Tuned { changes },
        }),
    };
    let encoded = codec::encode(&told).unwrap();
    assert_eq!(codec::decode::<ToClient>(&encoded).unwrap(), told);
}

#[test]
fn a_machine_that_is_gone_with_its_supervisor_is_made_again_as_it_was_before_the_change() {
    let mut before = super::domain();
    before.lifecycle.on_crash = OnCrash::Restart;
    let mut tuned = before.clone();
    apply_bound(&mut tuned);
    let live = LiveRecord {
        definition: tuned,
        intents: Intents {
            tuning: true,
            tuned_before: Some(Box::new(before.clone())),
            ..Intents::default()
        },
        started_ms: 1,
        agent_timeout: None,
    };
    let ids = Arc::new(AtomicU32::new(1));
    let actor = DomainActor::recovered(before.uuid, None, Some(live), ids);
    let mut fed = Fed::with(actor);
    let effects = fed.feed(Input::Recover);
    let serial = effects.iter().find_map(|effect| match effect {
        Effect::Adopt { serial, .. } => Some(*serial),
        _ => None,
    });
    let gone = Adopted::Gone("killed".to_owned());
    let effects = fed.feed(Input::Done(serial.unwrap(), Done::Adopted(gone)));
    let started = effects.iter().find_map(|effect| match effect {
        Effect::Start { record, .. } => Some(&record.definition),
        _ => None,
    });
    assert!(!is_bound(started.unwrap()));
}
