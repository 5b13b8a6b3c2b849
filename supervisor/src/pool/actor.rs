//! The actor of one pool: the only one that changes what is known of it.
//!
//! It never waits for a file system: work is done on other threads, and its outcome comes back as a message.
//! What is asked of the pool waits in line while one such work is under way, as libvirt's callers wait for a
//! pool's lock; what is asked of a volume is not held up by that.
//!
//! A stop goes past the line. Work that waits for the pool's directory is given up after a moment of grace, and jobs
//! of volumes whose clients have gone are ended: so a pool whose file system does not answer is stopped all the
//! same. What a thread that was given up brings in the end is not taken.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};

use reeve_ipc::api::call::VolumeStream;
use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::api::event::PoolEventKind;
use reeve_ipc::api::storage::{PoolState, PoolSummary, Volume, VolumeJob};
use reeve_ipc::model::{NewVolume, Pool, PoolUuid, VolumeName};
use tokio::sync::{mpsc, oneshot, watch};

use super::admission::{PoolAct, Standing, VolumeAct, admit, admit_volume};
use super::change::{self, Change};
use super::end::End;
use super::holds::{CopyHold, Starting, Wanted};
use super::host::{Host, ended};
use super::lanes::Lane;
use super::make::{self, Making};
use super::scan::Scan;
use super::under_way::{What, Working};
use super::view::{Building, BuildingFile, Entry, Job, View, Volumes};
use crate::api::events::EventLog;
use crate::crash::{self, Moment, Operation};
use crate::store::PoolRecord;

/// What may wait in line of a pool; more is refused as busy.
const LINE: usize = 64;
/// Jobs of volumes of one pool, at the same time.
const JOBS: usize = 256;

/// What is asked of a pool.
#[derive(Debug, Clone)]
pub enum Request {
    /// Keep a definition, whose directory is no other pool's meanwhile.
    Define(Box<Pool>, Option<Wanted>),
    /// Make its directory.
    Build,
    /// Make it active.
    Start {
        /// With this definition, where none is kept.
        transient: Option<Box<Pool>>,
        /// Make its directory first.
        build: bool,
    },
    /// Make it inactive.
    Stop,
    /// Remove its directory.
    Delete,
    /// Forget its definition.
    Undefine,
    /// Whether it starts with the host.
    Autostart(bool),
    /// Look what is in its directory.
    Refresh,
}

impl Request {
    pub(super) const fn act(&self) -> PoolAct {
        match self {
            Self::Define(..) => PoolAct::Define,
            Self::Build => PoolAct::Build,
            Self::Start { .. } => PoolAct::Start,
            Self::Stop => PoolAct::Stop,
            Self::Delete => PoolAct::Delete,
            Self::Undefine => PoolAct::Undefine,
            Self::Autostart(_) => PoolAct::Autostart,
            Self::Refresh => PoolAct::Refresh,
        }
    }
}

/// What is asked of a volume.
#[derive(Debug)]
pub enum VolumeRequest {
    /// Make it; of what is held meanwhile, where it is a copy. It is given up when its client goes.
    Make(Box<NewVolume>, Making, Option<CopyHold>),
    /// Let nobody change it while another is made of it, by the work of that end, until [`Message::CopyEnd`].
    CopyBegin(VolumeName, End),
    /// Change it.
    Change(VolumeName, Change),
    /// Open it for a client.
    Open {
        /// Which.
        name: VolumeName,
        /// To be written.
        write: bool,
        /// From there on.
        offset: u64,
        /// So many bytes.
        length: u64,
    },
}

/// An answer about a pool.
pub type PoolReply = oneshot::Sender<Result<PoolSummary, ApiError>>;
/// An answer about a volume.
pub type VolumeReply = oneshot::Sender<Result<VolumeAnswer, ApiError>>;

/// What comes of a [`VolumeRequest`].
#[derive(Debug)]
pub enum VolumeAnswer {
    /// Nothing to tell.
    Done,
    /// The volume as it is.
    Volume(Box<Volume>),
    /// Its file.
    Stream(VolumeStream, OwnedFd),
}

/// What an actor is told.
#[derive(Debug)]
pub enum Message {
    /// By a client, of the pool.
    Pool(Request, PoolReply),
    /// By a client, of a volume.
    Volume(VolumeRequest, VolumeReply),
    /// By whoever looked at a volume for itself.
    Seen(VolumeName, Option<Arc<Entry>>),
    /// A copy is made, or given up, by the work of that number.
    CopyEnd(u64),
    /// The client that had a pool started whose definition is not kept has gone.
    Left,
    /// By a thread: the work of that number on the pool is done.
    PoolDone(u64, Result<Outcome, ApiError>),
    /// By a thread: the work of that number on a volume is done.
    VolumeDone(u64, Worked, VolumeReply),
    /// The work of that number was told to end, and had time to.
    Overdue(u64),
}

/// What came of work on a pool.
#[derive(Debug)]
pub enum Outcome {
    /// The definition is kept.
    Defined(PoolRecord, Option<Wanted>),
    /// Its directory is there; whether it was made now.
    Built(bool),
    /// Its directory is there and was read, and whether it was made now; that it is active is to be noted.
    Found(Box<Pool>, Scan, bool),
    /// It is active.
    Started(Box<Pool>, Scan, bool),
    /// It is not, any more.
    Stopped,
    /// Its directory is gone.
    Deleted,
    /// Its definition is gone.
    Undefined,
    /// Noted.
    Autostart(PoolRecord),
    /// Its directory was read.
    Refreshed(Scan),
    /// Its directory could not be read.
    Unreadable(ApiError),
}

/// What came of work on a volume.
#[derive(Debug)]
pub enum Worked {
    /// It is made, or not.
    Made(Result<Arc<Entry>, ApiError>),
    /// It was changed, or may have been; what it is now.
    Changed(Result<Option<Arc<Entry>>, ApiError>),
}

/// How to reach an actor.
#[derive(Debug, Clone)]
pub struct Handle {
    messages: mpsc::Sender<Message>,
    /// What it published.
    pub view: watch::Receiver<Arc<View>>,
}

impl Handle {
    /// Asks something of the pool.
    ///
    /// # Errors
    /// The actor's.
    pub async fn ask(&self, request: Request) -> Result<PoolSummary, ApiError> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Pool(request, reply))?;
        answer.await.map_err(|_| self.gone())?
    }

    /// Asks something of a volume.
    ///
    /// # Errors
    /// The actor's.
    pub async fn ask_volume(&self, request: VolumeRequest) -> Result<VolumeAnswer, ApiError> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Volume(request, reply))?;
        answer.await.map_err(|_| self.gone())?
    }

    /// Tells what a volume is; lost is lost.
    pub fn seen(&self, name: VolumeName, entry: Option<Arc<Entry>>) {
        let _ = self.messages.try_send(Message::Seen(name, entry));
    }

    /// Has a volume copied by the work of `end`, until what this gives is dropped.
    ///
    /// # Errors
    /// The actor's.
    pub async fn hold_copy(&self, name: VolumeName, end: &End) -> Result<CopyHold, ApiError> {
        let hold = CopyHold::new(self.messages.clone(), end);
        self.ask_volume(VolumeRequest::CopyBegin(name, end.clone()))
            .await?;
        Ok(hold)
    }

    /// Tells, when it is dropped, that whoever had a pool started has gone.
    #[must_use]
    pub fn starting(&self) -> Starting {
        Starting::new(self.messages.clone())
    }

    fn send(&self, message: Message) -> Result<(), ApiError> {
        self.messages.try_send(message).map_err(|error| {
            let name = self.view.borrow().pool.name.clone();
            match error {
                mpsc::error::TrySendError::Full(_) => ApiError::new(
                    ApiErrorCode::Busy,
                    format!("pool '{name}': too much is asked of it at once"),
                ),
                mpsc::error::TrySendError::Closed(_) => self.gone(),
            }
        })
    }

    fn gone(&self) -> ApiError {
        let name = self.view.borrow().pool.name.clone();
        ApiError::new(
            ApiErrorCode::NoPool,
            format!("there is no pool '{name}' any more"),
        )
    }
}

/// How a pool stands when its actor begins.
#[derive(Debug)]
pub struct Beginning {
    /// The definition that it has, or is about to have.
    pub pool: Pool,
    /// The one that is kept.
    pub record: Option<PoolRecord>,
    /// It was active with `pool` when an earlier supervisor ended.
    pub active: bool,
}

#[derive(Debug)]
pub(super) struct Active {
    pub(super) pool: Pool,
    pub(super) volumes: Arc<Volumes>,
    pub(super) passed_over: u32,
    pub(super) scanned: bool,
    pub(super) readable: bool,
}

/// Which job: the number of its work, and whether it holds what that copies. Both may be of one pool.
pub(super) type JobKey = (u64, bool);

/// One pool.
#[derive(Debug)]
pub(super) struct Actor {
    pub(super) host: Arc<Host>,
    pub(super) events: Arc<EventLog>,
    pub(super) uuid: PoolUuid,
    /// What is shown where it is neither kept nor active.
    pub(super) shown: Pool,
    pub(super) record: Option<PoolRecord>,
    pub(super) active: Option<Active>,
    pub(super) jobs: BTreeMap<VolumeName, Job>,
    pub(super) ends: BTreeMap<JobKey, (VolumeName, End)>,
    pub(super) line: VecDeque<(Request, Option<PoolReply>)>,
    pub(super) working: Option<Working>,
    pub(super) building: bool,
    /// What was changed while the directory is read: what was read of that is older.
    pub(super) touched: BTreeSet<VolumeName>,
    pub(super) view: watch::Sender<Arc<View>>,
    pub(super) own: mpsc::WeakSender<Message>,
}

/// Starts the actor of a pool; `retire` is called when nothing is left of it.
pub fn spawn(
    host: Arc<Host>,
    events: Arc<EventLog>,
    beginning: Beginning,
    retire: impl FnOnce() + Send + 'static,
) -> Handle {
    let (messages, mut inbox) = mpsc::channel(LINE + JOBS);
    let Beginning {
        pool,
        record,
        active,
    } = beginning;
    let mut actor = Actor {
        host,
        events,
        uuid: pool.uuid,
        shown: pool.clone(),
        record,
        active: active.then(|| Active {
            pool: pool.clone(),
            volumes: Arc::default(),
            passed_over: 0,
            scanned: false,
            readable: true,
        }),
        jobs: BTreeMap::new(),
        ends: BTreeMap::new(),
        line: VecDeque::new(),
        working: None,
        building: false,
        touched: BTreeSet::new(),
        view: watch::channel(Arc::new(nothing(pool))).0,
        own: messages.downgrade(),
    };
    actor.publish();
    let handle = Handle {
        messages,
        view: actor.view.subscribe(),
    };
    if active {
        actor.line.push_back((Request::Refresh, None));
    }
    tokio::spawn(async move {
        actor.go_on();
        while let Some(message) = inbox.recv().await {
            actor.take(message);
            if actor.is_nothing() {
                break;
            }
        }
        retire();
    });
    handle
}

fn nothing(pool: Pool) -> View {
    View {
        pool,
        next: None,
        persistent: false,
        autostart: false,
        state: PoolState::Inactive,
        scanned: false,
        volumes: Arc::default(),
        jobs: Arc::default(),
        passed_over: 0,
    }
}

impl Actor {
    fn is_nothing(&self) -> bool {
        let left = self.record.is_some() || self.active.is_some();
        !left && self.working.is_none() && self.line.is_empty() && self.jobs.is_empty()
    }

    pub(super) fn pool(&self) -> &Pool {
        let kept = || self.record.as_ref().map(|record| &record.pool);
        let active = self.active.as_ref().map(|active| &active.pool);
        active.or_else(kept).unwrap_or(&self.shown)
    }

    pub(super) fn publish(&self) {
        let pool = self.pool().clone();
        let kept = self.record.as_ref().map(|record| &record.pool);
        let next = kept.filter(|kept| **kept != pool).cloned();
        let mut view = View {
            persistent: self.record.is_some(),
            autostart: self.record.as_ref().is_some_and(|record| record.autostart),
            next,
            jobs: Arc::new(self.jobs.clone()),
            ..nothing(pool)
        };
        match &self.active {
            Some(active) => {
                view.state = match active.readable {
                    true => PoolState::Running,
                    false => PoolState::Inaccessible,
                };
                view.scanned = active.scanned;
                view.volumes = Arc::clone(&active.volumes);
                view.passed_over = active.passed_over;
            }
            None if self.building => view.state = PoolState::Building,
            None => {}
        }
        self.view.send_replace(Arc::new(view));
    }

    fn event(&self, kind: PoolEventKind) {
        self.events.pool_event(self.uuid, &self.pool().name, kind);
    }

    pub(super) fn standing(&self) -> Standing {
        Standing {
            kept: self.record.is_some(),
            active: self.active.is_some(),
            volume_jobs: self
                .ends
                .values()
                .filter(|(_, end)| !end.has_left())
                .count(),
            stopping: matches!(
                &self.working,
                Some(Working {
                    what: What::Jobs,
                    ..
                })
            ),
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Pool(request, reply) => {
                if matches!(request, Request::Stop) {
                    // Past the line, however long that is.
                    self.line.push_front((request, Some(reply)));
                    if let Some(working) = &self.working {
                        self.give_grace(working.end.number());
                    }
                } else if self.line.len() >= LINE {
                    let name = &self.pool().name;
                    let why = format!("pool '{name}': too much waits for it already");
                    let _ = reply.send(Err(ApiError::new(ApiErrorCode::Busy, why)));
                } else {
                    self.line.push_back((request, Some(reply)));
                }
            }
            Message::PoolDone(number, outcome) => self.pool_done(number, outcome),
            Message::Overdue(number) => self.overdue(number),
            Message::Left => {
                let left = |working: &Working| {
                    let gone = working.reply.as_ref().is_none_or(PoolReply::is_closed);
                    gone && working.transient && working.what == What::Directory
                };
                if self.working.as_ref().is_some_and(left) {
                    self.give_up();
                }
            }
            Message::CopyEnd(number) => {
                self.end_job((number, true));
                self.publish();
            }
            Message::Volume(request, reply) => self.volume(request, reply),
            Message::VolumeDone(number, worked, reply) => self.volume_done(number, worked, reply),
            Message::Seen(name, entry) => {
                if !self.jobs.contains_key(&name) && self.replace(&name, entry) {
                    self.publish();
                }
            }
        }
        self.go_on();
    }

    pub(super) fn commit(&mut self, outcome: Outcome) -> Result<(), ApiError> {
        match outcome {
            Outcome::Defined(record, _wanted) => {
                let changed = self.record.replace(record).is_some();
                self.event(PoolEventKind::Defined { changed });
                crash::point(Operation::PoolDefine, Moment::BeforeAnswer);
            }
            Outcome::Built(made) => {
                if made {
                    self.event(PoolEventKind::Created);
                }
            }
            Outcome::Found(pool, scan, made) | Outcome::Started(pool, scan, made) => {
                if made {
                    self.event(PoolEventKind::Created);
                }
                self.active = Some(Active {
                    pool: *pool,
                    volumes: Arc::new(scan.volumes),
                    passed_over: scan.passed_over,
                    scanned: true,
                    readable: true,
                });
                self.event(PoolEventKind::Started);
                crash::point(Operation::PoolStart, Moment::BeforeAnswer);
            }
            Outcome::Stopped => {
                self.event(PoolEventKind::Stopped);
                self.shown = self.pool().clone();
                self.active = None;
            }
            Outcome::Deleted => self.event(PoolEventKind::Deleted),
            Outcome::Undefined => {
                self.event(PoolEventKind::Undefined);
                self.shown = self.pool().clone();
                self.record = None;
                crash::point(Operation::PoolUndefine, Moment::BeforeAnswer);
            }
            Outcome::Autostart(record) => {
                let on = record.autostart;
                let before = self.record.replace(record);
                if before.is_some_and(|before| before.autostart != on) {
                    self.event(PoolEventKind::Autostart { on });
                }
            }
            Outcome::Refreshed(scan) => self.refreshed(scan),
            Outcome::Unreadable(error) => {
                if let Some(active) = &mut self.active {
                    active.readable = false;
                    // Nobody waits for what cannot be read.
                    active.scanned = true;
                }
                return Err(error);
            }
        }
        Ok(())
    }

    fn refreshed(&mut self, mut scan: Scan) {
        let Some(active) = &mut self.active else {
            return;
        };
        for name in std::mem::take(&mut self.touched) {
            match active.volumes.get(&name) {
                Some(entry) => scan.volumes.insert(name, Arc::clone(entry)),
                None => scan.volumes.remove(&name),
            };
        }
        active.volumes = Arc::new(scan.volumes);
        active.passed_over = scan.passed_over;
        active.scanned = true;
        active.readable = true;
        self.event(PoolEventKind::Refreshed);
    }

    /// Notes what a volume is now; whether that is news.
    fn replace(&mut self, name: &VolumeName, entry: Option<Arc<Entry>>) -> bool {
        let Some(active) = &mut self.active else {
            return false;
        };
        if active.volumes.get(name) == entry.as_ref() {
            return false;
        }
        self.touched.insert(name.clone());
        let volumes = Arc::make_mut(&mut active.volumes);
        match entry {
            Some(entry) => volumes.insert(name.clone(), entry),
            None => volumes.remove(name),
        };
        true
    }

    fn volume(&mut self, request: VolumeRequest, reply: VolumeReply) {
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
                let job = JobWork {
                    lane: make_lane(&building.volume, &making),
                    ends_with_client: true,
                    end,
                };
                let seen = Some(Arc::clone(&building));
                self.begin_job(&name, VolumeJob::Building, seen, &job.end);
                self.work(job, reply, move |host| {
                    let _hold = hold;
                    let made = make::make(host, &pool, &building, &making);
                    building.file.close();
                    Worked::Made(made)
                });
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
                let job = JobWork {
                    lane: change_lane(change),
                    ends_with_client: false,
                    end: End::default(),
                };
                self.begin_job(&name, kind, None, &job.end);
                self.work(job, reply, move |host| {
                    Worked::Changed(change::change(host, &pool, &name, change))
                });
            }
            VolumeRequest::Open {
                name,
                write,
                offset,
                length,
            } => {
                let host = Arc::clone(&self.host);
                let (lanes, uuid) = (Arc::clone(&host.lanes), self.uuid);
                tokio::spawn(async move {
                    let mut reply = reply;
                    let end = End::default();
                    let place = tokio::select! {
                        biased;
                        () = reply.closed() => return,
                        place = lanes.place(Lane::Short, uuid, &end) => place,
                    };
                    let Some(place) = place else { return };
                    let open = move || {
                        let opened = change::stream(&host, &pool, &name, write, offset, length);
                        let opened =
                            opened.map(|(stream, file)| VolumeAnswer::Stream(stream, file));
                        // What nobody takes is closed here, where that may take its time.
                        let _ = reply.send(opened);
                    };
                    let _ = lanes.on_thread(uuid, place, open).await;
                });
            }
        }
        self.publish();
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
    fn end_job(&mut self, key: JobKey) -> Option<VolumeName> {
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

    /// Does it on a thread, when it is its turn.
    fn work(
        &self,
        job: JobWork,
        mut reply: VolumeReply,
        work: impl FnOnce(&Host) -> Worked + Send + 'static,
    ) {
        let JobWork {
            lane,
            ends_with_client,
            end,
        } = job;
        let (own, uuid, name) = (self.own.clone(), self.uuid, self.pool().name.clone());
        let host = self.host.for_work(&end);
        let lanes = Arc::clone(&host.lanes);
        tokio::spawn(async move {
            let working = lanes.work(lane, uuid, &end, move || work(&host));
            let mut working = std::pin::pin!(working);
            let worked = loop {
                tokio::select! {
                    biased;
                    worked = &mut working => break worked,
                    () = reply.closed(), if !end.has_left() => {
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

    fn volume_done(&mut self, number: u64, worked: Worked, reply: VolumeReply) {
        let Some(name) = self.end_job((number, false)) else {
            // It was given up, and what became of it is seen when the directory is read.
            let _ = reply.send(Err(ended(&self.pool().name)));
            return;
        };
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

/// How a job is worked on.
struct JobWork {
    lane: Lane,
    /// Nothing is left of it when it is given up, and it is when its client goes.
    ends_with_client: bool,
    end: End,
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
