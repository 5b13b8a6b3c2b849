//! What of a host's CPUID no guest sees: the supervisor tells its clients by it, and the worker applies it.
//!
//! Leaves and bits are those of Intel's SDM vol. 2 (CPUID) and AMD's APM vol. 3 appendix E. What a machine type may
//! choose is in [`CpuSwitches`].

use super::CpuSwitches;

const EAX: usize = 0;
const EBX: usize = 1;
const ECX: usize = 2;
const EDX: usize = 3;

/// A register with the bits at these positions, each below 32.
#[must_use]
pub const fn bits<const N: usize>(positions: [u32; N]) -> u32 {
    let mut mask = 0;
    let mut index = 0;
    while index < N {
        mask |= 1 << positions[index];
        index += 1;
    }
    mask
}

/// Bits that are cleared: leaf, subleaf, register, mask. Each group says why.
const HIDDEN: [(u32, u32, usize, u32); 12] = [
    // DTES64, MONITOR, DS-CPL, VMX, SMX, EIST, TM2, PDCM, DCA: debug store, power and thermal
    // management and the PMU are the host's; MONITOR would leave a guest idling in an exit; nested
    // guests are not offered.
    (1, 0, ECX, bits([2, 3, 4, 5, 6, 7, 8, 15, 18])),
    // DS, ACPI thermal control, TM, PBE: likewise the host's.
    (1, 0, EDX, bits([21, 22, 29, 31])),
    // All of thermal and power management but ARAT, which says that the timer never stops.
    (6, 0, EAX, !bits([2])),
    (6, 0, EBX, u32::MAX),
    (6, 0, ECX, u32::MAX),
    // SGX, PQM, MPX, PQE, Intel PT: need enclaves of the host, its cache allocation or its tracing;
    // MPX is gone from processors and kernels.
    (7, 0, EBX, bits([2, 12, 14, 15, 25])),
    // WAITPKG, TME, KL, bus lock detection, ENQCMD, SGX-LC, PKS: wait states and locks that KVM
    // polices, shared queues and keys of the host.
    (7, 0, ECX, bits([5, 13, 23, 24, 29, 30, 31])),
    // UINTR, PCONFIG, architectural LBR: state that is not saved.
    (7, 0, EDX, bits([5, 18, 19])),
    // SVM, SKINIT, WDT, IBS, LWP, core and NB and L2I and LLC performance counters, MWAITX: nested
    // guests, secure launch, the PMU, and another way to wait.
    (
        0x8000_0001,
        0,
        ECX,
        bits([2, 10, 12, 13, 15, 23, 24, 27, 28, 29]),
    ),
    // Everything of power management but the invariant TSC, which is a switch.
    (0x8000_0007, 0, EDX, !bits([8])),
    (0x8000_0007, 0, EBX, u32::MAX),
    // Hypercalls that only userspace could answer: MAP_GPA_RANGE, MIGRATION_CONTROL. The extended
    // destination ids are added below where they work.
    (0x4000_0001, 0, EAX, bits([15, 16, 17])),
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

/// Clears in the registers of a leaf (EAX to EDX) what no guest of a machine with those switches sees.
pub fn hide(function: u32, index: u32, registers: &mut [u32; 4], switches: CpuSwitches) {
    if EMPTY.contains(&function) {
        *registers = [0; 4];
        return;
    }
    for (leaf, subleaf, register, mask) in HIDDEN {
        if (leaf, subleaf) == (function, index) {
            registers[register] &= !mask;
        }
    }
    match (function, index) {
        (7, 0) if !switches.transactional_memory => {
            // HLE, RTM; TSX_FORCE_ABORT and RTM_ALWAYS_ABORT belong to them.
            registers[EBX] &= !bits([4, 11]);
            registers[EDX] &= !bits([11, 13]);
        }
        (0x8000_0007, _) if !switches.invariant_tsc => registers[EDX] &= !bits([8]),
        _ => {}
    }
}
