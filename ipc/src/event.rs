//! What a worker says unasked: numbered, one way, for the supervisor to record and act on.
//!
//! A guest can cause most of these as often as it likes, so the worker limits their rate and the
//! supervisor limits it again; a dropped event leaves a gap in the numbers.

use serde::{Deserialize, Serialize};

use crate::phase::Phase;
use crate::spec::{PciSlot, WatchdogAction};
use crate::vcpus::VcpuStanding;

/// An event with its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumberedEvent {
    /// Rising by one from 1; a gap means that events were dropped.
    pub number: u64,
    /// What happened.
    pub event: Event,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(
    clippy::large_enum_variant,
    reason = "there are few at a time, and none is kept for long"
)]
pub enum Event {
    /// The worker is in another phase, by request or by itself.
    PhaseChanged(Phase),
    /// The guest powered itself off (ACPI S5).
    GuestPoweredOff,
    /// The guest, or a request, reset the machine; `count` resets since launch.
    GuestReset {
        /// How many resets there have been since launch.
        count: u64,
    },
    /// A vCPU cannot go on.
    GuestCrashed(CrashReport),
    /// The worker itself failed and is about to exit with [`crate::exit_code::PANIC`],
    /// [`crate::exit_code::HOST`] or [`crate::exit_code::FATAL_SIGNAL`].
    WorkerFailed {
        /// One line, at most 1 KiB.
        message: String,
    },
    /// The guest asked for a reset, and its machine is kept as it is
    /// ([`crate::spec::ResetAction::Preserve`]).
    GuestWantsReset,
    /// A device is gone: the guest has let go of it as it was asked to, or it was taken by force. Its
    /// descriptors are closed.
    DeviceRemoved {
        /// Where it was.
        slot: PciSlot,
    },
    /// The guest has changed how much its balloon holds, or how much memory it has plugged.
    BalloonChanged {
        /// Bytes in the balloon, no more than the machine's memory.
        bytes: u64,
        /// Bytes plugged beyond what the machine started with.
        plugged_bytes: u64,
    },
    /// The guest has let go of vCPUs, or says that it does not, or that it has taken some up. Of several
    /// only the newest counts.
    VcpusChanged(VcpuStanding),
    /// The guest's kernel has panicked, and starts the kernel that it keeps for that: it goes on. Told once
    /// until the machine is reset.
    GuestCrashKernel,
    /// The guest has not reloaded its watchdog in time; what is done about it. What comes of that, others
    /// tell.
    WatchdogExpired {
        /// What is done.
        action: WatchdogAction,
    },
    /// A port of a serial controller is gone, as was asked for.
    PortRemoved {
        /// Where the controller is.
        slot: PciSlot,
        /// Which of its ports it was.
        number: u16,
    },
    /// The guest has opened or closed ports of a serial controller. Of several only the newest counts.
    PortsChanged {
        /// Where the controller is.
        slot: PciSlot,
        /// Bit n is set where the guest has port n open; always so of a console.
        guest_open: u32,
    },
}

/// Why a vCPU cannot go on, and its registers at that moment (KVM API §5, `kvm_run`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrashReport {
    /// The vCPU, from 0.
    pub vcpu: u32,
    /// What happened to it.
    pub cause: CrashCause,
    /// Its registers, where they could be read.
    pub registers: Option<Box<Registers>>,
}

/// What stopped a vCPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CrashCause {
    /// `KVM_EXIT_SHUTDOWN`: a triple fault.
    TripleFault,
    /// `KVM_EXIT_INTERNAL_ERROR`, with its suberror (1: an instruction KVM cannot emulate).
    InternalError {
        /// `kvm_run.internal.suberror`.
        suberror: u32,
    },
    /// `KVM_EXIT_FAIL_ENTRY`, with the hardware's reason.
    FailEntry {
        /// `kvm_run.fail_entry.hardware_entry_failure_reason`.
        reason: u64,
    },
    /// An exit this build does not handle.
    UnhandledExit {
        /// `kvm_run.exit_reason`.
        reason: u32,
    },
    /// `KVM_RUN` itself failed.
    RunFailed {
        /// The error number.
        errno: i32,
    },
    /// The guest has said that its kernel panicked.
    Panicked,
}

impl std::fmt::Display for CrashCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TripleFault => f.write_str("triple fault"),
            Self::InternalError { suberror: 1 } => {
                f.write_str("an instruction that this host's KVM cannot emulate")
            }
            Self::InternalError { suberror } => write!(f, "KVM internal error {suberror}"),
            Self::FailEntry { reason } => write!(f, "guest entry failed, reason {reason:#x}"),
            Self::UnhandledExit { reason } => write!(f, "unhandled exit {reason}"),
            Self::RunFailed { errno } => write!(f, "KVM_RUN failed with error {errno}"),
            Self::Panicked => f.write_str("its kernel panicked"),
        }
    }
}

/// The registers of a vCPU (KVM API §4.11 KVM_GET_REGS, §4.13 KVM_GET_SREGS).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registers {
    /// rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8 to r15.
    pub general: [u64; 16],
    /// Instruction pointer.
    pub rip: u64,
    /// Flags.
    pub rflags: u64,
    /// Code segment selector.
    pub cs: u16,
    /// Control registers 0, 2, 3 and 4.
    pub cr: [u64; 4],
    /// Extended features (MSR C000_0080h).
    pub efer: u64,
}

impl std::fmt::Display for Registers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const NAMES: [&str; 16] = [
            "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp", "r8", "r9", "r10", "r11",
            "r12", "r13", "r14", "r15",
        ];
        write!(
            f,
            "rip={:#x} cs={:#x} rflags={:#x}",
            self.rip, self.cs, self.rflags
        )?;
        let [cr0, cr2, cr3, cr4] = self.cr;
        write!(
            f,
            " cr0={cr0:#x} cr2={cr2:#x} cr3={cr3:#x} cr4={cr4:#x} efer={:#x}",
            self.efer
        )?;
        NAMES
            .iter()
            .zip(self.general)
            .try_for_each(|(name, value)| write!(f, " {name}={value:#x}"))
    }
}
