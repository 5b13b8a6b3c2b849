//! vhost-net: the kernel serves the queues of a pair, between guest memory and the tap.
//!
//! ```text
//!            closed, open ── link up, no rate, pair in use ──► serving
//!              ▲      ▲                                           │ │
//!              │      └─────── link down, a rate, not in use ─────┘ │
//!              └───────────────────── stop ─────────────────────────┘
//! ```
//!
//! While the kernel serves, this process has no part in a frame: what a driver notifies of goes to the kernel by
//! the queues' own events, and interrupts come back by others, which the pair's worker passes on, so that
//! masks and pending bits are the transport's affair as for any device. In every other state the worker serves
//! the queues itself, as those of a device without vhost-net: it drops what is sent over a link that is down,
//! and keeps to rates, which the kernel has no notion of. Where a queue is when it changes hands is known from
//! the kernel's word and the used ring, as it is when the device stops: nothing else of a device's state
//! depends on who serves it.
//!
//! The kernel is trusted with the guest, as ever. Its guest is not: rings are handed over only as
//! [`Queue`](crate::virtio::queue::Queue)s, which are wholly in memory, and buffers can only be in the memory
//! that is told with them; where blocks of it come and go, the kernel is told at each change
//! ([`crate::memory::followers`]). A ring that a driver breaks is told of by an event, and the device asks to be reset.
//!
//! `/dev/vhost-net` belongs to a process only while the device runs: a worker that takes the machine over
//! gets the same descriptor and owns it next.

mod calls;
#[cfg(test)]
pub(super) mod fake;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

pub(super) use self::calls::Calls;
pub use self::calls::VhostNet;
use self::calls::{Call, FEATURES};
use crate::event::Event;
use crate::memory::GuestRam;
use crate::memory::followers::Follower;
use crate::shared::lock;
use crate::token_bucket::TokenBucket;
use crate::virtio::RunningQueue;

use super::control::{HOST_CHANGES, charge};

/// The numbers of a pair's rings, by which the kernel knows which receives (`VHOST_NET_VQ_RX`).
const RINGS: [u16; 2] = [0, 1];

/// What the kernel serves one pair by, as long as there is the device.
#[derive(Debug)]
pub(super) struct Engine {
    calls: Arc<dyn Calls>,
    /// By which it interrupts. Made here, since the thread that starts a device makes no descriptor.
    interrupts: [Event; 2],
    error: Event,
    /// How often it may become this process': a driver that resets its device without end is served by the
    /// worker.
    openings: Mutex<TokenBucket>,
    /// A refusal was told of.
    refused: AtomicBool,
    /// What it has of queues that it has not let go of: nobody may serve them any more.
    stuck: Mutex<Option<Arc<Told>>>,
}

impl Engine {
    pub(super) fn new(calls: Box<dyn Calls>) -> io::Result<Self> {
        Ok(Self {
            calls: Arc::from(calls),
            interrupts: [Event::new()?, Event::new()?],
            error: Event::new()?,
            openings: Mutex::new(TokenBucket::new(HOST_CHANGES, Instant::now())),
            refused: AtomicBool::new(false),
            stuck: Mutex::new(None),
        })
    }

    /// Whether the kernel has kept queues that it was to give back.
    pub(super) fn is_stuck(&self) -> bool {
        lock(&self.stuck).is_some()
    }
}

/// The next available entry of each queue where the kernel has left it, as far as it tells.
pub(super) type Left = [Option<u16>; 2];

/// Where a pair is.
#[derive(Debug)]
enum State {
    /// The descriptor is nobody's.
    Closed,
    /// It is this process', and the kernel serves nothing.
    Open,
    /// With the memory that the kernel accesses.
    Serving(Arc<Told>),
}

/// The memory that the kernel was told of, which stays mapped as long as it accesses it.
#[derive(Debug)]
struct Told {
    calls: Arc<dyn Calls>,
    ram: GuestRam,
    /// Held while it is told, so that it is not told for the next process.
    serving: Mutex<bool>,
}

impl Told {
    fn over(&self) {
        *lock(&self.serving) = false;
    }
}

impl Follower for Told {
    /// The kernel changes the memory of queues that it serves between two frames.
    fn follow(&self) -> io::Result<()> {
        let serving = lock(&self.serving);
        if *serving {
            self.calls.make(&Call::SetMemory(&self.ram))?;
        }
        Ok(())
    }
}

/// What a pair's worker has of its engine. Dropping it takes the queues back.
#[derive(Debug)]
pub(super) struct Kernel {
    engine: Arc<Engine>,
    features: u64,
    state: State,
    /// It has refused once, or found fault with a ring: it is not asked again until the device starts anew.
    usable: bool,
}

impl Kernel {
    /// Of a device whose driver has negotiated `features`.
    pub(super) fn new(engine: Arc<Engine>, features: u64) -> Self {
        Self {
            engine,
            features: features & FEATURES,
            state: State::Closed,
            usable: true,
        }
    }

    /// Whether it may be handed the queues.
    pub(super) fn is_usable(&self) -> bool {
        self.usable && !self.is_serving()
    }

    pub(super) fn is_serving(&self) -> bool {
        matches!(self.state, State::Serving(_))
    }

    /// What is signalled for the queue that receives and that which transmits, and when one is broken.
    pub(super) fn events(&self) -> [&Event; 3] {
        let [receive, transmit] = &self.engine.interrupts;
        [receive, transmit, &self.engine.error]
    }

    /// Makes it this process', if it is not.
    fn open(&mut self) -> io::Result<()> {
        if !matches!(self.state, State::Closed) {
            return Ok(());
        }
        // Each time the kernel makes a thread, which nobody's limits count before Linux 6.4.
        charge(&mut lock(&self.engine.openings)).ok_or(io::ErrorKind::ResourceBusy)?;
        // Of the last time; nothing signals them now.
        for event in self.events() {
            event.take();
        }
        self.make(Call::SetOwner)?;
        self.state = State::Open;
        self.make(Call::SetFeatures(self.features))
    }

    /// Hands the queues over, receiving and transmitting, which go on by `port`, a queue of a tap. No chain
    /// of them is out.
    ///
    /// # Errors
    /// The kernel refuses, and has neither; if it had one, they are as from [`take_back`](Self::take_back).
    pub(super) fn serve(
        &mut self,
        queues: [&RunningQueue; 2],
        port: BorrowedFd<'_>,
    ) -> Result<(), Option<Left>> {
        if let Err(error) = self.open() {
            self.refuse(&error);
            return Err(None);
        }
        let [first, _] = queues;
        let told = Arc::new(Told {
            calls: Arc::clone(&self.engine.calls),
            ram: first.queue.ram().clone(),
            serving: Mutex::new(true),
        });
        // In this order: what changes in between is told at least once. And each time anew: it is the memory
        // that there is now. A kernel that has none yet has no ring to give back.
        told.ram.follow(&(Arc::clone(&told) as _));
        if let Err(error) = told.follow() {
            self.refuse(&error);
            return Err(None);
        }
        self.state = State::Serving(told);
        self.try_serve(queues, port).map_err(|error| {
            self.refuse(&error);
            Some(self.take_back())
        })
    }

    fn try_serve(&self, queues: [&RunningQueue; 2], port: BorrowedFd<'_>) -> io::Result<()> {
        let rings = || RINGS.into_iter().zip(queues).zip(&self.engine.interrupts);
        for ((ring, running), interrupt) in rings() {
            let queue = &running.queue;
            self.make(Call::SetSize(ring, queue.size()))?;
            self.make(Call::SetBase(ring, queue.progress().next_available))?;
            self.make(Call::SetAddresses(ring, queue))?;
            self.make(Call::SetInterrupt(ring, interrupt))?;
            self.make(Call::SetError(ring, &self.engine.error))?;
            self.make(Call::SetKick(ring, &running.kick))?;
        }
        for ((ring, running), _) in rings() {
            self.make(Call::SetPort(ring, Some(port)))?;
            // What its driver has notified of before.
            running.kick.signal();
        }
        Ok(())
    }

    /// Takes the queues back.
    pub(super) fn take_back(&mut self) -> Left {
        let mut next = [None; 2];
        let State::Serving(told) = &self.state else {
            return next;
        };
        let told = Arc::clone(told);
        // One after the other, and both in any case.
        let stopped = RINGS.map(|ring| self.make(Call::SetPort(ring, None)));
        if let Some(error) = stopped.into_iter().find_map(Result::err) {
            self.let_go(told, &error);
            return next;
        }
        told.over();
        self.state = State::Open;
        for (next, ring) in next.iter_mut().zip(RINGS) {
            let told = self.engine.calls.make(&Call::Base(ring));
            *next = told.ok().and_then(|told| u16::try_from(told).ok());
        }
        next
    }

    /// Makes it nobody's, with the queues taken back before.
    pub(super) fn close(&mut self) {
        self.take_back();
        if matches!(self.state, State::Open) {
            if let Err(error) = self.make(Call::ResetOwner) {
                // It serves nothing; only nobody can use it again.
                tracing::warn!(%error, "vhost-net stays this process'");
            }
            self.state = State::Closed;
        }
    }

    /// A ring was not as it must be, and is no longer served: nor is the other.
    pub(super) fn fault(&mut self) {
        self.usable = false;
    }

    /// The last means to have the kernel let go of queues.
    fn let_go(&mut self, told: Arc<Told>, error: &io::Error) {
        tracing::warn!(%error, "vhost-net does not give queues back");
        self.usable = false;
        match self.make(Call::ResetOwner) {
            Ok(()) => told.over(),
            Err(error) => {
                tracing::error!(%error, "vhost-net keeps queues: the device stays out of service");
                *lock(&self.engine.stuck) = Some(told);
            }
        }
        self.state = State::Closed;
    }

    fn refuse(&mut self, error: &io::Error) {
        self.usable = false;
        // A driver can bring it about as often as it likes.
        if self.engine.refused.swap(true, Ordering::Relaxed) {
            tracing::debug!(%error, "the kernel does not serve a network device");
        } else {
            tracing::warn!(%error, "the kernel does not serve a network device: the worker does");
        }
    }

    fn make(&self, call: Call<'_>) -> io::Result<()> {
        self.engine.calls.make(&call).map(drop)
    }

    pub(super) fn is_stuck(&self) -> bool {
        self.engine.is_stuck()
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.close();
    }
}
