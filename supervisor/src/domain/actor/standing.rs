//! Where a domain stands: off, or with a worker.

use reeve_ipc::api::view::{DomainState, JobKind, PausedReason, RunningReason, ShutOffReason};
use reeve_ipc::device::DeviceChange;
use reeve_ipc::event::{CrashCause, CrashReport};
use reeve_ipc::model::{DomainName, MemorySize};
use reeve_ipc::phase::Phase;

use super::message::{LiveRecord, SessionId, Ticket};
use super::reconcile::Asking;
use crate::domain::driver::{GuestEnd, GuestMemory, OpenPorts};

/// What admission judges by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its name, once it has one.
    pub name: Option<DomainName>,
    /// Its state.
    pub state: DomainState,
    /// Its worker is being made or taken over.
    pub starting: bool,
    /// It has a record.
    pub persistent: bool,
    /// It has a record or a worker.
    pub exists: bool,
    /// Its worker was killed and is not gone.
    pub reaping: bool,
    /// Its job.
    pub job: Option<JobKind>,
}

/// Whether there is a worker.
#[derive(Debug)]
pub(super) enum Activity {
    Off(ShutOffReason),
    Live(Box<Live>),
}

impl Activity {
    pub(super) fn state(&self) -> DomainState {
        match self {
            Self::Off(reason) => DomainState::ShutOff(*reason),
            Self::Live(live) => live.state(),
        }
    }
}

/// What a worker's machine does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Machine {
    /// Being built or taken over.
    StartingUp,
    Running(RunningReason),
    Paused(PausedReason),
    Crashed,
    /// Its guest said that its kernel panicked.
    Panicked,
}

impl Machine {
    /// That of a guest that has ended so.
    pub(super) fn of_end(end: &GuestEnd) -> Self {
        match end {
            GuestEnd::Crashed(report) => Self::of_crash(report),
            GuestEnd::PoweredOff | GuestEnd::Reset => Self::Paused(PausedReason::PoweredOff),
        }
    }

    /// That of a guest that crashed like that.
    pub(super) fn of_crash(report: &CrashReport) -> Self {
        match report.cause {
            CrashCause::Panicked => Self::Panicked,
            _ => Self::Crashed,
        }
    }
}

/// A worker.
#[derive(Debug)]
pub(super) struct Live {
    /// Its number.
    pub(super) id: u32,
    pub(super) record: LiveRecord,
    pub(super) machine: Machine,
    pub(super) auto_destroy: Option<SessionId>,
    /// It does not answer.
    pub(super) silent: bool,
    /// It was killed, with this reason, and is not gone.
    pub(super) killed: Option<ShutOffReason>,
    /// Whoever waits for it to be gone.
    pub(super) mourners: Vec<Ticket>,
    /// Its guest's own end, to be dealt with.
    pub(super) end: Option<GuestEnd>,
    pub(super) resets: u64,
    /// What they were when a reset was last asked for.
    pub(super) resets_asked: u64,
    /// A call had no answer in time, and may be obeyed all the same: the machine's state is not known.
    pub(super) missed: bool,
    /// A restart had no answer, though the machine was reset since its guest ended.
    pub(super) restart_in_doubt: bool,
    /// It was reset for a restart, by this supervisor or one before, and that did not come to its end.
    pub(super) restarted: bool,
    /// It is asked where it has devices.
    pub(super) asking: Option<Asking>,
    /// What its guest has done with its memory, as it was last heard of.
    pub(super) guest: GuestMemory,
    /// Which ports its guest has open, as it was last heard of; `None` where that is not known yet.
    pub(super) ports: Option<OpenPorts>,
    /// How many bytes of its memory its guest was last asked to lend, by this supervisor.
    pub(super) asked_lent: Option<u64>,
    /// And to have plugged in.
    pub(super) asked_plugged: Option<u64>,
    /// It is to be brought to what its status says, once no job runs.
    pub(super) unfinished: bool,
}

impl Live {
    pub(super) fn new(id: u32, record: LiveRecord, auto_destroy: Option<SessionId>) -> Self {
        Self {
            id,
            record,
            machine: Machine::StartingUp,
            auto_destroy,
            silent: false,
            killed: None,
            mourners: Vec::new(),
            end: None,
            resets: 0,
            resets_asked: 0,
            missed: false,
            restart_in_doubt: false,
            restarted: false,
            asking: None,
            guest: GuestMemory::default(),
            ports: Some(OpenPorts::default()),
            asked_lent: None,
            asked_plugged: None,
            unfinished: false,
        }
    }

    /// What is left to a guest that has done `guest` with its memory, which may be any numbers.
    pub(super) fn memory(&self, guest: GuestMemory) -> MemorySize {
        let definition = &self.record.definition;
        let most = definition.pluggable().map_or(0, |memory| memory.bytes);
        let all = definition.memory.bytes() + guest.plugged.min(most);
        MemorySize(all.saturating_sub(guest.lent))
    }

    /// One that an earlier supervisor left.
    pub(super) fn found(id: u32, record: LiveRecord) -> Self {
        // How those stand that it has, its worker says.
        let known = !record.definition.devices.has_ports();
        Self {
            ports: known.then(OpenPorts::default),
            ..Self::new(id, record, None)
        }
    }

    pub(super) fn state(&self) -> DomainState {
        if let Some(reason) = self.killed {
            return DomainState::ShutOff(reason);
        }
        match self.machine {
            Machine::StartingUp => DomainState::Paused(PausedReason::StartingUp),
            Machine::Running(_) if self.record.intents.shutting_down => DomainState::ShuttingDown,
            Machine::Running(reason) => DomainState::Running(reason),
            Machine::Paused(reason) => DomainState::Paused(reason),
            Machine::Crashed => DomainState::Crashed,
            Machine::Panicked => DomainState::Panicked,
        }
    }

    /// The guest's own end, unless the worker is being killed anyway.
    pub(super) fn take_end(&mut self) -> Option<GuestEnd> {
        let end = self.end.take();
        end.filter(|_| self.killed.is_none())
    }

    /// Whether the machine stands because its guest has ended.
    pub(super) fn has_ended(&self) -> bool {
        matches!(
            self.machine,
            Machine::Crashed | Machine::Panicked | Machine::Paused(PausedReason::PoweredOff)
        )
    }

    /// Sees whether an earlier supervisor's restart is to be finished, once the resets are known.
    pub(super) fn note_restart(&mut self) {
        let wanted = self.record.intents.restart_after_resets;
        self.restarted = wanted.is_some_and(|before| self.resets > before);
    }

    /// Ends the doubt of a restart: it is noted as done, and a machine that stands is let run for it.
    pub(super) fn settle_restart(&mut self, phase: Phase) {
        if std::mem::take(&mut self.restart_in_doubt) {
            if phase == Phase::Paused {
                self.machine = Machine::Paused(PausedReason::Adopted);
            }
            self.note_restart();
        }
    }

    /// The restart that is to be finished, unless the worker is being killed anyway.
    pub(super) fn take_restarted(&mut self) -> bool {
        std::mem::take(&mut self.restarted) && self.killed.is_none()
    }

    /// What a worker does that obeyed late.
    pub(super) fn catch_up(&mut self, phase: Phase) {
        if self.has_ended() && matches!(phase, Phase::Running | Phase::Paused) {
            // It was reset behind its end, and that is undone.
            self.end = None;
        }
        self.machine = match (phase, self.machine) {
            (Phase::Running, machine @ Machine::Running(_))
            | (Phase::Paused, machine @ Machine::Paused(
                PausedReason::User | PausedReason::Adopted | PausedReason::Watchdog,
            ))
            // An end of its guest is told by itself, with its reason.
            | (Phase::Off | Phase::Crashed | Phase::AwaitingLaunch, machine) => machine,
            (Phase::Running, _) => Machine::Running(RunningReason::Unpaused),
            (Phase::Paused, _) => Machine::Paused(PausedReason::User),
        };
    }

    /// Sees whether its status says what it is not known to be yet.
    pub(super) fn note_unfinished(&mut self) {
        let intents = &self.record.intents;
        self.unfinished = intents.tuning || intents.asks_memory;
    }

    /// Whether it is to be brought to that now: not where nobody hears it, nor where it is being killed.
    pub(super) fn take_unfinished(&mut self) -> bool {
        let possible = !self.silent && self.killed.is_none() && self.machine != Machine::StartingUp;
        possible && std::mem::take(&mut self.unfinished)
    }

    /// Notes what its guest was asked for, if that was memory.
    pub(super) fn note_asked(&mut self, change: DeviceChange) {
        match change {
            DeviceChange::BalloonTarget { bytes } => self.asked_lent = Some(bytes),
            DeviceChange::MemoryRequest { bytes } => self.asked_plugged = Some(bytes),
            _ => {}
        }
    }

    /// What takes `change` back, if it asks for memory: what was asked for before, or what the guest had.
    pub(super) fn memory_before(&self, change: DeviceChange) -> Option<DeviceChange> {
        let definition = &self.record.definition;
        match change {
            DeviceChange::BalloonTarget { .. } => {
                let had = self.guest.lent.min(definition.memory.bytes());
                let bytes = self.asked_lent.unwrap_or(had);
                Some(DeviceChange::BalloonTarget { bytes })
            }
            DeviceChange::MemoryRequest { .. } => {
                let most = definition.pluggable().map_or(0, |memory| memory.bytes);
                let bytes = self.asked_plugged.unwrap_or(self.guest.plugged.min(most));
                Some(DeviceChange::MemoryRequest { bytes })
            }
            _ => None,
        }
    }

    /// Whether the guest boots again when it has powered off.
    pub(super) fn is_rebooting(&self) -> bool {
        let wanted = self.record.intents.restart_after_resets;
        wanted.is_some_and(|before| self.resets <= before)
    }

    /// What a worker that was found, or answers again, does.
    pub(super) fn set_phase(&mut self, phase: Phase) {
        self.machine = match phase {
            Phase::Running => Machine::Running(RunningReason::Adopted),
            Phase::Crashed => Machine::Crashed,
            Phase::Off => Machine::Paused(PausedReason::PoweredOff),
            Phase::Paused | Phase::AwaitingLaunch => Machine::Paused(PausedReason::Adopted),
        };
    }
}
