//! A domain's cgroup, where its definition sets limits: made before the worker, removed after it.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use reeve_ipc::model::Domain;

/// The namespaces every worker has of its own.
pub const NAMESPACES: [&str; 7] = ["user", "pid", "mount", "network", "ipc", "uts", "cgroup"];

/// Why a domain's limits cannot be set.
#[derive(Debug, thiserror::Error)]
#[error("cannot limit '{domain}': {reason}")]
pub struct ConfinementError {
    domain: String,
    reason: String,
}

/// What bounds one domain's use of the host.
#[derive(Debug)]
pub(crate) struct Confinement {}

impl Confinement {
    pub(crate) fn prepare(domain: &Domain) -> Result<Self, ConfinementError> {
        if domain.limits.any() {
            return Err(ConfinementError {
                domain: domain.name.as_str().to_owned(),
                reason: "TBD".into(),
            });
        }
        Ok(Self {})
    }
    pub(crate) fn cgroup_path(&self) -> Option<PathBuf> {
        None
    }
    pub(crate) fn cgroup_fd(&self) -> Option<OwnedFd> {
        None
    }
    pub(crate) fn release(self) {}
}
