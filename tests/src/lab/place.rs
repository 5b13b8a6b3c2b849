//! The one decision where a lab test's body runs. Everything else asks here.

use std::sync::OnceLock;

use super::probe;

/// Where the bodies of lab tests run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On this machine, in a child process: its own `/dev/kvm` runs kernel code as a processor does.
    Direct,
    /// In an outer guest under QEMU.
    Qemu,
}

/// Decides, in this order:
/// 1. `REEVE_LAB=direct` or `REEVE_LAB=qemu`;
/// 2. a body that needs root, while we are not: QEMU;
/// 3. what [`probe::kvm_runs_kernel_code`] finds, asked once per process (1 ms to 10 ms).
///
/// # Panics
/// On any other value of `REEVE_LAB`: a typing error must not decide silently.
#[must_use]
pub fn place(needs_root: bool) -> Place {
    match std::env::var("REEVE_LAB").ok().as_deref() {
        Some("direct") => return Place::Direct,
        Some("qemu") => return Place::Qemu,
        Some(other) => panic!("REEVE_LAB={other:?}: known are direct and qemu"),
        None => {}
    }
    static PROBED: OnceLock<bool> = OnceLock::new();
    let as_root = rustix::process::geteuid().is_root();
    if (as_root || !needs_root) && *PROBED.get_or_init(probe::kvm_runs_kernel_code) {
        Place::Direct
    } else {
        Place::Qemu
    }
}
