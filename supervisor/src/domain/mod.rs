//! Domains: from a definition to a worker and its end.
//!
//! ```text
//!   Domain (model) ── plan ──► MachineSpec + FdTable + console
//!                                 │
//!                    worker::start│  claim an identity, queue welcome, descriptors and launch,
//!                                 │  spawn into the jail, wait for the reply
//!                                 ▼
//!                              Worker ── requests ──► reeve-worker
//!                                 │  supervise: events, log, deadlines, pidfd
//!                                 ▼
//!                               Death ── identity and cgroup released
//! ```

mod fault;
pub mod plan;
pub mod worker;
