//! Frames from the host to the guest (§5.1.6.4).
//!
//! A frame is read straight into as many of the driver's buffers as frames of late have needed. What
//! does not fit goes to a spill buffer of the host's and is copied to further buffers; where frames of late
//! were short, all of it does. The header never goes to the guest before it is checked: it is read into the
//! host's memory.
//!
//! ```text
//!             no buffer: wait for a kick        frame is longer than the buffers: wait for a kick
//!                    ▲                                   ▲
//!   gather buffers ──┴──► read a frame ──► check header ─┴──► fill used entries, show them at once
//!                              │
//!                              └──► none: wait for the port
//! ```

use std::time::{Duration, Instant};

use super::header::{HEADER_BYTES, Header, MAX_FRAME, MIN_FRAME};
use super::held::Held;
use super::link::Link;
use super::tap::Port;
use super::vectored::{self, Received, SHORT_FRAME};
use crate::virtio::chain::{Chain, slices};
use crate::virtio::queue::{QueueFault, QueueProgress};
use crate::virtio::{BrokenQueue, RunningQueue};

/// The most frames of a turn; others share the thread, and the driver waits for its interrupt.
const BUDGET: u16 = 64;
/// How long a port that fails is left alone.
const FAILURE_PAUSE: Duration = Duration::from_millis(100);
/// The most frames that wait in a port while the link is down; a tap interface has room for 1,000.
const STALE_FRAMES: u16 = 1024;

/// The receive queue of one pair.
#[derive(Debug)]
pub(super) struct Receiver {
    running: RunningQueue,
    broken: BrokenQueue,
    chain: Chain,
    held: Held,
    /// Room for a header and a frame; what is behind the header's is what does not go straight to the guest.
    spill: Vec<u8>,
    /// A frame that waits for buffers.
    pending: Option<Pending>,
    sizes: Sizes,
    mergeable: bool,
    pair: u16,
    /// So many frames at most have waited since before the link came up, and are dropped.
    stale: u16,
    wants_port: bool,
    resume_at: Option<Instant>,
}

/// A frame that was read.
#[derive(Debug, Clone, Copy)]
struct Pending {
    header: Header,
    /// Its bytes.
    frame: usize,
    /// How many of them are in guest memory, behind the place of the header; the others are in the
    /// spill.
    direct: usize,
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Go on.
    More,
    /// The port has no frame.
    Empty,
    /// The driver has no buffers, and will kick.
    Starved,
    /// The port does not work.
    Failed,
}

impl Receiver {
    pub(super) fn new(running: RunningQueue, pair: u16, mergeable: bool) -> Self {
        Self {
            running,
            broken: BrokenQueue::new("network"),
            chain: Chain::new(),
            held: Held::default(),
            // Pages that no frame needs are never touched.
            spill: vec![0; HEADER_BYTES + MAX_FRAME + 1],
            pending: None,
            sizes: Sizes::new(),
            mergeable,
            pair,
            stale: 0,
            wants_port: false,
            resume_at: None,
        }
    }

    pub(super) fn running(&self) -> &RunningQueue {
        &self.running
    }

    /// Whether it waits for a frame.
    pub(super) fn wants_port(&self) -> bool {
        self.wants_port
    }

    /// When it wants another turn.
    pub(super) fn resume_at(&self) -> Option<Instant> {
        self.resume_at
    }

    /// Whether somebody else may serve the queue: it is not broken, and no frame waits in the port that has to
    /// be dropped first.
    pub(super) fn can_be_left(&self) -> bool {
        !self.broken.is_broken() && self.stale == 0
    }

    /// Leaves the queue to somebody else: gives up what it holds, and wants nothing.
    pub(super) fn leave(&mut self, link: &Link) -> &RunningQueue {
        self.release(link);
        self.wants_port = false;
        self.resume_at = None;
        &self.running
    }

    /// Takes it up again where they have left it.
    pub(super) fn take_up(&mut self, next_available: Option<u16>) {
        self.running.queue.go_on_from(next_available);
        // For what they gave back last.
        self.running.interrupts.queue(self.running.index);
    }

    /// Whoever served it could not go on.
    pub(super) fn break_off(&mut self, fault: QueueFault) {
        self.broken.note(Err(fault), &*self.running.interrupts);
    }

    /// Passes frames on.
    pub(super) fn turn(&mut self, port: &dyn Port, link: &Link) {
        self.wants_port = false;
        self.resume_at = None;
        if self.broken.is_broken() {
            return;
        }
        let result = self.serve(port, link).and_then(|()| self.running.notify());
        if result.is_err() {
            self.wants_port = false;
            self.resume_at = None;
        }
        self.broken.note(result, &*self.running.interrupts);
    }

    fn serve(&mut self, port: &dyn Port, link: &Link) -> Result<(), QueueFault> {
        self.running.queue.disable_notifications()?;
        for _ in 0..BUDGET {
            if !link.is_up() {
                self.stale = STALE_FRAMES;
            }
            if self.pair >= link.active() || !link.is_up() {
                self.release(link);
                return Ok(());
            }
            self.resume_at = link.inbound.resume_at();
            if self.resume_at.is_some() {
                return Ok(());
            }
            match self.step(port, link)? {
                Step::More => {}
                Step::Empty => break,
                Step::Starved => return Ok(()),
                Step::Failed => {
                    self.resume_at = Some(Instant::now() + FAILURE_PAUSE);
                    return Ok(());
                }
            }
        }
        // With the budget used up the port tells at once that there is more.
        self.wants_port = true;
        Ok(())
    }

    fn step(&mut self, port: &dyn Port, link: &Link) -> Result<Step, QueueFault> {
        if self.stale > 0 {
            return Ok(self.discard(port, link));
        }
        if self.pending.is_none() {
            let wanted = if self.mergeable {
                (self.sizes.expected() + HEADER_BYTES) as u64
            } else {
                1
            };
            self.held
                .gather(wanted, &mut self.running.queue, &mut self.chain)?;
            if self.held.first().is_none() {
                return self.starve();
            }
            match self.read(port, link) {
                Ok(pending) => self.pending = pending,
                Err(step) => return Ok(step),
            }
        }
        match self.pending.take() {
            Some(pending) => self.deliver(pending, link),
            None => Ok(Step::More),
        }
    }

    /// Waits for the driver, unless it has brought something just now.
    fn starve(&mut self) -> Result<Step, QueueFault> {
        if !self.running.queue.enable_notifications()? {
            return Ok(Step::Starved);
        }
        self.running.queue.disable_notifications()?;
        Ok(Step::More)
    }

    /// Takes a frame from the port that has been there since the link was down.
    fn discard(&mut self, port: &dyn Port, link: &Link) -> Step {
        let mut head = [0; HEADER_BYTES];
        let read = match port.stream() {
            Some(stream) => stream.receive(&mut self.spill).map(drop),
            None => {
                let spill = &mut self.spill;
                vectored::read(port.as_fd(), &mut head, std::iter::empty(), spill).map(drop)
            }
        };
        match read {
            Ok(()) => {
                link.rx.drop();
                self.stale -= 1;
            }
            Err(_) => self.stale = 0,
        }
        Step::More
    }

    /// Takes a frame from the port; `None` if it was dropped.
    fn read(&mut self, port: &dyn Port, link: &Link) -> Result<Option<Pending>, Step> {
        let mut head = [0; HEADER_BYTES];
        let received = if let Some(stream) = port.stream() {
            let place = self.spill.get_mut(HEADER_BYTES..).unwrap_or_default();
            stream.receive(place).map(|frame| Received {
                bytes: HEADER_BYTES + frame,
                room: 0,
            })
        } else if self.sizes.expected() <= SHORT_FRAME {
            read_whole(port, &mut head, &mut self.spill)
        } else {
            let guest = slices(
                self.running.queue.ram(),
                self.held.spans(self.mergeable),
                HEADER_BYTES as u64,
                MAX_FRAME as u64,
            );
            let spill = self.spill.get_mut(HEADER_BYTES..).unwrap_or_default();
            vectored::read(port.as_fd(), &mut head, guest, spill)
        };
        let received = match received {
            Ok(received) => received,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                return Err(Step::Empty);
            }
            Err(error) => {
                tracing::debug!(%error, "reading from a port failed");
                link.rx.error();
                return Err(Step::Failed);
            }
        };
        let frame = received.bytes.saturating_sub(HEADER_BYTES);
        if frame < MIN_FRAME {
            link.rx.error();
            return Ok(None);
        }
        let header = Header::decode(head).incoming(frame, link.offloads());
        match header {
            Ok(header) if frame <= MAX_FRAME => {
                self.sizes.note(frame);
                let direct = frame.min(received.room);
                Ok(Some(Pending {
                    header,
                    frame,
                    direct,
                }))
            }
            _ => {
                link.rx.drop();
                Ok(None)
            }
        }
    }

    fn deliver(&mut self, pending: Pending, link: &Link) -> Result<Step, QueueFault> {
        let total = (pending.frame + HEADER_BYTES) as u64;
        if self.mergeable {
            // Ends: every round but the last takes a buffer, and there are as many as the queue is long.
            while self.held.bytes() < total {
                let (queue, chain) = (&mut self.running.queue, &mut self.chain);
                self.held.gather(total, queue, chain)?;
                if self.held.bytes() >= total {
                    break;
                }
                if queue.out() >= queue.size() {
                    // The driver has nothing left to bring.
                    link.rx.drop();
                    return Ok(Step::More);
                }
                if self.starve()? == Step::Starved {
                    self.pending = Some(pending);
                    return Ok(Step::Starved);
                }
            }
        } else if self.held.first().is_none_or(|first| first.len < total) {
            link.rx.drop();
            return Ok(Step::More);
        }

        let spilled = HEADER_BYTES..HEADER_BYTES + pending.frame - pending.direct;
        let mut spilled = self.spill.get(spilled);
        let offset = (HEADER_BYTES + pending.direct) as u64;
        let rest = (pending.frame - pending.direct) as u64;
        let ram = self.running.queue.ram();
        for slice in slices(ram, self.held.spans(self.mergeable), offset, rest) {
            let Some((now, later)) = spilled.and_then(|bytes| bytes.split_at_checked(slice.len()))
            else {
                break;
            };
            slice.copy_from(now);
            spilled = Some(later);
        }

        let (mut left, mut count) = (total, 0_u16);
        for buffer in self.held.iter() {
            if left == 0 {
                break;
            }
            let written = left.min(buffer.len);
            // At most the longest frame and its header.
            let bytes = u32::try_from(written).unwrap_or(0);
            self.running.queue.fill(count, buffer.head, bytes)?;
            left -= written;
            count += 1;
        }
        let header = pending.header.in_buffers(count).encode();
        let mut rest = header.as_slice();
        let ram = self.running.queue.ram();
        let place = slices(ram, self.held.spans(false), 0, HEADER_BYTES as u64);
        for slice in place {
            let Some((now, later)) = rest.split_at_checked(slice.len()) else {
                break;
            };
            slice.copy_from(now);
            rest = later;
        }
        self.running.queue.show(count)?;
        self.held.forget(count);
        link.rx.pass(pending.frame);
        link.inbound.take(pending.frame);
        Ok(Step::More)
    }

    /// Gives up what it holds: buffers go back to where they were, a waiting frame is dropped.
    fn release(&mut self, link: &Link) {
        if self.pending.take().is_some() {
            link.rx.drop();
        }
        self.held.release(&mut self.running.queue);
    }

    /// Ends it; gives the queue's number and progress.
    pub(super) fn stop(mut self, link: &Link) -> (u16, QueueProgress) {
        self.release(link);
        (self.running.index, self.running.queue.progress())
    }
}

/// Reads one frame into `spill` in one piece, and copies its header.
fn read_whole(
    port: &dyn Port,
    head: &mut [u8; HEADER_BYTES],
    spill: &mut [u8],
) -> std::io::Result<Received> {
    let bytes = rustix::io::retry_on_intr(|| rustix::io::read(port.as_fd(), &mut *spill))?;
    if let Some(first) = spill.first_chunk() {
        *head = *first;
    }
    Ok(Received { bytes, room: 0 })
}

/// How long frames of late were.
#[derive(Debug)]
struct Sizes {
    longest: usize,
    longest_before: usize,
    count: u32,
}

impl Sizes {
    /// Frames after which one is forgotten, twice that at most.
    const WINDOW: u32 = 64;

    fn new() -> Self {
        Self {
            longest: MIN_FRAME,
            longest_before: MAX_FRAME,
            count: 0,
        }
    }

    fn note(&mut self, frame: usize) {
        self.longest = self.longest.max(frame);
        self.count += 1;
        if self.count == Self::WINDOW {
            self.longest_before = self.longest;
            self.longest = MIN_FRAME;
            self.count = 0;
        }
    }

    fn expected(&self) -> usize {
        self.longest.max(self.longest_before)
    }
}
