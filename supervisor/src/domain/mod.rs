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

pub mod actor;
mod console_log;
pub mod driver;
mod fault;
pub mod index;
mod operation;
pub mod plan;
pub mod registry;
pub mod shell;
pub mod test_driver;
pub mod worker;
pub mod world;
