//! The supervisor as a library: what `reeve run` uses today and the daemon and embedders share.
//!
//! # Process model
//! One process holds the privilege and parses almost nothing. It opens what a domain needs
//! ([`domain::plan`]), executes one jailed worker a domain ([`domain::worker`]), and speaks to it in
//! bounded messages that it treats as hostile. Two threads matter: the runtime's, on which every
//! worker has one supervising task, and the spawner's, which makes all workers because they die
//! with the thread that made them ([`host`]).
//!
//! # Start here
//! - how a domain starts: [`domain::worker::start`], top to bottom;
//! - how its end is judged: `domain/worker/death.rs`;
//! - what it needs of the host: [`host`], and [`host::doctor`] for whether it is there.
//!
//! ## Decisions
//! 1. (2026-11) Everything a worker reads at its start is queued on its socket while its process is
//!    being made: the start is one round trip, and the worker's time is all that counts.
//! 2. (2026-11) The console is a stream socket between the worker and whoever shows it; the
//!    supervisor never sees a guest's byte.
//! 3. (2026-11) Destroy is `SIGKILL` by pidfd and never passes through the worker.
//! 4. (2026-11) One uid a domain from a block that every supervisor of a host shares through locks
//!    of one file: no daemon is needed to agree, and a crash releases what it held.
//! 5. (2026-11) No environment variable chooses the worker's executable.

pub mod api;
pub mod config;
pub mod crash;
pub mod daemon;
pub mod domain;
pub mod gateway;
pub mod host;
pub mod logging;
pub mod network;
pub mod nwfilter;
pub mod pool;
pub mod store;
