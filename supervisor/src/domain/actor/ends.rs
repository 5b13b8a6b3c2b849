//! Ends: the guest's own, the worker's, and those that clients and policies make; and what an
//! earlier supervisor left to be ended.

use reeve_ipc::api::error::ApiErrorCode;
use reeve_ipc::api::event::EventKind;
use reeve_ipc::api::view::{DomainState, JobKind, PausedReason, RunningReason, ShutOffReason};
use reeve_ipc::model::{LifecycleAction, OnCrash, OnPowerOff, OnReboot};
use reeve_ipc::phase::Phase;
use reeve_ipc::spec::WatchdogAction;

use super::bounds::bind_as;
use super::message::{Adopted, Effect, Ticket, Timer};
use super::planted::{self, Bug};
use super::standing::{Activity, Live, Machine};
use super::{DESTROY_ACKNOWLEDGED_MS, DomainActor, MAX_RESTARTS, RESTART_WINDOW_MS, Step};
use crate::domain::driver::{GuestEnd, Notice, Verdict, WorkerCall};

/// Every domain's policies while the host goes down.
const ENDS_WITH_THE_HOST: LifecycleAction = LifecycleAction {
    on_power_off: OnPowerOff::Destroy,
    on_reboot: OnReboot::Destroy,
    on_crash: OnCrash::Destroy,
};

/// What a policy makes of an end.
enum Policy {
    End(ShutOffReason),
    Restart,
    Keep,
}

impl DomainActor {
    pub(super) fn notice(&mut self, id: u32, notice: Notice) {
        let Some(live) = self.live_mut().filter(|live| live.id == id) else {
            return;
        };
        match notice {
            Notice::GuestEnded(end) => {
                if Machine::of_end(&end) == Machine::Panicked {
                    self.effects.push(Effect::Event(EventKind::Panicked));
                }
                self.ended(end);
            }
            Notice::Reset(count) => {
                live.resets = count;
                let for_host = live.record.intents.for_host;
                self.effects.push(Effect::Event(EventKind::Reset));
                if for_host {
                    // It has ended, and forgotten the button: now is better than in its next life.
                    self.kill(ShutOffReason::Shutdown);
                } else if !self.is_resetting() {
                    self.reset_late();
                }
            }
            Notice::Silent => {
                if !std::mem::replace(&mut live.silent, true) {
                    self.effects.push(Effect::Event(EventKind::Unresponsive));
                }
            }
            Notice::Responsive { phase, resets, end } => {
                self.responsive(phase, resets);
                self.ask_devices_anew();
                if let Some(end) = end {
                    self.ended(end);
                }
            }
            Notice::Lost => self.ask_devices(),
            Notice::Devices(number, there) => self.devices_told(number, &there),
            Notice::DeviceRemoved(slot) => self.device_removed(slot),
            Notice::Memory(guest) => self.memory_changed(guest),
            Notice::Ports(slot, open) => self.ports_changed(slot, open),
            Notice::Vcpus(standing) => self.vcpus_stand(standing),
            Notice::CrashKernel => self.effects.push(Effect::Event(EventKind::CrashKernel)),
            Notice::Panicked => self.effects.push(Effect::Event(EventKind::Panicked)),
            Notice::Watchdog(action) => self.watchdog_expired(action),
            Notice::Gone(verdict) => self.gone(verdict),
        }
    }

    /// The guest has ended by itself, and its machine stands.
    fn ended(&mut self, end: GuestEnd) {
        let Some(live) = self.live_mut() else { return };
        live.machine = Machine::of_end(&end);
        live.end = Some(end).filter(|_| !planted::has(Bug::ForgetsTheEnd));
        self.overtaken();
    }

    /// The watchdog has expired. A reset or a power-off for it is told by itself.
    fn watchdog_expired(&mut self, action: WatchdogAction) {
        let expired = EventKind::WatchdogExpired { action };
        self.effects.push(Effect::Event(expired));
        if action != WatchdogAction::Pause {
            return;
        }
        if self.is_resuming_only() {
            // It ran, and was paused before the answer came.
            self.job_succeeded();
        }
        if let Some(live) = self.live_mut().filter(|live| !live.has_ended()) {
            live.machine = Machine::Paused(PausedReason::Watchdog);
        }
    }

    /// The guest ended while a job waits for the worker.
    fn overtaken(&mut self) {
        if self.is_pressing() {
            // The guest was faster than the answer: it has done what it was asked for.
            self.job_succeeded();
        }
        match self.live().map(|live| live.resets == live.resets_asked) {
            // The reset comes behind this end, and undoes it.
            Some(true) if self.is_resetting() => self.resume_behind_reset(),
            // It came before, and its answer comes too late to matter.
            Some(false) if self.is_resetting_only() => self.job_succeeded(),
            // What comes of it must be known: the machine is kept, and the device with it, or its limits.
            _ if self.attaching().is_some() || self.is_tuning() => {}
            _ => self.interrupt(ApiErrorCode::WrongState, "its guest ended meanwhile"),
        }
    }

    /// A reset that nobody waits for any more was obeyed.
    fn reset_late(&mut self) {
        if let Some(live) = self.live_mut().filter(|live| live.has_ended()) {
            live.machine = Machine::Paused(PausedReason::User);
            live.end = None;
        }
    }

    /// The worker answers again: what it was asked in vain it may have done since.
    fn responsive(&mut self, phase: Phase, resets: u64) {
        let Some(live) = self.live_mut() else { return };
        if !planted::has(Bug::ForgetsResets) {
            // A reset that was told since the worker was asked is not forgotten.
            live.resets = live.resets.max(resets);
        }
        let found = live.machine == Machine::StartingUp;
        if found {
            live.set_phase(phase);
            live.note_restart();
            live.note_unfinished();
        } else if std::mem::take(&mut live.missed) {
            live.catch_up(phase);
            if live.restart_in_doubt {
                live.settle_restart(phase);
            }
        }
        if std::mem::take(&mut live.silent) {
            self.effects.push(Effect::Event(EventKind::Responsive));
        }
        if found {
            self.effects.push(Effect::Event(EventKind::Adopted));
        }
    }

    /// The guest ended by itself and its machine is kept: what the intent, else the policy, says.
    pub(super) fn guest_ended(&mut self, end: &GuestEnd) {
        let Some(live) = self.live() else { return };
        let for_host = live.record.intents.for_host && !planted::has(Bug::OutlivesTheHost);
        let actions = if for_host {
            ENDS_WITH_THE_HOST
        } else {
            live.record.definition.lifecycle
        };
        let rebooting = live.is_rebooting();
        let policy = match end {
            GuestEnd::PoweredOff if rebooting => Policy::Restart,
            GuestEnd::PoweredOff => match actions.on_power_off {
                OnPowerOff::Destroy => Policy::End(ShutOffReason::Shutdown),
                OnPowerOff::Restart => Policy::Restart,
                OnPowerOff::Preserve => Policy::Keep,
            },
            GuestEnd::Reset => match actions.on_reboot {
                OnReboot::Destroy => Policy::End(ShutOffReason::Shutdown),
                OnReboot::Restart => Policy::Restart,
                OnReboot::Preserve => Policy::Keep,
            },
            GuestEnd::Crashed(report) => {
                self.last_failure = Some(format!(
                    "the guest crashed on vCPU {}: {}",
                    report.vcpu, report.cause
                ));
                match actions.on_crash {
                    OnCrash::Destroy => Policy::End(ShutOffReason::Crashed),
                    OnCrash::Restart => Policy::Restart,
                    OnCrash::Preserve => Policy::Keep,
                }
            }
        };
        match policy {
            Policy::Keep => self.keep(),
            Policy::End(reason) => self.stop(reason),
            // What a client asked for is no loop.
            Policy::Restart if rebooting || self.may_restart() => self.restart_in_place(),
            Policy::Restart => self.stop(ShutOffReason::Crashed),
        }
    }

    /// The machine stands until somebody resets or destroys it: what it was asked for is done.
    fn keep(&mut self) {
        let Some(live) = self.live() else { return };
        let mut kept = live.record.clone();
        kept.intents.shutting_down = false;
        kept.intents.destroy_at_boot_ms = None;
        if kept != live.record {
            let note = Step::WriteStatus(Box::new(kept));
            self.begin_steps(None, JobKind::Policy, [note]);
        }
    }

    /// Resets the machine in its worker and lets it run. The intent is in the status from before the
    /// reset to after the resume, so that whoever comes after this supervisor finishes it.
    fn restart_in_place(&mut self) {
        let Some(live) = self.live() else { return };
        let mut wanted = live.record.clone();
        wanted.intents.shutting_down = false;
        wanted.intents.destroy_at_boot_ms = None;
        wanted.intents.restart_after_resets = Some(live.resets);
        let mut finished = wanted.clone();
        finished.intents.restart_after_resets = None;
        self.begin_steps(
            None,
            JobKind::Policy,
            [
                Step::WriteStatus(Box::new(wanted)),
                Step::Call(WorkerCall::Reset),
                Step::Call(WorkerCall::Resume),
                Step::WriteStatus(Box::new(finished)),
            ],
        );
    }

    /// Whether the machine that a policy restarts was reset since its guest ended, by whomever.
    pub(super) fn was_reset_behind_its_end(&self) -> bool {
        let live = self.live().filter(|live| live.missed);
        live.is_some_and(|live| {
            let wanted = live.record.intents.restart_after_resets;
            wanted.is_some_and(|before| live.resets > before)
        })
    }

    /// Leaves a restart that had no answer to what its worker says when it answers again: the intent stays
    /// in the status until then.
    pub(super) fn restart_in_doubt(&mut self) {
        self.reset_late();
        if let Some(live) = self.live_mut() {
            live.restart_in_doubt = true;
        }
    }

    /// Whether a policy may start the domain once more: not one that ends again and again.
    fn may_restart(&mut self) -> bool {
        let since = self.now.boot_ms.saturating_sub(RESTART_WINDOW_MS);
        self.restarts.retain(|time| *time > since);
        if self.restarts.len() >= MAX_RESTARTS {
            let message = format!(
                "its policy restarted it {MAX_RESTARTS} times within a minute; it stays off"
            );
            self.last_failure = Some(message.clone());
            self.effects.push(Effect::Event(EventKind::JobFailed {
                job: JobKind::Policy,
                message,
            }));
            return false;
        }
        self.restarts.push_back(self.now.boot_ms);
        true
    }

    /// A client, a deadline or the end of a client's connection kills the worker.
    pub(super) fn destroy(&mut self, ticket: Option<Ticket>) {
        if let (Some(ticket), Some(live)) = (ticket, self.live_mut()) {
            live.mourners.push(ticket);
        }
        match self.live().map(|live| (live.id, live.killed)) {
            // It may have been asked to end, and not do it.
            Some((id, Some(_))) => self.effects.push(Effect::Kill(id)),
            _ => self.kill(ShutOffReason::Destroyed),
        }
        if let Some(live) = self.live().filter(|_| !planted::has(Bug::DestroyWaits)) {
            let timer = Timer::DestroyAcknowledged(live.id);
            self.effects
                .push(Effect::SetTimer(timer, DESTROY_ACKNOWLEDGED_MS));
        }
    }

    /// Kills the worker, for `reason`; its end is a notice.
    pub(super) fn kill(&mut self, reason: ShutOffReason) {
        if self.mark_stopping(reason) {
            let id = self.live().map_or(0, |live| live.id);
            self.effects.push(Effect::Kill(id));
            let why = "it was destroyed meanwhile";
            if self.is_making() {
                self.disown(ApiErrorCode::Cancelled, why);
            }
            self.interrupt(ApiErrorCode::Cancelled, why);
        }
    }

    /// Lets the worker of a guest that has ended go; the driver kills it where it does not.
    fn stop(&mut self, reason: ShutOffReason) {
        if self.mark_stopping(reason) {
            let id = self.live().map_or(0, |live| live.id);
            // Nobody waits for the answer: the end is a notice.
            self.effects.push(Effect::Call(0, id, WorkerCall::Stop));
        }
    }

    /// Notes in state and status that the worker is being ended; false where it is already. A status
    /// that cannot be written does not keep a worker alive.
    fn mark_stopping(&mut self, reason: ShutOffReason) -> bool {
        let Some(live) = self.live_mut().filter(|live| live.killed.is_none()) else {
            return false;
        };
        live.killed = Some(reason);
        live.record.intents.stopping = Some(reason);
        let (id, record) = (live.id, Box::new(live.record.clone()));
        self.effects.push(Effect::WriteStatus(None, id, record));
        true
    }

    pub(super) fn timer(&mut self, timer: Timer) {
        match timer {
            Timer::DestroyAcknowledged(id) => {
                let Some(live) = self.live_mut().filter(|live| live.id == id) else {
                    return;
                };
                for ticket in std::mem::take(&mut live.mourners) {
                    self.answer(ticket, Ok(()));
                }
            }
            Timer::DetachDeadline(serial) => {
                self.detach_deadline(serial);
                self.vcpu_deadline(serial);
            }
            Timer::DetachUnchecked(serial) => {
                if self.job.as_ref().is_some_and(|job| job.serial == serial) {
                    self.detach_overdue();
                }
            }
            Timer::ShutdownDeadline { id, at_boot_ms } => {
                let due = |live: &Live| {
                    live.id == id
                        && live.killed.is_none()
                        && live.record.intents.destroy_at_boot_ms == Some(at_boot_ms)
                };
                if self.live().is_some_and(due) {
                    self.destroy(None);
                }
            }
        }
    }

    /// The process is gone, and what it held is released.
    fn gone(&mut self, verdict: Verdict) {
        let Some(live) = self.live() else { return };
        let killed = live.killed;
        self.interrupt(ApiErrorCode::Worker, "its worker ended meanwhile");
        let Some(live) = self.live() else { return };
        // Without what a job was about to give it.
        let definition = live.record.definition.clone();
        let restarts =
            definition.lifecycle.on_crash == OnCrash::Restart && !live.record.intents.for_host;
        let session = live.auto_destroy;
        self.release(killed.unwrap_or(ShutOffReason::Crashed));
        if killed.is_some() {
            return;
        }
        self.last_failure = Some(match verdict {
            Verdict::Asked => "the worker ended without being asked here".to_owned(),
            Verdict::Failed(why) => why,
        });
        // A job that waits for the disk goes on; the domain stays off then.
        if restarts && self.job.is_none() && self.may_restart() {
            let step = self.start_step(definition, false, session, RunningReason::Restarted);
            self.begin_steps(None, JobKind::Policy, [step]);
        }
    }

    /// There is no worker any more.
    pub(super) fn release(&mut self, reason: ShutOffReason) {
        let off = Activity::Off(reason);
        if let Activity::Live(live) = std::mem::replace(&mut self.activity, off) {
            if !planted::has(Bug::KeepsTheStatus) {
                self.effects.push(Effect::RemoveStatus);
            }
            for ticket in live.mourners {
                self.answer(ticket, Ok(()));
            }
        }
    }

    /// What came of taking over a worker.
    pub(super) fn adopted(&mut self, adopted: Adopted) {
        self.job = None;
        if let Some(live) = self.live().filter(|_| planted::has(Bug::StartsTwice)) {
            let domain = live.record.definition.clone();
            let step = self.start_step(domain, false, None, RunningReason::Restarted);
            return self.begin_steps(None, JobKind::Policy, [step]);
        }
        match adopted {
            Adopted::Found {
                phase,
                end,
                resets,
                devices,
            } => {
                self.found(phase, end, resets);
                self.compare_devices(devices.as_deref());
            }
            Adopted::Silent => {
                if let Some(live) = self.live_mut() {
                    live.silent = true;
                }
                self.effects.push(Effect::Event(EventKind::Unresponsive));
                if !self.kill_what_was_killed() {
                    self.finish_what_was_begun();
                }
            }
            Adopted::NeverLaunched => {
                let stopping = self.live().and_then(|live| live.record.intents.stopping);
                self.last_failure = Some("the supervisor ended while it started".to_owned());
                self.release(stopping.unwrap_or(ShutOffReason::Failed));
            }
            Adopted::Gone(why) => {
                if let Some(live) = self.live_mut() {
                    live.killed = live.killed.or(live.record.intents.stopping);
                    if live.record.intents.auto_destroy && live.killed.is_none() {
                        live.killed = Some(ShutOffReason::Destroyed);
                    }
                    // Of a change that nobody came to the end of nobody was told that it was made.
                    if let Some(before) = live.record.intents.tuned_before.take() {
                        bind_as(&mut live.record.definition, &before);
                    }
                }
                self.gone(Verdict::Failed(why));
            }
        }
    }

    fn found(&mut self, phase: Phase, end: Option<GuestEnd>, resets: u64) {
        let Some(live) = self.live_mut() else { return };
        live.resets = resets;
        live.set_phase(phase);
        if let Some(GuestEnd::Crashed(report)) = &end {
            live.machine = Machine::of_crash(report);
        }
        live.end = end;
        live.note_restart();
        live.note_unfinished();
        self.effects.push(Effect::Event(EventKind::Adopted));
        if !self.kill_what_was_killed() {
            self.finish_what_was_begun();
        }
    }

    /// A worker that was destroyed while it was being taken over can be killed only now.
    fn kill_what_was_killed(&mut self) -> bool {
        let Some(id) = self
            .live()
            .filter(|live| live.killed.is_some())
            .map(|live| live.id)
        else {
            return false;
        };
        self.effects.push(Effect::Kill(id));
        true
    }

    /// The machine was reset for a restart: it runs, or is let run, and the intent goes.
    pub(super) fn finish_restart(&mut self) {
        let Some(live) = self.live() else { return };
        let mut finished = live.record.clone();
        finished.intents.restart_after_resets = None;
        let note = Step::WriteStatus(Box::new(finished));
        let steps = match live.machine {
            Machine::Paused(PausedReason::Adopted) => vec![Step::Call(WorkerCall::Resume), note],
            _ => vec![note],
        };
        self.begin_steps(None, JobKind::Policy, steps);
    }

    /// Ends what an earlier supervisor was ending, and what was bound to one of its clients.
    fn finish_what_was_begun(&mut self) {
        let Some(live) = self.live().filter(|_| !planted::has(Bug::ForgetsTheIntent)) else {
            return;
        };
        let intents = live.record.intents.clone();
        if let Some(reason) = intents.stopping {
            self.kill(reason);
        } else if intents.auto_destroy {
            self.kill(ShutOffReason::Destroyed);
        } else {
            self.keep_deadline(None);
        }
    }

    /// Whether the worker is one that nobody hears from.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.live().is_some_and(|live| live.silent)
    }

    /// Whether it is off, with a worker that the kernel has not released.
    #[must_use]
    pub fn is_reaping(&self) -> bool {
        matches!(self.state(), DomainState::ShutOff(_)) && self.live().is_some()
    }
}
