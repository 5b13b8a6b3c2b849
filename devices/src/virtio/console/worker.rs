//! The back half: all queues of a console on one device thread.

use std::time::Instant;

use super::control::ConsoleControl;
use super::end::{Moved, Peer};
use super::first_queue;
use super::message::{FromDriver, HEADER_BYTES};
use super::ports::{End, Port};
use crate::console::ConsoleSink;
use crate::reactor::{Interest, Sources};
use crate::shared::lock;
use crate::virtio::chain::Chain;
use crate::virtio::flow::{Served, TurnEnd};
use crate::virtio::queue::QueueFault;
use crate::virtio::{
    BrokenQueue, Progress, QueueWorker, RunningQueue, Start, StartError, take_queue,
};

/// Bytes moved at a time.
const CHUNK: usize = 4096;
/// Bytes of output taken from one port in a turn.
const MAX_TURN: usize = 16 * CHUNK;

/// The control queues (§5.3.2).
const CONTROL_RECEIVE: u16 = 2;
const CONTROL_TRANSMIT: u16 = 3;

/// Each port has four tokens, from four times its number on.
const TOKENS: u32 = 4;
const RECEIVE: u32 = 0;
const TRANSMIT: u32 = 1;
const STREAM: u32 = 2;
const LISTENER: u32 = 3;
/// Tokens beyond those of any port.
const TELL: u32 = 0x1000;
const HEAR: u32 = 0x1001;
const CHANGED: u32 = 0x1002;

/// The queues of a port, if the driver uses them, and what they wait for.
#[derive(Debug)]
struct PortQueues {
    receive: RunningQueue,
    transmit: RunningQueue,
    /// There is a buffer to read into, or may be.
    has_buffer: bool,
    /// There is output that the peer had no room for.
    wants_room: bool,
}

pub(super) struct ConsoleWorker {
    ports: Vec<Option<PortQueues>>,
    tell: Option<RunningQueue>,
    hear: Option<RunningQueue>,
    multiport: bool,
    control: ConsoleControl,
    chain: Chain,
    broken: BrokenQueue,
    /// When a peer wants to be looked at.
    due: Option<Instant>,
}

impl ConsoleWorker {
    pub(super) fn new(
        mut start: Start,
        max_ports: u32,
        multiport: bool,
        control: ConsoleControl,
    ) -> Result<Self, StartError> {
        let queues = &mut start.queues;
        let (tell, hear) = if multiport {
            (
                Some(take_queue(queues, CONTROL_RECEIVE)?),
                Some(take_queue(queues, CONTROL_TRANSMIT)?),
            )
        } else {
            (None, None)
        };
        let mut ports = Vec::new();
        for id in 0..if multiport { max_ports } else { 1 } {
            let first = u16::try_from(first_queue(id)).unwrap_or(u16::MAX);
            let receive = take_queue(queues, first);
            let transmit = take_queue(queues, first.saturating_add(1));
            ports.push(match (receive, transmit) {
                (Ok(receive), Ok(transmit)) => Some(PortQueues {
                    receive,
                    transmit,
                    has_buffer: true,
                    wants_room: false,
                }),
                // Drivers make the first port's, whatever they use.
                (Err(missing), _) | (_, Err(missing)) if id == 0 => return Err(missing),
                _ => None,
            });
        }
        Ok(Self {
            ports,
            tell,
            hear,
            multiport,
            control,
            chain: Chain::new(),
            broken: BrokenQueue::new("console"),
            due: None,
        })
    }

    fn note(&mut self, result: Result<(), QueueFault>, sources: &Sources<'_>) {
        // One way to the driver is as good as another: this one is always there.
        if let Some(Some(first)) = self.ports.first() {
            self.broken.note(result, &*first.transmit.interrupts);
        }
        if self.broken.is_broken() {
            self.deafen(sources);
        }
    }

    fn deafen(&mut self, sources: &Sources<'_>) {
        let ports = self.ports.iter().flatten();
        let queues = ports.flat_map(|port| [&port.receive, &port.transmit]);
        for queue in queues.chain(&self.tell).chain(&self.hear) {
            queue.deafen(sources);
        }
        // Fails when it was done already.
        let _ = sources.remove(&*self.control.changed);
        let mut ports = lock(&self.control.ports);
        for id in 0..ports.count() {
            if let Some(End::Peer(peer)) = ports.port(id).map(|port| &mut port.end) {
                peer.leave(sources);
            }
        }
        for mut peer in ports.retired.drain(..) {
            peer.leave(sources);
        }
        // What goes from now on nobody here waits for, and this worker takes no more turns.
        ports.running = false;
        self.due = None;
    }

    /// Everything of a port: what the guest says, what it may read, and what is waited for.
    fn serve_port(&mut self, id: u32, sources: &Sources<'_>) -> Result<(), QueueFault> {
        if self.broken.is_broken() {
            return Ok(());
        }
        self.transmit(id)?;
        self.receive(id)?;
        if self.settle(id, sources) {
            // What was meant for one that is gone is dropped, and one that came is written to.
            self.transmit(id)?;
            self.settle(id, sources);
        }
        Ok(())
    }

    fn transmit(&mut self, id: u32) -> Result<(), QueueFault> {
        let Some(Some(queues)) = self.ports.get_mut(id as usize) else {
            return Ok(());
        };
        let kick = queues.transmit.kick.clone();
        let multiport = self.multiport;
        let mut budget = MAX_TURN;
        let mut full = false;
        queues
            .transmit
            .turn_until(&mut self.chain, |chain, queue| {
                let mut ports = lock(&self.control.ports);
                // Of a port that is gone too: a driver that has not heard of that yet may wait for it with
                // interrupts off.
                let port = ports.port(id);
                let Some(port) = port.filter(|port| port.has_queues(multiport)) else {
                    return Ok(Served::Back(0));
                };
                let mut chunk = [0; CHUNK];
                loop {
                    if !port.is_host_open() {
                        break;
                    }
                    if budget == 0 {
                        kick.signal();
                        return Ok(Served::Later);
                    }
                    let most = chunk.get_mut(..budget.min(CHUNK)).unwrap_or_default();
                    let len = chain.read_at(queue.ram(), port.sent, most);
                    let Some(bytes) = chunk.get(..len).filter(|bytes| !bytes.is_empty()) else {
                        break;
                    };
                    match put(port, bytes) {
                        Moved::Bytes(len) => {
                            port.sent = port.sent.saturating_add(len as u64);
                            budget = budget.saturating_sub(len);
                        }
                        Moved::Later => {
                            full = true;
                            return Ok(Served::Later);
                        }
                        Moved::Ended => break,
                    }
                }
                port.sent = 0;
                Ok(Served::Back(0))
            })?;
        let mut ports = lock(&self.control.ports);
        queues.wants_room = full || ports.port(id).is_some_and(drain_backlog);
        Ok(())
    }

    fn receive(&mut self, id: u32) -> Result<(), QueueFault> {
        let Some(Some(queues)) = self.ports.get_mut(id as usize) else {
            return Ok(());
        };
        let may_read = {
            let mut ports = lock(&self.control.ports);
            match ports.port(id) {
                Some(port) => {
                    let open = !self.multiport || (port.has_queues(true) && port.guest_open);
                    if let (End::Peer(peer), false) = (&mut port.end, open) {
                        peer.drop_hung_up();
                    }
                    open
                }
                None => false,
            }
        };
        if !may_read {
            queues.receive.kick.take();
            queues.has_buffer = false;
            return Ok(());
        }
        let end = queues.receive.turn_until(&mut self.chain, |chain, queue| {
            if chain.writable_bytes() == 0 {
                return Err(QueueFault::Request("console buffer without room"));
            }
            let mut ports = lock(&self.control.ports);
            let Some(port) = ports.port(id) else {
                return Ok(Served::Later);
            };
            let room = usize::try_from(chain.writable_bytes()).unwrap_or(CHUNK);
            let mut chunk = [0; CHUNK];
            let most = chunk.get_mut(..room.min(CHUNK)).unwrap_or_default();
            let Moved::Bytes(len) = take(port, most) else {
                return Ok(Served::Later);
            };
            let bytes = chunk.get(..len).unwrap_or_default();
            let written = chain.write_at(queue.ram(), 0, bytes);
            Ok(Served::Back(u32::try_from(written).unwrap_or(u32::MAX)))
        })?;
        queues.has_buffer = end != TurnEnd::Empty;
        Ok(())
    }

    /// Waits for what the port's peer is wanted for; true if somebody has come or gone.
    fn settle(&mut self, id: u32, sources: &Sources<'_>) -> bool {
        let Some(Some(queues)) = self.ports.get(id as usize) else {
            return false;
        };
        let mut ports = lock(&self.control.ports);
        let Some(port) = ports.port(id) else {
            return false;
        };
        if let End::Peer(peer) = &mut port.end {
            let tokens = (id * TOKENS + STREAM, id * TOKENS + LISTENER);
            let wanted = (queues.has_buffer, queues.wants_room);
            peer.settle(sources, tokens, wanted, Instant::now());
            if let Some(retry) = peer.retry_at() {
                self.due = Some(self.due.map_or(retry, |due| due.min(retry)));
            }
        }
        let changed = port.update_host();
        drop(ports);
        if changed {
            self.control.opened.wake();
        }
        changed
    }

    /// Takes what the driver says.
    fn hear(&mut self) -> Result<(), QueueFault> {
        let Some(hear) = &mut self.hear else {
            return Ok(());
        };
        let mut opened = false;
        hear.turn_until(&mut self.chain, |chain, queue| {
            let mut bytes = [0; HEADER_BYTES];
            if chain.read_at(queue.ram(), 0, &mut bytes) == HEADER_BYTES {
                if let Some((id, message)) = FromDriver::decode(bytes) {
                    opened |= lock(&self.control.ports).hear(id, message);
                }
            }
            Ok(Served::Back(0))
        })?;
        if opened {
            self.control.opened.wake();
        }
        Ok(())
    }

    /// Tells the driver what it does not know yet, as it has buffers for it.
    fn tell(&mut self) -> Result<(), QueueFault> {
        let Some(tell) = &mut self.tell else {
            return Ok(());
        };
        if lock(&self.control.ports).untold().is_none() {
            tell.kick.take();
            return Ok(());
        }
        tell.turn_until(&mut self.chain, |chain, queue| {
            let mut ports = lock(&self.control.ports);
            let Some((id, message)) = ports.untold() else {
                return Ok(Served::Later);
            };
            let (bytes, len) = message.encode(id);
            if chain.writable_bytes() < len as u64 {
                return Err(QueueFault::Request("control buffer shorter than a message"));
            }
            let bytes = bytes.get(..len).unwrap_or_default();
            let written = chain.write_at(queue.ram(), 0, bytes);
            ports.told(id);
            Ok(Served::Back(u32::try_from(written).unwrap_or(u32::MAX)))
        })?;
        Ok(())
    }

    fn serve_all(&mut self, sources: &Sources<'_>) -> Result<(), QueueFault> {
        self.hear()?;
        for id in (0..).take(self.ports.len()) {
            self.serve_port(id, sources)?;
        }
        self.tell()
    }

    fn serve_token(
        &mut self,
        token: u32,
        hung_up: bool,
        sources: &Sources<'_>,
    ) -> Result<(), QueueFault> {
        let id = token / TOKENS;
        match token {
            CHANGED => {
                self.control.changed.take();
                for mut peer in lock(&self.control.ports).retired.drain(..) {
                    peer.leave(sources);
                }
                return self.serve_all(sources);
            }
            // What it said may be of any port.
            HEAR => return self.serve_all(sources),
            TELL => return self.tell(),
            _ => {}
        }
        self.with_peer(id, |peer| match token % TOKENS {
            STREAM if hung_up => peer.note_hang_up(),
            LISTENER => peer.accept(Instant::now()),
            _ => {}
        });
        if !self.has_queues(id) {
            // The driver may have made it ready before it notified.
            return self.serve_all(sources);
        }
        self.serve_port(id, sources)?;
        self.tell()
    }

    fn has_queues(&self, id: u32) -> bool {
        let mut ports = lock(&self.control.ports);
        let port = ports.port(id);
        port.is_none_or(|port| port.has_queues(self.multiport))
    }

    fn with_peer(&self, id: u32, act: impl FnOnce(&mut Peer)) {
        let mut ports = lock(&self.control.ports);
        if let Some(End::Peer(peer)) = ports.port(id).map(|port| &mut port.end) {
            act(peer);
        }
    }
}

/// Gives a port's output to whoever is there.
fn put(port: &mut Port, bytes: &[u8]) -> Moved {
    if let Some(backlog) = &port.backlog {
        backlog.ring.push(bytes);
        return Moved::Bytes(bytes.len());
    }
    match &mut port.end {
        End::Nothing => Moved::Ended,
        End::Ring { sink, .. } => {
            sink.push(bytes);
            Moved::Bytes(bytes.len())
        }
        End::Peer(peer) => peer.write(bytes),
    }
}

/// Takes input for a port.
fn take(port: &mut Port, buffer: &mut [u8]) -> Moved {
    match &mut port.end {
        End::Nothing => Moved::Ended,
        End::Ring { input, .. } => match input.take(buffer) {
            0 => Moved::Later,
            len => Moved::Bytes(len),
        },
        End::Peer(peer) => peer.read(buffer),
    }
}

/// Gives a console's descriptor what it has not had; true if it has no room for more.
fn drain_backlog(port: &mut Port) -> bool {
    let (Some(backlog), End::Peer(peer)) = (&mut port.backlog, &mut port.end) else {
        return false;
    };
    let mut chunk = [0; CHUNK];
    for _ in 0..MAX_TURN / CHUNK {
        if !peer.is_connected() {
            return false;
        }
        let len = backlog.reader.peek(&mut chunk).len;
        let bytes = chunk.get(..len).unwrap_or_default();
        if bytes.is_empty() {
            return false;
        }
        match peer.write(bytes) {
            Moved::Bytes(len) => backlog.reader.consume(len),
            Moved::Later => return true,
            Moved::Ended => return false,
        }
    }
    // There may be more, and room for it: its being so brings the next turn.
    true
}

impl QueueWorker for ConsoleWorker {
    fn start(&mut self, sources: &Sources<'_>) {
        let mut broken = BrokenQueue::new("console");
        for (id, port) in (0..).zip(&self.ports) {
            if let Some(port) = port {
                let token = id * TOKENS;
                port.receive.listen(sources, token + RECEIVE, &mut broken);
                port.transmit.listen(sources, token + TRANSMIT, &mut broken);
            }
        }
        for (token, queue) in [(TELL, &self.tell), (HEAR, &self.hear)] {
            if let Some(queue) = queue {
                queue.listen(sources, token, &mut broken);
            }
        }
        let added = sources.add(&*self.control.changed, CHANGED, Interest::Read);
        if let Err(error) = added {
            tracing::error!(%error, "a console cannot be told of changes");
        }
        self.broken = broken;
        if self.broken.is_broken() {
            self.deafen(sources);
            return;
        }
        let result = self.serve_all(sources);
        self.note(result, sources);
    }

    fn ready(&mut self, token: u32, hung_up: bool, sources: &Sources<'_>) {
        if self.broken.is_broken() {
            return;
        }
        let result = self.serve_token(token, hung_up, sources);
        self.note(result, sources);
    }

    fn next_event(&self) -> Option<Instant> {
        self.due
    }

    fn tick(&mut self, sources: &Sources<'_>) {
        if self.broken.is_broken() {
            return;
        }
        self.due = None;
        let now = Instant::now();
        for id in (0..).take(self.ports.len()) {
            self.with_peer(id, |peer| peer.tick(now));
        }
        let result = self.serve_all(sources);
        self.note(result, sources);
    }

    fn stop(mut self: Box<Self>, sources: &Sources<'_>) -> Progress {
        self.deafen(sources);
        let ports = self.ports.iter().flatten();
        let queues = ports.flat_map(|port| [&port.receive, &port.transmit]);
        queues
            .chain(&self.tell)
            .chain(&self.hear)
            .map(|queue| (queue.index, queue.queue.progress()))
            .collect()
    }
}
