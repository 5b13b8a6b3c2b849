//! Storage pools and volumes as clients see them. Sizes are in bytes.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::model::{Pool, PoolName, PoolUuid, Qcow2Options, VolumeName};
use crate::spec::DiskFormat;

/// How a pool stands (libvirt `virStoragePoolState`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PoolState {
    /// It was not started.
    Inactive,
    /// Its directory is being made.
    Building,
    /// Its volumes can be used.
    Running,
    /// It was started, and its directory cannot be read any more.
    Inaccessible,
}

impl PoolState {
    /// The state, as a table shows it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::Building => "building",
            Self::Running => "running",
            Self::Inaccessible => "inaccessible",
        }
    }

    /// Whether it was started.
    #[must_use]
    pub const fn is_active(self) -> bool {
        matches!(self, Self::Running | Self::Inaccessible)
    }
}

/// One pool in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolSummary {
    /// Its name.
    pub name: PoolName,
    /// Its UUID.
    pub uuid: PoolUuid,
    /// How it stands.
    pub state: PoolState,
    /// Whether it has a definition that outlives its being active.
    pub persistent: bool,
    /// Whether it starts with the host.
    pub autostart: bool,
    /// Its directory.
    pub target: PathBuf,
    /// How many volumes it had when it was last looked at; 0 while it is not active.
    pub volumes: u32,
}

/// Bytes of the file system that a pool's directory is on (statvfs(3)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolSizes {
    /// In all.
    pub capacity: u64,
    /// That are used.
    pub allocation: u64,
    /// That are free to those who may not use the reserve.
    pub available: u64,
}

/// Who owns a file or directory, as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileOwner {
    /// The permission bits.
    pub mode: u32,
    /// The owner's uid.
    pub owner: u32,
    /// The group's gid.
    pub group: u32,
}

/// One pool with all that is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolDetails {
    /// As in a list.
    pub summary: PoolSummary,
    /// Its definition: the one that it was started with, while it is active.
    pub pool: Pool,
    /// The definition that it will have once it was stopped, where that is another one.
    pub next: Option<Pool>,
    /// Its file system, as it is now, while it is active and its directory can be read.
    pub sizes: Option<PoolSizes>,
    /// Who owns its directory, likewise.
    pub owner: Option<FileOwner>,
    /// Entries of the directory that are no volumes: of a name that no volume can have, sockets, pipes and
    /// devices, links that lead out of the pool or to nothing, and what is more than a pool can have.
    pub passed_over: u32,
}

/// What a volume is (libvirt `virStorageVolType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VolumeKind {
    /// A file.
    File,
    /// A directory, which is told of and cannot be used.
    Directory,
}

/// What is in a volume, by what its first bytes look like.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VolumeFormat {
    /// Bytes as they are, or nothing that is known.
    Raw,
    /// QEMU's copy-on-write format, of any version.
    Qcow2,
    /// An ISO 9660 image.
    Iso,
    /// A directory.
    Directory,
    /// One that is recognised and not read, by libvirt's name for it, as `vmdk`.
    Other(OtherFormat),
}

/// Formats that are recognised and neither read nor written here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OtherFormat {
    /// QEMU's first copy-on-write format.
    Qcow,
    /// QEMU's enhanced disk.
    Qed,
    /// VMware's.
    Vmdk,
    /// VirtualBox's.
    Vdi,
    /// Microsoft's.
    Vpc,
    /// Bochs'.
    Bochs,
    /// A compressed loop image.
    Cloop,
    /// Apple's.
    Dmg,
    /// User-mode Linux'.
    Cow,
    /// Parallels'.
    Ploop,
    /// An encrypted volume.
    Luks,
}

impl VolumeFormat {
    /// As libvirt writes it (`virStorageFileFormat`).
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Iso => "iso",
            Self::Directory => "dir",
            Self::Other(OtherFormat::Qcow) => "qcow",
            Self::Other(OtherFormat::Qed) => "qed",
            Self::Other(OtherFormat::Vmdk) => "vmdk",
            Self::Other(OtherFormat::Vdi) => "vdi",
            Self::Other(OtherFormat::Vpc) => "vpc",
            Self::Other(OtherFormat::Bochs) => "bochs",
            Self::Other(OtherFormat::Cloop) => "cloop",
            Self::Other(OtherFormat::Dmg) => "dmg",
            Self::Other(OtherFormat::Cow) => "cow",
            Self::Other(OtherFormat::Ploop) => "ploop",
            Self::Other(OtherFormat::Luks) => "luks",
        }
    }

    /// As a disk is given it; what can only be told of is none.
    #[must_use]
    pub const fn disk(&self) -> Option<DiskFormat> {
        match self {
            Self::Raw | Self::Iso => Some(DiskFormat::Raw),
            Self::Qcow2 => Some(DiskFormat::Qcow2),
            Self::Directory | Self::Other(_) => None,
        }
    }
}

/// A moment: seconds and nanoseconds since the epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileTime {
    /// Seconds, before the epoch where negative.
    pub seconds: i64,
    /// Nanoseconds beyond them, below 1,000,000,000.
    pub nanoseconds: u32,
}

/// When a file was used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileTimes {
    /// Last read.
    pub accessed: FileTime,
    /// Last written.
    pub modified: FileTime,
    /// Last changed, it or what is noted of it.
    pub changed: FileTime,
    /// Made, where its file system keeps that.
    pub born: Option<FileTime>,
}

/// What a volume says it builds upon. Whoever wrote the image wrote this: it is for printing, and what opens it
/// judges it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeBacking {
    /// The name as written in the image, at most
    /// [`MAX_BACKING_NAME_BYTES`](crate::image::MAX_BACKING_NAME_BYTES) bytes of no control characters.
    pub written: String,
    /// The same as an absolute path, where it is one: what is relative is so to the volume's directory.
    pub path: Option<PathBuf>,
    /// The format of it, where the image says it in words that are known.
    pub format: Option<VolumeFormat>,
}

/// What is being done to a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VolumeJob {
    /// It is being made: its `allocation` grows.
    Building,
    /// Its size changes.
    Resizing,
    /// It is being overwritten.
    Wiping,
    /// It is being removed.
    Deleting,
    /// Another is made of it.
    Copying,
}

impl VolumeJob {
    /// As messages say it: "it is being ...".
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Building => "built",
            Self::Resizing => "resized",
            Self::Wiping => "wiped",
            Self::Deleting => "deleted",
            Self::Copying => "copied",
        }
    }
}

/// One volume, with all that is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// The pool that it is in.
    pub pool: PoolName,
    /// Its name.
    pub name: VolumeName,
    /// Its path: the pool's target and its name. Its key as well (libvirt's key of a file).
    pub path: PathBuf,
    /// What it is.
    pub kind: VolumeKind,
    /// What is in it.
    pub format: VolumeFormat,
    /// Bytes as a guest sees it.
    pub capacity: u64,
    /// Bytes of the host that its file takes (`st_blocks` of 512).
    pub allocation: u64,
    /// Bytes of its file as they are counted (`st_size`).
    pub physical: u64,
    /// Who owns its file.
    pub owner: FileOwner,
    /// When it was used.
    pub times: FileTimes,
    /// What it builds upon.
    pub backing: Option<VolumeBacking>,
    /// How it is laid out, of qcow2.
    pub qcow2: Option<Qcow2Options>,
    /// Its contents are encrypted.
    pub encrypted: bool,
    /// What is being done to it.
    pub job: Option<VolumeJob>,
    /// Why nothing is known of its contents, where its first bytes could not be read or are of no image that
    /// makes sense: one line. Its format is then what its first bytes look like, and its capacity its size.
    pub unreadable: Option<String>,
}
