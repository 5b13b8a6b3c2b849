//! Memory: a thread that gives the guest memory slots and takes them away, and serves one virtqueue of
//! short requests for that.
//!
//! Only machines that can be given more memory while they run have one. Beside what its event loop takes,
//! it may set memory slots, tell vhost-net of them, free what was behind them, and raise interrupts; it has
//! no file, no ring and no socket to read or write.

use super::args::{ADVICE, FUTEX_OPS, NOT_EXECUTABLE, OWN_THREADS};
use super::ioctl;
use super::rule::{Rule, allow, allow_if, one_of};

const IOCTLS: &[u32] = &[
    ioctl::KVM_SET_USER_MEMORY_REGION,
    ioctl::VHOST_SET_MEM_TABLE,
    ioctl::KVM_SIGNAL_MSI,
    ioctl::KVM_IRQ_LINE,
];

/// The table.
pub const RULES: &[Rule] = &[
    allow_if(
        libc::SYS_ioctl,
        &[one_of(1, IOCTLS)],
        "memory slots, the same for vhost-net, interrupts that have no irqfd",
    ),
    allow(libc::SYS_fallocate, "frees what was behind a slot"),
    allow(libc::SYS_read, "eventfds"),
    allow(libc::SYS_write, "eventfds, the denial report"),
    allow(libc::SYS_close, "eventfds of a device that stops"),
    allow(libc::SYS_sendto, "log"),
    allow(libc::SYS_epoll_ctl, "event loop"),
    allow(libc::SYS_epoll_wait, "event loop"),
    allow(libc::SYS_epoll_pwait, "event loop"),
    allow_if(libc::SYS_mmap, NOT_EXECUTABLE, "heap"),
    allow_if(libc::SYS_mprotect, NOT_EXECUTABLE, "heap growth"),
    allow(libc::SYS_munmap, "heap, end of the thread"),
    allow(libc::SYS_mremap, "heap growth in place"),
    allow(libc::SYS_brk, "heap"),
    allow_if(libc::SYS_madvise, &[one_of(2, ADVICE)], "end of the thread"),
    allow(libc::SYS_getrandom, "hash seeds"),
    allow(libc::SYS_gettid, "names a thread"),
    allow(libc::SYS_getpid, "abort"),
    allow_if(libc::SYS_tgkill, OWN_THREADS, "abort"),
    allow_if(libc::SYS_futex, &[one_of(1, FUTEX_OPS)], "locks"),
    allow(libc::SYS_sched_yield, "spinning locks"),
    allow(libc::SYS_exit, "end of the thread"),
    allow(libc::SYS_exit_group, "end of the worker"),
    allow(libc::SYS_rt_sigaction, "abort restores the default action"),
    allow(libc::SYS_rt_sigprocmask, "end of the thread"),
    allow(libc::SYS_rt_sigreturn, "return from a handler"),
    allow(libc::SYS_sigaltstack, "end of the thread"),
    allow(
        libc::SYS_restart_syscall,
        "the kernel's own resumption of a stopped sleep",
    ),
    allow(libc::SYS_clock_gettime, "where the vDSO has no fast clock"),
    allow(libc::SYS_clock_nanosleep, "sleeps"),
];
