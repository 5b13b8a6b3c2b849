//! What libvirt's users wait for: one client, which is libvirt's own, at Reeve's door and at libvirtd's.
//!
//! The client is a process of Debian's Python binding ([`Client`]), which does what it is told and says how
//! long each call took. Clients that misbehave ([`Crowd`]) write the protocol themselves. [`Libvirtd`] is Debian's daemon in namespaces of its own.

mod client;
mod crowd;
mod document;
mod libvirtd;
mod raw;

pub use client::{Client, Order};
pub use crowd::Crowd;
pub use document::{Hypervisor, document, pluggable};
pub use libvirtd::Libvirtd;
