//! What the worker does for each request: a phase, a machine once there is one, and how to end.
//!
//! Owned by the control thread; every effect on the machine goes through [`crate::machine`].

use std::sync::Arc;
use std::time::Duration;

use reeve_ipc::device::DeviceReport;
use reeve_ipc::error::{ErrorCode, WireError};
use reeve_ipc::exit_code;
use reeve_ipc::fd::{FdError, FdTable};
use reeve_ipc::phase::Phase;
use reeve_ipc::request::{
    ConsoleAttach, ConsoleAttached, DeviceAttach, DeviceDetach, DeviceQuery, DeviceUpdate,
    FinishedRequest, HandOver, Launch, Launched, Operation, Pause, PowerButton, Query, Report,
    Reset, Resume, Standing, Status, Stop, SwitchOver, SwitchedOver, TakeOver, VcpusQuery,
    VcpusSet, WorkerService,
};
use reeve_ipc::spec::{ControlLoss, EndAction, EndPolicy, PciSlot, ResetAction, SpecDigest};
use reeve_ipc::vcpus::VcpuStanding;
use reeve_sandbox::seccomp::{Role, enter_role};

use crate::adoption::Adoption;
use crate::build;
use crate::device_set::{DeviceSetError, STOP_PATIENCE};
use crate::events::Events;
use crate::hand_over::give::{self, Before, Giving, Outcome};
use crate::hand_over::take::{self, Taking};
use crate::log::Dropped;
use crate::machine::{Machine, MachineError};
use crate::news::{News, Newsroom};
use crate::notices::Notices;
use crate::state::time::monotonic;
use crate::vcpu::{EndSignal, GuestEnd};

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
    /// What was said, and is told again in a [`Report`].
    pub events: Events,
    /// The last request that changed anything, for [`Report`].
    pub last_request: Option<FinishedRequest>,
    /// Devices that are gone and of which nobody was told yet.
    pub removed: Vec<PciSlot>,
    news: Newsroom,
    /// A reset waits for the devices, at its next try for so long.
    reset_waits: Option<Duration>,
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
            news: Newsroom::default(),
            reset_waits: None,
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

    /// Does what the guest's ACPI and devices have told, and gives what is news of its balloon and its vCPUs.
    pub fn take_notices(&mut self) -> News {
        let Some(machine) = self.machine.as_mut() else {
            return News::default();
        };
        let plugging = machine.plugging();
        self.removed.extend(plugging.turn());
        let turn = plugging.devices.next_turn();
        let balloon = plugging.balloon_bytes();
        let (vcpus, later) = machine.settle_vcpus();
        let mut news = self.news.take(balloon, vcpus);
        news.later = news.later.into_iter().chain(later).chain(turn).min();
        news
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
            (Moving::No, _) | (Moving::Here(_), Operation::SwitchOver) => Ok(()),
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
        let running = giving.running;
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
                match &mut self.machine {
                    Some(machine) => machine.go_on(running).map(|()| None),
                    None => Ok(None),
                }
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
        match end {
            GuestEnd::PowerOff => self.phase = Phase::Off,
            GuestEnd::Crash(_) => self.phase = Phase::Crashed,
            GuestEnd::Reset if self.policy.on_reset == ResetAction::Preserve => {
                self.phase = Phase::Off;
            }
            GuestEnd::Reset => self.reset_waits = Some(RESET_PATIENCE),
        }
        Ok(())
    }

    /// Carries out a reset that waits, and lets the machine run again; true if it has. It goes on waiting,
    /// with the vCPUs standing, while a device has not finished what it had begun: to be called again when
    /// there are notices.
    ///
    /// # Errors
    /// The machine cannot be reset; the worker must end.
    pub fn reset_guest(&mut self) -> Result<bool, MachineError> {
        let (Some(patience), Some(machine)) = (self.reset_waits, &self.machine) else {
            return Ok(false);
        };
        // First: what is told from now on brings another try.
        machine.notices().clear();
        Ok(self.try_reset(patience)?.is_none())
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

impl WorkerService for Service {
    fn phase(&self) -> Phase {
        self.phase
    }

    fn launch(&mut self, request: Launch) -> Result<Launched, WireError> {
        let Launch { spec } = request;
        let (policy, on_control_loss, hold) = (spec.policy, spec.on_control_loss, spec.hold);
        let digest = spec.digest;
        let mut descriptors = std::mem::take(&mut self.descriptors);
        let refuse = |error: String| WireError::new(ErrorCode::Descriptor, error);
        let adoption = match spec.adoption.map(|slot| descriptors.take(slot)) {
            None => None,
            Some(listener) => {
                let listener = listener.map_err(|error| refuse(error.to_string()))?;
                let adoption = Adoption::new(listener)
                    .map_err(|errno| refuse(format!("not a socket to be adopted on: {errno}")))?;
                Some(adoption)
            }
        };
        let mut machine = build::machine(spec, &mut descriptors)?;
        // Every thread exists: this one needs no more than its role, before the guest runs.
        crate::failure::or_exit(
            enter_role(Role::Control),
            "cannot close the filter of the control thread",
        );
        self.policy = policy;
        self.on_control_loss = on_control_loss;
        self.adoption = adoption;
        self.digest = Some(digest);
        if !hold {
            machine.resume()?;
        }
        self.phase = if hold { Phase::Paused } else { Phase::Running };
        let boot_protocol = machine.boot_protocol();
        self.machine = Some(machine);
        Ok(Launched {
            phase: self.phase,
            boot_protocol,
        })
    }

    fn resume(&mut self, _: Resume) -> Result<(), WireError> {
        if self.phase == Phase::Paused {
            // One that is being reset runs once that is done.
            if self.reset_waits.is_none() {
                self.machine()?.resume()?;
            }
            self.phase = Phase::Running;
        }
        Ok(())
    }

    fn pause(&mut self, _: Pause) -> Result<(), WireError> {
        if self.phase == Phase::Running {
            self.machine()?.pause()?;
            self.phase = Phase::Paused;
        }
        Ok(())
    }

    fn power_button(&mut self, _: PowerButton) -> Result<(), WireError> {
        self.machine()?.press_power_button();
        Ok(())
    }

    fn reset(&mut self, _: Reset) -> Result<(), WireError> {
        self.machine()?.pause()?;
        match self.try_reset(STOP_PATIENCE) {
            Ok(None) => Ok(()),
            // It is done when the device has stopped.
            Ok(Some(waits)) => Err(waits.into()),
            Err(error) => {
                // Half of it is as before and half is not: nothing may run until a reset succeeds.
                self.phase = Phase::Crashed;
                Err(error.into())
            }
        }
    }

    fn stop(&mut self, _: Stop) -> Result<(), WireError> {
        self.ending = Some(exit_code::ORDERLY);
        Ok(())
    }

    fn console_attach(&mut self, request: ConsoleAttach) -> Result<ConsoleAttached, WireError> {
        let stream = self
            .descriptors
            .take(request.stream)
            .map_err(|error| WireError::new(ErrorCode::Descriptor, error.to_string()))?;
        let machine = self.machine()?;
        let position = machine.attach_console(stream, request.input, request.from)?;
        Ok(ConsoleAttached { position })
    }

    fn report(&mut self, request: Report) -> Result<Standing, WireError> {
        let machine = self.machine.as_ref();
        Ok(Standing {
            phase: self.phase,
            digest: self.digest,
            boot_protocol: machine.map(Machine::boot_protocol),
            resets: self.resets(),
            last_event: self.events.last(),
            events: self.events.after(request.events_after),
            last_request: self.last_request.clone(),
            console_position: machine.map_or(0, Machine::console_position),
        })
    }

    fn device_attach(&mut self, request: DeviceAttach) -> Result<(), WireError> {
        let descriptors = std::mem::take(&mut self.descriptors);
        self.machine()?.attach(request.spec, descriptors)
    }

    fn device_detach(&mut self, request: DeviceDetach) -> Result<(), WireError> {
        self.machine()?.detach(request.slot, request.force)
    }

    fn device_update(&mut self, request: DeviceUpdate) -> Result<(), WireError> {
        let machine = self.machine()?;
        machine.plugging().update(request.slot, request.change)
    }

    fn device_query(&mut self, _: DeviceQuery) -> Result<Vec<DeviceReport>, WireError> {
        Ok(self.machine()?.plugging().reports())
    }

    fn hand_over(&mut self, request: HandOver) -> Result<(), WireError> {
        let refuse = |error: FdError| WireError::new(ErrorCode::Descriptor, error.to_string());
        let socket = self.descriptors.take(request.to).map_err(refuse)?;
        let running = self.phase == Phase::Running;
        let before = Before {
            running,
            stood_since_ns: monotonic(),
        };
        let adoption = self.adoption.as_ref().map(Adoption::listener);
        let machine = self
            .machine
            .as_mut()
            .ok_or_else(|| WireError::new(ErrorCode::WrongPhase, "there is no machine"))?;
        machine.pause()?;
        match give::give(machine, adoption, socket, before) {
            Ok(giving) => {
                self.moving = Moving::Away(giving);
                Ok(())
            }
            Err(error) => {
                machine.go_on(running)?;
                Err(error)
            }
        }
    }

    fn take_over(&mut self, request: TakeOver) -> Result<Launched, WireError> {
        let refuse = |error: FdError| WireError::new(ErrorCode::Descriptor, error.to_string());
        let socket = self.descriptors.take(request.from).map_err(refuse)?;
        let kvm = self.descriptors.take(request.kvm).map_err(refuse)?;
        let (machine, taking) = take::take(socket, kvm)?;
        crate::failure::or_exit(
            enter_role(Role::Control),
            "cannot close the filter of the control thread",
        );
        self.policy = taking.policy;
        self.digest = Some(taking.digest);
        self.phase = Phase::Paused;
        let boot_protocol = machine.boot_protocol();
        self.machine = Some(machine);
        self.moving = Moving::Here(Box::new(taking));
        Ok(Launched {
            phase: self.phase,
            boot_protocol,
        })
    }

    fn switch_over(&mut self, _: SwitchOver) -> Result<SwitchedOver, WireError> {
        let mut taking = match std::mem::replace(&mut self.moving, Moving::No) {
            Moving::Here(taking) => taking,
            other => {
                self.moving = other;
                let why = "the machine was not handed over by another worker";
                return Err(WireError::new(ErrorCode::WrongPhase, why));
            }
        };
        if let Err(error) = taking.declare() {
            self.moving = Moving::Here(taking);
            return Err(error);
        }
        // From here on nobody else has the machine.
        self.adoption = taking.adoption.take();
        self.on_control_loss = taking.on_control_loss;
        let running = taking.running;
        let stood_ns = taking.go_on(self.machine()?)?;
        if running {
            self.phase = Phase::Running;
        }
        Ok(SwitchedOver {
            phase: self.phase,
            stood_ns,
        })
    }

    fn vcpus_set(&mut self, request: VcpusSet) -> Result<(), WireError> {
        self.machine()?.set_vcpus(request.count)
    }

    fn vcpus_query(&mut self, _: VcpusQuery) -> Result<VcpuStanding, WireError> {
        Ok(self.machine()?.vcpus())
    }

    fn query(&mut self, _: Query) -> Result<Status, WireError> {
        let console = self
            .machine
            .as_ref()
            .map(Machine::console_status)
            .unwrap_or_default();
        Ok(Status {
            phase: self.phase,
            last_event: self.events.last(),
            resets: self.resets(),
            console_dropped_bytes: console.dropped_bytes,
            console_clients: console.clients,
            log_dropped: self.log.count(),
        })
    }
}

#[cfg(test)]
mod tests;
