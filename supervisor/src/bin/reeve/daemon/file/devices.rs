//! The devices of a definition file: `[[disk]]`, `[[nic]]`, `[rng]` and the rest.

mod disk;
mod nic;
mod open_vswitch;
mod watchdog;

use std::path::PathBuf;

use reeve_ipc::model::{Balloon, Channel, PortConsole, Rng, Share, Vsock};
use reeve_ipc::spec::{Burst, PciSlot, Rate};
use serde::{Deserialize, Serialize};

pub(super) use self::disk::DiskEntry;
pub(super) use self::nic::NicEntry;
pub(super) use self::watchdog::WatchdogKeys;

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RateKeys {
    per_second: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    burst: Option<u64>,
    /// How long the burst lasts, in seconds; 1 where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    burst_seconds: Option<u32>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RngKeys {
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<PciSlot>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<RateKeys>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct BalloonKeys {
    free_page_reporting: bool,
    deflate_on_oom: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<PciSlot>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VsockKeys {
    pub(super) path: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    cid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<PciSlot>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChannelKeys {
    name: String,
    pub(super) path: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u8>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConsoleKeys {
    pub(super) path: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u8>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct ShareEntry {
    tag: String,
    pub(super) path: PathBuf,
    #[serde(default, skip_serializing_if = "is_false")]
    read_only: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<PciSlot>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the shape serde asks for"
)]
const fn is_false(switch: &bool) -> bool {
    !*switch
}

const fn one() -> u16 {
    1
}

impl From<RateKeys> for Rate {
    fn from(keys: RateKeys) -> Self {
        Self {
            per_second: keys.per_second,
            burst: keys.burst.map(|per_second| Burst {
                per_second,
                seconds: keys.burst_seconds.unwrap_or(1),
            }),
        }
    }
}

impl From<Rate> for RateKeys {
    fn from(rate: Rate) -> Self {
        Self {
            per_second: rate.per_second,
            burst: rate.burst.map(|burst| burst.per_second),
            burst_seconds: rate.burst.map(|burst| burst.seconds),
        }
    }
}

impl From<RngKeys> for Rng {
    fn from(keys: RngKeys) -> Self {
        Self {
            rate: keys.bytes.map(Into::into),
            address: keys.address,
        }
    }
}

impl From<Rng> for RngKeys {
    fn from(rng: Rng) -> Self {
        Self {
            address: rng.address,
            bytes: rng.rate.map(Into::into),
        }
    }
}

impl From<BalloonKeys> for Balloon {
    fn from(keys: BalloonKeys) -> Self {
        Self {
            free_page_reporting: keys.free_page_reporting,
            deflate_on_oom: keys.deflate_on_oom,
            address: keys.address,
        }
    }
}

impl From<Balloon> for BalloonKeys {
    fn from(balloon: Balloon) -> Self {
        Self {
            free_page_reporting: balloon.free_page_reporting,
            deflate_on_oom: balloon.deflate_on_oom,
            address: balloon.address,
        }
    }
}

impl From<VsockKeys> for Vsock {
    fn from(keys: VsockKeys) -> Self {
        Self {
            cid: keys.cid,
            path: keys.path,
            address: keys.address,
        }
    }
}

impl From<Vsock> for VsockKeys {
    fn from(vsock: Vsock) -> Self {
        Self {
            path: vsock.path,
            cid: vsock.cid,
            address: vsock.address,
        }
    }
}

impl From<ChannelKeys> for Channel {
    fn from(keys: ChannelKeys) -> Self {
        Self {
            name: keys.name,
            path: keys.path,
            port: keys.port,
        }
    }
}

impl From<Channel> for ChannelKeys {
    fn from(channel: Channel) -> Self {
        Self {
            name: channel.name,
            path: channel.path,
            port: channel.port,
        }
    }
}

impl From<ConsoleKeys> for PortConsole {
    fn from(keys: ConsoleKeys) -> Self {
        Self {
            path: keys.path,
            port: keys.port,
        }
    }
}

impl From<PortConsole> for ConsoleKeys {
    fn from(console: PortConsole) -> Self {
        Self {
            path: console.path,
            port: console.port,
        }
    }
}

impl From<ShareEntry> for Share {
    fn from(entry: ShareEntry) -> Self {
        Self {
            tag: entry.tag,
            source: entry.path,
            read_only: entry.read_only,
            address: entry.address,
        }
    }
}

impl From<Share> for ShareEntry {
    fn from(share: Share) -> Self {
        Self {
            tag: share.tag,
            path: share.source,
            read_only: share.read_only,
            address: share.address,
        }
    }
}
