//! libvirt's front door: speaks libvirt's remote protocol and XML to a client, and the native API to the
//! supervisor. One sandboxed process serves one connection.
//!
//! ```text
//!   virsh, bindings ── wire (frames, XDR) ─► session ─► calls ─► native API ─► reeved
//!                                                        │
//!                                                        └─ xml (documents ↔ the model)
//! ```
//!
//! A client of another host comes through `remote` first, which finds out who it is, and stays between the two as TLS.
//!
//! What a client sends is hostile, and is parsed here and nowhere else. Knows nothing of actors, host
//! resources or policy: what it may not do, the supervisor refuses.

mod calls;
mod cpu;
pub mod log;
pub mod remote;
pub mod session;
pub mod wire;
pub mod xml;
