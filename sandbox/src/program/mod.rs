//! A foreign program that serves one domain, in a jail of its own, with one directory or with the host's network:
//! how it is started and ended.
//!
//! ```text
//! caller                launcher (our own static program)     the program, pid 1 of its namespace
//! ──────                ─────────────────────────────────     ────────────────────────────────────
//! fork, exec ─────────▶ moved to the cgroup
//!                       stands in the directory
//!                       new user, pid, mount, network, ... namespaces
//! maps uid and gid ───▶ takes them
//!                       forks ────────────────────────────▶ a root of its own: the directory, and
//!                                                           read-only what the program is loaded from
//!                                                           few capabilities, all of that namespace
//! returns ◀──────────────────────────────────────────────── exec
//!                       watches: kills the program once
//!                       nobody holds its words any more
//! ```
//!
//! The program is not ours and is linked with libraries of the host, so that the empty root of a worker
//! ([`crate::spawn()`]) is no place for it. What it prints goes to a pipe, whose reading end is its life as
//! well: when the last process that holds it is gone, the launcher kills the program. Whoever holds that end
//! for it, as a worker does, needs nobody to end it, and nobody needs to find it again.
//!
//! In its user namespace the program is root, and that root is one unprivileged user of the host: what it
//! makes belongs to that user, and it may do what that user may, in that directory.

mod inside;
mod mounts;

use std::ffi::OsString;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send};

use crate::spawn::Identity;
use crate::sys;

pub use self::inside::run_if_launcher;

/// What the launcher calls itself: how our program knows what it is started for.
const LAUNCHER: &str = "reeve-jail";
/// The launcher's way to its caller.
const SYNC_FD: i32 = 3;
/// The directory that is served.
const DIRECTORY_FD: i32 = 4;
/// What the program is handed, under this number.
pub const HANDED_FD: i32 = 5;
/// The address of the host's own server of names for a program that serves the network, where the host has it on its
/// loopback only (systemd-resolved, dnsmasq): there it is the last in the program's `/etc/resolv.conf`. Nobody's otherwise:
/// it is of a link alone (RFC 3927), as whoever else does the same for containers has it.
pub const OWN_RESOLVER: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// Where the directory is in the program's root.
pub const DIRECTORY: &str = "/share";
/// Above every number that is handed over.
const ABOVE: i32 = 64;
/// The word for a program that serves the network.
const NETWORK: &str = "network";
/// How long all of it may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// The most bytes of a failure in words.
const MAX_WORDS: usize = 512;

/// What to start, and with what.
#[derive(Debug)]
pub struct Program<'a> {
    /// Our own static program, which calls [`run_if_launcher`] first thing.
    pub launcher: BorrowedFd<'a>,
    /// The foreign program: an absolute path without `..`.
    pub path: &'a Path,
    /// Its arguments, without its name. Its environment is empty.
    pub arguments: &'a [OsString],
    /// What it serves.
    pub serves: Serves<'a>,
    /// Who its root is on the host.
    pub identity: Identity,
    /// The directory of a cgroup v2 to be in.
    pub cgroup: Option<&'a Path>,
    /// Handed over as [`HANDED_FD`].
    pub handed: BorrowedFd<'a>,
}

/// What a program has of the host beside what it is loaded from.
#[derive(Debug, Clone, Copy)]
pub enum Serves<'a> {
    /// A directory, as [`DIRECTORY`], and no network.
    Directory {
        /// Opened at least with `O_PATH`.
        directory: BorrowedFd<'a>,
        /// Whether it can only read there.
        read_only: bool,
    },
    /// The network of its caller, over which it has no power, and the servers of names, with [`OWN_RESOLVER`]; no directory,
    /// and an empty place at `/tmp` for a root of its own.
    Network,
}

impl Serves<'_> {
    /// The word for the launcher.
    const fn word(&self) -> &'static str {
        match self {
            Self::Directory {
                read_only: true, ..
            } => "ro",
            Self::Directory { .. } => "rw",
            Self::Network => NETWORK,
        }
    }
}

/// Why there is no such process. Nothing is left of it.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// The request itself.
    #[error("{0}")]
    Invalid(&'static str),
    /// A step on this side.
    #[error("{what}: {source}")]
    Step {
        /// Which.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A step on the other side, in words.
    #[error("{0}")]
    Jail(String),
    /// It took too long.
    #[error("it is not ready after {DEADLINE:?}")]
    Slow,
}

fn step(what: &'static str) -> impl Fn(Errno) -> ProgramError {
    move |errno| ProgramError::Step {
        what,
        source: errno.into(),
    }
}

/// Starts the program and waits until it has been executed, some ten milliseconds. Gives the reading end
/// of the pipe that it writes its words to, and lives by; it is close-on-exec and non-blocking.
///
/// # Errors
/// [`ProgramError`].
pub fn launch(program: &Program<'_>) -> Result<OwnedFd, ProgramError> {
    let identity = map(program.identity)?;
    let plain = |component| !matches!(component, std::path::Component::ParentDir);
    if !program.path.is_absolute() || !program.path.components().all(plain) {
        return Err(ProgramError::Invalid("its path must be absolute"));
    }
    let deadline = Instant::now() + DEADLINE;
    let (words, written) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(step("cannot make a pipe"))?;
    // Only our end: whoever writes must not lose a line for it.
    rustix::io::ioctl_fionbio(&words, true).map_err(step("cannot make a pipe"))?;
    let (sync, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(step("cannot make a socket"))?;
    let child = execute(program, &theirs, written)?;
    drop(theirs);
    let launcher = Launcher {
        child: Some(child),
        sync,
        deadline,
    };
    launcher.guide(program, identity)?;
    Ok(words)
}

/// The one uid and gid of the host that root is, and whether groups can be dropped.
#[derive(Debug, Clone, Copy)]
struct Map {
    uid: u32,
    gid: u32,
    privileged: bool,
}

fn map(identity: Identity) -> Result<Map, ProgramError> {
    let map = match identity {
        Identity::Block { uid, gid } => Map {
            uid,
            gid,
            privileged: true,
        },
        Identity::Caller => Map {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            privileged: false,
        },
    };
    match map.uid == 0 || map.gid == 0 {
        true => Err(ProgramError::Invalid(
            "its user and group must not be 0 on the host",
        )),
        false => Ok(map),
    }
}

/// Makes the process of the launcher.
fn execute(program: &Program<'_>, sync: &OwnedFd, words: OwnedFd) -> Result<Child, ProgramError> {
    let high = |fd: BorrowedFd<'_>| {
        rustix::io::fcntl_dupfd_cloexec(fd, ABOVE).map_err(step("cannot duplicate a descriptor"))
    };
    let exe = high(program.launcher)?;
    let directory = match program.serves {
        Serves::Directory { directory, .. } => directory,
        // Something has to be under the number; it is closed.
        Serves::Network => program.handed,
    };
    let handed = [
        (high(sync.as_fd())?, SYNC_FD),
        (high(directory)?, DIRECTORY_FD),
        (high(program.handed)?, HANDED_FD),
    ];
    let numbers = [0, 1, 2].map(|at: usize| {
        let (fd, target): &(OwnedFd, i32) = &handed[at];
        (fd.as_raw_fd(), *target)
    });
    let second = words.try_clone().map_err(|source| ProgramError::Step {
        what: "cannot duplicate a descriptor",
        source,
    })?;
    let mut command = Command::new(format!("/proc/self/fd/{}", exe.as_raw_fd()));
    command
        .arg0(LAUNCHER)
        .arg(program.serves.word())
        .arg(match program.identity {
            Identity::Block { .. } => "block",
            Identity::Caller => "caller",
        })
        .arg(program.path)
        .args(program.arguments)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(words)
        .stderr(second);
    let arrange = move || {
        for (fd, target) in numbers {
            sys::dup_to(fd, target).map_err(|errno| io::Error::from_raw_os_error(errno.0))?;
        }
        Ok(())
    };
    #[expect(unsafe_code, reason = "descriptors are handed over by number")]
    // SAFETY: between fork and exec this makes three system calls and touches nothing that another
    // thread could hold locked.
    unsafe {
        command.pre_exec(arrange);
    }
    let spawned = command.spawn();
    drop(handed);
    spawned.map_err(|source| ProgramError::Step {
        what: "cannot execute the launcher",
        source,
    })
}

/// A launcher on its way; killed where it does not come to its end.
struct Launcher {
    child: Option<Child>,
    sync: OwnedFd,
    deadline: Instant,
}

impl Launcher {
    fn guide(mut self, program: &Program<'_>, map: Map) -> Result<(), ProgramError> {
        let pid = self.child.as_ref().map_or(0, Child::id);
        if let Some(cgroup) = program.cgroup {
            let procs = cgroup.join("cgroup.procs");
            write(&procs, &pid.to_string(), "cannot enter the cgroup")?;
        }
        self.tell()?;
        if let Some(words) = self.hear()? {
            return Err(ProgramError::Jail(words));
        }
        let file = |name: &str| Path::new("/proc").join(pid.to_string()).join(name);
        let Map { uid, gid, .. } = map;
        if !map.privileged {
            write(&file("setgroups"), "deny", "cannot deny setgroups")?;
        }
        write(
            &file("gid_map"),
            &format!("0 {gid} 1"),
            "cannot map its group",
        )?;
        write(
            &file("uid_map"),
            &format!("0 {uid} 1"),
            "cannot map its user",
        )?;
        self.tell()?;
        // The end of the socket is that of the way: closed as the program is executed.
        match self.hear() {
            Ok(Some(words)) => Err(ProgramError::Jail(words)),
            Ok(None) => Err(ProgramError::Jail("the launcher says too much".to_owned())),
            Err(ProgramError::Jail(_)) => {
                self.watch();
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn tell(&self) -> Result<(), ProgramError> {
        send(&self.sync, b"+", SendFlags::NOSIGNAL)
            .map(drop)
            .map_err(step("cannot tell the launcher"))
    }

    /// What the launcher says: nothing but that it is there, or what failed. Its end is
    /// [`ProgramError::Jail`].
    fn hear(&self) -> Result<Option<String>, ProgramError> {
        let mut buffer = [0; MAX_WORDS];
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ProgramError::Slow);
            }
            let timeout = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            };
            let mut ready = [PollFd::new(&self.sync, PollFlags::IN)];
            match poll(&mut ready, Some(&timeout)) {
                Ok(0) | Err(Errno::INTR) => continue,
                Ok(_) => {}
                Err(errno) => return Err(step("cannot wait for the launcher")(errno)),
            }
            let got = match recv(&self.sync, &mut buffer, RecvFlags::DONTWAIT) {
                Ok((got, _)) => got,
                Err(Errno::AGAIN | Errno::INTR) => continue,
                Err(Errno::CONNRESET) => 0,
                Err(errno) => return Err(step("cannot hear the launcher")(errno)),
            };
            return match buffer.get(..got) {
                None | Some([]) => Err(ProgramError::Jail("the launcher died".to_owned())),
                Some(b"+") => Ok(None),
                Some(words) => Ok(Some(String::from_utf8_lossy(words).into_owned())),
            };
        }
    }

    /// Reaps the launcher when it ends, by itself.
    fn watch(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        let reaper = std::thread::Builder::new()
            .name("reaper".to_owned())
            .stack_size(64 << 10)
            .spawn(move || {
                // An embedder that ignores SIGCHLD has none to wait for.
                let _ = child.wait();
            });
        if let Err(error) = reaper {
            // It stays a zombie until this process ends.
            let _ = error;
        }
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn write(path: &Path, text: &str, what: &'static str) -> Result<(), ProgramError> {
    let written = std::fs::File::options()
        .write(true)
        .open(path)
        .and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes()));
    written.map_err(|source| ProgramError::Step { what, source })
}

/// A path or an argument as the kernel takes it.
fn c_string(text: &std::ffi::OsStr) -> io::Result<std::ffi::CString> {
    std::ffi::CString::new(text.as_bytes()).map_err(io::Error::other)
}
