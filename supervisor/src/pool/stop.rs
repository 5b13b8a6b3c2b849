//! A stop: past the line of what is asked of the pool, and not at the cost of what works.
//!
//! ```text
//!   asked ─► admitted ─► what reads the directory is given a moment, and given up
//!     │
//!     └─► a client waits for a job, or for a start ─► does the file system answer? ─┬─ yes ─► refused, naming the work
//!                                                                                    └─ no ──► that work is ended
//! ```
//! A client that waits for what never comes must not keep a pool from being stopped, whoever it is; one that waits
//! for what is being done must not lose it to another's stop.

use reeve_ipc::api::error::{ApiError, ApiErrorCode};

use super::actor::{Actor, LINE};
use super::admission::{PoolAct, admit};
use super::handle::{Message, PoolReply, Request};
use super::under_way::What;

impl Actor {
    /// A stop is asked for.
    pub(super) fn stop_asked(&mut self, reply: PoolReply) {
        let name = self.pool().name.clone();
        let busy = |why: &str| ApiError::new(ApiErrorCode::Busy, format!("pool '{name}': {why}"));
        if self.is_stopping() || self.doubted.len() >= LINE {
            let _ = reply.send(Err(busy("it is being stopped")));
            return;
        }
        let refusal = match admit(&name, self.standing(), PoolAct::Stop) {
            Ok(()) => return self.stop_first(reply),
            Err(refusal) if refusal.code == ApiErrorCode::Busy => busy(&format!(
                "{}; wait for that, or end the client that asked for it",
                self.waited_for()
            )),
            Err(_) if self.is_starting() => ApiError::new(
                ApiErrorCode::WrongState,
                format!(
                    "pool '{name}': it is not active; it is being started, or its directory made or removed"
                ),
            ),
            Err(refusal) => refusal,
        };
        if refusal.code != ApiErrorCode::Busy && !self.is_starting() {
            let _ = reply.send(Err(refusal));
            return;
        }
        self.doubted.push((reply, refusal));
        if self.doubted.len() == 1 {
            self.look_whether_it_answers();
        }
    }

    /// Whether work on a pool that is not active waits for its directory.
    fn is_starting(&self) -> bool {
        let waits = |what| what == What::Directory;
        self.active.is_none() && self.working.as_ref().is_some_and(|it| waits(it.what))
    }

    /// What clients wait for that is done to volumes.
    fn waited_for(&self) -> String {
        let waited = self.ends.values().filter(|(_, end)| !end.has_left());
        let mut names = waited.map(|(name, _)| name);
        let first = names.next().map(|name| {
            let job = self
                .jobs
                .get(name)
                .map_or("changed", |job| job.kind.words());
            format!("a client waits for its volume '{name}', which is being {job}")
        });
        let first = first.unwrap_or_else(|| "volumes of it are being changed".to_owned());
        match names.count() {
            0 => first,
            more => format!("{first}, and for {more} more"),
        }
    }

    /// Past the line, however long that is.
    fn stop_first(&mut self, reply: PoolReply) {
        self.line.push_front((Request::Stop, Some(reply)));
        if let Some(working) = &self.working {
            self.give_grace(working.end.number());
        }
    }

    fn look_whether_it_answers(&self) {
        let (own, host) = (self.own.clone(), self.host.clone());
        let pool = self.pool().clone();
        tokio::spawn(async move {
            let lanes = std::sync::Arc::clone(&host.lanes);
            let answers = lanes.answers(pool.uuid, move || host.touch(&pool)).await;
            if let Some(own) = own.upgrade() {
                let _ = own.send(Message::Answers(answers)).await;
            }
        });
    }

    /// It is known whether the file system answers.
    pub(super) fn answers(&mut self, answers: bool) {
        let doubted = std::mem::take(&mut self.doubted);
        if answers {
            for (reply, refusal) in doubted {
                let _ = reply.send(Err(refusal));
            }
            return;
        }
        if self.is_starting() {
            self.give_up();
            for (reply, _) in doubted {
                self.answer(Some(reply), Ok(()));
            }
            return;
        }
        if self.active.is_some() {
            let (name, waited) = (&self.pool().name, self.waited_for());
            tracing::warn!(pool = %name, "its file system does not answer, and it is stopped: {waited}");
            // From now on they are as if nobody waited for them.
            for (_, end) in self.ends.values() {
                end.leave();
            }
        }
        for (reply, _) in doubted {
            // The first is let in, the others hear that it is.
            self.stop_asked(reply);
        }
    }
}
