//! Taking and putting back the state of a vCPU, and its boot MSRs.
//!
//! Called with the vCPU not running. The order of the writes is the one that KVM needs: special
//! registers turn the local APIC on before its registers are written, those before the MSRs of its
//! timer, and events come last because the registers before them clear some.

use std::sync::Arc;

use kvm_bindings::{Msrs, kvm_msr_entry, kvm_xsave};

use super::{KvmError, Vcpu};
use crate::arch::x86_64::msr::{BOOT_MSRS, is_reset_state};
use crate::arch::x86_64::state::{PowerOnState, wire_local_interrupts};

impl Vcpu {
    /// Takes the state of the first vCPU, before anything was set in it. `msrs` are the MSRs that
    /// [`System::msr_indices`](super::System::msr_indices) lists.
    ///
    /// # Errors
    /// An ioctl failed. An MSR that KVM lists but does not let read is left out.
    pub fn power_on_state(&self, msrs: &[u32]) -> Result<PowerOnState, KvmError> {
        let fd = &self.fd;
        Ok(PowerOnState {
            regs: fd.get_regs().map_err(KvmError::ioctl("KVM_GET_REGS"))?,
            sregs: fd.get_sregs().map_err(KvmError::ioctl("KVM_GET_SREGS"))?,
            lapic: fd.get_lapic().map_err(KvmError::ioctl("KVM_GET_LAPIC"))?,
            xsave: fd
                .get_xsave()
                .map(Arc::new)
                .map_err(KvmError::ioctl("KVM_GET_XSAVE"))?,
            xcrs: fd.get_xcrs().map_err(KvmError::ioctl("KVM_GET_XCRS"))?,
            debug: fd
                .get_debug_regs()
                .map_err(KvmError::ioctl("KVM_GET_DEBUGREGS"))?,
            events: fd
                .get_vcpu_events()
                .map_err(KvmError::ioctl("KVM_GET_VCPU_EVENTS"))?,
            mp_state: fd
                .get_mp_state()
                .map_err(KvmError::ioctl("KVM_GET_MP_STATE"))?,
            msrs: self.read_msrs(msrs)?,
        })
    }

    /// Puts this vCPU back to power-on, from the state that was taken of the first.
    ///
    /// # Errors
    /// An ioctl failed.
    pub fn reset(&self, power_on: &PowerOnState) -> Result<(), KvmError> {
        let state = power_on.for_vcpu(self.index());
        let fd = &self.fd;
        fd.set_sregs(&state.sregs)
            .map_err(KvmError::ioctl("KVM_SET_SREGS"))?;
        fd.set_regs(&state.regs)
            .map_err(KvmError::ioctl("KVM_SET_REGS"))?;
        fd.set_xcrs(&state.xcrs)
            .map_err(KvmError::ioctl("KVM_SET_XCRS"))?;
        set_xsave(fd, &state.xsave)?;
        fd.set_debug_regs(&state.debug)
            .map_err(KvmError::ioctl("KVM_SET_DEBUGREGS"))?;
        fd.set_lapic(&state.lapic)
            .map_err(KvmError::ioctl("KVM_SET_LAPIC"))?;
        self.write_msrs(&state.msrs, |_| false)?;
        fd.set_mp_state(state.mp_state)
            .map_err(KvmError::ioctl("KVM_SET_MP_STATE"))?;
        fd.set_vcpu_events(&state.events)
            .map_err(KvmError::ioctl("KVM_SET_VCPU_EVENTS"))
    }

    /// Does what firmware would have done with this vCPU before a kernel starts: boot MSRs, and the
    /// first vCPU's local interrupt pins. `lapic` is the local APIC's state at power-on.
    ///
    /// # Errors
    /// An ioctl failed, or KVM refused a required MSR.
    pub fn prepare_boot(&self, power_on: &PowerOnState) -> Result<(), KvmError> {
        let msrs = BOOT_MSRS.map(kvm_msr_entry::from);
        self.write_msrs(&msrs, |index| {
            BOOT_MSRS
                .iter()
                .any(|msr| msr.index == index && msr.required)
        })?;
        if self.index() == 0 {
            let mut lapic = power_on.lapic;
            wire_local_interrupts(&mut lapic);
            self.fd
                .set_lapic(&lapic)
                .map_err(KvmError::ioctl("KVM_SET_LAPIC"))?;
        }
        Ok(())
    }

    /// Reads the MSRs that KVM lets us read.
    fn read_msrs(&self, indices: &[u32]) -> Result<Vec<kvm_msr_entry>, KvmError> {
        let mut entries: Vec<_> = indices
            .iter()
            .filter(|index| is_reset_state(**index))
            .map(|index| kvm_msr_entry {
                index: *index,
                ..Default::default()
            })
            .collect();
        let mut done = 0;
        while let Some(rest) = entries.get(done..).filter(|rest| !rest.is_empty()) {
            let mut list =
                Msrs::from_entries(rest).map_err(|_| KvmError::TooManyMsrs(rest.len()))?;
            let read = self
                .fd
                .get_msrs(&mut list)
                .map_err(KvmError::ioctl("KVM_GET_MSRS"))?;
            for (entry, value) in entries
                .iter_mut()
                .skip(done)
                .zip(list.as_slice())
                .take(read)
            {
                *entry = *value;
            }
            done += read;
            // KVM stops at the first one that it refuses.
            if done < entries.len() {
                entries.remove(done);
            }
        }
        Ok(entries)
    }

    /// Writes MSRs, leaving out those that KVM refuses unless they are `required`.
    fn write_msrs(
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
fn set_xsave(fd: &kvm_ioctls::VcpuFd, xsave: &kvm_xsave) -> Result<(), KvmError> {
    // SAFETY: the call may read beyond the structure only if features were turned on that need more
    // than 4096 bytes, which takes a request by `arch_prctl` that this process never makes.
    unsafe { fd.set_xsave(xsave) }.map_err(KvmError::ioctl("KVM_SET_XSAVE"))
}
