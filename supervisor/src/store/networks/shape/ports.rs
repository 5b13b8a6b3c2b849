//! Kinds of a network's ports, in words.

use reeve_ipc::model;
use serde::{Deserialize, Serialize};

use super::is_false;
use crate::store::rate::Rate;
use crate::store::vlan::Vlan;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PortGroup {
    name: String,
    #[serde(default, skip_serializing_if = "is_false")]
    default: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trust_guest: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    isolated: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    inbound: Option<Rate>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    outbound: Option<Rate>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vlan: Option<Vlan>,
}

impl From<&model::PortGroup> for PortGroup {
    fn from(group: &model::PortGroup) -> Self {
        let model::PortGroup {
            name,
            default,
            inbound,
            outbound,
            vlan,
            trust_guest,
            isolated,
        } = group;
        Self {
            name: name.clone(),
            default: *default,
            trust_guest: *trust_guest,
            isolated: *isolated,
            inbound: inbound.map(Into::into),
            outbound: outbound.map(Into::into),
            vlan: vlan.as_ref().map(Into::into),
        }
    }
}

impl From<PortGroup> for model::PortGroup {
    fn from(group: PortGroup) -> Self {
        Self {
            name: group.name,
            default: group.default,
            inbound: group.inbound.map(Into::into),
            outbound: group.outbound.map(Into::into),
            vlan: group.vlan.map(Into::into),
            trust_guest: group.trust_guest,
            isolated: group.isolated,
        }
    }
}
