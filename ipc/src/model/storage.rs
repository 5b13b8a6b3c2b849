//! Storage pools and volumes: directories of images (libvirt `<pool type='dir'>` and `<volume>`).
//!
//! A pool is a directory and what is kept of it; a volume is a file in it. Sizes are in bytes.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Layer, PoolName, PoolUuid, VolumeName};
use crate::spec::DiskFormat;

/// The most bytes of a pool's directory, so that every volume's path is one that the kernel takes.
pub const MAX_POOL_TARGET_BYTES: usize = 3072;
/// The most bytes a volume may have: as a guest sees it, and in its file. 8 EiB less one.
pub const MAX_VOLUME_BYTES: u64 = i64::MAX.unsigned_abs();
/// The bits that a mode may have: a program that is uploaded must not become one of whoever made its file.
pub const MODE_BITS: u32 = 0o777;
/// What a qcow2 image has for a cluster where nobody says: as QEMU does it.
pub const DEFAULT_CLUSTER_BYTES: u32 = 64 << 10;
/// The smallest and the largest cluster of a qcow2 image.
pub const CLUSTER_BYTES: std::ops::RangeInclusive<u32> = 512..=2 << 20;

/// Why a pool or a volume cannot be had as it is said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// No absolute path, or with `.` or `..` in it, or the root.
    #[error(
        "the target '{path}' must be an absolute path without '..', and not '/'",
        path = .0.display()
    )]
    Target(PathBuf),
    /// Longer than [`MAX_POOL_TARGET_BYTES`].
    #[error("the target must not be longer than {MAX_POOL_TARGET_BYTES} bytes")]
    TargetLength,
    /// More bits than [`MODE_BITS`].
    #[error("the mode {0:o} has more bits than 777")]
    Mode(u32),
    /// More than [`MAX_VOLUME_BYTES`].
    #[error("a volume of {0} bytes is more than a file can have")]
    Size(u64),
    /// More allocated than there is.
    #[error("an allocation of {allocation} bytes is more than the capacity of {capacity}")]
    Allocation {
        /// What is to be allocated.
        allocation: u64,
        /// What there is.
        capacity: u64,
    },
    /// Nobody says how large it is.
    #[error("a volume that is no copy and builds upon nothing needs a capacity")]
    NoCapacity,
    /// What only qcow2 has, of a raw volume.
    #[error("{0} is of qcow2 only, and the volume is raw")]
    Qcow2Only(&'static str),
    /// What a backing file is named.
    #[error(
        "the backing file '{path}' must be an absolute path of at most 1023 bytes, without '..'",
        path = .0.display()
    )]
    Backing(PathBuf),
    /// No power of two from 512 bytes to 2 MiB.
    #[error("a cluster of {0} bytes is none: it is a power of two from 512 to 2097152")]
    Cluster(u32),
    /// Of version 2, which has no features.
    #[error("lazy reference counts need compat 1.1")]
    LazyRefcounts,
}

/// Who owns a file or directory, as a definition says it. What is not said is left as it is found, or as it
/// comes: a directory that is made has mode 0711, a volume 0600, both of the supervisor's user and group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permissions {
    /// The permission bits, at most [`MODE_BITS`].
    pub mode: Option<u32>,
    /// The owner's uid.
    pub owner: Option<u32>,
    /// The group's gid.
    pub group: Option<u32>,
}

impl Permissions {
    /// Looks at the bits.
    ///
    /// # Errors
    /// [`StorageError::Mode`].
    pub fn validate(&self) -> Result<(), StorageError> {
        match self.mode {
            Some(mode) if mode & !MODE_BITS != 0 => Err(StorageError::Mode(mode)),
            _ => Ok(()),
        }
    }
}

/// A pool as its definition says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Its name.
    pub name: PoolName,
    /// Its UUID: its identity, unique on a host. Drawn by the client.
    pub uuid: PoolUuid,
    /// The directory; absolute, one of the supervisor's allowed directories or beneath one, and not another
    /// pool's. It may be within another pool's: that one shows it as a directory.
    pub target: PathBuf,
    /// Who owns the directory that [`PoolBuild`](crate::api::call::PoolBuild) makes, and who may enter it.
    pub permissions: Permissions,
}

impl Pool {
    /// Looks at all that can be judged without the host.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn validate(&self) -> Result<(), StorageError> {
        if self.target.as_os_str().len() > MAX_POOL_TARGET_BYTES {
            return Err(StorageError::TargetLength);
        }
        if !is_plain(&self.target) || self.target == Path::new("/") {
            return Err(StorageError::Target(self.target.clone()));
        }
        self.permissions.validate()
    }

    /// The path of a volume, which is its key as well.
    #[must_use]
    pub fn path_of(&self, volume: &VolumeName) -> PathBuf {
        self.target.join(volume.as_str())
    }
}

/// Absolute, and of plain names.
fn is_plain(path: &Path) -> bool {
    let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    path.is_absolute() && path.components().all(plain)
}

/// The version of a qcow2 image, by QEMU's and libvirt's `compat`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Qcow2Compat {
    /// Version 2, `0.10`.
    V2,
    /// Version 3, `1.1`.
    #[default]
    V3,
}

impl Qcow2Compat {
    /// As QEMU and libvirt write it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::V2 => "0.10",
            Self::V3 => "1.1",
        }
    }
}

/// How a qcow2 image is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Qcow2Options {
    /// Its version.
    pub compat: Qcow2Compat,
    /// Bytes of a cluster: a power of two, 512 to 2 MiB.
    pub cluster_bytes: u32,
    /// Reference counts are written late; of version 3 only.
    pub lazy_refcounts: bool,
}

impl Default for Qcow2Options {
    fn default() -> Self {
        Self {
            compat: Qcow2Compat::default(),
            cluster_bytes: DEFAULT_CLUSTER_BYTES,
            lazy_refcounts: false,
        }
    }
}

/// A volume that is to be made (libvirt `<volume>`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewVolume {
    /// Its name, which is its file's. One that begins with [`UNFINISHED_PREFIX`] is refused.
    pub name: VolumeName,
    /// Bytes as a guest sees it. `None`: as much as what it is a copy of, or builds upon. A copy is never
    /// smaller than what it is a copy of, whatever is said here.
    pub capacity: Option<u64>,
    /// Of a raw volume, the bytes that are allocated at once, from the first on; of another, nothing but 0 or all
    /// of them, which allocates what its clusters take. `None`: none of a new one, and what is a copy has as many
    /// holes as what it is a copy of.
    pub allocation: Option<u64>,
    /// What is in it.
    pub format: DiskFormat,
    /// How, of qcow2.
    pub qcow2: Qcow2Options,
    /// What it builds upon, of qcow2 and not of a copy: a file beneath an allowed directory, in this pool or not.
    pub backing: Option<Layer>,
    /// Who owns its file.
    pub permissions: Permissions,
}

/// What the names of the supervisor's own unfinished files in a pool begin with; they are no volumes.
pub const UNFINISHED_PREFIX: &str = ".reeve-unfinished-";

impl NewVolume {
    /// A raw volume of so many bytes, none of them allocated.
    #[must_use]
    pub fn raw(name: VolumeName, capacity: u64) -> Self {
        Self {
            name,
            capacity: Some(capacity),
            allocation: None,
            format: DiskFormat::Raw,
            qcow2: Qcow2Options::default(),
            backing: None,
            permissions: Permissions::default(),
        }
    }

    /// Looks at all that can be judged without the host; `copy` says that it is to be one.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn validate(&self, copy: bool) -> Result<(), StorageError> {
        self.permissions.validate()?;
        for bytes in [self.capacity, self.allocation].into_iter().flatten() {
            if bytes > MAX_VOLUME_BYTES {
                return Err(StorageError::Size(bytes));
            }
        }
        if let (Some(capacity), Some(allocation)) = (self.capacity, self.allocation) {
            if allocation > capacity {
                return Err(StorageError::Allocation {
                    allocation,
                    capacity,
                });
            }
        }
        let clusters = self.qcow2.cluster_bytes;
        if !clusters.is_power_of_two() || !CLUSTER_BYTES.contains(&clusters) {
            return Err(StorageError::Cluster(clusters));
        }
        if self.qcow2.lazy_refcounts && self.qcow2.compat == Qcow2Compat::V2 {
            return Err(StorageError::LazyRefcounts);
        }
        if self.format == DiskFormat::Raw {
            if self.backing.is_some() {
                return Err(StorageError::Qcow2Only("a backing file"));
            }
            if self.qcow2.lazy_refcounts {
                return Err(StorageError::Qcow2Only("lazy reference counts"));
            }
        }
        match &self.backing {
            Some(layer) => {
                let length = layer.path.as_os_str().len();
                if length > crate::image::MAX_BACKING_NAME_BYTES || !is_plain(&layer.path) {
                    return Err(StorageError::Backing(layer.path.clone()));
                }
            }
            None if !copy && self.capacity.is_none() => return Err(StorageError::NoCapacity),
            None => {}
        }
        Ok(())
    }
}
