//! Logs: each domain's and its console's as files that are bounded by rotation, and the daemon's own
//! as lines on its standard error that never hold it up.
//!
//! Runs in the supervisor. Files are appended to on its own thread (into the page cache); standard
//! error, which may be a pipe that nobody reads, is written by a thread of its own.

mod daemon;
mod domain_log;
mod file_name;
mod files;
mod filter;
mod layer;
mod printable;
mod rotating;
pub(crate) mod seldom;

pub use self::daemon::{DaemonLog, LogError, install, subscriber};
pub use self::domain_log::DomainLog;
pub use self::file_name::LogPaths;
pub use self::files::{LogBounds, LogFiles};
pub use self::filter::{FilterError, check_filter};
pub use self::printable::printable;
pub use self::rotating::{MAX_KEEP, RotatingFile};

#[cfg(test)]
mod tests;
