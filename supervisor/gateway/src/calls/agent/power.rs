//! A guest's sleep.
//!
//! A machine has no sleep state, and says so in its ACPI tables. A guest's system may have one of its own all the same
//! (Linux's s2idle), which the host hears nothing of and nobody could wake it from. So no agent is asked for it, as
//! libvirt asks none of a machine that cannot be woken.

use std::sync::Arc;

use super::{Context, reachable};
use crate::calls::failure::{Code, Failure, check_flags};
use crate::wire::types::lifecycle as wire;

/// The last of the states that there are names for: memory, disk, and both.
const HYBRID: u32 = 2;

pub(in crate::calls) async fn suspend(
    context: Arc<Context>,
    call: wire::DomainPmSuspendForDuration,
) -> Result<(), Failure> {
    check_flags(call.flags, 0, "virDomainPMSuspendForDuration")?;
    let unsupported = |why: String| Err(Failure::new(Code::ArgumentUnsupported, why));
    if call.duration != 0 {
        return unsupported("Duration not supported. Use 0 for now".to_owned());
    }
    if call.target > HYBRID {
        return unsupported(format!("Unknown suspend target: {}", call.target));
    }
    reachable(&context, &call.domain).await?;
    let why = "Domain does not have suspend support";
    Err(Failure::new(Code::OperationUnsupported, why))
}

pub(in crate::calls) async fn wake(
    context: Arc<Context>,
    call: wire::DomainPmWakeup,
) -> Result<(), Failure> {
    check_flags(call.flags, 0, "virDomainPMWakeup")?;
    context.active(&call.domain).await?;
    let why = "Unable to wake up: guest is not in suspended state";
    Err(Failure::new(Code::InternalError, why))
}
