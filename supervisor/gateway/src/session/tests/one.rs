//! A supervisor of one domain, `a`, that does to its definitions what it is asked to.

use std::path::Path;
use std::sync::{Arc, Mutex};

use reeve_ipc::api::call::{AnswerBody, CallBody, DiskSize, DomainPage, LabelChange, TuningChange};
use reeve_ipc::api::error::ApiErrorCode;
use reeve_ipc::api::figures::{DomainFigures, DomainUsage, FiguresPage};
use reeve_ipc::api::view::{
    AgentTimeout, DeviceStats, DomainDefinition, DomainState, DomainSummary, RunningReason,
    ShutOffReason,
};
use reeve_ipc::model::{Domain, DomainUuid, MemorySize, VcpuPin};

use super::harness::{Act, Client, handle};
use super::host::{host_info, supervisor_info};
use crate::calls::testing::{details, summary, uuid_of};
use crate::wire::types::handles::Domain as Handle;
use crate::xml::domain::{Hypervisor, Parse, parse};

/// The domain: what it runs with, and what is kept of it.
#[derive(Debug, Clone)]
pub(super) struct One {
    pub(super) running: Option<Domain>,
    pub(super) kept: Option<Domain>,
    /// What its guest has.
    pub(super) current: MemorySize,
    pub(super) stats: Vec<DeviceStats>,
    /// How long its guest's agent is waited for.
    pub(super) agent_timeout: Option<AgentTimeout>,
}

/// A definition: 64 MiB, 2 of 4 vCPUs, and these elements and devices.
pub(super) fn definition(elements: &str, devices: &str) -> Domain {
    let text = format!(
        "<domain type='kvm'><name>a</name><memory unit='MiB'>64</memory><vcpu current='2'>4</vcpu>\
         <os><type>hvm</type><kernel>/k</kernel></os>{elements}<devices>{devices}</devices></domain>"
    );
    let how = Parse {
        uuid: DomainUuid(uuid_of("a")),
        sockets: Path::new("/run/reeve/sockets"),
        hypervisor: Hypervisor::Kvm,
    };
    let mut domain = parse(&text, &how).unwrap().domain;
    domain.complete().unwrap();
    domain
}

impl One {
    /// It runs with what is kept of it.
    pub(super) fn running(domain: Domain) -> Self {
        Self {
            current: domain.memory,
            running: Some(domain.clone()),
            kept: Some(domain),
            stats: Vec::new(),
            agent_timeout: None,
        }
    }

    /// It is off.
    pub(super) fn off(domain: Domain) -> Self {
        Self {
            running: None,
            ..Self::running(domain)
        }
    }

    /// A client of it, the domain's handle, and the domain.
    pub(super) fn client(self) -> (Client, Handle, Arc<Mutex<Self>>) {
        let id = self.running.as_ref().map_or(-1, |_| 5);
        let one = Arc::new(Mutex::new(self));
        let script = Arc::clone(&one);
        let client = Client::open(move |call| script.lock().unwrap().act(call));
        (client, handle("a", id), one)
    }

    fn summary(&self) -> DomainSummary {
        let state = match self.running {
            Some(_) => DomainState::Running(RunningReason::Booted),
            None => DomainState::ShutOff(ShutOffReason::Destroyed),
        };
        let domain = self.running.as_ref().or(self.kept.as_ref()).unwrap();
        DomainSummary {
            persistent: self.kept.is_some(),
            vcpus: domain.vcpus.count(),
            max_vcpus: domain.max_vcpus.count(),
            memory: domain.memory,
            current_memory: self.current,
            max_memory: domain.max_memory(),
            ..summary("a", state)
        }
    }

    /// The definitions that are meant.
    fn each(&mut self, live: bool, persistent: bool) -> Vec<&mut Domain> {
        let running = self.running.as_mut().filter(|_| live);
        let kept = self.kept.as_mut().filter(|_| persistent);
        running.into_iter().chain(kept).collect()
    }

    /// Does what is asked.
    pub(super) fn act(&mut self, call: &CallBody) -> Act {
        match self.answer(call) {
            Some(answer) => Act::Answer(answer),
            None => Act::Fail(ApiErrorCode::NoDevice, "there is no such device"),
        }
    }

    fn answer(&mut self, call: &CallBody) -> Option<AnswerBody> {
        Some(match call {
            CallBody::SupervisorInfoGet(_) => AnswerBody::SupervisorInfoGet(supervisor_info()),
            CallBody::HostInfoGet(_) => AnswerBody::HostInfoGet(Box::new(host_info())),
            CallBody::DomainList(list) => {
                let listed = !list.active_only || self.running.is_some();
                AnswerBody::DomainList(DomainPage {
                    domains: listed.then(|| self.summary()).into_iter().collect(),
                    more: false,
                })
            }
            CallBody::DomainGet(_) => {
                let summary = self.summary();
                let state = summary.state;
                AnswerBody::DomainGet(reeve_ipc::api::view::DomainDetails {
                    summary,
                    agent_timeout: self.agent_timeout,
                    ..details("a", state)
                })
            }
            CallBody::DomainDefinitionGet(get) => {
                let running = self.running.as_ref().filter(|_| !get.persistent);
                let domain = running.or(self.kept.as_ref())?.clone();
                AnswerBody::DomainDefinitionGet(Box::new(DomainDefinition {
                    domain,
                    autostart: None,
                }))
            }
            CallBody::DomainFiguresList(_) => AnswerBody::DomainFiguresList(FiguresPage {
                domains: vec![self.figures()],
                of: 1,
                more: false,
            }),
            other => return self.change(other),
        })
    }

    fn figures(&self) -> DomainFigures {
        DomainFigures {
            summary: self.summary(),
            usage: self.running.as_ref().map(|_| DomainUsage {
                cpu_time_ns: 3_000,
                user_ns: 2_000,
                system_ns: 1_000,
                resident_bytes: 1 << 20,
            }),
            vcpus: Vec::new(),
            devices: self.stats.clone(),
            answered: true,
        }
    }

    fn change(&mut self, call: &CallBody) -> Option<AnswerBody> {
        Some(match call {
            CallBody::DomainTune(tune) => {
                for domain in self.each(tune.live, tune.persistent) {
                    tune.changes.iter().for_each(|change| apply(domain, change));
                }
                AnswerBody::DomainTune(())
            }
            CallBody::DomainCurrentMemorySet(_) => AnswerBody::DomainCurrentMemorySet(()),
            CallBody::DomainMaxMemorySet(_) => AnswerBody::DomainMaxMemorySet(()),
            CallBody::DomainVcpusSet(_) => AnswerBody::DomainVcpusSet(()),
            CallBody::DomainDefine(define) => {
                self.kept = Some((*define.definition).clone());
                AnswerBody::DomainDefine(self.summary())
            }
            CallBody::DomainDeviceAttach(attach) => {
                for domain in self.each(attach.live, attach.persistent) {
                    domain.devices.add((*attach.device).clone()).unwrap();
                    domain.complete().unwrap();
                    domain.validate().unwrap();
                }
                AnswerBody::DomainDeviceAttach(())
            }
            CallBody::DomainDeviceDetach(detach) => {
                for domain in self.each(detach.live, detach.persistent) {
                    domain.devices.remove(&detach.device).then_some(())?;
                }
                AnswerBody::DomainDeviceDetach(())
            }
            CallBody::DomainDeviceUpdate(update) => {
                for domain in self.each(update.live, update.persistent) {
                    let (device, change) = (&update.device, update.change);
                    domain.devices.change(device, change).unwrap();
                }
                AnswerBody::DomainDeviceUpdate(())
            }
            CallBody::DomainMediumChange(change) => {
                for domain in self.each(change.live, change.persistent) {
                    let medium = change.medium.as_deref().cloned();
                    domain
                        .devices
                        .change_medium(&change.device, medium)
                        .unwrap();
                }
                AnswerBody::DomainMediumChange(())
            }
            CallBody::DomainLabelSet(set) => {
                for domain in self.each(set.live, set.persistent) {
                    label(domain, &set.label);
                }
                AnswerBody::DomainLabelSet(())
            }
            CallBody::DomainDiskSizeGet(_) => AnswerBody::DomainDiskSizeGet(DiskSize {
                capacity: 1 << 20,
                allocation: 4096,
                physical: 1 << 20,
            }),
            CallBody::DomainAgentTimeoutSet(set) => {
                self.agent_timeout = Some(set.timeout);
                AnswerBody::DomainAgentTimeoutSet(())
            }
            other => panic!("the supervisor is asked {other:?}"),
        })
    }
}

fn apply(domain: &mut Domain, change: &TuningChange) {
    match change.clone() {
        TuningChange::VcpuCpus { vcpu, cpus } => {
            domain.pinning.retain(|pin| pin.vcpu != vcpu);
            let pin = cpus.map(|cpus| VcpuPin { vcpu, cpus });
            domain.pinning.extend(pin);
        }
        TuningChange::EmulatorCpus(cpus) => domain.tuning.emulator_cpus = cpus,
        TuningChange::MemoryLimit(limit) => domain.limits.memory = limit,
        TuningChange::MemorySoftLimit(limit) => domain.limits.memory_soft = limit,
        TuningChange::MemoryAndSwapLimit(limit) => domain.limits.memory_and_swap = limit,
        TuningChange::CpuPercent(percent) => domain.limits.cpu_percent = percent,
        TuningChange::VcpuPercent(percent) => domain.limits.vcpu_percent = percent,
        TuningChange::CpuWeight(weight) => domain.limits.cpu_weight = weight,
        TuningChange::VcpuQuota(quota) => domain.tuning.vcpu_quota = quota,
        TuningChange::Block(block) => domain.tuning.block = block,
        TuningChange::MemoryNodes(nodes) => domain.tuning.memory_nodes = nodes,
    }
}

fn label(domain: &mut Domain, change: &LabelChange) {
    let labels = &mut domain.labels;
    match change.clone() {
        LabelChange::Title(title) => labels.title = title,
        LabelChange::Description(description) => labels.description = description,
        LabelChange::Metadata(element) => {
            labels.metadata.retain(|before| before.uri != element.uri);
            labels.metadata.push(element);
        }
        LabelChange::MetadataRemove { uri } => labels.metadata.retain(|before| before.uri != uri),
    }
}
