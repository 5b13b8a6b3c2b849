//! `open-vswitch` of `[[nic]]`: the port of a bridge of Open vSwitch, and what an interface of a network says of its.

use reeve_ipc::model::{InterfaceName, OpenVswitchPort, VirtualPort, Vlan, VlanTag};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::is_false;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct SwitchKeys {
    /// Of an interface of a network, whether or not that says so itself, none.
    #[serde(skip_serializing_if = "Option::is_none")]
    bridge: Option<InterfaceName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interface_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<String>,
    #[serde(default, skip_serializing_if = "is_false")]
    trunk: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tags: Vec<u16>,
    /// Of an interface of a network: whether the bridge is one of Open vSwitch is for that to say.
    #[serde(default, skip_serializing_if = "is_false")]
    tags_alone: bool,
    /// Which of the tags frames without one are of.
    #[serde(skip_serializing_if = "Option::is_none")]
    native: Option<u16>,
    /// Those get it on their way to the guest.
    #[serde(default, skip_serializing_if = "is_false")]
    native_tagged: bool,
}

impl SwitchKeys {
    /// The port of a bridge that is said.
    pub(super) fn port(self) -> Result<OpenVswitchPort, String> {
        let Some(bridge) = self.bridge.clone() else {
            return Err("open-vswitch needs a bridge, or beside it a network".to_owned());
        };
        if self.tags_alone {
            return Err("tags-alone is of a network interface with a network".to_owned());
        }
        let own = self.own();
        Ok(OpenVswitchPort {
            bridge,
            interface_id: own.interface_id,
            profile: own.profile,
            vlan: own.vlan,
        })
    }

    /// What an interface of a network says of its port.
    pub(super) fn of_network(self) -> Result<VirtualPort, String> {
        match self.bridge {
            None => Ok(self.own()),
            Some(_) => {
                Err("the bridge of a network interface with a network is the network's".to_owned())
            }
        }
    }

    fn own(self) -> VirtualPort {
        let keys = self;
        let tags = keys.tags.iter().map(|&id| VlanTag {
            id,
            native: (keys.native == Some(id)).then_some(keys.native_tagged),
        });
        let vlan = Vlan {
            trunk: keys.trunk,
            tags: tags.collect(),
        };
        VirtualPort {
            open_vswitch: !keys.tags_alone,
            interface_id: keys.interface_id,
            profile: keys.profile,
            vlan: Some(vlan).filter(|vlan| vlan.trunk || !vlan.tags.is_empty()),
        }
    }
}

impl From<OpenVswitchPort> for SwitchKeys {
    fn from(port: OpenVswitchPort) -> Self {
        let own = VirtualPort {
            open_vswitch: true,
            interface_id: port.interface_id,
            profile: port.profile,
            vlan: port.vlan,
        };
        Self {
            bridge: Some(port.bridge),
            ..own.into()
        }
    }
}

impl From<VirtualPort> for SwitchKeys {
    fn from(port: VirtualPort) -> Self {
        let vlan = port.vlan.unwrap_or(Vlan {
            trunk: false,
            tags: Vec::new(),
        });
        let native = vlan.tags.iter().find_map(|tag| Some((tag.id, tag.native?)));
        Self {
            bridge: None,
            tags_alone: !port.open_vswitch,
            interface_id: port.interface_id,
            profile: port.profile,
            trunk: vlan.trunk,
            tags: vlan.tags.iter().map(|tag| tag.id).collect(),
            native: native.map(|(id, _)| id),
            native_tagged: native.is_some_and(|(_, tagged)| tagged),
        }
    }
}
