//! A foreign program that serves a network of the host, confined where it is: how it is started.
//!
//! ```text
//! caller                launcher (our own static program)     the program
//! ──────                ─────────────────────────────────     ───────────
//! fork, exec ─────────▶ leaves the session
//!                       forks ────────────────────────────▶ a uid and gid of its own, no group
//! hears its number ◀─── says its number, ends               few capabilities, none more to be had
//! records it                                                limits; Landlock; a filter of system calls
//!     ◀──────────────────────────────────────────────────── says that all is closed
//! gives leave ────────────────────────────────────────────▶ exec
//! ```
//!
//! It is not bound to its caller: it goes on when that ends, and whoever comes next finds it by the number that was
//! recorded before it ran. It is no child of the caller, so that the host's first process reaps it.
//!
//! ## Decisions
//!
//! 1. 2026-11: no user namespace, and therefore no other: what such a program does for a network of the host (to bind
//!    low ports, to answer who has no address yet) takes capabilities over that network, which nobody has in a user
//!    namespace of his own; and without one a namespace takes `CAP_SYS_ADMIN`, which the supervisor does not have and
//!    is not to have. What mount and pid namespaces would hide, Landlock and the filter refuse: it reads what it is
//!    loaded from and configured by, writes one file, signals nobody and looks into no other process.
//! 2. 2026-11: the bounding set stays. It bounds what files give a program that is executed, and with
//!    `no_new_privs` they give nothing.

mod filter;
mod inside;

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fmt, io};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send};

use crate::sys;

pub use self::inside::run_if_launcher;

/// What the launcher calls itself: how our program knows what it is started for.
const LAUNCHER: &str = "reeve-service";
/// The launcher's way to its caller, and then the program's until it is executed.
const SYNC_FD: i32 = 3;
/// Above every number that is handed over.
const ABOVE: i32 = 64;
/// The most directories that are handed over.
const MAX_DIRECTORIES: usize = 32;
/// How long all of it may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// The most bytes of a failure in words.
const MAX_WORDS: usize = 512;

/// What a service may do with a file, or all files beneath a directory. What it may not do by its uid it may not do
/// all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read it.
    Read,
    /// Read it, list it, execute it.
    Execute,
    /// Read and write it.
    Write,
}

impl Access {
    const ALL: [Self; 3] = [Self::Read, Self::Execute, Self::Write];

    const fn word(self) -> &'static str {
        match self {
            Self::Read => "r",
            Self::Execute => "x",
            Self::Write => "w",
        }
    }
}

/// What to start, and with what.
#[derive(Debug)]
pub struct Service<'a> {
    /// Our own program, which calls [`run_if_launcher`] first thing.
    pub launcher: BorrowedFd<'a>,
    /// The foreign program: an absolute path.
    pub path: &'a Path,
    /// Its arguments, without its name. Its environment is empty.
    pub arguments: &'a [OsString],
    /// Its uid and its gid on the host, not 0.
    pub uid: u32,
    /// The capabilities that it has, by their numbers (capabilities(7)).
    pub capabilities: &'a [u32],
    /// What it may do with which paths; one that is not there is not there for it either.
    pub paths: &'a [(Access, PathBuf)],
    /// Directories that were opened already (`O_PATH`), beneath which it may read, whatever its path to them leads to
    /// by then: 32 at most.
    pub directories: &'a [BorrowedFd<'a>],
    /// The ports of TCP that it may listen at and connect to, where the host's kernel can tell them apart.
    pub tcp_ports: &'a [u16],
}

/// Why there is no such process. Nothing is left of it.
#[derive(Debug)]
pub struct ServiceError {
    what: String,
    why: Option<io::Error>,
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.why {
            Some(why) => write!(f, "{}: {why}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

impl std::error::Error for ServiceError {}

impl ServiceError {
    fn words(what: impl Into<String>) -> Self {
        let what = what.into();
        Self { what, why: None }
    }
}

fn step<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> ServiceError {
    move |error| ServiceError {
        what: what.to_owned(),
        why: Some(error.into()),
    }
}

/// A process that is confined and waits for leave to execute the program. Without it, it ends.
#[derive(Debug)]
pub struct Waiting {
    pid: u32,
    sync: OwnedFd,
    words: OwnedFd,
    deadline: Instant,
}

/// Makes the process; waits for it, some ten milliseconds.
///
/// # Errors
/// [`ServiceError`].
pub fn prepare(service: &Service<'_>) -> Result<Waiting, ServiceError> {
    if service.uid == 0 || !service.path.is_absolute() {
        return Err(ServiceError::words(
            "a service has a user that is not root, and an absolute path",
        ));
    }
    let deadline = Instant::now() + DEADLINE;
    let (words, written) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(step("cannot make a pipe"))?;
    rustix::io::ioctl_fionbio(&words, true).map_err(step("cannot make a pipe"))?;
    let (sync, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(step("cannot make a socket"))?;
    execute(service, &theirs, written)?;
    drop(theirs);
    let mut waiting = Waiting {
        pid: 0,
        sync,
        words,
        deadline,
    };
    // Two processes speak, in whichever order.
    let mut ready = false;
    while waiting.pid == 0 || !ready {
        let said = waiting.hear()?;
        match said.strip_prefix("pid ").map(str::parse) {
            Some(Ok(pid)) => waiting.pid = pid,
            None if said == "+" => ready = true,
            _ if said.is_empty() => return Err(ServiceError::words("the launcher died")),
            _ => return Err(ServiceError::words(said)),
        }
    }
    Ok(waiting)
}

impl Waiting {
    /// The process' number, in the caller's pid namespace.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Lets it execute the program, and waits until it has. Gives the reading end of the pipe that it writes its
    /// words to: close-on-exec and non-blocking, and of no other use.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub fn go(self) -> Result<OwnedFd, ServiceError> {
        send(&self.sync, b"+", SendFlags::NOSIGNAL).map_err(step("cannot tell the process"))?;
        // The end of the socket is that of the way: closed as the program is executed.
        match self.hear()?.as_str() {
            "" => Ok(self.words),
            said => Err(ServiceError::words(said)),
        }
    }

    /// What the process says; nothing where the socket is closed.
    fn hear(&self) -> Result<String, ServiceError> {
        let mut buffer = [0; MAX_WORDS];
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ServiceError::words(format!(
                    "it is not ready after {DEADLINE:?}"
                )));
            }
            let timeout = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            };
            let mut ready = [PollFd::new(&self.sync, PollFlags::IN)];
            match poll(&mut ready, Some(&timeout)) {
                Ok(0) | Err(Errno::INTR) => continue,
                Ok(_) => {}
                Err(errno) => return Err(step("cannot wait for the process")(errno)),
            }
            match recv(&self.sync, &mut buffer, RecvFlags::DONTWAIT) {
                Ok((got, _)) => {
                    let said = buffer.get(..got).unwrap_or_default();
                    return Ok(String::from_utf8_lossy(said).into_owned());
                }
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(Errno::CONNRESET) => return Ok(String::new()),
                Err(errno) => return Err(step("cannot hear the process")(errno)),
            }
        }
    }
}

/// Makes the process of the launcher, and waits for its end: it leaves as soon as it has made the other.
fn execute(service: &Service<'_>, sync: &OwnedFd, words: OwnedFd) -> Result<(), ServiceError> {
    let high = |fd: BorrowedFd<'_>| {
        rustix::io::fcntl_dupfd_cloexec(fd, ABOVE).map_err(step("cannot duplicate a descriptor"))
    };
    let exe = high(service.launcher)?;
    let theirs = high(sync.as_fd())?;
    // By the numbers that follow: the launcher names them by those.
    if service.directories.len() > MAX_DIRECTORIES {
        return Err(ServiceError::words(
            "more directories than can be handed over",
        ));
    }
    let directories: Vec<OwnedFd> = service
        .directories
        .iter()
        .map(|directory| high(*directory))
        .collect::<Result<_, _>>()?;
    let handed: Vec<(i32, i32)> = std::iter::once(&theirs)
        .chain(&directories)
        .map(AsRawFd::as_raw_fd)
        .zip(SYNC_FD..)
        .collect();
    let second = words
        .try_clone()
        .map_err(step("cannot duplicate a descriptor"))?;
    let list = |of: Vec<String>| of.join(",");
    let mut command = Command::new(format!("/proc/self/fd/{}", exe.as_raw_fd()));
    command
        .arg0(LAUNCHER)
        .arg(service.uid.to_string())
        .arg(list(
            service.capabilities.iter().map(u32::to_string).collect(),
        ))
        .arg(list(service.tcp_ports.iter().map(u16::to_string).collect()))
        .arg((service.paths.len() + directories.len()).to_string());
    for (access, path) in service.paths {
        command.arg(access.word()).arg(path);
    }
    for (_, number) in handed.iter().skip(1) {
        let path = format!("/proc/self/fd/{number}");
        command.arg(Access::Read.word()).arg(path);
    }
    command
        .arg(service.path)
        .args(service.arguments)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(words)
        .stderr(second);
    let arrange = move || {
        handed.iter().try_for_each(|(own, number)| {
            sys::dup_to(*own, *number).map_err(|errno| io::Error::from_raw_os_error(errno.0))
        })
    };
    #[expect(unsafe_code, reason = "descriptors are handed over by number")]
    // SAFETY: between fork and exec this makes system calls alone and touches nothing that another thread could
    // hold locked.
    unsafe {
        command.pre_exec(arrange);
    }
    let mut child = command
        .spawn()
        .map_err(step("cannot execute the launcher"))?;
    // An embedder that ignores SIGCHLD has none to wait for.
    let _ = child.wait();
    Ok(())
}
