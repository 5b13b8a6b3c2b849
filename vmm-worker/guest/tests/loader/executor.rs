//! What runs the workers of a virtio device: a thread for each device, with a reactor.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use reeve_devices::event::Event;
use reeve_devices::reactor::{Interest, Reactor};
use reeve_devices::virtio::{Executor, Progress, QueueWorker, Remains, Stopped};

/// The thread's own slot of its reactor; workers have those from 1.
const OWN_SLOT: u32 = 0;

enum Command {
    Run(Vec<Box<dyn QueueWorker>>),
    Stop(Stopped),
    Discard(Remains),
    Quit,
}

struct Mailbox {
    commands: Mutex<Vec<Command>>,
    wake: Event,
}

impl Mailbox {
    fn send(&self, command: Command) {
        self.commands
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(command);
        self.wake.signal();
    }

    fn take(&self) -> Vec<Command> {
        self.wake.take();
        let mut commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut commands)
    }
}

/// One device's thread. Ends when it is dropped.
pub struct DeviceThread {
    mailbox: Arc<Mailbox>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for DeviceThread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeviceThread").finish_non_exhaustive()
    }
}

impl DeviceThread {
    /// `outlives_resets`: says that its workers have ended while they go on, as no executor may. For
    /// tests of whether that is noticed.
    pub fn start(outlives_resets: bool) -> Self {
        let mailbox = Arc::new(Mailbox {
            commands: Mutex::default(),
            wake: Event::new().expect("a descriptor is free"),
        });
        let theirs = Arc::clone(&mailbox);
        let thread = std::thread::spawn(move || serve(&theirs, outlives_resets));
        Self {
            mailbox,
            thread: Some(thread),
        }
    }
}

impl Drop for DeviceThread {
    fn drop(&mut self) {
        self.mailbox.send(Command::Quit);
        if let Some(thread) = self.thread.take() {
            let result = thread.join();
            // A panic of a device is what the attacks look for.
            if !std::thread::panicking() {
                result.expect("no device panicked");
            }
        }
    }
}

impl Executor for DeviceThread {
    fn run(&self, workers: Vec<Box<dyn QueueWorker>>) {
        self.mailbox.send(Command::Run(workers));
    }

    fn stop(&self, done: Stopped) {
        self.mailbox.send(Command::Stop(done));
    }

    fn discard(&self, remains: Remains) {
        self.mailbox.send(Command::Discard(remains));
    }
}

fn serve(mailbox: &Mailbox, outlives_resets: bool) {
    let reactor = Reactor::new().expect("a descriptor is free");
    reactor
        .sources(OWN_SLOT)
        .add(&mailbox.wake, 0, Interest::Read)
        .expect("the event can be waited for");
    let mut workers: Vec<Box<dyn QueueWorker>> = Vec::new();
    let mut ready = Vec::new();
    loop {
        let next = workers.iter().filter_map(|worker| worker.next_event());
        let timeout = next
            .min()
            .map(|next| next.saturating_duration_since(Instant::now()));
        reactor.wait(timeout, &mut ready).expect("it can wait");
        let mut ordered = false;
        for event in ready.drain(..) {
            if event.slot == OWN_SLOT {
                ordered = true;
                continue;
            }
            let sources = reactor.sources(event.slot);
            if let Some(worker) = workers.get_mut(event.slot as usize - 1) {
                worker.ready(event.token, event.hung_up, &sources);
            }
        }
        for (slot, worker) in (1..).zip(&mut workers) {
            if worker.next_event().is_some_and(|due| due <= Instant::now()) {
                worker.tick(&reactor.sources(slot));
            }
        }
        // Last, so that no event of this wait can mean a worker that came after it.
        if !ordered {
            continue;
        }
        for command in mailbox.take() {
            match command {
                Command::Run(new) => {
                    for (slot, worker) in (1..).zip(workers.drain(..)) {
                        worker.stop(&reactor.sources(slot));
                    }
                    workers = new;
                    for (slot, worker) in (1..).zip(&mut workers) {
                        worker.start(&reactor.sources(slot));
                    }
                }
                Command::Stop(done) if outlives_resets => done(Progress::new()),
                Command::Stop(done) => {
                    let mut progress = Progress::new();
                    for (slot, worker) in (1..).zip(workers.drain(..)) {
                        progress.extend(worker.stop(&reactor.sources(slot)));
                    }
                    done(progress);
                }
                Command::Discard(remains) => drop(remains),
                Command::Quit => return,
            }
        }
    }
}
