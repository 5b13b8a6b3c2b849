//! Vcpu: a thread that runs one vCPU and carries out its register-sized device accesses.
//!
//! The thread nearest to the guest, so the shortest table. It keeps the register ioctls that pause,
//! reset, save, restore and the error dump use, the interrupt ioctls that an IOAPIC write causes, and the
//! doorbells of a device that its driver starts. The attribute of a vCPU is the offset of its TSC; no
//! other descriptor of a worker has attributes.

use super::args::{ADVICE, FUTEX_OPS, NOT_EXECUTABLE, OWN_THREADS};
use super::ioctl;
use super::rule::{Rule, allow, allow_if, one_of};

pub(super) const IOCTLS: &[u32] = &[
    ioctl::KVM_RUN,
    ioctl::KVM_GET_REGS,
    ioctl::KVM_SET_REGS,
    ioctl::KVM_GET_SREGS,
    ioctl::KVM_SET_SREGS,
    ioctl::KVM_GET_SREGS2,
    ioctl::KVM_SET_SREGS2,
    ioctl::KVM_GET_FPU,
    ioctl::KVM_SET_FPU,
    ioctl::KVM_GET_LAPIC,
    ioctl::KVM_SET_LAPIC,
    ioctl::KVM_GET_MSRS,
    ioctl::KVM_SET_MSRS,
    ioctl::KVM_GET_XSAVE,
    ioctl::KVM_GET_XSAVE2,
    ioctl::KVM_SET_XSAVE,
    ioctl::KVM_GET_XCRS,
    ioctl::KVM_SET_XCRS,
    ioctl::KVM_GET_DEBUGREGS,
    ioctl::KVM_SET_DEBUGREGS,
    ioctl::KVM_GET_VCPU_EVENTS,
    ioctl::KVM_SET_VCPU_EVENTS,
    ioctl::KVM_GET_MP_STATE,
    ioctl::KVM_SET_MP_STATE,
    ioctl::KVM_SET_DEVICE_ATTR,
    ioctl::KVM_GET_DEVICE_ATTR,
    ioctl::KVM_KVMCLOCK_CTRL,
    ioctl::KVM_NMI,
    ioctl::KVM_INTERRUPT,
    ioctl::KVM_SIGNAL_MSI,
    ioctl::KVM_IRQ_LINE,
    ioctl::KVM_SET_GSI_ROUTING,
    ioctl::KVM_IOEVENTFD,
];

/// The table.
pub const RULES: &[Rule] = &[
    allow_if(
        libc::SYS_ioctl,
        &[one_of(1, IOCTLS)],
        "runs the vCPU, its state, its interrupts",
    ),
    allow(libc::SYS_read, "eventfds"),
    allow(libc::SYS_write, "eventfds, the denial report"),
    allow(
        libc::SYS_timerfd_settime,
        "device timers that the guest programs",
    ),
    allow(
        libc::SYS_timerfd_gettime,
        "device timers that the guest reads",
    ),
    allow(libc::SYS_poll, "waiting while paused"),
    allow(libc::SYS_ppoll, "waiting while paused"),
    allow_if(libc::SYS_mmap, NOT_EXECUTABLE, "heap"),
    allow_if(libc::SYS_mprotect, NOT_EXECUTABLE, "heap growth"),
    allow(libc::SYS_munmap, "heap, end of the thread"),
    allow(libc::SYS_mremap, "heap growth in place"),
    allow(libc::SYS_brk, "heap"),
    allow_if(
        libc::SYS_madvise,
        &[one_of(2, ADVICE)],
        "stack of a thread that ends",
    ),
    allow(libc::SYS_gettid, "names a thread to kick"),
    allow(libc::SYS_getpid, "pthread_kill, abort"),
    allow_if(
        libc::SYS_tgkill,
        OWN_THREADS,
        "kicks the other vCPUs at a reset; abort",
    ),
    allow_if(libc::SYS_futex, &[one_of(1, FUTEX_OPS)], "locks"),
    allow(libc::SYS_sched_yield, "spinning locks"),
    allow(libc::SYS_exit, "end of the thread"),
    allow(libc::SYS_exit_group, "end of the worker"),
    allow(libc::SYS_rt_sigaction, "abort restores the default action"),
    allow(libc::SYS_rt_sigprocmask, "kicks, end of the thread"),
    allow(libc::SYS_rt_sigreturn, "return from the kick's handler"),
    allow(libc::SYS_sigaltstack, "end of the thread"),
    allow(
        libc::SYS_restart_syscall,
        "the kernel's own resumption of a stopped sleep",
    ),
    allow(libc::SYS_clock_gettime, "where the vDSO has no fast clock"),
    allow(libc::SYS_clock_nanosleep, "sleeps"),
    allow(libc::SYS_getrandom, "hash seeds"),
];
