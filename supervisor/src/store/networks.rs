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

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use reeve_ipc::model::{MAX_NETWORK_BYTES, Network, NetworkUuid};
use rustix::io::Errno;

pub use self::shape::{NetworkFile, PartFile, ShapeError};
use super::atomic::{self, Reached};
use super::error::{Refusal, StoreError};
use super::pools::{IN_MEMORY, Kept, each, make};
use crate::crash::{self, Moment, Operation};
use crate::network::host::NetworkResources;

/// The most bytes of one of these files: a definition in words with all that quotes and indents it.
const MAX_BYTES: usize = 16 * MAX_NETWORK_BYTES;

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
    active: PathBuf,
    /// What is not to be written over.
    refused: Mutex<Vec<Refusal>>,
}

impl NetworkStore {
    /// Opens what is kept in these directories, which are this process' own.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn open(state: &Path, run: &Path) -> Result<Self, StoreError> {
        let active = run.join("networks");
        make(&active)?;
        Ok(Self {
            records: Kept::open(state.join("networks"))?,
            active,
            refused: Mutex::default(),
        })
    }

    /// Reads everything. Files that cannot be read are listed and left alone; what is of an earlier boot is removed.
    ///
    /// # Errors
    /// [`StoreError::Io`]: a directory itself cannot be read.
    pub fn load_all(&self, boot_id: &str) -> Result<LoadedNetworks, StoreError> {
        let mut loaded = LoadedNetworks::default();
        let mut refused = Vec::new();
        each(&self.records, MAX_BYTES, &mut refused, |name, text| {
            let record = files::decode(text).map_err(|error| error.to_string())?;
            check(name, record.network.uuid)?;
            let taken = |other: &NetworkRecord| other.network.name == record.network.name;
            if loaded.records.iter().any(taken) {
                let name = &record.network.name;
                return Err(format!("the name '{name}' is another network's already"));
            }
            loaded.records.push(record);
            Ok(())
        })?;
        let active = Kept::open(self.active.clone())?;
        each(&active, MAX_BYTES, &mut refused, |name, text| {
            let status = match files::decode_status(text) {
                Ok(status) => status,
                Err(error) => {
                    let remains = files::Remains::of(text);
                    let earlier = remains.boot_id.as_ref().is_some_and(|id| id != boot_id);
                    if !earlier {
                        return Err(format!("{error}; {}", remains.words()));
                    }
                    tracing::info!("{name} is of an earlier boot, and of another version");
                    let path = self.active.join(name);
                    let removed = rustix::fs::unlink(&path);
                    return removed
                        .map_err(|errno| StoreError::io("remove", &path)(errno).to_string());
                }
            };
            check(name, status.network.uuid)?;
            if status.boot_id != boot_id {
                tracing::info!(network = %status.network.name, "the host was booted since it was active");
                let removed = self.remove_status(status.network.uuid);
                return removed.map_err(|error| error.to_string());
            }
            loaded.statuses.push(status);
            Ok(())
        })?;
        self.refused().clone_from(&refused);
        loaded.refused = refused;
        Ok(loaded)
    }

    fn refused(&self) -> MutexGuard<'_, Vec<Refusal>> {
        // Nothing panics while it is held.
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
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
        let point = |moment| crash::point(Operation::NetworkDefine, moment);
        point(Moment::BeforeWrite);
        let name = file_name(record.network.uuid);
        let refusal = |refusal: &&Refusal| refusal.path == self.records.path().join(&name);
        if let Some(refusal) = self.refused().iter().find(refusal) {
            return Err(StoreError::Refused(refusal.clone()));
        }
        let bytes = files::encode(record).map_err(|reason| StoreError::Encode {
            name: record.network.name.to_string(),
            reason,
        })?;
        self.records.put(&name, &bytes, |reached| {
            point(match reached {
                Reached::Temporary => Moment::AfterTemporary,
                Reached::Renamed => Moment::AfterRename,
            });
        })?;
        point(Moment::AfterWrite);
        Ok(())
    }

    /// Removes a definition, durably.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn remove(&self, uuid: NetworkUuid) -> Result<(), StoreError> {
        let point = |moment| crash::point(Operation::NetworkUndefine, moment);
        point(Moment::BeforeRemove);
        self.records
            .remove(&file_name(uuid), || point(Moment::AfterUnlink))?;
        point(Moment::AfterRemove);
        Ok(())
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
        crash::point(operation, Moment::BeforeStatus);
        let network = &status.network;
        let bytes = files::encode_status(status).map_err(|reason| StoreError::Encode {
            name: network.name.to_string(),
            reason,
        })?;
        // It may have been wiped.
        make(&self.active)?;
        let directory = atomic::open_directory(&self.active)?;
        let name = file_name(network.uuid);
        let path = &self.active;
        atomic::replace(directory.as_fd(), path, &name, &bytes, IN_MEMORY, |_| ())?;
        crash::point(operation, Moment::AfterStatus);
        Ok(())
    }

    /// How a network stands, where that is noted.
    ///
    /// # Errors
    /// [`StoreError::Io`]. [`StoreError::Refused`]: it is not to be written over, since nothing else says what is left
    /// on the host.
    pub fn status(&self, uuid: NetworkUuid) -> Result<Option<NetworkStatus>, StoreError> {
        let path = self.active.join(file_name(uuid));
        match std::fs::read(&path) {
            Ok(text) => files::decode_status(&text).map(Some).map_err(|error| {
                let reason = format!("{error}; {}", files::Remains::of(&text).words());
                StoreError::Refused(Refusal { path, reason })
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => {
                let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                Err(StoreError::io("read", &path)(errno))
            }
        }
    }

    /// Notes that a network has nothing of the host.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn remove_status(&self, uuid: NetworkUuid) -> Result<(), StoreError> {
        let path = self.active.join(file_name(uuid));
        match rustix::fs::unlink(&path) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(StoreError::io("remove", &path)(errno)),
        }
    }
}

fn check(name: &str, uuid: NetworkUuid) -> Result<(), String> {
    match file_name(uuid) {
        own if own == name => Ok(()),
        own => Err(format!(
            "it is of the network with UUID {uuid}: its name must be {own}"
        )),
    }
}

fn file_name(uuid: NetworkUuid) -> String {
    format!("{uuid}.json")
}

#[cfg(test)]
mod tests;
