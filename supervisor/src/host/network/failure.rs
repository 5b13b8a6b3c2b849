//! Failures in one line each.

use std::path::Path;

use rustix::io::Errno;

use crate::host::reason;
use crate::network::host::{NetworkFailure, NetworkHostError};

const fn failure(kind: NetworkFailure, message: String) -> NetworkHostError {
    NetworkHostError { kind, message }
}

/// What the host does not have or refuses.
pub(super) const fn host(message: String) -> NetworkHostError {
    failure(NetworkFailure::Host, message)
}

/// What somebody else has.
pub(super) const fn taken(message: String) -> NetworkHostError {
    failure(NetworkFailure::Taken, message)
}

/// What this build does not do.
pub(super) const fn unsupported(message: String) -> NetworkHostError {
    failure(NetworkFailure::Unsupported, message)
}

/// The kernel's refusal of something about a network.
pub(super) fn refused(what: &str, network: &str, errno: Errno) -> NetworkHostError {
    let mend = match errno {
        Errno::PERM | Errno::ACCESS => "; it takes root, with CAP_NET_ADMIN",
        _ => "",
    };
    host(format!(
        "cannot {what} of network '{network}': {}{mend}",
        reason(errno)
    ))
}

/// A failure with a file.
pub(super) fn host_io(what: &str, path: &Path, error: &std::io::Error) -> NetworkHostError {
    let why = Errno::from_io_error(error).map_or_else(|| error.to_string(), reason);
    host(format!("{what} {}: {why}", path.display()))
}
