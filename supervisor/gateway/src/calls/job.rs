//! Jobs that take long and can be watched: there is none yet, and clients that watch for one are told so.

use std::sync::Arc;

use super::Context;
use super::failure::{Failure, check_flags};
use crate::wire::types::handles::Domain;
use crate::wire::types::inspect as wire;

/// No job (libvirt `VIR_DOMAIN_JOB_NONE`).
const NONE: i32 = 0;

pub(super) async fn info(
    context: Arc<Context>,
    call: wire::DomainGetJobInfo,
) -> Result<wire::JobInfo, Failure> {
    context.active(&call.domain).await?;
    Ok(wire::JobInfo {
        kind: NONE,
        time_elapsed: 0,
        time_remaining: 0,
        data_total: 0,
        data_processed: 0,
        data_remaining: 0,
        mem_total: 0,
        mem_processed: 0,
        mem_remaining: 0,
        file_total: 0,
        file_processed: 0,
        file_remaining: 0,
    })
}

pub(super) async fn stats(
    context: Arc<Context>,
    call: wire::DomainGetJobStats,
) -> Result<wire::JobStats, Failure> {
    /// Of the last one that ended.
    const COMPLETED: u32 = 1;
    const KEEP: u32 = 2;
    check_flags(call.flags, COMPLETED | KEEP, "virDomainGetJobStats")?;
    // One that has ended may be asked for when the domain has as well.
    match call.flags & COMPLETED {
        0 => context.active(&call.domain).await?,
        _ => context.summary(&call.domain).await?,
    };
    Ok(wire::JobStats {
        kind: NONE,
        params: Vec::new().into(),
    })
}

async fn none_to_abort(context: &Context, domain: &Domain) -> Result<(), Failure> {
    context.active(domain).await?;
    Err(Failure::invalid("no job is active on the domain"))
}

pub(super) async fn abort(
    context: Arc<Context>,
    call: wire::DomainAbortJob,
) -> Result<(), Failure> {
    none_to_abort(&context, &call.domain).await
}

pub(super) async fn abort_flags(
    context: Arc<Context>,
    call: wire::DomainAbortJobFlags,
) -> Result<(), Failure> {
    const POSTCOPY: u32 = 1;
    check_flags(call.flags, POSTCOPY, "virDomainAbortJobFlags")?;
    if call.flags & POSTCOPY != 0 {
        context.active(&call.domain).await?;
        let why = "current job is not outgoing migration in post-copy mode";
        return Err(Failure::invalid(why));
    }
    none_to_abort(&context, &call.domain).await
}
