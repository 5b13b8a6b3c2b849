//! What a guest sees by CPUID: what KVM supports, less what a machine of ours cannot bear, with
//! each vCPU's own identity in it.
//!
//! The rule is to take KVM's word for what works here and never to detect a particular host. What is
//! taken away is in one table with reasons; what a machine type may choose is in [`CpuSwitches`].
//! Leaves and bits are those of Intel's SDM vol. 2 (CPUID), AMD's APM vol. 3 appendix E, and Linux'
//! `Documentation/virt/kvm/x86/cpuid.rst`.

#[cfg(test)]
mod tests;
mod topology;

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};
use reeve_ipc::spec::{CpuSwitches, CpuidEntry};

use self::topology::Topology;

/// What the host says besides its CPUID.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostTimers {
    /// [`System::has_tsc_deadline_timer`](crate::kvm::System::has_tsc_deadline_timer).
    pub tsc_deadline: bool,
    /// The frequency of the guest's TSC in kHz, if known.
    pub tsc_khz: Option<u32>,
    /// Messages can address local APICs beyond id 254 (split controller with wide ids).
    pub wide_apic_ids: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Register {
    Eax,
    Ebx,
    Ecx,
    Edx,
}
use Register::{Eax, Ebx, Ecx, Edx};

impl Register {
    fn of(self, entry: &mut kvm_cpuid_entry2) -> &mut u32 {
        match self {
            Eax => &mut entry.eax,
            Ebx => &mut entry.ebx,
            Ecx => &mut entry.ecx,
            Edx => &mut entry.edx,
        }
    }
}

const fn bits<const N: usize>(positions: [u32; N]) -> u32 {
    let mut mask = 0;
    let mut index = 0;
    while index < N {
        mask |= 1 << positions[index];
        index += 1;
    }
    mask
}

/// Bits that are cleared: leaf, subleaf, register, mask. Each group says why.
const HIDDEN: [(u32, u32, Register, u32); 12] = [
    // DTES64, MONITOR, DS-CPL, VMX, SMX, EIST, TM2, PDCM, DCA: debug store, power and thermal
    // management and the PMU are the host's; MONITOR would leave a guest idling in an exit; nested
    // guests are not offered.
    (1, 0, Ecx, bits([2, 3, 4, 5, 6, 7, 8, 15, 18])),
    // DS, ACPI thermal control, TM, PBE: likewise the host's.
    (1, 0, Edx, bits([21, 22, 29, 31])),
    // All of thermal and power management but ARAT, which says that the timer never stops.
    (6, 0, Eax, !bits([2])),
    (6, 0, Ebx, u32::MAX),
    (6, 0, Ecx, u32::MAX),
    // SGX, PQM, MPX, PQE, Intel PT: need enclaves of the host, its cache allocation or its tracing;
    // MPX is gone from processors and kernels.
    (7, 0, Ebx, bits([2, 12, 14, 15, 25])),
    // WAITPKG, TME, KL, bus lock detection, ENQCMD, SGX-LC, PKS: wait states and locks that KVM
    // polices, shared queues and keys of the host.
    (7, 0, Ecx, bits([5, 13, 23, 24, 29, 30, 31])),
    // UINTR, PCONFIG, architectural LBR: state that is not saved.
    (7, 0, Edx, bits([5, 18, 19])),
    // SVM, SKINIT, WDT, IBS, LWP, core and NB and L2I and LLC performance counters, MWAITX: nested
    // guests, secure launch, the PMU, and another way to wait.
    (
        0x8000_0001,
        0,
        Ecx,
        bits([2, 10, 12, 13, 15, 23, 24, 27, 28, 29]),
    ),
    // Everything of power management but the invariant TSC, which is a switch.
    (0x8000_0007, 0, Edx, !bits([8])),
    (0x8000_0007, 0, Ebx, u32::MAX),
    // Hypercalls that only userspace could answer: MAP_GPA_RANGE, MIGRATION_CONTROL. The extended
    // destination ids are added below where they work.
    (0x4000_0001, 0, Eax, bits([15, 16, 17])),
];

/// Leaves that are zero: PMU, resource monitoring and allocation, SGX, PT, TSC and processor
/// frequencies (a guest would compute a wrong local APIC frequency from them), key locker, PCONFIG,
/// LBR, nested SVM, IBS, SEV, AMD PMU.
const EMPTY: [u32; 15] = [
    0xA,
    0xF,
    0x10,
    0x12,
    0x14,
    0x15,
    0x16,
    0x19,
    0x1B,
    0x1C,
    0x8000_000A,
    0x8000_001B,
    0x8000_001C,
    0x8000_001F,
    0x8000_0022,
];

const HYPERVISOR: u32 = 0x4000_0000;
const KVM_FEATURES: u32 = 0x4000_0001;
const TIMING: u32 = 0x4000_0010;
/// KVM's local APIC timer counts nanoseconds (`APIC_BUS_CYCLE_NS` is 1).
const APIC_BUS_KHZ: u32 = 1_000_000;

/// How many bits a guest's physical addresses have, by leaf 0x8000_0008 of what the host supports:
/// those of the CPU, or of its second-level paging if that has fewer. 36, the least that a 64-bit
/// CPU has, if the host does not say.
#[must_use]
pub fn physical_address_bits(supported: &[CpuidEntry]) -> u32 {
    const LEAF: u32 = 0x8000_0008;
    const LEAST: u32 = 36;
    let leaf = supported.iter().find(|entry| entry.function == LEAF);
    let [eax, ..] = leaf.map_or([0; 4], |entry| entry.registers);
    let (cpu, guest) = (eax & 0xFF, eax >> 16 & 0xFF);
    match (cpu, guest) {
        (0, _) => LEAST,
        (cpu, 0) => cpu,
        (cpu, guest) => cpu.min(guest),
    }
}

/// The CPUID of one machine: filtered once, then stamped with each vCPU's identity.
#[derive(Debug)]
pub struct CpuModel {
    cpuid: CpuId,
    topology: Topology,
}

impl CpuModel {
    /// Filters what KVM supports for a machine of `vcpus` vCPUs.
    ///
    /// # Errors
    /// There is no room for the leaves that are added.
    pub fn new(
        supported: CpuId,
        switches: CpuSwitches,
        timers: HostTimers,
        vcpus: u32,
    ) -> Result<Self, vmm_sys_util::fam::Error> {
        let mut cpuid = supported;
        cpuid.retain(|entry| entry.function != TIMING && !Topology::describes(entry.function));
        for entry in cpuid.as_mut_slice() {
            filter(entry, switches, timers);
        }
        let topology = Topology::new(vcpus, cpuid.as_slice());
        for entry in topology.entries() {
            cpuid.push(entry)?;
        }
        if let Some(khz) = timers.tsc_khz {
            cpuid.push(kvm_cpuid_entry2 {
                function: TIMING,
                eax: khz,
                ebx: APIC_BUS_KHZ,
                ..Default::default()
            })?;
        }
        Ok(Self { cpuid, topology })
    }

    /// The CPUID of one vCPU. The returned value is good until the next call.
    pub fn for_vcpu(&mut self, index: u32) -> &CpuId {
        for entry in self.cpuid.as_mut_slice() {
            self.topology.stamp(entry, index);
        }
        &self.cpuid
    }
}

/// Takes away what a guest must not see and sets what every guest sees.
fn filter(entry: &mut kvm_cpuid_entry2, switches: CpuSwitches, timers: HostTimers) {
    if EMPTY.contains(&entry.function) {
        (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0);
        return;
    }
    for (leaf, subleaf, register, mask) in HIDDEN {
        if (leaf, subleaf) == (entry.function, entry.index) {
            *register.of(entry) &= !mask;
        }
    }
    match (entry.function, entry.index) {
        (1, _) => {
            let deadline = switches.tsc_deadline && timers.tsc_deadline;
            set(&mut entry.ecx, 24, deadline);
            // A hypervisor is present.
            set(&mut entry.ecx, 31, true);
        }
        (7, 0) if !switches.transactional_memory => {
            // HLE, RTM; TSX_FORCE_ABORT and RTM_ALWAYS_ABORT belong to them.
            entry.ebx &= !bits([4, 11]);
            entry.edx &= !bits([11, 13]);
        }
        (0x8000_0007, _) if !switches.invariant_tsc => entry.edx &= !bits([8]),
        (HYPERVISOR, _) => {
            entry.eax = if timers.tsc_khz.is_some() {
                TIMING
            } else {
                KVM_FEATURES
            };
            (entry.ebx, entry.ecx, entry.edx) = KVM_SIGNATURE;
        }
        (KVM_FEATURES, _) => {
            // CLOCKSOURCE, CLOCKSOURCE2, CLOCKSOURCE_STABLE.
            if !switches.kvmclock {
                entry.eax &= !bits([0, 3, 24]);
            }
            // MSI_EXT_DEST_ID.
            set(&mut entry.eax, 15, timers.wide_apic_ids);
        }
        _ => {}
    }
}

/// "KVMKVMKVM\0\0\0", by which a guest knows the leaves after it.
const KVM_SIGNATURE: (u32, u32, u32) = (
    u32::from_le_bytes(*b"KVMK"),
    u32::from_le_bytes(*b"VMKV"),
    u32::from_le_bytes(*b"M\0\0\0"),
);

fn set(register: &mut u32, bit: u32, value: bool) {
    *register = (*register & !(1 << bit)) | (u32::from(value) << bit);
}

/// An entry of a leaf with subleaves.
fn indexed(function: u32, index: u32) -> kvm_cpuid_entry2 {
    kvm_cpuid_entry2 {
        function,
        index,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        ..Default::default()
    }
}
