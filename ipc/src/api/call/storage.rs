//! What the calls about storage, and their answers, are made of.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::api::storage::{PoolSummary, Volume};
use crate::model::{PoolName, PoolUuid, VolumeName};

/// Names a pool.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PoolRef {
    /// By its name.
    Name(PoolName),
    /// By its UUID.
    Uuid(PoolUuid),
    /// By its directory; one that is active comes first.
    Target(PathBuf),
}

impl std::fmt::Display for PoolRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => write!(f, "'{name}'"),
            Self::Uuid(uuid) => uuid.fmt(f),
            Self::Target(path) => write!(f, "at '{}'", path.display()),
        }
    }
}

/// Names a volume of an active pool.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum VolumeRef {
    /// By its pool and its name.
    Name {
        /// The pool.
        pool: PoolRef,
        /// The name.
        name: VolumeName,
    },
    /// By its path, which is its key; in whichever active pool's directory it is.
    Path(PathBuf),
}

impl std::fmt::Display for VolumeRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name { pool, name } => write!(f, "'{name}' of pool {pool}"),
            Self::Path(path) => write!(f, "at '{}'", path.display()),
        }
    }
}

/// Which pools are listed: those that are as each answer here says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolFilter {
    /// Whether they are active.
    pub active: Option<bool>,
    /// Whether they have a definition that is kept.
    pub persistent: Option<bool>,
    /// Whether they start with the host.
    pub autostart: Option<bool>,
}

/// One page of pools.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolPage {
    /// At most [`MAX_PAGE`](crate::api::MAX_PAGE), and as many as fit a message.
    pub pools: Vec<PoolSummary>,
    /// Whether there are more, after the last of these.
    pub more: bool,
}

/// One page of volumes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumePage {
    /// At most [`MAX_PAGE`](crate::api::MAX_PAGE), and as many as fit a message.
    pub volumes: Vec<Volume>,
    /// Whether there are more, after the last of these.
    pub more: bool,
}

/// How large a volume is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NewCapacity {
    /// So many bytes.
    To(u64),
    /// By so many bytes more.
    More(u64),
    /// By so many bytes less.
    Less(u64),
}

/// What a volume is overwritten with (libvirt `virStorageVolWipeAlgorithm`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WipeAlgorithm {
    /// Zeros, once.
    Zero,
    /// Any other rule, which is not supported.
    Other,
}

/// A volume's file, opened for a client; its end of the stream comes with the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeStream {
    /// Where in the file the transfer begins.
    pub offset: u64,
    /// How many bytes it has: of a download what there is from there on, at most what was asked for; of an
    /// upload what was asked for, or the most that a file can have from there on.
    pub length: u64,
}
