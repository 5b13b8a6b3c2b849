//! What is in the files of storage pools: a definition, or the mark of what is being made. JSON, of one version.

use std::path::PathBuf;

use reeve_ipc::model::{InvalidName, Permissions, Pool, PoolUuid, StorageError};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::PoolRecord;
use crate::store::schema::{SchemaError, pretty, read, schema_of};

/// The version that is written of all of them.
pub(super) const SCHEMA: u32 = 1;

/// Of a file that is being made.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MarkFile {
    pub(super) schema: u32,
    pub(super) target: PathBuf,
    pub(super) name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) directory: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordFile {
    schema: u32,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    autostart: bool,
    pool: PoolFile,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PoolFile {
    name: String,
    uuid: Uuid,
    target: PathBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mode: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<u32>,
}

/// Why a record is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum PoolSchemaError {
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error("it has schema {0}, and this reeved knows {SCHEMA}")]
    Version(u32),
    #[error(transparent)]
    Name(#[from] InvalidName),
    #[error(transparent)]
    Pool(#[from] StorageError),
}

/// The text of a record.
pub(super) fn encode(record: &PoolRecord) -> Result<Vec<u8>, SchemaError> {
    let Pool {
        name,
        uuid,
        target,
        permissions,
    } = &record.pool;
    pretty(&RecordFile {
        schema: SCHEMA,
        autostart: record.autostart,
        pool: PoolFile {
            name: name.to_string(),
            uuid: uuid.0,
            target: target.clone(),
            mode: permissions.mode,
            owner: permissions.owner,
            group: permissions.group,
        },
    })
}

/// The record that a text is of.
pub(super) fn decode(text: &[u8]) -> Result<PoolRecord, PoolSchemaError> {
    match schema_of(text)? {
        SCHEMA => {}
        other => return Err(PoolSchemaError::Version(other)),
    }
    let file: RecordFile = read(text)?;
    let pool = Pool {
        name: file.pool.name.try_into()?,
        uuid: PoolUuid(file.pool.uuid),
        target: file.pool.target,
        permissions: Permissions {
            mode: file.pool.mode,
            owner: file.pool.owner,
            group: file.pool.group,
        },
    };
    pool.validate()?;
    Ok(PoolRecord {
        pool,
        autostart: file.autostart,
    })
}
