//! A device thread that a test drives step by step.

use std::time::{Duration, Instant};

use super::{Progress, QueueWorker};
use crate::reactor::{Reactor, Ready};

/// A worker and what it waits for.
pub(crate) struct Rig {
    reactor: Reactor,
    worker: Option<Box<dyn QueueWorker>>,
}

/// More turns than any exchange of a test takes: a worker that needs more spins.
const SPIN: usize = 10_000;

impl Rig {
    /// Starts it.
    pub(crate) fn new(mut worker: Box<dyn QueueWorker>) -> Self {
        let reactor = Reactor::new().expect("an epoll instance");
        worker.start(&reactor.sources(0));
        Self {
            reactor,
            worker: Some(worker),
        }
    }

    /// Lets it work until it waits, which it must come to; gives how many events it was told of.
    pub(crate) fn run(&mut self) -> usize {
        let mut events = 0;
        loop {
            let told = self.step(Duration::ZERO);
            events += told;
            if told == 0 {
                return events;
            }
            assert!(events < SPIN, "the worker spins");
        }
    }

    /// Lets it work until `done`, its ticks too, for at most some seconds.
    pub(crate) fn run_until(&mut self, mut done: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            self.run();
            if done() {
                return;
            }
            assert!(Instant::now() < deadline, "it does not happen");
            let due = self.next_event();
            if due.is_some_and(|due| due <= Instant::now()) {
                self.tick();
            } else {
                self.step(Duration::from_millis(1));
            }
        }
    }

    fn step(&mut self, timeout: Duration) -> usize {
        let mut ready: Vec<Ready> = Vec::new();
        self.reactor
            .wait(Some(timeout), &mut ready)
            .expect("a wait");
        let worker = self.worker.as_mut().expect("running");
        for event in &ready {
            worker.ready(event.token, event.hung_up, &self.reactor.sources(0));
        }
        ready.len()
    }

    /// When its tick is due.
    pub(crate) fn next_event(&self) -> Option<Instant> {
        self.worker.as_ref().expect("running").next_event()
    }

    /// Ticks.
    pub(crate) fn tick(&mut self) {
        let worker = self.worker.as_mut().expect("running");
        worker.tick(&self.reactor.sources(0));
    }

    /// Stops it; afterwards nothing of it is waited for.
    pub(crate) fn stop(&mut self) -> Progress {
        let worker = self.worker.take().expect("running");
        let progress = worker.stop(&self.reactor.sources(0));
        let mut ready = Vec::new();
        self.reactor
            .wait(Some(Duration::ZERO), &mut ready)
            .expect("a wait");
        assert_eq!(ready, [], "a stopped worker's descriptors are told of");
        progress
    }
}
