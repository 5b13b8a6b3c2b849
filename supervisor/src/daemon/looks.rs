//! Looks at what may take its time, on threads that may wait: a few at a time, however many ask.
//!
//! The books of the host and of its processes are made when they are read, which takes the kernel's time and its
//! locks; a file may be on a file system that does not answer; and so may a socket. Clients may ask as often as they
//! like, also those that may only look, and each look is on a thread of its own.
//!
//! ```text
//!   session 1: ask ask ask ask ─┐
//!   session 2: ask              ├─ by turns, so many of each at once ─► places ─► a thread each
//!   session 3: ask ask          ─┘
//! ```
//! One that asks much waits behind itself. A look that has begun keeps its place to its end, whoever still waits
//! for it: those that never end take the places of their own kind, which is why each kind has some.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use tokio::sync::oneshot;

use crate::domain::actor::SessionId;

/// How long is waited for what may never come: a place, where all are taken by looks that do not end.
const PATIENCE: Duration = Duration::from_secs(5);

/// The places, by what is looked at.
#[derive(Debug, Clone)]
pub(super) struct Looks {
    /// The kernel's books, which are always read to their end.
    pub(super) books: Places,
    /// Files that definitions name.
    pub(super) files: Places,
    /// Channels of domains that run, which are connected to.
    pub(super) channels: Places,
}

impl Default for Looks {
    fn default() -> Self {
        Self {
            books: Places::new(2, 1, None),
            // One file that does not answer leaves its session a place for others.
            files: Places::new(8, 2, Some(PATIENCE)),
            channels: Places::new(8, 2, Some(PATIENCE)),
        }
    }
}

/// Places for looks of one kind.
#[derive(Debug, Clone)]
pub(super) struct Places {
    queue: Arc<Mutex<Queue>>,
    patience: Option<Duration>,
}

#[derive(Debug)]
struct Queue {
    /// Places that nobody has.
    free: usize,
    /// Places that one session may have.
    each: usize,
    /// How many each session has, of those that have any.
    held: BTreeMap<SessionId, usize>,
    /// Who waits, the session whose turn is next first. None has an empty list.
    waiting: VecDeque<(SessionId, VecDeque<oneshot::Sender<Place>>)>,
}

/// One of the places, given back when it is dropped.
#[derive(Debug)]
struct Place {
    queue: Arc<Mutex<Queue>>,
    session: SessionId,
}

impl Drop for Place {
    fn drop(&mut self) {
        {
            let mut queue = lock(&self.queue);
            queue.free += 1;
            if let Some(held) = queue.held.get_mut(&self.session) {
                *held = held.saturating_sub(1);
                if *held == 0 {
                    queue.held.remove(&self.session);
                }
            }
        }
        grant(&self.queue);
    }
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    // Nothing panics while it is held.
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives the places that are free to those whose turn it is.
fn grant(queue: &Arc<Mutex<Queue>>) {
    loop {
        let Some((session, waiter)) = lock(queue).next() else {
            return;
        };
        let place = Place {
            queue: Arc::clone(queue),
            session,
        };
        // One that does not wait any more gives it back at once.
        drop(waiter.send(place));
    }
}

impl Queue {
    /// The next that has a place, which is taken.
    fn next(&mut self) -> Option<(SessionId, oneshot::Sender<Place>)> {
        self.waiting.retain_mut(|(_, waiters)| {
            waiters.retain(|waiter| !waiter.is_closed());
            !waiters.is_empty()
        });
        if self.free == 0 {
            return None;
        }
        let (held, each) = (&self.held, self.each);
        let may = |session: &SessionId| held.get(session).is_none_or(|held| *held < each);
        let at = self.waiting.iter().position(|(session, _)| may(session))?;
        let (session, mut waiters) = self.waiting.remove(at)?;
        let waiter = waiters.pop_front()?;
        if !waiters.is_empty() {
            self.waiting.push_back((session, waiters));
        }
        self.free -= 1;
        *self.held.entry(session).or_default() += 1;
        Some((session, waiter))
    }

    fn wait(&mut self, session: SessionId) -> oneshot::Receiver<Place> {
        let (give, given) = oneshot::channel();
        match self.waiting.iter_mut().find(|(who, _)| *who == session) {
            Some((_, waiters)) => waiters.push_back(give),
            None => self.waiting.push_back((session, VecDeque::from([give]))),
        }
        given
    }
}

impl Places {
    /// So many in all, so many of `each` session, and how long is waited for one, if not for ever.
    fn new(all: usize, each: usize, patience: Option<Duration>) -> Self {
        Self {
            queue: Arc::new(Mutex::new(Queue {
                free: all,
                each,
                held: BTreeMap::new(),
                waiting: VecDeque::new(),
            })),
            patience,
        }
    }

    /// Looks for a session, when its turn comes.
    ///
    /// # Errors
    /// [`ApiErrorCode::Busy`] where no place comes in time; the supervisor ends.
    pub(super) async fn look<T: Send + 'static>(
        &self,
        session: SessionId,
        look: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let ending = || ApiError::new(ApiErrorCode::ShuttingDown, "the supervisor is ending");
        let given = lock(&self.queue).wait(session);
        grant(&self.queue);
        let place = match self.patience {
            Some(patience) => tokio::time::timeout(patience, given).await.map_err(|_| {
                let why = "as much as may be waited for at once already is, and none of it comes to its end; \
                           try again later";
                ApiError::new(ApiErrorCode::Busy, why)
            })?,
            None => given.await,
        };
        let place = place.map_err(|_| ending())?;
        let looking = tokio::task::spawn_blocking(move || {
            let looked = look();
            drop(place);
            looked
        });
        looking.await.map_err(|_| ending())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::sync_channel;

    use tokio::task::JoinSet;

    use super::*;

    const MOMENT: Duration = Duration::from_millis(1);

    #[tokio::test]
    async fn no_more_look_at_once_than_may_though_nobody_waits_for_them_any_more() {
        let places = Places::new(2, 1, None);
        let now = Arc::new(AtomicUsize::new(0));
        let (open, gate) = sync_channel::<()>(0);
        let gate = Arc::new(Mutex::new(gate));
        let ask = |session: u64| {
            let (places, now, gate) = (places.clone(), Arc::clone(&now), Arc::clone(&gate));
            async move {
                let look = move || {
                    now.fetch_add(1, Ordering::SeqCst);
                    let _ = gate.lock().unwrap().recv();
                    now.fetch_sub(1, Ordering::SeqCst);
                };
                places.look(SessionId(session), look).await
            }
        };
        let mut all: JoinSet<_> = (0..20).map(ask).collect();
        while now.load(Ordering::SeqCst) < 2 {
            tokio::time::sleep(MOMENT).await;
        }
        // Their clients go, and others come.
        all.abort_all();
        while all.join_next().await.is_some() {}
        let mut others: JoinSet<_> = (20..40).map(ask).collect();
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(now.load(Ordering::SeqCst), 2);
        drop(open);
        while let Some(looked) = others.join_next().await {
            looked.unwrap().unwrap();
        }
        // Those that nobody waits for end too.
        while now.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(MOMENT).await;
        }
        let queue = lock(&places.queue);
        assert_eq!((queue.free, queue.held.len()), (2, 0));
    }

    #[test]
    fn sessions_are_served_by_turns_and_none_has_every_place() {
        let places = Places::new(2, 1, None);
        let mut waiting: Vec<_> = [1, 1, 1, 1, 1, 1, 2, 3, 3]
            .map(|session| (session, lock(&places.queue).wait(SessionId(session))))
            .into();
        grant(&places.queue);
        let (mut order, mut held) = (Vec::new(), VecDeque::new());
        while !waiting.is_empty() {
            waiting.retain_mut(|(session, given)| match given.try_recv() {
                Ok(place) => {
                    order.push(*session);
                    held.push_back(place);
                    false
                }
                Err(_) => true,
            });
            assert!(!held.is_empty() && held.len() <= 2);
            // The look that began first ends first.
            drop(held.pop_front());
        }
        // One of each, whoever asked first, and in turns as long as there are others.
        assert_eq!(order, [1, 2, 3, 1, 3, 1, 1, 1, 1]);
    }

    #[tokio::test]
    async fn looks_that_never_end_keep_others_of_their_kind_out_for_a_while_each() {
        let places = Places::new(1, 1, Some(Duration::from_millis(20)));
        let (open, gate) = sync_channel::<()>(0);
        let stuck = places.clone();
        let stuck = tokio::spawn(async move {
            let wait = move || gate.recv();
            stuck.look(SessionId(1), wait).await
        });
        while lock(&places.queue).free > 0 {
            tokio::time::sleep(MOMENT).await;
        }
        let busy = places.look(SessionId(2), || ()).await.unwrap_err();
        assert_eq!(busy.code, ApiErrorCode::Busy);
        drop(open);
        stuck.await.unwrap().unwrap().unwrap_err();
        places.look(SessionId(2), || ()).await.unwrap();
    }
}
