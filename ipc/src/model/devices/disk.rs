//! A disk as a definition says it (libvirt `<disk>`).

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{DeviceError, DiskTarget, check_rate};
use crate::spec::{
    CacheMode, Discard, DiskFormat, DiskThrottle, IoEngine, MAX_DISK_QUEUES, MAX_LAYERS,
    MAX_SERIAL_BYTES, PciSlot,
};

/// The most bytes of a serial number in a definition: a UUID, as OpenStack gives its volumes, and more.
pub(super) const MAX_SAID_SERIAL_BYTES: usize = 64;

/// A disk on the virtio bus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Its name within the domain.
    pub target: DiskTarget,
    /// The file or block device that holds it; without one the disk has no medium.
    pub image: Option<Layer>,
    /// What the image builds upon, the nearest first. Where nothing is said here a qcow2 image is asked,
    /// unless it is [`from_image`](Self::from_image); what an image names is opened only where a definition
    /// may name it.
    pub backing: Vec<Layer>,
    /// The guest may not write.
    pub read_only: bool,
    /// How writes are kept.
    pub cache: CacheMode,
    /// What moves the bytes.
    pub io: IoEngine,
    /// What happens to blocks that the guest does not need any more.
    pub discard: Discard,
    /// Its serial number, 1 to 64 bytes of printable ASCII. A guest finds the first [`MAX_SERIAL_BYTES`] of them, as with
    /// QEMU ([`Self::found_serial`]).
    pub serial: Option<String>,
    /// Its queues, 1 to [`MAX_DISK_QUEUES`].
    pub queues: u16,
    /// Its blocks, as the guest sees them.
    pub block_size: BlockSize,
    /// How fast it may be used.
    pub throttle: DiskThrottle,
    /// Where it is on the bus.
    pub address: Option<PciSlot>,
    /// Its medium may be changed, and be missing, while the domain runs: the guest may only read it.
    pub removable: bool,
    /// What its image builds upon is read from its header, and from what is found there: whoever may write the
    /// image, its guest's worker among them, says which files are opened. Otherwise it is what `backing` says.
    pub from_image: bool,
}

/// What is put into a disk that is removable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Medium {
    /// As [`Disk::image`].
    pub image: Layer,
    /// As [`Disk::backing`].
    pub backing: Vec<Layer>,
    /// As [`Disk::from_image`].
    pub from_image: bool,
}

/// One file of a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// A regular file or block device.
    pub path: PathBuf,
    /// What is in it; never guessed.
    pub format: DiskFormat,
}

/// Bytes of a block: 512 or 4096.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub enum BlockSize {
    /// 512 bytes.
    #[default]
    B512,
    /// 4096 bytes.
    B4096,
}

impl TryFrom<u32> for BlockSize {
    type Error = DeviceError;

    fn try_from(bytes: u32) -> Result<Self, DeviceError> {
        match bytes {
            512 => Ok(Self::B512),
            4096 => Ok(Self::B4096),
            bytes => Err(DeviceError::BlockSize(bytes)),
        }
    }
}

impl From<BlockSize> for u32 {
    fn from(size: BlockSize) -> Self {
        match size {
            BlockSize::B512 => 512,
            BlockSize::B4096 => 4096,
        }
    }
}

impl Disk {
    /// A disk of that name and image, with everything else as it is where nothing is said.
    #[must_use]
    pub fn new(target: DiskTarget, image: Option<Layer>) -> Self {
        Self {
            target,
            image,
            backing: Vec::new(),
            read_only: false,
            cache: CacheMode::WriteBack,
            io: IoEngine::IoUring,
            discard: Discard::Ignore,
            serial: None,
            queues: 1,
            block_size: BlockSize::default(),
            throttle: DiskThrottle::default(),
            address: None,
            removable: false,
            from_image: false,
        }
    }

    /// Puts a medium in, or takes the one that is there out; gives what was there.
    pub fn exchange(&mut self, medium: Option<Medium>) -> Option<Medium> {
        let (image, backing, from_image) = match medium {
            Some(medium) => (Some(medium.image), medium.backing, medium.from_image),
            None => (None, Vec::new(), false),
        };
        let image = std::mem::replace(&mut self.image, image);
        let backing = std::mem::replace(&mut self.backing, backing);
        let from_image = std::mem::replace(&mut self.from_image, from_image);
        image.map(|image| Medium {
            image,
            backing,
            from_image,
        })
    }

    /// Whether its image is asked what it builds upon.
    #[must_use]
    pub fn asks_image(&self) -> bool {
        self.from_image
    }

    /// Its image and what that builds upon, in order.
    pub fn layers(&self) -> impl Iterator<Item = &Layer> {
        self.image.iter().chain(&self.backing)
    }

    pub(super) fn validate(&self) -> Result<(), DeviceError> {
        let target = || self.target.clone();
        let layers = self.layers().count();
        if layers > MAX_LAYERS {
            return Err(DeviceError::Layers(target(), layers));
        }
        let mut above: Option<&Layer> = None;
        for layer in self.layers() {
            if layer.path.as_os_str().is_empty() {
                return Err(DeviceError::NoPath(target()));
            }
            if above.is_some_and(|above| above.format == DiskFormat::Raw) {
                return Err(DeviceError::RawBacking(target()));
            }
            if self
                .layers()
                .filter(|other| other.path == layer.path)
                .count()
                > 1
            {
                return Err(DeviceError::LayerTwice(target(), layer.path.clone()));
            }
            above = Some(layer);
        }
        if self.image.is_none() && !self.backing.is_empty() {
            return Err(DeviceError::NoImage(target()));
        }
        if self.from_image && !self.backing.is_empty() {
            return Err(DeviceError::BackingTwice(target()));
        }
        if self.removable && !(self.read_only && self.queues == 1) {
            return Err(DeviceError::Removable(target()));
        }
        if let Some(serial) = &self.serial {
            let fits = (1..=MAX_SAID_SERIAL_BYTES).contains(&serial.len());
            if !fits || !serial.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
                return Err(DeviceError::Serial(target()));
            }
        }
        if !(1..=MAX_DISK_QUEUES).contains(&self.queues) {
            return Err(DeviceError::DiskQueues(target(), self.queues));
        }
        self.check_throttle()
    }

    /// As much of its serial number as a virtio disk has room for; empty for none.
    #[must_use]
    pub fn found_serial(&self) -> String {
        let said = self.serial.iter().flat_map(|serial| serial.chars());
        said.take(MAX_SERIAL_BYTES).collect()
    }

    fn check_throttle(&self) -> Result<(), DeviceError> {
        let what = format!("disk '{}'", self.target);
        let DiskThrottle { bytes, requests } = self.throttle;
        for (rates, unit) in [(bytes, "bytes"), (requests, "requests")] {
            let parts = [rates.read, rates.write];
            if rates.total.is_some() && parts.iter().any(Option::is_some) {
                return Err(DeviceError::Throttle(self.target.clone(), unit));
            }
            for rate in parts.into_iter().chain([rates.total]).flatten() {
                check_rate(rate, &what, unit)?;
            }
        }
        Ok(())
    }
}
