//! The back half: fills the driver's buffers with events, and drops what it says of lights.

use std::sync::Arc;

use super::events::InputEvents;
use crate::reactor::{Interest, Sources};
use crate::virtio::chain::Chain;
use crate::virtio::flow::Served;
use crate::virtio::queue::QueueFault;
use crate::virtio::{BrokenQueue, Progress, QueueWorker, RunningQueue};

const EVENTS_KICK: u32 = 0;
const STATUS_KICK: u32 = 1;
const OFFERED: u32 = 2;
/// Bytes of an event (§5.8.6).
const EVENT_BYTES: u64 = 8;

#[derive(Debug)]
pub(super) struct InputWorker {
    events: RunningQueue,
    status: RunningQueue,
    source: Arc<InputEvents>,
    chain: Chain,
    events_broken: BrokenQueue,
    status_broken: BrokenQueue,
}

impl InputWorker {
    pub(super) fn new(
        events: RunningQueue,
        status: RunningQueue,
        source: Arc<InputEvents>,
    ) -> Self {
        Self {
            events,
            status,
            source,
            chain: Chain::new(),
            events_broken: BrokenQueue::new("input device"),
            status_broken: BrokenQueue::new("input device"),
        }
    }

    fn give(&mut self, sources: &Sources<'_>) {
        if self.events_broken.is_broken() {
            return;
        }
        self.source.offered().take();
        let source = &self.source;
        let result = self.events.turn_until(&mut self.chain, |chain, queue| {
            if chain.writable_bytes() < EVENT_BYTES {
                return Err(QueueFault::Request("input event without room"));
            }
            let Some((kind, code, value)) = source.take() else {
                return Ok(Served::Later);
            };
            let [kind, code] = [kind, code].map(u16::to_le_bytes);
            let event = [&kind[..], &code, &value.to_le_bytes()].concat();
            let written = chain.write_at(queue.ram(), 0, &event);
            Ok(Served::Back(u32::try_from(written).unwrap_or(0)))
        });
        let result = result.map(drop);
        self.events_broken.note(result, &*self.events.interrupts);
        if self.events_broken.is_broken() {
            self.events.deafen(sources);
        }
    }

    fn drop_status(&mut self, sources: &Sources<'_>) {
        if self.status_broken.is_broken() {
            return;
        }
        let result = self.status.turn(&mut self.chain, |_, _| Ok(Some(0)));
        self.status_broken.note(result, &*self.status.interrupts);
        if self.status_broken.is_broken() {
            self.status.deafen(sources);
        }
    }
}

impl QueueWorker for InputWorker {
    fn start(&mut self, sources: &Sources<'_>) {
        self.events
            .listen(sources, EVENTS_KICK, &mut self.events_broken);
        self.status
            .listen(sources, STATUS_KICK, &mut self.status_broken);
        if let Err(error) = sources.add(self.source.offered(), OFFERED, Interest::Read) {
            tracing::error!(%error, "an input device cannot be told of input");
        }
        self.give(sources);
        self.drop_status(sources);
    }

    fn ready(&mut self, token: u32, _hung_up: bool, sources: &Sources<'_>) {
        match token {
            STATUS_KICK => self.drop_status(sources),
            _ => {
                // Taken here as well: a broken queue is told of no more.
                self.source.offered().take();
                self.give(sources);
            }
        }
    }

    fn stop(self: Box<Self>, sources: &Sources<'_>) -> Progress {
        self.events.deafen(sources);
        self.status.deafen(sources);
        let _ = sources.remove(self.source.offered());
        [self.events, self.status]
            .into_iter()
            .map(|queue| (queue.index, queue.queue.progress()))
            .collect()
    }
}
