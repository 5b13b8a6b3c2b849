//! What an image builds upon, where its definition does not say.
//!
//! ```text
//!   image, opened by the policy and locked ─► a process that reads its header ─► a name and a format
//!          ▲                                                                              │
//!          └───────────── checked here; opened by the policy like any other ◄─────────────┘
//! ```
//!
//! An image is written by whoever had it before, and a name in it is no more than a wish: it must be a plain
//! path, of a stated format, and is opened only where a definition could have named it, relative to the
//! directory of the image that names it. A chain that comes back to itself, or goes on and on, is refused.

use std::os::fd::BorrowedFd;
use std::path::Path;

use reeve_ipc::image::BackingNote;
use reeve_ipc::model::Layer;
use reeve_ipc::spec::{DiskFormat, MAX_LAYERS};
use rustix::fs::FileType;
use rustix::io::Errno;

use crate::host::reason;

/// Reads what images say they build upon, without being at their mercy.
pub trait BackingReader: std::fmt::Debug + Send + Sync {
    /// Reads the header of a qcow2 image; nothing else of it is looked at, and nothing is opened.
    ///
    /// # Errors
    /// [`ReadError`].
    fn backing(&self, image: BorrowedFd<'_>) -> Result<Option<BackingNote>, ReadError>;
}

/// Why the header of an image was not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The image: in words of the process that read it.
    #[error("{0}")]
    Image(String),
    /// The process: it could not be started, died, or said what it should not.
    #[error("{0}")]
    Process(String),
    /// It took too long.
    #[error("its header was not read within {0} s; look for a network file system that is down")]
    Slow(u64),
}

/// Why a chain cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// A header.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A name without a format.
    #[error(
        "it names '{0}' and not the format of that, which is never guessed; state it with 'qemu-img rebase -u \
         -F raw|qcow2 -b FILE IMAGE', or state the chain in the definition"
    )]
    NoFormat(String),
    /// A format that there is not.
    #[error("it names '{name}' of format '{format}'; formats are raw and qcow2")]
    Format {
        /// The name.
        name: String,
        /// Its format.
        format: String,
    },
    /// No path.
    #[error("it names '{0}', which is no path of a file on this host")]
    NoPath(String),
    /// The same file again.
    #[error("it is in the chain twice")]
    Loop,
    /// Too many.
    #[error("it names '{0}', and a disk has at most {MAX_LAYERS} files")]
    Deep(String),
    /// A file could not be looked at.
    #[error("{}", reason(*.0))]
    Os(Errno),
}

impl ChainError {
    /// Whether the definition, or an image, would have to change.
    pub(crate) const fn is_of_definition(&self) -> bool {
        !matches!(
            self,
            Self::Read(ReadError::Process(_) | ReadError::Slow(_)) | Self::Os(_)
        )
    }
}

/// The files of a chain so far.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    seen: Vec<(u64, u64)>,
}

impl Chain {
    /// Takes a file up.
    pub(crate) fn enter(&mut self, file: BorrowedFd<'_>) -> Result<(), ChainError> {
        let identity = identity(file).map_err(ChainError::Os)?;
        if self.seen.contains(&identity) {
            return Err(ChainError::Loop);
        }
        self.seen.push(identity);
        Ok(())
    }

    /// What `layer`, which is open as `file` and was taken up, builds upon.
    pub(crate) fn below(
        &self,
        layer: &Layer,
        file: BorrowedFd<'_>,
        images: &dyn BackingReader,
    ) -> Result<Option<Layer>, ChainError> {
        if layer.format == DiskFormat::Raw {
            return Ok(None);
        }
        let Some(BackingNote { name, format }) = images.backing(file)? else {
            return Ok(None);
        };
        if !is_path(&name) {
            return Err(ChainError::NoPath(shown(name)));
        }
        if self.seen.len() >= MAX_LAYERS {
            return Err(ChainError::Deep(name));
        }
        let format = match format.as_deref() {
            None | Some("") => return Err(ChainError::NoFormat(name)),
            Some("raw") => DiskFormat::Raw,
            Some("qcow2") => DiskFormat::Qcow2,
            Some(other) => {
                let format = shown(other.to_owned());
                return Err(ChainError::Format { name, format });
            }
        };
        let directory = layer.path.parent().unwrap_or(Path::new(""));
        let path = directory.join(&name);
        Ok(Some(Layer { path, format }))
    }
}

/// Which file it is: a device by its number, whatever node leads to it.
fn identity(file: BorrowedFd<'_>) -> Result<(u64, u64), Errno> {
    let stat = rustix::fs::fstat(file)?;
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::BlockDevice => (u64::MAX, stat.st_rdev),
        _ => (stat.st_dev, stat.st_ino),
    })
}

/// Whether QEMU would take it for a path too: `nbd:...` and `json:...` are none.
fn is_path(name: &str) -> bool {
    let protocol = name
        .find([':', '/'])
        .is_some_and(|at| name[at..].starts_with(':'));
    !name.is_empty() && !protocol && !name.contains(char::is_control)
}

/// A name that an image gave, as one line.
fn shown(name: String) -> String {
    match name.contains(char::is_control) {
        true => name.escape_debug().collect(),
        false => name,
    }
}

#[cfg(test)]
#[path = "chain/tests.rs"]
mod tests;
