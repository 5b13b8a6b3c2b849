//! The x86-64 machine as a guest sees it: `reeve-1.0`.
//!
//! Used by the thread that builds the machine, before any vCPU runs; nothing here is shared between
//! threads. [`layout`] holds the fixed addresses, [`cpuid`] and [`msr`] what a vCPU reports,
//! [`regs`] the state in which it enters a kernel, [`reset`] the one at power-on, [`acpi`]
//! the tables that describe it all to the guest.

pub mod acpi;
pub mod cpuid;
pub mod layout;
pub mod msr;
pub mod regs;
pub mod reset;
