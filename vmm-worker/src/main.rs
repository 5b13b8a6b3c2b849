//! The worker process: close the jail, take the control socket, serve one domain until it ends.
//!
//! Started by the supervisor and by nobody else, with the descriptors that `reeve_ipc` numbers.
//!
//! The C library calls `main` here, without the runtime of Rust's own: that looks for files which
//! the empty root does not have, and gives every thread a second stack for a message about overflow
//! that nobody could read. What it would do for us, ignoring `SIGPIPE`, the library does.
#![no_main]

use std::ffi::{c_char, c_int};

/// The C entry point.
#[expect(unsafe_code, reason = "the C library calls main by its name")]
#[unsafe(no_mangle)]
pub extern "C" fn main(_argc: c_int, _argv: *const *const c_char) -> c_int {
    reeve_worker::run().into()
}
