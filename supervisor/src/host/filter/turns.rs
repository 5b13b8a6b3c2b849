//! What is kept, for one at a time, in turns.
//!
//! Whoever takes it again as soon as it has let go, as who changes a thousand filters does, comes behind all who wait:
//! only one who waits holds `next`, and nobody waits for what is kept without it.

use std::sync::{Mutex, MutexGuard};

use super::keeper::Kept;
use super::lock;

/// What is kept.
#[derive(Debug, Default)]
pub(super) struct Turns {
    next: Mutex<()>,
    kept: Mutex<Kept>,
}

impl Turns {
    /// Takes it, when it is one's turn.
    pub(super) fn take(&self) -> MutexGuard<'_, Kept> {
        let next = lock(&self.next);
        let kept = lock(&self.kept);
        drop(next);
        kept
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn whoever_takes_it_again_and_again_comes_behind_one_who_waits() {
        let turns = Arc::new(Turns::default());
        let has_had = Arc::new(AtomicBool::new(false));
        let first = turns.take();
        let other = {
            let (turns, has_had) = (Arc::clone(&turns), Arc::clone(&has_had));
            std::thread::spawn(move || {
                let kept = turns.take();
                has_had.store(true, Ordering::Relaxed);
                drop(kept);
            })
        };
        // It waits for what is kept when it has the next turn.
        while turns.next.try_lock().is_ok() {
            std::thread::yield_now();
        }
        drop(first);
        drop(turns.take());
        assert!(has_had.load(Ordering::Relaxed));
        other.join().unwrap();
    }
}
