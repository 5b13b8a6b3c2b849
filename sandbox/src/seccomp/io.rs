//! Io: a thread that owns virtqueues or serves the console.
//!
//! It reads and writes the descriptors it was given and raises interrupts. Rings of io_uring are made
//! before this filter closes; `io_uring_setup` is in no table, as a ring that is made freely walks
//! around every filter.

use super::args::{ADVICE, FCNTL_COMMANDS, FUTEX_OPS, NOT_EXECUTABLE, OWN_THREADS};
use super::ioctl;
use super::rule::{Rule, allow, allow_if, one_of};

pub(super) const IOCTLS: &[u32] = &[
    ioctl::KVM_SIGNAL_MSI,
    ioctl::KVM_IRQ_LINE,
    ioctl::TUNSETOFFLOAD,
    ioctl::TUNSETVNETHDRSZ,
    ioctl::TUNSETQUEUE,
    ioctl::FIONBIO,
];

/// The table.
pub const RULES: &[Rule] = &[
    allow(libc::SYS_read, "eventfds, timers, consoles, back ends"),
    allow(
        libc::SYS_write,
        "eventfds, consoles, back ends, the denial report",
    ),
    allow(libc::SYS_readv, "consoles, back ends"),
    allow(libc::SYS_writev, "consoles, back ends"),
    allow(libc::SYS_pread64, "disks"),
    allow(libc::SYS_pwrite64, "disks"),
    allow(libc::SYS_preadv, "disks"),
    allow(libc::SYS_pwritev, "disks"),
    allow(libc::SYS_fallocate, "gives guest memory back"),
    allow_if(
        libc::SYS_fcntl,
        &[one_of(1, FCNTL_COMMANDS)],
        "flags of a console client",
    ),
    allow(libc::SYS_close, "console clients that leave"),
    allow_if(
        libc::SYS_ioctl,
        &[one_of(1, IOCTLS)],
        "interrupts that have no irqfd, what a tap offloads",
    ),
    allow(
        libc::SYS_io_uring_enter,
        "disks, on a ring that was restricted before this filter closed",
    ),
    allow(libc::SYS_fdatasync, "disks"),
    allow(libc::SYS_fstat, "length of an image that grows"),
    allow(libc::SYS_ftruncate, "an image that grows or shrinks"),
    allow(libc::SYS_lseek, "size of a disk that was resized"),
    allow(
        libc::SYS_accept4,
        "clients of a socket the supervisor bound",
    ),
    allow(libc::SYS_recvmsg, "console clients"),
    allow(libc::SYS_sendmsg, "console clients"),
    allow(libc::SYS_recvfrom, "console clients"),
    allow(libc::SYS_sendto, "console clients, log"),
    allow(libc::SYS_getsockopt, "errors of a console client"),
    allow(libc::SYS_shutdown, "ends a console client's connection"),
    allow(libc::SYS_epoll_ctl, "event loop"),
    allow(libc::SYS_epoll_wait, "event loop"),
    allow(libc::SYS_epoll_pwait, "event loop"),
    allow(libc::SYS_poll, "waiting for one descriptor"),
    allow(libc::SYS_ppoll, "waiting for one descriptor"),
    allow(libc::SYS_timerfd_settime, "device timers"),
    allow(libc::SYS_timerfd_gettime, "device timers"),
    allow_if(libc::SYS_mmap, NOT_EXECUTABLE, "heap"),
    allow_if(libc::SYS_mprotect, NOT_EXECUTABLE, "heap growth"),
    allow(libc::SYS_munmap, "heap, end of the thread"),
    allow(libc::SYS_mremap, "heap growth in place"),
    allow(libc::SYS_brk, "heap"),
    allow_if(
        libc::SYS_madvise,
        &[one_of(2, ADVICE)],
        "memory given back, end of the thread",
    ),
    allow(libc::SYS_gettid, "names a thread"),
    allow(libc::SYS_getpid, "abort"),
    allow_if(libc::SYS_tgkill, OWN_THREADS, "kicks a vCPU; abort"),
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
    allow(libc::SYS_getrandom, "the guest's entropy"),
];
