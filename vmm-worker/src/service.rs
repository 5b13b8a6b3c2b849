//! What the worker is and has done so far: a phase, a machine once there is one, and how to end.
//!
//! Owned by the control thread; every effect on the machine goes through [`crate::machine`]. What it does
//! for each request is in `service/requests.rs`.

use std::sync::Arc;
use std::time::Duration;

use reeve_ipc::error::{ErrorCode, WireError};
use reeve_ipc::exit_code;
use reeve_ipc::fd::FdTable;
use reeve_ipc::phase::Phase;
use reeve_ipc::request::{FinishedRequest, Operation};
use reeve_ipc::spec::{
    ControlLoss, EndAction, EndPolicy, PciSlot, ResetAction, SpecDigest, WatchdogAction,
};

use crate::adoption::Adoption;
use crate::device_set::DeviceSetError;
use crate::events::Events;
use crate::hand_over::give::{Giving, Outcome};
use crate::hand_over::take::Taking;
use crate::log::Dropped;
use crate::machine::{Machine, MachineError};
use crate::news::{News, Newsroom};
use crate::notices::Notices;
use crate::vcpu::{EndSignal, GuestEnd, VcpuError};

/// The worker as its supervisor sees it.
#[derive(Debug)]
pub struct Service {
    phase: Phase,
    machine: Option<Machine>,
    descriptors: FdTable,
    log: Dropped,
    /// The exit code, once the end was asked for.
    ending: Option<u8>,
    on_control_loss: ControlLoss,
    policy: EndPolicy,
    digest: Option<SpecDigest>,
    adoption: Option<Adoption>,
    /// What was said, and is told again in a [`Report`](reeve_ipc::request::Report).
    pub events: Events,
    /// The last request that changed anything, for [`Report`](reeve_ipc::request::Report).
    pub last_request: Option<FinishedRequest>,
    /// Devices that are gone and of which nobody was told yet.
    pub removed: Vec<PciSlot>,
    /// The same of ports of serial controllers, by their controller's place and their number.
    pub removed_ports: Vec<(PciSlot, u16)>,
    news: Newsroom,
    /// A reset waits for the devices, at its next try for so long.
    reset_waits: Option<Duration>,
    /// A machine that was to be handed over stands here until its devices have stopped.
    go_on_waits: bool,
    /// The watchdog has its machine stand, and a vCPU does not yet.
    pause_waits: bool,
    moving: Moving,
}

/// Whether the machine is on its way between two workers.
#[derive(Debug)]
enum Moving {
    No,
    /// To another: it stands here in case it stays.
    Away(Giving),
    /// From another, and is not this worker's yet.
    Here(Box<Taking>),
}

/// How long the control thread waits for the devices of a guest that resets itself. Storage that takes
/// longer is waited for beside other work.
const RESET_PATIENCE: Duration = Duration::from_millis(250);
/// How long the control thread waits for the vCPUs of a machine that its watchdog has stand, and how soon it
/// looks again whether they do.
const PAUSE_PATIENCE: Duration = Duration::from_millis(250);

impl Service {
    /// A worker without a machine; one that loses its supervisor now has nothing to keep.
    #[must_use]
    pub fn new(log: Dropped) -> Self {
        Self {
            phase: Phase::AwaitingLaunch,
            machine: None,
            descriptors: FdTable::new(),
            log,
            ending: None,
            on_control_loss: ControlLoss::Stop,
            policy: EndPolicy {
                on_power_off: EndAction::Exit,
                on_reset: ResetAction::Exit,
                on_crash: EndAction::Exit,
            },
            digest: None,
            adoption: None,
            events: Events::new(),
            last_request: None,
            removed: Vec::new(),
            removed_ports: Vec::new(),
            news: Newsroom::default(),
            reset_waits: None,
            go_on_waits: false,
            pause_waits: false,
            moving: Moving::No,
        }
    }

    /// The phase.
    #[must_use]
    pub fn phase_now(&self) -> Phase {
        self.phase
    }

    /// Takes the descriptors that came before a request; what the request before left is closed.
    pub fn take_descriptors(&mut self, descriptors: &mut FdTable) {
        self.descriptors = std::mem::take(descriptors);
    }

    /// The exit code, once the end was asked for.
    #[must_use]
    pub fn ending(&self) -> Option<u8> {
        self.ending
    }

    /// Where devices leave what they have to tell, once there is a machine.
    #[must_use]
    pub fn notices(&self) -> Option<Arc<Notices>> {
        self.machine.as_ref().map(Machine::notices)
    }

    /// Does what the guest's ACPI and devices have told, and gives what is news of its memory and its vCPUs.
    pub fn take_notices(&mut self) -> News {
        let Some(machine) = self.machine.as_mut() else {
            return News::default();
        };
        let plugging = machine.plugging();
        self.removed.extend(plugging.turn());
        let turn = plugging.devices.next_turn();
        let (memory, ports) = (plugging.guest_memory(), plugging.guest_ports());
        let (vcpus, later) = machine.settle_vcpus();
        let mut news = self.news.take(memory, ports, vcpus);
        news.later = news.later.into_iter().chain(later).chain(turn).min();
        // What a machine that is on its way has to tell goes with it.
        if matches!(self.moving, Moving::No) {
            let mut wait = |later| news.later = news.later.into_iter().chain([later]).min();
            match crash_kernel(machine, &mut self.news) {
                Ok(told) => news.crash_kernel = told,
                Err(later) => wait(later),
            }
            if self.pause_waits {
                wait(PAUSE_PATIENCE);
            } else if self.phase == Phase::Running && machine.watchdog_has_expired() {
                wait(self.news.watchdog.left());
            }
        }
        news
    }

    /// What is to be done now about a watchdog that has expired, if one has. One that expired just before the
    /// machine was told to stand is acted on when it runs again.
    pub fn take_watchdog(&mut self) -> Option<WatchdogAction> {
        let here = matches!(self.moving, Moving::No) && self.phase == Phase::Running;
        let machine = self
            .machine
            .as_ref()
            .filter(|_| here && !self.pause_waits)?;
        if !machine.watchdog_has_expired() || self.news.watchdog.pass().is_err() {
            return None;
        }
        machine.take_watchdog()
    }

    /// Whether the guest, which has ended, had said that it starts its crash kernel and that is to be told.
    pub fn take_crash_kernel(&mut self) -> bool {
        let machine = self.machine.as_ref();
        machine.is_some_and(|machine| crash_kernel(machine, &mut self.news) == Ok(true))
    }

    /// Does what is to be done about a watchdog that has expired, of a machine that runs. A power-off and a
    /// reset are ends as the guest's own: they are left to [`end_signal`](Self::end_signal).
    ///
    /// A pause is done, or begun: see [`pause_at_last`](Self::pause_at_last).
    ///
    /// # Errors
    /// The machine cannot be paused; the worker must end.
    pub fn act_on_watchdog(&mut self, action: WatchdogAction) -> Result<(), MachineError> {
        let Some(machine) = self.machine.as_mut() else {
            return Ok(());
        };
        match action {
            WatchdogAction::Nothing => {}
            WatchdogAction::Reset => machine.end_signal().raise(GuestEnd::Reset),
            WatchdogAction::PowerOff => machine.end_signal().raise(GuestEnd::PowerOff),
            WatchdogAction::Shutdown => machine.press_power_button(),
            WatchdogAction::InjectNmi => machine.inject_nmi(),
            WatchdogAction::Pause => {
                self.pause_waits = true;
                if !self.pause_now(PAUSE_PATIENCE)? {
                    tracing::error!(
                        "the watchdog has the machine stand, and a vCPU does not stop: it is paused when it has"
                    );
                }
            }
        }
        Ok(())
    }

    /// Finishes a pause that the watchdog has begun and that waits for a vCPU; true if it is done. To be called
    /// again when [`take_notices`](Self::take_notices) says.
    ///
    /// # Errors
    /// The machine cannot be paused; the worker must end.
    pub fn pause_at_last(&mut self) -> Result<bool, MachineError> {
        match self.pause_waits && matches!(self.moving, Moving::No) {
            true => self.pause_now(Duration::ZERO),
            false => Ok(false),
        }
    }

    fn pause_now(&mut self, patience: Duration) -> Result<bool, MachineError> {
        let Some(machine) = self.machine.as_mut() else {
            return Ok(false);
        };
        match machine.pause_within(patience) {
            Err(MachineError::Vcpu(VcpuError::Unresponsive(_))) => Ok(false),
            paused => {
                paused?;
                self.stands();
                Ok(true)
            }
        }
    }

    /// All vCPUs stand, whoever has had them: with that the watchdog's pause is done, if one was begun.
    fn stands(&mut self) {
        if std::mem::take(&mut self.pause_waits) && self.phase == Phase::Running {
            self.phase = Phase::Paused;
        }
    }

    /// Where the guest's end is left, once there is a machine.
    #[must_use]
    pub fn end_signal(&self) -> Option<Arc<EndSignal>> {
        self.machine.as_ref().map(Machine::end_signal)
    }

    /// What the guest's end means.
    #[must_use]
    pub fn policy(&self) -> EndPolicy {
        self.policy
    }

    /// What the loss of the supervisor means.
    #[must_use]
    pub fn on_control_loss(&self) -> ControlLoss {
        self.on_control_loss
    }

    /// Where a supervisor may come back, once there is a machine. Whoever knocks while it is on its way
    /// waits until it is known which worker that is for.
    #[must_use]
    pub fn adoption(&self) -> Option<&Adoption> {
        let here = matches!(self.moving, Moving::No);
        self.adoption.as_ref().filter(|_| here)
    }

    /// As [`adoption`](Self::adoption), to let somebody in.
    pub fn adoption_mut(&mut self) -> Option<&mut Adoption> {
        let here = matches!(self.moving, Moving::No);
        self.adoption.as_mut().filter(|_| here)
    }

    /// Whether there is a machine.
    #[must_use]
    pub fn has_machine(&self) -> bool {
        self.machine.is_some()
    }

    /// Refuses what cannot be done to a machine that is on its way.
    ///
    /// # Errors
    /// [`ErrorCode::WrongPhase`].
    pub fn admit(&self, operation: Operation) -> Result<(), WireError> {
        let always = matches!(
            operation,
            Operation::Query | Operation::Report | Operation::Stop
        );
        match (&self.moving, operation) {
            (Moving::No, _) | (Moving::Here(_), Operation::SwitchOver | Operation::AcceptorSet) => {
                Ok(())
            }
            _ if always => Ok(()),
            _ => Err(WireError::new(
                ErrorCode::WrongPhase,
                format!(
                    "cannot {}: the machine is being handed over",
                    operation.name()
                ),
            )),
        }
    }

    /// What to wait for of a machine that was given away.
    #[must_use]
    pub fn giving(&self) -> Option<&Giving> {
        match &self.moving {
            Moving::Away(giving) => Some(giving),
            Moving::No | Moving::Here(_) => None,
        }
    }

    /// Looks what has come of a machine that was given away. One that stays goes on. Gives the exit code
    /// if it was taken.
    ///
    /// # Errors
    /// It stays and cannot go on; the worker must end.
    pub fn turn_of_giving(&mut self) -> Result<Option<u8>, MachineError> {
        let Moving::Away(giving) = &mut self.moving else {
            return Ok(None);
        };
        match giving.outcome() {
            Outcome::Open => Ok(None),
            Outcome::Taken => {
                tracing::info!("another worker has taken the machine over");
                Ok(Some(exit_code::ORDERLY))
            }
            Outcome::Stays => {
                tracing::warn!(
                    "the machine was not taken over by another worker, and goes on here"
                );
                self.moving = Moving::No;
                self.go_on().map(|()| None)
            }
        }
    }

    /// Resets since launch.
    #[must_use]
    pub fn resets(&self) -> u64 {
        self.machine.as_ref().map_or(0, Machine::resets)
    }

    /// Brings the machine to rest after the guest's own end: kept, or to be reset by
    /// [`reset_guest`](Self::reset_guest).
    ///
    /// # Errors
    /// The machine cannot be brought to rest; the worker must end.
    pub fn settle(&mut self, end: &GuestEnd) -> Result<(), MachineError> {
        let Some(machine) = self.machine.as_mut() else {
            return Ok(());
        };
        machine.pause()?;
        // A pause that waited is one now: what the end leads to goes on from there.
        self.stands();
        match end {
            GuestEnd::PowerOff => {
                self.reset_waits = None;
                self.phase = Phase::Off;
            }
            GuestEnd::Crash(_) => {
                self.reset_waits = None;
                self.phase = Phase::Crashed;
            }
            GuestEnd::Reset if self.policy.on_reset == ResetAction::Preserve => {
                self.phase = Phase::Off;
            }
            GuestEnd::Reset => self.reset_waits = Some(RESET_PATIENCE),
        }
        Ok(())
    }

    /// Carries out a reset that waits, and lets the machine run again; true if it has. It goes on waiting,
    /// with the vCPUs standing, while a device has not finished what it had begun: to be called again when
    /// there are notices, behind [`take_notices`](Self::take_notices), so that none is missed.
    ///
    /// # Errors
    /// The machine cannot be reset; the worker must end.
    pub fn reset_guest(&mut self) -> Result<bool, MachineError> {
        match self.reset_waits {
            Some(patience) => Ok(self.try_reset(patience)?.is_none()),
            None => Ok(false),
        }
    }

    /// Lets a machine go on that was to be handed over and could not at once, because a device had not
    /// finished what it had begun; true if it has. To be called again when there are notices.
    ///
    /// # Errors
    /// It cannot; the worker must end.
    pub fn go_on_here(&mut self) -> Result<bool, MachineError> {
        // A reset lets it go on too, and one that is on its way goes on elsewhere.
        let stays = matches!(self.moving, Moving::No);
        if !self.go_on_waits || self.reset_waits.is_some() || !stays {
            return Ok(false);
        }
        self.go_on()?;
        Ok(!self.go_on_waits)
    }

    /// Lets the machine, which is not handed over after all, go on as its phase says, now or when its
    /// devices let it.
    fn go_on(&mut self) -> Result<(), MachineError> {
        let Some(machine) = self.machine.as_mut() else {
            return Ok(());
        };
        let went = machine.go_on(self.phase == Phase::Running);
        let waits = matches!(went, Err(MachineError::Device(_)));
        if waits && !self.go_on_waits {
            tracing::warn!(
                "the machine stands until its devices have finished what they had begun"
            );
        }
        self.go_on_waits = waits;
        if waits { Ok(()) } else { went }
    }

    /// Resets the machine, whose vCPUs stand, and lets it run if it ran. What it waits for, if it does.
    fn try_reset(&mut self, patience: Duration) -> Result<Option<DeviceSetError>, MachineError> {
        let Some(machine) = self.machine.as_mut() else {
            return Ok(None);
        };
        match machine.reset(patience) {
            Err(MachineError::Device(error)) => {
                if !patience.is_zero() {
                    tracing::warn!("a reset waits: {error}");
                }
                self.reset_waits = Some(Duration::ZERO);
                return Ok(Some(error));
            }
            result => {
                self.reset_waits = None;
                result?;
                self.go_on_waits = false;
            }
        }
        if self.phase == Phase::Running {
            machine.resume()?;
        } else {
            self.phase = Phase::Paused;
        }
        Ok(None)
    }

    /// Takes the machine apart, so that the kernel's share of that is done before the exit.
    pub fn close(&mut self) {
        if let Some(machine) = self.machine.take() {
            machine.close();
        }
    }

    fn machine(&mut self) -> Result<&mut Machine, WireError> {
        self.machine
            .as_mut()
            .ok_or_else(|| WireError::new(ErrorCode::WrongPhase, "there is no machine"))
    }
}

/// Whether a crash kernel that starts is to be told of now, or else when.
fn crash_kernel(machine: &Machine, news: &mut Newsroom) -> Result<bool, Duration> {
    if !machine.has_crash_kernel() {
        return Ok(false);
    }
    news.crash_kernel.pass()?;
    Ok(machine.take_crash_kernel())
}

mod requests;
#[cfg(test)]
mod tests;
