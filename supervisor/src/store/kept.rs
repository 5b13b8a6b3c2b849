//! Directories of files that are kept of whatever has a UUID, one each: definitions in the state directory, durable
//! ([`Kept`]); and in the run directory, in memory, what is noted while something is active ([`Noted`]).
//!
//! What is in the files is for others to say. A file that could not be read is never written over.

use std::fmt::Display;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::atomic::{self, How, Reached};
use super::error::{Refusal, StoreError};
use super::schema::SchemaError;
use crate::crash::{self, Moment, Operation};

const DURABLE: How = How {
    durable: true,
    only_new: false,
};
const IN_MEMORY: How = How {
    durable: false,
    only_new: false,
};

/// The name of the file of what has that UUID.
pub(super) fn file_name(uuid: impl Display) -> String {
    format!("{uuid}.json")
}

/// That a file has the name that belongs to what is in it: a `what` of that UUID.
pub(super) fn check(what: &str, name: &str, uuid: impl Display) -> Result<(), String> {
    let own = file_name(&uuid);
    match own == name {
        true => Ok(()),
        false => Err(format!(
            "it is of the {what} with UUID {uuid}: its name must be {own}"
        )),
    }
}

fn make(path: &Path) -> Result<(), StoreError> {
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path);
    made.map_err(|error| {
        StoreError::io("make", path)(Errno::from_io_error(&error).unwrap_or(Errno::IO))
    })
}

/// A directory of files that are kept.
#[derive(Debug)]
pub(super) struct Kept {
    path: PathBuf,
    directory: OwnedFd,
    /// What is not to be written over.
    refused: Mutex<Vec<Refusal>>,
}

impl Kept {
    pub(super) fn open(path: PathBuf) -> Result<Self, StoreError> {
        make(&path)?;
        Ok(Self {
            directory: atomic::open_directory(&path)?,
            path,
            refused: Mutex::default(),
        })
    }

    fn refused(&self) -> MutexGuard<'_, Vec<Refusal>> {
        // Nothing panics while it is held.
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        atomic::exists(self.directory.as_fd(), name)
    }

    /// Reads each file, of so many bytes at most, and removes temporaries. Gives those that are left alone.
    pub(super) fn each(
        &self,
        most: usize,
        mut take: impl FnMut(&str, &[u8]) -> Result<(), String>,
    ) -> Result<Vec<Refusal>, StoreError> {
        let mut refused = Vec::new();
        for name in atomic::names(self.directory.as_fd(), &self.path)? {
            if atomic::is_temporary(&name) {
                atomic::sweep(self.directory.as_fd(), &name);
                continue;
            }
            if name.starts_with('.') || !name.ends_with(".json") {
                continue;
            }
            let taken = atomic::read(self.directory.as_fd(), &name, most)
                .map_err(|error| error.to_string())
                .and_then(|text| take(&name, &text));
            if let Err(reason) = taken {
                let path = self.path.join(&name);
                refused.push(Refusal { path, reason });
            }
        }
        self.refused().clone_from(&refused);
        Ok(refused)
    }

    /// Writes a file by its name; it is durable on return.
    pub(super) fn put(
        &self,
        name: &str,
        bytes: &[u8],
        reached: impl FnMut(Reached),
    ) -> Result<(), StoreError> {
        let directory = self.directory.as_fd();
        atomic::replace(directory, &self.path, name, bytes, DURABLE, reached)
    }

    /// Removes a file by its name, durably; one that is not there is removed.
    pub(super) fn take(&self, name: &str, unlinked: impl FnOnce()) -> Result<(), StoreError> {
        match rustix::fs::unlinkat(&self.directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(StoreError::io("remove", &self.path.join(name))(errno)),
        }
        unlinked();
        atomic::synchronise(self.directory.as_fd(), &self.path)
    }

    /// That the file of one is none that could not be read.
    pub(super) fn may_write(&self, uuid: impl Display) -> Result<(), StoreError> {
        let path = self.path.join(file_name(uuid));
        let refused = self.refused();
        let refusal = refused.iter().find(|refusal| refusal.path == path);
        refusal.map_or(Ok(()), |refusal| Err(StoreError::Refused(refusal.clone())))
    }

    /// Keeps what has that UUID and that name, as `operation` does; it is durable on return.
    pub(super) fn write(
        &self,
        operation: Operation,
        (uuid, name): (impl Display, &str),
        encoded: Result<Vec<u8>, SchemaError>,
    ) -> Result<(), StoreError> {
        let point = |moment| crash::point(operation, moment);
        point(Moment::BeforeWrite);
        self.may_write(&uuid)?;
        let bytes = encoded.map_err(unencoded(name))?;
        self.put(&file_name(uuid), &bytes, |reached| {
            point(match reached {
                Reached::Temporary => Moment::AfterTemporary,
                Reached::Renamed => Moment::AfterRename,
            });
        })?;
        point(Moment::AfterWrite);
        Ok(())
    }

    /// Removes what is kept of it, durably, as `operation` does.
    pub(super) fn remove(
        &self,
        operation: Operation,
        uuid: impl Display,
    ) -> Result<(), StoreError> {
        let point = |moment| crash::point(operation, moment);
        point(Moment::BeforeRemove);
        self.take(&file_name(uuid), || point(Moment::AfterUnlink))?;
        point(Moment::AfterRemove);
        Ok(())
    }
}

/// Why something of that name is not kept.
pub(super) fn unencoded(name: &str) -> impl FnOnce(SchemaError) -> StoreError {
    let name = name.to_owned();
    move |reason| StoreError::Encode { name, reason }
}

/// A directory of what is noted until the next boot.
#[derive(Debug)]
pub(super) struct Noted(PathBuf);

impl Noted {
    pub(super) fn open(path: PathBuf) -> Result<Self, StoreError> {
        make(&path)?;
        Ok(Self(path))
    }

    /// Where something is noted.
    pub(super) fn path(&self, uuid: impl Display) -> PathBuf {
        self.0.join(file_name(uuid))
    }

    /// As [`Kept::each`].
    pub(super) fn each(
        &self,
        most: usize,
        take: impl FnMut(&str, &[u8]) -> Result<(), String>,
    ) -> Result<Vec<Refusal>, StoreError> {
        Kept::open(self.0.clone())?.each(most, take)
    }

    /// Notes what has that UUID and that name, as `operation` does.
    pub(super) fn write(
        &self,
        operation: Operation,
        (uuid, name): (impl Display, &str),
        encoded: Result<Vec<u8>, SchemaError>,
    ) -> Result<(), StoreError> {
        crash::point(operation, Moment::BeforeStatus);
        let bytes = encoded.map_err(unencoded(name))?;
        // It may have been wiped.
        make(&self.0)?;
        let directory = atomic::open_directory(&self.0)?;
        let file = file_name(uuid);
        atomic::replace(directory.as_fd(), &self.0, &file, &bytes, IN_MEMORY, |_| ())?;
        crash::point(operation, Moment::AfterStatus);
        Ok(())
    }

    /// What is noted, if anything is.
    pub(super) fn read(&self, uuid: impl Display) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.path(uuid);
        match std::fs::read(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => {
                let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                Err(StoreError::io("read", &path)(errno))
            }
        }
    }

    /// Notes nothing of it any more.
    pub(super) fn remove(&self, uuid: impl Display) -> Result<(), StoreError> {
        let path = self.path(uuid);
        match rustix::fs::unlink(&path) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(StoreError::io("remove", &path)(errno)),
        }
    }
}
