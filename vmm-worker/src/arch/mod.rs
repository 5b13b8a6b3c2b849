//! What is particular to one processor architecture: address map, CPUID, registers, ACPI tables.
//!
//! Only x86-64 exists; architecture-dependent code lives here and nowhere else.

pub mod x86_64;
