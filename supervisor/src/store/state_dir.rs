//! The state directory: definitions, durable.
//!
//! Everything is done by the descriptors that were opened at the start: a directory that is removed
//! and made again under a running supervisor is another one, and writes say so.
//!
//! Invariant: a file is only ever overwritten or removed if this supervisor loaded or wrote it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use reeve_ipc::api::view::DomainDefinition;
use reeve_ipc::model::{DomainName, DomainUuid};
use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;
use uuid::Uuid;

use super::atomic::{self, How, Reached};
use super::error::{Refusal, StoreError};
use super::lock::InstanceLock;
use super::schema;
use crate::crash::{self, Moment, Operation};

/// The most bytes of a record on disk.
pub const MAX_RECORD_BYTES: usize = 1 << 20;

const DOMAINS: &str = "domains";
/// What the host is known by, where nothing else says it.
const HOST_UUID: &str = "host-uuid";
/// The most bytes of that.
const HOST_UUID_BYTES: usize = 64;

/// The definitions of one instance.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    directory: OwnedFd,
    domains_path: PathBuf,
    domains: OwnedFd,
    files: Mutex<Files>,
    _lock: InstanceLock,
}

/// What stands in `domains/`, by file name.
#[derive(Debug, Default)]
struct Files {
    ours: BTreeSet<String>,
    refused: BTreeMap<String, String>,
}

/// What was found.
#[derive(Debug, Default)]
pub struct LoadedRecords {
    /// By UUID, rising.
    pub records: Vec<DomainDefinition>,
    /// Files that were left alone.
    pub refused: Vec<Refusal>,
}

impl StateDir {
    /// Opens the directory, makes it (mode 0700) if there is none, and takes its lock.
    ///
    /// # Errors
    /// [`StoreError::Held`] by another supervisor, [`StoreError::Exposed`], [`StoreError::Io`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        make_private(path)?;
        let directory = atomic::open_directory(path)?;
        let stat = rustix::fs::fstat(&directory).map_err(StoreError::io("examine", path))?;
        let strangers = stat.st_uid != 0 && stat.st_uid != rustix::process::geteuid().as_raw();
        if strangers || stat.st_mode & 0o022 != 0 {
            return Err(StoreError::Exposed {
                path: path.to_owned(),
            });
        }
        let lock = InstanceLock::take(directory.as_fd(), path)?;
        let domains_path = path.join(DOMAINS);
        match rustix::fs::mkdirat(&directory, DOMAINS, Mode::from_raw_mode(0o700)) {
            Ok(()) => atomic::synchronise(directory.as_fd(), path)?,
            Err(Errno::EXIST) => {}
            // Read-only, perhaps with a directory that can be read: opening it tells.
            Err(Errno::ROFS) => {}
            Err(errno) => return Err(StoreError::io("make", &domains_path)(errno)),
        }
        Ok(Self {
            path: path.to_owned(),
            directory,
            domains: atomic::open_directory(&domains_path)?,
            domains_path,
            files: Mutex::new(Files::default()),
            _lock: lock,
        })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the host is known by where neither its firmware nor its system has a UUID: the one that was drawn
    /// before, or `drawn`, which is durable on return.
    ///
    /// # Errors
    /// [`StoreError::Io`]: nothing is kept, and the next supervisor draws another.
    pub fn host_uuid(&self, drawn: Uuid) -> Result<Uuid, StoreError> {
        let kept = atomic::read(self.directory.as_fd(), HOST_UUID, HOST_UUID_BYTES);
        let kept = kept.ok().and_then(|bytes| String::from_utf8(bytes).ok());
        if let Some(kept) = kept.and_then(|text| Uuid::try_parse(text.trim()).ok()) {
            return Ok(kept);
        }
        let how = How {
            durable: true,
            only_new: false,
        };
        let text = format!("{drawn}\n");
        let directory = self.directory.as_fd();
        atomic::replace(
            directory,
            &self.path,
            HOST_UUID,
            text.as_bytes(),
            how,
            |_| (),
        )?;
        Ok(drawn)
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        // Nothing panics while it is held.
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads every definition, and removes temporaries that were left over. Files that cannot be
    /// read, or whose name another domain has, are listed and left alone.
    ///
    /// # Errors
    /// [`StoreError::Io`]: the directory itself cannot be read.
    pub fn load_all(&self) -> Result<LoadedRecords, StoreError> {
        let mut loaded = LoadedRecords::default();
        let mut files = Files::default();
        let mut owners: BTreeMap<DomainName, String> = BTreeMap::new();
        for name in atomic::names(self.domains.as_fd(), &self.domains_path)? {
            if atomic::is_temporary(&name) {
                atomic::sweep(self.domains.as_fd(), &name);
                continue;
            }
            if name.starts_with('.') || !name.ends_with(".json") {
                continue;
            }
            match self.load(&name, &owners) {
                Ok(record) => {
                    owners.insert(record.domain.name.clone(), name.clone());
                    files.ours.insert(name);
                    loaded.records.push(record);
                }
                Err(reason) => {
                    loaded.refused.push(Refusal {
                        path: self.domains_path.join(&name),
                        reason: reason.clone(),
                    });
                    files.refused.insert(name, reason);
                }
            }
        }
        *self.files() = files;
        Ok(loaded)
    }

    fn load(
        &self,
        name: &str,
        owners: &BTreeMap<DomainName, String>,
    ) -> Result<DomainDefinition, String> {
        let text = atomic::read(self.domains.as_fd(), name, MAX_RECORD_BYTES)
            .map_err(|error| error.to_string())?;
        let record = schema::decode(&text).map_err(|error| error.to_string())?;
        let domain = &record.domain;
        if file_name(domain.uuid) != name {
            return Err(format!(
                "it defines the domain with UUID {}: its name must be {}",
                domain.uuid,
                file_name(domain.uuid)
            ));
        }
        if let Some(other) = owners.get(&domain.name) {
            return Err(format!(
                "the name '{}' is that of the domain in {other} already",
                domain.name
            ));
        }
        Ok(record)
    }

    /// Writes a record; it is durable on return. On an error what was there before stands, except
    /// when only the directory could not be synchronised: then nobody can tell.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when a file is in the way, [`StoreError::Io`],
    /// [`StoreError::Encode`], [`StoreError::TooLarge`].
    pub fn write_record(&self, record: &DomainDefinition) -> Result<(), StoreError> {
        let name = file_name(record.domain.uuid);
        let of = || record.domain.name.to_string();
        crash::point(Operation::Define, Moment::BeforeWrite);
        let bytes =
            schema::encode(record).map_err(|reason| StoreError::Encode { name: of(), reason })?;
        if bytes.len() > MAX_RECORD_BYTES {
            return Err(StoreError::TooLarge {
                name: of(),
                bytes: bytes.len(),
                limit: MAX_RECORD_BYTES,
            });
        }
        let how = How {
            durable: true,
            only_new: !self.may_replace(&name)?,
        };
        let mut renamed = false;
        let result = atomic::replace(
            self.domains.as_fd(),
            &self.domains_path,
            &name,
            &bytes,
            how,
            |reached| match reached {
                Reached::Temporary => crash::point(Operation::Define, Moment::AfterTemporary),
                Reached::Renamed => {
                    renamed = true;
                    crash::point(Operation::Define, Moment::AfterRename);
                }
            },
        );
        match result {
            Ok(()) => {}
            Err(StoreError::Io {
                errno: Errno::EXIST,
                ..
            }) => return Err(self.foreign(&name)),
            Err(error) => {
                if renamed && how.only_new {
                    // Nobody was told of it: a later supervisor should not find it.
                    let _ = rustix::fs::unlinkat(&self.domains, &name, AtFlags::empty());
                } else if renamed {
                    self.files().ours.insert(name);
                }
                return Err(error);
            }
        }
        self.files().ours.insert(name);
        crash::point(Operation::Define, Moment::AfterWrite);
        Ok(())
    }

    /// Removes a record; its removal is durable on return. One that is not there is removed.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when the file is not ours, [`StoreError::Io`].
    pub fn remove_record(&self, uuid: DomainUuid) -> Result<(), StoreError> {
        let name = file_name(uuid);
        crash::point(Operation::Undefine, Moment::BeforeRemove);
        if !self.may_replace(&name)? {
            return match atomic::exists(self.domains.as_fd(), &name) {
                true => Err(self.foreign(&name)),
                false => Ok(()),
            };
        }
        match rustix::fs::unlinkat(&self.domains, &name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => {
                return Err(StoreError::io("remove", &self.domains_path.join(&name))(
                    errno,
                ));
            }
        }
        crash::point(Operation::Undefine, Moment::AfterUnlink);
        atomic::synchronise(self.domains.as_fd(), &self.domains_path)?;
        self.files().ours.remove(&name);
        crash::point(Operation::Undefine, Moment::AfterRemove);
        Ok(())
    }

    /// Whether a file of this name would be ours; an error when it was refused and is still there.
    fn may_replace(&self, name: &str) -> Result<bool, StoreError> {
        let mut files = self.files();
        if files.ours.contains(name) {
            return Ok(true);
        }
        if let Some(reason) = files.refused.get(name) {
            if atomic::exists(self.domains.as_fd(), name) {
                return Err(StoreError::Refused(Refusal {
                    path: self.domains_path.join(name),
                    reason: reason.clone(),
                }));
            }
            files.refused.remove(name);
        }
        Ok(false)
    }

    fn foreign(&self, name: &str) -> StoreError {
        StoreError::Refused(Refusal {
            path: self.domains_path.join(name),
            reason: "it was put there while reeved ran".to_owned(),
        })
    }
}

fn file_name(uuid: DomainUuid) -> String {
    format!("{uuid}.json")
}

/// Makes the directory for its owner alone, with its parents, unless it is there.
fn make_private(path: &Path) -> Result<(), StoreError> {
    if path.is_dir() {
        return Ok(());
    }
    let refuse = |error: std::io::Error| {
        StoreError::io("make", path)(Errno::from_io_error(&error).unwrap_or(Errno::IO))
    };
    if let Some(parent) = path.parent() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .create(parent)
            .map_err(refuse)?;
    }
    // A network's server finds its book in it, and may list nothing.
    match std::fs::DirBuilder::new().mode(0o711).create(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        made => made.map_err(refuse),
    }
}
