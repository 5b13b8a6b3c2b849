//! The thread that starts gateways, one after another.
//!
//! A [`SpawnThread`], which lives as long as the front door: a gateway is killed by the kernel when it ends, so that
//! the death of the supervisor ends them all, whatever they do.
//!
//! Where memory is short the kernel kills a gateway before anything else (proc(5), `oom_score_adj`): it costs one
//! client its connection. All of them are in one cgroup ([`Bound`]).

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use reeve_ipc::changes::ChangeCount;
use reeve_ipc::gateway::{CHANGES_FD, CONTROL_FD, NAME};
use reeve_ipc::scm::{self, ScmError};
use reeve_sandbox::{Child, Command, FIRST_FD, OnParentDeath, Resource, Rlimit};
use rustix::process::Pid;
use tokio::sync::oneshot;

use super::bound::Bound;
use crate::host::identity::{Identities, Identity, IdentityError, Level};
use crate::host::program::Program;
use crate::host::spawn_thread::SpawnThread;

// The sandbox keeps the numbers below for itself.
const _: () = assert!(CONTROL_FD >= FIRST_FD && CHANGES_FD > CONTROL_FD);

/// The thread's name. A process that it makes is called so until it executes its program.
const THREAD: &str = "gateways";
/// The most memory of its own that a gateway may have: some of the protocol's largest messages, 32 MiB each.
pub(super) const MEMORY_BYTES: u64 = 256 << 20;
/// What the kernel kills first, whatever it uses (proc(5), `oom_score_adj`).
const FIRST_VICTIM: &str = "1000";
/// How long a process may take to be its own, and how often is looked.
const OWN_MEMORY: Duration = Duration::from_millis(20);
const LOOK: Duration = Duration::from_micros(100);

/// What a gateway may use of the host.
const RLIMITS: &[Rlimit] = &[
    Rlimit {
        resource: Resource::Core,
        value: 0,
    },
    Rlimit {
        resource: Resource::Descriptors,
        value: 256,
    },
    Rlimit {
        resource: Resource::MessageQueues,
        value: 0,
    },
    Rlimit {
        resource: Resource::Memory,
        value: MEMORY_BYTES,
    },
];

/// Why there is no process.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    /// No uid.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// No socket for it.
    #[error(transparent)]
    Socket(#[from] ScmError),
    /// No descriptor for it.
    #[error("no descriptor: {0}")]
    Descriptor(#[source] io::Error),
    /// No jail.
    #[error("cannot confine it: {error}{}", .error.remedy().map(|remedy| format!("; {remedy}")).unwrap_or_default())]
    Sandbox {
        /// Which step failed.
        error: reeve_sandbox::SpawnError,
    },
    /// The thread is gone.
    #[error("the thread that starts them is gone; restart the supervisor")]
    Gone,
}

/// A process that was started, for whoever keeps it.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) child: Child,
    pub(super) identity: Identity,
    /// Our end of the socket to it.
    pub(super) control: OwnedFd,
}

pub(super) type Starting = oneshot::Receiver<Result<Started, StartError>>;
type Reply = oneshot::Sender<Result<Started, StartError>>;

/// The way to the thread. Dropping it ends the thread, and with it every process that it made.
#[derive(Debug)]
pub(super) struct Spawner {
    thread: SpawnThread<Reply>,
}

impl Spawner {
    pub(super) fn start(
        program: Program,
        identities: Identities,
        mut bound: Bound,
        changes: Arc<ChangeCount>,
    ) -> io::Result<Self> {
        let serve = move |reply: Reply, null: &OwnedFd| {
            bound.keep();
            // Where nobody waits any more the door is closed: this thread ends next, and the process with it.
            let _ = reply.send(execute(&program, null, &identities, &bound, &changes));
        };
        // The pool asks for one at a time.
        let thread = SpawnThread::start(THREAD, 1, serve)?;
        Ok(Self { thread })
    }

    /// Asks for a process.
    pub(super) fn spawn(&self) -> Result<Starting, StartError> {
        let (reply, starting) = oneshot::channel();
        match self.thread.order(reply) {
            Ok(()) => Ok(starting),
            Err(_) => Err(StartError::Gone),
        }
    }
}

fn execute(
    program: &Program,
    null: &OwnedFd,
    identities: &Identities,
    bound: &Bound,
    changes: &ChangeCount,
) -> Result<Started, StartError> {
    let identity = identities.claim()?;
    let who = match identity.level {
        Level::System => reeve_sandbox::Identity::Block {
            uid: identity.uid,
            gid: identity.gid,
        },
        Level::User => reeve_sandbox::Identity::Caller,
    };
    let (control, theirs) = scm::pair()?;
    let changes = changes.file().try_clone_to_owned();
    let changes = changes.map_err(StartError::Descriptor)?;
    scm::refuse_rights(control.as_fd());
    let child = reeve_sandbox::spawn(Command {
        exe: program.as_fd(),
        argv: &[NAME],
        null: null.as_fd(),
        fds: vec![(theirs, CONTROL_FD), (changes, CHANGES_FD)],
        identity: who,
        rlimits: RLIMITS,
        memory_policy: None,
        cgroup: bound.directory(),
        on_parent_death: OnParentDeath::Die,
    });
    let child = child.map_err(|error| StartError::Sandbox { error })?;
    if let Err(error) = make_first_victim(child.pid) {
        let gateway = child.pid.as_raw_nonzero();
        tracing::debug!(gateway, "the kernel is not told to kill it first: {error}");
    }
    Ok(Started {
        child,
        identity,
        control,
    })
}

/// Has the kernel kill the process before any other where memory is short.
///
/// What is said of a process is said of every other that has the same memory, and until it executes its program
/// that is the supervisor: so its name is looked at, which comes with the program and after its memory.
fn make_first_victim(pid: Pid) -> io::Result<()> {
    let directory = format!("/proc/{}", pid.as_raw_nonzero());
    let mut left = OWN_MEMORY.as_micros() / LOOK.as_micros();
    while fs::read_to_string(format!("{directory}/comm"))?.trim_end() == THREAD {
        left = left.checked_sub(1).ok_or(io::ErrorKind::TimedOut)?;
        std::thread::sleep(LOOK);
    }
    fs::write(format!("{directory}/oom_score_adj"), FIRST_VICTIM)
}
