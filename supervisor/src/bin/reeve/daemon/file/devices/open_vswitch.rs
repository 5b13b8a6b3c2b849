//! `open-vswitch` of `[[nic]]`: the port of a bridge of Open vSwitch.

use reeve_ipc::model::{InterfaceName, OpenVswitchPort, Vlan, VlanTag};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::is_false;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct SwitchKeys {
    bridge: InterfaceName,
    #[serde(skip_serializing_if = "Option::is_none")]
    interface_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<String>,
    #[serde(default, skip_serializing_if = "is_false")]
    trunk: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tags: Vec<u16>,
    /// Which of the tags frames without one are of.
    #[serde(skip_serializing_if = "Option::is_none")]
    native: Option<u16>,
    /// Those get it on their way to the guest.
    #[serde(default, skip_serializing_if = "is_false")]
    native_tagged: bool,
}

impl From<SwitchKeys> for OpenVswitchPort {
    fn from(keys: SwitchKeys) -> Self {
        let tags = keys.tags.iter().map(|&id| VlanTag {
            id,
            native: (keys.native == Some(id)).then_some(keys.native_tagged),
        });
        let vlan = Vlan {
            trunk: keys.trunk,
            tags: tags.collect(),
        };
        Self {
            bridge: keys.bridge,
            interface_id: keys.interface_id,
            profile: keys.profile,
            vlan: Some(vlan).filter(|vlan| vlan.trunk || !vlan.tags.is_empty()),
        }
    }
}

impl From<OpenVswitchPort> for SwitchKeys {
    fn from(port: OpenVswitchPort) -> Self {
        let vlan = port.vlan.unwrap_or(Vlan {
            trunk: false,
            tags: Vec::new(),
        });
        let native = vlan.tags.iter().find_map(|tag| Some((tag.id, tag.native?)));
        Self {
            bridge: port.bridge,
            interface_id: port.interface_id,
            profile: port.profile,
            trunk: vlan.trunk,
            tags: vlan.tags.iter().map(|tag| tag.id).collect(),
            native: native.map(|(id, _)| id),
            native_tagged: native.is_some_and(|(_, tagged)| tagged),
        }
    }
}
