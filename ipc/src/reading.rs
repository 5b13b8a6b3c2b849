//! A reading task that ends with the last client of its connection.

use tokio::task::AbortHandle;

/// Aborts the task when it is dropped, and with it the connection that the task owns.
#[derive(Debug)]
pub(crate) struct Reading(pub(crate) AbortHandle);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.abort();
    }
}
