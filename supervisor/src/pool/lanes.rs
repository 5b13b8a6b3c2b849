//! Threads that may wait for a pool's file system: so many at a time of one pool, and so many of all, however many
//! ask and however long a file system does not answer.
//!
//! ```text
//!   look    what a read asks of a directory or a file; its answer has a deadline
//!   short   reading a directory, making and removing one, plain files, opening
//!   long    copying, allocating, wiping: for as long as there are bytes
//!   sign    whether a file system answers at all, which a stop may want to know
//!   stream  an upload or a download, for as long as its client is there; on a thread of its own (`stream.rs`)
//! ```
//!
//! A place goes with the thread to its end, whoever still waits for it, and is of the pool whose file system the thread
//! waits for: the original of a copy is opened at its own pool, and the copy made by a process that is ended with its
//! client. So a pool that hangs keeps its own places and no other's. A backing file that a new volume states may be
//! anywhere, and is waited for where the volume is made.
//!
//! All pools have so many places together, as the threads are the runtime's, and most are left to definitions and starts
//! of domains. So several pools that hang, as those of one server that is down, can have all of a kind: four with long
//! work, eight with reads, a dozen with short work. The log says so then.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::model::PoolUuid;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::end::End;

/// Places of all pools, and of one.
const LOOKS: (usize, usize) = (32, 4);
const SHORT: (usize, usize) = (48, 4);
const LONG: (usize, usize) = (16, 4);
const STREAMS: (usize, usize) = (64, 16);
const SIGNS: (usize, usize) = (32, 1);
/// How long an answer to a read may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long work that was told to end may take to do so before it is given up.
const GRACE: Duration = Duration::from_secs(2);

/// What a thread is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// An answer to a read.
    Look,
    /// Work that a file system which answers does at once.
    Short,
    /// Work that moves bytes.
    Long,
}

/// The places of all pools.
#[derive(Debug)]
pub(super) struct Lanes {
    looks: Places,
    short: Places,
    long: Places,
    streams: Places,
    signs: Places,
    /// How long an answer to a read may take.
    pub(super) patience: Duration,
    /// How long work that was told to end may take.
    pub(super) grace: Duration,
    #[cfg(test)]
    pub(super) hung: Hung,
}

#[derive(Debug)]
struct Places {
    all: Arc<Semaphore>,
    most_of_one: usize,
    /// Of the pools that have any taken.
    of_one: Mutex<HashMap<PoolUuid, Weak<Semaphore>>>,
    /// It was said that none was left.
    was_full: AtomicBool,
}

/// One of a pool's places, and of all.
#[derive(Debug)]
pub(super) struct Place {
    _of_one: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl Places {
    fn new((all, most_of_one): (usize, usize)) -> Self {
        Self {
            all: Arc::new(Semaphore::new(all)),
            most_of_one,
            of_one: Mutex::default(),
            was_full: AtomicBool::new(false),
        }
    }

    fn of(&self, pool: PoolUuid) -> Arc<Semaphore> {
        // Nothing panics while it is held.
        let mut of_one = self.of_one.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(places) = of_one.get(&pool).and_then(Weak::upgrade) {
            return places;
        }
        of_one.retain(|_, places| places.strong_count() > 0);
        let places = Arc::new(Semaphore::new(self.most_of_one));
        of_one.insert(pool, Arc::downgrade(&places));
        places
    }

    /// One, where it can be had at once.
    fn try_take(&self, pool: PoolUuid) -> Option<Place> {
        let of_one = self.of(pool).try_acquire_owned().ok()?;
        let of_all = Arc::clone(&self.all).try_acquire_owned().ok()?;
        Some(Place {
            _of_one: of_one,
            _of_all: of_all,
        })
    }

    async fn take(&self, pool: PoolUuid) -> Option<Place> {
        // The pool's own first: what waits for that takes nothing from others.
        let of_one = self.of(pool).acquire_owned().await.ok()?;
        if self.all.available_permits() == 0 && !self.was_full.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "as many threads as may be wait for the file systems of storage pools; stop pools whose file system \
                 does not answer"
            );
        }
        let of_all = Arc::clone(&self.all).acquire_owned().await.ok()?;
        if self.all.available_permits() > 0 {
            self.was_full.store(false, Ordering::Relaxed);
        }
        Some(Place {
            _of_one: of_one,
            _of_all: of_all,
        })
    }
}

impl Default for Lanes {
    fn default() -> Self {
        Self {
            looks: Places::new(LOOKS),
            short: Places::new(SHORT),
            long: Places::new(LONG),
            streams: Places::new(STREAMS),
            signs: Places::new(SIGNS),
            patience: PATIENCE,
            grace: GRACE,
            #[cfg(test)]
            hung: Hung::default(),
        }
    }
}

impl Lanes {
    /// Whether no place is taken.
    #[cfg(test)]
    pub(super) fn are_idle(&self) -> bool {
        let idle = |places: &Places, all: (usize, usize)| places.all.available_permits() == all.0;
        idle(&self.short, SHORT) && idle(&self.long, LONG) && idle(&self.signs, SIGNS)
    }

    /// Waits for a place, however long that takes; none where the work is ended before.
    pub(super) async fn place(&self, lane: Lane, pool: PoolUuid, end: &End) -> Option<Place> {
        let places = match lane {
            Lane::Look => &self.looks,
            Lane::Short => &self.short,
            Lane::Long => &self.long,
        };
        tokio::select! {
            biased;
            () = end.ended() => None,
            place = places.take(pool) => place,
        }
    }

    /// A place of a stream, for its thread to keep to its end; none where as many as may be are under way.
    pub(super) fn stream(&self, pool: PoolUuid) -> Option<Place> {
        self.streams.try_take(pool)
    }

    /// Whether a pool's file system answers to `touch` within the time of a read.
    pub(super) async fn answers(
        &self,
        pool: PoolUuid,
        touch: impl FnOnce() + Send + 'static,
    ) -> bool {
        let Some(place) = self.signs.try_take(pool) else {
            // An earlier one has not come back; or too much else is not known for this to be.
            return self.signs.of(pool).available_permits() > 0;
        };
        #[cfg(test)]
        let hung = self.hung.clone();
        let touching = tokio::task::spawn_blocking(move || {
            #[cfg(test)]
            hung.pass_sign(pool);
            touch();
            drop(place);
        });
        tokio::time::timeout(self.patience, touching).await.is_ok()
    }

    /// Works on a thread, which keeps the place to its end.
    ///
    /// # Errors
    /// The supervisor ends.
    pub(super) async fn on_thread<T: Send + 'static>(
        &self,
        pool: PoolUuid,
        place: Place,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        #[cfg(test)]
        let hung = self.hung.clone();
        #[cfg(not(test))]
        let _ = pool;
        let working = tokio::task::spawn_blocking(move || {
            #[cfg(test)]
            hung.pass(pool);
            let worked = work();
            drop(place);
            worked
        });
        working.await.map_err(|_| ending())
    }

    /// Works on a thread when it is its turn.
    ///
    /// # Errors
    /// [`ApiErrorCode::Cancelled`]: the work was ended before; the supervisor ends.
    pub(super) async fn work<T: Send + 'static>(
        &self,
        lane: Lane,
        pool: PoolUuid,
        end: &End,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        match self.place(lane, pool, end).await {
            Some(place) => self.on_thread(pool, place, work).await,
            None => Err(ApiError::new(
                ApiErrorCode::Cancelled,
                "it was ended before it began",
            )),
        }
    }
}

/// That there will be no answer.
pub(super) fn ending() -> ApiError {
    ApiError::new(ApiErrorCode::ShuttingDown, "the supervisor is ending")
}

/// Pools whose file systems do not answer, for tests.
#[cfg(test)]
#[derive(Debug, Clone, Default)]
pub(super) struct Hung {
    shared: Arc<(
        Mutex<std::collections::BTreeSet<PoolUuid>>,
        std::sync::Condvar,
    )>,
    working: Arc<Mutex<std::collections::BTreeSet<PoolUuid>>>,
}

#[cfg(test)]
impl Hung {
    pub(super) fn hang(&self, pool: PoolUuid) {
        self.shared.0.lock().unwrap().insert(pool);
    }

    /// What touches the pool's directory does not come back, though its file system answers.
    pub(super) fn hang_work(&self, pool: PoolUuid) {
        self.hang(pool);
        self.working.lock().unwrap().insert(pool);
    }

    /// As [`Self::pass`], of what only looks whether it answers.
    fn pass_sign(&self, pool: PoolUuid) {
        if !self.working.lock().unwrap().contains(&pool) {
            self.pass(pool);
        }
    }

    /// All file systems answer again.
    pub(super) fn answer(&self) {
        self.shared.0.lock().unwrap().clear();
        self.shared.1.notify_all();
    }

    /// Comes back when a pool's file system answers.
    pub(super) fn pass(&self, pool: PoolUuid) {
        let mut hung = self.shared.0.lock().unwrap();
        while hung.contains(&pool) {
            hung = self.shared.1.wait(hung).unwrap();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use uuid::Uuid;

    use super::*;

    #[tokio::test]
    async fn a_pool_that_hangs_keeps_its_own_places_and_what_waits_for_one_can_be_ended() {
        let lanes = Arc::new(Lanes::default());
        let (hung, healthy) = (PoolUuid(Uuid::from_u128(1)), PoolUuid(Uuid::from_u128(2)));
        lanes.hung.hang(hung);
        let begun = Arc::new(AtomicUsize::new(0));
        let end = End::default();
        let ask = |pool| {
            let (lanes, begun, end) = (Arc::clone(&lanes), Arc::clone(&begun), end.clone());
            tokio::spawn(async move {
                let place = lanes.place(Lane::Short, pool, &end).await?;
                begun.fetch_add(1, Ordering::SeqCst);
                lanes.on_thread(pool, place, || ()).await.ok()
            })
        };
        let all: Vec<_> = (0..20).map(|_| ask(hung)).collect();
        while begun.load(Ordering::SeqCst) < SHORT.1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // Another pool's work is done, and so is work of another kind.
        assert_eq!(ask(healthy).await.unwrap(), Some(()));
        let other = lanes.place(Lane::Long, hung, &End::default()).await;
        assert!(other.is_some());
        assert_eq!(begun.load(Ordering::SeqCst), SHORT.1 + 1);
        // Whoever asked has gone: the threads keep their places.
        for one in &all[..SHORT.1] {
            one.abort();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(begun.load(Ordering::SeqCst), SHORT.1 + 1);
        end.now();
        for one in all.into_iter().skip(SHORT.1) {
            assert_eq!(one.await.unwrap(), None);
        }
        lanes.hung.answer();
        let again = lanes.work(Lane::Short, hung, &End::default(), || 7).await;
        assert_eq!(again, Ok(7));
    }
}
