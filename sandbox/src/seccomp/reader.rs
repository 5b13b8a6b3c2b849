//! Reader: a process that reads the header of one image, says what it found, and ends.
//!
//! It has the image, open for reading only, and a socket for its answer. Memory is for what it reads.

use super::args::NOT_EXECUTABLE;
use super::rule::{Rule, allow, allow_if};

/// The table.
pub const RULES: &[Rule] = &[
    allow(libc::SYS_pread64, "the header of the image"),
    allow(libc::SYS_write, "the answer, the denial report"),
    allow_if(libc::SYS_mmap, NOT_EXECUTABLE, "heap"),
    allow(libc::SYS_munmap, "heap"),
    allow(libc::SYS_brk, "heap"),
    allow(libc::SYS_rt_sigreturn, "return from a handler"),
    allow(libc::SYS_exit_group, "end of the process"),
];
