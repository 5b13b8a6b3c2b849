//! The paths in a definition: the daemon has another working directory than whoever wrote them.

use std::path::{Component, Path, PathBuf};

use super::devices::DiskEntry;
use super::{DefinitionFile, FileError};

impl DefinitionFile {
    /// Has relative paths begin at `base`, or at the working directory where that is relative too.
    ///
    /// # Errors
    /// A path leads through a directory that cannot be found.
    pub(in super::super) fn anchor(&mut self, base: &Path) -> Result<(), FileError> {
        for (_, path) in self.paths() {
            if path.is_relative() {
                *path = resolved(&base.join(&*path))?;
            }
        }
        Ok(())
    }

    /// A path that nothing could be made of, and what it is for.
    pub(in super::super) fn relative(&mut self) -> Option<(&'static str, &Path)> {
        self.paths()
            .find(|(_, path)| path.is_relative())
            .map(|(what, path)| (what, path.as_path()))
    }

    /// Every path, with what it is for.
    fn paths(&mut self) -> impl Iterator<Item = (&'static str, &mut PathBuf)> {
        let kernel = self.kernel.iter_mut().map(|path| ("kernel", path));
        let initrd = self.initrd.iter_mut().map(|path| ("initrd", path));
        let disks = self.disk.iter_mut().flat_map(DiskEntry::paths);
        let vsock = self.vsock.iter_mut();
        let channels = self.channel.iter_mut();
        let consoles = self.console.iter_mut();
        let shares = self.share.iter_mut();
        kernel
            .chain(initrd)
            .chain(disks.map(|path| ("disk", path)))
            .chain(vsock.map(|vsock| ("vsock", &mut vsock.path)))
            .chain(channels.map(|channel| ("channel", &mut channel.path)))
            .chain(consoles.map(|console| ("console", &mut console.path)))
            .chain(shares.map(|share| ("share", &mut share.path)))
    }
}

/// Absolute, and without `..`, which the daemon does not take. A symbolic link at the end stays one:
/// it may be pointed at another kernel later.
pub(in super::super) fn resolved(path: &Path) -> Result<PathBuf, FileError> {
    let failed = |error| FileError::Io {
        action: "resolve",
        path: path.to_owned(),
        error,
    };
    let absolute = std::path::absolute(path).map_err(failed)?;
    if !absolute
        .components()
        .any(|part| part == Component::ParentDir)
    {
        return Ok(absolute);
    }
    match (absolute.parent(), absolute.file_name()) {
        // What `..` is behind a symbolic link, only the kernel knows.
        (Some(parent), Some(name)) => Ok(parent.canonicalize().map_err(failed)?.join(name)),
        _ => absolute.canonicalize().map_err(failed),
    }
}
