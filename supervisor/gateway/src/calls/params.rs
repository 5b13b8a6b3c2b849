//! Typed parameters.

use crate::wire::types::{TypedParam, TypedValue};

fn param(field: &str, value: TypedValue) -> TypedParam {
    TypedParam {
        field: field.to_owned(),
        value,
    }
}

/// A signed number.
pub(super) fn int32(field: &str, value: i32) -> TypedParam {
    param(field, TypedValue::Int(value))
}

/// A number.
pub(super) fn uint32(field: &str, value: u32) -> TypedParam {
    param(field, TypedValue::UInt(value))
}

/// A counter, as libvirt's signed ones have it.
pub(super) fn int64(field: &str, value: u64) -> TypedParam {
    param(
        field,
        TypedValue::LLong(i64::try_from(value).unwrap_or(i64::MAX)),
    )
}

/// A counter.
pub(super) fn uint64(field: &str, value: u64) -> TypedParam {
    param(field, TypedValue::ULLong(value))
}

/// Text.
pub(super) fn text(field: &str, value: impl Into<String>) -> TypedParam {
    param(field, TypedValue::String(value.into()))
}
