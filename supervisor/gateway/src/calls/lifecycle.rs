//! Starting, stopping and what lies between.

use std::sync::Arc;

use reeve_ipc::api::call::{
    DomainAutostartSet, DomainDestroy, DomainPause, DomainReboot, DomainReset, DomainResume,
    DomainShutdown, DomainStart, DomainUndefine, StartOptions,
};
use reeve_ipc::api::view::DomainState;

use super::context::{handle, reference};
use super::failure::{Code, Failure, check_flags};
use super::{Context, agent};
use crate::wire::types::handles::Domain;
use crate::wire::types::inspect::DomainGetAutostart;
use crate::wire::types::lifecycle as wire;

/// How a domain is started (libvirt `virDomainCreateFlags`).
pub(super) mod start {
    use super::{Code, Failure, StartOptions, check_flags};

    pub(in crate::calls) const PAUSED: u32 = 0x1;
    pub(in crate::calls) const AUTO_DESTROY: u32 = 0x2;
    /// Caches of saved images, and such an image itself: there is none.
    pub(in crate::calls) const OF_SAVED_IMAGES: u32 = 0x4 | 0x8;
    pub(in crate::calls) const VALIDATE: u32 = 0x10;
    /// Variables of a firmware: there is none.
    pub(in crate::calls) const RESET_NVRAM: u32 = 0x20;
    pub(in crate::calls) const KNOWN: u32 =
        PAUSED | AUTO_DESTROY | OF_SAVED_IMAGES | VALIDATE | RESET_NVRAM;

    /// The options that flags of `function` say.
    ///
    /// # Errors
    /// It has no such flag.
    pub(in crate::calls) fn options(
        flags: u32,
        known: u32,
        function: &str,
    ) -> Result<StartOptions, Failure> {
        check_flags(flags, known, function)?;
        Ok(StartOptions {
            paused: flags & PAUSED != 0,
            auto_destroy: flags & AUTO_DESTROY != 0,
        })
    }

    /// Why a start failed: what this build does not do was asked for by a document.
    pub(in crate::calls) fn refused(failure: Failure) -> Failure {
        match failure.code {
            Code::OperationUnsupported => Failure::unsupported_configuration(failure.detail),
            _ => failure,
        }
    }
}

pub(super) async fn create(context: Arc<Context>, call: wire::DomainCreate) -> Result<(), Failure> {
    let domain = reference(&call.domain);
    let options = StartOptions::default();
    context
        .of(&call.domain, DomainStart { domain, options })
        .await
        .map_err(start::refused)?;
    Ok(())
}

pub(super) async fn create_with_flags(
    context: Arc<Context>,
    call: wire::DomainCreateWithFlags,
) -> Result<Domain, Failure> {
    let known = start::KNOWN & !start::VALIDATE;
    let options = start::options(call.flags, known, "virDomainCreateWithFlags")?;
    let domain = reference(&call.domain);
    let started = context
        .of(&call.domain, DomainStart { domain, options })
        .await
        .map_err(start::refused)?;
    Ok(handle(&started))
}

pub(super) async fn suspend(
    context: Arc<Context>,
    call: wire::DomainSuspend,
) -> Result<(), Failure> {
    let domain = reference(&call.domain);
    context.of(&call.domain, DomainPause { domain }).await
}

pub(super) async fn resume(context: Arc<Context>, call: wire::DomainResume) -> Result<(), Failure> {
    let summary = context.active(&call.domain).await?;
    // To the supervisor that is no error: it is as it was to be.
    if matches!(
        summary.state,
        DomainState::Running(_) | DomainState::ShuttingDown
    ) {
        return Err(Failure::invalid("domain is already running"));
    }
    let domain = reference(&call.domain);
    context.of(&call.domain, DomainResume { domain }).await
}

pub(super) async fn reset(context: Arc<Context>, call: wire::DomainReset) -> Result<(), Failure> {
    check_flags(call.flags, 0, "virDomainReset")?;
    let domain = reference(&call.domain);
    context.of(&call.domain, DomainReset { domain }).await
}

/// How a guest is asked to end (libvirt `virDomainShutdownFlagValues` and those of a reboot, which are the
/// same): by any way, by the power button, or by its agent.
mod by {
    pub(super) const POWER_BUTTON: u32 = 0x1;
    pub(super) const AGENT: u32 = 0x2;
}

/// Whether the flags ask for the agent, and whether they leave the power button. Where nothing is said it is the
/// power button, which needs no agent.
fn ways(flags: u32, function: &str) -> Result<(bool, bool), Failure> {
    check_flags(flags, by::POWER_BUTTON | by::AGENT, function)?;
    let agent = flags & by::AGENT != 0;
    Ok((agent, !agent || flags & by::POWER_BUTTON != 0))
}

async fn press(context: &Context, domain: &Domain) -> Result<(), Failure> {
    let call = DomainShutdown {
        domain: reference(domain),
        destroy_after_ms: None,
        for_host: false,
    };
    context.of(domain, call).await
}

pub(super) async fn shutdown(
    context: Arc<Context>,
    call: wire::DomainShutdown,
) -> Result<(), Failure> {
    press(&context, &call.domain).await
}

pub(super) async fn shutdown_flags(
    context: Arc<Context>,
    call: wire::DomainShutdownFlags,
) -> Result<(), Failure> {
    let (by_agent, by_button) = ways(call.flags, "virDomainShutdownFlags")?;
    if by_agent {
        match agent::shutdown(&context, &call.domain).await {
            Err(_) if by_button => {}
            result => return result,
        }
    }
    press(&context, &call.domain).await
}

pub(super) async fn reboot(context: Arc<Context>, call: wire::DomainReboot) -> Result<(), Failure> {
    let (by_agent, by_button) = ways(call.flags, "virDomainReboot")?;
    if by_agent {
        match agent::reboot(&context, &call.domain).await {
            Err(_) if by_button => {}
            result => return result,
        }
    }
    let domain = reference(&call.domain);
    context.of(&call.domain, DomainReboot { domain }).await
}

/// The supervisor waits for the worker's end no longer than a moment.
async fn destroyed(context: &Context, of: &Domain) -> Result<(), Failure> {
    let domain = reference(of);
    context.of(of, DomainDestroy { domain }).await?;
    context.released(of).await;
    Ok(())
}

pub(super) async fn destroy(
    context: Arc<Context>,
    call: wire::DomainDestroy,
) -> Result<(), Failure> {
    destroyed(&context, &call.domain).await
}

/// A worker keeps nothing that a gentler signal would let it save, so that a graceful destroy is a destroy. A
/// domain's log is bounded, and stays whatever the flags say: that a log is not removed fails no destroy, as with
/// libvirt.
pub(super) async fn destroy_flags(
    context: Arc<Context>,
    call: wire::DomainDestroyFlags,
) -> Result<(), Failure> {
    const GRACEFUL: u32 = 0x1;
    const REMOVE_LOGS: u32 = 0x2;
    check_flags(call.flags, GRACEFUL | REMOVE_LOGS, "virDomainDestroyFlags")?;
    destroyed(&context, &call.domain).await
}

async fn undefined(context: &Context, of: &Domain) -> Result<(), Failure> {
    let summary = context.summary(of).await?;
    if !summary.persistent {
        let why = "cannot undefine transient domain";
        return Err(Failure::new(Code::OperationInvalid, why));
    }
    if summary.reaping {
        // It would be there until then, though nothing is kept of it.
        context.released(of).await;
    }
    let domain = reference(of);
    context.of(of, DomainUndefine { domain }).await
}

pub(super) async fn undefine(
    context: Arc<Context>,
    call: wire::DomainUndefine,
) -> Result<(), Failure> {
    undefined(&context, &call.domain).await
}

/// What the flags would take with it (saved images, snapshots, checkpoints, variables of a firmware or a
/// TPM) there is not.
pub(super) async fn undefine_flags(
    context: Arc<Context>,
    call: wire::DomainUndefineFlags,
) -> Result<(), Failure> {
    check_flags(call.flags, 0x7f, "virDomainUndefineFlags")?;
    undefined(&context, &call.domain).await
}

pub(super) async fn autostart(
    context: Arc<Context>,
    call: DomainGetAutostart,
) -> Result<bool, Failure> {
    let summary = context.summary(&call.domain).await?;
    Ok(summary.autostart.is_some())
}

/// A domain that has a place in the order keeps it.
pub(super) async fn set_autostart(
    context: Arc<Context>,
    call: wire::DomainSetAutostart,
) -> Result<(), Failure> {
    let summary = context.summary(&call.domain).await?;
    if !summary.persistent {
        let why = "cannot set autostart for transient domain";
        return Err(Failure::new(Code::OperationInvalid, why));
    }
    let order = call.autostart.then(|| summary.autostart.unwrap_or(0));
    if order == summary.autostart {
        return Ok(());
    }
    let domain = reference(&call.domain);
    context
        .of(&call.domain, DomainAutostartSet { domain, order })
        .await
}
