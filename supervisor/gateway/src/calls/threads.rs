//! I/O threads, of which a domain has none that a client could see: its worker's are its own.
//!
//! What asks for one that is there is answered as of a machine without any; what would make one is refused.

use std::sync::Arc;

use super::Context;
use super::context::impact;
use super::failure::{Code, Failure, check_flags, invalid_argument};
use crate::wire::types::tuning as wire;

pub(super) async fn info(
    context: Arc<Context>,
    call: wire::DomainGetIothreadInfo,
) -> Result<wire::IothreadList, Failure> {
    check_flags(call.flags, impact::ANY, "virDomainGetIOThreadInfo")?;
    context.meant(&call.domain, call.flags).await?;
    Ok(wire::IothreadList {
        info: Vec::new().into(),
        ret: 0,
    })
}

pub(super) async fn pin(
    context: Arc<Context>,
    call: wire::DomainPinIothread,
) -> Result<(), Failure> {
    check_flags(call.flags, impact::ANY, "virDomainPinIOThread")?;
    let live = context.impact(&call.domain, call.flags).await?.live;
    let what = if live { "iothread" } else { "iothreadid" };
    Err(invalid_argument(format!("{what} {} not found", call.id)))
}

pub(super) async fn add(
    context: Arc<Context>,
    call: wire::DomainAddIothread,
) -> Result<(), Failure> {
    check_flags(call.flags, impact::ANY, "virDomainAddIOThread")?;
    context.impact(&call.domain, call.flags).await?;
    let why = "a domain has the I/O threads that its devices need, and no others";
    Err(Failure::new(Code::ConfigUnsupported, why))
}

pub(super) async fn remove(
    context: Arc<Context>,
    call: wire::DomainDelIothread,
) -> Result<(), Failure> {
    check_flags(call.flags, impact::ANY, "virDomainDelIOThread")?;
    context.impact(&call.domain, call.flags).await?;
    let why = format!("cannot find IOThread '{}' in iothreadids list", call.id);
    Err(invalid_argument(why))
}

pub(super) async fn set(
    context: Arc<Context>,
    call: wire::DomainSetIothreadParams,
) -> Result<(), Failure> {
    check_flags(call.flags, impact::ANY, "virDomainSetIOThreadParams")?;
    if context.impact(&call.domain, call.flags).await?.persistent {
        let why = "configuring persistent polling values is not supported";
        return Err(Failure::new(Code::OperationUnsupported, why));
    }
    let why = format!("cannot find IOThread '{}' in iothreadids", call.id);
    Err(invalid_argument(why))
}
