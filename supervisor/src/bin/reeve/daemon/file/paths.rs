//! The paths in a definition: the daemon has another working directory than whoever wrote them.

use std::path::{Component, Path, PathBuf};

use super::{DefinitionFile, FileError};

impl DefinitionFile {
    /// Has relative paths begin at `base`, or at the working directory where that is relative too.
    ///
    /// # Errors
    /// A path leads through a directory that cannot be found.
    pub(in super::super) fn anchor(&mut self, base: &Path) -> Result<(), FileError> {
        for path in [&mut self.kernel, &mut self.initrd].into_iter().flatten() {
            if path.is_relative() {
                *path = resolved(&base.join(&*path))?;
            }
        }
        Ok(())
    }

    /// A path that nothing could be made of, and what it is for.
    pub(in super::super) fn relative(&self) -> Option<(&'static str, &Path)> {
        [("kernel", &self.kernel), ("initrd", &self.initrd)]
            .into_iter()
            .filter_map(|(what, path)| Some((what, path.as_deref()?)))
            .find(|(_, path)| path.is_relative())
    }
}

/// Absolute, and without `..`, which the daemon does not take. A symbolic link at the end stays one:
/// it may be pointed at another kernel later.
fn resolved(path: &Path) -> Result<PathBuf, FileError> {
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
