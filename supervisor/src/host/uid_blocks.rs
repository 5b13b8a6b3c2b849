//! Which uids an instance's workers have: blocks that instances of one host claim, first come first
//! served.
//!
//! ```text
//!   0x7265_0000 ── block 0: `reeve run`, by locks on single bytes (`identity.rs`)
//!   0x7265_0400 ── block 1: /run/reeve/uid-blocks/1 -> /var/lib/reeve
//!   0x7265_0800 ── block 2: /run/reeve/uid-blocks/2 -> another instance's state directory
//!       ...         up to block 63
//! ```
//!
//! Workers outlive their supervisor, so a claim must too: it is a symbolic link, which the next
//! supervisor of the same state directory finds. Which uids of its blocks are in use an instance
//! knows from its own run-time statuses and marks them after a restart. A link to a state directory
//! that is gone may be taken over, once no process has a uid of that block. All claims are made under
//! a lock on the directory of links. That directory may be wiped under a running instance, and a block
//! be another's then: before a uid is handed out its block's link is looked at.
//!
//! Invariant: within this process `used` names every uid that was handed out and not released.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::DirBuilder;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Uid, WaitId, WaitIdOptions, waitid};

use super::identity::{FIRST_UID, UID_COUNT};
use super::reason;

/// How many uids a block has.
pub const BLOCK_UIDS: u32 = 1024;
/// Where instances claim blocks.
pub const REGISTRY: &str = "/run/reeve/uid-blocks";

/// Whoever holds the lock on the registry makes or replaces one link.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// Why there is no uid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UidBlockError {
    /// The registry cannot be used.
    #[error("cannot {action} {path}, which shares uids out among instances: {reason}",
        path = .path.display(), reason = reason(*.errno))]
    Registry {
        /// The verb.
        action: &'static str,
        /// The directory or the link.
        path: PathBuf,
        /// Why.
        errno: Errno,
    },
    /// Another process holds the registry's lock for good.
    #[error("{path} stays locked by another process; look for a stopped reeved", path = .path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// Every block is another instance's.
    #[error(
        "all {blocks} blocks of uids are claimed by other instances, see {path}: remove the state \
         directory of one that is not used any more",
        path = .path.display()
    )]
    Exhausted {
        /// How many there are for instances.
        blocks: u32,
        /// The registry.
        path: PathBuf,
    },
    /// A uid of an earlier supervisor's that is not this instance's.
    #[error("uid {uid} belongs to another instance or to no block of workers' uids")]
    Foreign {
        /// The uid.
        uid: u32,
    },
}

/// How the range is cut up.
#[derive(Debug, Clone, Copy)]
struct Layout {
    first_uid: u32,
    block_uids: u32,
    /// With block 0, which is no instance's.
    blocks: u32,
}

/// The uids of one instance.
#[derive(Debug)]
pub struct UidBlocks {
    registry: PathBuf,
    state_directory: PathBuf,
    layout: Layout,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    blocks: BTreeSet<u32>,
    /// With how many have it: one, but for what an earlier supervisor recorded of a domain that was gone when
    /// another got its uid, and had not taken away when it ended.
    used: BTreeMap<u32, u32>,
    /// Where the last uid was found; the next is looked for behind it, so that a uid rests before
    /// it is used again.
    last: u32,
}

impl UidBlocks {
    /// The blocks of the instance with this state directory, which must exist; those that an earlier
    /// supervisor of it claimed are its own again. None is claimed before one is needed.
    ///
    /// # Errors
    /// [`UidBlockError::Registry`].
    pub fn open(registry: &Path, state_directory: &Path) -> Result<Self, UidBlockError> {
        let layout = Layout {
            first_uid: FIRST_UID,
            block_uids: BLOCK_UIDS,
            blocks: UID_COUNT / BLOCK_UIDS,
        };
        Self::with_layout(registry, state_directory, layout)
    }

    fn with_layout(
        registry: &Path,
        state_directory: &Path,
        layout: Layout,
    ) -> Result<Self, UidBlockError> {
        // One directory, one name: whatever links lead to it.
        let state_directory = state_directory
            .canonicalize()
            .map_err(|error| refuse("find", state_directory)(errno(&error)))?;
        let this = Self {
            registry: registry.to_owned(),
            state_directory,
            layout,
            held: Mutex::new(Held::default()),
        };
        let directory = this.open_registry()?;
        let mut held = this.held();
        for block in 1..layout.blocks {
            if this.owner(&directory, block)?.as_deref() == Some(&this.state_directory) {
                held.blocks.insert(block);
            }
        }
        drop(held);
        Ok(this)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // Nothing panics while it is held.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A uid that no other worker has, on the whole host.
    ///
    /// # Errors
    /// [`UidBlockError::Exhausted`], [`UidBlockError::Registry`], [`UidBlockError::Locked`].
    pub fn allocate(&self) -> Result<u32, UidBlockError> {
        let mut held = self.held();
        let uid = loop {
            match self.free(&held) {
                Some(uid) => {
                    let block = (uid - self.layout.first_uid) / self.layout.block_uids;
                    if !self.is_still_ours(block)? {
                        tracing::error!(
                            block,
                            "a block of workers' uids is another instance's now: was {} wiped?",
                            self.registry.display()
                        );
                        held.blocks.remove(&block);
                    } else if has_process(uid) {
                        // Its status could not be read, or is gone.
                        held.used.insert(uid, 1);
                    } else {
                        break uid;
                    }
                }
                None => {
                    let block = self.claim_any(&held.blocks)?;
                    held.blocks.insert(block);
                }
            }
        };
        held.used.insert(uid, 1);
        held.last = uid;
        Ok(uid)
    }

    /// Whether the link of a block that was claimed still is ours; one that is gone is made again.
    fn is_still_ours(&self, block: u32) -> Result<bool, UidBlockError> {
        let ours = |owner: Option<PathBuf>| owner.map(|owner| owner == self.state_directory);
        if let Some(ours) = ours(self.owner(&self.open_registry()?, block)?) {
            return Ok(ours);
        }
        let directory = self.lock()?;
        if let Some(ours) = ours(self.owner(&directory, block)?) {
            return Ok(ours);
        }
        self.link(&directory, block)?;
        Ok(true)
    }

    /// The processes with a uid of this instance's that is not in use, as pid and uid. Looks at every
    /// process of the host. One that has ended and was reaped by nobody is none; where it is left to this process,
    /// as to the first of a container, it is reaped.
    #[must_use]
    pub fn strays(&self) -> Vec<(u32, u32)> {
        if self.held().blocks.is_empty() {
            return Vec::new();
        }
        let found = processes();
        let held = self.held();
        let is_ours = |uid: u32| {
            let index = uid.checked_sub(self.layout.first_uid);
            index.is_some_and(|index| held.blocks.contains(&(index / self.layout.block_uids)))
        };
        let mut strays = Vec::new();
        for process in found {
            let uid = process.uid;
            // One that was in use when it was seen may have ended since.
            if !is_ours(uid) || held.used.contains_key(&uid) || !has_process(uid) {
                continue;
            }
            if !process.has_ended {
                strays.push((process.pid, uid));
            } else if process.parent == std::process::id() {
                reap(process.pid);
            }
        }
        strays
    }

    /// Notes a uid that a worker of an earlier supervisor has. Where the link of its block is gone
    /// (the registry was wiped) the block is claimed again.
    ///
    /// # Errors
    /// [`UidBlockError::Foreign`], and those of [`UidBlocks::allocate`].
    pub fn mark_in_use(&self, uid: u32) -> Result<(), UidBlockError> {
        let foreign = UidBlockError::Foreign { uid };
        let Some(index) = uid.checked_sub(self.layout.first_uid) else {
            return Err(foreign);
        };
        let block = index / self.layout.block_uids;
        if block == 0 || block >= self.layout.blocks {
            return Err(foreign);
        }
        let mut held = self.held();
        if !held.blocks.contains(&block) {
            let directory = self.lock()?;
            match self.owner(&directory, block)? {
                Some(owner) if owner == self.state_directory => {}
                Some(_) => return Err(foreign),
                None => self.link(&directory, block)?,
            }
            held.blocks.insert(block);
        }
        *held.used.entry(uid).or_default() += 1;
        Ok(())
    }

    /// Gives a uid back, once no process of whoever had it is left. It is free when all that have it did. The
    /// block stays the instance's.
    pub fn release(&self, uid: u32) {
        if let Entry::Occupied(mut holders) = self.held().used.entry(uid) {
            *holders.get_mut() -= 1;
            if *holders.get() == 0 {
                holders.remove();
            }
        }
    }

    /// Whether more than one has a uid.
    #[must_use]
    pub fn is_shared(&self, uid: u32) -> bool {
        self.held()
            .used
            .get(&uid)
            .is_some_and(|holders| *holders > 1)
    }

    /// How many uids are in use.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.held().used.len()
    }

    /// The first uid of a block and the one behind its last.
    fn uids(&self, block: u32) -> (u32, u32) {
        let first = self.layout.first_uid + block * self.layout.block_uids;
        (first, first + self.layout.block_uids)
    }

    fn free(&self, held: &Held) -> Option<u32> {
        let all = || {
            held.blocks.iter().flat_map(|block| {
                let (first, end) = self.uids(*block);
                first..end
            })
        };
        let is_free = |uid: &u32| !held.used.contains_key(uid);
        all()
            .filter(|uid| *uid > held.last)
            .find(is_free)
            .or_else(|| all().find(is_free))
    }

    fn claim_any(&self, ours: &BTreeSet<u32>) -> Result<u32, UidBlockError> {
        let directory = self.lock()?;
        let mut stale = Vec::new();
        for block in (1..self.layout.blocks).filter(|block| !ours.contains(block)) {
            match self.owner(&directory, block)? {
                None => {
                    self.link(&directory, block)?;
                    return Ok(block);
                }
                Some(owner) if owner == self.state_directory => return Ok(block),
                Some(owner) if is_gone(&owner) => stale.push(block),
                Some(_) => {}
            }
        }
        if !stale.is_empty() {
            let alive: BTreeSet<u32> = processes().into_iter().map(|process| process.uid).collect();
            for block in stale {
                let (first, end) = self.uids(block);
                if alive.range(first..end).next().is_some() {
                    continue;
                }
                let name = block.to_string();
                rustix::fs::unlinkat(&directory, &name, AtFlags::empty())
                    .map_err(refuse("remove", &self.registry.join(&name)))?;
                self.link(&directory, block)?;
                return Ok(block);
            }
        }
        Err(UidBlockError::Exhausted {
            blocks: self.layout.blocks - 1,
            path: self.registry.clone(),
        })
    }

    fn link(&self, directory: &OwnedFd, block: u32) -> Result<(), UidBlockError> {
        let name = block.to_string();
        rustix::fs::symlinkat(&self.state_directory, directory, &name)
            .map_err(refuse("make", &self.registry.join(&name)))
    }

    /// Whose a block is.
    fn owner(&self, directory: &OwnedFd, block: u32) -> Result<Option<PathBuf>, UidBlockError> {
        use std::os::unix::ffi::OsStringExt;
        let name = block.to_string();
        match rustix::fs::readlinkat(directory, &name, Vec::new()) {
            Ok(target) => {
                let target = std::ffi::OsString::from_vec(target.into_bytes());
                Ok(Some(PathBuf::from(target)))
            }
            Err(Errno::NOENT) => Ok(None),
            // Something else has this name: nobody's block, and not for the taking either.
            Err(Errno::INVAL) => Ok(Some(self.registry.join(&name))),
            Err(errno) => Err(refuse("read", &self.registry.join(&name))(errno)),
        }
    }

    fn open_registry(&self) -> Result<OwnedFd, UidBlockError> {
        let path = &self.registry;
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(path)
            .map_err(|error| refuse("make", path)(errno(&error)))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        rustix::fs::open(path, flags, Mode::empty()).map_err(refuse("open", path))
    }

    /// The registry, locked until the descriptor is closed.
    fn lock(&self) -> Result<OwnedFd, UidBlockError> {
        let directory = self.open_registry()?;
        for _ in 0..LOCK_TRIES {
            match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(directory),
                Err(Errno::WOULDBLOCK) => std::thread::sleep(LOCK_PAUSE),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(refuse("lock", &self.registry)(errno)),
            }
        }
        Err(UidBlockError::Locked {
            path: self.registry.clone(),
        })
    }
}

fn refuse(action: &'static str, path: &Path) -> impl FnOnce(Errno) -> UidBlockError {
    move |errno| UidBlockError::Registry {
        action,
        path: path.to_owned(),
        errno,
    }
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// Only what certainly is not there: one that cannot be looked at may be in use.
fn is_gone(state_directory: &Path) -> bool {
    matches!(state_directory.symlink_metadata(), Err(error) if error.kind() == io::ErrorKind::NotFound)
}

/// Whether any process has this real uid: one system call, whatever else runs (getpriority(2)).
fn has_process(uid: u32) -> bool {
    !matches!(
        rustix::process::getpriority_user(Uid::from_raw(uid)),
        Err(Errno::SRCH)
    )
}

/// A process as proc(5) tells of it (`status`).
struct Process {
    pid: u32,
    parent: u32,
    /// Its real uid.
    uid: u32,
    /// Nobody has reaped it.
    has_ended: bool,
}

/// All processes that can be seen.
fn processes() -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let status = std::fs::read_to_string(entry.path().join("status")).ok()?;
            let field = |name: &str| {
                let mut lines = status.lines();
                let value = lines.find_map(|line| line.strip_prefix(name))?;
                value.split_ascii_whitespace().next()
            };
            Some(Process {
                pid,
                parent: field("PPid:")?.parse().ok()?,
                uid: field("Uid:")?.parse().ok()?,
                has_ended: matches!(field("State:")?, "Z" | "X"),
            })
        })
        .collect()
}

/// Reaps a child of this process that has ended.
fn reap(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        // One that somebody else has reaped meanwhile is gone, as it should be.
        let _ = waitid(WaitId::Pid(pid), options);
    }
}

#[cfg(test)]
mod tests;
