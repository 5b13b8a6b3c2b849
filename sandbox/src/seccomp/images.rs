//! Images: a process that reads and writes disk images for the supervisor, one task after another.
//!
//! It has a socket for tasks and answers, and the files that come with each task. What it may do with those is
//! what they were opened for.

use super::args::{ADVICE, COUNTED, FCNTL_COMMANDS, FUTEX_OPS, NOT_EXECUTABLE, OWN_THREADS};
use super::rule::{Rule, allow, allow_if, one_of};

/// The table.
pub const RULES: &[Rule] = &[
    allow(libc::SYS_recvmsg, "tasks, with descriptors; uploads"),
    allow(libc::SYS_sendmsg, "answers; uploads, downloads"),
    allow(libc::SYS_ppoll, "waiting for a task"),
    allow(libc::SYS_poll, "waiting for a task"),
    allow(libc::SYS_pread64, "images"),
    allow(libc::SYS_pwrite64, "images"),
    allow(libc::SYS_lseek, "where a file has holes"),
    allow(libc::SYS_fstat, "size of an image"),
    allow(libc::SYS_fallocate, "room, and zeros"),
    allow(libc::SYS_ftruncate, "size of an image"),
    allow(libc::SYS_fdatasync, "images"),
    allow_if(
        libc::SYS_fcntl,
        &[one_of(1, FCNTL_COMMANDS)],
        "duplicates; no locks, which the supervisor holds",
    ),
    allow(libc::SYS_close, "images of a task that is done"),
    allow(libc::SYS_write, "the denial report"),
    allow_if(libc::SYS_mmap, COUNTED, "heap; no more than its limit"),
    allow_if(libc::SYS_mprotect, NOT_EXECUTABLE, "heap growth"),
    allow(libc::SYS_munmap, "heap"),
    allow(libc::SYS_mremap, "heap growth in place"),
    allow(libc::SYS_brk, "heap"),
    allow_if(libc::SYS_madvise, &[one_of(2, ADVICE)], "memory given back"),
    allow_if(libc::SYS_futex, &[one_of(1, FUTEX_OPS)], "locks"),
    allow(libc::SYS_getrandom, "hash seeds"),
    allow(libc::SYS_gettid, "abort"),
    allow(libc::SYS_getpid, "abort"),
    allow_if(libc::SYS_tgkill, OWN_THREADS, "abort"),
    allow(libc::SYS_rt_sigaction, "abort restores the default action"),
    allow(libc::SYS_rt_sigprocmask, "abort"),
    allow(libc::SYS_rt_sigreturn, "return from a handler"),
    allow(
        libc::SYS_restart_syscall,
        "the kernel's own resumption of a stopped wait",
    ),
    allow(libc::SYS_exit_group, "end of the process"),
];
