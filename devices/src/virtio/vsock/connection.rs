//! One connection between a port of the host and one of the guest.
//!
//! ```text
//!  guest asks:  Asking ──stream──► Open ─┐            ┌─ both sides have shut down, and all is
//!  host asks:   Calling ─response─► Open ─┤            │  delivered
//!                                        └─► reset ◄──┴─ anything wrong
//!                                             │
//!                            told the driver ─┴─► gone
//! ```
//!
//! What the guest sends goes straight to the host's stream, and what that does not take is held, up
//! to the window the driver was promised. What the host sends is read only when the guest has a
//! buffer and credit for it; until then it stays in the stream. A stream that was found readable is
//! not waited for until it has been read empty, and one whose other end is gone not at all: nothing
//! spins.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::{SendFlags, Shutdown, send, shutdown};

use super::credit::{Incoming, Outgoing};
use super::packet::{Op, SHUTDOWN_BOTH, SHUTDOWN_RECEIVE, SHUTDOWN_SEND};
use crate::reactor::{Interest, Sources};

/// Memory of an idle connection's buffer that is kept.
const KEPT: usize = 4096;

/// The ports of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ports {
    pub(super) host: u32,
    pub(super) guest: u32,
}

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The guest wants it, and somebody on the host was asked by this id.
    Asking(u32),
    /// The host wants it, and the guest has not answered.
    Calling,
    /// Bytes go to and fro.
    Open,
    /// The guest is done with it, and the host has not taken all.
    Lingering,
    /// The driver is still to be told that it is gone.
    Reset,
}

/// A packet to be sent, but for what all of a connection have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outbound {
    pub(super) op: Op,
    pub(super) flags: u32,
    /// Bytes of data at the front of the buffer.
    pub(super) len: usize,
}

impl Outbound {
    fn bare(op: Op) -> Self {
        Self {
            op,
            flags: 0,
            len: 0,
        }
    }
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) ports: Ports,
    pub(super) stage: Stage,
    stream: Option<OwnedFd>,
    waiting: Option<Interest>,
    pub(super) incoming: Incoming,
    pub(super) outgoing: Outgoing,
    /// What the guest sent and the host has not taken.
    held: VecDeque<u8>,
    /// Shutdown flags that the guest has sent.
    guest_done: u32,
    /// Those that are true of the host's end.
    host_done: u32,
    /// Those of them that the guest was told.
    told_done: u32,
    /// The stream has something to read, or its end, as far as is known.
    readable: bool,
    hung_up: bool,
    /// A request or a response is to be sent.
    greet: bool,
    /// The driver asked how much room there is.
    update_wanted: bool,
    /// It was asked the same, and has not answered.
    asked_credit: bool,
    /// It is in the queue of those that have something to send.
    pub(super) queued: bool,
    /// It is in the list of those that may want to wait for something else.
    pub(super) touched: bool,
    /// When it is given up, if nothing happens.
    pub(super) deadline: Option<Instant>,
}

impl Connection {
    fn new(ports: Ports, stage: Stage, window: u32) -> Self {
        Self {
            ports,
            stage,
            stream: None,
            waiting: None,
            incoming: Incoming::new(window),
            outgoing: Outgoing::default(),
            held: VecDeque::new(),
            guest_done: 0,
            host_done: 0,
            told_done: 0,
            readable: false,
            hung_up: false,
            greet: false,
            update_wanted: false,
            asked_credit: false,
            queued: false,
            touched: false,
            deadline: None,
        }
    }

    /// One that the guest wants; the host was asked by `id`.
    pub(super) fn wanted_by_guest(ports: Ports, id: u32, window: u32) -> Self {
        Self::new(ports, Stage::Asking(id), window)
    }

    /// One that the holder of `stream` wants.
    pub(super) fn wanted_by_host(ports: Ports, stream: OwnedFd, window: u32) -> Self {
        let mut connection = Self::new(ports, Stage::Calling, window);
        connection.stream = Some(stream);
        connection.greet = true;
        connection
    }

    /// The host has given a stream: the guest is told.
    pub(super) fn accept(&mut self, stream: OwnedFd) {
        self.stream = Some(stream);
        self.stage = Stage::Open;
        self.greet = true;
        self.deadline = None;
    }

    /// The driver is to be told that it is gone. Gives the id of the question for it that is open.
    pub(super) fn give_up(&mut self) -> Option<u32> {
        match std::mem::replace(&mut self.stage, Stage::Reset) {
            Stage::Asking(id) => Some(id),
            _ => None,
        }
    }

    /// The guest has accepted: the host is told `line`.
    pub(super) fn answered(&mut self, line: &[u8]) {
        self.stage = Stage::Open;
        self.deadline = None;
        let sent = self.stream.as_ref().map(|stream| write(stream, line));
        // A socket that has no room for its first bytes has been filled by a stranger.
        if sent != Some(Ok(line.len())) {
            self.stage = Stage::Reset;
        }
    }

    /// The driver said what it has room for.
    pub(super) fn credit(&mut self, buf_alloc: u32, fwd_cnt: u32) {
        self.outgoing.update(buf_alloc, fwd_cnt);
        self.asked_credit &= self.outgoing.left() == 0;
    }

    /// The driver asked what there is room for.
    pub(super) fn want_update(&mut self) {
        self.update_wanted = true;
    }

    /// The guest has sent `data`; it is more than it may if this resets the connection.
    pub(super) fn receive(&mut self, data: &[u8]) {
        let len = u32::try_from(data.len()).unwrap_or(u32::MAX);
        if self.guest_done & SHUTDOWN_SEND != 0 || !self.incoming.receive(len) {
            self.stage = Stage::Reset;
            return;
        }
        let mut rest = data;
        if self.held.is_empty() {
            let written = self.write(data);
            rest = data.get(written..).unwrap_or_default();
        }
        self.held.extend(rest);
    }

    /// Writes what the stream takes, and counts it. A stream that takes nothing any more has all
    /// that is still to come dropped.
    fn write(&mut self, data: &[u8]) -> usize {
        let mut done = 0;
        while let Some(rest) = data.get(done..).filter(|rest| !rest.is_empty()) {
            let written = match &self.stream {
                Some(stream) if self.host_done & SHUTDOWN_RECEIVE == 0 => write(stream, rest),
                _ => Ok(rest.len()),
            };
            match written {
                Ok(0) | Err(Errno::AGAIN) => break,
                Ok(len) => done += len,
                Err(Errno::INTR) => {}
                Err(_) => self.host_done |= SHUTDOWN_RECEIVE,
            }
        }
        self.incoming
            .forward(u32::try_from(done).unwrap_or(u32::MAX));
        done
    }

    /// Writes what is held, as far as the stream takes it.
    pub(super) fn flush(&mut self) {
        let mut held = std::mem::take(&mut self.held);
        while !held.is_empty() {
            let (front, _) = held.as_slices();
            let (len, written) = (front.len(), self.write(front));
            held.drain(..written.min(len));
            if written < len {
                break;
            }
        }
        self.held = held;
        if self.held.is_empty() {
            self.held.shrink_to(KEPT);
            self.shut_down_stream();
        }
    }

    /// The guest has shut down what `flags` say.
    pub(super) fn guest_shutdown(&mut self, flags: u32) {
        self.guest_done |= flags & SHUTDOWN_BOTH;
        if let (Some(stream), true) = (&self.stream, flags & SHUTDOWN_RECEIVE != 0) {
            // Fails when the other end is gone, which is told otherwise.
            let _ = shutdown(stream, Shutdown::Read);
        }
        self.flush();
    }

    /// Passes on that the guest sends no more, once all it sent has gone, and ends what has ended
    /// on both sides.
    fn shut_down_stream(&mut self) {
        if self.guest_done & SHUTDOWN_SEND == 0 {
            return;
        }
        if let Some(stream) = &self.stream {
            let _ = shutdown(stream, Shutdown::Write);
        }
        if self.stage == Stage::Open && self.guest_done == SHUTDOWN_BOTH {
            self.stage = Stage::Reset;
        }
    }

    /// The guest has reset it. True if it is gone; otherwise the host still gets what the guest had
    /// sent before it shut down.
    pub(super) fn guest_reset(&mut self) -> bool {
        let orderly = self.guest_done & SHUTDOWN_SEND != 0;
        if self.stage == Stage::Open && orderly && !self.held.is_empty() {
            self.stage = Stage::Lingering;
            return false;
        }
        true
    }

    /// Whether nothing is left to be done, neither for the host nor for the driver.
    pub(super) fn is_over(&self) -> bool {
        self.stage == Stage::Lingering && self.held.is_empty()
    }

    /// The stream is ready, for whatever was waited for.
    pub(super) fn ready(&mut self, hung_up: bool) {
        let read = matches!(self.waiting, Some(Interest::Read | Interest::Both));
        self.readable |= read || hung_up;
        if hung_up {
            self.hung_up = true;
            if self.guest_done & SHUTDOWN_RECEIVE != 0 {
                // What it left is for nobody.
                self.host_done |= SHUTDOWN_SEND;
            }
            self.note_end();
        }
        self.flush();
    }

    /// A stream that has ended and hung up takes nothing either.
    fn note_end(&mut self) {
        if self.hung_up && self.host_done & SHUTDOWN_SEND != 0 {
            self.host_done |= SHUTDOWN_RECEIVE;
            let held = u32::try_from(self.held.len()).unwrap_or(u32::MAX);
            self.incoming.forward(held);
            self.held = VecDeque::new();
        }
    }

    fn may_read(&self) -> bool {
        self.stage == Stage::Open
            && self.host_done & SHUTDOWN_SEND == 0
            && self.guest_done & SHUTDOWN_RECEIVE == 0
    }

    /// Whether there may be something for [`next`](Self::next).
    pub(super) fn has_packet(&self) -> bool {
        match self.stage {
            Stage::Reset => true,
            Stage::Asking(_) | Stage::Lingering => false,
            Stage::Calling => self.greet,
            Stage::Open => {
                let credit = self.outgoing.left() > 0 || !self.asked_credit;
                self.greet
                    || self.update_wanted
                    || self.incoming.is_update_due()
                    || self.host_done != self.told_done
                    || self.readable && self.may_read() && credit
            }
        }
    }

    /// The next packet for the driver, whose data, at most as much as `data` has room for, is put
    /// there.
    pub(super) fn next(&mut self, data: &mut [u8]) -> Option<Outbound> {
        match self.stage {
            Stage::Reset => return Some(Outbound::bare(Op::Reset)),
            Stage::Asking(_) | Stage::Lingering => return None,
            Stage::Calling => {
                let greet = std::mem::take(&mut self.greet);
                return greet.then(|| Outbound::bare(Op::Request));
            }
            Stage::Open => {}
        }
        if std::mem::take(&mut self.greet) {
            return Some(Outbound::bare(Op::Response));
        }
        if let Some(packet) = self.next_data(data) {
            self.update_wanted = false;
            return Some(packet);
        }
        if self.host_done != self.told_done {
            self.told_done = self.host_done;
            return Some(Outbound {
                op: Op::Shutdown,
                flags: self.host_done,
                len: 0,
            });
        }
        if std::mem::take(&mut self.update_wanted) || self.incoming.is_update_due() {
            return Some(Outbound::bare(Op::CreditUpdate));
        }
        None
    }

    fn next_data(&mut self, data: &mut [u8]) -> Option<Outbound> {
        if !self.readable || !self.may_read() || data.is_empty() {
            return None;
        }
        let credit = usize::try_from(self.outgoing.left()).unwrap_or(usize::MAX);
        if credit == 0 {
            let asked = std::mem::replace(&mut self.asked_credit, true);
            return (!asked).then(|| Outbound::bare(Op::CreditRequest));
        }
        let room = data.len().min(credit);
        let Some(stream) = &self.stream else {
            self.readable = false;
            return None;
        };
        loop {
            match rustix::io::read(stream, data.get_mut(..room)?) {
                Ok(0) => break,
                Ok(len) => {
                    self.outgoing.send(u32::try_from(len).unwrap_or(u32::MAX));
                    return Some(Outbound {
                        op: Op::Data,
                        flags: 0,
                        len,
                    });
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if !self.hung_up => {
                    self.readable = false;
                    return None;
                }
                Err(_) => {
                    self.hung_up = true;
                    break;
                }
            }
        }
        self.readable = false;
        self.host_done |= SHUTDOWN_SEND;
        self.note_end();
        None
    }

    /// Whether the guest was told that the host's end is wholly gone, which it answers by a reset.
    pub(super) fn awaits_reset(&self) -> bool {
        self.stage == Stage::Open && self.told_done == SHUTDOWN_BOTH
    }

    /// Waits for what can be used.
    pub(super) fn settle(&mut self, sources: &Sources<'_>, token: u32) {
        let read = self.may_read() && !self.readable && self.outgoing.left() > 0;
        let write = !self.held.is_empty();
        let wanted = match (read, write) {
            (true, true) => Interest::Both,
            (true, false) => Interest::Read,
            (false, true) => Interest::Write,
            (false, false) => Interest::Hangup,
        };
        let wanted = (!self.hung_up && self.stage != Stage::Reset).then_some(wanted);
        let Some(stream) = &self.stream else {
            return;
        };
        let result = match (self.waiting, wanted) {
            (None, Some(interest)) => sources.add(stream, token, interest),
            (Some(old), Some(new)) if old != new => sources.modify(stream, token, new),
            (Some(_), None) => sources.remove(stream),
            _ => Ok(()),
        };
        self.waiting = wanted;
        if let Err(error) = result {
            tracing::error!(%error, "a connection's stream cannot be waited for");
            self.waiting = None;
            self.stage = Stage::Reset;
        }
        if self.stage == Stage::Reset {
            // Out of the set by now: its other end learns at once.
            self.stream = None;
        }
    }

    /// Waits for nothing.
    pub(super) fn leave(&mut self, sources: &Sources<'_>) {
        if let (Some(stream), Some(_)) = (&self.stream, self.waiting.take()) {
            // Nothing to be done about a failure: the descriptor is not in the set.
            let _ = sources.remove(stream);
        }
    }
}

/// Sends without waiting and without `SIGPIPE`.
fn write(stream: &OwnedFd, bytes: &[u8]) -> rustix::io::Result<usize> {
    send(stream, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
}
