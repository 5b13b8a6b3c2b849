//! Transports: how a driver finds a device and its queues.
//!
//! [`negotiation`] is what every transport does: status, features, queues, the start and the stop of the
//! device behind it. [`mod@line`] is the device's way to its driver. [`pci`] gives both registers.

mod ending;
pub mod line;
pub mod negotiation;
pub mod pci;
pub mod registers;
