//! A domain's console, for a stream.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use reeve_ipc::api::call::DomainConsole;

use super::Context;
use super::context::reference;
use super::failure::{Code, Failure, check_flags};
use crate::wire::types::device::DomainOpenConsole;

/// Attaches to the console of a running domain. Any number of clients may be: nobody is thrown out
/// (`VIR_DOMAIN_CONSOLE_FORCE`), and nobody is alone with it (`VIR_DOMAIN_CONSOLE_SAFE`, which is about a
/// daemon and a client that lock the same file, and there is none).
pub(crate) async fn open(
    context: Arc<Context>,
    call: DomainOpenConsole,
) -> Result<OwnedFd, Failure> {
    const FORCE: u32 = 1;
    const SAFE: u32 = 2;
    check_flags(call.flags, FORCE | SAFE, "virDomainOpenConsole")?;
    context.active(&call.domain).await?;
    match call.device.as_deref() {
        None | Some("serial0" | "console0") => {}
        Some(other) => {
            let why = format!("cannot find character device {other}");
            return Err(Failure::new(Code::InternalError, why));
        }
    }
    let attach = DomainConsole {
        domain: reference(&call.domain),
        input: true,
    };
    let (_, mut fds) = context.call_with_fds(attach).await?;
    let none = || Failure::new(Code::InternalError, "the supervisor sent no console");
    fds.pop().ok_or_else(none)
}
