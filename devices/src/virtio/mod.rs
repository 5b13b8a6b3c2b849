//! Virtio devices (virtio 1.3): queues, the contract between a device and its transport, and the
//! devices themselves.
//!
//! A device has two halves. The *front* ([`VirtioDevice`]) is what the driver negotiates with:
//! features, configuration space. It sits behind the transport's lock and runs on vCPU threads. The
//! *back* is one or more [`QueueWorker`]s, which own the queues while the device runs, on a device
//! thread ([`Executor`]) that the guest's register accesses never wait for.
//!
//! ```text
//!             DRIVER_OK: front.start()                  stop(): workers end
//!   front ─────────────────────────► workers on threads ───────────────────► queues' progress
//!     ▲                                                                            │
//!     └──── reset, pause, unplug, save, hand-over: all by this one way back ◄──────┘
//! ```
//!
//! # Rules for a worker
//! - A [`queue::QueueFault`] ends the queue: tell [`Interrupts::needs_reset`], touch it no more, stay
//!   until stopped.
//! - Serve at most one queue's length of requests in a turn, then signal the queue's own event and
//!   return: others share the thread.
//! - Sizes from the guest bound nothing that is allocated beyond a constant of the device.
//! - Nothing waits but for the host's storage: what is not ready comes back by [`QueueWorker::ready`].

pub mod balloon;
pub mod block;
pub mod chain;
pub mod console;
pub mod flow;
pub mod fs;
pub mod input;
pub mod mem;
pub mod net;
pub mod queue;
#[cfg(test)]
pub(crate) mod rig;
pub mod rng;
#[cfg(test)]
pub(crate) mod testing;
pub mod transport;
mod vhost;
pub mod vhost_user;
pub mod vsock;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Instant;

use self::chain::Chain;
use self::queue::{Queue, QueueFault, QueueProgress};
use crate::error::{FaultLog, GuestFault};
use crate::event::Event;
use crate::reactor::Sources;
use crate::state::StateError;

/// `VIRTIO_F_INDIRECT_DESC`, offered by the transport for every device that has it served here.
pub const F_INDIRECT_DESC: u64 = 1 << 28;
/// `VIRTIO_F_EVENT_IDX`, as well.
pub const F_EVENT_IDX: u64 = 1 << 29;
/// `VIRTIO_F_VERSION_1`, without which no driver is served.
pub const F_VERSION_1: u64 = 1 << 32;

/// Device ids (§5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum DeviceId {
    /// §5.1.
    Net = 1,
    /// §5.2.
    Block = 2,
    /// §5.3.
    Console = 3,
    /// §5.4.
    Entropy = 4,
    /// §5.5.
    Balloon = 5,
    /// §5.8.
    Input = 18,
    /// §5.10.
    Vsock = 19,
    /// §5.15.
    Mem = 24,
    /// §5.11.
    FileSystem = 26,
}

impl DeviceId {
    /// What it is called in a log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Net => "network device",
            Self::Block => "block device",
            Self::Console => "console",
            Self::Entropy => "entropy device",
            Self::Balloon => "balloon",
            Self::Input => "input device",
            Self::Vsock => "socket device",
            Self::Mem => "memory device",
            Self::FileSystem => "file system device",
        }
    }
}

/// How a device tells its driver. Supplied by the transport; callable from any thread, no lock of the
/// device held.
pub trait Interrupts: Debug + Send + Sync {
    /// Chains were given back on queue `index`. Ask [`RunningQueue::notify`] instead, which asks the
    /// driver first.
    fn queue(&self, index: u16);

    /// The configuration space has changed (§2.5).
    fn config(&self);

    /// The driver broke its contract, or the device cannot go on: `DEVICE_NEEDS_RESET` (§2.1.2).
    fn needs_reset(&self);
}

/// A queue of a running device, with what belongs to it.
#[derive(Debug)]
pub struct RunningQueue {
    /// The rings.
    pub queue: Queue,
    /// Its number on the device.
    pub index: u16,
    /// Signalled when the driver notifies. A worker may signal it to have another turn.
    pub kick: Arc<Event>,
    /// The way to the driver.
    pub interrupts: Arc<dyn Interrupts>,
}

impl RunningQueue {
    /// Interrupts the driver if it wants that for what was given back.
    ///
    /// # Errors
    /// [`QueueFault`].
    pub fn notify(&mut self) -> Result<(), QueueFault> {
        if self.queue.wants_interrupt()? {
            self.interrupts.queue(self.index);
        }
        Ok(())
    }

    /// Takes a turn at the queue: hands each waiting chain to `serve`, which gives back how many bytes
    /// it wrote, or `None` if it keeps the chain (and gives it back later by [`Queue::push`]). After as
    /// many chains as the queue is long it asks for another turn.
    ///
    /// # Errors
    /// [`QueueFault`], also one of `serve`.
    pub fn turn(
        &mut self,
        chain: &mut Chain,
        mut serve: impl FnMut(&Chain, &Queue) -> Result<Option<u32>, QueueFault>,
    ) -> Result<(), QueueFault> {
        self.kick.take();
        self.queue.disable_notifications()?;
        let mut budget = self.queue.size();
        loop {
            while budget > 0 && self.queue.pop(chain)? {
                budget -= 1;
                if let Some(written) = serve(chain, &self.queue)? {
                    self.queue.push(chain.head(), written)?;
                }
            }
            if budget == 0 {
                self.kick.signal();
                break;
            }
            if !self.queue.enable_notifications()? {
                break;
            }
        }
        self.notify()
    }
}

/// What a device is started with.
#[derive(Debug)]
pub struct Start {
    /// The features negotiated, all of which the device offered.
    pub features: u64,
    /// One entry for each queue of the device; `None` for one the driver does not use.
    pub queues: Vec<Option<RunningQueue>>,
    /// The way to the driver.
    pub interrupts: Arc<dyn Interrupts>,
}

/// Why a device was not started; it then asks to be reset.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The driver does not use a queue the device cannot do without.
    #[error("queue {0} is not enabled")]
    MissingQueue(u16),
    /// The driver does not take a feature the device cannot do without.
    #[error("feature {0} was not accepted")]
    Feature(&'static str),
    /// What the device stands on is no longer there.
    #[error("{0}")]
    Host(String),
}

/// Reads a device's configuration space at `offset`; what is behind its end is zero.
fn read_config_space(space: &[u8], offset: u64, data: &mut [u8]) {
    let rest = usize::try_from(offset).ok().and_then(|at| space.get(at..));
    let bytes = rest.unwrap_or_default().iter().chain(std::iter::repeat(&0));
    for (to, from) in data.iter_mut().zip(bytes) {
        *to = *from;
    }
}

/// Takes queue `index` out of those a device is started with.
///
/// # Errors
/// [`StartError::MissingQueue`].
pub fn take_queue(
    queues: &mut [Option<RunningQueue>],
    index: u16,
) -> Result<RunningQueue, StartError> {
    queues
        .get_mut(usize::from(index))
        .and_then(Option::take)
        .ok_or(StartError::MissingQueue(index))
}

/// What a device keeps outside its saved state could not be written there when it stopped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("what it holds for its image could not be written: {0}")]
pub struct Unwritten(pub String);

/// The front half of a device.
///
/// Called with the transport's lock held, on vCPU threads and on the control thread: no call blocks,
/// allocates by a guest's number, or closes a descriptor, which a vCPU thread may not. What holds one and
/// is not wanted any more goes into [`take_remains`](Self::take_remains).
pub trait VirtioDevice: Send {
    /// What it is.
    fn id(&self) -> DeviceId;

    /// The features it offers, without those of the transport (`INDIRECT_DESC`, `EVENT_IDX`,
    /// `VERSION_1`).
    fn features(&self) -> u64;

    /// Those of them without which it serves no driver: one that does not take all of them is not let past
    /// `FEATURES_OK`.
    fn required_features(&self) -> u64 {
        0
    }

    /// What of `INDIRECT_DESC` and `EVENT_IDX` whoever serves its queues understands: both, where that is
    /// this process.
    fn ring_features(&self) -> u64 {
        F_INDIRECT_DESC | F_EVENT_IDX
    }

    /// The most entries of each of its queues: powers of two, at most [`queue::MAX_SIZE`].
    fn queue_sizes(&self) -> &[u16];

    /// Fills `data` from the configuration space at `offset`; what is beyond it reads as zero.
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// How often a field of the configuration space that is not read at once has changed; goes round. Read
    /// before and after such a field and the same both times, it was not changed between: it counts together
    /// with the change.
    fn config_changes(&self) -> u8 {
        0
    }

    /// Takes a write to the configuration space. Most devices have nothing there to write.
    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    /// The driver is ready (`DRIVER_OK`): makes the workers that serve it. Each is run by one thread;
    /// more than one worker means that the device wants more than one thread.
    ///
    /// # Errors
    /// [`StartError`]; nothing runs then.
    fn start(&mut self, start: Start) -> Result<Vec<Box<dyn QueueWorker>>, StartError>;

    /// The workers have ended, and the device is as before [`start`](Self::start): negotiation was
    /// reset, or it will be started again from where its queues were.
    fn stopped(&mut self) {}

    /// Goes to the state after power-on, when the driver resets it or the machine is. Not running.
    fn reset(&mut self) {}

    /// What the last [`stopped`](Self::stopped), [`reset`](Self::reset) or [`restore`](Self::restore) left
    /// of descriptors that are to be closed. Asked after each of them; closed on a device thread.
    fn take_remains(&mut self) -> Option<Remains> {
        None
    }

    /// Refuses to be saved: what belongs to the state is not where whoever restores it would look. Not
    /// running.
    ///
    /// # Errors
    /// [`Unwritten`]. It may work again after the device has run once more.
    fn check_saveable(&self) -> Result<(), Unwritten> {
        Ok(())
    }

    /// The state that is neither in the transport nor in guest memory. Not running.
    fn save(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Takes such a state over. Not running.
    ///
    /// # Errors
    /// Bytes that no `save` could have written; the device is unchanged.
    fn restore(&mut self, version: u32, bytes: &[u8]) -> Result<(), StateError> {
        no_state(version, bytes)
    }
}

/// That a record is of a device which has nothing to save.
fn no_state(version: u32, bytes: &[u8]) -> Result<(), StateError> {
    if version != 1 || !bytes.is_empty() {
        return Err(StateError::Invalid { field: "device" });
    }
    Ok(())
}

/// The back half of a device: owns queues, and runs on a device thread.
pub trait QueueWorker: Send {
    /// Registers what it waits for, the kicks of its queues among them, and serves what waits already.
    fn start(&mut self, sources: &Sources<'_>);

    /// The descriptor registered as `token` is ready. `hung_up` says that nobody holds its other end.
    fn ready(&mut self, token: u32, hung_up: bool, sources: &Sources<'_>);

    /// When [`tick`](Self::tick) is wanted, if ever.
    fn next_event(&self) -> Option<Instant> {
        None
    }

    /// The time asked for has come, or passed.
    fn tick(&mut self, _sources: &Sources<'_>) {}

    /// Finishes what is in flight and gives each of its queues' number and progress back: no memory of
    /// the guest is touched afterwards. Everything registered is removed by the caller's closing of it
    /// or here.
    fn stop(self: Box<Self>, sources: &Sources<'_>) -> Progress;
}

/// What runs a device's workers; supplied by the worker process, one for each device.
pub trait Executor: Debug + Send + Sync {
    /// Runs the workers until they are stopped. Returns at once.
    fn run(&self, workers: Vec<Box<dyn QueueWorker>>);

    /// Stops all of them, and then calls `done`, on one of the device's threads, with the progress of
    /// every queue. Returns at once; calls `done` at once, on this thread, if none runs.
    fn stop(&self, done: Stopped);

    /// Drops `remains` on one of the device's threads, soon. Returns at once.
    fn discard(&self, remains: Remains);
}

/// What is only to be dropped, where that may close descriptors.
pub type Remains = Box<dyn Send>;

/// The number and the progress of each queue that was running.
pub type Progress = Vec<(u16, QueueProgress)>;

/// What is called when the workers have ended.
pub type Stopped = Box<dyn FnOnce(Progress) + Send>;

/// Where a worker reports that its queue is broken: logged at a limited rate, and the driver told.
#[derive(Debug)]
pub struct BrokenQueue {
    device: &'static str,
    broken: bool,
}

/// One for all virtio devices of the process: a driver that breaks a queue, resets and begins again finds
/// no new burst of lines.
static FAULTS: FaultLog = FaultLog::new();

impl BrokenQueue {
    /// None so far.
    #[must_use]
    pub const fn new(device: &'static str) -> Self {
        Self {
            device,
            broken: false,
        }
    }

    /// Whether the queue may not be touched any more.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// Notes how a turn ended.
    pub fn note(&mut self, result: Result<(), QueueFault>, interrupts: &dyn Interrupts) {
        if let Err(fault) = result {
            self.broken = true;
            FAULTS.report(GuestFault::Virtqueue {
                device: self.device,
                fault,
            });
            interrupts.needs_reset();
        }
    }
}
