//! What an instance keeps: definitions that survive the host, run-time status that survives the
//! supervisor.
//!
//! ```text
//!   <state>/lock                    held by the one supervisor of this state, its pid inside
//!   <state>/host-uuid               what the host is known by, where nothing else says it
//!   <state>/domains/<uuid>.json     one record a defined domain, durable
//!   <state>/variables/<uuid>.fd     the variables of its firmware (see `variables`)
//!   <run>/lock                      held likewise: workers are found through this directory
//!   <run>/domains/<uuid>/status.json       what a later supervisor must know of a worker
//!   <run>/domains/<uuid>/console-position  how far the console log has come
//!   <run>/domains/<uuid>/adopt             the worker's socket (made by the driver)
//! ```
//!
//! Runs in the supervisor: records are written on the runtime's blocking threads, because they wait
//! for the disk; statuses on its own thread, because they are in memory. Every write is a temporary
//! that is renamed. A file that cannot be read is never touched: it is listed, and its UUID cannot be
//! defined until somebody has looked after it.

mod atomic;
mod error;
mod kept;
mod lock;
mod networks;
mod nwfilters;
mod pools;
mod rate;
mod run_dir;
mod schema;
mod state_dir;
mod status;
mod variables;
mod vlan;

use std::path::PathBuf;
use std::sync::Arc;

use reeve_ipc::api::view::DomainDefinition;
use reeve_ipc::model::DomainUuid;

use crate::domain::driver::Later;
use crate::domain::world::{Status, Storage};

pub use self::error::{Refusal, StoreError};
pub use self::networks::{
    LoadedNetworks, NetworkFile, NetworkPhase, NetworkRecord, NetworkStatus, NetworkStore,
    PartFile, ShapeError,
};
pub use self::nwfilters::{LoadedNwfilters, NwfilterStore};
pub use self::pools::{LoadedPools, PoolRecord, PoolStore, Unfinished, UnfinishedMark};
pub use self::run_dir::{LoadedStatuses, RunDir, SOCKET_NAME};
pub use self::schema::{CURRENT as RECORD_SCHEMA, SchemaError, decode, encode};
pub use self::state_dir::{LoadedRecords, MAX_RECORD_BYTES, StateDir};
pub use self::status::{decode as decode_status, encode as encode_status};
pub use self::variables::{VariableStores, VariablesError};

/// Both directories of one instance, held by this process alone.
#[derive(Debug)]
pub struct Store {
    state: Arc<StateDir>,
    run: RunDir,
}

impl Store {
    /// Puts an instance together from its directories.
    #[must_use]
    pub fn new(state: StateDir, run: RunDir) -> Self {
        Self {
            state: Arc::new(state),
            run,
        }
    }

    /// The state directory.
    #[must_use]
    pub fn state(&self) -> &StateDir {
        &self.state
    }

    /// The run directory.
    #[must_use]
    pub fn run(&self) -> &RunDir {
        &self.run
    }
}

/// Runs what waits for the disk on a thread where that holds nobody up.
fn on_disk<F>(work: F) -> Later<Result<(), String>>
where
    F: FnOnce() -> Result<(), StoreError> + Send + 'static,
{
    Box::pin(async move {
        match tokio::task::spawn_blocking(work).await {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(error) => Err(format!("the thread that writes to disk failed: {error}")),
        }
    })
}

impl Storage for Store {
    fn write_record(&self, record: DomainDefinition) -> Later<Result<(), String>> {
        let state = Arc::clone(&self.state);
        on_disk(move || state.write_record(&record))
    }

    fn remove_record(&self, uuid: DomainUuid) -> Later<Result<(), String>> {
        let state = Arc::clone(&self.state);
        on_disk(move || state.remove_record(uuid))
    }

    fn write_status(&self, uuid: DomainUuid, status: &Status) -> Result<(), String> {
        self.run
            .write_status(uuid, status)
            .map_err(|error| error.to_string())
    }

    fn console_position(&self, uuid: DomainUuid) -> Option<u64> {
        self.run.console_position(uuid)
    }

    fn set_console_position(&self, uuid: DomainUuid, bytes: u64) {
        if let Err(error) = self.run.set_console_position(uuid, bytes) {
            tracing::debug!(%uuid, %error, "how far the console log has come could not be noted");
        }
    }

    fn remove_status(&self, uuid: DomainUuid) {
        if let Err(error) = self.run.remove_status(uuid) {
            tracing::warn!(%uuid, %error, "a domain's run-time status could not be removed");
        }
    }

    fn directory(&self, uuid: DomainUuid) -> Result<PathBuf, String> {
        self.run.directory(uuid).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
pub(crate) mod test_disk;
#[cfg(test)]
mod tests;
