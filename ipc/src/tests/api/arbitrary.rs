//! Strategies for every type of the native API: any message that can be expressed at all.

use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use uuid::Uuid;

use super::device_samples::{any_device, any_devices, any_medium};
use super::samples::from_client as client_samples;
use super::supervisor_samples::{ERROR_CODES, JOBS, STATES, to_client as supervisor_samples};
use crate::BuildId;
use crate::api::call::{
    AnswerBody, CallBody, ConfigReload, ConsoleStream, DomainAutostartSet, DomainConsole,
    DomainCreate, DomainDefine, DomainDefinitionGet, DomainDeviceAttach, DomainDeviceDetach,
    DomainDeviceUpdate, DomainGet, DomainLabelSet, DomainList, DomainLog, DomainMediumChange,
    DomainMemorySet, DomainPage, DomainRef, DomainRename, DomainShutdown, DomainStart,
    DomainUpgrade, DomainVcpusSet, EventsSubscribe, LabelChange, LogFilterSet, LogKind,
    StartOptions, Subscribed,
};
use crate::api::error::{ApiError, ApiErrorCode};
use crate::api::event::{Cursor, DomainEvent, Event, EventKind, NetworkEvent, PoolEvent};
use crate::api::message::{CallId, FromClient, ToClient};
use crate::api::view::{
    AgentTimeout, DeviceStats, DomainDefinition, DomainDetails, DomainStats, DomainSummary,
    SupervisorInfo, VcpuStats, WorkerDetails,
};
use crate::api::{Access, ApiVersion};
use crate::model::{
    BlockDeviceTuning, BlockTuning, BootSource, CpuQuota, CpuSet, DeviceName, Domain, DomainName,
    DomainUuid, GenerationId, KeptElement, KernelBoot, Labels, LifecycleAction, MAX_HOST_CPUS,
    MemoryNodes, MemorySize, MetadataElement, NetworkName, NetworkUuid, NodeMode, OnCrash,
    OnPowerOff, OnReboot, Platform, PoolName, PoolUuid, ResourceLimits, Tuning, VcpuPin, Vcpus,
};
use crate::spec::{CpuSwitches, MAX_VCPUS, MachineType};
use crate::tests::arbitrary::watchdog_action;
use crate::tests::device_samples::{any_mac, any_slot};
use crate::tests::plug_samples::{any_change, any_figures};

/// Text of any characters, long enough to leave the one-byte lengths.
fn text() -> impl Strategy<Value = String> {
    proptest::collection::vec(any::<char>(), 0..300).prop_map(|chars| chars.into_iter().collect())
}

fn name() -> impl Strategy<Value = DomainName> {
    text().prop_map(|text| {
        let mut name: String = text
            .chars()
            .filter(|c| !c.is_control() && *c != '/')
            .collect();
        crate::error::truncate(&mut name, 255);
        DomainName::try_from(name).unwrap_or_else(|_| "web".parse().unwrap())
    })
}

fn uuid() -> impl Strategy<Value = DomainUuid> {
    any::<u128>().prop_map(|number| DomainUuid(Uuid::from_u128(number)))
}

fn domain_ref() -> impl Strategy<Value = DomainRef> {
    prop_oneof![
        name().prop_map(DomainRef::Name),
        uuid().prop_map(DomainRef::Uuid),
        any::<u32>().prop_map(DomainRef::Id),
    ]
}

fn size() -> impl Strategy<Value = MemorySize> {
    any::<u64>().prop_map(MemorySize)
}

fn boot() -> impl Strategy<Value = BootSource> {
    prop_oneof![
        text().prop_map(|command_line| BootSource::BuiltIn { command_line }),
        (text(), option::of(text()), text()).prop_map(|(kernel, initrd, command_line)| {
            BootSource::Kernel(KernelBoot {
                kernel: kernel.into(),
                initrd: initrd.map(Into::into),
                command_line,
            })
        }),
        Just(BootSource::Firmware),
    ]
}

fn lifecycle() -> impl Strategy<Value = LifecycleAction> {
    let off = select(vec![
        OnPowerOff::Destroy,
        OnPowerOff::Restart,
        OnPowerOff::Preserve,
    ]);
    let reboot = select(vec![
        OnReboot::Restart,
        OnReboot::Destroy,
        OnReboot::Preserve,
    ]);
    let crash = select(vec![OnCrash::Destroy, OnCrash::Restart, OnCrash::Preserve]);
    (off, reboot, crash).prop_map(|(on_power_off, on_reboot, on_crash)| LifecycleAction {
        on_power_off,
        on_reboot,
        on_crash,
    })
}

fn limits() -> impl Strategy<Value = ResourceLimits> {
    let percents = any::<[Option<u32>; 3]>();
    let memory = || option::of(size());
    let memory = (memory(), memory(), memory());
    (memory, percents, any::<Option<u16>>()).prop_map(
        |(memory, [cpu_percent, vcpu_percent, pids], cpu_weight)| ResourceLimits {
            memory: memory.0,
            memory_soft: memory.1,
            memory_and_swap: memory.2,
            cpu_percent,
            vcpu_percent,
            cpu_weight,
            pids,
        },
    )
}

fn pin() -> impl Strategy<Value = VcpuPin> {
    (any::<u32>(), cpu_set()).prop_map(|(vcpu, cpus)| VcpuPin { vcpu, cpus })
}

fn metadata() -> impl Strategy<Value = MetadataElement> {
    (text(), text()).prop_map(|(uri, content)| MetadataElement { uri, content })
}

fn labels() -> impl Strategy<Value = Labels> {
    let metadata = proptest::collection::vec(metadata(), 0..3);
    (option::of(text()), option::of(text()), metadata).prop_map(|(title, description, metadata)| {
        Labels {
            title,
            description,
            metadata,
        }
    })
}

fn domain() -> impl Strategy<Value = Domain> {
    let identity = (name(), uuid(), select(&MachineType::ALL[..]));
    let machine = (
        (1..=MAX_VCPUS, 1..=MAX_VCPUS),
        any::<[bool; 4]>(),
        size(),
        boot(),
        any_devices(),
    );
    let rest = (
        lifecycle(),
        limits(),
        proptest::collection::vec(pin(), 0..3),
        labels(),
        (platform(), kept(), tuning()),
    );
    (identity, machine, rest).prop_map(|(identity, machine, rest)| Domain {
        name: identity.0,
        uuid: identity.1,
        machine: identity.2,
        vcpus: Vcpus::try_from(machine.0.0).unwrap(),
        cpu: CpuSwitches {
            tsc_deadline: machine.1[0],
            kvmclock: machine.1[1],
            invariant_tsc: machine.1[2],
            transactional_memory: machine.1[3],
        },
        memory: machine.2,
        boot: machine.3,
        devices: machine.4,
        lifecycle: rest.0,
        limits: rest.1,
        pinning: rest.2,
        labels: rest.3,
        max_vcpus: Vcpus::try_from(machine.0.1).unwrap(),
        platform: rest.4.0,
        kept: rest.4.1,
        tuning: rest.4.2,
    })
}

fn cpu_set() -> impl Strategy<Value = CpuSet> {
    let range = (0..MAX_HOST_CPUS, 0..MAX_HOST_CPUS).prop_map(|(a, b)| (a.min(b), a.max(b)));
    let ranges = proptest::collection::vec(range, 1..5);
    ranges.prop_map(|ranges| CpuSet::try_from(ranges).unwrap())
}

fn quota() -> impl Strategy<Value = CpuQuota> {
    any::<(u64, u32)>().prop_map(|(quota_us, period_us)| CpuQuota {
        quota_us,
        period_us,
    })
}

fn block() -> impl Strategy<Value = BlockTuning> {
    let device = (text(), any::<[Option<u64>; 2]>(), any::<[Option<u32>; 2]>());
    let device = device.prop_map(|(path, [read_bytes, write_bytes], operations)| {
        let [read_operations, write_operations] = operations;
        BlockDeviceTuning {
            path: path.into(),
            weight: None,
            read_bytes,
            write_bytes,
            read_operations,
            write_operations,
        }
    });
    let devices = proptest::collection::vec(device, 0..3);
    (any::<Option<u16>>(), devices).prop_map(|(weight, devices)| BlockTuning { weight, devices })
}

fn tuning() -> impl Strategy<Value = Tuning> {
    let mode = proptest::sample::select(vec![
        NodeMode::Strict,
        NodeMode::Preferred,
        NodeMode::Interleave,
        NodeMode::Restrictive,
    ]);
    let nodes = (mode, cpu_set()).prop_map(|(mode, nodes)| MemoryNodes { mode, nodes });
    let bounds = (option::of(quota()), block(), option::of(nodes));
    let all = (option::of(size()), option::of(cpu_set()), bounds);
    all.prop_map(
        |(current_memory, emulator_cpus, (vcpu_quota, block, memory_nodes))| Tuning {
            vcpu_quota,
            block,
            memory_nodes,
            current_memory,
            emulator_cpus,
        },
    )
}

fn kept() -> impl Strategy<Value = Vec<KeptElement>> {
    let element = (text(), text()).prop_map(|(path, xml)| KeptElement { path, xml });
    proptest::collection::vec(element, 0..3)
}

fn platform() -> impl Strategy<Value = Platform> {
    let generation_id = prop_oneof![
        Just(GenerationId::Absent),
        Just(GenerationId::Random),
        any::<u128>().prop_map(|id| GenerationId::Fixed(Uuid::from_u128(id))),
    ];
    (generation_id, any::<bool>()).prop_map(|(generation_id, panic_port)| Platform {
        generation_id,
        panic_port,
    })
}

fn options() -> impl Strategy<Value = StartOptions> {
    any::<(bool, bool)>().prop_map(|(paused, auto_destroy)| StartOptions {
        paused,
        auto_destroy,
    })
}

fn cursor() -> impl Strategy<Value = Cursor> {
    any::<(u64, u64)>().prop_map(|(epoch, number)| Cursor { epoch, number })
}

fn label() -> impl Strategy<Value = LabelChange> {
    prop_oneof![
        option::of(text()).prop_map(LabelChange::Title),
        option::of(text()).prop_map(LabelChange::Description),
        metadata().prop_map(LabelChange::Metadata),
        text().prop_map(|uri| LabelChange::MetadataRemove { uri }),
    ]
}

fn device_name() -> impl Strategy<Value = DeviceName> {
    prop_oneof![
        select(vec![
            "vda",
            "vdzzz",
            "vnet0",
            "rng",
            "balloon",
            "vsock",
            "ports",
            "share:t",
            "watchdog",
            "channel:a:b",
            "console:30",
            "memory"
        ])
        .prop_map(|name| name.parse().unwrap()),
        any_mac().prop_map(DeviceName::Nic),
        any_slot().prop_map(DeviceName::Slot),
    ]
}

/// The calls that take more than a domain; the samples have the others.
fn call() -> impl Strategy<Value = CallBody> {
    use CallBody as C;
    let labels = (domain_ref(), label(), any::<(bool, bool)>());
    let kind = select(vec![LogKind::Domain, LogKind::Console]);
    let definition = || domain().prop_map(Box::new);
    prop_oneof![
        Just(C::ConfigReload(ConfigReload {})),
        text().prop_map(|filter| C::LogFilterSet(LogFilterSet { filter })),
        (option::of(name()), any::<bool>())
            .prop_map(|(after, active_only)| { C::DomainList(DomainList { after, active_only }) }),
        domain_ref().prop_map(|domain| C::DomainGet(DomainGet { domain })),
        (domain_ref(), any::<bool>()).prop_map(|(domain, persistent)| {
            C::DomainDefinitionGet(DomainDefinitionGet { domain, persistent })
        }),
        (definition(), any::<bool>()).prop_map(|(definition, only_new)| {
            C::DomainDefine(DomainDefine {
                definition,
                only_new,
            })
        }),
        (definition(), options()).prop_map(|(definition, options)| {
            C::DomainCreate(DomainCreate {
                definition,
                options,
            })
        }),
        (domain_ref(), options())
            .prop_map(|(domain, options)| C::DomainStart(DomainStart { domain, options })),
        (domain_ref(), any::<(Option<u32>, bool)>()).prop_map(
            |(domain, (destroy_after_ms, for_host))| {
                C::DomainShutdown(DomainShutdown {
                    domain,
                    destroy_after_ms,
                    for_host,
                })
            }
        ),
        (domain_ref(), any::<Option<u32>>()).prop_map(|(domain, order)| {
            C::DomainAutostartSet(DomainAutostartSet { domain, order })
        }),
        (domain_ref(), name())
            .prop_map(|(domain, name)| C::DomainRename(DomainRename { domain, name })),
        labels.prop_map(|(domain, label, (live, persistent))| {
            C::DomainLabelSet(DomainLabelSet {
                domain,
                label,
                live,
                persistent,
            })
        }),
        (domain_ref(), any::<bool>())
            .prop_map(|(domain, input)| C::DomainConsole(DomainConsole { domain, input })),
        (domain_ref(), kind).prop_map(|(domain, log)| C::DomainLog(DomainLog { domain, log })),
        option::of(cursor()).prop_map(|after| C::EventsSubscribe(EventsSubscribe { after })),
        (domain_ref(), any_device(), any::<[bool; 2]>()).prop_map(|(domain, device, flags)| {
            C::DomainDeviceAttach(DomainDeviceAttach {
                domain,
                device: Box::new(device),
                live: flags[0],
                persistent: flags[1],
            })
        }),
        (domain_ref(), device_name(), any::<[bool; 3]>()).prop_map(|(domain, device, flags)| {
            C::DomainDeviceDetach(DomainDeviceDetach {
                domain,
                device,
                force: flags[0],
                live: flags[1],
                persistent: flags[2],
            })
        }),
        (
            domain_ref(),
            device_name(),
            any_change(),
            any::<[bool; 2]>()
        )
            .prop_map(|(domain, device, change, flags)| {
                C::DomainDeviceUpdate(DomainDeviceUpdate {
                    domain,
                    device,
                    change,
                    live: flags[0],
                    persistent: flags[1],
                })
            }),
        (domain_ref(), size())
            .prop_map(|(domain, memory)| C::DomainMemorySet(DomainMemorySet { domain, memory })),
        domain_ref().prop_map(|domain| C::DomainUpgrade(DomainUpgrade { domain })),
        (domain_ref(), 1..=MAX_VCPUS, any::<[bool; 2]>()).prop_map(|(domain, vcpus, flags)| {
            C::DomainVcpusSet(DomainVcpusSet {
                domain,
                vcpus: Vcpus::try_from(vcpus).unwrap(),
                live: flags[0],
                persistent: flags[1],
            })
        }),
        (domain_ref(), option::of(any_medium()), any::<[bool; 2]>()).prop_map(
            |(domain, medium, flags)| {
                C::DomainMediumChange(DomainMediumChange {
                    domain,
                    device: "vdc".parse().unwrap(),
                    medium: medium.map(Box::new),
                    live: flags[0],
                    persistent: flags[1],
                })
            }
        ),
    ]
}

/// Anything a client may say.
pub(super) fn from_client() -> impl Strategy<Value = FromClient> {
    prop_oneof![
        1 => select(client_samples()).prop_map(|(_, message)| message),
        1 => (any::<u16>(), text())
            .prop_map(|(api, client)| FromClient::Hello { api: ApiVersion(api), client }),
        6 => (any::<u64>(), call())
            .prop_map(|(id, body)| FromClient::Call { id: CallId(id), body }),
    ]
}

fn summary() -> impl Strategy<Value = DomainSummary> {
    let job = option::of(select(&JOBS[..]));
    (
        (
            name(),
            uuid(),
            any::<[Option<u32>; 2]>(),
            select(&STATES[..]),
        ),
        (
            any::<[bool; 3]>(),
            any::<[u32; 2]>(),
            [size(), size(), size()],
        ),
        (option::of(text()), job),
    )
        .prop_map(|(identity, numbers, rest)| DomainSummary {
            name: identity.0,
            uuid: identity.1,
            id: identity.2[0],
            state: identity.3,
            persistent: numbers.0[0],
            autostart: identity.2[1],
            vcpus: numbers.1[0],
            memory: numbers.2[0],
            title: rest.0,
            unresponsive: numbers.0[1],
            reaping: numbers.0[2],
            job: rest.1,
            max_vcpus: numbers.1[1],
            current_memory: numbers.2[1],
            max_memory: numbers.2[2],
        })
}

fn worker() -> impl Strategy<Value = WorkerDetails> {
    let parts = (any::<[u32; 2]>(), any::<[bool; 2]>(), option::of(text()));
    (parts, any::<Option<u32>>()).prop_map(|((ids, flags, cgroup), landlock_abi)| WorkerDetails {
        pid: ids[0],
        uid: ids[1],
        own_uid: flags[0],
        cgroup,
        landlock_abi,
        adopted: flags[1],
    })
}

fn details() -> impl Strategy<Value = DomainDetails> {
    let timeout = prop_oneof![
        Just(AgentTimeout::Block),
        Just(AgentTimeout::Default),
        any::<u32>().prop_map(AgentTimeout::Seconds),
    ];
    let rest = (
        any::<Option<u64>>(),
        any::<u64>(),
        any::<bool>(),
        option::of(timeout),
    );
    (summary(), option::of(worker()), option::of(text()), rest).prop_map(
        |(summary, worker, last_failure, rest)| DomainDetails {
            summary,
            started_ms: rest.0,
            worker,
            resets: rest.1,
            last_failure,
            redefined: rest.2,
            agent_timeout: rest.3,
        },
    )
}

fn info() -> impl Strategy<Value = SupervisorInfo> {
    let texts = (text(), text(), text());
    let refused = proptest::collection::vec(text(), 0..3);
    (texts, any::<[u32; 5]>(), any::<[u64; 2]>(), refused).prop_map(
        |(texts, small, large, refused)| SupervisorInfo {
            build: texts.0,
            pid: small[0],
            started_ms: large[0],
            state_directory: texts.1,
            run_directory: texts.2,
            active: small[1],
            inactive: small[2],
            adopted: small[3],
            adopted_within_us: large[1],
            clients: small[4],
            refused,
        },
    )
}

fn stats() -> impl Strategy<Value = DomainStats> {
    (any::<[u64; 4]>(), any::<u32>()).prop_map(|(large, console_clients)| DomainStats {
        cpu_time_ns: large[0],
        resident_bytes: large[1],
        console_dropped_bytes: large[2],
        console_clients,
        log_dropped: large[3],
    })
}

fn device_stats() -> impl Strategy<Value = DeviceStats> {
    let what = (device_name(), any_slot(), option::of(text()));
    (what, any_figures()).prop_map(|((device, slot, host), figures)| DeviceStats {
        device,
        slot,
        host,
        figures,
    })
}

fn vcpu_stats() -> impl Strategy<Value = VcpuStats> {
    (any::<(u32, u64)>(), any::<Option<u64>>()).prop_map(|((vcpu, run_ns), wait_ns)| VcpuStats {
        vcpu,
        run_ns,
        wait_ns,
    })
}

/// The answers that say more than that it is done; the samples have the others.
fn answer() -> impl Strategy<Value = AnswerBody> {
    use AnswerBody as A;
    let definition = (domain(), any::<Option<u32>>());
    let page = (proptest::collection::vec(summary(), 0..5), any::<bool>());
    prop_oneof![
        info().prop_map(A::SupervisorInfoGet),
        proptest::collection::vec(text(), 0..3).prop_map(A::ConfigReload),
        page.prop_map(|(domains, more)| A::DomainList(DomainPage { domains, more })),
        details().prop_map(A::DomainGet),
        definition.prop_map(|(domain, autostart)| {
            A::DomainDefinitionGet(Box::new(DomainDefinition { domain, autostart }))
        }),
        stats().prop_map(A::DomainStatsGet),
        summary().prop_map(A::DomainDefine),
        summary().prop_map(A::DomainStart),
        summary().prop_map(A::DomainCreate),
        any::<u64>().prop_map(|position| A::DomainConsole(ConsoleStream { position })),
        (cursor(), any::<bool>())
            .prop_map(|(cursor, lost)| A::EventsSubscribe(Subscribed { cursor, lost })),
        proptest::collection::vec(device_stats(), 0..32).prop_map(A::DomainDeviceStatsGet),
        Just(A::DomainUpgrade(())),
        proptest::collection::vec(vcpu_stats(), 0..32).prop_map(A::DomainVcpuStatsGet),
    ]
}

fn error() -> impl Strategy<Value = ApiError> {
    let code = select::<ApiErrorCode>(&ERROR_CODES[..]);
    (code, text()).prop_map(|(code, message)| ApiError { code, message })
}

fn event() -> impl Strategy<Value = EventKind> {
    use EventKind as E;
    prop_oneof![
        any::<bool>().prop_map(|changed| E::Defined { changed }),
        name().prop_map(|before| E::Renamed { before }),
        select(&STATES[..]).prop_map(E::State),
        (select(&JOBS[..]), text()).prop_map(|(job, message)| E::JobFailed { job, message }),
        any::<Option<u32>>().prop_map(|order| E::Autostart { order }),
        (device_name(), any_slot()).prop_map(|(device, slot)| E::DeviceAdded { device, slot }),
        (device_name(), any_slot()).prop_map(|(device, slot)| E::DeviceRemoved { device, slot }),
        size().prop_map(|memory| E::BalloonChanged { memory }),
        any::<u32>().prop_map(|vcpus| E::VcpusChanged { vcpus }),
        Just(E::CrashKernel),
        (text(), any::<bool>()).prop_map(|(channel, open)| E::ChannelChanged { channel, open }),
        Just(E::Panicked),
        watchdog_action().prop_map(|action| E::WatchdogExpired { action }),
    ]
}

/// Any event at all.
fn any_event() -> impl Strategy<Value = Event> {
    let pool_name = name().prop_map(|name| PoolName::try_from(name.as_str().to_owned()).unwrap());
    let kind = select(&super::storage_samples::EVENTS[..]);
    let network_name =
        name().prop_map(|name| NetworkName::try_from(name.as_str().to_owned()).unwrap());
    let network_kind = select(super::network_samples::event_kinds());
    prop_oneof![
        (any::<u64>(), uuid(), name(), event()).prop_map(|(time_ms, uuid, name, kind)| {
            Event::Domain(DomainEvent {
                time_ms,
                uuid,
                name,
                kind,
            })
        }),
        (any::<u64>(), any::<u128>(), pool_name, kind).prop_map(|(time_ms, uuid, name, kind)| {
            Event::Pool(PoolEvent {
                time_ms,
                uuid: PoolUuid(Uuid::from_u128(uuid)),
                name,
                kind,
            })
        }),
        (any::<u64>(), any::<u128>(), network_name, network_kind).prop_map(
            |(time_ms, uuid, name, kind)| {
                Event::Network(NetworkEvent {
                    time_ms,
                    uuid: NetworkUuid(Uuid::from_u128(uuid)),
                    name,
                    kind,
                })
            }
        ),
    ]
}

/// Anything a supervisor may say.
pub(super) fn to_client() -> impl Strategy<Value = ToClient> {
    let access = select(vec![Access::ReadOnly, Access::ReadWrite]);
    prop_oneof![
        1 => select(supervisor_samples()).prop_map(|(_, message)| message),
        1 => (any::<u16>(), text(), access).prop_map(|(api, build, access)| ToClient::Welcome {
            api: ApiVersion(api),
            build: BuildId(build),
            access,
        }),
        1 => error().prop_map(ToClient::Refused),
        6 => (any::<u64>(), proptest::result::maybe_ok(answer(), error()))
            .prop_map(|(id, result)| ToClient::Reply { id: CallId(id), result }),
        3 => (cursor(), any_event())
            .prop_map(|(cursor, event)| ToClient::Event { cursor, event }),
    ]
}
