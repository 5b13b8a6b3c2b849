//! Who a worker is on the host: its uid and gid.
//!
//! Runs in the supervisor. Started as root, every domain gets a uid of its own out of one range for
//! the whole host, so that no two workers can signal or trace each other even where every other wall
//! fell. For `reeve run`, whose workers end with it, a claim is a lock on one byte of one file:
//! supervisors that know nothing of each other never hand out a uid twice, and a supervisor's death
//! releases what it held. A daemon's workers outlive it: it has blocks of its own
//! ([`super::uid_blocks`]). Started by an ordinary user there is one uid, the caller's
//! ([`Level::User`]).
//!
//! Invariant: within this process `taken` names every uid that is claimed; between processes the
//! file's locks do (locks of one open file description do not exclude each other).

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use super::ofd_lock;
use super::uid_blocks::{BLOCK_UIDS, UidBlockError, UidBlocks};

/// The first uid of the range. systemd leaves 0x7000_0000 to 0x7FFD_FFFF to nobody ("Users, Groups,
/// UIDs and GIDs on systemd systems"), and subordinate uids of shadow-utils end far below.
pub const FIRST_UID: u32 = 0x7265_0000;
/// How many uids the range has: as many domains run on one host at most.
pub const UID_COUNT: u32 = 0x1_0000;
/// The file whose bytes stand for the uids of block 0, which is `reeve run`'s.
pub const LOCK_FILE: &str = "/run/reeve/uids";

/// How far a worker's identity is apart from others'.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// A uid of the domain's own.
    System,
    /// The caller's uid: other processes of the same user are held off by the rest of the sandbox.
    User,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System => "system",
            Self::User => "user",
        })
    }
}

/// Why no identity could be had.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The lock file cannot be opened.
    #[error("cannot open {path}, which hands out the workers' uids: {source}")]
    LockFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Root, but in a user namespace without the block.
    #[error(
        "uids {FIRST_UID} to {last} do not exist in this user namespace: run reeve as root of the \
         host, or as an ordinary user",
        last = FIRST_UID + UID_COUNT - 1
    )]
    Unmapped,
    /// Every uid is claimed.
    #[error("all {0} uids for workers are in use on this host")]
    Exhausted(u32),
    /// The kernel refused the lock.
    #[error("cannot lock a uid: {0}")]
    Lock(#[source] io::Error),
    /// The instance has no uid to give.
    #[error(transparent)]
    Instance(#[from] UidBlockError),
}

/// Hands out identities.
#[derive(Debug, Clone)]
pub struct Identities {
    source: Source,
}

#[derive(Debug, Clone)]
enum Source {
    Block(Arc<Block>),
    Instance(Arc<UidBlocks>),
    Caller { uid: u32, gid: u32 },
}

#[derive(Debug)]
struct Block {
    file: File,
    first: u32,
    count: u32,
    taken: Mutex<BTreeSet<u32>>,
}

impl Block {
    fn taken(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        // Nothing panics while it is held.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One worker's identity; a claimed uid is free again when this is dropped.
#[derive(Debug)]
pub struct Identity {
    /// Its uid on the host.
    pub uid: u32,
    /// Its gid on the host.
    pub gid: u32,
    /// Whether the uid is its own.
    pub level: Level,
    claim: Option<Claim>,
}

/// What holds a uid.
#[derive(Debug)]
enum Claim {
    /// A lock on the byte of this number.
    Lock(Arc<Block>, u32),
    /// A note of the instance's own.
    Instance(Arc<UidBlocks>),
}

impl Identities {
    /// The source that fits a process whose workers end with it: the block of all such for root, the
    /// caller's uid otherwise.
    ///
    /// # Errors
    /// [`IdentityError::LockFile`], [`IdentityError::Unmapped`].
    pub fn for_this_process() -> Result<Self, IdentityError> {
        let uid = rustix::process::geteuid();
        if uid.is_root() {
            if !block_is_mapped() {
                return Err(IdentityError::Unmapped);
            }
            return Self::from_block(Path::new(LOCK_FILE), FIRST_UID, BLOCK_UIDS);
        }
        Ok(Self::caller())
    }

    /// The source that fits a daemon: the blocks that `registry` says are of the instance with this
    /// state directory for root, the caller's uid otherwise. A dropped identity is free again at
    /// once; one that is left to a worker (`leave`) stays its.
    ///
    /// # Errors
    /// [`IdentityError::Instance`], [`IdentityError::Unmapped`].
    pub fn for_instance(registry: &Path, state_directory: &Path) -> Result<Self, IdentityError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self::caller());
        }
        if !block_is_mapped() {
            return Err(IdentityError::Unmapped);
        }
        let blocks = UidBlocks::open(registry, state_directory)?;
        Ok(Self {
            source: Source::Instance(Arc::new(blocks)),
        })
    }

    fn caller() -> Self {
        Self {
            source: Source::Caller {
                uid: rustix::process::geteuid().as_raw(),
                gid: rustix::process::getegid().as_raw(),
            },
        }
    }

    /// Hands out `count` uids from `first`, agreed on with other supervisors by `lock_file`, which
    /// is made with its directory if it does not exist and stays.
    ///
    /// # Errors
    /// [`IdentityError::LockFile`].
    pub fn from_block(lock_file: &Path, first: u32, count: u32) -> Result<Self, IdentityError> {
        let refuse = |source| IdentityError::LockFile {
            path: lock_file.to_owned(),
            source,
        };
        if let Some(directory) = lock_file.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(directory)
                .map_err(refuse)?;
        }
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(lock_file)
            .map_err(refuse)?;
        Ok(Self {
            source: Source::Block(Arc::new(Block {
                file,
                first,
                count,
                taken: Mutex::new(BTreeSet::new()),
            })),
        })
    }

    /// How far apart those are that it hands out.
    #[must_use]
    pub const fn level(&self) -> Level {
        match &self.source {
            Source::Block(_) | Source::Instance(_) => Level::System,
            Source::Caller { .. } => Level::User,
        }
    }

    /// An identity for one worker: normally one system call.
    ///
    /// # Errors
    /// [`IdentityError::Exhausted`], [`IdentityError::Lock`], [`IdentityError::Instance`].
    pub fn claim(&self) -> Result<Identity, IdentityError> {
        let block = match &self.source {
            Source::Caller { uid, gid } => {
                return Ok(Identity {
                    uid: *uid,
                    gid: *gid,
                    level: Level::User,
                    claim: None,
                });
            }
            Source::Instance(blocks) => {
                let uid = blocks.allocate()?;
                return Ok(Identity {
                    uid,
                    gid: uid,
                    level: Level::System,
                    claim: Some(Claim::Instance(Arc::clone(blocks))),
                });
            }
            Source::Block(block) => block,
        };
        // Supervisors start at different places, so that each mostly finds its first try free.
        let start = std::process::id();
        let mut taken = block.taken();
        for step in 0..block.count {
            let index = start.wrapping_add(step) % block.count;
            if taken.contains(&index) {
                continue;
            }
            if ofd_lock::try_lock_byte(&block.file, u64::from(index))
                .map_err(IdentityError::Lock)?
            {
                taken.insert(index);
                let uid = block.first + index;
                return Ok(Identity {
                    uid,
                    gid: uid,
                    level: Level::System,
                    claim: Some(Claim::Lock(Arc::clone(block), index)),
                });
            }
        }
        Err(IdentityError::Exhausted(block.count))
    }
}

impl Identities {
    /// The identity that an earlier supervisor gave a worker which may still live: claimed again
    /// where that can be.
    pub(crate) fn reclaim(&self, uid: u32, own: bool) -> Identity {
        let level = if own { Level::System } else { Level::User };
        let claim = match &self.source {
            Source::Block(block) if own => {
                let index = uid.checked_sub(block.first);
                let index = index.filter(|index| *index < block.count);
                index.filter(|index| {
                    let mut taken = block.taken();
                    let lock = ofd_lock::try_lock_byte(&block.file, u64::from(*index));
                    matches!(lock, Ok(true)) && taken.insert(*index)
                })
            }
            _ => None,
        };
        Identity {
            uid,
            gid: uid,
            level,
            claim: match (&self.source, claim) {
                (Source::Block(block), Some(index)) => Some(Claim::Lock(Arc::clone(block), index)),
                (Source::Instance(blocks), _) if own => match blocks.mark_in_use(uid) {
                    Ok(()) => Some(Claim::Instance(Arc::clone(blocks))),
                    Err(error) => {
                        tracing::warn!(uid, %error, "a worker's uid is not this instance's");
                        None
                    }
                },
                _ => None,
            },
        }
    }
}

impl Identities {
    /// Processes with a uid of this instance's that is given to no worker, as pid and uid. A source of
    /// another kind has none.
    pub(crate) fn strays(&self) -> Vec<(u32, u32)> {
        match &self.source {
            Source::Instance(blocks) => blocks.strays(),
            Source::Block(_) | Source::Caller { .. } => Vec::new(),
        }
    }
}

impl Identity {
    /// Whether another has the same uid: one of both is no more than a record of before.
    pub(crate) fn is_shared(&self) -> bool {
        match &self.claim {
            Some(Claim::Instance(blocks)) => blocks.is_shared(self.uid),
            Some(Claim::Lock(..)) | None => false,
        }
    }

    /// Leaves the identity to the worker, which outlives this supervisor: what was claimed stays so
    /// until this process ends.
    pub(crate) fn leave(&mut self) {
        if let Some(claim) = self.claim.take() {
            // The lock goes with its file's last descriptor, at the end of the process.
            std::mem::forget(claim);
        }
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        match self.claim.take() {
            Some(Claim::Lock(block, index)) => {
                let mut taken = block.taken();
                if let Err(error) = ofd_lock::unlock_byte(&block.file, u64::from(index)) {
                    // The uid stays claimed until this process ends, which is safe.
                    tracing::warn!(uid = self.uid, %error, "a worker's uid could not be released");
                    return;
                }
                taken.remove(&index);
            }
            Some(Claim::Instance(blocks)) => blocks.release(self.uid),
            None => {}
        }
    }
}

/// Whether the whole block exists in this process' user namespace (user_namespaces(7)).
fn block_is_mapped() -> bool {
    // Without /proc nothing can be said; the kernel refuses later, with less to go by.
    std::fs::read_to_string("/proc/self/uid_map").map_or(true, |map| maps_block(&map))
}

fn maps_block(map: &str) -> bool {
    let (first, end) = (
        u64::from(FIRST_UID),
        u64::from(FIRST_UID) + u64::from(UID_COUNT),
    );
    map.lines().any(|line| {
        let mut fields = line.split_ascii_whitespace().map(str::parse::<u64>);
        match (fields.next(), fields.next(), fields.next()) {
            (Some(Ok(inside)), Some(Ok(_)), Some(Ok(length))) => {
                inside <= first && inside.saturating_add(length) >= end
            }
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identities(directory: &Path, count: u32) -> Identities {
        Identities::from_block(&directory.join("run/uids"), FIRST_UID, count).unwrap()
    }

    #[test]
    fn two_supervisors_never_hand_out_one_uid_twice() {
        let directory = tempfile::tempdir().unwrap();
        let one = identities(directory.path(), 8);
        let other = identities(directory.path(), 8);
        let claims: Vec<Identity> = (0..8)
            .map(|turn| if turn % 2 == 0 { &one } else { &other })
            .map(|identities| identities.claim().unwrap())
            .collect();
        let uids: BTreeSet<u32> = claims.iter().map(|claim| claim.uid).collect();
        assert_eq!(uids.len(), 8);
        assert!(
            uids.iter()
                .all(|uid| (FIRST_UID..FIRST_UID + 8).contains(uid))
        );
        assert!(matches!(one.claim(), Err(IdentityError::Exhausted(8))));
        assert!(matches!(other.claim(), Err(IdentityError::Exhausted(8))));
    }

    #[test]
    fn a_dropped_claim_is_free_for_everybody() {
        let directory = tempfile::tempdir().unwrap();
        let one = identities(directory.path(), 1);
        let other = identities(directory.path(), 1);
        let claim = one.claim().unwrap();
        assert!(other.claim().is_err());
        drop(claim);
        let again = other.claim().unwrap();
        assert_eq!(again.uid, FIRST_UID);
        assert_eq!(again.level, Level::System);
    }

    #[test]
    fn the_end_of_a_supervisor_releases_its_claims() {
        let directory = tempfile::tempdir().unwrap();
        let one = identities(directory.path(), 1);
        let claim = one.claim().unwrap();
        // As at the end of a process: the description is closed and nobody unlocks.
        let Some(Claim::Lock(block, _)) = &claim.claim else {
            panic!("a claim of a block")
        };
        let strong = Arc::clone(block);
        std::mem::forget(claim);
        drop(one);
        let other = identities(directory.path(), 1);
        assert!(other.claim().is_err());
        rustix::fs::flock(&strong.file, rustix::fs::FlockOperation::Unlock).unwrap();
        assert!(other.claim().is_err(), "a flock is another kind of lock");
        ofd_lock::unlock_byte(&strong.file, 0).unwrap();
        assert!(other.claim().is_ok());
    }

    #[test]
    fn an_instances_identity_is_out_of_its_own_blocks_and_free_when_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let registry = directory.path().join("uid-blocks");
        let identities = Identities::for_instance(&registry, directory.path()).unwrap();
        let claim = identities.claim().unwrap();
        // Which uid is free depends on what else runs on this host.
        assert!((FIRST_UID + BLOCK_UIDS..FIRST_UID + UID_COUNT).contains(&claim.uid));
        assert_eq!(claim.gid, claim.uid);
        assert_eq!(claim.level, Level::System);
        let Source::Instance(blocks) = &identities.source else {
            panic!("these tests run as root")
        };
        // Those at which a process of another's was found count as well.
        let used = blocks.in_use();
        drop(claim);
        assert_eq!(blocks.in_use(), used - 1);
    }

    #[test]
    fn the_block_must_be_mapped_whole() {
        assert!(maps_block("         0          0 4294967295\n"));
        assert!(!maps_block("         0       1000      65536\n"));
        assert!(!maps_block("0 1000 1\n1919221760 1919221760 100\n"));
        assert!(maps_block("0 1000 1\n1919221760 1919221760 65536\n"));
        assert!(!maps_block("garbage"));
    }
}
