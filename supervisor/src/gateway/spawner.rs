//! The thread that starts gateways, one after another.
//!
//! A gateway is killed by the kernel when the thread that made it ends (prctl(2), `PR_SET_PDEATHSIG`): so one
//! thread makes them all and lives as long as the front door, and the death of the supervisor ends them
//! whatever they do. It also keeps the runtime free, as a start blocks for about a millisecond.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};

use reeve_ipc::gateway::{CONTROL_FD, NAME};
use reeve_ipc::scm::{self, ScmError};
use reeve_sandbox::{Child, Command, FIRST_FD, OnParentDeath, Resource, Rlimit};
use rustix::fs::{Mode, OFlags};
use tokio::sync::oneshot;

use crate::host::identity::{Identities, Identity, IdentityError, Level};
use crate::host::program::Program;

// The sandbox keeps the numbers below for itself.
const _: () = assert!(CONTROL_FD >= FIRST_FD);

/// The thread's stack: stage A runs the child on a stack of its own.
const STACK_BYTES: usize = 128 << 10;
/// The most memory of its own that a gateway may have: some of the protocol's largest messages, 32 MiB each.
const MEMORY_BYTES: u64 = 256 << 20;

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
    /// `None` while it is dropped only.
    orders: Option<SyncSender<Reply>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Spawner {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // One that panicked has nothing left to undo.
            let _ = thread.join();
        }
    }
}

impl Spawner {
    pub(super) fn start(program: Program, identities: Identities) -> io::Result<Self> {
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        // The pool asks for one at a time.
        let (orders, queue) = sync_channel(1);
        let thread = thread::Builder::new()
            .name("gateways".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || serve(&program, &null, &identities, &queue))?;
        Ok(Self {
            orders: Some(orders),
            thread: Some(thread),
        })
    }

    /// Asks for a process.
    pub(super) fn spawn(&self) -> Result<Starting, StartError> {
        let (reply, starting) = oneshot::channel();
        let orders = self.orders.as_ref().ok_or(StartError::Gone)?;
        match orders.try_send(reply) {
            Ok(()) => Ok(starting),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Err(StartError::Gone),
        }
    }
}

fn serve(program: &Program, null: &OwnedFd, identities: &Identities, queue: &Receiver<Reply>) {
    while let Ok(reply) = queue.recv() {
        if let Err(Ok(unwanted)) = reply.send(execute(program, null, identities)) {
            // The door is closed: this thread ends next, and the process with it.
            drop(unwanted);
        }
    }
}

fn execute(
    program: &Program,
    null: &OwnedFd,
    identities: &Identities,
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
    scm::refuse_rights(control.as_fd());
    let child = reeve_sandbox::spawn(Command {
        exe: program.as_fd(),
        argv: &[NAME],
        null: null.as_fd(),
        fds: vec![(theirs, CONTROL_FD)],
        identity: who,
        rlimits: RLIMITS,
        cgroup: None,
        on_parent_death: OnParentDeath::Die,
    });
    Ok(Started {
        child: child.map_err(|error| StartError::Sandbox { error })?,
        identity,
        control,
    })
}
