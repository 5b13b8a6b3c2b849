//! Lies in the messages of a worker to the supervisor that started it.

use std::os::fd::AsFd;
use std::time::Duration;

use reeve_ipc::device::{DeviceFigures, DeviceReport, PortsFigures};
use reeve_ipc::error::{ErrorCode, WireError};
use reeve_ipc::event::Event;
use reeve_ipc::message::{FromWorker, JailFacts, RequestId};
use reeve_ipc::phase::Phase;
use reeve_ipc::request::{BootProtocol, Launched, Operation, ReplyBody};
use reeve_ipc::scm::{self, ScmError};
use reeve_ipc::vcpus::VcpuStanding;
use reeve_ipc::{BuildId, MAX_MESSAGE_BYTES, PROTOCOL, ProtocolVersion, codec, exit_code};
use rustix::io::Errno;
use rustix::net::SendFlags;

use super::Worker;

/// What a terminal must never get, and far more than a message may have.
pub(crate) fn loud() -> String {
    "\u{1b}[2J\nroot# ".repeat(4000)
}

impl Worker {
    /// Its hello, or what it says instead; the exit code, if it ends.
    pub(crate) fn first_words(&mut self) -> Option<u8> {
        let hello = |protocol, build| FromWorker::Hello {
            protocol,
            build,
            jail: JailFacts { landlock_abi: 1 },
        };
        match () {
            () if self.is("mute") => loop {
                std::thread::sleep(Duration::from_secs(1));
            },
            () if self.is("no-hello") => {}
            () if self.is("dies-first") => return Some(exit_code::HANDSHAKE),
            () if self.is("closes-first") => self.close_control(),
            () if self.is("garbage-first") => self.send_bytes(&[0xff; 64]),
            () if self.is("too-large-first") => {
                let bytes = vec![0; MAX_MESSAGE_BYTES + 1];
                let _ = rustix::net::send(&self.control, &bytes, SendFlags::NOSIGNAL);
            }
            () if self.is("of-another-protocol") => {
                self.send(&hello(ProtocolVersion(PROTOCOL.0 + 1), BuildId::this()));
            }
            () if self.is("hello-with-descriptor") => {
                let bytes = codec::encode(&hello(PROTOCOL, BuildId::this())).unwrap_or_default();
                self.send_strays(&bytes);
            }
            () if self.is("second-hello") => {
                self.hello();
                self.hello();
            }
            () => self.hello(),
        }
        None
    }

    /// What it answers to its launch against the rules: `None` if nothing, else the exit code.
    pub(crate) fn lie_to_launch(&mut self, id: RequestId) -> Option<Option<u8>> {
        let launched = |phase| {
            ReplyBody::Launch(Launched {
                phase,
                boot_protocol: BootProtocol::Pvh,
            })
        };
        let reply = |id, body| FromWorker::Reply {
            id,
            result: Ok(body),
        };
        match () {
            () if self.is("hangs") => {}
            () if self.is("dies-in-launch") => return Some(Some(exit_code::HOST)),
            () if self.is("refuses-launch") => self.refuse(id),
            () if self.is("answers-launch-as-pause") => {
                self.send(&reply(id, ReplyBody::Pause(())));
            }
            () if self.is("answers-nobody") => {
                self.send(&reply(RequestId(id.0 + 1000), launched(Phase::Running)));
            }
            () if self.is("launched-into") => {
                let phase = match () {
                    () if self.is("launched-into-paused") => Phase::Paused,
                    () if self.is("launched-into-crashed") => Phase::Crashed,
                    () => Phase::AwaitingLaunch,
                };
                self.send(&reply(id, launched(phase)));
            }
            () if self.is("launches-twice") => {
                self.send(&reply(id, launched(Phase::Running)));
                self.send(&reply(id, launched(Phase::Running)));
            }
            () => return None,
        }
        Some(None)
    }

    /// What it answers to any other request against the rules: as for a launch.
    pub(crate) fn lie_to(&mut self, id: RequestId, operation: Operation) -> Option<Option<u8>> {
        match () {
            () if self.is("deaf") => {}
            () if self.is("late") && operation == Operation::Pause => {
                // Behind the deadline of most calls.
                std::thread::sleep(Duration::from_millis(5500));
                return None;
            }
            () if self.is("refuses-calls") && operation != Operation::Stop => self.refuse(id),
            () if self.is("wrong-reply") && operation != Operation::ConsoleAttach => {
                let body = match operation {
                    Operation::Pause => ReplyBody::Resume(()),
                    _ => ReplyBody::Pause(()),
                };
                self.send(&FromWorker::Reply {
                    id,
                    result: Ok(body),
                });
            }
            () if self.is("dies-in-calls") && operation != Operation::ConsoleAttach => {
                return Some(Some(exit_code::ORDERLY));
            }
            () if self.is("console-answered-as-pause") && operation == Operation::ConsoleAttach => {
                self.send(&FromWorker::Reply {
                    id,
                    result: Ok(ReplyBody::Pause(())),
                });
            }
            () if self.is("console-kills") && operation == Operation::ConsoleAttach => {
                return Some(Some(exit_code::ORDERLY));
            }
            () if self.is("console-later")
                && operation == Operation::ConsoleAttach
                && !std::mem::replace(&mut self.refused_console, true) =>
            {
                self.refuse(id);
            }
            () if self.is("off-ignores-stop") && operation == Operation::Stop => {}
            () if self.is("off-stops-and-lives") && operation == Operation::Stop => {
                self.send(&FromWorker::Reply {
                    id,
                    result: Ok(ReplyBody::Stop(())),
                });
            }
            () => return None,
        }
        Some(None)
    }

    /// Sends its log socket with `bytes`; garbage where the kernel refuses to take it (Linux 6.16).
    pub(crate) fn send_strays(&self, bytes: &[u8]) {
        let sent = scm::send(self.control.as_fd(), bytes, &[self.log.as_fd()]);
        if matches!(sent, Err(ScmError::Os(Errno::PERM))) {
            self.send_bytes(&[0xff; 64]);
        }
    }

    /// What it says of its devices: that others of its ports are open than it has told.
    pub(crate) fn devices(&self) -> Vec<DeviceReport> {
        let ports = PortsFigures {
            present: 2,
            guest_open: 2,
            connected: 0,
        };
        let slot = 1.try_into().ok().filter(|_| self.is("tells-ports"));
        let report = |slot| DeviceReport {
            slot,
            figures: DeviceFigures::Ports(ports),
        };
        slot.map(report).into_iter().collect()
    }

    pub(crate) fn tell_ports(&mut self, guest_open: u32) {
        if let Ok(slot) = 1.try_into() {
            self.event(Event::PortsChanged { slot, guest_open });
        }
    }

    fn refuse(&self, id: RequestId) {
        self.send(&FromWorker::Reply {
            id,
            // Not by its constructor, which would cut the message.
            result: Err(WireError {
                code: ErrorCode::Host,
                message: loud(),
            }),
        });
    }

    /// What it says once it runs, against the rules; the exit code, if it ends.
    pub(crate) fn lie_unasked(&mut self) -> Option<u8> {
        if self.is("replies-unasked") {
            self.send(&FromWorker::Reply {
                id: RequestId(4711),
                result: Ok(ReplyBody::Pause(())),
            });
        }
        if self.is("unknown-phase") {
            self.events += 1;
            let event = Event::PhaseChanged(Phase::Off);
            let message = FromWorker::Event {
                number: self.events,
                event,
            };
            let mut bytes = codec::encode(&message).unwrap_or_default();
            if let Some(phase) = bytes.last_mut() {
                *phase = 200;
            }
            self.send_bytes(&bytes);
        }
        if self.is("trailing-bytes") {
            self.events += 1;
            let event = Event::GuestReset { count: 1 };
            let message = FromWorker::Event {
                number: self.events,
                event,
            };
            let mut bytes = codec::encode(&message).unwrap_or_default();
            bytes.extend([0; 7]);
            self.send_bytes(&bytes);
        }
        if self.is("absurd-length") {
            self.events += 1;
            let message = FromWorker::Event {
                number: self.events,
                event: Event::WorkerFailed {
                    message: "x".to_owned(),
                },
            };
            let mut bytes = codec::encode(&message).unwrap_or_default();
            // The length, one byte before the text: eight follow that say how many.
            bytes.truncate(bytes.len().saturating_sub(2));
            bytes.push(253);
            bytes.extend(u64::MAX.to_le_bytes());
            self.send_bytes(&bytes);
        }
        if self.is("too-large") {
            let bytes = vec![0; MAX_MESSAGE_BYTES + 1];
            let _ = rustix::net::send(&self.control, &bytes, SendFlags::NOSIGNAL);
        }
        if self.is("resets-backwards") {
            self.event(Event::GuestReset { count: 5 });
            self.event(Event::GuestReset { count: 2 });
        }
        if self.is("keeps-an-event") {
            self.events += 1;
            self.event(Event::GuestReset { count: 1 });
        }
        if self.is("tells-ports") {
            self.tell_ports(1);
        }
        if self.is("has-no-boot-processor") {
            self.event(Event::VcpusChanged(VcpuStanding::default()));
        }
        if self.is("loses-no-port-at-all") {
            if let Ok(slot) = 1.try_into() {
                self.event(Event::PortRemoved { slot, number: 31 });
            }
        }
        if self.is("ends-again-and-again") {
            for _ in 0..200 {
                self.event(Event::PhaseChanged(Phase::Off));
                self.event(Event::PhaseChanged(Phase::Paused));
            }
        }
        if self.is("fails-loudly") {
            self.event(Event::WorkerFailed { message: loud() });
            return Some(exit_code::HOST);
        }
        if self.is("off") {
            self.event(Event::GuestPoweredOff);
            self.become_phase(Phase::Off);
        }
        None
    }
}
