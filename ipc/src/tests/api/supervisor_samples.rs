//! One of each message of a supervisor, in which no field has its neighbour's value.

use uuid::Uuid;

use super::samples::{bare_domain, domain, name, uuid};
use crate::BuildId;
use crate::api::call::{
    AnswerBody as Answer, ConsoleStream, DiskSize, DomainPage, Subscribed, TuningChange,
};
use crate::api::error::{ApiError, ApiErrorCode};
use crate::api::event::{Cursor, DomainEvent, Event, EventKind, Label};
use crate::api::figures::{DomainFigures, DomainUsage, FiguresPage, VcpuFigures, VcpuState};
use crate::api::host::{
    CpuTimes, HostCpu, HostCpuModel, HostCpuPage, HostCpuStats, HostCpuTimes, HostCpuid,
    HostDriver, HostFreePages, HostInfo, HostMemoryStats, HostNode, HostNodeMemory, HostPages,
    HostTopology,
};
use crate::api::message::{CallId, ToClient};
use crate::api::view::{
    AgentTimeout, DeviceStats, DomainDefinition, DomainDetails, DomainState, DomainStats,
    DomainSummary, JobKind, PausedReason, RunningReason, ShutOffReason, SupervisorInfo, VcpuStats,
    WorkerDetails,
};
use crate::api::{Access, ApiVersion};
use crate::model::MemorySize;
use crate::spec::{CpuidEntry, MachineType, WatchdogAction};
use crate::tests::device_samples::slot;
use crate::tests::plug_samples::figures;

/// Every code.
pub(super) const ERROR_CODES: [ApiErrorCode; 26] = [
    ApiErrorCode::NoDomain,
    ApiErrorCode::DomainExists,
    ApiErrorCode::WrongState,
    ApiErrorCode::Busy,
    ApiErrorCode::InvalidArgument,
    ApiErrorCode::AccessDenied,
    ApiErrorCode::PathRefused,
    ApiErrorCode::Timeout,
    ApiErrorCode::Worker,
    ApiErrorCode::Host,
    ApiErrorCode::Storage,
    ApiErrorCode::Unsupported,
    ApiErrorCode::ShuttingDown,
    ApiErrorCode::Cancelled,
    ApiErrorCode::NoDevice,
    ApiErrorCode::NoPool,
    ApiErrorCode::PoolExists,
    ApiErrorCode::NoVolume,
    ApiErrorCode::VolumeExists,
    ApiErrorCode::InUse,
    ApiErrorCode::NoSpace,
    ApiErrorCode::NoNetwork,
    ApiErrorCode::NetworkExists,
    ApiErrorCode::NoPort,
    ApiErrorCode::NoNwfilter,
    ApiErrorCode::NwfilterExists,
];

/// Every state with every reason.
pub(super) const STATES: [DomainState; 17] = [
    DomainState::Running(RunningReason::Booted),
    DomainState::Running(RunningReason::Unpaused),
    DomainState::Running(RunningReason::Restarted),
    DomainState::Running(RunningReason::Adopted),
    DomainState::Paused(PausedReason::StartingUp),
    DomainState::Paused(PausedReason::User),
    DomainState::Paused(PausedReason::PoweredOff),
    DomainState::Paused(PausedReason::Adopted),
    DomainState::ShuttingDown,
    DomainState::ShutOff(ShutOffReason::Unknown),
    DomainState::ShutOff(ShutOffReason::Shutdown),
    DomainState::ShutOff(ShutOffReason::Destroyed),
    DomainState::ShutOff(ShutOffReason::Crashed),
    DomainState::ShutOff(ShutOffReason::Failed),
    DomainState::Crashed,
    DomainState::Paused(PausedReason::Watchdog),
    DomainState::Panicked,
];

/// Every job.
pub(super) const JOBS: [JobKind; 17] = [
    JobKind::Define,
    JobKind::Start,
    JobKind::Shutdown,
    JobKind::Reboot,
    JobKind::Reset,
    JobKind::Pause,
    JobKind::Resume,
    JobKind::Destroy,
    JobKind::Undefine,
    JobKind::Adopt,
    JobKind::Policy,
    JobKind::Attach,
    JobKind::Detach,
    JobKind::Update,
    JobKind::Upgrade,
    JobKind::SetVcpus,
    JobKind::Tune,
];

/// Everything known.
pub(super) fn summary() -> DomainSummary {
    DomainSummary {
        name: name("web"),
        uuid: uuid(),
        id: Some(5),
        state: DomainState::Running(RunningReason::Unpaused),
        persistent: true,
        autostart: Some(3),
        vcpus: 4,
        memory: MemorySize::mebibytes(128),
        title: Some("T".to_owned()),
        unresponsive: false,
        reaping: true,
        job: Some(JobKind::Reset),
        max_vcpus: 8,
        current_memory: MemorySize::mebibytes(96),
        max_memory: MemorySize::mebibytes(256),
    }
}

/// Nothing known that need not be.
fn bare_summary() -> DomainSummary {
    DomainSummary {
        name: name("db"),
        id: None,
        state: DomainState::ShutOff(ShutOffReason::Failed),
        persistent: false,
        autostart: None,
        title: None,
        unresponsive: true,
        reaping: false,
        job: None,
        ..summary()
    }
}

fn details() -> DomainDetails {
    DomainDetails {
        summary: summary(),
        started_ms: Some(1_700_000_000_000),
        worker: Some(WorkerDetails {
            pid: 4000,
            uid: 0x7265_0400,
            own_uid: true,
            cgroup: Some("/reeve".to_owned()),
            landlock_abi: Some(6),
            adopted: false,
        }),
        resets: 2,
        last_failure: Some("no".to_owned()),
        redefined: true,
        agent_timeout: Some(AgentTimeout::Seconds(5)),
    }
}

fn bare_details() -> DomainDetails {
    DomainDetails {
        summary: bare_summary(),
        started_ms: None,
        worker: None,
        resets: 0,
        last_failure: None,
        redefined: false,
        agent_timeout: None,
    }
}

fn info() -> SupervisorInfo {
    SupervisorInfo {
        build: "0.1.0+abc".to_owned(),
        pid: 4001,
        started_ms: 1_700_000_000_001,
        state_directory: "/s".to_owned(),
        run_directory: "/r".to_owned(),
        active: 1,
        inactive: 2,
        adopted: 3,
        adopted_within_us: 4,
        clients: 5,
        refused: vec!["no".to_owned()],
    }
}

fn reply(answer: Answer) -> ToClient {
    ToClient::Reply {
        id: CallId(7),
        result: Ok(answer),
    }
}

fn definition(domain: crate::model::Domain, autostart: Option<u32>) -> ToClient {
    reply(Answer::DomainDefinitionGet(Box::new(DomainDefinition {
        domain,
        autostart,
    })))
}

const CURSOR: Cursor = Cursor {
    epoch: 1 << 63,
    number: 300,
};

fn event(kind: EventKind) -> ToClient {
    ToClient::Event {
        cursor: CURSOR,
        event: Event::Domain(DomainEvent {
            time_ms: 1_700_000_000_002,
            uuid: uuid(),
            name: name("web"),
            kind,
        }),
    }
}

fn answers() -> Vec<(&'static str, ToClient)> {
    let page = DomainPage {
        domains: vec![summary(), bare_summary()],
        more: true,
    };
    let stats = DomainStats {
        cpu_time_ns: 1 << 40,
        resident_bytes: 1 << 27,
        console_dropped_bytes: 3,
        console_clients: 4,
        log_dropped: 5,
    };
    let subscribed = Subscribed {
        cursor: CURSOR,
        lost: true,
    };
    vec![
        ("info", reply(Answer::SupervisorInfoGet(info()))),
        ("reloaded", {
            reply(Answer::ConfigReload(vec!["log_level".to_owned()]))
        }),
        ("log filter", reply(Answer::LogFilterSet(()))),
        ("list", reply(Answer::DomainList(page))),
        ("details", reply(Answer::DomainGet(details()))),
        ("details, bare", reply(Answer::DomainGet(bare_details()))),
        ("definition", definition(domain(), Some(3))),
        ("definition, bare", definition(bare_domain(), None)),
        ("stats", reply(Answer::DomainStatsGet(stats))),
        ("defined", reply(Answer::DomainDefine(bare_summary()))),
        ("undefined", reply(Answer::DomainUndefine(()))),
        ("started", reply(Answer::DomainStart(summary()))),
        ("created", reply(Answer::DomainCreate(summary()))),
        ("shut down", reply(Answer::DomainShutdown(()))),
        ("rebooted", reply(Answer::DomainReboot(()))),
        ("reset", reply(Answer::DomainReset(()))),
        ("paused", reply(Answer::DomainPause(()))),
        ("resumed", reply(Answer::DomainResume(()))),
        ("destroyed", reply(Answer::DomainDestroy(()))),
        ("autostart set", reply(Answer::DomainAutostartSet(()))),
        ("renamed", reply(Answer::DomainRename(()))),
        ("labelled", reply(Answer::DomainLabelSet(()))),
        ("console", {
            reply(Answer::DomainConsole(ConsoleStream { position: 4660 }))
        }),
        ("log", reply(Answer::DomainLog(()))),
        ("subscribed", reply(Answer::EventsSubscribe(subscribed))),
        ("unsubscribed", reply(Answer::EventsUnsubscribe(()))),
        ("attached", reply(Answer::DomainDeviceAttach(()))),
        ("detached", reply(Answer::DomainDeviceDetach(()))),
        ("updated", reply(Answer::DomainDeviceUpdate(()))),
        ("memory set", reply(Answer::DomainMemorySet(()))),
        ("device stats", {
            reply(Answer::DomainDeviceStatsGet(device_stats()))
        }),
        ("upgraded", reply(Answer::DomainUpgrade(()))),
        ("vCPUs set", reply(Answer::DomainVcpusSet(()))),
        ("medium changed", reply(Answer::DomainMediumChange(()))),
        ("vCPU stats", {
            let counted = VcpuStats {
                vcpu: 0,
                run_ns: 1 << 40,
                wait_ns: Some(300),
            };
            let other = VcpuStats {
                vcpu: 2,
                run_ns: 1,
                wait_ns: None,
            };
            reply(Answer::DomainVcpuStatsGet(vec![counted, other]))
        }),
        ("host", reply(Answer::HostInfoGet(Box::new(host())))),
        ("host CPUs", {
            let cpus = vec![HostCpu {
                cpu: 1,
                node: 2,
                socket: 3,
                die: 4,
                core: 5,
            }];
            reply(Answer::HostCpuList(HostCpuPage { cpus, more: true }))
        }),
        ("host CPU stats", {
            let stats = HostCpuStats {
                total: cpu_times(0),
                cpus: vec![HostCpuTimes {
                    cpu: 300,
                    times: cpu_times(6),
                }],
                more: true,
            };
            reply(Answer::HostCpuStatsGet(stats))
        }),
        ("host memory", {
            let stats = HostMemoryStats {
                total: 6 << 30,
                free: 5 << 30,
                available: 4 << 30,
                buffers: 3 << 20,
                cached: 2 << 20,
                nodes: vec![HostNodeMemory {
                    node: 1,
                    total: 3 << 30,
                    free: 2 << 30,
                }],
            };
            reply(Answer::HostMemoryStatsGet(stats))
        }),
        ("free pages", {
            let pages = vec![host_pages(4096, 300)];
            reply(Answer::HostFreePagesGet(vec![HostFreePages {
                node: 1,
                pages,
            }]))
        }),
        ("figures", reply(Answer::DomainFiguresList(figures_page()))),
        ("current memory set", {
            reply(Answer::DomainCurrentMemorySet(()))
        }),
        ("most memory set", reply(Answer::DomainMaxMemorySet(()))),
        ("tuned", reply(Answer::DomainTune(()))),
        ("NMI injected", reply(Answer::DomainNmiInject(()))),
        ("peeked", reply(Answer::DomainPeek(vec![1, 2, 255]))),
        ("disk size", {
            reply(Answer::DomainDiskSizeGet(DiskSize {
                capacity: 1 << 30,
                allocation: 4096,
                physical: 65_536,
            }))
        }),
        ("channel", reply(Answer::DomainChannel(()))),
        ("agent timeout", reply(Answer::DomainAgentTimeoutSet(()))),
        ("test hypervisor used", reply(Answer::TestHypervisorUse(()))),
        ("host CPUID", {
            let leaf = |function| CpuidEntry {
                function,
                index: 1,
                flags: 0,
                registers: [2, 3, 4, 0x8000_0000],
            };
            let (host, guest) = (vec![leaf(7)], vec![leaf(0xD), leaf(0x8000_0001)]);
            reply(Answer::HostCpuidGet(HostCpuid { host, guest }))
        }),
    ]
}

fn cpu_times(from: u64) -> CpuTimes {
    CpuTimes {
        kernel_ns: from + 1,
        user_ns: from + 2,
        idle_ns: from + 3,
        io_wait_ns: from + 4,
        interrupt_ns: from + 5,
        stolen_ns: from + 6,
    }
}

fn host_pages(size_bytes: u64, count: u64) -> HostPages {
    HostPages { size_bytes, count }
}

/// Every field set.
pub(super) fn host() -> HostInfo {
    HostInfo {
        hostname: "h".to_owned(),
        uuid: Uuid::from_u128(0xffee_ddcc_bbaa_9988_7766_5544_3322_1100),
        architecture: "x86_64".to_owned(),
        cpu: HostCpuModel {
            vendor: "V".to_owned(),
            name: "N".to_owned(),
            family: 25,
            model: 1,
            stepping: 2,
            microcode: Some(0x0a00_1165),
            mhz: Some(2445),
            physical_bits: Some(48),
            flags: vec!["fpu".to_owned(), "vme".to_owned()],
        },
        topology: HostTopology {
            nodes: 2,
            sockets: 1,
            cores: 3,
            threads: 4,
        },
        online: "0-6".parse().unwrap(),
        present: "0-7".parse().unwrap(),
        possible: "0-15".parse().unwrap(),
        nodes: vec![
            HostNode {
                node: 0,
                cpus: Some("0-6".parse().unwrap()),
                memory: MemorySize(5 << 30),
                distances: vec![10, 21],
                pages: vec![host_pages(4096, 1 << 20), host_pages(2 << 20, 300)],
            },
            HostNode {
                node: 3,
                cpus: None,
                memory: MemorySize(1 << 30),
                distances: vec![21, 10],
                pages: Vec::new(),
            },
        ],
        memory: MemorySize(6 << 30),
        driver: HostDriver::Test,
        kvm_lacks: Some("no".to_owned()),
        machines: MachineType::ALL.to_vec(),
        max_vcpus: 288,
    }
}

pub(super) fn figures_page() -> FiguresPage {
    let vcpu = |vcpu, state, cpu| VcpuFigures {
        stats: VcpuStats {
            vcpu,
            run_ns: 1 << 40,
            wait_ns: None,
        },
        state,
        cpu,
    };
    let known = DomainFigures {
        summary: summary(),
        usage: Some(DomainUsage {
            cpu_time_ns: 1 << 41,
            user_ns: 1 << 39,
            system_ns: 300,
            resident_bytes: 1 << 27,
        }),
        vcpus: vec![
            vcpu(0, VcpuState::Running, Some(3)),
            vcpu(2, VcpuState::Blocked, None),
        ],
        devices: device_stats(),
        answered: true,
    };
    let bare = DomainFigures {
        summary: bare_summary(),
        usage: None,
        vcpus: Vec::new(),
        devices: Vec::new(),
        answered: false,
    };
    FiguresPage {
        domains: vec![known, bare],
        of: 3,
        more: true,
    }
}

/// One of each kind.
fn device_stats() -> Vec<DeviceStats> {
    let names = [
        "vda",
        "52:54:00:0a:0b:0c",
        "balloon",
        "balloon",
        "rng",
        "ports",
        "channel:a.0",
        "memory",
    ];
    let devices = names.into_iter().zip(1..).zip(figures());
    let stats = devices.map(|((name, number), figures)| DeviceStats {
        device: name.parse().unwrap(),
        slot: slot(number),
        host: (number == 2).then(|| "vnet0".to_owned()),
        figures,
    });
    stats.collect()
}

fn events() -> Vec<(&'static str, ToClient)> {
    let before = name("db");
    vec![
        ("was defined", event(EventKind::Defined { changed: true })),
        ("was undefined", event(EventKind::Undefined)),
        ("was renamed", event(EventKind::Renamed { before })),
        ("was reset", event(EventKind::Reset)),
        ("was adopted", event(EventKind::Adopted)),
        ("unresponsive", event(EventKind::Unresponsive)),
        ("responsive", event(EventKind::Responsive)),
        ("autostart changed", {
            event(EventKind::Autostart { order: Some(3) })
        }),
        ("labels changed", {
            let label = Label::Metadata {
                uri: "urn:x".to_owned(),
            };
            event(EventKind::Labels { label })
        }),
        ("device added", {
            let (device, slot) = ("vda".parse().unwrap(), slot(5));
            event(EventKind::DeviceAdded { device, slot })
        }),
        ("device removed", {
            let (device, slot) = ("rng".parse().unwrap(), slot(6));
            event(EventKind::DeviceRemoved { device, slot })
        }),
        ("balloon changed", {
            let memory = MemorySize::mebibytes(64);
            event(EventKind::BalloonChanged { memory })
        }),
        ("vCPUs changed", event(EventKind::VcpusChanged { vcpus: 3 })),
        ("crash kernel", event(EventKind::CrashKernel)),
        ("watchdog expired", {
            let action = WatchdogAction::InjectNmi;
            event(EventKind::WatchdogExpired { action })
        }),
        ("panicked", event(EventKind::Panicked)),
        ("medium changed", {
            let (device, inserted) = ("vda".parse().unwrap(), true);
            event(EventKind::MediumChanged { device, inserted })
        }),
        ("tuned", {
            let changes = vec![TuningChange::CpuWeight(Some(300))];
            event(EventKind::Tuned { changes })
        }),
        ("channel changed", {
            let (channel, open) = ("org.qemu.guest_agent.0".to_owned(), true);
            event(EventKind::ChannelChanged { channel, open })
        }),
    ]
}

fn welcome(access: Access) -> ToClient {
    ToClient::Welcome {
        api: ApiVersion(1),
        build: BuildId("0.1.0+abc".to_owned()),
        access,
    }
}

fn error(code: ApiErrorCode) -> ApiError {
    let message = "no".to_owned();
    ApiError { code, message }
}

/// One of each message of a supervisor.
pub(super) fn to_client() -> Vec<(&'static str, ToClient)> {
    let mut samples = vec![
        ("welcome", welcome(Access::ReadWrite)),
        ("welcome to look", welcome(Access::ReadOnly)),
        (
            "refused",
            ToClient::Refused(error(ApiErrorCode::AccessDenied)),
        ),
    ];
    samples.extend(answers());
    samples.extend(events());
    // Named as a table shows them; a new reason or job has its text there, and its place above.
    samples.extend(STATES.map(|state| (state.reason(), event(EventKind::State(state)))));
    samples.extend(JOBS.map(|job| {
        let message = "no".to_owned();
        (job.verb(), event(EventKind::JobFailed { job, message }))
    }));
    samples.extend(ERROR_CODES.map(|code| {
        let result = Err(error(code));
        let id = CallId(7);
        (describe(code), ToClient::Reply { id, result })
    }));
    samples.extend(super::storage_samples::answers());
    samples.extend(super::storage_samples::events());
    samples.extend(super::network_samples::answers());
    samples.extend(super::network_samples::events());
    samples.extend(super::interface_samples::answers());
    samples.extend(super::nwfilter_samples::answers());
    samples
}

/// A new code does not compile here until it stands in the list above, too.
const fn describe(code: ApiErrorCode) -> &'static str {
    match code {
        ApiErrorCode::NoDomain => "error: no domain",
        ApiErrorCode::DomainExists => "error: domain exists",
        ApiErrorCode::WrongState => "error: wrong state",
        ApiErrorCode::Busy => "error: busy",
        ApiErrorCode::InvalidArgument => "error: invalid argument",
        ApiErrorCode::AccessDenied => "error: access denied",
        ApiErrorCode::PathRefused => "error: path refused",
        ApiErrorCode::Timeout => "error: timeout",
        ApiErrorCode::Worker => "error: worker",
        ApiErrorCode::Host => "error: host",
        ApiErrorCode::Storage => "error: storage",
        ApiErrorCode::Unsupported => "error: unsupported",
        ApiErrorCode::ShuttingDown => "error: shutting down",
        ApiErrorCode::Cancelled => "error: cancelled",
        ApiErrorCode::NoDevice => "error: no device",
        ApiErrorCode::NoPool => "error: no pool",
        ApiErrorCode::PoolExists => "error: pool exists",
        ApiErrorCode::NoVolume => "error: no volume",
        ApiErrorCode::VolumeExists => "error: volume exists",
        ApiErrorCode::InUse => "error: in use",
        ApiErrorCode::NoSpace => "error: no space",
        ApiErrorCode::NoNetwork => "error: no network",
        ApiErrorCode::NetworkExists => "error: network exists",
        ApiErrorCode::NoPort => "error: no port",
        ApiErrorCode::NoNwfilter => "error: no network filter",
        ApiErrorCode::NwfilterExists => "error: network filter exists",
    }
}
