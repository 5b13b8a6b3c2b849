//! The files that a qcow2 volume builds upon, opened for the process that handles it.
//!
//! Their names are what whoever wrote the volume's first bytes wrote there: of a raw disk that is its guest. So they are
//! followed within the volume's own directory and nowhere else: what a copy is made of is of the pool that the
//! copy is asked of. A domain whose definition states a chain has it opened by the policy of paths instead.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::api::storage::{OtherFormat, VolumeFormat};
use reeve_ipc::image::ImageFacts;
use reeve_ipc::model::Layer;
use reeve_ipc::spec::DiskFormat;
use rustix::fs::FileType;
use rustix::io::Errno;

use super::host::{Held, Host, examine, find, open};
use crate::domain::plan::{Chain, ChainError};
use crate::host::image_lock::{ImageUse, lock};
use crate::host::image_worker::Purpose;
use crate::host::reason;

/// What is behind an image, the nearest first; nobody writes it while it is open here.
#[derive(Debug, Default)]
pub(super) struct Chained {
    pub(super) formats: Vec<DiskFormat>,
    pub(super) files: Vec<OwnedFd>,
}

/// What a volume is copied and resized as. A disk that its guest encrypted as a whole is raw to everybody else.
pub(super) fn disk_format(facts: &ImageFacts) -> Option<DiskFormat> {
    match facts.format {
        VolumeFormat::Other(OtherFormat::Luks) => Some(DiskFormat::Raw),
        ref format => format.disk(),
    }
}

/// Refuses a volume that does not look like what is stated of it. Anything can be raw.
pub(super) fn as_stated(
    held: &Held<'_>,
    facts: &ImageFacts,
    stated: Option<DiskFormat>,
) -> Result<(), ApiError> {
    match stated {
        Some(DiskFormat::Qcow2) if facts.format != VolumeFormat::Qcow2 => {
            let why = "it is no qcow2 image, as which it is asked for";
            Err(held.error(ApiErrorCode::InvalidArgument, why))
        }
        _ => Ok(()),
    }
}

/// Opens all of it: files of the volume's own `directory`, which `layer` is in too.
pub(super) fn chain(
    host: &Host,
    held: &Held<'_>,
    directory: BorrowedFd<'_>,
    layer: &Layer,
    file: BorrowedFd<'_>,
) -> Result<Chained, ApiError> {
    let mut chained = Chained::default();
    if layer.format == DiskFormat::Raw {
        return Ok(chained);
    }
    let broken = |layer: &Layer, error: ChainError| {
        let why = format!(
            "cannot tell what the image '{}' builds upon: {error}",
            layer.path.display()
        );
        held.error(ApiErrorCode::Unsupported, &why)
    };
    let reader = host.worker(Purpose::Read);
    let reader = reader.map_err(|error| held.task(&error))?;
    let target = layer.path.parent().unwrap_or(Path::new(""));
    let mut chain = Chain::default();
    chain.enter(file).map_err(|error| broken(layer, error))?;
    let mut next = chain
        .below(layer, file, &reader)
        .map_err(|error| broken(layer, error))?;
    while let Some(layer) = next.take() {
        let opened = within(directory, target, &layer.path).map_err(|outside| {
            let path = layer.path.display();
            let why = match outside {
                Outside::Elsewhere => format!(
                    "it says that it builds upon '{path}', which is not in its pool's directory, and what an image \
                     says is not followed further; 'qemu-img rebase' or 'qemu-img convert' can be told to"
                ),
                Outside::Os(errno) => format!(
                    "cannot open what it builds upon, '{path}': {}",
                    reason(errno)
                ),
            };
            held.error(ApiErrorCode::PathRefused, &why)
        })?;
        chain
            .enter(opened.as_fd())
            .map_err(|error| broken(&layer, error))?;
        let used = lock(opened.as_fd(), ImageUse::Read);
        used.map_err(|error| {
            let why = format!("what it builds upon, '{}': {error}", layer.path.display());
            held.error(ApiErrorCode::InUse, &why)
        })?;
        next = chain
            .below(&layer, opened.as_fd(), &reader)
            .map_err(|error| broken(&layer, error))?;
        chained.formats.push(layer.format);
        chained.files.push(opened);
    }
    Ok(chained)
}

/// Why a file is not opened.
#[derive(Debug, PartialEq, Eq)]
enum Outside {
    /// It is no file of that directory.
    Elsewhere,
    /// The kernel's reason.
    Os(Errno),
}

/// Opens a file that has a name in `directory`, which is at `target`.
fn within(directory: BorrowedFd<'_>, target: &Path, path: &Path) -> Result<OwnedFd, Outside> {
    let name = path.strip_prefix(target).ok().and_then(Path::to_str);
    let name = name.and_then(|name| name.parse().ok());
    let name = name.ok_or(Outside::Elsewhere)?;
    let found = find(directory, &name).map_err(|errno| match errno {
        // Through a link.
        Errno::XDEV | Errno::LOOP => Outside::Elsewhere,
        errno => Outside::Os(errno),
    })?;
    let (kind, _) = examine(found.as_fd()).map_err(Outside::Os)?;
    match kind {
        FileType::RegularFile => open(found.as_fd(), false).map_err(Outside::Os),
        _ => Err(Outside::Elsewhere),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_chain_is_followed_to_files_of_the_own_directory_and_nowhere_else() {
        let all = tempfile::tempdir().unwrap();
        let target = all.path().join("own");
        let other = all.path().join("other");
        std::fs::create_dir_all(target.join("deep")).unwrap();
        std::fs::create_dir(&other).unwrap();
        for file in [
            target.join("base"),
            target.join("deep/base"),
            other.join("base"),
        ] {
            std::fs::write(file, "base").unwrap();
        }
        symlink("base", target.join("link")).unwrap();
        symlink("../other/base", target.join("out")).unwrap();
        let directory = std::fs::File::open(&target).unwrap();
        let within = |path: &Path| within(directory.as_fd(), &target, path).map(drop);
        assert_eq!(within(&target.join("base")), Ok(()));
        assert_eq!(within(&target.join("link")), Ok(()));
        assert_eq!(within(&target.join("none")), Err(Outside::Os(Errno::NOENT)));
        for path in [
            other.join("base"),
            target.join("../other/base"),
            target.join("out"),
            target.join("deep/base"),
            target.join("deep"),
            target.clone(),
            Path::new("/dev/null").to_owned(),
            Path::new("base").to_owned(),
        ] {
            assert_eq!(within(&path), Err(Outside::Elsewhere), "{}", path.display());
        }
    }
}
