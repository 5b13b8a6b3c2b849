//! What libvirt's users wait for: one client, which is libvirt's own, at Reeve's door and at libvirtd's.
//!
//! The client is a process of Debian's Python binding ([`Client`]), which does what it is told and says how
//! long each call took. [`Libvirtd`] is Debian's daemon in namespaces of its own.

mod client;
mod document;
mod libvirtd;

pub use client::{Client, Order};
pub use document::{Hypervisor, document};
pub use libvirtd::Libvirtd;
