//! What a record looks like on disk: one module a schema version, and the way from each to the model.
//!
//! The structs of a version are frozen once it has shipped: they share nothing with the object model,
//! so that a change of the model cannot change the meaning of a file. A new version is a new module
//! with a `From` for the one before; reading goes step by step, writing is always the newest.

pub(super) mod v1;
pub(super) mod v2;
pub(super) mod v3;

use reeve_ipc::api::view::DomainDefinition;
use reeve_ipc::model::{CpuSet, DomainName, DomainUuid, InvalidName, ModelError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The version that is written.
pub const CURRENT: u32 = v3::SCHEMA;

/// Why the text of a record is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// Not JSON, or not of its schema's form.
    #[error("it is damaged or not a definition: {0}")]
    Form(String),
    /// Of a later Reeve.
    #[error("it has schema {found}, and this reeved knows up to {CURRENT}: it is of a newer Reeve")]
    Newer {
        /// The schema it claims.
        found: u32,
    },
    /// Of none.
    #[error("it has schema {found}, which never was")]
    Unknown {
        /// The schema it claims.
        found: u32,
    },
    /// A name that no domain may have.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// Out of range.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// An address that is none.
    #[error("{0}")]
    Address(String),
}

/// All that is read before the schema is known.
#[derive(Deserialize)]
struct Header {
    schema: u32,
}

/// One error of `serde_json`, on one line.
fn form(error: &serde_json::Error) -> SchemaError {
    SchemaError::Form(error.to_string().replace('\n', " "))
}

/// The schema number in front of everything else.
pub(super) fn schema_of(text: &[u8]) -> Result<u32, SchemaError> {
    let header: Header = serde_json::from_slice(text).map_err(|error| form(&error))?;
    Ok(header.schema)
}

/// Reads a record of any known version.
///
/// # Errors
/// [`SchemaError`].
pub fn decode(text: &[u8]) -> Result<DomainDefinition, SchemaError> {
    let record: v3::Record = match schema_of(text)? {
        v1::SCHEMA => v2::Record::from(read::<v1::Record>(text)?).into(),
        v2::SCHEMA => read::<v2::Record>(text)?.into(),
        v3::SCHEMA => read(text)?,
        found if found > CURRENT => return Err(SchemaError::Newer { found }),
        found => return Err(SchemaError::Unknown { found }),
    };
    record.try_into()
}

pub(super) fn read<T: DeserializeOwned>(text: &[u8]) -> Result<T, SchemaError> {
    serde_json::from_slice(text).map_err(|error| form(&error))
}

/// Writes a record in the newest version, for people to read too.
///
/// # Errors
/// What cannot be said in JSON: a path that is not UTF-8.
pub fn encode(record: &DomainDefinition) -> Result<Vec<u8>, SchemaError> {
    pretty(&v3::Record::from(record))
}

pub(super) fn pretty(value: &impl Serialize) -> Result<Vec<u8>, SchemaError> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|error| form(&error))?;
    text.push(b'\n');
    Ok(text)
}

#[cfg(test)]
mod tests;
