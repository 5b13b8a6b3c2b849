//! A thread that makes processes, one after another, and the way to it.
//!
//! To the kernel the parent of a process is the thread that made it, and one that asks for that dies with it
//! (prctl(2), `PR_SET_PDEATHSIG`). So one thread makes all of a kind, and lives as long as whoever orders them.
//! It also keeps the runtime free: to make a process blocks for about a millisecond.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};

use rustix::fs::{Mode, OFlags};

/// The thread's stack: stage A runs the child on a stack of its own.
const STACK_BYTES: usize = 128 << 10;

/// The way to the thread. Dropping it waits for the process that is being made, then ends the thread, and with it
/// every process that is bound to it.
#[derive(Debug)]
pub(crate) struct SpawnThread<T> {
    /// `None` while it is dropped only.
    orders: Option<SyncSender<T>>,
    thread: Option<JoinHandle<()>>,
}

impl<T> Drop for SpawnThread<T> {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // One that panicked has nothing left to undo.
            let _ = thread.join();
        }
    }
}

impl<T: Send + 'static> SpawnThread<T> {
    /// Starts the thread of that name, which does with each order what `serve` does; the descriptor is
    /// `/dev/null`, open for reading and writing. As many orders as `queue` may wait.
    ///
    /// # Errors
    /// No thread, or no `/dev/null`.
    pub(crate) fn start(
        name: &str,
        queue: usize,
        mut serve: impl FnMut(T, &OwnedFd) + Send + 'static,
    ) -> io::Result<Self> {
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        let (orders, ordered) = sync_channel(queue);
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                while let Ok(order) = ordered.recv() {
                    serve(order, &null);
                }
            })?;
        Ok(Self {
            orders: Some(orders),
            thread: Some(thread),
        })
    }

    /// Gives it an order, and waits for nothing.
    ///
    /// # Errors
    /// As many wait already, or the thread is gone: with the order.
    pub(crate) fn order(&self, order: T) -> Result<(), TrySendError<T>> {
        match &self.orders {
            Some(orders) => orders.try_send(order),
            None => Err(TrySendError::Disconnected(order)),
        }
    }
}
