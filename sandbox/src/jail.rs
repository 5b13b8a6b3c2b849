//! Stage B: the worker closes its own jail, single-threaded, before it reads a byte that is not ours.
//!
//! ```text
//! after exec: own namespaces but the network's, own uid, CAP_SYS_ADMIN of the own user namespace
//!   1  one malloc arena            memory, and glibc would open a file to trim a second one
//!   2  no dump, no new privileges
//!   3  empty root                  by stage A's second helper, which is reaped
//!   4  Landlock, no rule
//!   5  SIGSYS handler              denials are named from here on
//!   6  base filter                 while the network namespace is still being made
//!   7  network namespace           from stage A's first helper, which is reaped
//!   8  no capability in any set
//!   9  seal                        denies what 7 and 8 needed
//! ```
//!
//! Any failure is an error that the worker reports before it exits; there is no partial jail.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags, RawDir, open};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use crate::landlock::{self, Abi};
use crate::seccomp::{self, denial};
use crate::spawn::JAIL_FD;
use crate::sys::{self, Errno};

/// Stage A's helpers are the first processes after this one in a fresh pid namespace.
const NETWORK_HELPER: usize = 2;
const ROOT_HELPER: usize = 3;

/// What confines the process now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JailReport {
    /// The Landlock version whose accesses are all denied.
    pub landlock: Abi,
}

/// Which step of stage B failed. The process must exit: it is not confined.
///
/// `Root` with `EINVAL` means that the host's root is its initramfs, which cannot be pivoted away
/// from: the host must `switch_root` to a mounted filesystem first.
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
    /// Stage A's helper could not put the empty root in place.
    #[error("changing to an empty root failed: {0}")]
    Root(#[source] io::Error),
    /// Something is visible in the root.
    #[error("the root is not empty")]
    RootNotEmpty,
    /// A capability could not be given up.
    #[error("clearing capabilities failed: {0}")]
    Capabilities(#[source] io::Error),
    /// The base filter was refused.
    #[error("installing the base filter failed: {0}")]
    Seccomp(#[source] io::Error),
}

/// The first half of stage B is done; the process is not jailed yet.
#[derive(Debug)]
#[must_use = "the jail is not closed"]
pub struct Prepared {
    landlock: Abi,
}

impl Prepared {
    /// Steps 1 to 5. To be called first thing in `main`, with a single thread, in a process started
    /// by [`crate::spawn()`]. Calls denied later are reported to `report`, which must stay open.
    ///
    /// # Errors
    ///
    /// [`JailError`]. The process is not confined and must exit.
    pub fn new(report: BorrowedFd<'_>) -> Result<Self, JailError> {
        single_arena();
        set_dumpable_behavior(DumpableBehavior::NotDumpable)
            .and_then(|()| rustix::thread::set_no_new_privs(true))
            .map_err(|errno| JailError::Privileges(errno.into()))?;
        take_root()?;
        let landlock = landlock::restrict().map_err(|e| JailError::Landlock(io_error(e)))?;
        denial::install(report).map_err(JailError::Handler)?;
        Ok(Self { landlock })
    }

    /// Steps 6 to 9: the jail is closed.
    ///
    /// # Errors
    ///
    /// [`JailError`]. The process is not confined and must exit.
    pub fn close(self) -> Result<JailReport, JailError> {
        seccomp::install_base().map_err(JailError::Seccomp)?;
        let report = self.close_unfiltered()?;
        seccomp::seal().map_err(JailError::Seccomp)?;
        Ok(report)
    }

    /// Steps 7 and 8 alone, for a program whose system calls no role describes, and which brings a
    /// filter of its own.
    ///
    /// # Errors
    ///
    /// [`JailError`]. The process is not confined and must exit.
    pub fn close_unfiltered(self) -> Result<JailReport, JailError> {
        join_network()?;
        drop_capabilities().map_err(|errno| JailError::Capabilities(io_error(errno)))?;
        Ok(JailReport {
            landlock: self.landlock,
        })
    }
}

/// Closes the jail: [`Prepared::new`], then [`Prepared::close`].
///
/// # Errors
///
/// [`JailError`]. The process is not confined and must exit.
pub fn enter(report: BorrowedFd<'_>) -> Result<JailReport, JailError> {
    Prepared::new(report)?.close()
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
    reap(NETWORK_HELPER).map_err(|errno| JailError::MakeNetwork(io_error(errno)))
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

/// Waits for one of stage A's helpers, which run in the supervisor's memory: nothing that is not
/// ours is read before they are gone. Gives the error number it ended with.
#[expect(
    unsafe_code,
    reason = "rustix cannot wait for a child whose exit signal is not SIGCHLD"
)]
fn reap(pid: usize) -> sys::Result<()> {
    let mut status = 0_i32;
    let pointer = (&raw mut status).addr();
    loop {
        // SAFETY: the kernel writes one int.
        let waited = unsafe {
            sys::call(
                libc::SYS_wait4,
                [pid, pointer, libc::__WALL as usize, 0, 0, 0],
            )
        };
        match waited {
            Ok(_) if status == 0 => return Ok(()),
            Ok(_) if libc::WIFEXITED(status) => return Err(Errno(libc::WEXITSTATUS(status))),
            Ok(_) => return Err(Errno(libc::ECHILD)),
            Err(Errno(libc::EINTR)) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Waits for the empty root and looks at it.
fn take_root() -> Result<(), JailError> {
    let failed = |errno: rustix::io::Errno| JailError::Root(errno.into());
    reap(ROOT_HELPER).map_err(|errno| JailError::Root(io_error(errno)))?;
    rustix::process::chdir(c"/").map_err(failed)?;
    let root = open(
        c"/",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    );
    let root = root.map_err(failed)?;
    let mut space = [MaybeUninit::uninit(); 1024];
    let mut entries = RawDir::new(&root, &mut space);
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(failed)?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            return Err(JailError::RootNotEmpty);
        }
    }
    Ok(())
}

/// The ambient set empties with the permitted one. The bounding set has been empty since stage A.
fn drop_capabilities() -> sys::Result<()> {
    sys::capset(0, 0, 0)
}
