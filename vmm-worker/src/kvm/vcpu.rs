//! One vCPU: set up by the thread that builds the machine, then owned and run by its own thread.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

use kvm_bindings::{CpuId, KVM_EXIT_MEMORY_FAULT};
use kvm_ioctls::{VcpuExit, VcpuFd};

use super::saved::StateFeatures;
use super::{Exit, ImmediateExit, KvmError, RegisterDump, Vm, exit};

/// A vCPU.
#[derive(Debug)]
pub struct Vcpu {
    pub(super) fd: VcpuFd,
    immediate_exit: ImmediateExit,
    index: u32,
    run_size: usize,
    // The VM must outlive its vCPUs' use of guest memory.
    vm: Arc<Vm>,
}

impl Vcpu {
    pub(super) fn new(fd: VcpuFd, vm: Arc<Vm>, index: u32) -> Result<Self, KvmError> {
        let immediate_exit = ImmediateExit::map(borrow(&fd))?;
        Ok(Self {
            fd,
            immediate_exit,
            index,
            run_size: vm.fd().run_size(),
            vm,
        })
    }

    /// What of its state this KVM keeps.
    pub(super) fn features(&self) -> &StateFeatures {
        self.vm.features()
    }

    /// Its index, which is its APIC id.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// A handle on the flag that makes [`run`](Self::run) return, for other threads and for signal
    /// handlers.
    #[must_use]
    pub fn immediate_exit(&self) -> ImmediateExit {
        self.immediate_exit.clone()
    }

    /// Sets what the guest sees by CPUID. Once, before the first run.
    ///
    /// # Errors
    /// `KVM_SET_CPUID2` failed.
    pub fn set_cpuid(&self, cpuid: &CpuId) -> Result<(), KvmError> {
        self.fd
            .set_cpuid2(cpuid)
            .map_err(KvmError::ioctl("KVM_SET_CPUID2"))
    }

    /// The frequency of its TSC in kHz, if KVM knows it.
    #[must_use]
    pub fn tsc_khz(&self) -> Option<u32> {
        self.fd.get_tsc_khz().ok().filter(|khz| *khz != 0)
    }

    /// Runs the guest until something needs handling.
    ///
    /// # Errors
    /// `KVM_RUN` failed for good: the vCPU cannot go on.
    pub fn run(&mut self) -> Result<Exit<'_>, KvmError> {
        match self.fd.run() {
            Ok(VcpuExit::MemoryFault { flags, gpa, size }) => {
                return Ok(Exit::MemoryFault {
                    address: gpa,
                    size,
                    flags,
                });
            }
            Ok(_) => {}
            // EAGAIN is how KVM says that a waiting AP got its INIT.
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {
                return Ok(Exit::Interrupted);
            }
            Err(error) => return Err(KvmError::ioctl("KVM_RUN")(error)),
        }
        let run = self.fd.get_kvm_run();
        debug_assert_ne!(
            run.exit_reason, KVM_EXIT_MEMORY_FAULT,
            "comes with an error only"
        );
        Ok(exit::decode(run, self.run_size))
    }

    /// The registers, for a log.
    ///
    /// # Errors
    /// An ioctl failed.
    pub fn registers(&self) -> Result<RegisterDump, KvmError> {
        Ok(RegisterDump {
            index: self.index,
            regs: self
                .fd
                .get_regs()
                .map_err(KvmError::ioctl("KVM_GET_REGS"))?,
            sregs: self
                .fd
                .get_sregs()
                .map_err(KvmError::ioctl("KVM_GET_SREGS"))?,
        })
    }

    /// Injects a non-maskable interrupt.
    ///
    /// # Errors
    /// `KVM_NMI` failed.
    pub fn nmi(&self) -> Result<(), KvmError> {
        self.fd.nmi().map_err(KvmError::ioctl("KVM_NMI"))
    }

    /// Tells the guest's clock that it was paused, so that its watchdogs do not take the pause for a
    /// lockup. `false` if the guest has no such clock (yet).
    #[must_use]
    pub fn note_pause(&self) -> bool {
        self.fd.kvmclock_ctrl().is_ok()
    }
}

#[expect(
    unsafe_code,
    reason = "kvm-ioctls gives its descriptors by number only"
)]
fn borrow(fd: &VcpuFd) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open for as long as `fd` exists, which the lifetime is tied to.
    unsafe { BorrowedFd::borrow_raw(fd.as_raw_fd()) }
}
