//! One of each message of a client, in which no field has its neighbour's value.

use uuid::Uuid;

use super::device_samples::devices;
use crate::api::ApiVersion;
use crate::api::call::{
    Call, ConfigReload, DomainAutostartSet, DomainConsole, DomainCreate, DomainDefine,
    DomainDefinitionGet, DomainDestroy, DomainDeviceAttach, DomainDeviceDetach,
    DomainDeviceStatsGet, DomainDeviceUpdate, DomainGet, DomainLabelSet, DomainList, DomainLog,
    DomainMediumChange, DomainMemorySet, DomainPause, DomainReboot, DomainRef, DomainRename,
    DomainReset, DomainResume, DomainShutdown, DomainStart, DomainStatsGet, DomainUndefine,
    DomainUpgrade, DomainVcpuStatsGet, DomainVcpusSet, EventsSubscribe, EventsUnsubscribe,
    LabelChange, LogFilterSet, LogKind, StartOptions, SupervisorInfoGet,
};
use crate::api::call::{
    DomainAgentTimeoutSet, DomainChannel, DomainCurrentMemorySet, DomainDiskSizeGet,
    DomainFiguresList, DomainMaxMemorySet, DomainNmiInject, DomainPeek, DomainTune, HostCpuList,
    HostCpuStatsGet, HostCpuidGet, HostFreePagesGet, HostInfoGet, HostMemoryStatsGet, PeekAt,
    TestHypervisorUse, TuningChange,
};
use crate::api::event::Cursor;
use crate::api::figures::{FigureGroups, FiguresOf};
use crate::api::message::{CallId, FromClient};
use crate::api::view::AgentTimeout;
use crate::model::{
    BlockDeviceTuning, BlockTuning, BootSource, CpuQuota, CpuSet, Device, Devices, Domain,
    DomainName, DomainUuid, GenerationId, KeptElement, KernelBoot, Labels, Layer, LifecycleAction,
    Medium, MemoryNodes, MemorySize, MetadataElement, NodeMode, OnCrash, OnPowerOff, OnReboot,
    Platform, ResourceLimits, Tuning, VcpuPin, Vcpus,
};
use crate::spec::{CpuSwitches, DiskFormat, MachineType};
use crate::tests::plug_samples::changes;

pub(super) fn name(name: &str) -> DomainName {
    name.parse().unwrap()
}

pub(super) fn uuid() -> DomainUuid {
    DomainUuid(Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff))
}

fn web() -> DomainRef {
    DomainRef::Name(name("web"))
}

pub(super) fn metadata() -> MetadataElement {
    MetadataElement {
        uri: "urn:x".to_owned(),
        content: "<x/>".to_owned(),
    }
}

/// Every field set.
pub(super) fn domain() -> Domain {
    Domain {
        name: name("web"),
        uuid: uuid(),
        machine: MachineType::Reeve1_0,
        vcpus: Vcpus::try_from(4).unwrap(),
        cpu: CpuSwitches {
            tsc_deadline: true,
            kvmclock: false,
            invariant_tsc: true,
            transactional_memory: false,
        },
        memory: MemorySize::mebibytes(128),
        boot: BootSource::Kernel(KernelBoot {
            kernel: "/boot/k".into(),
            initrd: Some("/boot/i".into()),
            command_line: "quiet".to_owned(),
        }),
        devices: devices(),
        lifecycle: LifecycleAction {
            on_power_off: OnPowerOff::Restart,
            on_reboot: OnReboot::Destroy,
            on_crash: OnCrash::Preserve,
        },
        limits: ResourceLimits {
            memory: Some(MemorySize::mebibytes(256)),
            memory_soft: Some(MemorySize::mebibytes(224)),
            memory_and_swap: Some(MemorySize::mebibytes(288)),
            cpu_percent: Some(150),
            vcpu_percent: Some(50),
            cpu_weight: Some(300),
            pids: Some(64),
        },
        pinning: vec![VcpuPin {
            vcpu: 1,
            cpus: "0-3,8".parse::<CpuSet>().unwrap(),
        }],
        labels: Labels {
            title: Some("T".to_owned()),
            description: Some("D".to_owned()),
            metadata: vec![metadata()],
        },
        max_vcpus: Vcpus::try_from(8).unwrap(),
        platform: Platform {
            generation_id: GenerationId::Fixed(Uuid::from_u128(5)),
            panic_port: true,
        },
        kept: vec![KeptElement {
            path: "pm".to_owned(),
            xml: "<pm/>".to_owned(),
        }],
        tuning: Tuning {
            current_memory: Some(MemorySize::mebibytes(96)),
            emulator_cpus: Some("5,7".parse().unwrap()),
            vcpu_quota: Some(QUOTA),
            block: block(),
            memory_nodes: Some(nodes()),
        },
    }
}

/// Nothing set that need not be, and the other variants.
pub(super) fn bare_domain() -> Domain {
    Domain {
        name: name("db"),
        machine: MachineType::ReeveLegacy1_0,
        vcpus: Vcpus::try_from(1).unwrap(),
        memory: MemorySize(1 << 40),
        boot: BootSource::BuiltIn {
            command_line: String::new(),
        },
        devices: Devices::default(),
        lifecycle: LifecycleAction {
            on_power_off: OnPowerOff::Preserve,
            on_reboot: OnReboot::Preserve,
            on_crash: OnCrash::Restart,
        },
        limits: ResourceLimits::default(),
        pinning: Vec::new(),
        labels: Labels::default(),
        platform: Platform::default(),
        kept: Vec::new(),
        tuning: Tuning::default(),
        ..domain()
    }
}

fn call<C: Call>(call: C) -> FromClient {
    FromClient::Call {
        id: CallId(7),
        body: call.into_body(),
    }
}

fn label(change: LabelChange) -> FromClient {
    call(DomainLabelSet {
        domain: web(),
        label: change,
        live: true,
        persistent: false,
    })
}

/// One of each message of a client.
pub(super) fn from_client() -> Vec<(&'static str, FromClient)> {
    let hello = FromClient::Hello {
        api: ApiVersion(1),
        client: "reeve".to_owned(),
    };
    let kept = DomainDefine {
        definition: Box::new(domain()),
        only_new: true,
    };
    let options = StartOptions {
        paused: true,
        auto_destroy: false,
    };
    let create = DomainCreate {
        definition: Box::new(bare_domain()),
        options,
    };
    let bound = StartOptions {
        paused: false,
        auto_destroy: true,
    };
    let after = Cursor {
        epoch: 1 << 63,
        number: 300,
    };
    let mut samples = vec![
        ("hello", hello),
        ("info", call(SupervisorInfoGet {})),
        ("reload", call(ConfigReload {})),
        ("log filter", {
            let filter = "debug".to_owned();
            call(LogFilterSet { filter })
        }),
        ("list", list(None, false)),
        ("list, the next page", list(Some(name("web")), true)),
        ("get", call(DomainGet { domain: web() })),
        ("get, by UUID", {
            let domain = DomainRef::Uuid(uuid());
            call(DomainGet { domain })
        }),
        ("get, by number", {
            let domain = DomainRef::Id(300);
            call(DomainGet { domain })
        }),
        ("definition", {
            let (domain, persistent) = (web(), true);
            call(DomainDefinitionGet { domain, persistent })
        }),
        ("stats", call(DomainStatsGet { domain: web() })),
        ("define", call(kept)),
        ("undefine", call(DomainUndefine { domain: web() })),
        ("start", start(options)),
        ("start, bound", start(bound)),
        ("create", call(create)),
        ("shutdown", shutdown(None, false)),
        ("shutdown, in time", shutdown(Some(30_000), false)),
        ("shutdown, for the host", shutdown(None, true)),
        ("reboot", call(DomainReboot { domain: web() })),
        ("reset", call(DomainReset { domain: web() })),
        ("pause", call(DomainPause { domain: web() })),
        ("resume", call(DomainResume { domain: web() })),
        ("destroy", call(DomainDestroy { domain: web() })),
        ("autostart", autostart(Some(3))),
        ("autostart, no longer", autostart(None)),
        ("rename", {
            let (domain, name) = (web(), name("db"));
            call(DomainRename { domain, name })
        }),
        ("label: title", {
            label(LabelChange::Title(Some("T".to_owned())))
        }),
        ("label: no title", label(LabelChange::Title(None))),
        ("label: description", {
            label(LabelChange::Description(Some("D".to_owned())))
        }),
        ("label: metadata", label(LabelChange::Metadata(metadata()))),
        ("label: no metadata", {
            let uri = "urn:x".to_owned();
            label(LabelChange::MetadataRemove { uri })
        }),
        ("console", {
            let (domain, input) = (web(), true);
            call(DomainConsole { domain, input })
        }),
        ("log", log(LogKind::Domain)),
        ("log of the console", log(LogKind::Console)),
        ("subscribe", call(EventsSubscribe { after: None })),
        ("subscribe, from then on", {
            let after = Some(after);
            call(EventsSubscribe { after })
        }),
        ("unsubscribe", call(EventsUnsubscribe {})),
    ];
    samples.extend(device_calls());
    samples.extend(host_calls());
    samples.extend(super::storage_samples::calls());
    samples.extend(super::network_samples::calls());
    samples.extend(super::interface_samples::calls());
    samples.extend(super::nwfilter_samples::calls());
    samples
}

fn host_calls() -> Vec<(&'static str, FromClient)> {
    let groups = |usage, vcpus, devices| FigureGroups {
        usage,
        vcpus,
        devices,
    };
    vec![
        ("host", call(HostInfoGet {})),
        ("host CPUs", call(HostCpuList { after: None })),
        ("more host CPUs", call(HostCpuList { after: Some(255) })),
        ("host CPU stats", {
            let (first, count) = (300, 2);
            call(HostCpuStatsGet { first, count })
        }),
        ("host memory", call(HostMemoryStatsGet {})),
        ("free pages", call(HostFreePagesGet {})),
        ("figures of all", {
            let of = FiguresOf::All {
                after: Some(name("db")),
                active_only: true,
            };
            let groups = groups(true, false, false);
            call(DomainFiguresList { of, groups })
        }),
        ("figures of some", {
            let of = FiguresOf::Named(vec![web(), DomainRef::Uuid(uuid()), DomainRef::Id(5)]);
            let groups = groups(false, true, true);
            call(DomainFiguresList { of, groups })
        }),
        ("set the current memory", {
            call(DomainCurrentMemorySet {
                domain: web(),
                memory: MemorySize::mebibytes(64),
                live: true,
                persistent: false,
            })
        }),
        ("set the most memory", {
            let (domain, memory) = (web(), MemorySize::mebibytes(512));
            call(DomainMaxMemorySet { domain, memory })
        }),
        ("tune", {
            call(DomainTune {
                domain: web(),
                changes: tuning_changes(),
                live: false,
                persistent: true,
            })
        }),
        ("NMI", call(DomainNmiInject { domain: web() })),
        ("peek, memory", {
            call(DomainPeek {
                domain: web(),
                at: PeekAt::Memory,
                offset: 0x1000,
                length: 16,
            })
        }),
        ("peek, disk", {
            call(DomainPeek {
                domain: web(),
                at: PeekAt::Disk("vda".parse().unwrap()),
                offset: 512,
                length: 300,
            })
        }),
        ("disk size", {
            let disk = "vda".parse().unwrap();
            call(DomainDiskSizeGet {
                domain: web(),
                disk,
            })
        }),
        ("channel", {
            let channel = "org.qemu.guest_agent.0".to_owned();
            call(DomainChannel {
                domain: web(),
                channel,
            })
        }),
        ("test hypervisor", call(TestHypervisorUse {})),
        ("host CPUID", call(HostCpuidGet {})),
        ("agent timeout, block", agent_timeout(AgentTimeout::Block)),
        (
            "agent timeout, default",
            agent_timeout(AgentTimeout::Default),
        ),
        ("agent timeout, 0", agent_timeout(AgentTimeout::Seconds(0))),
    ]
}

/// One of each.
pub(super) fn tuning_changes() -> Vec<TuningChange> {
    vec![
        TuningChange::VcpuCpus {
            vcpu: 3,
            cpus: Some("0-1".parse().unwrap()),
        },
        TuningChange::EmulatorCpus(None),
        TuningChange::MemoryLimit(Some(MemorySize::mebibytes(300))),
        TuningChange::CpuPercent(Some(150)),
        TuningChange::VcpuPercent(None),
        TuningChange::CpuWeight(Some(200)),
        TuningChange::VcpuQuota(Some(QUOTA)),
        TuningChange::Block(block()),
        TuningChange::MemoryNodes(Some(nodes())),
        TuningChange::MemorySoftLimit(None),
        TuningChange::MemoryAndSwapLimit(Some(MemorySize::mebibytes(400))),
    ]
}

const QUOTA: CpuQuota = CpuQuota {
    quota_us: 25_000,
    period_us: 50_000,
};

fn nodes() -> MemoryNodes {
    MemoryNodes {
        mode: NodeMode::Interleave,
        nodes: "0-1".parse().unwrap(),
    }
}

fn block() -> BlockTuning {
    BlockTuning {
        weight: Some(300),
        devices: vec![BlockDeviceTuning {
            path: "/dev/sda".into(),
            weight: Some(400),
            read_bytes: Some(1 << 20),
            write_bytes: None,
            read_operations: None,
            write_operations: Some(70),
        }],
    }
}

fn device_calls() -> Vec<(&'static str, FromClient)> {
    let devices = devices();
    let attach = |device| {
        call(DomainDeviceAttach {
            domain: web(),
            device: Box::new(device),
            live: true,
            persistent: false,
        })
    };
    let detach = |device: &str, force| {
        call(DomainDeviceDetach {
            domain: web(),
            device: device.parse().unwrap(),
            force,
            live: false,
            persistent: true,
        })
    };
    let update = |change| {
        call(DomainDeviceUpdate {
            domain: web(),
            device: "balloon".parse().unwrap(),
            change,
            live: true,
            persistent: false,
        })
    };
    let disk = devices.disks.into_iter().map(Device::Disk).next();
    let nic = devices.nics.into_iter().map(Device::Nic).next();
    let share = devices.shares.into_iter().map(Device::Share).next();
    let channel = devices.channels.into_iter().map(Device::Channel).next();
    let console = devices.consoles.into_iter().map(Device::Console).next();
    let mut calls = vec![
        ("attach a disk", attach(disk.unwrap())),
        ("attach an interface", attach(nic.unwrap())),
        ("attach rng", attach(devices.rng.map(Device::Rng).unwrap())),
        (
            "attach a balloon",
            attach(devices.balloon.map(Device::Balloon).unwrap()),
        ),
        (
            "attach vsock",
            attach(devices.vsock.map(Device::Vsock).unwrap()),
        ),
        ("attach a share", attach(share.unwrap())),
        ("attach a channel", attach(channel.unwrap())),
        ("attach a console", attach(console.unwrap())),
        ("detach a channel", detach("channel:a.0", false)),
        ("detach a disk", detach("vda", false)),
        ("detach by force", detach("52:54:00:0a:0b:0c", true)),
        ("set the memory", {
            let (domain, memory) = (web(), MemorySize::mebibytes(64));
            call(DomainMemorySet { domain, memory })
        }),
        ("device stats", call(DomainDeviceStatsGet { domain: web() })),
        ("upgrade", call(DomainUpgrade { domain: web() })),
        ("set the vCPUs", {
            call(DomainVcpusSet {
                domain: web(),
                vcpus: Vcpus::try_from(300).unwrap(),
                live: true,
                persistent: false,
            })
        }),
        ("vCPU stats", call(DomainVcpuStatsGet { domain: web() })),
        ("insert", medium(true)),
        ("eject", medium(false)),
    ];
    calls.extend(
        changes()
            .into_iter()
            .map(|(name, change)| (name, update(change))),
    );
    calls
}

fn medium(insert: bool) -> FromClient {
    let layer = |path: &str, format| Layer {
        path: path.into(),
        format,
    };
    let medium = || Medium {
        image: layer("/a", DiskFormat::Qcow2),
        backing: vec![layer("/b", DiskFormat::Raw)],
        from_image: false,
    };
    call(DomainMediumChange {
        domain: web(),
        device: "vdc".parse().unwrap(),
        medium: insert.then(medium).map(Box::new),
        live: true,
        persistent: false,
    })
}

fn list(after: Option<DomainName>, active_only: bool) -> FromClient {
    call(DomainList { after, active_only })
}

fn start(options: StartOptions) -> FromClient {
    call(DomainStart {
        domain: web(),
        options,
    })
}

fn shutdown(destroy_after_ms: Option<u32>, for_host: bool) -> FromClient {
    call(DomainShutdown {
        domain: web(),
        destroy_after_ms,
        for_host,
    })
}

fn autostart(order: Option<u32>) -> FromClient {
    call(DomainAutostartSet {
        domain: web(),
        order,
    })
}

fn agent_timeout(timeout: AgentTimeout) -> FromClient {
    call(DomainAgentTimeoutSet {
        domain: web(),
        timeout,
    })
}

fn log(log: LogKind) -> FromClient {
    call(DomainLog { domain: web(), log })
}
