//! A worker that does what its domain's name says, most of it against the rules. Test builds only.
//!
//! What is not named is done as it should be: a domain of any other name is launched, answers, and is
//! found again by the next supervisor.

mod adoption;
mod lies;
mod reader;

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use reeve_ipc::event::{CrashCause, CrashReport, Event};
use reeve_ipc::message::{FromWorker, JailFacts, RequestId, ToWorker};
use reeve_ipc::phase::Phase;
use reeve_ipc::request::{
    BootProtocol, ConsoleAttached, Launched, ReplyBody, RequestBody, Status, SwitchedOver,
};
use reeve_ipc::scm::{self, ScmError};
use reeve_ipc::spec::SpecDigest;
use reeve_ipc::vcpus::VcpuStanding;
use reeve_ipc::{BuildId, CONTROL_FD, LOG_FD, PROTOCOL, codec, exit_code};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::SendFlags;

struct Worker {
    control: OwnedFd,
    log: OwnedFd,
    behaviour: String,
    events: u64,
    /// What came with the last descriptors.
    fds: Vec<Option<OwnedFd>>,
    phase: Phase,
    digest: Option<SpecDigest>,
    /// Whether a client of the console was refused.
    refused_console: bool,
    /// Where the next supervisor comes.
    listener: Option<OwnedFd>,
}

fn main() -> ExitCode {
    reeve_sandbox::service::run_if_launcher();
    if reader::is_asked_for() {
        return ExitCode::from(reader::run());
    }
    let mut worker = Worker {
        control: adopt(CONTROL_FD),
        log: adopt(LOG_FD),
        behaviour: std::env::args().nth(1).unwrap_or_default(),
        events: 0,
        fds: Vec::new(),
        phase: Phase::AwaitingLaunch,
        digest: None,
        refused_console: false,
        listener: None,
    };
    ExitCode::from(worker.run())
}

#[expect(
    unsafe_code,
    reason = "descriptors that a process is started with have no owner"
)]
fn adopt(number: i32) -> OwnedFd {
    // SAFETY: the supervisor starts this program with the descriptor open, and nothing else here
    // takes it.
    unsafe { std::os::fd::FromRawFd::from_raw_fd(number) }
}

impl Worker {
    fn is(&self, behaviour: &str) -> bool {
        self.behaviour.starts_with(behaviour)
    }

    fn run(&mut self) -> u8 {
        if self.is("exits-in-jail") {
            self.say("ERROR jail: no Landlock \u{1b}[2J here");
            return exit_code::JAIL;
        }
        if let Some(code) = self.first_words() {
            return code;
        }
        loop {
            while let Some(message) = self.receive() {
                if let ToWorker::Request { id, body } = message {
                    if let Some(code) = self.answer(id, body) {
                        return code;
                    }
                }
            }
            if !self.wait_for_supervisor() {
                return exit_code::CONTROL_LOST;
            }
        }
    }

    fn hello(&self) {
        self.send(&FromWorker::Hello {
            protocol: PROTOCOL,
            build: BuildId::this(),
            jail: JailFacts { landlock_abi: 1 },
        });
    }

    /// Answers a request; the exit code, if that was the last one.
    fn answer(&mut self, id: RequestId, body: RequestBody) -> Option<u8> {
        let reply = |body| FromWorker::Reply {
            id,
            result: Ok(body),
        };
        if !matches!(body, RequestBody::Launch(_)) {
            if let Some(lie) = self.lie_to(id, body.operation()) {
                return lie;
            }
        }
        match body {
            RequestBody::Launch(launch) => {
                self.digest = Some(launch.spec.digest);
                self.listener = launch.spec.adoption.and_then(|slot| self.take_fd(slot.0));
                if let Some(console) = launch.spec.console.and_then(|slot| self.take_fd(slot.0)) {
                    serve(&self.behaviour, console);
                }
                self.phase = if launch.spec.hold {
                    Phase::Paused
                } else {
                    Phase::Running
                };
                if let Some(lie) = self.lie_to_launch(id) {
                    return lie;
                }
                self.send(&reply(ReplyBody::Launch(Launched {
                    phase: self.phase,
                    boot_protocol: BootProtocol::Pvh,
                })));
                self.event(Event::PhaseChanged(self.phase));
                return self.misbehave();
            }
            RequestBody::Pause(_) => {
                self.become_phase(Phase::Paused);
                self.send(&reply(ReplyBody::Pause(())));
            }
            RequestBody::Resume(_) => {
                self.become_phase(Phase::Running);
                self.send(&reply(ReplyBody::Resume(())));
            }
            RequestBody::PowerButton(_) => self.send(&reply(ReplyBody::PowerButton(()))),
            RequestBody::Reset(_) => self.send(&reply(ReplyBody::Reset(()))),
            RequestBody::ConsoleAttach(attach) => {
                let stream = self.take_fd(attach.stream.0);
                self.attach(id, stream);
            }
            RequestBody::Query(_) => self.send(&reply(ReplyBody::Query(Status {
                phase: self.phase,
                last_event: self.events,
                resets: 0,
                console_dropped_bytes: 0,
                console_clients: 0,
                log_dropped: 0,
            }))),
            RequestBody::Report(_) => {
                let standing = self.standing();
                self.send(&reply(ReplyBody::Report(standing)));
            }
            RequestBody::DeviceAttach(_) => self.send(&reply(ReplyBody::DeviceAttach(()))),
            RequestBody::DeviceDetach(_) => self.send(&reply(ReplyBody::DeviceDetach(()))),
            RequestBody::DeviceUpdate(_) => self.send(&reply(ReplyBody::DeviceUpdate(()))),
            RequestBody::MediumChange(_) => self.send(&reply(ReplyBody::MediumChange(()))),
            RequestBody::PortAttach(_) => self.send(&reply(ReplyBody::PortAttach(()))),
            RequestBody::PortDetach(_) => self.send(&reply(ReplyBody::PortDetach(()))),
            RequestBody::AcceptorSet(_) => self.send(&reply(ReplyBody::AcceptorSet(()))),
            RequestBody::NmiInject(_) => self.send(&reply(ReplyBody::NmiInject(()))),
            // Whatever was asked for.
            RequestBody::Peek(_) => self.send(&reply(ReplyBody::Peek(vec![1, 2, 3]))),
            RequestBody::DiskQuery(_) => self.send(&reply(ReplyBody::DiskQuery(u64::MAX))),
            RequestBody::DeviceQuery(_) => {
                self.send(&reply(ReplyBody::DeviceQuery(self.devices())));
                if self.is("tells-ports-as-it-answers") {
                    self.tell_ports(4);
                }
            }
            // It sends nothing and gives nothing up, and a fresh one runs all the same.
            RequestBody::HandOver(_) => self.send(&reply(ReplyBody::HandOver(()))),
            RequestBody::TakeOver(_) => {
                self.phase = Phase::Paused;
                self.send(&reply(ReplyBody::TakeOver(Launched {
                    phase: self.phase,
                    boot_protocol: BootProtocol::Pvh,
                })));
                self.event(Event::PhaseChanged(self.phase));
            }
            RequestBody::SwitchOver(_) => {
                let stood_ns = u64::MAX;
                let phase = Phase::Running;
                self.send(&reply(ReplyBody::SwitchOver(SwitchedOver {
                    phase,
                    stood_ns,
                })));
                self.become_phase(phase);
            }
            RequestBody::VcpusSet(_) => self.send(&reply(ReplyBody::VcpusSet(()))),
            RequestBody::VcpusQuery(_) => {
                let standing = VcpuStanding {
                    present: [0].into_iter().collect(),
                    wanted: 1,
                    ..VcpuStanding::default()
                };
                self.send(&reply(ReplyBody::VcpusQuery(standing)));
            }
            RequestBody::Stop(_) => {
                self.send(&reply(ReplyBody::Stop(())));
                return Some(exit_code::ORDERLY);
            }
        }
        None
    }

    fn become_phase(&mut self, phase: Phase) {
        if self.phase != phase {
            self.phase = phase;
            self.event(Event::PhaseChanged(phase));
        }
    }

    /// A descriptor that came with the last request.
    fn take_fd(&mut self, slot: u16) -> Option<OwnedFd> {
        self.fds.get_mut(usize::from(slot))?.take()
    }

    fn attach(&self, id: RequestId, stream: Option<OwnedFd>) {
        let position = if self.is("console-far") { u64::MAX } else { 0 };
        let body = ReplyBody::ConsoleAttach(ConsoleAttached { position });
        self.send(&FromWorker::Reply {
            id,
            result: Ok(body),
        });
        let writes = self.is("console-far") || self.is("console-later");
        if let Some(stream) = stream.filter(|_| writes) {
            let mut stream = UnixStream::from(stream);
            let _ = stream.write_all(b"so far\n");
            std::thread::sleep(Duration::from_millis(50));
            let _ = stream.write_all(b"and further\n");
        }
    }

    /// What it does once it is launched.
    fn misbehave(&mut self) -> Option<u8> {
        if self.is("powers-off") {
            self.event(Event::GuestPoweredOff);
            return Some(exit_code::ORDERLY);
        }
        if self.is("crashes") {
            self.event(Event::GuestCrashed(CrashReport {
                vcpu: 1,
                cause: CrashCause::TripleFault,
                registers: None,
            }));
            return Some(exit_code::ORDERLY);
        }
        if self.is("dies-silently") {
            return Some(exit_code::ORDERLY);
        }
        if self.is("jumps") {
            self.event(Event::PhaseChanged(Phase::AwaitingLaunch));
        }
        if self.is("repeats-an-event") {
            self.events -= 1;
            self.event(Event::GuestPoweredOff);
        }
        if self.is("garbage") {
            let _ = scm::send(self.control.as_fd(), &[0xff; 64], &[]);
        }
        if self.is("sends-a-descriptor") {
            self.send_strays(b"x");
        }
        if self.is("logs-a-descriptor") {
            let sent = scm::send(self.log.as_fd(), b"INFO x: y", &[self.control.as_fd()]);
            if sent.is_err() {
                self.send_bytes(&[0xff; 64]);
            }
        }
        if self.is("floods-events") {
            loop {
                self.event(Event::GuestPoweredOff);
            }
        }
        if self.is("floods-log") {
            loop {
                self.say("WARN flood: the same line again and again");
            }
        }
        if self.is("closes-control") {
            self.close_control();
        }
        self.lie_unasked()
    }

    /// Lives on without its control socket.
    fn close_control(&mut self) -> ! {
        let null = self.log.try_clone();
        self.control = null.unwrap_or_else(|_| adopt(LOG_FD));
        loop {
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    fn event(&mut self, event: Event) {
        self.events += 1;
        self.send(&FromWorker::Event {
            number: self.events,
            event,
        });
    }

    fn send(&self, message: &FromWorker) {
        self.send_bytes(&codec::encode(message).unwrap_or_default());
    }

    fn send_bytes(&self, bytes: &[u8]) {
        while let Err(ScmError::WouldBlock) = scm::send(self.control.as_fd(), bytes, &[]) {
            wait(self.control.as_fd(), PollFlags::OUT);
        }
    }

    fn say(&self, line: &str) {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let _ = rustix::net::send(&self.log, line.as_bytes(), flags);
    }

    fn receive(&mut self) -> Option<ToWorker> {
        loop {
            match scm::receive_message(self.control.as_fd()) {
                Ok((bytes, fds)) => {
                    if !fds.is_empty() {
                        self.fds = fds.into_iter().map(Some).collect();
                    }
                    return codec::decode(&bytes).ok();
                }
                Err(ScmError::WouldBlock) => wait(self.control.as_fd(), PollFlags::IN),
                Err(_) => return None,
            }
        }
    }
}

fn wait(fd: BorrowedFd<'_>, flags: PollFlags) {
    let _ = poll(&mut [PollFd::from_borrowed_fd(fd, flags)], None);
}

/// The console: says hello and echoes, or floods.
fn serve(behaviour: &str, console: OwnedFd) {
    let floods = behaviour.starts_with("floods-console");
    let mut console = UnixStream::from(console);
    std::thread::spawn(move || {
        let flood = [b'~'; 4096];
        let _ = console.write_all(b"up\n");
        while floods && console.write_all(&flood).is_ok() {}
        let mut buffer = [0; 256];
        while let Ok(length @ 1..) = console.read(&mut buffer) {
            let _ = console.write_all(buffer.get(..length).unwrap_or_default());
        }
    });
}
