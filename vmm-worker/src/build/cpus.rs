//! From the specification's CPU to vCPUs that know who they are, at the start and while the machine runs.

use std::sync::Arc;

use kvm_bindings::{CpuId, kvm_cpuid_entry2};
use reeve_ipc::spec::{CpuidEntry, MachineSpec};

use super::BuildError;
use crate::arch::x86_64::cpuid::{CpuModel, HostTimers};
use crate::kvm::{System, Vcpu, Vm};
use crate::state::Tsc;

/// What KVM takes for the same frequency: two parts in 8000 (its `tsc_tolerance_ppm`).
const TSC_TOLERANCE: u32 = 4000;

/// What makes a machine's vCPUs: those of its start, and those that come later.
#[derive(Debug)]
pub struct CpuWorkshop {
    vm: Arc<Vm>,
    model: CpuModel,
    /// The guest's and the host's frequency of the TSC in kHz, where they are not the same.
    scaled: Option<(u32, u32)>,
}

impl CpuWorkshop {
    /// Whether a vCPU that comes later does not have the others' time-stamp counter by itself: it is to be
    /// told one of theirs.
    #[must_use]
    pub fn needs_tsc(&self) -> bool {
        self.scaled.is_some()
    }

    /// Makes the vCPU `index` of a machine that runs, where the counter of another one is `tsc`: it waits
    /// for INIT and SIPI.
    ///
    /// # Errors
    /// KVM refuses.
    pub fn make(&mut self, index: u32, tsc: Option<Tsc>) -> Result<Vcpu, BuildError> {
        let vcpu = self.vm.create_vcpu(index)?;
        if let Some((khz, host_khz)) = self.scaled {
            set_tsc_khz(std::slice::from_ref(&vcpu), khz, host_khz)?;
        }
        vcpu.set_cpuid(self.model.for_vcpu(index))?;
        if let Some(tsc) = tsc {
            vcpu.follow_tsc(tsc)?;
        }
        // KVM looks for the destinations of messages in a map of the local APICs, in which one that is made
        // later is not before any of them is written to.
        vcpu.reset()?;
        vcpu.prepare_boot()?;
        Ok(vcpu)
    }
}

/// Makes the vCPUs `present` and tells each what it is. Their TSC runs at `tsc_khz`, or at the host's
/// frequency; gives the frequency, 0 if it is not known, and what makes more of them.
pub(super) fn create(
    system: &System,
    vm: &Arc<Vm>,
    spec: &MachineSpec,
    present: &[u32],
    tsc_khz: Option<u32>,
) -> Result<(Vec<Vcpu>, u32, CpuWorkshop), BuildError> {
    let vcpus = present
        .iter()
        .map(|index| vm.create_vcpu(*index))
        .collect::<Result<Vec<_>, _>>()?;
    let host_khz = vcpus.first().and_then(Vcpu::tsc_khz);
    let mut scaled = None;
    if let (Some(khz), Some(host_khz)) = (tsc_khz, host_khz) {
        set_tsc_khz(&vcpus, khz, host_khz)?;
        scaled = (khz != host_khz).then_some((khz, host_khz));
    }
    let tsc_khz = tsc_khz.or(host_khz);
    let timers = HostTimers {
        tsc_deadline: system.has_tsc_deadline_timer(),
        tsc_khz,
        wide_apic_ids: vm.wide_apic_ids(),
    };
    let supported = supported(&spec.supported_cpuid)?;
    let mut model = CpuModel::new(supported, spec.cpu, timers, spec.max_vcpus)
        .map_err(|_| BuildError::Cpuid)?;
    for vcpu in &vcpus {
        vcpu.set_cpuid(model.for_vcpu(vcpu.index()))?;
    }
    let workshop = CpuWorkshop {
        vm: Arc::clone(vm),
        model,
        scaled,
    };
    Ok((vcpus, tsc_khz.unwrap_or(0), workshop))
}

/// Makes every TSC run at `khz` where the host's runs at `host_khz`.
fn set_tsc_khz(vcpus: &[Vcpu], khz: u32, host_khz: u32) -> Result<(), BuildError> {
    if khz == host_khz {
        return Ok(());
    }
    for vcpu in vcpus {
        if let Err(error) = vcpu.set_tsc_khz(khz) {
            // A host measures its own counter a little differently at each start.
            if khz.abs_diff(host_khz) > host_khz / TSC_TOLERANCE {
                tracing::error!("{error}");
                return Err(BuildError::TscFrequency { khz, host_khz });
            }
        }
    }
    Ok(())
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
