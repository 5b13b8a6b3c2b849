//! Device threads: each runs the workers of one or more virtio devices, and nothing else.
//!
//! The guest's register accesses never wait for one, and the control thread only when it stops a
//! device. What a worker does in a turn is bounded by the device's own rules (`reeve_devices::virtio`),
//! so that workers may share a thread.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use reeve_devices::event::Event;
use reeve_devices::reactor::{Interest, Reactor, Ready};
use reeve_devices::shared::lock;
use reeve_devices::virtio::{Executor, Progress, QueueWorker, Remains, Stopped};
use reeve_sandbox::seccomp::{Role, enter_role};

/// Room for the deepest call of a device, with much to spare; untouched pages cost nothing.
const STACK_BYTES: usize = 256 << 10;
/// The thread's own slot of its reactor.
const OWN_SLOT: u32 = 0;

/// Whose workers are meant: the number of a device, unique in its process.
type Owner = usize;

enum Command {
    Run {
        owner: Owner,
        worker: Box<dyn QueueWorker>,
    },
    Stop {
        owner: Owner,
        stop: Arc<Stop>,
    },
    Discard(Remains),
    Call(Box<dyn FnOnce() + Send>),
    Quit,
}

/// The stop of one device, whose workers may be on several threads.
struct Stop {
    threads_left: AtomicUsize,
    progress: Mutex<Progress>,
    done: Mutex<Option<Stopped>>,
}

impl Stop {
    /// On a thread that has stopped its part; the last one tells whoever waits.
    fn part_done(&self, progress: Progress) {
        lock(&self.progress).extend(progress);
        if self.threads_left.fetch_sub(1, Ordering::AcqRel) == 1 {
            let all = std::mem::take(&mut *lock(&self.progress));
            if let Some(done) = lock(&self.done).take() {
                done(all);
            }
        }
    }
}

struct Mailbox {
    commands: Mutex<Vec<Command>>,
    wake: Event,
}

impl Mailbox {
    fn send(&self, command: Command) {
        lock(&self.commands).push(command);
        self.wake.signal();
    }
}

/// A thread for devices. Ends when it is dropped.
pub struct DeviceThread {
    mailbox: Arc<Mailbox>,
    /// Gives back what it waited with: not each of these threads may close descriptors of any kind.
    thread: Option<JoinHandle<Reactor>>,
}

impl fmt::Debug for DeviceThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceThread").finish_non_exhaustive()
    }
}

impl DeviceThread {
    /// Starts one. `name` is what a process list shows: at most 15 bytes. `role` is [`Role::Io`], or what may
    /// do more for its devices.
    ///
    /// # Errors
    /// The host has no thread or descriptor left.
    pub fn start(name: &str, role: Role) -> std::io::Result<Self> {
        let mailbox = Arc::new(Mailbox {
            commands: Mutex::new(Vec::new()),
            wake: Event::new()?,
        });
        let reactor = Reactor::new()?;
        reactor
            .sources(OWN_SLOT)
            .add(&mailbox.wake, 0, Interest::Read)?;
        let theirs = Arc::clone(&mailbox);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                crate::failure::or_exit(
                    enter_role(role),
                    "cannot close the filter of a device thread",
                );
                Loop::new(reactor, &theirs, role).run()
            })?;
        Ok(Self {
            mailbox,
            thread: Some(thread),
        })
    }

    /// Runs `job` there, which waits for nothing outside of the process, and gives what it gives; `None` if
    /// that takes longer than `patience`.
    pub fn call<T: Send + 'static>(
        &self,
        patience: Duration,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (give, take) = sync_channel(1);
        self.mailbox.send(Command::Call(Box::new(move || {
            // Fails only if nobody waits any more.
            let _ = give.send(job());
        })));
        take.recv_timeout(patience).ok()
    }
}

impl Drop for DeviceThread {
    fn drop(&mut self) {
        self.mailbox.send(Command::Quit);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Runs one device's workers on the threads it was given.
pub struct DeviceExecutor {
    owner: Owner,
    threads: Vec<Arc<DeviceThread>>,
    /// How many threads have workers of it now.
    busy: Mutex<usize>,
}

impl fmt::Debug for DeviceExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceExecutor")
            .field("owner", &self.owner)
            .field("threads", &self.threads.len())
            .finish_non_exhaustive()
    }
}

impl DeviceExecutor {
    /// One for a device that has `threads` at its disposal, at least one.
    #[must_use]
    pub fn new(threads: Vec<Arc<DeviceThread>>) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        Self {
            owner: NEXT.fetch_add(1, Ordering::Relaxed),
            threads,
            busy: Mutex::new(0),
        }
    }
}

impl Executor for DeviceExecutor {
    fn run(&self, workers: Vec<Box<dyn QueueWorker>>) {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        *busy = workers.len().min(self.threads.len());
        for (worker, thread) in workers.into_iter().zip(self.threads.iter().cycle()) {
            thread.mailbox.send(Command::Run {
                owner: self.owner,
                worker,
            });
        }
    }

    fn stop(&self, done: Stopped) {
        let busy = std::mem::take(&mut *lock(&self.busy));
        if busy == 0 {
            done(Progress::new());
            return;
        }
        let stop = Arc::new(Stop {
            threads_left: AtomicUsize::new(busy),
            progress: Mutex::new(Progress::new()),
            done: Mutex::new(Some(done)),
        });
        for thread in self.threads.iter().take(busy) {
            thread.mailbox.send(Command::Stop {
                owner: self.owner,
                stop: Arc::clone(&stop),
            });
        }
    }

    fn discard(&self, remains: Remains) {
        if let Some(thread) = self.threads.first() {
            thread.mailbox.send(Command::Discard(remains));
        }
    }
}

struct Running {
    owner: Owner,
    worker: Box<dyn QueueWorker>,
}

/// The body of a device thread.
struct Loop<'a> {
    reactor: Reactor,
    mailbox: &'a Mailbox,
    #[cfg(feature = "attack-points")]
    role: Role,
    /// By slot, counted from 1.
    workers: Vec<Option<Running>>,
}

impl<'a> Loop<'a> {
    #[cfg_attr(
        not(feature = "attack-points"),
        expect(unused_variables, reason = "the thread has it already")
    )]
    fn new(reactor: Reactor, mailbox: &'a Mailbox, role: Role) -> Self {
        Self {
            reactor,
            mailbox,
            #[cfg(feature = "attack-points")]
            role,
            workers: Vec::new(),
        }
    }

    fn run(mut self) -> Reactor {
        let mut ready = Vec::new();
        loop {
            #[cfg(feature = "attack-points")]
            crate::attack::strike(self.role);
            crate::failure::or_exit(
                self.reactor.wait(self.timeout(), &mut ready),
                "a device thread cannot wait for its descriptors",
            );
            let mut ordered = false;
            for event in ready.drain(..) {
                match event.slot {
                    OWN_SLOT => ordered = true,
                    _ => self.serve(event),
                }
            }
            self.tick();
            // Last, so that no event of this wait can mean a worker that came after it.
            if ordered && self.obey() {
                return self.reactor;
            }
        }
    }

    fn timeout(&self) -> Option<Duration> {
        let next = self
            .workers
            .iter()
            .flatten()
            .filter_map(|running| running.worker.next_event())
            .min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    fn serve(&mut self, event: Ready) {
        let sources = self.reactor.sources(event.slot);
        let running = index(event.slot).and_then(|index| self.workers.get_mut(index));
        if let Some(Some(running)) = running {
            running.worker.ready(event.token, event.hung_up, &sources);
        }
    }

    fn tick(&mut self) {
        for (slot, running) in (OWN_SLOT + 1..).zip(&mut self.workers) {
            let Some(running) = running else { continue };
            let due = running.worker.next_event();
            if due.is_some_and(|due| due <= Instant::now()) {
                running.worker.tick(&self.reactor.sources(slot));
            }
        }
    }

    /// Does what was ordered; true if that is to end.
    fn obey(&mut self) -> bool {
        self.mailbox.wake.take();
        let commands = std::mem::take(&mut *lock(&self.mailbox.commands));
        for command in commands {
            match command {
                Command::Run { owner, worker } => self.start(owner, worker),
                Command::Stop { owner, stop } => stop.part_done(self.stop(owner)),
                Command::Discard(remains) => drop(remains),
                Command::Call(job) => job(),
                Command::Quit => return true,
            }
        }
        false
    }

    fn start(&mut self, owner: Owner, mut worker: Box<dyn QueueWorker>) {
        let free = self.workers.iter().position(Option::is_none);
        let place = free.unwrap_or_else(|| {
            self.workers.push(None);
            self.workers.len() - 1
        });
        worker.start(&self.reactor.sources(slot(place)));
        if let Some(entry) = self.workers.get_mut(place) {
            *entry = Some(Running { owner, worker });
        }
    }

    fn stop(&mut self, owner: Owner) -> Progress {
        let mut progress = Progress::new();
        for (place, entry) in self.workers.iter_mut().enumerate() {
            if let Some(running) = entry.take_if(|running| running.owner == owner) {
                let sources = self.reactor.sources(slot(place));
                progress.extend(running.worker.stop(&sources));
            }
        }
        progress
    }
}

/// The reactor's slot of a place in the list of workers.
fn slot(place: usize) -> u32 {
    u32::try_from(place + 1).unwrap_or(u32::MAX)
}

fn index(slot: u32) -> Option<usize> {
    usize::try_from(slot).ok()?.checked_sub(1)
}
