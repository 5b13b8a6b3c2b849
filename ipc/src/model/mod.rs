//! The object model: what a definition says, in the words of libvirt's users, with host paths.
//!
//! Plain data and its validation. Nothing here is sent to a worker: `spec` is. Firmware, displays and
//! the rest have their ids here from the start, so that what refers to them does not change as
//! they arrive.

mod cpus;
mod devices;
mod domain;
mod ids;
mod kept;
mod labels;
mod memory_size;
mod network;
mod nwfilter;
mod platform;
mod storage;
mod tuning;

pub use cpus::{CpuSet, MAX_HOST_CPUS, VcpuPin};
pub use devices::{
    Balloon, BlockSize, Channel, Device, DeviceError, DeviceName, DevicePlace, Devices, Disk,
    DiskTarget, InterfaceName, IpRange, Layer, MAX_INTERFACE_NAME_BYTES, MAX_NIC_ADDRESSES,
    MAX_PORT_TAGS, MAX_PROFILE_BYTES, Medium, NetworkPort, Nic, NicSource, OpenVswitchPort,
    PluggableMemory, PortConsole, PortLink, Rng, Share, VirtualPort, Vsock, Watchdog,
};
pub use domain::{
    BootSource, Domain, KernelBoot, LifecycleAction, MAX_DEFINITION_BYTES, ModelError, OnCrash,
    OnPowerOff, OnReboot, ResourceLimits, Vcpus,
};
pub use ids::{
    DisplayId, DomainName, DomainUuid, FirmwareId, InvalidName, NetworkName, NetworkUuid,
    NodeDeviceName, NwfilterName, NwfilterUuid, PoolName, PoolUuid, PortUuid, SecretUuid,
    VolumeName,
};
pub use kept::{KeptElement, MAX_KEPT_BYTES, MAX_KEPT_ELEMENTS, MAX_KEPT_PATH_BYTES};
pub use labels::{
    Labels, MAX_DESCRIPTION_BYTES, MAX_METADATA_BYTES, MAX_METADATA_ELEMENTS, MAX_NAMESPACE_BYTES,
    MAX_TITLE_BYTES, MetadataElement, check_namespace,
};
pub use memory_size::{MemorySize, ParseMemorySizeError};
pub use network::{
    Bootp, BridgeSettings, Dhcp, DhcpHost, DhcpRange, DirectMode, Dns, DnsForwarder, DnsHost,
    DnsService, DnsText, EditCommand, Forward, HostDeviceSource, LeaseTime, MAX_HOST_NAME_BYTES,
    MAX_NETWORK_BYTES, Nat, Network, NetworkAddress, NetworkDomain, NetworkEdit, NetworkError,
    NetworkPart, NetworkRoute, PortGroup, PortRange, Vlan, VlanTag, networks_overlap,
};
pub use nwfilter::{
    DEFAULT_RULE_PRIORITY, FieldKind, FieldValue, FilterChain, FilterEntry, FilterLayer,
    FilterParameter, FilterReference, FilterRule, MAX_FILTER_ENTRIES, MAX_FILTER_PARAMETERS,
    MAX_NWFILTER_BYTES, MAX_PARAMETER_BYTES, MAX_RULE_TEXT_BYTES, Nwfilter, NwfilterError,
    RuleAction, RuleDirection, RuleField, RuleMatch, RuleProtocol, Variable, VariableElement,
    check_parameters,
};
pub use platform::{GenerationId, Platform};
pub use storage::{
    CLUSTER_BYTES, DEFAULT_CLUSTER_BYTES, MAX_POOL_TARGET_BYTES, MAX_VOLUME_BYTES, MODE_BITS,
    NewVolume, Permissions, Pool, Qcow2Compat, Qcow2Options, StorageError, UNFINISHED_PREFIX,
};
pub use tuning::{
    BlockDeviceTuning, BlockTuning, CpuQuota, MAX_BLOCK_DEVICES, MAX_NODES, MemoryNodes, NodeMode,
    Tuning,
};
