//! Rings kept for disks that come later.
//!
//! A ring that is made freely walks around every filter, so no thread may make one once the machine
//! stands. Those that are made before that, restricted and enabled, wait here; a disk that goes gives its
//! own back.

use std::io;
use std::sync::{Arc, Mutex};

use super::uring::Ring;
use crate::shared::lock;

/// The rings, at most as many as it was [filled](RingReserve::fill) with.
#[derive(Debug, Default)]
pub struct RingReserve {
    rings: Mutex<Vec<Ring>>,
}

impl RingReserve {
    /// Makes `count` rings. On a thread that may.
    ///
    /// # Errors
    /// As for [`Ring::new`]; those made before are kept.
    pub fn fill(&self, count: usize) -> io::Result<()> {
        for _ in 0..count {
            let ring = Ring::new()?;
            lock(&self.rings).push(ring);
        }
        Ok(())
    }

    /// One of them, if one is left. It comes back when the engine that has it goes.
    #[must_use]
    pub fn take(self: &Arc<Self>) -> Option<Ring> {
        let mut ring = lock(&self.rings).pop()?;
        ring.home = Some(Arc::clone(self));
        Some(ring)
    }

    /// How many are left.
    #[must_use]
    pub fn left(&self) -> usize {
        lock(&self.rings).len()
    }

    pub(super) fn put(&self, ring: Ring) {
        lock(&self.rings).push(ring);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::bounce::Direct;
    use crate::block::cache::CacheMode;
    use crate::block::engine::Engine;
    use crate::block::raw::Raw;

    #[test]
    fn a_ring_comes_back_when_its_disk_goes_and_is_as_new() {
        let reserve = Arc::new(RingReserve::default());
        if reserve.fill(1).is_err() {
            return;
        }
        for _ in 0..3 {
            let ring = reserve.take().expect("one");
            assert!(reserve.take().is_none());
            assert!(!ring.event().take(), "nobody has signalled it");
            let file = tempfile::tempfile().expect("a file");
            let raw = Raw::new(file.into(), true, Direct::none()).expect("a disk");
            let engine = Engine::new(
                Box::new(raw),
                Some(ring),
                CacheMode::Writeback,
                Direct::none(),
            );
            engine.event().expect("a ring's").signal();
            drop(engine);
            assert_eq!(reserve.left(), 1);
        }
    }
}
