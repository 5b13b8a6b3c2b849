//! For tests: domains as the supervisor tells of them.

use reeve_ipc::api::view::{DomainDetails, DomainState, DomainSummary};
use reeve_ipc::model::{DomainUuid, MemorySize};
use uuid::Uuid;

/// The UUID of the domain of that name.
pub(crate) fn uuid_of(name: &str) -> Uuid {
    let mut bytes = [7; 16];
    for (to, byte) in bytes.iter_mut().zip(name.bytes()) {
        *to = byte;
    }
    Uuid::from_bytes(bytes)
}

/// A domain of that name and state, with a definition, 2 of 4 vCPUs and 64 MiB; number 5 while it runs.
pub(crate) fn summary(name: &str, state: DomainState) -> DomainSummary {
    DomainSummary {
        name: name.parse().unwrap(),
        uuid: DomainUuid(uuid_of(name)),
        id: state.is_active().then_some(5),
        state,
        persistent: true,
        autostart: None,
        vcpus: 2,
        memory: MemorySize::mebibytes(64),
        title: None,
        unresponsive: false,
        reaping: false,
        job: None,
        max_vcpus: 4,
        current_memory: MemorySize::mebibytes(64),
        max_memory: MemorySize::mebibytes(64),
    }
}

/// The same, in full.
pub(crate) fn details(name: &str, state: DomainState) -> DomainDetails {
    DomainDetails {
        summary: summary(name, state),
        started_ms: None,
        worker: None,
        resets: 0,
        last_failure: None,
        redefined: false,
        agent_timeout: None,
    }
}
