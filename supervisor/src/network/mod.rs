//! Virtual networks: what libvirt's users know by `virsh net-list`.
//!
//! ```text
//!                 define                        start
//!   (nothing) ──────────────► inactive, kept ──────────────► active, kept ──┐ define: another one is kept,
//!       │  ◄──────────────                  ◄──────────────     │  ▲        │ which it has once it was stopped
//!       │     undefine                           stop           │  └────────┘
//!       │        create                                undefine ▼  ▲ define
//!       └──────────────────────────────────────────► active, transient
//!                                                       └─ stop ─► (nothing)
//! ```
//!
//! One actor owns one network ([`actor`], asked by a [`handle`]): what is asked of it is done one after the other, on
//! a thread that may wait for the kernel ([`work`]); reads are answered from what it published ([`view`]). Interfaces
//! of domains are connected by ports ([`ports`]), which outlive a stop: what is started again has them again.
//!
//! What lives here: the rules of networks, one actor for each, and who is connected to them. What may not: sockets
//! and access (`api`), the form of what is kept (`store`), links, rules and processes of the host
//! (`crate::host::network`, asked for through [`host::NetworkHost`]).
//!
//! ## Decisions
//! 1. (2026-11) What is about to be made is noted before it is, by whoever makes it; what was being made when a
//!    supervisor died is taken away by the next, and what was active is taken over, before any domain is.
//! 2. (2026-11) A port is given without waiting for anything, and is in the domain's live definition before its tap is
//!    made: whoever comes after this supervisor knows every port from there, and nothing else keeps them.
//! 3. (2026-11) A server that ends is started again by taking the whole network over, which makes anew whatever else
//!    of it is gone.

pub mod actor;
pub mod admission;
pub mod claims;
pub mod default;
pub mod handle;
pub mod host;
pub mod ports;
pub mod registry;
pub mod server;
pub mod test_host;
#[cfg(test)]
mod tests;
pub mod view;
pub mod work;

pub use self::registry::Networks;
