//! The worker process: close the jail, take the control socket, serve one domain until it ends.
//!
//! Started by the supervisor and by nobody else, with the descriptors that `reeve_ipc` numbers.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(reeve_worker::run())
}
