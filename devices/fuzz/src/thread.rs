//! A device thread that is driven step by step, as the worker process runs one.

use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use reeve_devices::reactor::{Reactor, Ready};
use reeve_devices::shared::lock;
use reeve_devices::virtio::{Executor, Progress, QueueWorker, Remains, Stopped};

/// More events than any amount of work takes that an input can ask for: a worker that is told of more
/// spins.
const SPIN: usize = 200_000;

enum Command {
    Run(Box<dyn QueueWorker>),
    Stop(Stopped),
    Discard(Remains),
}

struct State {
    reactor: Reactor,
    workers: Vec<Box<dyn QueueWorker>>,
    commands: Vec<Command>,
}

/// The thread of one device. Orders are carried out by [`run`](Thread::run), later than they are given.
pub struct Thread {
    state: Mutex<State>,
    /// Orders are carried out when they are given: the device stops at once.
    eager: bool,
}

impl fmt::Debug for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Thread").finish_non_exhaustive()
    }
}

impl Thread {
    /// One without workers.
    pub fn new(eager: bool) -> Self {
        let state = State {
            reactor: Reactor::new().expect("an epoll instance"),
            workers: Vec::new(),
            commands: Vec::new(),
        };
        Self {
            state: Mutex::new(state),
            eager,
        }
    }

    /// Carries out what was ordered, and lets the workers work until they wait, which they must come
    /// to. What is due by time happens once.
    pub fn run(&self) {
        let state = &mut *lock(&self.state);
        state.obey();
        state.serve();
        state.tick();
        state.serve();
    }

    /// Whether workers run, or will.
    pub fn is_idle(&self) -> bool {
        let state = lock(&self.state);
        state.workers.is_empty() && state.commands.is_empty()
    }
}

impl State {
    fn obey(&mut self) {
        for command in std::mem::take(&mut self.commands) {
            match command {
                Command::Run(mut worker) => {
                    let slot = u32::try_from(self.workers.len()).expect("few workers");
                    worker.start(&self.reactor.sources(slot));
                    self.workers.push(worker);
                }
                Command::Stop(done) => done(self.stop()),
                Command::Discard(remains) => drop(remains),
            }
        }
    }

    fn serve(&mut self) {
        let mut ready: Vec<Ready> = Vec::new();
        let mut events = 0;
        loop {
            self.reactor
                .wait(Some(Duration::ZERO), &mut ready)
                .expect("a wait");
            if ready.is_empty() {
                return;
            }
            for event in ready.drain(..) {
                events += 1;
                let worker = &mut self.workers[event.slot as usize];
                let sources = self.reactor.sources(event.slot);
                worker.ready(event.token, event.hung_up, &sources);
            }
            assert!(events < SPIN, "a worker spins");
        }
    }

    fn tick(&mut self) {
        for (slot, worker) in (0..).zip(&mut self.workers) {
            if worker.next_event().is_some_and(|due| due <= Instant::now()) {
                worker.tick(&self.reactor.sources(slot));
            }
        }
    }

    fn stop(&mut self) -> Progress {
        let mut progress = Progress::new();
        for (slot, worker) in (0..).zip(std::mem::take(&mut self.workers)) {
            progress.extend(worker.stop(&self.reactor.sources(slot)));
        }
        let mut ready = Vec::new();
        self.reactor
            .wait(Some(Duration::ZERO), &mut ready)
            .expect("a wait");
        assert_eq!(ready, [], "a stopped worker's descriptors are told of");
        progress
    }
}

impl Executor for Thread {
    fn run(&self, workers: Vec<Box<dyn QueueWorker>>) {
        let state = &mut *lock(&self.state);
        state.commands.extend(workers.into_iter().map(Command::Run));
    }

    fn stop(&self, done: Stopped) {
        let state = &mut *lock(&self.state);
        state.commands.push(Command::Stop(done));
        if self.eager {
            state.obey();
        }
    }

    fn discard(&self, remains: Remains) {
        let state = &mut *lock(&self.state);
        state.commands.push(Command::Discard(remains));
    }
}
