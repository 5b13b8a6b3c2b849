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
use std::sync::{Mutex, PoisonError};

use reeve_ipc::model::{
    FilterEntry, FilterParameter, FilterReference, FilterRule, InvalidName, MAX_NWFILTER_BYTES,
    Nwfilter, NwfilterError, NwfilterUuid, RuleMatch, RuleProtocol,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::atomic::Reached;
use super::error::{Refusal, StoreError};
use super::pools::{Kept, each};
use super::schema::{SchemaError, pretty, read, schema_of};
use crate::crash::{self, Moment, Operation};

/// The version that is written.
const SCHEMA: u32 = 1;
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
    /// What is not to be written over.
    refused: Mutex<Vec<Refusal>>,
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
        Ok(Self {
            records: Kept::open(state.join("nwfilters"))?,
            refused: Mutex::default(),
        })
    }

    /// Reads everything. Files that cannot be read are listed and left alone.
    ///
    /// # Errors
    /// [`StoreError::Io`]: the directory itself cannot be read.
    pub fn load_all(&self) -> Result<LoadedNwfilters, StoreError> {
        let mut loaded = LoadedNwfilters::default();
        let mut refused = Vec::new();
        each(&self.records, MAX_BYTES, &mut refused, |name, text| {
            let file = decode(text).map_err(|error| error.to_string())?;
            if let Some(uuid) = file.undefined {
                check(name, NwfilterUuid(uuid))?;
                loaded.undefined.push(NwfilterUuid(uuid));
                return Ok(());
            }
            let filter = file.filter.ok_or(FileError::Nothing);
            let filter = filter.and_then(Nwfilter::try_from);
            let filter = filter.map_err(|error| error.to_string())?;
            check(name, filter.uuid)?;
            if loaded.filters.iter().any(|other| other.name == filter.name) {
                let name = &filter.name;
                return Err(format!("the name '{name}' is another filter's already"));
            }
            loaded.filters.push(filter);
            Ok(())
        })?;
        let mut left = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        left.clone_from(&refused);
        drop(left);
        loaded.refused = refused;
        Ok(loaded)
    }

    fn put(
        &self,
        operation: Operation,
        name: String,
        uuid: NwfilterUuid,
        record: &RecordFile,
    ) -> Result<(), StoreError> {
        let point = |moment| crash::point(operation, moment);
        point(Moment::BeforeWrite);
        self.may_write(uuid)?;
        let file = file_name(uuid);
        let bytes = pretty(record).map_err(|reason| StoreError::Encode { name, reason })?;
        self.records.put(&file, &bytes, |reached| {
            point(match reached {
                Reached::Temporary => Moment::AfterTemporary,
                Reached::Renamed => Moment::AfterRename,
            });
        })?;
        point(Moment::AfterWrite);
        Ok(())
    }

    /// That the file of one is none that could not be read.
    ///
    /// # Errors
    /// [`StoreError::Refused`].
    pub fn may_write(&self, uuid: NwfilterUuid) -> Result<(), StoreError> {
        let left = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.records.path().join(file_name(uuid));
        let refusal = left.iter().find(|refusal| refusal.path == path);
        refusal.map_or(Ok(()), |refusal| Err(StoreError::Refused(refusal.clone())))
    }

    /// Keeps a definition; it is durable on return. A file that could not be read is not written over.
    ///
    /// # Errors
    /// [`StoreError`]; what was kept before stands.
    pub fn write(&self, filter: &Nwfilter) -> Result<(), StoreError> {
        let record = RecordFile {
            schema: SCHEMA,
            filter: Some(filter.into()),
            undefined: None,
        };
        let name = filter.name.to_string();
        self.put(Operation::NwfilterDefine, name, filter.uuid, &record)
    }

    /// Keeps that one is undefined which every instance has from its first start, durably.
    ///
    /// # Errors
    /// As of [`Self::write`].
    pub fn write_undefined(&self, uuid: NwfilterUuid) -> Result<(), StoreError> {
        let record = RecordFile {
            schema: SCHEMA,
            filter: None,
            undefined: Some(uuid.0),
        };
        self.put(Operation::NwfilterUndefine, uuid.to_string(), uuid, &record)
    }

    /// Removes a definition, durably.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn remove(&self, uuid: NwfilterUuid) -> Result<(), StoreError> {
        let point = |moment| crash::point(Operation::NwfilterUndefine, moment);
        point(Moment::BeforeRemove);
        self.records
            .remove(&file_name(uuid), || point(Moment::AfterUnlink))?;
        point(Moment::AfterRemove);
        Ok(())
    }
}

fn check(name: &str, uuid: NwfilterUuid) -> Result<(), String> {
    match file_name(uuid) {
        own if own == name => Ok(()),
        own => Err(format!(
            "it is of the network filter with UUID {uuid}: its name must be {own}"
        )),
    }
}

fn file_name(uuid: NwfilterUuid) -> String {
    format!("{uuid}.json")
}

#[cfg(test)]
mod tests {
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
