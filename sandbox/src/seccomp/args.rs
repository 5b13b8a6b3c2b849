//! Argument values that more than one role's table names, and the signal that kicks a vCPU.

use super::rule::{Check, clear, one_of};

/// The signal that makes a vCPU thread leave `KVM_RUN`: the first real-time signal that glibc
/// leaves to applications (`SIGRTMIN`; 32 and 33 are its own).
pub const KICK_SIGNAL: u32 = 34;

/// `madvise` advice: give memory back, or choose its page size. None of it can make memory executable or
/// shared. `MADV_DONTNEED` is also what glibc does to the stack of a thread that ends.
pub const ADVICE: &[u32] = &[
    4,  // MADV_DONTNEED
    8,  // MADV_FREE
    9,  // MADV_REMOVE: punches a hole in shared guest memory
    10, // MADV_DONTFORK
    14, // MADV_HUGEPAGE
    15, // MADV_NOHUGEPAGE
    16, // MADV_DONTDUMP
    22, // MADV_POPULATE_READ
    23, // MADV_POPULATE_WRITE
];

/// Futex operations of std's and glibc's locks, private and shared (a thread that is joined is
/// awaited on a shared futex, which the kernel wakes). No requeue, no priority inheritance.
pub const FUTEX_OPS: &[u32] = &[
    0,             // FUTEX_WAIT
    1,             // FUTEX_WAKE
    9,             // FUTEX_WAIT_BITSET
    10,            // FUTEX_WAKE_BITSET
    128,           // FUTEX_WAIT | PRIVATE
    128 | 1,       // FUTEX_WAKE | PRIVATE
    128 | 9,       // FUTEX_WAIT_BITSET | PRIVATE
    128 | 10,      // FUTEX_WAKE_BITSET | PRIVATE
    256 | 9,       // FUTEX_WAIT_BITSET | CLOCK_REALTIME
    256 | 128 | 9, // FUTEX_WAIT_BITSET | CLOCK_REALTIME | PRIVATE
];

/// `fcntl` commands on descriptors one already has; no locks (the supervisor holds those of disks),
/// no leases, no signals.
pub const FCNTL_COMMANDS: &[u32] = &[
    1,    // F_GETFD
    2,    // F_SETFD
    3,    // F_GETFL
    4,    // F_SETFL
    1030, // F_DUPFD_CLOEXEC
];

/// What `pthread_create` passes: a thread that shares everything. Anything else would be a process.
pub const THREAD: u32 = 0x003d_0f00;

/// `AT_EMPTY_PATH`: the descriptor itself, no name looked up.
pub const EMPTY_PATH: u32 = 0x1000;

/// `PROT_EXEC`.
pub const PROT_EXEC: u32 = 4;

/// New and changed memory is never executable.
pub const NOT_EXECUTABLE: &[Check] = &[clear(2, PROT_EXEC)];

/// `MAP_SHARED` (and `MAP_SHARED_VALIDATE`, which has its bit) and `MAP_GROWSDOWN`: memory that `RLIMIT_DATA`
/// does not count (getrlimit(2)).
const UNCOUNTED: u32 = 0x101;

/// Mappings that are not executable and that `RLIMIT_DATA` counts.
pub const COUNTED: &[Check] = &[clear(2, PROT_EXEC), clear(3, UNCOUNTED)];

/// Only threads of the own process (the worker is pid 1 of its namespace), and only to kick, or to
/// end by `abort`.
pub const OWN_THREADS: &[Check] = &[one_of(0, &[1]), one_of(2, &[KICK_SIGNAL, 6])];
