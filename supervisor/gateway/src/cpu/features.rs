//! Features of x86 processors by libvirt's names: which bit of which leaf of CPUID says so.
//!
//! Bits by Intel's SDM vol. 2 (CPUID) and AMD's APM vol. 3, appendix E. Words come in the order in which documents
//! list features, bits by rising number.

use reeve_ipc::spec::CpuidEntry;

/// A register of a leaf: its number, its subleaf, which of EAX to EDX, and what its bits are called.
type Word = (u32, u32, usize, &'static [(u8, &'static str)]);

const EAX: usize = 0;
const EBX: usize = 1;
const ECX: usize = 2;
const EDX: usize = 3;

const WORDS: &[Word] = &[
    (
        1,
        0,
        EDX,
        &[
            (0, "fpu"),
            (1, "vme"),
            (2, "de"),
            (3, "pse"),
            (4, "tsc"),
            (5, "msr"),
            (6, "pae"),
            (7, "mce"),
            (8, "cx8"),
            (9, "apic"),
            (11, "sep"),
            (12, "mtrr"),
            (13, "pge"),
            (14, "mca"),
            (15, "cmov"),
            (16, "pat"),
            (17, "pse36"),
            (18, "pn"),
            (19, "clflush"),
            (21, "ds"),
            (22, "acpi"),
            (23, "mmx"),
            (24, "fxsr"),
            (25, "sse"),
            (26, "sse2"),
            (27, "ss"),
            (28, "ht"),
            (29, "tm"),
            (30, "ia64"),
            (31, "pbe"),
        ],
    ),
    (
        1,
        0,
        ECX,
        &[
            (0, "pni"),
            (1, "pclmuldq"),
            (2, "dtes64"),
            (3, "monitor"),
            (4, "ds_cpl"),
            (5, "vmx"),
            (6, "smx"),
            (7, "est"),
            (8, "tm2"),
            (9, "ssse3"),
            (10, "cid"),
            (12, "fma"),
            (13, "cx16"),
            (14, "xtpr"),
            (15, "pdcm"),
            (17, "pcid"),
            (18, "dca"),
            (19, "sse4.1"),
            (20, "sse4.2"),
            (21, "x2apic"),
            (22, "movbe"),
            (23, "popcnt"),
            (24, "tsc-deadline"),
            (25, "aes"),
            (26, "xsave"),
            (27, "osxsave"),
            (28, "avx"),
            (29, "f16c"),
            (30, "rdrand"),
            (31, "hypervisor"),
        ],
    ),
    (6, 0, EAX, &[(2, "arat")]),
    (
        7,
        0,
        EBX,
        &[
            (0, "fsgsbase"),
            (1, "tsc_adjust"),
            (3, "bmi1"),
            (4, "hle"),
            (5, "avx2"),
            (7, "smep"),
            (8, "bmi2"),
            (9, "erms"),
            (10, "invpcid"),
            (11, "rtm"),
            (12, "cmt"),
            (14, "mpx"),
            (16, "avx512f"),
            (17, "avx512dq"),
            (18, "rdseed"),
            (19, "adx"),
            (20, "smap"),
            (21, "avx512ifma"),
            (23, "clflushopt"),
            (24, "clwb"),
            (25, "intel-pt"),
            (26, "avx512pf"),
            (27, "avx512er"),
            (28, "avx512cd"),
            (29, "sha-ni"),
            (30, "avx512bw"),
            (31, "avx512vl"),
        ],
    ),
    (
        7,
        0,
        ECX,
        &[
            (1, "avx512vbmi"),
            (2, "umip"),
            (3, "pku"),
            (4, "ospke"),
            (5, "waitpkg"),
            (6, "avx512vbmi2"),
            (8, "gfni"),
            (9, "vaes"),
            (10, "vpclmulqdq"),
            (11, "avx512vnni"),
            (12, "avx512bitalg"),
            (14, "avx512-vpopcntdq"),
            (16, "la57"),
            (22, "rdpid"),
            (24, "bus-lock-detect"),
            (25, "cldemote"),
            (27, "movdiri"),
            (28, "movdir64b"),
            (31, "pks"),
        ],
    ),
    (
        7,
        0,
        EDX,
        &[
            (2, "avx512-4vnniw"),
            (3, "avx512-4fmaps"),
            (4, "fsrm"),
            (8, "avx512-vp2intersect"),
            (10, "md-clear"),
            (14, "serialize"),
            (16, "tsx-ldtrk"),
            (18, "pconfig"),
            (23, "avx512-fp16"),
            (26, "spec-ctrl"),
            (27, "stibp"),
            (29, "arch-capabilities"),
            (30, "core-capability"),
            (31, "ssbd"),
        ],
    ),
    (7, 1, EAX, &[(4, "avx-vnni"), (5, "avx512-bf16")]),
    (
        0xD,
        1,
        EAX,
        &[
            (0, "xsaveopt"),
            (1, "xsavec"),
            (2, "xgetbv1"),
            (3, "xsaves"),
        ],
    ),
    (
        0x8000_0001,
        0,
        EDX,
        &[
            (11, "syscall"),
            (20, "nx"),
            (22, "mmxext"),
            (25, "fxsr_opt"),
            (26, "pdpe1gb"),
            (27, "rdtscp"),
            (29, "lm"),
            (30, "3dnowext"),
            (31, "3dnow"),
        ],
    ),
    (
        0x8000_0001,
        0,
        ECX,
        &[
            (0, "lahf_lm"),
            (1, "cmp_legacy"),
            (2, "svm"),
            (3, "extapic"),
            (4, "cr8legacy"),
            (5, "abm"),
            (6, "sse4a"),
            (7, "misalignsse"),
            (8, "3dnowprefetch"),
            (9, "osvw"),
            (10, "ibs"),
            (11, "xop"),
            (12, "skinit"),
            (13, "wdt"),
            (15, "lwp"),
            (16, "fma4"),
            (17, "tce"),
            (19, "nodeid_msr"),
            (21, "tbm"),
            (22, "topoext"),
            (23, "perfctr_core"),
            (24, "perfctr_nb"),
        ],
    ),
    (0x8000_0007, 0, EDX, &[(8, "invtsc")]),
    (
        0x8000_0008,
        0,
        EBX,
        &[
            (0, "clzero"),
            (2, "xsaveerptr"),
            (9, "wbnoinvd"),
            (12, "ibpb"),
            (14, "ibrs"),
            (15, "amd-stibp"),
            (24, "amd-ssbd"),
            (25, "virt-ssbd"),
            (26, "amd-no-ssb"),
        ],
    ),
    (
        0x8000_000A,
        0,
        EDX,
        &[
            (0, "npt"),
            (1, "lbrv"),
            (2, "svm-lock"),
            (3, "nrip-save"),
            (4, "tsc-scale"),
            (5, "vmcb-clean"),
            (6, "flushbyasid"),
            (7, "decodeassists"),
            (10, "pause-filter"),
            (12, "pfthreshold"),
            (13, "avic"),
            (15, "v-vmsave-vmload"),
            (16, "vgif"),
            (28, "svme-addr-chk"),
        ],
    ),
];

/// Features that no leaf says: bits of `IA32_ARCH_CAPABILITIES` (0x10A) and `IA32_CORE_CAPABILITIES` (0xCF), which
/// models name.
const OF_MSRS: &[&str] = &[
    "rdctl-no",
    "ibrs-all",
    "rsba",
    "skip-l1dfl-vmentry",
    "mds-no",
    "pschange-mc-no",
    "tsx-ctrl",
    "taa-no",
    "split-lock-detect",
];

/// Room for every feature, a bit each.
const SETS: usize = 4;

/// A feature, by its place in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Feature(usize);

impl Feature {
    /// The feature of that name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        names().position(|known| known == name).map(Self)
    }

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        names().nth(self.0).unwrap_or_default()
    }
}

/// Every name, in the table's order.
fn names() -> impl Iterator<Item = &'static str> {
    let of_words = WORDS.iter().flat_map(|(.., bits)| bits.iter());
    of_words
        .map(|(_, name)| *name)
        .chain(OF_MSRS.iter().copied())
}

/// A set of features.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Features([u64; SETS]);

impl Features {
    /// Those that leaves of CPUID say.
    pub(crate) fn of(leaves: &[CpuidEntry]) -> Self {
        let mut set = Self::default();
        let mut place = 0;
        for (function, index, register, bits) in WORDS {
            let mut leaves = leaves.iter();
            let leaf = leaves.find(|leaf| (leaf.function, leaf.index) == (*function, *index));
            let word = leaf.and_then(|leaf| leaf.registers.get(*register));
            for (bit, _) in *bits {
                if word.is_some_and(|word| word >> bit & 1 == 1) {
                    set.insert(Feature(place));
                }
                place += 1;
            }
        }
        set
    }

    /// Those of a list of names with blanks between; what is no name is left out.
    pub(super) fn listed(names: &str) -> Self {
        let mut set = Self::default();
        for feature in names.split_ascii_whitespace().filter_map(Feature::named) {
            set.insert(feature);
        }
        set
    }

    pub(crate) fn insert(&mut self, feature: Feature) {
        if let Some(word) = self.0.get_mut(feature.0 / 64) {
            *word |= 1 << (feature.0 % 64);
        }
    }

    pub(crate) fn remove(&mut self, feature: Feature) {
        if let Some(word) = self.0.get_mut(feature.0 / 64) {
            *word &= !(1 << (feature.0 % 64));
        }
    }

    pub(crate) fn has(self, feature: Feature) -> bool {
        let word = self.0.get(feature.0 / 64);
        word.is_some_and(|word| word >> (feature.0 % 64) & 1 == 1)
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == [0; SETS]
    }

    fn with(self, other: Self, both: impl Fn(u64, u64) -> u64) -> Self {
        let mut words = self.0;
        for (word, other) in words.iter_mut().zip(other.0) {
            *word = both(*word, other);
        }
        Self(words)
    }

    /// Those of either.
    pub(crate) fn and(self, other: Self) -> Self {
        self.with(other, |one, other| one | other)
    }

    /// Those of both.
    pub(crate) fn common(self, other: Self) -> Self {
        self.with(other, |one, other| one & other)
    }

    /// Those of it that the other does not have.
    pub(crate) fn without(self, other: Self) -> Self {
        self.with(other, |one, other| one & !other)
    }

    /// How many.
    pub(super) fn count(self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    /// Each, in the table's order.
    pub(crate) fn iter(self) -> impl Iterator<Item = Feature> {
        (0..SETS * 64)
            .map(Feature)
            .filter(move |feature| self.has(*feature))
    }

    /// Those that a machine elsewhere may not be able to go on with, or that say what a system does.
    pub(crate) fn unmigratable() -> Self {
        Self::listed("invtsc")
    }

    /// Those that say what the running system has switched on, not what the processor can do.
    pub(crate) fn of_the_system() -> Self {
        Self::listed("osxsave ospke")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_there_once_and_has_room() {
        let mut all: Vec<_> = names().collect();
        assert!(all.len() <= SETS * 64, "{}", all.len());
        for (place, name) in all.iter().enumerate() {
            assert_eq!(Feature::named(name), Some(Feature(place)));
            assert_eq!(Feature(place).name(), *name);
        }
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn leaves_say_features() {
        let leaf = |function, index, registers| CpuidEntry {
            function,
            index,
            flags: 0,
            registers,
        };
        let leaves = [
            leaf(1, 0, [0, 0, 1 << 25, 1]),
            leaf(7, 1, [1 << 5, 0, 0, 0]),
            leaf(0x8000_0001, 0, [0, 0, 1, 1 << 29]),
        ];
        let names: Vec<_> = Features::of(&leaves).iter().map(Feature::name).collect();
        assert_eq!(names, ["fpu", "aes", "avx512-bf16", "lm", "lahf_lm"]);
    }
}
