//! What is known of a pool and its volumes, for everyone to read: published by its actor, never changed.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use reeve_ipc::api::storage::{
    FileOwner, FileTime, FileTimes, OtherFormat, PoolState, PoolSummary, Volume, VolumeBacking,
    VolumeFormat, VolumeJob, VolumeKind,
};
use reeve_ipc::image::{BackingNote, ImageFacts};
use reeve_ipc::model::{MODE_BITS, NewVolume, Pool, PoolName, Qcow2Options, VolumeName};
use reeve_ipc::spec::DiskFormat;
use rustix::fs::{Statx, StatxFlags};

/// Volumes by their names.
pub type Volumes = BTreeMap<VolumeName, Arc<Entry>>;

/// One pool as it stands.
#[derive(Debug, Clone)]
pub struct View {
    /// Its definition: the one it is active with, or the one that is kept.
    pub pool: Pool,
    /// The one that is kept, where it is another one.
    pub next: Option<Pool>,
    /// There is a definition that is kept.
    pub persistent: bool,
    /// Whether it starts with the host.
    pub autostart: bool,
    /// How it stands.
    pub state: PoolState,
    /// Its directory was read since it was started.
    pub scanned: bool,
    /// What it had when it was looked at last, and what was done since.
    pub volumes: Arc<Volumes>,
    /// What is being done to volumes.
    pub jobs: Arc<BTreeMap<VolumeName, Job>>,
    /// Entries that are no volumes.
    pub passed_over: u32,
    /// How often its volumes were changed: a look that began with this number may miss what came after it.
    pub changes: u64,
}

impl View {
    /// Whether anything is left of it: neither kept nor active, it is about to come or to go.
    #[must_use]
    pub const fn exists(&self) -> bool {
        self.persistent || self.state.is_active()
    }

    /// As lists have it.
    #[must_use]
    pub fn summary(&self) -> PoolSummary {
        let building = self.jobs.values().filter(|job| job.building.is_some());
        let volumes = self.volumes.len() + building.count();
        PoolSummary {
            name: self.pool.name.clone(),
            uuid: self.pool.uuid,
            state: self.state,
            persistent: self.persistent,
            autostart: self.autostart,
            target: self.pool.target.clone(),
            volumes: u32::try_from(volumes).unwrap_or(u32::MAX),
        }
    }

    /// A volume, if it is known.
    #[must_use]
    pub fn volume(&self, name: &VolumeName) -> Option<Volume> {
        let job = self.jobs.get(name);
        if let Some(building) = job.and_then(|job| job.building.as_ref()) {
            return Some(building.volume(&self.pool));
        }
        let entry = self.volumes.get(name)?;
        Some(entry.volume(&self.pool, name, job.map(|job| job.kind)))
    }

    /// Whether a volume is being made, whose file is looked at when it is shown.
    #[must_use]
    pub fn is_building(&self) -> bool {
        self.jobs.values().any(|job| job.building.is_some())
    }

    /// Volumes behind `after`, in the order of their names.
    pub fn after<'a>(
        &'a self,
        after: Option<&VolumeName>,
    ) -> impl Iterator<Item = Volume> + use<'a> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = || after.cloned().map_or(Unbounded, Excluded);
        let mut there = self.volumes.range((from(), Unbounded)).peekable();
        let building = self.jobs.range((from(), Unbounded));
        let mut building = building
            .filter(|(_, job)| job.building.is_some())
            .peekable();
        std::iter::from_fn(move || {
            let name = match (there.peek(), building.peek()) {
                (Some((there, _)), Some((building, _))) => (*there).min(*building),
                (Some((there, _)), None) => *there,
                (None, Some((building, _))) => *building,
                (None, None) => return None,
            };
            while there.next_if(|(there, _)| *there <= name).is_some() {}
            while building.next_if(|(other, _)| *other <= name).is_some() {}
            Some(self.volume(name))
        })
        .flatten()
    }
}

/// What is being done to a volume.
#[derive(Debug, Clone)]
pub struct Job {
    /// What.
    pub kind: VolumeJob,
    /// How many do it: of copies there may be several.
    pub count: u32,
    /// The volume, while it is being made.
    pub building: Option<Arc<Building>>,
}

/// A volume that is being made.
#[derive(Debug)]
pub struct Building {
    /// What it is to be.
    pub volume: NewVolume,
    /// Its file, while there is one.
    pub file: BuildingFile,
    /// Bytes as a guest will see it, once that is known.
    pub capacity: std::sync::OnceLock<u64>,
}

/// The file of a volume that is being made. A file system may take its time for whatever is done to a descriptor, for
/// closing it too: it is looked at, and closed by [`Self::close`], on threads that may wait.
#[derive(Debug, Default)]
pub struct BuildingFile {
    file: Mutex<Option<Arc<OwnedFd>>>,
}

impl BuildingFile {
    fn file(&self) -> MutexGuard<'_, Option<Arc<OwnedFd>>> {
        // Nothing panics while it is held.
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is a file.
    pub fn set(&self, file: OwnedFd) {
        *self.file() = Some(Arc::new(file));
    }

    /// The volume is made, or given up: nothing of it is held any more.
    pub fn close(&self) {
        let file = self.file().take();
        drop(file);
    }

    fn get(&self) -> Option<Arc<OwnedFd>> {
        self.file().clone()
    }
}

impl Building {
    fn volume(&self, pool: &Pool) -> Volume {
        let file = self.file.get().and_then(|file| {
            let flags = rustix::fs::AtFlags::EMPTY_PATH;
            rustix::fs::statx(file, "", flags, WANTED).ok()
        });
        let new = &self.volume;
        let capacity = self.capacity.get().copied().or(new.capacity);
        let facts = ImageFacts {
            size: Some(capacity.unwrap_or(0)),
            qcow2: (new.format == DiskFormat::Qcow2).then_some(new.qcow2),
            ..ImageFacts::of(match new.format {
                DiskFormat::Raw => VolumeFormat::Raw,
                DiskFormat::Qcow2 => VolumeFormat::Qcow2,
            })
        };
        let stat = file.map(|stat| Stat::of(&stat)).unwrap_or_default();
        let kind = VolumeKind::File;
        Entry { kind, stat, facts }.volume(pool, &new.name, Some(VolumeJob::Building))
    }
}

/// What is asked of a file.
pub const WANTED: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

/// What the kernel says of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stat {
    /// Which file it is.
    pub identity: (u32, u32, u64),
    /// Bytes that it takes.
    pub allocation: u64,
    /// Bytes that it has.
    pub size: u64,
    /// Who owns it.
    pub owner: FileOwner,
    /// When it was used.
    pub times: FileTimes,
}

impl Stat {
    /// Of what statx(2) said.
    #[must_use]
    pub fn of(stat: &Statx) -> Self {
        let time = |time: rustix::fs::StatxTimestamp| FileTime {
            seconds: time.tv_sec,
            nanoseconds: time.tv_nsec,
        };
        let born = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
        Self {
            identity: (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino),
            allocation: stat.stx_blocks.saturating_mul(512),
            size: stat.stx_size,
            owner: FileOwner {
                mode: u32::from(stat.stx_mode) & MODE_BITS,
                owner: stat.stx_uid,
                group: stat.stx_gid,
            },
            times: FileTimes {
                accessed: time(stat.stx_atime),
                modified: time(stat.stx_mtime),
                changed: time(stat.stx_ctime),
                born: born.then(|| time(stat.stx_btime)),
            },
        }
    }

    /// Whether what is in the file may be something else than it was at `before`.
    #[must_use]
    pub fn may_differ(&self, before: &Self) -> bool {
        let of = |stat: &Self| {
            (
                stat.identity,
                stat.size,
                stat.times.modified,
                stat.times.changed,
            )
        };
        of(self) != of(before)
    }
}

/// One volume as it was when it was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: VolumeKind,
    /// What the kernel said.
    pub stat: Stat,
    /// What is in it.
    pub facts: ImageFacts,
}

impl Entry {
    fn volume(&self, pool: &Pool, name: &VolumeName, job: Option<VolumeJob>) -> Volume {
        let Self { kind, stat, facts } = self;
        let backing = facts.backing.as_ref();
        Volume {
            pool: pool.name.clone(),
            name: name.clone(),
            path: pool.path_of(name),
            kind: *kind,
            format: facts.format.clone(),
            capacity: facts.size.unwrap_or(stat.size),
            allocation: stat.allocation,
            physical: stat.size,
            owner: stat.owner,
            times: stat.times,
            backing: backing.map(|note| volume_backing(note, &pool.target)),
            qcow2: facts.qcow2,
            encrypted: facts.encrypted,
            job,
            unreadable: facts.unreadable.clone(),
        }
    }
}

fn volume_backing(note: &BackingNote, directory: &Path) -> VolumeBacking {
    let written: String = match note.name.contains(char::is_control) {
        true => note.name.escape_debug().collect(),
        false => note.name.clone(),
    };
    VolumeBacking {
        path: backing_path(&note.name, directory),
        format: note.format.as_deref().and_then(format_of),
        written,
    }
}

/// The name as a path, where QEMU would take it for one too: `nbd:...` and `json:...` are none.
#[must_use]
pub fn backing_path(name: &str, directory: &Path) -> Option<PathBuf> {
    let protocol = name
        .find([':', '/'])
        .is_some_and(|at| name[at..].starts_with(':'));
    let plain = !name.is_empty() && !protocol && !name.contains(char::is_control);
    plain.then(|| directory.join(name))
}

fn format_of(word: &str) -> Option<VolumeFormat> {
    use OtherFormat as O;
    Some(match word {
        "raw" => VolumeFormat::Raw,
        "qcow2" => VolumeFormat::Qcow2,
        "qcow" => VolumeFormat::Other(O::Qcow),
        "qed" => VolumeFormat::Other(O::Qed),
        "vmdk" => VolumeFormat::Other(O::Vmdk),
        "vdi" => VolumeFormat::Other(O::Vdi),
        "vpc" => VolumeFormat::Other(O::Vpc),
        _ => return None,
    })
}

/// A qcow2 image's layout, where it is one.
#[must_use]
pub fn layout(entry: &Entry) -> Option<Qcow2Options> {
    entry.facts.qcow2
}

/// The pool's name and the volume's, for messages.
#[must_use]
pub fn called(pool: &PoolName, volume: &VolumeName) -> String {
    format!("volume '{volume}' of pool '{pool}'")
}
