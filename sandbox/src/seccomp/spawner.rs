//! Spawner: the thread that makes threads, vCPUs and devices once the machine stands.
//!
//! Threads inherit its filter and stack their own on it, so it allows whatever Io, Vhost and Vcpu do (a test
//! holds that), and besides what starts a thread, opens a disk that was handed over and makes a vCPU of the VM
//! there is. Code that runs on another thread of the worker can have this one do what it likes: so it makes
//! no VM, gives it no memory, and makes and changes no ring of io_uring. The rings of disks that come later
//! were made before this filter closed.

use super::args::{
    ADVICE, EMPTY_PATH, FCNTL_COMMANDS, FUTEX_OPS, NOT_EXECUTABLE, OWN_THREADS, THREAD,
};
use super::rule::{Rule, allow, allow_if, fail_with, one_of, set};
use super::{ioctl, vcpu, vhost};

/// What is neither Vcpu's nor among what Vhost has beyond Io.
const MORE_IOCTLS: [u32; 9] = [
    ioctl::KVM_CREATE_VCPU,
    ioctl::KVM_SET_CPUID2,
    ioctl::KVM_SET_TSC_KHZ,
    ioctl::KVM_GET_TSC_KHZ,
    ioctl::TUNSETOFFLOAD,
    ioctl::TUNSETVNETHDRSZ,
    ioctl::TUNSETQUEUE,
    ioctl::VHOST_GET_FEATURES,
    ioctl::FIONBIO,
];

const IOCTLS: &[u32] = &{
    let lists: [&[u32]; 3] = [vcpu::IOCTLS, &MORE_IOCTLS, &vhost::MORE_IOCTLS];
    let mut all = [0; vcpu::IOCTLS.len() + MORE_IOCTLS.len() + vhost::MORE_IOCTLS.len()];
    let (mut list, mut i, mut filled) = (0, 0, 0);
    while list < lists.len() {
        while i < lists[list].len() {
            all[filled] = lists[list][i];
            i += 1;
            filled += 1;
        }
        list += 1;
        i = 0;
    }
    all
};

/// The table.
pub const RULES: &[Rule] = &[
    allow(libc::SYS_read, "eventfds, timers, consoles, back ends"),
    allow(
        libc::SYS_write,
        "eventfds, consoles, back ends, the denial report",
    ),
    allow(libc::SYS_readv, "consoles, back ends"),
    allow(libc::SYS_writev, "consoles, back ends"),
    allow(libc::SYS_pread64, "disks, their headers and tables"),
    allow(libc::SYS_pwrite64, "disks, their headers and tables"),
    allow(libc::SYS_preadv, "disks"),
    allow(libc::SYS_pwritev, "disks"),
    allow(libc::SYS_lseek, "size of a disk"),
    allow(libc::SYS_fstat, "size and kind of a handed-over descriptor"),
    allow(libc::SYS_fstatfs, "whether a disk is in memory"),
    allow_if(
        libc::SYS_statx,
        &[set(2, EMPTY_PATH)],
        "what a disk asks of direct transfers; names nothing by path",
    ),
    allow_if(
        libc::SYS_newfstatat,
        &[set(3, EMPTY_PATH)],
        "glibc's fstat; names nothing by path",
    ),
    allow(libc::SYS_ftruncate, "an image that grows or shrinks"),
    allow(libc::SYS_fallocate, "gives guest memory back, disks"),
    allow(libc::SYS_fdatasync, "disks"),
    allow_if(
        libc::SYS_fcntl,
        &[one_of(1, FCNTL_COMMANDS)],
        "flags, duplicates",
    ),
    allow(libc::SYS_close, "descriptors no longer needed"),
    allow_if(
        libc::SYS_ioctl,
        &[one_of(1, IOCTLS)],
        "makes and runs vCPUs, their state and interrupts, what a tap offloads",
    ),
    allow(
        libc::SYS_io_uring_enter,
        "disks, on a ring that was restricted before this filter closed",
    ),
    allow(
        libc::SYS_accept4,
        "clients of a socket the supervisor bound",
    ),
    allow(libc::SYS_recvmsg, "console clients"),
    allow(libc::SYS_sendmsg, "console clients"),
    allow(libc::SYS_recvfrom, "console clients"),
    allow(libc::SYS_sendto, "console clients, log"),
    allow(
        libc::SYS_getsockopt,
        "errors and kind of a handed-over socket",
    ),
    allow(libc::SYS_shutdown, "ends a console client's connection"),
    // Waiting.
    allow(libc::SYS_epoll_create1, "event loops of new threads"),
    allow(libc::SYS_epoll_ctl, "event loops"),
    allow(libc::SYS_epoll_wait, "event loops"),
    allow(libc::SYS_epoll_pwait, "event loops"),
    allow(libc::SYS_poll, "waiting for one descriptor"),
    allow(libc::SYS_ppoll, "waiting for one descriptor"),
    allow(libc::SYS_eventfd2, "events of new devices"),
    allow(libc::SYS_timerfd_settime, "device timers"),
    allow(libc::SYS_timerfd_gettime, "device timers"),
    // Memory; never executable.
    allow_if(libc::SYS_mmap, NOT_EXECUTABLE, "stacks, heap, kvm_run"),
    allow_if(
        libc::SYS_mprotect,
        NOT_EXECUTABLE,
        "guard pages, heap growth",
    ),
    allow(libc::SYS_munmap, "stacks, heap"),
    allow(libc::SYS_mremap, "heap growth in place"),
    allow(libc::SYS_brk, "heap"),
    allow_if(
        libc::SYS_madvise,
        &[one_of(2, ADVICE)],
        "memory given back, end of a thread",
    ),
    // Threads of this process only.
    allow_if(
        libc::SYS_clone,
        &[one_of(0, &[THREAD])],
        "threads; any other flags are a process",
    ),
    fail_with(
        libc::SYS_clone3,
        38,
        "ENOSYS: glibc falls back to clone, whose flags show here",
    ),
    allow(libc::SYS_set_robust_list, "start of a thread"),
    allow(libc::SYS_rseq, "start of a thread"),
    allow(libc::SYS_gettid, "names a thread to kick"),
    allow(libc::SYS_getpid, "pthread_kill, abort"),
    allow_if(libc::SYS_tgkill, OWN_THREADS, "kicks a vCPU; abort"),
    allow_if(libc::SYS_futex, &[one_of(1, FUTEX_OPS)], "locks, joins"),
    allow(libc::SYS_sched_yield, "spinning locks"),
    allow(libc::SYS_sched_getaffinity, "glibc's count of CPUs"),
    allow_if(
        libc::SYS_prctl,
        &[one_of(0, &[15])],
        "PR_SET_NAME: names of threads",
    ),
    allow_if(
        libc::SYS_seccomp,
        &[one_of(0, &[1]), one_of(1, &[0])],
        "SECCOMP_SET_MODE_FILTER: a new thread stacks its role's filter, which can only tighten",
    ),
    allow(libc::SYS_exit, "end of a thread"),
    allow(libc::SYS_exit_group, "end of the worker"),
    // Signals to oneself.
    allow(libc::SYS_rt_sigaction, "abort restores the default action"),
    allow(libc::SYS_rt_sigprocmask, "start and end of a thread, kicks"),
    allow(libc::SYS_rt_sigreturn, "return from a handler"),
    allow(
        libc::SYS_sigaltstack,
        "std's stack overflow handler, per thread",
    ),
    allow(
        libc::SYS_restart_syscall,
        "the kernel's own resumption of a stopped sleep",
    ),
    // Time and randomness.
    allow(libc::SYS_clock_gettime, "where the vDSO has no fast clock"),
    allow(libc::SYS_clock_nanosleep, "sleeps"),
    allow(libc::SYS_getrandom, "hash seeds, the guest's entropy"),
];
