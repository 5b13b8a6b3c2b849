//! The entropy device (virtio 1.3 §5.4): random bytes of the host's kernel for a guest that has
//! none of its own yet.
//!
//! ```text
//!  requestq ──► at most 64 KiB of getrandom(2), by way of one page of ours ──► the driver's buffer
//!                 │
//!                 └─ nothing left of this period's bytes: the chain waits in the ring for the next
//! ```
//!
//! One worker, without state: what it has given belongs to the guest. A request is answered with
//! fewer bytes than it has room for, never with a wait for the rest; the driver asks again. So what
//! a request costs is bounded by constants here, and how many there are by the turns of the queue
//! and, where one is set, by the limit of bytes in a period.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use super::chain::Chain;
use super::flow::Served;
use super::queue::{Queue, QueueFault};
use super::{
    BrokenQueue, DeviceId, Progress, QueueWorker, RunningQueue, Start, StartError, VirtioDevice,
    take_queue,
};
use crate::reactor::Sources;

#[cfg(test)]
mod tests;

/// The number of the only queue.
const REQUESTS: u16 = 0;
/// Entries of it. Drivers keep one request or two out.
const QUEUE_SIZES: &[u16] = &[64];
/// The most bytes that answer one request.
const MAX_REQUEST: u64 = 64 * 1024;
/// The most bytes given in one turn, about a millisecond of the kernel's generator.
const MAX_TURN: u64 = 256 * 1024;
/// The longest period: one that an instant can be put behind.
const LONGEST_PERIOD: Duration = Duration::from_secs(24 * 3600);
/// Bytes made at a time.
const PAGE: usize = 4096;

/// How much entropy a guest may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntropyLimit {
    /// Bytes in each period.
    pub bytes: NonZeroU64,
    /// Its length, at most a day; one of zero limits nothing.
    pub period: Duration,
}

/// The front half.
#[derive(Debug)]
pub struct Entropy {
    limit: Option<EntropyLimit>,
}

impl Entropy {
    /// An entropy device. Without a `limit` a guest gets what the thread has time for.
    #[must_use]
    pub fn new(limit: Option<EntropyLimit>) -> Self {
        Self { limit }
    }
}

impl VirtioDevice for Entropy {
    fn id(&self) -> DeviceId {
        DeviceId::Entropy
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        QUEUE_SIZES
    }

    fn read_config(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn start(&mut self, mut start: Start) -> Result<Vec<Box<dyn QueueWorker>>, StartError> {
        let queue = take_queue(&mut start.queues, REQUESTS)?;
        Ok(vec![Box::new(EntropyWorker {
            queue,
            chain: Chain::new(),
            broken: BrokenQueue::new("entropy device"),
            bucket: self.limit.map(Bucket::new),
            due: None,
        })])
    }
}

/// The bytes left of a period. A period begins with the first request after the last has ended, so
/// that a quiet guest wakes nobody.
#[derive(Debug)]
struct Bucket {
    limit: EntropyLimit,
    left: u64,
    ends: Option<Instant>,
}

impl Bucket {
    fn new(limit: EntropyLimit) -> Self {
        Self {
            limit,
            left: limit.bytes.get(),
            ends: None,
        }
    }

    /// Bytes that may be given now.
    fn left(&mut self, now: Instant) -> u64 {
        if self.ends.is_none_or(|ends| now >= ends) {
            self.left = self.limit.bytes.get();
            self.ends = Some(now + self.limit.period.min(LONGEST_PERIOD));
        }
        self.left
    }

    fn take(&mut self, bytes: u64) {
        self.left = self.left.saturating_sub(bytes);
    }
}

/// The back half.
#[derive(Debug)]
struct EntropyWorker {
    queue: RunningQueue,
    chain: Chain,
    broken: BrokenQueue,
    bucket: Option<Bucket>,
    /// When the period ends that has nothing left.
    due: Option<Instant>,
}

impl EntropyWorker {
    fn turn(&mut self, now: Instant, sources: &Sources<'_>) {
        if self.broken.is_broken() {
            return;
        }
        self.due = None;
        let mut turn_left = MAX_TURN;
        let (bucket, due, kick) = (&mut self.bucket, &mut self.due, self.queue.kick.clone());
        let result = self.queue.turn_until(&mut self.chain, |chain, queue| {
            if chain.writable_bytes() == 0 {
                // §5.4.6.1 has the device write one byte at least.
                return Err(QueueFault::Request("entropy request without room"));
            }
            if turn_left == 0 {
                kick.signal();
                return Ok(Served::Later);
            }
            let mut most = chain.writable_bytes().min(MAX_REQUEST).min(turn_left);
            if let Some(bucket) = bucket {
                most = most.min(bucket.left(now));
                if most == 0 {
                    *due = bucket.ends;
                    return Ok(Served::Later);
                }
            }
            let given = fill(chain, queue, most);
            turn_left -= given;
            if let Some(bucket) = bucket {
                bucket.take(given);
            }
            Ok(Served::Back(u32::try_from(given).unwrap_or(u32::MAX)))
        });
        self.broken.note(result.map(drop), &*self.queue.interrupts);
        if self.broken.is_broken() {
            self.queue.deafen(sources);
        }
    }
}

/// Writes `most` random bytes into `chain`, or fewer if the kernel refuses, which it has no reason
/// to; gives how many.
fn fill(chain: &Chain, queue: &Queue, most: u64) -> u64 {
    let mut page = [0; PAGE];
    let mut done = 0;
    while done < most {
        let want = usize::try_from(most - done).unwrap_or(PAGE).min(PAGE);
        let part = page.get_mut(..want).unwrap_or_default();
        match getrandom(&mut *part, GetRandomFlags::empty()) {
            Ok(got) => {
                let random = part.get(..got).unwrap_or_default();
                let written = chain.write_at(queue.ram(), done, random);
                done += written as u64;
                if written == 0 {
                    break;
                }
            }
            Err(Errno::INTR) => {}
            Err(error) => {
                tracing::error!(%error, "the kernel gives no random bytes");
                break;
            }
        }
    }
    done
}

impl QueueWorker for EntropyWorker {
    fn start(&mut self, sources: &Sources<'_>) {
        self.queue.listen(sources, 0, &mut self.broken);
        self.turn(Instant::now(), sources);
    }

    fn ready(&mut self, _token: u32, _hung_up: bool, sources: &Sources<'_>) {
        self.turn(Instant::now(), sources);
    }

    fn next_event(&self) -> Option<Instant> {
        self.due
    }

    fn tick(&mut self, sources: &Sources<'_>) {
        self.turn(Instant::now(), sources);
    }

    fn stop(self: Box<Self>, sources: &Sources<'_>) -> Progress {
        self.queue.deafen(sources);
        vec![(self.queue.index, self.queue.queue.progress())]
    }
}
