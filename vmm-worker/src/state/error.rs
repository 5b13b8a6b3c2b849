//! Why a machine could not be saved, or made again.

use reeve_devices::pci::Slot;
use reeve_devices::state::StateError;
use reeve_devices::virtio::Unwritten;
use reeve_devices::virtio::mem::RestoreBlocksError;
use reeve_ipc::error::{ErrorCode, WireError};

use super::ContainerError;
use crate::build::BuildError;
use crate::device_set::DeviceSetError;
use crate::kvm::KvmError;
use crate::vcpu::VcpuError;

/// Why a machine could not be saved. It stands, and can be resumed.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// Its guest has ended, or is being reset: what there is to be said of it is in an event.
    #[error("the guest has ended, there is nothing to go on with")]
    Ended,
    /// A vCPU does not stand, or KVM does not tell its state.
    #[error(transparent)]
    Vcpu(#[from] VcpuError),
    /// A device does not come to rest.
    #[error(transparent)]
    Device(#[from] DeviceSetError),
    /// What a device holds for its image could not be written there, where another worker would look for it.
    #[error("the {what} in slot {slot} cannot be saved")]
    Unwritten {
        /// What it is.
        what: &'static str,
        /// Where.
        slot: Slot,
        /// Why.
        source: Unwritten,
    },
    /// KVM does not tell the state of the VM.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// It is too large for its container (a bug of the limits).
    #[error(transparent)]
    Container(#[from] ContainerError),
}

/// Why a machine could not be made from its records; nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The machine cannot be built at all.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The container is refused, or a record is missing or left over.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// A record's bytes are refused.
    #[error("the record of {unit} is refused")]
    Record {
        /// Whose.
        unit: String,
        /// Why.
        source: StateError,
    },
    /// The machine that was saved is not the one that the specification describes.
    #[error("{what} of the saved machine is {saved}, that of the specification {wanted}")]
    Mismatch {
        /// What differs.
        what: &'static str,
        /// As it was saved.
        saved: u64,
        /// As it is specified.
        wanted: u64,
    },
    /// Memory that was plugged in cannot be again.
    #[error("memory that was plugged in cannot be plugged in again")]
    Plugged(#[source] std::io::Error),
    /// KVM refuses a state of the VM.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// KVM refuses a state of a vCPU.
    #[error(transparent)]
    Vcpu(#[from] VcpuError),
}

impl RestoreError {
    /// Of the record of `unit`.
    pub(crate) fn record(unit: &str) -> impl FnOnce(StateError) -> Self + '_ {
        move |source| Self::Record {
            unit: unit.to_owned(),
            source,
        }
    }
}

impl RestoreError {
    /// Of the record `unit` of which blocks of memory are plugged.
    pub(crate) fn plugged(unit: &str) -> impl FnOnce(RestoreBlocksError) -> Self + '_ {
        move |error| match error {
            RestoreBlocksError::State(source) => Self::record(unit)(source),
            RestoreBlocksError::Host(error) => Self::Plugged(error),
        }
    }
}

impl From<SaveError> for WireError {
    fn from(error: SaveError) -> Self {
        let code = match &error {
            SaveError::Ended => ErrorCode::WrongPhase,
            SaveError::Device(DeviceSetError::Stateless { .. }) => ErrorCode::Unsupported,
            SaveError::Vcpu(VcpuError::Unresponsive(_)) | SaveError::Device(_) => {
                ErrorCode::Timeout
            }
            SaveError::Vcpu(_) | SaveError::Kvm(_) => ErrorCode::Hypervisor,
            SaveError::Container(_) => ErrorCode::Host,
            SaveError::Unwritten { .. } => ErrorCode::Host,
        };
        Self::new(code, crate::build::one_line(&error))
    }
}

impl From<RestoreError> for WireError {
    fn from(error: RestoreError) -> Self {
        let code = match error {
            RestoreError::Build(error) => return error.into(),
            RestoreError::Container(_)
            | RestoreError::Record { .. }
            | RestoreError::Mismatch { .. } => ErrorCode::InvalidArgument,
            RestoreError::Plugged(_) => ErrorCode::Memory,
            RestoreError::Kvm(_) => ErrorCode::Hypervisor,
            RestoreError::Vcpu(VcpuError::Unresponsive(_)) => ErrorCode::Timeout,
            RestoreError::Vcpu(_) => ErrorCode::Hypervisor,
        };
        Self::new(code, crate::build::one_line(&error))
    }
}
