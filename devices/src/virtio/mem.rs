//! The memory device (virtio 1.3 §5.15): RAM beyond what the machine starts with, in blocks that the
//! guest plugs and unplugs as the host asks it to.
//!
//! ```text
//!  control thread               vCPU threads                    device thread
//!  MemControl ──requested──► requested_size ──► driver ──requests──► answer ──► BlockBacking
//!      ▲      └──config interrupt──►                                    └─────► Blocks
//!      └──────────── plugged ◄──────────────────────────────────────────────────┘
//! ```
//!
//! The guest owns what is plugged, and the host's whole say is `requested_size`: the device plugs no
//! block beyond it, and takes none away that the guest does not unplug. A block that is not plugged is
//! no RAM at all: no memory of the host is behind it, a vCPU that touches it finds what is at any
//! address without a device, and no device of ours reaches it ([`Blocks`]). That is what
//! `UNPLUGGED_INACCESSIBLE` tells the driver, and a driver that does not take it is not served.
//!
//! # Life
//! What is plugged stays so when the driver resets the device (§5.15.6): its memory is in use, whatever
//! becomes of the driver. A reset of the machine unplugs everything ([`MemControl::take_out_all`]), and
//! the guest that boots then is asked for as much as before. Which blocks are plugged is no part of the
//! device's saved state but a record of its own ([`MemControl::save_blocks`]), because it comes back
//! before all that may lie in it.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

use self::worker::MemWorker;
use super::{
    DeviceId, QueueWorker, Start, StartError, VirtioDevice, read_config_space, take_queue,
};
use crate::memory::blocks::Blocks;
use crate::shared::Wake;
use crate::state::{Schema, StateError, StateReader, StateWriter, check};

pub use self::control::{MemControl, MemInfo, RestoreBlocksError};

mod control;
mod request;
#[cfg(test)]
mod tests;
mod worker;

/// `VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE`.
const F_UNPLUGGED_INACCESSIBLE: u64 = 1 << 1;

/// The number of the only queue.
const REQUESTS: u16 = 0;
/// Entries of it. A driver keeps one request out.
const QUEUE_SIZES: &[u16] = &[64];

/// Bytes of the configuration space (§5.15.4).
const CONFIG_BYTES: usize = 56;

/// The layout of the saved state: what is requested, in bytes.
const SCHEMA: Schema = Schema {
    name: "virtio-mem",
    version: 1,
};

/// Puts memory behind blocks. Supplied by the worker process.
///
/// Called by one thread at a time, with no lock of the device held.
pub trait BlockBacking: Debug + Send + Sync {
    /// Makes the `len` bytes at guest-physical `address` RAM of the guest: whole blocks, none of which is
    /// so. What they hold is what they held when they last were, if nothing has freed it.
    ///
    /// # Errors
    /// The host's; none of them is RAM then.
    fn plug(&self, address: u64, len: u64) -> io::Result<()>;

    /// Takes the `len` bytes at guest-physical `address` out of the guest and frees what is behind them:
    /// whole blocks, all of which are RAM.
    ///
    /// # Errors
    /// The host's; all of them are RAM as before.
    fn unplug(&self, address: u64, len: u64) -> io::Result<()>;

    /// As [`unplug`](Self::unplug), but what is behind them is freed by the caller, with all of the machine's
    /// memory: that may be so much that it is not to be done twice.
    ///
    /// # Errors
    /// As for [`unplug`](Self::unplug).
    fn take_out(&self, address: u64, len: u64) -> io::Result<()> {
        self.unplug(address, len)
    }
}

/// The front half.
#[derive(Debug)]
pub struct Mem {
    control: Arc<MemControl>,
}

impl Mem {
    /// A device that plugs `blocks`, of which none is plugged, by `backing`. `changed` is called, on any
    /// thread, when the guest has plugged or unplugged some.
    #[must_use]
    pub fn new(
        blocks: Arc<Blocks>,
        backing: Arc<dyn BlockBacking>,
        changed: Arc<dyn Wake>,
    ) -> Self {
        Self {
            control: Arc::new(MemControl::new(blocks, backing, changed)),
        }
    }

    /// What the control thread holds of it.
    #[must_use]
    pub fn control(&self) -> Arc<MemControl> {
        Arc::clone(&self.control)
    }

    fn config(&self) -> [u8; CONFIG_BYTES] {
        let info = self.control.info();
        let mut config = [0; CONFIG_BYTES];
        // `node_id`, the second, is of a feature that is not offered. All of the region is usable.
        let fields = [
            info.block_bytes,
            0,
            self.control.address(),
            info.region_bytes,
            info.region_bytes,
            info.plugged_bytes,
            info.requested_bytes,
        ];
        for (slot, field) in config.chunks_exact_mut(8).zip(fields) {
            slot.copy_from_slice(&field.to_le_bytes());
        }
        config
    }
}

impl VirtioDevice for Mem {
    fn id(&self) -> DeviceId {
        DeviceId::Mem
    }

    fn features(&self) -> u64 {
        F_UNPLUGGED_INACCESSIBLE
    }

    fn queue_sizes(&self) -> &[u16] {
        QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_space(&self.config(), offset, data);
    }

    fn required_features(&self) -> u64 {
        F_UNPLUGGED_INACCESSIBLE
    }

    fn config_changes(&self) -> u8 {
        self.control.changes()
    }

    fn start(&mut self, mut start: Start) -> Result<Vec<Box<dyn QueueWorker>>, StartError> {
        if start.features & F_UNPLUGGED_INACCESSIBLE == 0 {
            let feature = "VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE";
            return Err(StartError::Feature(feature));
        }
        let queue = take_queue(&mut start.queues, REQUESTS)?;
        self.control.connect(Some(Arc::clone(&start.interrupts)));
        Ok(vec![Box::new(MemWorker::new(
            queue,
            Arc::clone(&self.control),
        ))])
    }

    fn stopped(&mut self) {
        self.control.connect(None);
    }

    fn save(&self) -> Vec<u8> {
        StateWriter::new()
            .u64(self.control.info().requested_bytes)
            .finish()
    }

    fn restore(&mut self, version: u32, bytes: &[u8]) -> Result<(), StateError> {
        SCHEMA.expect_version(version)?;
        let mut reader = StateReader::new(bytes);
        let requested = reader.u64()?;
        reader.finish()?;
        check(self.control.can_request(requested), "requested size")?;
        self.control.restore_requested(requested);
        Ok(())
    }
}
