//! A worker that does what its domain's name says, most of it against the rules. Test builds only.

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use reeve_ipc::event::{CrashCause, CrashReport, Event};
use reeve_ipc::message::{FromWorker, JailFacts, RequestId, ToWorker};
use reeve_ipc::phase::Phase;
use reeve_ipc::request::{BootProtocol, Launched, ReplyBody, RequestBody, Status};
use reeve_ipc::scm::{self, ScmError};
use reeve_ipc::{BuildId, CONTROL_FD, LOG_FD, PROTOCOL, codec, exit_code};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::SendFlags;

struct Worker {
    control: OwnedFd,
    log: OwnedFd,
    behaviour: String,
    events: u64,
    /// What came with the last descriptors.
    fds: Vec<OwnedFd>,
}

fn main() -> ExitCode {
    let mut worker = Worker {
        control: adopt(CONTROL_FD),
        log: adopt(LOG_FD),
        behaviour: std::env::args().nth(1).unwrap_or_default(),
        events: 0,
        fds: Vec::new(),
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
        if !self.is("no-hello") {
            self.hello();
        }
        if self.is("second-hello") {
            self.hello();
        }
        while let Some(message) = self.receive() {
            if let ToWorker::Request { id, body } = message {
                if let Some(code) = self.answer(id, body) {
                    return code;
                }
            }
        }
        exit_code::CONTROL_LOST
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
        match body {
            RequestBody::Launch(launch) => {
                let slot = launch.spec.console.map(|slot| usize::from(slot.0));
                let console = slot.filter(|slot| *slot < self.fds.len());
                if let Some(console) = console.map(|slot| self.fds.remove(slot)) {
                    serve(&self.behaviour, console);
                }
                if self.is("hangs") {
                    return None;
                }
                if self.is("dies-in-launch") {
                    return Some(exit_code::HOST);
                }
                self.send(&reply(ReplyBody::Launch(Launched {
                    phase: Phase::Running,
                    boot_protocol: BootProtocol::Pvh,
                })));
                self.event(Event::PhaseChanged(Phase::Running));
                return self.misbehave();
            }
            RequestBody::Pause(_) if self.is("deaf") => {}
            RequestBody::Pause(_) if self.is("wrong-reply") => {
                self.send(&reply(ReplyBody::Resume(())));
            }
            RequestBody::Pause(_) => {
                self.event(Event::PhaseChanged(Phase::Paused));
                self.send(&reply(ReplyBody::Pause(())));
            }
            RequestBody::Resume(_) => {
                self.event(Event::PhaseChanged(Phase::Running));
                self.send(&reply(ReplyBody::Resume(())));
            }
            RequestBody::PowerButton(_) => self.send(&reply(ReplyBody::PowerButton(()))),
            RequestBody::Reset(_) => self.send(&reply(ReplyBody::Reset(()))),
            RequestBody::ConsoleAttach(_) => self.send(&reply(ReplyBody::ConsoleAttach(()))),
            RequestBody::Query(_) => self.send(&reply(ReplyBody::Query(Status {
                phase: Phase::Running,
                last_event: self.events,
                resets: 0,
                console_dropped_bytes: 0,
                console_clients: 0,
                log_dropped: 0,
            }))),
            RequestBody::Stop(_) => {
                self.send(&reply(ReplyBody::Stop(())));
                return Some(exit_code::ORDERLY);
            }
        }
        None
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
            let log = self.log.as_fd();
            let _ = scm::send(self.control.as_fd(), b"x", &[log]);
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
            let null = self.log.try_clone();
            self.control = null.unwrap_or_else(|_| adopt(LOG_FD));
            loop {
                std::thread::sleep(Duration::from_secs(1));
            }
        }
        None
    }

    fn event(&mut self, event: Event) {
        self.events += 1;
        self.send(&FromWorker::Event {
            number: self.events,
            event,
        });
    }

    fn send(&self, message: &FromWorker) {
        let bytes = codec::encode(message).unwrap_or_default();
        while let Err(ScmError::WouldBlock) = scm::send(self.control.as_fd(), &bytes, &[]) {
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
                        self.fds = fds;
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
