//! Outcomes: what came of a job's step, and what that changes.

use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::api::event::EventKind;
use reeve_ipc::api::view::{JobKind, PausedReason, RunningReason, ShutOffReason};
use reeve_ipc::phase::Phase;

use super::DomainActor;
use super::message::{Done, Effect, LiveRecord, Timer};
use super::planted::{self, Bug};
use super::standing::Machine;
use super::steps::Step;
use crate::domain::driver::{CallFailure, StartFailure, StartFailureKind, WorkerCall};

impl DomainActor {
    /// An outcome; of a step that was given up it means nothing any more.
    pub(super) fn done(&mut self, serial: u64, done: Done) {
        let Some(step) = self
            .job
            .as_ref()
            .filter(|job| job.serial == serial)
            .map(|job| job.step.clone())
        else {
            return;
        };
        let result = match (step, done) {
            (Step::WriteRecord(record), Done::Written(Err(_)))
                if planted::has(Bug::IgnoresTheDisk) =>
            {
                self.record = Some(*record);
                Ok(())
            }
            (Step::WriteRecord(record), Done::Written(result)) => self.stored(result).map(|()| {
                self.record = Some(*record);
                self.tell_of_job();
            }),
            (Step::RemoveRecord, Done::Written(result)) => {
                self.stored(result).map(|()| self.record = None)
            }
            (Step::WriteStatus(record), Done::Written(result)) => self.noted(*record, result),
            (Step::Start { paused, reason, .. }, Done::Started(result)) => {
                return self.started(paused, reason, result);
            }
            (Step::Adopt { .. }, Done::Adopted(adopted)) => return self.adopted(adopted),
            (Step::Call(call), Done::Called(result)) => self.called(call, result),
            (Step::Device(call), Done::Called(result)) => {
                return self.device_called(&call, result);
            }
            (Step::HandOver, Done::Called(result)) => {
                // What one worker was about to tell the other does not know.
                self.ask_devices_anew();
                result.map_err(|failure| self.call_failed(&failure))
            }
            // The executor answers each effect with its own outcome.
            (_, _) => Err(self.error(ApiErrorCode::Host, "an outcome of another step came")),
        };
        match result {
            Ok(()) => self.step_done(),
            Err(error) => self.job_failed(error),
        }
    }

    fn stored(&self, result: Result<(), String>) -> Result<(), ApiError> {
        result.map_err(|error| self.error(ApiErrorCode::Storage, error))
    }

    /// The worker's status is written.
    fn noted(&mut self, record: LiveRecord, result: Result<(), String>) -> Result<(), ApiError> {
        self.stored(result)?;
        let Some(live) = self.live_mut() else {
            return Err(self.error(ApiErrorCode::WrongState, "it has ended meanwhile"));
        };
        let before = live.record.intents.destroy_at_boot_ms;
        live.record = record;
        self.agent_timeout = live.record.agent_timeout;
        self.keep_deadline(before);
        Ok(())
    }

    /// Sets the timer of a shutdown where its deadline is not the one `before`, for which it is set.
    pub(super) fn keep_deadline(&mut self, before: Option<u64>) {
        let Some(live) = self.live() else { return };
        let (id, deadline) = (live.id, live.record.intents.destroy_at_boot_ms);
        if let Some(at_boot_ms) = deadline.filter(|_| deadline != before) {
            let timer = Timer::ShutdownDeadline { id, at_boot_ms };
            let left = at_boot_ms.saturating_sub(self.now.boot_ms);
            self.effects.push(Effect::SetTimer(timer, left));
        }
    }

    fn called(
        &mut self,
        call: WorkerCall,
        result: Result<(), CallFailure>,
    ) -> Result<(), ApiError> {
        if let Err(failure) = result {
            return Err(self.call_failed(&failure));
        }
        let policy = self
            .job
            .as_ref()
            .is_some_and(|job| job.kind() == JobKind::Policy);
        let Some(live) = self.live_mut() else {
            return Ok(());
        };
        match call {
            WorkerCall::Pause => {
                live.missed = false;
                live.settle_restart(Phase::Running);
                live.machine = Machine::Paused(PausedReason::User);
            }
            WorkerCall::Resume => {
                live.missed = false;
                live.settle_restart(Phase::Running);
                live.machine = Machine::Running(if policy {
                    RunningReason::Restarted
                } else {
                    RunningReason::Unpaused
                });
            }
            WorkerCall::Reset => {
                // A machine that stood at its end stands at its beginning now.
                if live.has_ended() {
                    live.machine = Machine::Paused(PausedReason::User);
                    live.end = None;
                }
            }
            WorkerCall::PowerButton | WorkerCall::Stop => {}
        }
        Ok(())
    }

    /// The error of a call that failed.
    pub(super) fn call_failed(&mut self, failure: &CallFailure) -> ApiError {
        if let (CallFailure::Deadline, Some(live)) = (failure, self.live_mut()) {
            live.missed = true;
        }
        let code = match failure {
            CallFailure::Deadline | CallFailure::Late(_) => ApiErrorCode::Timeout,
            CallFailure::Busy => ApiErrorCode::Busy,
            CallFailure::Refused(_) | CallFailure::Gone => ApiErrorCode::Worker,
            CallFailure::NotMade(failure) => code_of(failure.kind),
        };
        self.error(code, failure)
    }

    fn started(
        &mut self,
        paused: bool,
        reason: RunningReason,
        result: Result<Phase, StartFailure>,
    ) {
        let killed = self.live().and_then(|live| live.killed);
        match (result, killed) {
            (Ok(_), Some(_)) => {
                // The kill came too late for the start, and now hits the worker.
                self.disown(ApiErrorCode::Cancelled, "it was destroyed while it started");
                self.job = None;
                if let Some(id) = self.live().map(|live| live.id) {
                    self.effects.push(Effect::Kill(id));
                }
            }
            (Ok(phase), None) => {
                if let Some(live) = self.live_mut() {
                    match phase {
                        Phase::Running => live.machine = Machine::Running(reason),
                        Phase::Paused if paused => {
                            live.machine = Machine::Paused(PausedReason::User);
                        }
                        other => live.set_phase(other),
                    }
                }
                if let Some(live) = self.live_mut() {
                    live.note_unfinished();
                }
                self.job_succeeded();
            }
            (Err(failure), killed) => {
                let code = code_of(failure.kind);
                self.last_failure = Some(failure.message.clone());
                let job = self.job.take();
                self.release(killed.unwrap_or(ShutOffReason::Failed));
                match job.as_ref().and_then(|job| job.ticket) {
                    Some(ticket) => {
                        let error = ApiError::new(code, failure.message);
                        self.answer(ticket, Err(error));
                    }
                    None => self.effects.push(Effect::Event(EventKind::JobFailed {
                        job: job.map_or(JobKind::Start, |job| job.kind()),
                        message: failure.message,
                    })),
                }
            }
        }
    }
}

const fn code_of(kind: StartFailureKind) -> ApiErrorCode {
    match kind {
        StartFailureKind::Definition => ApiErrorCode::InvalidArgument,
        StartFailureKind::Path => ApiErrorCode::PathRefused,
        StartFailureKind::Host => ApiErrorCode::Host,
        StartFailureKind::Worker => ApiErrorCode::Worker,
        StartFailureKind::Unsupported => ApiErrorCode::Unsupported,
        StartFailureKind::NoNetwork => ApiErrorCode::NoNetwork,
        StartFailureKind::WrongState => ApiErrorCode::WrongState,
    }
}
