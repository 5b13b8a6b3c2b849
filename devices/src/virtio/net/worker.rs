//! The worker of one pair of queues. The first pair's worker also has the control queue, sets up the
//! host's side when the device starts, and keeps the queues that are not served.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use super::control::ControlQueue;
use super::link::{Link, attach};
use super::rx::Receiver;
use super::tap::Port;
use super::tx::Transmitter;
use crate::reactor::{Interest, Sources};
use crate::virtio::{Progress, QueueWorker, RunningQueue};

pub(super) const RX_KICK: u32 = 0;
pub(super) const TX_KICK: u32 = 1;
pub(super) const CONTROL_KICK: u32 = 2;
pub(super) const PORT: u32 = 3;
pub(super) const NUDGE: u32 = 4;

/// What only the first pair's worker has.
#[derive(Debug)]
pub(super) struct Lead {
    /// The control queue, if the driver uses it.
    pub(super) control: Option<ControlQueue>,
    /// Queues without a partner, of which only the progress is of interest.
    pub(super) idle: Vec<RunningQueue>,
}

/// A worker.
#[derive(Debug)]
pub(super) struct PairWorker {
    pair: u16,
    link: Arc<Link>,
    port: Arc<dyn Port>,
    receiver: Receiver,
    transmitter: Transmitter,
    lead: Option<Lead>,
    /// Whether the pair is in use; unknown until the device is open.
    active: Option<bool>,
    /// What the port is waited for, if at all.
    waits: Option<Interest>,
    /// The interface is gone: its descriptor would tell so without end.
    gone: bool,
}

impl PairWorker {
    pub(super) fn new(
        pair: u16,
        link: Arc<Link>,
        port: Arc<dyn Port>,
        receiver: Receiver,
        transmitter: Transmitter,
        lead: Option<Lead>,
    ) -> Self {
        Self {
            pair,
            link,
            port,
            receiver,
            transmitter,
            lead,
            active: None,
            waits: None,
            gone: false,
        }
    }

    /// Follows changes of the pairs in use.
    fn follow(&mut self, sources: &Sources<'_>) {
        let pairs = self.link.active();
        let active = self.pair < pairs;
        if pairs == 0 || self.active == Some(active) {
            return;
        }
        if !active {
            // A detached port is told as gone for as long as it is waited for.
            self.wait_for(None, sources);
        }
        attach(&*self.port, active);
        self.active = Some(active);
    }

    fn receive(&mut self) {
        if !self.gone {
            self.receiver.turn(&*self.port, &self.link);
        }
    }

    fn transmit(&mut self) {
        self.transmitter.turn(&*self.port, &self.link);
    }

    /// Waits for what the two directions want of the port.
    fn rearm(&mut self, sources: &Sources<'_>) {
        if self.active != Some(true) || self.gone {
            return;
        }
        let (read, write) = (self.receiver.wants_port(), self.transmitter.wants_port());
        let wanted = match (read, write) {
            (true, true) => Interest::Both,
            (true, false) => Interest::Read,
            (false, true) => Interest::Write,
            (false, false) => Interest::Hangup,
        };
        self.wait_for(Some(wanted), sources);
    }

    fn wait_for(&mut self, wanted: Option<Interest>, sources: &Sources<'_>) {
        if wanted == self.waits {
            return;
        }
        let port = self.port.as_fd();
        let result = match (self.waits, wanted) {
            (None, Some(interest)) => sources.add(port, PORT, interest),
            (Some(_), Some(interest)) => sources.modify(port, PORT, interest),
            (_, None) => sources.remove(port),
        };
        if let Err(error) = result {
            tracing::warn!(%error, "port of a network device cannot be waited for");
        }
        self.waits = wanted;
    }

    fn lost(&mut self, sources: &Sources<'_>) {
        tracing::warn!(pair = self.pair, "network interface is gone");
        self.wait_for(None, sources);
        self.gone = true;
        // What waited for room is not told of any: it fails now, and its buffers go back.
        self.transmit();
    }

    fn everything(&mut self, sources: &Sources<'_>) {
        self.follow(sources);
        self.receive();
        self.transmit();
        self.rearm(sources);
    }
}

impl QueueWorker for PairWorker {
    fn start(&mut self, sources: &Sources<'_>) {
        let control = self.lead.as_ref().and_then(|lead| lead.control.as_ref());
        let kicks = [
            (&*self.receiver.running().kick, RX_KICK, Interest::Arrival),
            (
                &*self.transmitter.running().kick,
                TX_KICK,
                Interest::Arrival,
            ),
        ];
        let control =
            control.map(|control| (&*control.running().kick, CONTROL_KICK, Interest::Read));
        let nudge = self.link.nudged(self.pair);
        let nudge = nudge.map(|event| (event, NUDGE, Interest::Read));
        for (event, token, interest) in kicks.into_iter().chain(control).chain(nudge) {
            if let Err(error) = sources.add(event, token, interest) {
                tracing::error!(%error, "queue of a network device cannot be waited for");
            }
        }
        if let Some(lead) = self.lead.as_mut() {
            self.link.open();
            if let Some(control) = lead.control.as_mut() {
                control.turn(&self.link);
            }
        }
        self.everything(sources);
    }

    fn ready(&mut self, token: u32, hung_up: bool, sources: &Sources<'_>) {
        match token {
            RX_KICK => {
                self.follow(sources);
                self.receive();
            }
            TX_KICK => {
                self.follow(sources);
                self.transmit();
            }
            CONTROL_KICK => {
                let control = self.lead.as_mut().and_then(|lead| lead.control.as_mut());
                if let Some(control) = control {
                    control.turn(&self.link);
                }
                return;
            }
            // An event from before the port was let go of.
            PORT if self.waits.is_none() => return,
            PORT if hung_up => return self.lost(sources),
            PORT => {
                if self.receiver.wants_port() {
                    self.receive();
                }
                if self.transmitter.wants_port() {
                    self.transmit();
                }
            }
            _ => {
                if let Some(event) = self.link.nudged(self.pair) {
                    event.take();
                }
                return self.everything(sources);
            }
        }
        self.rearm(sources);
    }

    fn next_event(&self) -> Option<Instant> {
        let times = [self.receiver.resume_at(), self.transmitter.resume_at()];
        times.into_iter().flatten().min()
    }

    fn tick(&mut self, sources: &Sources<'_>) {
        let now = Instant::now();
        if self.receiver.resume_at().is_some_and(|at| at <= now) {
            self.receive();
        }
        if self.transmitter.resume_at().is_some_and(|at| at <= now) {
            self.transmit();
        }
        self.rearm(sources);
    }

    fn stop(mut self: Box<Self>, sources: &Sources<'_>) -> Progress {
        self.wait_for(None, sources);
        let control = self.lead.as_ref().and_then(|lead| lead.control.as_ref());
        let events = [
            Some(&*self.receiver.running().kick),
            Some(&*self.transmitter.running().kick),
            control.map(|control| &*control.running().kick),
            self.link.nudged(self.pair),
        ];
        for event in events.into_iter().flatten() {
            // Not there only if it could not be added.
            let _ = sources.remove(event);
        }
        let this = *self;
        let lead = this.lead.map(|lead| {
            let control = lead.control.map(|control| control.stop());
            let idle = lead.idle.into_iter();
            control
                .into_iter()
                .chain(idle.map(|running| (running.index, running.queue.progress())))
        });
        [this.receiver.stop(&this.link), this.transmitter.stop()]
            .into_iter()
            .chain(lead.into_iter().flatten())
            .collect()
    }
}
