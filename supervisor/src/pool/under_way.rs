//! Work on a pool that is under way: begun when it is its turn, and ended by its outcome or given up.
//!
//! ```text
//!   line ─► begun ─┬─► on a thread, for the directory ─┬─► noted down ─► done
//!                  │                                   └─► given up: a stop waited, or the client of a transient went
//!                  └─► a stop: jobs of volumes end, or are given up ─► noted down ─► done
//! ```

use std::os::fd::AsFd;
use std::sync::Arc;

use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::model::Pool;

use super::actor::Actor;
use super::admission::admit;
use super::end::End;
use super::handle::{Message, Outcome, PoolReply, Request};
use super::host::{Host, ended};
use super::lanes::{Lane, ending};
use super::leftovers;
use super::scan::{self, Scan};
use super::view::Volumes;
use crate::store::PoolRecord;

/// Work on the pool that is under way.
#[derive(Debug)]
pub(super) struct Working {
    pub(super) end: End,
    pub(super) what: What,
    /// Nothing of the pool is kept: it is there for whoever waits for its start.
    pub(super) transient: bool,
    /// It may make the pool's directory, or remove it.
    makes: bool,
    pub(super) reply: Option<PoolReply>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// It waits for the pool's file system, and can be given up.
    Directory,
    /// It notes something down, which has an end.
    Note,
    /// A stop waits for jobs of volumes that were ended.
    Jobs,
    /// A stop notes down that the pool is not active, which has an end.
    NoteStopped,
}

impl Working {
    /// Whether it makes the pool inactive: nothing begins in it any more.
    pub(super) const fn is_stop(&self) -> bool {
        matches!(self.what, What::Jobs | What::NoteStopped)
    }
}

impl Request {
    /// Whether it waits for the pool's file system.
    const fn is_of_directory(&self) -> bool {
        matches!(
            self,
            Self::Build | Self::Start { .. } | Self::Delete | Self::Refresh
        )
    }

    /// Whether it may make the pool's directory, or remove it.
    const fn makes(&self) -> bool {
        matches!(
            self,
            Self::Build | Self::Start { build: true, .. } | Self::Delete
        )
    }
}

impl Actor {
    pub(super) fn pool_done(&mut self, number: u64, outcome: Result<Outcome, ApiError>) {
        if self
            .working
            .as_ref()
            .is_none_or(|it| it.end.number() != number)
        {
            // It was given up, and is as if it had never been.
            self.late.remove(&number);
            return;
        }
        if let Ok(Outcome::Found(pool, scan, made)) = outcome {
            self.note_active(pool, scan, made);
            return;
        }
        let reply = self.working.take().and_then(|working| working.reply);
        self.building = false;
        let done = outcome.and_then(|outcome| self.commit(outcome));
        if self.active.is_none() {
            // What a start had claimed that came to nothing.
            self.host.release(self.uuid);
        }
        self.publish();
        self.answer(reply, done);
    }

    pub(super) fn answer(&self, reply: Option<PoolReply>, done: Result<(), ApiError>) {
        let done = done.map(|()| self.view.borrow().summary());
        if let Some(reply) = reply {
            // Whoever asked may have gone.
            let _ = reply.send(done);
        } else if let Err(error) = done {
            tracing::warn!("{error}");
        }
    }

    /// Has the work of that number looked at again when it had time to end.
    pub(super) fn give_grace(&self, number: u64) {
        let (own, grace) = (self.own.clone(), self.host.lanes.grace);
        tokio::spawn(async move {
            tokio::time::sleep(grace).await;
            if let Some(own) = own.upgrade() {
                let _ = own.send(Message::Overdue(number)).await;
            }
        });
    }

    pub(super) fn overdue(&mut self, number: u64) {
        match &self.working {
            Some(working) if working.end.number() == number => match working.what {
                What::Directory => self.give_up(),
                What::Jobs => {
                    for (name, end) in std::mem::take(&mut self.ends).into_values() {
                        end.now();
                        tracing::warn!(pool = %self.pool().name, volume = %name, "gave up a volume's work");
                    }
                    self.jobs.clear();
                    self.note_stopped();
                }
                What::Note | What::NoteStopped => {}
            },
            _ => {}
        }
    }

    /// Waits no more for work that the pool's file system holds up. Its thread ends when that answers.
    pub(super) fn give_up(&mut self) {
        let Some(working) = self.working.take() else {
            return;
        };
        working.end.now();
        if working.makes {
            self.late.insert(working.end.number());
        }
        self.building = false;
        let name = self.pool().name.clone();
        tracing::warn!(pool = %name, "gave up work that the pool's file system holds up");
        if self.active.is_none() {
            self.host.release(self.uuid);
        }
        self.publish();
        if let Some(reply) = working.reply {
            let _ = reply.send(Err(ended(&name)));
        }
    }

    /// Begins what waits in line, if nothing is under way.
    pub(super) fn go_on(&mut self) {
        while self.working.is_none() {
            let Some((request, reply)) = self.line.pop_front() else {
                return;
            };
            let name = self.pool().name.clone();
            let admitted = admit(&name, self.standing(), request.act());
            let admitted = admitted.and_then(|()| match request.is_of_directory() {
                // It would find its directory gone a moment later, or another one there.
                true if !self.late.is_empty() => Err(ApiError::new(
                    ApiErrorCode::Busy,
                    format!(
                        "pool '{name}': its directory was being made or removed when its file system did not answer, \
                         and that has not ended yet; try again when the file system is there"
                    ),
                )),
                _ => Ok(()),
            });
            match admitted {
                Ok(()) => self.begin(request, reply),
                Err(refusal) => {
                    if let Some(reply) = reply {
                        let _ = reply.send(Err(refusal));
                    }
                }
            }
        }
    }

    pub(super) fn begin(&mut self, request: Request, reply: Option<PoolReply>) {
        let pool = self.pool().clone();
        let record = self.record.clone();
        self.touched.clear();
        let known = match &self.active {
            Some(active) => Arc::clone(&active.volumes),
            None => Arc::default(),
        };
        if let Request::Build | Request::Start { build: true, .. } = &request {
            self.building = true;
            self.publish();
        }
        let stop = matches!(request, Request::Stop);
        self.working = Some(Working {
            end: End::default(),
            what: match request.is_of_directory() {
                true => What::Directory,
                false => What::Note,
            },
            transient: record.is_none() && self.active.is_none(),
            makes: request.makes(),
            reply,
        });
        match stop {
            true => self.stop(),
            false => self.work_on_pool(move |host| work(host, request, pool, record, &known)),
        }
    }

    /// Does what is under way on a thread.
    pub(super) fn work_on_pool(
        &self,
        work: impl FnOnce(&Host) -> Result<Outcome, ApiError> + Send + 'static,
    ) {
        let Some(Working { end, what, .. }) = &self.working else {
            return;
        };
        let (end, what, uuid) = (end.clone(), *what, self.uuid);
        let host = self.host.for_work(&end);
        let lanes = Arc::clone(&host.lanes);
        let own = self.own.clone();
        tokio::spawn(async move {
            let work = move || work(&host);
            let outcome = match what {
                What::Directory => lanes.work(Lane::Short, uuid, &end, work).await,
                _ => tokio::task::spawn_blocking(work)
                    .await
                    .map_err(|_| ending()),
            };
            let outcome = outcome.and_then(|outcome| outcome);
            if let Some(own) = own.upgrade() {
                let _ = own.send(Message::PoolDone(end.number(), outcome)).await;
            }
        });
    }

    /// Notes that the pool is active, as its directory could be read.
    pub(super) fn note_active(&mut self, pool: Box<Pool>, scan: Scan, made: bool) {
        if let Some(working) = &mut self.working {
            working.what = What::Note;
        }
        self.work_on_pool(move |host| {
            let noted = host.store.set_active(&pool);
            noted.map_err(|error| ApiError::new(ApiErrorCode::Storage, error.to_string()))?;
            Ok(Outcome::Started(pool, scan, made))
        });
    }

    /// Ends the jobs that nobody waits for any more, and stops the pool behind them.
    pub(super) fn stop(&mut self) {
        if self.ends.is_empty() {
            self.note_stopped();
            return;
        }
        for (_, end) in self.ends.values() {
            end.now();
        }
        if let Some(working) = &mut self.working {
            working.what = What::Jobs;
            let number = working.end.number();
            self.give_grace(number);
        }
    }

    pub(super) fn note_stopped(&mut self) {
        if let Some(working) = &mut self.working {
            working.what = What::NoteStopped;
        }
        let (uuid, name) = (self.uuid, self.pool().name.clone());
        self.work_on_pool(move |host| {
            let noted = host.store.set_inactive(uuid);
            noted.map_err(|error| {
                ApiError::new(ApiErrorCode::Storage, format!("pool '{name}': {error}"))
            })?;
            host.streams.end(uuid);
            Ok(Outcome::Stopped)
        });
    }
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
        Request::Define(pool, wanted) => {
            let autostart = record.is_some_and(|record| record.autostart);
            let record = PoolRecord {
                pool: *pool,
                autostart,
            };
            host.store.write(&record).map_err(kept)?;
            Ok(Outcome::Defined(record, wanted))
        }
        Request::Build => host.build(&pool).map(Outcome::Built),
        Request::Start { transient, build } => {
            let pool = transient.map_or(pool, |pool| *pool);
            let made = build && host.build(&pool)?;
            let directory = host.target(&pool)?;
            host.claim(&pool, directory.as_fd())?;
            leftovers::clean(host, &pool.target, directory.as_fd());
            let scan = scan::scan(host, &pool, directory.as_fd(), known)?;
            Ok(Outcome::Found(Box::new(pool), scan, made))
        }
        // Noted by itself, behind the jobs of volumes.
        Request::Stop => Ok(Outcome::Stopped),
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
            let read = host.target(&pool).and_then(|directory| {
                host.claim(&pool, directory.as_fd())?;
                leftovers::clean(host, &pool.target, directory.as_fd());
                scan::scan(host, &pool, directory.as_fd(), known)
            });
            Ok(match read {
                Ok(scan) => Outcome::Refreshed(scan),
                Err(error) => Outcome::Unreadable(error),
            })
        }
    }
}
