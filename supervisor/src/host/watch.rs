//! Descriptors that tokio has no type for, watched.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Watches `fd` on the current runtime, for something to read.
///
/// # Errors
/// As for [`watch_for`].
pub(crate) fn watch(fd: Arc<OwnedFd>) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    watch_for(fd, Interest::READABLE)
}

/// Watches `fd` on the current runtime.
///
/// # Errors
/// The descriptor is of a kind that cannot be polled, or the host has no room.
#[expect(
    unsafe_code,
    reason = "tokio trusts its caller that the descriptor stays the same"
)]
pub(crate) fn watch_for(fd: Arc<OwnedFd>, interest: Interest) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    // SAFETY: the `Arc` is kept by the `AsyncFd`, gives the same descriptor each time it is asked,
    // and nobody can take the `OwnedFd` out of it, so it stays open as long as it is registered.
    let watched = unsafe { AsyncFd::register_with_interest(fd, interest) };
    Ok(watched?)
}
