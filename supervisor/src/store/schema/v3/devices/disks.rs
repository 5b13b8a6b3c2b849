//! Disks as schema 3 has them.

use std::path::PathBuf;

use reeve_ipc::model;
use reeve_ipc::spec;
use serde::{Deserialize, Serialize};

use super::super::SchemaError;
use super::{from_slot, to_slot};
use crate::store::rate::Rate;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Disk {
    target: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    image: Option<Layer>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    backing: Vec<Layer>,
    read_only: bool,
    cache: Cache,
    io: Io,
    discard: Discard,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    serial: Option<String>,
    queues: u16,
    block_bytes: u32,
    #[serde(default, skip_serializing_if = "Rates::is_empty")]
    bytes: Rates,
    #[serde(default, skip_serializing_if = "Rates::is_empty")]
    requests: Rates,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<u8>,
    #[serde(default, skip_serializing_if = "is_false")]
    removable: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    from_image: bool,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
pub(super) const fn is_false(value: &bool) -> bool {
    !*value
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Layer {
    path: PathBuf,
    format: Format,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Rates {
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<Rate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    read: Option<Rate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    write: Option<Rate>,
}

impl Rates {
    fn is_empty(&self) -> bool {
        self.total.is_none() && self.read.is_none() && self.write.is_none()
    }
}

macro_rules! words {
    ($($name:ident = $of:ident { $($variant:ident = $word:literal),* })*) => { $(
        #[derive(Debug, Clone, Copy, Serialize, Deserialize)]
        enum $name { $(#[serde(rename = $word)] $variant),* }

        impl From<spec::$of> for $name {
            fn from(value: spec::$of) -> Self {
                match value { $(spec::$of::$variant => Self::$variant),* }
            }
        }

        impl From<$name> for spec::$of {
            fn from(value: $name) -> Self {
                match value { $($name::$variant => Self::$variant),* }
            }
        }
    )* };
}

words! {
    Format = DiskFormat { Raw = "raw", Qcow2 = "qcow2" }
    Cache = CacheMode {
        WriteBack = "writeback",
        None = "none",
        WriteThrough = "writethrough",
        DirectSync = "directsync",
        Unsafe = "unsafe"
    }
    Io = IoEngine { IoUring = "io_uring", Threads = "threads" }
    Discard = Discard { Ignore = "ignore", Unmap = "unmap" }
}

impl From<&model::Layer> for Layer {
    fn from(layer: &model::Layer) -> Self {
        let model::Layer { path, format } = layer;
        Self {
            path: path.clone(),
            format: (*format).into(),
        }
    }
}

impl From<Layer> for model::Layer {
    fn from(layer: Layer) -> Self {
        Self {
            path: layer.path,
            format: layer.format.into(),
        }
    }
}

impl From<spec::Rates> for Rates {
    fn from(rates: spec::Rates) -> Self {
        let spec::Rates { total, read, write } = rates;
        Self {
            total: total.map(Into::into),
            read: read.map(Into::into),
            write: write.map(Into::into),
        }
    }
}

impl From<Rates> for spec::Rates {
    fn from(rates: Rates) -> Self {
        Self {
            total: rates.total.map(Into::into),
            read: rates.read.map(Into::into),
            write: rates.write.map(Into::into),
        }
    }
}

impl From<&model::Disk> for Disk {
    fn from(disk: &model::Disk) -> Self {
        let model::Disk {
            target,
            image,
            backing,
            read_only,
            cache,
            io,
            discard,
            serial,
            queues,
            block_size,
            throttle,
            address,
            removable,
            from_image,
        } = disk;
        let spec::DiskThrottle { bytes, requests } = *throttle;
        Self {
            target: target.as_str().to_owned(),
            image: image.as_ref().map(Into::into),
            backing: backing.iter().map(Into::into).collect(),
            read_only: *read_only,
            cache: (*cache).into(),
            io: (*io).into(),
            discard: (*discard).into(),
            serial: serial.clone(),
            queues: *queues,
            block_bytes: (*block_size).into(),
            bytes: bytes.into(),
            requests: requests.into(),
            address: from_slot(*address),
            removable: *removable,
            from_image: *from_image,
        }
    }
}

impl TryFrom<Disk> for model::Disk {
    type Error = SchemaError;

    fn try_from(disk: Disk) -> Result<Self, SchemaError> {
        Ok(Self {
            target: model::DiskTarget::try_from(disk.target).map_err(model::ModelError::from)?,
            image: disk.image.map(Into::into),
            backing: disk.backing.into_iter().map(Into::into).collect(),
            read_only: disk.read_only,
            cache: disk.cache.into(),
            io: disk.io.into(),
            discard: disk.discard.into(),
            serial: disk.serial,
            queues: disk.queues,
            block_size: model::BlockSize::try_from(disk.block_bytes)
                .map_err(model::ModelError::from)?,
            throttle: spec::DiskThrottle {
                bytes: disk.bytes.into(),
                requests: disk.requests.into(),
            },
            address: to_slot(disk.address)?,
            removable: disk.removable,
            from_image: disk.from_image,
        })
    }
}
