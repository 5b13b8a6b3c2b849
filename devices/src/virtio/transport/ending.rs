//! The end of a device's workers, for those who wait for it: with the registers' lock held not at all, so
//! that a vCPU's access to them never waits for storage.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use super::super::Progress;
use crate::shared::{Wake, lock};

#[derive(Debug, Default)]
struct State {
    over: bool,
    progress: Option<Progress>,
    watcher: Option<Arc<dyn Wake>>,
}

/// Where the workers leave their queues' progress when they end.
#[derive(Debug, Default)]
pub(super) struct Ending {
    state: Mutex<State>,
    ended: Condvar,
}

impl Ending {
    /// On a device thread: they have ended.
    pub(super) fn finish(&self, progress: Progress) {
        let watcher = {
            let mut state = lock(&self.state);
            state.progress = Some(progress);
            state.over = true;
            state.watcher.take()
        };
        self.ended.notify_all();
        if let Some(watcher) = watcher {
            watcher.wake();
        }
    }

    /// The progress, once.
    pub(super) fn take(&self) -> Option<Progress> {
        lock(&self.state).progress.take()
    }
}

/// A stop that is under way. Whoever has one need not hold the device's lock.
#[derive(Debug, Clone)]
pub struct Stopping(pub(super) Arc<Ending>);

impl Stopping {
    /// Waits until the workers have ended; false when `deadline` passes first.
    #[must_use]
    pub fn wait(&self, deadline: Instant) -> bool {
        let mut state = lock(&self.0.state);
        while !state.over {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.0.ended.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Has `watcher` woken, on any thread, when the workers have ended: at once if they have. It takes the
    /// place of one before.
    pub fn watch(&self, watcher: Arc<dyn Wake>) {
        {
            let mut state = lock(&self.0.state);
            if !state.over {
                state.watcher = Some(watcher);
                return;
            }
        }
        watcher.wake();
    }
}
