//! A guest's sleep: its agent has its system fall asleep.
//!
//! A machine has no sleep state of its own: a guest finds none in its ACPI tables, so that its system refuses what it
//! cannot do, and no guest ever waits to be woken.

use std::sync::Arc;

use serde_json::Value;

use super::{Context, tell};
use crate::calls::failure::{Code, Failure, check_flags};
use crate::wire::types::lifecycle as wire;

pub(in crate::calls) async fn suspend(
    context: Arc<Context>,
    call: wire::DomainPmSuspendForDuration,
) -> Result<(), Failure> {
    check_flags(call.flags, 0, "virDomainPMSuspendForDuration")?;
    let unsupported = |why: String| Err(Failure::new(Code::ArgumentUnsupported, why));
    if call.duration != 0 {
        return unsupported("Duration not supported. Use 0 for now".to_owned());
    }
    let name = match call.target {
        0 => "guest-suspend-ram",
        1 => "guest-suspend-disk",
        2 => "guest-suspend-hybrid",
        other => return unsupported(format!("Unknown suspend target: {other}")),
    };
    // One that sleeps answers no more.
    tell(&context, &call.domain, name, Value::Null).await
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
