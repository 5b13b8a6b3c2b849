//! What nobody measures of a domain: events of the host's processors, and how fast its memory changes.

use std::sync::Arc;

use super::Context;
use super::context::impact;
use super::failure::{Code, Failure, check_flags};
use super::params::{TEXT_OKAY, check};
use crate::wire::types::inspect::{DomainGetPerfEvents, DomainStartDirtyRateCalc};
use crate::wire::types::params::{Param, Params, Value};
use crate::wire::types::tuning::DomainSetPerfEvents;

/// The events that libvirt knows.
const EVENTS: [&str; 22] = [
    "cmt",
    "mbmt",
    "mbml",
    "cpu_cycles",
    "instructions",
    "cache_references",
    "cache_misses",
    "branch_instructions",
    "branch_misses",
    "bus_cycles",
    "stalled_cycles_frontend",
    "stalled_cycles_backend",
    "ref_cpu_cycles",
    "cpu_clock",
    "task_clock",
    "page_faults",
    "context_switches",
    "cpu_migrations",
    "page_faults_min",
    "page_faults_maj",
    "alignment_faults",
    "emulation_faults",
];

/// All of them are off.
pub(super) async fn events(
    context: Arc<Context>,
    call: DomainGetPerfEvents,
) -> Result<Params<64>, Failure> {
    check_flags(
        call.flags,
        impact::ANY | TEXT_OKAY,
        "virDomainGetPerfEvents",
    )?;
    context.meant(&call.domain, call.flags).await?;
    Ok(EVENTS.iter().map(|name| Param::new(*name, false)).collect())
}

/// They stay off: one that is to be on is refused as libvirt refuses what its host cannot count.
pub(super) async fn set_events(
    context: Arc<Context>,
    call: DomainSetPerfEvents,
) -> Result<(), Failure> {
    check_flags(call.flags, impact::ANY, "virDomainSetPerfEvents")?;
    check(&call.params.0, &EVENTS.map(|name| (name, "boolean")))?;
    context.impact(&call.domain, call.flags).await?;
    let mut params = call.params.0.iter();
    match params.find(|param| param.value == Value::Boolean(true)) {
        None => Ok(()),
        Some(wanted) => {
            let why = format!("unable to enable host cpu perf event for {}", wanted.field);
            Err(Failure::new(Code::ArgumentUnsupported, why))
        }
    }
}

/// No worker counts the pages that its guest writes.
pub(super) async fn dirty_rate(
    context: Arc<Context>,
    call: DomainStartDirtyRateCalc,
) -> Result<(), Failure> {
    /// How long it may take, in seconds.
    const SECONDS: std::ops::RangeInclusive<i32> = 1..=60;
    /// Ways of it: of samples, of a bitmap, of a ring.
    const WAYS: u32 = 1 | 2;
    check_flags(call.flags, WAYS, "virDomainStartDirtyRateCalc")?;
    if !SECONDS.contains(&call.seconds) {
        let why = format!(
            "seconds={} is invalid, please choose value within [{}, {}].",
            call.seconds,
            SECONDS.start(),
            SECONDS.end()
        );
        return Err(Failure::new(Code::ConfigUnsupported, why));
    }
    context.active(&call.domain).await?;
    let why = "the pages that a guest writes are not counted";
    Err(Failure::new(Code::OperationUnsupported, why))
}
