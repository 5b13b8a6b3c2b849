//! The worker's executable.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use super::program::{Program, ProgramError};

/// The executable's name.
pub const NAME: &str = "reeve-worker";

/// Why there is no worker to execute.
pub type WorkerBinaryError = ProgramError;

/// The worker's executable, open.
#[derive(Debug)]
pub struct WorkerBinary(Program);

impl WorkerBinary {
    /// Where [`Program::find`] finds it.
    ///
    /// # Errors
    /// [`ProgramError`].
    pub fn find() -> Result<Self, WorkerBinaryError> {
        Program::find(NAME).map(Self)
    }

    /// At `path`, for embedders and tests.
    ///
    /// # Errors
    /// [`ProgramError::Open`], [`ProgramError::NotExecutable`].
    pub fn at(path: &Path) -> Result<Self, WorkerBinaryError> {
        Program::at(NAME, path).map(Self)
    }

    /// Where it was found.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl AsFd for WorkerBinary {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
