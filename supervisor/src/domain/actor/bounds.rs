//! What of a definition binds and limits its machine while it runs: changed, copied, compared. Each takes the structures
//! apart by name, so that a bound that is new is forgotten by none.

use reeve_ipc::api::call::TuningChange;
use reeve_ipc::api::event::MAX_TUNED_BYTES;
use reeve_ipc::model::{CpuSet, Domain, ResourceLimits, Tuning, VcpuPin};

/// Has a definition say of what binds and limits its machine what `other` does. What its guest is asked to make do
/// with is not of that.
pub(super) fn bind_as(domain: &mut Domain, other: &Domain) {
    let Tuning {
        current_memory: _,
        emulator_cpus,
        vcpu_quota,
        block,
        memory_nodes,
    } = &other.tuning;
    let tuning = &mut domain.tuning;
    tuning.emulator_cpus.clone_from(emulator_cpus);
    tuning.vcpu_quota = *vcpu_quota;
    tuning.block.clone_from(block);
    tuning.memory_nodes.clone_from(memory_nodes);
    domain.pinning.clone_from(&other.pinning);
    domain.limits = other.limits;
}

pub(super) fn apply(domain: &mut Domain, change: &TuningChange) {
    match change {
        TuningChange::VcpuCpus { vcpu, cpus } => {
            domain.pinning.retain(|pin| pin.vcpu != *vcpu);
            let pin = cpus.clone().map(|cpus| VcpuPin { vcpu: *vcpu, cpus });
            domain.pinning.extend(pin);
            domain.pinning.sort_unstable_by_key(|pin| pin.vcpu);
        }
        TuningChange::EmulatorCpus(cpus) => domain.tuning.emulator_cpus.clone_from(cpus),
        TuningChange::MemoryLimit(limit) => domain.limits.memory = *limit,
        TuningChange::MemorySoftLimit(limit) => domain.limits.memory_soft = *limit,
        TuningChange::MemoryAndSwapLimit(limit) => domain.limits.memory_and_swap = *limit,
        TuningChange::CpuPercent(percent) => domain.limits.cpu_percent = *percent,
        TuningChange::VcpuPercent(percent) => domain.limits.vcpu_percent = *percent,
        TuningChange::CpuWeight(weight) => domain.limits.cpu_weight = *weight,
        TuningChange::VcpuQuota(quota) => domain.tuning.vcpu_quota = *quota,
        TuningChange::Block(block) => domain.tuning.block.clone_from(block),
        TuningChange::MemoryNodes(nodes) => domain.tuning.memory_nodes.clone_from(nodes),
    }
}

/// What makes `after` of `before`: each kind once, of a vCPU's CPUs one for each vCPU. Those of which all together
/// would take more than [`MAX_TUNED_BYTES`] are left out.
pub(super) fn differences(before: &Domain, after: &Domain) -> Vec<TuningChange> {
    fn other<T: PartialEq + Clone>(
        before: &T,
        after: &T,
        change: impl FnOnce(T) -> TuningChange,
    ) -> Option<TuningChange> {
        (before != after).then(|| change(after.clone()))
    }
    let ResourceLimits {
        memory,
        memory_soft,
        memory_and_swap,
        cpu_percent,
        cpu_weight,
        // Of a machine that runs it is never other.
        pids: _,
        vcpu_percent,
    } = &after.limits;
    let Tuning {
        current_memory: _,
        emulator_cpus,
        vcpu_quota,
        block,
        memory_nodes,
    } = &after.tuning;
    let (limits, tuning) = (&before.limits, &before.tuning);
    let single = [
        other(&limits.memory, memory, TuningChange::MemoryLimit),
        other(
            &limits.memory_soft,
            memory_soft,
            TuningChange::MemorySoftLimit,
        ),
        other(
            &limits.memory_and_swap,
            memory_and_swap,
            TuningChange::MemoryAndSwapLimit,
        ),
        other(&limits.cpu_percent, cpu_percent, TuningChange::CpuPercent),
        other(
            &limits.vcpu_percent,
            vcpu_percent,
            TuningChange::VcpuPercent,
        ),
        other(&limits.cpu_weight, cpu_weight, TuningChange::CpuWeight),
        other(&tuning.vcpu_quota, vcpu_quota, TuningChange::VcpuQuota),
        other(
            &tuning.emulator_cpus,
            emulator_cpus,
            TuningChange::EmulatorCpus,
        ),
        other(
            &tuning.memory_nodes,
            memory_nodes,
            TuningChange::MemoryNodes,
        ),
        other(&tuning.block, block, TuningChange::Block),
    ];
    let mut room = MAX_TUNED_BYTES;
    let changes = pins(before, after).chain(single.into_iter().flatten());
    let fitting = changes.filter(|change| match room.checked_sub(change.bytes()) {
        Some(left) => {
            room = left;
            true
        }
        None => false,
    });
    fitting.collect()
}

/// The vCPUs that run elsewhere. Both definitions have their pins by number.
fn pins<'a>(before: &'a Domain, after: &'a Domain) -> impl Iterator<Item = TuningChange> + 'a {
    fn find(domain: &Domain, vcpu: u32) -> Option<&CpuSet> {
        let found = domain.pinning.iter().find(|pin| pin.vcpu == vcpu);
        found.map(|pin| &pin.cpus)
    }
    let all = before.pinning.iter().chain(&after.pinning);
    let vcpus: std::collections::BTreeSet<u32> = all.map(|pin| pin.vcpu).collect();
    vcpus.into_iter().filter_map(|vcpu| {
        let now = find(after, vcpu);
        let cpus = now.cloned();
        (find(before, vcpu) != now).then_some(TuningChange::VcpuCpus { vcpu, cpus })
    })
}
