//! The calls about storage, which the list names: their arguments, and what those and the answers are made of.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::api::storage::{PoolSummary, Volume};
use crate::model::{NewVolume, Pool, PoolName, PoolUuid, VolumeName};
use crate::spec::DiskFormat;

arguments! {
    /// One page of storage pools, in order of their names.
    PoolList {
        /// Only those after this name.
        after: Option<PoolName>,
        /// Only those that are so.
        filter: PoolFilter,
    };

    /// One pool. Its file system is asked for its sizes; its directory is not read.
    PoolGet {
        /// Which.
        pool: PoolRef,
    };

    /// Keeps a definition of a pool. One of the same UUID and name is replaced; a pool that is active goes on with
    /// the one it has. It is on disk when the answer comes. Its directory need not exist.
    PoolDefine {
        /// The definition.
        pool: Box<Pool>,
        /// Refuse to replace one.
        only_new: bool,
    };

    /// Starts a pool without keeping its definition: it is gone when it is stopped.
    PoolCreate {
        /// The definition.
        pool: Box<Pool>,
        /// Make its directory first, as [`PoolBuild`] does.
        build: bool,
    };

    /// Makes the directory of a pool that is not active, and those above it as far as they are beneath an allowed
    /// directory. One that is there is left as it is, whatever its definition says of its owner and mode.
    PoolBuild {
        /// Which.
        pool: PoolRef,
    };

    /// Starts a pool: looks what volumes its directory has. Answered when that is known.
    PoolStart {
        /// Which.
        pool: PoolRef,
        /// Make its directory first, as [`PoolBuild`] does.
        build: bool,
    };

    /// Stops a pool (libvirt's destroy): what is in its directory stays. Refused while a volume of it is being
    /// changed.
    PoolStop {
        /// Which.
        pool: PoolRef,
    };

    /// Removes the directory of a pool that is not active; refused where there is anything in it.
    PoolDelete {
        /// Which.
        pool: PoolRef,
    };

    /// Forgets the definition of a pool that is not active.
    PoolUndefine {
        /// Which.
        pool: PoolRef,
    };

    /// Whether a pool starts with the host.
    PoolAutostartSet {
        /// Which.
        pool: PoolRef,
        /// Whether.
        autostart: bool,
    };

    /// Looks again what volumes an active pool has.
    PoolRefresh {
        /// Which.
        pool: PoolRef,
    };

    /// One page of the volumes of an active pool, in order of their names, as they were when the pool was last
    /// looked at, with what was done to them through the supervisor since.
    VolumeList {
        /// Of which pool.
        pool: PoolRef,
        /// Only those after this name.
        after: Option<VolumeName>,
    };

    /// One volume as it is now: its file is looked at, and its first bytes are read again where it has changed. One
    /// that is being made is there with what it has so far; one that came into the directory by other means is found.
    VolumeGet {
        /// Which.
        volume: VolumeRef,
    };

    /// Makes a volume. Answered when it is made; meanwhile it is there to be looked at, its allocation grows, and
    /// whatever else is asked of it is refused as busy.
    VolumeCreate {
        /// In which pool, which is active.
        pool: PoolRef,
        /// The volume.
        volume: Box<NewVolume>,
        /// Lay out all of the tables of a qcow2 image at once, which has no backing file then (libvirt's
        /// `PREALLOC_METADATA`).
        preallocate_metadata: bool,
    };

    /// Makes a volume with what another has, in whichever active pool that is. The copy has the format that is said,
    /// and builds upon nothing but what the other does where that is qcow2 as well. Answered as [`VolumeCreate`] is.
    VolumeClone {
        /// In which pool, which is active.
        pool: PoolRef,
        /// The volume.
        volume: Box<NewVolume>,
        /// What it is a copy of; nobody may write it meanwhile.
        from: VolumeRef,
        /// As of [`VolumeCreate`].
        preallocate_metadata: bool,
        /// Share blocks with the other, or fail (libvirt's `REFLINK`); otherwise they are shared where that can be.
        reflink: bool,
        /// What is in the other; where it is not said, what its first bytes look like, which its guest may have
        /// written.
        from_format: Option<DiskFormat>,
    };

    /// Makes a volume larger, or smaller.
    VolumeResize {
        /// Which.
        volume: VolumeRef,
        /// How large.
        capacity: NewCapacity,
        /// Allocate what it has more.
        allocate: bool,
        /// Let it become smaller; what was behind its end is lost.
        shrink: bool,
        /// What is in it; where it is not said, as of [`VolumeClone`].
        format: Option<DiskFormat>,
    };

    /// Overwrites all that a volume's file has, in place.
    VolumeWipe {
        /// Which.
        volume: VolumeRef,
        /// With what.
        algorithm: WipeAlgorithm,
    };

    /// Removes a volume. Refused while anything uses it, and of a directory that is not empty.
    VolumeDelete {
        /// Which.
        volume: VolumeRef,
        /// Overwrite it with zeros first.
        zeroed: bool,
    };

    /// Has what the client sends written to a volume's file. The answer brings one descriptor, the client's end of a
    /// [stream](crate::volume_stream), whose other end a process of the supervisor's has, with the file and the locks of a machine
    /// that writes it: until that stream has ended, the volume counts as used by another machine. It ends with its
    /// last frame, when either end is closed, with the connection that asked for it, and when its pool is stopped.
    /// A send to a file that takes nothing for a minute fails with `EAGAIN`, and the stream is of no use then.
    VolumeUpload {
        /// Which.
        volume: VolumeRef,
        /// From which byte of the file on.
        offset: u64,
        /// How many bytes; 0 for as many as come. The file grows where they are more than it has.
        length: u64,
    };

    /// Has what is in a volume's file sent to the client. The answer brings one descriptor, the client's end of a
    /// [stream](crate::volume_stream), which ends as one of [`VolumeUpload`] does. Nothing is locked: what a machine
    /// writes meanwhile is read as it comes.
    VolumeDownload {
        /// Which.
        volume: VolumeRef,
        /// From which byte of the file on.
        offset: u64,
        /// How many bytes; 0 for all that there are from there on.
        length: u64,
    };
}

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
