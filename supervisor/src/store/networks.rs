//! What is kept of virtual networks: definitions in the state directory, durable; what active ones have of the host
//! in the run directory.
//!
//! ```text
//!   STATE/networks/UUID.json   a definition, and whether it starts with the host
//!   STATE/networks/default-made  the network `default` was given to this instance: it is not given again
//!   RUN/networks/UUID.json     the definition that a network is active with, or is being started or stopped with, and
//!                              what is made for it: written before that is
//! ```
//!
//! That a network is transient is said by what is not there: its definition in the state directory.
//! Both directories were locked by whoever opened them ([`super::StateDir`], [`super::RunDir`]).

mod files;
mod shape;

use std::path::Path;

use reeve_ipc::model::{MAX_NETWORK_BYTES, Network, NetworkUuid};

pub use self::shape::{NetworkFile, PartFile, ShapeError};
use super::error::{Refusal, StoreError};
use super::kept::{Kept, Noted, check};
use crate::crash::Operation;
use crate::network::host::NetworkResources;

/// The most bytes of one of these files: a definition in words with all that quotes and indents it.
const MAX_BYTES: usize = 16 * MAX_NETWORK_BYTES;

/// What these files are of.
const WHAT: &str = "network";

/// The mark that the network `default` was given.
const DEFAULT_MADE: &str = "default-made";

/// A definition as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkRecord {
    /// The network.
    pub network: Network,
    /// Whether it starts with the host.
    pub autostart: bool,
}

/// How far a network is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkPhase {
    /// It is being made, and nobody was told that it is active.
    Starting,
    /// It is active.
    Active,
    /// It is being taken away.
    Stopping,
}

/// How a network stands that has anything of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkStatus {
    /// The boot that what is made is of: nothing of it outlives that.
    pub boot_id: String,
    /// How far it is.
    pub phase: NetworkPhase,
    /// The definition that it is made by.
    pub network: Network,
    /// What is made.
    pub resources: NetworkResources,
}

/// What was found.
#[derive(Debug, Default)]
pub struct LoadedNetworks {
    /// Definitions, by UUID, rising.
    pub records: Vec<NetworkRecord>,
    /// What has anything of the host.
    pub statuses: Vec<NetworkStatus>,
    /// Files that were left alone.
    pub refused: Vec<Refusal>,
}

/// What is kept of the networks of one instance.
#[derive(Debug)]
pub struct NetworkStore {
    records: Kept,
    active: Noted,
}

impl NetworkStore {
    /// Opens what is kept in these directories, which are this process' own.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn open(state: &Path, run: &Path) -> Result<Self, StoreError> {
        Ok(Self {
            records: Kept::open(state.join("networks"))?,
            active: Noted::open(run.join("networks"))?,
        })
    }

    /// Reads everything. Files that cannot be read are listed and left alone; what is of an earlier boot is removed.
    ///
    /// # Errors
    /// [`StoreError::Io`]: a directory itself cannot be read.
    pub fn load_all(&self, boot_id: &str) -> Result<LoadedNetworks, StoreError> {
        let mut loaded = LoadedNetworks::default();
        let mut refused = self.records.each(MAX_BYTES, |name, text| {
            let record = files::decode(text).map_err(|error| error.to_string())?;
            check(WHAT, name, record.network.uuid)?;
            let taken = |other: &NetworkRecord| other.network.name == record.network.name;
            if loaded.records.iter().any(taken) {
                let name = &record.network.name;
                return Err(format!("the name '{name}' is another network's already"));
            }
            loaded.records.push(record);
            Ok(())
        })?;
        let left = self.active.each(MAX_BYTES, |name, text| {
            let status = match files::decode_status(text) {
                Ok(status) => status,
                Err(error) => {
                    let remains = files::Remains::of(text);
                    let earlier = remains.boot_id.as_ref().is_some_and(|id| id != boot_id);
                    if !earlier {
                        return Err(format!("{error}; {}", remains.words()));
                    }
                    tracing::info!("{name} is of an earlier boot, and of another version");
                    let uuid = name.strip_suffix(".json").unwrap_or(name);
                    let removed = self.active.remove(uuid);
                    return removed.map_err(|error| error.to_string());
                }
            };
            check(WHAT, name, status.network.uuid)?;
            if status.boot_id != boot_id {
                tracing::info!(network = %status.network.name, "the host was booted since it was active");
                let removed = self.remove_status(status.network.uuid);
                return removed.map_err(|error| error.to_string());
            }
            loaded.statuses.push(status);
            Ok(())
        })?;
        refused.extend(left);
        loaded.refused = refused;
        Ok(loaded)
    }

    /// Whether this instance has been given the network `default` already.
    #[must_use]
    pub fn has_had_default(&self) -> bool {
        self.records.has(DEFAULT_MADE)
    }

    /// It has.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn default_made(&self) -> Result<(), StoreError> {
        self.records.put(DEFAULT_MADE, b"", |_| ())
    }

    /// Keeps a definition; it is durable on return. A file that could not be read is not written over.
    ///
    /// # Errors
    /// [`StoreError`]; what was kept before stands.
    pub fn write(&self, record: &NetworkRecord) -> Result<(), StoreError> {
        let of = (record.network.uuid, record.network.name.as_str());
        let encoded = files::encode(record);
        self.records.write(Operation::NetworkDefine, of, encoded)
    }

    /// Removes a definition, durably.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn remove(&self, uuid: NetworkUuid) -> Result<(), StoreError> {
        self.records.remove(Operation::NetworkUndefine, uuid)
    }

    /// Notes how a network stands, for `operation`.
    ///
    /// # Errors
    /// [`StoreError`]; what was noted before stands.
    pub fn set_status(
        &self,
        operation: Operation,
        status: &NetworkStatus,
    ) -> Result<(), StoreError> {
        let of = (status.network.uuid, status.network.name.as_str());
        let encoded = files::encode_status(status);
        self.active.write(operation, of, encoded)
    }

    /// How a network stands, where that is noted.
    ///
    /// # Errors
    /// [`StoreError::Io`]. [`StoreError::Refused`]: it is not to be written over, since nothing else says what is left
    /// on the host.
    pub fn status(&self, uuid: NetworkUuid) -> Result<Option<NetworkStatus>, StoreError> {
        let Some(text) = self.active.read(uuid)? else {
            return Ok(None);
        };
        files::decode_status(&text).map(Some).map_err(|error| {
            let path = self.active.path(uuid);
            let reason = format!("{error}; {}", files::Remains::of(&text).words());
            StoreError::Refused(Refusal { path, reason })
        })
    }

    /// Notes that a network has nothing of the host.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn remove_status(&self, uuid: NetworkUuid) -> Result<(), StoreError> {
        self.active.remove(uuid)
    }
}

#[cfg(test)]
mod tests;
