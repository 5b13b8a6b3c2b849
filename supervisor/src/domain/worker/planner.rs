//! Where what definitions name is opened: on threads that may wait for a file system, few enough at a time.
//!
//! ```text
//!   work of a domain ─► one of the domain's places ─► one of all places ─► a thread
//!                       few: a mount that is dead         held until the thread is done,
//!                       takes no more from others         even where nobody waits for it
//! ```

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use reeve_ipc::fd::FdTable;
use reeve_ipc::model::{DevicePlace, Domain, DomainUuid, OpenVswitchPort};
use reeve_ipc::spec::{ControlLoss, LayerSpec, PciSlot, SpecDigest};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::domain::driver::StartOrder;
use crate::domain::plan::{
    self, DevicePlan, Files, NicPolicy, PathPolicy, Plan, PlanError, PlanOptions,
};
use crate::host::Host;
use crate::host::image_reader::ImageReader;
use crate::host::shares::{ShareServers, Sharer};
use crate::host::sockets::DeviceSockets;
use crate::host::sockets::acceptor::{Acceptor, Connectors};
use crate::host::tap::{Macvtap, TapId};

/// Threads that wait for files at once.
const MAX_PLANNING: usize = 32;
/// Of these for one domain. It has one thing done at a time; more are left behind by what was given up
/// because its files did not come.
const MAX_OF_ONE: usize = 4;
/// How long one may wait for its turn.
const PLACE_DEADLINE: Duration = Duration::from_secs(10);
/// How long what a device of a running machine needs may take to be opened.
const DEVICE_DEADLINE: Duration = Duration::from_secs(30);
/// How long the directory of a guest's socket may take to be opened, of a worker that is found or takes over.
const ACCEPTOR_DEADLINE: Duration = Duration::from_secs(1);

/// Plans starts and devices: what does not answer holds up the domain that named it and no other. Cheap to
/// clone.
#[derive(Debug, Clone)]
pub(super) struct Planner {
    paths: Arc<dyn PathPolicy>,
    shares: ShareServers,
    images: ImageReader,
    network: NicPolicy,
    connectors: Connectors,
    places: Places,
}

/// Places for what may wait. Cheap to clone.
#[derive(Debug, Clone)]
struct Places {
    all: Arc<Semaphore>,
    /// Of the domains that have any taken.
    of_one: Arc<Mutex<HashMap<DomainUuid, Weak<Semaphore>>>>,
}

/// One of a domain's places, and of all.
#[derive(Debug)]
struct Place {
    _of_all: OwnedSemaphorePermit,
    _of_one: OwnedSemaphorePermit,
}

impl Places {
    fn new() -> Self {
        Self {
            all: Arc::new(Semaphore::new(MAX_PLANNING)),
            of_one: Arc::default(),
        }
    }

    /// Waits for a place for `domain`, for so long at most.
    async fn take(&self, domain: DomainUuid, patience: Duration) -> Result<Place, PlanError> {
        let taking = async {
            let of_one = self.of(domain).acquire_owned().await.ok()?;
            let of_all = Arc::clone(&self.all).acquire_owned().await.ok()?;
            Some(Place {
                _of_all: of_all,
                _of_one: of_one,
            })
        };
        if let Ok(Some(place)) = tokio::time::timeout(patience, taking).await {
            return Ok(place);
        }
        Err(match self.all.available_permits() {
            0 => PlanError::Stalled(MAX_PLANNING),
            _ => PlanError::StalledBefore(MAX_OF_ONE),
        })
    }

    fn of(&self, domain: DomainUuid) -> Arc<Semaphore> {
        // Nothing panics while it is held.
        let mut of_one = self.of_one.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(places) = of_one.get(&domain).and_then(Weak::upgrade) {
            return places;
        }
        of_one.retain(|_, places| places.strong_count() > 0);
        let places = Arc::new(Semaphore::new(MAX_OF_ONE));
        of_one.insert(domain, Arc::downgrade(&places));
        places
    }
}

impl Planner {
    pub(super) fn new(paths: Arc<dyn PathPolicy>, host: &Host) -> Self {
        Self {
            paths,
            shares: host.shares.clone(),
            images: host.images.clone(),
            network: host.network.clone(),
            connectors: host.connectors.clone(),
            places: Places::new(),
        }
    }

    /// Plans a start.
    pub(super) async fn plan(
        &self,
        host: &Host,
        order: &StartOrder,
        digest: SpecDigest,
    ) -> Result<Plan, PlanError> {
        let (paths, cpuid) = (Arc::clone(&self.paths), host.cpuid.clone());
        let (images, network) = (self.images.clone(), self.network.clone());
        let (domain, hold) = (order.domain.clone(), order.paused);
        self.work(domain.uuid, move || {
            let options = PlanOptions {
                files: Files {
                    paths: paths.as_ref(),
                    images: &images,
                },
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
    pub(super) async fn listen(
        &self,
        domain: DomainUuid,
        mut plan: Plan,
    ) -> Result<(Plan, DeviceSockets), PlanError> {
        let paths = Arc::clone(&self.paths);
        self.work(domain, move || {
            let sockets = plan.listen(paths.as_ref())?;
            Ok((plan, sockets))
        })
        .await
    }

    /// Makes the plan's macvtaps, which are recorded.
    pub(super) async fn make_macvtaps(
        &self,
        domain: DomainUuid,
        mut plan: Plan,
    ) -> Result<(Plan, Vec<Macvtap>), PlanError> {
        self.work(domain, move || {
            let made = plan.make_macvtaps()?;
            Ok((plan, made))
        })
        .await
    }

    /// Makes a planned device's.
    pub(super) async fn make_device_macvtaps(
        &self,
        domain: DomainUuid,
        mut plan: DevicePlan,
    ) -> Result<(DevicePlan, Vec<Macvtap>), PlanError> {
        self.work(domain, move || {
            let made = plan.make_macvtaps()?;
            Ok((plan, made))
        })
        .await
    }

    /// Starts what serves the plan's shared directories.
    pub(super) async fn serve(
        &self,
        domain: DomainUuid,
        mut plan: Plan,
        sharer: Sharer,
    ) -> Result<Plan, PlanError> {
        let shares = self.shares.clone();
        self.work(domain, move || plan.serve(&shares, &sharer).map(|()| plan))
            .await
    }

    /// Starts what serves a planned device's directory.
    pub(super) async fn device_serve(
        &self,
        domain: DomainUuid,
        mut plan: DevicePlan,
        sharer: Sharer,
    ) -> Result<DevicePlan, PlanError> {
        let shares = self.shares.clone();
        self.work(domain, move || plan.serve(&shares, &sharer).map(|()| plan))
            .await
    }

    /// Plans a device of a machine that runs. A file system that does not answer is given up on.
    pub(super) async fn device(
        &self,
        domain: Domain,
        place: DevicePlace,
    ) -> Result<DevicePlan, PlanError> {
        let (paths, images) = (Arc::clone(&self.paths), self.images.clone());
        let network = self.network.clone();
        let planning = self.work(domain.uuid, move || {
            let files = Files {
                paths: paths.as_ref(),
                images: &images,
            };
            plan::plan_device(&domain, place, files, &network)
        });
        let planned = tokio::time::timeout(DEVICE_DEADLINE, planning).await;
        planned.unwrap_or(Err(PlanError::NoAnswer(DEVICE_DEADLINE.as_secs())))
    }

    /// Opens the medium of a disk of a machine that runs, as [`device`](Self::device).
    pub(super) async fn medium(
        &self,
        domain: Domain,
        slot: PciSlot,
    ) -> Result<(Vec<LayerSpec>, FdTable), PlanError> {
        let (paths, images) = (Arc::clone(&self.paths), self.images.clone());
        let planning = self.work(domain.uuid, move || {
            let files = Files {
                paths: paths.as_ref(),
                images: &images,
            };
            plan::plan_medium(&domain, slot, files)
        });
        let planned = tokio::time::timeout(DEVICE_DEADLINE, planning).await;
        planned.unwrap_or(Err(PlanError::NoAnswer(DEVICE_DEADLINE.as_secs())))
    }

    /// Gives the port of a tap other tags.
    pub(super) async fn set_tags(
        &self,
        domain: DomainUuid,
        tap: String,
        port: OpenVswitchPort,
    ) -> Result<(), PlanError> {
        let switch = self.network.open_vswitch.clone();
        let setting = self.work(domain, move || Ok(switch.set_tags(&tap, &port)?));
        let set = tokio::time::timeout(DEVICE_DEADLINE, setting).await;
        set.unwrap_or(Err(PlanError::NoAnswer(DEVICE_DEADLINE.as_secs())))
    }

    /// Sees whether an interface can have the filters that it is to have.
    pub(super) async fn check_filter(
        &self,
        domain: Domain,
        slot: PciSlot,
    ) -> Result<(), PlanError> {
        let network = self.network.of(&domain);
        let checking = self.work(domain.uuid, move || {
            let mut nics = domain.devices.nics.iter();
            let nic = nics.find(|nic| nic.address == Some(slot));
            nic.map_or(Ok(()), |nic| network.check(nic))
        });
        let checked = tokio::time::timeout(DEVICE_DEADLINE, checking).await;
        checked.unwrap_or(Err(PlanError::NoAnswer(DEVICE_DEADLINE.as_secs())))
    }

    /// Puts the filters that an interface is to have in the place of those that its tap has.
    pub(super) async fn guard(
        &self,
        domain: Domain,
        slot: PciSlot,
        tap: TapId,
    ) -> Result<(), PlanError> {
        let network = self.network.of(&domain);
        let given_up = Arc::new(AtomicBool::new(false));
        let late = Arc::clone(&given_up);
        let guarding = self.work(domain.uuid, move || {
            let mut nics = domain.devices.nics.iter();
            let nic = nics.find(|nic| nic.address == Some(slot));
            let guarded = nic.map_or(Ok(()), |nic| network.guard_anew(nic, &tap));
            // Nobody else hears of it.
            if let Some(error) = guarded.as_ref().err().filter(|_| late.load(Ordering::SeqCst)) {
                let (uuid, domain, tap) = (domain.uuid, &domain.name, &tap.name);
                tracing::error!(%domain, %uuid, "'{tap}' has not the network filter of its definition: {error}");
            }
            guarded
        });
        let guarded = tokio::time::timeout(DEVICE_DEADLINE, guarding).await;
        guarded.unwrap_or_else(|_| {
            given_up.store(true, Ordering::SeqCst);
            Err(PlanError::NoAnswer(DEVICE_DEADLINE.as_secs()))
        })
    }

    /// Binds what a planned device listens on.
    pub(super) async fn device_listen(
        &self,
        domain: DomainUuid,
        mut plan: DevicePlan,
    ) -> Result<(DevicePlan, DeviceSockets), PlanError> {
        let paths = Arc::clone(&self.paths);
        let binding = self.work(domain, move || {
            let sockets = plan.listen(paths.as_ref())?;
            Ok((plan, sockets))
        });
        let bound = tokio::time::timeout(DEVICE_DEADLINE, binding).await;
        bound.unwrap_or(Err(PlanError::NoAnswer(DEVICE_DEADLINE.as_secs())))
    }

    /// Makes, and begins to be, who answers for the connections of a guest that runs and whose socket is at
    /// `path`; gives the worker's end too. A file system that does not answer is soon given up on: whoever
    /// comes to be with the worker waits for this.
    pub(super) async fn acceptor(
        &self,
        domain: &Domain,
        path: PathBuf,
    ) -> Result<(Acceptor, OwnedFd), PlanError> {
        let paths = Arc::clone(&self.paths);
        let opening = self.work(domain.uuid, move || {
            Ok(Acceptor::new(paths.as_ref(), "vsock", &path)?)
        });
        let opened = tokio::time::timeout(ACCEPTOR_DEADLINE, opening).await;
        let (mut acceptor, theirs) =
            opened.unwrap_or(Err(PlanError::NoAnswer(ACCEPTOR_DEADLINE.as_secs())))?;
        acceptor.serve(&self.connectors, &domain.name, domain.uuid);
        Ok((acceptor, theirs))
    }

    /// By which guests' connections are made.
    pub(super) fn connectors(&self) -> &Connectors {
        &self.connectors
    }

    /// Who opens what definitions name.
    pub(super) fn paths(&self) -> Arc<dyn PathPolicy> {
        Arc::clone(&self.paths)
    }

    /// Does what may wait for a file system, once there is a place for it.
    async fn work<T: Send + 'static>(
        &self,
        domain: DomainUuid,
        work: impl FnOnce() -> Result<T, PlanError> + Send + 'static,
    ) -> Result<T, PlanError> {
        let place = self.places.take(domain, PLACE_DEADLINE).await?;
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

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    fn domain(number: u128) -> DomainUuid {
        DomainUuid(Uuid::from_u128(number))
    }

    #[tokio::test]
    async fn a_domain_whose_files_do_not_come_takes_no_place_from_another() {
        let places = Places::new();
        let mut taken = Vec::new();
        for _ in 0..MAX_OF_ONE {
            taken.push(places.take(domain(1), SHORT).await.unwrap());
        }
        let refused = places.take(domain(1), SHORT).await.unwrap_err();
        assert!(matches!(refused, PlanError::StalledBefore(MAX_OF_ONE)));
        let line = refused.to_string();
        assert!(line.contains("its own") && !line.contains('\n'), "{line}");
        let other = places.take(domain(2), SHORT).await.unwrap();
        taken.pop();
        taken.push(places.take(domain(1), SHORT).await.unwrap());
        drop((taken, other));
        places.take(domain(3), SHORT).await.unwrap();
        let of_one = places.of_one.lock().unwrap();
        assert_eq!(of_one.len(), 1, "those of others are forgotten");
    }

    #[tokio::test]
    async fn many_domains_whose_files_do_not_come_are_bounded_together() {
        let places = Places::new();
        let mut taken = Vec::new();
        for number in 0..MAX_PLANNING as u128 {
            taken.push(places.take(domain(number), SHORT).await.unwrap());
        }
        let refused = places.take(domain(99), SHORT).await.unwrap_err();
        assert!(matches!(refused, PlanError::Stalled(MAX_PLANNING)));
    }
}
