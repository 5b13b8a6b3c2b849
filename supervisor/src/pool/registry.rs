//! All pools of an instance: which names, UUIDs and directories are taken, and who owns each.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reeve_ipc::api::MAX_PAGE;
use reeve_ipc::api::call::{PoolFilter, PoolPage, PoolRef, VolumeRef};
use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::api::storage::{PoolSummary, Volume};
use reeve_ipc::model::{Pool, PoolName, PoolUuid, StorageError, VolumeName};
use reeve_ipc::spec::DiskFormat;
use reeve_ipc::{MAX_MESSAGE_BYTES, codec};

use tokio::task::JoinSet;

use super::actor::{self, Beginning};
use super::end::End;
use super::handle::{Handle, Request, VolumeAnswer, VolumeRequest};
use super::holds::{Wanted, WantedTargets};
use super::host::Host;
use super::leftovers;
use super::make::{Making, Original};
use super::reads::{Looks, active};
use crate::api::events::EventLog;
use crate::store::LoadedPools;

/// Pools of one instance, at most.
const MAX_POOLS: usize = 4096;
/// What of a message is not the objects of a page.
const PAGE_MARGIN: usize = 1024;
/// How long the first clients may be held up by what an earlier supervisor left in pools.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long domains that start with the host wait for pools that do.
const AUTOSTART_PATIENCE: Duration = Duration::from_secs(10);

/// Every pool. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pools {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) host: Arc<Host>,
    pub(super) looks: Looks,
    events: Arc<EventLog>,
    pools: Mutex<BTreeMap<PoolUuid, Handle>>,
    /// Of definitions that are asked for and not kept yet.
    wanted: WantedTargets,
}

impl Shared {
    fn pools(&self) -> MutexGuard<'_, BTreeMap<PoolUuid, Handle>> {
        // Nothing panics while it is held.
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn invalid(error: &StorageError) -> ApiError {
    ApiError::new(ApiErrorCode::InvalidArgument, error.to_string())
}

fn no_pool(pool: &PoolRef) -> ApiError {
    ApiError::new(ApiErrorCode::NoPool, format!("there is no pool {pool}"))
}

pub(super) fn no_volume(volume: &VolumeRef) -> ApiError {
    ApiError::new(
        ApiErrorCode::NoVolume,
        format!("there is no volume {volume}"),
    )
}

impl Pools {
    /// None yet.
    #[must_use]
    pub fn new(host: Arc<Host>, events: Arc<EventLog>) -> Self {
        Self {
            shared: Arc::new(Shared {
                host,
                looks: Looks::default(),
                events,
                pools: Mutex::default(),
                wanted: WantedTargets::default(),
            }),
        }
    }

    /// Takes up what an earlier supervisor left: unfinished volumes are removed, pools that were active are so
    /// again.
    pub async fn recover(&self, loaded: LoadedPools) {
        let host = Arc::clone(&self.shared.host);
        if !loaded.unfinished.is_empty() {
            host.left(loaded.unfinished);
            let clean = tokio::task::spawn_blocking(move || leftovers::clean_all(&host));
            // One of a file system that does not answer goes on by itself.
            let _ = tokio::time::timeout(PATIENCE, clean).await;
        }
        let mut records: BTreeMap<PoolUuid, _> = loaded
            .records
            .into_iter()
            .map(|record| (record.pool.uuid, record))
            .collect();
        let mut pools = self.shared.pools();
        let active = loaded.active.into_iter().map(|pool| Beginning {
            record: records.remove(&pool.uuid),
            pool,
            active: true,
        });
        let active: Vec<Beginning> = active.collect();
        let inactive = records.into_values().map(|record| Beginning {
            pool: record.pool.clone(),
            record: Some(record),
            active: false,
        });
        for beginning in active.into_iter().chain(inactive) {
            self.spawn(&mut pools, beginning);
        }
    }

    /// Starts the pools that start with the host, all at once; one whose file system does not answer is waited for
    /// no longer than ten seconds, and goes on by itself.
    pub async fn autostart(&self) {
        self.autostart_within(AUTOSTART_PATIENCE).await;
    }

    pub(super) async fn autostart_within(&self, patience: Duration) {
        let handles: Vec<Handle> = self.shared.pools().values().cloned().collect();
        let mut starting = JoinSet::new();
        for handle in handles {
            let view = handle.view.borrow().clone();
            if !view.autostart || view.state.is_active() {
                continue;
            }
            let start = Request::Start {
                transient: None,
                build: false,
            };
            starting.spawn(async move {
                if let Err(error) = handle.ask(start).await {
                    tracing::error!(%error, "a pool did not start with the host");
                }
            });
        }
        let all = async { while starting.join_next().await.is_some() {} };
        if tokio::time::timeout(patience, all).await.is_err() {
            let late = starting.len();
            tracing::error!(
                late,
                "pools are still to start with the host; domains do not wait for them"
            );
        }
        starting.detach_all();
    }

    fn spawn(&self, pools: &mut BTreeMap<PoolUuid, Handle>, beginning: Beginning) -> Handle {
        let uuid = beginning.pool.uuid;
        let shared = Arc::downgrade(&self.shared);
        let retire = move || {
            if let Some(shared) = shared.upgrade() {
                shared.pools().remove(&uuid);
            }
        };
        let host = Arc::clone(&self.shared.host);
        let handle = actor::spawn(host, Arc::clone(&self.shared.events), beginning, retire);
        pools.insert(uuid, handle.clone());
        handle
    }

    pub(super) fn find(&self, pool: &PoolRef) -> Result<Handle, ApiError> {
        let pools = self.shared.pools();
        let found = match pool {
            PoolRef::Uuid(uuid) => pools.get(uuid).filter(|it| it.view.borrow().exists()),
            PoolRef::Name(name) => pools.values().find(|handle| {
                let view = handle.view.borrow();
                view.exists() && view.pool.name == *name
            }),
            PoolRef::Target(target) => {
                let at = |active: bool| {
                    pools.values().find(|handle| {
                        let view = handle.view.borrow();
                        let state = view.state.is_active() == active;
                        view.exists() && state && view.pool.target == *target
                    })
                };
                at(true).or_else(|| at(false))
            }
        };
        found.cloned().ok_or_else(|| no_pool(pool))
    }

    /// The pool that a volume is in, and its name there.
    pub(super) fn locate(&self, volume: &VolumeRef) -> Result<(Handle, VolumeName), ApiError> {
        match volume {
            VolumeRef::Name { pool, name } => Ok((self.find(pool)?, name.clone())),
            VolumeRef::Path(path) => {
                let name = path.file_name().and_then(|name| name.to_str());
                let name = name.and_then(|name| name.parse::<VolumeName>().ok());
                let target = path.parent().unwrap_or(Path::new(""));
                let found = self.find(&PoolRef::Target(target.to_owned())).ok();
                let active = found.filter(|found| found.view.borrow().state.is_active());
                let located = active.zip(name);
                located.ok_or_else(|| no_volume(volume))
            }
        }
    }

    /// Looks whether a definition collides with another pool, and whether it is new.
    fn judge(
        &self,
        pools: &BTreeMap<PoolUuid, Handle>,
        pool: &Pool,
        only_new: bool,
    ) -> Result<bool, ApiError> {
        let taken = |why: String| {
            let why = format!("pool '{}': {why}", pool.name);
            Err(ApiError::new(ApiErrorCode::PoolExists, why))
        };
        let wanted = self.shared.wanted.lock();
        // Nothing panics while it is held.
        let wanted = wanted.unwrap_or_else(PoisonError::into_inner).clone();
        for (uuid, handle) in pools {
            let view = handle.view.borrow();
            let of = &view.pool;
            if *uuid == pool.uuid {
                if of.name != pool.name {
                    return taken(format!("UUID {uuid} is that of pool '{}'", of.name));
                }
                if only_new {
                    return taken("it exists already".to_owned());
                }
                continue;
            }
            if of.name == pool.name {
                return taken(format!("it exists already, with UUID {uuid}"));
            }
            let next = view.next.as_ref().map(|next| &next.target);
            let wants = |(other, target): &(PoolUuid, _)| other == uuid && *target == pool.target;
            if of.target == pool.target || next == Some(&pool.target) || wanted.iter().any(wants) {
                return taken(format!(
                    "its target '{}' is that of pool '{}' already",
                    pool.target.display(),
                    of.name
                ));
            }
        }
        let new = !pools.contains_key(&pool.uuid);
        if new && pools.len() >= MAX_POOLS {
            return Err(ApiError::new(
                ApiErrorCode::Busy,
                format!("there are {MAX_POOLS} pools, and no more can be had"),
            ));
        }
        Ok(new)
    }

    /// The actor of a pool, and that its directory is to be the pool's.
    fn enter(&self, pool: &Pool, only_new: bool) -> Result<(Handle, Wanted), ApiError> {
        pool.validate().map_err(|error| invalid(&error))?;
        let mut pools = self.shared.pools();
        let new = self.judge(&pools, pool, only_new)?;
        let wanted = Wanted::new(&self.shared.wanted, pool);
        if let (false, Some(handle)) = (new, pools.get(&pool.uuid)) {
            return Ok((handle.clone(), wanted));
        }
        let beginning = Beginning {
            pool: pool.clone(),
            record: None,
            active: false,
        };
        Ok((self.spawn(&mut pools, beginning), wanted))
    }

    /// Keeps a definition.
    ///
    /// # Errors
    /// [`ApiErrorCode::PoolExists`], [`ApiErrorCode::PathRefused`] and those of keeping it.
    pub async fn define(&self, pool: Pool, only_new: bool) -> Result<PoolSummary, ApiError> {
        self.check_target(&pool)?;
        let (handle, wanted) = self.enter(&pool, only_new)?;
        let define = Request::Define(Box::new(pool), Some(wanted));
        handle.ask(define).await
    }

    /// Starts a pool whose definition is not kept. It is given up when its client goes before.
    ///
    /// # Errors
    /// As of [`Self::define`], and those of starting it.
    pub async fn create(&self, pool: Pool, build: bool) -> Result<PoolSummary, ApiError> {
        self.check_target(&pool)?;
        let (handle, _wanted) = self.enter(&pool, true)?;
        let transient = Some(Box::new(pool));
        let starting = handle.starting();
        let answer = handle.ask(Request::Start { transient, build }).await;
        starting.answered();
        answer
    }

    /// Whether a client may name the directory: looked at in words only, nothing is opened.
    fn check_target(&self, pool: &Pool) -> Result<(), ApiError> {
        pool.validate().map_err(|error| invalid(&error))?;
        let allowed = self.shared.host.allowed().allows_pool(&pool.target);
        allowed.map_err(|error| {
            let why = format!("pool '{}': {error}", pool.name);
            ApiError::new(ApiErrorCode::PathRefused, why)
        })
    }

    /// Asks something of a pool.
    ///
    /// # Errors
    /// [`ApiErrorCode::NoPool`], and the pool's.
    pub async fn ask(&self, pool: &PoolRef, request: Request) -> Result<PoolSummary, ApiError> {
        self.find(pool)?.ask(request).await
    }

    /// One page of pools, in the order of names.
    #[must_use]
    pub fn page(&self, after: Option<&PoolName>, filter: PoolFilter) -> PoolPage {
        let wanted = |wanted: Option<bool>, is: bool| wanted.is_none_or(|wanted| wanted == is);
        let pools = self.shared.pools();
        let views = pools.values().map(|handle| handle.view.borrow().clone());
        let mut summaries: Vec<PoolSummary> = views
            .filter(|view| {
                view.exists()
                    && after.is_none_or(|after| view.pool.name > *after)
                    && wanted(filter.active, view.state.is_active())
                    && wanted(filter.persistent, view.persistent)
                    && wanted(filter.autostart, view.autostart)
            })
            .map(|view| view.summary())
            .collect();
        drop(pools);
        summaries.sort_by(|a, b| a.name.cmp(&b.name));
        let (pools, more) = fitting(summaries.into_iter());
        PoolPage { pools, more }
    }

    /// Asks something of a volume; what it is afterwards.
    ///
    /// # Errors
    /// [`ApiErrorCode::NoVolume`] among others.
    pub async fn ask_volume(
        &self,
        volume: &VolumeRef,
        request: impl FnOnce(VolumeName) -> VolumeRequest,
    ) -> Result<VolumeAnswer, ApiError> {
        let (handle, name) = self.locate(volume)?;
        let view = active(&handle, self.patience()).await?;
        self.learn(&handle, &view, &name).await?;
        handle.ask_volume(request(name)).await
    }

    /// Makes a volume.
    ///
    /// # Errors
    /// [`ApiErrorCode::VolumeExists`] among others.
    pub async fn make(
        &self,
        pool: &PoolRef,
        volume: reeve_ipc::model::NewVolume,
        preallocate_metadata: bool,
    ) -> Result<Volume, ApiError> {
        volume.validate(false).map_err(|error| invalid(&error))?;
        if preallocate_metadata && volume.backing.is_some() {
            return Err(ApiError::new(
                ApiErrorCode::InvalidArgument,
                "an image with a backing file is not laid out at once: what is laid out hides what is beneath it",
            ));
        }
        let handle = self.find(pool)?;
        active(&handle, self.patience()).await?;
        let making = Making {
            preallocate_metadata,
            reflink: false,
            from: None,
        };
        made(
            handle
                .ask_volume(VolumeRequest::Make(Box::new(volume), making, None))
                .await,
        )
    }

    /// Makes a volume of another.
    ///
    /// # Errors
    /// As of [`Self::make`], of either.
    pub async fn copy(
        &self,
        pool: &PoolRef,
        volume: reeve_ipc::model::NewVolume,
        from: &VolumeRef,
        preallocate_metadata: bool,
        reflink: bool,
        from_format: Option<DiskFormat>,
    ) -> Result<Volume, ApiError> {
        volume.validate(true).map_err(|error| invalid(&error))?;
        if volume.backing.is_some() {
            return Err(ApiError::new(
                ApiErrorCode::InvalidArgument,
                "a copy builds upon what its original does: no backing file is said of it",
            ));
        }
        let target = self.find(pool)?;
        active(&target, self.patience()).await?;
        let (source, name) = self.locate(from)?;
        let view = active(&source, self.patience()).await?;
        self.learn(&source, &view, &name).await?;
        let of = view.pool.clone();
        let hold = source.hold_copy(name.clone(), &End::default()).await?;
        let making = Making {
            preallocate_metadata,
            reflink,
            from: Some(Original {
                pool: of,
                name,
                format: from_format,
            }),
        };
        let request = VolumeRequest::Make(Box::new(volume), making, Some(hold));
        made(target.ask_volume(request).await)
    }
}

fn made(answer: Result<VolumeAnswer, ApiError>) -> Result<Volume, ApiError> {
    match answer? {
        VolumeAnswer::Volume(volume) => Ok(*volume),
        _ => Err(ApiError::new(
            ApiErrorCode::Host,
            "the volume was removed when it was made",
        )),
    }
}

/// As many as fit a page, and whether there are more.
pub(crate) fn fitting<T: serde::Serialize>(all: impl Iterator<Item = T>) -> (Vec<T>, bool) {
    let mut room = MAX_MESSAGE_BYTES - PAGE_MARGIN;
    let mut page = Vec::new();
    for one in all {
        let bytes = codec::encode(&one).map_or(room + 1, |bytes| bytes.len());
        if page.len() >= MAX_PAGE || bytes > room {
            return (page, true);
        }
        room -= bytes;
        page.push(one);
    }
    (page, false)
}
