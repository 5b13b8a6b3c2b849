//! A storage that keeps nothing: what the actors hold is all that there is.

use std::path::PathBuf;

use reeve_ipc::api::view::DomainDefinition;
use reeve_ipc::model::DomainUuid;

use crate::domain::driver::Later;
use crate::domain::world::{Status, Storage};

/// Acknowledges at once. Nothing is ever found again, since nothing outlives the actors.
#[derive(Debug, Clone, Copy)]
pub(super) struct InMemory;

fn at_once() -> Later<Result<(), String>> {
    Box::pin(std::future::ready(Ok(())))
}

impl Storage for InMemory {
    fn write_record(&self, _: DomainDefinition) -> Later<Result<(), String>> {
        at_once()
    }

    fn remove_record(&self, _: DomainUuid) -> Later<Result<(), String>> {
        at_once()
    }

    fn write_status(&self, _: DomainUuid, _: &Status) -> Result<(), String> {
        Ok(())
    }

    fn console_position(&self, _: DomainUuid) -> Option<u64> {
        None
    }

    fn set_console_position(&self, _: DomainUuid, _: u64) {}

    fn remove_status(&self, _: DomainUuid) {}

    /// A name, and no directory: the driver puts nothing there.
    fn directory(&self, uuid: DomainUuid) -> Result<PathBuf, String> {
        Ok(PathBuf::from(uuid.to_string()))
    }
}
