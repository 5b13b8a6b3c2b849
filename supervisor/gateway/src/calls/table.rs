//! Which function serves which procedure.

use std::sync::Arc;

use super::failure::Failure;
use super::{
    Begun, Context, absent, agent, bandwidth, block_shares, connect, cpus, define, devices,
    domstats, empty, host, info, inside, interfaces, job, labels, lifecycle, list, lookup,
    measures, memory, memory_limits, memory_nodes, network, nwfilter, pinning, procedure,
    scheduler, security, start, statistics, storage, threads, throttle, vcpus,
};
use crate::wire::call::Call as _;
use crate::wire::frame::{Header, Program};
use crate::wire::types as wire;

/// Declares [`begin`], and `SERVED` for the table of procedures.
macro_rules! served {
    ($($call:path => $handler:path;)*) => {
        /// Numbers of the procedures of the main program that are served here.
        #[cfg(test)]
        pub(crate) const SERVED: &[i32] = &[$(<$call>::NUMBER),*];

        /// Begins a call.
        ///
        /// # Errors
        /// It is not served, or its arguments are none.
        pub(crate) fn begin(
            context: &Arc<Context>,
            header: Header,
            payload: &[u8],
        ) -> Result<Begun, Failure> {
            if header.program == Program::Remote.number() {
                $(if header.procedure == <$call>::NUMBER {
                    return start::<$call, _>(context, header, payload, $handler);
                })*
            }
            let agent = wire::qemu::QemuDomainAgentCommand::NUMBER;
            if header.program == Program::Qemu.number() && header.procedure == agent {
                return start(context, header, payload, agent::command);
            }
            Err(Failure::not_supported(procedure(header)?))
        }
    };
}

served! {
    wire::connect::ConnectGetType => connect::kind;
    wire::connect::ConnectGetVersion => connect::version;
    wire::connect::ConnectGetLibVersion => connect::library_version;
    wire::connect::ConnectGetMaxVcpus => connect::max_vcpus;
    wire::connect::ConnectGetHostname => connect::hostname;
    wire::connect::ConnectGetUri => connect::uri;
    wire::connect::ConnectIsSecure => connect::is_secure;
    wire::connect::ConnectGetCapabilities => host::capabilities;
    wire::connect::ConnectGetDomainCapabilities => host::domain_capabilities;
    wire::connect::ConnectGetCpuModelNames => cpus::models;
    wire::connect::ConnectCompareCpu => cpus::compare;
    wire::connect::ConnectBaselineCpu => cpus::baseline;
    wire::connect::ConnectCompareHypervisorCpu => cpus::compare_with_hypervisor;
    wire::connect::ConnectBaselineHypervisorCpu => cpus::baseline_of_hypervisor;
    wire::host::NodeGetInfo => host::info;
    wire::host::NodeGetFreeMemory => host::free_memory;
    wire::host::NodeGetCellsFreeMemory => host::cells_free_memory;
    wire::host::NodeGetCpuStats => host::cpu_stats;
    wire::host::NodeGetMemoryStats => host::memory_stats;
    wire::host::NodeGetCpuMap => host::cpu_map;
    wire::host::NodeGetFreePages => host::free_pages;
    wire::lifecycle::ConnectListAllDomains => list::all;
    wire::lifecycle::ConnectListDomains => list::active_ids;
    wire::lifecycle::ConnectNumOfDomains => list::active_count;
    wire::lifecycle::ConnectListDefinedDomains => list::inactive_names;
    wire::lifecycle::ConnectNumOfDefinedDomains => list::inactive_count;
    wire::lifecycle::DomainLookupById => lookup::by_id;
    wire::lifecycle::DomainLookupByName => lookup::by_name;
    wire::lifecycle::DomainLookupByUuid => lookup::by_uuid;
    wire::inspect::DomainGetInfo => info::info;
    wire::inspect::DomainGetState => info::state;
    wire::inspect::DomainIsActive => info::is_active;
    wire::inspect::DomainIsPersistent => info::is_persistent;
    wire::inspect::DomainIsUpdated => info::is_updated;
    wire::inspect::DomainGetMaxMemory => info::max_memory;
    wire::inspect::DomainGetOsType => info::os_type;
    wire::inspect::DomainGetMessages => info::messages;
    wire::inspect::DomainGetControlInfo => info::control;
    wire::inspect::DomainGetAutostart => lifecycle::autostart;
    wire::tuning::DomainGetMaxVcpus => info::max_vcpus;
    wire::save::DomainHasManagedSaveImage => info::has_saved_image;
    wire::lifecycle::DomainCreate => lifecycle::create;
    wire::lifecycle::DomainCreateWithFlags => lifecycle::create_with_flags;
    wire::lifecycle::DomainSuspend => lifecycle::suspend;
    wire::lifecycle::DomainResume => lifecycle::resume;
    wire::lifecycle::DomainReset => lifecycle::reset;
    wire::lifecycle::DomainShutdown => lifecycle::shutdown;
    wire::lifecycle::DomainShutdownFlags => lifecycle::shutdown_flags;
    wire::lifecycle::DomainReboot => lifecycle::reboot;
    wire::lifecycle::DomainDestroy => lifecycle::destroy;
    wire::lifecycle::DomainDestroyFlags => lifecycle::destroy_flags;
    wire::lifecycle::DomainUndefine => lifecycle::undefine;
    wire::lifecycle::DomainUndefineFlags => lifecycle::undefine_flags;
    wire::lifecycle::DomainSetAutostart => lifecycle::set_autostart;
    wire::lifecycle::DomainDefineXml => define::define_xml;
    wire::lifecycle::DomainDefineXmlFlags => define::define_xml_flags;
    wire::lifecycle::DomainCreateXml => define::create_xml;
    wire::inspect::DomainGetXmlDesc => define::xml_desc;
    wire::lifecycle::DomainGetMetadata => labels::get;
    wire::lifecycle::DomainSetMetadata => labels::set;
    wire::lifecycle::DomainRename => labels::rename;
    wire::lifecycle::DomainSetLifecycleAction => labels::set_action;
    wire::inspect::DomainMemoryStats => memory::stats;
    wire::tuning::DomainSetMemory => memory::set;
    wire::tuning::DomainSetMemoryStatsPeriod => memory::set_period;
    wire::tuning::DomainSetMaxMemory => memory::set_max;
    wire::tuning::DomainSetMemoryFlags => memory::set_flags;
    wire::tuning::DomainSetVcpus => vcpus::set;
    wire::tuning::DomainSetVcpusFlags => vcpus::set_flags;
    wire::tuning::DomainGetVcpusFlags => vcpus::count;
    wire::tuning::DomainGetVcpus => vcpus::vcpus;
    wire::tuning::DomainPinVcpu => pinning::vcpu;
    wire::tuning::DomainPinVcpuFlags => pinning::vcpu_flags;
    wire::tuning::DomainGetVcpuPinInfo => pinning::vcpus;
    wire::tuning::DomainPinEmulator => pinning::emulator;
    wire::tuning::DomainGetEmulatorPinInfo => pinning::emulator_info;
    wire::tuning::DomainSetVcpu => vcpus::set_one;
    wire::tuning::DomainGetIothreadInfo => threads::info;
    wire::tuning::DomainPinIothread => threads::pin;
    wire::tuning::DomainAddIothread => threads::add;
    wire::tuning::DomainDelIothread => threads::remove;
    wire::tuning::DomainSetIothreadParams => threads::set;
    wire::inspect::DomainGetPerfEvents => measures::events;
    wire::tuning::DomainSetPerfEvents => measures::set_events;
    wire::inspect::DomainStartDirtyRateCalc => measures::dirty_rate;
    wire::host::NodeGetSecurityModel => security::model;
    wire::inspect::DomainGetSecurityLabel => security::label;
    wire::inspect::DomainGetSecurityLabelList => security::labels;
    wire::host::NodeSuspendForDuration => host::suspend;
    wire::host::NodeAllocPages => host::alloc_pages;
    wire::tuning::DomainGetSchedulerType => scheduler::kind;
    wire::tuning::DomainGetSchedulerParameters => scheduler::get;
    wire::tuning::DomainSetSchedulerParameters => scheduler::set;
    wire::tuning::DomainGetSchedulerParametersFlags => scheduler::get_flags;
    wire::tuning::DomainSetSchedulerParametersFlags => scheduler::set_flags;
    wire::tuning::DomainGetMemoryParameters => memory_limits::get;
    wire::tuning::DomainSetMemoryParameters => memory_limits::set;
    wire::tuning::DomainGetBlkioParameters => block_shares::get;
    wire::tuning::DomainSetBlkioParameters => block_shares::set;
    wire::tuning::DomainGetNumaParameters => memory_nodes::get;
    wire::tuning::DomainSetNumaParameters => memory_nodes::set;
    wire::tuning::DomainGetBlockIoTune => throttle::get;
    wire::tuning::DomainSetBlockIoTune => throttle::set;
    wire::tuning::DomainGetInterfaceParameters => bandwidth::get;
    wire::tuning::DomainSetInterfaceParameters => bandwidth::set;
    wire::inspect::DomainBlockStats => statistics::block;
    wire::inspect::DomainBlockStatsFlags => statistics::block_flags;
    wire::inspect::DomainInterfaceStats => statistics::interface;
    wire::inspect::DomainGetDiskErrors => statistics::disk_errors;
    wire::inspect::DomainGetCpuStats => statistics::cpu;
    wire::inspect::ConnectGetAllDomainStats => domstats::all;
    wire::device::DomainAttachDevice => devices::attach;
    wire::device::DomainAttachDeviceFlags => devices::attach_flags;
    wire::device::DomainDetachDevice => devices::detach;
    wire::device::DomainDetachDeviceFlags => devices::detach_flags;
    wire::device::DomainDetachDeviceAlias => devices::detach_alias;
    wire::device::DomainUpdateDeviceFlags => devices::update;
    wire::inspect::DomainGetJobInfo => job::info;
    wire::inspect::DomainGetJobStats => job::stats;
    wire::inspect::DomainAbortJob => job::abort;
    wire::inspect::DomainAbortJobFlags => job::abort_flags;
    wire::inspect::DomainGetBlockInfo => inside::block_info;
    wire::inspect::DomainBlockPeek => inside::block_peek;
    wire::inspect::DomainMemoryPeek => inside::memory_peek;
    wire::device::DomainBlockResize => inside::block_resize;
    wire::device::DomainInjectNmi => inside::inject_nmi;
    wire::guest::DomainGetHostname => agent::hostname;
    wire::guest::DomainFstrim => agent::trim;
    wire::guest::DomainFsfreeze => agent::freeze;
    wire::guest::DomainFsthaw => agent::thaw;
    wire::guest::DomainGetTime => agent::get_time;
    wire::guest::DomainSetTime => agent::set_time;
    wire::guest::DomainGetFsinfo => agent::file_systems;
    wire::guest::DomainInterfaceAddresses => agent::addresses;
    wire::guest::DomainSetUserPassword => agent::set_password;
    wire::guest::DomainGetGuestVcpus => agent::told_vcpus;
    wire::guest::DomainSetGuestVcpus => vcpus::set_guest;
    wire::guest::DomainAuthorizedSshKeysGet => agent::keys::get;
    wire::guest::DomainAuthorizedSshKeysSet => agent::keys::set;
    wire::lifecycle::DomainPmSuspendForDuration => agent::power::suspend;
    wire::lifecycle::DomainPmWakeup => agent::power::wake;
    wire::guest::DomainGetGuestInfo => agent::guest_info;
    wire::guest::DomainAgentSetResponseTimeout => agent::set_timeout;
    wire::save::DomainSnapshotNum => absent::snapshot_count;
    wire::save::DomainSnapshotListNames => absent::snapshot_names;
    wire::save::DomainListAllSnapshots => absent::snapshots;
    wire::save::DomainHasCurrentSnapshot => absent::has_current_snapshot;
    wire::save::DomainSnapshotCurrent => absent::current_snapshot;
    wire::save::DomainSnapshotLookupByName => absent::snapshot;
    wire::save::DomainListAllCheckpoints => absent::checkpoints;
    wire::network::ConnectNumOfNetworks => network::networks::active_count;
    wire::network::ConnectNumOfDefinedNetworks => network::networks::inactive_count;
    wire::network::ConnectListNetworks => network::networks::active_names;
    wire::network::ConnectListDefinedNetworks => network::networks::inactive_names;
    wire::network::ConnectListAllNetworks => network::networks::all;
    wire::network::NetworkLookupByName => network::networks::by_name;
    wire::network::NetworkLookupByUuid => network::networks::by_uuid;
    wire::network::NetworkGetXmlDesc => network::networks::xml_desc;
    wire::network::NetworkGetBridgeName => network::networks::bridge_name;
    wire::network::NetworkGetAutostart => network::networks::autostart;
    wire::network::NetworkIsActive => network::networks::is_active;
    wire::network::NetworkIsPersistent => network::networks::is_persistent;
    wire::network::NetworkDefineXml => network::life::define;
    wire::network::NetworkDefineXmlFlags => network::life::define_flags;
    wire::network::NetworkCreateXml => network::life::create_xml;
    wire::network::NetworkCreateXmlFlags => network::life::create_xml_flags;
    wire::network::NetworkCreate => network::life::create;
    wire::network::NetworkDestroy => network::life::destroy;
    wire::network::NetworkUndefine => network::life::undefine;
    wire::network::NetworkSetAutostart => network::life::set_autostart;
    wire::network::NetworkUpdate => network::changes::update;
    wire::network::NetworkGetMetadata => network::changes::metadata;
    wire::network::NetworkSetMetadata => network::changes::set_metadata;
    wire::network::NetworkGetDhcpLeases => network::leases::all;
    wire::network::NetworkListAllPorts => network::ports::all;
    wire::network::NetworkPortLookupByUuid => network::ports::by_uuid;
    wire::network::NetworkPortGetXmlDesc => network::ports::xml_desc;
    wire::network::NetworkPortGetParameters => network::ports::parameters;
    wire::network::NetworkPortSetParameters => network::ports::set_parameters;
    wire::network::NetworkPortCreateXml => network::ports::create;
    wire::network::NetworkPortDelete => network::ports::delete;
    wire::network::NodeNumOfDevices => empty::node_device_count;
    wire::network::NodeListDevices => empty::node_device_names;
    wire::network::NodeDeviceLookupByName => empty::node_device;
    wire::network::ConnectListAllNodeDevices => empty::node_devices;
    wire::network::ConnectNumOfInterfaces => interfaces::active_count;
    wire::network::ConnectListInterfaces => interfaces::active_names;
    wire::network::ConnectNumOfDefinedInterfaces => interfaces::inactive_count;
    wire::network::ConnectListDefinedInterfaces => interfaces::inactive_names;
    wire::network::InterfaceLookupByName => interfaces::by_name;
    wire::network::InterfaceLookupByMacString => interfaces::by_mac;
    wire::network::InterfaceGetXmlDesc => interfaces::xml_desc;
    wire::network::InterfaceIsActive => interfaces::is_active;
    wire::network::ConnectListAllInterfaces => interfaces::all;
    wire::network::ConnectNumOfSecrets => empty::secret_count;
    wire::network::ConnectListSecrets => empty::secret_uuids;
    wire::network::SecretLookupByUuid => empty::secret_by_uuid;
    wire::network::SecretLookupByUsage => empty::secret_by_usage;
    wire::network::ConnectListAllSecrets => empty::secrets;
    wire::network::ConnectNumOfNwfilters => nwfilter::how_many;
    wire::network::ConnectListNwfilters => nwfilter::names;
    wire::network::NwfilterLookupByName => nwfilter::by_name;
    wire::network::NwfilterLookupByUuid => nwfilter::by_uuid;
    wire::network::NwfilterGetXmlDesc => nwfilter::xml_desc;
    wire::network::NwfilterDefineXml => nwfilter::define;
    wire::network::NwfilterDefineXmlFlags => nwfilter::define_flags;
    wire::network::NwfilterUndefine => nwfilter::undefine;
    wire::network::ConnectListAllNwfilters => nwfilter::all;
    wire::network::NwfilterBindingLookupByPortDev => nwfilter::binding;
    wire::network::NwfilterBindingGetXmlDesc => nwfilter::binding_xml_desc;
    wire::network::ConnectListAllNwfilterBindings => nwfilter::bindings;
    wire::storage::ConnectNumOfStoragePools => storage::pools::active_count;
    wire::storage::ConnectListStoragePools => storage::pools::active_names;
    wire::storage::ConnectNumOfDefinedStoragePools => storage::pools::inactive_count;
    wire::storage::ConnectListDefinedStoragePools => storage::pools::inactive_names;
    wire::storage::ConnectListAllStoragePools => storage::pools::all;
    wire::storage::StoragePoolLookupByName => storage::pools::by_name;
    wire::storage::StoragePoolLookupByUuid => storage::pools::by_uuid;
    wire::storage::StoragePoolLookupByVolume => storage::pools::by_volume;
    wire::storage::StoragePoolLookupByTargetPath => storage::pools::by_target_path;
    wire::storage::StoragePoolGetInfo => storage::pools::info;
    wire::storage::StoragePoolGetXmlDesc => storage::pools::xml_desc;
    wire::storage::StoragePoolGetAutostart => storage::pools::autostart;
    wire::storage::StoragePoolSetAutostart => storage::life::set_autostart;
    wire::storage::StoragePoolIsActive => storage::pools::is_active;
    wire::storage::StoragePoolIsPersistent => storage::pools::is_persistent;
    wire::storage::ConnectGetStoragePoolCapabilities => storage::pools::capabilities;
    wire::storage::StoragePoolDefineXml => storage::life::define;
    wire::storage::StoragePoolCreateXml => storage::life::create_xml;
    wire::storage::StoragePoolCreate => storage::life::create;
    wire::storage::StoragePoolBuild => storage::life::build_directory;
    wire::storage::StoragePoolDestroy => storage::life::destroy;
    wire::storage::StoragePoolDelete => storage::life::delete;
    wire::storage::StoragePoolUndefine => storage::life::undefine;
    wire::storage::StoragePoolRefresh => storage::life::refresh;
    wire::storage::StoragePoolNumOfVolumes => storage::volumes::how_many;
    wire::storage::StoragePoolListVolumes => storage::volumes::names;
    wire::storage::StoragePoolListAllVolumes => storage::volumes::all;
    wire::storage::StorageVolLookupByName => storage::volumes::by_name;
    wire::storage::StorageVolLookupByKey => storage::volumes::by_key;
    wire::storage::StorageVolLookupByPath => storage::volumes::by_path;
    wire::storage::StorageVolGetInfo => storage::volumes::info;
    wire::storage::StorageVolGetInfoFlags => storage::volumes::info_flags;
    wire::storage::StorageVolGetXmlDesc => storage::volumes::xml_desc;
    wire::storage::StorageVolGetPath => storage::volumes::path;
    wire::storage::StorageVolCreateXml => storage::volumes::create;
    wire::storage::StorageVolCreateXmlFrom => storage::volumes::create_from;
    wire::storage::StorageVolDelete => storage::volumes::delete;
    wire::storage::StorageVolWipe => storage::volumes::wipe;
    wire::storage::StorageVolWipePattern => storage::volumes::wipe_pattern;
    wire::storage::StorageVolResize => storage::volumes::resize;
}

#[cfg(test)]
mod tests {
    use super::SERVED;
    use crate::wire::frame::Program;
    use crate::wire::procedures::{State, all};
    use crate::wire::types::{connect, device, event, storage};
    use crate::wire::{call::Call as _, call::Event as _};

    /// Those that the session serves itself.
    const OF_SESSION: &[i32] = &[
        connect::ConnectOpen::NUMBER,
        connect::ConnectClose::NUMBER,
        connect::ConnectSupportsFeature::NUMBER,
        connect::AuthList::NUMBER,
        // Before there is a session, of clients of other hosts.
        connect::AuthSaslInit::NUMBER,
        connect::AuthSaslStart::NUMBER,
        connect::AuthSaslStep::NUMBER,
        connect::ConnectRegisterCloseCallback::NUMBER,
        connect::ConnectUnregisterCloseCallback::NUMBER,
        event::ConnectDomainEventCallbackRegisterAny::NUMBER,
        event::ConnectDomainEventCallbackDeregisterAny::NUMBER,
        event::ConnectNetworkEventRegisterAny::NUMBER,
        event::ConnectNetworkEventDeregisterAny::NUMBER,
        event::ConnectStoragePoolEventRegisterAny::NUMBER,
        event::ConnectStoragePoolEventDeregisterAny::NUMBER,
        device::DomainOpenConsole::NUMBER,
        device::DomainOpenChannel::NUMBER,
        storage::StorageVolUpload::NUMBER,
        storage::StorageVolDownload::NUMBER,
    ];
    /// Events that are sent.
    const SENT: &[i32] = &[
        event::DomainEventCallbackLifecycle::NUMBER,
        event::DomainEventCallbackReboot::NUMBER,
        event::DomainEventCallbackWatchdog::NUMBER,
        event::DomainEventCallbackBalloonChange::NUMBER,
        event::DomainEventCallbackDeviceRemoved::NUMBER,
        event::DomainEventCallbackDeviceAdded::NUMBER,
        event::DomainEventCallbackMetadataChange::NUMBER,
        event::DomainEventCallbackTrayChange::NUMBER,
        event::DomainEventCallbackTunable::NUMBER,
        event::DomainEventCallbackAgentLifecycle::NUMBER,
        event::NetworkEventLifecycle::NUMBER,
        event::NetworkEventCallbackMetadataChange::NUMBER,
        event::StoragePoolEventLifecycle::NUMBER,
        event::StoragePoolEventRefresh::NUMBER,
        event::ConnectEventConnectionClosed::NUMBER,
    ];

    #[test]
    fn the_table_says_of_each_procedure_whether_it_is_served() {
        for procedure in all(Program::Remote) {
            let number = procedure.number;
            let served = [SERVED, OF_SESSION, SENT]
                .iter()
                .any(|served| served.contains(&number));
            assert_eq!(procedure.state == State::Served, served, "{procedure:?}");
        }
    }
}
