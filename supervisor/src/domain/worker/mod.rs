//! One running worker: started or found, asked, ended.
//!
//! ```text
//!   start ─ plan, identity, cgroup ─ spawn ∥ queue Welcome, Descriptors, Launch ─► Worker
//!     any failure undoes what was made before it                                    │
//!   adopt ─ pidfd, connect, credentials, Report ────────────────────────────────────┤
//!   hand over ─ spawn, HandOver ∥ TakeOver, SwitchOver ─────────────────────────────┤
//!                                                      supervise (one task a worker)│
//!   requests ─► WorkerClient ─► control socket          events, log, pidfd          │
//!   destroy ──► SIGKILL by pidfd, never through the worker                          ▼
//!                                                                                 Death
//! ```
//!
//! Runs on tokio, a current-thread runtime included. Everything a worker reads at its start is
//! queued on its socket while the process is being made, so that a start costs no round trip but
//! the one that tells it is complete.
//!
//! Two kinds of owners: `reeve run` has a [`Worker`], whose drop kills the process; the daemon has a
//! [`KvmDriver`], whose workers are *kept*: once their launch is recorded, nothing but a kill or
//! their own end ends them, and what they hold is left to the next supervisor. Invariant: a process
//! that was spawned and is not kept is killed and reaped, and what it held released, whichever future
//! is dropped on the way.

mod acceptor;
mod adopt;
mod death;
mod devices;
mod driver;
mod hand_over;
mod instance;
mod kept;
mod log;
mod planner;
mod start;
mod supervise;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use reeve_ipc::client::{CallError, WorkerClient};
use reeve_ipc::event::CrashReport;
use reeve_ipc::fd::{FdError, FdTable};
use reeve_ipc::message::JailFacts;
use reeve_ipc::model::{DomainName, DomainUuid};
use reeve_ipc::phase::Phase;
use reeve_ipc::request::{
    ConsoleAttach, Launched, Pause, PowerButton, Query, Request, Reset, Resume, Status, Stop,
};
use rustix::process::Signal;
use tokio::sync::{Notify, mpsc, watch};

pub use self::death::{Death, DeathCause, ExitStatus, signal_name};
pub use self::driver::KvmDriver;
pub use self::start::{StartError, StartOptions, start};
use crate::domain::driver::Notice;
use crate::host::filter::WorkerTaps;
use crate::host::holdings::HoldingsOfAnother;
use crate::host::identity::Level;
use crate::host::no_descriptor;
use crate::host::sockets::WorkerSockets;
use crate::host::spawner::Child;
use crate::host::tap::WorkerMacvtaps;

/// How long a reset may take: it loads the kernel again.
const RESET_DEADLINE: Duration = Duration::from_secs(30);
/// How long any other request may take.
const CALL_DEADLINE: Duration = Duration::from_secs(5);
/// How long a killed process may take to go before it is left to the kernel.
const REAP_DEADLINE: Duration = Duration::from_secs(5);

/// Why a console could not be attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// No sockets.
    #[error("cannot make the console's sockets: {}", no_descriptor(.0))]
    Socket(#[source] io::Error),
    /// The worker has been sent as many descriptors as it takes.
    #[error(transparent)]
    Slots(#[from] FdError),
    /// The worker refused or is gone.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// The process was killed and has not gone yet: the kernel does not let it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("worker {0} was killed and the kernel has not released it yet")]
pub struct Reaping(pub u32);

/// A worker as last heard of. What it says of itself is for display.
#[derive(Debug, Clone)]
pub struct View {
    /// Its phase.
    pub phase: Phase,
    /// What it said of its jail, once it did.
    pub jail: Option<JailFacts>,
    /// Resets since launch.
    pub resets: u64,
    /// Why its guest cannot go on.
    pub crash: Option<CrashReport>,
    /// How it ended, once it did and everything of it is released.
    pub death: Option<Arc<Death>>,
}

/// The way to a worker; empty while one that was found has not said its hello.
type Link = Arc<OnceLock<WorkerClient>>;

/// A running worker. Dropping it kills the process, unless that is kept.
#[derive(Debug)]
pub struct Worker {
    name: DomainName,
    uuid: DomainUuid,
    link: Link,
    process: Arc<Process>,
    view: watch::Receiver<View>,
    launched: Option<Launched>,
    facts: Facts,
    /// What its devices listen on.
    sockets: WorkerSockets,
    /// What of that its guest is on the network by does not end with it.
    macvtaps: WorkerMacvtaps,
    /// By which its guest is on the network.
    taps: WorkerTaps,
    /// What else it holds, for a worker that takes over from it.
    holdings: HoldingsOfAnother,
    /// Who hears what happens to it, for the same; none is kept waiting by this.
    tell: Option<mpsc::WeakSender<Notice>>,
}

/// What the supervisor itself did to confine a worker, and when it was asked to start or find it.
#[derive(Debug, Clone)]
pub struct Facts {
    /// When the start was asked for.
    pub accepted: Instant,
    /// Its uid on the host.
    pub uid: u32,
    /// Whether that uid is its own.
    pub level: Level,
    /// The directory of its cgroup, where it has one.
    pub cgroup: Option<PathBuf>,
    /// Whether an earlier supervisor started it.
    pub adopted: bool,
}

impl Worker {
    /// The domain's name.
    #[must_use]
    pub const fn name(&self) -> &DomainName {
        &self.name
    }

    /// The domain's UUID.
    #[must_use]
    pub const fn uuid(&self) -> DomainUuid {
        self.uuid
    }

    /// The process' pid on the host. It may be gone: for display and tests, never to send signals.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid
    }

    /// What the supervisor did for it.
    #[must_use]
    pub const fn facts(&self) -> &Facts {
        &self.facts
    }

    /// How the machine was launched.
    #[must_use]
    pub const fn launched(&self) -> Option<&Launched> {
        self.launched.as_ref()
    }

    /// The worker as last heard of, without asking it.
    #[must_use]
    pub fn view(&self) -> View {
        self.view.borrow().clone()
    }

    /// Stops every vCPU.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn pause(&self) -> Result<(), CallError> {
        self.call(Pause {}, CALL_DEADLINE).await
    }

    /// Lets the vCPUs run.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn resume(&self) -> Result<(), CallError> {
        self.call(Resume {}, CALL_DEADLINE).await
    }

    /// Presses the power button: the guest may shut down, or not.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn power_button(&self) -> Result<(), CallError> {
        self.call(PowerButton {}, CALL_DEADLINE).await
    }

    /// Resets the machine.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn reset(&self) -> Result<(), CallError> {
        self.call(Reset {}, RESET_DEADLINE).await
    }

    /// Asks the worker where it stands.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn query(&self) -> Result<Status, CallError> {
        self.call(Query {}, CALL_DEADLINE).await
    }

    /// Attaches a further client to the console; `input` lets it type.
    ///
    /// # Errors
    /// [`AttachError`].
    pub async fn console_attach(&self, input: bool) -> Result<UnixStream, AttachError> {
        let (ours, _) = self.console_from(None, input).await?;
        Ok(ours)
    }

    /// Attaches a client to the console from byte `from` on, or from the oldest that is held; and the
    /// position of the first byte it gets.
    async fn console_from(
        &self,
        from: Option<u64>,
        input: bool,
    ) -> Result<(UnixStream, u64), AttachError> {
        let (ours, theirs) = UnixStream::pair().map_err(AttachError::Socket)?;
        // Bytes are all that a console has to say.
        reeve_ipc::scm::refuse_rights(ours.as_fd());
        let mut table = FdTable::new();
        let stream = table.push(theirs.into())?;
        let request = ConsoleAttach {
            stream,
            input,
            from,
        };
        let attached = self.call_with(request, table, CALL_DEADLINE).await?;
        Ok((ours, attached.position))
    }

    /// Tells the worker to end, and waits for it; kills it where it does not.
    ///
    /// # Errors
    /// [`Reaping`].
    pub async fn stop(&self) -> Result<Arc<Death>, Reaping> {
        self.process.stopped.store(true, Ordering::Relaxed);
        let stopped = self.call(Stop {}, CALL_DEADLINE).await.is_ok();
        if stopped {
            if let Ok(death) = tokio::time::timeout(CALL_DEADLINE, self.death()).await {
                return Ok(death);
            }
        }
        self.destroy().await
    }

    /// Sends `SIGKILL` because somebody asked for it, and waits for nothing.
    fn kill(&self) {
        self.process.destroyed.store(true, Ordering::Relaxed);
        self.process.kill();
    }

    /// Kills the process, whatever it does, and waits until it is gone and everything of it is
    /// released, at most five seconds.
    ///
    /// # Errors
    /// [`Reaping`]: the kernel holds the process; it is reaped when it goes.
    pub async fn destroy(&self) -> Result<Arc<Death>, Reaping> {
        self.kill();
        tokio::time::timeout(REAP_DEADLINE, self.death())
            .await
            .map_err(|_| Reaping(self.process.pid))
    }

    /// Waits for the end, however it comes.
    pub async fn death(&self) -> Arc<Death> {
        let mut view = self.view.clone();
        let seen = view.wait_for(|view| view.death.is_some()).await;
        let death = seen.ok().and_then(|view| view.death.clone());
        // Only the end of the runtime takes a supervision away before its verdict.
        death.unwrap_or_else(|| self.unreaped())
    }

    /// The verdict on a killed process whose end nobody has seen yet.
    #[must_use]
    pub fn unreaped(&self) -> Arc<Death> {
        Arc::new(Death {
            status: ExitStatus::Unknown,
            cause: DeathCause::Destroyed,
        })
    }

    async fn call<R: Request>(
        &self,
        request: R,
        deadline: Duration,
    ) -> Result<R::Reply, CallError> {
        self.call_with(request, FdTable::new(), deadline).await
    }

    async fn call_with<R: Request>(
        &self,
        request: R,
        table: FdTable,
        deadline: Duration,
    ) -> Result<R::Reply, CallError> {
        match self.link.get() {
            Some(client) => client.call_with(request, table, deadline).await,
            // It has not said a word since it was found.
            None => Err(CallError::Deadline(R::OPERATION.name(), Duration::ZERO)),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let kept = self.process.kept.load(Ordering::Relaxed);
        if !kept && self.view.borrow().death.is_none() {
            self.process.destroyed.store(true, Ordering::Relaxed);
            self.process.kill();
        }
    }
}

/// The process itself, by pidfd: a number that is used again can never be meant.
#[derive(Debug)]
struct Process {
    pid: u32,
    pidfd: Arc<OwnedFd>,
    destroyed: AtomicBool,
    stopped: AtomicBool,
    /// It lives on without this supervisor.
    kept: Arc<AtomicBool>,
    /// A call was not answered in time.
    missed: Notify,
    /// By which number the actor wants to know where it has devices.
    wanted: watch::Sender<u64>,
    /// Held while its machine is being handed to another; the end of it is judged after that.
    handing: tokio::sync::Mutex<()>,
    /// Its machine is another's.
    handed: AtomicBool,
}

impl Process {
    fn new(child: &Child) -> Self {
        Self {
            pid: child.pid,
            pidfd: Arc::clone(&child.pidfd),
            destroyed: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            kept: Arc::clone(&child.kept),
            missed: Notify::new(),
            wanted: watch::Sender::new(0),
            handing: tokio::sync::Mutex::new(()),
            handed: AtomicBool::new(false),
        }
    }

    /// Sends `SIGKILL`. A process that is gone already is what was wanted.
    fn kill(&self) {
        let _ = rustix::process::pidfd_send_signal(self.pidfd.as_fd(), Signal::KILL);
    }
}
