//! The datagrams themselves, one enum a direction.

use serde::{Deserialize, Serialize};

use crate::error::WireError;
use crate::event::Event;
use crate::request::{ReplyBody, RequestBody};
use crate::{BuildId, ProtocolVersion};

/// Names one request of one connection; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RequestId(pub u64);

/// From the supervisor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one at a time, and nearly all are requests"
)]
pub enum ToWorker {
    /// The first message: who speaks. The worker exits if either differs from its own.
    Welcome {
        /// The protocol of all that follows.
        protocol: ProtocolVersion,
        /// The supervisor's build.
        build: BuildId,
        /// The domain's name, for the worker's own reports.
        domain: String,
    },
    /// Descriptors for the next request beyond those that ride with it, sent ahead and appended in
    /// order to a table that is empty after each request: slots count from 0 for each. `count` is
    /// how many this message carries, 1 to [`crate::MAX_MESSAGE_FDS`].
    Descriptors {
        /// How many ride with this message.
        count: u16,
    },
    /// A call, with the last of its descriptors: at most [`crate::MAX_MESSAGE_FDS`].
    Request {
        /// Chosen by the supervisor, rising.
        id: RequestId,
        /// The call.
        body: RequestBody,
    },
}

/// From a worker: hostile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FromWorker {
    /// The first message: who answers, and how it is confined.
    Hello {
        /// The protocol the worker speaks.
        protocol: ProtocolVersion,
        /// The worker's build.
        build: BuildId,
        /// What the worker's jail came to.
        jail: JailFacts,
    },
    /// The answer to one request.
    Reply {
        /// The request's id.
        id: RequestId,
        /// Its reply, of the request's own type, or why not.
        result: Result<ReplyBody, WireError>,
    },
    /// Something that happened.
    Event {
        /// Rising by one; a gap means that events were dropped for want of room.
        number: u64,
        /// What happened.
        event: Event,
    },
}

/// What a worker reports of its own confinement. For display only: what confines it is what the
/// supervisor and the kernel did, not what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct JailFacts {
    /// The Landlock ABI in force, at least 1.
    pub landlock_abi: u32,
}
