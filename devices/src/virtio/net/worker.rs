//! The worker of one pair of queues, which it serves itself or has the kernel serve ([`super::kernel`]). The first pair's worker also has the control queue, sets up the
//! host's side when the device starts, and keeps the queues that are not served.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use super::control::ControlQueue;
use super::kernel::{Kernel, Left};
use super::link::{Link, attach};
use super::rx::Receiver;
use super::tap::Port;
use super::tx::Transmitter;
use crate::event::Event;
use crate::reactor::{Interest, Sources};
use crate::virtio::queue::QueueFault;
use crate::virtio::{Progress, QueueWorker, RunningQueue};

pub(super) const RX_KICK: u32 = 0;
pub(super) const TX_KICK: u32 = 1;
pub(super) const CONTROL_KICK: u32 = 2;
pub(super) const PORT: u32 = 3;
pub(super) const NUDGE: u32 = 4;
/// The kernel has something for the driver that receives, for the driver that transmits, and to say of a
/// broken queue.
pub(super) const KERNEL: [u32; 3] = [5, 6, 7];

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
    /// Has the kernel serve, where the device is one for which it may.
    kernel: Option<Kernel>,
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
        kernel: Option<Kernel>,
    ) -> Self {
        Self {
            pair,
            link,
            port,
            receiver,
            transmitter,
            lead,
            kernel,
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
            self.take_back(sources);
            // A detached port is told as gone for as long as it is waited for.
            self.wait_for(None, sources);
        }
        attach(&*self.port, active);
        self.active = Some(active);
    }

    fn kernel_serves(&self) -> bool {
        self.kernel.as_ref().is_some_and(Kernel::is_serving)
    }

    /// Whether frames pass as the kernel would pass them.
    fn suits_kernel(&self) -> bool {
        let limited = self.link.inbound.is_limited() || self.link.outbound.is_limited();
        self.active == Some(true) && !self.gone && self.link.is_up() && !limited
    }

    /// Has those serve the queues who are to; true if that is the worker now and was not, or was about not to
    /// be.
    fn choose(&mut self, sources: &Sources<'_>) -> bool {
        let suits = self.suits_kernel();
        if self.kernel_serves() {
            if !suits {
                self.take_back(sources);
            }
            return !suits;
        }
        let Some(kernel) = self.kernel.as_mut() else {
            return false;
        };
        let can = self.receiver.can_be_left() && self.transmitter.can_be_left();
        if !suits || !can || !kernel.is_usable() {
            return false;
        }
        let queues = [self.receiver.leave(&self.link), self.transmitter.leave()];
        match kernel.serve(queues, self.port.as_fd()) {
            Ok(()) => {
                for running in queues {
                    // The kernel is told of notifications itself.
                    let _ = sources.remove(&*running.kick);
                }
                return false;
            }
            Err(Some(left)) => self.take_up(left),
            Err(None) => {}
        }
        true
    }

    fn take_up(&mut self, [receive, transmit]: Left) {
        self.receiver.take_up(receive);
        self.transmitter.take_up(transmit);
        if self.kernel.as_ref().is_some_and(Kernel::is_stuck) {
            self.break_off("the kernel does not give the queue back");
        }
    }

    /// Takes the queues back from the kernel, if it has them.
    fn take_back(&mut self, sources: &Sources<'_>) {
        let Some(kernel) = self.kernel.as_mut().filter(|kernel| kernel.is_serving()) else {
            return;
        };
        let left = kernel.take_back();
        self.take_up(left);
        self.wait_for_kicks(sources);
    }

    /// The queues are served no more until the driver has reset the device.
    fn break_off(&mut self, why: &'static str) {
        self.receiver.break_off(QueueFault::Request(why));
        self.transmitter.break_off(QueueFault::Request(why));
    }

    fn wait_for_kicks(&self, sources: &Sources<'_>) {
        for (running, token) in [
            (self.receiver.running(), RX_KICK),
            (self.transmitter.running(), TX_KICK),
        ] {
            // Told of at once for what came before, of which somebody else may have been told alone.
            wait_for_event(sources, &running.kick, token, Interest::Arrival);
        }
    }

    /// What the kernel signals.
    fn hear_kernel(&mut self, token: u32, sources: &Sources<'_>) {
        let [receive, transmit, _] = KERNEL;
        let running = match token {
            _ if token == receive => self.receiver.running(),
            _ if token == transmit => self.transmitter.running(),
            _ => {
                if let Some(kernel) = self.kernel.as_mut().filter(|kernel| kernel.is_serving()) {
                    kernel.fault();
                    self.take_back(sources);
                    self.break_off("the kernel found fault with it");
                }
                return;
            }
        };
        running.interrupts.queue(running.index);
    }

    fn receive(&mut self) {
        if !self.gone && !self.kernel_serves() {
            self.receiver.turn(&*self.port, &self.link);
        }
    }

    fn transmit(&mut self) {
        if !self.kernel_serves() {
            self.transmitter.turn(&*self.port, &self.link);
        }
    }

    /// Waits for what the two directions want of the port, unless it is the kernel's now.
    fn rearm(&mut self, sources: &Sources<'_>) {
        // What kept the kernel from the queues may be over.
        if self.choose(sources) {
            self.receive();
            self.transmit();
        }
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
        self.take_back(sources);
        self.wait_for(None, sources);
        self.gone = true;
        // What waited for room is not told of any: it fails now, and its buffers go back.
        self.transmit();
    }

    fn everything(&mut self, sources: &Sources<'_>) {
        self.follow(sources);
        self.choose(sources);
        self.receive();
        self.transmit();
        self.rearm(sources);
    }
}

fn wait_for_event(sources: &Sources<'_>, event: &Event, token: u32, interest: Interest) {
    if let Err(error) = sources.add(event, token, interest) {
        tracing::error!(%error, "queue of a network device cannot be waited for");
    }
}

impl QueueWorker for PairWorker {
    fn start(&mut self, sources: &Sources<'_>) {
        let control = self.lead.as_ref().and_then(|lead| lead.control.as_ref());
        let control =
            control.map(|control| (&*control.running().kick, CONTROL_KICK, Interest::Read));
        let nudge = self.link.nudged(self.pair);
        let nudge = nudge.map(|event| (event, NUDGE, Interest::Read));
        let kernel = self.kernel.as_ref().map(Kernel::events);
        let kernel = kernel.into_iter().flatten().zip(KERNEL);
        let kernel = kernel.map(|(event, token)| (event, token, Interest::Arrival));
        for (event, token, interest) in control.into_iter().chain(nudge).chain(kernel) {
            wait_for_event(sources, event, token, interest);
        }
        self.wait_for_kicks(sources);
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
            token if KERNEL.contains(&token) => self.hear_kernel(token, sources),
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
        self.take_back(sources);
        if let Some(mut kernel) = self.kernel.take() {
            kernel.close();
            for event in kernel.events() {
                let _ = sources.remove(event);
            }
        }
        self.wait_for(None, sources);
        if let Some(stream) = self.port.stream() {
            stream.settle();
        }
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
