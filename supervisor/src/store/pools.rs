//! What is kept of storage pools: definitions and unfinished volumes in the state directory, durable; which
//! pools are active in the run directory.
//!
//! ```text
//!   STATE/pools/UUID.json        a definition, and whether it starts with the host
//!   STATE/unfinished/NUMBER.json a file that is being made in a pool, by its name there: removed at the next
//!                                start, if it still has that name
//!   RUN/pools/UUID.json          the definition that a pool is active with
//! ```
//!
//! Both directories were locked by whoever opened them ([`super::StateDir`], [`super::RunDir`]).

mod files;

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use reeve_ipc::model::{Pool, PoolUuid, UNFINISHED_PREFIX};
use rustix::fs::AtFlags;
use rustix::io::Errno;

use self::files::{MarkFile, SCHEMA, decode, encode};
use super::atomic::{self, How, Reached};
use super::error::{Refusal, StoreError};
use super::schema::{pretty, read};
use crate::crash::{self, Moment, Operation};

/// The most bytes of one of these files.
const MAX_BYTES: usize = 64 << 10;

const DURABLE: How = How {
    durable: true,
    only_new: false,
};
pub(super) const IN_MEMORY: How = How {
    durable: false,
    only_new: false,
};

/// A definition as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolRecord {
    /// The pool.
    pub pool: Pool,
    /// Whether it starts with the host.
    pub autostart: bool,
}

/// A file that is being made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// The directory of its pool.
    pub target: PathBuf,
    /// Its name there, which begins with [`UNFINISHED_PREFIX`].
    pub name: String,
    /// The inode of that directory, if it is known: another directory of the same path is not the one.
    pub directory: Option<u64>,
}

/// What was found.
#[derive(Debug, Default)]
pub struct LoadedPools {
    /// Definitions, by UUID, rising.
    pub records: Vec<PoolRecord>,
    /// What pools were active with.
    pub active: Vec<Pool>,
    /// Files that an earlier supervisor did not finish.
    pub unfinished: Vec<UnfinishedMark>,
    /// Files that were left alone.
    pub refused: Vec<Refusal>,
}

/// That a file is being made; removed by [`PoolStore::finished`].
#[derive(Debug, PartialEq, Eq)]
pub struct UnfinishedMark {
    /// The mark's own file.
    file: String,
    /// What it marks.
    pub of: Unfinished,
}

/// What is kept of the pools of one instance.
#[derive(Debug)]
pub struct PoolStore {
    records: Kept,
    unfinished: Kept,
    active: PathBuf,
    next: AtomicU64,
}

/// A directory of files that are kept.
#[derive(Debug)]
pub(super) struct Kept {
    path: PathBuf,
    directory: OwnedFd,
}

impl Kept {
    pub(super) fn open(path: PathBuf) -> Result<Self, StoreError> {
        make(&path)?;
        Ok(Self {
            directory: atomic::open_directory(&path)?,
            path,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn has(&self, name: &str) -> bool {
        atomic::exists(self.directory.as_fd(), name)
    }

    pub(super) fn put(
        &self,
        name: &str,
        bytes: &[u8],
        reached: impl FnMut(Reached),
    ) -> Result<(), StoreError> {
        atomic::replace(
            self.directory.as_fd(),
            &self.path,
            name,
            bytes,
            DURABLE,
            reached,
        )
    }

    pub(super) fn remove(&self, name: &str, unlinked: impl FnOnce()) -> Result<(), StoreError> {
        match rustix::fs::unlinkat(&self.directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(StoreError::io("remove", &self.path.join(name))(errno)),
        }
        unlinked();
        atomic::synchronise(self.directory.as_fd(), &self.path)
    }
}

pub(super) fn make(path: &Path) -> Result<(), StoreError> {
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path);
    made.map_err(|error| {
        StoreError::io("make", path)(Errno::from_io_error(&error).unwrap_or(Errno::IO))
    })
}

impl PoolStore {
    /// Opens what is kept in these directories, which are this process' own.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn open(state: &Path, run: &Path) -> Result<Self, StoreError> {
        let active = run.join("pools");
        make(&active)?;
        Ok(Self {
            records: Kept::open(state.join("pools"))?,
            unfinished: Kept::open(state.join("unfinished"))?,
            active,
            next: AtomicU64::new(0),
        })
    }

    /// Reads everything. Files that cannot be read are listed and left alone.
    ///
    /// # Errors
    /// [`StoreError::Io`]: a directory itself cannot be read.
    pub fn load_all(&self) -> Result<LoadedPools, StoreError> {
        let mut loaded = LoadedPools::default();
        let mut refused = Vec::new();
        each(&self.records, MAX_BYTES, &mut refused, |name, text| {
            let record = decode(text).map_err(|error| error.to_string())?;
            check(name, record.pool.uuid)?;
            let taken = |other: &PoolRecord| other.pool.name == record.pool.name;
            if loaded.records.iter().any(taken) {
                let name = &record.pool.name;
                return Err(format!("the name '{name}' is another pool's already"));
            }
            loaded.records.push(record);
            Ok(())
        })?;
        let active = Kept::open(self.active.clone())?;
        each(&active, MAX_BYTES, &mut refused, |name, text| {
            let pool = decode(text).map_err(|error| error.to_string())?.pool;
            check(name, pool.uuid)?;
            loaded.active.push(pool);
            Ok(())
        })?;
        each(&self.unfinished, MAX_BYTES, &mut refused, |name, text| {
            let mark: MarkFile = read(text).map_err(|error| error.to_string())?;
            if mark.schema != SCHEMA || !mark.name.starts_with(UNFINISHED_PREFIX) {
                return Err("it names no unfinished file of this reeved".to_owned());
            }
            let number = name.strip_suffix(".json").and_then(|n| n.parse().ok());
            self.next
                .fetch_max(number.unwrap_or(0_u64).saturating_add(1), Ordering::Relaxed);
            loaded.unfinished.push(UnfinishedMark {
                file: name.to_owned(),
                of: Unfinished {
                    target: mark.target,
                    name: mark.name,
                    directory: mark.directory,
                },
            });
            Ok(())
        })?;
        loaded.refused = refused;
        Ok(loaded)
    }

    /// Keeps a definition; it is durable on return.
    ///
    /// # Errors
    /// [`StoreError`]; what was kept before stands.
    pub fn write(&self, record: &PoolRecord) -> Result<(), StoreError> {
        let point = |moment| crash::point(Operation::PoolDefine, moment);
        point(Moment::BeforeWrite);
        let bytes = encode(record).map_err(|reason| StoreError::Encode {
            name: record.pool.name.to_string(),
            reason,
        })?;
        self.records
            .put(&file_name(record.pool.uuid), &bytes, |reached| {
                point(match reached {
                    Reached::Temporary => Moment::AfterTemporary,
                    Reached::Renamed => Moment::AfterRename,
                });
            })?;
        point(Moment::AfterWrite);
        Ok(())
    }

    /// Removes a definition, durably.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn remove(&self, uuid: PoolUuid) -> Result<(), StoreError> {
        let point = |moment| crash::point(Operation::PoolUndefine, moment);
        point(Moment::BeforeRemove);
        self.records
            .remove(&file_name(uuid), || point(Moment::AfterUnlink))?;
        point(Moment::AfterRemove);
        Ok(())
    }

    /// Notes that a pool is active.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn set_active(&self, pool: &Pool) -> Result<(), StoreError> {
        crash::point(Operation::PoolStart, Moment::BeforeStatus);
        let record = PoolRecord {
            pool: pool.clone(),
            autostart: false,
        };
        let bytes = encode(&record).map_err(|reason| StoreError::Encode {
            name: pool.name.to_string(),
            reason,
        })?;
        // It may have been wiped.
        make(&self.active)?;
        let directory = atomic::open_directory(&self.active)?;
        let name = file_name(pool.uuid);
        let path = &self.active;
        atomic::replace(directory.as_fd(), path, &name, &bytes, IN_MEMORY, |_| ())?;
        crash::point(Operation::PoolStart, Moment::AfterStatus);
        Ok(())
    }

    /// Notes that a pool is not active.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn set_inactive(&self, uuid: PoolUuid) -> Result<(), StoreError> {
        let path = self.active.join(file_name(uuid));
        match rustix::fs::unlink(&path) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(StoreError::io("remove", &path)(errno)),
        }
    }

    /// Notes that a file is about to be made; it is durable on return.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn unfinished(&self, of: Unfinished) -> Result<UnfinishedMark, StoreError> {
        let mark = MarkFile {
            schema: SCHEMA,
            target: of.target.clone(),
            name: of.name.clone(),
            directory: of.directory,
        };
        let bytes = pretty(&mark).map_err(|reason| StoreError::Encode {
            name: of.name.clone(),
            reason,
        })?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let file = format!("{number}.json");
        self.unfinished.put(&file, &bytes, |_| ())?;
        Ok(UnfinishedMark { file, of })
    }

    /// The file has its own name now, or is gone.
    ///
    /// # Errors
    /// [`StoreError::Io`]: it is looked for again at the next start, which does no harm.
    pub fn finished(&self, mark: &UnfinishedMark) -> Result<(), StoreError> {
        self.unfinished.remove(&mark.file, || ())
    }
}

/// Reads each file of a directory, of so many bytes at most, and removes temporaries.
pub(super) fn each(
    kept: &Kept,
    most: usize,
    refused: &mut Vec<Refusal>,
    mut take: impl FnMut(&str, &[u8]) -> Result<(), String>,
) -> Result<(), StoreError> {
    for name in atomic::names(kept.directory.as_fd(), &kept.path)? {
        if atomic::is_temporary(&name) {
            atomic::sweep(kept.directory.as_fd(), &name);
            continue;
        }
        if name.starts_with('.') || !name.ends_with(".json") {
            continue;
        }
        let taken = atomic::read(kept.directory.as_fd(), &name, most)
            .map_err(|error| error.to_string())
            .and_then(|text| take(&name, &text));
        if let Err(reason) = taken {
            let path = kept.path.join(&name);
            refused.push(Refusal { path, reason });
        }
    }
    Ok(())
}

fn check(name: &str, uuid: PoolUuid) -> Result<(), String> {
    match file_name(uuid) {
        own if own == name => Ok(()),
        own => Err(format!(
            "it is of the pool with UUID {uuid}: its name must be {own}"
        )),
    }
}

fn file_name(uuid: PoolUuid) -> String {
    format!("{uuid}.json")
}

#[cfg(test)]
mod tests;
