//! What virtual networks are made of on this host.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use reeve_ipc::model::{Network, NetworkUuid};

use crate::network::host::{
    Connection, NetworkFailure, NetworkHost, NetworkHostError, NetworkResources, Note,
};

/// The directories of an instance, in which what belongs to a network is kept.
#[derive(Debug, Clone)]
pub struct Directories {
    /// Gone with the boot.
    pub run: PathBuf,
    /// Kept.
    pub state: PathBuf,
}

/// The host. It does not make networks yet, and says so.
#[derive(Debug, Clone)]
pub struct Host {
    _directories: Directories,
}

impl Host {
    /// The host, for an instance with these directories.
    #[must_use]
    pub const fn new(directories: Directories) -> Self {
        Self {
            _directories: directories,
        }
    }
}

fn unsupported<T>() -> Result<T, NetworkHostError> {
    Err(NetworkHostError {
        kind: NetworkFailure::Unsupported,
        message: "this reeved does not make networks on its host yet".to_owned(),
    })
}

impl NetworkHost for Host {
    fn start(&self, _: &Network, _: Note<'_>) -> Result<NetworkResources, NetworkHostError> {
        unsupported()
    }

    fn adopt(
        &self,
        _: &Network,
        _: &NetworkResources,
        _: Note<'_>,
    ) -> Result<NetworkResources, NetworkHostError> {
        unsupported()
    }

    fn update(
        &self,
        _: &Network,
        _: &Network,
        _: &NetworkResources,
        _: Note<'_>,
    ) -> Result<NetworkResources, NetworkHostError> {
        unsupported()
    }

    fn stop(&self, _: &Network, _: &NetworkResources) -> Result<(), NetworkHostError> {
        // It has made nothing.
        Ok(())
    }

    fn connect(&self, _: &Connection<'_>) -> Result<(), NetworkHostError> {
        unsupported()
    }

    fn leases(&self, _: &Network) -> Result<Option<OwnedFd>, NetworkHostError> {
        unsupported()
    }

    fn watch(&self, _: NetworkUuid, _: &NetworkResources) -> Option<OwnedFd> {
        None
    }
}
