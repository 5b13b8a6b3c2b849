//! The back half of a device that another process serves: sets the rings up there, carries its
//! interrupts, notices its end, and takes the rings back.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::message::{F_PROTOCOL_FEATURES, Request, vring_addr};
use super::words::Turn;
use super::{BackEndError, FrontEnd, Place};
use crate::event::Event;
use crate::reactor::{Interest, Sources};
use crate::shared::{Shared, lock};
use crate::virtio::queue::QueueProgress;
use crate::virtio::vhost::{take_vring_state, vring_state};
use crate::virtio::{Interrupts, Progress, QueueWorker, RunningQueue, Start};

/// The back end's socket; queues have their places in the list.
const SOCKET: u32 = u32::MAX;
/// What it has to say to people.
const WORDS: u32 = u32::MAX - 1;
/// The device's own queue.
const OWN: u32 = u32::MAX - 2;
/// Notifications that no doorbell brings.
const RELAY: u32 = u32::MAX - 3;
/// How long a back end may take to finish what it has begun, all its queues together. Less than a device
/// may take to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(3);

/// What of a device this process serves beside its back end: a queue at most, and those that nobody does.
pub(crate) trait OwnQueue: std::fmt::Debug + Send {
    /// Signalled when its driver notifies.
    fn kick(&self) -> Option<&Event>;

    /// How many of the back end's queues, the first ones, are served to begin with.
    fn served_at_first(&self) -> u16;

    /// Serves what waits; gives how many of the back end's queues are to be served from now on, if that was
    /// asked for.
    fn turn(&mut self) -> Option<u16>;

    /// Gives the numbers and progress of its queues back.
    fn stop(self: Box<Self>) -> Vec<(u16, QueueProgress)>;
}

/// A queue that the back end serves.
#[derive(Debug)]
struct Served {
    queue: RunningQueue,
    /// Signalled by the back end when it has given something back.
    call: Arc<Event>,
}

#[derive(Debug)]
pub(super) struct BackEndWorker {
    device: &'static str,
    /// What is driven, until it is given up.
    front: Result<Box<FrontEnd>, BackEndError>,
    /// Where it goes when the worker ends.
    place: Shared<Place>,
    features: u64,
    queues: Vec<Served>,
    /// The front end's.
    relay: Arc<Event>,
    interrupts: Arc<dyn Interrupts>,
    own: Option<Box<dyn OwnQueue>>,
    /// How many of the queues are served.
    enabled: u16,
}

impl BackEndWorker {
    /// A worker for the queues of `start`; where there are too many, `front` comes back with the number of
    /// one.
    pub(super) fn new(
        device: &'static str,
        front: Box<FrontEnd>,
        place: Shared<Place>,
        start: Start,
        own: Option<Box<dyn OwnQueue>>,
    ) -> Result<Self, (Box<FrontEnd>, u16)> {
        let queues = start.queues.into_iter().flatten();
        let served = queues.map(|queue| {
            let call = front.calls.get(usize::from(queue.index));
            let call = Arc::clone(call.ok_or(queue.index)?);
            // Now, while nobody can signal: whoever starts a device has its registers.
            queue.kick.share(&front.relay);
            Ok(Served { queue, call })
        });
        match served.collect::<Result<Vec<_>, u16>>() {
            Ok(queues) => Ok(Self {
                device,
                // What is not the device's own the back end has as well: it was made sure of.
                features: start.features & front.features | F_PROTOCOL_FEATURES,
                relay: Arc::clone(&front.relay),
                front: Ok(front),
                place,
                queues,
                interrupts: start.interrupts,
                enabled: own.as_ref().map_or(u16::MAX, |own| own.served_at_first()),
                own,
            }),
            Err(index) => Err((front, index)),
        }
    }

    /// Hands memory and rings over. Waits for nothing: no message of these has an answer.
    fn hand_over(&self) -> Result<(), BackEndError> {
        let front = self.front.as_ref().map_err(|error| *error)?;
        let channel = &front.channel;
        channel.send(Request::SetFeatures, &self.features.to_le_bytes(), &[])?;
        let (table, files) = (front.memory.table(), front.memory.files());
        channel.send(Request::SetMemTable, &table, &files)?;
        for Served { queue, call } in &self.queues {
            let (index, layout) = (queue.index, queue.queue.layout());
            let number = u64::from(index).to_le_bytes();
            let state = |value: u16| vring_state(index, value.into());
            let base = queue.queue.progress().next_available;
            channel.send(Request::SetVringNum, &state(layout.size), &[])?;
            channel.send(Request::SetVringBase, &state(base), &[])?;
            channel.send(Request::SetVringAddr, &vring_addr(index, layout), &[])?;
            channel.send(Request::SetVringCall, &number, &[call.as_fd()])?;
            channel.send(Request::SetVringKick, &number, &[queue.kick.as_fd()])?;
            let enabled = u16::from(index < self.enabled);
            channel.send(Request::SetVringEnable, &state(enabled), &[])?;
        }
        Ok(())
    }

    /// Has the back end serve the first `enabled` of its queues and no other.
    fn enable(&mut self, enabled: u16) -> Result<(), BackEndError> {
        let before = std::mem::replace(&mut self.enabled, enabled);
        let front = self.front.as_ref().map_err(|error| *error)?;
        for Served { queue, .. } in &self.queues {
            let now = queue.index < enabled;
            if now != (queue.index < before) {
                let state = vring_state(queue.index, now.into());
                front.channel.send(Request::SetVringEnable, &state, &[])?;
            }
        }
        Ok(())
    }

    /// Waits for the back end's end and its interrupts.
    fn listen(&mut self, sources: &Sources<'_>) -> Result<(), BackEndError> {
        for (token, served) in (0..).zip(&self.queues) {
            // It is never read: the back end has it too, and could have a read of it wait for ever.
            sources.add(&*served.call, token, Interest::Arrival)?;
        }
        sources.add(&*self.relay, RELAY, Interest::Read)?;
        if let Some(kick) = self.own.as_ref().and_then(|own| own.kick()) {
            sources.add(kick, OWN, Interest::Read)?;
        }
        let front = self.front.as_ref().map_err(|error| *error)?;
        // It is never asked anything while it serves, so that what it says is not even read.
        sources.add(&front.channel, SOCKET, Interest::Hangup)?;
        if let Some(words) = &front.words {
            sources.add(words, WORDS, Interest::Read)?;
        }
        Ok(())
    }

    /// Gives the back end up: its socket and its pipe are closed, upon which whoever made it ends it.
    fn give_up(&mut self, error: BackEndError) {
        if let Ok(front) = &mut self.front {
            if let Some(words) = &mut front.words {
                words.log_all();
            }
            tracing::error!(
                device = self.device,
                "{error}: the device stays out of service"
            );
            self.front = Err(error);
            self.interrupts.needs_reset();
        }
    }

    /// Takes a queue back; gives the next available entry.
    fn take_back(&mut self, index: u16, deadline: Instant) -> Result<u16, BackEndError> {
        let front = self.front.as_mut().map_err(|error| *error)?;
        let state = vring_state(index, 0);
        let answer = front
            .channel
            .ask_with(Request::GetVringBase, &state, deadline)?;
        let (number, base) = take_vring_state(answer);
        if number != u64::from(index) {
            return Err(BackEndError::Protocol("it stops another queue"));
        }
        u16::try_from(base).map_err(|_| BackEndError::Protocol("a queue has no such entry"))
    }

    /// Where a queue is whose back end says that `base` comes next; without its word, behind what it has
    /// given back.
    fn progress_of(&self, place: usize, base: Option<u16>) -> Option<(u16, QueueProgress)> {
        let queue = &self.queues.get(place)?.queue;
        Some((queue.index, queue.queue.progress_of_other(base)))
    }
}

impl QueueWorker for BackEndWorker {
    fn start(&mut self, sources: &Sources<'_>) {
        let begun = self.listen(sources).and_then(|()| self.hand_over());
        if let Err(error) = begun {
            self.give_up(error);
        }
    }

    fn ready(&mut self, token: u32, hung_up: bool, sources: &Sources<'_>) {
        match token {
            SOCKET if hung_up => self.give_up(BackEndError::Gone),
            WORDS => {
                let Ok(front) = &mut self.front else { return };
                let ended = front.words.take_if(|words| words.turn() == Turn::End);
                if let Some(words) = ended {
                    let _ = sources.remove(&words);
                }
            }
            RELAY => {
                self.relay.take();
                // Which of them it was is not known. One that is notified for nothing looks, and finds nothing.
                for Served { queue, .. } in self.queues.iter().filter(|_| self.front.is_ok()) {
                    queue.kick.pass_on();
                }
            }
            OWN => {
                let wanted = self.own.as_mut().and_then(|own| own.turn());
                // A driver that asks of a back end that is gone has been told to reset.
                if let Some(Err(error)) = wanted.map(|queues| self.enable(queues)) {
                    self.give_up(error);
                }
            }
            _ => {
                let place = usize::try_from(token).unwrap_or(usize::MAX);
                if let Some(served) = self.queues.get(place) {
                    self.interrupts.queue(served.queue.index);
                }
            }
        }
    }

    fn stop(mut self: Box<Self>, sources: &Sources<'_>) -> Progress {
        let deadline = Instant::now() + STOP_PATIENCE;
        let mut progress = Progress::new();
        for place in 0..self.queues.len() {
            let index = self
                .queues
                .get(place)
                .map_or(0, |served| served.queue.index);
            let base = match self.take_back(index, deadline) {
                Ok(base) => Some(base),
                Err(error) => {
                    self.give_up(error);
                    None
                }
            };
            progress.extend(self.progress_of(place, base));
        }
        let _ = sources.remove(&*self.relay);
        if let Some(own) = self.own.take() {
            if let Some(kick) = own.kick() {
                let _ = sources.remove(kick);
            }
            progress.extend(own.stop());
        }
        for Served { queue, call } in &self.queues {
            let _ = sources.remove(&**call);
            // For what it gave back last, if it did.
            self.interrupts.queue(queue.index);
        }
        let place = Arc::clone(&self.place);
        *lock(&place) = match self.front {
            Ok(front) => {
                let _ = sources.remove(&front.channel);
                if let Some(words) = &front.words {
                    let _ = sources.remove(words);
                }
                Place::Here(front)
            }
            Err(error) => Place::GivenUp(error),
        };
        progress
    }
}
