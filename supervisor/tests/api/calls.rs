//! One call of every operation, and the right that each needs: a new call does not compile here until
//! somebody has decided who may make it.

use reeve_ipc::api::Access;
use reeve_ipc::api::call::{
    Call as _, CallBody, ConfigReload, DomainAgentTimeoutSet, DomainAutostartSet, DomainChannel,
    DomainConsole, DomainCreate, DomainCurrentMemorySet, DomainDefinitionGet, DomainDestroy,
    DomainDeviceAttach, DomainDeviceDetach, DomainDeviceStatsGet, DomainDeviceUpdate,
    DomainDiskSizeGet, DomainFiguresList, DomainGet, DomainLabelSet, DomainList, DomainLog,
    DomainMaxMemorySet, DomainMediumChange, DomainMemorySet, DomainNeighboursGet,
    DomainNicFilterSet, DomainNmiInject, DomainPause, DomainPeek, DomainPortTagsSet, DomainReboot,
    DomainRename, DomainReset, DomainResume, DomainShutdown, DomainStatsGet, DomainTune,
    DomainUndefine, DomainUpgrade, DomainVcpuStatsGet, DomainVcpusSet, EventsSubscribe,
    EventsUnsubscribe, HostCpuList, HostCpuStatsGet, HostCpuidGet, HostFreePagesGet, HostInfoGet,
    HostInterfaceList, HostMemoryStatsGet, LabelChange, LogFilterSet, LogKind, NewCapacity,
    Operation, PeekAt, PoolAutostartSet, PoolBuild, PoolCreate, PoolDefine, PoolDelete, PoolFilter,
    PoolGet, PoolList, PoolRef, PoolRefresh, PoolStart, PoolStop, PoolUndefine, StartOptions,
    SupervisorInfoGet, TestHypervisorUse, TuningChange, VolumeClone, VolumeCreate, VolumeDelete,
    VolumeDownload, VolumeGet, VolumeList, VolumeRef, VolumeResize, VolumeUpload, VolumeWipe,
    WipeAlgorithm,
};
use reeve_ipc::api::figures::{FigureGroups, FiguresOf};
use reeve_ipc::api::view::AgentTimeout;
use reeve_ipc::device::DeviceChange;
use reeve_ipc::model::{
    Device, DeviceName, MemorySize, NewVolume, Permissions, Pool, PoolUuid, Rng, Vcpus,
};

use super::harness::{define, domain, named, start};
use super::network_calls::network;
use super::nwfilter_calls::nwfilter;

/// Who may do what, decided a second time.
pub const fn right(operation: Operation) -> Access {
    use Operation as O;
    match operation {
        O::SupervisorInfoGet
        | O::DomainList
        | O::DomainGet
        | O::DomainDefinitionGet
        | O::DomainStatsGet
        | O::DomainDeviceStatsGet
        | O::DomainVcpuStatsGet
        | O::EventsSubscribe
        | O::EventsUnsubscribe
        | O::HostInfoGet
        | O::HostCpuList
        | O::HostCpuStatsGet
        | O::HostMemoryStatsGet
        | O::HostFreePagesGet
        | O::HostCpuidGet
        | O::HostInterfaceList
        | O::DomainNeighboursGet
        | O::DomainFiguresList
        | O::DomainDiskSizeGet
        | O::PoolList
        | O::PoolGet
        | O::VolumeList
        | O::VolumeGet
        | O::NetworkList
        | O::NetworkGet
        | O::NetworkDefinitionGet
        | O::NetworkLeasesGet
        | O::NetworkPortList
        | O::NwfilterList
        | O::NwfilterGet
        | O::NwfilterBindingList
        | O::TestHypervisorUse => Access::ReadOnly,
        // What a guest says, and what is said about it, is for those who may change it.
        O::DomainConsole
        | O::DomainLog
        | O::ConfigReload
        | O::LogFilterSet
        | O::DomainDefine
        | O::DomainUndefine
        | O::DomainStart
        | O::DomainCreate
        | O::DomainShutdown
        | O::DomainReboot
        | O::DomainReset
        | O::DomainPause
        | O::DomainResume
        | O::DomainDestroy
        | O::DomainAutostartSet
        | O::DomainRename
        | O::DomainLabelSet
        | O::DomainDeviceAttach
        | O::DomainDeviceDetach
        | O::DomainDeviceUpdate
        | O::DomainMemorySet
        | O::DomainUpgrade
        | O::DomainVcpusSet
        | O::DomainMediumChange
        | O::DomainPortTagsSet
        | O::DomainNicFilterSet
        | O::DomainCurrentMemorySet
        | O::DomainMaxMemorySet
        | O::DomainTune
        | O::DomainAgentTimeoutSet
        | O::DomainNmiInject
        | O::DomainPeek
        | O::DomainChannel
        | O::PoolDefine
        | O::PoolCreate
        | O::PoolBuild
        | O::PoolStart
        | O::PoolStop
        | O::PoolDelete
        | O::PoolUndefine
        | O::PoolAutostartSet
        | O::PoolRefresh
        | O::VolumeCreate
        | O::VolumeClone
        | O::VolumeResize
        | O::VolumeWipe
        | O::VolumeDelete
        | O::VolumeUpload
        | O::VolumeDownload
        | O::NetworkDefine
        | O::NetworkCreate
        | O::NetworkStart
        | O::NetworkStop
        | O::NetworkUndefine
        | O::NetworkAutostartSet
        | O::NetworkUpdate
        | O::NetworkLabelSet
        | O::NwfilterDefine
        | O::NwfilterUndefine => Access::ReadWrite,
    }
}

/// A call of `operation` about the domain 'web'.
pub fn sample(operation: Operation) -> CallBody {
    use Operation as O;
    if let Some(body) = storage(operation)
        .or_else(|| network(operation))
        .or_else(|| nwfilter(operation))
    {
        return body;
    }
    let domain_ = || named("web");
    match operation {
        O::SupervisorInfoGet => SupervisorInfoGet {}.into_body(),
        O::ConfigReload => ConfigReload {}.into_body(),
        O::LogFilterSet => LogFilterSet {
            filter: "info".to_owned(),
        }
        .into_body(),
        O::DomainList => DomainList {
            after: None,
            active_only: false,
        }
        .into_body(),
        O::DomainGet => DomainGet { domain: domain_() }.into_body(),
        O::DomainDefinitionGet => DomainDefinitionGet {
            domain: domain_(),
            persistent: true,
        }
        .into_body(),
        O::DomainStatsGet => DomainStatsGet { domain: domain_() }.into_body(),
        O::DomainDefine => define("other").into_body(),
        O::DomainUndefine => DomainUndefine { domain: domain_() }.into_body(),
        O::DomainStart => start("web", false).into_body(),
        O::DomainCreate => DomainCreate {
            definition: Box::new(domain("another")),
            options: StartOptions::default(),
        }
        .into_body(),
        O::DomainShutdown => DomainShutdown {
            domain: domain_(),
            destroy_after_ms: None,
            for_host: false,
        }
        .into_body(),
        O::DomainReboot => DomainReboot { domain: domain_() }.into_body(),
        O::DomainReset => DomainReset { domain: domain_() }.into_body(),
        O::DomainPause => DomainPause { domain: domain_() }.into_body(),
        O::DomainResume => DomainResume { domain: domain_() }.into_body(),
        O::DomainDestroy => DomainDestroy { domain: domain_() }.into_body(),
        O::DomainAutostartSet => DomainAutostartSet {
            domain: domain_(),
            order: Some(1),
        }
        .into_body(),
        O::DomainRename => DomainRename {
            domain: domain_(),
            name: "renamed".parse().unwrap(),
        }
        .into_body(),
        O::DomainLabelSet => DomainLabelSet {
            domain: domain_(),
            label: LabelChange::Title(Some("T".to_owned())),
            live: false,
            persistent: true,
        }
        .into_body(),
        O::DomainConsole => DomainConsole {
            domain: domain_(),
            input: false,
        }
        .into_body(),
        O::DomainLog => DomainLog {
            domain: domain_(),
            log: LogKind::Domain,
        }
        .into_body(),
        O::DomainDeviceAttach => DomainDeviceAttach {
            domain: domain_(),
            device: Box::new(Device::Rng(Rng::default())),
            live: false,
            persistent: true,
        }
        .into_body(),
        O::DomainDeviceDetach => DomainDeviceDetach {
            domain: domain_(),
            device: DeviceName::Rng,
            force: false,
            live: false,
            persistent: true,
        }
        .into_body(),
        O::DomainDeviceUpdate => DomainDeviceUpdate {
            domain: domain_(),
            device: DeviceName::Rng,
            change: DeviceChange::Link { up: false },
            live: false,
            persistent: true,
        }
        .into_body(),
        O::DomainMemorySet => DomainMemorySet {
            domain: domain_(),
            memory: MemorySize::mebibytes(16),
        }
        .into_body(),
        O::DomainUpgrade => DomainUpgrade { domain: domain_() }.into_body(),
        O::DomainDeviceStatsGet => DomainDeviceStatsGet { domain: domain_() }.into_body(),
        O::DomainVcpusSet => DomainVcpusSet {
            domain: domain_(),
            vcpus: Vcpus::try_from(1).unwrap(),
            live: false,
            persistent: true,
        }
        .into_body(),
        O::DomainVcpuStatsGet => DomainVcpuStatsGet { domain: domain_() }.into_body(),
        O::DomainMediumChange => DomainMediumChange {
            domain: domain_(),
            device: "vdc".parse().unwrap(),
            medium: None,
            live: true,
            persistent: false,
        }
        .into_body(),
        O::DomainPortTagsSet => DomainPortTagsSet {
            domain: domain_(),
            device: "52:54:00:00:00:01".parse().unwrap(),
            vlan: None,
            live: true,
            persistent: false,
        }
        .into_body(),
        O::DomainNicFilterSet => DomainNicFilterSet {
            domain: domain_(),
            device: "52:54:00:00:00:01".parse().unwrap(),
            filter: None,
            live: true,
            persistent: false,
        }
        .into_body(),
        O::EventsSubscribe => EventsSubscribe { after: None }.into_body(),
        O::EventsUnsubscribe => EventsUnsubscribe {}.into_body(),
        O::DomainCurrentMemorySet => DomainCurrentMemorySet {
            domain: domain_(),
            memory: MemorySize::mebibytes(16),
            live: false,
            persistent: true,
        }
        .into_body(),
        O::DomainMaxMemorySet => DomainMaxMemorySet {
            domain: domain_(),
            memory: MemorySize::mebibytes(64),
        }
        .into_body(),
        O::DomainTune => DomainTune {
            domain: domain_(),
            changes: vec![TuningChange::CpuWeight(Some(200))],
            live: false,
            persistent: true,
        }
        .into_body(),
        O::DomainAgentTimeoutSet => DomainAgentTimeoutSet {
            domain: domain_(),
            timeout: AgentTimeout::Default,
        }
        .into_body(),
        O::DomainNmiInject => DomainNmiInject { domain: domain_() }.into_body(),
        O::DomainPeek => DomainPeek {
            domain: domain_(),
            at: PeekAt::Memory,
            offset: 0,
            length: 1,
        }
        .into_body(),
        O::DomainDiskSizeGet => DomainDiskSizeGet {
            domain: domain_(),
            disk: "vda".parse().unwrap(),
        }
        .into_body(),
        O::DomainChannel => DomainChannel {
            domain: domain_(),
            channel: "org.test.0".to_owned(),
        }
        .into_body(),
        O::HostInfoGet => HostInfoGet {}.into_body(),
        O::HostCpuList => HostCpuList { after: None }.into_body(),
        O::HostCpuStatsGet => HostCpuStatsGet { first: 0, count: 1 }.into_body(),
        O::HostMemoryStatsGet => HostMemoryStatsGet {}.into_body(),
        O::HostFreePagesGet => HostFreePagesGet {}.into_body(),
        O::HostCpuidGet => HostCpuidGet {}.into_body(),
        O::HostInterfaceList => HostInterfaceList { after: None }.into_body(),
        O::DomainNeighboursGet => DomainNeighboursGet { domain: domain_() }.into_body(),
        O::DomainFiguresList => DomainFiguresList {
            of: FiguresOf::Named(vec![domain_()]),
            groups: FigureGroups::default(),
        }
        .into_body(),
        O::TestHypervisorUse => TestHypervisorUse {}.into_body(),
        // Answered above.
        other => storage(other).unwrap(),
    }
}

/// The same of storage: about the pool 'images' and its volume 'disk'.
fn storage(operation: Operation) -> Option<CallBody> {
    use Operation as O;
    let pool = || PoolRef::Name("images".parse().unwrap());
    let definition = || {
        Box::new(Pool {
            name: "images".parse().unwrap(),
            uuid: PoolUuid(uuid::Uuid::from_u128(7)),
            target: "/nowhere/images".into(),
            permissions: Permissions::default(),
        })
    };
    let volume = || VolumeRef::Name {
        pool: pool(),
        name: "disk".parse().unwrap(),
    };
    let new = || Box::new(NewVolume::raw("new".parse().unwrap(), 512));
    Some(match operation {
        O::PoolList => PoolList {
            after: None,
            filter: PoolFilter::default(),
        }
        .into_body(),
        O::PoolGet => PoolGet { pool: pool() }.into_body(),
        O::PoolDefine => PoolDefine {
            pool: definition(),
            only_new: false,
        }
        .into_body(),
        O::PoolCreate => PoolCreate {
            pool: definition(),
            build: false,
        }
        .into_body(),
        O::PoolBuild => PoolBuild { pool: pool() }.into_body(),
        O::PoolStart => PoolStart {
            pool: pool(),
            build: false,
        }
        .into_body(),
        O::PoolStop => PoolStop { pool: pool() }.into_body(),
        O::PoolDelete => PoolDelete { pool: pool() }.into_body(),
        O::PoolUndefine => PoolUndefine { pool: pool() }.into_body(),
        O::PoolAutostartSet => PoolAutostartSet {
            pool: pool(),
            autostart: true,
        }
        .into_body(),
        O::PoolRefresh => PoolRefresh { pool: pool() }.into_body(),
        O::VolumeList => VolumeList {
            pool: pool(),
            after: None,
        }
        .into_body(),
        O::VolumeGet => VolumeGet { volume: volume() }.into_body(),
        O::VolumeCreate => VolumeCreate {
            pool: pool(),
            volume: new(),
            preallocate_metadata: false,
        }
        .into_body(),
        O::VolumeClone => VolumeClone {
            pool: pool(),
            volume: new(),
            from: volume(),
            preallocate_metadata: false,
            reflink: false,
            from_format: None,
        }
        .into_body(),
        O::VolumeResize => VolumeResize {
            volume: volume(),
            capacity: NewCapacity::To(1024),
            allocate: false,
            shrink: false,
            format: None,
        }
        .into_body(),
        O::VolumeWipe => VolumeWipe {
            volume: volume(),
            algorithm: WipeAlgorithm::Zero,
        }
        .into_body(),
        O::VolumeDelete => VolumeDelete {
            volume: volume(),
            zeroed: false,
        }
        .into_body(),
        O::VolumeUpload => VolumeUpload {
            volume: volume(),
            offset: 0,
            length: 0,
        }
        .into_body(),
        O::VolumeDownload => VolumeDownload {
            volume: volume(),
            offset: 0,
            length: 0,
        }
        .into_body(),
        _ => return None,
    })
}
