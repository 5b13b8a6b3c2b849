//! Rates in words, of whatever has them: devices, networks and their port groups.

use reeve_ipc::spec;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rate {
    per_second: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    burst: Option<Burst>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Burst {
    per_second: u64,
    seconds: u32,
}

impl From<spec::Rate> for Rate {
    fn from(rate: spec::Rate) -> Self {
        let spec::Rate { per_second, burst } = rate;
        Self {
            per_second,
            burst: burst.map(
                |spec::Burst {
                     per_second,
                     seconds,
                 }| Burst {
                    per_second,
                    seconds,
                },
            ),
        }
    }
}

impl From<Rate> for spec::Rate {
    fn from(rate: Rate) -> Self {
        Self {
            per_second: rate.per_second,
            burst: rate.burst.map(|burst| spec::Burst {
                per_second: burst.per_second,
                seconds: burst.seconds,
            }),
        }
    }
}
