//! Who answers for the connections of a guest whose worker comes to this supervisor with its machine: found,
//! or taking over from another. (One that is started has it in its specification.)

use std::os::fd::OwnedFd;
use std::time::Duration;

use reeve_ipc::client::{CallError, WorkerClient};
use reeve_ipc::fd::FdTable;
use reeve_ipc::model::Domain;
use reeve_ipc::request::AcceptorSet;
use reeve_ipc::spec::PciSlot;

use super::log::quoted;
use super::planner::Planner;
use crate::host::sockets::acceptor::Acceptor;

/// An acceptor whose other end no worker has yet.
pub(super) struct Offer {
    slot: PciSlot,
    acceptor: Acceptor,
    theirs: OwnedFd,
}

impl Offer {
    /// One for the socket device of `domain`, if it has one. Where its directory is not to be had by now, its
    /// guest is refused every connection, and this is told.
    pub(super) async fn make(planner: &Planner, domain: &Domain) -> Option<Self> {
        let vsock = domain.devices.vsock.as_ref()?;
        let slot = vsock.address?;
        match planner.acceptor(domain, vsock.path.clone()).await {
            Ok((acceptor, theirs)) => Some(Self {
                slot,
                acceptor,
                theirs,
            }),
            Err(error) => {
                let (domain, uuid) = (&domain.name, domain.uuid);
                tracing::warn!(%domain, %uuid, "the guest's connections to the host are refused: {error}");
                None
            }
        }
    }

    /// Gives the worker its end, within `deadline`; nothing, if it has no such device any more.
    ///
    /// # Errors
    /// The worker does not answer, or is gone.
    pub(super) async fn give(
        self,
        to: &WorkerClient,
        deadline: Duration,
    ) -> Result<Option<Acceptor>, CallError> {
        let mut table = FdTable::new();
        let Ok(acceptor) = table.push(self.theirs) else {
            return Ok(None);
        };
        let slot = self.slot;
        let set = AcceptorSet { slot, acceptor };
        match to.call_with(set, table, deadline).await {
            Ok(()) => Ok(Some(self.acceptor)),
            Err(CallError::Refused(error)) => {
                tracing::debug!(%slot, "no socket device: {}", quoted(&error.message));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
