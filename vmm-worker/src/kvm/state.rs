//! Putting a vCPU into the state for a boot, and back to power-on.
//!
//! Called with the vCPU not running. The order of a reset's writes is the one that KVM needs:
//! special registers turn the local APIC on before its registers are written, those before the MSR of
//! its timer, and events come last because the registers before them clear some.

use kvm_bindings::{
    KVM_MP_STATE_RUNNABLE, KVM_MP_STATE_UNINITIALIZED, Msrs, kvm_mp_state, kvm_msr_entry,
    kvm_vcpu_events, kvm_xsave,
};

use super::{KvmError, Vcpu};
use crate::arch::x86_64::msr::BOOT_MSRS;
use crate::arch::x86_64::regs::EntryState;
use crate::arch::x86_64::reset;

impl Vcpu {
    /// Does what firmware would have done with this vCPU before a kernel starts. Each vCPU, once
    /// after its creation and once after each [`reset`](Self::reset).
    ///
    /// The local interrupt pins stay as KVM has them: LINT0 of the first vCPU takes external
    /// interrupts; a guest that wants NMIs on LINT1 reads the MADT, and KVM's own NMIs do not come by
    /// that pin.
    ///
    /// # Errors
    /// An ioctl failed, or KVM refused a required MSR.
    pub fn prepare_boot(&self) -> Result<(), KvmError> {
        self.write_msrs(&BOOT_MSRS.map(kvm_msr_entry::from), |index| {
            BOOT_MSRS
                .iter()
                .any(|msr| msr.index == index && msr.required)
        })
    }

    /// Sets the registers with which the first vCPU enters a loaded kernel.
    ///
    /// # Errors
    /// An ioctl failed.
    pub fn enter(&self, entry: &EntryState) -> Result<(), KvmError> {
        let mut sregs = reset::sregs(self.index());
        entry.apply(&mut sregs);
        self.fd
            .set_sregs(&sregs)
            .map_err(KvmError::ioctl("KVM_SET_SREGS"))?;
        self.fd
            .set_regs(&entry.regs)
            .map_err(KvmError::ioctl("KVM_SET_REGS"))
    }

    /// Puts this vCPU back to power-on: the first runnable at the reset vector, the others waiting
    /// for INIT and SIPI. Its CPUID and its TSC stay. The access of its last exit must have been
    /// completed, or it would write to the new state.
    ///
    /// # Errors
    /// An ioctl failed.
    pub fn reset(&self) -> Result<(), KvmError> {
        let (fd, index) = (&self.fd, self.index());
        fd.set_sregs(&reset::sregs(index))
            .map_err(KvmError::ioctl("KVM_SET_SREGS"))?;
        fd.set_regs(&reset::regs())
            .map_err(KvmError::ioctl("KVM_SET_REGS"))?;
        fd.set_xcrs(&reset::xcrs())
            .map_err(KvmError::ioctl("KVM_SET_XCRS"))?;
        set_xsave(fd, &reset::xsave())?;
        fd.set_debug_regs(&reset::debug())
            .map_err(KvmError::ioctl("KVM_SET_DEBUGREGS"))?;
        let mut lapic = fd.get_lapic().map_err(KvmError::ioctl("KVM_GET_LAPIC"))?;
        reset::lapic(&mut lapic, index);
        fd.set_lapic(&lapic)
            .map_err(KvmError::ioctl("KVM_SET_LAPIC"))?;
        let msrs: Vec<_> = reset::msrs().collect();
        self.write_msrs(&msrs, |_| false)?;
        let mp_state = kvm_mp_state {
            mp_state: if index == 0 {
                KVM_MP_STATE_RUNNABLE
            } else {
                KVM_MP_STATE_UNINITIALIZED
            },
        };
        fd.set_mp_state(mp_state)
            .map_err(KvmError::ioctl("KVM_SET_MP_STATE"))?;
        // The flags say which of the fields this KVM knows.
        let events = fd
            .get_vcpu_events()
            .map_err(KvmError::ioctl("KVM_GET_VCPU_EVENTS"))?;
        let none = kvm_vcpu_events {
            flags: events.flags,
            ..Default::default()
        };
        fd.set_vcpu_events(&none)
            .map_err(KvmError::ioctl("KVM_SET_VCPU_EVENTS"))
    }

    /// Writes MSRs, leaving out those that KVM refuses unless they are `required`.
    pub(super) fn write_msrs(
        &self,
        entries: &[kvm_msr_entry],
        required: impl Fn(u32) -> bool,
    ) -> Result<(), KvmError> {
        let mut rest = entries;
        while !rest.is_empty() {
            let list = Msrs::from_entries(rest).map_err(|_| KvmError::TooManyMsrs(rest.len()))?;
            let written = self
                .fd
                .set_msrs(&list)
                .map_err(KvmError::ioctl("KVM_SET_MSRS"))?;
            // KVM stops at the first one that it refuses.
            let Some((refused, after)) = rest.get(written..).and_then(<[_]>::split_first) else {
                break;
            };
            if required(refused.index) {
                return Err(KvmError::RefusedMsr {
                    index: refused.index,
                });
            }
            tracing::debug!(msr = refused.index, "KVM does not let this MSR be set");
            rest = after;
        }
        Ok(())
    }
}

#[expect(
    unsafe_code,
    reason = "KVM's state of vector registers may be longer than the structure"
)]
pub(super) fn set_xsave(fd: &kvm_ioctls::VcpuFd, xsave: &kvm_xsave) -> Result<(), KvmError> {
    // SAFETY: the call may read beyond the structure only if features were turned on that need more
    // than 4096 bytes, which takes a request by `arch_prctl` that this process never makes.
    unsafe { fd.set_xsave(xsave) }.map_err(KvmError::ioctl("KVM_SET_XSAVE"))
}
