//! From an exit to the bus, or to the end of the guest.

use std::sync::{Arc, Mutex, PoisonError};

use reeve_devices::bus::{MmioAddress, MmioBus, Port, PortBus};
use reeve_ipc::event::{CrashCause, CrashReport, Registers};

use super::{EndSignal, GuestEnd};
use crate::arch::x86_64::regs::EntryState;
use crate::kvm::{Exit, InterruptController, KvmError, RegisterDump, SystemEvent, Vcpu};

/// What came of one entry into the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// An exit was handled.
    Handled,
    /// There was none: a kick or a signal.
    Interrupted,
    /// The vCPU must not run on; why is in the machine's [`EndSignal`].
    Stopped,
}

/// What every vCPU of a machine shares.
#[derive(Debug)]
pub struct Platform {
    /// Port I/O.
    pub ports: PortBus,
    /// Memory-mapped I/O.
    pub mmio: Arc<MmioBus>,
    /// Where interrupts end.
    pub interrupts: Arc<dyn InterruptController>,
    /// Where the guest's end is left.
    pub end: Arc<EndSignal>,
    /// How the first vCPU enters the kernel after the next reset.
    pub entry: Mutex<EntryState>,
}

impl Platform {
    /// The entry state for the first vCPU after a reset.
    #[must_use]
    pub fn entry(&self) -> EntryState {
        self.entry
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Runs `vcpu` up to its next exit and handles that.
    pub(super) fn step(&self, vcpu: &mut Vcpu) -> Step {
        let exit = match vcpu.run() {
            Ok(exit) => exit,
            Err(error) => {
                return self.crash(
                    vcpu,
                    CrashCause::RunFailed {
                        errno: errno(&error),
                    },
                );
            }
        };
        let cause = match exit {
            Exit::IoOut { port, width, data } => {
                for access in data.chunks(usize::from(width).max(1)) {
                    self.ports.write(Port(port), access);
                }
                if !self.end.take_panic() {
                    return Step::Handled;
                }
                CrashCause::Panicked
            }
            Exit::IoIn { port, width, data } => {
                for access in data.chunks_mut(usize::from(width).max(1)) {
                    self.ports.read(Port(port), access);
                }
                return Step::Handled;
            }
            Exit::MmioRead { address, data } => {
                self.mmio.read(MmioAddress(address), data);
                return Step::Handled;
            }
            Exit::MmioWrite { address, data } => {
                self.mmio.write(MmioAddress(address), data);
                return Step::Handled;
            }
            Exit::IoapicEoi { vector } => {
                self.interrupts.end_of_interrupt(vector);
                return Step::Handled;
            }
            Exit::Interrupted => return Step::Interrupted,
            Exit::SystemEvent(SystemEvent::Shutdown) => {
                self.end.raise(GuestEnd::PowerOff);
                return Step::Stopped;
            }
            Exit::SystemEvent(SystemEvent::Reset) => {
                self.end.raise(GuestEnd::Reset);
                return Step::Stopped;
            }
            Exit::Shutdown => CrashCause::TripleFault,
            Exit::InternalError(error) => {
                tracing::error!("{error}");
                CrashCause::InternalError {
                    suberror: error.suberror,
                }
            }
            Exit::FailEntry { reason, cpu } => {
                tracing::error!(cpu, "guest entry failed, reason {reason:#x}");
                CrashCause::FailEntry { reason }
            }
            Exit::MemoryFault {
                address,
                size,
                flags,
            } => {
                tracing::error!("memory fault at {address:#x}, {size:#x} bytes, flags {flags:#x}");
                CrashCause::UnhandledExit {
                    reason: kvm_bindings::KVM_EXIT_MEMORY_FAULT,
                }
            }
            // The kernel's local APIC keeps a halt to itself unless the vCPU can never wake.
            Exit::Halt => CrashCause::UnhandledExit {
                reason: kvm_bindings::KVM_EXIT_HLT,
            },
            Exit::SystemEvent(SystemEvent::Crash | SystemEvent::Other(_)) => {
                CrashCause::UnhandledExit {
                    reason: kvm_bindings::KVM_EXIT_SYSTEM_EVENT,
                }
            }
            Exit::Unexpected { reason } => CrashCause::UnhandledExit { reason },
        };
        self.crash(vcpu, cause)
    }

    fn crash(&self, vcpu: &Vcpu, cause: CrashCause) -> Step {
        let registers = vcpu
            .registers()
            .ok()
            .map(|dump| Box::new(for_report(&dump)));
        self.end.raise(GuestEnd::Crash(CrashReport {
            vcpu: vcpu.index(),
            cause,
            registers,
        }));
        Step::Stopped
    }
}

fn errno(error: &KvmError) -> i32 {
    match error {
        KvmError::Ioctl { source, .. } => source.raw_os_error().unwrap_or(0),
        _ => 0,
    }
}

fn for_report(dump: &RegisterDump) -> Registers {
    let (r, s) = (&dump.regs, &dump.sregs);
    Registers {
        general: [
            r.rax, r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rsp, r.rbp, r.r8, r.r9, r.r10, r.r11,
            r.r12, r.r13, r.r14, r.r15,
        ],
        rip: r.rip,
        rflags: r.rflags,
        cs: s.cs.selector,
        cr: [s.cr0, s.cr2, s.cr3, s.cr4],
        efer: s.efer,
    }
}
