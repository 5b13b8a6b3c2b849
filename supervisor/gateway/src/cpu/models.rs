//! The models of processors by libvirt's names: what each has beyond another, by what its maker says of it.
//!
//! Written from the makers' own tables of CPUID (Intel SDM vol. 2, AMD APM vol. 3 and the processors' revision
//! guides); the names, and what differs of a model with `-IBRS`, `-IBPB` and `-noTSX`, are libvirt's and QEMU's, so
//! that what a client computes for another host means the same here. In libvirt's order, which decides between
//! models that fit as well.

use super::Vendor;

/// A model.
#[derive(Debug, Clone, Copy)]
pub(super) struct Model {
    pub(super) name: &'static str,
    /// Whose processor it is, where it is of one maker.
    pub(super) vendor: Option<Vendor>,
    /// Families and models of the processors that are it.
    pub(super) signatures: &'static [(u32, u32)],
    /// The model that it has all of.
    pub(super) base: Option<&'static str>,
    /// What it has beyond that, by name.
    pub(super) with: &'static str,
    /// What it does not have of that.
    pub(super) without: &'static str,
    /// What processors of it have, and no guest of that model: said to be off wherever it is named.
    pub(super) gone: &'static str,
    /// For what it is chosen; it can be named for any.
    pub(super) chosen: Chosen,
}

/// For what a model is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chosen {
    /// For any processor.
    Always,
    /// For one of a host's own.
    ForHosts,
    /// For none.
    Never,
}

const PLAIN: Model = Model {
    name: "",
    vendor: None,
    signatures: &[],
    base: None,
    with: "",
    without: "",
    gone: "",
    chosen: Chosen::Always,
};

/// All of them.
pub(super) const MODELS: &[Model] = &[
    Model {
        name: "486",
        with: "fpu vme pse",
        ..PLAIN
    },
    Model {
        name: "pentium",
        base: Some("486"),
        with: "de tsc msr mce cx8 mmx",
        ..PLAIN
    },
    Model {
        name: "pentium2",
        base: Some("pentium"),
        with: "pae sep mtrr pge mca cmov pat pse36 fxsr",
        ..PLAIN
    },
    Model {
        name: "pentium3",
        base: Some("pentium2"),
        with: "sse",
        ..PLAIN
    },
    Model {
        name: "pentiumpro",
        with: "fpu de pse tsc msr pae mce cx8 apic sep pge cmov pat mmx fxsr sse sse2",
        ..PLAIN
    },
    Model {
        name: "coreduo",
        vendor: Some(Vendor::Intel),
        signatures: &[(6, 14)],
        with: "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat clflush \
        mmx fxsr sse sse2 pni monitor nx",
        ..PLAIN
    },
    Model {
        name: "n270",
        vendor: Some(Vendor::Intel),
        signatures: &[(6, 28)],
        base: Some("coreduo"),
        with: "ssse3",
        ..PLAIN
    },
    Model {
        name: "core2duo",
        vendor: Some(Vendor::Intel),
        base: Some("n270"),
        with: "pse36 syscall lm",
        ..PLAIN
    },
    Model {
        name: "qemu32",
        with: "fpu de pse tsc msr pae mce cx8 apic sep pge cmov pat mmx fxsr sse sse2 pni",
        ..PLAIN
    },
    Model {
        name: "kvm32",
        with: "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush \
        mmx fxsr sse sse2 pni",
        ..PLAIN
    },
    Model {
        name: "cpu64-rhel5",
        base: Some("kvm32"),
        with: "syscall nx lm",
        chosen: Chosen::Never,
        ..PLAIN
    },
    Model {
        name: "cpu64-rhel6",
        base: Some("kvm32"),
        with: "cx16 syscall nx lm lahf_lm",
        chosen: Chosen::Never,
        ..PLAIN
    },
    Model {
        name: "qemu64",
        base: Some("kvm64"),
        with: "svm",
        ..PLAIN
    },
    Model {
        name: "kvm64",
        base: Some("kvm32"),
        with: "cx16 syscall nx lm",
        ..PLAIN
    },
    Model {
        name: "Conroe",
        vendor: Some(Vendor::Intel),
        signatures: &[(6, 15), (6, 22)],
        base: Some("kvm64"),
        with: "ssse3 lahf_lm",
        without: "cx16",
        ..PLAIN
    },
    Model {
        name: "Penryn",
        vendor: Some(Vendor::Intel),
        signatures: &[(6, 23), (6, 29)],
        base: Some("Conroe"),
        with: "cx16 sse4.1",
        ..PLAIN
    },
    Model {
        name: "Nehalem",
        vendor: Some(Vendor::Intel),
        signatures: &[(6, 26), (6, 30), (6, 31), (6, 46)],
        base: Some("Penryn"),
        with: "sse4.2 popcnt",
        ..PLAIN
    },
    Model {
        name: "Nehalem-IBRS",
        vendor: Some(Vendor::Intel),
        signatures: &[(6, 26), (6, 30), (6, 31), (6, 46)],
        base: Some("Nehalem"),
        with: "spec-ctrl",
        ..PLAIN
    },
    Model {
        name: "Westmere",
        vendor: Some(Vendor::Intel),
        signatures: &[(6, 37), (6, 44), (6, 47)],
        base: Some("Nehalem"),
        with: "aes",
        ..PLAIN
    },
    Model {
        name: "Westmere-IBRS",
        vendor: Some(Vendor::Intel),
        signatures: &[(6, 37), (6, 44), (6, 47)],
        base: Some("Westmere"),
        with: "spec-ctrl",
        ..PLAIN
    },
    Model {
        name: "SandyBridge",
        vendor: Some(Vendor::Intel),
        signatures: &[(6, 42), (6, 45)],
        base: Some("Westmere"),
        with: "pclmuldq x2apic tsc-deadline xsave avx rdtscp",
        ..PLAIN
    },
    Model {
        name: "SandyBridge-IBRS",
        vendor: Some(Vendor::Intel),
        signatures: &[(6, 42), (6, 45)],
        base: Some("SandyBridge"),
        with: "spec-ctrl",
        ..PLAIN
    },
    Model {
        name: "IvyBridge",
        vendor: Some(Vendor::Intel),
        signatures: &[(6, 58), (6, 62)],
        base: Some("SandyBridge"),
        with: "vme f16c rdrand fsgsbase smep erms",
        ..PLAIN
    },
    Model {
        name: "IvyBridge-IBRS",
        vendor: Some(Vendor::Intel),
        signatures: &[(6, 58), (6, 62)],
        base: Some("IvyBridge"),
        with: "spec-ctrl",
        ..PLAIN
    },
    Model {
        name: "Haswell-noTSX",
        vendor: Some(Vendor::Intel),
        signatures: &[(6, 60), (6, 63), (6, 69), (6, 70)],
        base: Some("SandyBridge"),
        with: "fma pcid movbe fsgsbase bmi1 avx2 smep bmi2 erms invpcid",
        ..PLAIN
    },
    Model {
        name: "Haswell-noTSX-IBRS",
        vendor: Some(Vendor::Intel),
        signatures: &[(6, 60), (6, 63), (6, 69), (6, 70)],
        base: Some("Haswell-noTSX"),
        with: "spec-ctrl",
        ..PLAIN
    },
    Model {
        name: "Haswell",
        vendor: Some(Vendor::Intel),
        signatures: &[(6, 60), (6, 63), (6, 69), (6, 70)],
        base: Some("Haswell-noTSX"),
        with: "hle rtm",
        ..PLAIN
    },
    Model {
        name: "Haswell-IBRS",
        vendor: Some(Vendor::Intel),
        signatures: &[(6, 60), (6, 63), (6, 69), (6, 70)],
        base: Some("Haswell"),
        with: "spec-ctrl",
        ..PLAIN
    },
    Model {
        name: "Broadwell-noTSX",
        vendor: Some(Vendor::Intel),
        signatures: &[(6, 61), (6, 71), (6, 79), (6, 86)],
        base: Some("Haswell-noTSX"),
        with: "rdseed adx smap 3dnowprefetch",
        ..PLAIN
    },
    Model {
        name: "Broadwell-noTSX-IBRS",
        vendor: Some(Vendor::Intel),
        signatures: &[(6, 61), (6, 71), (6, 79), (6, 86)],
        base: Some("Broadwell-noTSX"),
        with: "spec-ctrl",
        ..PLAIN
    },
    Model {
        name: "Broadwell",
        vendor: Some(Vendor::Intel),
        signatures: &[(6, 61), (6, 71), (6, 79), (6, 86)],
        base: Some("Haswell"),
        with: "rdseed adx smap 3dnowprefetch",
        ..PLAIN
    },
    Model {
        name: "Broadwell-IBRS",
        vendor: Some(Vendor::Intel),
        signatures: &[(6, 61), (6, 71), (6, 79), (6, 86)],
        base: Some("Broadwell"),
        with: "spec-ctrl",
        ..PLAIN
    },
    Model {
        name: "Skylake-Client",
        vendor: Some(Vendor::Intel),
        signatures: &[(6, 78), (6, 94), (6, 142), (6, 158)],
        base: Some("Broadwell"),
        with: "vme f16c rdrand abm arat xsaveopt xsavec xgetbv1 mpx",
        ..PLAIN
    },
    Model {
        name: "Skylake-Client-IBRS",
        vendor: Some(Vendor::Intel),
        signatures: &[(6, 78), (6, 94), (6, 142), (6, 158)],
        base: Some("Skylake-Client"),
        with: "spec-ctrl",
        ..PLAIN
    },
    Model {
        name: "Skylake-Client-noTSX-IBRS",
        vendor: Some(Vendor::Intel),
        signatures: &[(6, 78), (6, 94), (6, 142), (6, 158)],
        base: Some("Skylake-Client-IBRS"),
        without: "hle rtm",
        chosen: Chosen::ForHosts,
        ..PLAIN
    },
    Model {
        name: "Skylake-Server",
        vendor: Some(Vendor::Intel),
        signatures: &[(6, 85)],
        base: Some("Skylake-Client"),
        with: "avx512f avx512dq clwb avx512cd avx512bw avx512vl pdpe1gb",
        ..PLAIN
    },
    Model {
        name: "Skylake-Server-IBRS",
        vendor: Some(Vendor::Intel),
        signatures: &[(6, 85)],
        base: Some("Skylake-Server"),
        with: "spec-ctrl",
        ..PLAIN
    },
    Model {
        name: "Skylake-Server-noTSX-IBRS",
        vendor: Some(Vendor::Intel),
        signatures: &[(6, 85)],
        base: Some("Skylake-Server-IBRS"),
        without: "hle rtm",
        chosen: Chosen::ForHosts,
        ..PLAIN
    },
    Model {
        name: "Cascadelake-Server",
        vendor: Some(Vendor::Intel),
        signatures: &[(6, 85)],
        base: Some("Skylake-Server"),
        with: "clflushopt avx512vnni spec-ctrl ssbd",
        ..PLAIN
    },
    Model {
        name: "Cascadelake-Server-noTSX",
        vendor: Some(Vendor::Intel),
        signatures: &[(6, 85)],
        base: Some("Cascadelake-Server"),
        without: "hle rtm",
        chosen: Chosen::ForHosts,
        ..PLAIN
    },
    Model {
        name: "Icelake-Client",
        vendor: Some(Vendor::Intel),
        signatures: &[(6, 125), (6, 126)],
        base: Some("Skylake-Client"),
        with: "avx512vbmi umip pku avx512vbmi2 gfni vaes vpclmulqdq avx512vnni avx512bitalg \
        avx512-vpopcntdq wbnoinvd spec-ctrl ssbd",
        gone: "intel-pt",
        ..PLAIN
    },
    Model {
        name: "Icelake-Client-noTSX",
        vendor: Some(Vendor::Intel),
        signatures: &[(6, 125), (6, 126)],
        base: Some("Icelake-Client"),
        without: "hle rtm",
        chosen: Chosen::ForHosts,
        ..PLAIN
    },
    Model {
        name: "Icelake-Server",
        vendor: Some(Vendor::Intel),
        signatures: &[(6, 106), (6, 108)],
        base: Some("Icelake-Client"),
        with: "avx512f avx512dq clwb avx512cd avx512bw avx512vl pdpe1gb clflushopt la57",
        ..PLAIN
    },
    Model {
        name: "Icelake-Server-noTSX",
        vendor: Some(Vendor::Intel),
        signatures: &[(6, 106), (6, 108)],
        base: Some("Icelake-Server"),
        without: "hle rtm",
        chosen: Chosen::ForHosts,
        ..PLAIN
    },
    Model {
        name: "Cooperlake",
        vendor: Some(Vendor::Intel),
        signatures: &[(6, 85)],
        base: Some("Cascadelake-Server"),
        with: "arch-capabilities avx512-bf16 pku stibp rdctl-no ibrs-all skip-l1dfl-vmentry \
        mds-no pschange-mc-no taa-no",
        without: "mpx",
        ..PLAIN
    },
    Model {
        name: "Snowridge",
        vendor: Some(Vendor::Intel),
        signatures: &[(6, 134)],
        base: Some("Westmere"),
        with: "3dnowprefetch apic arat arch-capabilities cldemote clflushopt clwb \
        core-capability erms fsgsbase gfni movbe movdir64b movdiri pclmuldq pdpe1gb \
        rdrand rdseed rdtscp sha-ni smap smep spec-ctrl split-lock-detect ssbd \
        tsc-deadline umip vme x2apic xgetbv1 xsave xsavec xsaveopt",
        ..PLAIN
    },
    Model {
        name: "athlon",
        vendor: Some(Vendor::Amd),
        base: Some("pentium3"),
        with: "apic sse2 mmxext 3dnowext 3dnow",
        without: "mca",
        ..PLAIN
    },
    Model {
        name: "phenom",
        vendor: Some(Vendor::Amd),
        base: Some("kvm64"),
        with: "mmxext fxsr_opt svm 3dnowext 3dnow monitor",
        without: "cx16",
        ..PLAIN
    },
    Model {
        name: "Opteron_G1",
        vendor: Some(Vendor::Amd),
        signatures: &[(15, 5), (15, 33), (15, 37), (15, 39), (15, 47)],
        base: Some("kvm64"),
        without: "cx16",
        ..PLAIN
    },
    Model {
        name: "Opteron_G2",
        vendor: Some(Vendor::Amd),
        signatures: &[(15, 65), (15, 67), (15, 75), (15, 107)],
        base: Some("Opteron_G1"),
        with: "cx16 rdtscp svm lahf_lm",
        ..PLAIN
    },
    Model {
        name: "Opteron_G3",
        vendor: Some(Vendor::Amd),
        signatures: &[(16, 2), (16, 4), (16, 6), (16, 8), (16, 10)],
        base: Some("Opteron_G2"),
        with: "popcnt abm sse4a misalignsse",
        gone: "monitor",
        ..PLAIN
    },
    Model {
        name: "Opteron_G4",
        vendor: Some(Vendor::Amd),
        signatures: &[(21, 1)],
        base: Some("Opteron_G2"),
        with: "popcnt abm sse4a misalignsse pclmuldq ssse3 sse4.1 sse4.2 aes xsave avx \
        pdpe1gb 3dnowprefetch xop fma4",
        ..PLAIN
    },
    Model {
        name: "Opteron_G5",
        vendor: Some(Vendor::Amd),
        signatures: &[(21, 2)],
        base: Some("Opteron_G4"),
        with: "fma f16c tbm",
        ..PLAIN
    },
    Model {
        name: "EPYC",
        vendor: Some(Vendor::Amd),
        signatures: &[(23, 1)],
        base: Some("Opteron_G3"),
        with: "vme pclmuldq ssse3 fma sse4.1 sse4.2 movbe aes xsave avx f16c rdrand arat \
        fsgsbase bmi1 avx2 smep bmi2 rdseed adx smap clflushopt sha-ni xsaveopt \
        xsavec xgetbv1 mmxext fxsr_opt pdpe1gb cr8legacy 3dnowprefetch osvw",
        gone: "monitor",
        ..PLAIN
    },
    Model {
        name: "EPYC-IBPB",
        vendor: Some(Vendor::Amd),
        signatures: &[(23, 1)],
        base: Some("EPYC"),
        with: "ibpb",
        ..PLAIN
    },
    Model {
        name: "EPYC-Rome",
        vendor: Some(Vendor::Amd),
        signatures: &[(23, 49)],
        base: Some("EPYC-IBPB"),
        with: "clwb umip rdpid perfctr_core clzero xsaveerptr wbnoinvd amd-stibp npt \
        nrip-save",
        ..PLAIN
    },
    Model {
        name: "EPYC-Milan",
        vendor: Some(Vendor::Amd),
        signatures: &[(25, 1)],
        base: Some("EPYC-Rome"),
        with: "pcid erms invpcid pku fsrm xsaves ibrs amd-ssbd svme-addr-chk",
        ..PLAIN
    },
    Model {
        name: "Dhyana",
        vendor: Some(Vendor::Hygon),
        signatures: &[(24, 0)],
        base: Some("EPYC-IBPB"),
        without: "aes pclmuldq sha-ni",
        ..PLAIN
    },
];
