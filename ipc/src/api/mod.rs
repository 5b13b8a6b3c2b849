//! The native API: what a client asks of the supervisor, and what it is told.
//!
//! ```text
//!   client (CLI, daemon, gateway)                         reeved
//!   ─────────────────────────────                         ──────
//!   Hello {api, client}        ──────────────────────────►  who is it (SO_PEERCRED), may it
//!                              ◄──────────────────────────  Welcome {api, build, access}
//!                              ◄──────────────────────────    or Refused {error}, and the end
//!   Call {id, body}            ──────────────────────────►  access, admission, job
//!     with its descriptors
//!                              ◄──────────────────────────  Reply {id, answer | error}
//!                              ◄──────────────────────────    with its descriptors
//!                              ◄──────────────────────────  Event {cursor, event}, when subscribed
//! ```
//!
//! Every message is one datagram of the codec on a `SOCK_SEQPACKET` UNIX socket, with the same bounds
//! as the worker protocol. Calls may overlap; each is answered once, in whatever order they end, up
//! to a limit of calls in flight ([`error::ApiErrorCode::Busy`] beyond it). A client that breaks the
//! form of a message loses its connection and nothing else.
//!
//! One list says every call, its answer, what access it needs, and whether it may be repeated:
//! [`call`]. What objects look like from outside is in [`view`], [`figures`], [`host`], [`interface`],
//! [`network`] and [`storage`], what happens to them in [`event`].
//!
//! **Versions.** Encoding is positional: any change of a type here or in [`crate::model`] raises
//! [`API`]. The supervisor serves this version and the one before (there is none yet). The first
//! messages alone ([`message::FromClient::Hello`], [`message::ToClient::Welcome`] and
//! [`message::ToClient::Refused`]) have the same bytes in every version: a client of another one is
//! answered with a refusal that names both.

pub mod blocking;
pub mod call;
#[cfg(feature = "client")]
pub mod client;
pub mod error;
pub mod event;
pub mod figures;
pub mod host;
pub mod interface;
pub mod judge;
pub mod message;
pub mod network;
pub mod nwfilter;
pub mod storage;
pub mod view;

use serde::{Deserialize, Serialize};

/// Version of the native API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ApiVersion(pub u16);

/// The version of this build.
pub const API: ApiVersion = ApiVersion(1);

/// The socket's name in the run directory.
pub const SOCKET_NAME: &str = "reeve-sock";

/// The directory in the run directory for the sockets of devices whose path nobody says. Any definition may name
/// a path in it, whatever the allowed directories are; it is for sockets alone.
pub const SOCKETS_DIRECTORY: &str = "sockets";

/// The run directory of the host's own instance.
pub const RUN_DIRECTORY: &str = "/run/reeve";

/// The most objects one page of a list has.
pub const MAX_PAGE: usize = 256;

/// What a connection may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Look at everything but what guests say.
    ReadOnly,
    /// Everything. Without a policy for paths it would be root.
    ReadWrite,
}

impl std::fmt::Display for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ReadOnly => "read-only",
            Self::ReadWrite => "read-write",
        })
    }
}
