//! Why a procedure is not served, and with what it will be.

/// By design.
pub(super) const OLD_MIGRATION: &str =
    "migration of versions 1 and 2, which no client asks for when their features are absent";
/// By design.
pub(super) const OLD_EVENTS: &str =
    "events without a filter, which no client asks for when feature 14 is there";
/// By design.
pub(super) const POLKIT: &str = "polkit is never offered";
/// By design.
pub(super) const NO_QEMU: &str = "there is no QEMU process";
/// By design.
pub(super) const CONTAINERS: &str = "there are no containers";
/// By design.
pub(super) const SYSINFO: &str =
    "the host's SMBIOS tables, with its serial numbers, are for its administrator";

/// By design.
pub(super) const NO_SOURCES: &str =
    "pools are directories, which are made of nothing that could be looked for";

/// By design.
pub(super) const INTERFACES: &str =
    "the host's own interfaces are configured by its administrator, with the tools of the system";
pub(super) const NWFILTER_BINDINGS: &str =
    "an interface has the filter that its domain says, from its start to its end";

/// What is to come.
pub(super) const FRONT_DOOR: &str = "the libvirt front door";
/// What is to come.
/// What is to come.
pub(super) const NODE_DEVICES: &str = "node devices";
/// What is to come.
pub(super) const SECRETS: &str = "secrets";
/// What is to come.
pub(super) const SNAPSHOTS: &str = "snapshots, checkpoints and backups";
/// What is to come.
pub(super) const SAVE: &str = "save, restore and dump";
/// What is to come.
pub(super) const BLOCK_JOBS: &str = "block jobs";
/// What is to come.
pub(super) const MIGRATION: &str = "migration";
/// What is to come.
pub(super) const DISPLAYS: &str = "displays";
/// What is to come.
pub(super) const ENCRYPTED: &str = "guests with encrypted memory";
/// What is to come.
pub(super) const MONITOR: &str = "what tools read through QEMU's monitor";
/// What is to come.
pub(super) const ADMIN: &str = "the daemon's own socket";
/// What is to come.
pub(super) const NEWER: &str = "procedures newer than 9.0";
