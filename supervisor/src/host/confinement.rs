//! A domain's cgroup, where its definition sets limits: made before the worker, removed after it.
//!
//! A domain without limits needs no cgroup and gets none; one with limits does not start where the
//! host cannot enforce them.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use reeve_ipc::model::{Domain, DomainName, ResourceLimits};
use reeve_sandbox::cgroup::{CgroupError, CpuMax, DomainCgroup, Hierarchy, Limits};

/// The namespaces every worker has of its own.
pub const NAMESPACES: [&str; 7] = ["user", "pid", "mount", "network", "ipc", "uts", "cgroup"];

/// The period over which CPU time is counted, in microseconds: the kernel's own default.
const CPU_PERIOD_US: u64 = 100_000;

/// Why a domain's limits cannot be set.
#[derive(Debug, thiserror::Error)]
#[error("cannot limit '{domain}': {error}{}", .remedy.map(|remedy| format!("; {remedy}")).unwrap_or_default())]
pub struct ConfinementError {
    domain: DomainName,
    error: CgroupError,
    remedy: Option<&'static str>,
}

/// What bounds one domain's use of the host. Dropping it removes the cgroup, in which nothing may be
/// left by then.
#[derive(Debug)]
pub(crate) struct Confinement {
    cgroup: Option<DomainCgroup>,
}

impl Confinement {
    /// Makes the domain's cgroup, if it needs one.
    pub(crate) fn prepare(domain: &Domain) -> Result<Self, ConfinementError> {
        if !domain.limits.any() {
            return Ok(Self { cgroup: None });
        }
        match make(domain) {
            Ok(cgroup) => Ok(Self {
                cgroup: Some(cgroup),
            }),
            Err(error) => Err(ConfinementError {
                domain: domain.name.clone(),
                remedy: remedy(&error),
                error,
            }),
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        let cgroup = self.cgroup.as_ref()?;
        Some(cgroup.path().to_owned())
    }

    /// The directory a worker is born in.
    pub(crate) fn directory(&self) -> Option<BorrowedFd<'_>> {
        self.cgroup.as_ref().map(DomainCgroup::dir)
    }
}

impl Drop for Confinement {
    fn drop(&mut self) {
        let Some(cgroup) = self.cgroup.take() else {
            return;
        };
        let parent = cgroup.path().parent().map(PathBuf::from);
        if let Err(error) = cgroup.remove() {
            tracing::warn!(%error, "a domain's cgroup could not be removed");
        }
        if let Some(parent) = parent {
            // The directory of all domains goes with the last one; others may be in it.
            let _ = std::fs::remove_dir(parent);
        }
    }
}

fn make(domain: &Domain) -> Result<DomainCgroup, CgroupError> {
    let limits = limits(domain.limits);
    let hierarchy = Hierarchy::find()?;
    // Looked at first, so that a refusal makes no directory.
    let present = hierarchy.controllers()?;
    let missing: Vec<String> = limits
        .controllers()
        .into_iter()
        .filter(|needed| !present.iter().any(|name| name == needed))
        .map(str::to_owned)
        .collect();
    if !missing.is_empty() {
        return Err(CgroupError::MissingControllers {
            at: hierarchy.path().to_owned(),
            controllers: missing,
        });
    }
    // The UUID: unlike a name it is fit for a path and used once.
    hierarchy.create(&domain.uuid.to_string(), &limits)
}

fn limits(limits: ResourceLimits) -> Limits {
    Limits {
        memory_max: limits.memory.map(reeve_ipc::model::MemorySize::bytes),
        cpu_max: limits.cpu_percent.map(|percent| CpuMax {
            quota_us: u64::from(percent) * CPU_PERIOD_US / 100,
            period_us: CPU_PERIOD_US,
        }),
        cpu_weight: None,
        pids_max: limits.pids,
    }
}

fn remedy(error: &CgroupError) -> Option<&'static str> {
    match error {
        CgroupError::Io { source, .. } if source.kind() == io::ErrorKind::ResourceBusy => Some(
            "other processes share this cgroup: start reeve in one of its own, as with \
             'systemd-run --scope -p Delegate=yes reeve run ...'",
        ),
        error => error.remedy(),
    }
}

#[cfg(test)]
mod tests {
    use reeve_ipc::model::MemorySize;

    use super::*;

    #[test]
    fn percent_of_a_cpu_is_time_in_a_period() {
        let limits = limits(ResourceLimits {
            memory: Some(MemorySize::mebibytes(64)),
            cpu_percent: Some(150),
            pids: None,
        });
        assert_eq!(
            limits.cpu_max,
            Some(CpuMax {
                quota_us: 150_000,
                period_us: 100_000
            })
        );
        assert_eq!(limits.memory_max, Some(64 << 20));
        assert_eq!(limits.controllers(), ["cpu", "memory"]);
    }
}
