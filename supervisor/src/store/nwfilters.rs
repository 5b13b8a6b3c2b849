//! What is kept of network filters: definitions in the state directory, durable.
//!
//! ```text
//!   STATE/nwfilters/UUID.json    a definition; or that somebody undefined the one of that UUID which every instance
//!                                has from its first start
//! ```
//!
//! The directory was locked by whoever opened it ([`super::StateDir`]). JSON, of one version; what rules say of frames
//! is in libvirt's words.

use std::path::Path;

use reeve_ipc::model::{
    FilterEntry, FilterParameter, FilterReference, FilterRule, InvalidName, MAX_NWFILTER_BYTES,
    Nwfilter, NwfilterError, NwfilterUuid, RuleMatch, RuleProtocol,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::error::{Refusal, StoreError};
use super::kept::{Kept, check};
use super::schema::{SchemaError, pretty, read, schema_of};
use crate::crash::Operation;

/// The version that is written.
const SCHEMA: u32 = 1;
/// What these files are of.
const WHAT: &str = "network filter";
/// The most bytes of one of these files: a definition in words with all that quotes and indents it.
const MAX_BYTES: usize = 16 * MAX_NWFILTER_BYTES;

/// What was found.
#[derive(Debug, Default)]
pub struct LoadedNwfilters {
    /// Definitions, by UUID, rising.
    pub filters: Vec<Nwfilter>,
    /// UUIDs of those that somebody undefined.
    pub undefined: Vec<NwfilterUuid>,
    /// Files that were left alone.
    pub refused: Vec<Refusal>,
}

/// What is kept of the network filters of one instance.
#[derive(Debug)]
pub struct NwfilterStore {
    records: Kept,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordFile {
    schema: u32,
    /// Absent where it is undefined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    filter: Option<FilterFile>,
    /// Of one that is undefined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    undefined: Option<Uuid>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FilterFile {
    name: String,
    uuid: Uuid,
    chain: String,
    priority: i16,
    entries: Vec<EntryFile>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum EntryFile {
    Rule(RuleFile),
    Reference(ReferenceFile),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleFile {
    action: String,
    direction: String,
    priority: i16,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    stateless: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    protocol: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    negated: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    fields: Vec<(String, String)>,
}

/// A reference, also of an interface.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::store) struct ReferenceFile {
    filter: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    parameters: Vec<(String, String)>,
}

/// Why a file is refused.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error("it has schema {0}, and this reeved knows {SCHEMA}")]
    Version(u32),
    #[error(transparent)]
    Name(#[from] InvalidName),
    #[error(transparent)]
    Filter(#[from] NwfilterError),
    #[error("it says neither a filter nor that one is undefined")]
    Nothing,
}

impl From<&FilterReference> for ReferenceFile {
    fn from(reference: &FilterReference) -> Self {
        let parameters = reference.parameters.iter();
        Self {
            filter: reference.filter.as_str().to_owned(),
            parameters: parameters
                .map(|it| (it.name.clone(), it.value.clone()))
                .collect(),
        }
    }
}

impl TryFrom<ReferenceFile> for FilterReference {
    type Error = InvalidName;

    fn try_from(file: ReferenceFile) -> Result<Self, InvalidName> {
        let parameters = file.parameters.into_iter();
        Ok(Self {
            filter: file.filter.parse()?,
            parameters: parameters
                .map(|(name, value)| FilterParameter { name, value })
                .collect(),
        })
    }
}

impl From<&FilterRule> for RuleFile {
    fn from(rule: &FilterRule) -> Self {
        let field = |it: &RuleMatch| (it.field.name().to_owned(), it.field.text(&it.value));
        Self {
            action: rule.action.to_string(),
            direction: rule.direction.to_string(),
            priority: rule.priority,
            stateless: rule.stateless,
            protocol: rule.protocol.map(|protocol| protocol.name().to_owned()),
            negated: rule.negated,
            fields: rule.fields.iter().map(field).collect(),
        }
    }
}

impl TryFrom<RuleFile> for FilterRule {
    type Error = NwfilterError;

    fn try_from(file: RuleFile) -> Result<Self, NwfilterError> {
        let protocol: Option<RuleProtocol> = file.protocol.map(|word| word.parse()).transpose()?;
        let field = |(name, text): (String, String)| {
            let protocol = protocol.ok_or(NwfilterError::NoProtocol)?;
            let field = protocol.field(&name).ok_or_else(|| NwfilterError::Word {
                word: name,
                known: protocol.name().to_owned(),
            })?;
            let value = field.parse(&text)?;
            Ok(RuleMatch { field, value })
        };
        Ok(Self {
            action: file.action.parse()?,
            direction: file.direction.parse()?,
            priority: file.priority,
            stateless: file.stateless,
            protocol,
            negated: file.negated,
            fields: file
                .fields
                .into_iter()
                .map(field)
                .collect::<Result<_, NwfilterError>>()?,
        })
    }
}

impl From<&Nwfilter> for FilterFile {
    fn from(filter: &Nwfilter) -> Self {
        let entry = |entry: &FilterEntry| match entry {
            FilterEntry::Rule(rule) => EntryFile::Rule(rule.into()),
            FilterEntry::Reference(reference) => EntryFile::Reference(reference.into()),
        };
        Self {
            name: filter.name.as_str().to_owned(),
            uuid: filter.uuid.0,
            chain: filter.chain.as_str().to_owned(),
            priority: filter.priority,
            entries: filter.entries.iter().map(entry).collect(),
        }
    }
}

impl TryFrom<FilterFile> for Nwfilter {
    type Error = FileError;

    fn try_from(file: FilterFile) -> Result<Self, FileError> {
        let entry = |entry| {
            Ok(match entry {
                EntryFile::Rule(rule) => FilterEntry::Rule(rule.try_into()?),
                EntryFile::Reference(reference) => FilterEntry::Reference(reference.try_into()?),
            })
        };
        let entries = file.entries.into_iter().map(entry);
        let filter = Self {
            name: file.name.parse()?,
            uuid: NwfilterUuid(file.uuid),
            chain: file.chain.parse()?,
            priority: file.priority,
            entries: entries.collect::<Result<_, FileError>>()?,
        };
        filter.validate()?;
        Ok(filter)
    }
}

fn decode(text: &[u8]) -> Result<RecordFile, FileError> {
    match schema_of(text)? {
        SCHEMA => Ok(read(text)?),
        other => Err(FileError::Version(other)),
    }
}

impl NwfilterStore {
    /// Opens what is kept in a state directory, which is this process' own.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn open(state: &Path) -> Result<Self, StoreError> {
        let records = Kept::open(state.join("nwfilters"))?;
        Ok(Self { records })
    }

    /// Reads everything. Files that cannot be read are listed and left alone.
    ///
    /// # Errors
    /// [`StoreError::Io`]: the directory itself cannot be read.
    pub fn load_all(&self) -> Result<LoadedNwfilters, StoreError> {
        let mut loaded = LoadedNwfilters::default();
        let refused = self.records.each(MAX_BYTES, |name, text| {
            let file = decode(text).map_err(|error| error.to_string())?;
            if let Some(uuid) = file.undefined {
                check(WHAT, name, NwfilterUuid(uuid))?;
                loaded.undefined.push(NwfilterUuid(uuid));
                return Ok(());
            }
            let filter = file.filter.ok_or(FileError::Nothing);
            let filter = filter.and_then(Nwfilter::try_from);
            let filter = filter.map_err(|error| error.to_string())?;
            check(WHAT, name, filter.uuid)?;
            if loaded.filters.iter().any(|other| other.name == filter.name) {
                let name = &filter.name;
                return Err(format!("the name '{name}' is another filter's already"));
            }
            loaded.filters.push(filter);
            Ok(())
        })?;
        loaded.refused = refused;
        Ok(loaded)
    }

    /// That the file of one is none that could not be read.
    ///
    /// # Errors
    /// [`StoreError::Refused`].
    pub fn may_write(&self, uuid: NwfilterUuid) -> Result<(), StoreError> {
        self.records.may_write(uuid)
    }

    /// Keeps a definition; it is durable on return. A file that could not be read is not written over.
    ///
    /// # Errors
    /// [`StoreError`]; what was kept before stands.
    pub fn write(&self, filter: &Nwfilter) -> Result<(), StoreError> {
        let record = pretty(&RecordFile {
            schema: SCHEMA,
            filter: Some(filter.into()),
            undefined: None,
        });
        let of = (filter.uuid, filter.name.as_str());
        self.records.write(Operation::NwfilterDefine, of, record)
    }

    /// Keeps that one is undefined which every instance has from its first start, durably.
    ///
    /// # Errors
    /// As of [`Self::write`].
    pub fn write_undefined(&self, uuid: NwfilterUuid) -> Result<(), StoreError> {
        let record = pretty(&RecordFile {
            schema: SCHEMA,
            filter: None,
            undefined: Some(uuid.0),
        });
        let of = (uuid, &*uuid.to_string());
        self.records.write(Operation::NwfilterUndefine, of, record)
    }

    /// Removes a definition, durably.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn remove(&self, uuid: NwfilterUuid) -> Result<(), StoreError> {
        self.records.remove(Operation::NwfilterUndefine, uuid)
    }
}

#[cfg(test)]
mod tests {
    use super::super::kept::file_name;
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_what_cannot_be_read_is_left_alone() {
        let state = tempfile::tempdir().unwrap();
        let store = NwfilterStore::open(state.path()).unwrap();
        for filter in crate::nwfilter::tests::samples() {
            store.write(&filter).unwrap();
        }
        let gone = NwfilterUuid(Uuid::from_u128(99));
        store.write_undefined(gone).unwrap();
        let bad = state
            .path()
            .join("nwfilters")
            .join(file_name(NwfilterUuid(Uuid::from_u128(98))));
        std::fs::write(&bad, "{\"schema\": 2}").unwrap();
        let again = NwfilterStore::open(state.path()).unwrap();
        let loaded = again.load_all().unwrap();
        let mut samples = crate::nwfilter::tests::samples();
        samples.sort_by_key(|filter| filter.uuid);
        assert_eq!(loaded.filters, samples);
        assert_eq!(loaded.undefined, [gone]);
        assert_eq!(loaded.refused.len(), 1);
        assert!(
            loaded.refused[0].reason.contains("schema 2"),
            "{:?}",
            loaded.refused
        );
        let mut over = samples[0].clone();
        over.uuid = NwfilterUuid(Uuid::from_u128(98));
        assert!(matches!(again.write(&over), Err(StoreError::Refused(_))));
        again.remove(samples[0].uuid).unwrap();
        assert_eq!(again.load_all().unwrap().filters, samples[1..]);
    }
}
