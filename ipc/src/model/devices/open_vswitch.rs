//! Ports of bridges of Open vSwitch (libvirt `<virtualport type='openvswitch'>`).

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::InterfaceName;
use crate::model::Vlan;

/// The most bytes of the name of a profile, as in libvirt.
pub const MAX_PROFILE_BYTES: usize = 39;

/// The most tags of a port.
pub const MAX_PORT_TAGS: usize = 64;

/// A port of a bridge of Open vSwitch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenVswitchPort {
    /// The bridge.
    pub bridge: InterfaceName,
    /// What the switch's controller knows the interface by (`external_ids:iface-id`); made of the domain's UUID and
    /// the interface's address when the definition is taken where there is none.
    pub interface_id: Option<Uuid>,
    /// The name of a profile that the switch's controller has (`external_ids:port-profile`): 1 to
    /// [`MAX_PROFILE_BYTES`] bytes.
    pub profile: Option<String>,
    /// Tags of the frames that pass it, at most [`MAX_PORT_TAGS`]; any frames do, as they are, where there are none.
    pub vlan: Option<Vlan>,
}

impl OpenVswitchPort {
    /// Of a bridge, with nothing else said.
    #[must_use]
    pub const fn of(bridge: InterfaceName) -> Self {
        Self {
            bridge,
            interface_id: None,
            profile: None,
            vlan: None,
        }
    }

    /// Whether all of it can be had.
    pub(super) fn is_valid(&self) -> bool {
        can_be(self.profile.as_deref(), self.vlan.as_ref())
    }
}

/// What an interface of a virtual network says itself of its port, of a bridge of Open vSwitch: of what its port group
/// and its network say it is this that holds. One that says nothing is left out when the definition is taken.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtualPort {
    /// The bridge is one of Open vSwitch, also where the network does not say so (libvirt `<virtualport
    /// type='openvswitch'>`). Without it neither of the next two is said.
    pub open_vswitch: bool,
    /// As of an [`OpenVswitchPort`]; without `open_vswitch` that of the port of the network.
    pub interface_id: Option<Uuid>,
    /// As of an [`OpenVswitchPort`].
    pub profile: Option<String>,
    /// As of an [`OpenVswitchPort`]; those of the port group or the network where there are none.
    pub vlan: Option<Vlan>,
}

impl VirtualPort {
    /// Whether all of it can be had.
    pub(super) fn is_valid(&self) -> bool {
        let bare = self.interface_id.is_none() && self.profile.is_none();
        (self.open_vswitch || bare) && can_be(self.profile.as_deref(), self.vlan.as_ref())
    }
}

fn can_be(profile: Option<&str>, vlan: Option<&Vlan>) -> bool {
    let good = profile.is_none_or(|name| {
        (1..=MAX_PROFILE_BYTES).contains(&name.len()) && !name.chars().any(char::is_control)
    });
    good && vlan.is_none_or(|vlan| vlan.tags.len() <= MAX_PORT_TAGS && vlan.validate().is_ok())
}
