//! Why a path was not opened, as whoever named it is told.

use std::path::PathBuf;

use rustix::io::Errno;

use crate::domain::plan;
use crate::host::reason;

/// Why a path was not opened. One line: what failed, on what, what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Not absolute, or with `..` in it.
    #[error("the {what} '{path}' must be an absolute path without '..'", path = .path.display())]
    Form {
        /// What it is for, as "kernel".
        what: String,
        /// The path.
        path: PathBuf,
    },
    /// Beneath none of the directories.
    #[error(
        "the {what} '{path}' is outside the allowed directories; {advice}",
        path = .path.display()
    )]
    Outside {
        /// What it is for.
        what: String,
        /// The path.
        path: PathBuf,
        /// The line that would allow it.
        advice: String,
    },
    /// A symbolic link leads out of the directory.
    #[error(
        "the {what} '{path}' leads out of '{directory}' by a symbolic link; name the file itself, \
         or make the link relative and within that directory",
        path = .path.display(),
        directory = .directory.display()
    )]
    Escapes {
        /// What it is for.
        what: String,
        /// The path.
        path: PathBuf,
        /// The directory that allows it.
        directory: PathBuf,
    },
    /// The directory itself is reached by a symbolic link that was not there when it was configured.
    #[error(
        "the {what} '{path}' is not opened: a symbolic link leads to '{directory}' that did not when the \
         configuration was read; if it is meant, run 'systemctl reload reeved'",
        path = .path.display(),
        directory = .directory.display()
    )]
    Replaced {
        /// What it is for.
        what: String,
        /// The path.
        path: PathBuf,
        /// The directory that allows it.
        directory: PathBuf,
    },
    /// Not a file.
    #[error("the {what} '{path}' is {kind}, not {wanted}", path = .path.display())]
    NotAFile {
        /// What it is for.
        what: String,
        /// The path.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
        /// What it must be.
        wanted: &'static str,
    },
    /// The kernel refused.
    #[error("cannot open the {what} '{path}': {}", reason(*.errno), path = .path.display())]
    Os {
        /// What it is for.
        what: String,
        /// The path.
        path: PathBuf,
        /// Why.
        errno: Errno,
    },
}

impl From<PathError> for plan::PathError {
    fn from(error: PathError) -> Self {
        match error {
            PathError::Os { errno, .. } => Self::Os(errno),
            refused => Self::Forbidden(refused.to_string()),
        }
    }
}
