//! What the worker does for each request: a phase, a machine once there is one, and how to end.
//!
//! Owned by the control thread; every effect on the machine goes through [`crate::machine`].

use std::sync::Arc;

use reeve_ipc::device::DeviceReport;
use reeve_ipc::error::{ErrorCode, WireError};
use reeve_ipc::exit_code;
use reeve_ipc::fd::FdTable;
use reeve_ipc::phase::Phase;
use reeve_ipc::request::{
    ConsoleAttach, ConsoleAttached, DeviceAttach, DeviceDetach, DeviceQuery, DeviceUpdate,
    FinishedRequest, Launch, Launched, Pause, PowerButton, Query, Report, Reset, Resume, Standing,
    Status, Stop, VcpusQuery, VcpusSet, WorkerService,
};
use reeve_ipc::spec::{ControlLoss, EndAction, EndPolicy, PciSlot, ResetAction, SpecDigest};
use reeve_ipc::vcpus::VcpuStanding;
use reeve_sandbox::seccomp::{Role, enter_role};

use crate::adoption::Adoption;
use crate::build;
use crate::events::Events;
use crate::log::Dropped;
use crate::machine::{Machine, MachineError};
use crate::news::{News, Newsroom};
use crate::notices::Notices;
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
}

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

    /// Does what the guest's ACPI has told, and gives what is news of its balloon and its vCPUs.
    pub fn take_notices(&mut self) -> News {
        let Some(machine) = self.machine.as_mut() else {
            return News::default();
        };
        let plugging = machine.plugging();
        self.removed.extend(plugging.take_ejected());
        let balloon = plugging.balloon_bytes();
        self.news.take(balloon, machine.settle_vcpus())
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

    /// Where a supervisor may come back, once there is a machine.
    pub fn adoption(&mut self) -> Option<&mut Adoption> {
        self.adoption.as_mut()
    }

    /// Resets since launch.
    #[must_use]
    pub fn resets(&self) -> u64 {
        self.machine.as_ref().map_or(0, Machine::resets)
    }

    /// Brings the machine to rest after the guest's own end: reset and running again, or kept.
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
            GuestEnd::Reset => {
                self.removed.extend(machine.reset()?);
                if self.phase == Phase::Running {
                    machine.resume()?;
                }
            }
        }
        Ok(())
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
            self.machine()?.resume()?;
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
        let machine = self.machine()?;
        machine.pause()?;
        match machine.reset() {
            Ok(removed) => self.removed.extend(removed),
            Err(error) => {
                // Half of it is as before and half is not: nothing may run until a reset succeeds.
                self.phase = Phase::Crashed;
                return Err(error.into());
            }
        }
        if self.phase == Phase::Running {
            self.machine()?.resume()?;
        } else {
            self.phase = Phase::Paused;
        }
        Ok(())
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
        let DeviceDetach { slot, force } = request;
        if self.machine()?.detach(slot, force)? {
            self.removed.push(slot);
        }
        Ok(())
    }

    fn device_update(&mut self, request: DeviceUpdate) -> Result<(), WireError> {
        let machine = self.machine()?;
        machine.plugging().update(request.slot, request.change)
    }

    fn device_query(&mut self, _: DeviceQuery) -> Result<Vec<DeviceReport>, WireError> {
        Ok(self.machine()?.plugging().reports())
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
