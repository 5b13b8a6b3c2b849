//! What a host must have, checked by trying it: pass or fail, with the command that mends it.

use rustix::io::Errno;
use serde::Serialize;

use super::identity::Identities;
use super::kvm;
use super::program::Program;
use super::shares;
use super::worker_binary::WorkerBinary;
use super::{filter, reason};
use crate::gateway;

/// What the sandbox calls the profile, which knows nothing of what is shipped.
const PROFILE_HINT: &str = "install Reeve's AppArmor profile";
/// The command that installs it.
const PROFILE: &str = "install Reeve's AppArmor profile (supervisor/apparmor/reeve in the source \
    tree): sudo cp reeve /etc/apparmor.d/reeve && sudo apparmor_parser -r /etc/apparmor.d/reeve";

/// One thing a host has or lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What is checked.
    pub name: String,
    /// Whether no domain starts without it.
    pub mandatory: bool,
    /// Whether it is there.
    pub passed: bool,
    /// What was found.
    pub found: String,
    /// What mends it, where it is not there.
    pub mend: Option<String>,
}

impl Check {
    pub(super) fn pass(name: &str, found: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            mandatory: true,
            passed: true,
            found: found.into(),
            mend: None,
        }
    }

    pub(super) fn fail(name: &str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            mandatory: true,
            passed: false,
            found: found.into(),
            mend: Some(mend.into()),
        }
    }
}

/// Checks everything, without changing anything that outlives it.
#[must_use]
pub fn examine() -> Vec<Check> {
    let mut checks = kvm::checks();
    checks.extend(reeve_sandbox::host::checks().into_iter().map(|check| {
        Check {
            name: check.name.to_owned(),
            mandatory: !check.optional,
            passed: check.passed,
            found: check.found,
            mend: check
                .remedy
                .map(|remedy| remedy.replace(PROFILE_HINT, PROFILE)),
        }
    }));
    checks.push(match WorkerBinary::find() {
        Ok(binary) => Check::pass("worker", binary.path().display().to_string()),
        Err(error) => Check::fail("worker", error.to_string(), "install Reeve again"),
    });
    checks.push(match Program::find(gateway::NAME) {
        Ok(program) => Check::pass("gateway", program.path().display().to_string()),
        Err(error) => Check::fail(
            "gateway",
            format!("{error}: no client of libvirt's protocol is served"),
            "install Reeve again",
        ),
    });
    if let Some(check) = checks.last_mut() {
        check.mandatory = false;
    }
    checks.push(match shares::find() {
        Some(program) => Check::pass("virtiofsd", program.display().to_string()),
        None => Check::fail(
            "virtiofsd",
            "not found: no directory can be shared with a guest",
            shares::MEND,
        ),
    });
    if let Some(check) = checks.last_mut() {
        check.mandatory = false;
    }
    checks.push(match filter::guarded() {
        Ok(taps) => Check::pass("source filters", format!("nf_tables, {} taps", taps.len())),
        Err(Errno::PERM) => Check::pass("source filters", "not asked: that takes root"),
        Err(errno) => Check::fail(
            "source filters",
            format!("{}: no guest can be on a bridge", reason(errno)),
            filter::MEND,
        ),
    });
    if let Some(check) = checks.last_mut() {
        check.mandatory = false;
    }
    checks.push(
        match Identities::for_this_process().and_then(|source| source.claim()) {
            Ok(identity) => Check::pass(
                "identity",
                format!("level {}, uid {} is free", identity.level, identity.uid),
            ),
            Err(error) => Check::fail(
                "identity",
                error.to_string(),
                "free it, or run as another user",
            ),
        },
    );
    checks
}
