//! Virtio devices whose queues another process serves: the front end of the vhost-user protocol
//! (QEMU's `docs/interop/vhost-user.rst`).
//!
//! ```text
//!             vCPU threads         device thread                     back end, another process
//!  driver ──► front of the ──────► BackEndWorker ── socket: rings, memory, features ──► serves the
//!     │       device (fs.rs)       ▲       │                                              queues
//!     ├── notifications: the queues' own events, bound to their doorbells ─────────────►    │
//!     └── those without a doorbell: the relay ──►   └── the queues' events ────────────►    │
//!                                  └── interrupts: MSI-X ◄── an event for each queue ◄──────┘
//! ```
//!
//! A notification reaches the back end without a turn of ours: its events are those that the doorbells
//! signal. Where there is no doorbell, and when a device goes on, it takes one: the back end has those events
//! too, and could have whoever writes to them wait, which costs it this device's thread and nobody else's. An
//! interrupt takes one: the device thread reads the event and tells [`super::Interrupts`].
//! An irqfd would save that turn, and would have to be taken off and put on whenever the driver masks or
//! moves a vector, with the pending bit asked for at each; this way the transport does for a back end
//! what it does for every device.
//!
//! The back end is not trusted to keep the protocol: what it says is one word of a fixed size, waited for
//! with a deadline and checked, and descriptors that it sends are never received. It shares the guest's
//! memory, so that it is trusted with the guest. One that dies, hangs or breaks the protocol costs the
//! guest this device: it asks to be reset, and cannot be started again.

mod channel;
mod memory;
mod message;
#[cfg(test)]
pub(super) mod script;
#[cfg(test)]
mod tests;
mod words;
mod worker;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use self::channel::Channel;
use self::message::{F_PROTOCOL_FEATURES, PROTOCOL_F_MQ, Request};
use self::words::Words;
use self::worker::BackEndWorker;
pub(crate) use self::worker::OwnQueue;
use super::{F_EVENT_IDX, F_INDIRECT_DESC, F_VERSION_1, QueueWorker, Start, StartError};
use crate::event::Event;
use crate::shared::{Shared, lock, share};

pub use self::memory::{NotShared, SharedMemory};

/// What every back end must offer.
const NEEDED: [(u64, &str); 2] = [
    (F_VERSION_1, "VIRTIO_F_VERSION_1"),
    (F_PROTOCOL_FEATURES, "VHOST_USER_F_PROTOCOL_FEATURES"),
];

/// Why a back end is given up. Its process is to be ended: it may still reach the guest's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BackEndError {
    /// It has closed its socket.
    #[error("its back end is gone")]
    Gone,
    /// It has not answered in time.
    #[error("its back end does not answer")]
    Silent,
    /// It does not read what it is sent.
    #[error("its back end takes no more messages")]
    Full,
    /// It says what it may not.
    #[error("its back end breaks the protocol: {0}")]
    Protocol(&'static str),
    /// It cannot do what every device here does.
    #[error("its back end does not offer {0}")]
    Lacks(&'static str),
    /// The host refused.
    #[error("its back end cannot be reached: {0}")]
    Host(#[from] Errno),
}

/// A back end that has introduced itself, and serves no queue.
#[derive(Debug)]
struct FrontEnd {
    channel: Channel,
    features: u64,
    memory: SharedMemory,
    words: Option<Words>,
    /// By which it interrupts, one for each queue of the device. Made here, since the thread that starts a
    /// device makes no descriptor.
    calls: Vec<Arc<Event>>,
    /// Signalled in place of the queues' own events, which the back end has.
    relay: Arc<Event>,
}

/// Where the front end is.
#[derive(Debug)]
enum Place {
    /// Here, while no worker runs.
    Here(Box<FrontEnd>),
    /// With the worker.
    Serving,
    /// Nowhere: it was given up.
    GivenUp(BackEndError),
}

/// A vhost-user back end, as the front half of a device holds it, whatever the device is.
///
/// Dropping it closes the socket, after which a back end ends.
#[derive(Debug)]
pub struct VhostUser {
    place: Shared<Place>,
    features: u64,
}

impl VhostUser {
    /// Begins with the back end at the other end of `socket`, a connected stream, which has until
    /// `patience` from now to introduce itself. It is given `memory` when a driver starts the device, which
    /// has so many `queues`. `words` is the reading end of a pipe that it writes messages for people to; they
    /// are logged.
    ///
    /// # Errors
    /// [`BackEndError`]: it does not answer, or lacks what is needed.
    pub fn connect(
        socket: OwnedFd,
        memory: SharedMemory,
        queues: usize,
        words: Option<OwnedFd>,
        patience: Duration,
    ) -> Result<Self, BackEndError> {
        let mut words = words.map(Words::new).transpose()?;
        let mut channel = Channel::new(socket);
        let introduced = introduce(&mut channel, queues, Instant::now() + patience);
        if let (Err(_), Some(words)) = (&introduced, &mut words) {
            words.log_all();
        }
        let features = introduced?;
        let calls = (0..queues).map(|_| Event::new().map(Arc::new));
        let calls = calls.collect::<Result<_, _>>()?;
        let relay = Arc::new(Event::new()?);
        let front = FrontEnd {
            channel,
            features,
            memory,
            words,
            calls,
            relay,
        };
        Ok(Self {
            features,
            place: share(Place::Here(Box::new(front))),
        })
    }

    /// The features it offers, those of rings and of the protocol among them: a device offers its driver
    /// those of its own kind.
    #[must_use]
    pub fn features(&self) -> u64 {
        self.features
    }

    /// What of the transport's features it understands.
    #[must_use]
    pub fn ring_features(&self) -> u64 {
        self.features & (F_INDIRECT_DESC | F_EVENT_IDX)
    }

    /// Makes the worker of a device that its driver starts. The back end serves every queue that is
    /// there. `device` names it in messages.
    ///
    /// # Errors
    /// The back end was given up, or there are more queues than it was told of.
    pub fn start(
        &self,
        device: &'static str,
        start: Start,
    ) -> Result<Vec<Box<dyn QueueWorker>>, StartError> {
        self.start_with(device, start, None)
    }

    /// As [`start`](Self::start), with queues that this process serves itself.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn start_with(
        &self,
        device: &'static str,
        start: Start,
        own: Option<Box<dyn OwnQueue>>,
    ) -> Result<Vec<Box<dyn QueueWorker>>, StartError> {
        let mut place = lock(&self.place);
        let front = match std::mem::replace(&mut *place, Place::Serving) {
            Place::Here(front) => front,
            other => {
                let why = match &other {
                    Place::GivenUp(error) => error.to_string(),
                    _ => "it is running".to_owned(),
                };
                *place = other;
                return Err(StartError::Host(why));
            }
        };
        match BackEndWorker::new(device, front, Arc::clone(&self.place), start, own) {
            Ok(worker) => Ok(vec![Box::new(worker)]),
            Err((front, index)) => {
                *place = Place::Here(front);
                Err(StartError::MissingQueue(index))
            }
        }
    }
}

/// Takes the session, and agrees on no more than is needed for so many queues. Gives the features of the back
/// end.
fn introduce(channel: &mut Channel, queues: usize, deadline: Instant) -> Result<u64, BackEndError> {
    channel.send(Request::SetOwner, &[], &[])?;
    let features = channel.ask(Request::GetFeatures, deadline)?;
    for (bit, name) in NEEDED {
        if features & bit == 0 {
            return Err(BackEndError::Lacks(name));
        }
    }
    let protocol = channel.ask(Request::GetProtocolFeatures, deadline)?;
    // Two are what the protocol had before there was this feature.
    let wanted = if queues > 2 { PROTOCOL_F_MQ } else { 0 };
    if protocol & wanted != wanted {
        return Err(BackEndError::Lacks("VHOST_USER_PROTOCOL_F_MQ"));
    }
    // No other is needed: each would be one more thing for a back end to do wrong.
    channel.send(Request::SetProtocolFeatures, &wanted.to_le_bytes(), &[])?;
    if queues > 2 {
        let most = channel.ask(Request::GetQueueNum, deadline)?;
        // Some say how many pairs, and say so of rings: a device of theirs needs half of what is asked.
        if most < u64::try_from(queues / 2).unwrap_or(u64::MAX) {
            return Err(BackEndError::Lacks("so many queues"));
        }
    }
    Ok(features)
}
