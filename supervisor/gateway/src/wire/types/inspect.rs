//! What there is to know of a domain: its document, state, figures and statistics.

use super::handles::Domain;
use super::params::Params;
use super::{DOMAINS_MAX, PEEK_MAX};
use crate::wire::call::{calls, record};
use crate::wire::xdr::{CharList, List, Opaque};

/// The most security labels.
const LABELS_MAX: usize = 64;

/// The most parameters of one domain's statistics.
const STATS_MAX: usize = 262_144;

record! {
    /// A figure of a guest's memory: 0 swapped in, 1 out, 2 major and 3 minor faults, 4 unused, 5 available,
    /// 6 balloon, 7 resident, 8 usable, 9 time of them (s), 10 disk caches; all others in KiB.
    #[derive(Eq)]
    MemoryStat { tag: i32, value: u64 }
}

record! {
    /// A disk that has had an error: 0 none, 1 unspecified, 2 no space.
    #[derive(Eq)]
    DiskError { disk: String, error: i32 }
}

record! {
    /// The statistics of one domain.
    DomainStats { domain: Domain, params: Params<STATS_MAX> }
}

calls! { Remote;
    /// Its document: 1 with secrets, 2 the definition, 4 with the CPU as it is, 8 to migrate by.
    DomainGetXmlDesc = 14 { domain: Domain, flags: u32 } -> String;
    /// Whether it is started with the host.
    DomainGetAutostart = 15 { domain: Domain } -> bool;
    /// State, memory (KiB), vCPUs, time they have run (ns).
    DomainGetInfo = 16 { domain: Domain }
        => DomainInfo { state: u8, max_memory: u64, memory: u64, vcpus: u16, cpu_time: u64 };
    /// The most memory it may have, in KiB.
    DomainGetMaxMemory = 17 { domain: Domain } -> u64;
    /// What runs in it: "hvm".
    DomainGetOsType = 19 { domain: Domain } -> String;
    /// Counts of a disk; -1 where there is none.
    DomainBlockStats = 64 { domain: Domain, path: String }
        => BlockStats { rd_req: i64, rd_bytes: i64, wr_req: i64, wr_bytes: i64, errs: i64 };
    /// Counts of an interface; -1 where there is none.
    DomainInterfaceStats = 65 { domain: Domain, device: String } => InterfaceStats {
        rx_bytes: i64,
        rx_packets: i64,
        rx_errs: i64,
        rx_drop: i64,
        tx_bytes: i64,
        tx_packets: i64,
        tx_errs: i64,
        tx_drop: i64,
    };
    /// Bytes of a disk.
    DomainBlockPeek = 103 { domain: Domain, path: String, offset: u64, size: u32, flags: u32 }
        -> Opaque<PEEK_MAX>;
    /// Bytes of memory: 1 at a virtual, 2 at a physical address.
    DomainMemoryPeek = 104 { domain: Domain, offset: u64, size: u32, flags: u32 } -> Opaque<PEEK_MAX>;
    /// Its security label, which ends with a NUL.
    DomainGetSecurityLabel = 121 { domain: Domain }
        => SecurityLabel { label: CharList<4_097>, enforcing: i32 };
    /// Whether it runs.
    DomainIsActive = 150 { domain: Domain } -> bool;
    /// Whether it has a definition.
    DomainIsPersistent = 151 { domain: Domain } -> bool;
    /// What the balloon says of memory.
    DomainMemoryStats = 159 { domain: Domain, max_stats: u32, flags: u32 } -> List<MemoryStat, 1_024>;
    /// The job that runs: its kind, times (ms) and amounts (bytes).
    DomainGetJobInfo = 163 { domain: Domain } => JobInfo {
        kind: i32,
        time_elapsed: u64,
        time_remaining: u64,
        data_total: u64,
        data_processed: u64,
        data_remaining: u64,
        mem_total: u64,
        mem_processed: u64,
        mem_remaining: u64,
        file_total: u64,
        file_processed: u64,
        file_remaining: u64,
    };
    /// Ends the job that runs.
    DomainAbortJob = 164 { domain: Domain } -> ();
    /// Sizes of a disk, in bytes.
    DomainGetBlockInfo = 194 { domain: Domain, path: String, flags: u32 }
        => BlockInfo { allocation: u64, capacity: u64, physical: u64 };
    /// Whether its definition has been changed since it was started.
    DomainIsUpdated = 202 { domain: Domain } -> bool;
    /// State and why.
    DomainGetState = 212 { domain: Domain, flags: u32 } => DomainState { state: i32, reason: i32 };
    /// Whether the hypervisor answers for it (0), and since when (ms).
    DomainGetControlInfo = 229 { domain: Domain, flags: u32 }
        => ControlInfo { state: u32, details: u32, state_time: u64 };
    /// Counts of a disk. With `nparams` 0, how many there are.
    DomainBlockStatsFlags = 243 { domain: Domain, path: String, nparams: i32, flags: u32 }
        => BlockStatsParams { params: Params<16>, nparams: i32 };
    /// Times of its CPUs, so many from one on, or (-1) of all together.
    DomainGetCpuStats = 262 { domain: Domain, nparams: u32, start_cpu: i32, ncpus: u32, flags: u32 }
        => CpuStats { params: Params<2_048>, nparams: i32 };
    /// Disks that have had errors, at most so many, or with 0 how many.
    DomainGetDiskErrors = 263 { domain: Domain, max_errors: u32, flags: u32 }
        => DiskErrors { errors: List<DiskError, 256>, nerrors: i32 };
    /// Its security labels.
    DomainGetSecurityLabelList = 278 { domain: Domain }
        => SecurityLabels { labels: List<SecurityLabel, LABELS_MAX>, ret: i32 };
    /// The job that runs, or (1) the last one that ended.
    DomainGetJobStats = 298 { domain: Domain, flags: u32 } => JobStats { kind: i32, params: Params<64> };
    /// Statistics of these domains, or of all that the flags leave; of the groups whose bits are set in
    /// `stats`, or of all.
    ConnectGetAllDomainStats = 344 { domains: List<Domain, DOMAINS_MAX>, stats: u32, flags: u32 }
        -> List<DomainStats, DOMAINS_MAX>;
    /// Counts of the hardware.
    DomainGetPerfEvents = 365 { domain: Domain, flags: u32 } -> Params<64>;
    /// What is to be said of it beside: 1 deprecations, 2 taints.
    DomainGetMessages = 426 { domain: Domain, flags: u32 } -> List<String, 2_048>;
    /// Begins to look, for so many seconds, how fast a guest writes its memory.
    DomainStartDirtyRateCalc = 427 { domain: Domain, seconds: i32, flags: u32 } -> ();
    /// Ends the job that runs.
    DomainAbortJobFlags = 442 { domain: Domain, flags: u32 } -> ();
}
