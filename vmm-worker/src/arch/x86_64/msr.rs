//! MSRs that firmware would have set before a kernel starts.
//!
//! Few: KVM's power-on values are right for the rest. What a KVM does not know is left out if a
//! kernel can do without it.

use kvm_bindings::kvm_msr_entry;

/// `IA32_MTRR_DEF_TYPE`.
const MTRR_DEF_TYPE: u32 = 0x2FF;
/// MTRRs on, and write-back where no range says otherwise.
const MTRR_ENABLED_WRITE_BACK: u64 = (1 << 11) | 6;
/// `IA32_MISC_ENABLE`.
const MISC_ENABLE: u32 = 0x1A0;
/// Fast string operations: without it Linux on Intel drops `rep movs`. The other bits are KVM's
/// own power-on value: no branch trace store, no precise events.
const MISC_ENABLE_BOOT: u64 = (1 << 0) | (1 << 11) | (1 << 12);

/// One MSR to set at boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootMsr {
    /// Its index.
    pub index: u32,
    /// Its value.
    pub value: u64,
    /// Whether a kernel cannot be started without it.
    pub required: bool,
}

/// The MSRs of every vCPU at boot.
pub const BOOT_MSRS: [BootMsr; 2] = [
    BootMsr {
        index: MTRR_DEF_TYPE,
        value: MTRR_ENABLED_WRITE_BACK,
        required: false,
    },
    BootMsr {
        index: MISC_ENABLE,
        value: MISC_ENABLE_BOOT,
        required: false,
    },
];

/// `IA32_TIME_STAMP_COUNTER`. Goes on through a reset, as on a real machine; writing it vCPU by vCPU
/// would tear them apart.
const TSC: u32 = 0x10;
/// `IA32_APICBASE`, which is part of the special registers.
const APIC_BASE: u32 = 0x1B;
/// `IA32_TSC_ADJUST`: writing it moves the TSC.
const TSC_ADJUST: u32 = 0x3B;

/// Whether an MSR is part of the state that a reset puts back.
#[must_use]
pub fn is_reset_state(index: u32) -> bool {
    !matches!(index, TSC | APIC_BASE | TSC_ADJUST)
}

impl From<BootMsr> for kvm_msr_entry {
    fn from(msr: BootMsr) -> Self {
        Self {
            index: msr.index,
            data: msr.value,
            ..Default::default()
        }
    }
}
