//! Shared directories.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::DeviceError;
use crate::spec::{MAX_TAG_BYTES, PciSlot};

/// A directory of the host that the guest can mount (libvirt `<filesystem>` with the driver `virtiofs`).
///
/// In the guest everything of the directory's owner is root's. What the guest makes belongs to that owner
/// on the host, and it can do there what the owner can. A directory that is the host's root's can only be
/// shared for reading, as anybody can read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// What the guest mounts it by: 1 to [`MAX_TAG_BYTES`] bytes of printable ASCII without a slash.
    pub tag: String,
    /// The directory.
    pub source: PathBuf,
    /// The guest can only read there.
    pub read_only: bool,
    /// Where it is on the bus.
    pub address: Option<PciSlot>,
}

impl Share {
    pub(super) fn validate(&self) -> Result<(), DeviceError> {
        if !is_tag(&self.tag) {
            return Err(DeviceError::Tag(self.tag.chars().take(64).collect()));
        }
        match self.source.as_os_str().is_empty() {
            true => Err(DeviceError::NoSource(self.tag.clone())),
            false => Ok(()),
        }
    }
}

/// Whether a guest can mount something by this.
pub(super) fn is_tag(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
    (1..=MAX_TAG_BYTES).contains(&text.len()) && text.bytes().all(plain)
}
