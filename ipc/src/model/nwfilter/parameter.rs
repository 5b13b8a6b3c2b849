//! Parameters of references: what variables stand for.

use serde::{Deserialize, Serialize};

use super::NwfilterError;
use super::error::short;

/// The most parameters of a reference.
pub const MAX_FILTER_PARAMETERS: usize = 128;
/// The most bytes of the name, and of the value, of a parameter.
pub const MAX_PARAMETER_BYTES: usize = 64;

/// A value of a variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterParameter {
    /// The variable: letters, digits and `_`.
    pub name: String,
    /// The value: letters, digits, `_`, `.` and `:`.
    pub value: String,
}

pub(super) fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=MAX_PARAMETER_BYTES).contains(&name.len()) && name.bytes().all(plain)
}

fn is_value(value: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:".contains(&byte);
    (1..=MAX_PARAMETER_BYTES).contains(&value.len()) && value.bytes().all(plain)
}

/// Looks at the parameters of a reference.
///
/// # Errors
/// [`NwfilterError`] names the first that is none.
pub fn check_parameters(parameters: &[FilterParameter]) -> Result<(), NwfilterError> {
    if parameters.len() > MAX_FILTER_PARAMETERS {
        return Err(NwfilterError::Parameters(parameters.len()));
    }
    for FilterParameter { name, value } in parameters {
        if !is_name(name) {
            return Err(NwfilterError::ParameterName(short(name)));
        }
        if !is_value(value) {
            return Err(NwfilterError::ParameterValue(short(value)));
        }
    }
    Ok(())
}
