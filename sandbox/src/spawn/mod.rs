//! Stage A: a process in fresh namespaces, with nothing but what it was handed.
//!
//! ```text
//! spawning thread      child (becomes the worker)         helper
//! ───────────────      ──────────────────────────         ──────
//! clone3 ────────────▶ new user + pid namespace
//! maps uid and gid     clones the helper ───────────────▶ unshare(NEWNET)        ~0.6 ms
//!   (host's /proc)     unshare: mount, IPC, UTS, cgroup     in the child's user namespace
//! waits                empty root, pivot, detach            ...
//!                      takes its uid, capabilities          ...
//!                      descriptors, limits, exec ◀──┐       ...
//! returns ◀─────────── (memory released)            │     sends the namespace
//!                      worker: stage B joins it ◀───┴──── and exits
//! ```
//!
//! The child is cloned with `CLONE_VM`: it runs on its own stack in the caller's memory until exec, as
//! after vfork but without stopping the caller, so its cost does not grow with the supervisor.
//! Making a network namespace costs as much as all else together, so a helper does it on another core and
//! the worker joins it in stage B, which fails if it cannot: the order differs from the plain one, the
//! result does not. The helper shares the supervisor's memory; the worker reaps it before it reads a
//! byte that is not ours.
//!
//! A root supervisor becomes non-dumpable by its first spawn (the kernel does so when a process that
//! shares its memory changes uid).

mod child;
mod error;
mod stack;
#[cfg(test)]
mod tests;

use std::ffi::{CStr, c_char};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use rustix::thread::futex;

use child::{HelperPlan, Plan};
pub use error::{SpawnError, Step};
use stack::{Shared, Stacks};

use crate::sys::{self, CloneArgs};

/// The descriptor through which stage A hands the network namespace to stage B. Not to be used by
/// anyone else, and closed by stage B.
pub const JAIL_FD: i32 = 3;

/// The first number a descriptor may be handed over as.
pub const FIRST_FD: i32 = JAIL_FD + 1;

/// The last number a descriptor may be handed over as.
pub const LAST_FD: i32 = 1023;

/// Who the process is. Either way it is one user and one group, mapped to themselves, in a user
/// namespace that knows no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// A uid and gid that belong to this domain alone; neither is 0. Needs a privileged caller.
    Block {
        /// The host's uid.
        uid: u32,
        /// The host's gid.
        gid: u32,
    },
    /// The caller's own effective uid and gid, neither of them 0. Supplementary groups cannot be dropped without
    /// privilege and stay.
    Caller,
}

/// What the death of the thread that spawned means for the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnParentDeath {
    /// It lives on: the daemon's domains survive their supervisor.
    Live,
    /// It is killed: `reeve run`. The spawning *thread* must live as long as the process shall.
    /// A parent that dies in the instant before this is set is not noticed; its closed sockets are.
    Die,
}

/// A resource whose use is limited (getrlimit(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Open descriptors: numbers below this.
    Descriptors,
    /// Size of a core dump in bytes.
    Core,
    /// Locked memory in bytes.
    LockedMemory,
    /// Processes and threads of the uid.
    Processes,
    /// Size of a file written, in bytes.
    FileSize,
    /// Bytes in POSIX message queues.
    MessageQueues,
}

impl Resource {
    fn number(self) -> u32 {
        match self {
            Self::Descriptors => libc::RLIMIT_NOFILE,
            Self::Core => libc::RLIMIT_CORE,
            Self::LockedMemory => libc::RLIMIT_MEMLOCK,
            Self::Processes => libc::RLIMIT_NPROC,
            Self::FileSize => libc::RLIMIT_FSIZE,
            Self::MessageQueues => libc::RLIMIT_MSGQUEUE,
        }
    }
}

/// A soft and hard limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rlimit {
    /// Of what.
    pub resource: Resource,
    /// In the resource's unit.
    pub value: u64,
}

/// What to start, and with what.
#[derive(Debug)]
pub struct Command<'a> {
    /// The program: a static binary, opened for reading or with `O_PATH`.
    pub exe: BorrowedFd<'a>,
    /// Its arguments, the name included. The environment is empty.
    pub argv: &'a [&'a CStr],
    /// Becomes descriptors 0, 1 and 2: `/dev/null`, open for reading and writing.
    pub null: BorrowedFd<'a>,
    /// Handed over under these numbers, [`FIRST_FD`] to [`LAST_FD`], none twice. Everything else is closed.
    pub fds: Vec<(OwnedFd, i32)>,
    /// Who it is.
    pub identity: Identity,
    /// Limits, set in this order.
    pub rlimits: &'a [Rlimit],
    /// A cgroup v2 directory to be born in.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// What the death of the calling thread means.
    pub on_parent_death: OnParentDeath,
}

/// A process that has executed its program. Dropping it neither kills nor reaps.
#[derive(Debug)]
pub struct Child {
    /// Its pid in the caller's namespace; 1 in its own.
    pub pid: Pid,
    /// Becomes readable when it dies; reap it with `waitid`.
    pub pidfd: OwnedFd,
}

/// Starts a process in a jail and waits until it has executed its program.
///
/// Blocks for some hundred microseconds. The calling thread's signals are blocked meanwhile.
///
/// # Errors
///
/// [`SpawnError`], which names the step. Nothing is left behind.
pub fn spawn(command: Command<'_>) -> Result<Child, SpawnError> {
    let stacks = validate(&command).and_then(|()| {
        Stacks::take().map_err(|errno| SpawnError::step(Step::Prepare, errno.raw_os_error()))
    })?;
    let result = spawn_on(
        &stacks,
        command,
        #[cfg(test)]
        None,
    );
    stacks.give_back();
    result
}

fn validate(command: &Command<'_>) -> Result<(), SpawnError> {
    let (uid, gid) = identity(command.identity);
    if uid == 0 || gid == 0 {
        return Err(SpawnError::Invalid("its user and group must not be 0"));
    }
    if command.argv.is_empty() {
        return Err(SpawnError::Invalid("its arguments must include its name"));
    }
    for (index, (_, target)) in command.fds.iter().enumerate() {
        if child::is_reserved(*target) || *target > LAST_FD {
            return Err(SpawnError::Invalid(
                "a descriptor's number is reserved or too high",
            ));
        }
        if command.fds[..index]
            .iter()
            .any(|(_, other)| other == target)
        {
            return Err(SpawnError::Invalid("two descriptors have one number"));
        }
    }
    Ok(())
}

fn identity(identity: Identity) -> (u32, u32) {
    match identity {
        Identity::Block { uid, gid } => (uid, gid),
        Identity::Caller => (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        ),
    }
}

fn spawn_on(
    stacks: &Stacks,
    command: Command<'_>,
    #[cfg(test)] fail_at: Option<Step>,
) -> Result<Child, SpawnError> {
    let shared = stacks.shared();
    let (jail, helper_socket) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(|errno| SpawnError::step(Step::Prepare, errno.raw_os_error()))?;

    let null = command.null.as_raw_fd();
    let mut descriptors = vec![(null, 0), (null, 1), (null, 2), (jail.as_raw_fd(), JAIL_FD)];
    descriptors.extend(
        command
            .fds
            .iter()
            .map(|(fd, target)| (fd.as_raw_fd(), *target)),
    );
    let highest_target = descriptors
        .iter()
        .map(|(_, target)| *target)
        .max()
        .unwrap_or(JAIL_FD);
    let highest_source = descriptors
        .iter()
        .map(|(source, _)| *source)
        .max()
        .unwrap_or(0);
    let mut argv: Vec<*const c_char> = command.argv.iter().map(|arg| arg.as_ptr()).collect();
    argv.push(std::ptr::null());

    let (uid, gid) = identity(command.identity);
    let mut plan = Plan {
        shared,
        helper: HelperPlan {
            socket: helper_socket.as_raw_fd(),
        },
        helper_stack: stacks.helper(),
        identity: matches!(command.identity, Identity::Block { .. }).then_some((uid, gid)),
        on_parent_death: command.on_parent_death,
        descriptors: &mut descriptors,
        exe: command.exe.as_raw_fd(),
        above: highest_source.max(highest_target) + 2,
        highest_target,
        rlimits: command.rlimits,
        last_capability: last_capability(),
        argv: argv.as_ptr(),
        #[cfg(test)]
        fail_at,
    };
    let child = clone_child(stacks, &mut plan, command.cgroup)?;

    if let Err(error) = map_identity(child.pid, command.identity, uid, gid) {
        end(&child);
        return Err(error);
    }
    shared.mapped.store(1, Ordering::Release);
    let _ = futex::wake(&shared.mapped, futex::Flags::empty(), 1);

    await_zero(&shared.child_tid);
    // The child has left this memory: `plan` and the descriptors may go.
    if let Some(number) = shared.failed.load(Ordering::Acquire).checked_sub(1) {
        end(&child);
        let errno = shared.errno.load(Ordering::Relaxed).cast_signed();
        return Err(Step::from_number(number)
            .map_or(SpawnError::Died, |step| SpawnError::step(step, errno)));
    }
    if shared.executing.load(Ordering::Acquire) == 0 {
        end(&child);
        return Err(SpawnError::Died);
    }
    Ok(child)
}

#[expect(
    unsafe_code,
    reason = "clones onto a prepared stack; takes the pidfd the kernel made"
)]
fn clone_child(
    stacks: &Stacks,
    plan: &mut Plan<'_>,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<Child, SpawnError> {
    let shared: &Shared = plan.shared;
    shared.child_tid.store(1, Ordering::Relaxed);
    shared.mapped.store(0, Ordering::Relaxed);
    shared.executing.store(0, Ordering::Relaxed);
    shared.failed.store(0, Ordering::Relaxed);
    let namespaces = libc::CLONE_NEWUSER | libc::CLONE_NEWPID;
    let sharing = libc::CLONE_VM | libc::CLONE_PIDFD | libc::CLONE_CHILD_CLEARTID;
    let into = if cgroup.is_some() {
        CLONE_INTO_CGROUP
    } else {
        0
    };
    let flags = u64::from((namespaces | sharing).unsigned_abs()) | CLONE_CLEAR_SIGHAND | into;
    let mut pidfd: i32 = -1;
    let (stack, stack_size) = stacks.child();
    let args = CloneArgs {
        flags,
        pidfd: (&raw mut pidfd).addr() as u64,
        child_tid: shared.child_tid.as_ptr().addr() as u64,
        exit_signal: libc::SIGCHLD as u64,
        stack,
        stack_size,
        cgroup: cgroup.map_or(0, |fd| fd.as_raw_fd().unsigned_abs().into()),
        ..CloneArgs::default()
    };
    // A handler of the supervisor's must not run in the child, on its stack, in shared memory.
    let mask =
        sys::set_signal_mask(u64::MAX).map_err(|errno| SpawnError::step(Step::Prepare, errno.0))?;
    // SAFETY: the stack is unused and stays mapped; `plan` and all it points to outlive the child's
    // time in this memory, as `spawn_on` waits for that; `child_main` expects a Plan.
    let cloned = unsafe { sys::clone3(&args, child::child_main, (&raw const *plan).cast()) };
    let _ = sys::set_signal_mask(mask);
    let pid = cloned.map_err(|errno| SpawnError::step(Step::Clone, errno.0))?;
    // SAFETY: clone3 succeeded with CLONE_PIDFD, so this is a new descriptor that is ours alone.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or(SpawnError::Died)?;
    Ok(Child { pid, pidfd })
}

const CLONE_CLEAR_SIGHAND: u64 = 1 << 32;
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// Maps one uid and one gid to themselves. The child waits for it.
fn map_identity(pid: Pid, who: Identity, uid: u32, gid: u32) -> Result<(), SpawnError> {
    let write = |step: Step, file: &str, text: &str| {
        let path = format!("/proc/{}/{file}", pid.as_raw_nonzero());
        fs::write(path, text).map_err(|source| SpawnError::Step { step, source })
    };
    if who == Identity::Caller {
        write(Step::DenySetgroups, "setgroups", "deny")?;
    }
    write(Step::MapGid, "gid_map", &format!("{gid} {gid} 1"))?;
    write(Step::MapUid, "uid_map", &format!("{uid} {uid} 1"))
}

/// Waits until the kernel clears the word, as it does when the child executes or dies.
fn await_zero(word: &AtomicU32) {
    loop {
        match word.load(Ordering::Acquire) {
            0 => return,
            value => drop(futex::wait(word, futex::Flags::empty(), value, None)),
        }
    }
}

/// Kills and reaps; the helper dies and is reaped with its namespace.
fn end(child: &Child) {
    let _ = pidfd_send_signal(&child.pidfd, Signal::KILL);
    loop {
        match waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED) {
            Err(rustix::io::Errno::INTR) => {}
            _ => return,
        }
    }
}

/// The highest capability this kernel knows.
fn last_capability() -> u32 {
    static LAST: OnceLock<u32> = OnceLock::new();
    *LAST.get_or_init(|| {
        let text: io::Result<String> = fs::read_to_string("/proc/sys/kernel/cap_last_cap");
        // Without the file: more than any kernel has; the drop of an unknown one is an error, so
        // this stops the spawn rather than leave one.
        text.ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(63)
    })
}
