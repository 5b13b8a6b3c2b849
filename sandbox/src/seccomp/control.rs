//! Control: the thread that speaks to the supervisor and runs the machine's life cycle.
//!
//! It makes no thread (the spawner does), no VM and no vCPU, and maps no device.

use super::args::{ADVICE, FCNTL_COMMANDS, FUTEX_OPS, NOT_EXECUTABLE, OWN_THREADS};
use super::ioctl;
use super::rule::{Rule, allow, allow_if, one_of};

const IOCTLS: &[u32] = &[
    ioctl::KVM_SIGNAL_MSI,
    ioctl::KVM_IRQ_LINE,
    ioctl::KVM_SET_GSI_ROUTING,
    ioctl::KVM_IOEVENTFD,
    ioctl::KVM_GET_CLOCK,
    ioctl::KVM_SET_CLOCK,
    ioctl::KVM_GET_IRQCHIP,
    ioctl::KVM_GET_PIT2,
    ioctl::FIONBIO,
];

/// The table.
pub const RULES: &[Rule] = &[
    allow(libc::SYS_read, "eventfds, timers, consoles"),
    allow(libc::SYS_write, "eventfds, consoles, the denial report"),
    allow(libc::SYS_readv, "consoles"),
    allow(libc::SYS_writev, "consoles"),
    allow(libc::SYS_pread64, "boot images, read again at a reset"),
    allow(libc::SYS_preadv, "boot images, straight into guest memory"),
    allow(libc::SYS_fstat, "size of a boot image"),
    allow(libc::SYS_fallocate, "empties guest memory at a reset"),
    allow_if(
        libc::SYS_fcntl,
        &[one_of(1, FCNTL_COMMANDS)],
        "flags of descriptors that arrive",
    ),
    allow(libc::SYS_close, "descriptors no longer needed"),
    allow_if(
        libc::SYS_ioctl,
        &[one_of(1, IOCTLS)],
        "power button, reset, guest clock and interrupt controllers, doorbells of a device that stops",
    ),
    allow(libc::SYS_recvmsg, "control protocol, with descriptors"),
    allow(libc::SYS_sendmsg, "control protocol, with descriptors"),
    allow(libc::SYS_recvfrom, "control protocol"),
    allow(libc::SYS_sendto, "log"),
    allow(
        libc::SYS_accept4,
        "a supervisor that comes back, on the socket it bound",
    ),
    allow(libc::SYS_getsockopt, "errors and kind of a socket"),
    allow(libc::SYS_shutdown, "ends a connection"),
    allow(libc::SYS_epoll_ctl, "event loop"),
    allow(libc::SYS_epoll_wait, "event loop"),
    allow(libc::SYS_epoll_pwait, "event loop"),
    allow(libc::SYS_poll, "waiting for one descriptor"),
    allow(libc::SYS_ppoll, "waiting for one descriptor"),
    allow(libc::SYS_timerfd_settime, "device timers"),
    allow(libc::SYS_timerfd_gettime, "device timers"),
    allow_if(libc::SYS_mmap, NOT_EXECUTABLE, "heap"),
    allow_if(libc::SYS_mprotect, NOT_EXECUTABLE, "heap growth"),
    allow(libc::SYS_munmap, "heap, guest memory at the end"),
    allow(libc::SYS_mremap, "heap growth in place"),
    allow(libc::SYS_brk, "heap"),
    allow_if(
        libc::SYS_madvise,
        &[one_of(2, ADVICE)],
        "page policy, memory given back",
    ),
    allow(libc::SYS_gettid, "names a thread to kick"),
    allow(libc::SYS_getpid, "pthread_kill, abort"),
    allow_if(libc::SYS_tgkill, OWN_THREADS, "kicks a vCPU; abort"),
    allow_if(libc::SYS_futex, &[one_of(1, FUTEX_OPS)], "locks, joins"),
    allow(libc::SYS_sched_yield, "spinning locks"),
    allow(libc::SYS_exit, "end of the thread"),
    allow(libc::SYS_exit_group, "end of the worker"),
    allow(libc::SYS_rt_sigaction, "abort restores the default action"),
    allow(libc::SYS_rt_sigprocmask, "pthread_kill, end of a thread"),
    allow(libc::SYS_rt_sigreturn, "return from a handler"),
    allow(libc::SYS_sigaltstack, "end of a thread"),
    allow(
        libc::SYS_restart_syscall,
        "the kernel's own resumption of a stopped sleep",
    ),
    allow(libc::SYS_clock_gettime, "where the vDSO has no fast clock"),
    allow(libc::SYS_clock_nanosleep, "sleeps"),
    allow(libc::SYS_getrandom, "hash seeds"),
];
