//! Tags of VLANs in words, of whatever has them: interfaces, networks and their port groups.

use reeve_ipc::model;
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Vlan {
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    trunk: bool,
    tags: Vec<Tag>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tag {
    id: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    native: Option<Native>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Native {
    Tagged,
    Untagged,
}

impl From<&model::Vlan> for Vlan {
    fn from(vlan: &model::Vlan) -> Self {
        let tags = vlan.tags.iter().map(|tag| Tag {
            id: tag.id,
            native: tag.native.map(|tagged| match tagged {
                true => Native::Tagged,
                false => Native::Untagged,
            }),
        });
        Self {
            trunk: vlan.trunk,
            tags: tags.collect(),
        }
    }
}

impl From<Vlan> for model::Vlan {
    fn from(vlan: Vlan) -> Self {
        let tags = vlan.tags.into_iter().map(|tag| model::VlanTag {
            id: tag.id,
            native: tag.native.map(|native| matches!(native, Native::Tagged)),
        });
        Self {
            trunk: vlan.trunk,
            tags: tags.collect(),
        }
    }
}
