//! The back half: requests on a device thread.

use std::sync::Arc;

use super::MemControl;
use super::request::{ANSWER_BYTES, REQUEST_BYTES, Request, answer};
use crate::reactor::Sources;
use crate::virtio::chain::Chain;
use crate::virtio::flow::Served;
use crate::virtio::queue::{Queue, QueueFault};
use crate::virtio::{BrokenQueue, Progress, QueueWorker, RunningQueue};

/// Blocks that come or go in one turn before the thread looks up: each is a system call that may take a
/// millisecond. One request alone may be of more.
const MAX_TURN_BLOCKS: u64 = 64;

#[derive(Debug)]
pub(super) struct MemWorker {
    queue: RunningQueue,
    chain: Chain,
    broken: BrokenQueue,
    control: Arc<MemControl>,
}

impl MemWorker {
    pub(super) fn new(queue: RunningQueue, control: Arc<MemControl>) -> Self {
        Self {
            queue,
            chain: Chain::new(),
            broken: BrokenQueue::new("memory device"),
            control,
        }
    }

    fn turn(&mut self, sources: &Sources<'_>) {
        if self.broken.is_broken() {
            return;
        }
        let (control, kick) = (&self.control, Arc::clone(&self.queue.kick));
        let mut blocks = 0_u64;
        let result = self.queue.turn_until(&mut self.chain, |chain, queue| {
            if blocks >= MAX_TURN_BLOCKS {
                kick.signal();
                return Ok(Served::Later);
            }
            let request = read(chain, queue)?;
            blocks = blocks.saturating_add(request.cost(control));
            let reply = answer(request, control).encode();
            // What is answered may lie in what has just been unplugged.
            let written = chain.write_at(queue.ram(), 0, &reply);
            Ok(Served::Back(u32::try_from(written).unwrap_or(u32::MAX)))
        });
        self.broken.note(result.map(drop), &*self.queue.interrupts);
        if self.broken.is_broken() {
            self.queue.deafen(sources);
        }
    }
}

fn read(chain: &Chain, queue: &Queue) -> Result<Request, QueueFault> {
    let mut bytes = [0; REQUEST_BYTES];
    if chain.read_at(queue.ram(), 0, &mut bytes) < REQUEST_BYTES {
        return Err(QueueFault::Request("memory request is too short"));
    }
    if chain.writable_bytes() < ANSWER_BYTES as u64 {
        return Err(QueueFault::Request(
            "memory request has no room for its answer",
        ));
    }
    Ok(Request::decode(&bytes))
}

impl QueueWorker for MemWorker {
    fn start(&mut self, sources: &Sources<'_>) {
        self.queue.listen(sources, 0, &mut self.broken);
        self.turn(sources);
    }

    fn ready(&mut self, _token: u32, _hung_up: bool, sources: &Sources<'_>) {
        self.turn(sources);
    }

    fn stop(self: Box<Self>, sources: &Sources<'_>) -> Progress {
        self.queue.deafen(sources);
        vec![(self.queue.index, self.queue.queue.progress())]
    }
}
