//! The error a call is answered with.

use serde::{Deserialize, Serialize};

use crate::error::truncate;

/// What kind of failure, for programs to branch on. Positional: new ones come at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ApiErrorCode {
    /// No domain of this name or UUID.
    NoDomain,
    /// A domain of this name or UUID exists already.
    DomainExists,
    /// The domain or pool is not in a state in which this can be done.
    WrongState,
    /// Another job of the domain, pool or volume is running, the kernel has not released the domain's last worker
    /// yet, or the client has too many calls in flight.
    Busy,
    /// An argument is out of its range, or contradicts another.
    InvalidArgument,
    /// The connection may not do this.
    AccessDenied,
    /// A path that clients may not name.
    PathRefused,
    /// The domain's worker did not do it in time.
    Timeout,
    /// The worker refused, failed or died.
    Worker,
    /// What a definition or a limit needs and this host does not give.
    Host,
    /// The state directory could not be written; nothing has changed.
    Storage,
    /// This build does not do it.
    Unsupported,
    /// The supervisor is ending.
    ShuttingDown,
    /// The job was overtaken by a destroy.
    Cancelled,
    /// The domain has no device of this name.
    NoDevice,
    /// No storage pool of this name, UUID or directory.
    NoPool,
    /// A storage pool of this name or UUID, or with this directory, exists already.
    PoolExists,
    /// No volume of this name or path in an active pool.
    NoVolume,
    /// A volume of this name exists already.
    VolumeExists,
    /// The volume is used: by a machine, or by another program that holds its locks.
    InUse,
    /// There is no room: the file system is full, or its quota is.
    NoSpace,
    /// No virtual network of this name or UUID.
    NoNetwork,
    /// A virtual network of this name or UUID, or with this bridge, exists already.
    NetworkExists,
    /// The virtual network has no port of this UUID.
    NoPort,
    /// No network filter of this name or UUID.
    NoNwfilter,
    /// A network filter of this name or UUID exists already.
    NwfilterExists,
}

/// One line for a person, a code for a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// What kind of failure.
    pub code: ApiErrorCode,
    /// One line: what failed, on which object, and what to do. Lower case, no full stop.
    pub message: String,
}

impl ApiError {
    /// The most bytes of a message; the rest is cut at a character boundary.
    pub const MAX_MESSAGE_BYTES: usize = 2048;

    /// An error of `code` that says `message`, made to fit.
    #[must_use]
    pub fn new(code: ApiErrorCode, message: impl Into<String>) -> Self {
        let mut message = message.into();
        truncate(&mut message, Self::MAX_MESSAGE_BYTES);
        Self { code, message }
    }
}
