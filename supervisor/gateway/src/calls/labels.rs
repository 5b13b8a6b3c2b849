//! What people and programs note about a domain: title, description, metadata; its name; and what its guest's
//! ends mean.

use std::sync::Arc;

use reeve_ipc::api::call::{DomainLabelSet, DomainRename, LabelChange};
use reeve_ipc::model::{MetadataElement, OnCrash, OnPowerOff, OnReboot};

use super::Context;
use super::context::{Impact, impact, impact_of, reference};
use super::failure::{Code, Failure, check_flags, invalid_argument};
use super::vcpus::redefine;
use crate::wire::types::lifecycle as wire;
use crate::xml::domain::metadata_element;

/// What is noted (libvirt `virDomainMetadataType`).
mod kind {
    pub(super) const DESCRIPTION: i32 = 0;
    pub(super) const TITLE: i32 = 1;
    pub(super) const ELEMENT: i32 = 2;
}

fn unknown_kind(kind: i32) -> Failure {
    invalid_argument(format!("unknown metadata type {kind}"))
}

pub(super) async fn get(
    context: Arc<Context>,
    call: wire::DomainGetMetadata,
) -> Result<String, Failure> {
    check_flags(call.flags, impact::ANY, "virDomainGetMetadata")?;
    let summary = context.summary(&call.domain).await?;
    let impact = impact_of(&summary, call.flags)?;
    let persistent = impact.persistent && summary.state.is_active();
    let labels = context.definition(&call.domain, persistent).await?.labels;
    let (found, what) = match call.kind {
        kind::DESCRIPTION => (labels.description, "description"),
        kind::TITLE => (labels.title, "title"),
        kind::ELEMENT => {
            let uri = call.uri.ok_or_else(no_uri)?;
            let mut elements = labels.metadata.into_iter();
            let found = elements.find(|element| element.uri == uri);
            (found.map(|element| element.content), "metadata")
        }
        other => return Err(unknown_kind(other)),
    };
    let absent = || format!("Requested {what} element is not present");
    found.ok_or_else(|| Failure::new(Code::NoMetadata, absent()))
}

fn no_uri() -> Failure {
    invalid_argument("uri in virDomainSetMetadata must not be NULL")
}

pub(super) async fn set(
    context: Arc<Context>,
    call: wire::DomainSetMetadata,
) -> Result<(), Failure> {
    check_flags(call.flags, impact::ANY, "virDomainSetMetadata")?;
    let Impact { live, persistent } = context.impact(&call.domain, call.flags).await?;
    let text = call.metadata.filter(|text| !text.is_empty());
    let label = match call.kind {
        kind::DESCRIPTION => LabelChange::Description(text),
        kind::TITLE => LabelChange::Title(text),
        kind::ELEMENT => {
            let uri = call.uri.ok_or_else(no_uri)?;
            match text {
                None => LabelChange::MetadataRemove { uri },
                Some(text) => {
                    let key = call.key.unwrap_or_default();
                    let refused =
                        || Failure::new(Code::XmlError, "metadata is no element of that namespace");
                    let content = metadata_element(&text, &key, &uri).ok_or_else(refused)?;
                    LabelChange::Metadata(MetadataElement { uri, content })
                }
            }
        }
        other => return Err(unknown_kind(other)),
    };
    let set = DomainLabelSet {
        domain: reference(&call.domain),
        label,
        live,
        persistent,
    };
    context.of(&call.domain, set).await
}

pub(super) async fn rename(
    context: Arc<Context>,
    call: wire::DomainRename,
) -> Result<i32, Failure> {
    check_flags(call.flags, 0, "virDomainRename")?;
    let name = call.name.unwrap_or_default();
    let name = name.parse();
    let rename = DomainRename {
        domain: reference(&call.domain),
        name: name
            .map_err(|error: reeve_ipc::model::InvalidName| invalid_argument(error.to_string()))?,
    };
    context.of(&call.domain, rename).await?;
    Ok(0)
}

/// What an end of the guest means, in the definition that is kept: a machine that runs was told at its start.
pub(super) async fn set_action(
    context: Arc<Context>,
    call: wire::DomainSetLifecycleAction,
) -> Result<(), Failure> {
    const POWER_OFF: u32 = 0;
    const REBOOT: u32 = 1;
    const CRASH: u32 = 2;
    const DESTROY: u32 = 0;
    const RESTART: u32 = 1;
    const PRESERVE: u32 = 3;
    check_flags(call.flags, impact::ANY, "virDomainSetLifecycleAction")?;
    let impact = context.impact(&call.domain, call.flags).await?;
    if impact.live {
        let why =
            "a machine that runs has the actions of its start: change its definition (--config)";
        return Err(Failure::new(Code::OperationUnsupported, why));
    }
    let (end, action) = (call.kind, call.action);
    redefine(&context, &call.domain, move |definition| {
        let lifecycle = &mut definition.lifecycle;
        match (end, action) {
            (POWER_OFF, DESTROY) => lifecycle.on_power_off = OnPowerOff::Destroy,
            (POWER_OFF, RESTART) => lifecycle.on_power_off = OnPowerOff::Restart,
            (POWER_OFF, PRESERVE) => lifecycle.on_power_off = OnPowerOff::Preserve,
            (REBOOT, DESTROY) => lifecycle.on_reboot = OnReboot::Destroy,
            (REBOOT, RESTART) => lifecycle.on_reboot = OnReboot::Restart,
            (REBOOT, PRESERVE) => lifecycle.on_reboot = OnReboot::Preserve,
            (CRASH, DESTROY) => lifecycle.on_crash = OnCrash::Destroy,
            (CRASH, RESTART) => lifecycle.on_crash = OnCrash::Restart,
            (CRASH, PRESERVE) => lifecycle.on_crash = OnCrash::Preserve,
            (POWER_OFF..=CRASH, _) => {
                let why = "only destroy, restart and preserve can be done";
                return Err(Failure::new(Code::OperationUnsupported, why));
            }
            _ => return Err(invalid_argument("unknown lifecycle type")),
        }
        Ok(())
    })
    .await
}
