//! `[watchdog]`.

use reeve_ipc::model::Watchdog;
use reeve_ipc::spec::{PciSlot, WatchdogAction};
use serde::{Deserialize, Deserializer, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct WatchdogKeys {
    #[serde(deserialize_with = "action")]
    action: WatchdogAction,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<PciSlot>,
}

/// By its word, so that one that is not supported is told of as such.
fn action<'de, D: Deserializer<'de>>(deserializer: D) -> Result<WatchdogAction, D::Error> {
    let word = String::deserialize(deserializer)?;
    Watchdog::action(&word).map_err(serde::de::Error::custom)
}

impl From<WatchdogKeys> for Watchdog {
    fn from(keys: WatchdogKeys) -> Self {
        Self {
            action: keys.action,
            address: keys.address,
        }
    }
}

impl From<Watchdog> for WatchdogKeys {
    fn from(watchdog: Watchdog) -> Self {
        Self {
            action: watchdog.action,
            address: watchdog.address,
        }
    }
}
