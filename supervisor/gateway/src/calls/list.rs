//! Which domains there are.

use std::sync::Arc;

use reeve_ipc::api::view::{DomainState, DomainSummary};

use super::context::handle;
use super::failure::{Failure, check_flags};
use super::{Context, state};
use crate::wire::types::DOMAINS_MAX;
use crate::wire::types::lifecycle::{
    ConnectListAllDomains, ConnectListDefinedDomains, ConnectListDomains,
    ConnectNumOfDefinedDomains, ConnectNumOfDomains, DomainList,
};
use crate::wire::xdr::List;

/// Filters, in pairs: where neither or both of a pair are set it filters nothing (libvirt
/// `virConnectListAllDomainsFlags`).
mod only {
    pub(super) const ACTIVE: u32 = 0x1;
    pub(super) const INACTIVE: u32 = 0x2;
    pub(super) const PERSISTENT: u32 = 0x4;
    pub(super) const TRANSIENT: u32 = 0x8;
    pub(super) const RUNNING: u32 = 0x10;
    pub(super) const PAUSED: u32 = 0x20;
    pub(super) const SHUT_OFF: u32 = 0x40;
    pub(super) const OTHER: u32 = 0x80;
    pub(super) const SAVED: u32 = 0x100;
    pub(super) const NOT_SAVED: u32 = 0x200;
    pub(super) const AUTOSTART: u32 = 0x400;
    pub(super) const NO_AUTOSTART: u32 = 0x800;
    pub(super) const SNAPSHOT: u32 = 0x1000;
    pub(super) const NO_SNAPSHOT: u32 = 0x2000;
    pub(super) const CHECKPOINT: u32 = 0x4000;
    pub(super) const NO_CHECKPOINT: u32 = 0x8000;
}

/// Every filter.
pub(super) const FILTERS: u32 = 0xffff;

/// Whether libvirt has such a domain. One that is not kept is gone when it ends; the supervisor has it for as
/// long as the kernel holds its worker.
pub(super) const fn is_there(summary: &DomainSummary) -> bool {
    summary.persistent || summary.state.is_active()
}

/// What a pair of filters wants: neither, or both, is anything.
pub(super) const fn wanted(flags: u32, yes: u32, no: u32) -> Option<bool> {
    match (flags & yes != 0, flags & no != 0) {
        (true, false) => Some(true),
        (false, true) => Some(false),
        _ => None,
    }
}

/// Whether a domain is there and passes the filters.
pub(super) fn passes(summary: &DomainSummary, flags: u32) -> bool {
    let pair = |yes, no, is| wanted(flags, yes, no).is_none_or(|wanted| wanted == is);
    is_there(summary)
        && pair(only::ACTIVE, only::INACTIVE, summary.state.is_active())
        && pair(only::PERSISTENT, only::TRANSIENT, summary.persistent)
        && pair(
            only::AUTOSTART,
            only::NO_AUTOSTART,
            summary.autostart.is_some(),
        )
        // There are none of these.
        && pair(only::SAVED, only::NOT_SAVED, false)
        && pair(only::SNAPSHOT, only::NO_SNAPSHOT, false)
        && pair(only::CHECKPOINT, only::NO_CHECKPOINT, false)
        && passes_state(summary.state, flags)
}

fn passes_state(state: DomainState, flags: u32) -> bool {
    let wanted = flags & (only::RUNNING | only::PAUSED | only::SHUT_OFF | only::OTHER);
    let is = match state::numbers(state).0 {
        state::RUNNING => only::RUNNING,
        state::PAUSED => only::PAUSED,
        state::SHUT_OFF => only::SHUT_OFF,
        _ => only::OTHER,
    };
    wanted == 0 || wanted & is != 0
}

/// Whether the filters leave only domains that run.
pub(super) const fn active_only(flags: u32) -> bool {
    flags & (only::ACTIVE | only::INACTIVE) == only::ACTIVE
}

pub(super) async fn all(
    context: Arc<Context>,
    call: ConnectListAllDomains,
) -> Result<DomainList, Failure> {
    check_flags(call.flags, FILTERS, "virConnectListAllDomains")?;
    let domains = context.domains(active_only(call.flags)).await?;
    let passing = domains.iter().filter(|domain| passes(domain, call.flags));
    let handles: Vec<_> = passing.map(handle).collect();
    let ret = u32::try_from(handles.len()).unwrap_or(u32::MAX);
    let domains = match call.need_results {
        false => Vec::new(),
        true => handles,
    };
    Ok(DomainList {
        domains: domains.into(),
        ret,
    })
}

/// Numbers of those that run.
pub(super) async fn active_ids(
    context: Arc<Context>,
    call: ConnectListDomains,
) -> Result<List<i32, DOMAINS_MAX>, Failure> {
    let domains = context.domains(true).await?;
    let ids = domains.iter().map(state::id).filter(|id| *id >= 0);
    Ok(ids.take(most(call.maxids)).collect())
}

/// How many run.
pub(super) async fn active_count(
    context: Arc<Context>,
    _: ConnectNumOfDomains,
) -> Result<i32, Failure> {
    let domains = context.domains(true).await?;
    Ok(count(domains.len()))
}

/// Names of those that do not run.
pub(super) async fn inactive_names(
    context: Arc<Context>,
    call: ConnectListDefinedDomains,
) -> Result<List<String, DOMAINS_MAX>, Failure> {
    let domains = context.domains(false).await?;
    let inactive = domains.iter().filter(|domain| is_inactive(domain));
    let names = inactive.map(|domain| domain.name.as_str().to_owned());
    Ok(names.take(most(call.maxnames)).collect())
}

/// How many do not run.
pub(super) async fn inactive_count(
    context: Arc<Context>,
    _: ConnectNumOfDefinedDomains,
) -> Result<i32, Failure> {
    let domains = context.domains(false).await?;
    let inactive = domains.iter().filter(|domain| is_inactive(domain));
    Ok(count(inactive.count()))
}

const fn is_inactive(summary: &DomainSummary) -> bool {
    summary.persistent && !summary.state.is_active()
}

/// As many as a client asked for at most.
pub(super) fn most(asked: i32) -> usize {
    usize::try_from(asked).unwrap_or(0).min(DOMAINS_MAX)
}

pub(super) fn count(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use reeve_ipc::api::view::{PausedReason, RunningReason, ShutOffReason};

    use super::*;
    use crate::calls::testing::summary;

    const RUNNING: DomainState = DomainState::Running(RunningReason::Booted);
    const OFF: DomainState = DomainState::ShutOff(ShutOffReason::Shutdown);

    #[test]
    fn no_flag_and_both_of_a_pair_filter_nothing() {
        for state in [RUNNING, OFF, DomainState::Crashed] {
            assert!(passes(&summary("a", state), 0));
            assert!(passes(&summary("a", state), FILTERS));
        }
    }

    #[test]
    fn each_flag_of_a_pair_leaves_its_own() {
        let running = summary("a", RUNNING);
        let mut off = summary("b", OFF);
        off.autostart = Some(0);
        assert!(passes(&running, 0x1) && !passes(&running, 0x2));
        assert!(passes(&off, 0x2) && !passes(&off, 0x1));
        assert!(passes(&running, 0x4) && !passes(&running, 0x8));
        assert!(passes(&off, 0x400) && !passes(&off, 0x800));
        assert!(passes(&running, 0x800) && !passes(&running, 0x400));
        for (yes, no) in [(0x100, 0x200), (0x1000, 0x2000), (0x4000, 0x8000)] {
            assert!(!passes(&off, yes) && passes(&off, no));
        }
    }

    #[test]
    fn a_domain_that_is_not_kept_is_there_while_it_runs_only() {
        let mut domain = summary("a", RUNNING);
        domain.persistent = false;
        assert!(passes(&domain, 0) && !is_inactive(&domain));
        domain.state = OFF;
        assert!(!passes(&domain, 0) && !passes(&domain, FILTERS) && !is_inactive(&domain));
    }

    #[test]
    fn states_are_told_apart() {
        let paused = DomainState::Paused(PausedReason::User);
        let each = [
            (RUNNING, 0x10),
            (paused, 0x20),
            (OFF, 0x40),
            (DomainState::Crashed, 0x80),
        ];
        for (state, own) in each {
            for (_, flag) in each {
                assert_eq!(passes(&summary("a", state), flag), flag == own);
            }
            assert!(passes(&summary("a", state), own | 0x80));
        }
    }

    #[test]
    fn flags_of_different_pairs_all_hold() {
        let running = summary("a", RUNNING);
        assert!(passes(&running, 0x1 | 0x4 | 0x10));
        assert!(!passes(&running, 0x1 | 0x8));
    }
}
