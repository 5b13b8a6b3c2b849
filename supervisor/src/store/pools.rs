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

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use reeve_ipc::model::{Pool, PoolUuid, UNFINISHED_PREFIX};

use self::files::{MarkFile, SCHEMA, decode, encode};
use super::error::{Refusal, StoreError};
use super::kept::{Kept, Noted, check, unencoded};
use super::schema::{pretty, read};
use crate::crash::Operation;

/// The most bytes of one of these files.
const MAX_BYTES: usize = 64 << 10;

/// What these files are of.
const WHAT: &str = "pool";

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
    active: Noted,
    next: AtomicU64,
}

impl PoolStore {
    /// Opens what is kept in these directories, which are this process' own.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn open(state: &Path, run: &Path) -> Result<Self, StoreError> {
        Ok(Self {
            records: Kept::open(state.join("pools"))?,
            unfinished: Kept::open(state.join("unfinished"))?,
            active: Noted::open(run.join("pools"))?,
            next: AtomicU64::new(0),
        })
    }

    /// Reads everything. Files that cannot be read are listed and left alone.
    ///
    /// # Errors
    /// [`StoreError::Io`]: a directory itself cannot be read.
    pub fn load_all(&self) -> Result<LoadedPools, StoreError> {
        let mut loaded = LoadedPools::default();
        let mut refused = self.records.each(MAX_BYTES, |name, text| {
            let record = decode(text).map_err(|error| error.to_string())?;
            check(WHAT, name, record.pool.uuid)?;
            let taken = |other: &PoolRecord| other.pool.name == record.pool.name;
            if loaded.records.iter().any(taken) {
                let name = &record.pool.name;
                return Err(format!("the name '{name}' is another pool's already"));
            }
            loaded.records.push(record);
            Ok(())
        })?;
        refused.extend(self.active.each(MAX_BYTES, |name, text| {
            let pool = decode(text).map_err(|error| error.to_string())?.pool;
            check(WHAT, name, pool.uuid)?;
            loaded.active.push(pool);
            Ok(())
        })?);
        refused.extend(self.unfinished.each(MAX_BYTES, |name, text| {
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
        })?);
        loaded.refused = refused;
        Ok(loaded)
    }

    /// Keeps a definition; it is durable on return. A file that could not be read is not written over.
    ///
    /// # Errors
    /// [`StoreError`]; what was kept before stands.
    pub fn write(&self, record: &PoolRecord) -> Result<(), StoreError> {
        let of = (record.pool.uuid, record.pool.name.as_str());
        let encoded = encode(record);
        self.records.write(Operation::PoolDefine, of, encoded)
    }

    /// Removes a definition, durably.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn remove(&self, uuid: PoolUuid) -> Result<(), StoreError> {
        self.records.remove(Operation::PoolUndefine, uuid)
    }

    /// Notes that a pool is active.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn set_active(&self, pool: &Pool) -> Result<(), StoreError> {
        let record = PoolRecord {
            pool: pool.clone(),
            autostart: false,
        };
        let of = (pool.uuid, pool.name.as_str());
        self.active.write(Operation::PoolStart, of, encode(&record))
    }

    /// Notes that a pool is not active.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn set_inactive(&self, uuid: PoolUuid) -> Result<(), StoreError> {
        self.active.remove(uuid)
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
        let bytes = pretty(&mark).map_err(unencoded(&of.name))?;
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
        self.unfinished.take(&mark.file, || ())
    }
}

#[cfg(test)]
mod tests;
