//! One running worker: started, asked, ended.
//!
//! ```text
//!   start ─ plan, identity, cgroup ─ spawn ∥ queue Welcome, Descriptors, Launch ─► Worker
//!     any failure undoes what was made before it                                    │
//!                                                      supervise (one task a worker)│
//!   requests ─► WorkerClient ─► control socket          events, log, pidfd          │
//!   destroy ──► SIGKILL by pidfd, never through the worker                          ▼
//!                                                                                 Death
//! ```
//!
//! Runs on tokio, a current-thread runtime included. Everything a worker reads at its start is
//! queued on its socket while the process is being made, so that a start costs no round trip but
//! the one that tells it is complete. Invariant: a process that was spawned is killed and reaped, and its
//! identity and cgroup released, whichever future is dropped on the way.

mod death;
mod log;
mod supervise;

use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use reeve_ipc::client::{CallError, WorkerClient};
use reeve_ipc::error::{ErrorCode, WireError};
use reeve_ipc::event::CrashReport;
use reeve_ipc::fd::{FdError, FdTable};
use reeve_ipc::message::JailFacts;
use reeve_ipc::model::{BootSource, Domain, DomainName, DomainUuid};
use reeve_ipc::phase::Phase;
use reeve_ipc::request::{
    ConsoleAttach, Launch, Launched, Pause, PowerButton, Query, Request, Reset, Resume, Status,
    Stop,
};
use reeve_ipc::scm::{self, ScmError};
use reeve_ipc::spec::ControlLoss;
use rustix::process::Signal;
use tokio::sync::watch;

pub use self::death::{Death, DeathCause, ExitStatus, signal_name};
use self::log::LogSocket;
use self::supervise::Supervision;
use super::fault::{self, Step};
use super::plan::{self, PlanError, PlanOptions};
use crate::host::Host;
use crate::host::confinement::{Confinement, ConfinementError};
use crate::host::identity::{IdentityError, Level};
use crate::host::spawner::{Child, Order, SpawnError};

/// How long a machine may take to build: reading a large initrd from a slow disk is in it.
const LAUNCH_DEADLINE: Duration = Duration::from_secs(30);
/// How long a reset may take: it loads the kernel again.
const RESET_DEADLINE: Duration = Duration::from_secs(30);
/// How long any other request may take.
const CALL_DEADLINE: Duration = Duration::from_secs(5);
/// How long a killed process may take to go before it is left to the kernel.
const REAP_DEADLINE: Duration = Duration::from_secs(5);

/// Why a domain did not start. Nothing is left of it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its definition, or something it names.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// No uid for it.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Its limits cannot be set.
    #[error(transparent)]
    Confinement(#[from] ConfinementError),
    /// No process.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// No sockets to talk through.
    #[error("cannot make the worker's sockets: {0}")]
    Socket(#[source] io::Error),
    /// The worker cannot build the machine.
    #[error("cannot start '{domain}': {}", explain(kernel.as_deref(), error))]
    Refused {
        /// The domain.
        domain: DomainName,
        /// The kernel image, where it is a file.
        kernel: Option<PathBuf>,
        /// What the worker said.
        error: WireError,
    },
    /// The worker died on the way.
    #[error("cannot start '{domain}': {death}")]
    Died {
        /// The domain.
        domain: DomainName,
        /// How.
        death: Arc<Death>,
    },
    /// The worker did not answer, or cannot be asked.
    #[error("cannot start '{domain}': {error}")]
    Call {
        /// The domain.
        domain: DomainName,
        /// Why.
        error: CallError,
    },
    /// A test asked for it.
    #[cfg(feature = "fault-points")]
    #[error("cannot start '{0}': a fault point ended the start before there was a worker")]
    Fault(DomainName),
}

/// What the worker said, with the name of the file that it knows by descriptor only.
fn explain(kernel: Option<&Path>, error: &WireError) -> String {
    let message = log::printable(&error.message);
    match (kernel, error.code) {
        (Some(kernel), ErrorCode::BootImage) => format!("{}: {message}", kernel.display()),
        _ => message,
    }
}

/// Why a console could not be attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// No sockets.
    #[error("cannot make the console's sockets: {0}")]
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

/// What is not of the definition.
#[derive(Debug)]
pub struct StartOptions {
    /// Build the machine and let it stand paused.
    pub hold: bool,
    /// A client of the console from the first byte on: one end of a stream socket pair, whose other
    /// end the caller reads.
    pub console: Option<OwnedFd>,
    /// What the worker does without its supervisor. Whatever it says, a worker whose [`Worker`] is
    /// dropped is killed.
    pub on_control_loss: ControlLoss,
}

impl Default for StartOptions {
    fn default() -> Self {
        Self {
            hold: false,
            console: None,
            on_control_loss: ControlLoss::Stop,
        }
    }
}

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

/// A running worker. Dropping it kills the process.
#[derive(Debug)]
pub struct Worker {
    name: DomainName,
    uuid: DomainUuid,
    client: WorkerClient,
    process: Arc<Process>,
    view: watch::Receiver<View>,
    launched: Option<Launched>,
    facts: Facts,
}

/// What the supervisor itself did to confine a worker, and when it was asked to start it.
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
}

/// Starts `domain`. The future may be dropped at any point; nothing is left then.
///
/// # Errors
/// [`StartError`]; nothing is left of the domain.
pub async fn start(
    host: &Host,
    domain: &Domain,
    options: StartOptions,
) -> Result<Worker, StartError> {
    let accepted = Instant::now();
    let plan = plan::plan(
        domain,
        &host.cpuid,
        PlanOptions {
            hold: options.hold,
            console: options.console,
            on_control_loss: options.on_control_loss,
        },
    )?;
    let identity = host.identities.claim()?;
    let confinement = Confinement::prepare(domain)?;
    let (control, worker_control) = scm::pair().map_err(socket_error)?;
    let (log, worker_log) = scm::pair().map_err(socket_error)?;
    let log = LogSocket::new(log).map_err(StartError::Socket)?;

    let facts = Facts {
        accepted,
        uid: identity.uid,
        level: identity.level,
        cgroup: confinement.path(),
    };
    fail_at(Step::BeforeSpawn, domain)?;
    let order = Order {
        name: domain.name.clone(),
        control: worker_control,
        log: worker_log,
        on_control_loss: options.on_control_loss,
        identity,
        confinement,
    };
    let mut spawn = std::pin::pin!(host.spawner.spawn(order));
    let spawned = poll_once(spawn.as_mut()).await;

    // While the process is made, all that it will read is queued.
    let call_error = |error| StartError::Call {
        domain: domain.name.clone(),
        error,
    };
    let connection = WorkerClient::start(control, domain.name.as_str()).await;
    fail_at(Step::AfterWelcome, domain)?;
    let caller = connection.as_ref().ok().map(|(client, _)| client.clone());
    let mut launch = std::pin::pin!(async {
        let launch = Launch { spec: plan.spec };
        match &caller {
            Some(caller) => caller.call_with(launch, plan.fds, LAUNCH_DEADLINE).await,
            None => Err(CallError::Closed(Launch::OPERATION.name())),
        }
    });
    let early = poll_once(launch.as_mut()).await;
    fail_at(Step::AfterLaunchSent, domain)?;

    // A spawn that failed has closed the socket too; it is the one to tell.
    let child = match spawned {
        Some(child) => child?,
        None => spawn.await?,
    };
    let (client, incoming) = connection.map_err(call_error)?;
    let process = Arc::new(Process::new(&child));
    let (publish, view) = watch::channel(View {
        phase: Phase::AwaitingLaunch,
        jail: None,
        resets: 0,
        crash: None,
        death: None,
    });
    Supervision {
        name: domain.name.clone(),
        uuid: domain.uuid,
        process: Arc::clone(&process),
        view: publish.clone(),
        child,
    }
    .begin(incoming, log)
    .map_err(StartError::Socket)?;
    let mut worker = Worker {
        name: domain.name.clone(),
        uuid: domain.uuid,
        client,
        process,
        view,
        launched: None,
        facts,
    };
    if fault::is_at(Step::AfterSpawn) {
        worker.process.kill();
    }
    let answer = match early {
        Some(answer) => answer,
        None => launch.await,
    };
    let launched = match answer {
        Ok(launched) => launched,
        Err(error) => return Err(worker.failed(domain, error).await),
    };
    publish.send_if_modified(|view| {
        let first = view.phase == Phase::AwaitingLaunch;
        if first {
            view.phase = launched.phase;
        }
        first
    });
    worker.launched = Some(launched);
    let (domain, uuid, pid) = (&worker.name, worker.uuid, worker.process.pid);
    tracing::info!(%domain, %uuid, pid, "started");
    if fault::is_at(Step::AfterLaunched) || fault::is_at(Step::Running) {
        worker.process.kill();
    }
    Ok(worker)
}

fn socket_error(error: ScmError) -> StartError {
    StartError::Socket(match error {
        ScmError::Os(errno) => errno.into(),
        other => io::Error::other(other),
    })
}

/// A fault point at which there is no worker yet.
fn fail_at(step: Step, domain: &Domain) -> Result<(), StartError> {
    #[cfg(feature = "fault-points")]
    if fault::is_at(step) {
        return Err(StartError::Fault(domain.name.clone()));
    }
    let _ = (step, domain);
    Ok(())
}

/// Polls once: enough for a call to send its request.
async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|context| {
        Poll::Ready(match future.as_mut().poll(context) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        })
    })
    .await
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
        let (ours, theirs) = UnixStream::pair().map_err(AttachError::Socket)?;
        let mut table = FdTable::new();
        let stream = table.push(theirs.into())?;
        let request = ConsoleAttach { stream, input };
        self.client.call_with(request, table, CALL_DEADLINE).await?;
        Ok(ours)
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

    /// Kills the process, whatever it does, and waits until it is gone and everything of it is
    /// released, at most five seconds.
    ///
    /// # Errors
    /// [`Reaping`]: the kernel holds the process; it is reaped when it goes.
    pub async fn destroy(&self) -> Result<Arc<Death>, Reaping> {
        self.process.destroyed.store(true, Ordering::Relaxed);
        self.process.kill();
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
        self.client.call(request, deadline).await
    }

    /// The launch failed: ends what there is and says why.
    async fn failed(self, domain: &Domain, error: CallError) -> StartError {
        let domain_name = domain.name.clone();
        match error {
            CallError::Refused(error) => {
                let _ = self.destroy().await;
                StartError::Refused {
                    domain: domain_name,
                    kernel: match &domain.boot {
                        BootSource::Kernel(boot) => Some(boot.kernel.clone()),
                        BootSource::BuiltIn { .. } => None,
                    },
                    error,
                }
            }
            // The socket closes when the process dies: its end says more.
            CallError::Closed(_) => match tokio::time::timeout(REAP_DEADLINE, self.death()).await {
                Ok(death) => StartError::Died {
                    domain: domain_name,
                    death,
                },
                Err(_) => StartError::Call {
                    domain: domain_name,
                    error,
                },
            },
            error => {
                let _ = self.destroy().await;
                StartError::Call {
                    domain: domain_name,
                    error,
                }
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if self.view.borrow().death.is_none() {
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
}

impl Process {
    fn new(child: &Child) -> Self {
        Self {
            pid: child.pid,
            pidfd: Arc::clone(&child.pidfd),
            destroyed: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
        }
    }

    /// Sends `SIGKILL`. A process that is gone already is what was wanted.
    fn kill(&self) {
        let _ = rustix::process::pidfd_send_signal(self.pidfd.as_fd(), Signal::KILL);
    }
}
