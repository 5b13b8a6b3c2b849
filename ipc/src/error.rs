//! The error that crosses the socket: a code to branch on, one line to read, what it concerns.

use serde::{Deserialize, Serialize};

/// What kind of failure a [`WireError`] reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ErrorCode {
    /// The request is not legal in the worker's phase.
    WrongPhase,
    /// The request's arguments are outside what the worker can do.
    InvalidArgument,
    /// A descriptor the request names did not come, came twice, or is of the wrong kind.
    Descriptor,
    /// The boot image cannot be booted.
    BootImage,
    /// The host's KVM refused, or lacks something.
    Hypervisor,
    /// Guest memory could not be mapped.
    Memory,
    /// Another resource of the host failed.
    Host,
    /// This build cannot do it.
    Unsupported,
    /// A vCPU did not answer in time.
    Timeout,
}

/// An error as data: no source chain, no type of the side that raised it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct WireError {
    /// What kind of failure.
    pub code: ErrorCode,
    /// One line, lower case, without a full stop.
    pub message: String,
}

impl WireError {
    /// The most bytes of a message that are sent; the rest is cut at a character boundary.
    pub const MAX_MESSAGE_BYTES: usize = 1024;

    /// An error of `code` that says `message`, made to fit.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let mut message = message.into();
        truncate(&mut message, Self::MAX_MESSAGE_BYTES);
        Self { code, message }
    }
}

/// Cuts `text` to at most `max` bytes at a character boundary.
pub fn truncate(text: &mut String, max: usize) {
    if text.len() > max {
        let end = (0..=max)
            .rev()
            .find(|end| text.is_char_boundary(*end))
            .unwrap_or(0);
        text.truncate(end);
    }
}
