//! Clients: what they ask, of whom, and who still waits for an answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use reeve_ipc::api::call::{DomainRef, LabelChange, StartOptions};
use reeve_ipc::api::error::ApiError;
use reeve_ipc::device::DeviceChange;
use reeve_ipc::model::{
    BootSource, Device, DeviceName, Devices, Disk, DiskTarget, Domain, DomainName, DomainUuid,
    Labels, LifecycleAction, MemorySize, OnCrash, OnPowerOff, OnReboot, Platform, ResourceLimits,
    Tuning, Vcpus,
};
use reeve_ipc::spec::{CpuSwitches, DiskThrottle, MachineType, Rate, Rates};
use reeved::domain::actor::{Request, SessionId};
use reeved::domain::registry::Registry;
use tokio::task::AbortHandle;
use uuid::Uuid;

use crate::life::Life;
use crate::random::Random;
use crate::universe::Shared;

/// Domains that clients know of.
const DOMAINS: usize = 4;
const NAMES: [&str; DOMAINS] = ["alder", "birch", "cedar", "damson"];
const SESSIONS: usize = 3;

/// What is asked of the registry.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "there are few at a time")]
pub enum Call {
    Define(Box<Domain>, bool),
    Create(Box<Domain>, StartOptions),
    Start(StartOptions),
    Rename(DomainName),
    Other(Request),
}

/// A request without its answer.
#[derive(Debug)]
pub struct Asked {
    /// Its domain does what it is asked in the order of these.
    pub number: u64,
    pub session: SessionId,
    /// Whom it reached; `None` if there was nobody.
    pub uuid: Option<DomainUuid>,
    pub by_uuid: bool,
    pub call: Call,
    pub since_ms: u64,
    /// The worker that a destroy means.
    pub victim: Option<u32>,
    /// For how many steps its domain had had no record by then.
    pub vanished: u64,
    task: AbortHandle,
}

impl Asked {
    /// Whether it changes what is kept before it is known whether the rest succeeds.
    pub fn keeps_first(&self) -> bool {
        matches!(
            self.call,
            Call::Other(Request::Detach {
                live: true,
                persistent: true,
                ..
            })
        )
    }

    pub fn is_destroy(&self) -> bool {
        matches!(self.call, Call::Other(Request::Destroy))
    }
}

type Answers = Arc<Mutex<Vec<(u64, Result<(), ApiError>)>>>;

#[derive(Debug)]
pub struct Clients {
    pub waiting: BTreeMap<u64, Asked>,
    pub sessions: Vec<SessionId>,
    /// Sessions to which a start bound a domain, by domain.
    pub bound: BTreeMap<DomainUuid, BTreeSet<SessionId>>,
    answers: Answers,
    next_session: u64,
    /// Somebody went without an answer: the request may be on its way yet, as long as this supervisor
    /// lives.
    unanswered: bool,
}

impl Clients {
    pub fn new() -> Self {
        let mut clients = Self {
            waiting: BTreeMap::new(),
            sessions: Vec::new(),
            bound: BTreeMap::new(),
            answers: Answers::default(),
            next_session: 0,
            unanswered: false,
        };
        clients.connect();
        clients
    }

    /// As many connections as there are clients.
    pub fn connect(&mut self) {
        while self.sessions.len() < SESSIONS {
            self.next_session += 1;
            self.sessions.push(SessionId(self.next_session));
        }
    }

    /// The supervisor is gone, and every connection with it.
    pub fn disconnect(&mut self) -> Vec<Asked> {
        self.sessions.clear();
        self.bound.clear();
        self.unanswered = false;
        self.answers.lock().unwrap().clear();
        std::mem::take(&mut self.waiting).into_values().collect()
    }

    /// A connection ends: its requests are forgotten by whoever serves it, not by the actors.
    pub fn end_session(&mut self, life: &Life, index: usize) -> Vec<Asked> {
        let session = self.sessions.remove(index);
        self.connect();
        let theirs: Vec<u64> = self
            .waiting
            .iter()
            .filter(|(_, asked)| asked.session == session)
            .map(|(number, _)| *number)
            .collect();
        let asked: Vec<Asked> = theirs
            .into_iter()
            .filter_map(|number| self.waiting.remove(&number))
            .collect();
        for one in &asked {
            one.task.abort();
        }
        self.unanswered |= !asked.is_empty();
        let registry = life.registry.clone();
        life.spawn(async move { registry.session_ended(session).await });
        asked
    }

    /// The answers that have come, with what was asked.
    pub fn answered(&mut self) -> Vec<(Asked, Result<(), ApiError>)> {
        let answers = std::mem::take(&mut *self.answers.lock().unwrap());
        answers
            .into_iter()
            .filter_map(|(number, answer)| Some((self.waiting.remove(&number)?, answer)))
            .collect()
    }

    /// Whom a request will reach.
    fn resolve(&self, life: &Life, target: DomainRef) -> (DomainRef, Option<DomainUuid>) {
        if let DomainRef::Uuid(uuid) = target {
            return (target, Some(uuid));
        }
        match life.registry.view(&target) {
            Ok(view) => (target, Some(view.details.summary.uuid)),
            Err(_) if self.waiting.is_empty() && !self.unanswered => (target, None),
            // Its name may be reserved for one that is being defined, or renamed to it.
            Err(_) => {
                let uuid = uuids().next();
                (uuid.map_or(target, DomainRef::Uuid), uuid)
            }
        }
    }

    /// Sends a request; it is with its actor when the runtime has settled.
    pub fn send(
        &mut self,
        shared: &Shared,
        life: &Life,
        session: SessionId,
        target: DomainRef,
        call: Call,
        vanished: &BTreeMap<DomainUuid, u64>,
    ) {
        let (target, uuid) = self.resolve(life, target);
        let mut universe = shared.lock();
        let number = universe.number();
        universe.note(|| {
            format!(
                "request {number} of session {}: {target} {}",
                session.0,
                describe(&call)
            )
        });
        let victim = uuid
            .and_then(|uuid| universe.host.worker(uuid))
            .map(|(pid, _)| pid);
        if let (Call::Other(Request::Destroy), Some(uuid)) = (&call, uuid) {
            universe.host.condemned.insert(uuid);
        }
        let since_ms = universe.now_ms;
        drop(universe);
        if let (Call::Start(options) | Call::Create(_, options), Some(uuid)) = (&call, uuid) {
            if options.auto_destroy {
                self.bound.entry(uuid).or_default().insert(session);
            }
        }
        let (registry, answers, shared) = (
            life.registry.clone(),
            Arc::clone(&self.answers),
            shared.clone(),
        );
        let (asking, by_uuid) = (call.clone(), matches!(target, DomainRef::Uuid(_)));
        let task = life.spawn(async move {
            let answer = ask(&registry, &target, asking, session).await;
            let mut universe = shared.lock();
            if !universe.dead {
                universe.note(|| format!("answer to {number}: {answer:?}"));
                answers.lock().unwrap().push((number, answer));
            }
        });
        self.waiting.insert(
            number,
            Asked {
                number,
                session,
                uuid,
                by_uuid,
                call,
                since_ms,
                victim,
                vanished: uuid
                    .and_then(|uuid| vanished.get(&uuid).copied())
                    .unwrap_or(0),
                task,
            },
        );
    }
}

async fn ask(
    registry: &Registry,
    target: &DomainRef,
    call: Call,
    session: SessionId,
) -> Result<(), ApiError> {
    match call {
        Call::Define(domain, only_new) => registry.define(*domain, only_new).await.map(drop),
        Call::Create(domain, options) => registry.create(*domain, options, session).await.map(drop),
        Call::Start(options) => registry.start(target, options, session).await.map(drop),
        Call::Rename(name) => registry.rename(target, name).await,
        Call::Other(request) => registry.ask(target, request).await,
    }
}

fn describe(call: &Call) -> String {
    match call {
        Call::Define(domain, only_new) => format!(
            "define '{}' {:?}, only new {only_new}",
            domain.name, domain.lifecycle
        ),
        Call::Create(domain, options) => {
            format!(
                "create '{}' {:?} {options:?}",
                domain.name, domain.lifecycle
            )
        }
        Call::Start(options) => format!("start {options:?}"),
        Call::Rename(name) => format!("rename to '{name}'"),
        Call::Other(request) => format!("{request:?}"),
    }
}

pub fn uuids() -> impl Iterator<Item = DomainUuid> {
    (0..DOMAINS).map(|index| DomainUuid(Uuid::from_u128(index as u128 + 1)))
}

fn name(random: &mut Random) -> DomainName {
    random.pick(&NAMES).parse().unwrap()
}

/// A definition; mostly of the name that its UUID has.
fn domain(random: &mut Random, registry: &Registry) -> Domain {
    let index = random.below(DOMAINS);
    let uuid = DomainUuid(Uuid::from_u128(index as u128 + 1));
    let known = registry.view(&DomainRef::Uuid(uuid)).ok();
    let name = match known {
        _ if random.percent(15) => name(random),
        Some(view) => view.details.summary.name.clone(),
        None => NAMES[index].parse().unwrap(),
    };
    Domain {
        name,
        uuid,
        machine: MachineType::Reeve1_0,
        vcpus: Vcpus::try_from(1).unwrap(),
        max_vcpus: Vcpus::try_from(1).unwrap(),
        platform: Platform::default(),
        tuning: Tuning::default(),
        cpu: CpuSwitches::default(),
        memory: MemorySize::mebibytes(64),
        boot: BootSource::BuiltIn {
            command_line: String::new(),
        },
        devices: Devices {
            disks: random.percent(40).then(|| disk(1)).into_iter().collect(),
            ..Devices::default()
        },
        lifecycle: LifecycleAction {
            on_power_off: random.pick(&[
                OnPowerOff::Destroy,
                OnPowerOff::Restart,
                OnPowerOff::Preserve,
            ]),
            on_reboot: random.pick(&[OnReboot::Restart, OnReboot::Destroy, OnReboot::Preserve]),
            on_crash: random.pick(&[OnCrash::Destroy, OnCrash::Restart, OnCrash::Preserve]),
        },
        limits: ResourceLimits::default(),
        pinning: Vec::new(),
        labels: Labels {
            title: random
                .percent(30)
                .then(|| format!("title {}", random.below(9))),
            ..Labels::default()
        },
    }
}

/// Disks that clients know of; each has its place on the bus.
const DISKS: usize = 4;

fn target(index: usize) -> DiskTarget {
    DiskTarget::at(index).unwrap()
}

fn disk(index: usize) -> Disk {
    let slot = u8::try_from(index + 1).unwrap();
    Disk {
        address: Some(slot.try_into().unwrap()),
        ..Disk::new(target(index), None)
    }
}

/// What some client asks of a device.
fn device(random: &mut Random) -> Request {
    let index = random.below(DISKS);
    let (live, persistent) = (random.percent(80), random.percent(40));
    match random.below(10) {
        0..5 => Request::Attach {
            device: Box::new(Device::Disk(disk(index))),
            live,
            persistent,
        },
        5..9 => Request::Detach {
            device: DeviceName::Disk(target(index)),
            force: random.percent(40),
            live,
            persistent,
        },
        _ => Request::Update {
            device: DeviceName::Disk(target(index)),
            change: DeviceChange::DiskThrottle(DiskThrottle {
                bytes: Rates {
                    total: Some(Rate {
                        per_second: random.below(9) as u64 + 1,
                        burst: None,
                    }),
                    ..Rates::default()
                },
                ..DiskThrottle::default()
            }),
            live,
            persistent,
        },
    }
}

/// What some client asks next.
pub fn invent(random: &mut Random, registry: &Registry) -> (DomainRef, Call) {
    let uuid = DomainUuid(Uuid::from_u128(random.below(DOMAINS) as u128 + 1));
    let target = if random.percent(80) {
        DomainRef::Uuid(uuid)
    } else {
        DomainRef::Name(name(random))
    };
    let options = StartOptions {
        paused: random.percent(25),
        auto_destroy: random.percent(20),
    };
    if random.percent(12) {
        return (target, Call::Other(device(random)));
    }
    let call = match random.below(100) {
        0..18 => Call::Define(Box::new(domain(random, registry)), random.percent(20)),
        18..24 => Call::Create(Box::new(domain(random, registry)), options),
        24..45 => Call::Start(options),
        45..52 => {
            let how = random.below(100);
            Call::Other(Request::Shutdown {
                destroy_after_ms: (how < 50).then_some(3_000),
                for_host: how % 4 == 0,
            })
        }
        52..59 => Call::Other(Request::Reboot),
        59..63 => Call::Other(Request::Reset),
        63..69 => Call::Other(Request::Pause),
        69..76 => Call::Other(Request::Resume),
        76..83 => Call::Other(Request::Destroy),
        83..88 => Call::Other(Request::Undefine),
        88..92 => Call::Rename(name(random)),
        92..96 => Call::Other(Request::SetAutostart(
            random
                .percent(70)
                .then(|| u32::try_from(random.below(3)).unwrap()),
        )),
        _ => Call::Other(Request::SetLabel {
            change: LabelChange::Title(Some(format!("label {}", random.below(99)))),
            live: random.percent(60),
            persistent: random.percent(60),
        }),
    };
    match &call {
        Call::Define(domain, _) | Call::Create(domain, _) => (DomainRef::Uuid(domain.uuid), call),
        _ => (target, call),
    }
}
