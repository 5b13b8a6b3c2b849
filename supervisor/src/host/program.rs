//! Our own programs that the supervisor executes: each found once, opened once, executed by descriptor.
//!
//! No environment variable has a say: whoever could set one for a privileged supervisor would
//! choose what it executes. An update on disk reaches the next supervisor, never half of one.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::reason;

/// Where they are when they lie neither next to the supervisor's own executable nor beneath its prefix.
const INSTALLED: &str = "/usr/libexec/reeve";

/// Why there is no program to execute.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// Nowhere.
    #[error(
        "cannot find {name}: it is neither at {beside} nor at {INSTALLED}/{name}; install it at one of \
         them",
        beside = .beside.display()
    )]
    Missing {
        /// The executable's name.
        name: &'static str,
        /// The first place of those where it was looked for.
        beside: PathBuf,
    },
    /// It cannot be opened.
    #[error("cannot open {path}: {reason}", path = .path.display(), reason = reason(*.errno))]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        errno: Errno,
    },
    /// Not something to execute.
    #[error("{path} is not an executable file: install {name} there again", path = .path.display())]
    NotExecutable {
        /// The executable's name.
        name: &'static str,
        /// The file.
        path: PathBuf,
    },
}

/// A program of ours, open.
#[derive(Debug)]
pub struct Program {
    fd: OwnedFd,
    path: PathBuf,
}

impl Program {
    /// Next to this process' own executable, in `../libexec/reeve/` from there, else in
    /// `/usr/libexec/reeve`.
    ///
    /// # Errors
    /// [`ProgramError`].
    pub fn find(name: &'static str) -> Result<Self, ProgramError> {
        let own = std::env::current_exe().unwrap_or_default();
        let own = own.parent().unwrap_or(Path::new(""));
        let beside = own.join(name);
        let prefix = own.parent().unwrap_or(own);
        let beneath = prefix.join("libexec/reeve").join(name);
        let installed = Path::new(INSTALLED).join(name);
        for path in [&beside, &beneath, &installed] {
            match Self::at(name, path) {
                Err(ProgramError::Open {
                    errno: Errno::NOENT | Errno::NOTDIR,
                    ..
                }) => {}
                result => return result,
            }
        }
        Err(ProgramError::Missing { name, beside })
    }

    /// At `path`, for embedders and tests.
    ///
    /// # Errors
    /// [`ProgramError::Open`], [`ProgramError::NotExecutable`].
    pub fn at(name: &'static str, path: &Path) -> Result<Self, ProgramError> {
        let open = |errno| ProgramError::Open {
            path: path.to_owned(),
            errno,
        };
        let fd =
            rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(open)?;
        let stat = rustix::fs::fstat(&fd).map_err(open)?;
        let executable = stat.st_mode & 0o111 != 0;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || !executable {
            return Err(ProgramError::NotExecutable {
                name,
                path: path.to_owned(),
            });
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

impl AsFd for Program {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "reeve-worker";

    #[test]
    fn only_an_executable_file_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(NAME);
        std::fs::write(&file, "").unwrap();
        assert!(matches!(
            Program::at(NAME, &file),
            Err(ProgramError::NotExecutable { .. })
        ));
        assert!(matches!(
            Program::at(NAME, directory.path()),
            Err(ProgramError::NotExecutable { .. })
        ));
        assert!(matches!(
            Program::at(NAME, &directory.path().join("nothing")),
            Err(ProgramError::Open { .. })
        ));
        assert!(Program::at(NAME, Path::new("/proc/self/exe")).is_ok());
    }
}
