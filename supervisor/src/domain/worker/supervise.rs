//! The task that watches one worker from its spawn to its end, and releases what it held.
//!
//! It waits for events, log records and the pidfd, never for a reply. A broken rule is answered with
//! `SIGKILL` to that worker and nothing else. The verdict is published last: whoever sees a death may
//! rely on the uid and the cgroup being free.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use reeve_ipc::client::{Closed, Incoming};
use reeve_ipc::event::Event;
use reeve_ipc::model::{DomainName, DomainUuid};
use reeve_ipc::phase::Phase;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::death::{Evidence, ExitStatus};
use super::log::{self, LogSocket, Record};
use super::{Process, View};
use crate::domain::fault::{self, Step};
use crate::host::spawner::Child;
use crate::host::watch::watch;

/// How long a worker may live without its control socket.
const CLOSED_GRACE: Duration = Duration::from_secs(1);
/// How long after a death the control socket's last messages may take to be read.
const DRAIN_DEADLINE: Duration = Duration::from_secs(1);

/// Everything that belongs to one worker until it is gone.
#[derive(Debug)]
pub(super) struct Supervision {
    pub(super) name: DomainName,
    pub(super) uuid: DomainUuid,
    pub(super) process: Arc<Process>,
    pub(super) view: watch::Sender<View>,
    /// Killed, if it still lives, reaped and released when this is dropped.
    pub(super) child: Child,
}

/// What the task learns as it goes.
#[derive(Debug, Default)]
struct Heard {
    evidence: Evidence,
    last_event: u64,
    closed: Option<Instant>,
}

impl Supervision {
    /// Starts the task on the current runtime.
    ///
    /// # Errors
    /// The pidfd cannot be watched; the process is gone then.
    pub(super) fn begin(
        self,
        incoming: mpsc::Receiver<Incoming>,
        log: LogSocket,
    ) -> io::Result<()> {
        let pidfd = watch(Arc::clone(&self.process.pidfd))?;
        tokio::spawn(self.run(pidfd, incoming, log));
        Ok(())
    }

    async fn run(
        mut self,
        pidfd: AsyncFd<Arc<OwnedFd>>,
        mut incoming: mpsc::Receiver<Incoming>,
        mut log: LogSocket,
    ) {
        let mut heard = Heard::default();
        loop {
            let patience = heard.closed.map(|closed| closed + CLOSED_GRACE);
            tokio::select! {
                biased;
                // An error can only be the end of the runtime, and so of this task.
                _ = pidfd.readable() => break,
                Some(item) = incoming.recv() => self.hear(&mut heard, item),
                record = log.next() => self.record(&mut heard, record),
                () = until(patience), if patience.is_some() => {
                    self.violated(&mut heard, "it closed its control socket and lives on".into());
                    heard.closed = None;
                }
            }
        }
        let status = self.child.reap();
        // What it said before it died is still in its sockets.
        let drain = async {
            while let Some(item) = incoming.recv().await {
                self.hear(&mut heard, item);
            }
        };
        let _ = tokio::time::timeout(DRAIN_DEADLINE, drain).await;
        for record in log.last_words() {
            self.record(&mut heard, record);
        }
        self.conclude(heard.evidence, status);
    }

    fn conclude(self, mut evidence: Evidence, status: ExitStatus) {
        evidence.destroyed = self.process.destroyed.load(Ordering::Relaxed);
        evidence.stopped = self.process.stopped.load(Ordering::Relaxed);
        let death = evidence.judge(status);
        let (domain, uuid) = (&self.name, self.uuid);
        if death.cause.is_orderly() {
            tracing::info!(%domain, %uuid, "{death}");
        } else {
            tracing::error!(%domain, %uuid, "{death}");
        }
        drop(self.child);
        self.view
            .send_modify(|view| view.death = Some(Arc::new(death)));
    }

    fn hear(&self, heard: &mut Heard, item: Incoming) {
        match item {
            Incoming::Hello(jail) => {
                self.view.send_modify(|view| view.jail = Some(jail));
                if fault::is_at(Step::AfterHello) {
                    self.process.kill();
                }
            }
            Incoming::Event(number, event) => {
                let next = number == heard.last_event.wrapping_add(1);
                heard.last_event = number;
                self.event(heard, event, next);
            }
            Incoming::Closed(Closed::ByWorker) => heard.closed = Some(Instant::now()),
            Incoming::Closed(Closed::Violation(rule)) => self.violated(heard, rule),
        }
    }

    /// `next` says that no event before this one was lost.
    fn event(&self, heard: &mut Heard, event: Event, next: bool) {
        let (domain, uuid) = (&self.name, self.uuid);
        match event {
            Event::PhaseChanged(phase) => self.phase_changed(heard, phase, next),
            Event::GuestPoweredOff => heard.evidence.powered_off = true,
            Event::GuestReset { count } => {
                heard.evidence.reset = true;
                self.view.send_modify(|view| view.resets = count);
                tracing::debug!(%domain, %uuid, count, "the guest was reset");
            }
            Event::GuestCrashed(report) => {
                self.view
                    .send_modify(|view| view.crash = Some(report.clone()));
                heard.evidence.crash = Some(report);
            }
            Event::WorkerFailed { message } => {
                heard.evidence.failure = Some(log::printable(&message));
            }
        }
    }

    fn phase_changed(&self, heard: &mut Heard, phase: Phase, next: bool) {
        let before = self.view.borrow().phase;
        if phase == before {
            return;
        }
        if next && !before.may_become(phase) {
            self.violated(heard, format!("it went from {before} to {phase}"));
            return;
        }
        self.view.send_modify(|view| view.phase = phase);
    }

    fn record(&self, heard: &mut Heard, record: Record) {
        match record {
            Record::Denial(denial) => heard.evidence.denial = Some(denial),
            Record::Line(level, line) => {
                log::relay(level, &self.name, self.uuid, &line);
                if level == tracing::Level::ERROR {
                    heard.evidence.last_error = Some(line);
                }
            }
        }
    }

    fn violated(&self, heard: &mut Heard, rule: String) {
        heard
            .evidence
            .violation
            .get_or_insert(log::printable(&rule));
        self.process.kill();
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
