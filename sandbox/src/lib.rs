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

//!
//! ## Decisions
//!
//! 1. 2026-11: filters are compiled by `seccomp/compile.rs` at build time, not by `seccompiler`, whose
//!    program for Base takes 0.46 ms to install where this one takes 0.11 ms. Tests hold them equal.
//! 2. 2026-11: Landlock by raw calls, not by the `landlock` crate: a ruleset without rules is two
//!    calls, on the start path, without a heap.
//! 3. 2026-11: a denied call is not killed by the filter but trapped, reported, and then ended by a
//!    second denied call: SIGSYS is blocked in its handler, so the kernel forces it, on pid 1 too.

pub mod cgroup;
pub mod host;
mod jail;
mod landlock;
pub mod program;
pub mod seccomp;
pub mod service;
mod spawn;
mod sys;

pub use jail::{JailError, JailReport, Prepared, enter};
pub use landlock::Abi;
pub use spawn::{
    Child, Command, FIRST_FD, Identity, JAIL_FD, LAST_FD, MemoryMode, MemoryPolicy, NODE_WORDS,
    OnParentDeath, Resource, Rlimit, SpawnError, Step, spawn,
};
