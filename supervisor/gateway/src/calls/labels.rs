//! What people and programs note about a domain: title, description, metadata; its name; and what its guest's
//! ends mean.

use std::sync::Arc;

use reeve_ipc::api::call::{DomainLabelSet, DomainRename, LabelChange};
use reeve_ipc::model::{Labels, MetadataElement, OnCrash, OnPowerOff, OnReboot};

use super::Context;
use super::context::{Impact, impact, reference};
use super::failure::{Code, Failure, check_flags, invalid_argument};
use super::vcpus::redefine;
use crate::wire::types::lifecycle as wire;
use crate::xml::domain::{metadata_element, metadata_without};

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
    let labels = context.meant(&call.domain, call.flags).await?.labels;
    noted(labels, call.kind, call.uri, "virDomainGetMetadata")
}

/// What is noted of that kind.
pub(super) fn noted(
    labels: Labels,
    kind: i32,
    uri: Option<String>,
    function: &str,
) -> Result<String, Failure> {
    let found = match kind {
        kind::DESCRIPTION => labels.description,
        kind::TITLE => labels.title,
        kind::ELEMENT => {
            let uri = uri.ok_or_else(|| null("uri", function))?;
            let mut elements = labels.metadata.into_iter();
            let found = elements.find(|element| element.uri == uri);
            found.map(|element| metadata_without(&element.content, &uri))
        }
        other => return Err(unknown_kind(other)),
    };
    let absent = "Requested metadata element is not present";
    found.ok_or_else(|| Failure::new(Code::NoMetadata, absent))
}

/// An argument of a function that is not said.
fn null(argument: &str, function: &str) -> Failure {
    invalid_argument(format!("{argument} in {function} must not be NULL"))
}

pub(super) async fn set(
    context: Arc<Context>,
    call: wire::DomainSetMetadata,
) -> Result<(), Failure> {
    check_flags(call.flags, impact::ANY, "virDomainSetMetadata")?;
    let function = "virDomainSetMetadata";
    let label = change(function, call.kind, call.metadata, call.key, call.uri)?;
    let Impact { live, persistent } = context.impact(&call.domain, call.flags).await?;
    let set = DomainLabelSet {
        domain: reference(&call.domain),
        label,
        live,
        persistent,
    };
    context.of(&call.domain, set).await
}

/// What is to be noted. A text of nothing takes a title or description away; an element goes by none at all.
pub(super) fn change(
    function: &str,
    kind: i32,
    metadata: Option<String>,
    key: Option<String>,
    uri: Option<String>,
) -> Result<LabelChange, Failure> {
    if matches!(kind, kind::DESCRIPTION | kind::TITLE) {
        for (argument, said) in [("uri", &uri), ("key", &key)] {
            if said.is_some() {
                return Err(invalid_argument(format!(
                    "{argument} in {function} must be NULL"
                )));
            }
        }
    }
    let text = metadata.clone().filter(|text| !text.is_empty());
    Ok(match kind {
        kind::DESCRIPTION => LabelChange::Description(text),
        kind::TITLE if text.as_ref().is_some_and(|text| text.contains('\n')) => {
            return Err(invalid_argument("metadata title can't contain newlines"));
        }
        kind::TITLE => LabelChange::Title(text),
        kind::ELEMENT => {
            let uri = uri.ok_or_else(|| null("uri", function))?;
            let Some(text) = metadata else {
                return Ok(LabelChange::MetadataRemove { uri });
            };
            let key = key.ok_or_else(|| null("key", function))?;
            let content = metadata_element(&text, &key, &uri)?;
            LabelChange::Metadata(MetadataElement { uri, content })
        }
        other => return Err(unknown_kind(other)),
    })
}

pub(super) async fn rename(
    context: Arc<Context>,
    call: wire::DomainRename,
) -> Result<i32, Failure> {
    check_flags(call.flags, 0, "virDomainRename")?;
    let name = call.name.unwrap_or_default();
    if name.contains('/') {
        let why = format!("name {name} cannot contain '/'");
        return Err(Failure::new(Code::XmlError, why));
    }
    let parsed = name.parse();
    let rename = DomainRename {
        domain: reference(&call.domain),
        name: parsed
            .map_err(|error: reeve_ipc::model::InvalidName| invalid_argument(error.to_string()))?,
    };
    let renamed = context.of(&call.domain, rename).await;
    renamed.map_err(|failure| match failure.code {
        // The one call to which libvirt says so of a name that is taken.
        Code::OperationFailed if name == call.domain.name => {
            Failure::invalid("Can't rename domain to itself")
        }
        Code::OperationFailed => {
            Failure::invalid(format!("domain with name '{name}' already exists"))
        }
        _ => failure,
    })?;
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
