//! Every KVM ioctl of the worker, behind types that keep the order KVM wants.
//!
//! Built on the thread that builds the machine; afterwards [`Vm`] is shared by all threads (its
//! ioctls are thread-safe) and each [`Vcpu`] is owned by its vCPU thread.
//!
//! ```text
//! System (/dev/kvm, closed after building)
//!   └─ create_vm ─> BareVm ── add_memory ──┐
//!                     │ <──────────────────┘
//!                     └─ interrupt_controller ─> Arc<Vm> + Arc<dyn InterruptController>
//!                                                  └─ create_vcpu ─> Vcpu ── run ─> Exit
//! ```
//! The order is memory slots, interrupt controller, vCPUs: a first memory slot after an in-kernel
//! controller waits for a grace period of the host kernel (7 ms measured), and vCPUs have a local
//! APIC only if the controller was there before them.

mod blocks;
mod doorbells;
mod error;
mod exit;
mod immediate_exit;
mod irqchip;
mod registers;
mod routes;
mod saved;
mod state;
mod system;
#[cfg(test)]
mod tests;
mod vcpu;
mod video;
mod vm;
mod vm_saved;

pub use self::blocks::KvmBlocks;
pub use self::doorbells::KvmDoorbells;
pub use self::error::KvmError;
pub use self::exit::{Exit, InternalError, SystemEvent};
pub use self::immediate_exit::ImmediateExit;
pub use self::irqchip::{ControllerKind, InterruptController};
pub use self::registers::RegisterDump;
pub use self::system::System;
pub use self::vcpu::Vcpu;
pub use self::video::KvmVideoMemory;
pub use self::vm::{BareVm, KvmPages, Vm};
