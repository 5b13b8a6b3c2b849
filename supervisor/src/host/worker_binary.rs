//! The worker's executable: found once, opened once, executed by descriptor.
//!
//! No environment variable has a say: whoever could set one for a privileged supervisor would
//! choose what it executes. An update on disk reaches the next supervisor, never half of one.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::reason;

/// The executable's name.
pub const NAME: &str = "reeve-worker";
/// Where it is when it lies neither next to the supervisor's own executable nor beneath its prefix.
pub const INSTALLED: &str = "/usr/libexec/reeve/reeve-worker";

/// Why there is no worker to execute.
#[derive(Debug, thiserror::Error)]
pub enum WorkerBinaryError {
    /// Nowhere.
    #[error(
        "cannot find {NAME}: it is neither at {beside} nor at {INSTALLED}; install it at one of \
         them",
        beside = .0.display()
    )]
    Missing(PathBuf),
    /// It cannot be opened.
    #[error("cannot open {path}: {reason}", path = .path.display(), reason = reason(*.errno))]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        errno: Errno,
    },
    /// Not something to execute.
    #[error("{path} is not an executable file: install {NAME} there again", path = .0.display())]
    NotExecutable(PathBuf),
}

/// The worker's executable, open.
#[derive(Debug)]
pub struct WorkerBinary {
    fd: OwnedFd,
    path: PathBuf,
}

impl WorkerBinary {
    /// Next to this process' own executable, in `../libexec/reeve/` from there, else [`INSTALLED`].
    ///
    /// # Errors
    /// [`WorkerBinaryError`].
    pub fn find() -> Result<Self, WorkerBinaryError> {
        let own = std::env::current_exe().unwrap_or_default();
        let own = own.parent().unwrap_or(Path::new(""));
        let beside = own.join(NAME);
        let prefix = own.parent().unwrap_or(own);
        let installed = prefix.join("libexec/reeve").join(NAME);
        for path in [beside.clone(), installed, PathBuf::from(INSTALLED)] {
            match Self::at(&path) {
                Err(WorkerBinaryError::Open {
                    errno: Errno::NOENT | Errno::NOTDIR,
                    ..
                }) => {}
                result => return result,
            }
        }
        Err(WorkerBinaryError::Missing(beside))
    }

    /// At `path`, for embedders and tests.
    ///
    /// # Errors
    /// [`WorkerBinaryError::Open`], [`WorkerBinaryError::NotExecutable`].
    pub fn at(path: &Path) -> Result<Self, WorkerBinaryError> {
        let open = |errno| WorkerBinaryError::Open {
            path: path.to_owned(),
            errno,
        };
        let fd =
            rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(open)?;
        let stat = rustix::fs::fstat(&fd).map_err(open)?;
        let executable = stat.st_mode & 0o111 != 0;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || !executable {
            return Err(WorkerBinaryError::NotExecutable(path.to_owned()));
        }
        Ok(Self {
            fd,
            path: path.to_owned(),
        })
    }

    /// Where it was found.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for WorkerBinary {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_executable_file_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(NAME);
        std::fs::write(&file, "").unwrap();
        assert!(matches!(
            WorkerBinary::at(&file),
            Err(WorkerBinaryError::NotExecutable(_))
        ));
        assert!(matches!(
            WorkerBinary::at(directory.path()),
            Err(WorkerBinaryError::NotExecutable(_))
        ));
        assert!(matches!(
            WorkerBinary::at(&directory.path().join("nothing")),
            Err(WorkerBinaryError::Open { .. })
        ));
        assert!(WorkerBinary::at(Path::new("/proc/self/exe")).is_ok());
    }
}
