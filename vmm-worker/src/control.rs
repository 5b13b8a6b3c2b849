//! The control thread: requests in, replies and events out, the guest's own end handled.
//!
//! Runs on the main thread from the closing of the jail to the end of the process. It waits for the
//! control socket, for the guest's end ([`crate::vcpu::EndSignal`]), for what devices have to tell
//! ([`crate::notices`]), for a worker that takes the machine over ([`crate::hand_over`]) and for a supervisor
//! that comes back ([`crate::adoption`]), and for nothing else; it touches no guest memory but to load a boot
//! image again at a reset.
//!
//! A worker without a machine ends when it loses its supervisor. One with a machine does what its
//! launch says, also when the answer to the launch could not be delivered any more: whoever sent the
//! launch had recorded the worker before.

use std::os::fd::AsFd;
use std::time::Duration;

use reeve_ipc::endpoint::{Delivery, EndpointError};
use reeve_ipc::event::Event;
use reeve_ipc::fd::{FdError, FdTable};
use reeve_ipc::message::{FromWorker, JailFacts, RequestId, ToWorker};
use reeve_ipc::phase::Phase;
use reeve_ipc::request::{FinishedRequest, Operation, RequestBody, dispatch};
use reeve_ipc::scm::ScmError;
use reeve_ipc::spec::{ControlLoss, EndAction, ResetAction, WatchdogAction};
use reeve_ipc::{BuildId, PROTOCOL, ProtocolVersion, exit_code};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::adoption::Adoption;
use crate::events::Control;
use crate::log::Dropped;
use crate::machine::MachineError;
use crate::news::PortNews;
use crate::service::Service;
use crate::vcpu::GuestEnd;

/// Why the control thread stopped before its work was done.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The first message is not this build's welcome.
    #[error("the supervisor is of another build: {0}")]
    Handshake(String),
    /// A message that makes no sense.
    #[error("bad message from the supervisor: {0}")]
    Message(#[from] EndpointError),
    /// More descriptors than a launch may carry, or not those announced.
    #[error("bad descriptors from the supervisor: {0}")]
    Descriptors(#[from] FdError),
    /// Waiting failed.
    #[error("cannot wait for messages: {0}")]
    Poll(#[source] Errno),
}

impl ControlError {
    /// The exit code that tells the supervisor.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Handshake(_) | Self::Message(_) | Self::Descriptors(_) => exit_code::HANDSHAKE,
            Self::Poll(_) => exit_code::HOST,
        }
    }
}

/// Serves one supervisor until the domain ends; gives the process's exit code.
///
/// # Errors
/// [`ControlError`]; the caller exits with its code.
pub fn serve(control: Control, jail: JailFacts, log: Dropped) -> Result<u8, ControlError> {
    let mut thread = ControlThread {
        control,
        connected: true,
        welcomed: false,
        jail,
        descriptors: FdTable::new(),
        service: Service::new(log),
    };
    let code = thread.run()?;
    // What was said last must be read: the reply to Stop, the event that tells the end.
    let _ = thread.control.flush();
    thread.service.close();
    Ok(code)
}

struct ControlThread {
    control: Control,
    /// Whether anyone holds the other end.
    connected: bool,
    welcomed: bool,
    jail: JailFacts,
    descriptors: FdTable,
    service: Service,
}

impl ControlThread {
    fn run(&mut self) -> Result<u8, ControlError> {
        loop {
            if let Some(code) = self.drain()? {
                return Ok(code);
            }
            #[cfg(feature = "attack-points")]
            crate::attack::strike(reeve_sandbox::seccomp::Role::Control);
            if let Some(code) = self.wait()? {
                return Ok(code);
            }
        }
    }

    /// Handles every message that waits.
    fn drain(&mut self) -> Result<Option<u8>, ControlError> {
        while self.connected {
            match self.control.receive() {
                Ok(Some((message, fds))) => {
                    if let Some(code) = self.handle(message, fds)? {
                        return Ok(Some(code));
                    }
                }
                Ok(None) => break,
                Err(EndpointError::Socket(ScmError::Closed | ScmError::Os(_))) => {
                    return Ok(self.lost());
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// Waits until there is a message, room for one of ours, an end of the guest, or somebody who
    /// wants to be the supervisor.
    fn wait(&mut self) -> Result<Option<u8>, ControlError> {
        if let Some(action) = self.service.take_watchdog() {
            if let Some(code) = self.watchdog_expired(action) {
                return Ok(Some(code));
            }
        }
        let later = loop {
            let later = self.tell_news();
            match self.go_on_waiting() {
                Ok(false) => break later,
                // It has left something to be told.
                Ok(true) => {}
                Err(error) => return Ok(Some(self.failed(&error))),
            }
        };
        let end = self.service.end_signal();
        let giving = self.service.giving();
        let notices = self.service.notices();
        let adoption = self.service.adoption();
        let patience = adoption.and_then(Adoption::patience);
        let patience = patience.into_iter().chain(later).min();
        let mut fds = Vec::with_capacity(6);
        let mut flags = PollFlags::IN;
        flags.set(PollFlags::OUT, self.control.wants_write());
        if self.connected {
            fds.push(PollFd::from_borrowed_fd(self.control.as_fd(), flags));
        }
        if let Some(end) = &end {
            fds.push(PollFd::from_borrowed_fd(end.as_fd(), PollFlags::IN));
        }
        if let Some(notices) = &notices {
            fds.push(PollFd::from_borrowed_fd(notices.as_fd(), PollFlags::IN));
        }
        if let Some(giving) = giving {
            fds.push(PollFd::new(giving, PollFlags::IN));
        }
        if let Some(adoption) = adoption {
            fds.extend(adoption.poll_fds());
        }
        let timeout = patience.map(|patience| Timespec {
            tv_sec: i64::try_from(patience.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: patience.subsec_nanos().into(),
        });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(ControlError::Poll(errno)),
        }
        drop(fds);
        match self.service.turn_of_giving() {
            Ok(None) => {}
            Ok(Some(code)) => return Ok(Some(code)),
            Err(error) => return Ok(Some(self.failed(&error))),
        }
        if let Some((control, protocol)) = self.service.adoption_mut().and_then(Adoption::turn) {
            self.adopted(control, protocol);
        }
        if self.connected && self.control.flush().is_err() {
            return Ok(self.lost());
        }
        match end.and_then(|end| end.take()) {
            Some(end) => {
                // What it said before.
                if self.service.take_crash_kernel() {
                    self.event(Event::GuestCrashKernel);
                }
                Ok(self.guest_ended(end))
            }
            None => Ok(None),
        }
    }

    /// Does what there are notices of, and tells what is news; when there is more to do, if there is a time.
    fn tell_news(&mut self) -> Option<Duration> {
        let news = self.service.take_notices();
        if let Some(memory) = news.memory {
            self.event(Event::BalloonChanged {
                bytes: memory.balloon_bytes,
                plugged_bytes: memory.plugged_bytes,
            });
        }
        if let Some(PortNews { slot, guest_open }) = news.ports {
            self.event(Event::PortsChanged { slot, guest_open });
        }
        if let Some(standing) = news.vcpus {
            self.event(Event::VcpusChanged(standing));
        }
        for slot in std::mem::take(&mut self.service.removed) {
            self.event(Event::DeviceRemoved { slot });
        }
        for (slot, number) in std::mem::take(&mut self.service.removed_ports) {
            self.event(Event::PortRemoved { slot, number });
        }
        if news.crash_kernel {
            self.event(Event::GuestCrashKernel);
        }
        news.later
    }

    fn handle(
        &mut self,
        message: ToWorker,
        fds: Vec<std::os::fd::OwnedFd>,
    ) -> Result<Option<u8>, ControlError> {
        match message {
            ToWorker::Welcome {
                protocol,
                build,
                domain: _,
            } => {
                if protocol != PROTOCOL || build != BuildId::this() {
                    return Err(ControlError::Handshake(build.as_str().to_owned()));
                }
                self.welcomed = true;
                let hello = FromWorker::Hello {
                    protocol,
                    build,
                    jail: self.jail,
                };
                self.control.send(&hello, Delivery::Reliable)?;
            }
            _ if !self.welcomed => {
                return Err(ControlError::Handshake("it did not say which".to_owned()));
            }
            ToWorker::Descriptors { count } => {
                if usize::from(count) != fds.len() {
                    return Err(FdError::Missing(count).into());
                }
                for fd in fds {
                    self.descriptors.push(fd)?;
                }
            }
            ToWorker::Request { id, body } => {
                for fd in fds {
                    self.descriptors.push(fd)?;
                }
                return self.request(id, body);
            }
        }
        Ok(None)
    }

    fn request(&mut self, id: RequestId, body: RequestBody) -> Result<Option<u8>, ControlError> {
        let (phase, resets) = (self.service.phase_now(), self.service.resets());
        self.service.take_descriptors(&mut self.descriptors);
        let asks = matches!(
            body.operation(),
            Operation::Query | Operation::Report | Operation::DeviceQuery | Operation::VcpusQuery
        );
        if body.operation() == Operation::DeviceQuery {
            // A device that the answer does not name was told of before.
            self.tell_news();
        }
        let had_machine = self.service.has_machine();
        let result = match self.service.admit(body.operation()) {
            Ok(()) => dispatch(&mut self.service, body),
            Err(error) => Err(error),
        };
        if !asks {
            self.service.last_request = Some(FinishedRequest {
                id,
                result: result.as_ref().map(|_| ()).map_err(Clone::clone),
            });
        }
        // Told before the answer: who lets the machine run next has heard of the reset when that is answered. A
        // machine that was taken over brings its resets along.
        if had_machine && self.service.resets() != resets {
            self.event(Event::GuestReset {
                count: self.service.resets(),
            });
        }
        let reply = FromWorker::Reply { id, result };
        match self.control.send(&reply, Delivery::Reliable) {
            Ok(()) => {}
            Err(EndpointError::Socket(ScmError::Closed | ScmError::Os(_))) => {
                if let Some(code) = self.lost() {
                    return Ok(Some(code));
                }
            }
            Err(error) => return Err(error.into()),
        }
        #[cfg(feature = "attack-points")]
        crate::attack::launched();
        self.announce(phase);
        Ok(self.service.ending())
    }

    /// A supervisor has come back, perhaps before the loss of the one before was noticed.
    fn adopted(&mut self, control: Control, protocol: ProtocolVersion) {
        tracing::info!("adopted by a supervisor");
        self.control = control;
        self.connected = true;
        self.descriptors = FdTable::new();
        let hello = FromWorker::Hello {
            protocol,
            build: BuildId::this(),
            jail: self.jail,
        };
        if self.control.send(&hello, Delivery::Reliable).is_err() {
            // It has gone again; the machine goes on as before.
            self.connected = false;
        }
    }

    /// Tells of a change of phase, if there is one.
    fn announce(&mut self, before: Phase) {
        let phase = self.service.phase_now();
        if phase != before {
            self.event(Event::PhaseChanged(phase));
        }
    }

    fn event(&mut self, event: Event) {
        let events = &mut self.service.events;
        if !self.connected {
            events.keep(event);
        } else if events.send(&mut self.control, event).is_err() {
            // The next turn of the loop finds the socket closed and does what that means.
            tracing::warn!("an event could not be sent");
        }
    }

    /// The watchdog has expired: what the domain's definition says is done. It is told first.
    fn watchdog_expired(&mut self, action: WatchdogAction) -> Option<u8> {
        tracing::warn!(?action, "the watchdog has expired");
        let before = self.service.phase_now();
        self.event(Event::WatchdogExpired { action });
        if let Err(error) = self.service.act_on_watchdog(action) {
            return Some(self.failed(&error));
        }
        self.announce(before);
        None
    }

    /// The guest ended by itself: what the domain's policy says is done.
    fn guest_ended(&mut self, end: GuestEnd) -> Option<u8> {
        let before = self.service.phase_now();
        let policy = self.service.policy();
        let exits = match &end {
            GuestEnd::PowerOff => {
                self.event(Event::GuestPoweredOff);
                policy.on_power_off == EndAction::Exit
            }
            GuestEnd::Reset => policy.on_reset == ResetAction::Exit,
            GuestEnd::Crash(report) => {
                let registers = report.registers.as_deref().map(ToString::to_string);
                tracing::error!(
                    vcpu = report.vcpu,
                    registers = registers.as_deref().unwrap_or("not readable"),
                    "the guest crashed: {}",
                    report.cause
                );
                self.event(Event::GuestCrashed(report.clone()));
                policy.on_crash == EndAction::Exit
            }
        };
        if exits {
            if end == GuestEnd::Reset {
                self.event(Event::GuestReset {
                    count: self.service.resets() + 1,
                });
            }
            return Some(exit_code::ORDERLY);
        }
        if let Err(error) = self.service.settle(&end) {
            return Some(self.failed(&error));
        }
        if end == GuestEnd::Reset && policy.on_reset == ResetAction::Preserve {
            self.event(Event::GuestWantsReset);
        }
        self.announce(before);
        // Before anybody asks for anything else.
        match self.go_on_waiting() {
            Ok(_) => None,
            Err(error) => Some(self.failed(&error)),
        }
    }

    /// Goes on with what waits for devices or vCPUs: a reset, a machine that was not handed over, or one that its
    /// watchdog has stand. True if it is done.
    fn go_on_waiting(&mut self) -> Result<bool, MachineError> {
        let before = self.service.phase_now();
        if self.service.pause_at_last()? {
            self.announce(before);
            return Ok(true);
        }
        if self.service.go_on_here()? {
            return Ok(true);
        }
        let before = self.service.phase_now();
        let done = self.service.reset_guest()?;
        if done {
            let count = self.service.resets();
            self.event(Event::GuestReset { count });
            self.announce(before);
        }
        Ok(done)
    }

    /// The machine is in no state to go on; the exit code that says so.
    fn failed(&mut self, error: &MachineError) -> u8 {
        tracing::error!("{error}");
        self.event(Event::WorkerFailed {
            message: error.to_string(),
        });
        exit_code::HOST
    }

    /// Nobody holds the other end of the control socket.
    fn lost(&mut self) -> Option<u8> {
        self.connected = false;
        match self.service.on_control_loss() {
            ControlLoss::Stop => Some(exit_code::CONTROL_LOST),
            ControlLoss::KeepRunning => None,
        }
    }
}
