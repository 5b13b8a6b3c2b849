//! What pools take from the host: directories beneath the allowed ones, processes that handle images, and what
//! is kept on disk. Everything here may wait for a file system, and is for a thread that may.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::api::storage::{FileOwner, PoolSizes};
use reeve_ipc::model::{Permissions, Pool, PoolName, PoolUuid, VolumeName};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;

use super::end::End;
use super::lanes::Lanes;
use super::stream::Streams;
use super::view::{Stat, WANTED};
use crate::daemon::ConfiguredPaths;
use crate::host::image_lock::{ImageLockError, ImageUse, lock};
use crate::host::image_worker::{ImageWorker, ImageWorkers, Purpose, TaskError};
use crate::host::paths::{AllowedPaths, PathError, resolve};
use crate::host::reason;
use crate::store::{PoolStore, UnfinishedMark};

/// Mode of a directory that is made, where nobody says: as libvirt makes one.
const DIRECTORY_MODE: u32 = 0o711;

/// Directories that active pools have, by device and inode.
type Claims = BTreeMap<(u64, u64), (PoolUuid, PoolName)>;

/// The host as pools see it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Host {
    paths: Arc<ConfiguredPaths>,
    images: Option<ImageWorkers>,
    pub(super) store: Arc<PoolStore>,
    pub(super) lanes: Arc<Lanes>,
    pub(super) streams: Arc<Streams>,
    claims: Arc<Mutex<Claims>>,
    leftovers: Arc<Mutex<Vec<Arc<UnfinishedMark>>>>,
    /// Of the work for which this one is.
    end: End,
}

impl Host {
    /// With the directories that clients may name, and what starts processes for images; without that nothing
    /// but sizes is known of an image.
    pub(crate) fn new(
        paths: Arc<ConfiguredPaths>,
        images: Option<ImageWorkers>,
        store: PoolStore,
    ) -> Self {
        Self {
            paths,
            images,
            store: Arc::new(store),
            lanes: Arc::default(),
            streams: Arc::default(),
            claims: Arc::default(),
            leftovers: Arc::default(),
            end: End::default(),
        }
    }

    /// The same host for one piece of work, whose processes end with it.
    pub(super) fn for_work(&self, end: &End) -> Self {
        Self {
            end: end.clone(),
            ..self.clone()
        }
    }

    /// Whether the work was ended.
    pub(super) fn is_ended(&self) -> bool {
        self.end.is_now()
    }

    /// Refuses to go on with work that was ended: asked where it waited, and before what cannot be undone.
    ///
    /// # Errors
    /// [`ApiErrorCode::Cancelled`].
    pub(super) fn go_on(&self, pool: &PoolName) -> Result<(), ApiError> {
        match self.end.is_now() {
            false => Ok(()),
            true => Err(ended(pool)),
        }
    }

    /// The directories that may be named, as they are configured now.
    pub(super) fn allowed(&self) -> AllowedPaths {
        self.paths.allowed()
    }

    /// Starts a process for images, on the calling thread.
    pub(super) fn worker(&self, purpose: Purpose) -> Result<ImageWorker, TaskError> {
        match &self.images {
            Some(images) => {
                let worker = images.start(purpose)?;
                match self.end.holds(worker.socket()) {
                    true => Ok(worker),
                    false => Err(TaskError::Process("was ended".to_owned())),
                }
            }
            None => Err(TaskError::Process(
                "cannot be started: this instance has none".to_owned(),
            )),
        }
    }

    /// Has the file system of a pool's target answer, whatever that is.
    pub(super) fn touch(&self, pool: &Pool) {
        if let Ok(directory) = self.allowed().open_pool(&pool.target) {
            let _ = rustix::fs::fstatvfs(directory);
        }
    }

    /// Opens the directory that a pool's target names now.
    pub(super) fn target(&self, pool: &Pool) -> Result<OwnedFd, ApiError> {
        let opened = self.allowed().open_pool(&pool.target);
        let opened = opened.map_err(|error| path_error(&pool.name, &error))?;
        self.go_on(&pool.name)?;
        Ok(opened)
    }

    /// Opens the directory of an active pool: the one that it has claimed, and no other that has its path by now.
    ///
    /// # Errors
    /// [`ApiErrorCode::WrongState`]: it is another one.
    pub(super) fn directory(&self, pool: &Pool) -> Result<OwnedFd, ApiError> {
        let directory = self.target(pool)?;
        let identity = identity(pool, directory.as_fd())?;
        let claims = self.claims();
        let claimed = claims.get(&identity);
        match claimed.is_some_and(|(uuid, _)| *uuid == pool.uuid) {
            true => Ok(directory),
            false => Err(ApiError::new(
                ApiErrorCode::WrongState,
                format!(
                    "pool '{}': its target '{}' is not the directory that the pool was started with; refresh the \
                     pool, or stop and start it",
                    pool.name,
                    pool.target.display()
                ),
            )),
        }
    }

    /// Makes the directory of a pool; whether it was not there. One that was there is left as it is, as libvirt's
    /// clients expect: they are not root, and others' files may be in it.
    pub(super) fn build(&self, pool: &Pool) -> Result<bool, ApiError> {
        let Permissions { mode, owner, group } = pool.permissions;
        let bits = Mode::from_raw_mode(mode.unwrap_or(DIRECTORY_MODE));
        let going = || !self.end.is_now();
        let made = self.allowed().make_pool(&pool.target, bits, &going);
        self.go_on(&pool.name)?;
        let (directory, made) = made.map_err(|error| path_error(&pool.name, &error))?;
        if !made {
            return Ok(false);
        }
        let itself = format!("/proc/self/fd/{}", directory.as_raw_fd());
        let own = |errno| os(&pool.name, "own", &pool.target, errno);
        let there = rustix::fs::stat(&itself).map_err(own)?;
        // Whoever may write above it may have put another one in its place.
        let ours = there.st_uid == rustix::process::geteuid().as_raw();
        if !ours || !is_empty(&itself).map_err(own)? {
            return Ok(false);
        }
        self.go_on(&pool.name)?;
        if owner.is_some() || group.is_some() {
            rustix::fs::chown(&itself, uid(owner), gid(group)).map_err(own)?;
        }
        // Whatever the umask is.
        rustix::fs::chmod(&itself, bits).map_err(own)?;
        Ok(true)
    }

    /// Removes the directory of a pool, which must be empty.
    pub(super) fn remove(&self, pool: &Pool) -> Result<(), ApiError> {
        let going = || !self.end.is_now();
        let removed = self.allowed().remove_pool(&pool.target, &going);
        if removed.is_err() {
            self.go_on(&pool.name)?;
        }
        removed.map_err(|error| match error {
            PathError::Os {
                errno: Errno::NOTEMPTY | Errno::EXIST,
                ..
            } => {
                let (name, target) = (&pool.name, pool.target.display());
                let why = format!("pool '{name}': there is something in its target '{target}'");
                ApiError::new(ApiErrorCode::WrongState, why)
            }
            PathError::Os { errno, .. } => os(&pool.name, "remove", &pool.target, errno),
            error => path_error(&pool.name, &error),
        })
    }

    /// The file system of a pool's directory, and who owns that.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn sizes(&self, pool: &Pool) -> Result<(PoolSizes, FileOwner), ApiError> {
        let directory = self.directory(pool)?;
        let failed = |errno| os(&pool.name, "look at", &pool.target, errno);
        let system = rustix::fs::fstatvfs(&directory).map_err(failed)?;
        let stat = rustix::fs::statx(&directory, "", AtFlags::EMPTY_PATH, WANTED);
        let owner = Stat::of(&stat.map_err(failed)?).owner;
        let bytes = |blocks: u64| blocks.saturating_mul(system.f_frsize);
        let sizes = PoolSizes {
            capacity: bytes(system.f_blocks),
            allocation: bytes(system.f_blocks.saturating_sub(system.f_bfree)),
            available: bytes(system.f_bavail),
        };
        Ok((sizes, owner))
    }

    /// What an earlier supervisor did not finish.
    pub(super) fn left(&self, marks: Vec<UnfinishedMark>) {
        *self.leftover_marks() = marks.into_iter().map(Arc::new).collect();
    }

    fn leftover_marks(&self) -> MutexGuard<'_, Vec<Arc<UnfinishedMark>>> {
        // Nothing panics while it is held.
        let marks = self.leftovers.lock();
        marks.unwrap_or_else(PoisonError::into_inner)
    }

    /// What could not be removed in this run.
    pub(super) fn leave(&self, mark: UnfinishedMark) {
        self.leftover_marks().push(Arc::new(mark));
    }

    /// What of that was not found yet.
    pub(super) fn leftovers(&self) -> Vec<Arc<UnfinishedMark>> {
        self.leftover_marks().clone()
    }

    /// It is gone.
    pub(super) fn forget_leftover(&self, mark: &Arc<UnfinishedMark>) {
        match self.store.finished(mark) {
            Ok(()) => self.leftover_marks().retain(|other| other != mark),
            Err(error) => {
                tracing::warn!(%error, "the note of an unfinished volume could not be removed");
            }
        }
    }

    fn claims(&self) -> MutexGuard<'_, Claims> {
        // Nothing panics while it is held.
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a directory for a pool: whatever path leads to it, it is of one active pool.
    pub(super) fn claim(&self, pool: &Pool, directory: BorrowedFd<'_>) -> Result<(), ApiError> {
        let identity = identity(pool, directory)?;
        let mut claims = self.claims();
        // While it is held: whoever ends the work releases what it claimed after that.
        self.go_on(&pool.name)?;
        if let Some((uuid, name)) = claims.get(&identity) {
            if *uuid != pool.uuid {
                return Err(ApiError::new(
                    ApiErrorCode::PoolExists,
                    format!(
                        "pool '{}': its target '{}' is that of pool '{name}' already",
                        pool.name,
                        pool.target.display()
                    ),
                ));
            }
        }
        claims.retain(|_, (uuid, _)| *uuid != pool.uuid);
        claims.insert(identity, (pool.uuid, pool.name.clone()));
        Ok(())
    }

    /// The active pool whose directory that is.
    pub(super) fn pool_of(&self, directory: BorrowedFd<'_>) -> Option<PoolName> {
        let stat = rustix::fs::fstat(directory).ok()?;
        let claims = self.claims();
        let claimed = claims.get(&(stat.st_dev, stat.st_ino));
        claimed.map(|(_, name)| name.clone())
    }

    /// Gives up what a pool had taken.
    pub(super) fn release(&self, uuid: PoolUuid) {
        self.claims().retain(|_, (of, _)| *of != uuid);
    }
}

fn identity(pool: &Pool, directory: BorrowedFd<'_>) -> Result<(u64, u64), ApiError> {
    let stat = rustix::fs::fstat(directory);
    let stat = stat.map_err(|errno| os(&pool.name, "look at", &pool.target, errno))?;
    Ok((stat.st_dev, stat.st_ino))
}

/// The inode of a directory, which stays its own over mounts and boots.
pub(super) fn inode(directory: BorrowedFd<'_>) -> Option<u64> {
    rustix::fs::fstat(directory).ok().map(|stat| stat.st_ino)
}

fn is_empty(directory: &str) -> Result<bool, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(directory, flags, Mode::empty())?;
    for entry in rustix::fs::Dir::read_from(&directory)? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// That work was ended before it was done.
pub(super) fn ended(pool: &PoolName) -> ApiError {
    ApiError::new(
        ApiErrorCode::Cancelled,
        format!("pool '{pool}': the work was ended before it was done"),
    )
}

pub(super) fn uid(number: Option<u32>) -> Option<Uid> {
    // The highest number stands for whoever it is.
    number.filter(|n| *n != u32::MAX).map(Uid::from_raw)
}

pub(super) fn gid(number: Option<u32>) -> Option<Gid> {
    number.filter(|n| *n != u32::MAX).map(Gid::from_raw)
}

/// A volume's file, only looked at: no link is followed out of the directory.
pub(super) fn find(directory: BorrowedFd<'_>, name: &VolumeName) -> Result<OwnedFd, Errno> {
    let look = OFlags::PATH | OFlags::CLOEXEC;
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    resolve(directory, Path::new(name.as_str()), look, beneath)
}

/// What a file that was found is, and what the kernel says of it.
pub(super) fn examine(found: BorrowedFd<'_>) -> Result<(FileType, Stat), Errno> {
    let stat = rustix::fs::statx(found, "", AtFlags::EMPTY_PATH, WANTED)?;
    let kind = FileType::from_raw_mode(u32::from(stat.stx_mode));
    Ok((kind, Stat::of(&stat)))
}

/// Opens a file that was found.
pub(super) fn open(found: BorrowedFd<'_>, write: bool) -> Result<OwnedFd, Errno> {
    let access = if write { OFlags::RDWR } else { OFlags::RDONLY };
    let itself = format!("/proc/self/fd/{}", found.as_raw_fd());
    // A lease that somebody holds must not hold us up.
    let flags = access | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::open(itself, flags, Mode::empty())?;
    rustix::fs::fcntl_setfl(&file, access)?;
    Ok(file)
}

/// A volume's file, opened and held as a machine would hold it.
pub(super) struct Held<'a> {
    pub(super) pool: &'a Pool,
    pub(super) name: &'a VolumeName,
}

impl Held<'_> {
    /// Opens a regular file; with `used` it is locked as that, or refused where somebody else uses it.
    pub(super) fn open(
        &self,
        directory: BorrowedFd<'_>,
        write: bool,
        used: Option<ImageUse>,
    ) -> Result<OwnedFd, ApiError> {
        let found = find(directory, self.name).map_err(|errno| self.os("open", errno))?;
        let (kind, _) = examine(found.as_fd()).map_err(|errno| self.os("look at", errno))?;
        if kind != FileType::RegularFile {
            let why = match kind {
                FileType::Directory => "it is a directory, and no file",
                _ => "it is no file",
            };
            return Err(self.error(ApiErrorCode::Unsupported, why));
        }
        let file = open(found.as_fd(), write).map_err(|errno| self.os("open", errno))?;
        if let Some(used) = used {
            lock(file.as_fd(), used).map_err(|error| match error {
                ImageLockError::Os(_) => self.error(ApiErrorCode::Host, &error.to_string()),
                error => self.error(ApiErrorCode::InUse, &error.to_string()),
            })?;
            // Whoever removed it had it locked until it was gone.
            let stat = rustix::fs::fstat(&file).map_err(|errno| self.os("look at", errno))?;
            if stat.st_nlink == 0 {
                return Err(self.os("open", Errno::NOENT));
            }
        }
        Ok(file)
    }

    pub(super) fn os(&self, verb: &str, errno: Errno) -> ApiError {
        let why = format!("cannot {verb} its file: {}", reason(errno));
        match errno {
            Errno::NOENT => self.error(ApiErrorCode::NoVolume, "there is none in its directory"),
            Errno::XDEV | Errno::LOOP => self.error(
                ApiErrorCode::PathRefused,
                "it is a symbolic link that leads out of the pool",
            ),
            errno => self.error(code_of(errno), &why),
        }
    }

    pub(super) fn error(&self, code: ApiErrorCode, why: &str) -> ApiError {
        let called = super::view::called(&self.pool.name, self.name);
        ApiError::new(code, format!("{called}: {why}"))
    }

    pub(super) fn task(&self, error: &TaskError) -> ApiError {
        let code = match error {
            TaskError::Refused {
                errno: Some(errno), ..
            } => code_of(*errno),
            TaskError::Refused { errno: None, .. } => ApiErrorCode::Unsupported,
            TaskError::Process(_) => ApiErrorCode::Worker,
            TaskError::Slow(_) => ApiErrorCode::Timeout,
        };
        self.error(code, &error.to_string())
    }
}

pub(super) fn code_of(errno: Errno) -> ApiErrorCode {
    match errno {
        Errno::NOSPC | Errno::DQUOT | Errno::FBIG => ApiErrorCode::NoSpace,
        Errno::OPNOTSUPP => ApiErrorCode::Unsupported,
        _ => ApiErrorCode::Host,
    }
}

fn os(pool: &PoolName, verb: &str, path: &Path, errno: Errno) -> ApiError {
    ApiError::new(
        code_of(errno),
        format!(
            "pool '{pool}': cannot {verb} its target '{}': {}",
            path.display(),
            reason(errno)
        ),
    )
}

fn path_error(pool: &PoolName, error: &PathError) -> ApiError {
    let (code, mend) = match error {
        PathError::Os { errno, .. } => match *errno {
            Errno::NOENT => (ApiErrorCode::Host, "; build the pool first"),
            errno => (code_of(errno), ""),
        },
        _ => (ApiErrorCode::PathRefused, ""),
    };
    ApiError::new(code, format!("pool '{pool}': {error}{mend}"))
}
