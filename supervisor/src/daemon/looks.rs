//! Looks into the kernel's books, on threads that may wait: a few at a time, however many ask.
//!
//! The books of the host and of its processes are made when they are read, which takes the kernel's time and its
//! locks. Clients may ask as often as they like, and each look is on a thread of its own.

use std::sync::Arc;

use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use tokio::sync::Semaphore;

/// Looks at a time: another client's need not wait for one that takes long.
const AT_ONCE: usize = 2;

/// The places for them.
#[derive(Debug, Clone)]
pub(super) struct Looks {
    places: Arc<Semaphore>,
}

impl Default for Looks {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }
}

impl Looks {
    /// Looks, when those before have. A look that has begun keeps its place to its end, whoever still waits for it.
    ///
    /// # Errors
    /// The supervisor ends.
    pub(super) async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let ending = || ApiError::new(ApiErrorCode::ShuttingDown, "the supervisor is ending");
        let place = Arc::clone(&self.places).acquire_owned().await;
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
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::sync_channel;
    use std::time::Duration;

    use tokio::task::JoinSet;

    use super::*;

    #[tokio::test]
    async fn no_more_look_at_once_than_may_though_nobody_waits_for_them_any_more() {
        let looks = Looks::default();
        let now = Arc::new(AtomicUsize::new(0));
        let (open, gate) = sync_channel::<()>(0);
        let gate = Arc::new(Mutex::new(gate));
        let ask = || {
            let (looks, now, gate) = (looks.clone(), Arc::clone(&now), Arc::clone(&gate));
            async move {
                let look = move || {
                    now.fetch_add(1, Ordering::SeqCst);
                    let _ = gate.lock().unwrap().recv();
                    now.fetch_sub(1, Ordering::SeqCst);
                };
                looks.look(look).await
            }
        };
        let mut all: JoinSet<_> = (0..20).map(|_| ask()).collect();
        while now.load(Ordering::SeqCst) < AT_ONCE {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // Their clients go, and others come.
        all.abort_all();
        while all.join_next().await.is_some() {}
        let mut others: JoinSet<_> = (0..20).map(|_| ask()).collect();
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(now.load(Ordering::SeqCst), AT_ONCE);
        drop(open);
        while let Some(looked) = others.join_next().await {
            looked.unwrap().unwrap();
        }
        // Those that nobody waits for end too.
        while now.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
