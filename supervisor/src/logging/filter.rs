//! What is logged, as people write it.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

/// A filter nobody understands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{filter}' is no log filter: write error, warn, info, debug or trace, or directives as in \
     info,reeved::domain=debug"
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
    if filter.trim().is_empty() || plain && !filter.split(',').map(str::trim).all(is_known) {
        return Err(refuse());
    }
    EnvFilter::builder().parse(filter).map_err(|_| refuse())
}
