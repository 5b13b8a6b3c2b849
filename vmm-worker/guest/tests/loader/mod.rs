//! A minimal machine monitor, enough to boot the built-in guest in tests without the worker.
//!
//! One thread per vCPU; the plain devices are behind one mutex ([`ports::Devices`]), the virtio devices
//! are Reeve's own on its own PCI bus ([`bus::Bus`]). A guest that does
//! not end by itself is stopped by its deadline, so no test can hang.

#![allow(
    dead_code,
    reason = "the tests and the measuring example each use a part"
)]

mod acpi;
mod boot;
mod bus;
mod devices;
mod executor;
mod machine;
mod ports;

#[allow(unused_imports, reason = "as above")]
pub use devices::{Device, Wire};
#[allow(unused_imports, reason = "as above")]
pub use machine::{End, Irqchip, Machine, Outcome, Setup};
