//! How much of the host a domain gets: memory, vCPUs and where they run, shares and limits. Of each pair of
//! flags, 1 is the running domain, 2 its definition, neither what it is now.

use super::handles::Domain;
use super::params::Params;
use super::{CPU_MAP_MAX, CPU_MAPS_MAX};
use crate::wire::call::{calls, record};
use crate::wire::xdr::{List, Opaque};

/// The most parameters of each kind but those of disks.
const PARAMS_MAX: usize = 16;

/// The most parameters of a disk's limits.
const IO_TUNE_MAX: usize = 32;

/// The most vCPUs, and I/O threads.
const THREADS_MAX: usize = 16_384;

record! {
    /// A vCPU: 0 offline, 1 running, 2 blocked; the time it has run (ns), and the CPU it is on.
    #[derive(Eq)]
    VcpuInfo { number: u32, state: i32, cpu_time: u64, cpu: i32 }
}

record! {
    /// An I/O thread and where it runs.
    #[derive(Eq)]
    IothreadInfo { id: u32, cpumap: Opaque<CPU_MAP_MAX> }
}

calls! { Remote;
    /// How many vCPUs it may have.
    DomainGetMaxVcpus = 18 { domain: Domain } -> i32;
    /// Its vCPUs and, a map of `maplen` bytes each, where they may run.
    DomainGetVcpus = 20 { domain: Domain, maxinfo: i32, maplen: i32 }
        => Vcpus { info: List<VcpuInfo, THREADS_MAX>, cpumaps: Opaque<CPU_MAPS_MAX> };
    /// Where a vCPU may run.
    DomainPinVcpu = 26 { domain: Domain, vcpu: u32, cpumap: Opaque<CPU_MAP_MAX> } -> ();
    /// The most memory it may have (KiB).
    DomainSetMaxMemory = 30 { domain: Domain, memory: u64 } -> ();
    /// How much memory it has (KiB).
    DomainSetMemory = 31 { domain: Domain, memory: u64 } -> ();
    /// How many vCPUs it has.
    DomainSetVcpus = 32 { domain: Domain, nvcpus: u32 } -> ();
    /// The scheduler's name and how many parameters it has.
    DomainGetSchedulerType = 56 { domain: Domain } => SchedulerType { kind: String, nparams: i32 };
    /// Shares and limits of CPU time.
    DomainGetSchedulerParameters = 57 { domain: Domain, nparams: i32 } -> Params<PARAMS_MAX>;
    /// Sets shares and limits of CPU time.
    DomainSetSchedulerParameters = 58 { domain: Domain, params: Params<PARAMS_MAX> } -> ();
    /// Sets limits of memory.
    DomainSetMemoryParameters = 197 { domain: Domain, params: Params<PARAMS_MAX>, flags: u32 } -> ();
    /// Limits of memory. With `nparams` 0, how many there are; so with all of the kind below.
    DomainGetMemoryParameters = 198 { domain: Domain, nparams: i32, flags: u32 }
        => TuneParams { params: Params<PARAMS_MAX>, nparams: i32 };
    /// How many vCPUs it has; 4 how many it may have, 8 through the guest agent.
    DomainSetVcpusFlags = 199 { domain: Domain, nvcpus: u32, flags: u32 } -> ();
    /// How many vCPUs it has; 4 how many it may have, 8 through the guest agent.
    DomainGetVcpusFlags = 200 { domain: Domain, flags: u32 } -> i32;
    /// How much memory it has (KiB); 4 the most it may have.
    DomainSetMemoryFlags = 204 { domain: Domain, memory: u64, flags: u32 } -> ();
    /// Sets shares and limits of disks.
    DomainSetBlkioParameters = 205 { domain: Domain, params: Params<PARAMS_MAX>, flags: u32 } -> ();
    /// Shares and limits of disks.
    DomainGetBlkioParameters = 206 { domain: Domain, nparams: i32, flags: u32 } -> TuneParams;
    /// Sets shares and limits of CPU time.
    DomainSetSchedulerParametersFlags = 219 { domain: Domain, params: Params<PARAMS_MAX>, flags: u32 } -> ();
    /// Shares and limits of CPU time.
    DomainGetSchedulerParametersFlags = 223 { domain: Domain, nparams: i32, flags: u32 }
        -> Params<PARAMS_MAX>;
    /// Where a vCPU may run.
    DomainPinVcpuFlags = 225 { domain: Domain, vcpu: u32, cpumap: Opaque<CPU_MAP_MAX>, flags: u32 } -> ();
    /// Where vCPUs may run, a map of `maplen` bytes each, and for how many that is said.
    DomainGetVcpuPinInfo = 230 { domain: Domain, ncpumaps: i32, maplen: i32, flags: u32 }
        => VcpuPinInfo { cpumaps: Opaque<CPU_MAPS_MAX>, num: i32 };
    /// Sets limits of a disk.
    DomainSetBlockIoTune = 252 { domain: Domain, disk: String, params: Params<IO_TUNE_MAX>, flags: u32 } -> ();
    /// Limits of a disk.
    DomainGetBlockIoTune = 253 { domain: Domain, disk: Option<String>, nparams: i32, flags: u32 }
        => BlockIoTune { params: Params<IO_TUNE_MAX>, nparams: i32 };
    /// Sets where its memory is.
    DomainSetNumaParameters = 254 { domain: Domain, params: Params<PARAMS_MAX>, flags: u32 } -> ();
    /// Where its memory is.
    DomainGetNumaParameters = 255 { domain: Domain, nparams: i32, flags: u32 } -> TuneParams;
    /// Sets limits of an interface.
    DomainSetInterfaceParameters = 256 {
        domain: Domain,
        device: String,
        params: Params<PARAMS_MAX>,
        flags: u32,
    } -> ();
    /// Limits of an interface.
    DomainGetInterfaceParameters = 257 { domain: Domain, device: String, nparams: i32, flags: u32 }
        -> TuneParams;
    /// Where the threads that are no vCPU's may run.
    DomainPinEmulator = 279 { domain: Domain, cpumap: Opaque<CPU_MAP_MAX>, flags: u32 } -> ();
    /// Where the threads that are no vCPU's may run, and whether that is said.
    DomainGetEmulatorPinInfo = 280 { domain: Domain, maplen: i32, flags: u32 }
        => EmulatorPinInfo { cpumaps: Opaque<CPU_MAPS_MAX>, ret: i32 };
    /// How often the balloon is asked, in s.
    DomainSetMemoryStatsPeriod = 308 { domain: Domain, period: i32, flags: u32 } -> ();
    /// Its I/O threads.
    DomainGetIothreadInfo = 351 { domain: Domain, flags: u32 }
        => IothreadList { info: List<IothreadInfo, THREADS_MAX>, ret: u32 };
    /// Where an I/O thread may run.
    DomainPinIothread = 352 { domain: Domain, id: u32, cpumap: Opaque<CPU_MAP_MAX>, flags: u32 } -> ();
    /// One more I/O thread.
    DomainAddIothread = 355 { domain: Domain, id: u32, flags: u32 } -> ();
    /// One less.
    DomainDelIothread = 356 { domain: Domain, id: u32, flags: u32 } -> ();
    /// Sets which events of the hardware are counted.
    DomainSetPerfEvents = 366 { domain: Domain, params: Params<64>, flags: u32 } -> ();
    /// Takes vCPUs on line or off.
    DomainSetVcpu = 384 { domain: Domain, cpumap: String, state: i32, flags: u32 } -> ();
    /// How an I/O thread polls.
    DomainSetIothreadParams = 402 { domain: Domain, id: u32, params: Params<64>, flags: u32 } -> ();
}
