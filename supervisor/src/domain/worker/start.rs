//! How a domain starts: from a plan to a worker, top to bottom, and what can go wrong in it.
//!
//! [`start`] serves `reeve run`, `kept.rs` the daemon; both come to [`launch`], which is all that
//! costs time. Runs in the caller's task. Whatever it had made by then is undone when it fails or is dropped.

use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::AsFd as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::{Duration, Instant};

use reeve_ipc::client::{CallError, WorkerClient};
use reeve_ipc::error::{ErrorCode, WireError};
use reeve_ipc::model::{BootSource, Domain, DomainName};
use reeve_ipc::phase::Phase;
use reeve_ipc::request::{Launch, Request};
use reeve_ipc::scm::{self, ScmError};
use reeve_ipc::spec::ControlLoss;
use rustix::io::Errno;
use tokio::sync::{mpsc, watch};

use super::adopt::release_all;
use super::kept::Ledger;
use super::log::{LogSocket, quoted};
use super::supervise::{Heard, Supervision};
use super::{Death, Facts, Link, Process, REAP_DEADLINE, View, Worker};
use crate::crash::{self, Moment, Operation};
use crate::domain::driver::Notice;
use crate::domain::fault::{self, Step};
use crate::domain::plan::{self, AnyPath, Files, Plan, PlanError, PlanOptions};
use crate::host::confinement::{ConfinementError, ConfinementPlan};
use crate::host::filter::WorkerTaps;
use crate::host::holdings::{Holdings, SharedHoldings};
use crate::host::identity::IdentityError;
use crate::host::shares::Sharer;
use crate::host::sockets::WorkerSockets;
use crate::host::spawner::{Order, SpawnError};
use crate::host::tap::WorkerMacvtaps;
use crate::host::vcpus::{self, VcpuError};
use crate::host::{Host, memory_nodes, no_descriptor, reason};

/// How long a machine may take to build: reading a large initrd from a slow disk is in it.
const LAUNCH_DEADLINE: Duration = Duration::from_secs(30);

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
    #[error("cannot make the worker's sockets: {}", no_descriptor(.0))]
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
    /// Its vCPUs cannot be where the definition wants them.
    #[error("cannot start '{domain}': {error}")]
    Vcpus {
        /// The domain.
        domain: DomainName,
        /// Why.
        error: VcpuError,
    },
    /// No socket to be found again on.
    #[error("cannot listen on {path}: {reason}", path = .path.display(), reason = reason(*.errno))]
    Listen {
        /// The socket.
        path: PathBuf,
        /// Why.
        errno: Errno,
    },
    /// What it holds cannot be recorded.
    #[error("cannot record what '{domain}' holds: {message}")]
    Record {
        /// The domain.
        domain: DomainName,
        /// Why.
        message: String,
    },
    /// A test asked for it.
    #[cfg(feature = "fault-points")]
    #[error("cannot start '{0}': a fault point ended the start before there was a worker")]
    Fault(DomainName),
}

/// What the worker said, with the name of the file that it knows by descriptor only.
fn explain(kernel: Option<&Path>, error: &WireError) -> String {
    let message = quoted(&error.message);
    match (kernel, error.code) {
        (Some(kernel), ErrorCode::BootImage) => format!("{}: {message}", kernel.display()),
        _ => message,
    }
}

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
    check_vcpus(domain)?;
    let mut plan = plan::plan(
        domain,
        &host.cpuid,
        PlanOptions {
            files: Files {
                paths: &AnyPath,
                images: &host.images,
            },
            network: host.network.clone(),
            kept: None,
            hold: options.hold,
            console: options.console,
            on_control_loss: options.on_control_loss,
        },
    )?;
    plan.makes_nothing_lasting()?;
    let confinement = ConfinementPlan::look(domain, &host.cgroups).await?;
    let identity = host.identities.claim()?;
    let mut sockets = plan.listen(&AnyPath)?;
    sockets.serve(&host.connectors, &domain.name, domain.uuid);
    let holdings = Holdings {
        socket: None,
        device_sockets: WorkerSockets::new(sockets),
        macvtaps: WorkerMacvtaps::new(Vec::new()),
        confinement: confinement.make()?,
        identity,
    };
    let sharer = Sharer {
        uid: holdings.identity.uid,
        level: holdings.identity.level,
        cgroup: holdings.confinement.path(),
    };
    plan.serve(&host.shares, &sharer)?;
    let launching = Launching {
        accepted,
        plan,
        holdings,
        tell: None,
        ledger: None,
    };
    launch(host, domain, launching).await
}

pub(super) fn check_vcpus(domain: &Domain) -> Result<(), StartError> {
    vcpus::check(domain).map_err(|error| StartError::Vcpus {
        domain: domain.name.clone(),
        error,
    })
}

/// All that a worker is made from.
#[derive(Debug)]
pub(super) struct Launching<'a> {
    pub(super) accepted: Instant,
    pub(super) plan: Plan,
    pub(super) holdings: Holdings,
    /// Who hears what happens to it.
    pub(super) tell: Option<mpsc::Sender<Notice>>,
    /// Where the process of a kept worker is noted before its launch is sent. A worker that is not
    /// kept finds its launch in its socket already.
    pub(super) ledger: Option<&'a mut Ledger>,
}

/// Makes the process, launches the machine in it and puts it under supervision.
pub(super) async fn launch(
    host: &Host,
    domain: &Domain,
    launching: Launching<'_>,
) -> Result<Worker, StartError> {
    let Launching {
        accepted,
        mut plan,
        holdings,
        tell,
        mut ledger,
    } = launching;
    let hold = plan.spec.hold;
    let on_control_loss = plan.spec.on_control_loss;
    let placing = vcpus::need_placing(domain);
    plan.spec.hold |= placing;
    let pairs = || {
        fail_at(Step::BeforeSpawn, domain)?;
        let (control, worker_control) = scm::pair().map_err(socket_error)?;
        let (log, worker_log) = scm::pair().map_err(socket_error)?;
        // Before there is a worker that could send any.
        scm::refuse_rights(control.as_fd());
        let log = LogSocket::new(log).map_err(StartError::Socket)?;
        Ok::<_, StartError>((control, worker_control, log, worker_log))
    };
    let (control, worker_control, log, worker_log) = match pairs() {
        Ok(pairs) => pairs,
        Err(error) => {
            release_all(holdings).await;
            return Err(error);
        }
    };

    let facts = Facts {
        accepted,
        uid: holdings.identity.uid,
        level: holdings.identity.level,
        cgroup: holdings.confinement.path(),
        adopted: false,
    };
    let sockets = holdings.device_sockets.clone();
    let macvtaps = holdings.macvtaps.clone();
    let taps = WorkerTaps::of(&plan.held());
    let order = Order {
        name: domain.name.clone(),
        control: worker_control,
        log: worker_log,
        on_control_loss,
        memory_policy: memory_nodes::policy(domain),
        holdings: SharedHoldings::new(holdings),
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
    let early = match ledger {
        None => poll_once(launch.as_mut()).await,
        Some(_) => None,
    };
    fail_at(Step::AfterLaunchSent, domain)?;

    // A spawn that failed has closed the socket too; it is the one to tell.
    let child = match spawned {
        Some(child) => child?,
        None => spawn.await?,
    };
    if let Some(ledger) = ledger.as_mut() {
        crash::point(Operation::Start, Moment::AfterSpawn);
        ledger.spawned(child.pid)?;
    }
    let (client, incoming) = connection.map_err(call_error)?;
    let link = Link::default();
    let _ = link.set(client);
    let process = Arc::new(Process::new(&child));
    let holdings = child.holdings();
    let teller = tell.as_ref().map(mpsc::Sender::downgrade);
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
        link: Arc::clone(&link),
        tell,
        child,
    }
    .begin(incoming, Some(log), Heard::default())
    .map_err(StartError::Socket)?;
    let mut worker = Worker {
        name: domain.name.clone(),
        uuid: domain.uuid,
        link,
        process,
        view,
        launched: None,
        facts,
        sockets,
        macvtaps,
        taps,
        holdings,
        tell: teller,
    };
    if fault::is_at(Step::AfterSpawn) {
        worker.process.kill();
    }
    let answer = match early {
        Some(answer) => answer,
        None => crash::around(Operation::Start, launch).await,
    };
    let expected = if hold || placing {
        Phase::Paused
    } else {
        Phase::Running
    };
    let launched = match answer {
        Ok(launched) if launched.phase == expected => launched,
        Ok(launched) => {
            let rule = format!("protocol violation: it says that it is {}", launched.phase);
            let lie = CallError::Refused(WireError::new(ErrorCode::WrongPhase, rule));
            return Err(worker.failed(domain, lie).await);
        }
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
    if placing {
        let cgroup = worker.facts.cgroup.as_deref();
        if let Err(error) = vcpus::place(domain, worker.pid(), cgroup).await {
            let _ = worker.destroy().await;
            return Err(StartError::Vcpus {
                domain: domain.name.clone(),
                error,
            });
        }
        if !hold {
            if let Err(error) = worker.resume().await {
                return Err(worker.failed(domain, error).await);
            }
        }
    }
    if let Some(ledger) = ledger {
        if let Err(error) = ledger.launched() {
            let _ = worker.destroy().await;
            return Err(error);
        }
        // From here on it lives on without us.
        worker.process.kept.store(true, Ordering::Relaxed);
    }
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
                        BootSource::BuiltIn { .. } | BootSource::Firmware => None,
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
