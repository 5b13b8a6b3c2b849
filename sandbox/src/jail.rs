//! Stage B: the worker closes its own jail, single-threaded, before it reads a byte that is not ours.
//!
//! ```text
//! after exec: own namespaces but the network's, own uid, CAP_SYS_ADMIN of the own user namespace
//!   1  one malloc arena            memory, and glibc would open a file to trim a second one
//!   2  no dump, no new privileges
//!   3  Landlock, no rule
//!   4  SIGSYS handler              denials are named from here on
//!   5  network namespace           from stage A's helper, which is reaped
//!   6  no capability in any set
//!   7  base filter
//! ```
//!
//! Any failure is an error that the worker reports before it exits; there is no partial jail.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use crate::landlock::{self, Abi};
use crate::seccomp::{self, Role, denial};
use crate::spawn::JAIL_FD;
use crate::sys::{self, Errno};

/// What confines the process now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JailReport {
    /// The Landlock version whose accesses are all denied.
    pub landlock: Abi,
}

/// Which step of stage B failed. The process must exit: it is not confined.
#[derive(Debug, thiserror::Error)]
pub enum JailError {
    /// `no_new_privs` or the dumpable flag.
    #[error("giving up new privileges failed: {0}")]
    Privileges(#[source] io::Error),
    /// Landlock is missing or refused.
    #[error("landlock failed: {0}")]
    Landlock(#[source] io::Error),
    /// The handler of denied calls.
    #[error("installing the handler of denied calls failed: {0}")]
    Handler(#[source] io::Error),
    /// Stage A's helper could not make the network namespace.
    #[error("making the network namespace failed: {0}")]
    MakeNetwork(#[source] io::Error),
    /// The helper died, or this process was not started by stage A.
    #[error("no network namespace arrived")]
    NoNetwork,
    /// The namespace could not be joined.
    #[error("joining the network namespace failed: {0}")]
    JoinNetwork(#[source] io::Error),
    /// Stage A's helper could not be reaped.
    #[error("the network namespace's helper did not end: {0}")]
    Helper(#[source] io::Error),
    /// A capability could not be given up.
    #[error("clearing capabilities failed: {0}")]
    Capabilities(#[source] io::Error),
    /// The base filter was refused.
    #[error("installing the base filter failed: {0}")]
    Seccomp(#[source] io::Error),
}

/// Closes the jail. To be called first thing in `main`, with a single thread, in a process started by
/// [`crate::spawn`]. Denied calls are reported to `report` from then on.
///
/// # Errors
///
/// [`JailError`]. The process is then not confined and must exit.
pub fn enter(report: BorrowedFd<'_>) -> Result<JailReport, JailError> {
    single_arena();
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .and_then(|()| rustix::thread::set_no_new_privs(true))
        .map_err(|errno| JailError::Privileges(errno.into()))?;
    let landlock = landlock::restrict().map_err(|errno| JailError::Landlock(io_error(errno)))?;
    denial::install(report).map_err(JailError::Handler)?;
    join_network()?;
    drop_capabilities().map_err(|errno| JailError::Capabilities(io_error(errno)))?;
    seccomp::enter_role(Role::Base).map_err(JailError::Seccomp)?;
    Ok(JailReport { landlock })
}

fn io_error(Errno(errno): Errno) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

/// One heap for all threads: glibc's per-thread arenas cost private memory, and trimming one opens
/// `/proc/sys/vm/overcommit_memory`, which no role may.
#[expect(unsafe_code, reason = "mallopt has no safe wrapper")]
fn single_arena() {
    // SAFETY: sets one integer of the allocator, while there is one thread.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// Waits for the network namespace, joins it, and waits for the helper to end.
fn join_network() -> Result<(), JailError> {
    let jail = take_jail_socket();
    let namespace = receive_namespace(&jail)?;
    drop(jail);
    sys::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET)
        .map_err(|errno| JailError::JoinNetwork(io_error(errno)))?;
    drop(namespace);
    reap_helper().map_err(|errno| JailError::Helper(io_error(errno)))
}

#[expect(unsafe_code, reason = "takes over a descriptor by its agreed number")]
fn take_jail_socket() -> OwnedFd {
    // SAFETY: stage A hands this number over for this purpose alone, and `enter` runs once, first.
    // In a process that stage A did not start, what is there is not a socket or not open, and the
    // receive fails.
    unsafe { OwnedFd::from_raw_fd(JAIL_FD) }
}

fn receive_namespace(jail: &OwnedFd) -> Result<OwnedFd, JailError> {
    let mut bytes = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = loop {
        let mut buffers = [IoSliceMut::new(&mut bytes)];
        match recvmsg(jail, &mut buffers, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other,
        }
    };
    let received = message
        .map_err(|errno| JailError::JoinNetwork(errno.into()))?
        .bytes;
    if received != bytes.len() {
        return Err(JailError::NoNetwork);
    }
    let errno = i32::from_ne_bytes(bytes);
    if errno != 0 {
        return Err(JailError::MakeNetwork(io::Error::from_raw_os_error(errno)));
    }
    let mut namespaces = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    namespaces.next().ok_or(JailError::NoNetwork)
}

/// The helper is this process's only child, and runs in the supervisor's memory: nothing goes on
/// before it is gone.
#[expect(
    unsafe_code,
    reason = "rustix cannot wait for a child whose exit signal is not SIGCHLD"
)]
fn reap_helper() -> sys::Result<()> {
    let any = usize::MAX;
    loop {
        // SAFETY: no status is asked for, so the kernel writes nothing.
        let waited =
            unsafe { sys::call(libc::SYS_wait4, [any, 0, libc::__WALL as usize, 0, 0, 0]) };
        match waited {
            Ok(_) | Err(Errno(libc::EINTR)) => {}
            Err(Errno(libc::ECHILD)) => return Ok(()),
            Err(errno) => return Err(errno),
        }
    }
}

/// The ambient set empties with the permitted one. The bounding set has been empty since stage A.
fn drop_capabilities() -> sys::Result<()> {
    sys::capset(0, 0, 0)
}
