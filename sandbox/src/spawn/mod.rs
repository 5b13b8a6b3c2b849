//! Stage A: a process in fresh namespaces, with nothing but what it was handed.
//!
//! ```text
//! spawning thread     child (becomes the worker)       helpers, in the child's pid namespace
//! ───────────────     ──────────────────────────       ─────────────────────────────────────
//! clone3 ───────────▶ new user + pid namespace
//! maps uid and gid    new session, closes the supervisor's descriptors
//!   (host's /proc)    first helper ──────────────────▶ unshare(NEWNET)
//! waits               unshare mount, IPC, UTS, cgroup   ...
//!                     second helper ───────────────────── ... ──▶ empty root, pivot, detach
//!                     uid, capabilities, descriptors    ...       (waits for RCU)
//!                     limits, exec ◀──┐                 ...
//! returns ◀────────── (memory left)   │                sends the namespace, ends
//!                     worker: stage B ┴─ reaps both, joins the namespace
//! ```
//!
//! The child is cloned with `CLONE_VM`: until exec it runs on its own stack in the caller's memory,
//! as after vfork but without stopping the caller, so a spawn costs the same from a large supervisor.
//!
//! Three steps are slow and wait for nothing else: the network namespace (0.65 to 0.76 ms alone, all
//! CPU), the detaching of the host's mounts (0.2 ms, an RCU grace period; 0.7 ms while the other CPU is
//! in the kernel) and exec up to `main` (0.64 ms). Helpers take the first two while the child goes on; the way to
//! exec takes 0.5 ms, 0.12 of it clone3, 0.11 the four smaller namespaces, 0.05 the bounding set.
//! Medians on a shared 2-vCPU VM with Linux 6.18, on which a static program that does nothing took
//! 0.8 ms from spawn to reaped; the jail was closed after 1.9 to 2.1 ms, and after 2.2 to 2.5 when
//! the scheduler was left to queue the helpers behind the child. `examples/spawn_latency.rs` measures it.
//!
//! The order differs from the plain one, the result does not: stage B ends in an error unless both
//! helpers have succeeded and are reaped, before it reads a byte that is not ours. Until then, and
//! no longer, they share the supervisor's memory.
//!
//! Joining the network namespace needs `CAP_SYS_ADMIN` of the worker's own user namespace, the only
//! capability that survives exec; stage B gives it up.
//!
//! A root supervisor becomes non-dumpable by its first spawn: the kernel does so when a process that
//! shares its memory changes uid. `/proc` must be that of the supervisor's own pid namespace.

mod attempt;
mod child;
mod error;
mod process;
mod stack;
#[cfg(test)]
mod tests;

use std::ffi::{CStr, c_char, c_void};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::Pid;
use rustix::thread::futex;

pub(crate) use attempt::try_namespace;
use child::Plan;
pub use error::{SpawnError, Step};
use stack::Stacks;

#[cfg(test)]
pub(crate) use tests::serial;

use crate::sys::{self, CloneArgs, Errno};

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
    /// Bytes of memory of its own: heap and whatever else it alone may write.
    Memory,
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
            Self::Memory => libc::RLIMIT_DATA,
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

/// Which NUMA nodes of the host a process has its memory on: its own, and what it touches first of what it shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPolicy {
    /// What the nodes are to it.
    pub mode: MemoryMode,
    /// Their numbers as bits, lowest first.
    pub nodes: [u64; NODE_WORDS],
}

/// Words of a set of nodes: numbers below 1024.
pub const NODE_WORDS: usize = 16;

/// What nodes are to a process (set_mempolicy(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryMode {
    /// Its memory is there and nowhere else.
    Bind,
    /// It is there while there is room.
    Preferred,
    /// It is spread over them.
    Interleave,
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
    /// Where its memory is.
    pub memory_policy: Option<MemoryPolicy>,
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
/// [`SpawnError`], which names the step. Nothing is left behind. What helpers do may fail later: that
/// is stage B's error, in the worker.
pub fn spawn(command: Command<'_>) -> Result<Child, SpawnError> {
    let stacks = validate(&command).and_then(|()| {
        Stacks::take().map_err(|errno| SpawnError::step(Step::Prepare, errno.raw_os_error()))
    })?;
    let result = spawn_on(&stacks, command, Faults::default());
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

fn spawn_on(stacks: &Stacks, command: Command<'_>, faults: Faults) -> Result<Child, SpawnError> {
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
        helper_socket: helper_socket.as_raw_fd(),
        helper_stacks: stacks.helpers(),
        identity: matches!(command.identity, Identity::Block { .. }).then_some((uid, gid)),
        on_parent_death: command.on_parent_death,
        descriptors: &mut descriptors,
        exe: command.exe.as_raw_fd(),
        above: highest_source.max(highest_target) + 2,
        highest_target,
        rlimits: command.rlimits,
        memory_policy: command.memory_policy,
        last_capability: last_capability(),
        argv: argv.as_ptr(),
        faults,
    };
    let into_cgroup = if command.cgroup.is_some() {
        CLONE_INTO_CGROUP
    } else {
        0
    };
    let namespaces = libc::CLONE_NEWUSER | libc::CLONE_NEWPID;
    let args = CloneArgs {
        flags: u64::from(namespaces.unsigned_abs()) | into_cgroup,
        cgroup: command
            .cgroup
            .map_or(0, |fd| fd.as_raw_fd().unsigned_abs().into()),
        ..CloneArgs::default()
    };
    let argument: *const c_void = (&raw mut plan).cast();
    #[expect(unsafe_code, reason = "clones onto a prepared stack")]
    // SAFETY: `child_main` expects a Plan; this one and all it points to outlive the child's time in
    // this memory, which is awaited below, and is not touched meanwhile.
    let child = unsafe { process::clone_on(stacks, args, child::child_main, argument) };
    let child = child.map_err(|Errno(errno)| SpawnError::step(Step::Clone, errno))?;

    if let Err(error) = map_identity(child.pid, command.identity, uid, gid, faults) {
        process::end(&child);
        return Err(error);
    }
    shared.mapped.store(1, Ordering::Release);
    // Nobody waits yet, most often.
    let _ = futex::wake(&shared.mapped, futex::Flags::empty(), 1);

    process::await_zero(&shared.child_tid);
    // The child has left this memory: `plan` and the descriptors may go.
    if let Some(number) = shared.failed.load(Ordering::Acquire).checked_sub(1) {
        process::end(&child);
        let errno = shared.errno.load(Ordering::Relaxed);
        return Err(Step::from_number(number)
            .map_or(SpawnError::Died, |step| SpawnError::step(step, errno)));
    }
    if shared.executing.load(Ordering::Acquire) == 0 {
        process::end(&child);
        return Err(SpawnError::Died);
    }
    Ok(child)
}

/// `CLONE_INTO_CGROUP`.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// Maps one uid and one gid to themselves. The child waits for it.
fn map_identity(
    pid: Pid,
    who: Identity,
    uid: u32,
    gid: u32,
    faults: Faults,
) -> Result<(), SpawnError> {
    let write = |step: Step, file: &str, text: &str| {
        faults
            .at(step)
            .map_err(|errno| SpawnError::step(step, errno.0))?;
        let path = format!("/proc/{}/{file}", pid.as_raw_nonzero());
        fs::write(path, text).map_err(|source| SpawnError::Step { step, source })
    };
    if who == Identity::Caller {
        write(Step::DenySetgroups, "setgroups", "deny")?;
    }
    write(Step::MapGid, "gid_map", &format!("{gid} {gid} 1"))?;
    write(Step::MapUid, "uid_map", &format!("{uid} {uid} 1"))
}

/// In unit tests, the step at which a spawn shall fail; nothing in the product.
#[derive(Clone, Copy, Default)]
struct Faults {
    #[cfg(test)]
    fail_at: Option<Step>,
}

impl Faults {
    #[cfg(test)]
    fn at(self, step: Step) -> sys::Result<()> {
        if self.fail_at == Some(step) {
            Err(sys::Errno(libc::EIO))
        } else {
            Ok(())
        }
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "mirrors the tests' variant")]
    const fn at(self, _step: Step) -> sys::Result<()> {
        Ok(())
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
