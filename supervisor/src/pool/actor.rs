//! The actor of one pool: the only one that changes what is known of it.
//!
//! It never waits for a file system: work is done on other threads, and its outcome comes back as a message.
//! What is asked of the pool waits in line while one such work is under way, as libvirt's callers wait for a
//! pool's lock; what is asked of a volume is not held up by that.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::AsFd;
use std::sync::{Arc, OnceLock};

use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::api::event::PoolEventKind;
use reeve_ipc::api::storage::{PoolState, PoolSummary, Volume, VolumeJob};
use reeve_ipc::model::{NewVolume, Pool, PoolUuid, VolumeName};
use tokio::sync::{mpsc, oneshot, watch};

use super::admission::{PoolAct, Standing, VolumeAct, admit, admit_volume};
use super::change::{self, Change};
use super::host::Host;
use super::make::{self, Making};
use super::scan::{self, Scan};
use super::stream::{self, Begun, Wanted};
use super::view::{Building, Entry, Job, View, Volumes};
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
    /// Keep a definition.
    Define(Box<Pool>),
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
    const fn act(&self) -> PoolAct {
        match self {
            Self::Define(_) => PoolAct::Define,
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
    /// Make it.
    Make(Box<NewVolume>, Making),
    /// Let nobody change it while another is made of it, until [`VolumeRequest::CopyEnd`].
    CopyBegin(VolumeName),
    /// The copy is made, or given up.
    CopyEnd(VolumeName),
    /// Change it.
    Change(VolumeName, Change),
    /// Open it for a client.
    Open {
        /// Which.
        name: VolumeName,
        /// The client writes it.
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
    /// A stream of its bytes.
    Stream(Begun),
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
    /// By a thread: work on the pool is done.
    PoolDone(Result<Outcome, ApiError>, Option<PoolReply>),
    /// By a thread: work on a volume is done.
    VolumeDone(VolumeName, Worked, VolumeReply),
}

/// What came of work on a pool.
#[derive(Debug)]
pub enum Outcome {
    /// The definition is kept.
    Defined(PoolRecord),
    /// Its directory is there; whether it was made now.
    Built(bool),
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

    /// Ends the use of a volume as what is copied.
    pub async fn end_copy(&self, name: VolumeName) {
        let (reply, _) = oneshot::channel();
        // With the actor its jobs are gone.
        let message = Message::Volume(VolumeRequest::CopyEnd(name), reply);
        let _ = self.messages.send(message).await;
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
struct Active {
    pool: Pool,
    volumes: Arc<Volumes>,
    passed_over: u32,
    scanned: bool,
    readable: bool,
}

/// One pool.
#[derive(Debug)]
struct Actor {
    host: Arc<Host>,
    events: Arc<EventLog>,
    uuid: PoolUuid,
    /// What is shown where it is neither kept nor active.
    shown: Pool,
    record: Option<PoolRecord>,
    active: Option<Active>,
    jobs: BTreeMap<VolumeName, Job>,
    line: VecDeque<(Request, Option<PoolReply>)>,
    /// Work on the pool is under way.
    working: bool,
    /// That work makes it inactive: nothing begins in it any more.
    stopping: bool,
    building: bool,
    /// What was changed while the directory is read: what was read of that is older.
    touched: BTreeSet<VolumeName>,
    view: watch::Sender<Arc<View>>,
    own: mpsc::WeakSender<Message>,
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
        line: VecDeque::new(),
        working: false,
        stopping: false,
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
        !left && !self.working && self.line.is_empty() && self.jobs.is_empty()
    }

    fn pool(&self) -> &Pool {
        let kept = || self.record.as_ref().map(|record| &record.pool);
        let active = self.active.as_ref().map(|active| &active.pool);
        active.or_else(kept).unwrap_or(&self.shown)
    }

    fn publish(&self) {
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

    fn standing(&self) -> Standing {
        Standing {
            kept: self.record.is_some(),
            active: self.active.is_some() && !self.stopping,
            volume_jobs: self.jobs.len(),
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Pool(request, reply) => {
                if self.line.len() >= LINE {
                    let name = &self.pool().name;
                    let why = format!("pool '{name}': too much waits for it already");
                    let _ = reply.send(Err(ApiError::new(ApiErrorCode::Busy, why)));
                } else {
                    self.line.push_back((request, Some(reply)));
                }
            }
            Message::PoolDone(outcome, reply) => {
                self.working = false;
                self.stopping = false;
                self.building = false;
                let done = outcome.and_then(|outcome| self.commit(outcome));
                self.publish();
                let done = done.map(|()| self.view.borrow().summary());
                if let Some(reply) = reply {
                    // Whoever asked may have gone.
                    let _ = reply.send(done);
                } else if let Err(error) = done {
                    tracing::warn!("{error}");
                }
            }
            Message::Volume(request, reply) => self.volume(request, reply),
            Message::VolumeDone(name, worked, reply) => self.volume_done(name, worked, reply),
            Message::Seen(name, entry) => {
                if !self.jobs.contains_key(&name) && self.replace(&name, entry) {
                    self.publish();
                }
            }
        }
        self.go_on();
    }

    /// Begins what waits in line, if nothing is under way.
    fn go_on(&mut self) {
        while !self.working {
            let Some((request, reply)) = self.line.pop_front() else {
                return;
            };
            let name = self.pool().name.clone();
            match admit(&name, self.standing(), request.act()) {
                Ok(()) => self.begin(request, reply),
                Err(refusal) => {
                    if let Some(reply) = reply {
                        let _ = reply.send(Err(refusal));
                    }
                }
            }
        }
    }

    fn begin(&mut self, request: Request, reply: Option<PoolReply>) {
        let host = Arc::clone(&self.host);
        let pool = self.pool().clone();
        let record = self.record.clone();
        self.touched.clear();
        let known = match &self.active {
            Some(active) => Arc::clone(&active.volumes),
            None => Arc::default(),
        };
        let reads = matches!(request, Request::Start { .. } | Request::Refresh);
        if let Request::Build | Request::Start { build: true, .. } = &request {
            self.building = true;
            self.publish();
        }
        self.working = true;
        self.stopping = matches!(request, Request::Stop);
        let own = self.own.clone();
        tokio::spawn(async move {
            // Reading a directory takes its turn; the rest is short.
            let turn = match reads {
                true => Arc::clone(&host.turns).acquire_owned().await.ok(),
                false => None,
            };
            let work = move || {
                let _turn = turn;
                work(&host, request, pool, record, &known)
            };
            let outcome = tokio::task::spawn_blocking(work).await;
            let outcome = outcome.unwrap_or_else(|_| Err(ending()));
            if let Some(own) = own.upgrade() {
                let _ = own.send(Message::PoolDone(outcome, reply)).await;
            }
        });
    }

    fn commit(&mut self, outcome: Outcome) -> Result<(), ApiError> {
        match outcome {
            Outcome::Defined(record) => {
                let changed = self.record.replace(record).is_some();
                self.event(PoolEventKind::Defined { changed });
                crash::point(Operation::PoolDefine, Moment::BeforeAnswer);
            }
            Outcome::Built(made) => {
                if made {
                    self.event(PoolEventKind::Created);
                }
            }
            Outcome::Started(pool, scan, made) => {
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
        if let VolumeRequest::CopyEnd(name) = &request {
            self.end_job(name);
            self.publish();
            return;
        }
        let pool = self.pool().name.clone();
        let (name, act) = match &request {
            VolumeRequest::Make(new, _) => (&new.name, VolumeAct::Make),
            VolumeRequest::CopyBegin(name) | VolumeRequest::CopyEnd(name) => {
                (name, VolumeAct::Copy)
            }
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
        let host = Arc::clone(&self.host);
        let pool = self.pool().clone();
        match request {
            VolumeRequest::Make(volume, making) => {
                let name = volume.name.clone();
                let building = Arc::new(Building {
                    volume: *volume,
                    file: OnceLock::new(),
                    capacity: OnceLock::new(),
                });
                self.begin_job(&name, VolumeJob::Building, Some(Arc::clone(&building)));
                self.work(name, reply, move || {
                    Worked::Made(make::make(&host, &pool, &building, &making))
                });
            }
            VolumeRequest::CopyBegin(name) | VolumeRequest::CopyEnd(name) => {
                self.begin_job(&name, VolumeJob::Copying, None);
                if reply.send(Ok(VolumeAnswer::Done)).is_err() {
                    // Nobody is there to end it.
                    self.end_job(&name);
                }
            }
            VolumeRequest::Change(name, change) => {
                let kind = match change {
                    Change::Resize { .. } => VolumeJob::Resizing,
                    Change::Wipe => VolumeJob::Wiping,
                    Change::Delete { .. } => VolumeJob::Deleting,
                };
                self.begin_job(&name, kind, None);
                let of = name.clone();
                self.work(name, reply, move || {
                    Worked::Changed(change::change(&host, &pool, &of, change))
                });
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
                let own = self.own.clone();
                let of = name.clone();
                stream::start(
                    host,
                    pool,
                    name,
                    wanted,
                    |begun| {
                        // Where nobody waits for it any more, it ends with what is dropped here.
                        let _ = reply.send(begun.map(VolumeAnswer::Stream));
                    },
                    move |entry| {
                        if let Some(own) = own.upgrade() {
                            // Whoever asks for the volume itself has it looked at.
                            let _ = own.try_send(Message::Seen(of, entry));
                        }
                    },
                );
            }
        }
        self.publish();
    }

    fn begin_job(&mut self, name: &VolumeName, kind: VolumeJob, building: Option<Arc<Building>>) {
        let job = self.jobs.entry(name.clone()).or_insert(Job {
            kind,
            count: 0,
            building,
        });
        job.count += 1;
    }

    fn end_job(&mut self, name: &VolumeName) {
        if let Some(job) = self.jobs.get_mut(name) {
            job.count = job.count.saturating_sub(1);
            if job.count == 0 {
                self.jobs.remove(name);
            }
        }
    }

    /// Does it on a thread, when it is its turn.
    fn work(
        &self,
        name: VolumeName,
        reply: VolumeReply,
        work: impl FnOnce() -> Worked + Send + 'static,
    ) {
        let own = self.own.clone();
        let turns = Arc::clone(&self.host.turns);
        tokio::spawn(async move {
            let turn = turns.acquire_owned().await.ok();
            let worked = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                work()
            });
            let worked = worked
                .await
                .unwrap_or_else(|_| Worked::Changed(Err(ending())));
            if let Some(own) = own.upgrade() {
                let _ = own.send(Message::VolumeDone(name, worked, reply)).await;
            }
        });
    }

    fn volume_done(&mut self, name: VolumeName, worked: Worked, reply: VolumeReply) {
        self.end_job(&name);
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

fn ending() -> ApiError {
    ApiError::new(ApiErrorCode::ShuttingDown, "the supervisor is ending")
}

/// The work itself, on a thread that may wait.
fn work(
    host: &Host,
    request: Request,
    pool: Pool,
    record: Option<PoolRecord>,
    known: &Volumes,
) -> Result<Outcome, ApiError> {
    let kept = |error: crate::store::StoreError| {
        ApiError::new(
            ApiErrorCode::Storage,
            format!("pool '{}': {error}", pool.name),
        )
    };
    match request {
        Request::Define(pool) => {
            let autostart = record.is_some_and(|record| record.autostart);
            let record = PoolRecord {
                pool: *pool,
                autostart,
            };
            host.store.write(&record).map_err(kept)?;
            Ok(Outcome::Defined(record))
        }
        Request::Build => host.build(&pool).map(Outcome::Built),
        Request::Start { transient, build } => {
            let pool = transient.map_or(pool, |pool| *pool);
            let made = build && host.build(&pool)?;
            let directory = host.directory(&pool)?;
            host.claim(&pool, directory.as_fd())?;
            let started = scan::scan(host, &pool, directory.as_fd(), known).and_then(|scan| {
                let noted = host.store.set_active(&pool);
                noted.map_err(|error| ApiError::new(ApiErrorCode::Storage, error.to_string()))?;
                Ok(scan)
            });
            match started {
                Ok(scan) => Ok(Outcome::Started(Box::new(pool), scan, made)),
                Err(error) => {
                    host.release(pool.uuid);
                    Err(error)
                }
            }
        }
        Request::Stop => {
            host.store.set_inactive(pool.uuid).map_err(kept)?;
            host.streams.end(pool.uuid);
            host.release(pool.uuid);
            Ok(Outcome::Stopped)
        }
        Request::Delete => host.remove(&pool).map(|()| Outcome::Deleted),
        Request::Undefine => {
            host.store.remove(pool.uuid).map_err(kept)?;
            Ok(Outcome::Undefined)
        }
        Request::Autostart(autostart) => {
            let Some(record) = record else {
                let why = format!("pool '{}': no definition of it is kept", pool.name);
                return Err(ApiError::new(ApiErrorCode::WrongState, why));
            };
            let record = PoolRecord {
                autostart,
                ..record
            };
            host.store.write(&record).map_err(kept)?;
            Ok(Outcome::Autostart(record))
        }
        Request::Refresh => {
            let read = host.directory(&pool).and_then(|directory| {
                host.claim(&pool, directory.as_fd())?;
                scan::scan(host, &pool, directory.as_fd(), known)
            });
            Ok(match read {
                Ok(scan) => Outcome::Refreshed(scan),
                Err(error) => Outcome::Unreadable(error),
            })
        }
    }
}
