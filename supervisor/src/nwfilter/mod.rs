//! Network filters: what libvirt's users know by `virsh nwfilter-list`.
//!
//! ```text
//!   define, undefine ─► registry ─► book (what there is) ◄─ plan, adoption: what an interface names
//!                          │          │
//!                          │          └─► instance: references followed, variables replaced
//!                          └─► taps that use it: all get the new rules, or none; then it is kept
//! ```
//!
//! The book is read while an interface gets its rules and written where a filter has changed and all that use it have
//! theirs (`change.rs`), so that no interface is left with the rules of before. No actor: every change looks at all
//! filters.
//!
//! What lives here: which filters there are, what refers to what, and the rules that an interface gets. What may not:
//! how the kernel is told (`crate::host::filter`), the form of what is kept (`store`), sockets and access (`api`).
//!
//! ## Decisions
//! 1. (2026-11) The set that libvirt ships is in the program and not on disk: what is kept is what somebody defined
//!    instead, or that somebody undefined one. It has UUIDs of its own, the same on every host.
//! 2. (2026-11) Addresses are not learned. A filter that needs one is refused where no parameter says it.

pub(crate) mod book;
mod change;
pub(crate) mod instance;
pub mod registry;
mod shipped;
#[cfg(test)]
pub(crate) mod tests;

pub use self::registry::Nwfilters;
