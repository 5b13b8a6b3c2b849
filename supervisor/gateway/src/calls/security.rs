//! Security labels, of which there are none: no security driver labels what a domain uses, as each is confined by its
//! worker's sandbox. Answered as libvirt does with its driver
//! `none`.

use std::sync::Arc;

use super::Context;
use super::failure::Failure;
use crate::wire::types::host::{NodeGetSecurityModel, SecurityModel};
use crate::wire::types::inspect::{
    DomainGetSecurityLabel, DomainGetSecurityLabelList, SecurityLabel, SecurityLabels,
};
use crate::wire::xdr::CharList;

pub(super) async fn model(
    _: Arc<Context>,
    _: NodeGetSecurityModel,
) -> Result<SecurityModel, Failure> {
    Ok(SecurityModel {
        model: CharList::terminated("none"),
        doi: CharList::terminated("0"),
    })
}

pub(super) async fn label(
    context: Arc<Context>,
    call: DomainGetSecurityLabel,
) -> Result<SecurityLabel, Failure> {
    context.summary(&call.domain).await?;
    Ok(SecurityLabel {
        label: CharList::terminated(""),
        enforcing: 0,
    })
}

pub(super) async fn labels(
    context: Arc<Context>,
    call: DomainGetSecurityLabelList,
) -> Result<SecurityLabels, Failure> {
    context.summary(&call.domain).await?;
    Ok(SecurityLabels {
        labels: Vec::new().into(),
        ret: 0,
    })
}
