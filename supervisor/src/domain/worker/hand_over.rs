//! A fresh worker takes a machine over from one that runs: for a newer build, without the guest noticing.
//!
//! ```text
//!   spawn ─ record the successor ─ HandOver to the old one ∥ TakeOver to the new one
//!     │       any failure: the new one is killed, the machine goes on in the old one
//!     └─ SwitchOver to the new one ─ record it alone ─ the old one ends and is buried in silence
//! ```
//!
//! The two workers settle between themselves which of them has the machine (`reeve_ipc::transfer`), so that
//! a supervisor which dies on the way leaves one that runs; the record names both, and the next supervisor
//! takes over the one that lives. What the domain holds of the host is both workers' meanwhile.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reeve_ipc::client::{CallError, Incoming, WorkerClient};
use reeve_ipc::fd::FdTable;
use reeve_ipc::model::Domain;
use reeve_ipc::phase::Phase;
use reeve_ipc::request::{HandOver, SwitchOver, SwitchedOver, TakeOver};
use reeve_ipc::scm;
use reeve_ipc::spec::ControlLoss;
use rustix::process::{Signal, pidfd_send_signal};
use tokio::sync::{mpsc, watch};

use super::acceptor::Offer;
use super::instance::failure;
use super::log::{LogSocket, quoted};
use super::planner::Planner;
use super::supervise::{Heard, Supervision};
use super::{CALL_DEADLINE, Link, Process, View, Worker};
use crate::crash::{self, Operation};
use crate::domain::driver::{
    CallFailure, Notice, StartFailure, StartFailureKind, SuccessionLedger,
};
use crate::domain::plan::open_kvm;
use crate::host::holdings::SharedHoldings;
use crate::host::spawner::{Child, Order};
use crate::host::{Host, memory_nodes, process, reason, vcpus};

/// How long the machine may take to be sent, and built again.
const HAND_OVER_DEADLINE: Duration = Duration::from_secs(20);
/// The threads of a machine, twice, are all that a limit must have room for meanwhile.
const PIDS_FACTOR: u32 = 2;

/// The process to which a machine is being handed, to be killed with the other.
#[derive(Debug, Clone, Default)]
pub(super) struct Heir(Arc<Mutex<Option<Arc<OwnedFd>>>>);

impl Heir {
    /// There is none any more, or it has the machine and is reached otherwise.
    pub(super) fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn set(&self, pidfd: Arc<OwnedFd>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(pidfd);
    }

    /// Kills it, if there is one.
    pub(super) fn kill(&self) {
        if let Some(pidfd) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = pidfd_send_signal(pidfd, Signal::KILL);
        }
    }
}

/// Has a fresh worker take over what `old` runs; gives it once it has. Run it as a task of its own: it is
/// not to be dropped half way.
pub(super) async fn hand_over(
    (host, planner): (&Host, &Planner),
    domain: &Domain,
    old: &Worker,
    ledger: &dyn SuccessionLedger,
    heir: &Heir,
) -> Result<Worker, CallFailure> {
    // The end of the old one is judged when this is over.
    let _turn = old.process.handing.lock().await;
    let accepted = Instant::now();
    // A kept worker that lives has somebody to tell.
    let tell = old.tell.as_ref().and_then(mpsc::WeakSender::upgrade);
    let tell = tell.ok_or(CallFailure::Gone)?;
    let holdings = old.holdings.share().ok_or(CallFailure::Gone)?;
    let room = Room::make(domain, &holdings)?;
    let fresh = Fresh::spawn(host, domain, holdings).await?;
    heir.set(Arc::clone(&fresh.child.pidfd));
    let offer = Offer::make(planner, domain).await;
    let result = fresh.succeed(domain, old, offer, tell, ledger, accepted);
    let result = result.await;
    drop(room);
    let (domain, uuid) = (&domain.name, domain.uuid);
    match &result {
        Ok((worker, switched)) => {
            let (pid, stood_us) = (worker.pid(), switched.stood_ns / 1000);
            tracing::info!(%domain, %uuid, pid, stood_us, "another worker has taken its machine over");
        }
        Err(error) => {
            if let Err(error) = ledger.appoint(None) {
                // It is dead, which whoever reads the record finds out.
                tracing::warn!(%domain, %uuid, error, "the status could not be written");
            }
            tracing::warn!(%domain, %uuid, "no other worker took its machine over: {error}");
        }
    }
    result.map(|(worker, _)| worker)
}

/// Room for the threads of two workers within a limit of the domain's.
struct Room<'a> {
    holdings: SharedHoldings,
    limit: Option<u32>,
    domain: &'a Domain,
}

impl<'a> Room<'a> {
    fn make(domain: &'a Domain, holdings: &SharedHoldings) -> Result<Self, CallFailure> {
        let limit = domain.limits.pids;
        if let Some(limit) = limit {
            let held = holdings.held();
            let raised = held.confinement.set_pids(limit.saturating_mul(PIDS_FACTOR));
            raised
                .map_err(|error| not_made(format!("cannot raise its limit of threads: {error}")))?;
        }
        Ok(Self {
            holdings: holdings.clone(),
            limit,
            domain,
        })
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        let Some(limit) = self.limit else { return };
        if let Err(error) = self.holdings.held().confinement.set_pids(limit) {
            let (domain, uuid) = (&self.domain.name, self.domain.uuid);
            tracing::warn!(%domain, %uuid, %error, "its limit of threads stays raised");
        }
    }
}

/// A worker without a machine, nobody's but ours yet: it is killed and reaped when this is dropped.
struct Fresh {
    child: Child,
    client: WorkerClient,
    incoming: mpsc::Receiver<Incoming>,
    log: LogSocket,
}

impl Fresh {
    async fn spawn(
        host: &Host,
        domain: &Domain,
        holdings: SharedHoldings,
    ) -> Result<Self, CallFailure> {
        let (control, worker_control) = scm::pair().map_err(not_made)?;
        let (log, worker_log) = scm::pair().map_err(not_made)?;
        scm::refuse_rights(control.as_fd());
        let log = LogSocket::new(log).map_err(not_made)?;
        let order = Order {
            name: domain.name.clone(),
            control: worker_control,
            log: worker_log,
            on_control_loss: ControlLoss::KeepRunning,
            memory_policy: memory_nodes::policy(domain),
            holdings,
        };
        let child = host.spawner.spawn(order).await.map_err(not_made)?;
        let started = WorkerClient::start(control, domain.name.as_str()).await;
        let (client, incoming) = started.map_err(not_made)?;
        Ok(Self {
            child,
            client,
            incoming,
            log,
        })
    }

    /// Takes the machine over.
    async fn succeed(
        self,
        domain: &Domain,
        old: &Worker,
        offer: Option<Offer>,
        tell: mpsc::Sender<Notice>,
        ledger: &dyn SuccessionLedger,
        accepted: Instant,
    ) -> Result<(Worker, SwitchedOver), CallFailure> {
        let identity = process::identify(self.child.pid)
            .ok_or_else(|| not_made("the fresh worker is gone already"))?;
        ledger.appoint(Some(identity)).map_err(not_made)?;
        self.receive(old).await?;
        // Before the guest, which loses its connections and soon opens others, goes on.
        let acceptor = match offer {
            Some(offer) => offer
                .give(&self.client, CALL_DEADLINE)
                .await
                .map_err(told)?,
            None => None,
        };
        if vcpus::need_placing(domain) {
            let cgroup = old.facts.cgroup.as_deref();
            let placed = vcpus::place(domain, self.child.pid, cgroup).await;
            placed.map_err(not_made)?;
        }
        old.process.handed.store(true, Ordering::Relaxed);
        let switching = self.client.call(SwitchOver {}, CALL_DEADLINE);
        let switched = match crash::around(Operation::HandOver, switching).await {
            Ok(switched) => switched,
            Err(error) => {
                old.process.handed.store(false, Ordering::Relaxed);
                return Err(told(error));
            }
        };
        // It ends by itself, unless it is not what it should be.
        old.process.kill();
        ledger.succeeded();
        if let Some(acceptor) = acceptor {
            old.sockets.replace(acceptor);
        }
        let worker = self.supervised(domain, old, tell, switched.phase, accepted)?;
        Ok((worker, switched))
    }

    /// Has the old worker send the machine and this one build it.
    async fn receive(&self, old: &Worker) -> Result<(), CallFailure> {
        let (give, take) = scm::pair().map_err(not_made)?;
        let mut giving = FdTable::new();
        let to = giving.push(give).map_err(not_made)?;
        let mut taking = FdTable::new();
        let from = taking.push(take).map_err(not_made)?;
        let kvm = open_kvm().map_err(|errno| not_made(reason(errno)))?;
        let kvm = taking.push(kvm).map_err(not_made)?;
        let given = old.call_with(HandOver { to }, giving, HAND_OVER_DEADLINE);
        let taken = self
            .client
            .call_with(TakeOver { from, kvm }, taking, HAND_OVER_DEADLINE);
        let (given, taken) = tokio::join!(given, taken);
        given.map_err(|error| failure(old, error))?;
        match taken {
            Ok(launched) if launched.phase == Phase::Paused => Ok(()),
            Ok(_) => Err(CallFailure::Refused(
                "protocol violation: a fresh worker runs what is not its own yet".to_owned(),
            )),
            Err(error) => Err(told(error)),
        }
    }

    /// The machine is this one's: it is kept, and watched as the other was.
    fn supervised(
        self,
        domain: &Domain,
        old: &Worker,
        tell: mpsc::Sender<Notice>,
        phase: Phase,
        accepted: Instant,
    ) -> Result<Worker, CallFailure> {
        let process = Arc::new(Process::new(&self.child));
        process.kept.store(true, Ordering::Relaxed);
        let holdings = self.child.holdings();
        let link = Link::default();
        let _ = link.set(self.client);
        let before = old.view();
        let (publish, view) = watch::channel(View {
            // Its events, which are still to be read, lead on from here.
            phase: Phase::AwaitingLaunch,
            jail: None,
            resets: before.resets,
            crash: None,
            death: None,
        });
        tracing::debug!(%phase, "the machine is another worker's");
        let teller = tell.downgrade();
        let supervision = Supervision {
            name: domain.name.clone(),
            uuid: domain.uuid,
            process: Arc::clone(&process),
            view: publish,
            link: Arc::clone(&link),
            tell: Some(tell),
            child: self.child,
        };
        supervision
            .begin(self.incoming, Some(self.log), Heard::default())
            .map_err(not_made)?;
        let mut facts = old.facts.clone();
        facts.accepted = accepted;
        facts.adopted = false;
        Ok(Worker {
            name: domain.name.clone(),
            uuid: domain.uuid,
            link,
            process,
            view,
            launched: old.launched.clone(),
            facts,
            sockets: old.sockets.clone(),
            macvtaps: old.macvtaps.clone(),
            taps: old.taps.clone(),
            holdings,
            tell: Some(teller),
        })
    }
}

/// What the fresh worker said or did.
fn told(error: CallError) -> CallFailure {
    match error {
        CallError::Refused(error) => CallFailure::Refused(quoted(&error.message)),
        error => CallFailure::Refused(format!("the fresh worker: {error}")),
    }
}

fn not_made(error: impl std::fmt::Display) -> CallFailure {
    CallFailure::NotMade(StartFailure {
        kind: StartFailureKind::Host,
        message: format!("cannot make a worker to hand it to: {error}"),
    })
}
