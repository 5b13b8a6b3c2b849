//! Why something is not kept, in one line each.

use std::fmt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::schema::SchemaError;
use crate::host::reason;

/// Why a directory cannot be used, or a file in it not be written, read or removed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Another supervisor has the directory.
    #[error(
        "{path} is in use by {holder}; stop that one, or choose other directories with --state-dir \
         and --run-dir",
        path = .path.display(),
        holder = Holder(*.pid)
    )]
    Held {
        /// The directory.
        path: PathBuf,
        /// The other's pid, where it has written it.
        pid: Option<u32>,
    },
    /// Somebody else could put definitions there.
    #[error(
        "{path} can be written by others than its owner, or belongs to another user; mend it with \
         'chown root {path}' and 'chmod go-w {path}'",
        path = .path.display()
    )]
    Exposed {
        /// The directory.
        path: PathBuf,
    },
    /// The kernel refused.
    #[error(
        "cannot {action} {path}: {reason}{mend}",
        path = .path.display(),
        reason = reason(*.errno),
        mend = mend(*.errno)
    )]
    Io {
        /// The verb.
        action: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// Why.
        errno: Errno,
    },
    /// A file stands there that this supervisor did not write and could not read.
    #[error("{0}; mend it or move it away, then restart reeved")]
    Refused(Refusal),
    /// What is to be written cannot be.
    #[error("domain {name}: its definition cannot be written: {reason}")]
    Encode {
        /// The domain's name.
        name: String,
        /// Why.
        reason: SchemaError,
    },
    /// More than a later supervisor would read.
    #[error("domain {name}: its definition has {bytes} bytes on disk; it may have {limit}")]
    TooLarge {
        /// The domain's name.
        name: String,
        /// Its size.
        bytes: usize,
        /// The most.
        limit: usize,
    },
}

impl StoreError {
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(Errno) -> Self {
        move |errno| Self::Io {
            action,
            path: path.to_owned(),
            errno,
        }
    }
}

/// A file that was not loaded, and is left as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The file.
    pub path: PathBuf,
    /// Why, in words that follow the file's name.
    pub reason: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} was not loaded: {}", self.path.display(), self.reason)
    }
}

struct Holder(Option<u32>);

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(pid) => write!(f, "the reeved with pid {pid}"),
            None => f.write_str("another reeved"),
        }
    }
}

/// What to do about it, as far as the number tells.
fn mend(errno: Errno) -> &'static str {
    match errno {
        Errno::NOSPC | Errno::DQUOT => "; free some space there and try again",
        Errno::MFILE => "; raise LimitNOFILE of reeved",
        Errno::ROFS => "; mount it for writing and try again",
        Errno::IO => "; look into the kernel's log for its disk",
        Errno::NOENT => "; its directory is gone: restart reeved",
        Errno::ACCESS | Errno::PERM => "; reeved needs to be root for this directory",
        _ => "",
    }
}
