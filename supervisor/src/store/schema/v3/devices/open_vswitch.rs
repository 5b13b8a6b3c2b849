//! Ports of Open vSwitch as schema 3 has them.

use reeve_ipc::model;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::super::SchemaError;
use super::disks::is_false;
use super::nics::interface;
use crate::store::vlan::Vlan;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SwitchPort {
    bridge: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    interface_id: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    profile: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vlan: Option<Vlan>,
}

/// What an interface of a network says of its port.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VirtualPort {
    #[serde(default, skip_serializing_if = "is_false")]
    open_vswitch: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    interface_id: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    profile: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vlan: Option<Vlan>,
}

impl From<&model::OpenVswitchPort> for SwitchPort {
    fn from(port: &model::OpenVswitchPort) -> Self {
        let model::OpenVswitchPort {
            bridge,
            interface_id,
            profile,
            vlan,
        } = port;
        Self {
            bridge: bridge.as_str().to_owned(),
            interface_id: *interface_id,
            profile: profile.clone(),
            vlan: vlan.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<SwitchPort> for model::OpenVswitchPort {
    type Error = SchemaError;

    fn try_from(port: SwitchPort) -> Result<Self, SchemaError> {
        Ok(Self {
            bridge: interface(port.bridge)?,
            interface_id: port.interface_id,
            profile: port.profile,
            vlan: port.vlan.map(Into::into),
        })
    }
}

impl From<&model::VirtualPort> for VirtualPort {
    fn from(port: &model::VirtualPort) -> Self {
        let model::VirtualPort {
            open_vswitch,
            interface_id,
            profile,
            vlan,
        } = port;
        Self {
            open_vswitch: *open_vswitch,
            interface_id: *interface_id,
            profile: profile.clone(),
            vlan: vlan.as_ref().map(Into::into),
        }
    }
}

impl From<VirtualPort> for model::VirtualPort {
    fn from(port: VirtualPort) -> Self {
        Self {
            open_vswitch: port.open_vswitch,
            interface_id: port.interface_id,
            profile: port.profile,
            vlan: port.vlan.map(Into::into),
        }
    }
}
