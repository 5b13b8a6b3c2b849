//! Values that are written as their text where they are there.

use serde::{Deserializer, Serializer};

use super::text;

pub(super) fn serialize<T, S>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error>
where
    T: std::fmt::Display,
    S: Serializer,
{
    match value {
        Some(value) => text::serialize(value, serializer),
        None => serializer.serialize_none(),
    }
}

pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
    D: Deserializer<'de>,
{
    text::deserialize(deserializer).map(Some)
}
