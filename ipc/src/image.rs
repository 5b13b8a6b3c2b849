//! What the process that reads the header of a disk image says to the supervisor: one message, and no other.
//!
//! The process has the image, open for reading, and a `SOCK_SEQPACKET` socket for this; it is started for one
//! image, and is as hostile as a worker. A name that it gives is no more than a name.

use serde::{Deserialize, Serialize};

/// The process' first argument, by which our program knows that it is to be one.
pub const READER: &std::ffi::CStr = c"reeve-image";
/// The number of the image's descriptor in that process.
pub const IMAGE_FD: i32 = 4;
/// The number of the socket for the answer, and for what its sandbox has to say.
pub const ANSWER_FD: i32 = 5;
/// The most bytes of the name of a backing file, as qcow2 has it.
pub const MAX_BACKING_NAME_BYTES: usize = 1023;
/// The most bytes of a format's name that an answer has.
pub const MAX_FORMAT_BYTES: usize = 64;
/// The most bytes of an answer in words.
pub const MAX_WORDS_BYTES: usize = 256;

/// What an image says it builds upon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackingNote {
    /// The name as written in the image.
    pub name: String,
    /// The format of what has that name, where the image says it.
    pub format: Option<String>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImageAnswer {
    /// It is a qcow2 image, and builds upon that or nothing.
    Backing(Option<BackingNote>),
    /// It is none, or cannot be read: in words.
    Unreadable(String),
    /// The process could not close its sandbox: in words.
    Failed(String),
}

impl ImageAnswer {
    /// Whether its parts are no longer than a reader makes them.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        match self {
            Self::Backing(None) => true,
            Self::Backing(Some(note)) => {
                let format = note.format.as_ref().map_or(0, String::len);
                note.name.len() <= MAX_BACKING_NAME_BYTES && format <= MAX_FORMAT_BYTES
            }
            Self::Unreadable(words) | Self::Failed(words) => words.len() <= MAX_WORDS_BYTES,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{decode, encode};

    #[test]
    fn an_answer_comes_as_it_was_sent_and_a_longer_one_is_seen() {
        let note = |name: usize, format: usize| BackingNote {
            name: "n".repeat(name),
            format: Some("f".repeat(format)),
        };
        for (answer, bounded) in [
            (ImageAnswer::Backing(None), true),
            (ImageAnswer::Backing(Some(note(1023, 64))), true),
            (ImageAnswer::Backing(Some(note(1024, 5))), false),
            (ImageAnswer::Backing(Some(note(1, 65))), false),
            (ImageAnswer::Unreadable("w".repeat(257)), false),
        ] {
            let bytes = encode(&answer).unwrap();
            assert_eq!(answer.is_bounded(), bounded);
            assert_eq!(decode::<ImageAnswer>(&bytes).unwrap(), answer);
        }
        assert!(decode::<ImageAnswer>(b"SIGSYS").is_err());
    }
}
