//! A volume that is made, of nothing or of another one.
//!
//! ```text
//!   noted on disk ─► file of an unfinished name ─► owner, mode ─► filled by a jailed process ─► on stable storage
//!                                                                                                      │
//!   note removed  ◄── directory on stable storage ◄── renamed, if the name is free ◄───────────────────┘
//! ```
//!
//! The name appears in the directory only with a finished volume behind it. libvirt has it there while the
//! volume is being made; what a supervisor leaves that dies meanwhile would then be removed by a name that
//! somebody may have given to another file since. So the name is ours until the end, and whoever asks the
//! supervisor is told of the volume all the same, with what it has so far.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::api::storage::VolumeFormat;
use reeve_ipc::image::{ImageTask, NewImage};
use reeve_ipc::model::{Layer, MAX_VOLUME_BYTES, Permissions, Pool, UNFINISHED_PREFIX, VolumeName};
use reeve_ipc::spec::DiskFormat;
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use super::chain::Chained;
use super::host::{Held, Host, code_of, gid, inode, uid};
use super::scan::{Prober, is_unfinished, one};
pub(super) use super::source::Source;
use super::view::{Building, Entry};
use crate::crash::{self, Moment, Operation};
use crate::domain::plan::ImageAccess;
use crate::host::image_lock::{ImageUse, lock};
use crate::host::image_worker::{ImageWorker, Purpose};
use crate::host::reason;
use crate::store::Unfinished;

/// Mode of a volume's file, where nobody says.
const FILE_MODE: u32 = 0o600;

/// What a volume is made with beside what it is.
#[derive(Debug, Clone)]
pub struct Making {
    /// All tables of a qcow2 image at once.
    pub preallocate_metadata: bool,
    /// Blocks are shared with what it is a copy of, or it is not made.
    pub reflink: bool,
    /// What it is a copy of.
    pub from: Option<Original>,
}

/// A volume that is copied.
#[derive(Debug, Clone)]
pub struct Original {
    /// Its pool.
    pub pool: Pool,
    /// Its name.
    pub name: VolumeName,
    /// What is in it, where whoever asks knows.
    pub format: Option<DiskFormat>,
}

/// Makes it.
pub(super) fn make(
    host: &Host,
    pool: &Pool,
    building: &Building,
    making: &Making,
    source: Option<Source>,
) -> Result<Arc<Entry>, ApiError> {
    let name = &building.volume.name;
    let held = Held { pool, name };
    if is_unfinished(name) {
        let why = format!("its name must not begin with '{UNFINISHED_PREFIX}'");
        return Err(held.error(ApiErrorCode::InvalidArgument, &why));
    }
    let directory = host.directory(pool)?;
    let there = rustix::fs::statat(&directory, name.as_str(), AtFlags::SYMLINK_NOFOLLOW);
    match there {
        Err(Errno::NOENT) => {}
        Ok(_) => return Err(exists(&held)),
        Err(errno) => return Err(held.os("look at", errno)),
    }
    let drawn = draw(&held)?;
    let mark = host.store.unfinished(Unfinished {
        target: pool.target.clone(),
        name: drawn,
        directory: inode(directory.as_fd()),
    });
    let mark = mark.map_err(|error| held.error(ApiErrorCode::Storage, &error.to_string()))?;
    point(Moment::AfterMark);
    let work = Work {
        host,
        held,
        building,
        making,
        directory: directory.as_fd(),
        unfinished: &mark.of.name,
    };
    let made = work.make(source);
    let cleared = match &made {
        Ok(cleared) => *cleared,
        Err(_) => {
            let removed = rustix::fs::unlinkat(&directory, &mark.of.name, AtFlags::empty());
            matches!(removed, Ok(()) | Err(Errno::NOENT))
        }
    };
    if cleared {
        // Looked for again when the daemon starts next, where it cannot be removed: nothing has that name then.
        if let Err(error) = host.store.finished(&mark) {
            tracing::warn!(%error, "the note of a finished volume could not be removed");
        }
    } else {
        host.leave(mark);
    }
    made?;
    let held = Held { pool, name };
    let entry = one(host, directory.as_fd(), name, None);
    entry.ok_or_else(|| held.error(ApiErrorCode::Host, "it was removed when it was made"))
}

fn point(moment: Moment) {
    crash::point(Operation::VolumeCreate, moment);
}

fn exists(held: &Held<'_>) -> ApiError {
    let why = "its directory has a file of this name already; choose another";
    held.error(ApiErrorCode::VolumeExists, why)
}

/// A name that nobody else has.
fn draw(held: &Held<'_>) -> Result<String, ApiError> {
    let mut bytes = [0; 16];
    // So few come whole, or not at all.
    let drawn = getrandom(&mut bytes, GetRandomFlags::empty());
    drawn.map_err(|errno| held.error(ApiErrorCode::Host, &reason(errno)))?;
    Ok(format!(
        "{UNFINISHED_PREFIX}{:032x}",
        u128::from_ne_bytes(bytes)
    ))
}

struct Work<'a> {
    host: &'a Host,
    held: Held<'a>,
    building: &'a Building,
    making: &'a Making,
    directory: BorrowedFd<'a>,
    unfinished: &'a str,
}

impl Work<'_> {
    /// Makes it; whether nothing has the unfinished name any more.
    fn make(&self, source: Option<Source>) -> Result<bool, ApiError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let mode = Mode::from_raw_mode(FILE_MODE);
        let file = rustix::fs::openat(
            self.directory,
            self.unfinished,
            flags | OFlags::CLOEXEC,
            mode,
        );
        let file = file.map_err(|errno| self.held.os("make", errno))?;
        point(Moment::AfterFile);
        if let Ok(again) = rustix::io::fcntl_dupfd_cloexec(&file, 0) {
            self.building.file.set(again);
        }
        // What cannot be is said before anything is copied.
        own(&self.held, file.as_fd(), self.building.volume.permissions)?;
        match source {
            None => self.fill_new(&file)?,
            Some(source) => self.fill_copy(&file, source)?,
        }
        self.finish(&file)
    }

    fn new_image(&self, size: u64, backing: Option<(String, DiskFormat)>) -> NewImage {
        let new = &self.building.volume;
        let allocate = new.allocation.is_some_and(|bytes| bytes > 0);
        NewImage {
            size,
            options: new.qcow2,
            backing,
            preallocate: self.making.preallocate_metadata,
            allocate,
        }
    }

    fn worker(&self) -> Result<ImageWorker, ApiError> {
        let worker = self.host.worker(Purpose::Write);
        worker.map_err(|error| self.held.task(&error))
    }

    fn perform(&self, task: &ImageTask, files: &[BorrowedFd<'_>]) -> Result<(), ApiError> {
        let done = self.worker()?.perform(task, files, None);
        done.map_err(|error| self.held.task(&error))
    }

    fn fill_new(&self, file: &OwnedFd) -> Result<(), ApiError> {
        let new = &self.building.volume;
        let backing = match &new.backing {
            Some(layer) => Some(self.backing(layer)?),
            None => None,
        };
        let capacity = new.capacity.or(backing.as_ref().map(|(_, size)| *size));
        let capacity = self.sized(capacity.unwrap_or(0))?;
        match new.format {
            DiskFormat::Raw => self.lengthen(file, capacity),
            DiskFormat::Qcow2 => {
                let image = self.new_image(capacity, backing.map(|(backing, _)| backing));
                self.perform(&ImageTask::Create(image), &[file.as_fd()])
            }
        }
    }

    /// Notes how large it becomes.
    fn sized(&self, capacity: u64) -> Result<u64, ApiError> {
        if capacity > MAX_VOLUME_BYTES {
            let why = format!("{capacity} bytes are more than a file can have");
            return Err(self.held.error(ApiErrorCode::InvalidArgument, &why));
        }
        let _ = self.building.capacity.set(capacity);
        Ok(capacity)
    }

    /// Makes a plain file as large as it is to be.
    fn lengthen(&self, file: &OwnedFd, capacity: u64) -> Result<(), ApiError> {
        let bytes = self.building.volume.allocation.unwrap_or(0).min(capacity);
        if bytes == 0 {
            let sized = rustix::fs::ftruncate(file, capacity);
            return sized.map_err(|errno| self.held.os("lengthen", errno));
        }
        let task = ImageTask::Allocate {
            from: 0,
            bytes,
            size: capacity,
        };
        self.perform(&task, &[file.as_fd()])
    }

    /// What it builds upon, as it is written down, and how large that is.
    fn backing(&self, layer: &Layer) -> Result<((String, DiskFormat), u64), ApiError> {
        let invalid = |why: &str| {
            let why = format!("its backing file '{}': {why}", layer.path.display());
            self.held.error(ApiErrorCode::InvalidArgument, &why)
        };
        let access = ImageAccess {
            write: false,
            direct: false,
        };
        let allowed = self.host.allowed();
        let file = allowed.open_image("backing file", &layer.path, access);
        let file = file.map_err(|error| {
            self.held
                .error(ApiErrorCode::PathRefused, &error.to_string())
        })?;
        let used = lock(file.as_fd(), ImageUse::Read);
        used.map_err(|error| self.held.error(ApiErrorCode::InUse, &error.to_string()))?;
        let size = match layer.format {
            DiskFormat::Raw => {
                let end = rustix::fs::seek(&file, rustix::fs::SeekFrom::End(0));
                end.map_err(|errno| invalid(&reason(errno)))?
            }
            DiskFormat::Qcow2 => {
                let facts = Prober::new(self.host).probe(vec![file]).into_iter().next();
                let facts = facts.filter(|facts| facts.format == VolumeFormat::Qcow2);
                let facts = facts.ok_or_else(|| invalid("it is no qcow2 image"))?;
                if let Some(why) = &facts.unreadable {
                    return Err(invalid(why));
                }
                facts.size.unwrap_or(0)
            }
        };
        let name = layer
            .path
            .to_str()
            .ok_or_else(|| invalid("it is no UTF-8"))?;
        Ok(((name.to_owned(), layer.format), size))
    }

    fn fill_copy(&self, file: &OwnedFd, source: Source) -> Result<(), ApiError> {
        let new = &self.building.volume;
        let size = self.sized(new.capacity.unwrap_or(0).max(source.size))?;
        if !source.as_it_is {
            if self.making.reflink {
                let why = "blocks are shared with a volume of the same format only";
                return Err(self.held.error(ApiErrorCode::Unsupported, why));
            }
            return self.convert(file, source, size);
        }
        match rustix::fs::ioctl_ficlone(file, &source.file) {
            Ok(()) => {}
            Err(errno) if self.making.reflink => {
                let why = format!("its file system shares no blocks: {}", reason(errno));
                return Err(self.held.error(ApiErrorCode::Unsupported, &why));
            }
            Err(_) => self.perform(&ImageTask::Copy, &[file.as_fd(), source.file.as_fd()])?,
        }
        match new.format {
            DiskFormat::Raw => {
                let bytes = new.allocation.unwrap_or(0);
                if bytes > 0 || size > source.size {
                    let task = ImageTask::Allocate {
                        from: 0,
                        bytes: bytes.min(size),
                        size,
                    };
                    self.perform(&task, &[file.as_fd()])?;
                }
                Ok(())
            }
            DiskFormat::Qcow2 if size > source.size => {
                let Chained { formats, files } = source.chained;
                let mut handed = vec![file.as_fd()];
                handed.extend(files.iter().map(AsFd::as_fd));
                let task = ImageTask::Grow {
                    size,
                    backing: formats,
                };
                self.perform(&task, &handed)
            }
            DiskFormat::Qcow2 => Ok(()),
        }
    }

    fn convert(&self, file: &OwnedFd, source: Source, size: u64) -> Result<(), ApiError> {
        let Chained { formats, files } = source.chained;
        let new = &self.building.volume;
        let task = ImageTask::Convert {
            to: match new.format {
                DiskFormat::Raw => None,
                DiskFormat::Qcow2 => Some(self.new_image(size, None)),
            },
            from: source.format,
            backing: formats,
            size,
            allocate: new.allocation.is_some_and(|bytes| bytes > 0),
        };
        let mut handed = vec![file.as_fd(), source.file.as_fd()];
        handed.extend(files.iter().map(AsFd::as_fd));
        self.perform(&task, &handed)
    }

    /// Gives it, once it is on stable storage, its name; whether nothing has the unfinished one any more. With the name it is made,
    /// and what goes wrong behind that is for the log.
    fn finish(&self, file: &OwnedFd) -> Result<bool, ApiError> {
        let name = &self.building.volume.name;
        rustix::fs::fsync(file).map_err(|errno| self.held.os("write", errno))?;
        point(Moment::AfterWrite);
        self.host.go_on(&self.held.pool.name)?;
        let (from, to) = (self.unfinished, name.as_str());
        let late = |what: &str, errno: Errno| {
            let called = super::view::called(&self.held.pool.name, name);
            tracing::error!("{called}: it is made, but {what}: {}", reason(errno));
        };
        let cleared = give_name(self.directory, from, to, late).map_err(|errno| match errno {
            Errno::EXIST => exists(&self.held),
            errno => self.held.os("name", errno),
        })?;
        if let Err(errno) = rustix::fs::fsync(self.directory) {
            late("its name may not be on stable storage", errno);
        }
        point(Moment::AfterRename);
        Ok(cleared)
    }
}

/// Gives a file its owner and its mode.
fn own(held: &Held<'_>, file: BorrowedFd<'_>, permissions: Permissions) -> Result<(), ApiError> {
    let Permissions { mode, owner, group } = permissions;
    if owner.is_some() || group.is_some() {
        rustix::fs::fchown(file, uid(owner), gid(group)).map_err(|errno| {
            let number = |number: Option<u32>| number.map_or("-".to_owned(), |n| n.to_string());
            let why = format!(
                "cannot make {}:{} its owner: {}; leave its owner and group out, or let reeved change owners \
                 (CAP_CHOWN)",
                number(owner),
                number(group),
                reason(errno)
            );
            held.error(code_of(errno), &why)
        })?;
    }
    let mode = Mode::from_raw_mode(mode.unwrap_or(FILE_MODE));
    rustix::fs::fchmod(file, mode).map_err(|errno| held.os("set the mode of", errno))
}

/// Renames a file, and over none; whether the old name is gone.
fn give_name(
    directory: BorrowedFd<'_>,
    from: &str,
    to: &str,
    late: impl FnOnce(&str, Errno),
) -> Result<bool, Errno> {
    match rustix::fs::renameat_with(directory, from, directory, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(true),
        // A file system without it: a link is never made over another file.
        Err(Errno::INVAL | Errno::NOSYS) => {
            rustix::fs::linkat(directory, from, directory, to, AtFlags::empty())?;
            let unlinked = rustix::fs::unlinkat(directory, from, AtFlags::empty());
            if let Err(errno) = unlinked {
                late(
                    "its file has another name too, which is removed later",
                    errno,
                );
            }
            Ok(unlinked.is_ok())
        }
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use reeve_ipc::model::PoolUuid;
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn an_owner_that_cannot_be_set_is_refused_in_words_that_name_it() {
        let pool = Pool {
            name: "images".parse().unwrap(),
            uuid: PoolUuid(Uuid::nil()),
            target: "/images".into(),
            permissions: Permissions::default(),
        };
        let name = "disk".parse().unwrap();
        let held = Held {
            pool: &pool,
            name: &name,
        };
        // Of this thread alone, as where the daemon may not change owners.
        let mut own_ones = capabilities(None).unwrap();
        own_ones.effective.remove(CapabilitySet::CHOWN);
        set_capabilities(None, own_ones).unwrap();
        let file = tempfile::tempfile().unwrap();
        let owned_by = |owner, group| {
            let permissions = Permissions {
                mode: Some(0o640),
                owner,
                group,
            };
            own(&held, file.as_fd(), permissions)
        };
        let error = owned_by(Some(64055), Some(108)).unwrap_err();
        assert!(
            error.message.contains("cannot make 64055:108 its owner"),
            "{error}"
        );
        assert!(
            error.message.contains("leave its owner and group out"),
            "{error}"
        );
        // What it is already it may be.
        let stat = file.metadata().unwrap();
        owned_by(Some(stat.uid()), Some(stat.gid())).unwrap();
        owned_by(None, None).unwrap();
        assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o640);
    }

    #[test]
    fn a_name_is_given_once_and_never_taken() {
        let all = tempfile::tempdir().unwrap();
        let directory = std::fs::File::open(all.path()).unwrap();
        let write = |name: &str| std::fs::write(all.path().join(name), name).unwrap();
        let give = |from, to| give_name(directory.as_fd(), from, to, |_, _| ());
        write("unfinished");
        assert_eq!(give("unfinished", "disk"), Ok(true));
        assert_eq!(give("unfinished", "disk"), Err(Errno::NOENT));
        write("unfinished");
        assert_eq!(give("unfinished", "disk"), Err(Errno::EXIST));
        let disk = std::fs::read_to_string(all.path().join("disk")).unwrap();
        assert_eq!(disk, "unfinished");
    }
}
