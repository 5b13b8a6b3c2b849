//! What is logged, as people write it. It comes from a client too: it is bounded, and values of fields
//! are compared as they are written, since the daemon compiles no pattern of a client's.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

/// The most bytes of a filter.
const MAX_BYTES: usize = 1024;

/// A filter nobody understands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{filter}' is no log filter: write error, warn, info, debug or trace, or directives as in \
     info,reeved::domain=debug, {MAX_BYTES} bytes at most"
)]
pub struct FilterError {
    filter: String,
}

/// Checks a filter.
///
/// # Errors
/// [`FilterError`].
pub fn check_filter(filter: &str) -> Result<(), FilterError> {
    parse(filter).map(drop)
}

pub(super) fn parse(filter: &str) -> Result<EnvFilter, FilterError> {
    let refuse = || FilterError {
        filter: filter
            .chars()
            .filter(|c| !c.is_control())
            .take(200)
            .collect(),
    };
    // A misspelt level would be a module nobody has, and would silence everything else.
    let is_known = |part: &str| {
        // The empty text would be a level too.
        let level = || !part.is_empty() && part.parse::<LevelFilter>().is_ok();
        part.contains(['=', '[', ':']) || level()
    };
    let plain = !filter.contains('[');
    if filter.trim().is_empty()
        || filter.len() > MAX_BYTES
        || plain && !filter.split(',').map(str::trim).all(is_known)
    {
        return Err(refuse());
    }
    EnvFilter::builder()
        .with_regex(false)
        .parse(filter)
        .map_err(|_| refuse())
}
