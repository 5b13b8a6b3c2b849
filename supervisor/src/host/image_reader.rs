//! Starts the process that reads the header of one image, and hears its answer.
//!
//! The supervisor never reads an image: whoever wrote it may have written it for whatever reads it. The
//! process is the worker's program in a mode of its own (`vmm-worker/src/image_reader.rs`), in the jail of a
//! worker, with a uid of its own and one descriptor that it can read. It answers once, within
//! [`DEADLINE`], or is killed.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use reeve_ipc::codec;
use reeve_ipc::image::{ANSWER_FD, BackingNote, IMAGE_FD, ImageAnswer, READER};
use reeve_sandbox::{Child, Command, OnParentDeath, Resource, Rlimit, spawn};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socketpair};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use super::identity::{Identities, Identity, Level};
use super::reason;
use crate::domain::plan::{BackingReader, ReadError};

/// How long a reader may take, from its start to its answer.
pub const DEADLINE: Duration = Duration::from_secs(5);
/// How long one that was killed is waited for here; one whose file system does not let it go is waited for
/// elsewhere.
const LAST_WAIT: Duration = Duration::from_millis(500);
/// The most bytes of an answer that is looked at; more is none.
const MAX_ANSWER: usize = 2048;

/// It writes no file, and opens nothing.
const RLIMITS: &[Rlimit] = &[
    Rlimit {
        resource: Resource::Core,
        value: 0,
    },
    Rlimit {
        resource: Resource::FileSize,
        value: 0,
    },
    Rlimit {
        resource: Resource::Descriptors,
        value: 64,
    },
    Rlimit {
        resource: Resource::MessageQueues,
        value: 0,
    },
];

/// Starts readers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ImageReader {
    program: Arc<OwnedFd>,
    identities: Identities,
}

impl ImageReader {
    /// With the executable of the worker, and where its processes' uids come from.
    pub(crate) fn new(program: OwnedFd, identities: Identities) -> Self {
        Self {
            program: Arc::new(program),
            identities,
        }
    }

    fn start(&self, image: OwnedFd) -> Result<Reader, ReadError> {
        let identity = self.identities.claim();
        let identity = identity.map_err(|error| process("its uid", &error))?;
        let who = match identity.level {
            Level::System => reeve_sandbox::Identity::Block {
                uid: identity.uid,
                gid: identity.gid,
            },
            Level::User => reeve_sandbox::Identity::Caller,
        };
        let os = |what| move |errno: Errno| process(what, &reason(errno));
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let null = rustix::fs::open("/dev/null", flags, Mode::empty()).map_err(os("/dev/null"))?;
        let kind = SocketType::SEQPACKET;
        let (answer, theirs) = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
            .map_err(os("its socket"))?;
        let child = spawn(Command {
            exe: self.program.as_fd(),
            argv: &[READER],
            null: null.as_fd(),
            fds: vec![(image, IMAGE_FD), (theirs, ANSWER_FD)],
            identity: who,
            rlimits: RLIMITS,
            memory_policy: None,
            cgroup: None,
            on_parent_death: OnParentDeath::Die,
        });
        let child = child.map_err(|error| process("its sandbox", &error))?;
        Ok(Reader {
            _process: Process::new(child, identity),
            answer,
        })
    }
}

impl BackingReader for ImageReader {
    fn backing(&self, image: BorrowedFd<'_>) -> Result<Option<BackingNote>, ReadError> {
        let deadline = Instant::now() + DEADLINE;
        let image = read_only(image);
        let image = image.map_err(|errno| process("the image again", &reason(errno)))?;
        let reader = self.start(image)?;
        match reader.hear(deadline)? {
            ImageAnswer::Backing(note) => Ok(note),
            ImageAnswer::Unreadable(words) => Err(ReadError::Image(one_line(&words))),
            ImageAnswer::Failed(words) => Err(process("its sandbox", &one_line(&words))),
        }
    }
}

/// The same file in an open description of its own, which can only be read: whoever has it can neither write
/// nor touch the locks of the other. Through the page cache, as a header is no whole block.
pub(super) fn read_only(image: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let itself = format!("/proc/self/fd/{}", image.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    rustix::fs::open(itself, flags, Mode::empty())
}

fn process(what: &str, error: &dyn std::fmt::Display) -> ReadError {
    ReadError::Process(format!(
        "cannot start the process that reads its header: {what}: {error}"
    ))
}

pub(super) fn one_line(words: &str) -> String {
    words.escape_debug().collect()
}

/// A process that reads.
#[derive(Debug)]
struct Reader {
    /// Goes with it.
    _process: Process,
    answer: OwnedFd,
}

/// A jailed process of this supervisor's. Killed, if it has not ended, and reaped when it is dropped; its uid is
/// free then.
#[derive(Debug)]
pub(super) struct Process(Option<(Child, Identity)>);

impl Process {
    /// One that a test plays itself.
    #[cfg(test)]
    pub(super) const fn played() -> Self {
        Self(None)
    }

    pub(super) const fn new(child: Child, identity: Identity) -> Self {
        Self(Some((child, identity)))
    }
}

impl Reader {
    /// Waits for the answer.
    fn hear(&self, deadline: Instant) -> Result<ImageAnswer, ReadError> {
        let said =
            |why: &str| ReadError::Process(format!("the process that reads its header {why}"));
        let heard = wait(self.answer.as_fd(), deadline);
        if !heard.map_err(|errno| said(&format!("cannot be heard: {}", reason(errno))))? {
            return Err(ReadError::Slow(DEADLINE.as_secs()));
        }
        let mut bytes = [0; MAX_ANSWER];
        let received = rustix::io::retry_on_intr(|| {
            recv(
                &self.answer,
                &mut bytes,
                RecvFlags::DONTWAIT | RecvFlags::TRUNC,
            )
        });
        let (_, length) = received.map_err(|_| said("died"))?;
        let Some(bytes) = bytes.get(..length).filter(|bytes| !bytes.is_empty()) else {
            return Err(said("died, or said more than it may"));
        };
        codec::decode::<ImageAnswer>(bytes)
            .ok()
            .filter(ImageAnswer::is_bounded)
            .ok_or_else(|| said("said what it should not"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let Some((child, identity)) = self.0.take() else {
            return;
        };
        // Most often it is gone already.
        let _ = pidfd_send_signal(&child.pidfd, Signal::KILL);
        let _ = wait(child.pidfd.as_fd(), Instant::now() + LAST_WAIT);
        if reap(&child, WaitIdOptions::NOHANG) {
            return;
        }
        // One that waits for a file system goes when that answers; so long its uid is nobody else's.
        let reaper = std::thread::Builder::new()
            .name("reaper".to_owned())
            .stack_size(64 << 10)
            .spawn(move || {
                reap(&child, WaitIdOptions::empty());
                drop(identity);
            });
        if let Err(error) = reaper {
            tracing::warn!(%error, "a process that reads an image cannot be waited for");
        }
    }
}

/// Whether it is gone, after such a wait.
fn reap(child: &Child, how: WaitIdOptions) -> bool {
    let id = || WaitId::PidFd(child.pidfd.as_fd());
    let waited = rustix::io::retry_on_intr(|| waitid(id(), WaitIdOptions::EXITED | how));
    // An embedder that ignores SIGCHLD has none to wait for.
    !matches!(waited, Ok(None))
}

/// Whether there is something to read before `deadline`.
pub(super) fn wait(from: BorrowedFd<'_>, deadline: Instant) -> Result<bool, Errno> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut ready = [PollFd::from_borrowed_fd(from, PollFlags::IN)];
        match poll(&mut ready, Some(&timeout)) {
            Ok(0) if left.is_zero() => return Ok(false),
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(errno) => return Err(errno),
        }
    }
}

/// Whether `ended` was closed at the other end, once that is so or there is something to read from `other`.
pub(crate) fn first_of(other: BorrowedFd<'_>, ended: BorrowedFd<'_>) -> Result<bool, Errno> {
    let mut both = [
        PollFd::from_borrowed_fd(other, PollFlags::IN),
        PollFd::from_borrowed_fd(ended, PollFlags::IN),
    ];
    rustix::io::retry_on_intr(|| poll(&mut both, None))?;
    let [_, ended] = both;
    Ok(!ended.revents().is_empty())
}

#[cfg(test)]
mod tests;
