//! A volume that is there: resized, wiped, removed.
//!
//! Each takes the locks that a machine which writes the image would take, so that none of it is done beneath a
//! machine, whoever runs it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use reeve_ipc::api::call::NewCapacity;
use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::api::storage::VolumeFormat;
use reeve_ipc::image::{ImageFacts, ImageTask};
use reeve_ipc::model::{Layer, MAX_VOLUME_BYTES, Pool, VolumeName};
use reeve_ipc::spec::DiskFormat;
use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

use super::chain::{Chained, as_stated, chain, disk_format};
use super::host::{Held, Host, examine, find};
use super::scan::{Prober, one};
use super::view::Entry;
use crate::host::image_lock::ImageUse;
use crate::host::image_worker::Purpose;
use crate::host::reason;

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It becomes larger or smaller.
    Resize {
        /// How large.
        capacity: NewCapacity,
        /// What it has more is allocated.
        allocate: bool,
        /// It may become smaller.
        shrink: bool,
        /// What is in it, where whoever asks knows.
        format: Option<DiskFormat>,
    },
    /// It is overwritten with zeros.
    Wipe,
    /// It is removed.
    Delete {
        /// After it was overwritten.
        zeroed: bool,
    },
}

/// Does it; what the volume is afterwards, if it is there.
pub(super) fn change(
    host: &Host,
    pool: &Pool,
    name: &VolumeName,
    change: Change,
) -> Result<Option<Arc<Entry>>, ApiError> {
    let held = Held { pool, name };
    let directory = host.directory(pool)?;
    let found = find(directory.as_fd(), name).map_err(|errno| held.os("open", errno))?;
    let (kind, _) = examine(found.as_fd()).map_err(|errno| held.os("look at", errno))?;
    if kind == FileType::Directory {
        return match change {
            Change::Delete { .. } => {
                remove_directory(host, &held, directory.as_fd(), found.as_fd())
            }
            Change::Resize { .. } | Change::Wipe => {
                let why = "it is a directory, which has neither a size nor bytes of its own";
                Err(held.error(ApiErrorCode::Unsupported, why))
            }
        };
    }
    let file = held.open(directory.as_fd(), true, Some(ImageUse::Write))?;
    match change {
        Change::Resize {
            capacity,
            allocate,
            shrink,
            format,
        } => {
            let resizing = Resizing {
                directory: directory.as_fd(),
                file: &file,
                capacity,
                allocate,
                shrink,
            };
            let facts = sized(host, &held, &file, format)?;
            resizing.perform(host, &held, &facts)?;
        }
        Change::Wipe => wipe(host, &held, &file)?,
        Change::Delete { zeroed } => {
            if zeroed {
                wipe(host, &held, &file)?;
            }
            let same = is_still(directory.as_fd(), name, file.as_fd());
            if !same.map_err(|errno| held.os("look at", errno))? {
                let why = "another file has its name by now; refresh the pool";
                return Err(held.error(ApiErrorCode::InUse, why));
            }
            host.go_on(&pool.name)?;
            let unlinked = rustix::fs::unlinkat(&directory, name.as_str(), AtFlags::empty());
            unlinked.map_err(|errno| held.os("remove", errno))?;
            removed(&held, directory.as_fd());
            return Ok(None);
        }
    }
    Ok(one(host, directory.as_fd(), name, None))
}

/// Whether a name still leads to `file`: what took it meanwhile is another.
fn is_still(
    directory: BorrowedFd<'_>,
    name: &VolumeName,
    file: BorrowedFd<'_>,
) -> Result<bool, Errno> {
    let now = rustix::fs::fstat(find(directory, name)?)?;
    let opened = rustix::fs::fstat(file)?;
    Ok((now.st_dev, now.st_ino) == (opened.st_dev, opened.st_ino))
}

/// Removes a directory with nothing in it, as libvirt does.
fn remove_directory(
    host: &Host,
    held: &Held<'_>,
    directory: BorrowedFd<'_>,
    found: BorrowedFd<'_>,
) -> Result<Option<Arc<Entry>>, ApiError> {
    if let Some(pool) = host.pool_of(found) {
        let why = format!("it is the target of pool '{pool}'; stop that first");
        return Err(held.error(ApiErrorCode::InUse, &why));
    }
    host.go_on(&held.pool.name)?;
    let flags = AtFlags::REMOVEDIR;
    let removed = rustix::fs::unlinkat(directory, held.name.as_str(), flags);
    removed.map_err(|errno| match errno {
        Errno::NOTEMPTY | Errno::EXIST => {
            let why = "it is a directory, and there is something in it";
            held.error(ApiErrorCode::WrongState, why)
        }
        errno => held.os("remove", errno),
    })?;
    self::removed(held, directory);
    Ok(None)
}

/// Has it on stable storage that a name is gone. Gone it is, and what goes wrong behind that is for the log.
fn removed(held: &Held<'_>, directory: BorrowedFd<'_>) {
    if let Err(errno) = rustix::fs::fsync(directory) {
        let called = super::view::called(&held.pool.name, held.name);
        let why = reason(errno);
        tracing::error!("{called}: it is removed, but that may not be on stable storage: {why}");
    }
}

fn perform(
    host: &Host,
    held: &Held<'_>,
    task: &ImageTask,
    files: &[&OwnedFd],
) -> Result<(), ApiError> {
    let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
    let worker = host.worker(Purpose::Write);
    let done = worker.and_then(|worker| worker.perform(task, &files, None));
    done.map_err(|error| held.task(&error))
}

fn wipe(host: &Host, held: &Held<'_>, file: &OwnedFd) -> Result<(), ApiError> {
    perform(host, held, &ImageTask::Wipe, &[file])
}

/// What is known of an image that is resized: what whoever asks says, or what its first bytes look like.
fn sized(
    host: &Host,
    held: &Held<'_>,
    file: &OwnedFd,
    format: Option<DiskFormat>,
) -> Result<ImageFacts, ApiError> {
    if format == Some(DiskFormat::Raw) {
        return Ok(ImageFacts::of(VolumeFormat::Raw));
    }
    let again = held.reopened(file)?;
    let facts = Prober::new(host).probe(vec![again]).into_iter().next();
    let facts = facts.unwrap_or_else(|| ImageFacts::of(VolumeFormat::Raw));
    as_stated(held, &facts, format)?;
    if let Some(why) = &facts.unreadable {
        return Err(held.error(ApiErrorCode::Unsupported, why));
    }
    Ok(facts)
}

/// How a volume is resized.
struct Resizing<'a> {
    directory: BorrowedFd<'a>,
    file: &'a OwnedFd,
    capacity: NewCapacity,
    allocate: bool,
    shrink: bool,
}

impl Resizing<'_> {
    fn perform(&self, host: &Host, held: &Held<'_>, facts: &ImageFacts) -> Result<(), ApiError> {
        let Self {
            directory,
            file,
            capacity,
            allocate,
            shrink,
        } = *self;
        let stat = rustix::fs::fstat(file).map_err(|errno| held.os("look at", errno))?;
        let unsupported = |why: &str| Err(held.error(ApiErrorCode::Unsupported, why));
        let invalid = |why: &str| held.error(ApiErrorCode::InvalidArgument, why);
        let before = facts
            .size
            .unwrap_or(u64::try_from(stat.st_size).unwrap_or(0));
        let after = match capacity {
            NewCapacity::To(bytes) => Some(bytes),
            NewCapacity::More(bytes) => before.checked_add(bytes),
            // As libvirt has it: what there is not is not taken away.
            NewCapacity::Less(bytes) => Some(before.saturating_sub(bytes)),
        };
        let after = after.filter(|bytes| *bytes <= MAX_VOLUME_BYTES);
        let after = after.ok_or_else(|| invalid("no volume has that size"))?;
        if after < before && !shrink {
            let why = format!(
                "it has {before} bytes, and {after} are less: what is behind them would be lost; allow it to shrink \
                 if that is meant"
            );
            return Err(invalid(&why));
        }
        match disk_format(facts) {
            Some(DiskFormat::Raw) if allocate && after > before => {
                let task = ImageTask::Allocate {
                    from: before,
                    bytes: after,
                    size: after,
                };
                let done = perform(host, held, &task, &[file]);
                if done.is_err() {
                    // As long as it was: what could not be allocated is no part of it.
                    let _ = rustix::fs::ftruncate(file, before);
                }
                done
            }
            Some(DiskFormat::Raw) => {
                host.go_on(&held.pool.name)?;
                let done =
                    rustix::fs::ftruncate(file, after).and_then(|()| rustix::fs::fsync(file));
                done.map_err(|errno| held.os("resize", errno))
            }
            Some(DiskFormat::Qcow2) if allocate => {
                unsupported("only a raw volume is allocated as it becomes larger")
            }
            Some(DiskFormat::Qcow2) if after < before => unsupported(
                "a qcow2 image becomes no smaller here; 'qemu-img resize --shrink' can do it",
            ),
            Some(DiskFormat::Qcow2) => {
                let layer = Layer {
                    path: held.pool.path_of(held.name),
                    format: DiskFormat::Qcow2,
                };
                let Chained { formats, files } =
                    chain(host, held, directory, &layer, file.as_fd())?;
                let task = ImageTask::Grow {
                    size: after,
                    backing: formats,
                };
                let mut handed = vec![file];
                handed.extend(&files);
                perform(host, held, &task, &handed)
            }
            None => {
                let why = format!(
                    "it is of format {}, which is not resized",
                    facts.format.word()
                );
                unsupported(&why)
            }
        }
    }
}

impl Held<'_> {
    /// The same file, to be read only.
    fn reopened(&self, file: &OwnedFd) -> Result<OwnedFd, ApiError> {
        super::host::open(file.as_fd(), false).map_err(|errno| self.os("open", errno))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_took_the_name_meanwhile_is_not_the_one_that_was_locked() {
        let all = tempfile::tempdir().unwrap();
        let path = |name: &str| all.path().join(name);
        let directory = std::fs::File::open(all.path()).unwrap();
        std::fs::write(path("disk"), "old").unwrap();
        std::fs::write(path("new"), "new").unwrap();
        let name = "disk".parse().unwrap();
        let file = std::fs::File::open(path("disk")).unwrap();
        let still = || is_still(directory.as_fd(), &name, file.as_fd());
        assert_eq!(still(), Ok(true));
        std::fs::hard_link(path("disk"), path("other")).unwrap();
        std::fs::remove_file(path("disk")).unwrap();
        assert_eq!(still(), Err(Errno::NOENT));
        std::fs::rename(path("new"), path("disk")).unwrap();
        assert_eq!(still(), Ok(false));
        std::fs::remove_file(path("disk")).unwrap();
        std::os::unix::fs::symlink("other", path("disk")).unwrap();
        assert_eq!(still(), Ok(true), "by another way");
    }
}
