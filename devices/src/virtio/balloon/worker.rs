//! The back half: the balloon's queues on a device thread.

use std::io;
use std::sync::Arc;

use super::control::BalloonControl;
use super::pages::LentPages;
use super::stats::BalloonStats;
use super::{PAGE_BYTES, PageReturn};
use crate::error::{FaultLog, GuestFault};
use crate::memory::{GuestRam, OutsideRam};
use crate::reactor::{Interest, Sources};
use crate::shared::{Shared, lock};
use crate::virtio::chain::Chain;
use crate::virtio::flow::Served;
use crate::virtio::queue::QueueFault;
use crate::virtio::{BrokenQueue, Progress, QueueWorker, RunningQueue};

/// The most pages taken of one request; drivers put 256 into one, or 1024.
pub(super) const MAX_PAGES: usize = 4096;
/// Ranges given back in one turn before others have theirs: each is a system call.
const MAX_RANGES: u32 = 1024;
/// Pages looked at in one turn.
const MAX_TURN_PAGES: usize = 8 * MAX_PAGES;
/// Page numbers read at a time.
const CHUNK: usize = 256;

/// Positions in the worker's array of queues, and their tokens.
const INFLATE: usize = 0;
const DEFLATE: usize = 1;
const STATS: usize = 2;
const REPORTING: usize = 3;
/// The token of the wish for statistics.
const WANTED: u32 = 4;

/// Gives ranges back, and counts them.
#[derive(Debug)]
struct Returner {
    control: Arc<BalloonControl>,
    pages: Arc<dyn PageReturn>,
    /// Why the last range could not be given, so that one reason is told once.
    refused: Option<io::ErrorKind>,
    /// Ranges in this turn.
    ranges: u32,
}

impl Returner {
    fn give(&mut self, address: u64, len: u64) {
        self.ranges = self.ranges.saturating_add(1);
        match self.pages.give_back(address, len) {
            Ok(()) => {
                self.refused = None;
                self.control.count_returned(len);
            }
            Err(error) if self.refused != Some(error.kind()) => {
                self.refused = Some(error.kind());
                tracing::warn!(address, len, %error, "guest memory could not be given back");
            }
            Err(_) => {}
        }
    }
}

#[derive(Debug)]
pub(super) struct BalloonWorker {
    /// Inflating, deflating, statistics, reporting; by §5.5.2 the last two may not be there.
    queues: [Option<RunningQueue>; 4],
    chain: Chain,
    /// One for all: a driver that breaks a queue has the device reset.
    broken: BrokenQueue,
    faults: FaultLog,
    lent: Shared<LentPages>,
    control: Arc<BalloonControl>,
    returner: Returner,
    /// Page numbers of the request at hand.
    numbers: Vec<u32>,
    /// The driver's buffer for statistics, kept until fresh ones are wanted.
    stats_head: Option<u16>,
}

impl BalloonWorker {
    pub(super) fn new(
        queues: [Option<RunningQueue>; 4],
        lent: Shared<LentPages>,
        control: Arc<BalloonControl>,
        pages: Arc<dyn PageReturn>,
    ) -> Self {
        Self {
            queues,
            chain: Chain::new(),
            broken: BrokenQueue::new("balloon"),
            faults: FaultLog::new(),
            lent,
            returner: Returner {
                control: control.clone(),
                pages,
                refused: None,
                ranges: 0,
            },
            control,
            numbers: Vec::with_capacity(MAX_PAGES),
            stats_head: None,
        }
    }

    fn turn(&mut self, position: usize, sources: &Sources<'_>) {
        if self.broken.is_broken() {
            return;
        }
        self.returner.ranges = 0;
        let result = match position {
            INFLATE => self.inflate(),
            DEFLATE => self.deflate(),
            STATS => self.take_stats(),
            _ => self.report(),
        };
        if let Some(queue) = self.queues.get(position).and_then(Option::as_ref) {
            self.broken.note(result, &*queue.interrupts);
        }
        if self.broken.is_broken() {
            self.deafen(sources);
        }
    }

    fn inflate(&mut self) -> Result<(), QueueFault> {
        let [Some(queue), ..] = &mut self.queues else {
            return Ok(());
        };
        let kick = queue.kick.clone();
        let mut pages = 0;
        queue.turn_until(&mut self.chain, |chain, queue| {
            if self.returner.ranges >= MAX_RANGES || pages >= MAX_TURN_PAGES {
                kick.signal();
                return Ok(Served::Later);
            }
            let ram = queue.ram();
            let beyond = read_numbers(chain, ram, &mut self.numbers);
            pages += self.numbers.len();
            let outside = self
                .numbers
                .iter()
                .copied()
                .find(|number| !ram.contains(u64::from(*number) * PAGE_BYTES, PAGE_BYTES));
            let ignored = lock(&self.lent).inflate(&mut self.numbers, ram, |address, len| {
                self.returner.give(address, len);
            });
            self.control.count_ignored(beyond.saturating_add(ignored));
            if let Some(number) = outside {
                let fault = OutsideRam {
                    address: u64::from(number) * PAGE_BYTES,
                    len: PAGE_BYTES,
                };
                self.faults.report(GuestFault::Virtqueue {
                    device: "balloon",
                    fault: fault.into(),
                });
            }
            Ok(Served::Back(0))
        })?;
        Ok(())
    }

    fn deflate(&mut self) -> Result<(), QueueFault> {
        let [_, Some(queue), ..] = &mut self.queues else {
            return Ok(());
        };
        let kick = queue.kick.clone();
        let mut pages = 0;
        queue.turn_until(&mut self.chain, |chain, queue| {
            if pages >= MAX_TURN_PAGES {
                kick.signal();
                return Ok(Served::Later);
            }
            let mut lent = lock(&self.lent);
            if lent.takes_notes() {
                if read_numbers(chain, queue.ram(), &mut self.numbers) > 0 {
                    // What was not read may be used now, so that nothing noted is certain.
                    lent.clear();
                }
                pages += self.numbers.len();
                lent.deflate(&self.numbers);
            }
            Ok(Served::Back(0))
        })?;
        Ok(())
    }

    fn report(&mut self) -> Result<(), QueueFault> {
        let [.., Some(queue)] = &mut self.queues else {
            return Ok(());
        };
        let kick = queue.kick.clone();
        queue.turn_until(&mut self.chain, |chain, _| {
            if self.returner.ranges >= MAX_RANGES {
                kick.signal();
                return Ok(Served::Later);
            }
            let lent = lock(&self.lent);
            for span in chain.writable() {
                if let Some((start, len)) = lent.trim(span.address, span.len.into()) {
                    self.returner.give(start, len);
                }
            }
            Ok(Served::Back(0))
        })?;
        Ok(())
    }

    /// Takes the driver's statistics, and keeps the buffer. There is never a second one (§5.5.6.3):
    /// if there is, it waits in the ring.
    fn take_stats(&mut self) -> Result<(), QueueFault> {
        let [_, _, Some(queue), _] = &mut self.queues else {
            return Ok(());
        };
        queue.kick.take();
        while self.stats_head.is_none() {
            if queue.queue.pop(&mut self.chain)? {
                self.stats_head = Some(self.chain.head());
                let stats = BalloonStats::read(&self.chain, queue.queue.ram());
                self.control.set_stats(stats);
                // Those are as fresh as any.
                self.control.take_stats_wanted();
            } else if !queue.queue.enable_notifications()? {
                break;
            }
        }
        Ok(())
    }

    /// Gives the buffer back, which makes the driver fill it anew.
    fn want_stats(&mut self) -> Result<(), QueueFault> {
        let [_, _, Some(queue), _] = &mut self.queues else {
            return Ok(());
        };
        if self.stats_head.is_none() || !self.control.take_stats_wanted() {
            return Ok(());
        }
        if let Some(head) = self.stats_head.take() {
            queue.queue.push(head, 0)?;
            queue.notify()?;
        }
        self.take_stats()
    }

    fn deafen(&self, sources: &Sources<'_>) {
        for queue in self.queues.iter().flatten() {
            queue.deafen(sources);
        }
        // Fails when it was done already.
        let _ = sources.remove(&self.control.wanted);
    }
}

/// Reads a request's page numbers, the first [`MAX_PAGES`] of them, into `numbers`; gives how many
/// there are beyond.
fn read_numbers(chain: &Chain, ram: &GuestRam, numbers: &mut Vec<u32>) -> u64 {
    numbers.clear();
    let mut chunk = [0; CHUNK * 4];
    let mut offset = 0;
    while numbers.len() < MAX_PAGES {
        let got = chain.read_at(ram, offset, &mut chunk);
        let bytes = chunk.get(..got).unwrap_or_default();
        let words = bytes.chunks_exact(4).filter_map(<[u8]>::first_chunk);
        numbers.extend(words.map(|word| u32::from_le_bytes(*word)));
        offset += got as u64;
        if got < chunk.len() {
            break;
        }
    }
    (chain.readable_bytes() / 4).saturating_sub(numbers.len() as u64)
}

impl QueueWorker for BalloonWorker {
    fn start(&mut self, sources: &Sources<'_>) {
        for (token, queue) in (0..).zip(&self.queues) {
            if let Some(queue) = queue {
                queue.listen(sources, token, &mut self.broken);
            }
        }
        if self.queues.iter().skip(STATS).any(Option::is_some) {
            let added = sources.add(&self.control.wanted, WANTED, Interest::Read);
            if let Err(error) = added {
                tracing::warn!(%error, "a balloon's statistics cannot be asked for");
            }
        }
        for position in [INFLATE, DEFLATE, STATS, REPORTING] {
            self.turn(position, sources);
        }
    }

    fn ready(&mut self, token: u32, _hung_up: bool, sources: &Sources<'_>) {
        if token == WANTED {
            self.control.wanted.take();
            if self.broken.is_broken() {
                return;
            }
            let result = self.want_stats();
            if let Some(queue) = self.queues.get(STATS).and_then(Option::as_ref) {
                self.broken.note(result, &*queue.interrupts);
            }
            if self.broken.is_broken() {
                self.deafen(sources);
            }
        } else {
            self.turn(token as usize, sources);
        }
    }

    fn stop(mut self: Box<Self>, sources: &Sources<'_>) -> Progress {
        self.deafen(sources);
        if self.stats_head.take().is_some() {
            // The only chain that is out: it is taken again when the device goes on.
            if let [_, _, Some(queue), _] = &mut self.queues {
                queue.queue.unpop();
            }
        }
        let queues = self.queues.iter().flatten();
        queues
            .map(|queue| (queue.index, queue.queue.progress()))
            .collect()
    }
}
