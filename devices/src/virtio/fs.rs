//! The file system device (virtio 1.3 §5.11): a directory of the host that a guest mounts by its tag.
//!
//! All that passes through its queues is FUSE between the guest's kernel and a back end of its own, which
//! serves them ([`super::vhost_user`]); here are the features and the configuration space. Memory of the
//! host is not mapped into the guest (no DAX), and the back end notifies of nothing by itself.

use super::vhost_user::VhostUser;
use super::{DeviceId, QueueWorker, Start, StartError, VirtioDevice, read_config_space};
use crate::state::StateError;

#[cfg(test)]
mod tests;

/// The most bytes of a tag.
pub const MAX_TAG_BYTES: usize = 36;
/// Its queues: one of requests that overtake others, and one of the rest.
pub const QUEUES: usize = 2;
/// Entries of each.
const QUEUE_SIZES: &[u16] = &[128, 128];
/// Queues of ordinary requests. The back ends that there are serve no more.
const REQUEST_QUEUES: u32 = 1;
/// Bytes of the configuration space: the tag and the number of request queues.
const CONFIG_BYTES: usize = MAX_TAG_BYTES + 4;

/// A tag that no guest can mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a tag has 1 to {MAX_TAG_BYTES} bytes, none of them NUL")]
pub struct BadTag;

/// The front half.
#[derive(Debug)]
pub struct Fs {
    config: [u8; CONFIG_BYTES],
    back_end: VhostUser,
}

impl Fs {
    /// A device that a guest finds by `tag`, and that `back_end` serves.
    ///
    /// # Errors
    /// [`BadTag`].
    pub fn new(tag: &str, back_end: VhostUser) -> Result<Self, BadTag> {
        if !(1..=MAX_TAG_BYTES).contains(&tag.len()) || tag.bytes().any(|byte| byte == 0) {
            return Err(BadTag);
        }
        let mut config = [0; CONFIG_BYTES];
        let padding = std::iter::repeat_n(0, MAX_TAG_BYTES - tag.len());
        let bytes = tag
            .bytes()
            .chain(padding)
            .chain(REQUEST_QUEUES.to_le_bytes());
        for (to, from) in config.iter_mut().zip(bytes) {
            *to = from;
        }
        Ok(Self { config, back_end })
    }
}

impl VirtioDevice for Fs {
    fn id(&self) -> DeviceId {
        DeviceId::FileSystem
    }

    fn features(&self) -> u64 {
        0
    }

    fn ring_features(&self) -> u64 {
        self.back_end.ring_features()
    }

    fn queue_sizes(&self) -> &[u16] {
        QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_space(&self.config, offset, data);
    }

    fn start(&mut self, start: Start) -> Result<Vec<Box<dyn QueueWorker>>, StartError> {
        for (index, place) in (0..).zip(0..QUEUES) {
            let queue = start.queues.get(place);
            if queue.is_none_or(Option::is_none) {
                return Err(StartError::MissingQueue(index));
            }
        }
        self.back_end.start("shared folder", start)
    }

    /// What the guest has open is known to the back end alone, and is no part of any state.
    fn restore(&mut self, _version: u32, _bytes: &[u8]) -> Result<(), StateError> {
        Err(StateError::Invalid {
            field: "shared folder",
        })
    }
}
