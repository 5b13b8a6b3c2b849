//! Steps: what a job is made of, and the steps of each request.

use reeve_ipc::api::call::LabelChange;
use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::api::event::{EventKind, Label};
use reeve_ipc::api::view::{DomainDefinition, RunningReason};
use reeve_ipc::model::{Domain, Labels, check_namespace};

use super::DomainActor;
use super::message::{Intents, LiveRecord, Request, SessionId};
use super::standing::{Live, Machine};
use crate::domain::driver::{DeviceCall, WorkerCall};

/// One step of a job: an effect with an outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Put the record on disk.
    WriteRecord(Box<DomainDefinition>),
    /// Take it off.
    RemoveRecord,
    /// Put the worker's status into the run directory.
    WriteStatus(Box<LiveRecord>),
    /// Start a worker.
    Start {
        /// What its status says.
        record: Box<LiveRecord>,
        /// With no vCPU running.
        paused: bool,
        /// Why it will be running.
        reason: RunningReason,
        /// Bound to a client.
        session: Option<SessionId>,
    },
    /// Take over a worker.
    Adopt {
        /// Its number.
        id: u32,
        /// What its status says.
        record: Box<LiveRecord>,
    },
    /// Ask the worker.
    Call(WorkerCall),
    /// Ask of one of its devices, or of its vCPUs.
    Device(DeviceCall),
    /// Have a fresh worker take its machine over.
    HandOver,
}

impl Step {
    /// Whether an end of the worker or its guest interrupts it. What is on its way to the disk is
    /// awaited, and so is a worker that is being made: it is undone then.
    pub(super) const fn is_interruptible(&self) -> bool {
        matches!(self, Self::Call(_) | Self::Device(_) | Self::HandOver)
    }
}

impl DomainActor {
    /// The steps of an admitted request, and the events that tell of its success.
    pub(super) fn steps(&self, request: Request) -> Result<(Vec<Step>, Vec<EventKind>), ApiError> {
        let call = |call| Ok((vec![Step::Call(call)], Vec::new()));
        match request {
            Request::Define { domain, .. } => {
                let record = DomainDefinition {
                    domain: *domain,
                    autostart: self.record.as_ref().and_then(|record| record.autostart),
                };
                let changed = self.record.is_some();
                let event = EventKind::Defined { changed };
                Ok((vec![Step::WriteRecord(Box::new(record))], vec![event]))
            }
            Request::Undefine => Ok((vec![Step::RemoveRecord], vec![EventKind::Undefined])),
            Request::SetAutostart(order) => {
                let mut record = self.kept()?.clone();
                record.autostart = order;
                let event = EventKind::Autostart { order };
                Ok((vec![Step::WriteRecord(Box::new(record))], vec![event]))
            }
            Request::Rename(name) => {
                let mut record = self.kept()?.clone();
                let before = std::mem::replace(&mut record.domain.name, name);
                let event = EventKind::Renamed { before };
                Ok((vec![Step::WriteRecord(Box::new(record))], vec![event]))
            }
            Request::SetLabel {
                change,
                live,
                persistent,
            } => self.label_steps(&change, live, persistent),
            Request::Attach {
                device,
                live,
                persistent,
            } => self.attach_steps(&device, live, persistent),
            Request::Detach {
                device,
                force,
                live,
                persistent,
            } => self.detach_steps(&device, force, live, persistent),
            Request::Update {
                device,
                change,
                live,
                persistent,
            } => self.update_steps(&device, change, live, persistent),
            Request::ChangeMedium {
                device,
                medium,
                live,
                persistent,
            } => self.medium_steps(&device, medium.map(|medium| *medium), live, persistent),
            Request::ChangeTags {
                device,
                vlan,
                live,
                persistent,
            } => self.tags_steps(&device, vlan.as_deref(), live, persistent),
            Request::ChangeFilter {
                device,
                filter,
                live,
                persistent,
            } => self.filter_steps(&device, filter.as_deref(), live, persistent),
            Request::SetMemory {
                memory,
                live,
                persistent,
            } => self.memory_steps(memory, live, persistent),
            Request::SetMaxMemory(memory) => self.max_memory_steps(memory),
            Request::Tune {
                changes,
                live,
                persistent,
            } => self.tune_steps(&changes, live, persistent),
            Request::Upgrade => Ok((vec![Step::HandOver], Vec::new())),
            Request::SetVcpus {
                vcpus,
                live,
                persistent,
            } => self.vcpu_steps(vcpus, live, persistent),
            Request::SetAgentTimeout(timeout) => {
                let record = self.live().map(|live| live.record.clone());
                let steps = record.map(|mut record| {
                    record.agent_timeout = Some(timeout);
                    Step::WriteStatus(Box::new(record))
                });
                Ok((steps.into_iter().collect(), Vec::new()))
            }
            Request::Start(options, session) => {
                let domain = self.kept()?.domain.clone();
                let bound = options.auto_destroy.then_some(session);
                let step = self.start_step(domain, options.paused, bound, RunningReason::Booted);
                Ok((vec![step], Vec::new()))
            }
            Request::Create(domain, options, session) => {
                let bound = options.auto_destroy.then_some(session);
                let step = self.start_step(*domain, options.paused, bound, RunningReason::Booted);
                Ok((vec![step], Vec::new()))
            }
            Request::Shutdown {
                destroy_after_ms,
                for_host,
            } => {
                let live = self.running()?;
                let mut record = live.record.clone();
                record.intents.shutting_down = true;
                record.intents.for_host |= for_host;
                record.intents.restart_after_resets = None;
                if let Some(after) = destroy_after_ms {
                    let at = self.now.boot_ms + u64::from(after);
                    record.intents.destroy_at_boot_ms = Some(at);
                }
                let mut steps = pressing(record);
                // Admitted only for the host: a guest that stands notices no button.
                if !matches!(live.machine, Machine::Running(_)) {
                    steps.insert(1, Step::Call(WorkerCall::Resume));
                }
                Ok((steps, Vec::new()))
            }
            Request::Reboot => {
                let live = self.running()?;
                let mut record = live.record.clone();
                if record.intents.for_host {
                    let why = "the host is shutting down, and the domain with it";
                    return Err(self.error(ApiErrorCode::WrongState, why));
                }
                record.intents.restart_after_resets = Some(live.resets);
                record.intents.shutting_down = false;
                record.intents.destroy_at_boot_ms = None;
                Ok((pressing(record), Vec::new()))
            }
            Request::Reset => {
                let ended = self.running()?.has_ended();
                let mut steps = vec![Step::Call(WorkerCall::Reset)];
                if ended {
                    steps.push(Step::Call(WorkerCall::Resume));
                }
                Ok((steps, Vec::new()))
            }
            Request::Pause => call(WorkerCall::Pause),
            Request::Resume => call(WorkerCall::Resume),
            // Admission never makes a job of it.
            Request::Destroy => Err(self.error(ApiErrorCode::WrongState, "it is not running")),
        }
    }

    fn label_steps(
        &self,
        change: &LabelChange,
        live: bool,
        persistent: bool,
    ) -> Result<(Vec<Step>, Vec<EventKind>), ApiError> {
        let changed = |domain: &Domain| {
            let mut domain = domain.clone();
            apply(&mut domain.labels, change.clone());
            domain
                .labels
                .validate()
                .map_err(|error| self.error(ApiErrorCode::InvalidArgument, error))?;
            Ok(domain)
        };
        let label = change.label();
        if let Label::Metadata { uri } = &label {
            // Of one that is taken away too: it is told of, whether or not it was there.
            check_namespace(uri)
                .map_err(|error| self.error(ApiErrorCode::InvalidArgument, error))?;
        }
        let mut steps = Vec::new();
        // First what can be undone without waiting for the disk.
        if live {
            let mut record = self.running()?.record.clone();
            record.definition = changed(&record.definition)?;
            steps.push(Step::WriteStatus(Box::new(record)));
        }
        if persistent {
            let mut record = self.kept()?.clone();
            record.domain = changed(&record.domain)?;
            steps.push(Step::WriteRecord(Box::new(record)));
        }
        Ok((steps, vec![EventKind::Labels { label }]))
    }

    pub(super) fn start_step(
        &self,
        definition: Domain,
        paused: bool,
        session: Option<SessionId>,
        reason: RunningReason,
    ) -> Step {
        let record = LiveRecord {
            intents: Intents {
                auto_destroy: session.is_some(),
                asks_memory: self.asks_memory(&definition),
                ..Intents::default()
            },
            definition,
            started_ms: self.now.unix_ms,
            agent_timeout: self.agent_timeout,
        };
        Step::Start {
            record: Box::new(record),
            paused,
            reason,
            session,
        }
    }

    pub(super) fn kept(&self) -> Result<&DomainDefinition, ApiError> {
        self.record
            .as_ref()
            .ok_or_else(|| self.error(ApiErrorCode::WrongState, "it is transient"))
    }

    pub(super) fn running(&self) -> Result<&Live, ApiError> {
        self.live()
            .ok_or_else(|| self.error(ApiErrorCode::WrongState, "it is not running"))
    }
}

/// The intent is written before the button is pressed: the guest may be off before the answer comes.
fn pressing(record: LiveRecord) -> Vec<Step> {
    vec![
        Step::WriteStatus(Box::new(record)),
        Step::Call(WorkerCall::PowerButton),
    ]
}

/// Changes what is noted.
pub(crate) fn apply(labels: &mut Labels, change: LabelChange) {
    match change {
        LabelChange::Title(title) => labels.title = title,
        LabelChange::Description(description) => labels.description = description,
        LabelChange::Metadata(element) => {
            match labels
                .metadata
                .iter_mut()
                .find(|old| old.uri == element.uri)
            {
                Some(old) => *old = element,
                None => labels.metadata.push(element),
            }
        }
        LabelChange::MetadataRemove { uri } => labels.metadata.retain(|old| old.uri != uri),
    }
}
