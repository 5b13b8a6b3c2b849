//! Taking the state of a vCPU, and putting it back.
//!
//! Called with the vCPU standing and no access half done, on the thread that owns it. Both orders are
//! KVM's: what a read changes is read first, what a write needs is written first.

use kvm_bindings::{
    KVM_SREGS2_FLAGS_PDPTRS_VALID, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, KVMIO, Msrs, Xsave,
    kvm_device_attr, kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_sregs, kvm_sregs2, kvm_xcrs,
    kvm_xsave,
};
use kvm_ioctls::{Cap, VmFd};
use vmm_sys_util::ioctl::{ioctl_with_mut_ref, ioctl_with_ref};
use vmm_sys_util::{ioctl_ior_nr, ioctl_iow_nr};

use super::{KvmError, System, Vcpu};
use crate::state::time::monotonic;
use crate::state::{MAX_MSRS, MAX_XSAVE_BYTES, Tsc, VcpuStateV1};

ioctl_ior_nr!(KVM_GET_SREGS2, KVMIO, 0xcc, kvm_sregs2);
ioctl_iow_nr!(KVM_SET_SREGS2, KVMIO, 0xcd, kvm_sregs2);
ioctl_iow_nr!(KVM_SET_DEVICE_ATTR, KVMIO, 0xe1, kvm_device_attr);
ioctl_iow_nr!(KVM_GET_DEVICE_ATTR, KVMIO, 0xe2, kvm_device_attr);

/// `IA32_TIME_STAMP_COUNTER`.
const MSR_TSC: u32 = 0x10;
/// `IA32_TSC_DEADLINE`: refused by a local APIC whose timer is not in that mode, and armed by the write.
const MSR_TSC_DEADLINE: u32 = 0x6E0;
/// `KVM_CAP_SREGS2`.
const CAP_SREGS2: u64 = 200;
/// Words of the classic structure.
const XSAVE_WORDS: usize = size_of::<kvm_xsave>() / size_of::<u32>();

/// What of a vCPU this KVM keeps: asked once, as `/dev/kvm` is closed when a machine runs.
#[derive(Debug, Clone, Default)]
pub(super) struct StateFeatures {
    /// MSRs to save, by rising index.
    msrs: Vec<u32>,
    /// Bytes of the vector and floating-point state.
    xsave_bytes: usize,
    /// Whether page-directory pointers are told.
    sregs2: bool,
}

impl StateFeatures {
    pub(super) fn of(system: &System, vm: &VmFd) -> Result<Self, KvmError> {
        let mut msrs: Vec<u32> = system
            .kvm()
            .get_msr_index_list()
            .map_err(KvmError::ioctl("KVM_GET_MSR_INDEX_LIST"))?
            .as_slice()
            .to_vec();
        msrs.sort_unstable();
        msrs.dedup();
        // Its value means nothing at another moment: the counter is kept apart.
        msrs.retain(|index| *index != MSR_TSC);
        if msrs.len() > MAX_MSRS {
            return Err(KvmError::TooManyMsrs(msrs.len()));
        }
        let xsave_bytes = usize::try_from(vm.check_extension_int(Cap::Xsave2)).unwrap_or(0);
        if xsave_bytes > MAX_XSAVE_BYTES {
            return Err(KvmError::WideVectors(xsave_bytes));
        }
        Ok(Self {
            msrs,
            xsave_bytes: xsave_bytes.max(size_of::<kvm_xsave>()),
            sregs2: vm.check_extension_raw(CAP_SREGS2) > 0,
        })
    }

    /// Words of the vector and floating-point state beyond the classic structure.
    fn extra_words(&self) -> usize {
        (self.xsave_bytes - self.xsave_bytes.min(size_of::<kvm_xsave>())).div_ceil(size_of::<u32>())
    }
}

impl Vcpu {
    /// Takes the whole state.
    ///
    /// # Errors
    /// An ioctl failed.
    pub fn save(&self) -> Result<VcpuStateV1, KvmError> {
        let fd = &self.fd;
        // Takes in an INIT or SIPI that waits, by which all that follows may change.
        let mp_state = fd
            .get_mp_state()
            .map_err(KvmError::ioctl("KVM_GET_MP_STATE"))?
            .mp_state;
        let regs = fd.get_regs().map_err(KvmError::ioctl("KVM_GET_REGS"))?;
        let sregs = self.read_sregs()?;
        let xcrs = fd.get_xcrs().map_err(KvmError::ioctl("KVM_GET_XCRS"))?;
        let known = usize::try_from(xcrs.nr_xcrs).unwrap_or(usize::MAX);
        let lapic = fd.get_lapic().map_err(KvmError::ioctl("KVM_GET_LAPIC"))?;
        Ok(VcpuStateV1 {
            mp_state,
            regs,
            sregs,
            xcrs: xcrs.xcrs.iter().take(known).copied().collect(),
            xsave: self.read_xsave()?,
            debug: fd
                .get_debug_regs()
                .map_err(KvmError::ioctl("KVM_GET_DEBUGREGS"))?,
            lapic: lapic.regs.map(|byte| u8::from_le_bytes(byte.to_le_bytes())),
            tsc: self.tsc()?,
            msrs: self.read_msrs(&self.features().msrs)?,
            // Last: what was read before may have settled some.
            events: fd
                .get_vcpu_events()
                .map_err(KvmError::ioctl("KVM_GET_VCPU_EVENTS"))?,
        })
    }

    /// Puts a state back, of a vCPU with the same CPUID.
    ///
    /// # Errors
    /// KVM refuses a part of it; the vCPU must not run then.
    pub fn restore(&self, state: &VcpuStateV1) -> Result<(), KvmError> {
        let fd = &self.fd;
        // Turns the local APIC on, into its mode.
        self.write_sregs(&state.sregs)?;
        fd.set_regs(&state.regs)
            .map_err(KvmError::ioctl("KVM_SET_REGS"))?;
        // Say what the vector state has, so come before it.
        let mut xcrs = kvm_xcrs {
            nr_xcrs: u32::try_from(state.xcrs.len()).unwrap_or(u32::MAX),
            ..Default::default()
        };
        for (to, from) in xcrs.xcrs.iter_mut().zip(&state.xcrs) {
            *to = *from;
        }
        fd.set_xcrs(&xcrs)
            .map_err(KvmError::ioctl("KVM_SET_XCRS"))?;
        self.write_xsave(&state.xsave)?;
        fd.set_debug_regs(&state.debug)
            .map_err(KvmError::ioctl("KVM_SET_DEBUGREGS"))?;
        let lapic = kvm_lapic_state {
            regs: state
                .lapic
                .map(|byte| i8::from_le_bytes(byte.to_le_bytes())),
        };
        fd.set_lapic(&lapic)
            .map_err(KvmError::ioctl("KVM_SET_LAPIC"))?;
        // Before the MSR by which its deadline is compared with it.
        self.write_tsc(state.tsc)?;
        self.restore_msrs(&state.msrs)?;
        let mp_state = kvm_mp_state {
            mp_state: state.mp_state,
        };
        fd.set_mp_state(mp_state)
            .map_err(KvmError::ioctl("KVM_SET_MP_STATE"))?;
        // Last: the registers before clear some.
        fd.set_vcpu_events(&state.events)
            .map_err(KvmError::ioctl("KVM_SET_VCPU_EVENTS"))
    }

    /// The time-stamp counter now.
    ///
    /// # Errors
    /// KVM does not tell it.
    pub fn tsc(&self) -> Result<Tsc, KvmError> {
        let value = self
            .read_msr(MSR_TSC)?
            .ok_or(KvmError::RefusedMsr { index: MSR_TSC })?;
        Ok(Tsc {
            value,
            monotonic: monotonic(),
            offset: self.tsc_offset(),
        })
    }

    /// Sets its TSC by that of another vCPU of the same frequency: by the offset, or by the value with the
    /// time that has passed since, of which KVM itself makes the others' counter.
    ///
    /// # Errors
    /// KVM refuses it.
    pub fn follow_tsc(&self, other: Tsc) -> Result<(), KvmError> {
        let khz = u128::from(self.tsc_khz().unwrap_or(0));
        let passed = u128::from(monotonic().saturating_sub(other.monotonic));
        let ticks = u64::try_from(passed * khz / 1_000_000).unwrap_or(0);
        self.write_tsc(Tsc {
            value: other.value.wrapping_add(ticks),
            ..other
        })
    }

    /// Sets the frequency of its TSC. Before its CPUID.
    ///
    /// # Errors
    /// The host's counter cannot be scaled to it.
    pub fn set_tsc_khz(&self, khz: u32) -> Result<(), KvmError> {
        self.fd
            .set_tsc_khz(khz)
            .map_err(KvmError::ioctl("KVM_SET_TSC_KHZ"))
    }

    #[expect(unsafe_code, reason = "kvm-ioctls has no KVM_GET_SREGS2")]
    fn read_sregs(&self) -> Result<kvm_sregs2, KvmError> {
        if !self.features().sregs2 {
            let sregs = self
                .fd
                .get_sregs()
                .map_err(KvmError::ioctl("KVM_GET_SREGS"))?;
            return Ok(widen(&sregs));
        }
        let mut sregs = kvm_sregs2::default();
        // SAFETY: the descriptor is a vCPU's, and the kernel writes one structure of this layout.
        let done = unsafe { ioctl_with_mut_ref(&self.fd, KVM_GET_SREGS2(), &mut sregs) };
        result(done, "KVM_GET_SREGS2").map(|()| sregs)
    }

    #[expect(unsafe_code, reason = "kvm-ioctls has no KVM_SET_SREGS2")]
    fn write_sregs(&self, sregs: &kvm_sregs2) -> Result<(), KvmError> {
        if !self.features().sregs2 {
            // Reads the page-directory pointers from guest memory. The bitmap of the interrupt under
            // way is empty: the events have it.
            return self
                .fd
                .set_sregs(&narrow(sregs))
                .map_err(KvmError::ioctl("KVM_SET_SREGS"));
        }
        // SAFETY: the descriptor is a vCPU's, and the kernel reads one structure of this layout.
        let done = unsafe { ioctl_with_ref(&self.fd, KVM_SET_SREGS2(), sregs) };
        result(done, "KVM_SET_SREGS2")
    }

    #[expect(unsafe_code, reason = "the kernel says how long the structure is")]
    fn read_xsave(&self) -> Result<Vec<u32>, KvmError> {
        let extra = self.features().extra_words();
        if extra == 0 {
            let xsave = self
                .fd
                .get_xsave()
                .map_err(KvmError::ioctl("KVM_GET_XSAVE"))?;
            return Ok(xsave.region.to_vec());
        }
        let mut xsave = Xsave::new(extra).map_err(|_| KvmError::WideVectors(4 * extra))?;
        // SAFETY: it has room for as much as KVM_CAP_XSAVE2 said, which only a request by `arch_prctl`
        // changes, and this process makes none.
        unsafe { self.fd.get_xsave2(&mut xsave) }.map_err(KvmError::ioctl("KVM_GET_XSAVE2"))?;
        let classic = xsave.as_fam_struct_ref().xsave.region;
        Ok([&classic, xsave.as_slice()].concat())
    }

    /// Writes the state, made as long as this KVM has it: what a shorter one lacks is in its initial
    /// state, and what a longer one has more must be.
    #[expect(unsafe_code, reason = "the kernel says how long the structure is")]
    fn write_xsave(&self, words: &[u32]) -> Result<(), KvmError> {
        let extra = self.features().extra_words();
        let known = XSAVE_WORDS + extra;
        if words.iter().skip(known).any(|word| *word != 0) {
            return Err(KvmError::WideVectors(4 * words.len()));
        }
        let mut xsave = Xsave::new(extra).map_err(|_| KvmError::WideVectors(4 * extra))?;
        let mut words = words.iter().copied();
        let mut classic = kvm_xsave::default();
        for (to, from) in classic.region.iter_mut().zip(&mut words) {
            *to = from;
        }
        for (to, from) in xsave.as_mut_slice().iter_mut().zip(&mut words) {
            *to = from;
        }
        if extra == 0 {
            return super::state::set_xsave(&self.fd, &classic);
        }
        // SAFETY: only the field before the flexible array is written; its length stays.
        unsafe { xsave.as_mut_fam_struct() }.xsave.region = classic.region;
        // SAFETY: as in `read_xsave`.
        unsafe { self.fd.set_xsave2(&xsave) }.map_err(KvmError::ioctl("KVM_SET_XSAVE"))
    }

    /// Reads MSRs, leaving out those that KVM does not tell.
    fn read_msrs(&self, indices: &[u32]) -> Result<Vec<(u32, u64)>, KvmError> {
        let mut values = Vec::with_capacity(indices.len());
        let mut rest = indices;
        while !rest.is_empty() {
            let wanted: Vec<_> = rest.iter().map(|index| entry(*index, 0)).collect();
            let mut list =
                Msrs::from_entries(&wanted).map_err(|_| KvmError::TooManyMsrs(rest.len()))?;
            let read = self
                .fd
                .get_msrs(&mut list)
                .map_err(KvmError::ioctl("KVM_GET_MSRS"))?;
            values.extend(
                list.as_slice()
                    .iter()
                    .take(read)
                    .map(|msr| (msr.index, msr.data)),
            );
            // KVM stops at the first one that it refuses.
            rest = rest.get(read + 1..).unwrap_or_default();
        }
        Ok(values)
    }

    fn read_msr(&self, index: u32) -> Result<Option<u64>, KvmError> {
        let read = self.read_msrs(&[index])?;
        Ok(read.first().map(|(_, value)| *value))
    }

    /// Writes MSRs, sorted by index. One that KVM refuses must have its value already; one it does not
    /// have must be zero.
    fn restore_msrs(&self, msrs: &[(u32, u64)]) -> Result<(), KvmError> {
        let known = |index: &u32| self.features().msrs.binary_search(index).is_ok();
        if let Some((index, _)) = msrs
            .iter()
            .find(|(index, value)| *value != 0 && !known(index))
        {
            return Err(KvmError::RefusedMsr { index: *index });
        }
        let (deadline, others): (Vec<_>, Vec<_>) = msrs
            .iter()
            .filter(|(index, _)| known(index))
            .map(|(index, value)| entry(*index, *value))
            .partition(|msr| msr.index == MSR_TSC_DEADLINE);
        let differs = |index| {
            let wanted = msrs.iter().find(|(other, _)| *other == index);
            let present = self.read_msr(index).ok().flatten();
            present != wanted.map(|(_, value)| *value)
        };
        self.write_msrs(&others, differs)?;
        self.write_msrs(&deadline, differs)
    }

    /// Sets the counter by its distance to the host's, or by its value where KVM has no other way.
    fn write_tsc(&self, tsc: Tsc) -> Result<(), KvmError> {
        if tsc.offset.is_some_and(|offset| self.set_tsc_offset(offset)) {
            return Ok(());
        }
        self.write_msrs(&[entry(MSR_TSC, tsc.value)], |_| true)
    }

    #[expect(unsafe_code, reason = "kvm-ioctls has no attributes of vCPUs on x86")]
    fn tsc_offset(&self) -> Option<u64> {
        let mut offset = 0_u64;
        let attribute = tsc_offset_at(&raw mut offset);
        // SAFETY: the descriptor is a vCPU's; the kernel writes 8 bytes to the address in the
        // structure, which is that of a live variable.
        let done = unsafe { ioctl_with_ref(&self.fd, KVM_GET_DEVICE_ATTR(), &attribute) };
        (done == 0).then_some(offset)
    }

    /// False if KVM does not take it.
    #[expect(unsafe_code, reason = "kvm-ioctls has no attributes of vCPUs on x86")]
    fn set_tsc_offset(&self, mut offset: u64) -> bool {
        let attribute = tsc_offset_at(&raw mut offset);
        // SAFETY: the descriptor is a vCPU's; the kernel reads 8 bytes from the address in the
        // structure, which is that of a live variable.
        let done = unsafe { ioctl_with_ref(&self.fd, KVM_SET_DEVICE_ATTR(), &attribute) };
        done == 0
    }
}

fn tsc_offset_at(place: *mut u64) -> kvm_device_attr {
    kvm_device_attr {
        flags: 0,
        group: KVM_VCPU_TSC_CTRL,
        attr: KVM_VCPU_TSC_OFFSET.into(),
        addr: place.expose_provenance() as u64,
    }
}

fn entry(index: u32, data: u64) -> kvm_msr_entry {
    kvm_msr_entry {
        index,
        data,
        ..Default::default()
    }
}

/// What an ioctl that gives nothing else came to.
fn result(done: i32, call: &'static str) -> Result<(), KvmError> {
    if done == 0 {
        Ok(())
    } else {
        Err(KvmError::Ioctl {
            call,
            source: std::io::Error::last_os_error(),
        })
    }
}

fn widen(sregs: &kvm_sregs) -> kvm_sregs2 {
    kvm_sregs2 {
        cs: sregs.cs,
        ds: sregs.ds,
        es: sregs.es,
        fs: sregs.fs,
        gs: sregs.gs,
        ss: sregs.ss,
        tr: sregs.tr,
        ldt: sregs.ldt,
        gdt: sregs.gdt,
        idt: sregs.idt,
        cr0: sregs.cr0,
        cr2: sregs.cr2,
        cr3: sregs.cr3,
        cr4: sregs.cr4,
        cr8: sregs.cr8,
        efer: sregs.efer,
        apic_base: sregs.apic_base,
        // Without the pointers: KVM reads them from memory.
        flags: 0,
        pdptrs: [0; 4],
    }
}

fn narrow(sregs: &kvm_sregs2) -> kvm_sregs {
    if sregs.flags & u64::from(KVM_SREGS2_FLAGS_PDPTRS_VALID) != 0 {
        tracing::debug!("page-directory pointers come from guest memory on this KVM");
    }
    kvm_sregs {
        cs: sregs.cs,
        ds: sregs.ds,
        es: sregs.es,
        fs: sregs.fs,
        gs: sregs.gs,
        ss: sregs.ss,
        tr: sregs.tr,
        ldt: sregs.ldt,
        gdt: sregs.gdt,
        idt: sregs.idt,
        cr0: sregs.cr0,
        cr2: sregs.cr2,
        cr3: sregs.cr3,
        cr4: sregs.cr4,
        cr8: sregs.cr8,
        efer: sregs.efer,
        apic_base: sregs.apic_base,
        interrupt_bitmap: [0; 4],
    }
}
