//! What the control thread sees of a memory device, how it moves it, and the only place where blocks
//! come and go.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::BlockBacking;
use crate::memory::blocks::{Blocks, Run};
use crate::shared::{Wake, lock};
use crate::state::{Schema, StateError};
use crate::virtio::Interrupts;

/// A memory device as the control thread holds it; any thread may.
#[derive(Debug)]
pub struct MemControl {
    blocks: Arc<Blocks>,
    backing: Arc<dyn BlockBacking>,
    requested: AtomicU64,
    /// What of that the driver was told last, or can have read.
    told: AtomicU64,
    /// How often what is requested or plugged has changed. Held while it changes, so that whoever asks finds
    /// both as they were or both changed.
    changes: Mutex<u8>,
    changed: Arc<dyn Wake>,
    /// The way to the driver, while there is one.
    interrupts: Mutex<Option<Arc<dyn Interrupts>>>,
}

/// How a memory device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemInfo {
    /// Bytes the host wants plugged.
    pub requested_bytes: u64,
    /// Bytes that are.
    pub plugged_bytes: u64,
    /// Bytes that can be.
    pub region_bytes: u64,
    /// Bytes of a block, in which all of them come.
    pub block_bytes: u64,
}

impl MemControl {
    /// The layout of which blocks are plugged.
    pub const BLOCKS_SCHEMA: Schema = Schema {
        name: "plugged-blocks",
        version: 1,
    };

    pub(super) fn new(
        blocks: Arc<Blocks>,
        backing: Arc<dyn BlockBacking>,
        changed: Arc<dyn Wake>,
    ) -> Self {
        Self {
            blocks,
            backing,
            requested: AtomicU64::new(0),
            told: AtomicU64::new(0),
            changes: Mutex::new(0),
            changed,
            interrupts: Mutex::new(None),
        }
    }

    /// Asks the guest to have `bytes` plugged, and gives what it was asked for: whole blocks, and no more
    /// than there are. A driver that is not there yet learns it when it comes.
    pub fn request(&self, bytes: u64) -> u64 {
        let region = self.blocks.all().len;
        let bytes = bytes.min(region);
        let bytes = bytes - bytes % self.blocks.block_bytes();
        self.change(|| self.requested.store(bytes, Ordering::Relaxed));
        let interrupts = lock(&self.interrupts).clone();
        if let Some(interrupts) = interrupts {
            self.told.store(bytes, Ordering::Relaxed);
            // Also where it was told so before: it may have given up on it.
            interrupts.config();
        }
        bytes
    }

    /// How it is now.
    #[must_use]
    pub fn info(&self) -> MemInfo {
        MemInfo {
            requested_bytes: self.requested.load(Ordering::Relaxed),
            plugged_bytes: self.blocks.plugged_bytes(),
            region_bytes: self.blocks.all().len,
            block_bytes: self.blocks.block_bytes(),
        }
    }

    /// Unplugs every block, as the driver asks.
    pub(super) fn unplug_all(&self) -> io::Result<()> {
        let mut runs = self.blocks.plugged_runs().into_iter();
        runs.try_for_each(|run| self.unplug(&run))
    }

    /// Takes every block out, for a reset of the machine, which frees what is behind them: no vCPU runs and
    /// the device is stopped.
    ///
    /// # Errors
    /// The host's; the blocks of which it was not the first are plugged yet.
    pub fn take_out_all(&self) -> io::Result<()> {
        for run in self.blocks.plugged_runs() {
            self.remove(&run, |backing| backing.take_out(run.address, run.len))?;
        }
        Ok(())
    }

    /// Which blocks are plugged, in the layout [`BLOCKS_SCHEMA`](Self::BLOCKS_SCHEMA). The device is stopped.
    #[must_use]
    pub fn save_blocks(&self) -> Vec<u8> {
        self.blocks.save()
    }

    /// Plugs and unplugs what makes it so. No vCPU runs and the device is stopped. What is plugged keeps
    /// what is in its memory already.
    ///
    /// # Errors
    /// Other blocks than these, or no blocks at all; the host's. Nothing has changed then, or by the host's
    /// a part has.
    pub fn restore_blocks(&self, version: u32, bytes: &[u8]) -> Result<(), RestoreBlocksError> {
        Self::BLOCKS_SCHEMA.expect_version(version)?;
        let (go, come) = self.blocks.difference(bytes)?;
        for run in &go {
            self.unplug(run)?;
        }
        for run in &come {
            self.plug(run)?;
        }
        Ok(())
    }

    pub(super) fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    /// The first guest-physical address of a block.
    pub(super) fn address(&self) -> u64 {
        self.blocks.range().start
    }

    /// Whether it is a size that [`request`](Self::request) could have made.
    pub(super) fn can_request(&self, bytes: u64) -> bool {
        bytes <= self.blocks.all().len && bytes % self.blocks.block_bytes() == 0
    }

    /// Of a saved machine, whose driver was told it: no change for that one.
    pub(super) fn restore_requested(&self, bytes: u64) {
        self.requested.store(bytes, Ordering::Relaxed);
        self.told.store(bytes, Ordering::Relaxed);
    }

    /// How often a driver could have read a half of what was and a half of what is; goes round.
    pub(super) fn changes(&self) -> u8 {
        *lock(&self.changes)
    }

    fn change(&self, change: impl FnOnce()) {
        let mut changes = lock(&self.changes);
        change();
        *changes = changes.wrapping_add(1);
    }

    pub(super) fn connect(&self, interrupts: Option<Arc<dyn Interrupts>>) {
        lock(&self.interrupts).clone_from(&interrupts);
        if let Some(interrupts) = interrupts {
            let requested = self.requested.load(Ordering::Relaxed);
            // Asked for while the device stood.
            if self.told.swap(requested, Ordering::Relaxed) != requested {
                interrupts.config();
            }
        }
    }

    /// Plugs blocks none of which is plugged. They are RAM for devices, and for those who were told what is
    /// plugged, once they are for the guest.
    pub(super) fn plug(&self, run: &Run) -> io::Result<()> {
        self.backing.plug(run.address, run.len)?;
        if let Err(error) = self.set(run, true) {
            self.set_again(run, false);
            if let Err(error) = self.backing.unplug(run.address, run.len) {
                tracing::error!(%error, "memory that could not be plugged stays with the guest");
                // It counts, and goes with a reset of the machine at the latest.
                self.set_again(run, true);
            }
            return Err(error);
        }
        self.changed.wake();
        Ok(())
    }

    /// Unplugs blocks all of which are plugged. No device takes them for RAM, nor does whoever was told so,
    /// from before they are gone.
    pub(super) fn unplug(&self, run: &Run) -> io::Result<()> {
        self.remove(run, |backing| backing.unplug(run.address, run.len))
    }

    fn remove(
        &self,
        run: &Run,
        take: impl FnOnce(&dyn BlockBacking) -> io::Result<()>,
    ) -> io::Result<()> {
        let gone = self.set(run, false);
        let gone = gone.and_then(|()| take(self.backing.as_ref()));
        if let Err(error) = gone {
            self.set_again(run, true);
            return Err(error);
        }
        self.changed.wake();
        Ok(())
    }

    /// Notes it, and tells those who follow.
    fn set(&self, run: &Run, plugged: bool) -> io::Result<()> {
        self.change(|| self.blocks.set(run, plugged));
        self.blocks.tell_followers()
    }

    /// Notes it as it was before.
    fn set_again(&self, run: &Run, plugged: bool) {
        if let Err(error) = self.set(run, plugged) {
            tracing::error!(%error, "who serves queues goes by other memory than there is");
        }
    }
}

/// Why saved blocks were not restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreBlocksError {
    /// The record.
    #[error(transparent)]
    State(#[from] StateError),
    /// The host has no memory slot for one of them, or no memory.
    #[error("blocks of memory cannot be plugged: {0}")]
    Host(#[from] io::Error),
}
