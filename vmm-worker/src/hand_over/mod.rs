//! A machine's way from one worker to another on the same host, without its guest noticing: for a worker
//! of a newer build, say.
//!
//! ```text
//!   supervisor            giver                          taker
//!   HandOver ───────────► vCPUs and devices stand
//!   TakeOver ────────────── Transfer: spec, descriptors, ─► builds the machine, which stands
//!                           console, records
//!   SwitchOver ─────────────────────────────────────────►  sends Taken, goes on
//!                         ends  ◄────────────── Taken ──┘
//! ```
//!
//! What goes along: guest memory and boot images by descriptor, the descriptors of every device as they
//! were handed over with it (an image keeps its locks, a tap its name), the console's output and clients,
//! the socket of adoption, the records ([`crate::state`]). What does not: connections of the socket device
//! and of ports, whose drivers are told; the socket on which the former asks for its guest's connections, in
//! place of which the supervisor gives another; counters; rings and threads, which are made anew.
//!
//! [`give`] and [`take`] are the two ends; both run on the control thread. Nothing that is sent is believed
//! without a check, though both ends belong to one domain.

pub mod give;
mod kept;
pub mod take;

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use reeve_ipc::error::{ErrorCode, WireError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

pub use self::kept::Kept;

/// How long the other worker may take over its part; a machine of many vCPUs and disks takes a second.
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until `socket` can be read or written.
fn wait(socket: BorrowedFd<'_>, flags: PollFlags, deadline: Instant) -> Result<(), WireError> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let why = "the other worker did not do its part in time";
            return Err(WireError::new(ErrorCode::Timeout, why));
        }
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let socket = socket.as_fd();
        match poll(&mut [PollFd::new(&socket, flags)], Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(errno) => return Err(failed(errno)),
        }
    }
}

fn failed(error: impl std::fmt::Display) -> WireError {
    let why = format!("cannot speak to the other worker: {error}");
    WireError::new(ErrorCode::Host, why)
}
