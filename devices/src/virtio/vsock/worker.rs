//! The back half: the three queues of a socket device on one device thread.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::control::VsockControl;
use super::engine::{Engine, LEAST_BUFFER, Taken};
use super::packet::{HEADER_BYTES, Header};
use super::{EVENT, Home, RECEIVE, TRANSMIT};
use crate::error::{FaultLog, GuestFault};
use crate::reactor::{Interest, Sources};
use crate::shared::{Shared, lock};
use crate::virtio::chain::Chain;
use crate::virtio::flow::Served;
use crate::virtio::queue::QueueFault;
use crate::virtio::{BrokenQueue, Progress, QueueWorker, RunningQueue};

/// Tokens beside those of the engine.
const RECEIVE_KICK: u32 = 16;
const TRANSMIT_KICK: u32 = 17;
const EVENT_KICK: u32 = 18;
const CHANGED: u32 = 19;

/// Bytes moved in one turn of a queue.
const MAX_TURN: usize = 1 << 20;
/// `VIRTIO_VSOCK_EVENT_TRANSPORT_RESET`.
const TRANSPORT_RESET: [u8; 4] = [0; 4];

pub(super) struct VsockWorker {
    receive: RunningQueue,
    transmit: RunningQueue,
    event: RunningQueue,
    engine: Engine,
    /// The driver is to be told that its connections are gone.
    reset_untold: bool,
    /// Packets of the driver's wait until it has taken some of ours.
    transmit_waits: bool,
    /// Where the engine goes when this ends.
    home: Shared<Home>,
    control: VsockControl,
    chain: Chain,
    broken: BrokenQueue,
    faults: FaultLog,
}

impl VsockWorker {
    pub(super) fn new(
        receive: RunningQueue,
        transmit: RunningQueue,
        event: RunningQueue,
        (engine, reset_untold): (Engine, bool),
        home: Shared<Home>,
        control: VsockControl,
    ) -> Self {
        Self {
            receive,
            transmit,
            event,
            engine,
            reset_untold,
            transmit_waits: false,
            home,
            control,
            chain: Chain::new(),
            broken: BrokenQueue::new("socket device"),
            faults: FaultLog::new(),
        }
    }

    fn take_given(&mut self, sources: &Sources<'_>) {
        let given = std::mem::take(&mut *lock(&self.control.given));
        if let Some(listener) = given.listener {
            self.engine.set_listener(listener, sources);
        }
        if let Some(acceptor) = given.acceptor {
            self.engine.set_acceptor(acceptor, sources);
        }
    }

    /// Takes the driver's packets.
    fn transmit(&mut self, sources: &Sources<'_>) -> Result<(), QueueFault> {
        let mut moved = 0;
        let kick = self.transmit.kick.clone();
        self.transmit.turn_until(&mut self.chain, |chain, queue| {
            if !self.engine.can_take() {
                self.transmit_waits = true;
                return Ok(Served::Later);
            }
            if moved >= MAX_TURN {
                kick.signal();
                return Ok(Served::Later);
            }
            let mut bytes = [0; HEADER_BYTES];
            let mut taken = Taken::Nonsense;
            if chain.read_at(queue.ram(), 0, &mut bytes) == HEADER_BYTES {
                let header = Header::decode(&bytes);
                let behind = HEADER_BYTES as u64;
                let data_bytes = chain.readable_bytes().saturating_sub(behind);
                let read = |data: &mut [u8]| {
                    let got = chain.read_at(queue.ram(), behind, data);
                    moved += got;
                    got
                };
                taken = self.engine.take(header, data_bytes, read, sources);
            }
            if taken == Taken::Nonsense {
                self.faults.report(GuestFault::Virtqueue {
                    device: "socket device",
                    fault: QueueFault::Request("packet that is not from the guest to the host"),
                });
            }
            Ok(Served::Back(0))
        })?;
        Ok(())
    }

    /// Gives the driver what there is for it, as it has buffers.
    fn receive(&mut self, sources: &Sources<'_>) -> Result<(), QueueFault> {
        if !self.engine.has_packet() {
            // Its buffers are looked at when there is something for them.
            self.receive.kick.take();
            return Ok(());
        }
        let mut moved = 0;
        let kick = self.receive.kick.clone();
        self.receive.turn_until(&mut self.chain, |chain, queue| {
            if chain.writable_bytes() < LEAST_BUFFER {
                return Err(QueueFault::Request("vsock buffer without room for data"));
            }
            if moved >= MAX_TURN {
                kick.signal();
                return Ok(Served::Later);
            }
            let behind = HEADER_BYTES as u64;
            let room = chain.writable_bytes() - behind;
            let Some((header, data)) = self.engine.next(room, sources) else {
                return Ok(Served::Later);
            };
            let mut written = chain.write_at(queue.ram(), 0, &header.encode());
            written += chain.write_at(queue.ram(), behind, data);
            moved += written;
            Ok(Served::Back(u32::try_from(written).unwrap_or(u32::MAX)))
        })?;
        Ok(())
    }

    fn tell_reset(&mut self) -> Result<(), QueueFault> {
        if !self.reset_untold {
            self.event.kick.take();
            return Ok(());
        }
        let untold = &mut self.reset_untold;
        self.event.turn_until(&mut self.chain, |chain, queue| {
            if !*untold {
                return Ok(Served::Later);
            }
            if chain.writable_bytes() < TRANSPORT_RESET.len() as u64 {
                return Err(QueueFault::Request("vsock event buffer without room"));
            }
            let written = chain.write_at(queue.ram(), 0, &TRANSPORT_RESET);
            *untold = false;
            Ok(Served::Back(u32::try_from(written).unwrap_or(u32::MAX)))
        })?;
        Ok(())
    }

    /// Moves what can be moved, and notes how it went.
    fn serve(&mut self, transmit: bool, sources: &Sources<'_>) {
        let result = self.try_serve(transmit, sources);
        self.broken.note(result, &*self.receive.interrupts);
        if self.broken.is_broken() {
            self.deafen(sources);
        } else {
            self.engine.finish(sources);
        }
        let connections = self.engine.connections();
        self.control
            .connections
            .store(connections, Ordering::Relaxed);
    }

    fn try_serve(&mut self, transmit: bool, sources: &Sources<'_>) -> Result<(), QueueFault> {
        self.tell_reset()?;
        if transmit {
            self.transmit(sources)?;
        }
        self.receive(sources)?;
        if self.transmit_waits && self.engine.can_take() {
            self.transmit_waits = false;
            self.transmit.kick.signal();
        }
        Ok(())
    }

    fn deafen(&mut self, sources: &Sources<'_>) {
        for queue in [&self.receive, &self.transmit, &self.event] {
            queue.deafen(sources);
        }
        // Fails when it was done already.
        let _ = sources.remove(&*self.control.changed);
        self.engine.leave(sources);
    }
}

impl QueueWorker for VsockWorker {
    fn start(&mut self, sources: &Sources<'_>) {
        for (token, queue) in [
            (RECEIVE_KICK, &self.receive),
            (TRANSMIT_KICK, &self.transmit),
            (EVENT_KICK, &self.event),
        ] {
            queue.listen(sources, token, &mut self.broken);
        }
        if let Err(error) = sources.add(&*self.control.changed, CHANGED, Interest::Read) {
            tracing::error!(%error, "a socket device cannot be told of changes");
        }
        self.engine.enter(sources);
        self.take_given(sources);
        if self.broken.is_broken() {
            self.deafen(sources);
        } else {
            self.serve(true, sources);
        }
    }

    fn ready(&mut self, token: u32, hung_up: bool, sources: &Sources<'_>) {
        if self.broken.is_broken() {
            return;
        }
        match token {
            RECEIVE_KICK | TRANSMIT_KICK | EVENT_KICK => {}
            CHANGED => {
                self.control.changed.take();
                self.take_given(sources);
            }
            _ => self.engine.ready(token, hung_up, sources),
        }
        self.serve(token == TRANSMIT_KICK, sources);
    }

    fn next_event(&self) -> Option<Instant> {
        self.engine.due().filter(|_| !self.broken.is_broken())
    }

    fn tick(&mut self, sources: &Sources<'_>) {
        if !self.broken.is_broken() {
            self.engine.tick(Instant::now(), sources);
            self.serve(false, sources);
        }
    }

    fn stop(mut self: Box<Self>, sources: &Sources<'_>) -> Progress {
        self.deafen(sources);
        *lock(&self.home) = Home {
            engine: Some(self.engine),
            reset_untold: self.reset_untold,
        };
        [
            (RECEIVE, self.receive),
            (TRANSMIT, self.transmit),
            (EVENT, self.event),
        ]
        .into_iter()
        .map(|(index, queue)| (index, queue.queue.progress()))
        .collect()
    }
}
