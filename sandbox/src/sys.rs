//! System calls for code that may touch neither thread-local memory nor the heap: the child between
//! clone and exec, which shares the supervisor's memory and the spawning thread's `errno`, and the
//! SIGSYS handler. Everything else goes through rustix.

use std::arch::asm;
use std::ffi::{CStr, c_void};

/// An error number of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) i32);

/// What a call returns.
pub(crate) type Result<T> = core::result::Result<T, Errno>;

/// `struct clone_args` of clone3(2).
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct CloneArgs {
    pub(crate) flags: u64,
    pub(crate) pidfd: u64,
    pub(crate) child_tid: u64,
    pub(crate) parent_tid: u64,
    pub(crate) exit_signal: u64,
    pub(crate) stack: u64,
    pub(crate) stack_size: u64,
    pub(crate) tls: u64,
    pub(crate) set_tid: u64,
    pub(crate) set_tid_size: u64,
    pub(crate) cgroup: u64,
}

/// Makes a system call.
///
/// # Safety
///
/// The arguments must be what the call asks for; pointers among them must be valid for what the
/// kernel does with them.
#[expect(
    unsafe_code,
    reason = "libc's syscall() writes errno, which is thread-local"
)]
pub(crate) unsafe fn call(nr: i64, args: [usize; 6]) -> Result<usize> {
    let result: i64;
    // SAFETY: the x86_64 Linux convention: number and result in rax, six arguments, rcx and r11
    // clobbered. The caller vouches for the call itself.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") nr => result,
            in("rdi") args[0],
            in("rsi") args[1],
            in("rdx") args[2],
            in("r10") args[3],
            in("r8") args[4],
            in("r9") args[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    decode(result)
}

fn decode(result: i64) -> Result<usize> {
    match usize::try_from(result) {
        Ok(value) => Ok(value),
        Err(_) => Err(Errno(i32::try_from(-result).unwrap_or(libc::EINVAL))),
    }
}

/// clone3(2) whose child starts at `entry(argument)` on the stack that `args` names.
///
/// # Safety
///
/// Every pointer in `args` must be valid as clone3 asks, the stack must be unused and stay mapped
/// while the child runs on it, and `argument` must be what `entry` expects, for as long. With
/// `CLONE_VM` the child runs beside the caller in its memory: `entry` must not touch thread-locals.
#[expect(
    unsafe_code,
    reason = "no crate clones with CLONE_VM onto its own stack"
)]
pub(crate) unsafe fn clone3(
    args: &CloneArgs,
    entry: extern "C" fn(*const c_void) -> !,
    argument: *const c_void,
) -> Result<usize> {
    let result: i64;
    // SAFETY: in the parent this is a plain system call. In the child, rsp is the new stack's end,
    // aligned to 16, so that a call from here keeps the ABI; the callee never returns. r12 and r13
    // are kept by the kernel in both.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r13",
            "call r12",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") core::ptr::from_ref(args),
            in("rsi") size_of::<CloneArgs>(),
            in("r12") entry,
            in("r13") argument,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    decode(result)
}

/// A call whose arguments are numbers only, so that no memory can be harmed.
#[expect(unsafe_code, reason = "the one door for calls without pointers")]
fn plain(nr: i64, args: [usize; 6]) -> Result<usize> {
    // SAFETY: private to this module, and used only for calls that take no pointer.
    unsafe { call(nr, args) }
}

/// A descriptor number or a negative constant as a register holds it.
#[expect(
    clippy::cast_sign_loss,
    reason = "the kernel reads the register as a signed int"
)]
fn int(value: i32) -> usize {
    value as isize as usize
}

pub(crate) fn gettid() -> u32 {
    plain(libc::SYS_gettid, [0; 6])
        .ok()
        .and_then(|tid| u32::try_from(tid).ok())
        .unwrap_or(0)
}

#[expect(unsafe_code, reason = "passes a buffer to the kernel")]
pub(crate) fn write(fd: i32, bytes: &[u8]) -> Result<usize> {
    // SAFETY: the kernel reads `bytes`, which lives across the call.
    unsafe {
        call(
            libc::SYS_write,
            [int(fd), bytes.as_ptr() as usize, bytes.len(), 0, 0, 0],
        )
    }
}

pub(crate) fn exit_group(status: i32) -> ! {
    loop {
        let _ = plain(libc::SYS_exit_group, [int(status), 0, 0, 0, 0, 0]);
    }
}

/// A call number that no kernel has, which every filter therefore denies.
pub(crate) fn no_such_call() {
    let _ = plain(0x3fff_fff0, [0; 6]);
}

pub(crate) fn prctl(option: i32, arg: usize, arg2: usize) -> Result<()> {
    // The options used in this crate take numbers.
    plain(libc::SYS_prctl, [int(option), arg, arg2, 0, 0, 0]).map(drop)
}

pub(crate) fn unshare(flags: i32) -> Result<()> {
    plain(libc::SYS_unshare, [int(flags), 0, 0, 0, 0, 0]).map(drop)
}

pub(crate) fn setns(fd: i32, kind: i32) -> Result<()> {
    plain(libc::SYS_setns, [int(fd), int(kind), 0, 0, 0, 0]).map(drop)
}

pub(crate) fn setsid() -> Result<()> {
    plain(libc::SYS_setsid, [0; 6]).map(drop)
}

pub(crate) fn no_groups() -> Result<()> {
    // An empty list: the pointer is not followed.
    plain(libc::SYS_setgroups, [0; 6]).map(drop)
}

pub(crate) fn setresgid(gid: u32) -> Result<()> {
    let gid = gid as usize;
    plain(libc::SYS_setresgid, [gid, gid, gid, 0, 0, 0]).map(drop)
}

pub(crate) fn setresuid(uid: u32) -> Result<()> {
    let uid = uid as usize;
    plain(libc::SYS_setresuid, [uid, uid, uid, 0, 0, 0]).map(drop)
}

pub(crate) fn close(fd: i32) -> Result<()> {
    plain(libc::SYS_close, [int(fd), 0, 0, 0, 0, 0]).map(drop)
}

pub(crate) fn close_range(first: i32, last: u32) -> Result<()> {
    plain(
        libc::SYS_close_range,
        [int(first), last as usize, 0, 0, 0, 0],
    )
    .map(drop)
}

/// Duplicates onto `target`, which is not closed on exec.
pub(crate) fn dup_to(fd: i32, target: i32) -> Result<()> {
    plain(libc::SYS_dup3, [int(fd), int(target), 0, 0, 0, 0]).map(drop)
}

/// Duplicates onto the lowest free number from `least` up, closed on exec.
pub(crate) fn dup_above(fd: i32, least: i32) -> Result<i32> {
    let new = plain(
        libc::SYS_fcntl,
        [int(fd), int(libc::F_DUPFD_CLOEXEC), int(least), 0, 0, 0],
    )?;
    i32::try_from(new).map_err(|_| Errno(libc::EBADF))
}

pub(crate) fn fchdir(fd: i32) -> Result<()> {
    plain(libc::SYS_fchdir, [int(fd), 0, 0, 0, 0, 0]).map(drop)
}

#[expect(unsafe_code, reason = "passes a name to the kernel")]
pub(crate) fn open_read(path: &CStr) -> Result<i32> {
    let flags = int(libc::O_RDONLY | libc::O_CLOEXEC);
    // SAFETY: `path` is NUL-terminated and lives across the call.
    let fd = unsafe {
        call(
            libc::SYS_openat,
            [int(libc::AT_FDCWD), path.as_ptr() as usize, flags, 0, 0, 0],
        )
    }?;
    i32::try_from(fd).map_err(|_| Errno(libc::EBADF))
}

#[expect(unsafe_code, reason = "passes a name to the kernel")]
pub(crate) fn fsopen(kind: &CStr) -> Result<i32> {
    // SAFETY: `kind` is NUL-terminated and lives across the call. 1: FSOPEN_CLOEXEC.
    let fd = unsafe { call(libc::SYS_fsopen, [kind.as_ptr() as usize, 1, 0, 0, 0, 0]) }?;
    i32::try_from(fd).map_err(|_| Errno(libc::EBADF))
}

#[expect(unsafe_code, reason = "passes names to the kernel")]
pub(crate) fn fsconfig_string(fs: i32, key: &CStr, value: &CStr) -> Result<()> {
    let (key, value) = (key.as_ptr() as usize, value.as_ptr() as usize);
    // SAFETY: both are NUL-terminated and live across the call. 1: FSCONFIG_SET_STRING.
    unsafe { call(libc::SYS_fsconfig, [int(fs), 1, key, value, 0, 0]) }.map(drop)
}

pub(crate) fn fsconfig_create(fs: i32) -> Result<()> {
    // 6: FSCONFIG_CMD_CREATE, which takes no key and no value.
    plain(libc::SYS_fsconfig, [int(fs), 6, 0, 0, 0, 0]).map(drop)
}

pub(crate) fn fsmount(fs: i32, attributes: usize) -> Result<i32> {
    // 1: FSMOUNT_CLOEXEC.
    let mount = plain(libc::SYS_fsmount, [int(fs), 1, attributes, 0, 0, 0])?;
    i32::try_from(mount).map_err(|_| Errno(libc::EBADF))
}

#[expect(unsafe_code, reason = "passes names to the kernel")]
pub(crate) fn move_mount(mount: i32, target: &CStr) -> Result<()> {
    let (here, empty) = (int(libc::AT_FDCWD), c"".as_ptr() as usize);
    // SAFETY: both names are NUL-terminated and live across the call. 4: MOVE_MOUNT_F_EMPTY_PATH.
    unsafe {
        call(
            libc::SYS_move_mount,
            [int(mount), empty, here, target.as_ptr() as usize, 4, 0],
        )
    }
    .map(drop)
}

#[expect(unsafe_code, reason = "passes names to the kernel")]
pub(crate) fn pivot_root(new: &CStr, old: &CStr) -> Result<()> {
    let (new, old) = (new.as_ptr() as usize, old.as_ptr() as usize);
    // SAFETY: both are NUL-terminated and live across the call.
    unsafe { call(libc::SYS_pivot_root, [new, old, 0, 0, 0, 0]) }.map(drop)
}

#[expect(unsafe_code, reason = "passes a name to the kernel")]
pub(crate) fn detach(target: &CStr) -> Result<()> {
    let flags = int(libc::MNT_DETACH);
    // SAFETY: `target` is NUL-terminated and lives across the call.
    unsafe {
        call(
            libc::SYS_umount2,
            [target.as_ptr() as usize, flags, 0, 0, 0, 0],
        )
    }
    .map(drop)
}

#[expect(unsafe_code, reason = "passes a limit to the kernel")]
pub(crate) fn set_limit(resource: u32, value: u64) -> Result<()> {
    let limit = [value, value];
    let new = limit.as_ptr() as usize;
    // SAFETY: the kernel reads one rlimit64, two u64, and writes no old one.
    unsafe { call(libc::SYS_prlimit64, [0, resource as usize, new, 0, 0, 0]) }.map(drop)
}

/// Sets effective, permitted and inheritable capabilities to these bits.
#[expect(unsafe_code, reason = "passes structures to the kernel")]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the structure holds each set in halves"
)]
pub(crate) fn capset(effective: u64, permitted: u64, inheritable: u64) -> Result<()> {
    let header: [u32; 2] = [0x2008_0522, 0]; // _LINUX_CAPABILITY_VERSION_3, the caller
    let low = |bits: u64| bits as u32;
    let high = |bits: u64| (bits >> 32) as u32;
    let sets: [u32; 6] = [
        low(effective),
        low(permitted),
        low(inheritable),
        high(effective),
        high(permitted),
        high(inheritable),
    ];
    let (header, sets) = (header.as_ptr() as usize, sets.as_ptr() as usize);
    // SAFETY: the kernel reads one header and, for version 3, two cap_user_data, as laid out above.
    unsafe { call(libc::SYS_capset, [header, sets, 0, 0, 0, 0]) }.map(drop)
}

/// Sets the calling thread's mask of blocked signals, all 64 of them, and gives the one before.
#[expect(
    unsafe_code,
    reason = "pthread_sigmask leaves out the signals glibc keeps to itself"
)]
pub(crate) fn set_signal_mask(mask: u64) -> Result<u64> {
    let mut old = 0_u64;
    let (new, before) = (&raw const mask as usize, &raw mut old as usize);
    let how = int(libc::SIG_SETMASK);
    // SAFETY: the kernel reads and writes one mask of 8 bytes each.
    unsafe {
        call(
            libc::SYS_rt_sigprocmask,
            [how, new, before, size_of::<u64>(), 0, 0],
        )
    }?;
    Ok(old)
}

/// Has a process that was just cloned run beside the caller: the scheduler may queue it behind the
/// caller though another CPU is about to be idle. It may go anywhere afterwards. Where there is no
/// other CPU, nothing happens.
#[expect(unsafe_code, reason = "passes CPU numbers and masks to the kernel")]
pub(crate) fn move_to_another_cpu(pid: usize) {
    let mut cpu = 0_u32;
    let mut mask = [0_u64; 16];
    let (size, pointer) = (size_of_val(&mask), mask.as_mut_ptr().addr());
    // SAFETY: the kernel writes one u32; the other pointers are null.
    let known = unsafe { call(libc::SYS_getcpu, [(&raw mut cpu).addr(), 0, 0, 0, 0, 0]) };
    // SAFETY: the kernel writes at most `size` bytes of the mask.
    let allowed = unsafe { call(libc::SYS_sched_getaffinity, [0, size, pointer, 0, 0, 0]) };
    if known.and(allowed).is_err() {
        return;
    }
    let everywhere = mask;
    if let Some(word) = mask.get_mut(cpu as usize / 64) {
        *word &= !(1 << (cpu % 64));
    }
    for mask in [mask, everywhere] {
        let pointer = mask.as_ptr().addr();
        // SAFETY: the kernel reads `size` bytes of the mask. Failure is of no consequence.
        let _ = unsafe { call(libc::SYS_sched_setaffinity, [pid, size, pointer, 0, 0, 0]) };
    }
}

#[expect(unsafe_code, reason = "passes an action to the kernel")]
pub(crate) fn seccomp_action_available(action: u32) -> Result<()> {
    let pointer = (&raw const action).addr();
    // SAFETY: the kernel reads one u32. 2: SECCOMP_GET_ACTION_AVAIL.
    unsafe { call(libc::SYS_seccomp, [2, 0, pointer, 0, 0, 0]) }.map(drop)
}
