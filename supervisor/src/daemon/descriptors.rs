//! How many descriptors this process may open, and whether they do for what it is to take over.
//!
//! A supervisor that runs out of them in the middle of an adoption could tell a worker that it cannot
//! reach from one that is gone no more; so it looks before it begins.

use rustix::process::{Resource, getrlimit, setrlimit};

/// The instance's own: directories, locks, sockets, clients, domain logs.
const OWN: u64 = 64;
/// A worker's: its pidfd, its control socket, its log, its console; and of who answers for the connections that
/// its guest opens, a socket and a directory.
const PER_DOMAIN: u64 = 6;

/// More domains run than can be taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "cannot take over {domains} running domains with {limit} file descriptors; raise LimitNOFILE of \
     the service, or 'ulimit -n', to {need} at least: the domains go on meanwhile"
)]
pub struct TooFewDescriptors {
    domains: u64,
    limit: u64,
    need: u64,
}

/// Raises the limit as far as this process may, and compares it with what that many workers need.
///
/// # Errors
/// [`TooFewDescriptors`].
pub(super) fn prepare(domains: usize) -> Result<(), TooFewDescriptors> {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if setrlimit(Resource::Nofile, limit).is_err() {
            limit = getrlimit(Resource::Nofile);
        }
    }
    let domains = u64::try_from(domains).unwrap_or(u64::MAX);
    let need = domains.saturating_mul(PER_DOMAIN).saturating_add(OWN);
    match limit.current {
        Some(limit) if limit < need => Err(TooFewDescriptors {
            domains,
            limit,
            need,
        }),
        _ => Ok(()),
    }
}
