//! Admission as a table, and the actor fed by hand.

mod agent;
mod devices;
mod ends;
mod failures;
mod filters;
mod media;
mod platform;
mod ports;
mod sequences;
mod shutdown;
mod tuning;
mod vcpus;

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use reeve_ipc::api::call::{LabelChange, StartOptions};
use reeve_ipc::api::error::ApiErrorCode;
use reeve_ipc::api::view::{DomainState, JobKind, PausedReason, RunningReason, ShutOffReason};
use reeve_ipc::device::DeviceChange;
use reeve_ipc::model::{
    Balloon, BootSource, DeviceName, Devices, Disk, Domain, DomainUuid, Labels, LifecycleAction,
    MemorySize, Platform, ResourceLimits, Tuning, Vcpus,
};
use reeve_ipc::phase::Phase;
use reeve_ipc::spec::{CpuSwitches, MachineType};
use uuid::Uuid;

use super::*;
use crate::domain::driver::{GuestEnd, Notice, WorkerCall};

const OFF: DomainState = DomainState::ShutOff(ShutOffReason::Unknown);
const STARTING: DomainState = DomainState::Paused(PausedReason::StartingUp);
const PAUSED: DomainState = DomainState::Paused(PausedReason::User);
const POWERED_OFF: DomainState = DomainState::Paused(PausedReason::PoweredOff);
const RUNNING: DomainState = DomainState::Running(RunningReason::Booted);

const STATES: [DomainState; 17] = [
    DomainState::Running(RunningReason::Booted),
    DomainState::Running(RunningReason::Unpaused),
    DomainState::Running(RunningReason::Restarted),
    DomainState::Running(RunningReason::Adopted),
    DomainState::Paused(PausedReason::StartingUp),
    DomainState::Paused(PausedReason::User),
    DomainState::Paused(PausedReason::PoweredOff),
    DomainState::Paused(PausedReason::Adopted),
    DomainState::ShuttingDown,
    DomainState::ShutOff(ShutOffReason::Unknown),
    DomainState::ShutOff(ShutOffReason::Shutdown),
    DomainState::ShutOff(ShutOffReason::Destroyed),
    DomainState::ShutOff(ShutOffReason::Crashed),
    DomainState::ShutOff(ShutOffReason::Failed),
    DomainState::Crashed,
    DomainState::Paused(PausedReason::Watchdog),
    DomainState::Panicked,
];

const JOBS: [JobKind; 16] = [
    JobKind::Define,
    JobKind::Start,
    JobKind::Shutdown,
    JobKind::Reboot,
    JobKind::Reset,
    JobKind::Pause,
    JobKind::Resume,
    JobKind::Destroy,
    JobKind::Undefine,
    JobKind::Adopt,
    JobKind::Policy,
    JobKind::Attach,
    JobKind::Detach,
    JobKind::Update,
    JobKind::SetVcpus,
    JobKind::Tune,
];

fn domain() -> Domain {
    let mut domain = Domain {
        name: "web".parse().unwrap(),
        uuid: DomainUuid(Uuid::from_u128(1)),
        machine: MachineType::Reeve1_0,
        vcpus: Vcpus::try_from(1).unwrap(),
        max_vcpus: Vcpus::try_from(4).unwrap(),
        platform: Platform::default(),
        kept: Vec::new(),
        tuning: Tuning::default(),
        cpu: CpuSwitches::default(),
        memory: MemorySize::mebibytes(64),
        boot: BootSource::BuiltIn {
            command_line: String::new(),
        },
        devices: Devices {
            disks: vec![Disk::new("vda".parse().unwrap(), None)],
            balloon: Some(Balloon::default()),
            ..Devices::default()
        },
        lifecycle: LifecycleAction::default(),
        limits: ResourceLimits::default(),
        pinning: Vec::new(),
        labels: Labels::default(),
    };
    domain.complete().unwrap();
    domain
}

fn title(title: &str, live: bool, persistent: bool) -> Request {
    Request::SetLabel {
        change: LabelChange::Title(Some(title.to_owned())),
        live,
        persistent,
    }
}

fn define(only_new: bool) -> Request {
    Request::Define {
        domain: Box::new(domain()),
        only_new,
    }
}

/// Every request, in the order of the columns of the table.
fn requests() -> [Request; 25] {
    let options = StartOptions {
        paused: false,
        auto_destroy: false,
    };
    let session = SessionId(1);
    [
        define(false),
        define(true),
        Request::Undefine,
        Request::Start(options, session),
        Request::Create(Box::new(domain()), options, session),
        Request::Shutdown {
            destroy_after_ms: None,
            for_host: false,
        },
        Request::Reboot,
        Request::Reset,
        Request::Pause,
        Request::Resume,
        Request::Destroy,
        Request::SetAutostart(Some(1)),
        Request::Rename("db".parse().unwrap()),
        title("t", true, false),
        title("t", false, true),
        title("t", true, true),
        title("t", false, false),
        HOST_ENDS,
        devices::attach("vdb", true, false),
        devices::attach("vdb", false, true),
        devices::detach("vda", false),
        Request::Update {
            device: DeviceName::Balloon,
            change: DeviceChange::BalloonPoll,
            live: true,
            persistent: false,
        },
        set_memory(32),
        vcpus::set(2, true, false),
        vcpus::set(2, false, true),
    ]
}

fn set_memory(mebibytes: u32) -> Request {
    Request::SetMemory {
        memory: MemorySize::mebibytes(mebibytes),
        live: true,
        persistent: false,
    }
}

const HOST_ENDS: Request = Request::Shutdown {
    destroy_after_ms: Some(200),
    for_host: true,
};

/// What the column's job is, where there is one.
const KINDS: [JobKind; 25] = [
    JobKind::Define,
    JobKind::Define,
    JobKind::Undefine,
    JobKind::Start,
    JobKind::Start,
    JobKind::Shutdown,
    JobKind::Reboot,
    JobKind::Reset,
    JobKind::Pause,
    JobKind::Resume,
    JobKind::Destroy,
    JobKind::Define,
    JobKind::Define,
    JobKind::Define,
    JobKind::Define,
    JobKind::Define,
    JobKind::Define,
    JobKind::Shutdown,
    JobKind::Attach,
    JobKind::Attach,
    JobKind::Detach,
    JobKind::Update,
    JobKind::Update,
    JobKind::SetVcpus,
    JobKind::SetVcpus,
];

/// Columns: define, define only new, undefine, start, create, shutdown, reboot, reset, pause, resume,
/// destroy, autostart, rename, label of the running, of the kept, of both, of neither, shutdown with the
/// host, attach to the running, to the kept, detach, update, memory, vCPUs of the running, of the kept. `J` a job, `.` so already, `D` killed at once; refused: `W` wrong state, `E` exists, `N` there is none, `I` the
/// arguments contradict each other, `B` its last worker is not released.
fn row(state: DomainState, persistent: bool, exists: bool, reaping: bool) -> &'static str {
    if !exists {
        return "JJNNJNNNNNNNNNNNNNNNNNNNN";
    }
    match (state, persistent) {
        (DomainState::ShutOff(_), true) if reaping => "JEJBBWWWWWDJBWJWIWWJWWWWJ",
        (DomainState::ShutOff(_), false) if reaping => "JEWBBWWWWWDWWWWWIWWWWWWWW",
        (DomainState::ShutOff(_), true) => "JEJJJWWWWWWJJWJWIWWJWWWWJ",
        (DomainState::ShutOff(_), false) => "JEWJJWWWWWWWWWWWIWWWWWWWW",
        (DomainState::Running(_) | DomainState::ShuttingDown, true) => "JEJWWJJJJ.DJWJJJIJJJJJJJJ",
        (DomainState::Running(_) | DomainState::ShuttingDown, false) => "JEWWWJJJJ.DWWJWWIJJWJJJJW",
        (
            DomainState::Paused(PausedReason::PoweredOff)
            | DomainState::Crashed
            | DomainState::Panicked,
            true,
        ) => "JEJWWWWJWWDJWJJJIDWJJJJWJ",
        (
            DomainState::Paused(PausedReason::PoweredOff)
            | DomainState::Crashed
            | DomainState::Panicked,
            false,
        ) => "JEWWWWWJWWDWWJWWIDWWJJJWW",
        (STARTING, true) => "JEJWWWWJ.JDJWJJJIJWJWWWWJ",
        (STARTING, false) => "JEWWWWWJ.JDWWJWWIJWWWWWWW",
        (DomainState::Paused(_), true) => "JEJWWWWJ.JDJWJJJIJJJJJJJJ",
        (DomainState::Paused(_), false) => "JEWWWWWJ.JDWWJWWIJJWJJJJW",
    }
}

fn letter(admission: &Admission, kind: JobKind) -> char {
    match admission {
        Admission::Job(job) => {
            assert_eq!(*job, kind);
            'J'
        }
        Admission::Answer => '.',
        Admission::Wait => 'w',
        Admission::Destroy => 'D',
        Admission::Refuse(error) => {
            assert!(!error.message.is_empty() && !error.message.ends_with('.'));
            match error.code {
                ApiErrorCode::WrongState => 'W',
                ApiErrorCode::DomainExists => 'E',
                ApiErrorCode::NoDomain => 'N',
                ApiErrorCode::InvalidArgument => 'I',
                ApiErrorCode::Busy => 'B',
                other => panic!("{other:?} is no refusal of admission"),
            }
        }
    }
}

fn letters(standing: &Standing) -> String {
    let columns = requests().into_iter().zip(KINDS);
    columns
        .map(|(request, kind)| letter(&admit(standing, &request), kind))
        .collect()
}

/// All that a domain can stand like, and more: admission is asked for every one.
fn standings() -> impl Iterator<Item = Standing> {
    STATES.into_iter().flat_map(|state| {
        (0..16_u8).map(move |bits| Standing {
            name: Some("web".parse().unwrap()).filter(|_| bits & 8 == 0),
            state,
            starting: state == STARTING,
            persistent: bits & 1 != 0,
            exists: bits & 2 != 0,
            reaping: bits & 4 != 0,
            job: None,
        })
    })
}

/// Whether a domain can stand so.
fn can_be(standing: &Standing) -> bool {
    let off = matches!(standing.state, DomainState::ShutOff(_));
    let worker = !off || standing.reaping;
    (off || !standing.reaping) && standing.exists == (standing.persistent || worker)
}

#[test]
fn every_request_is_judged_as_the_table_says() {
    for standing in standings().filter(can_be) {
        let Standing {
            state,
            persistent,
            exists,
            reaping,
            ..
        } = standing;
        let expected = row(state, persistent, exists, reaping);
        assert_eq!(letters(&standing), expected, "{standing:?}");
    }
}

#[test]
fn behind_a_job_everything_waits_but_a_destroy() {
    for before in standings() {
        let alone = letters(&before);
        for job in JOBS {
            let standing = Standing {
                job: Some(job),
                ..before.clone()
            };
            for (column, judged) in letters(&standing).chars().enumerate() {
                let is_destroy = KINDS.get(column) == Some(&JobKind::Destroy);
                let expected = if is_destroy {
                    alone.chars().nth(column)
                } else {
                    Some('w')
                };
                assert_eq!(Some(judged), expected, "{standing:?}");
            }
        }
    }
}

#[test]
fn a_refusal_names_the_domain() {
    let standing = Standing {
        name: Some("web".parse().unwrap()),
        state: OFF,
        starting: false,
        persistent: true,
        exists: true,
        reaping: false,
        job: None,
    };
    let Admission::Refuse(error) = admit(&standing, &Request::Pause) else {
        panic!("a domain that is off cannot be paused");
    };
    assert_eq!(
        error.message,
        "domain 'web': it is not running; start it first"
    );
}

/// An actor with whoever feeds it.
struct Fed {
    actor: DomainActor,
    now_ms: u64,
    tickets: u64,
}

impl Fed {
    fn new() -> Self {
        Self::with(DomainActor::new(domain().uuid, Arc::new(AtomicU32::new(1))))
    }

    fn with(actor: DomainActor) -> Self {
        Self {
            actor,
            now_ms: 1_000,
            tickets: 0,
        }
    }

    /// One that has a record, and lives as a supervisor before left it.
    fn recovered(intents: Intents) -> Self {
        let record = DomainDefinition {
            domain: domain(),
            autostart: None,
        };
        let live = LiveRecord {
            definition: domain(),
            intents,
            started_ms: 1,
            agent_timeout: None,
        };
        let ids = Arc::new(AtomicU32::new(1));
        let actor = DomainActor::recovered(domain().uuid, Some(record), Some(live), ids);
        Self::with(actor)
    }

    fn feed(&mut self, input: Input) -> Vec<Effect> {
        let now = Now {
            // Set back whenever it is looked at.
            unix_ms: 1_000_000 - self.now_ms,
            boot_ms: self.now_ms,
        };
        self.actor.handle(now, input)
    }

    fn ask(&mut self, request: Request) -> Vec<Effect> {
        self.tickets += 1;
        self.feed(Input::Request(Ticket(self.tickets), request))
    }

    fn notice(&mut self, notice: Notice) -> Vec<Effect> {
        let id = self.actor.summary().unwrap().id.unwrap();
        self.feed(Input::Notice(id, notice))
    }

    /// Lets everything end well that the effects wait for, one after the other; all effects.
    fn through(&mut self, effects: Vec<Effect>) -> Vec<Effect> {
        let mut all = effects;
        let mut index = 0;
        while let Some(effect) = all.get(index) {
            index += 1;
            if let Some(input) = success(effect) {
                all.extend(self.feed(input));
            }
        }
        all
    }

    /// Defined, started and running.
    fn running(lifecycle: LifecycleAction) -> Self {
        Self::running_as(Domain {
            lifecycle,
            ..domain()
        })
    }

    fn running_as(definition: Domain) -> Self {
        let mut fed = Self::new();
        let effects = fed.ask(Request::Define {
            domain: Box::new(definition),
            only_new: true,
        });
        fed.through(effects);
        let options = StartOptions {
            paused: false,
            auto_destroy: false,
        };
        let effects = fed.ask(Request::Start(options, SessionId(1)));
        fed.through(effects);
        assert_eq!(fed.actor.state(), RUNNING);
        fed
    }
}

/// The outcome when all goes well.
fn success(effect: &Effect) -> Option<Input> {
    let (serial, done) = match effect {
        Effect::WriteRecord(serial, _)
        | Effect::RemoveRecord(serial)
        | Effect::WriteStatus(Some(serial), ..) => (*serial, Done::Written(Ok(()))),
        Effect::Start { serial, paused, .. } => {
            let phase = if *paused {
                Phase::Paused
            } else {
                Phase::Running
            };
            (*serial, Done::Started(Ok(phase)))
        }
        Effect::Adopt { serial, .. } => (*serial, Done::Adopted(Adopted::Silent)),
        Effect::Call(serial, ..) | Effect::Device(serial, ..) => (*serial, Done::Called(Ok(()))),
        _ => return None,
    };
    Some(Input::Done(serial, done))
}

/// The serial of the call that the effects ask for.
fn called(effects: &[Effect], call: WorkerCall) -> u64 {
    let serial = effects.iter().find_map(|effect| match effect {
        Effect::Call(serial, _, asked) if *asked == call => Some(*serial),
        _ => None,
    });
    serial.unwrap_or_else(|| panic!("{call:?} is not asked for: {effects:?}"))
}

/// The serial of the write that the effects ask for.
fn writes(effects: &[Effect]) -> u64 {
    let serial = effects.iter().find_map(|effect| match effect {
        Effect::WriteRecord(serial, _) | Effect::WriteStatus(Some(serial), ..) => Some(*serial),
        _ => None,
    });
    serial.unwrap_or_else(|| panic!("nothing is written: {effects:?}"))
}

fn kills(effects: &[Effect]) -> bool {
    effects
        .iter()
        .any(|effect| matches!(effect, Effect::Kill(_)))
}

/// The first answer: the code of the error, where it is one.
fn answer(effects: &[Effect]) -> Option<Result<(), ApiErrorCode>> {
    effects.iter().find_map(|effect| match effect {
        Effect::Answer(_, answer) => Some(answer.clone().map_err(|error| error.code)),
        _ => None,
    })
}

/// What the status says last.
fn noted(effects: &[Effect]) -> Option<&LiveRecord> {
    effects.iter().rev().find_map(|effect| match effect {
        Effect::WriteStatus(_, _, record) => Some(&**record),
        _ => None,
    })
}

fn ended(end: GuestEnd) -> Notice {
    Notice::GuestEnded(end)
}
