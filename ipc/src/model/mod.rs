//! The object model: what a definition says, in the words of libvirt's users, with host paths.
//!
//! Plain data and its validation. Nothing here is sent to a worker: `spec` is. Networks, pools and
//! the rest have their ids here from the start, so that what refers to them does not change as
//! they arrive.

mod domain;
mod ids;

pub use domain::{
    BootSource, Domain, KernelBoot, LifecycleAction, MemorySize, ModelError, OnCrash, OnPowerOff,
    OnReboot, ParseMemorySizeError, ResourceLimits, Vcpus,
};
pub use ids::{
    DisplayId, DomainName, DomainUuid, FirmwareId, InvalidName, NetworkName, NodeDeviceName,
    PoolName, SecretUuid, VolumeName,
};
