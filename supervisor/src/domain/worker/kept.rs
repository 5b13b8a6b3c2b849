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
use std::time::Instant;

use reeve_ipc::model::DomainName;
use reeve_ipc::spec::SpecDigest;
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::sync::mpsc;

use super::adopt::release_all;
use super::planner::Planner;
use super::start::{Launching, StartError, check_vcpus, launch};
use super::{REAP_DEADLINE, Worker};
use crate::crash::{self, Moment, Operation};
use crate::domain::driver::{Notice, Recorder, Resources, StartOrder};
use crate::host::confinement::ConfinementPlan;
use crate::host::holdings::Holdings;
use crate::host::identity::Level;
use crate::host::shares::Sharer;
use crate::host::sockets::{DeviceSockets, WorkerSockets};
use crate::host::tap::WorkerMacvtaps;
use crate::host::{Host, process};

/// The socket's name in the domain's directory.
const SOCKET: &str = "adopt";
/// Supervisors that may wait to be heard by a worker that does not listen: as many may come and die
/// while it is stopped.
const BACKLOG: i32 = 64;
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
    let confinement = ConfinementPlan::look(domain, &host.cgroups).await?;
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
        macvtaps: WorkerMacvtaps::new(Vec::new()),
        confinement: confinement.make()?,
        identity,
    };
    crash::point(Operation::Start, Moment::AfterCgroup);
    let listens = ledger.resources.device_sockets().next().is_some();
    let making = async {
        plan.wait_on(listen(&socket)?)?;
        if listens {
            let mut sockets;
            (plan, sockets) = planner.listen(domain.uuid, plan).await?;
            sockets.serve(&host.connectors, &domain.name, domain.uuid);
            holdings.device_sockets.add(sockets);
        }
        if plan.makes_macvtaps() {
            let macvtaps;
            (plan, macvtaps) = planner.make_macvtaps(domain.uuid, plan).await?;
            holdings.macvtaps.add(macvtaps);
        }
        if plan.is_served() {
            let sharer = Sharer {
                uid: holdings.identity.uid,
                level: holdings.identity.level,
                cgroup: holdings.confinement.path(),
            };
            plan = planner.serve(domain.uuid, plan, sharer).await?;
        }
        Ok::<_, StartError>(plan)
    };
    let plan = match making.await {
        Ok(plan) => plan,
        Err(error) => {
            release_all(holdings).await;
            return Err(error);
        }
    };
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
