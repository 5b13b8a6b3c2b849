//! The run directory: what a supervisor must know of workers that an earlier one made.
//!
//! It is in memory and may be wiped under a running instance (by hand, or by an over-eager cleaner):
//! everything is done by path, and a write makes again the directories it misses. What was lost is
//! the workers' sockets; the supervisor that runs keeps its connections.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use reeve_ipc::model::DomainUuid;
use rustix::fs::AtFlags;
use rustix::io::Errno;
use uuid::Uuid;

use super::atomic::{self, How};
use super::error::{Refusal, StoreError};
use super::lock::InstanceLock;
use super::{MAX_RECORD_BYTES, status};
use crate::domain::world::Status;

/// The worker's socket in the directory of its domain.
pub const SOCKET_NAME: &str = "adopt";

const STATUS: &str = "status.json";
const CONSOLE_POSITION: &str = "console-position";
const IN_MEMORY: How = How {
    durable: false,
    only_new: false,
};

/// The run-time status of one instance.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    domains: PathBuf,
    refused: Mutex<BTreeMap<DomainUuid, String>>,
    _lock: InstanceLock,
}

/// What was found.
#[derive(Debug, Default)]
pub struct LoadedStatuses {
    /// By UUID, rising.
    pub statuses: Vec<(DomainUuid, Status)>,
    /// Files that were left alone: a worker of theirs may run.
    pub refused: Vec<Refusal>,
}

impl RunDir {
    /// Opens the directory, makes it (mode 0755, `domains` in it 0700) if there is none, and takes
    /// its lock.
    ///
    /// # Errors
    /// [`StoreError::Held`] by another supervisor, [`StoreError::Io`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        make(path, 0o755)?;
        let directory = atomic::open_directory(path)?;
        let lock = InstanceLock::take(directory.as_fd(), path)?;
        let domains = path.join("domains");
        make(&domains, 0o700)?;
        Ok(Self {
            path: path.to_owned(),
            domains,
            refused: Mutex::new(BTreeMap::new()),
            _lock: lock,
        })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn refused(&self) -> MutexGuard<'_, BTreeMap<DomainUuid, String>> {
        // Nothing panics while it is held.
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, uuid: DomainUuid) -> PathBuf {
        self.domains.join(uuid.to_string())
    }

    /// The domain's own directory (mode 0700), made if need be.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn directory(&self, uuid: DomainUuid) -> Result<PathBuf, StoreError> {
        let path = self.of(uuid);
        make(&self.path, 0o755)?;
        make(&self.domains, 0o700)?;
        make(&path, 0o700)?;
        Ok(path)
    }

    /// Reads every status. Directories without one are of starts that never came to anything: what
    /// is in them is removed.
    ///
    /// # Errors
    /// [`StoreError::Io`]: the directory itself cannot be read.
    pub fn load_all(&self) -> Result<LoadedStatuses, StoreError> {
        let mut loaded = LoadedStatuses::default();
        let mut refused = BTreeMap::new();
        let domains = atomic::open_directory(&self.domains)?;
        for name in atomic::names(domains.as_fd(), &self.domains)? {
            let Ok(uuid) = Uuid::parse_str(&name).map(DomainUuid) else {
                continue;
            };
            if uuid.to_string() != name {
                continue;
            }
            match self.load(uuid) {
                Ok(Some(status)) => loaded.statuses.push((uuid, status)),
                Ok(None) => {}
                Err(reason) => {
                    loaded.refused.push(Refusal {
                        path: self.of(uuid).join(STATUS),
                        reason: reason.clone(),
                    });
                    refused.insert(uuid, reason);
                }
            }
        }
        *self.refused() = refused;
        Ok(loaded)
    }

    fn load(&self, uuid: DomainUuid) -> Result<Option<Status>, String> {
        let path = self.of(uuid);
        let directory = atomic::open_directory(&path).map_err(|error| error.to_string())?;
        let names = atomic::names(directory.as_fd(), &path).map_err(|error| error.to_string())?;
        for name in names.iter().filter(|name| atomic::is_temporary(name)) {
            atomic::sweep(directory.as_fd(), name);
        }
        match atomic::read(directory.as_fd(), STATUS, MAX_RECORD_BYTES) {
            Ok(text) => {
                let status = status::decode(&text).map_err(|error| error.to_string())?;
                let of = status.record.definition.uuid;
                if of == uuid {
                    Ok(Some(status))
                } else {
                    Err(format!("it is of the domain with UUID {of}"))
                }
            }
            Err(atomic::ReadError::Io(Errno::NOENT)) => {
                self.clear(uuid).map_err(|error| error.to_string())?;
                Ok(None)
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// Writes the status of a domain's worker; a later supervisor finds this one or the one before.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when a status that could not be read is in the way,
    /// [`StoreError::Io`], [`StoreError::Encode`].
    pub fn write_status(&self, uuid: DomainUuid, status: &Status) -> Result<(), StoreError> {
        self.check_refused(uuid)?;
        let bytes = status::encode(status).map_err(|reason| StoreError::Encode {
            name: status.record.definition.name.to_string(),
            reason,
        })?;
        self.put(uuid, STATUS, &bytes)
    }

    /// Removes the status and the domain's directory with all that is in it, the status as the last.
    ///
    /// # Errors
    /// [`StoreError::Refused`], [`StoreError::Io`].
    pub fn remove_status(&self, uuid: DomainUuid) -> Result<(), StoreError> {
        self.check_refused(uuid)?;
        self.clear(uuid)
    }

    /// Notes how many bytes of its console the domain's log has.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn set_console_position(&self, uuid: DomainUuid, bytes: u64) -> Result<(), StoreError> {
        let path = self.of(uuid);
        // Not made: where it is gone, so is the console.
        let directory = atomic::open_directory(&path)?;
        let text = format!("{bytes}\n");
        let name = CONSOLE_POSITION;
        atomic::replace(
            directory.as_fd(),
            &path,
            name,
            text.as_bytes(),
            IN_MEMORY,
            |_| (),
        )
    }

    /// What was noted last; `None` where nothing was.
    #[must_use]
    pub fn console_position(&self, uuid: DomainUuid) -> Option<u64> {
        let directory = atomic::open_directory(&self.of(uuid)).ok()?;
        let text = atomic::read(directory.as_fd(), CONSOLE_POSITION, 32).ok()?;
        std::str::from_utf8(&text).ok()?.trim().parse().ok()
    }

    fn put(&self, uuid: DomainUuid, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.of(uuid);
        let directory: OwnedFd = match atomic::open_directory(&path) {
            Err(StoreError::Io {
                errno: Errno::NOENT,
                ..
            }) => atomic::open_directory(&self.directory(uuid)?)?,
            opened => opened?,
        };
        atomic::replace(directory.as_fd(), &path, name, bytes, IN_MEMORY, |_| ())
    }

    fn check_refused(&self, uuid: DomainUuid) -> Result<(), StoreError> {
        let mut refused = self.refused();
        let Some(reason) = refused.get(&uuid) else {
            return Ok(());
        };
        let path = self.of(uuid).join(STATUS);
        if path.symlink_metadata().is_ok() {
            return Err(StoreError::Refused(Refusal {
                path,
                reason: reason.clone(),
            }));
        }
        refused.remove(&uuid);
        Ok(())
    }

    fn clear(&self, uuid: DomainUuid) -> Result<(), StoreError> {
        let path = self.of(uuid);
        // What is there as a rule goes without a descriptor: there may be none to be had.
        for name in [SOCKET_NAME, CONSOLE_POSITION, STATUS] {
            match rustix::fs::unlink(path.join(name)) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(StoreError::io("remove", &path.join(name))(errno)),
            }
        }
        match rustix::fs::rmdir(&path) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::NOTEMPTY) => {}
            Err(errno) => return Err(StoreError::io("remove", &path)(errno)),
        }
        let directory = match atomic::open_directory(&path) {
            Err(StoreError::Io {
                errno: Errno::NOENT,
                ..
            }) => return Ok(()),
            opened => opened?,
        };
        for name in atomic::names(directory.as_fd(), &path)? {
            match rustix::fs::unlinkat(&directory, &name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(StoreError::io("remove", &path.join(&name))(errno)),
            }
        }
        match rustix::fs::rmdir(&path) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(StoreError::io("remove", &path)(errno)),
        }
    }
}

/// Makes a directory with its parents; its mode is the given one whatever the umask is. One that is
/// there stays as it is.
fn make(path: &Path, mode: u32) -> Result<(), StoreError> {
    if path.is_dir() {
        return Ok(());
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)))
        .map_err(|error| {
            StoreError::io("make", path)(Errno::from_io_error(&error).unwrap_or(Errno::IO))
        })
}
