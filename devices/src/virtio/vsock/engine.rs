//! All connections of a device: what the driver's packets do to them, and which packets it is sent.
//!
//! Bounds, whatever guest and host do: [`MAX_CONNECTIONS`] connections, of which the first
//! [`LARGE`] have a large window and the others a small one, [`MAX_GREETINGS`] clients that have
//! not said what they want, [`MAX_QUESTIONS`] connections that somebody was asked for, and
//! [`MAX_STRAY`] resets of connections that do not exist. When there are as many of those, the
//! driver's packets wait until it takes some.
//!
//! Connections that have something to send stand in one queue and go to its end with every packet,
//! so that each has its turn.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::acceptor::Acceptor;
use super::connection::{Connection, Ports, Stage};
use super::greeting::Greeting;
use super::host::{ACCEPTOR, FIRST_PORT, LISTENER, Listener};
use super::packet::{HEADER_BYTES, Header, MAX_DATA, Op, STREAM};
use super::slab::{Slab, TOKEN_BITS};
use crate::reactor::{Interest, Sources};

/// The host's address.
pub(super) const HOST_CID: u64 = 2;
/// Connections at a time.
pub(super) const MAX_CONNECTIONS: usize = 1024;
/// Those of them that have a large window.
const LARGE: usize = 64;
/// Bytes of such a window, as Linux has it.
pub(super) const LARGE_WINDOW: u32 = 256 * 1024;
/// Bytes of the others.
const SMALL_WINDOW: u32 = 32 * 1024;
/// Clients at a time that have not said what they want.
pub(super) const MAX_GREETINGS: usize = 64;
/// Connections at a time that the guest wants and nobody has answered for.
pub(super) const MAX_QUESTIONS: usize = 64;
/// Resets at a time for packets of no connection.
pub(super) const MAX_STRAY: usize = 256;

/// How long a client may take over its first line, the guest over an answer, and somebody asked
/// over one.
pub(super) const ANSWER_TIME: Duration = Duration::from_secs(10);
/// How long the guest may take to acknowledge the end of a connection, as Linux has it.
const CLOSE_TIME: Duration = Duration::from_secs(8);
/// How long the host may take over what the guest has left.
const LINGER_TIME: Duration = Duration::from_secs(30);
/// The kinds of tokens. Those below are of single descriptors, the engine's or of whoever runs it.
const CONNECTIONS: u32 = 1 << TOKEN_BITS;
pub(super) const GREETINGS: u32 = 2 * CONNECTIONS;

/// A packet for nobody's connection.
#[derive(Debug, Clone, Copy)]
struct Stray {
    ports: Ports,
    kind: u16,
}

/// What has come of a driver's packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// It was taken, or answered by a reset.
    Yes,
    /// It was not from this guest to the host, or was not whole.
    Nonsense,
}

/// The connections.
#[derive(Debug)]
pub(super) struct Engine {
    cid: u32,
    pub(super) connections: Slab<Connection>,
    pub(super) by_ports: BTreeMap<Ports, u32>,
    pub(super) greetings: Slab<Greeting>,
    pub(super) listener: Option<Listener>,
    pub(super) acceptor: Option<Acceptor>,
    /// Tokens of connections that may have something to send, each once.
    ready: VecDeque<u32>,
    /// Tokens of connections that may want to wait for something else.
    touched: Vec<u32>,
    stray: VecDeque<Stray>,
    /// Connections that somebody was asked for.
    pub(super) questions: BTreeMap<u32, u32>,
    large: usize,
    pub(super) next_port: u32,
    /// No deadline is before this.
    due: Option<Instant>,
    /// Data on its way.
    buffer: Vec<u8>,
}

impl Engine {
    pub(super) fn new(cid: u32) -> Self {
        Self {
            cid,
            connections: Slab::new(MAX_CONNECTIONS),
            by_ports: BTreeMap::new(),
            greetings: Slab::new(MAX_GREETINGS),
            listener: None,
            acceptor: None,
            ready: VecDeque::new(),
            touched: Vec::new(),
            stray: VecDeque::new(),
            questions: BTreeMap::new(),
            large: 0,
            next_port: FIRST_PORT,
            due: None,
            buffer: Vec::new(),
        }
    }

    /// Forgets every connection; who listens goes on listening. What is forgotten is given back, if it has
    /// descriptors, to be closed by whoever may.
    pub(super) fn reset(&mut self) -> Option<Self> {
        let mut old = std::mem::replace(self, Self::new(self.cid));
        self.listener = old.listener.take();
        self.acceptor = old.acceptor.take();
        self.next_port = old.next_port;
        (old.connections.len() + old.greetings.len() > 0).then_some(old)
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Connections that stand in the queue.
    #[cfg(test)]
    pub(super) fn waiting_connections(&self) -> usize {
        self.ready.len()
    }

    /// When [`tick`](Self::tick) is wanted.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    pub(super) fn wake_at(&mut self, deadline: Instant) {
        self.due = Some(self.due.map_or(deadline, |due| due.min(deadline)));
    }

    /// Waits for everything there is.
    pub(super) fn enter(&mut self, sources: &Sources<'_>) {
        for token in self.connections.tokens() {
            self.settle(token, sources);
        }
        let mut failed = Vec::new();
        for (token, greeting) in self.greetings.iter_mut() {
            let added = sources.add(&greeting.stream, GREETINGS | token, Interest::Read);
            failed.extend(added.is_err().then_some(token));
        }
        for token in failed {
            self.greetings.remove(token);
        }
        self.listen(sources);
        // Deadlines have gone on.
        self.due = Some(Instant::now());
    }

    /// Waits for nothing.
    pub(super) fn leave(&mut self, sources: &Sources<'_>) {
        for (_, connection) in self.connections.iter_mut() {
            connection.leave(sources);
        }
        for (_, greeting) in self.greetings.iter_mut() {
            // Nothing to be done about a failure: the descriptor is not in the set.
            let _ = sources.remove(&greeting.stream);
        }
        if let Some(listener) = &mut self.listener {
            listener.unlisten(sources);
        }
        if let Some(acceptor) = &mut self.acceptor {
            acceptor.leave(sources);
        }
    }

    /// A descriptor is ready.
    pub(super) fn ready(&mut self, token: u32, hung_up: bool, sources: &Sources<'_>) {
        let below = token % CONNECTIONS;
        match token {
            LISTENER => self.accept(sources),
            ACCEPTOR => self.answers(sources),
            CONNECTIONS..GREETINGS => {
                if let Some(connection) = self.connections.get(below) {
                    connection.ready(hung_up);
                }
                self.settle(below, sources);
            }
            _ => self.greet(below, sources),
        }
    }

    pub(super) fn window(&self) -> u32 {
        if self.large < LARGE {
            LARGE_WINDOW
        } else {
            SMALL_WINDOW
        }
    }

    pub(super) fn insert(&mut self, connection: Connection) -> Option<u32> {
        let (ports, window) = (connection.ports, connection.incoming.window());
        let token = self.connections.insert(connection)?;
        self.by_ports.insert(ports, token);
        self.large += usize::from(window == LARGE_WINDOW);
        Some(token)
    }

    pub(super) fn remove(&mut self, token: u32, sources: &Sources<'_>) {
        if let Some(mut connection) = self.connections.remove(token) {
            connection.leave(sources);
            self.by_ports.remove(&connection.ports);
            if connection.queued {
                // Else a guest that opens and resets without end would have the queue grow.
                self.ready.retain(|queued| *queued != token);
            }
            if let Stage::Asking(id) = connection.stage {
                self.questions.remove(&id);
            }
            let large = connection.incoming.window() == LARGE_WINDOW;
            self.large -= usize::from(large);
        }
    }

    pub(super) fn set_deadline(&mut self, token: u32, time: Duration) {
        let deadline = Instant::now() + time;
        if let Some(connection) = self.connections.get(token) {
            connection.deadline = Some(deadline);
            self.wake_at(deadline);
        }
    }

    pub(super) fn queue(&mut self, token: u32) {
        if let Some(connection) = self.connections.get(token) {
            if !connection.queued && connection.has_packet() {
                connection.queued = true;
                self.ready.push_back(token);
            }
        }
    }

    /// After anything was done to a connection.
    pub(super) fn settle(&mut self, token: u32, sources: &Sources<'_>) {
        let Some(connection) = self.connections.get(token) else {
            return;
        };
        if connection.is_over() {
            self.remove(token, sources);
            return;
        }
        if !connection.touched {
            connection.touched = true;
            self.touched.push(token);
        }
        if connection.awaits_reset() && connection.deadline.is_none() {
            self.set_deadline(token, CLOSE_TIME);
        }
        self.queue(token);
    }

    /// After everything was done that could be: waits for what is wanted now. Done once, so that a
    /// stream that was read empty at once costs no system call.
    pub(super) fn finish(&mut self, sources: &Sources<'_>) {
        let mut touched = std::mem::take(&mut self.touched);
        for token in touched.drain(..) {
            if let Some(connection) = self.connections.get(token) {
                connection.touched = false;
                connection.settle(sources, CONNECTIONS | token);
            }
            self.queue(token);
        }
        self.touched = touched;
    }

    /// Whether a packet of the driver's can be answered, whatever it is.
    pub(super) fn can_take(&self) -> bool {
        self.stray.len() < MAX_STRAY
    }

    /// Takes a packet; `read` copies from its data.
    pub(super) fn take(
        &mut self,
        header: Header,
        data_bytes: u64,
        read: impl FnOnce(&mut [u8]) -> usize,
        sources: &Sources<'_>,
    ) -> Taken {
        let cid = u64::from(self.cid);
        if header.source_cid != cid || header.destination_cid != HOST_CID {
            return Taken::Nonsense;
        }
        let ports = Ports {
            host: header.destination_port,
            guest: header.source_port,
        };
        let len = usize::try_from(header.len).unwrap_or(usize::MAX);
        let whole = u64::from(header.len) <= data_bytes && len <= MAX_DATA;
        if header.kind != STREAM {
            self.refuse(ports, header.kind, header.op);
            return Taken::Yes;
        }
        let Some(token) = self.by_ports.get(&ports).copied() else {
            match header.op {
                Op::Request if whole => self.request(ports, header, sources),
                op => self.refuse(ports, STREAM, op),
            }
            return Taken::Yes;
        };
        let Some(connection) = self.connections.get(token) else {
            return Taken::Yes;
        };
        connection.credit(header.buf_alloc, header.fwd_cnt);
        match (header.op, connection.stage) {
            // What lingers is the host's alone: to the guest there is no such connection.
            (Op::Reset, Stage::Lingering) => {}
            (op, Stage::Lingering) => self.refuse(ports, STREAM, op),
            (Op::Reset, _) => {
                if connection.guest_reset() {
                    self.remove(token, sources);
                    return Taken::Yes;
                }
                self.set_deadline(token, LINGER_TIME);
            }
            // What is being reset is no longer listened to.
            (_, Stage::Reset) => {}
            _ if !whole => forget(&mut self.questions, connection.give_up()),
            (Op::Response, Stage::Calling) => {
                connection.answered(format!("OK {}\n", ports.host).as_bytes());
            }
            (Op::Data, Stage::Open) => {
                self.buffer.resize(MAX_DATA, 0);
                let data = self.buffer.get_mut(..len).unwrap_or_default();
                let got = read(data);
                connection.receive(data.get(..got).unwrap_or_default());
            }
            (Op::Shutdown, Stage::Open) => connection.guest_shutdown(header.flags),
            (Op::CreditUpdate, Stage::Open) => {}
            (Op::CreditRequest, Stage::Open) => connection.want_update(),
            _ => forget(&mut self.questions, connection.give_up()),
        }
        self.settle(token, sources);
        Taken::Yes
    }

    /// The guest wants a connection.
    fn request(&mut self, ports: Ports, header: Header, sources: &Sources<'_>) {
        let room = self.questions.len() < MAX_QUESTIONS && !self.connections.is_full();
        let asked = self.acceptor.as_mut().filter(|_| room);
        let Some(id) = asked.and_then(|acceptor| acceptor.ask(ports.host, ports.guest)) else {
            self.refuse(ports, STREAM, Op::Request);
            return;
        };
        let mut connection = Connection::wanted_by_guest(ports, id, self.window());
        connection.credit(header.buf_alloc, header.fwd_cnt);
        if let Some(token) = self.insert(connection) {
            self.questions.insert(id, token);
            self.set_deadline(token, ANSWER_TIME);
            self.settle(token, sources);
        }
    }

    /// Answers a packet of no connection.
    fn refuse(&mut self, ports: Ports, kind: u16, op: Op) {
        if op != Op::Reset && self.can_take() {
            self.stray.push_back(Stray { ports, kind });
        }
    }

    /// Whether the driver is to be sent something, as far as is known.
    pub(super) fn has_packet(&self) -> bool {
        !self.stray.is_empty() || !self.ready.is_empty()
    }

    /// The next packet for the driver, with at most `room` bytes of data, which is not zero.
    pub(super) fn next(&mut self, room: u64, sources: &Sources<'_>) -> Option<(Header, &[u8])> {
        if let Some(stray) = self.stray.pop_front() {
            let header = self.header(stray.ports, stray.kind, Op::Reset);
            return Some((header, &[]));
        }
        let room = usize::try_from(room).unwrap_or(MAX_DATA).min(MAX_DATA);
        self.buffer.resize(MAX_DATA, 0);
        let (token, ports, packet, window, told) = loop {
            let token = self.ready.pop_front()?;
            let Some(connection) = self.connections.get(token) else {
                continue;
            };
            connection.queued = false;
            let data = self.buffer.get_mut(..room).unwrap_or_default();
            if let Some(packet) = connection.next(data) {
                let window = connection.incoming.window();
                let told = connection.incoming.tell();
                break (token, connection.ports, packet, window, told);
            }
            self.settle(token, sources);
        };
        if packet.op == Op::Reset {
            self.remove(token, sources);
        } else {
            self.settle(token, sources);
        }
        let mut header = self.header(ports, STREAM, packet.op);
        header.flags = packet.flags;
        header.len = u32::try_from(packet.len).unwrap_or(0);
        header.buf_alloc = window;
        header.fwd_cnt = told;
        Some((header, self.buffer.get(..packet.len).unwrap_or_default()))
    }

    fn header(&self, ports: Ports, kind: u16, op: Op) -> Header {
        Header {
            source_cid: HOST_CID,
            destination_cid: self.cid.into(),
            source_port: ports.host,
            destination_port: ports.guest,
            len: 0,
            kind,
            op,
            flags: 0,
            buf_alloc: 0,
            fwd_cnt: 0,
        }
    }

    /// Gives up what has taken too long.
    pub(super) fn tick(&mut self, now: Instant, sources: &Sources<'_>) {
        if self.due.is_none_or(|due| now < due) {
            return;
        }
        self.due = None;
        let mut due: Option<Instant> = None;
        let mut late = Vec::new();
        let mut look = |deadline: Instant| {
            let is_late = deadline <= now;
            if !is_late {
                due = Some(due.map_or(deadline, |due| due.min(deadline)));
            }
            is_late
        };
        for (token, connection) in self.connections.iter_mut() {
            late.extend(connection.deadline.filter(|d| look(*d)).map(|_| token));
        }
        let mut silent = Vec::new();
        for (token, greeting) in self.greetings.iter_mut() {
            silent.extend(look(greeting.deadline).then_some(token));
        }
        if let Some(listener) = &mut self.listener {
            listener.retry = listener.retry.filter(|retry| !look(*retry));
        }
        self.due = due;
        for token in late {
            let Some(connection) = self.connections.get(token) else {
                continue;
            };
            connection.deadline = None;
            if connection.stage == Stage::Lingering {
                self.remove(token, sources);
                continue;
            }
            forget(&mut self.questions, connection.give_up());
            self.settle(token, sources);
        }
        for token in silent {
            if let Some(greeting) = self.greetings.remove(token) {
                // Closed in any case.
                let _ = sources.remove(&greeting.stream);
            }
        }
        self.listen(sources);
    }
}

/// Nobody waits any more for the answer to question `id`, if there was one.
fn forget(questions: &mut BTreeMap<u32, u32>, id: Option<u32>) {
    if let Some(id) = id {
        questions.remove(&id);
    }
}

/// The bytes of a header and what follows it, at least, for a driver's buffer to be of use.
pub(super) const LEAST_BUFFER: u64 = HEADER_BYTES as u64 + 1;
