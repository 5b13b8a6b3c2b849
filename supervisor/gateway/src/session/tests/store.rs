//! A supervisor's storage in few words: pools in memory, and volumes as files of real directories.

#![expect(
    clippy::result_large_err,
    reason = "what a test answers, made once a call"
)]

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use reeve_ipc::api::call::{
    AnswerBody, CallBody, DomainPage, NewCapacity, PoolPage, PoolRef, VolumePage, VolumeRef,
    VolumeStream, WipeAlgorithm,
};
use reeve_ipc::api::error::ApiErrorCode;
use reeve_ipc::api::event::PoolEventKind;
use reeve_ipc::api::storage::{
    FileOwner, FileTimes, PoolDetails, PoolSizes, PoolState, PoolSummary, Volume, VolumeBacking,
    VolumeFormat, VolumeKind,
};
use reeve_ipc::model::{NewVolume, Pool};
use reeve_ipc::spec::DiskFormat;
use reeve_ipc::volume_stream::{self, Frame, MAX_DATA_BYTES};
use rustix::fs::{FallocateFlags, SeekFrom};

use super::harness::{Act, Supervisor};

#[derive(Debug, Clone)]
struct Held {
    pool: Pool,
    kept: bool,
    active: bool,
    autostart: bool,
}

/// Every pool, by name, and what is known of volumes that are not raw.
#[derive(Debug, Default)]
pub(super) struct Store {
    pools: BTreeMap<String, Held>,
    images: BTreeMap<PathBuf, NewVolume>,
}

/// An upload from there on is not synchronised.
pub(super) const FULL: u64 = 13;

/// Writes an upload.
fn take(file: &File, client: &UnixStream, begin: u64) {
    let mut at = begin;
    loop {
        match volume_stream::next(client.as_fd()) {
            Ok(Some(Frame::Data(length))) => {
                let mut bytes = vec![0; usize::try_from(length).unwrap()];
                if volume_stream::fill(client.as_fd(), &mut bytes).is_err() {
                    return;
                }
                file.write_all_at(&bytes, at).unwrap();
                at += u64::from(length);
            }
            Ok(Some(Frame::Hole(length))) => {
                let size = file.metadata().unwrap().len();
                let there = (at + length).min(size).saturating_sub(at);
                if there > 0 {
                    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                    rustix::fs::fallocate(file, punch, at, there).unwrap();
                }
                at += length;
                file.set_len(at.max(size)).unwrap();
            }
            Ok(Some(Frame::End)) => {
                let outcome = match begin {
                    FULL => Frame::Failed(libc::ENOSPC),
                    _ => Frame::End,
                };
                let _ = volume_stream::send(client.as_fd(), outcome, &[]);
                return;
            }
            _ => return,
        }
    }
}

/// Sends a download.
fn give(file: &File, client: &UnixStream, mut at: u64, end: u64) {
    let send = |frame, bytes: &[u8]| volume_stream::send(client.as_fd(), frame, bytes).is_ok();
    while at < end {
        let data = rustix::fs::seek(file, SeekFrom::Data(at))
            .unwrap_or(end)
            .min(end);
        if data > at && !send(Frame::Hole(data - at), &[]) {
            return;
        }
        at = data;
        let hole = rustix::fs::seek(file, SeekFrom::Hole(at))
            .unwrap_or(end)
            .min(end);
        while at < hole {
            let length = (hole - at).min(MAX_DATA_BYTES.into());
            let mut bytes = vec![0; usize::try_from(length).unwrap()];
            file.read_exact_at(&mut bytes, at).unwrap();
            if !send(Frame::Data(u32::try_from(length).unwrap()), &bytes) {
                return;
            }
            at += length;
        }
    }
    send(Frame::End, &[]);
}

impl Held {
    fn summary(&self) -> PoolSummary {
        PoolSummary {
            name: self.pool.name.clone(),
            uuid: self.pool.uuid,
            state: match self.active {
                true => PoolState::Running,
                false => PoolState::Inactive,
            },
            persistent: self.kept,
            autostart: self.autostart,
            target: self.pool.target.clone(),
            volumes: 0,
        }
    }

    fn details(&self) -> Box<PoolDetails> {
        let sizes = PoolSizes {
            capacity: 10 << 30,
            allocation: 4 << 30,
            available: 6 << 30,
        };
        let owner = FileOwner {
            mode: 0o711,
            owner: 0,
            group: 0,
        };
        Box::new(PoolDetails {
            summary: self.summary(),
            pool: self.pool.clone(),
            next: None,
            sizes: self.active.then_some(sizes),
            owner: self.active.then_some(owner),
            passed_over: 0,
        })
    }
}

const fn no_pool() -> Act {
    Act::Fail(ApiErrorCode::NoPool, "there is none")
}

const fn no_volume() -> Act {
    Act::Fail(ApiErrorCode::NoVolume, "there is none")
}

const fn inactive() -> Act {
    Act::Fail(ApiErrorCode::WrongState, "storage pool is not active")
}

impl Store {
    fn find(&mut self, pool: &PoolRef) -> Result<&mut Held, Act> {
        let mut all = self.pools.values_mut();
        let is = |held: &&mut Held| match pool {
            PoolRef::Name(name) => held.pool.name == *name,
            PoolRef::Uuid(uuid) => held.pool.uuid == *uuid,
            PoolRef::Target(path) => held.pool.target == *path,
        };
        all.find(is).ok_or_else(no_pool)
    }

    fn active(&mut self, pool: &PoolRef) -> Result<Pool, Act> {
        let held = self.find(pool)?;
        match held.active {
            true => Ok(held.pool.clone()),
            false => Err(inactive()),
        }
    }

    fn volume(&self, pool: &Pool, name: &str) -> Result<Volume, Act> {
        let path = pool.target.join(name);
        let metadata = std::fs::metadata(&path).map_err(|_| no_volume())?;
        let image = self.images.get(&path);
        let physical = metadata.len();
        Ok(Volume {
            pool: pool.name.clone(),
            name: name.parse().unwrap(),
            kind: VolumeKind::File,
            format: match image {
                Some(_) => VolumeFormat::Qcow2,
                None => VolumeFormat::Raw,
            },
            capacity: image.map_or(physical, |image| image.capacity.unwrap_or(1)),
            allocation: metadata.blocks() * 512,
            physical,
            owner: FileOwner {
                mode: metadata.mode() & 0o777,
                owner: metadata.uid(),
                group: metadata.gid(),
            },
            times: FileTimes::default(),
            backing: image
                .and_then(|image| image.backing.clone())
                .map(|layer| VolumeBacking {
                    written: layer.path.display().to_string(),
                    path: Some(layer.path),
                    format: Some(VolumeFormat::Raw),
                }),
            qcow2: image.map(|image| image.qcow2),
            encrypted: false,
            job: None,
            unreadable: None,
            path,
        })
    }

    fn volumes(&self, pool: &Pool) -> Vec<Volume> {
        let entries = std::fs::read_dir(&pool.target).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        let all = names.iter().filter_map(|name| self.volume(pool, name).ok());
        all.collect()
    }

    fn look_up(&mut self, volume: &VolumeRef) -> Result<Volume, Act> {
        match volume {
            VolumeRef::Name { pool, name } => {
                let pool = self.active(pool)?;
                self.volume(&pool, name.as_str())
            }
            VolumeRef::Path(path) => {
                let mut active = self.pools.values().filter(|held| held.active);
                let found = active.find(|held| Some(held.pool.target.as_path()) == path.parent());
                let pool = found.ok_or_else(no_volume)?.pool.clone();
                let name = path.file_name().and_then(|name| name.to_str());
                self.volume(&pool, name.ok_or_else(no_volume)?)
            }
        }
    }

    fn make(&mut self, pool: &PoolRef, new: &NewVolume, from: Option<&Path>) -> Result<Act, Act> {
        let pool = self.active(pool)?;
        let path = pool.path_of(&new.name);
        if path.exists() {
            return Err(Act::Fail(ApiErrorCode::VolumeExists, "it is there"));
        }
        match from {
            Some(from) => std::fs::copy(from, &path).map(|_| ()).unwrap(),
            None => {
                let file = std::fs::File::create(&path).unwrap();
                let bytes = match new.format {
                    DiskFormat::Raw => new.capacity.unwrap(),
                    DiskFormat::Qcow2 => 4096,
                };
                file.set_len(bytes).unwrap();
            }
        }
        if new.format == DiskFormat::Qcow2 {
            self.images.insert(path, new.clone());
        }
        let made = self.volume(&pool, new.name.as_str())?;
        Ok(Act::Answer(AnswerBody::VolumeCreate(Box::new(made))))
    }

    fn stream(
        &mut self,
        volume: &VolumeRef,
        (offset, length): (u64, u64),
        write: bool,
    ) -> Result<(VolumeStream, std::os::fd::OwnedFd), Act> {
        let volume = self.look_up(volume)?;
        let Some(there) = volume.physical.checked_sub(offset) else {
            return Err(Act::Fail(ApiErrorCode::InvalidArgument, "behind its end"));
        };
        let mut options = std::fs::OpenOptions::new();
        let file = options.read(true).write(write).open(&volume.path).unwrap();
        let length = match length {
            0 => there,
            length => length.min(there),
        };
        let (ours, theirs) = UnixStream::pair().unwrap();
        std::thread::spawn(move || match write {
            true => take(&file, &theirs, offset),
            false => give(&file, &theirs, offset, offset + length),
        });
        Ok((VolumeStream { offset, length }, ours.into()))
    }

    fn life(
        &mut self,
        supervisor: &Supervisor,
        pool: &PoolRef,
        kind: PoolEventKind,
        change: impl FnOnce(&mut Held) -> Result<(), Act>,
    ) -> Result<PoolSummary, Act> {
        let held = self.find(pool)?;
        change(held)?;
        let summary = held.summary();
        supervisor.pool_event(&held.pool, kind);
        if !held.active && !held.kept {
            let name = held.pool.name.as_str().to_owned();
            self.pools.remove(&name);
        }
        Ok(summary)
    }

    fn keep(&mut self, pool: &Pool, kept: bool, active: bool) -> PoolSummary {
        let held = Held {
            pool: pool.clone(),
            kept,
            active,
            autostart: false,
        };
        let summary = held.summary();
        self.pools.insert(pool.name.as_str().to_owned(), held);
        summary
    }

    /// Answers a call.
    pub(super) fn act(&mut self, supervisor: &Supervisor, call: &CallBody) -> Act {
        match self.answer(supervisor, call) {
            Ok(act) | Err(act) => act,
        }
    }

    fn answer(&mut self, supervisor: &Supervisor, call: &CallBody) -> Result<Act, Act> {
        use AnswerBody as A;
        use CallBody as C;
        let build = |held: &Held| std::fs::create_dir_all(&held.pool.target).unwrap();
        Ok(Act::Answer(match call {
            C::PoolList(list) => {
                let filter = list.filter;
                let all = self.pools.values().map(Held::summary);
                let passing = all.filter(|pool| {
                    let is = |wanted: Option<bool>, is| wanted.is_none_or(|wanted| wanted == is);
                    let behind = list.after.as_ref().is_none_or(|after| pool.name > *after);
                    behind
                        && is(filter.active, pool.state.is_active())
                        && is(filter.persistent, pool.persistent)
                        && is(filter.autostart, pool.autostart)
                });
                // One to a page.
                let pools: Vec<PoolSummary> = passing.take(1).collect();
                let more = !pools.is_empty();
                A::PoolList(PoolPage { pools, more })
            }
            C::PoolGet(get) => A::PoolGet(self.find(&get.pool)?.details()),
            C::PoolDefine(define) => {
                let name = define.pool.name.as_str();
                let other = self.pools.get(name);
                if other.is_some_and(|other| other.pool.uuid != define.pool.uuid) {
                    let why = "pool exists already with another uuid";
                    return Err(Act::Fail(ApiErrorCode::PoolExists, why));
                }
                let summary = self.keep(&define.pool, true, false);
                let kind = PoolEventKind::Defined { changed: false };
                supervisor.pool_event(&define.pool, kind);
                A::PoolDefine(summary)
            }
            C::PoolCreate(create) => {
                let summary = self.keep(&create.pool, false, true);
                supervisor.pool_event(&create.pool, PoolEventKind::Started);
                A::PoolCreate(summary)
            }
            C::PoolBuild(of) => {
                let change = |held: &mut Held| {
                    build(held);
                    Ok(())
                };
                self.life(supervisor, &of.pool, PoolEventKind::Created, change)?;
                A::PoolBuild(())
            }
            C::PoolStart(of) => {
                let change = |held: &mut Held| {
                    if of.build {
                        build(held);
                    }
                    match std::mem::replace(&mut held.active, true) {
                        true => Err(Act::Fail(ApiErrorCode::WrongState, "it is active")),
                        false => Ok(()),
                    }
                };
                A::PoolStart(self.life(supervisor, &of.pool, PoolEventKind::Started, change)?)
            }
            C::PoolStop(of) => {
                let change = |held: &mut Held| match std::mem::replace(&mut held.active, false) {
                    true => Ok(()),
                    false => Err(inactive()),
                };
                self.life(supervisor, &of.pool, PoolEventKind::Stopped, change)?;
                A::PoolStop(())
            }
            C::PoolDelete(of) => {
                let change = |held: &mut Held| {
                    std::fs::remove_dir(&held.pool.target)
                        .map_err(|_| Act::Fail(ApiErrorCode::Host, "it is not empty"))
                };
                self.life(supervisor, &of.pool, PoolEventKind::Deleted, change)?;
                A::PoolDelete(())
            }
            C::PoolUndefine(of) => {
                let change = |held: &mut Held| {
                    held.kept = false;
                    Ok(())
                };
                self.life(supervisor, &of.pool, PoolEventKind::Undefined, change)?;
                A::PoolUndefine(())
            }
            C::PoolRefresh(of) => {
                let change = |_: &mut Held| Ok(());
                self.life(supervisor, &of.pool, PoolEventKind::Refreshed, change)?;
                A::PoolRefresh(())
            }
            C::PoolAutostartSet(of) => {
                let on = of.autostart;
                let change = |held: &mut Held| {
                    held.autostart = on;
                    Ok(())
                };
                let kind = PoolEventKind::Autostart { on };
                self.life(supervisor, &of.pool, kind, change)?;
                A::PoolAutostartSet(())
            }
            C::VolumeList(list) => {
                let pool = self.active(&list.pool)?;
                let mut volumes = self.volumes(&pool);
                volumes.retain(|it| list.after.as_ref().is_none_or(|after| it.name > *after));
                let more = volumes.len() > 2;
                volumes.truncate(2);
                A::VolumeList(VolumePage { volumes, more })
            }
            C::VolumeGet(get) => A::VolumeGet(Box::new(self.look_up(&get.volume)?)),
            C::VolumeCreate(create) => return self.make(&create.pool, &create.volume, None),
            C::VolumeClone(clone) => {
                let from = self.look_up(&clone.from)?;
                let made = self.make(&clone.pool, &clone.volume, Some(&from.path))?;
                return Ok(match made {
                    Act::Answer(A::VolumeCreate(volume)) => Act::Answer(A::VolumeClone(volume)),
                    other => other,
                });
            }
            C::VolumeResize(resize) => {
                let volume = self.look_up(&resize.volume)?;
                let bytes = match resize.capacity {
                    NewCapacity::To(bytes) => bytes,
                    NewCapacity::More(bytes) => volume.capacity + bytes,
                    NewCapacity::Less(bytes) => volume.capacity - bytes,
                };
                if bytes < volume.capacity && !resize.shrink {
                    return Err(Act::Fail(ApiErrorCode::InvalidArgument, "it would shrink"));
                }
                let file = std::fs::File::options().write(true).open(&volume.path);
                file.unwrap().set_len(bytes).unwrap();
                A::VolumeResize(())
            }
            C::VolumeWipe(wipe) => {
                if wipe.algorithm != WipeAlgorithm::Zero {
                    let why = "there is no such rule";
                    return Err(Act::Fail(ApiErrorCode::Unsupported, why));
                }
                let volume = self.look_up(&wipe.volume)?;
                let zeros = vec![0; usize::try_from(volume.physical).unwrap()];
                std::fs::write(&volume.path, zeros).unwrap();
                A::VolumeWipe(())
            }
            C::VolumeDelete(delete) => {
                let volume = self.look_up(&delete.volume)?;
                std::fs::remove_file(&volume.path).unwrap();
                A::VolumeDelete(())
            }
            C::VolumeUpload(of) => {
                let (stream, fd) = self.stream(&of.volume, (of.offset, of.length), true)?;
                return Ok(Act::Fds(A::VolumeUpload(stream), vec![fd]));
            }
            C::VolumeDownload(of) => {
                let (stream, fd) = self.stream(&of.volume, (of.offset, of.length), false)?;
                return Ok(Act::Fds(A::VolumeDownload(stream), vec![fd]));
            }
            // Whoever watches looks at what runs first.
            C::DomainList(_) => A::DomainList(DomainPage {
                domains: Vec::new(),
                more: false,
            }),
            other => panic!("the supervisor is asked {other:?}"),
        }))
    }
}
