//! What runs between clone and exec, in the supervisor's memory but in another process.
//!
//! Two processes run this code on their own stacks beside the supervisor's threads: the child, which
//! becomes the worker, and its helper, which makes the network namespace. Both share the spawning
//! thread's thread-local memory, so only raw system calls ([`crate::sys`]), no allocation, no lock,
//! no panic, and all signals stay blocked.

use std::convert::Infallible;
use std::ffi::{CStr, c_char, c_void};
use std::sync::atomic::Ordering;

use super::error::Step;
use super::stack::{HELPERS, Shared};
use super::{Faults, JAIL_FD, MemoryMode, MemoryPolicy, OnParentDeath, Rlimit};
use crate::sys::{self, CloneArgs, Errno};

/// Everything the child needs, made ready by the parent, which keeps it until the child has
/// executed its program or died.
pub(super) struct Plan<'a> {
    pub(super) shared: &'a Shared,
    /// The end of the jail's socket pair that the worker does not get.
    pub(super) helper_socket: i32,
    pub(super) helper_stacks: [(u64, u64); HELPERS],
    /// uid and gid to take, when the caller's are not kept.
    pub(super) identity: Option<(u32, u32)>,
    pub(super) on_parent_death: OnParentDeath,
    /// Source descriptor and target number, `JAIL_FD` and the standard three included.
    pub(super) descriptors: &'a mut [(i32, i32)],
    pub(super) exe: i32,
    /// A number above every source and target.
    pub(super) above: i32,
    pub(super) highest_target: i32,
    pub(super) rlimits: &'a [Rlimit],
    pub(super) memory_policy: Option<MemoryPolicy>,
    pub(super) last_capability: u32,
    pub(super) argv: *const *const c_char,
    pub(super) faults: Faults,
}

/// How long the child waits for the parent to map its identity: a parent that takes longer is dead.
const MAPS_DEADLINE_S: i64 = 10;

/// `CAP_SYS_ADMIN`, which joining the network namespace needs in stage B.
const CAP_SYS_ADMIN: u32 = 21;

/// All secure bits that exist, and their locks: uid 0 means nothing, no capability is kept, raised
/// or fixed up by a change of uid. Once set they cannot be cleared.
const SECUREBITS: usize = 0b1110_1111;

const MOUNT_RDONLY_NOSUID_NODEV_NOEXEC: usize = 1 | 2 | 4 | 8;

/// Entry of the child.
pub(super) extern "C" fn child_main(plan: *const c_void) -> ! {
    let plan = plan.cast_mut().cast::<Plan<'_>>();
    #[expect(unsafe_code, reason = "the argument of clone3 is a bare pointer")]
    // SAFETY: `spawn` passes a Plan, keeps it until this process has left its memory, and does not
    // touch it meanwhile.
    let plan = unsafe { &mut *plan };
    let Err((step, Errno(errno))) = run(plan);
    plan.shared.errno.store(errno, Ordering::Relaxed);
    plan.shared.failed.store(step as u32 + 1, Ordering::Release);
    sys::exit_group(127)
}

fn run(plan: &mut Plan<'_>) -> Result<Infallible, (Step, Errno)> {
    macro_rules! step {
        ($step:ident, $call:expr) => {{
            plan.faults
                .at(Step::$step)
                .and_then(|()| $call)
                .map_err(|errno| (Step::$step, errno))?
        }};
    }

    // Until the identity changes, which clears it: no child without a parent.
    step!(
        BindToParent,
        sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as usize, 0)
    );
    // Before the helpers: a new session may be a new scheduling group, which would queue behind them.
    step!(Session, sys::setsid());
    // Before the helpers, each of which would copy all that the supervisor has open, and close it again.
    step!(Descriptors, close_others(plan));
    // Before the mount namespace: it finds its namespace by name, in the host's /proc.
    step!(CloneHelper, start_helper(plan, NETWORK, network_main));
    let others =
        libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWCGROUP;
    step!(Namespaces, sys::unshare(others));
    step!(CloneHelper, start_helper(plan, ROOT, root_main));

    step!(AwaitMaps, await_maps(plan.shared));
    if let Some((uid, gid)) = plan.identity {
        step!(DropGroups, sys::no_groups());
        step!(SetGid, sys::setresgid(gid));
        step!(SetUid, sys::setresuid(uid));
    }
    // In this order: nothing outside the bounding set can be made inheritable.
    step!(Capabilities, keep_only_sys_admin());
    step!(Bounding, empty_bounding_set(plan.last_capability));
    step!(
        Securebits,
        sys::prctl(libc::PR_SET_SECUREBITS, SECUREBITS, 0)
    );
    if plan.on_parent_death == OnParentDeath::Die {
        step!(
            BindToParent,
            sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as usize, 0)
        );
    } else {
        step!(BindToParent, sys::prctl(libc::PR_SET_PDEATHSIG, 0, 0));
    }
    let exe = step!(Descriptors, arrange_descriptors(plan));
    for limit in plan.rlimits {
        step!(Limits, sys::set_limit(limit.resource.number(), limit.value));
    }
    if let Some(policy) = &plan.memory_policy {
        step!(Memory, set_memory_policy(policy));
    }
    step!(Signals, sys::set_signal_mask(0));
    plan.shared.executing.store(1, Ordering::Release);
    step!(Exec, exec(exe, plan.argv));
    Err((Step::Exec, Errno(libc::ENOEXEC)))
}

/// Sets the policy of this process, which the program and all its threads inherit.
#[expect(unsafe_code, reason = "the set of nodes is passed by its address")]
fn set_memory_policy(policy: &MemoryPolicy) -> sys::Result<()> {
    let mode = match policy.mode {
        MemoryMode::Preferred => libc::MPOL_PREFERRED,
        MemoryMode::Bind => libc::MPOL_BIND,
        MemoryMode::Interleave => libc::MPOL_INTERLEAVE,
    };
    // The kernel takes one bit less than it is told.
    let bits = 8 * size_of_val(&policy.nodes) + 1;
    let nodes = policy.nodes.as_ptr().addr();
    // SAFETY: the kernel reads the set, which is as long as it is told, and keeps no pointer.
    let set = unsafe {
        sys::call(
            libc::SYS_set_mempolicy,
            [mode.unsigned_abs() as usize, nodes, bits, 0, 0, 0],
        )
    };
    set.map(drop)
}

/// The helpers, by their index among the stacks. Stage B knows their pids.
const NETWORK: usize = 0;
const ROOT: usize = 1;

/// Clones a helper into the child's namespaces, with its own stack.
#[expect(unsafe_code, reason = "clones onto a stack prepared for it")]
fn start_helper(
    plan: &Plan<'_>,
    index: usize,
    entry: extern "C" fn(*const c_void) -> !,
) -> sys::Result<()> {
    let (Some(&(stack, stack_size)), Some(tid)) = (
        plan.helper_stacks.get(index),
        plan.shared.helper_tids.get(index),
    ) else {
        return Err(Errno(libc::EINVAL));
    };
    tid.store(1, Ordering::Relaxed);
    // The helper outlives this frame: what it needs travels in the argument's bits.
    let argument = std::ptr::without_provenance(plan.helper_socket.unsigned_abs() as usize);
    let args = CloneArgs {
        flags: (libc::CLONE_VM | libc::CLONE_CHILD_CLEARTID) as u64,
        child_tid: tid.as_ptr().addr() as u64,
        stack,
        stack_size,
        ..CloneArgs::default()
    };
    // SAFETY: the stack and the tid live in a mapping that is not reused before the kernel clears
    // the tid; the entries read nothing through their argument.
    let result = unsafe { sys::clone3(&args, entry, argument) };
    match result {
        Ok(pid) => sys::move_to_another_cpu(pid),
        Err(_) => tid.store(0, Ordering::Relaxed),
    }
    result.map(drop)
}

/// Entry of the first helper: makes the network namespace and sends it to the worker. It runs beside
/// the child and, after exec, beside the worker, and dies with it (one pid namespace).
extern "C" fn network_main(argument: *const c_void) -> ! {
    let socket = i32::try_from(argument.addr()).unwrap_or(-1);
    let made = sys::unshare(libc::CLONE_NEWNET).and_then(|()| sys::open_read(c"/proc/self/ns/net"));
    let (errno, namespace) = match made {
        Ok(namespace) => (0, Some(namespace)),
        Err(Errno(errno)) => (errno, None),
    };
    leave(send_namespace(socket, errno, namespace))
}

/// Entry of the second: replaces the mount namespace's tree, which it shares with the child. The
/// kernel moves the root of every process that stood on the old one, the child's or worker's too.
extern "C" fn root_main(_: *const c_void) -> ! {
    leave(empty_root())
}

/// Ends a helper; stage B takes the status for an error number.
fn leave(result: sys::Result<()>) -> ! {
    sys::exit_group(match result {
        Ok(()) => 0,
        Err(Errno(errno)) => errno.min(254),
    })
}

/// An empty read-only filesystem in place of all the host's mounts.
fn empty_root() -> sys::Result<()> {
    let root = empty_filesystem()?;
    sys::move_mount(root, c"/")?;
    sys::fchdir(root)?;
    // The new root is on top of the old one, which then is on top of the new one (pivot_root(2)).
    sys::pivot_root(c".", c".")?;
    // Waits for an RCU grace period: a third of a millisecond that the worker need not wait.
    sys::detach(c".")
}

/// One message of four bytes, the error number, with the namespace when there is one.
#[expect(unsafe_code, reason = "sendmsg with a descriptor, without a heap")]
fn send_namespace(socket: i32, errno: i32, namespace: Option<i32>) -> sys::Result<()> {
    let bytes = errno.to_ne_bytes();
    let iov = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // struct cmsghdr and one int, padded to 8.
    let control: [u64; 3] = [
        20, // cmsg_len: 16 + 4
        libc::SOL_SOCKET as u64 | (libc::SCM_RIGHTS as u64) << 32,
        u64::from(namespace.unwrap_or(0).unsigned_abs()),
    ];
    // name, namelen, iov, iovlen, control, controllen, flags: struct msghdr as seven words.
    let message: [usize; 7] = [
        0,
        0,
        (&raw const iov).addr(),
        1,
        if namespace.is_some() {
            control.as_ptr().addr()
        } else {
            0
        },
        if namespace.is_some() {
            size_of_val(&control)
        } else {
            0
        },
        0,
    ];
    let socket = socket.unsigned_abs() as usize;
    // SAFETY: the message and all it points to live on this frame across the call.
    let sent = unsafe {
        sys::call(
            libc::SYS_sendmsg,
            [
                socket,
                message.as_ptr().addr(),
                libc::MSG_NOSIGNAL as usize,
                0,
                0,
                0,
            ],
        )
    };
    sent.map(drop)
}

fn empty_filesystem() -> sys::Result<i32> {
    let fs = sys::fsopen(c"tmpfs")?;
    sys::fsconfig_string(fs, c"mode", c"0555")?;
    sys::fsconfig_string(fs, c"nr_inodes", c"1")?;
    sys::fsconfig_create(fs)?;
    sys::fsmount(fs, MOUNT_RDONLY_NOSUID_NODEV_NOEXEC)
}

#[expect(unsafe_code, reason = "waits on a word shared with the parent")]
fn await_maps(shared: &Shared) -> sys::Result<()> {
    let deadline = [MAPS_DEADLINE_S, 0];
    while shared.mapped.load(Ordering::Acquire) == 0 {
        let word = shared.mapped.as_ptr().addr();
        let wait = libc::FUTEX_WAIT as usize;
        // SAFETY: the word outlives this process; the kernel reads one timespec.
        let woken = unsafe {
            sys::call(
                libc::SYS_futex,
                [word, wait, 0, deadline.as_ptr().addr(), 0, 0],
            )
        };
        match woken {
            Ok(_) | Err(Errno(libc::EAGAIN | libc::EINTR)) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn empty_bounding_set(last: u32) -> sys::Result<()> {
    let mut capability = 0;
    while capability <= last {
        sys::prctl(libc::PR_CAPBSET_DROP, capability as usize, 0)?;
        capability += 1;
    }
    Ok(())
}

/// What survives exec is the ambient set: the one capability that stage B needs to join its network
/// namespace. It counts in the worker's own user namespace only.
fn keep_only_sys_admin() -> sys::Result<()> {
    let admin = 1 << CAP_SYS_ADMIN;
    let setpcap = 1 << 8; // for the bounding set and the secure bits, until exec
    sys::capset(admin | setpcap, admin | setpcap, admin)?;
    sys::prctl(
        libc::PR_CAP_AMBIENT,
        libc::PR_CAP_AMBIENT_RAISE as usize,
        CAP_SYS_ADMIN as usize,
    )
}

/// Closes what nobody here needs.
fn close_others(plan: &Plan<'_>) -> sys::Result<()> {
    let needed = || {
        let sources = plan.descriptors.iter().map(|(source, _)| *source);
        sources.chain([plan.exe, plan.helper_socket])
    };
    let mut next = 0;
    while let Some(kept) = needed().filter(|needed| *needed >= next).min() {
        if kept > next {
            sys::close_range(next, (kept - 1).unsigned_abs())?;
        }
        next = kept + 1;
    }
    sys::close_range(next, u32::MAX)
}

/// Moves every handed-over descriptor to its number and closes all others. Gives where the program
/// is now; that one closes on exec.
fn arrange_descriptors(plan: &mut Plan<'_>) -> sys::Result<i32> {
    // First out of each other's way, then into place.
    for (source, _) in plan.descriptors.iter_mut() {
        *source = sys::dup_above(*source, plan.above)?;
    }
    let exe = sys::dup_above(plan.exe, plan.above)?;
    let mut target = 0;
    while target <= plan.highest_target {
        match plan
            .descriptors
            .iter()
            .find(|(_, wanted)| *wanted == target)
        {
            Some((source, _)) => sys::dup_to(*source, target)?,
            // Not open, most often.
            None => drop(sys::close(target)),
        }
        target += 1;
    }
    // `above` is at least two more than the highest target, and the program lies at or above it.
    sys::close_range(plan.highest_target + 1, (exe - 1).unsigned_abs())?;
    sys::close_range(exe + 1, u32::MAX)?;
    Ok(exe)
}

#[expect(unsafe_code, reason = "execveat with pointers prepared by the parent")]
fn exec(exe: i32, argv: *const *const c_char) -> sys::Result<()> {
    let environment: [*const c_char; 1] = [std::ptr::null()];
    let empty: &CStr = c"";
    let (fd, flags) = (exe.unsigned_abs() as usize, libc::AT_EMPTY_PATH as usize);
    let (path, argv) = (empty.as_ptr().addr(), argv.addr());
    // SAFETY: the path is NUL-terminated, both vectors end with a null pointer, and the parent keeps
    // the strings of `argv` until this process has left its memory.
    unsafe {
        sys::call(
            libc::SYS_execveat,
            [fd, path, argv, environment.as_ptr().addr(), flags, 0],
        )
    }
    .map(drop)
}

/// Makes sure that nobody hands over the number the jail uses itself.
pub(super) const fn is_reserved(target: i32) -> bool {
    target <= JAIL_FD
}
