//! Taking over a worker of an earlier supervisor, or what is left of one.
//!
//! ```text
//!   recorded ─ no process ──────────────────────────────────► wait for its end ─► NeverLaunched
//!      │                                   never launched ─► kill ─► NeverLaunched
//!      ├─ pidfd, start time, boot ─ another, none ──────────────────► release ─► Gone
//!      └─ connect ─ hello ─ credentials ─ report ─ digest, phase ─► Adopted
//!                     │                     └─ not believed ─► kill ─► release ─► Gone
//!                     └─ no socket, or nothing within a second ─► Silent, and on in the background
//! ```
//!
//! Whatever is killed is killed by a pidfd of the very process that was recorded; who else answers on
//! its socket is no business of ours.

mod report;

use std::fmt;
use std::future::Future;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reeve_ipc::client::{AdoptError, Adopting, CallError, Incoming, WorkerClient};
use reeve_ipc::message::JailFacts;
use reeve_ipc::model::{DevicePlace, Domain, NicSource, OpenVswitchPort};
use reeve_ipc::phase::Phase;
use reeve_ipc::request::{DeviceQuery, Report, Standing, VcpusQuery};
use reeve_ipc::spec::{NicDriver, PciSlot, SpecDigest};
use reeve_ipc::vcpus::VcpuStanding;
use rustix::io::Errno;
use rustix::process::{Signal, pidfd_send_signal};
use tokio::sync::{mpsc, watch};

pub(super) use self::report::{crashed_unseen, end_of, missed_of};
use super::acceptor::Offer;
use super::instance::KvmInstance;
use super::kept::NOTICES;
use super::log::quoted;
use super::planner::Planner;
use super::supervise::{Heard, Supervision, release};
use super::{Facts, Link, Process, View, Worker, devices};
use crate::crash::{self, Moment, Operation};
use crate::domain::driver::{
    Adoption, DeviceResources, GuestEnd, GuestMemory, Notice, OpenPorts, ProcessIdentity,
    Resources, Running,
};
use crate::domain::plan::NicPolicy;
use crate::host::confinement::Confinement;
use crate::host::filter::{Guarded, WorkerTaps};
use crate::host::holdings::Holdings;
use crate::host::identity::Level;
use crate::host::process::Missing;
use crate::host::sockets::{DeviceSockets, WorkerSockets};
use crate::host::spawner::Child;
use crate::host::tap::{MacvtapRecord, TapId, WorkerMacvtaps};
use crate::host::watch::watch;
use crate::host::{Host, process, reason};
use crate::nwfilter::book::Book;

/// How long a worker may be silent before that is told.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a process that was killed may take to go before it is watched like a silent one.
const KILL_PATIENCE: Duration = Duration::from_secs(1);
/// How long to wait for room among those that want to be heard, and for the end of what was killed.
const AGAIN: Duration = Duration::from_millis(10);
/// How long the end of one of two workers may take, between which a machine was being handed over.
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(2);
/// How long to wait for descriptors or memory of the host's.
const ROOM: Duration = Duration::from_millis(100);
/// How long to wait for a socket's name to come back.
const GONE: Duration = Duration::from_secs(1);
/// How long a worker that answers late may take for its report.
const REPORT_DEADLINE: Duration = Duration::from_secs(24 * 60 * 60);

/// A worker that has answered and is believed.
pub(super) struct Found {
    pub(super) client: WorkerClient,
    pub(super) incoming: mpsc::Receiver<Incoming>,
    pub(super) jail: JailFacts,
    pub(super) standing: Standing,
    /// Where it has devices, if it should have any.
    pub(super) devices: Option<Vec<DevicePlace>>,
    /// Which vCPUs it has, if it has a machine.
    pub(super) vcpus: Option<VcpuStanding>,
    /// What its guest has done with its memory, if it has done anything.
    pub(super) memory: Option<GuestMemory>,
    /// Which ports its guest has open, if it has a serial controller.
    pub(super) ports: Option<(PciSlot, OpenPorts)>,
}

impl fmt::Debug for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Found")
            .field("standing", &self.standing)
            .finish_non_exhaustive()
    }
}

impl Found {
    /// Puts what it said into its view.
    pub(super) fn show(&self, view: &mut View) {
        view.phase = self.standing.phase;
        view.resets = self.standing.resets;
        view.jail = Some(self.jail);
        if let Some(GuestEnd::Crashed(report)) = end_of(&self.standing) {
            view.crash = Some(report);
        }
    }
}

/// The search for a worker, until it has answered: or one line of why it is not believed.
pub(super) type Search = Pin<Box<dyn Future<Output = Result<Box<Found>, String>> + Send>>;

/// What an earlier supervisor recorded, with what a worker held claimed again.
#[derive(Debug)]
pub(super) struct Claim {
    accepted: Instant,
    recorded: Resources,
    holdings: Holdings,
    planner: Planner,
    host: Arc<Host>,
}

impl Claim {
    /// Claims it: from here on nobody else gets the uid.
    pub(super) fn new(host: &Arc<Host>, planner: Planner, recorded: Resources) -> Self {
        let macvtaps = recorded.devices.iter().flat_map(|device| &device.macvtaps);
        let macvtaps = WorkerMacvtaps::recorded(macvtaps);
        let sockets = recorded.device_sockets().cloned().collect();
        let sockets = DeviceSockets::recorded(planner.paths(), sockets);
        Self {
            accepted: Instant::now(),
            holdings: Holdings {
                socket: Some(recorded.socket.clone()),
                device_sockets: WorkerSockets::new(sockets),
                macvtaps,
                confinement: Confinement::adopt(recorded.cgroup.as_deref()),
                identity: host.identities.reclaim(recorded.uid, recorded.own_uid),
            },
            recorded,
            planner,
            host: Arc::clone(host),
        }
    }
}

/// Takes over what was recorded of `domain`.
pub(super) async fn adopt(domain: &Domain, claim: Claim) -> Adoption {
    let Claim {
        accepted,
        recorded,
        holdings,
        planner,
        host,
    } = claim;
    let remains = recorded.devices.iter().filter(|held| held.is_remainder());
    for held in remains {
        let going = holdings.macvtaps.take(&held.macvtaps);
        let ids: Vec<_> = held.macvtaps.iter().map(MacvtapRecord::id).collect();
        let filters = host.network.filters.clone();
        let burying = move || {
            drop(going);
            // Nobody guards them any more who would see them go.
            ids.iter().for_each(|tap| filters.forget(tap));
        };
        let _ = tokio::task::spawn_blocking(burying).await;
    }
    let Some(identity) = survivor(&recorded).await else {
        let adoption = never_launched(holdings, recorded.own_uid).await;
        // Of taps a sweep has been made that were gone by then; a macvtap goes only now.
        forget_filters(&host, recorded).await;
        crash::point(Operation::Adopt, Moment::AfterRelease);
        return adoption;
    };
    let pidfd = match open(domain, &identity).await {
        Ok(pidfd) => pidfd,
        Err(missing) => {
            crash::point(Operation::Adopt, Moment::AfterOutcome);
            release_all(holdings).await;
            forget_filters(&host, recorded).await;
            crash::point(Operation::Adopt, Moment::AfterRelease);
            return Adoption::Gone {
                why: missing.to_string(),
            };
        }
    };
    let network = host.network.clone();
    let (of, devices) = (domain.clone(), recorded.devices.clone());
    let guarding = move || {
        // No filter changes between what is looked up and what is put in its place.
        let book = network.book.read();
        for (tap, guarded) in guarded(&of, &devices, &network, &book) {
            match guarded {
                Some((guarded, true)) => network.filters.guard_held(&tap, guarded),
                Some((guarded, false)) => network.filters.guard_soon(&tap, guarded),
                // It may have had one until it was noted that it has none.
                None => network.filters.release_earlier(&tap),
            }
        }
    };
    let _ = tokio::task::spawn_blocking(guarding).await;
    let tagging = tokio::spawn(set_tags(
        domain.clone(),
        tagged(domain, &recorded.devices),
        planner.clone(),
    ));
    // A switch that hangs holds nobody up; it is set as soon as it does not.
    let _ = tokio::time::timeout(PATIENCE, tagging).await;
    let found = FoundProcess {
        domain,
        facts: Facts {
            accepted,
            uid: recorded.uid,
            level: if recorded.own_uid {
                Level::System
            } else {
                Level::User
            },
            cgroup: recorded.cgroup.clone(),
            adopted: true,
        },
        sockets: holdings.device_sockets.clone(),
        macvtaps: holdings.macvtaps.clone(),
        taps: WorkerTaps::of(&recorded.devices),
        child: Child::adopt(identity.pid, pidfd, holdings),
        planner,
        host,
    };
    if !recorded.launched {
        return match found.end(None).await {
            Ok(()) => Adoption::NeverLaunched,
            Err(silent) => silent,
        };
    }
    let mut search: Search = Box::pin(search(
        domain.clone(),
        (recorded, identity),
        found.planner.clone(),
        found.sockets.clone(),
    ));
    match tokio::time::timeout(PATIENCE, &mut search).await {
        Ok(Ok(answer)) => found.take_over(*answer),
        Ok(Err(why)) => match found.end(Some(&why)).await {
            Ok(()) => Adoption::Gone { why },
            Err(silent) => silent,
        },
        Err(_) => found.watch_silent(Some(search)),
    }
}

/// Deletes the filters of taps that are gone with what held them.
async fn forget_filters(host: &Host, recorded: Resources) {
    let taps = recorded.devices.into_iter().flat_map(|device| device.taps);
    let taps: Vec<_> = taps.collect();
    let filters = host.network.filters.clone();
    let forgetting = move || taps.iter().for_each(|tap| filters.forget(tap));
    let _ = tokio::task::spawn_blocking(forgetting).await;
}

/// Its taps with their filters, which are to be put in their places, whatever has become of them since; or, where that
/// is said, in the place of what is there once that is gone. `None` of a tap that has none.
fn guarded(
    domain: &Domain,
    recorded: &[DeviceResources],
    network: &NicPolicy,
    book: &Book,
) -> Vec<(TapId, Option<(Guarded, bool)>)> {
    let mut devices = domain.devices.clone();
    // A definition that was taken is complete.
    let _ = devices.complete(domain.uuid);
    let network = network.of(domain);
    let of = |device: &DeviceResources| {
        let mut nics = devices.nics.iter();
        let nic = nics.find(|nic| nic.address == Some(device.place.slot))?;
        let mac = nic.mac?;
        let guarded = match network.guarded(nic, mac, book) {
            Ok(guarded) => guarded.map(|guarded| (guarded, false)),
            Err(error) => {
                let (domain, uuid, nic_name) = (&domain.name, domain.uuid, nic.called(0));
                let blocked = network.blocked(nic, mac)?;
                let mut taps = device.taps.iter().map(TapId::numbered);
                let held = taps.all(|tap| network.filters.is_held(&tap, &blocked));
                let what = match held {
                    true => {
                        "the rules of before stay, and no frame passes once those are taken away"
                    }
                    false => "no frame passes",
                };
                tracing::error!(%domain, %uuid, %error, "{nic_name} cannot have its network filter: {what}");
                Some((blocked, held))
            }
        };
        if nic.driver == NicDriver::Vhost && guarded.is_some() {
            // Of before the host kept its guests apart.
            let (domain, uuid, nic) = (&domain.name, domain.uuid, nic.called(0));
            tracing::warn!(
                %domain, %uuid,
                "the kernel moves the frames of {nic}, which has a source filter now: it does not see where the guest has \
                 the kernel write checksums until the domain is shut down and given driver=user"
            );
        }
        let taps = device.taps.iter().map(TapId::numbered);
        Some(
            taps.map(move |tap| (tap, guarded.clone()))
                .collect::<Vec<_>>(),
        )
    };
    recorded.iter().filter_map(of).flatten().collect()
}

/// Its taps that are ports of Open vSwitch, with what the definition has of them.
fn tagged(domain: &Domain, recorded: &[DeviceResources]) -> Vec<(String, OpenVswitchPort)> {
    let mut devices = domain.devices.clone();
    // A definition that was taken is complete.
    let _ = devices.complete(domain.uuid);
    let of = |device: &DeviceResources| {
        let mut nics = devices.nics.iter();
        let nic = nics.find(|nic| nic.address == Some(device.place.slot))?;
        let NicSource::OpenVswitch(port) = &nic.source else {
            return None;
        };
        Some((device.taps.first()?.name.clone(), (**port).clone()))
    };
    recorded.iter().filter_map(of).collect()
}

/// Gives ports the tags that are recorded, which they have already unless a supervisor died as it changed them.
async fn set_tags(domain: Domain, ports: Vec<(String, OpenVswitchPort)>, planner: Planner) {
    for (tap, port) in ports {
        if let Err(error) = planner.set_tags(domain.uuid, tap, port).await {
            let (domain, uuid) = (&domain.name, domain.uuid);
            tracing::warn!(%domain, %uuid, "its tags may not be those of its definition: {error}");
        }
    }
}

/// The process that has the machine: of two between which it was being handed over the one that lives. The
/// other ends when it learns that the machine is not its own, which needs no supervisor.
async fn survivor(recorded: &Resources) -> Option<ProcessIdentity> {
    let process = recorded.process.clone()?;
    let Some(successor) = &recorded.successor else {
        return Some(process);
    };
    let deadline = Instant::now() + HAND_OVER_PATIENCE;
    while Instant::now() < deadline {
        match (lives(&process), lives(successor)) {
            (true, true) => tokio::time::sleep(AGAIN).await,
            (false, true) => return Some(successor.clone()),
            _ => return Some(process),
        }
    }
    // The successor has not taken the machine: it would have told the other to end.
    if let Ok(pidfd) = process::open(successor) {
        let _ = pidfd_send_signal(&pidfd, Signal::KILL);
    }
    Some(process)
}

fn lives(identity: &ProcessIdentity) -> bool {
    let pidfd = process::open(identity);
    pidfd.is_ok_and(|pidfd| !process::has_ended(pidfd.as_fd()))
}

/// Opens the recorded process; waits where that fails for want of something of the host's, since
/// nothing is known of the process then.
async fn open(domain: &Domain, identity: &ProcessIdentity) -> Result<OwnedFd, Missing> {
    let mut told = false;
    loop {
        match process::open(identity) {
            Err(Missing::Refused(errno)) => {
                if !std::mem::replace(&mut told, true) {
                    let (domain, uuid) = (&domain.name, domain.uuid);
                    let reason = reason(errno);
                    tracing::error!(%domain, %uuid, "its worker cannot be watched yet: {reason}");
                }
                tokio::time::sleep(ROOM).await;
            }
            opened => return opened,
        }
    }
}

/// The recorded process, proved to be that, and what it held.
struct FoundProcess<'a> {
    domain: &'a Domain,
    facts: Facts,
    sockets: WorkerSockets,
    macvtaps: WorkerMacvtaps,
    taps: WorkerTaps,
    child: Child,
    planner: Planner,
    host: Arc<Host>,
}

impl FoundProcess<'_> {
    fn take_over(self, mut found: Found) -> Adoption {
        let end = end_of(&found.standing);
        let (devices, planner) = (found.devices.take(), self.planner.clone());
        let host = Arc::clone(&self.host);
        let (resets, console_position) = (found.standing.resets, found.standing.console_position);
        let phase = found.standing.phase;
        let missed = missed_of(&found.standing);
        let mut heard = Heard::up_to(found.standing.last_event, found.vcpus, missed);
        heard.has_memory(found.memory);
        heard.has_ports(found.ports);
        let (worker, supervision, notices) = self.supervised();
        supervision.view.send_modify(|view| found.show(view));
        let _ = supervision.link.set(found.client);
        let (domain, uuid, pid) = (&worker.name, worker.uuid, worker.pid());
        tracing::info!(%domain, %uuid, pid, "adopted");
        match supervision.begin(found.incoming, None, heard) {
            Ok(()) => Adoption::Adopted {
                running: running(worker, host, planner, notices, phase),
                end,
                resets,
                console_position,
                devices,
            },
            Err(error) => unwatched(&error),
        }
    }

    fn watch_silent(self, search: Option<Search>) -> Adoption {
        let (host, planner) = (Arc::clone(&self.host), self.planner.clone());
        let (worker, supervision, notices) = self.supervised();
        let (domain, uuid, pid) = (&worker.name, worker.uuid, worker.pid());
        tracing::warn!(%domain, %uuid, pid, "the worker does not answer");
        match supervision.begin_silent(search) {
            Ok(()) => Adoption::Silent(running(worker, host, planner, notices, Phase::Running)),
            Err(error) => unwatched(&error),
        }
    }

    /// Kills the process, for a reason or because it was never launched, and releases what it held;
    /// where the kernel does not let it go at once, it is watched until it does.
    async fn end(mut self, why: Option<&str>) -> Result<(), Adoption> {
        let (domain, uuid) = (&self.domain.name, self.domain.uuid);
        let process = Process::new(&self.child);
        if !process::has_ended(process.pidfd.as_fd()) {
            match why {
                Some(why) => tracing::error!(%domain, %uuid, "the worker is killed: {why}"),
                None => tracing::info!(%domain, %uuid, "a worker without a machine is ended"),
            }
            process.kill();
        }
        let ended = async {
            let pidfd = watch(Arc::clone(&process.pidfd))?;
            pidfd.readable().await.map(drop)
        };
        match tokio::time::timeout(KILL_PATIENCE, ended).await {
            Ok(Ok(())) => {
                self.child.reap();
                crash::point(Operation::Adopt, Moment::AfterOutcome);
                release(self.child).await;
                crash::point(Operation::Adopt, Moment::AfterRelease);
                Ok(())
            }
            _ => Err(self.watch_silent(None)),
        }
    }

    fn supervised(self) -> (Worker, Supervision, mpsc::Receiver<Notice>) {
        let process = Arc::new(Process::new(&self.child));
        let holdings = self.child.holdings();
        let link = Link::default();
        let (tell, notices) = mpsc::channel(NOTICES);
        let teller = tell.downgrade();
        let (publish, view) = watch::channel(View {
            phase: Phase::Running,
            jail: None,
            resets: 0,
            crash: None,
            death: None,
        });
        let (name, uuid) = (self.domain.name.clone(), self.domain.uuid);
        let supervision = Supervision {
            name: name.clone(),
            uuid,
            process: Arc::clone(&process),
            view: publish,
            link: Arc::clone(&link),
            tell: Some(tell),
            child: self.child,
        };
        let worker = Worker {
            name,
            uuid,
            link,
            process,
            view,
            launched: None,
            facts: self.facts,
            sockets: self.sockets,
            macvtaps: self.macvtaps,
            taps: self.taps,
            holdings,
            tell: Some(teller),
        };
        (worker, supervision, notices)
    }
}

fn running(
    worker: Worker,
    host: Arc<Host>,
    planner: Planner,
    notices: mpsc::Receiver<Notice>,
    phase: Phase,
) -> Running {
    Running {
        instance: Arc::new(KvmInstance::new(worker, host, planner)),
        notices,
        phase,
    }
}

/// Only the end of the runtime, or of this process' descriptors, keeps a pidfd from being watched.
fn unwatched(error: &std::io::Error) -> Adoption {
    Adoption::Gone {
        why: format!("its process cannot be watched, and was left alone: {error}"),
    }
}

/// Releases what a process held that is gone, or was to hold.
pub(super) async fn release_all(holdings: Holdings) {
    if holdings.takes_time() {
        // As for a child: a cgroup may have to be waited for.
        let _ = tokio::task::spawn_blocking(move || drop(holdings)).await;
    }
}

/// There was no process when the supervisor died, or it had not been noted; no launch was sent then. A
/// process without one ends by itself as its control socket closes; one that does not is killed, where
/// its uid tells which it is: not where another domain got that uid since.
async fn never_launched(holdings: Holdings, own_uid: bool) -> Adoption {
    let uid = holdings.identity.uid;
    let deadline = Instant::now() + KILL_PATIENCE;
    let is_known = || own_uid && !holdings.identity.is_shared();
    while is_known() && process::kill_all_of(uid) && Instant::now() < deadline {
        tokio::time::sleep(AGAIN).await;
    }
    release_all(holdings).await;
    Adoption::NeverLaunched
}

/// Finds the worker behind its socket, however long that takes.
async fn search(
    domain: Domain,
    (recorded, identity): (Resources, ProcessIdentity),
    planner: Planner,
    sockets: WorkerSockets,
) -> Result<Box<Found>, String> {
    let socket = loop {
        match reeve_ipc::local::connect_warily(&recorded.socket) {
            Ok(socket) => break socket,
            // Others wait to be heard.
            Err(Errno::AGAIN) => tokio::time::sleep(AGAIN).await,
            // That is no fault of the worker's.
            Err(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS) => {
                tokio::time::sleep(ROOM).await;
            }
            // Somebody removed it, which is no fault of the guest's either: it runs on, out of reach,
            // until the socket is put back or the domain is destroyed.
            Err(Errno::NOENT) if lives(&identity) => tokio::time::sleep(GONE).await,
            Err(errno) => return Err(unreachable_at(&recorded.socket, errno)),
        }
    };
    let refused = |error: AdoptError| quoted(&error.to_string());
    let mut adopting = Adopting::begin(socket, domain.name.as_str()).map_err(refused)?;
    let hello = adopting.hello().await.map_err(refused)?;
    if (hello.pid, hello.uid) != (identity.pid, recorded.uid) {
        return Err(format!(
            "process {} of uid {} answers on its socket, not process {} of uid {}",
            hello.pid, hello.uid, identity.pid, recorded.uid
        ));
    }
    let refused = |error: CallError| quoted(&error.to_string());
    let adopted = adopting.accept(hello).map_err(refused)?;
    let report = Report { events_after: 0 };
    let report = adopted.client.call(report, REPORT_DEADLINE);
    let standing = crash::around(Operation::Adopt, report).await;
    let standing = standing.map_err(refused)?;
    report::check(&standing, SpecDigest(recorded.digest))?;
    if let Some(last) = &standing.last_request {
        adopted.client.go_on_after(last.id);
    }
    // Those that went while nobody heard are not there, and one that was asked for last may be.
    let (devices, memory, ports) = match domain.devices.count() {
        1.. => {
            let query = adopted.client.call(DeviceQuery {}, REPORT_DEADLINE);
            let reports = query.await.map_err(refused)?;
            let memory = devices::memory_of(&reports);
            let ports = devices::ports_of(&reports);
            (Some(devices::places(&reports)?), memory, ports)
        }
        0 => (None, None, None),
    };
    // Who answered for its guest's connections was the supervisor before.
    if let Some(offer) = Offer::make(&planner, &domain).await {
        let given = offer.give(&adopted.client, REPORT_DEADLINE).await;
        if let Some(acceptor) = given.map_err(refused)? {
            sockets.replace(acceptor);
        }
    }
    let vcpus = match standing.phase.has_machine() {
        true => {
            let query = adopted.client.call(VcpusQuery {}, REPORT_DEADLINE);
            let vcpus = query.await.map_err(refused)?;
            devices::vcpus_of(&vcpus)?;
            Some(vcpus)
        }
        false => None,
    };
    Ok(Box::new(Found {
        vcpus,
        client: adopted.client,
        incoming: adopted.incoming,
        jail: adopted.jail,
        standing,
        devices,
        memory,
        ports,
    }))
}

fn unreachable_at(socket: &Path, errno: Errno) -> String {
    format!(
        "nobody can be reached on its socket {}: {}",
        socket.display(),
        reason(errno)
    )
}
