//! Typed parameters of calls: as many as a client has room for, and only those that there are. Pure.

use super::failure::{Code, Failure, invalid_argument};
use crate::wire::types::params::{Param, Value};
use crate::wire::types::tuning::TuneParams;

/// The client takes text among the parameters (libvirt `VIR_TYPED_PARAM_STRING_OKAY`).
pub(super) const TEXT_OKAY: u32 = 4;

/// As many parameters as a client has room for; asked with room for none, how many there are.
pub(super) fn within(params: Vec<Param>, room: i32) -> (Vec<Param>, i32) {
    let count = i32::try_from(params.len()).unwrap_or(i32::MAX);
    match usize::try_from(room) {
        Ok(room) if room > 0 => {
            let params: Vec<_> = params.into_iter().take(room).collect();
            let count = i32::try_from(params.len()).unwrap_or(i32::MAX);
            (params, count)
        }
        _ => (Vec::new(), count),
    }
}

/// As many as [`within`] gives, as the answer of the calls that tell what a domain is held to.
pub(super) fn told_within(params: Vec<Param>, room: i32) -> TuneParams {
    let (params, nparams) = within(params, room);
    TuneParams {
        params: params.into(),
        nparams,
    }
}

/// What libvirt calls the type of a value.
const fn word(value: &Value) -> &'static str {
    match value {
        Value::Int(_) => INT,
        Value::Uint(_) => UINT,
        Value::Long(_) => LONG,
        Value::Ulong(_) => ULONG,
        Value::Double(_) => "double",
        Value::Boolean(_) => "boolean",
        Value::Text(_) => TEXT,
    }
}

/// A number of 32 bits.
pub(super) const INT: &str = "int";
/// A number of 32 bits that may not be below zero.
pub(super) const UINT: &str = "uint";
/// Text.
pub(super) const TEXT: &str = "string";
/// A number that may be below zero.
pub(super) const LONG: &str = "llong";
/// A number that may not.
pub(super) const ULONG: &str = "ullong";

/// Refuses a parameter that is not among those known, that is of another type than those are, or that is there
/// twice.
///
/// # Errors
/// Its name.
pub(super) fn check(params: &[Param], known: &[(&str, &str)]) -> Result<(), Failure> {
    for (index, param) in params.iter().enumerate() {
        let field = &param.field;
        let Some((_, expected)) = known.iter().find(|(name, _)| name == field) else {
            let why = format!("parameter '{field}' not supported");
            return Err(Failure::new(Code::ArgumentUnsupported, why));
        };
        let kind = word(&param.value);
        if kind != *expected {
            let why =
                format!("invalid type '{kind}' for parameter '{field}', expected '{expected}'");
            return Err(invalid_argument(why));
        }
        if params
            .iter()
            .take(index)
            .any(|before| before.field == *field)
        {
            let why = format!("parameter '{field}' occurs multiple times");
            return Err(invalid_argument(why));
        }
    }
    Ok(())
}

/// The number of that name, which is none below zero.
pub(super) fn ulong(params: &[Param], name: &str) -> Option<u64> {
    params.iter().find_map(|param| match param.value {
        Value::Ulong(value) if param.field == name => Some(value),
        _ => None,
    })
}

/// The number of that name, which may be below zero.
pub(super) fn long(params: &[Param], name: &str) -> Option<i64> {
    params.iter().find_map(|param| match param.value {
        Value::Long(value) if param.field == name => Some(value),
        _ => None,
    })
}

/// The number of that name, of 32 bits.
pub(super) fn uint(params: &[Param], name: &str) -> Option<u32> {
    params.iter().find_map(|param| match param.value {
        Value::Uint(value) if param.field == name => Some(value),
        _ => None,
    })
}

/// The number of that name, of 32 bits, which may be below zero.
pub(super) fn int(params: &[Param], name: &str) -> Option<i32> {
    params.iter().find_map(|param| match param.value {
        Value::Int(value) if param.field == name => Some(value),
        _ => None,
    })
}

/// The text of that name.
pub(super) fn text<'a>(params: &'a [Param], name: &str) -> Option<&'a str> {
    params.iter().find_map(|param| match &param.value {
        Value::Text(value) if param.field == name => Some(value.as_str()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_that_there_are_not_or_that_are_something_else_or_come_twice_are_named() {
        let known = [("a", ULONG), ("b", LONG)];
        let refused = |params: &[Param]| check(params, &known).unwrap_err().message();
        let good = [Param::new("a", 1_u64), Param::new("b", -1_i64)];
        assert_eq!(check(&good, &known), Ok(()));
        assert_eq!((ulong(&good, "a"), long(&good, "b")), (Some(1), Some(-1)));
        assert_eq!((ulong(&good, "b"), long(&good, "c")), (None, None));
        let line = refused(&[Param::new("c", 1_u64)]);
        assert_eq!(line, "argument unsupported: parameter 'c' not supported");
        let line = refused(&[Param::new("a", 1_i32)]);
        let wanted = "invalid argument: invalid type 'int' for parameter 'a', expected 'ullong'";
        assert_eq!(line, wanted);
        let line = refused(&[Param::new("a", 1_u64), Param::new("a", 2_u64)]);
        assert!(line.ends_with("'a' occurs multiple times"), "{line}");
    }

    #[test]
    fn a_client_gets_no_more_than_it_has_room_for() {
        let all = || vec![Param::new("a", 1_u64), Param::new("b", 2_u64)];
        assert_eq!(within(all(), 0), (Vec::new(), 2));
        assert_eq!(within(all(), 1), (vec![Param::new("a", 1_u64)], 1));
        assert_eq!(within(all(), 9), (all(), 2));
    }
}
