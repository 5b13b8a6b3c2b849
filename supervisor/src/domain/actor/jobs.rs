//! Jobs: each a list of steps, begun one after the other, until the last is done or one fails.

use std::collections::VecDeque;

use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::api::event::EventKind;
use reeve_ipc::api::view::{JobKind, ShutOffReason};
use reeve_ipc::model::{DeviceName, DevicePlace, Vcpus};

use super::DomainActor;
use super::message::{Effect, LiveRecord, Request, Ticket};
use super::planted::{self, Bug};
use super::standing::{Activity, Live};
use super::steps::Step;
use crate::domain::driver::{DeviceCall, WorkerCall};

/// The one thing that changes a domain just now.
#[derive(Debug)]
pub(super) struct Job {
    kind: JobKind,
    pub(super) ticket: Option<Ticket>,
    pub(super) serial: u64,
    pub(super) step: Step,
    rest: VecDeque<Step>,
    events: Vec<EventKind>,
    /// What the worker's status said before, where the job writes it first and acts then.
    before: Option<Box<LiveRecord>>,
    /// The worker has answered, and what was asked is yet to come.
    pub(super) answered: bool,
    /// What was asked has had its time, and it is being looked whether it came.
    pub(super) overdue: bool,
    /// The worker, or the host for it, has done one of its steps.
    acted: bool,
    /// What takes back what the worker was asked, where what comes after that fails.
    undo: Vec<DeviceCall>,
}

impl Job {
    pub(super) fn kind(&self) -> JobKind {
        self.kind
    }

    /// Puts how many vCPUs there are into all that the job will write of the worker.
    pub(super) fn note_vcpus(&mut self, vcpus: Vcpus) {
        for record in self.written() {
            record.definition.vcpus = vcpus;
        }
    }

    /// Takes a device that is gone out of all that the job will write of the worker.
    pub(super) fn strike(&mut self, device: &DeviceName) {
        for record in self.written() {
            record.definition.devices.remove(device);
        }
    }

    fn written(&mut self) -> impl Iterator<Item = &mut Box<LiveRecord>> {
        let steps = std::iter::once(&mut self.step).chain(&mut self.rest);
        let written = steps.filter_map(|step| match step {
            Step::WriteStatus(record) => Some(record),
            _ => None,
        });
        written.chain(&mut self.before)
    }
}

impl DomainActor {
    pub(super) fn begin(&mut self, ticket: Option<Ticket>, kind: JobKind, request: Request) {
        let before = self.live().map(|live| Box::new(live.record.clone()));
        if let (Request::SetAgentTimeout(timeout), None) = (&request, &before) {
            // There is no status to keep it in.
            self.agent_timeout = Some(*timeout);
        }
        match self.steps(request) {
            Ok((steps, events)) => {
                let undo = self.undo_of(&steps);
                self.begin_steps(ticket, kind, steps);
                if let Some(job) = &mut self.job {
                    job.events = events;
                    job.before = before;
                    job.undo = undo;
                }
            }
            Err(error) => {
                if let Some(ticket) = ticket {
                    self.answer(ticket, Err(error));
                }
            }
        }
    }

    pub(super) fn begin_steps(
        &mut self,
        ticket: Option<Ticket>,
        kind: JobKind,
        steps: impl IntoIterator<Item = Step>,
    ) {
        let mut rest: VecDeque<Step> = steps.into_iter().collect();
        if let Some(step) = rest.pop_front() {
            self.job = Some(Job {
                kind,
                ticket,
                serial: 0,
                step: step.clone(),
                rest,
                events: Vec::new(),
                before: None,
                answered: false,
                overdue: false,
                acted: false,
                undo: Vec::new(),
            });
            self.issue(step);
        } else if let Some(ticket) = ticket {
            self.answer(ticket, Ok(()));
        }
    }

    /// Asks for `step`, which is the job's.
    fn issue(&mut self, step: Step) {
        self.serial += 1;
        let serial = self.serial;
        if let Some(job) = &mut self.job {
            job.serial = serial;
        }
        let id = self.live().map_or(0, |live| live.id);
        let effect = match step {
            Step::WriteRecord(record) => {
                let job = self.job.as_mut();
                let early = job.filter(|_| planted::has(Bug::AnswersBeforeWritten));
                if let Some(ticket) = early.and_then(|job| job.ticket.take()) {
                    self.answer(ticket, Ok(()));
                }
                Effect::WriteRecord(serial, record)
            }
            Step::RemoveRecord => Effect::RemoveRecord(serial),
            Step::WriteStatus(record) => Effect::WriteStatus(Some(serial), id, record),
            Step::Start {
                record,
                paused,
                session,
                ..
            } => {
                let id = self.fresh_id();
                let live = Live::new(id, (*record).clone(), session);
                self.activity = Activity::Live(Box::new(live));
                Effect::Start {
                    serial,
                    id,
                    record,
                    paused,
                }
            }
            Step::Adopt { id, record } => Effect::Adopt { serial, id, record },
            Step::Call(call) => {
                if let Some(live) = self.live_mut() {
                    live.resets_asked = live.resets;
                }
                Effect::Call(serial, id, call)
            }
            Step::Device(call) => {
                if matches!(call, DeviceCall::Attach { .. }) {
                    self.device_was_made();
                }
                Effect::Device(serial, id, call)
            }
            Step::HandOver => {
                let definition = self.live().map(|live| live.record.definition.clone());
                let Some(definition) = definition else {
                    return;
                };
                Effect::HandOver(serial, id, Box::new(definition))
            }
        };
        self.effects.push(effect);
    }

    pub(super) fn step_done(&mut self) {
        let Some(job) = &mut self.job else { return };
        job.acted |= match &job.step {
            Step::Device(call) => !call.is_look(),
            _ => false,
        };
        if let Some(step) = job.rest.pop_front() {
            job.step = step.clone();
            self.issue(step);
        } else {
            self.job_succeeded();
        }
    }

    /// Tells what the job changes, which is done now whatever becomes of the rest.
    pub(super) fn tell_of_job(&mut self) {
        let events = self.job.as_mut().map(|job| std::mem::take(&mut job.events));
        let events = events.unwrap_or_default().into_iter();
        self.effects.extend(events.map(Effect::Event));
    }

    pub(super) fn job_succeeded(&mut self) {
        self.tell_of_job();
        let Some(job) = self.job.take() else { return };
        if let Some(ticket) = job.ticket {
            self.answer(ticket, Ok(()));
        }
    }

    pub(super) fn job_failed(&mut self, error: ApiError) {
        let Some(mut job) = self.job.take() else {
            return;
        };
        let undo = std::mem::take(&mut job.undo);
        let not_done = match job.step {
            // The worker has done its part already.
            Step::WriteRecord(_) if !undo.is_empty() => self.undo(undo, &mut job.before),
            // Or one of two.
            Step::Device(DeviceCall::Update { .. }) if job.acted => {
                self.undo(undo, &mut job.before);
                error.code != ApiErrorCode::Timeout
            }
            // Where the worker did not answer in time it may have done it, or do it yet.
            Step::Device(
                DeviceCall::Attach { .. }
                | DeviceCall::Update { .. }
                | DeviceCall::Medium { .. }
                | DeviceCall::Tags { .. }
                | DeviceCall::Filter { .. }
                | DeviceCall::Tune { .. },
            ) => error.code != ApiErrorCode::Timeout,
            Step::WriteRecord(_) => true,
            // A button that was not pressed in time may be pressed yet.
            // Nor does a refusal keep a domain from its end with the host.
            Step::Call(WorkerCall::PowerButton) => {
                let for_host = self.live().is_some_and(|live| live.record.intents.for_host);
                error.code != ApiErrorCode::Timeout && !for_host
            }
            _ => false,
        };
        if let Some(before) = job.before.filter(|_| not_done) {
            self.take_back(*before);
        }
        match job.ticket {
            Some(ticket) => self.answer(ticket, Err(error)),
            None => {
                let error_code = error.code;
                self.last_failure = Some(error.message.clone());
                self.effects.push(Effect::Event(EventKind::JobFailed {
                    job: job.kind,
                    message: error.message,
                }));
                match job.step {
                    // What a host does not have its next supervisor is not to ask for either.
                    Step::Device(DeviceCall::Tune { .. })
                        if error_code != ApiErrorCode::Timeout =>
                    {
                        self.tune_refused();
                    }
                    // What a guest cannot be asked for once it cannot be asked for again.
                    Step::Device(DeviceCall::Update { .. })
                        if error_code != ApiErrorCode::Timeout =>
                    {
                        if let Some(live) = self.live() {
                            let mut asked = live.record.clone();
                            asked.intents.asks_memory = false;
                            self.take_back(asked);
                        }
                    }
                    _ if job.kind != JobKind::Policy => {}
                    // Everything is done but for the note of it: the next status that can be written
                    // says it.
                    Step::WriteStatus(record) if job.rest.is_empty() => {
                        if let Some(live) = self.live_mut().filter(|live| live.killed.is_none()) {
                            live.record = *record;
                        }
                    }
                    // A reset that nobody waited for any more came since, and what was asked in vain may
                    // be obeyed yet: the guest has not ended any more.
                    Step::Call(_) if self.was_reset_behind_its_end() => self.restart_in_doubt(),
                    // Its guest has ended and cannot be brought back: nothing is served by keeping it.
                    _ => self.kill(ShutOffReason::Crashed),
                }
            }
        }
    }

    /// Whether the job makes the worker, or takes it over.
    pub(super) fn is_making(&self) -> bool {
        let job = self.job.as_ref();
        job.is_some_and(|job| matches!(job.step, Step::Start { .. } | Step::Adopt { .. }))
    }

    /// Whether the job waits for the answer to a reset.
    pub(super) fn is_resetting(&self) -> bool {
        let job = self.job.as_ref();
        job.is_some_and(|job| job.step == Step::Call(WorkerCall::Reset))
    }

    /// Whether it does, and is done with it.
    pub(super) fn is_resetting_only(&self) -> bool {
        let job = self.job.as_ref();
        self.is_resetting() && job.is_some_and(|job| job.rest.is_empty())
    }

    /// The machine will stand when it is reset: it is let run then.
    pub(super) fn resume_behind_reset(&mut self) {
        if let Some(job) = self.job.as_mut().filter(|job| job.rest.is_empty()) {
            job.rest.push_back(Step::Call(WorkerCall::Resume));
        }
    }

    /// Whether the job waits for the answer to a press of the power button.
    pub(super) fn is_pressing(&self) -> bool {
        let job = self.job.as_ref();
        job.is_some_and(|job| job.step == Step::Call(WorkerCall::PowerButton))
    }

    /// Whether the job waits for the machine to be let run, and is done with it then.
    pub(super) fn is_resuming_only(&self) -> bool {
        let job = self.job.as_ref();
        job.is_some_and(|job| job.step == Step::Call(WorkerCall::Resume) && job.rest.is_empty())
    }

    /// The place of the device that the job waits for to be made, if it does.
    pub(super) fn attaching(&self) -> Option<DevicePlace> {
        match self.job.as_ref()?.step {
            Step::Device(DeviceCall::Attach { place, .. }) => Some(place),
            _ => None,
        }
    }

    /// Whether the job waits for the machine to be bound and limited, or for a look whether it can be.
    pub(super) fn is_tuning(&self) -> bool {
        let tunes = |call: &DeviceCall| {
            matches!(call, DeviceCall::Tune { .. } | DeviceCall::TuneCheck { .. })
        };
        let job = self.job.as_ref();
        job.is_some_and(|job| matches!(&job.step, Step::Device(call) if tunes(call)))
    }

    /// Gives up a job that waits for the worker, if there is one.
    pub(super) fn interrupt(&mut self, code: ApiErrorCode, why: &str) {
        if self
            .job
            .as_ref()
            .is_some_and(|job| job.step.is_interruptible())
        {
            let error = self.error(code, why);
            let changing = self.attaching().is_some() || self.is_tuning();
            let Some(job) = self.job.take() else { return };
            if let Some(live) = self.live_mut() {
                // What its status says is done when it can be.
                live.note_unfinished();
            }
            if let (Some(before), Some(live)) = (job.before.filter(|_| changing), self.live_mut()) {
                // Only the end of the worker interrupts it: the next one is made without the device, and bound
                // by what held when the client was told that its change is not made.
                live.record.definition = before.definition;
            }
            if let Some(ticket) = job.ticket {
                self.answer(ticket, Err(error));
            }
        }
    }

    /// Answers whoever waits for the job, which goes on without anybody.
    pub(super) fn disown(&mut self, code: ApiErrorCode, why: &str) {
        let error = self.error(code, why);
        if let Some(ticket) = self.job.as_mut().and_then(|job| job.ticket.take()) {
            self.answer(ticket, Err(error));
        }
    }
}
