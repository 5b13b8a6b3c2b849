//! Device models of a Reeve machine: legacy devices, buses, interrupts; no hypervisor, no protocol.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

pub mod bus;
pub mod clock;
pub mod console;
pub mod error;
pub mod ioapic;
pub mod irq;
pub mod legacy;
pub mod power;
pub mod shared;
pub mod state;
#[cfg(test)]
mod testing;
