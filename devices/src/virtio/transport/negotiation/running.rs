//! Workers: when they run, how they end, and what is carried out once they have.

use std::sync::Arc;
use std::time::Instant;

use super::super::super::queue::{Queue, RingFeatures};
use super::super::super::{
    F_EVENT_IDX, F_INDIRECT_DESC, FAULTS, Interrupts, Progress, RunningQueue, Start,
};
use super::super::ending::Ending;
use super::{DRIVER_OK, Negotiation, Run, Stopping};
use crate::error::GuestFault;

impl Negotiation {
    pub(super) fn start(&mut self) {
        if self.retired {
            return;
        }
        self.owed = !self.bus_master;
        if self.owed {
            return;
        }
        let ring = RingFeatures {
            indirect: self.driver_features & F_INDIRECT_DESC != 0,
            event_index: self.driver_features & F_EVENT_IDX != 0,
        };
        let interrupts: Arc<dyn Interrupts> = Arc::clone(&self.line) as _;
        let mut queues = Vec::with_capacity(self.queues.len());
        for (index, registers) in (0_u16..).zip(&self.queues) {
            if !registers.enabled {
                queues.push(None);
                continue;
            }
            let queue = Queue::new(
                self.ram.clone(),
                registers.layout,
                registers.max_size,
                ring,
                registers.progress,
            );
            match queue {
                Ok(queue) => queues.push(Some(RunningQueue {
                    queue,
                    index,
                    kick: Arc::clone(&registers.kick),
                    interrupts: Arc::clone(&interrupts),
                })),
                Err(fault) => {
                    let device = self.device.id().name();
                    FAULTS.report(GuestFault::Virtqueue { device, fault });
                    self.line.needs_reset();
                    return;
                }
            }
        }
        let start = Start {
            features: self.driver_features & self.offered(),
            queues,
            interrupts,
        };
        match self.device.start(start) {
            Ok(workers) => {
                self.executor.run(workers);
                self.run = Run::Running;
            }
            Err(error) => {
                // A driver can cause it as often as it likes.
                tracing::debug!(%error, "device not started");
                let device = self.device.id().name();
                FAULTS.report(GuestFault::NotStarted { device });
                self.line.needs_reset();
            }
        }
    }

    fn begin_stop(&mut self, reset: bool) {
        let ending = Arc::new(Ending::default());
        let theirs = Arc::clone(&ending);
        self.run = Run::Stopping { ending, reset };
        self.executor
            .stop(Box::new(move |progress| theirs.finish(progress)));
    }

    pub(super) fn begin_reset(&mut self) {
        match &mut self.run {
            Run::Idle => self.reset_registers(),
            Run::Running => {
                self.begin_stop(true);
                self.settle();
            }
            Run::Stopping { reset, .. } => *reset = true,
        }
    }

    /// Carries out what was to be done when the workers have ended, if they have.
    pub(super) fn settle(&mut self) {
        let Run::Stopping { ending, .. } = &self.run else {
            return;
        };
        if let Some(progress) = ending.take() {
            self.ended(progress);
        }
    }

    fn ended(&mut self, progress: Progress) {
        let reset = matches!(self.run, Run::Stopping { reset: true, .. });
        self.run = Run::Idle;
        for (index, progress) in progress {
            if let Some(queue) = self.queues.get_mut(usize::from(index)) {
                queue.progress = progress;
            }
        }
        self.device.stopped();
        self.discard_remains();
        if reset {
            self.reset_registers();
        }
    }

    /// This may be a vCPU thread, which closes nothing.
    pub(super) fn discard_remains(&mut self) {
        if let Some(remains) = self.device.take_remains() {
            self.executor.discard(remains);
        }
    }

    fn reset_registers(&mut self) {
        self.status = 0;
        self.device_features_select = 0;
        self.driver_features_select = 0;
        self.driver_features = 0;
        self.queue_select = 0;
        self.owed = false;
        for queue in &mut self.queues {
            queue.reset();
        }
        self.line.reset();
        self.device.reset();
        self.discard_remains();
    }

    /// Tells the workers to end, if they run; [`stopping`](Self::stopping) then says how far that is.
    pub fn order_stop(&mut self) {
        self.owed = false;
        if self.is_running() {
            self.begin_stop(false);
        }
    }

    /// As [`order_stop`](Self::order_stop), for good: the device is being taken away, and a driver that
    /// starts it again is not served.
    pub fn retire(&mut self) {
        self.retired = true;
        self.order_stop();
    }

    /// Whether the device may reach memory by itself: bus mastering on PCI, without which it may not
    /// (§7.5.1.1.3 of PCI Express 6.0). It may to begin with, for transports that do not know of it. What its driver
    /// notifies of while it may not is made up for.
    pub fn set_bus_master(&mut self, may: bool) {
        self.bus_master = may;
        if may {
            self.catch_up();
        } else if self.is_running() {
            self.begin_stop(false);
            self.owed = true;
            self.settle();
        }
    }

    /// Starts workers that are owed, if nothing is in the way any more. True if they have begun to run:
    /// notifications are to be bound.
    pub fn catch_up(&mut self) -> bool {
        if !self.owed || !self.bus_master {
            return false;
        }
        self.settle();
        self.go_on()
    }

    /// The stop that is under way; `None` if no worker runs that was told to end.
    pub fn stopping(&mut self) -> Option<Stopping> {
        self.settle();
        match &self.run {
            Run::Stopping { ending, .. } => Some(Stopping(Arc::clone(ending))),
            Run::Idle | Run::Running => None,
        }
    }

    /// Stops the workers, if they run, and waits until they have ended; false when `deadline` passes
    /// first. What was negotiated stays, for [`resume`](Self::resume) and by its saved state. Where vCPUs
    /// run, who holds the registers' lock waits for [`stopping`](Self::stopping) without it instead.
    #[must_use]
    pub fn stop(&mut self, deadline: Instant) -> bool {
        self.order_stop();
        let stopped = self.stopping().is_none_or(|stop| stop.wait(deadline));
        self.settle();
        stopped
    }

    /// Serves the queues again from where they were, if the driver had the device running. Notifications
    /// that came meanwhile are made up for.
    pub fn resume(&mut self) {
        self.settle();
        self.go_on();
    }

    /// As [`resume`](Self::resume), once what was to end has ended; true if workers have begun to run.
    fn go_on(&mut self) -> bool {
        if !matches!(self.run, Run::Idle) || self.status & DRIVER_OK == 0 || self.line.wants_reset()
        {
            return false;
        }
        self.start();
        if self.is_running() {
            for queue in self.queues.iter().filter(|queue| queue.enabled) {
                queue.kick.signal();
            }
        }
        self.is_running()
    }

    /// To the state after power-on. The workers are stopped first; false if they do not end until
    /// `deadline`.
    #[must_use]
    pub fn power_on(&mut self, deadline: Instant) -> bool {
        let stopped = self.stop(deadline);
        if stopped {
            self.reset_registers();
        }
        stopped
    }
}
