//! A supervisor of few words: definitions in memory, and machines that start and stop as they are told.

#![expect(
    clippy::result_large_err,
    reason = "what a test answers, made once a call"
)]

use std::collections::BTreeMap;

use reeve_ipc::api::call::{AnswerBody, CallBody, DomainPage, DomainRef, LabelChange, NetworkPage};
use reeve_ipc::api::error::ApiErrorCode;
use reeve_ipc::api::event::EventKind;
use reeve_ipc::api::figures::{DomainFigures, DomainUsage, FiguresOf, FiguresPage};
use reeve_ipc::api::host::{
    HostCpu, HostCpuModel, HostCpuPage, HostCpuid, HostDriver, HostInfo, HostNode, HostTopology,
};
use reeve_ipc::api::view::{
    DomainDefinition, DomainDetails, DomainState, DomainSummary, PausedReason, RunningReason,
    ShutOffReason, SupervisorInfo,
};
use reeve_ipc::model::{CpuSet, Domain, DomainUuid, MemorySize};
use reeve_ipc::spec::{CpuidEntry, MachineType};
use uuid::Uuid;

use super::harness::{Act, Supervisor};

#[derive(Debug, Clone)]
struct Machine {
    running: Domain,
    kept: Option<Domain>,
    autostart: Option<u32>,
    state: DomainState,
    id: Option<u32>,
}

/// Every domain, by name.
#[derive(Debug, Default)]
pub(super) struct Host {
    machines: BTreeMap<String, Machine>,
    ids: u32,
}

const RUNNING: DomainState = DomainState::Running(RunningReason::Booted);
const OFF: DomainState = DomainState::ShutOff(ShutOffReason::Unknown);

impl Machine {
    fn summary(&self) -> DomainSummary {
        let domain = &self.running;
        DomainSummary {
            name: domain.name.clone(),
            uuid: domain.uuid,
            id: self.id,
            state: self.state,
            persistent: self.kept.is_some(),
            autostart: self.autostart,
            vcpus: domain.vcpus.count(),
            memory: domain.memory,
            title: domain.labels.title.clone(),
            unresponsive: false,
            reaping: false,
            job: None,
            max_vcpus: domain.max_vcpus.count(),
            current_memory: domain.memory,
            max_memory: domain.max_memory(),
        }
    }

    fn figures(&self) -> DomainFigures {
        DomainFigures {
            summary: self.summary(),
            usage: self.id.map(|_| DomainUsage {
                cpu_time_ns: 3_000_000_000,
                ..DomainUsage::default()
            }),
            vcpus: Vec::new(),
            devices: Vec::new(),
            answered: false,
        }
    }
}

impl Host {
    fn find(&mut self, domain: &DomainRef) -> Result<&mut Machine, Act> {
        let mut machines = self.machines.values_mut();
        let found = machines.find(|machine| match domain {
            DomainRef::Name(name) => machine.running.name == *name,
            DomainRef::Uuid(uuid) => machine.running.uuid == *uuid,
            DomainRef::Id(id) => machine.id == Some(*id),
        });
        found.ok_or(Act::Fail(ApiErrorCode::NoDomain, "there is no such domain"))
    }

    /// Does what is asked, and tells of it.
    pub(super) fn act(&mut self, supervisor: &Supervisor, call: &CallBody) -> Act {
        self.answer(supervisor, call).unwrap_or_else(|act| act)
    }

    fn answer(&mut self, supervisor: &Supervisor, call: &CallBody) -> Result<Act, Act> {
        let wrong = |why| Err(Act::Fail(ApiErrorCode::WrongState, why));
        let mut tell = Vec::new();
        let answer = match call {
            CallBody::SupervisorInfoGet(_) => AnswerBody::SupervisorInfoGet(supervisor_info()),
            CallBody::HostInfoGet(_) => AnswerBody::HostInfoGet(Box::new(host_info())),
            CallBody::HostCpuidGet(_) => AnswerBody::HostCpuidGet(cpuid()),
            CallBody::HostCpuList(_) => AnswerBody::HostCpuList(HostCpuPage {
                cpus: vec![HostCpu {
                    cpu: 0,
                    node: 0,
                    socket: 0,
                    die: 0,
                    core: 0,
                }],
                more: false,
            }),
            CallBody::DomainList(list) => {
                let machines = self.machines.values();
                let listed =
                    machines.filter(|machine| !list.active_only || machine.state.is_active());
                let domains = listed.map(Machine::summary).collect();
                AnswerBody::DomainList(DomainPage {
                    domains,
                    more: false,
                })
            }
            CallBody::DomainGet(get) => AnswerBody::DomainGet(DomainDetails {
                summary: self.find(&get.domain)?.summary(),
                started_ms: None,
                worker: None,
                resets: 0,
                last_failure: None,
                redefined: false,
                agent_timeout: None,
            }),
            CallBody::DomainDefinitionGet(get) => {
                let machine = self.find(&get.domain)?;
                let kept = machine.kept.as_ref().filter(|_| get.persistent);
                let domain = kept.unwrap_or(&machine.running).clone();
                let autostart = machine.autostart;
                AnswerBody::DomainDefinitionGet(Box::new(DomainDefinition { domain, autostart }))
            }
            CallBody::DomainDeviceStatsGet(_) => AnswerBody::DomainDeviceStatsGet(Vec::new()),
            CallBody::DomainFiguresList(list) => {
                let domains = match &list.of {
                    FiguresOf::All { .. } => self.machines.values().map(Machine::figures).collect(),
                    FiguresOf::Named(refs) => {
                        let mut figures = Vec::new();
                        for domain in refs {
                            figures.push(self.find(domain)?.figures());
                        }
                        figures
                    }
                };
                let of = u32::try_from(domains.len()).unwrap();
                AnswerBody::DomainFiguresList(FiguresPage {
                    domains,
                    of,
                    more: false,
                })
            }
            CallBody::DomainDefine(define) => {
                let mut domain = (*define.definition).clone();
                domain.complete().unwrap();
                let changed = self.machines.contains_key(domain.name.as_str());
                let name = domain.name.as_str().to_owned();
                let machine = self.machines.entry(name).or_insert(Machine {
                    running: domain.clone(),
                    kept: None,
                    autostart: None,
                    state: OFF,
                    id: None,
                });
                machine.kept = Some(domain.clone());
                if machine.id.is_none() {
                    machine.running = domain;
                }
                tell.push((machine.running.name.clone(), EventKind::Defined { changed }));
                AnswerBody::DomainDefine(machine.summary())
            }
            CallBody::DomainUndefine(undefine) => {
                let machine = self.find(&undefine.domain)?;
                machine.kept = None;
                let name = machine.running.name.clone();
                if machine.id.is_none() {
                    self.machines.remove(name.as_str());
                }
                tell.push((name, EventKind::Undefined));
                AnswerBody::DomainUndefine(())
            }
            CallBody::DomainStart(start) => {
                let id = self.ids + 1;
                let machine = self.find(&start.domain)?;
                if machine.id.is_some() {
                    return wrong("it is running");
                }
                machine.id = Some(id);
                machine.state = match start.options.paused {
                    true => DomainState::Paused(PausedReason::User),
                    false => RUNNING,
                };
                tell.push((
                    machine.running.name.clone(),
                    EventKind::State(machine.state),
                ));
                let summary = machine.summary();
                self.ids = id;
                AnswerBody::DomainStart(summary)
            }
            CallBody::DomainPause(pause) => {
                let machine = self.find(&pause.domain)?;
                if machine.state != RUNNING {
                    return wrong("it is not running");
                }
                machine.state = DomainState::Paused(PausedReason::User);
                tell.push((
                    machine.running.name.clone(),
                    EventKind::State(machine.state),
                ));
                AnswerBody::DomainPause(())
            }
            CallBody::DomainResume(resume) => {
                let machine = self.find(&resume.domain)?;
                machine.state = DomainState::Running(RunningReason::Unpaused);
                tell.push((
                    machine.running.name.clone(),
                    EventKind::State(machine.state),
                ));
                AnswerBody::DomainResume(())
            }
            CallBody::DomainDestroy(destroy) => {
                let machine = self.find(&destroy.domain)?;
                if machine.id.take().is_none() {
                    return wrong("it is not running");
                }
                machine.state = DomainState::ShutOff(ShutOffReason::Destroyed);
                tell.push((
                    machine.running.name.clone(),
                    EventKind::State(machine.state),
                ));
                AnswerBody::DomainDestroy(())
            }
            CallBody::DomainAutostartSet(set) => {
                self.find(&set.domain)?.autostart = set.order;
                AnswerBody::DomainAutostartSet(())
            }
            CallBody::DomainLabelSet(set) => {
                let machine = self.find(&set.domain)?;
                if let LabelChange::Title(title) = &set.label {
                    machine.running.labels.title.clone_from(title);
                }
                AnswerBody::DomainLabelSet(())
            }
            CallBody::NetworkList(_) => AnswerBody::NetworkList(NetworkPage {
                networks: Vec::new(),
                more: false,
            }),
            other => panic!("the supervisor is asked {other:?}"),
        };
        for (name, kind) in tell {
            let uuid = self.machines.get(name.as_str());
            let uuid = uuid.map_or(DomainUuid(Uuid::nil()), |machine| machine.running.uuid);
            supervisor.event_of(uuid, name, kind);
        }
        Ok(Act::Answer(answer))
    }
}

pub(super) fn supervisor_info() -> SupervisorInfo {
    SupervisorInfo {
        build: "test".to_owned(),
        pid: 1,
        started_ms: 0,
        state_directory: "/state".to_owned(),
        run_directory: "/run/reeve".to_owned(),
        active: 0,
        inactive: 0,
        adopted: 0,
        adopted_within_us: 0,
        clients: 1,
        refused: Vec::new(),
    }
}

/// A processor of libvirt's model `kvm64` with SSSE3, and guests without that.
fn cpuid() -> HostCpuid {
    let leaf = |function, registers| CpuidEntry {
        function,
        index: 0,
        flags: 0,
        registers,
    };
    let leaves = |ecx| {
        vec![
            leaf(1, [0, 0, ecx, 0x078B_FBFD]),
            leaf(0x8000_0001, [0, 0, 0, 1 << 29 | 1 << 20 | 1 << 11]),
        ]
    };
    HostCpuid {
        host: leaves(1 << 13 | 1 << 9 | 1),
        guest: leaves(1 << 13 | 1),
    }
}

pub(super) fn host_info() -> HostInfo {
    let one: CpuSet = "0".parse().unwrap();
    HostInfo {
        hostname: "host.example".to_owned(),
        uuid: Uuid::from_u128(7),
        architecture: "x86_64".to_owned(),
        cpu: HostCpuModel {
            mhz: Some(2000),
            ..HostCpuModel::default()
        },
        topology: HostTopology {
            nodes: 1,
            sockets: 1,
            cores: 1,
            threads: 1,
        },
        online: one.clone(),
        present: one.clone(),
        possible: one.clone(),
        nodes: vec![HostNode {
            node: 0,
            cpus: Some(one),
            memory: MemorySize::mebibytes(1024),
            distances: vec![10],
            pages: Vec::new(),
        }],
        memory: MemorySize::mebibytes(1024),
        driver: HostDriver::Test,
        kvm_lacks: None,
        machines: MachineType::ALL.to_vec(),
        max_vcpus: 64,
    }
}
