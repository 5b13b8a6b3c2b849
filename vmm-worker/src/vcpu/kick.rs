//! Making a vCPU thread come out of `KVM_RUN`, at any instant and without losing the kick.
//!
//! The kicker sets `immediate_exit` (KVM API §5, `kvm_run`) and then signals the thread: a signal
//! that lands inside `KVM_RUN` interrupts it, and one that comes before finds the flag set. The
//! vCPU thread clears the flag when it has come out. The signal's handler does nothing; it exists
//! because an ignored signal interrupts nothing.

use std::thread::JoinHandle;

use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

use crate::kvm::ImmediateExit;

/// Installs the handler; once, before the first vCPU thread.
///
/// # Errors
/// The kernel refused the handler.
pub fn install_handler() -> std::io::Result<()> {
    register_signal_handler(SIGRTMIN(), on_kick)
        .map_err(|error| std::io::Error::from_raw_os_error(error.errno()))
}

extern "C" fn on_kick(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

/// Kicks the vCPU that `flag` belongs to and `thread` runs. A thread that has ended is left alone.
pub fn kick<T>(thread: &JoinHandle<T>, flag: &ImmediateExit) {
    flag.set(true);
    // Fails only for a thread that is no more.
    let _ = thread.kill(SIGRTMIN());
}
