//! Descriptors travel beside messages; inside a message a [`FdSlot`] says which one is meant.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};

/// The place of a descriptor in the order in which descriptors were sent, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FdSlot(pub u16);

/// Why a slot gave no descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FdError {
    /// No descriptor was sent for the slot.
    #[error("no descriptor came for slot {0}")]
    Missing(u16),
    /// The slot's descriptor was taken before.
    #[error("the descriptor of slot {0} was used twice")]
    Taken(u16),
    /// More descriptors than one launch may carry.
    #[error("more than {max} descriptors", max = FdTable::MAX)]
    TooMany,
}

/// Descriptors in the order they came or are to be sent. Each is taken exactly once; what is left
/// when the table is dropped is closed.
#[derive(Debug, Default)]
pub struct FdTable {
    slots: Vec<Option<OwnedFd>>,
}

impl FdTable {
    /// The most descriptors a table holds, over all batches.
    pub const MAX: usize = 512;

    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a descriptor and says where it is.
    ///
    /// # Errors
    /// [`FdError::TooMany`] beyond [`FdTable::MAX`]; the descriptor is closed.
    pub fn push(&mut self, fd: OwnedFd) -> Result<FdSlot, FdError> {
        if self.slots.len() >= Self::MAX {
            return Err(FdError::TooMany);
        }
        let slot = u16::try_from(self.slots.len()).map_err(|_| FdError::TooMany)?;
        self.slots.push(Some(fd));
        Ok(FdSlot(slot))
    }

    /// Takes the descriptor of `slot`.
    ///
    /// # Errors
    /// [`FdError::Missing`] if none came, [`FdError::Taken`] if it was taken before.
    pub fn take(&mut self, slot: FdSlot) -> Result<OwnedFd, FdError> {
        let entry = self
            .slots
            .get_mut(usize::from(slot.0))
            .ok_or(FdError::Missing(slot.0))?;
        entry.take().ok_or(FdError::Taken(slot.0))
    }

    /// The descriptor of `slot`, which stays.
    ///
    /// # Errors
    /// As for [`Self::take`].
    pub fn get(&self, slot: FdSlot) -> Result<BorrowedFd<'_>, FdError> {
        let entry = self
            .slots
            .get(usize::from(slot.0))
            .ok_or(FdError::Missing(slot.0))?;
        entry
            .as_ref()
            .map(AsFd::as_fd)
            .ok_or(FdError::Taken(slot.0))
    }

    /// How many descriptors have not been taken.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.slots.iter().flatten().count()
    }

    /// All descriptors that are left, in order: what a sender puts on the wire.
    #[must_use]
    pub fn into_fds(self) -> Vec<OwnedFd> {
        self.slots.into_iter().flatten().collect()
    }
}
