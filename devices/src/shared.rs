//! How a device is shared between threads: one mutex per device, held for one register access.
//!
//! The bus, the control thread and an I/O thread each hold a clone of the same [`Shared`] device.
//! Lock order is in the crate documentation.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A device (or a part of one) reachable from several threads.
pub type Shared<T> = Arc<Mutex<T>>;

/// Puts a finished device behind its mutex.
pub fn share<T>(device: T) -> Shared<T> {
    Arc::new(Mutex::new(device))
}

/// Locks a device.
///
/// A poisoned mutex is entered: release builds abort on panic, so poison is only ever seen by a
/// test whose assertion has failed already.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells another thread that there is work for it (the worker writes an eventfd).
///
/// Called with device locks held: an implementation neither blocks nor calls back into a device.
pub trait Wake: std::fmt::Debug + Send + Sync {
    /// Wakes the other thread; calls may be merged.
    fn wake(&self);
}

/// A [`Wake`] that wakes nobody, for a device whose event no thread waits for.
#[derive(Debug, Default, Clone, Copy)]
pub struct NoWake;

impl Wake for NoWake {
    fn wake(&self) {}
}
