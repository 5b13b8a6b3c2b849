//! Tries a namespace for real, in a process that then ends: what `reeve doctor` reports.

use std::ffi::c_void;

use super::process::{await_zero, clone_on, reap};
use super::stack::Stacks;
use crate::sys::{self, CloneArgs, Errno};

/// Makes a user namespace and, in it, another of the kind that `flag` (`CLONE_NEW*`) names.
pub(crate) fn try_namespace(flag: i32) -> sys::Result<()> {
    let stacks = Stacks::take().map_err(|errno| Errno(errno.raw_os_error()))?;
    let result = attempt(&stacks, flag);
    stacks.give_back();
    result
}

fn attempt(stacks: &Stacks, flag: i32) -> sys::Result<()> {
    let args = CloneArgs {
        flags: u64::from(libc::CLONE_NEWUSER.unsigned_abs()),
        ..CloneArgs::default()
    };
    let argument: *const c_void = std::ptr::without_provenance(flag.unsigned_abs() as usize);
    let shared = stacks.shared();
    #[expect(unsafe_code, reason = "clones onto a prepared stack")]
    // SAFETY: the stack is unused and stays mapped; `attempt_main` reads nothing through its argument.
    let child = unsafe { clone_on(stacks, args, attempt_main, argument) }?;
    await_zero(&shared.child_tid);
    match reap(&child) {
        Some(0) => Ok(()),
        Some(errno) => Err(Errno(errno)),
        None => Err(Errno(libc::ECHILD)),
    }
}

extern "C" fn attempt_main(flag: *const c_void) -> ! {
    let flag = i32::try_from(flag.addr()).unwrap_or(0);
    sys::exit_group(match sys::unshare(flag) {
        Ok(()) => 0,
        Err(Errno(errno)) => errno.min(254),
    })
}
