//! What is done to volumes of a pool: begun beside one another and beside what is asked of the pool, one job a volume.
//!
//! ```text
//!   asked ─► admitted ─► a place of its lane ─► on a thread ─► what the volume is now ─► answer
//!                              │                    │
//!                              └────────────────────┴─► ended: its client went, where nothing is left of it then;
//!                                                       or a stop, where nobody waits for it
//! ```
//!
//! An upload or a download is no job: it is of its connection, and ends with that or with the pool (`stream.rs`).

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::api::event::PoolEventKind;
use reeve_ipc::api::storage::VolumeJob;
use reeve_ipc::model::{NewVolume, Pool, VolumeName};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::actor::Actor;
use super::admission::{PoolAct, VolumeAct, admit, admit_volume};
use super::change::{self, Change};
use super::end::End;
use super::handle::{Message, VolumeAnswer, VolumeReply, VolumeRequest, Worked};
use super::host::{Held, ended};
use super::lanes::Lane;
use super::make::{self, Making, Source};
use super::reads::silent;
use super::scan;
use super::stream::{self, Wanted};
use super::under_way::{What, Working};
use super::view::{Building, BuildingFile, Job};
use crate::crash::{self, Moment, Operation};

/// Jobs of volumes of one pool, at the same time.
pub(super) const JOBS: usize = 256;

/// Which job: the number of its work, and whether it holds what that copies. Both may be of one pool.
pub(super) type JobKey = (u64, bool);

impl Actor {
    pub(super) fn volume(&mut self, request: VolumeRequest, reply: VolumeReply) {
        let pool = self.pool().name.clone();
        let (name, act) = match &request {
            VolumeRequest::Make(new, ..) => (&new.name, VolumeAct::Make),
            VolumeRequest::CopyBegin(name, _) => (name, VolumeAct::Copy),
            VolumeRequest::Change(name, change) => {
                let job = match change {
                    Change::Resize { .. } => VolumeJob::Resizing,
                    Change::Wipe => VolumeJob::Wiping,
                    Change::Delete { .. } => VolumeJob::Deleting,
                };
                (name, VolumeAct::Change(job))
            }
            VolumeRequest::Open { name, .. } => (name, VolumeAct::Open),
        };
        let volumes = self.active.as_ref().map(|active| &active.volumes);
        let there = volumes.is_some_and(|volumes| volumes.contains_key(name));
        let job = self.jobs.get(name).map(|job| job.kind);
        let admitted = admit(&pool, self.standing(), PoolAct::Volume)
            .and_then(|()| admit_volume(&pool, name, there, job, act))
            .and_then(|()| match self.jobs.len() < JOBS {
                true => Ok(()),
                false => Err(ApiError::new(
                    ApiErrorCode::Busy,
                    format!("pool '{pool}': {JOBS} volumes are being made or changed already"),
                )),
            });
        if let Err(refusal) = admitted {
            let _ = reply.send(Err(refusal));
            return;
        }
        let pool = self.pool().clone();
        match request {
            VolumeRequest::Make(volume, making, hold) => {
                let name = volume.name.clone();
                let building = Arc::new(Building {
                    volume: *volume,
                    file: BuildingFile::default(),
                    capacity: OnceLock::new(),
                });
                let end = hold
                    .as_ref()
                    .map_or_else(End::default, |hold| hold.end().clone());
                let lane = make_lane(&building.volume, &making);
                let seen = Some(Arc::clone(&building));
                self.begin_job(&name, VolumeJob::Building, seen, &end);
                let (host, to, of) = (self.host.for_work(&end), self.uuid, end.clone());
                let working = async move {
                    let lanes = Arc::clone(&host.lanes);
                    let source = match &making.from {
                        // Whatever waits for the original's file system has a place of its pool, and none of this one's.
                        Some(from) => {
                            let (uuid, from) = (from.pool.uuid, from.clone());
                            let (host, pool) = (host.clone(), pool.clone());
                            let building = Arc::clone(&building);
                            let open = move || Source::open(&host, &from, &pool, &building.volume);
                            Some(lanes.work(Lane::Short, uuid, &of, open).await??)
                        }
                        None => None,
                    };
                    let make = move || {
                        let _hold = hold;
                        let made = make::make(&host, &pool, &building, &making, source);
                        building.file.close();
                        Worked::Made(made)
                    };
                    lanes.work(lane, to, &of, make).await
                };
                self.work(end, true, reply, working);
            }
            VolumeRequest::CopyBegin(name, end) => {
                // Whoever asked has what ends it.
                let _ = reply.send(Ok(VolumeAnswer::Done));
                self.begin_job(&name, VolumeJob::Copying, None, &end);
            }
            VolumeRequest::Change(name, change) => {
                let kind = match change {
                    Change::Resize { .. } => VolumeJob::Resizing,
                    Change::Wipe => VolumeJob::Wiping,
                    Change::Delete { .. } => VolumeJob::Deleting,
                };
                let end = End::default();
                self.begin_job(&name, kind, None, &end);
                let (host, of) = (self.host.for_work(&end), end.clone());
                let working = async move {
                    let lanes = Arc::clone(&host.lanes);
                    let uuid = pool.uuid;
                    let work = move || Worked::Changed(change::change(&host, &pool, &name, change));
                    lanes.work(change_lane(change), uuid, &of, work).await
                };
                self.work(end, false, reply, working);
            }
            VolumeRequest::Open {
                name,
                write,
                offset,
                length,
            } => {
                let wanted = Wanted {
                    write,
                    offset,
                    length,
                };
                self.open(pool, name, wanted, reply);
            }
        }
        self.publish();
    }

    /// Begins a stream. Whoever asked hears within the time of a read how that went.
    fn open(&self, pool: Pool, name: VolumeName, wanted: Wanted, reply: VolumeReply) {
        let (tell, told) = oneshot::channel();
        let (told_written, written) = oneshot::channel::<OwnedFd>();
        let host = Arc::clone(&self.host);
        let patience = host.lanes.patience;
        self.look_behind(name.clone(), written);
        stream::start(
            host,
            pool.clone(),
            name.clone(),
            wanted,
            |begun| {
                // Where nobody waits for it any more, it ends with what is dropped here.
                let _ = tell.send(begun);
            },
            |directory| {
                // With the actor whoever waits for it is gone.
                let _ = told_written.send(directory);
            },
        );
        tokio::spawn(async move {
            let begun = match timeout(patience, told).await {
                Ok(Ok(begun)) => begun,
                Ok(Err(_)) => {
                    let held = Held {
                        pool: &pool,
                        name: &name,
                    };
                    let why = "no thread could be started that waits for it";
                    Err(held.error(ApiErrorCode::Host, why))
                }
                Err(_) => Err(silent(&pool)),
            };
            let _ = reply.send(begun.map(VolumeAnswer::Stream));
        });
    }

    /// Looks what a volume is once it was written by a client.
    fn look_behind(&self, name: VolumeName, written: oneshot::Receiver<OwnedFd>) {
        let (own, view, uuid) = (self.own.clone(), self.view.subscribe(), self.uuid);
        let host = Arc::clone(&self.host);
        tokio::spawn(async move {
            let Ok(directory) = written.await else {
                return;
            };
            // What happens to it from now on may not be seen.
            let since = view.borrow().changes;
            let (lanes, of) = (Arc::clone(&host.lanes), name.clone());
            let look = move || scan::one(&host, directory.as_fd(), &of, None);
            let end = End::default();
            let looking = lanes.work(Lane::Look, uuid, &end, look);
            // Whoever asks for the volume itself has it looked at, where this takes too long.
            let Ok(Ok(entry)) = timeout(lanes.patience, looking).await else {
                return;
            };
            if let Some(own) = own.upgrade() {
                let _ = own.send(Message::Seen(since, name, entry)).await;
            }
        });
    }

    fn begin_job(
        &mut self,
        name: &VolumeName,
        kind: VolumeJob,
        building: Option<Arc<Building>>,
        end: &End,
    ) {
        let key = (end.number(), kind == VolumeJob::Copying);
        self.ends.insert(key, (name.clone(), end.clone()));
        let job = self.jobs.entry(name.clone()).or_insert(Job {
            kind,
            count: 0,
            building,
        });
        job.count += 1;
    }

    /// The volume to which it was done, unless the job was given up before.
    pub(super) fn end_job(&mut self, key: JobKey) -> Option<VolumeName> {
        let (name, _) = self.ends.remove(&key)?;
        if let Some(job) = self.jobs.get_mut(&name) {
            job.count = job.count.saturating_sub(1);
            if job.count == 0 {
                self.jobs.remove(&name);
            }
        }
        let stops = |working: &Working| working.what == What::Jobs;
        if self.ends.is_empty() && self.working.as_ref().is_some_and(stops) {
            self.note_stopped();
        }
        Some(name)
    }

    /// Has it done. With its client it ends where nothing is left of it when it is given up.
    fn work(
        &self,
        end: End,
        ends_with_client: bool,
        mut reply: VolumeReply,
        working: impl Future<Output = Result<Worked, ApiError>> + Send + 'static,
    ) {
        let (own, name) = (self.own.clone(), self.pool().name.clone());
        let grace = self.host.lanes.grace;
        tokio::spawn(async move {
            let mut working = std::pin::pin!(working);
            let given_up = async {
                end.ended().await;
                tokio::time::sleep(grace).await;
            };
            let mut given_up = std::pin::pin!(given_up);
            let mut answered = false;
            let worked = loop {
                tokio::select! {
                    biased;
                    worked = &mut working => break worked,
                    // Its thread may wait for much longer.
                    () = &mut given_up, if !answered => {
                        answered = true;
                        let reply = std::mem::replace(&mut reply, oneshot::channel().0);
                        let _ = reply.send(Err(ended(&name)));
                    }
                    () = reply.closed(), if !answered && !end.has_left() => {
                        end.leave();
                        if ends_with_client {
                            end.now();
                        }
                    }
                }
            };
            let worked = match worked.unwrap_or_else(|error| Worked::Changed(Err(error))) {
                Worked::Made(Err(_)) | Worked::Changed(Err(_)) if end.is_now() => {
                    Worked::Changed(Err(ended(&name)))
                }
                worked => worked,
            };
            if let Some(own) = own.upgrade() {
                let done = Message::VolumeDone(end.number(), worked, reply);
                let _ = own.send(done).await;
            }
        });
    }

    pub(super) fn volume_done(&mut self, number: u64, worked: Worked, reply: VolumeReply) {
        let Some(name) = self.end_job((number, false)) else {
            // It was given up, and what became of it is seen when the directory is read.
            let _ = reply.send(Err(ended(&self.pool().name)));
            return;
        };
        // Whatever came of it, what was seen of it before is old.
        self.changes.note(&name);
        let answer = match worked {
            Worked::Made(Ok(entry)) => {
                self.replace(&name, Some(entry));
                crash::point(Operation::VolumeCreate, Moment::BeforeAnswer);
                Ok(true)
            }
            Worked::Changed(Ok(entry)) => {
                let there = entry.is_some();
                self.replace(&name, entry);
                Ok(there)
            }
            // A volume that was not finished was never there.
            Worked::Made(Err(error)) | Worked::Changed(Err(error)) => Err(error),
        };
        self.publish();
        if answer.is_ok() {
            self.event(PoolEventKind::Refreshed);
        }
        let answer = answer.map(|there| {
            let volume = self.view.borrow().volume(&name).filter(|_| there);
            volume.map_or(VolumeAnswer::Done, |volume| {
                VolumeAnswer::Volume(Box::new(volume))
            })
        });
        let _ = reply.send(answer);
    }
}

const fn make_lane(volume: &NewVolume, making: &Making) -> Lane {
    let plain = matches!(volume.allocation, None | Some(0)) && !making.preallocate_metadata;
    match plain && making.from.is_none() {
        true => Lane::Short,
        false => Lane::Long,
    }
}

const fn change_lane(change: Change) -> Lane {
    match change {
        Change::Wipe | Change::Delete { zeroed: true } | Change::Resize { allocate: true, .. } => {
            Lane::Long
        }
        Change::Delete { zeroed: false } | Change::Resize { .. } => Lane::Short,
    }
}
