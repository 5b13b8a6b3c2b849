//! Bytes to messages and back; the only file that names the codec.
//!
//! Invariants: nothing larger than [`MAX_MESSAGE_BYTES`] is produced or read; what a decoder
//! allocates is bounded whatever a length field says (a list reserves at most 1 MiB before its
//! elements come); every byte is consumed or the message is refused.
//! The types are not recursive (the limit would not bound depth), which the property tests and the
//! fuzz target beside this crate watch over.

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::MAX_MESSAGE_BYTES;

type Config = Configuration<LittleEndian, Varint, Limit<MAX_MESSAGE_BYTES>>;

const CONFIG: Config = bincode::config::standard().with_limit::<MAX_MESSAGE_BYTES>();

/// Why a message could not be encoded or decoded.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The value does not fit a message.
    #[error("cannot encode a message: {0}")]
    Encode(String),
    /// More than [`MAX_MESSAGE_BYTES`] bytes.
    #[error("a message of {0} bytes is over the limit of {MAX_MESSAGE_BYTES}")]
    TooLarge(usize),
    /// Not a value of the expected type.
    #[error("malformed message: {0}")]
    Malformed(String),
    /// A whole value, and then something else.
    #[error("{0} bytes left over behind a message")]
    TrailingBytes(usize),
}

/// Encodes one message.
///
/// # Errors
/// [`CodecError::TooLarge`] if it would exceed [`MAX_MESSAGE_BYTES`], [`CodecError::Encode`]
/// otherwise.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    let bytes = bincode::serde::encode_to_vec(value, CONFIG)
        .map_err(|error| CodecError::Encode(error.to_string()))?;
    if bytes.len() > MAX_MESSAGE_BYTES {
        return Err(CodecError::TooLarge(bytes.len()));
    }
    Ok(bytes)
}

/// Decodes one message from bytes that nobody vouches for.
///
/// # Errors
/// [`CodecError::TooLarge`] before anything is read, [`CodecError::Malformed`],
/// [`CodecError::TrailingBytes`].
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    if bytes.len() > MAX_MESSAGE_BYTES {
        return Err(CodecError::TooLarge(bytes.len()));
    }
    let (value, consumed) = bincode::serde::decode_from_slice(bytes, CONFIG)
        .map_err(|error| CodecError::Malformed(error.to_string()))?;
    match bytes.len().checked_sub(consumed) {
        Some(0) => Ok(value),
        Some(left) => Err(CodecError::TrailingBytes(left)),
        None => Err(CodecError::Malformed(
            "decoder ran past the message".to_owned(),
        )),
    }
}
