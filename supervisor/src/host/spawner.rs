//! The one thread that executes workers, and the only file that calls the sandbox's stage A.
//!
//! The thread is a [`SpawnThread`], which lives as long as the process; the caller of a spawn is suspended until
//! the child has executed.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::TrySendError;
use std::time::Duration;

use reeve_ipc::error::truncate;
use reeve_ipc::model::DomainName;
use reeve_ipc::spec::ControlLoss;
use reeve_ipc::{CONTROL_FD, LOG_FD};
use reeve_sandbox::{Command, FIRST_FD, MemoryPolicy, OnParentDeath, Resource, Rlimit};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, WaitId, WaitIdOptions};
use tokio::sync::oneshot;

use super::holdings::{Holdings, HoldingsOfAnother, SharedHoldings};
use super::identity::Level;
use super::spawn_thread::SpawnThread;
use super::worker_binary::WorkerBinary;
use crate::domain::worker::ExitStatus;

// The sandbox keeps the numbers below for itself.
const _: () = assert!(CONTROL_FD >= FIRST_FD && LOG_FD > CONTROL_FD);

/// Spawns that may wait for the thread.
const QUEUE: usize = 64;
/// How soon to try again where as many wait already.
const AGAIN: Duration = Duration::from_millis(5);
/// The most bytes of a domain's name that `ps` shows.
const MAX_SHOWN_NAME_BYTES: usize = 64;

/// How long a process that nobody watches any more may take to go; then the kernel reaps it later.
const LAST_WAIT: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

/// What a worker may use of the host beyond what cgroups bound. Processes are not limited here: the
/// kernel counts them by uid, and a rootless worker shares the caller's.
const RLIMITS: &[Rlimit] = &[
    Rlimit {
        resource: Resource::Core,
        value: 0,
    },
    Rlimit {
        resource: Resource::Descriptors,
        value: 4096,
    },
    Rlimit {
        resource: Resource::MessageQueues,
        value: 0,
    },
];

/// Why there is no process.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The sandbox could not be built, with what mends it where that is known.
    #[error("cannot confine the worker: {error}{}", .remedy.as_ref().map(|remedy| format!("; {remedy}")).unwrap_or_default())]
    Sandbox {
        /// Which step failed.
        error: reeve_sandbox::SpawnError,
        /// What to do.
        remedy: Option<String>,
    },
    /// More starts wait than the thread can take.
    #[error("{QUEUE} domains are being started already; try again")]
    Busy,
    /// The thread is gone, which ends every start.
    #[error("the spawning thread is gone; restart the supervisor")]
    Gone,
}

impl SpawnError {
    fn sandbox(error: reeve_sandbox::SpawnError) -> Self {
        let remedy = error.remedy();
        Self::Sandbox { error, remedy }
    }
}

/// What one worker is spawned with.
#[derive(Debug)]
pub(crate) struct Order {
    /// The domain, as `ps` shows it.
    pub(crate) name: DomainName,
    /// The worker's end of the control socket.
    pub(crate) control: OwnedFd,
    /// The worker's end of the log socket.
    pub(crate) log: OwnedFd,
    /// Whether it lives without its supervisor.
    pub(crate) on_control_loss: ControlLoss,
    /// The nodes of the host that its memory is on, and that of its guest.
    pub(crate) memory_policy: Option<MemoryPolicy>,
    /// Its uid and gid, the cgroup it is born in, and what else is released after it.
    pub(crate) holdings: SharedHoldings,
}

/// A process that executes the worker, jailed, and what it holds of the host. Dropping it kills and
/// reaps the process, if nobody did, and then releases what it held; unless it is to live on, in which
/// case all of that is left to a later supervisor.
#[derive(Debug)]
pub(crate) struct Child {
    /// Its pid.
    pub(crate) pid: u32,
    /// Its pidfd.
    pub(crate) pidfd: Arc<OwnedFd>,
    /// Whether it lives on when this is dropped.
    pub(crate) kept: Arc<AtomicBool>,
    reaped: bool,
    holdings: SharedHoldings,
}

impl Child {
    /// A process that an earlier supervisor made, to be left alone when this is dropped.
    pub(crate) fn adopt(pid: u32, pidfd: OwnedFd, holdings: Holdings) -> Self {
        Self {
            pid,
            pidfd: Arc::new(pidfd),
            kept: Arc::new(AtomicBool::new(true)),
            reaped: false,
            holdings: SharedHoldings::new(holdings),
        }
    }

    /// What it holds.
    pub(crate) fn holdings(&self) -> HoldingsOfAnother {
        self.holdings.downgrade()
    }

    /// Whether its release may have to wait.
    pub(crate) fn takes_time(&self) -> bool {
        self.holdings.held().takes_time()
    }

    /// Takes the exit status of a process whose pidfd is readable.
    pub(crate) fn reap(&mut self) -> ExitStatus {
        let id = WaitId::PidFd(self.pidfd.as_fd());
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        match rustix::io::retry_on_intr(|| rustix::process::waitid(id.clone(), options)) {
            Ok(None) => ExitStatus::Unknown,
            Ok(Some(status)) => {
                self.reaped = true;
                match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => ExitStatus::Exited(code),
                    (None, Some(signal)) => ExitStatus::Signaled(signal),
                    (None, None) => ExitStatus::Unknown,
                }
            }
            // Somebody else reaps it: an embedder that ignores SIGCHLD, or whoever inherited it
            // from an earlier supervisor.
            Err(_) => {
                self.reaped = true;
                ExitStatus::Unknown
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        if self.kept.load(Ordering::Relaxed) {
            self.holdings.held().leave();
            return;
        }
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
        let mut gone = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let _ = rustix::io::retry_on_intr(|| poll(&mut gone, Some(&LAST_WAIT)));
        self.reap();
    }
}

type Reply = oneshot::Sender<Result<Child, SpawnError>>;

/// What the thread is told, and does in turn.
#[derive(Debug)]
enum Told {
    /// Make a process. Boxed: it is larger than the other by far.
    Spawn(Box<Order>, Reply),
    /// Say that everything before is done.
    Settle(oneshot::Sender<()>),
}

/// The way to the spawning thread. Dropping it waits for a process that is being made, so that a
/// start which nobody waits for any more is undone before this process can end.
#[derive(Debug)]
pub(crate) struct Spawner {
    thread: SpawnThread<Told>,
}

impl Spawner {
    /// Starts the thread; it ends when this is dropped, and with it the workers it made, but for those
    /// that live without their supervisor.
    pub(crate) fn start(binary: WorkerBinary) -> io::Result<Self> {
        let serve = move |told, null: &OwnedFd| serve(&binary, null, told);
        let thread = SpawnThread::start("spawner", QUEUE, serve)?;
        Ok(Self { thread })
    }

    /// Spawns one worker and waits until it has executed. When the future is dropped before that,
    /// the process is killed and reaped.
    pub(crate) async fn spawn(&self, order: Order) -> Result<Child, SpawnError> {
        let (reply, child) = oneshot::channel();
        self.thread
            .order(Told::Spawn(Box::new(order), reply))
            .map_err(|error| match error {
                TrySendError::Full(_) => SpawnError::Busy,
                TrySendError::Disconnected(_) => SpawnError::Gone,
            })?;
        child.await.map_err(|_| SpawnError::Gone)?
    }

    /// Waits until every process whose spawn was given up before is gone, and what it held released.
    pub(crate) async fn settled(&self) {
        loop {
            let (reply, done) = oneshot::channel();
            match self.thread.order(Told::Settle(reply)) {
                Ok(()) => return done.await.unwrap_or_default(),
                Err(TrySendError::Full(_)) => tokio::time::sleep(AGAIN).await,
                Err(TrySendError::Disconnected(_)) => return,
            }
        }
    }
}

fn serve(binary: &WorkerBinary, null: &OwnedFd, told: Told) {
    match told {
        Told::Spawn(_, reply) if reply.is_closed() => {}
        Told::Spawn(order, reply) => {
            // Where whoever asked has gone, the child is dropped, and with it the process.
            let _ = reply.send(execute(binary, null, *order));
        }
        Told::Settle(reply) => {
            let _ = reply.send(());
        }
    }
}

fn execute(binary: &WorkerBinary, null: &OwnedFd, order: Order) -> Result<Child, SpawnError> {
    let argv0 = c"reeve-worker";
    let argv1 = shown_name(&order.name);
    let holdings = order.holdings.held();
    let identity = match holdings.identity.level {
        Level::System => reeve_sandbox::Identity::Block {
            uid: holdings.identity.uid,
            gid: holdings.identity.gid,
        },
        Level::User => reeve_sandbox::Identity::Caller,
    };
    let child = reeve_sandbox::spawn(Command {
        exe: binary.as_fd(),
        argv: &[argv0, &argv1],
        null: null.as_fd(),
        fds: vec![(order.control, CONTROL_FD), (order.log, LOG_FD)],
        identity,
        rlimits: RLIMITS,
        memory_policy: order.memory_policy,
        cgroup: holdings.confinement.directory(),
        on_parent_death: match order.on_control_loss {
            ControlLoss::KeepRunning => OnParentDeath::Live,
            ControlLoss::Stop => OnParentDeath::Die,
        },
    })
    .map_err(SpawnError::sandbox)?;
    drop(holdings);
    Ok(Child {
        pid: child.pid.as_raw_nonzero().get().unsigned_abs(),
        pidfd: Arc::new(child.pidfd),
        kept: Arc::new(AtomicBool::new(false)),
        reaped: false,
        holdings: order.holdings,
    })
}

/// The name as an argument: cut, and without the NUL that a name never has.
fn shown_name(name: &DomainName) -> CString {
    let mut text = name.as_str().to_owned();
    truncate(&mut text, MAX_SHOWN_NAME_BYTES);
    CString::new(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_cut_for_ps_between_two_characters() {
        let name: DomainName = format!("a{}", "ü".repeat(100)).parse().unwrap();
        let shown = shown_name(&name);
        assert_eq!(shown.as_bytes().len(), 63);
        assert!(std::str::from_utf8(shown.as_bytes()).is_ok());
    }
}
