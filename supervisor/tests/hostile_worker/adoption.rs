//! Lies to a supervisor that comes back: in the hello, and in the report.

use std::os::fd::AsFd;

use reeve_ipc::event::{Event, NumberedEvent};
use reeve_ipc::message::{FromWorker, JailFacts, RequestId};
use reeve_ipc::phase::Phase;
use reeve_ipc::request::{BootProtocol, FinishedRequest, ReplyBody, Standing};
use reeve_ipc::spec::SpecDigest;
use reeve_ipc::{BuildId, PROTOCOL, ProtocolVersion, codec};
use rustix::event::PollFlags;
use rustix::net::SocketFlags;

use super::{Worker, wait};

impl Worker {
    /// Waits until a supervisor has come back, and greets it; whether one can.
    pub(crate) fn wait_for_supervisor(&mut self) -> bool {
        let Some(listener) = &self.listener else {
            return false;
        };
        wait(listener.as_fd(), PollFlags::IN);
        let accepted = rustix::net::accept_with(listener, SocketFlags::CLOEXEC);
        let Ok(control) = accepted else { return false };
        if self.is("adopt-closes") {
            return true;
        }
        if self.is("adopt-dies") {
            return false;
        }
        self.control = control;
        if self.receive().is_some() {
            self.greet_again();
        }
        true
    }

    fn greet_again(&mut self) {
        let hello = |protocol| FromWorker::Hello {
            protocol,
            build: BuildId::this(),
            jail: JailFacts { landlock_abi: 1 },
        };
        match () {
            () if self.is("adopt-mute") => {}
            () if self.is("adopt-garbage") => self.send_bytes(&[0xff; 64]),
            () if self.is("adopt-protocol") => self.send(&hello(ProtocolVersion(PROTOCOL.0 + 9))),
            () if self.is("adopt-descriptor") => {
                let bytes = codec::encode(&hello(PROTOCOL)).unwrap_or_default();
                self.send_strays(&bytes);
            }
            () if self.is("adopt-no-hello") => self.send(&FromWorker::Reply {
                id: RequestId(1),
                result: Ok(ReplyBody::Pause(())),
            }),
            () => self.hello(),
        }
    }

    /// Where it says that it stands.
    pub(crate) fn standing(&self) -> Standing {
        let mut standing = Standing {
            phase: self.phase,
            digest: self.digest,
            boot_protocol: Some(BootProtocol::Pvh),
            resets: 0,
            last_event: self.events,
            events: Vec::new(),
            last_request: None,
            console_position: 0,
            told: 0,
        };
        let event = |number| NumberedEvent {
            number,
            event: Event::GuestPoweredOff,
        };
        match () {
            () if self.is("adopt-digest") => standing.digest = Some(SpecDigest([7; 16])),
            () if self.is("adopt-awaiting") => standing.phase = Phase::AwaitingLaunch,
            () if self.is("adopt-events-fall") => standing.events = vec![event(1), event(1)],
            () if self.is("adopt-events-beyond") => {
                standing.events = vec![event(self.events + 1)];
            }
            () if self.is("adopt-huge") => {
                standing.resets = u64::MAX;
                standing.last_event = u64::MAX;
                standing.console_position = u64::MAX;
                standing.last_request = Some(FinishedRequest {
                    id: RequestId(u64::MAX),
                    result: Ok(()),
                });
            }
            () if self.is("adopt-crashed") => standing.phase = Phase::Crashed,
            () => {}
        }
        standing
    }
}
