//! `[[disk]]`.

use std::path::PathBuf;

use reeve_ipc::model::{BlockSize, Disk, DiskTarget, Layer};
use reeve_ipc::spec::{
    CacheMode, Discard, DiskFormat, DiskThrottle, IoEngine, PciSlot, Rate, Rates,
};
use serde::{Deserialize, Serialize};

use super::{RateKeys, is_false, one};

/// A disk that is checked as it is read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "DiskKeys", into = "DiskKeys")]
pub(in super::super) struct DiskEntry(Disk);

impl DiskEntry {
    /// The paths of its files.
    pub(in super::super) fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let layers = self.0.image.iter_mut().chain(&mut self.0.backing);
        layers.map(|layer| &mut layer.path)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct DiskKeys {
    target: DiskTarget,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<DiskFormat>,
    #[serde(default, skip_serializing_if = "is_false")]
    read_only: bool,
    /// Its medium may be changed, and be missing.
    #[serde(default, skip_serializing_if = "is_false")]
    removable: bool,
    #[serde(default = "default_cache")]
    cache: CacheMode,
    #[serde(default = "default_io")]
    io: IoEngine,
    #[serde(default = "default_discard")]
    discard: Discard,
    #[serde(skip_serializing_if = "Option::is_none")]
    serial: Option<String>,
    #[serde(default = "one")]
    queues: u16,
    #[serde(default)]
    block_size: BlockSize,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<PciSlot>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_bytes: Option<RateKeys>,
    #[serde(skip_serializing_if = "Option::is_none")]
    read_bytes: Option<RateKeys>,
    #[serde(skip_serializing_if = "Option::is_none")]
    write_bytes: Option<RateKeys>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_iops: Option<RateKeys>,
    #[serde(skip_serializing_if = "Option::is_none")]
    read_iops: Option<RateKeys>,
    #[serde(skip_serializing_if = "Option::is_none")]
    write_iops: Option<RateKeys>,
    /// What the image builds upon.
    #[serde(default, skip_serializing_if = "Backing::is_none")]
    backing: Backing,
}

/// What an image builds upon: what it says, nothing, or these files, the nearest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected \"auto\", \"none\" or a list of files, each with path and format"
)]
enum Backing {
    Word(BackingWord),
    Files(Vec<LayerKeys>),
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum BackingWord {
    Auto,
    None,
}

impl Default for Backing {
    fn default() -> Self {
        Self::Word(BackingWord::None)
    }
}

impl Backing {
    fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// The files, and whether they are what the image says.
    fn parts(self) -> (Vec<Layer>, bool) {
        match self {
            Self::Word(word) => (Vec::new(), word == BackingWord::Auto),
            Self::Files(files) => {
                let layer = |LayerKeys { path, format }| Layer { path, format };
                (files.into_iter().map(layer).collect(), false)
            }
        }
    }

    fn of(backing: Vec<Layer>, from_image: bool) -> Self {
        match backing.is_empty() {
            true if from_image => Self::Word(BackingWord::Auto),
            true => Self::default(),
            false => {
                let keys = |Layer { path, format }| LayerKeys { path, format };
                Self::Files(backing.into_iter().map(keys).collect())
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LayerKeys {
    path: PathBuf,
    format: DiskFormat,
}

const fn default_cache() -> CacheMode {
    CacheMode::WriteBack
}

const fn default_io() -> IoEngine {
    IoEngine::IoUring
}

const fn default_discard() -> Discard {
    Discard::Ignore
}

impl TryFrom<DiskKeys> for DiskEntry {
    type Error = String;

    fn try_from(keys: DiskKeys) -> Result<Self, String> {
        let image = match (keys.path, keys.format) {
            (Some(path), Some(format)) => Some(Layer { path, format }),
            (None, None) => None,
            (Some(path), None) => {
                return Err(format!(
                    "disk '{}': state what is in it, with format = \"raw\" or \"qcow2\": {} is never \
                     read to guess that",
                    keys.target,
                    path.display()
                ));
            }
            (None, Some(_)) => {
                return Err(format!("disk '{}' has a format and no path", keys.target));
            }
        };
        let (backing, from_image) = keys.backing.parts();
        let rate = |keys: Option<RateKeys>| keys.map(Rate::from);
        Ok(Self(Disk {
            target: keys.target,
            image,
            backing,
            read_only: keys.read_only,
            cache: keys.cache,
            io: keys.io,
            discard: keys.discard,
            serial: keys.serial,
            queues: keys.queues,
            block_size: keys.block_size,
            throttle: DiskThrottle {
                bytes: Rates {
                    total: rate(keys.total_bytes),
                    read: rate(keys.read_bytes),
                    write: rate(keys.write_bytes),
                },
                requests: Rates {
                    total: rate(keys.total_iops),
                    read: rate(keys.read_iops),
                    write: rate(keys.write_iops),
                },
            },
            address: keys.address,
            removable: keys.removable,
            from_image,
        }))
    }
}

impl From<DiskEntry> for DiskKeys {
    fn from(DiskEntry(disk): DiskEntry) -> Self {
        let DiskThrottle { bytes, requests } = disk.throttle;
        let (path, format) = match disk.image {
            Some(Layer { path, format }) => (Some(path), Some(format)),
            None => (None, None),
        };
        let rate = |rate: Option<Rate>| rate.map(RateKeys::from);
        Self {
            target: disk.target,
            path,
            format,
            read_only: disk.read_only,
            removable: disk.removable,
            cache: disk.cache,
            io: disk.io,
            discard: disk.discard,
            serial: disk.serial,
            queues: disk.queues,
            block_size: disk.block_size,
            address: disk.address,
            total_bytes: rate(bytes.total),
            read_bytes: rate(bytes.read),
            write_bytes: rate(bytes.write),
            total_iops: rate(requests.total),
            read_iops: rate(requests.read),
            write_iops: rate(requests.write),
            backing: Backing::of(disk.backing, disk.from_image),
        }
    }
}

impl From<DiskEntry> for Disk {
    fn from(entry: DiskEntry) -> Self {
        entry.0
    }
}

impl From<Disk> for DiskEntry {
    fn from(disk: Disk) -> Self {
        Self(disk)
    }
}
