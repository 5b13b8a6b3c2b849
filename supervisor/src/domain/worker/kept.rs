//! How the daemon starts a worker that outlives it: each thing is recorded before it is made.
//!
//! ```text
//!   plan ─ choose uid, cgroup, socket, digest ─ record ─ cgroup, socket ─ spawn ─ record the process
//!        ─ Launch ─ Launched ─ record that ─ kept
//! ```
//!
//! The second record is written while the worker closes its jail, and so costs no time. Until the
//! last one, dropping the future or an error undoes all of it.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reeve_ipc::model::{Domain, DomainName};
use reeve_ipc::spec::{ControlLoss, PciSlot, SpecDigest};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::sync::{Semaphore, mpsc};

use super::start::{Launching, StartError, check_vcpus, launch};
use super::{REAP_DEADLINE, Worker};
use crate::crash::{self, Moment, Operation};
use crate::domain::driver::{Notice, Recorder, Resources, StartOrder};
use crate::domain::plan::{self, DevicePlan, NicPolicy, PathPolicy, Plan, PlanError, PlanOptions};
use crate::host::confinement::ConfinementPlan;
use crate::host::holdings::Holdings;
use crate::host::identity::Level;
use crate::host::shares::{ShareServers, Sharer};
use crate::host::sockets::{DeviceSockets, WorkerSockets};
use crate::host::{Host, process};

/// The socket's name in the domain's directory.
const SOCKET: &str = "adopt";
/// Supervisors that may wait to be heard by a worker that does not listen: as many may come and die
/// while it is stopped.
const BACKLOG: i32 = 64;
/// Starts that are planned at once.
const MAX_PLANNING: usize = 32;
/// How long one may wait for its turn.
const PLACE_DEADLINE: Duration = Duration::from_secs(10);
/// How long what a device of a running machine needs may take to be opened.
const DEVICE_DEADLINE: Duration = Duration::from_secs(30);
/// Notices that wait for the actor.
pub(super) const NOTICES: usize = 32;

/// What a worker holds, as it is recorded while it is made.
#[derive(Debug)]
pub(super) struct Ledger {
    domain: DomainName,
    recorder: Arc<dyn Recorder>,
    resources: Resources,
}

impl Ledger {
    fn record(&self) -> Result<(), StartError> {
        self.recorder
            .record(&self.resources)
            .map_err(|message| StartError::Record {
                domain: self.domain.clone(),
                message,
            })
    }

    /// There is a process.
    pub(super) fn spawned(&mut self, pid: u32) -> Result<(), StartError> {
        // One that died already is found out by the launch.
        self.resources.process = process::identify(pid);
        self.record()
    }

    /// There is a machine.
    pub(super) fn launched(&mut self) -> Result<(), StartError> {
        self.resources.launched = true;
        self.record()
    }
}

/// Workers whose start was dropped when they were supervised already: each is killed, and its end
/// heard of here.
#[derive(Debug, Default)]
pub(super) struct GivenUp {
    ends: Mutex<Vec<mpsc::Receiver<Notice>>>,
}

impl GivenUp {
    fn ends(&self) -> MutexGuard<'_, Vec<mpsc::Receiver<Notice>>> {
        // Nothing panics while it is held.
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until all of them are gone and what they held is released, as long as for any that was
    /// killed.
    pub(super) async fn gone(&self) {
        let ends = std::mem::take(&mut *self.ends());
        let gone = async {
            for mut end in ends {
                while end.recv().await.is_some() {}
            }
        };
        let _ = tokio::time::timeout(REAP_DEADLINE, gone).await;
    }
}

/// The notices of a worker that is being started; given up where the start is.
struct Starting<'a> {
    notices: mpsc::Receiver<Notice>,
    given_up: &'a GivenUp,
}

impl Starting<'_> {
    fn finish(mut self) -> mpsc::Receiver<Notice> {
        self.take()
    }

    /// Leaves one that tells nothing.
    fn take(&mut self) -> mpsc::Receiver<Notice> {
        std::mem::replace(&mut self.notices, mpsc::channel(1).1)
    }
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        let notices = self.take();
        if !notices.is_closed() {
            self.given_up.ends().push(notices);
        }
    }
}

/// Plans starts on threads that may wait for a file system: what does not answer holds up the start that
/// named it, and no other domain while fewer than [`MAX_PLANNING`] wait. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Planner {
    paths: Arc<dyn PathPolicy>,
    shares: ShareServers,
    network: NicPolicy,
    places: Arc<Semaphore>,
}

impl Planner {
    pub(super) fn new(paths: Arc<dyn PathPolicy>, host: &Host) -> Self {
        Self {
            paths,
            shares: host.shares.clone(),
            network: host.network.clone(),
            places: Arc::new(Semaphore::new(MAX_PLANNING)),
        }
    }

    async fn plan(
        &self,
        host: &Host,
        order: &StartOrder,
        digest: SpecDigest,
    ) -> Result<Plan, PlanError> {
        let (paths, cpuid) = (Arc::clone(&self.paths), host.cpuid.clone());
        let (domain, hold, network) = (order.domain.clone(), order.paused, self.network.clone());
        self.work(move || {
            let options = PlanOptions {
                paths: paths.as_ref(),
                network,
                kept: Some(digest),
                hold,
                console: None,
                on_control_loss: ControlLoss::KeepRunning,
            };
            plan::plan(&domain, &cpuid, options)
        })
        .await
    }

    /// Binds what the plan's devices listen on.
    async fn listen(&self, mut plan: Plan) -> Result<(Plan, DeviceSockets), PlanError> {
        let paths = Arc::clone(&self.paths);
        self.work(move || {
            let sockets = plan.listen(paths.as_ref())?;
            Ok((plan, sockets))
        })
        .await
    }

    /// Starts what serves the plan's shared directories.
    async fn serve(&self, mut plan: Plan, sharer: Sharer) -> Result<Plan, PlanError> {
        let shares = self.shares.clone();
        self.work(move || plan.serve(&shares, &sharer).map(|()| plan))
            .await
    }

    /// Starts what serves a planned device's directory.
    pub(super) async fn device_serve(
        &self,
        mut plan: DevicePlan,
        sharer: Sharer,
    ) -> Result<DevicePlan, PlanError> {
        let shares = self.shares.clone();
        self.work(move || plan.serve(&shares, &sharer).map(|()| plan))
            .await
    }

    /// Plans a device of a machine that runs. A file system that does not answer is given up on.
    pub(super) async fn device(
        &self,
        domain: Domain,
        slot: PciSlot,
    ) -> Result<DevicePlan, PlanError> {
        let (paths, network) = (Arc::clone(&self.paths), self.network.clone());
        let planning =
            self.work(move || plan::plan_device(&domain, slot, paths.as_ref(), &network));
        let planned = tokio::time::timeout(DEVICE_DEADLINE, planning).await;
        planned.unwrap_or(Err(PlanError::NoAnswer(DEVICE_DEADLINE.as_secs())))
    }

    /// Binds what a planned device listens on.
    pub(super) async fn device_listen(
        &self,
        mut plan: DevicePlan,
    ) -> Result<(DevicePlan, DeviceSockets), PlanError> {
        let paths = Arc::clone(&self.paths);
        let binding = self.work(move || {
            let sockets = plan.listen(paths.as_ref())?;
            Ok((plan, sockets))
        });
        let bound = tokio::time::timeout(DEVICE_DEADLINE, binding).await;
        bound.unwrap_or(Err(PlanError::NoAnswer(DEVICE_DEADLINE.as_secs())))
    }

    /// Who opens what definitions name.
    pub(super) fn paths(&self) -> Arc<dyn PathPolicy> {
        Arc::clone(&self.paths)
    }

    /// Does what may wait for a file system, once there is a place for it.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, PlanError> + Send + 'static,
    ) -> Result<T, PlanError> {
        let place = Arc::clone(&self.places).acquire_owned();
        let Ok(Ok(place)) = tokio::time::timeout(PLACE_DEADLINE, place).await else {
            return Err(PlanError::Stalled(MAX_PLANNING));
        };
        let working = tokio::task::spawn_blocking(move || {
            // Held until it is done, even where nobody waits for it any more.
            let _place = place;
            work()
        });
        match working.await {
            Ok(done) => done,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime ends, and this future with it.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

/// Starts a worker for the daemon.
pub(super) async fn start(
    host: &Host,
    planner: &Planner,
    order: &StartOrder,
    recorder: Arc<dyn Recorder>,
    given_up: &GivenUp,
) -> Result<(Worker, mpsc::Receiver<Notice>), StartError> {
    let accepted = Instant::now();
    let domain = &order.domain;
    check_vcpus(domain)?;
    let digest = draw_digest();
    let mut plan = planner.plan(host, order, digest).await?;
    let confinement = ConfinementPlan::new(domain, &host.cgroups)?;
    let identity = host.identities.claim()?;
    let socket = order.directory.join(SOCKET);
    let mut ledger = Ledger {
        domain: domain.name.clone(),
        recorder,
        resources: Resources {
            uid: identity.uid,
            own_uid: identity.level == Level::System,
            cgroup: confinement.path().map(Path::to_owned),
            socket: socket.clone(),
            digest: digest.0,
            process: None,
            successor: None,
            launched: false,
            devices: plan.held(),
        },
    };
    ledger.record()?;
    let holdings = Holdings {
        socket: Some(socket.clone()),
        device_sockets: WorkerSockets::new(DeviceSockets::default()),
        confinement: confinement.make()?,
        identity,
    };
    crash::point(Operation::Start, Moment::AfterCgroup);
    plan.wait_on(listen(&socket)?)?;
    if ledger.resources.device_sockets().next().is_some() {
        let sockets;
        (plan, sockets) = planner.listen(plan).await?;
        holdings.device_sockets.add(sockets);
    }
    if plan.shares() {
        let sharer = Sharer {
            uid: holdings.identity.uid,
            level: holdings.identity.level,
            cgroup: holdings.confinement.path(),
        };
        plan = planner.serve(plan, sharer).await?;
    }
    crash::point(Operation::Start, Moment::AfterSocket);
    let (tell, notices) = mpsc::channel(NOTICES);
    // Declared before the launch: dropped after all that it made.
    let starting = Starting { notices, given_up };
    let launching = Launching {
        accepted,
        plan,
        holdings,
        tell: Some(tell),
        ledger: Some(&mut ledger),
    };
    let launched = launch(host, domain, launching).await;
    // A launch that fails has waited for the end of what it made.
    let notices = starting.finish();
    Ok((launched?, notices))
}

/// Binds the socket in place of whatever an earlier start left.
fn listen(path: &Path) -> Result<OwnedFd, StartError> {
    let refuse = |errno| StartError::Listen {
        path: path.to_owned(),
        errno,
    };
    match rustix::fs::unlink(path) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(refuse(errno)),
    }
    let mode = Mode::RUSR | Mode::WUSR;
    reeve_ipc::local::listen(path, mode, BACKLOG).map_err(refuse)
}

/// 128 bits that nobody else has.
fn draw_digest() -> SpecDigest {
    let mut digest = [0; 16];
    // Up to 256 bytes come whole, and without waiting once the host has booted (getrandom(2)).
    let _ = getrandom(&mut digest, GetRandomFlags::empty());
    SpecDigest(digest)
}
