//! What is told of pools and volumes: from what their actors published, and from their directories as they are.
//!
//! Whatever looks at a directory or a file does so on one of the few threads for that (`lanes.rs`), and is answered
//! within a deadline: of a file system that is down a client hears that it is.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use reeve_ipc::api::call::{PoolRef, VolumePage, VolumeRef};
use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::api::storage::{PoolDetails, PoolState, Volume};
use reeve_ipc::model::{Pool, PoolUuid, VolumeName};

use tokio::time::{Instant, timeout_at};

use super::end::End;
use super::handle::Handle;
use super::lanes::Lane;
use super::registry::{Pools, fitting, no_volume};
use super::scan;
use super::view::{Entry, View};

/// Volumes whose last look is remembered, beside what their pools publish.
const RECENT: usize = 1024;

/// One volume of one pool.
type Key = (PoolUuid, VolumeName);
/// What a look found.
type Found = Result<Option<Arc<Entry>>, ApiError>;

/// Looks at volumes: one at a time of each, shared by all who asked before it began.
#[derive(Debug, Default)]
pub(super) struct Looks {
    of: Mutex<HashMap<Key, Weak<OneVolume>>>,
    /// What was found last where the pool need not know: the times of a file that is in use change with each look.
    recent: Mutex<BTreeMap<Key, Arc<Entry>>>,
}

#[derive(Debug, Default)]
struct OneVolume {
    /// Looks that were begun.
    begun: AtomicU64,
    /// The one that ended last, by its number.
    last: tokio::sync::Mutex<Option<(u64, Found)>>,
}

impl Looks {
    fn of(&self, key: &Key) -> Arc<OneVolume> {
        // Nothing panics while it is held.
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(one) = of.get(key).and_then(Weak::upgrade) {
            return one;
        }
        of.retain(|_, one| one.strong_count() > 0);
        let one = Arc::<OneVolume>::default();
        of.insert(key.clone(), Arc::downgrade(&one));
        one
    }

    /// Looks, unless a look that was begun after this one was asked for has found something by then.
    async fn share(&self, key: &Key, look: impl Future<Output = Found>) -> Found {
        let one = self.of(key);
        let asked = one.begun.load(Ordering::Relaxed);
        let mut last = one.last.lock().await;
        if let Some((_, found)) = last.as_ref().filter(|(number, _)| *number > asked) {
            return found.clone();
        }
        let number = one.begun.fetch_add(1, Ordering::Relaxed) + 1;
        let found = look.await;
        *last = Some((number, found.clone()));
        found
    }

    fn recent(&self, key: &Key) -> Option<Arc<Entry>> {
        let recent = self.recent.lock();
        // Nothing panics while it is held, here and below.
        let recent = recent.unwrap_or_else(PoisonError::into_inner);
        recent.get(key).cloned()
    }

    fn remember(&self, key: &Key, entry: Option<&Arc<Entry>>) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        match entry {
            Some(entry) => {
                if recent.len() >= RECENT && !recent.contains_key(key) {
                    recent.clear();
                }
                recent.insert(key.clone(), Arc::clone(entry));
            }
            None => drop(recent.remove(key)),
        }
    }
}

/// Whether a pool is to know of it: more than that the file was used.
fn is_news(known: Option<&Arc<Entry>>, now: Option<&Arc<Entry>>) -> bool {
    match (known, now) {
        (Some(known), Some(now)) => {
            let of = |entry: &Entry| (entry.kind, entry.stat.size, entry.stat.owner);
            of(known) != of(now)
                || known.stat.identity != now.stat.identity
                || known.facts != now.facts
        }
        (None, None) => false,
        _ => true,
    }
}

impl Pools {
    /// How long an answer may take.
    pub(super) fn patience(&self) -> Duration {
        self.shared.host.lanes.patience
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.patience()
    }

    /// Looks on a thread, with a deadline.
    async fn on_thread<T: Send + 'static>(
        &self,
        pool: &Pool,
        deadline: Instant,
        look: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let lanes = &self.shared.host.lanes;
        let (end, uuid) = (End::default(), pool.uuid);
        let place = lanes.place(Lane::Look, uuid, &end);
        let Ok(Some(place)) = timeout_at(deadline, place).await else {
            return Err(ApiError::new(
                ApiErrorCode::Busy,
                format!(
                    "pool '{}': too much waits for file systems that do not answer; look whether that of its target \
                     '{}' does",
                    pool.name,
                    pool.target.display()
                ),
            ));
        };
        let looking = lanes.on_thread(uuid, place, look);
        match timeout_at(deadline, looking).await {
            Ok(looked) => looked,
            Err(_) => Err(silent(pool)),
        }
    }

    /// One pool, with its file system as it is. Of one that does not answer it tells that it is inaccessible.
    ///
    /// # Errors
    /// [`ApiErrorCode::NoPool`].
    pub async fn get(&self, pool: &PoolRef) -> Result<PoolDetails, ApiError> {
        let handle = self.find(pool)?;
        let read = read(&handle, self.patience()).await;
        let mut silent = read.is_err();
        let view = read.unwrap_or_else(|_| handle.view.borrow().clone());
        let host = Arc::clone(&self.shared.host);
        let of = view.pool.clone();
        let sizes = match view.state.is_active() && !silent {
            false => None,
            true => match self
                .on_thread(&view.pool, self.deadline(), move || host.sizes(&of))
                .await
            {
                Ok(sizes) => sizes.ok(),
                Err(_) => {
                    silent = true;
                    None
                }
            },
        };
        let mut summary = view.summary();
        if silent && view.state.is_active() {
            summary.state = PoolState::Inaccessible;
        }
        Ok(PoolDetails {
            summary,
            pool: view.pool.clone(),
            next: view.next.clone(),
            sizes: sizes.map(|(sizes, _)| sizes),
            owner: sizes.map(|(_, owner)| owner),
            passed_over: view.passed_over,
        })
    }

    /// One page of a pool's volumes.
    ///
    /// # Errors
    /// [`ApiErrorCode::NoPool`], [`ApiErrorCode::WrongState`].
    pub async fn volumes(
        &self,
        pool: &PoolRef,
        after: Option<&VolumeName>,
    ) -> Result<VolumePage, ApiError> {
        let view = active(&self.find(pool)?, self.patience()).await?;
        let page = |view: &View, after: Option<&VolumeName>| {
            let (volumes, more) = fitting(view.after(after));
            VolumePage { volumes, more }
        };
        if !view.is_building() {
            return Ok(page(&view, after));
        }
        // The file of one that is being made is looked at, which its file system may take its time for.
        let (after, of) = (after.cloned(), Arc::clone(&view));
        self.on_thread(&view.pool, self.deadline(), move || {
            page(&of, after.as_ref())
        })
        .await
    }

    /// One volume as it is.
    ///
    /// # Errors
    /// [`ApiErrorCode::NoVolume`] among others.
    pub async fn volume(&self, volume: &VolumeRef) -> Result<Volume, ApiError> {
        let (handle, name) = self.locate(volume)?;
        let view = active(&handle, self.patience()).await?;
        let job = view.jobs.get(&name);
        if job.is_some_and(|job| job.building.is_none()) {
            // Nothing is read of what is being written.
            if let Some(volume) = view.volume(&name) {
                return Ok(volume);
            }
        } else if job.is_some() {
            let (of, name) = (Arc::clone(&view), name.clone());
            let known = self.on_thread(&view.pool, self.deadline(), move || of.volume(&name));
            if let Some(volume) = known.await? {
                return Ok(volume);
            }
        }
        let entry = self.look(&view, &name).await?;
        if is_news(view.volumes.get(&name), entry.as_ref()) {
            handle.seen(view.changes, name.clone(), entry.clone());
        }
        let entry = entry.ok_or_else(|| no_volume(volume))?;
        let mut now = View::clone(&view);
        now.volumes = Arc::new(std::iter::once((name.clone(), entry)).collect());
        now.volume(&name).ok_or_else(|| no_volume(volume))
    }

    /// Looks at one volume.
    async fn look(&self, view: &Arc<View>, name: &VolumeName) -> Found {
        // One for all of it, so that whoever waits hears what it waits for.
        let deadline = self.deadline();
        let looks = &self.shared.looks;
        let key = (view.pool.uuid, name.clone());
        let look = async {
            let host = Arc::clone(&self.shared.host);
            let (of, name) = (Arc::clone(view), name.clone());
            let recent = looks.recent(&key);
            let looked = self.on_thread(&view.pool, deadline, move || {
                let directory = host.directory(&of.pool)?;
                let known = recent.as_ref().or_else(|| of.volumes.get(&name));
                Ok(scan::one(&host, directory.as_fd(), &name, known))
            });
            let entry = looked.await??;
            looks.remember(&key, entry.as_ref());
            Ok(entry)
        };
        let looked = timeout_at(deadline, looks.share(&key, look));
        looked.await.unwrap_or_else(|_| Err(silent(&view.pool)))
    }

    /// Has the actor know a volume that came into its directory by other means.
    pub(super) async fn learn(
        &self,
        handle: &Handle,
        view: &Arc<View>,
        name: &VolumeName,
    ) -> Result<(), ApiError> {
        if view.volumes.contains_key(name) || view.jobs.contains_key(name) {
            return Ok(());
        }
        let entry = self.look(view, name).await?;
        if entry.is_some() {
            // Before whatever is asked of it: messages come in their order.
            handle.seen(view.changes, name.clone(), entry);
        }
        Ok(())
    }
}

/// What is known of a pool, once its directory was read where it is active.
async fn read(handle: &Handle, patience: Duration) -> Result<Arc<View>, ApiError> {
    let mut view = handle.view.clone();
    let known = view.wait_for(|view| view.scanned || !view.state.is_active());
    match tokio::time::timeout(patience, known).await {
        Ok(Ok(view)) => Ok(Arc::clone(&view)),
        Ok(Err(_)) => Ok(handle.view.borrow().clone()),
        Err(_) => Err(silent(&handle.view.borrow().pool)),
    }
}

/// What is known of an active pool.
pub(super) async fn active(handle: &Handle, patience: Duration) -> Result<Arc<View>, ApiError> {
    let view = read(handle, patience).await?;
    match view.state.is_active() {
        true => Ok(view),
        false => Err(ApiError::new(
            ApiErrorCode::WrongState,
            format!(
                "pool '{}': it is not active; start it first",
                view.pool.name
            ),
        )),
    }
}

/// That a pool's file system does not answer.
pub(super) fn silent(pool: &Pool) -> ApiError {
    ApiError::new(
        ApiErrorCode::Timeout,
        format!(
            "pool '{}': its target '{}' does not answer in time; look whether its file system is there, or stop the \
             pool",
            pool.name,
            pool.target.display()
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_look_is_shared_by_those_who_asked_before_it_began_and_by_no_other() {
        let looks = Arc::new(Looks::default());
        let key: Key = (PoolUuid(uuid::Uuid::nil()), "disk".parse().unwrap());
        let (open, gate) = (Arc::new(tokio::sync::Semaphore::new(0)), AtomicU64::new(0));
        let gate = Arc::new(gate);
        let ask = || {
            let (looks, key) = (Arc::clone(&looks), key.clone());
            let (open, gate) = (Arc::clone(&open), Arc::clone(&gate));
            tokio::spawn(async move {
                let look = async {
                    gate.fetch_add(1, Ordering::SeqCst);
                    open.acquire().await.unwrap().forget();
                    Ok(None)
                };
                looks.share(&key, look).await
            })
        };
        let first = ask();
        while gate.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        // They may be told of nothing that was looked at before they asked.
        let others: Vec<_> = (0..50).map(|_| ask()).collect();
        tokio::time::sleep(Duration::from_millis(10)).await;
        open.add_permits(2);
        assert_eq!(first.await.unwrap(), Ok(None));
        for other in others {
            assert_eq!(other.await.unwrap(), Ok(None));
        }
        assert_eq!(gate.load(Ordering::SeqCst), 2, "two looks for all of them");
    }
}
