//! Base: the main thread from before Launch is read until its role closes, and each thread it makes until
//! that one's does.
//!
//! Every other filter stacks on this one and a call must pass all of them, so Base allows whatever
//! any role allows (a test holds that), and what building a machine needs besides.

use super::args::{
    ADVICE, EMPTY_PATH, FCNTL_COMMANDS, FUTEX_OPS, NOT_EXECUTABLE, OWN_THREADS, THREAD,
};
use super::rule::{Rule, allow, allow_if, clear, fail_with, one_of, set};
use super::{ioctl, vhost};

/// `MFD_EXEC`.
const MFD_EXEC: u32 = 0x10;

/// What is not among those that Vhost has beyond Io.
const MORE_IOCTLS: &[u32] = &[
    ioctl::KVM_GET_API_VERSION,
    ioctl::KVM_CREATE_VM,
    ioctl::KVM_CHECK_EXTENSION,
    ioctl::KVM_GET_MSR_INDEX_LIST,
    ioctl::KVM_GET_VCPU_MMAP_SIZE,
    ioctl::KVM_CREATE_VCPU,
    ioctl::KVM_SET_USER_MEMORY_REGION,
    ioctl::KVM_SET_USER_MEMORY_REGION2,
    ioctl::KVM_SET_TSS_ADDR,
    ioctl::KVM_SET_IDENTITY_MAP_ADDR,
    ioctl::KVM_ENABLE_CAP,
    ioctl::KVM_CREATE_IRQCHIP,
    ioctl::KVM_GET_IRQCHIP,
    ioctl::KVM_SET_IRQCHIP,
    ioctl::KVM_CREATE_PIT2,
    ioctl::KVM_GET_PIT2,
    ioctl::KVM_SET_PIT2,
    ioctl::KVM_IRQFD,
    ioctl::KVM_IOEVENTFD,
    ioctl::KVM_SET_GSI_ROUTING,
    ioctl::KVM_SIGNAL_MSI,
    ioctl::KVM_IRQ_LINE,
    ioctl::KVM_GET_CLOCK,
    ioctl::KVM_SET_CLOCK,
    ioctl::KVM_SET_TSC_KHZ,
    ioctl::KVM_GET_TSC_KHZ,
    ioctl::KVM_X86_SET_MSR_FILTER,
    ioctl::KVM_RUN,
    ioctl::KVM_GET_REGS,
    ioctl::KVM_SET_REGS,
    ioctl::KVM_GET_SREGS,
    ioctl::KVM_SET_SREGS,
    ioctl::KVM_GET_SREGS2,
    ioctl::KVM_SET_SREGS2,
    ioctl::KVM_INTERRUPT,
    ioctl::KVM_GET_MSRS,
    ioctl::KVM_SET_MSRS,
    ioctl::KVM_GET_FPU,
    ioctl::KVM_SET_FPU,
    ioctl::KVM_GET_LAPIC,
    ioctl::KVM_SET_LAPIC,
    ioctl::KVM_SET_CPUID2,
    ioctl::KVM_GET_CPUID2,
    ioctl::KVM_GET_MP_STATE,
    ioctl::KVM_SET_MP_STATE,
    ioctl::KVM_NMI,
    ioctl::KVM_GET_VCPU_EVENTS,
    ioctl::KVM_SET_VCPU_EVENTS,
    ioctl::KVM_GET_DEBUGREGS,
    ioctl::KVM_SET_DEBUGREGS,
    ioctl::KVM_GET_XSAVE,
    ioctl::KVM_GET_XSAVE2,
    ioctl::KVM_SET_XSAVE,
    ioctl::KVM_GET_XCRS,
    ioctl::KVM_SET_XCRS,
    ioctl::KVM_SET_DEVICE_ATTR,
    ioctl::KVM_GET_DEVICE_ATTR,
    ioctl::KVM_KVMCLOCK_CTRL,
    ioctl::TUNSETOFFLOAD,
    ioctl::TUNSETVNETHDRSZ,
    ioctl::TUNSETQUEUE,
    ioctl::VHOST_GET_FEATURES,
    ioctl::FIONBIO,
];

const IOCTLS: &[u32] = &{
    let mut all = [0; MORE_IOCTLS.len() + vhost::MORE_IOCTLS.len()];
    let mut i = 0;
    while i < all.len() {
        all[i] = if i < MORE_IOCTLS.len() {
            MORE_IOCTLS[i]
        } else {
            vhost::MORE_IOCTLS[i - MORE_IOCTLS.len()]
        };
        i += 1;
    }
    all
};

/// `io_uring_register` operations.
const RING_OPERATIONS: &[u32] = &[
    4,  // IORING_REGISTER_EVENTFD
    8,  // IORING_REGISTER_PROBE
    11, // IORING_REGISTER_RESTRICTIONS
    12, // IORING_REGISTER_ENABLE_RINGS
];

/// The table.
pub const RULES: &[Rule] = &[
    // Descriptors one already has.
    allow(libc::SYS_read, "eventfds, timers, consoles, kernel images"),
    allow(libc::SYS_write, "eventfds, consoles, the denial report"),
    allow(libc::SYS_readv, "consoles"),
    allow(libc::SYS_writev, "consoles"),
    allow(libc::SYS_pread64, "kernel and initrd images"),
    allow(libc::SYS_pwrite64, "guest memory files"),
    allow(libc::SYS_preadv, "images straight into guest memory"),
    allow(libc::SYS_pwritev, "guest memory to files"),
    allow(libc::SYS_lseek, "size of an image"),
    allow(libc::SYS_fstat, "size and kind of a handed-over descriptor"),
    allow(libc::SYS_fstatfs, "whether a disk is in memory"),
    allow_if(
        libc::SYS_statx,
        &[set(2, EMPTY_PATH)],
        "std's fstat; names nothing by path",
    ),
    allow_if(
        libc::SYS_newfstatat,
        &[set(3, EMPTY_PATH)],
        "glibc's fstat; names nothing by path",
    ),
    allow(libc::SYS_ftruncate, "size of the guest memory file"),
    allow(libc::SYS_fallocate, "punches holes in guest memory"),
    allow_if(
        libc::SYS_fcntl,
        &[one_of(1, BASE_FCNTL)],
        "flags, duplicates, seals",
    ),
    allow(libc::SYS_close, "descriptors no longer needed"),
    allow_if(
        libc::SYS_ioctl,
        &[one_of(1, IOCTLS)],
        "KVM, by number; never KVM_CREATE_DEVICE; taps and vhost-net",
    ),
    allow(libc::SYS_fdatasync, "disks"),
    // A ring of io_uring walks around every filter: each is restricted by opcode before it is enabled,
    // and no role may make one.
    allow(libc::SYS_io_uring_setup, "rings of disks"),
    allow_if(
        libc::SYS_io_uring_register,
        &[one_of(1, RING_OPERATIONS)],
        "restricts a ring, then enables it",
    ),
    allow(libc::SYS_io_uring_enter, "disks"),
    // Sockets one already has; none can be made, bound or connected.
    allow(libc::SYS_recvmsg, "control protocol, with descriptors"),
    allow(libc::SYS_sendmsg, "control protocol, with descriptors"),
    allow(libc::SYS_recvfrom, "console clients, control protocol"),
    allow(libc::SYS_sendto, "console clients, log"),
    allow(
        libc::SYS_accept4,
        "a supervisor that comes back, on the socket it bound",
    ),
    allow(
        libc::SYS_getsockopt,
        "errors and kind of a handed-over socket",
    ),
    allow(libc::SYS_shutdown, "ends a console client's connection"),
    // Waiting.
    allow(libc::SYS_epoll_create1, "event loops"),
    allow(libc::SYS_epoll_ctl, "event loops"),
    allow(libc::SYS_epoll_wait, "event loops"),
    allow(libc::SYS_epoll_pwait, "event loops"),
    allow(libc::SYS_poll, "waiting for one descriptor"),
    allow(libc::SYS_ppoll, "waiting for one descriptor"),
    allow(libc::SYS_eventfd2, "irqfds, ioeventfds, stop events"),
    allow(libc::SYS_timerfd_create, "device timers"),
    allow(libc::SYS_timerfd_settime, "device timers"),
    allow(libc::SYS_timerfd_gettime, "device timers"),
    allow(libc::SYS_signalfd4, "signals of the control thread"),
    // Memory; never executable.
    allow_if(
        libc::SYS_mmap,
        NOT_EXECUTABLE,
        "guest memory, kvm_run, stacks, heap",
    ),
    allow_if(
        libc::SYS_mprotect,
        NOT_EXECUTABLE,
        "guard pages, heap growth",
    ),
    allow(libc::SYS_munmap, "stacks, heap, guest memory"),
    allow(libc::SYS_mremap, "heap growth in place"),
    allow(libc::SYS_brk, "heap"),
    allow_if(
        libc::SYS_madvise,
        &[one_of(2, ADVICE)],
        "page policy, memory given back",
    ),
    allow_if(
        libc::SYS_memfd_create,
        &[clear(1, MFD_EXEC)],
        "guest memory",
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
        "SECCOMP_SET_MODE_FILTER: stacks the role's filter, which can only tighten",
    ),
    allow(libc::SYS_exit, "end of a thread"),
    allow(libc::SYS_exit_group, "end of the worker"),
    // Signals to oneself.
    allow(
        libc::SYS_rt_sigaction,
        "handlers of the kick and of fatal signals",
    ),
    allow(libc::SYS_rt_sigprocmask, "start of a thread, kicks"),
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
    allow(libc::SYS_clock_getres, "where the vDSO has no fast clock"),
    allow(libc::SYS_gettimeofday, "where the vDSO has no fast clock"),
    allow(libc::SYS_clock_nanosleep, "sleeps"),
    allow(libc::SYS_nanosleep, "sleeps"),
    allow(libc::SYS_getrandom, "hash seeds, the guest's entropy"),
];

/// What all roles have, and the seals of guest memory.
const BASE_FCNTL: &[u32] = &{
    let mut all = [0; FCNTL_COMMANDS.len() + 2];
    let mut i = 0;
    while i < FCNTL_COMMANDS.len() {
        all[i] = FCNTL_COMMANDS[i];
        i += 1;
    }
    all[i] = 1033; // F_ADD_SEALS
    all[i + 1] = 1034; // F_GET_SEALS
    all
};
