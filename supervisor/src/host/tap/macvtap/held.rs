//! The macvtaps that workers have.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::{Macvtap, MacvtapRecord, lock};

/// How long what is to go is waited for before another is made: it may be upon the same device.
const PATIENCE: Duration = Duration::from_secs(5);

/// The macvtaps of a worker, whoever knows of them. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct WorkerMacvtaps(Arc<Mutex<Option<Vec<Macvtap>>>>);

impl WorkerMacvtaps {
    /// Those of a worker that is made or found.
    pub(crate) fn new(macvtaps: Vec<Macvtap>) -> Self {
        Self(Arc::new(Mutex::new(Some(macvtaps))))
    }

    /// Those that were recorded of one.
    pub(crate) fn recorded<'a>(records: impl IntoIterator<Item = &'a MacvtapRecord>) -> Self {
        let records = records.into_iter().cloned();
        Self::new(records.map(Macvtap::recorded).collect())
    }

    /// Whether there are any.
    pub(crate) fn any(&self) -> bool {
        lock(&self.0).as_ref().is_some_and(|held| !held.is_empty())
    }

    /// Takes up further ones. Of a worker that is gone they are deleted.
    pub(crate) fn add(&self, mut macvtaps: Vec<Macvtap>) {
        if let Some(held) = lock(&self.0).as_mut() {
            held.append(&mut macvtaps);
        }
    }

    /// Takes out those of a device that is gone: they are deleted when what is given back is dropped, and none is made
    /// before that.
    #[must_use]
    pub(crate) fn take(&self, records: &[MacvtapRecord]) -> Vec<Macvtap> {
        let mut taken = Vec::new();
        if let Some(held) = lock(&self.0).as_mut() {
            let all = std::mem::take(held).into_iter();
            (taken, *held) = all.partition(|one| records.iter().any(|record| one.is(record)));
        }
        for one in &mut taken {
            one.going = Some(Going::note());
        }
        taken
    }

    /// Deletes them, and whichever come later.
    pub(crate) fn release(&self) {
        let held = lock(&self.0).take();
        drop(held);
    }

    /// Leaves them to a later supervisor.
    pub(crate) fn leave(&self) {
        let held = lock(&self.0).take();
        held.into_iter().flatten().for_each(Macvtap::leave);
    }
}

/// How many are about to be deleted.
static GOING: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

/// One of [`GOING`].
#[derive(Debug)]
pub(super) struct Going(());

impl Going {
    fn note() -> Self {
        let mut going = lock(&GOING.0);
        *going = going.saturating_add(1);
        Self(())
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        let mut going = lock(&GOING.0);
        *going = going.saturating_sub(1);
        GOING.1.notify_all();
    }
}

/// Waits for what is about to be deleted. What is not gone by then may be in the way, and is refused then.
pub(super) fn settle() {
    let going = lock(&GOING.0);
    let _ = GOING
        .1
        .wait_timeout_while(going, PATIENCE, |going| *going > 0);
}
