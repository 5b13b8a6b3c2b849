//! Frames from the guest to the host (§5.1.6.2).
//!
//! The header is copied out of guest memory and checked, and the copy is written in front of the frame,
//! which goes straight from guest memory; but for its first bytes where it leaves a checksum to the host:
//! those are looked at, and it is the copy of them that goes out. A frame that cannot be sent is dropped and
//! counted, and its buffer goes back: nothing about a frame breaks the queue.

use std::io::ErrorKind;
use std::time::Instant;

use super::features::Offloads;
use super::header::{HEADER_BYTES, Header, HeaderFault, MAX_FRAME, MIN_FRAME};
use super::link::Link;
use super::tap::Port;
use super::vectored::{self, SHORT_FRAME};
use crate::virtio::chain::Chain;
use crate::virtio::queue::{QueueFault, QueueProgress};
use crate::virtio::{BrokenQueue, RunningQueue};

/// The most frames of a turn.
const BUDGET: u16 = 64;
/// The most frames of which the buffers are given back at once.
const AT_ONCE: u16 = 16;

/// The transmit queue of one pair.
#[derive(Debug)]
pub(super) struct Transmitter {
    running: RunningQueue,
    broken: BrokenQueue,
    chain: Chain,
    offloads: Offloads,
    pair: u16,
    /// A frame for a port that is a stream.
    whole: Vec<u8>,
    wants_port: bool,
    resume_at: Option<Instant>,
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    /// Its buffer can go back.
    Done,
    /// The port has no room.
    Blocked,
}

impl Transmitter {
    pub(super) fn new(running: RunningQueue, pair: u16, offloads: Offloads) -> Self {
        Self {
            running,
            broken: BrokenQueue::new("network"),
            chain: Chain::new(),
            offloads,
            pair,
            whole: Vec::new(),
            wants_port: false,
            resume_at: None,
        }
    }

    pub(super) fn running(&self) -> &RunningQueue {
        &self.running
    }

    /// Whether it waits for room.
    pub(super) fn wants_port(&self) -> bool {
        self.wants_port
    }

    /// When it wants another turn.
    pub(super) fn resume_at(&self) -> Option<Instant> {
        self.resume_at
    }

    /// Whether somebody else may serve the queue.
    pub(super) fn can_be_left(&self) -> bool {
        !self.broken.is_broken()
    }

    /// Leaves the queue to somebody else, of which it holds nothing, and wants nothing.
    pub(super) fn leave(&mut self) -> &RunningQueue {
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

    /// Sends frames.
    pub(super) fn turn(&mut self, port: &dyn Port, link: &Link) {
        self.wants_port = false;
        self.resume_at = None;
        if self.broken.is_broken() {
            return;
        }
        let result = self.serve(port, link).and_then(|()| self.running.notify());
        self.broken.note(result, &*self.running.interrupts);
    }

    fn serve(&mut self, port: &dyn Port, link: &Link) -> Result<(), QueueFault> {
        let mut sent = 0;
        let result = self.take(port, link, &mut sent);
        // Also of a queue that is broken: they were its driver's before.
        self.running.queue.show(sent)?;
        // What of a frame was kept has no frame behind it that would bring it on its way.
        self.wants_port |= port.stream().is_some_and(|stream| !stream.flush());
        result
    }

    /// Sends frames; `sent` counts those whose buffers are filled in and not yet shown.
    fn take(&mut self, port: &dyn Port, link: &Link, sent: &mut u16) -> Result<(), QueueFault> {
        self.running.queue.disable_notifications()?;
        for _ in 0..BUDGET {
            if self.pair >= link.active() {
                return Ok(());
            }
            self.resume_at = link.outbound.resume_at();
            if self.resume_at.is_some() {
                return Ok(());
            }
            if !self.running.queue.pop(&mut self.chain)? {
                if !self.running.queue.enable_notifications()? {
                    return Ok(());
                }
                self.running.queue.disable_notifications()?;
                continue;
            }
            if self.send(port, link) == Sent::Blocked {
                self.running.queue.unpop();
                self.wants_port = true;
                return Ok(());
            }
            self.running.queue.fill(*sent, self.chain.head(), 0)?;
            *sent += 1;
            if *sent == AT_ONCE {
                self.running.queue.show(std::mem::take(sent))?;
            }
        }
        self.running.kick.signal();
        Ok(())
    }

    fn send(&mut self, port: &dyn Port, link: &Link) -> Sent {
        let ram = self.running.queue.ram();
        let mut head = [0; HEADER_BYTES];
        let bytes = self.chain.readable_bytes();
        let frame = usize::try_from(bytes).map_or(0, |bytes| bytes.saturating_sub(HEADER_BYTES));
        let well_formed =
            self.chain.writable_bytes() == 0 && (MIN_FRAME..=MAX_FRAME).contains(&frame);
        if !well_formed || self.chain.read_at(ram, 0, &mut head) != HEADER_BYTES {
            link.tx.error();
            return Sent::Done;
        }
        let header = match Header::decode(head).outgoing(frame, self.offloads) {
            Ok(header) => header,
            Err(fault) => return Self::faulty(link, fault),
        };
        let mut start = [0; HEADER_BYTES + SHORT_FRAME];
        let copied = if frame <= SHORT_FRAME || header.leaves_checksum() {
            frame.min(SHORT_FRAME)
        } else {
            0
        };
        let start = start.get_mut(..HEADER_BYTES + copied).unwrap_or_default();
        let (place, of_frame) = start.split_at_mut(HEADER_BYTES);
        place.copy_from_slice(&header.encode());
        self.chain.read_at(ram, HEADER_BYTES as u64, of_frame);
        if let Err(fault) = header.fits(of_frame) {
            return Self::faulty(link, fault);
        }
        if !link.is_up() {
            link.tx.drop();
            return Sent::Done;
        }
        let written = if let Some(stream) = port.stream() {
            self.whole.resize(frame, 0);
            self.chain
                .read_at(ram, HEADER_BYTES as u64, &mut self.whole);
            stream.send(&self.whole).map(|()| frame)
        } else if copied == frame {
            rustix::io::retry_on_intr(|| rustix::io::write(port.as_fd(), &*start))
                .map_err(std::io::Error::from)
        } else {
            let (behind, rest) = ((HEADER_BYTES + copied) as u64, (frame - copied) as u64);
            let guest = self.chain.readable_slices(ram, behind, rest);
            vectored::write(port.as_fd(), start, guest)
        };
        match written {
            Ok(_) => {
                link.tx.pass(frame);
                link.outbound.take(frame);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Sent::Blocked,
            // Whatever else: `EINVAL` for a frame the host sees through, `EIO` while the interface is
            // down, or no memory. A network loses frames.
            Err(error) => {
                tracing::debug!(%error, "the host did not take a frame");
                link.tx.drop();
            }
        }
        Sent::Done
    }

    fn faulty(link: &Link, fault: HeaderFault) -> Sent {
        tracing::debug!(%fault, "dropping a guest's frame");
        link.tx.error();
        Sent::Done
    }

    /// Ends it; gives the queue's number and progress.
    pub(super) fn stop(self) -> (u16, QueueProgress) {
        (self.running.index, self.running.queue.progress())
    }
}
