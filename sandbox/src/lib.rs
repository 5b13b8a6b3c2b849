//! What confines Reeve's processes: namespaces, identity, capabilities, limits, cgroup, Landlock and
//! seccomp. Knows nothing of what it jails.
//!
//! ```text
//! supervisor                                   worker
//! spawn ── stage A: namespaces, identity, ───▶ enter ── stage B: network namespace, Landlock,
//!          empty root, descriptors, exec                no capability, base filter
//! denial::Denial::decode ◀── SIGSYS report ─── enter_role ── per thread, before guest code runs
//! ```
//!
//! Every layer alone refuses what it can see; none is optional and none is lowered silently. What a
//! host lacks is named by [`SpawnError::remedy`] and [`host`].

pub mod cgroup;
pub mod host;
mod jail;
mod landlock;
pub mod seccomp;
mod spawn;
mod sys;

pub use jail::{JailError, JailReport, Prepared, enter};
pub use landlock::Abi;
pub use spawn::{
    Child, Command, FIRST_FD, Identity, JAIL_FD, LAST_FD, OnParentDeath, Resource, Rlimit,
    SpawnError, Step, spawn,
};
