//! Gateway: a process of one thread that serves one client of libvirt's protocol.
//!
//! It has a socket to that client and one to the supervisor, the descriptors that come with the supervisor's
//! answers (streams of consoles and volumes), and an event loop that was made before this filter closed: no call here makes a
//! descriptor, but for copies of those there are.

use super::args::{ADVICE, COUNTED, FCNTL_COMMANDS, FUTEX_OPS, NOT_EXECUTABLE, OWN_THREADS};
use super::ioctl;
use super::rule::{Rule, allow, allow_if, one_of};

/// The table.
pub const RULES: &[Rule] = &[
    // Descriptors one already has.
    allow(libc::SYS_recvmsg, "the native API, with descriptors"),
    allow(
        libc::SYS_sendmsg,
        "the native API, replies with descriptors; uploads",
    ),
    allow(libc::SYS_recvfrom, "the client, console streams"),
    allow(libc::SYS_sendto, "the client, console streams, last words"),
    allow(
        libc::SYS_read,
        "the event loop's own wake, console streams, streams of volumes",
    ),
    allow(
        libc::SYS_write,
        "the event loop's own wake, console streams, the denial report",
    ),
    allow(libc::SYS_readv, "the client, console streams"),
    allow(libc::SYS_writev, "the client, console streams"),
    allow(libc::SYS_getsockopt, "errors of a socket that closes"),
    allow(libc::SYS_shutdown, "the end of one direction of a stream"),
    allow_if(
        libc::SYS_fcntl,
        &[one_of(1, FCNTL_COMMANDS)],
        "flags of descriptors that arrive, duplicates",
    ),
    allow_if(
        libc::SYS_ioctl,
        &[one_of(1, &[ioctl::FIONBIO])],
        "descriptors that arrive are made non-blocking",
    ),
    allow(libc::SYS_close, "streams that have ended"),
    // Waiting.
    allow(libc::SYS_epoll_ctl, "event loop"),
    allow(libc::SYS_epoll_wait, "event loop"),
    allow(libc::SYS_epoll_pwait, "event loop"),
    allow_if(libc::SYS_futex, &[one_of(1, FUTEX_OPS)], "locks"),
    allow(libc::SYS_sched_yield, "spinning locks"),
    // Memory; never executable.
    allow_if(libc::SYS_mmap, COUNTED, "heap; no more than its limit"),
    allow_if(libc::SYS_mprotect, NOT_EXECUTABLE, "heap growth"),
    allow(libc::SYS_munmap, "heap"),
    allow(libc::SYS_mremap, "heap growth in place"),
    allow(libc::SYS_brk, "heap"),
    allow_if(libc::SYS_madvise, &[one_of(2, ADVICE)], "memory given back"),
    // The end.
    allow(libc::SYS_gettid, "abort"),
    allow(libc::SYS_getpid, "abort"),
    allow_if(libc::SYS_tgkill, OWN_THREADS, "abort"),
    allow(libc::SYS_rt_sigaction, "abort restores the default action"),
    allow(libc::SYS_rt_sigprocmask, "abort"),
    allow(libc::SYS_rt_sigreturn, "return from a handler"),
    allow(libc::SYS_exit_group, "end of the process"),
    allow(
        libc::SYS_restart_syscall,
        "the kernel's own resumption of a stopped sleep",
    ),
    // Time and randomness.
    allow(libc::SYS_clock_gettime, "where the vDSO has no fast clock"),
    allow(libc::SYS_getrandom, "hash seeds"),
];
