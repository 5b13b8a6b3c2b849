//! The identity of each vCPU: one package, one core a vCPU, one thread a core.
//!
//! A vCPU's APIC id is its index, so ids have no holes and the MADT can say the same.

use kvm_bindings::kvm_cpuid_entry2;

use super::{indexed, set};

/// Extended topology, and its successor with the same form.
const EXTENDED_TOPOLOGY: [u32; 2] = [0xB, 0x1F];
/// Leaf 4 and its AMD form: one entry for each cache.
const CACHES: [u32; 2] = [4, 0x8000_001D];

/// Level types of the extended topology leaves (SDM vol. 2, CPUID leaf 0BH).
const LEVEL_THREAD: u32 = 1;
const LEVEL_CORE: u32 = 2;

/// Bit in ECX of leaf 0x80000001, which only AMD has: leaf 0x8000001E is there.
const TOPOLOGY_EXTENSIONS: u32 = 1 << 22;

/// How the vCPUs of one machine are arranged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Topology {
    vcpus: u32,
    /// Bits of an APIC id that tell cores of a package apart.
    core_bits: u32,
    /// Highest basic leaf of this processor.
    max_basic: u32,
}

impl Topology {
    pub(super) fn new(vcpus: u32, cpuid: &[kvm_cpuid_entry2]) -> Self {
        let max_basic = cpuid
            .iter()
            .find(|entry| entry.function == 0)
            .map_or(0, |entry| entry.eax);
        Self {
            vcpus,
            core_bits: vcpus.next_power_of_two().trailing_zeros(),
            max_basic,
        }
    }

    /// Whether the entries of a leaf are replaced by [`Self::entries`].
    pub(super) fn describes(leaf: u32) -> bool {
        EXTENDED_TOPOLOGY.contains(&leaf)
    }

    /// The extended topology leaves, as far as the processor has them.
    pub(super) fn entries(self) -> impl Iterator<Item = kvm_cpuid_entry2> {
        EXTENDED_TOPOLOGY
            .into_iter()
            .filter(move |leaf| *leaf <= self.max_basic)
            .flat_map(move |leaf| {
                let thread = kvm_cpuid_entry2 {
                    eax: 0,
                    ebx: 1,
                    ecx: LEVEL_THREAD << 8,
                    ..indexed(leaf, 0)
                };
                let core = kvm_cpuid_entry2 {
                    eax: self.core_bits,
                    ebx: self.vcpus & 0xFFFF,
                    ecx: (LEVEL_CORE << 8) | 1,
                    ..indexed(leaf, 1)
                };
                let end = kvm_cpuid_entry2 {
                    ecx: 2,
                    ..indexed(leaf, 2)
                };
                [thread, core, end]
            })
    }

    /// Puts the identity of vCPU `index` into an entry that has a place for it.
    pub(super) fn stamp(self, entry: &mut kvm_cpuid_entry2, index: u32) {
        match entry.function {
            1 => {
                let count = self.vcpus.min(255);
                entry.ebx = (entry.ebx & 0x0000_FFFF) | (count << 16) | ((index & 0xFF) << 24);
                // HTT: the count above is valid.
                set(&mut entry.edx, 28, self.vcpus > 1);
            }
            leaf if CACHES.contains(&leaf) => self.stamp_cache(entry),
            leaf if EXTENDED_TOPOLOGY.contains(&leaf) => entry.edx = index,
            0x8000_0001 => {
                // CmpLegacy: the count in leaf 1 is one of cores, not threads.
                let amd = entry.ecx & TOPOLOGY_EXTENSIONS != 0;
                set(&mut entry.ecx, 1, self.vcpus > 1 && amd);
            }
            0x8000_0008 => {
                // NC and ApicIdSize; the rest of ECX is a feature of the PMU's TSC and is dropped.
                entry.ecx = (self.vcpus - 1).min(255) | (self.core_bits.min(15) << 12);
            }
            0x8000_001E => {
                entry.eax = index;
                // One thread a core; the id of a core has eight bits.
                entry.ebx = index & 0xFF;
                entry.ecx = 0;
                entry.edx = 0;
            }
            _ => {}
        }
    }

    /// First and second level caches belong to a core, the third to the package.
    fn stamp_cache(self, entry: &mut kvm_cpuid_entry2) {
        const TYPE: u32 = 0x1F;
        const SHARING: u32 = 0xFFF << 14;
        const CORES: u32 = 0x3F << 26;
        if entry.eax & TYPE == 0 {
            return;
        }
        let level = (entry.eax >> 5) & 7;
        let sharing = if level >= 3 {
            (1 << self.core_bits) - 1
        } else {
            0
        };
        entry.eax &= !SHARING;
        entry.eax |= (sharing << 14) & SHARING;
        if entry.function == 4 {
            let cores = ((1 << self.core_bits) - 1).min(0x3F);
            entry.eax = (entry.eax & !CORES) | (cores << 26);
        }
    }
}
