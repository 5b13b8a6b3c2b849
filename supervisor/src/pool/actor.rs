//! The actor of one pool: the only one that changes what is known of it.
//!
//! It never waits for a file system: work is done on other threads, and its outcome comes back as a message.
//! What is asked of the pool waits in line while one such work is under way, as libvirt's callers wait for a
//! pool's lock; what is asked of a volume is not held up by that.
//!
//! A stop goes past the line (`stop.rs`). Work that waits for the pool's directory is given up after a moment of grace,
//! and jobs of volumes whose clients have gone are ended: so a pool whose file system does not answer is stopped all the
//! same, and its uploads and downloads end with it. What a thread that was given up brings in the end is not taken.
//!
//! Here is what is known of the pool and how that changes; work on the pool is in `under_way.rs`, on volumes in
//! `jobs.rs`, and how it is asked in [`super::handle`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::api::event::PoolEventKind;
use reeve_ipc::api::storage::PoolState;
use reeve_ipc::model::{Pool, PoolUuid, VolumeName};
use tokio::sync::{mpsc, watch};

use super::admission::Standing;
use super::end::End;
use super::handle::{Handle, Message, Outcome, PoolReply, Request};
use super::host::Host;
use super::jobs::{JOBS, JobKey};
use super::scan::Scan;
use super::under_way::{What, Working};
use super::view::{Entry, Job, View, Volumes};
use crate::api::events::EventLog;
use crate::crash::{self, Moment, Operation};
use crate::store::PoolRecord;

/// What may wait in line of a pool; more is refused as busy.
pub(super) const LINE: usize = 64;

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
    pub(super) changes: Changes,
    /// Stops that would be refused, and why, until it is known whether the pool's file system answers.
    pub(super) doubted: Vec<(PoolReply, ApiError)>,
    /// Work that was given up and may still make or remove the pool's directory, by its number.
    pub(super) late: BTreeSet<u64>,
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
        changes: Changes::default(),
        doubted: Vec::new(),
        late: BTreeSet::new(),
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
        changes: 0,
    }
}

/// When volumes were changed, as far as is remembered.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// The number of the last change.
    last: u64,
    of: BTreeMap<VolumeName, u64>,
    /// Those up to this number are not remembered one by one.
    forgotten: u64,
}

impl Changes {
    /// Volumes whose last change is remembered.
    const MOST: usize = 1024;

    pub(super) fn note(&mut self, name: &VolumeName) {
        self.last += 1;
        if self.of.len() >= Self::MOST && !self.of.contains_key(name) {
            self.forget();
        }
        self.of.insert(name.clone(), self.last);
    }

    /// What anybody saw before is old.
    fn forget(&mut self) {
        self.last += 1;
        self.of.clear();
        self.forgotten = self.last;
    }

    /// Whether what was seen of a volume since that number may miss a change of it.
    fn is_old(&self, since: u64, name: &VolumeName) -> bool {
        since < self.forgotten || self.of.get(name).is_some_and(|change| *change > since)
    }
}

impl Actor {
    fn is_nothing(&self) -> bool {
        let left = self.record.is_some() || self.active.is_some();
        let left = left || !self.late.is_empty() || !self.doubted.is_empty();
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
            changes: self.changes.last,
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

    pub(super) fn event(&self, kind: PoolEventKind) {
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
            stopping: self.is_stopping(),
        }
    }

    /// Whether it is being stopped, or is about to be.
    pub(super) fn is_stopping(&self) -> bool {
        let waits = |(request, _): &(Request, _)| matches!(request, Request::Stop);
        self.working.as_ref().is_some_and(Working::is_stop) || self.line.front().is_some_and(waits)
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Pool(request, reply) => {
                if matches!(request, Request::Stop) {
                    self.stop_asked(reply);
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
            Message::Seen(since, name, entry) => {
                let old = self.jobs.contains_key(&name) || self.changes.is_old(since, &name);
                if !old && self.replace(&name, entry) {
                    self.publish();
                }
            }
            Message::Answers(answers) => self.answers(answers),
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
                self.changes.forget();
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
    pub(super) fn replace(&mut self, name: &VolumeName, entry: Option<Arc<Entry>>) -> bool {
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
}
