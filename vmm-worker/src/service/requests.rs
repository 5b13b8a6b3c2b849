//! What the worker does for each request: a phase check has passed, an effect follows, and the reply.

use reeve_ipc::device::{DeviceFigures, DeviceReport};
use reeve_ipc::error::{ErrorCode, WireError};
use reeve_ipc::exit_code;
use reeve_ipc::fd::FdError;
use reeve_ipc::phase::Phase;
use reeve_ipc::request::{
    AcceptorSet, ConsoleAttach, ConsoleAttached, DeviceAttach, DeviceDetach, DeviceQuery,
    DeviceUpdate, DiskQuery, HandOver, Launch, Launched, MAX_PEEK_BYTES, MediumChange, NmiInject,
    Pause, Peek, PeekPlace, PortAttach, PortDetach, PowerButton, Query, Report, Reset, Resume,
    Standing, Status, Stop, SwitchOver, SwitchedOver, TakeOver, VcpusQuery, VcpusSet,
    WorkerService,
};
use reeve_ipc::vcpus::VcpuStanding;
use reeve_sandbox::seccomp::{Role, enter_role};

use super::{Moving, Service};
use crate::adoption::Adoption;
use crate::build;
use crate::device_set::STOP_PATIENCE;
use crate::hand_over::give::{self, Before};
use crate::hand_over::take;
use crate::machine::Machine;
use crate::memory::PeekError;
use crate::state::time::monotonic;

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
        // The watchdog's pause is over before it was done.
        if self.phase == Phase::Paused || std::mem::take(&mut self.pause_waits) {
            // One that is being reset runs once that is done; one whose devices do not let it go on, then.
            if self.reset_waits.is_none() && !self.go_on_waits {
                self.machine()?.resume()?;
            }
            self.phase = Phase::Running;
        }
        Ok(())
    }

    fn pause(&mut self, _: Pause) -> Result<(), WireError> {
        if self.phase == Phase::Running {
            self.machine()?.pause()?;
            self.stands();
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
        self.stands();
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
        let standing = Standing {
            phase: self.phase,
            digest: self.digest,
            boot_protocol: machine.map(Machine::boot_protocol),
            resets: self.resets(),
            last_event: self.events.last(),
            events: self.events.after(request.events_after),
            last_request: self.last_request.clone(),
            console_position: machine.map_or(0, Machine::console_position),
            told: self.events.told(),
        };
        self.events.all_told();
        Ok(standing)
    }

    fn device_attach(&mut self, request: DeviceAttach) -> Result<(), WireError> {
        let descriptors = std::mem::take(&mut self.descriptors);
        self.machine()?.attach(request.spec, descriptors)
    }

    fn device_detach(&mut self, request: DeviceDetach) -> Result<(), WireError> {
        let machine = self.machine()?;
        if machine.watchdog_place() == Some(request.slot) {
            let why = "the watchdog comes and goes with a start of the machine only";
            return Err(WireError::new(ErrorCode::Unsupported, why));
        }
        if machine.is_memory_device(request.slot) {
            let why = "the memory device comes and goes with a start of the machine only";
            return Err(WireError::new(ErrorCode::Unsupported, why));
        }
        machine.detach(request.slot, request.force)
    }

    fn device_update(&mut self, request: DeviceUpdate) -> Result<(), WireError> {
        let machine = self.machine()?;
        machine.plugging().update(request.slot, request.change)
    }

    fn medium_change(&mut self, request: MediumChange) -> Result<(), WireError> {
        let descriptors = std::mem::take(&mut self.descriptors);
        let MediumChange { slot, layers } = request;
        let plugging = self.machine()?.plugging();
        plugging.change_medium(slot, layers, descriptors)
    }

    fn port_attach(&mut self, request: PortAttach) -> Result<(), WireError> {
        let descriptors = std::mem::take(&mut self.descriptors);
        let PortAttach { slot, port } = request;
        let plugging = self.machine()?.plugging();
        plugging.attach_port(slot, port, descriptors)
    }

    fn port_detach(&mut self, request: PortDetach) -> Result<(), WireError> {
        let PortDetach { slot, number } = request;
        self.machine()?.plugging().detach_port(slot, number)?;
        self.removed_ports.push((slot, number));
        Ok(())
    }

    fn acceptor_set(&mut self, request: AcceptorSet) -> Result<(), WireError> {
        let refuse = |error: FdError| WireError::new(ErrorCode::Descriptor, error.to_string());
        let AcceptorSet { slot, acceptor } = request;
        let acceptor = self.descriptors.take(acceptor).map_err(refuse)?;
        self.machine()?.plugging().set_acceptor(slot, acceptor)
    }

    fn nmi_inject(&mut self, _: NmiInject) -> Result<(), WireError> {
        self.machine()?.inject_nmi();
        Ok(())
    }

    fn peek(&mut self, request: Peek) -> Result<Vec<u8>, WireError> {
        let Peek { at, offset, length } = request;
        let wrong = |why: String| WireError::new(ErrorCode::InvalidArgument, why);
        if !(1..=MAX_PEEK_BYTES).contains(&length) {
            return Err(wrong(format!(
                "{length} bytes: it is 1 to {MAX_PEEK_BYTES}"
            )));
        }
        let machine = self.machine()?;
        let length = usize::try_from(length).unwrap_or(0);
        match at {
            PeekPlace::Disk(slot) => machine.plugging().peek(slot, offset, length),
            PeekPlace::Memory => {
                let mut bytes = vec![0; length];
                let peeked = machine.memory().peek(offset, &mut bytes);
                peeked.map_err(|error| match error {
                    PeekError::Outside(_) => wrong(error.to_string()),
                    PeekError::Host(_) => WireError::new(ErrorCode::Host, error.to_string()),
                })?;
                Ok(bytes)
            }
        }
    }

    fn disk_query(&mut self, request: DiskQuery) -> Result<u64, WireError> {
        self.machine()?.plugging().disk_bytes(request.slot)
    }

    fn device_query(&mut self, _: DeviceQuery) -> Result<Vec<DeviceReport>, WireError> {
        let machine = self.machine()?;
        let mut reports = machine.plugging().reports();
        reports.extend(machine.watchdog_place().map(|slot| DeviceReport {
            slot,
            figures: DeviceFigures::None,
        }));
        reports.sort_unstable_by_key(|report| report.slot);
        Ok(reports)
    }

    fn hand_over(&mut self, request: HandOver) -> Result<(), WireError> {
        let refuse = |error: FdError| WireError::new(ErrorCode::Descriptor, error.to_string());
        let socket = self.descriptors.take(request.to).map_err(refuse)?;
        let running = self.phase == Phase::Running && !self.pause_waits;
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
        // What the guest let go of just now is known here alone.
        self.removed.extend(machine.plugging().turn());
        // As `stands` has it, which would borrow all of this.
        if std::mem::take(&mut self.pause_waits) && self.phase == Phase::Running {
            self.phase = Phase::Paused;
        }
        match give::give(machine, adoption, socket, before) {
            Ok(giving) => {
                self.moving = Moving::Away(giving);
                // From an earlier attempt: it is the other worker's to let it go on now.
                self.go_on_waits = false;
                Ok(())
            }
            Err(mut error) => {
                self.go_on()?;
                if self.go_on_waits {
                    error.message.push_str("; the machine goes on when it has");
                }
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
