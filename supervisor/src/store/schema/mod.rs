//! What a record looks like on disk: one module a schema version, and the way from each to the model.
//!
//! The structs of a version are frozen once it has shipped: they share nothing with the object model,
//! so that a change of the model cannot change the meaning of a file. A new version is a new module
//! with a `From` for the one before; reading goes step by step, writing is always the newest.

pub(super) mod v1;
pub(super) mod v2;

use reeve_ipc::api::view::DomainDefinition;
use reeve_ipc::model::{CpuSet, DomainName, DomainUuid, InvalidName, ModelError};
use serde::{Deserialize, Serialize};

/// The version that is written.
pub const CURRENT: u32 = v2::SCHEMA;

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
}

/// All that is read before the schema is known.
#[derive(Deserialize)]
struct Header {
    schema: u32,
}

/// One error of `serde_json`, on one line.
pub(super) fn form(error: &serde_json::Error) -> SchemaError {
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
    let record: v2::Record = match schema_of(text)? {
        v1::SCHEMA => {
            let record: v1::Record = serde_json::from_slice(text).map_err(|error| form(&error))?;
            record.into()
        }
        v2::SCHEMA => serde_json::from_slice(text).map_err(|error| form(&error))?,
        found if found > CURRENT => return Err(SchemaError::Newer { found }),
        found => return Err(SchemaError::Unknown { found }),
    };
    record.try_into()
}

/// Writes a record in the newest version, for people to read too.
///
/// # Errors
/// What cannot be said in JSON: a path that is not UTF-8.
pub fn encode(record: &DomainDefinition) -> Result<Vec<u8>, SchemaError> {
    pretty(&v2::Record::from(record))
}

pub(super) fn pretty(value: &impl Serialize) -> Result<Vec<u8>, SchemaError> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|error| form(&error))?;
    text.push(b'\n');
    Ok(text)
}

#[cfg(test)]
mod tests;
