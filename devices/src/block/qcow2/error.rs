//! Why an image is not opened or made.

use std::io::{self, ErrorKind};

/// Why an image is not opened or made.
#[derive(Debug, thiserror::Error)]
pub enum Qcow2Error {
    /// The storage's own.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The header is no header.
    #[error("qcow2 header {0}")]
    Header(&'static str),
    /// A table the header points to cannot be what it should be.
    #[error("qcow2 {0}")]
    Table(&'static str),
    /// Part of the format that is not read here.
    #[error("qcow2 image uses {0}, which is not supported")]
    Unsupported(&'static str),
    /// Features from the format's future: a mask.
    #[error("qcow2 image uses unknown incompatible features {0:#x}")]
    UnknownFeatures(u64),
    /// Refcounts may be wrong, so nothing can be allocated.
    #[error("qcow2 image was not closed and has lazy refcounts: run `qemu-img check -r all` on it")]
    Dirty,
    /// Structures are known to be wrong, so nothing can be written.
    #[error("qcow2 image is marked corrupt: run `qemu-img check -r all` on it")]
    Corrupt,
    /// The backing files given are not the ones the headers speak of.
    #[error("qcow2 backing chain {0}")]
    Chain(&'static str),
    /// What to make is out of the format's bounds.
    #[error("qcow2 image cannot be made: {0}")]
    Parameters(&'static str),
}

impl From<Qcow2Error> for io::Error {
    fn from(error: Qcow2Error) -> Self {
        match error {
            Qcow2Error::Io(error) => error,
            Qcow2Error::Unsupported(_) | Qcow2Error::UnknownFeatures(_) => {
                Self::new(ErrorKind::Unsupported, error)
            }
            Qcow2Error::Parameters(_) => Self::new(ErrorKind::InvalidInput, error),
            _ => Self::new(ErrorKind::InvalidData, error),
        }
    }
}

/// Metadata that makes no sense.
pub(super) fn invalid(what: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, Qcow2Error::Table(what))
}
