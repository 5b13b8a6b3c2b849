//! How a domain stands: its state, what it has and what it uses.

use std::sync::Arc;

use reeve_ipc::api::figures::FigureGroups;
use reeve_ipc::api::view::JobKind;

use super::failure::{Failure, check_flags};
use super::{Context, kib, state};
use crate::wire::types::inspect as wire;
use crate::wire::types::save::DomainHasManagedSaveImage;
use crate::wire::types::tuning::DomainGetMaxVcpus;
use crate::wire::xdr::List;

/// What every domain is: a whole machine.
const OS_TYPE: &str = "hvm";

pub(super) async fn info(
    context: Arc<Context>,
    call: wire::DomainGetInfo,
) -> Result<wire::DomainInfo, Failure> {
    let groups = FigureGroups {
        usage: true,
        ..FigureGroups::default()
    };
    let figures = context.figures(&call.domain, groups).await?;
    let summary = &figures.summary;
    let memory = match summary.state.is_active() {
        true => summary.current_memory,
        false => {
            // Of a transient one that has just ended nothing is kept.
            let kept = context.definition(&call.domain, true).await.ok();
            let asked = kept.and_then(|kept| kept.tuning.current_memory);
            asked.unwrap_or(summary.current_memory)
        }
    };
    let cpu_time = figures.usage.map_or(0, |usage| usage.cpu_time_ns);
    let (state, _) = state::numbers(summary.state);
    Ok(wire::DomainInfo {
        state: u8::try_from(state).unwrap_or_default(),
        max_memory: kib(summary.max_memory.bytes()),
        memory: kib(memory.bytes()),
        vcpus: u16::try_from(summary.vcpus).unwrap_or(u16::MAX),
        cpu_time,
    })
}

pub(super) async fn state(
    context: Arc<Context>,
    call: wire::DomainGetState,
) -> Result<wire::DomainState, Failure> {
    check_flags(call.flags, 0, "virDomainGetState")?;
    let summary = context.summary(&call.domain).await?;
    let (state, reason) = state::numbers(summary.state);
    Ok(wire::DomainState { state, reason })
}

pub(super) async fn is_active(
    context: Arc<Context>,
    call: wire::DomainIsActive,
) -> Result<bool, Failure> {
    let summary = context.summary(&call.domain).await?;
    Ok(summary.state.is_active())
}

pub(super) async fn is_persistent(
    context: Arc<Context>,
    call: wire::DomainIsPersistent,
) -> Result<bool, Failure> {
    let summary = context.summary(&call.domain).await?;
    Ok(summary.persistent)
}

/// Whether the definition it will start with next is another.
pub(super) async fn is_updated(
    context: Arc<Context>,
    call: wire::DomainIsUpdated,
) -> Result<bool, Failure> {
    let details = context.details(&call.domain).await?;
    Ok(details.redefined)
}

pub(super) async fn max_memory(
    context: Arc<Context>,
    call: wire::DomainGetMaxMemory,
) -> Result<u64, Failure> {
    let summary = context.summary(&call.domain).await?;
    Ok(kib(summary.max_memory.bytes()))
}

pub(super) async fn max_vcpus(
    context: Arc<Context>,
    call: DomainGetMaxVcpus,
) -> Result<i32, Failure> {
    let summary = context.summary(&call.domain).await?;
    Ok(i32::try_from(summary.max_vcpus).unwrap_or(i32::MAX))
}

pub(super) async fn os_type(
    context: Arc<Context>,
    call: wire::DomainGetOsType,
) -> Result<String, Failure> {
    context.summary(&call.domain).await?;
    Ok(OS_TYPE.to_owned())
}

/// There are no saved images.
pub(super) async fn has_saved_image(
    context: Arc<Context>,
    call: DomainHasManagedSaveImage,
) -> Result<bool, Failure> {
    check_flags(call.flags, 0, "virDomainHasManagedSaveImage")?;
    context.summary(&call.domain).await?;
    Ok(false)
}

/// What is said of a domain beside: nothing is deprecated, and nothing taints it.
pub(super) async fn messages(
    context: Arc<Context>,
    call: wire::DomainGetMessages,
) -> Result<List<String, 2048>, Failure> {
    check_flags(call.flags, 0x3, "virDomainGetMessages")?;
    context.summary(&call.domain).await?;
    Ok(List::default())
}

/// Whether a domain can be dealt with just now (libvirt `virDomainControlState`).
pub(super) async fn control(
    context: Arc<Context>,
    call: wire::DomainGetControlInfo,
) -> Result<wire::ControlInfo, Failure> {
    const OK: u32 = 0;
    const JOB: u32 = 1;
    const ERROR: u32 = 3;
    const MONITOR_BROKEN: u32 = 2;
    check_flags(call.flags, 0, "virDomainGetControlInfo")?;
    let summary = context.active(&call.domain).await?;
    let (state, details) = match (summary.unresponsive, summary.job) {
        (true, _) => (ERROR, MONITOR_BROKEN),
        (false, Some(job)) if job != JobKind::Adopt => (JOB, 0),
        (false, _) => (OK, 0),
    };
    Ok(wire::ControlInfo {
        state,
        details,
        state_time: 0,
    })
}
