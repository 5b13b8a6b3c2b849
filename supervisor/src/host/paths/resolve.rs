//! How a path is resolved by the kernel: through no symbolic link, or beneath a directory (openat2(2)); and which
//! directories those of the configuration are.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// A concurrent rename beneath the directory makes the kernel ask for another try.
const TRIES: u32 = 16;

/// The directories without symbolic links, as far as they exist; all of them as they are where that takes
/// longer than `deadline`, as on a network file system that is down.
pub(super) fn resolved_within(directories: &[PathBuf], deadline: Duration) -> Vec<PathBuf> {
    let (sender, resolved) = sync_channel(1);
    let asked = directories.to_vec();
    let resolving = std::thread::Builder::new()
        .name("paths".to_owned())
        .spawn(move || {
            let resolved = asked.iter().map(|path| without_links(path)).collect();
            // Nobody waits for it any more when it is late.
            let _ = sender.send(resolved);
        });
    let resolved = resolving
        .ok()
        .and_then(|_| resolved.recv_timeout(deadline).ok());
    resolved.unwrap_or_else(|| {
        tracing::warn!(
            "the allowed directories could not be resolved in time; those that symbolic links lead to \
             are refused until a reload can"
        );
        directories.to_vec()
    })
}

/// A path whose symbolic links are followed as far as it exists.
fn without_links(path: &Path) -> PathBuf {
    let resolved = path.ancestors().find_map(|ancestor| {
        let rest = path.strip_prefix(ancestor).ok()?;
        Some(ancestor.canonicalize().ok()?.join(rest))
    });
    // `join` of nothing leaves a slash at the end, which no comparison of paths sees.
    resolved.unwrap_or_else(|| path.to_owned())
}

/// A directory, through no symbolic link.
pub(super) fn open_directory(path: &Path) -> Result<OwnedFd, Errno> {
    let look = OFlags::PATH | OFlags::CLOEXEC | OFlags::DIRECTORY;
    resolve(CWD, path, look, ResolveFlags::NO_SYMLINKS)
}

/// What is beneath a directory, only looked at.
pub(super) fn open_beneath(
    directory: &OwnedFd,
    rest: &Path,
    flags: OFlags,
) -> Result<OwnedFd, Errno> {
    let look = OFlags::PATH | OFlags::CLOEXEC | flags;
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    resolve(directory.as_fd(), rest, look, beneath)
}

/// What the kernel finds from there by these rules.
pub(crate) fn resolve(
    from: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    rules: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let mut result = Err(Errno::AGAIN);
    for _ in 0..TRIES {
        result = rustix::fs::openat2(from, path, flags, Mode::empty(), rules);
        if !matches!(result, Err(Errno::AGAIN | Errno::INTR)) {
            break;
        }
    }
    result
}
