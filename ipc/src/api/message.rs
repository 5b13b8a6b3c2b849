//! The datagrams of the native API, one enum a direction.

use serde::{Deserialize, Serialize};

use super::call::{AnswerBody, CallBody};
use super::error::ApiError;
use super::event::{Cursor, Event};
use super::{Access, ApiVersion};
use crate::BuildId;

/// Names one call of one connection: chosen by the client, rising, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CallId(pub u64);

/// The most bytes of a client's name for itself.
pub const MAX_CLIENT_NAME_BYTES: usize = 64;

/// From a client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(
    clippy::large_enum_variant,
    reason = "one is alive at a time, and the greeting is the rare one"
)]
pub enum FromClient {
    /// The first message.
    Hello {
        /// The version of all that follows.
        api: ApiVersion,
        /// What the client calls itself, for the supervisor's log; at most
        /// [`MAX_CLIENT_NAME_BYTES`] bytes.
        client: String,
    },
    /// A call, with its descriptors where the list says that it takes any.
    Call {
        /// Its id.
        id: CallId,
        /// The call.
        body: CallBody,
    },
}

/// From the supervisor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToClient {
    /// The first message: the connection is open.
    Welcome {
        /// The version of all that follows.
        api: ApiVersion,
        /// The supervisor's build.
        build: BuildId,
        /// What this connection may do.
        access: Access,
    },
    /// The first and last message: the connection is closed.
    Refused(ApiError),
    /// The answer to one call, with its descriptors where the list says that it brings any.
    Reply {
        /// The call's id.
        id: CallId,
        /// Its answer, of the call's own type, or why not.
        result: Result<AnswerBody, ApiError>,
    },
    /// Something that happened, to a connection that subscribed.
    Event {
        /// Where it stands among all events.
        cursor: Cursor,
        /// What happened.
        event: Event,
    },
}
