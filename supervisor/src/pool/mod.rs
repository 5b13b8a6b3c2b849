//! Storage pools: directories of images, and the volumes in them.
//!
//! ```text
//!                 define                         start
//!   (nothing) ──────────────► inactive, kept ───────────────► active, kept
//!       │  ◄──────────────        │  ▲  ◄───────────────          │
//!       │     undefine            ▼  │        stop                ▼
//!       │                     build, delete                refresh, volumes
//!       │        create                                           ▲
//!       └───────────────► active, transient ──────────────────────┘
//!                              └─ stop ─► (nothing)
//! ```
//!
//! One actor owns one pool ([`actor`], asked by a [`handle`]): what is asked of the pool itself is done one after the other, volumes are
//! made and changed beside that, one job a volume. Whatever waits for a file system does so on a thread of
//! its own; whatever an image says is read, and whatever an image gets is written, by a jailed process
//! ([`crate::host::image_worker`]). Reads are answered from what the actor published ([`view`]).
//!
//! What lives here: the rules of pools ([`admission`]), directories and files ([`host`], `scan`, `make`, `change`, `stream`),
//! threads that may wait for them ([`lanes`]) and their end ([`end`]).
//! What may not: sockets and access (`api`), the form of what is kept (`store`), what is in an image.
//!
//! ## Decisions
//! 1. (2026-11) A volume has its name when it is finished, and not before (`make.rs`).
//! 2. (2026-11) A client that uploads or downloads has one end of a stream, and never the file (`stream.rs`).
//! 3. (2026-11) A volume that is being made is given up when its client goes; what changes a volume goes on to its end.
//!    A stop ends what nobody waits for, and is refused while somebody does, unless the pool's file system does not
//!    answer (`stop.rs`).
//! 4. (2026-11) One directory is of one active pool, whatever path leads to it; directories within one another are
//!    allowed, as virt-install makes a pool of each directory that it is shown.

pub mod actor;
pub mod admission;
mod chain;
pub mod change;
pub mod end;
pub mod handle;
pub mod holds;
pub mod host;
mod jobs;
pub mod lanes;
mod leftovers;
pub mod make;
mod reads;
pub mod registry;
pub mod scan;
mod source;
mod stop;
pub mod stream;
#[cfg(test)]
mod tests;
mod under_way;
pub mod view;

pub use self::registry::Pools;
