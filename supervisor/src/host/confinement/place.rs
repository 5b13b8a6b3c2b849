//! Where the cgroups of domains are made.

use std::path::PathBuf;

use reeve_sandbox::cgroup::{CgroupError, Hierarchy};

/// Where the cgroups of domains are made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum CgroupPlace {
    /// In the supervisor's own cgroup, for domains with limits only.
    #[default]
    Own,
    /// In this directory of the hierarchy, for every domain: the supervisor is not in it and may be
    /// started again whatever is there. Where it does not exist, domains without limits do without.
    Directory(PathBuf),
}

impl CgroupPlace {
    /// Whether a domain without limits gets a cgroup too.
    pub(super) fn is_for_all(&self) -> bool {
        matches!(self, Self::Directory(path) if path.is_dir())
    }

    /// Where cgroups are made.
    pub(crate) fn hierarchy(&self) -> Result<Hierarchy, CgroupError> {
        match self {
            Self::Own => Hierarchy::find(),
            Self::Directory(path) => Ok(Hierarchy::at(path.clone())),
        }
    }

    /// Moves this process out of the way of its domains' cgroups, where a cgroup was delegated to it.
    /// What that fails on is told when a domain has limits.
    pub(crate) fn settle(&self) {
        match self {
            Self::Own => {
                let settled = Hierarchy::find().and_then(|found| found.settle());
                if let Err(error) = settled {
                    tracing::warn!(%error, "this process stays in the cgroup that was delegated to it");
                }
            }
            Self::Directory(path) if !path.is_dir() => tracing::warn!(
                path = %path.display(),
                "the cgroup for domains is not there: no domain with limits starts"
            ),
            Self::Directory(path) => {
                // What cannot be had is told when a domain needs it.
                let _ = Hierarchy::at(path.clone()).prepare();
            }
        }
    }
}
