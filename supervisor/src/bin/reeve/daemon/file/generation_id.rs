//! Generation ids: `random`, `none`, or a UUID.

use reeve_ipc::model::GenerationId;
use serde::{Deserialize, Deserializer, Serializer};

/// That of a definition that says nothing of it.
pub(super) const fn default() -> GenerationId {
    GenerationId::Random
}

/// As people write it.
pub(in crate::daemon) fn text(id: GenerationId) -> String {
    match id {
        GenerationId::Absent => "none".to_owned(),
        GenerationId::Random => "random".to_owned(),
        GenerationId::Fixed(id) => id.to_string(),
    }
}

pub(super) fn serialize<S: Serializer>(
    id: &GenerationId,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&text(*id))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<GenerationId, D::Error> {
    let text = String::deserialize(deserializer)?;
    crate::args::generation_id(&text).map_err(serde::de::Error::custom)
}
