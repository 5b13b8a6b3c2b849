//! A volume that is there: resized, wiped, removed, opened for a client.
//!
//! Each takes the locks that a machine which writes the image would take, so that none of it is done beneath a
//! machine, whoever runs it.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use reeve_ipc::api::call::{NewCapacity, VolumeStream};
use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::api::storage::VolumeFormat;
use reeve_ipc::image::ImageTask;
use reeve_ipc::model::{Layer, MAX_VOLUME_BYTES, Pool, VolumeName};
use reeve_ipc::spec::DiskFormat;
use rustix::fs::{AtFlags, FileType, SeekFrom};

use super::chain::{Chained, chain};
use super::host::{Held, Host, examine, find};
use super::scan::{Prober, one};
use super::view::Entry;
use crate::host::image_lock::ImageUse;
use crate::host::image_worker::Purpose;

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
        let why = "it is a directory, which is left alone; remove it by other means";
        return Err(held.error(ApiErrorCode::Unsupported, why));
    }
    let file = held.open(directory.as_fd(), true, Some(ImageUse::Write))?;
    match change {
        Change::Resize {
            capacity,
            allocate,
            shrink,
        } => resize(host, &held, &file, capacity, allocate, shrink)?,
        Change::Wipe => wipe(host, &held, &file)?,
        Change::Delete { zeroed } => {
            if zeroed {
                wipe(host, &held, &file)?;
            }
            // What took its name meanwhile is another file.
            let now = find(directory.as_fd(), name).and_then(|now| rustix::fs::fstat(&now));
            let opened = rustix::fs::fstat(&file);
            let same = now.and_then(|now| {
                let opened = opened?;
                Ok((now.st_dev, now.st_ino) == (opened.st_dev, opened.st_ino))
            });
            if !same.map_err(|errno| held.os("look at", errno))? {
                let why = "another file has its name by now; refresh the pool";
                return Err(held.error(ApiErrorCode::InUse, why));
            }
            host.go_on(&pool.name)?;
            let unlinked = rustix::fs::unlinkat(&directory, name.as_str(), AtFlags::empty());
            unlinked.map_err(|errno| held.os("remove", errno))?;
            rustix::fs::fsync(&directory).map_err(|errno| held.os("remove", errno))?;
            return Ok(None);
        }
    }
    Ok(one(host, directory.as_fd(), name, None))
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

fn resize(
    host: &Host,
    held: &Held<'_>,
    file: &OwnedFd,
    capacity: NewCapacity,
    allocate: bool,
    shrink: bool,
) -> Result<(), ApiError> {
    let stat = rustix::fs::fstat(file).map_err(|errno| held.os("look at", errno))?;
    let again = held.reopened(file)?;
    let facts = Prober::new(host).probe(vec![again]).into_iter().next();
    let Some(facts) = facts else { return Ok(()) };
    let unsupported = |why: &str| Err(held.error(ApiErrorCode::Unsupported, why));
    let invalid = |why: &str| held.error(ApiErrorCode::InvalidArgument, why);
    if let Some(why) = &facts.unreadable {
        return unsupported(why);
    }
    let before = facts
        .size
        .unwrap_or(u64::try_from(stat.st_size).unwrap_or(0));
    let after = match capacity {
        NewCapacity::To(bytes) => Some(bytes),
        NewCapacity::More(bytes) => before.checked_add(bytes),
        NewCapacity::Less(bytes) => before.checked_sub(bytes),
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
    match facts.format {
        VolumeFormat::Raw | VolumeFormat::Iso if allocate && after > before => {
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
        VolumeFormat::Raw | VolumeFormat::Iso => {
            let done = rustix::fs::ftruncate(file, after).and_then(|()| rustix::fs::fsync(file));
            done.map_err(|errno| held.os("resize", errno))
        }
        VolumeFormat::Qcow2 if allocate => {
            unsupported("only a raw volume is allocated as it becomes larger")
        }
        VolumeFormat::Qcow2 if after < before => unsupported(
            "a qcow2 image becomes no smaller here; 'qemu-img resize --shrink' can do it",
        ),
        VolumeFormat::Qcow2 => {
            let layer = Layer {
                path: held.pool.path_of(held.name),
                format: DiskFormat::Qcow2,
            };
            let Chained { formats, files } = chain(host, held, &layer, file.as_fd())?;
            let task = ImageTask::Grow {
                size: after,
                backing: formats,
            };
            let mut handed = vec![file];
            handed.extend(&files);
            perform(host, held, &task, &handed)
        }
        VolumeFormat::Directory | VolumeFormat::Other(_) => {
            let why = format!(
                "it is of format {}, which is not resized",
                facts.format.word()
            );
            unsupported(&why)
        }
    }
}

impl Held<'_> {
    /// The same file, to be read only.
    fn reopened(&self, file: &OwnedFd) -> Result<OwnedFd, ApiError> {
        super::host::open(file.as_fd(), false).map_err(|errno| self.os("open", errno))
    }
}

/// Opens a volume's file for a client. The descriptor is of the file itself: whoever may write volumes may
/// write any byte of any of them, and could name the file as a disk, so that a pipe between would keep nothing from it.
/// With the file it finds out by itself where there are holes and when there is no room, the supervisor moves no byte,
/// and the locks of the image go with the descriptor and end with it.
pub(super) fn stream(
    host: &Host,
    pool: &Pool,
    name: &VolumeName,
    write: bool,
    offset: u64,
    length: u64,
) -> Result<(VolumeStream, OwnedFd), ApiError> {
    let held = Held { pool, name };
    let invalid = |why: &str| held.error(ApiErrorCode::InvalidArgument, why);
    let directory = host.directory(pool)?;
    let used = write.then_some(ImageUse::Write);
    let file = held.open(directory.as_fd(), write, used)?;
    let most = match write {
        true => MAX_VOLUME_BYTES,
        false => {
            let stat = rustix::fs::fstat(&file).map_err(|errno| held.os("look at", errno))?;
            u64::try_from(stat.st_size).unwrap_or(0)
        }
    };
    let left = most
        .checked_sub(offset)
        .ok_or_else(|| invalid("it does not reach as far as the offset"))?;
    let length = match length {
        0 => left,
        length if write && length > left => {
            return Err(invalid("no file has so many bytes"));
        }
        length => length.min(left),
    };
    let begin = rustix::fs::seek(&file, SeekFrom::Start(offset));
    begin.map_err(|errno| held.os("read", errno))?;
    Ok((VolumeStream { offset, length }, file))
}
