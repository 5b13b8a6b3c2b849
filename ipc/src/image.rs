//! What the processes that read and write disk images say to the supervisor, and are told.
//!
//! A *reader* has one image, open for reading, and a `SOCK_SEQPACKET` socket on which it says one thing: what
//! that image builds upon. An *image worker* has a socket of that kind only: it is asked one [`ImageTask`] after
//! another, each with the descriptors that it is about, and answers each with one [`TaskAnswer`]. Both are as
//! hostile as a worker of a domain. A name that they give is no more than a name.

use serde::{Deserialize, Serialize};

use crate::api::storage::VolumeFormat;
use crate::model::Qcow2Options;
use crate::spec::DiskFormat;

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

impl BackingNote {
    fn is_bounded(&self) -> bool {
        let format = self.format.as_ref().map_or(0, String::len);
        self.name.len() <= MAX_BACKING_NAME_BYTES && format <= MAX_FORMAT_BYTES
    }
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
            Self::Backing(Some(note)) => note.is_bounded(),
            Self::Unreadable(words) | Self::Failed(words) => words.len() <= MAX_WORDS_BYTES,
        }
    }
}

/// The first argument of a process that is to be an image worker.
pub const IMAGE_WORKER: &std::ffi::CStr = c"reeve-images";
/// The number of the socket for tasks and answers in an image worker.
pub const TASK_FD: i32 = 4;
/// The number of the socket for what its sandbox has to say.
pub const TASK_LOG_FD: i32 = 5;
/// The most images of one [`ImageTask::Probe`].
pub const MAX_PROBED: usize = 32;

/// What an image worker is to do. Descriptors come with it, in the order that each names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImageTask {
    /// Look at the first bytes of each image; at most [`MAX_PROBED`], open for reading. Answered by
    /// [`TaskAnswer::Probed`] with as many answers.
    Probe,
    /// Allocate the bytes of a file from `from` up to `bytes`, and make it `size` long. The file, open for writing.
    Allocate {
        /// The first.
        from: u64,
        /// The first that is not, any more.
        bytes: u64,
        /// How long the file becomes.
        size: u64,
    },
    /// Make a qcow2 image in an empty file. The file, open for reading and writing.
    Create(NewImage),
    /// Copy all bytes of a file that are no holes. The empty file, open for writing, and the other, open for reading.
    Copy,
    /// Copy what is in an image into another. The empty file, open for reading and writing; the image, and what it
    /// builds upon, the nearest first, open for reading.
    Convert {
        /// What is to be in the file; `None` for raw.
        to: Option<NewImage>,
        /// What is in the image.
        from: DiskFormat,
        /// What is in each that it builds upon.
        backing: Vec<DiskFormat>,
        /// How large the copy becomes, no less than the other.
        size: u64,
        /// Zeros become allocated too, of raw.
        allocate: bool,
    },
    /// Make a qcow2 image larger. The image, open for reading and writing, and what it builds upon, open for reading.
    Grow {
        /// Its new size.
        size: u64,
        /// What is in each that it builds upon.
        backing: Vec<DiskFormat>,
    },
    /// Overwrite every byte of a file that is no hole with zeros. The file, open for reading and writing.
    Wipe,
    /// Write what a client sends ([`volume_stream`](crate::volume_stream)) into a file, and tell the client when that
    /// is on stable storage. The file, open for reading and writing, and the process' end of the stream.
    Receive {
        /// Where the first byte belongs.
        offset: u64,
        /// The most bytes that are taken.
        length: u64,
    },
    /// Send a client what is in a file. The file, open for reading, and the process' end of the stream.
    Send {
        /// The first byte.
        offset: u64,
        /// The most bytes that are sent.
        length: u64,
    },
}

/// A qcow2 image that is to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewImage {
    /// The disk's size in bytes.
    pub size: u64,
    /// How it is laid out.
    pub options: Qcow2Options,
    /// What it builds upon, as it is written down, and the format of that.
    pub backing: Option<(String, DiskFormat)>,
    /// All clusters have their places at once.
    pub preallocate: bool,
    /// And take room at once.
    pub allocate: bool,
}

/// What an image worker answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskAnswer {
    /// What each image is, in their order.
    Probed(Vec<ImageFacts>),
    /// It is done, and on stable storage.
    Done,
    /// It is not: the kernel's error number, where it has one, and words.
    Failed {
        /// `errno`.
        errno: Option<i32>,
        /// One line.
        words: String,
    },
}

/// What the first bytes of a file look like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFacts {
    /// What is in it.
    pub format: VolumeFormat,
    /// The disk's size, where the format says it.
    pub size: Option<u64>,
    /// What it builds upon.
    pub backing: Option<BackingNote>,
    /// How it is laid out, of qcow2.
    pub qcow2: Option<Qcow2Options>,
    /// Its contents are encrypted.
    pub encrypted: bool,
    /// Why no more is known: in words.
    pub unreadable: Option<String>,
}

impl ImageFacts {
    /// Nothing but a format.
    #[must_use]
    pub const fn of(format: VolumeFormat) -> Self {
        Self {
            format,
            size: None,
            backing: None,
            qcow2: None,
            encrypted: false,
            unreadable: None,
        }
    }

    fn is_bounded(&self) -> bool {
        let words = self.unreadable.as_ref().map_or(0, String::len);
        words <= MAX_WORDS_BYTES && self.backing.as_ref().is_none_or(BackingNote::is_bounded)
    }
}

impl TaskAnswer {
    /// Whether its parts are no longer, and no more, than an image worker makes them.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        match self {
            Self::Probed(facts) => {
                facts.len() <= MAX_PROBED && facts.iter().all(ImageFacts::is_bounded)
            }
            Self::Done => true,
            Self::Failed { words, .. } => words.len() <= MAX_WORDS_BYTES,
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

    #[test]
    fn the_largest_answer_of_an_image_worker_fits_and_a_larger_one_is_seen() {
        let facts = |words: usize| ImageFacts {
            size: Some(u64::MAX),
            backing: Some(BackingNote {
                name: "n".repeat(MAX_BACKING_NAME_BYTES),
                format: Some("f".repeat(MAX_FORMAT_BYTES)),
            }),
            qcow2: Some(Qcow2Options::default()),
            encrypted: true,
            unreadable: Some("w".repeat(words)),
            ..ImageFacts::of(VolumeFormat::Qcow2)
        };
        let most = TaskAnswer::Probed(vec![facts(MAX_WORDS_BYTES); MAX_PROBED]);
        assert!(most.is_bounded());
        let bytes = encode(&most).unwrap();
        assert_eq!(decode::<TaskAnswer>(&bytes).unwrap(), most);
        assert!(!TaskAnswer::Probed(vec![facts(1); MAX_PROBED + 1]).is_bounded());
        assert!(!TaskAnswer::Probed(vec![facts(MAX_WORDS_BYTES + 1)]).is_bounded());
    }
}
