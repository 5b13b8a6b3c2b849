//! Cloning a process onto a prepared stack, and ending it: shared by a spawn and by an attempt.

use std::ffi::c_void;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use rustix::thread::futex;

use super::Child;
use super::stack::Stacks;
use crate::sys::{self, CloneArgs, Errno};

/// `CLONE_CLEAR_SIGHAND`: no handler of the supervisor's in the child.
const CLONE_CLEAR_SIGHAND: u64 = 1 << 32;

/// Clones a process that runs `entry(argument)` beside the caller, in the caller's memory, with all
/// signals blocked. `args` says which namespaces and which cgroup.
///
/// # Safety
///
/// As for [`sys::clone3`]; the stacks are in use until `child_tid` is 0.
#[expect(
    unsafe_code,
    reason = "clones onto a prepared stack; takes the pidfd the kernel made"
)]
pub(super) unsafe fn clone_on(
    stacks: &Stacks,
    args: CloneArgs,
    entry: extern "C" fn(*const c_void) -> !,
    argument: *const c_void,
) -> sys::Result<Child> {
    let shared = stacks.shared();
    shared.reset();
    let mut pidfd: i32 = -1;
    let (stack, stack_size) = stacks.child();
    let sharing = libc::CLONE_VM | libc::CLONE_PIDFD | libc::CLONE_CHILD_CLEARTID;
    let args = CloneArgs {
        flags: args.flags | u64::from(sharing.unsigned_abs()) | CLONE_CLEAR_SIGHAND,
        pidfd: (&raw mut pidfd).addr() as u64,
        child_tid: shared.child_tid.as_ptr().addr() as u64,
        exit_signal: u64::from(libc::SIGCHLD.unsigned_abs()),
        stack,
        stack_size,
        ..args
    };
    // A handler of the supervisor's must not run in the child before it is cleared.
    let mask = sys::set_signal_mask(u64::MAX)?;
    // SAFETY: the stack is unused, as the caller holds the pair, and stays mapped; the caller
    // vouches for entry and argument.
    let cloned = unsafe { sys::clone3(&args, entry, argument) };
    let restored = sys::set_signal_mask(mask);
    let pid = cloned?;
    // SAFETY: clone3 succeeded with CLONE_PIDFD, so this is a new descriptor that is ours alone.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    restored?;
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    Ok(Child {
        pid: pid.ok_or(Errno(libc::ESRCH))?,
        pidfd,
    })
}

/// Waits until the kernel clears the word, as it does when the child executes or dies.
pub(super) fn await_zero(word: &AtomicU32) {
    loop {
        match word.load(Ordering::Acquire) {
            0 => return,
            // The kernel's wake is not private; nor is this wait.
            value => drop(futex::wait(word, futex::Flags::empty(), value, None)),
        }
    }
}

/// Kills and reaps; helpers die and are reaped with their namespace.
pub(super) fn end(child: &Child) {
    let _ = pidfd_send_signal(&child.pidfd, Signal::KILL);
    let _ = reap(child);
}

/// Reaps a child that ends by itself. `None` when a signal ended it.
pub(super) fn reap(child: &Child) -> Option<i32> {
    loop {
        match waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(status) => return status.and_then(|status| status.exit_status()),
            Err(_) => return None,
        }
    }
}
