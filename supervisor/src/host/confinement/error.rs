//! Why a domain's limits cannot be set, and what is to be done.

use std::io;
use std::path::PathBuf;

use reeve_ipc::model::{DomainName, MemorySize};
use reeve_sandbox::cgroup::CgroupError;

use crate::host::block_device::Unfit;

/// Why a domain's limits cannot be set.
#[derive(Debug, thiserror::Error)]
pub enum ConfinementError {
    /// The host cannot enforce them.
    #[error("cannot limit '{domain}': {error}{}", .remedy.map(|remedy| format!("; {remedy}")).unwrap_or_default())]
    Host {
        /// The domain.
        domain: DomainName,
        /// What is missing or was refused.
        error: CgroupError,
        /// What to do, where that is known.
        remedy: Option<&'static str>,
    },
    /// Less memory than the domain needs by itself.
    #[error(
        "cannot limit '{domain}' to {limit} of memory: its guest has {guest}{}, and its worker needs \
         some too; give it at least {least}",
        if *.grows { " with all that it can be given (max-memory)" } else { "" }
    )]
    Memory {
        /// The domain.
        domain: DomainName,
        /// The limit.
        limit: MemorySize,
        /// The guest's memory, the most that it can have.
        guest: MemorySize,
        /// It starts with less.
        grows: bool,
        /// The least limit.
        least: MemorySize,
    },
    /// It has no cgroup, and gets none while it runs.
    #[error(
        "cannot limit '{0}' while it runs: it was started without limits and has no cgroup; its next start has \
         them (--config)"
    )]
    NoCgroup(DomainName),
    /// The kernel has not counted its memory since its start.
    #[error(
        "cannot limit the memory of '{0}' while it runs: it was started where the memory controller was not on, \
         and what its guest has touched since is not counted; its next start has the limit (--config)"
    )]
    Uncounted(DomainName),
    /// Less than it uses just now.
    #[error("cannot limit '{domain}' to {limit} {what}: it uses {used} now")]
    InUse {
        /// The domain.
        domain: DomainName,
        /// The limit.
        limit: String,
        /// Of what.
        what: &'static str,
        /// What it uses.
        used: String,
    },
    /// Memory on a node of the host that there is not.
    #[error("NUMA node {node} is unavailable for '{domain}'")]
    Node {
        /// The domain.
        domain: DomainName,
        /// Its number.
        node: u32,
    },
    /// One of the host's block devices that is none.
    #[error("cannot bound what '{domain}' uses of {}: {why}", .path.display())]
    BlockDevice {
        /// The domain.
        domain: DomainName,
        /// What was to be one.
        path: PathBuf,
        /// Why not.
        why: Unfit,
    },
    /// The host has not answered in time.
    #[error("cannot see in time whether the host can limit '{0}'")]
    Late(DomainName),
    /// Fewer threads than the domain has by itself.
    #[error(
        "cannot limit '{domain}' to {limit} threads: with {vcpus} vCPUs it needs at least {least}"
    )]
    Pids {
        /// The domain.
        domain: DomainName,
        /// The limit.
        limit: u32,
        /// Its vCPUs.
        vcpus: u32,
        /// The least limit.
        least: u32,
    },
}

impl ConfinementError {
    /// Whether it is what the definition asks for that no host like this can give.
    pub(crate) const fn is_of_definition(&self) -> bool {
        match self {
            Self::Memory { .. } | Self::Pids { .. } | Self::Node { .. } => true,
            Self::BlockDevice { why, .. } => !matches!(why, Unfit::Host(_)),
            Self::Host { .. }
            | Self::NoCgroup(_)
            | Self::Uncounted(_)
            | Self::InUse { .. }
            | Self::Late(_) => false,
        }
    }
}

/// That the host cannot hold a domain to its limits, and what is to be done.
pub(super) fn refused(domain: DomainName, error: CgroupError) -> ConfinementError {
    ConfinementError::Host {
        domain,
        remedy: remedy(&error),
        error,
    }
}

fn remedy(error: &CgroupError) -> Option<&'static str> {
    match error {
        CgroupError::Io { source, .. } if source.kind() == io::ErrorKind::ResourceBusy => Some(
            "other processes share this cgroup: start reeve in one of its own, as with \
             'systemd-run --scope -p Delegate=yes reeve run ...'",
        ),
        CgroupError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            error.remedy().or(Some(
                "the cgroup for domains is not there: systemctl start reeve-domains",
            ))
        }
        error => error.remedy(),
    }
}
