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
pub(super) const MISC_ENABLE: u32 = 0x1A0;
/// Fast string operations: without it Linux on Intel drops `rep movs`. KVM shows the bits for the
/// lack of branch trace store and precise events by itself.
pub(super) const MISC_ENABLE_BOOT: u64 = 1 << 0;

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

/// The MSRs of every vCPU at boot. A KVM that knows neither boots all we have met.
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

impl From<BootMsr> for kvm_msr_entry {
    fn from(msr: BootMsr) -> Self {
        Self {
            index: msr.index,
            data: msr.value,
            ..Default::default()
        }
    }
}
