//! What a guest sees by CPUID: what KVM supports, less what a machine of ours cannot bear, with
//! each vCPU's own identity in it.
//!
//! The rule is to take KVM's word for what works here and never to detect a particular host. What is
//! taken away is in one table with reasons, [`reeve_ipc::spec::cpuid`], which the supervisor tells its
//! clients by; what a machine type may choose is in [`CpuSwitches`].
//! Leaves and bits are those of Intel's SDM vol. 2 (CPUID), AMD's APM vol. 3 appendix E, and Linux'
//! `Documentation/virt/kvm/x86/cpuid.rst`.

#[cfg(test)]
mod tests;
mod topology;

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};
use reeve_ipc::spec::cpuid::{bits, hide};
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
    let mut registers = [entry.eax, entry.ebx, entry.ecx, entry.edx];
    hide(entry.function, entry.index, &mut registers, switches);
    [entry.eax, entry.ebx, entry.ecx, entry.edx] = registers;
    match (entry.function, entry.index) {
        (1, _) => {
            let deadline = switches.tsc_deadline && timers.tsc_deadline;
            set(&mut entry.ecx, 24, deadline);
            // A hypervisor is present.
            set(&mut entry.ecx, 31, true);
        }
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
