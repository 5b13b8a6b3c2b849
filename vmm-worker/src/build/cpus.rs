//! From the specification's CPU to vCPUs that know who they are.

use std::sync::Arc;

use kvm_bindings::{CpuId, kvm_cpuid_entry2};
use reeve_ipc::spec::{CpuidEntry, MachineSpec};

use super::BuildError;
use crate::arch::x86_64::cpuid::{CpuModel, HostTimers};
use crate::kvm::{System, Vcpu, Vm};

/// Makes every vCPU and tells it what it is.
pub(super) fn create(
    system: &System,
    vm: &Arc<Vm>,
    spec: &MachineSpec,
) -> Result<Vec<Vcpu>, BuildError> {
    let vcpus = (0..spec.vcpus)
        .map(|index| vm.create_vcpu(index))
        .collect::<Result<Vec<_>, _>>()?;
    let timers = HostTimers {
        tsc_deadline: system.has_tsc_deadline_timer(),
        tsc_khz: vcpus.first().and_then(Vcpu::tsc_khz),
        wide_apic_ids: vm.wide_apic_ids(),
    };
    let supported = supported(&spec.supported_cpuid)?;
    let mut model =
        CpuModel::new(supported, spec.cpu, timers, spec.vcpus).map_err(|_| BuildError::Cpuid)?;
    for vcpu in &vcpus {
        vcpu.set_cpuid(model.for_vcpu(vcpu.index()))?;
    }
    Ok(vcpus)
}

/// What the host supports, as KVM wants it back.
fn supported(entries: &[CpuidEntry]) -> Result<CpuId, BuildError> {
    let entries: Vec<_> = entries
        .iter()
        .map(|entry| {
            let [eax, ebx, ecx, edx] = entry.registers;
            kvm_cpuid_entry2 {
                function: entry.function,
                index: entry.index,
                flags: entry.flags,
                eax,
                ebx,
                ecx,
                edx,
                ..Default::default()
            }
        })
        .collect();
    CpuId::from_entries(&entries).map_err(|_| BuildError::Cpuid)
}
