//! The task that watches one worker from its spawn to its end, and releases what it held.
//!
//! It waits for events, log records and the pidfd, and for no reply but that of a worker which went
//! silent. A broken rule is answered with `SIGKILL` to that worker and nothing else. The verdict is
//! published last: whoever sees a death may rely on the uid and the cgroup being free.
//!
//! Of a kept worker it tells a daemon's actor, in order and however long that takes to listen; where
//! nobody listens any more the daemon ends, and the worker is left alone.

mod outbox;
mod questions;

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use reeve_ipc::client::{Closed, Incoming};
use reeve_ipc::event::Event;
use reeve_ipc::model::{DevicePlace, DomainName, DomainUuid};
use reeve_ipc::phase::Phase;
use reeve_ipc::spec::{MAX_PORTS, PciSlot};
use reeve_ipc::vcpus::VcpuStanding;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use self::outbox::{LostNews, MEMORY_NEWS, Newest, Outbox, PORT_NEWS};
use self::questions::Questions;
use super::adopt::{self, Found, Search};
use super::death::{Evidence, ExitStatus};
use super::log::{LogSocket, Record, quoted, relay};
use super::{Link, Process, View, devices};
use crate::crash::{self, Moment, Operation};
use crate::domain::driver::{GuestEnd, GuestMemory, Notice, OpenPorts, Verdict};
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
    pub(super) link: Link,
    /// Who is told of a worker that is kept.
    pub(super) tell: Option<mpsc::Sender<Notice>>,
    /// Killed, if it still lives and is not kept, reaped and released when this is dropped.
    pub(super) child: Child,
}

/// What the task learns as it goes.
pub(super) struct Heard {
    evidence: Evidence,
    /// The number of the last event that is known.
    last_event: u64,
    closed: Option<Instant>,
    /// How the guest ended by itself, until its machine is at rest.
    end: Option<GuestEnd>,
    outbox: Outbox,
    memory: Newest<GuestMemory>,
    ports: Newest<(PciSlot, OpenPorts)>,
    lost: LostNews,
    questions: Questions,
}

impl Default for Heard {
    fn default() -> Self {
        Self {
            evidence: Evidence::default(),
            last_event: 0,
            closed: None,
            end: None,
            outbox: Outbox::default(),
            memory: Newest::paced(MEMORY_NEWS),
            ports: Newest::paced(PORT_NEWS),
            lost: LostNews::default(),
            questions: Questions::default(),
        }
    }
}

impl Heard {
    /// What is known of a worker that was found: everything up to this event, its vCPUs, and what nobody was
    /// told of.
    pub(super) fn up_to(last_event: u64, vcpus: Option<VcpuStanding>, missed: Vec<Notice>) -> Self {
        let mut heard = Self {
            last_event,
            ..Self::default()
        };
        if let Some(vcpus) = vcpus {
            heard.outbox.push(Notice::Vcpus(vcpus));
        }
        heard.missed(missed);
        heard
    }

    /// What the guest of a worker that was found has done with its memory.
    pub(super) fn has_memory(&mut self, guest: Option<GuestMemory>) {
        if let Some(guest) = guest {
            self.memory.changed(guest);
        }
    }

    /// Which ports the guest of a worker that was asked has open.
    pub(super) fn has_ports(&mut self, open: Option<(PciSlot, OpenPorts)>) {
        if let Some(open) = open {
            self.ports.changed(open);
        }
    }

    /// What happened while nobody listened. One that reports more than there is room for has made it up.
    fn missed(&mut self, missed: Vec<Notice>) {
        for notice in missed {
            self.outbox.push(notice);
        }
    }
}

impl Supervision {
    /// Starts the task on the current runtime.
    ///
    /// # Errors
    /// The pidfd cannot be watched; a process that is not kept is gone then.
    pub(super) fn begin(
        self,
        incoming: mpsc::Receiver<Incoming>,
        log: Option<LogSocket>,
        heard: Heard,
    ) -> io::Result<()> {
        let pidfd = watch(Arc::clone(&self.process.pidfd))?;
        tokio::spawn(self.run(pidfd, incoming, log, heard));
        Ok(())
    }

    /// As [`Self::begin`], for a worker that was found and has not answered yet.
    ///
    /// # Errors
    /// As for [`Self::begin`].
    pub(super) fn begin_silent(self, search: Option<Search>) -> io::Result<()> {
        let pidfd = watch(Arc::clone(&self.process.pidfd))?;
        tokio::spawn(self.wait_for_word(pidfd, search));
        Ok(())
    }

    async fn wait_for_word(self, pidfd: AsyncFd<Arc<OwnedFd>>, mut search: Option<Search>) {
        let mut heard = Heard::default();
        loop {
            tokio::select! {
                biased;
                _ = pidfd.readable() => break,
                () = self.left_alone() => return,
                found = answer(&mut search), if search.is_some() => {
                    search = None;
                    match found {
                        Ok(found) => {
                            heard.last_event = found.standing.last_event;
                            let incoming = self.took_over(&mut heard, *found);
                            return self.run(pidfd, incoming, None, heard).await;
                        }
                        Err(reason) => self.violated(&mut heard, reason),
                    }
                }
            }
        }
        let (_, nothing) = mpsc::channel(1);
        self.bury(nothing, None, heard).await;
    }

    /// A worker that was silent since it was found has answered, and is believed.
    fn took_over(&self, heard: &mut Heard, found: Found) -> mpsc::Receiver<Incoming> {
        let phase = found.standing.phase;
        let end = adopt::end_of(&found.standing);
        self.view.send_modify(|view| found.show(view));
        let _ = self.link.set(found.client);
        let resets = found.standing.resets;
        heard.outbox.push(Notice::Responsive { phase, resets, end });
        if let Some(vcpus) = found.vcpus {
            heard.outbox.push(Notice::Vcpus(vcpus));
        }
        heard.missed(adopt::missed_of(&found.standing));
        heard.has_memory(found.memory);
        heard.has_ports(found.ports);
        found.incoming
    }

    async fn run(
        self,
        pidfd: AsyncFd<Arc<OwnedFd>>,
        mut incoming: mpsc::Receiver<Incoming>,
        mut log: Option<LogSocket>,
        mut heard: Heard,
    ) {
        let mut wanted = self.process.wanted.subscribe();
        loop {
            let patience = heard.closed.map(|closed| closed + CLOSED_GRACE);
            let waiting = !heard.outbox.is_empty();
            let (memory, lost) = (heard.memory.due(), heard.lost.due());
            let ports = heard.ports.due();
            let questions = &mut heard.questions;
            let (probing, listing) = (questions.probe.is_some(), questions.listing.is_some());
            let (asked, again) = (questions.asked, questions.again);
            tokio::select! {
                biased;
                // An error can only be the end of the runtime, and so of this task.
                _ = pidfd.readable() => break,
                () = self.left_alone() => return,
                permit = self.room(), if waiting => {
                    if let Some(notice) = heard.outbox.pop() {
                        permit.send(notice);
                    }
                }
                Some(item) = incoming.recv() => self.hear(&mut heard, item),
                record = next_record(&mut log) => self.record(&mut heard, record),
                () = self.process.missed.notified(), if !probing => self.silent(&mut heard),
                status = answer(&mut heard.questions.probe), if probing => {
                    self.answered(&mut heard, status);
                }
                listed = answer(&mut heard.questions.listing), if listing => {
                    self.listed(&mut heard, listed);
                }
                number = Self::wanted(&mut wanted, asked), if !listing => {
                    self.list(&mut heard, number);
                }
                () = until(again), if again.is_some() && !listing => {
                    self.list(&mut heard, asked);
                }
                () = until(lost), if lost.is_some() => {
                    heard.lost.take();
                    self.notify(&mut heard, Notice::Lost);
                }
                () = until(memory), if memory.is_some() => {
                    if let Some(guest) = heard.memory.take() {
                        self.notify(&mut heard, Notice::Memory(guest));
                    }
                }
                () = until(ports), if ports.is_some() => {
                    if let Some((slot, open)) = heard.ports.take() {
                        self.notify(&mut heard, Notice::Ports(slot, open));
                    }
                }
                () = until(patience), if patience.is_some() => {
                    self.violated(&mut heard, "it closed its control socket and lives on".into());
                    heard.closed = None;
                }
            }
        }
        self.bury(incoming, log, heard).await;
    }

    /// The process has ended: what it said last, the verdict, and the release of what it held.
    async fn bury(
        mut self,
        mut incoming: mpsc::Receiver<Incoming>,
        log: Option<LogSocket>,
        mut heard: Heard,
    ) {
        let status = self.child.reap();
        // What it said before it died is still in its sockets.
        let drain = async {
            while let Some(item) = incoming.recv().await {
                self.hear(&mut heard, item);
            }
        };
        let _ = tokio::time::timeout(DRAIN_DEADLINE, drain).await;
        for record in log.iter().flat_map(LogSocket::last_words) {
            self.record(&mut heard, record);
        }
        self.conclude(heard, status).await;
    }

    async fn conclude(self, mut heard: Heard, status: ExitStatus) {
        if self.handed().await {
            return self.succeeded(heard, status).await;
        }
        let mut evidence = heard.evidence;
        evidence.destroyed = self.process.destroyed.load(Ordering::Relaxed);
        evidence.stopped = self.process.stopped.load(Ordering::Relaxed);
        if self.tell.is_some() && evidence.stopped {
            // The machine of a guest that had ended was kept until it was asked to go.
            evidence.forget_guest();
        }
        let operation = if evidence.destroyed {
            Operation::Destroy
        } else {
            Operation::Shutdown
        };
        // One that is not kept belongs to a start that failed.
        let kept = self.process.kept.load(Ordering::Relaxed);
        let point = |moment| {
            if kept {
                crash::point(operation, moment);
            }
        };
        point(Moment::AfterOutcome);
        let death = evidence.judge(status);
        let (domain, uuid) = (&self.name, self.uuid);
        if death.cause.is_orderly() {
            tracing::info!(%domain, %uuid, "{death}");
        } else {
            tracing::error!(%domain, %uuid, "{death}");
        }
        release(self.child).await;
        point(Moment::AfterRelease);
        let verdict = if death.cause.was_asked_for() {
            Verdict::Asked
        } else {
            Verdict::Failed(death.to_string())
        };
        self.view
            .send_modify(|view| view.death = Some(Arc::new(death)));
        if let Some(tell) = self.tell {
            heard.outbox.push(Notice::Gone(verdict));
            while let Some(notice) = heard.outbox.pop() {
                // Its reader is gone with the daemon only.
                let _ = tell.send(notice).await;
            }
        }
    }

    /// Whether its machine is another worker's, once that is settled.
    async fn handed(&self) -> bool {
        let _settled = self.process.handing.lock().await;
        self.process.handed.load(Ordering::Relaxed)
    }

    /// It has ended after another worker took its machine over. What it had to tell by then is told;
    /// its end is no news.
    async fn succeeded(self, mut heard: Heard, status: ExitStatus) {
        let (domain, uuid, pid) = (&self.name, self.uuid, self.process.pid);
        tracing::debug!(%domain, %uuid, pid, ?status, "the worker before has ended");
        release(self.child).await;
        if let Some(tell) = self.tell {
            while let Some(notice) = heard.outbox.pop() {
                let _ = tell.send(notice).await;
            }
        }
    }

    /// Resolves when nobody listens any more to what a kept worker does; else never.
    async fn left_alone(&self) {
        match &self.tell {
            Some(tell) if self.process.kept.load(Ordering::Relaxed) => tell.closed().await,
            _ => std::future::pending().await,
        }
    }

    /// Room for a notice, once there is some.
    async fn room(&self) -> mpsc::Permit<'_, Notice> {
        if let Some(tell) = &self.tell {
            if let Ok(permit) = tell.reserve().await {
                return permit;
            }
        }
        std::future::pending().await
    }

    fn hear(&self, heard: &mut Heard, item: Incoming) {
        match item {
            Incoming::Hello(jail) => {
                self.view.send_modify(|view| view.jail = Some(jail));
                if fault::is_at(Step::AfterHello) {
                    self.process.kill();
                }
            }
            // It was in the report of a worker that was found.
            Incoming::Event(number, _) if number <= heard.last_event => {}
            Incoming::Event(number, event) => {
                let next = number == heard.last_event.wrapping_add(1);
                heard.last_event = number;
                if !next {
                    heard.lost.happened();
                }
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
            Event::GuestPoweredOff => {
                heard.evidence.powered_off = true;
                heard.end = Some(GuestEnd::PoweredOff);
            }
            Event::GuestWantsReset => {
                heard.evidence.reset = true;
                heard.end = Some(GuestEnd::Reset);
            }
            Event::DeviceRemoved { slot } => {
                // Of one that it has it is told as what happens to the domain.
                tracing::debug!(%domain, %uuid, %slot, "a device is gone");
                self.notify(heard, Notice::DeviceRemoved(slot.into()));
            }
            Event::PortRemoved { slot, number } => match u8::try_from(number) {
                Ok(port) if usize::from(number) < MAX_PORTS => {
                    tracing::debug!(%domain, %uuid, %slot, port, "a port is gone");
                    let place = DevicePlace::port(slot, port);
                    self.notify(heard, Notice::DeviceRemoved(place));
                }
                _ => {
                    let rule = "protocol violation: it has a port that no controller has";
                    self.violated(heard, rule.to_owned())
                }
            },
            Event::BalloonChanged {
                bytes,
                plugged_bytes,
            } => {
                tracing::debug!(%domain, %uuid, bytes, plugged_bytes, "the guest's memory has changed");
                heard.memory.changed(GuestMemory {
                    lent: bytes,
                    plugged: plugged_bytes,
                });
            }
            Event::PortsChanged { slot, guest_open } => {
                tracing::debug!(%domain, %uuid, %slot, guest_open, "the guest's open ports have changed");
                heard.questions.ports_told = true;
                heard.ports.changed((slot, OpenPorts(guest_open)));
            }
            Event::VcpusChanged(standing) => {
                if let Err(rule) = devices::vcpus_of(&standing) {
                    return self.violated(heard, rule);
                }
                let vcpus = standing.present.count();
                tracing::debug!(%domain, %uuid, vcpus, "the vCPUs have changed");
                self.notify(heard, Notice::Vcpus(standing));
            }
            Event::GuestCrashKernel => {
                tracing::warn!(%domain, %uuid, "the guest panicked, and starts its crash kernel");
                self.notify(heard, Notice::CrashKernel);
            }
            Event::WatchdogExpired { action } => {
                tracing::warn!(%domain, %uuid, %action, "the watchdog has expired");
                self.notify(heard, Notice::Watchdog(action));
            }
            Event::GuestReset { count } => {
                let before = self.view.borrow().resets;
                if count <= before {
                    self.violated(heard, format!("its resets went from {before} to {count}"));
                    return;
                }
                heard.evidence.reset = true;
                self.view.send_modify(|view| view.resets = count);
                tracing::debug!(%domain, %uuid, count, "the guest was reset");
                self.notify(heard, Notice::Reset(count));
            }
            Event::GuestCrashed(report) => {
                self.view
                    .send_modify(|view| view.crash = Some(report.clone()));
                heard.end = Some(GuestEnd::Crashed(report.clone()));
                heard.evidence.crash = Some(report);
            }
            Event::WorkerFailed { message } => {
                heard.evidence.failure = Some(quoted(&message));
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
        let end = match phase {
            Phase::Off => heard.end.take().unwrap_or(GuestEnd::PoweredOff),
            Phase::Crashed => heard.end.take().unwrap_or_else(adopt::crashed_unseen),
            _ => return,
        };
        self.notify(heard, Notice::GuestEnded(end));
    }

    fn notify(&self, heard: &mut Heard, notice: Notice) {
        if self.tell.is_some() && !heard.outbox.push(notice) {
            self.violated(heard, "its guest ends again and again".to_owned());
        }
    }

    fn record(&self, heard: &mut Heard, record: Record) {
        match record {
            Record::Denial(denial) => heard.evidence.denial = Some(denial),
            Record::Strays => self.violated(heard, "a worker sends no descriptors".to_owned()),
            Record::Line(level, line) => {
                relay(level, &self.name, self.uuid, &line);
                if level == tracing::Level::ERROR {
                    heard.evidence.last_error = Some(quoted(&line));
                }
            }
        }
    }

    fn violated(&self, heard: &mut Heard, rule: String) {
        heard.evidence.violation.get_or_insert(quoted(&rule));
        self.process.kill();
    }
}

/// Releases what a dead worker held. What may have to wait does so elsewhere.
pub(super) async fn release(child: Child) {
    if child.takes_time() {
        // Failing means that the release has panicked; there is nothing left to do then.
        let _ = tokio::task::spawn_blocking(move || drop(child)).await;
    }
}

async fn next_record(log: &mut Option<LogSocket>) -> Record {
    match log {
        Some(log) => log.next().await,
        None => std::future::pending().await,
    }
}

/// What comes of a future that may not be there; pends for good where it is not.
async fn answer<F: Future + Unpin>(future: &mut Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
