//! What the host's KVM can show a guest by CPUID: asked once, sent with every launch.
//!
//! `KVM_GET_SUPPORTED_CPUID` executes CPUID for each leaf; on a host that is itself a guest each of
//! them traps, and the answer takes 0.26 to 0.5 ms, a third of a whole start. It is the same for as
//! long as the host runs, so it is asked on a thread of its own when the host is opened, and the
//! first start waits for it only if it comes before.

use std::arch::x86_64::{__cpuid, __cpuid_count};
use std::sync::{Arc, OnceLock};
use std::thread;

use kvm_ioctls::{Cap, Kvm};
use reeve_ipc::api::host::{self, HostDriver};
use reeve_ipc::spec::cpuid::hide;
use reeve_ipc::spec::{CpuSwitches, CpuidEntry, MAX_CPUID_ENTRIES};
use rustix::io::Errno;

/// The answer, once there is one.
#[derive(Debug, Clone, Default)]
pub struct HostCpuid(Arc<OnceLock<Result<Vec<CpuidEntry>, Errno>>>);

impl HostCpuid {
    /// Begins to ask. Where the thread cannot be made the first start asks.
    #[must_use]
    pub fn ask_early() -> Self {
        let cpuid = Self::default();
        let early = cpuid.clone();
        let _ = thread::Builder::new()
            .name("cpuid".to_owned())
            .stack_size(64 << 10)
            .spawn(move || {
                early.0.get_or_init(ask);
            });
        cpuid
    }

    /// The leaves. A refusal is not kept: the administrator may have mended it.
    pub(crate) fn entries(&self) -> Result<Vec<CpuidEntry>, Errno> {
        match self.0.get_or_init(ask) {
            Ok(entries) => Ok(entries.clone()),
            Err(_) => ask(),
        }
    }

    /// What clients are told: the host's own leaves, and what a guest finds by the switches of a definition that
    /// says nothing of them. Machines that only look like some have what the host has.
    pub(crate) fn told(&self, driver: HostDriver) -> host::HostCpuid {
        let host = own();
        let (mut guest, deadline) = match driver {
            HostDriver::Test => (host.clone(), true),
            HostDriver::Kvm => (self.entries().unwrap_or_default(), deadline_timer()),
        };
        guest.retain(|leaf| LEAVES.contains(&(leaf.function, leaf.index)));
        let switches = CpuSwitches::default();
        for leaf in &mut guest {
            hide(leaf.function, leaf.index, &mut leaf.registers, switches);
            if leaf.function == 1 {
                let [_, _, ecx, _] = &mut leaf.registers;
                // As the worker says of the deadline timer, and of itself.
                let wanted = u32::from(deadline && switches.tsc_deadline);
                *ecx = *ecx & !(1 << 24) | wanted << 24 | 1 << 31;
            }
        }
        host::HostCpuid { host, guest }
    }
}

/// The leaves and subleaves that tell of features, vendors and sizes.
const LEAVES: [(u32, u32); 11] = [
    (0, 0),
    (1, 0),
    (6, 0),
    (7, 0),
    (7, 1),
    (0xD, 1),
    (0x8000_0000, 0),
    (0x8000_0001, 0),
    (0x8000_0007, 0),
    (0x8000_0008, 0),
    (0x8000_000A, 0),
];

/// What the CPU that this runs on says of itself; a leaf beyond its last is left out.
fn own() -> Vec<CpuidEntry> {
    let last = |first| __cpuid(first).eax;
    let (basic, extended) = (last(0), last(0x8000_0000));
    let leaves = LEAVES.into_iter().filter(|(function, _)| {
        let last = if *function < 0x8000_0000 {
            basic
        } else {
            extended
        };
        *function <= last
    });
    leaves
        .map(|(function, index)| {
            let told = __cpuid_count(function, index);
            CpuidEntry {
                function,
                index,
                flags: 0,
                registers: [told.eax, told.ebx, told.ecx, told.edx],
            }
        })
        .collect()
}

/// Whether local APICs have a timer by the TSC, which KVM says apart from CPUID.
fn deadline_timer() -> bool {
    Kvm::new().is_ok_and(|kvm| kvm.check_extension(Cap::TscDeadlineTimer))
}

fn ask() -> Result<Vec<CpuidEntry>, Errno> {
    let errno = |error: kvm_ioctls::Error| Errno::from_raw_os_error(error.errno());
    let kvm = Kvm::new().map_err(errno)?;
    let supported = kvm.get_supported_cpuid(MAX_CPUID_ENTRIES).map_err(errno)?;
    Ok(supported
        .as_slice()
        .iter()
        .map(|leaf| CpuidEntry {
            function: leaf.function,
            index: leaf.index,
            flags: leaf.flags,
            registers: [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx],
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_told_of_what_its_worker_shows_it() {
        let told = HostCpuid::default().told(HostDriver::Test);
        let leaf = |leaves: &[CpuidEntry], function| {
            let mut leaves = leaves.iter();
            leaves
                .find(|leaf| leaf.function == function)
                .expect("a leaf")
                .registers
        };
        let ([_, _, host, _], [_, _, guest, _]) = (leaf(&told.host, 1), leaf(&told.guest, 1));
        // VMX and MONITOR are never a guest's, and it always has a hypervisor.
        assert_eq!(guest & (1 << 3 | 1 << 5), 0);
        assert_ne!(guest & 1 << 31, 0);
        // SSE3 is whatever it is.
        assert_eq!(guest & 1, host & 1);
        assert_eq!(leaf(&told.host, 0), leaf(&told.guest, 0));
    }
}
